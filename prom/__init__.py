"""ProM: learned k-space sampling for MRI. The public names; every other module describes itself at its top.

``import prom`` takes no time: a name is imported when it is first used, and PyTorch with the first that needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with HOMES
    from prom import baselines
    from prom.datasets import SliceDataset, load
    from prom.errors import InputError
    from prom.evaluation import segmentation
    from prom.evaluation.evaluate import evaluate
    from prom.kspace.fourier import fft2c, ifft2c
    from prom.learn.layer import MaskLayer
    from prom.learn.optimize import optimize
    from prom.learn.polish import polish
    from prom.learn.recipes import DEFAULT, PAPER, POLISHED, Recipe
    from prom.masks import MaskResult, load_mask
    from prom.masks.projection import project
    from prom.objectives import curvature
    from prom.reconstruction.zero_filled import undersample

__all__ = [
    "DEFAULT",
    "PAPER",
    "POLISHED",
    "InputError",
    "MaskLayer",
    "MaskResult",
    "Recipe",
    "SliceDataset",
    "baselines",
    "curvature",
    "evaluate",
    "fft2c",
    "ifft2c",
    "load",
    "load_mask",
    "optimize",
    "polish",
    "project",
    "segmentation",
    "undersample",
]

# Where each public name is that is no module of that name.
HOMES = {
    "DEFAULT": "learn.recipes",
    "PAPER": "learn.recipes",
    "POLISHED": "learn.recipes",
    "InputError": "errors",
    "MaskLayer": "learn.layer",
    "MaskResult": "masks",
    "Recipe": "learn.recipes",
    "SliceDataset": "datasets",
    "evaluate": "evaluation.evaluate",
    "fft2c": "kspace.fourier",
    "ifft2c": "kspace.fourier",
    "load": "datasets",
    "load_mask": "masks",
    "optimize": "learn.optimize",
    "polish": "learn.polish",
    "project": "masks.projection",
    "undersample": "reconstruction.zero_filled",
}


# The folders of the package. A module in one of them is found by its own name as well, the first of two, where
# no public function has it: prom.figures is prom.show.figures.
ROOMS = (
    "kspace",
    "reconstruction",
    "objectives",
    "masks",
    "learn",
    "baselines",
    "evaluation",
    "datasets",
    "scanner",
    "runs",
    "show",
    "engine",
)


class _Package(ModuleType):
    """A package whose names are imported when they are first used."""

    def __getattr__(self, name: str) -> object:
        room = next((f"{room}." for room in ROOMS if (Path(__file__).parent / room / f"{name}.py").exists()), "")
        home = f"{self.__name__}.{HOMES.get(name, room + name)}"
        if name.startswith("_") or find_spec(home) is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        module = import_module(home)
        value = getattr(module, name) if name in HOMES else module
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
