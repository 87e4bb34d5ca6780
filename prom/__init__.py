"""ProM: learned k-space sampling for MRI. The public names; every other module says at its top what it does.

``import prom`` takes no time: a name is imported when it is first asked for, and PyTorch with the first that needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with HOMES
    from prom import baselines, segmentation
    from prom.datasets import SliceDataset, load
    from prom.errors import InputError
    from prom.evaluate import evaluate
    from prom.fourier import fft2c, ifft2c
    from prom.layer import MaskLayer
    from prom.masks import MaskResult, load_mask
    from prom.objectives import curvature
    from prom.optimize import optimize
    from prom.polish import polish
    from prom.projection import project
    from prom.recipes import DEFAULT, PAPER, POLISHED, Recipe
    from prom.zero_filled import undersample

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

# Where each public name is that is not a module right here.
HOMES = {
    "DEFAULT": "recipes",
    "PAPER": "recipes",
    "POLISHED": "recipes",
    "InputError": "errors",
    "MaskLayer": "layer",
    "MaskResult": "masks",
    "Recipe": "recipes",
    "SliceDataset": "datasets",
    "curvature": "objectives",
    "evaluate": "evaluate",
    "fft2c": "fourier",
    "ifft2c": "fourier",
    "load": "datasets",
    "load_mask": "masks",
    "optimize": "optimize",
    "polish": "polish",
    "project": "projection",
    "undersample": "zero_filled",
}


class _Package(ModuleType):
    """A package whose names are imported when they are first asked for."""

    def __getattr__(self, name: str) -> object:
        home = f"{self.__name__}.{HOMES.get(name, name)}"
        if name.startswith("_") or find_spec(home) is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        module = import_module(home)
        value = getattr(module, name) if name in HOMES else module
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # After `import prom.optimize`, from wherever, Python sets prom.optimize to the module; it stays the function of that name.
        if isinstance(value, ModuleType) and HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
