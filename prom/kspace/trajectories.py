"""Candidates of readouts that leave the grid: spokes, spiral arms, spokes in 3D, or a list of one's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.errors import InputError, unknown
from prom.kspace.patterns import READOUTS, Readouts

if TYPE_CHECKING:
    from prom.kspace.nonuniform import NonUniform

GOLDEN = (math.sqrt(5) - 1) / 2
ARRAYS = {"points": "<f4", "full": "<i8", "turns": "<f8"}  # in a mask's file
MOST = 2**24  # samples of all candidates


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The readouts of which a mask chooses some.

    Attributes
    ----------
    points
        ``(K, R, axes)`` float32: the R spatial frequencies of each of K candidates, in cycles per field of view, rows first.
    kind
        "spokes", "spirals", "kooshball", or "readouts" of a list of one's own: the pattern of its masks.
    full
        How many readouts a full scan of the grid takes, one a line, to which accelerations refer: those that last as long.
    turns
        ``(K,)``, the angle of each candidate as a share of what it takes to come back to the same, 0 to 1; None where a single angle does
        not say it.

    Raises
    ------
    InputError
        Where shapes do not fit, or a number is not finite.

    >>> candidates = spokes(8, size=4)
    >>> candidates.points.shape, candidates.full, candidates.turns[:3].tolist()
    (torch.Size([8, 4, 2]), 4, [0.0, 0.125, 0.25])
    """

    points: Tensor
    kind: str = "readouts"
    full: int = 1
    turns: Tensor | None = None
    _made: dict[tuple[int, ...], NonUniform] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shape = tuple(self.points.shape)
        if len(shape) != 3 or shape[-1] not in (2, 3) or not 0 < self.points.numel() <= 3 * MOST:
            raise InputError(f"trajectory of shape {shape}: must be (readouts, samples, 2 or 3), at most {MOST} samples")
        if not self.points.dtype.is_floating_point or not self.points.isfinite().all():
            raise InputError(f"trajectory of type {self.points.dtype}: must be finite floating-point numbers, in cycles per field of view")
        if self.kind not in READOUTS:
            raise unknown("pattern", self.kind, READOUTS)
        options.check("full", self.full, "[1, 1e9]", whole=True)
        if self.turns is not None and (tuple(self.turns.shape) != shape[:1] or not ((self.turns >= 0) & (self.turns < 1)).all()):
            raise InputError(f"turns: must be {shape[0]} shares of a turn, from 0 to below 1, one for each readout")
        object.__setattr__(self, "points", self.points.float())

    def __len__(self) -> int:
        return len(self.points)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps of it, by name; :meth:`from_arrays` makes it again."""
        found = {"points": self.points, "full": torch.tensor([self.full]), "turns": self.turns}
        return {name: found[name].numpy().astype(dtype) for name, dtype in ARRAYS.items() if found[name] is not None}

    @classmethod
    def from_arrays(cls, kind: str, arrays: dict[str, np.ndarray]) -> Trajectory:
        """Of what :meth:`arrays` gave.

        >>> made = Trajectory.from_arrays("spokes", spokes(8, size=4).arrays())
        >>> made.full, bool((made.points == spokes(8, size=4).points).all())
        (4, True)
        """
        if len(arrays["full"]) != 1:
            raise InputError(f"full: is {len(arrays['full'])} numbers; must be one")
        turns = torch.from_numpy(arrays["turns"]) if "turns" in arrays else None
        return cls(torch.from_numpy(arrays["points"]), kind, int(arrays["full"][0]), turns)

    def lines(self, image: tuple[int, ...], frames: bool = False) -> Readouts:
        """The pattern of masks for images of this shape, ``(H, W)``, ``(D, H, W)`` or, with ``frames``, ``(T, H, W)``.

        >>> spokes(8, size=4).lines((4, 4)).samples, spokes(8, size=4).lines((5, 4, 4), frames=True).shape
        ((8, 4), (5, 8))
        """
        samples = tuple(self.points.shape[:2])
        if len(image) == 2:
            return Readouts(samples, (-1,), kind=self.kind, full_scan=self.full)
        if frames:
            return Readouts((image[0], *samples), (-1,), frames=True, kind=self.kind, full_scan=self.full * image[0])
        return Readouts((1, *samples), (-3, -1), kind=self.kind, full_scan=self.full)

    def encoding(self, image: tuple[int, ...]) -> NonUniform:
        """The transform of images of this shape at all candidates, made once."""
        from prom.kspace.nonuniform import NonUniform

        if image not in self._made:
            axes = self.points.shape[-1]
            if len(image) < axes:
                raise InputError(f"trajectory of {axes} axes: is of volumes, and these images are {tuple(image)}; read them with grid=True")
            lead = () if len(image) == 2 else (image[0] if axes == 2 else 1,)
            self._made[image] = NonUniform(self.points.expand(*lead, *self.points.shape), image)
        return self._made[image]


def spokes(candidates: int, size: int, samples: int | None = None) -> Trajectory:
    r"""Radial readouts through the centre at K angles evenly over half a turn, :math:`\vartheta_i = \pi i / K`.

    Sample r of R is at :math:`(r - \lfloor R / 2 \rfloor) \, N / R` cycles per field of view along
    :math:`(\sin \vartheta, \cos \vartheta)`. A spoke of R = N samples lasts as long as a line of the N x N grid.

    Parameters
    ----------
    candidates
        K.
    size
        N, of the images. A full scan of the grid has N lines.
    samples
        R; by default N. With 2 N the readout is oversampled twice.

    >>> spokes(4, size=4).points[1].mul(2**0.5).round().tolist()                       # 45 degrees
    [[-2.0, -2.0], [-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    candidates, size, samples = _checked(candidates, size, samples)
    turns = torch.arange(candidates, dtype=torch.float64) / candidates
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) * size / samples
    direction = torch.stack([(math.pi * turns).sin(), (math.pi * turns).cos()], dim=-1)
    return Trajectory((radius[:, None] * direction[:, None]).float(), "spokes", size, turns)


def spirals(candidates: int, size: int, samples: int | None = None, arms: int = 16, power: float = 1.0) -> Trajectory:
    r"""Arms of an Archimedean spiral from the centre outwards, rotated to K angles evenly over a whole turn.

    With t from 0 to 1 along an arm, :math:`|k| = \tfrac{N}{2} t^p` at the angle :math:`\vartheta_i + 2 \pi \, n \, t^p`, n = N / (2 arms)
    turns, so that so many arms, evenly rotated, are one cycle per field of view apart: a full scan. Samples are evenly along the arm,
    p = 1/2 about even in time at the speed that gradients allow; with p > 1 the centre is measured more densely.

    Parameters
    ----------
    candidates, size
        As :func:`spokes`.
    samples
        R of an arm; by default as many as its length in cycles per field of view, so that neighbours are one apart.
    arms
        How many of them would sample the grid's disc fully.
    power
        p > 0: of the density towards the centre.

    >>> arms = spirals(32, size=16, arms=8)
    >>> arms.points.shape, arms.full, round(float(arms.points.norm(dim=-1).max()), 3)
    (torch.Size([32, 28, 2]), 8, 8.0)
    """
    options.check("arms", arms, "[1, 1e6]", whole=True)
    options.check("power", power, "(0, 100]")
    windings = size / (2 * arms)
    fine = torch.linspace(0, 1, 20_000, dtype=torch.float64) ** power
    curve = _arm(fine, size, windings)
    along = torch.cat([torch.zeros(1, dtype=torch.float64), (curve[1:] - curve[:-1]).norm(dim=-1).cumsum(0)])
    candidates, size, samples = _checked(candidates, size, samples or math.ceil(float(along[-1])))
    wanted = torch.linspace(0, float(along[-1]), samples, dtype=torch.float64)
    place = torch.searchsorted(along, wanted).clamp(max=len(fine) - 1)
    arm = _arm(fine[place], size, windings)
    turns = torch.arange(candidates, dtype=torch.float64) / candidates
    angles = 2 * math.pi * turns
    sine, cosine = angles.sin(), angles.cos()
    turned = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
    return Trajectory(torch.einsum("kab,rb->kra", turned, arm).float(), "spirals", arms, turns)


def kooshball(candidates: int, size: int, samples: int | None = None) -> Trajectory:
    r"""Spokes in 3D whose K directions lie evenly over half of a sphere, as the seeds of a sunflower do.

    Direction i has the height :math:`z_i = (i + 1/2) / K` and the azimuth :math:`2 \pi i \varphi`, with the golden ratio
    :math:`\varphi` (Vogel 1979, doi:10.1016/0025-5564(79)90080-4; Piccini et al. 2011, doi:10.1002/mrm.22898). A full scan of the
    N x N x N grid has N^2 lines.

    >>> directions = kooshball(100, size=8).points[:, 0] / -4
    >>> directions.shape, bool((directions.norm(dim=-1) - 1 < 1e-6).all())
    (torch.Size([100, 3]), True)
    """
    candidates, size, samples = _checked(candidates, size, samples)
    index = torch.arange(candidates, dtype=torch.float64)
    height = (index + 0.5) / candidates
    azimuth, rest = 2 * math.pi * GOLDEN * index, (1 - height**2).sqrt()
    direction = torch.stack([height, rest * azimuth.sin(), rest * azimuth.cos()], dim=-1)
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) * size / samples
    return Trajectory((radius[:, None] * direction[:, None]).float(), "kooshball", size**2)


MAKERS = {"spokes": spokes, "spirals": spirals, "kooshball": kooshball}


def make(kind: str, image: tuple[int, ...], candidates: int) -> Trajectory:
    """The candidates of that kind for images of this shape, whose sides must be equal: a cycle per field of view is one length.

    Raises
    ------
    InputError
        Where the kind is not known, or the images do not fit it.

    >>> make("spokes", (8, 8), 16).points.shape
    torch.Size([16, 8, 2])
    >>> make("spokes", (8, 6), 16)
    Traceback (most recent call last):
    prom.errors.InputError: pattern spokes: is for images with equal sides, and these are (8, 6); crop or pad them
    """
    if kind not in MAKERS:
        raise unknown("pattern", kind, MAKERS)
    sides = image if kind == "kooshball" else image[-2:]
    if kind == "kooshball" and len(image) != 3:
        raise InputError(f"pattern kooshball: is of volumes, and these images are {tuple(image)}; read them as volumes, grid=True")
    if len(set(sides)) > 1:
        raise InputError(f"pattern {kind}: is for images with equal sides, and these are {tuple(sides)}; crop or pad them")
    return MAKERS[kind](candidates, image[-1])


def _arm(radius: Tensor, size: int, windings: float) -> Tensor:
    angle = 2 * math.pi * windings * radius
    return size / 2 * radius[:, None] * torch.stack([angle.sin(), angle.cos()], dim=-1)


def _checked(candidates: int, size: int, samples: int | None) -> tuple[int, int, int]:
    options.check("candidates", candidates, "[1, 1e6]", whole=True)
    options.check("size", size, "[2, 4096]", whole=True)
    return candidates, size, options.check("samples", samples or size, "[2, 1e6]", whole=True)
