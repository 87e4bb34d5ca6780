"""Small scans of every kind, and what independent programs find in them: trajectories, labels and waveforms by pypulseq."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pypulseq
import torch
from torch import Tensor

from prom import SliceDataset, baselines
from prom.kspace.coils import simulated
from prom.masks import MaskResult
from prom.masks.demands import Demands
from prom.scanner.protocol import Protocol
from prom.scanner.sequence import Scan, make, write

GRID_STEP = 1e-3  # of a grid step: what a sample may lie off its place
MOST = 1 + 1e-5  # times a limit: amplitudes have six digits


def random_mask(pattern: str, shape: tuple[int, int], share: float = 0.4, seed: int = 0) -> MaskResult:
    """Lines or points drawn at random, DC among them."""
    size = {"columns": (shape[1],), "rows": (shape[0],), "points": shape}[pattern]
    selected = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share
    selected[tuple(n // 2 for n in size)] = True
    return of(selected, pattern, shape)


def of(selected: Tensor, pattern: str, shape: tuple[int, int], name: str = "drawn") -> MaskResult:
    """A mask of these lines ``(n,)`` or points ``(H, W)``."""
    mask = {"columns": lambda: selected.expand(shape), "rows": lambda: selected[:, None].expand(shape), "points": lambda: selected}
    mask = mask[pattern]().contiguous()
    return baselines.as_result(mask, name, mask.numel() / int(mask.sum()), pattern)


def baseline(name: str, pattern: str, shape: tuple[int, int], acceleration: float, **options: object) -> MaskResult:
    """The mask of a baseline for random images in three coils."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 1, *shape, generator=generator)
    maps = {}
    if name == "repulsion":
        images, maps = images.to(torch.complex64), {"sensitivities": simulated(3, shape), "noise": 0.1}
    data = SliceDataset("noise", "train", images, ["a", "b"], [0, 0], **maps)
    if demands := options.pop("demands", None):
        options["demands"] = Demands(**demands)
    mask = baselines.get(name)(data, acceleration, pattern, 0, **options)
    return baselines.as_result(mask, name, acceleration, pattern, train=data, options=options)


@dataclass(frozen=True, eq=False)
class Case:
    """A mask with the settings of its sequence."""

    result: MaskResult
    settings: dict[str, object]

    @property
    def protocol(self) -> Protocol:
        return Protocol(**self.settings)


CASES = {  # even and odd, no two axes alike, fields of view of unequal sides
    "gre2d, random columns": lambda: Case(random_mask("columns", (20, 24)), {"fov": (220,), "tr": 8, "te": 4, "dummies": 2}),
    "gre2d, repulsion, rows": lambda: Case(
        baseline("repulsion", "rows", (31, 22), 3, demands={"calibration": 5}), {"fov": (180, 240.5), "order": "centric", "dummies": 0}
    ),
    "gre2d, equispaced columns": lambda: Case(
        baseline("equispaced", "columns", (18, 27), 3),
        {"order": "interleaved", "shots": 3, "flip": 20, "thickness": 8, "tr": 100, "pulse": 1.5, "field": 0.55},
    ),
    "gre3d, random points": lambda: Case(
        random_mask("points", (16, 19), 0.25), {"fov": (200, 220, 160), "readout": 24, "dummies": 1, "thickness": 120}
    ),
    "gre3d, Poisson disc": lambda: Case(
        baseline("poisson_disc", "points", (21, 17), 4, calibration=5), {"order": "radial", "tr": 9.5, "te": 4.321, "dummies": 3}
    ),
    "gre3d, repulsion": lambda: Case(
        baseline("repulsion", "points", (15, 14), 3, demands={"calibration": 4}), {"order": "shortest", "bandwidth": 500, "dummies": 0}
    ),
    "tse2d, random columns": lambda: Case(
        of(torch.arange(24) % 2 == 0, "columns", (20, 24)), {"kind": "tse", "echoes": 4, "tr": 500, "fov": (240, 200)}
    ),
    "tse2d, repulsion, rows": lambda: Case(
        baseline("repulsion", "rows", (33, 20), 2.19, demands={"calibration": 6}), {"kind": "tse", "echoes": 5, "te": 60, "tr": 800}
    ),
    "tse2d, energy, odd columns": lambda: Case(
        baseline("energy", "columns", (17, 27), 3),
        {"kind": "tse", "echoes": 3, "te": 30, "refocusing": 120, "bandwidth": 401.7, "dummies": 2},
    ),
    "gre2d, oversampled odd rows": lambda: Case(random_mask("rows", (20, 15)), {"fov": (220, 180), "oversampling": 2, "dummies": 1}),
    "gre3d, oversampled": lambda: Case(
        random_mask("points", (10, 9), 0.3), {"fov": (200, 220, 160), "readout": 12, "oversampling": 3, "dummies": 0, "tr": 12}
    ),
    "tse2d, oversampled columns": lambda: Case(
        of(torch.arange(24) % 2 == 0, "columns", (20, 24)), {"kind": "tse", "echoes": 4, "tr": 500, "oversampling": 2}
    ),
}


@cache
def case(name: str) -> Case:
    """One of CASES, made once."""
    return CASES[name]()


@cache
def scan(name: str) -> Scan:
    """Its sequence, made once."""
    return make(case(name).result, case(name).protocol, name)


def reread(made: Scan, folder: Path) -> pypulseq.Sequence:
    """The sequence as pypulseq reads it from the file."""
    write(made, folder / "scan.seq")
    sequence = pypulseq.Sequence()
    sequence.read(str(folder / "scan.seq"))
    return sequence


@dataclass(frozen=True, eq=False)
class Measured:
    """What is measured: k-space ``(S, samples, 3)`` in 1/m, times in s of samples ``(S, samples)``, and of pulses."""

    kspace: np.ndarray
    times: np.ndarray
    excitations: np.ndarray
    refocusing: np.ndarray

    @property
    def pulses(self) -> np.ndarray:
        """The number of the excitation before each readout."""
        return np.searchsorted(self.excitations, self.times[:, 0]) - 1


def measured(sequence: pypulseq.Sequence, samples: int) -> Measured:
    """By pypulseq's own integration of the gradients."""
    kspace, _, excitations, refocusing, times = sequence.calculate_kspace()
    return Measured(kspace.T.reshape(-1, samples, 3), times.reshape(-1, samples), np.array(excitations), np.array(refocusing))


def moments(sequence: pypulseq.Sequence, times: np.ndarray) -> np.ndarray:
    """The integrals of the gradients from the start, 1/m, at these times: ``(times, 3)``, with no regard to pulses."""
    columns = [np.zeros_like(times) if pp is None else pp.antiderivative()(times) for pp in sequence.get_gradients()]
    return np.stack(columns, axis=-1)


def grid(made: Scan, kspace: np.ndarray) -> np.ndarray:
    """K-space in 1/m as numbers of samples, lines and partitions, which are whole where all is right."""
    times = made.plan.samples // made.plan.matrix[0]  # oversampled
    centre = np.array([made.plan.samples // 2, made.plan.matrix[1] // 2, made.plan.matrix[2] // 2])
    return kspace * np.array(made.plan.fov) * (times, 1, 1) + centre
