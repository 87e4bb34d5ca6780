"""Candidates of readouts that leave the grid: spokes, spiral arms, spokes in 3D, or a list of one's own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.errors import InputError, unknown
from prom.kspace.nonuniform import NonUniform
from prom.kspace.patterns import READOUTS, Readouts

GOLDEN = (math.sqrt(5) - 1) / 2
ARRAYS = {"points": "<f4", "full": "<i8", "turns": "<f8"}  # in a mask's file
MOST = 2**24  # samples of all candidates
UNITS = ("cycles", "mri-nufft")  # of trajectories out of files
REACH = 1e-3  # cycles per field of view by which rounding may go beyond the image's resolution


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
    _made: dict[tuple[int, ...], NonUniform] = field(default_factory=dict, init=False, repr=False)  # none is handed on by replace

    def __post_init__(self) -> None:
        shape = tuple(self.points.shape)
        if len(shape) != 3 or shape[-1] not in (2, 3) or not 0 < self.points.numel() <= shape[-1] * MOST:
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

    @cached_property
    def key(self) -> str:
        """16 hex digits of the points: other candidates, or the same in another order, have others.

        >>> spokes(4, size=4).key == spokes(4, size=4).key, spokes(4, size=4).key == spirals(4, size=4).key
        (True, False)
        """
        return hashlib.sha256(repr(tuple(self.points.shape)).encode() + self.points.numpy().tobytes()).hexdigest()[:16]

    @property
    def degrees(self) -> Tensor | None:
        """``(K,)`` float64: the angle of each spoke, of a half turn, or spiral arm, of a whole one; None where there are no turns.

        An angle of 0 goes along the columns' index, x, and one of 90 along the rows', y.

        >>> spokes(4, size=4).degrees.tolist(), spirals(4, size=8).degrees.tolist()
        ([0.0, 45.0, 90.0, 135.0], [0.0, 90.0, 180.0, 270.0])
        """
        return None if self.turns is None else self.turns.double() * (360 if self.kind == "spirals" else 180)

    def chosen(self, mask: Tensor) -> Tensor:
        """The points of the readouts that a mask measures, ``(S, R, axes)`` float32, in cycles per field of view, rows first.

        Parameters
        ----------
        mask
            ``(K, R)`` bool, or of volumes ``(1, K, R)``. Of a series take one frame.

        Raises
        ------
        InputError
            Where it is of another shape, or has a readout in part.

        >>> candidates = spokes(8, size=4)
        >>> mask = (torch.arange(8) % 4 == 0)[:, None].expand(8, 4)
        >>> bool((candidates.chosen(mask) == candidates.points[[0, 4]]).all())
        True
        """
        samples = tuple(self.points.shape[:2])
        if mask.ndim == 3 and len(mask) == 1:
            mask = mask[0]
        if tuple(mask.shape) != samples:
            way = "; take one of its frames, mask[t]" if mask.ndim == 3 else ""
            raise InputError(f"mask of {tuple(mask.shape)}: does not fit candidates of {samples}{way}")
        return self.points[Readouts(samples, (-1,), kind=self.kind, full_scan=self.full).select(mask)]

    def to_mri_nufft(self, mask: Tensor, image: Sequence[int]) -> np.ndarray:
        r"""The readouts that a mask measures as mri-nufft takes them: ``(S, R, axes)`` float32 in [-0.5, 0.5], :math:`k_a / N_a`.

        mri-nufft pairs the last index with the axes of the image array as it is, so that here, too, rows come first: with
        ``shape=(H, W)`` its operator takes prom's images. Source: https://mind-inria.github.io/mri-nufft/.

        Parameters
        ----------
        mask
            As :meth:`chosen`.
        image
            ``(H, W)`` or ``(D, H, W)``.

        Raises
        ------
        InputError
            Where the mask does not fit, or the image has another number of axes.

        >>> candidates, mask = spokes(8, size=4), torch.ones(8, 4, dtype=torch.bool)
        >>> candidates.to_mri_nufft(mask, (4, 4))[0, :, 1].tolist()
        [-0.5, -0.25, 0.0, 0.25]
        """
        return (self.chosen(mask).double() / _sides(image, self.points.shape[-1])).float().numpy()

    def lines(self, image: tuple[int, ...], frames: bool = False) -> Readouts:
        """The pattern of masks for images of this shape, ``(H, W)``, ``(D, H, W)`` or, with ``frames``, ``(T, H, W)``.

        >>> spokes(8, size=4).lines((4, 4)).samples, spokes(8, size=4).lines((5, 4, 4), frames=True).shape
        ((8, 4), (5, 8))
        """
        samples = tuple(self.points.shape[:2])
        own = {"kind": self.kind, "full_scan": self.full, "key": self.key}
        if len(image) == 2:
            return Readouts(samples, (-1,), **own)
        if frames:
            return Readouts((image[0], *samples), (-1,), frames=True, **own | {"full_scan": self.full * image[0]})
        return Readouts((1, *samples), (-3, -1), **own)

    def check_image(self, image: tuple[int, ...]) -> None:
        """Refuse images of another size than the candidates were made for: their acceleration and resolution would be others.

        What readouts of one's own were made for is not known, except that they do not go beyond it.

        Raises
        ------
        InputError
            Where :func:`spokes`, :func:`spirals` or :func:`kooshball` of these images reach farther, or less far.

        >>> spokes(8, size=4).check_image((6, 6))
        Traceback (most recent call last):
        prom.errors.InputError: spokes: were made for images of 4 x 4, and these are (6, 6); make the mask for these (readouts of your own \
are of the kind 'readouts')
        """
        if self.kind in MAKERS:
            sides, length = image[-self.points.shape[-1] :], self.points.shape[1]
            size = 2 * float(self.points.norm(dim=-1).max())
            if self.kind != "spirals":  # of an odd number of samples the outermost is half a step farther in
                size *= length / max(1, length - length % 2)
            if any(abs(size - side) > REACH * side for side in sides):
                made = " x ".join([f"{size:.4g}"] * self.points.shape[-1])
                raise InputError(
                    f"{self.kind}: were made for images of {made}, and these are {tuple(image)}; make the mask for these (readouts of your "
                    "own are of the kind 'readouts')"
                )

    def encoding(self, image: tuple[int, ...]) -> NonUniform:
        """The transform of images of this shape at all candidates, made once."""
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


def spirals(candidates: int, size: int, samples: int | None = None, arms: int = 16) -> Trajectory:
    r"""Arms of an Archimedean spiral from the centre outwards, rotated to K angles evenly over a whole turn.

    With t from 0 to 1 along an arm, :math:`|k| = \tfrac{N}{2} t` at the angle :math:`\vartheta_i + 2 \pi \, n \, t`, n = N / (2 arms)
    turns, so that so many arms, evenly rotated, are one cycle per field of view apart: a full scan. Samples lie evenly along the arm.

    Parameters
    ----------
    candidates, size
        As :func:`spokes`.
    samples
        R of an arm; by default as many as its length in cycles per field of view, so that neighbours are one apart.
    arms
        How many of them would sample the grid's disc fully.

    >>> arms = spirals(32, size=16, arms=8)
    >>> arms.points.shape, arms.full, round(float(arms.points.norm(dim=-1).max()), 3)
    (torch.Size([32, 28, 2]), 8, 8.0)
    """
    options.check("arms", arms, "[1, 1e6]", whole=True)
    options.check("size", size, "[2, 4096]", whole=True)
    windings = size / (2 * arms)
    fine = torch.linspace(0, 1, 20_000, dtype=torch.float64)
    curve = _arm(fine, size, windings)
    along = torch.cat([torch.zeros(1, dtype=torch.float64), (curve[1:] - curve[:-1]).norm(dim=-1).cumsum(0)])
    candidates, size, samples = _checked(candidates, size, math.ceil(float(along[-1])) if samples is None else samples)
    wanted = np.linspace(0, float(along[-1]), samples)
    arm = _arm(torch.from_numpy(np.interp(wanted, along.numpy(), fine.numpy())), size, windings)
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


def make(kind: str, image: tuple[int, ...], candidates: int, frames: bool = False) -> Trajectory:
    """The candidates of that kind for images of this shape, whose sides must be equal: a cycle per field of view is one length.

    With ``frames`` the first of three axes is that of time.

    Raises
    ------
    InputError
        Where the kind is not known, or the images do not fit it.

    >>> make("spokes", (8, 8), 16).points.shape
    torch.Size([16, 8, 2])
    >>> make("spokes", (8, 6), 16)
    Traceback (most recent call last):
    prom.errors.InputError: pattern spokes: is for images with equal sides, and these are (8, 6); crop or pad them (size=6,6)
    """
    if kind not in MAKERS:
        raise unknown("pattern", kind, MAKERS)
    if kind != "kooshball" and len(image) != 2 + frames:
        raise InputError(
            f"pattern {kind}: is of slices, or of series in time, and these images are {tuple(image)}; use kooshball, or slices"
        )
    sides = image if kind == "kooshball" else image[-2:]
    if kind == "kooshball" and frames:
        raise InputError("pattern kooshball: is of volumes, and these are series in time; use spokes or spirals")
    if kind == "kooshball" and len(image) != 3:
        raise InputError(f"pattern kooshball: is of volumes, and these images are {tuple(image)}; read them as volumes, grid=True")
    if kind == "kooshball" and sides[1] == sides[2] != sides[0]:
        way = f"read volumes of {sides[1]} slices, or crop or pad these in the plane (size={sides[0]},{sides[0]})"
        raise InputError(f"pattern kooshball: is for volumes with equal sides, and these are {tuple(sides)}; {way}")
    if len(set(sides)) > 1:
        side = min(sides)
        raise InputError(
            f"pattern {kind}: is for images with equal sides, and these are {tuple(sides)}; crop or pad them (size={side},{side})"
        )
    return MAKERS[kind](candidates, image[-1])


def from_array(
    array: np.ndarray, unit: str, image: Sequence[int], kind: str = "readouts", full: int | None = None, name: str = "trajectory"
) -> Trajectory:
    """The candidates of a numeric array of one's own; what its numbers mean is named, never guessed.

    Parameters
    ----------
    array
        ``(K, R, axes)`` of finite real numbers, rows first, as the axes of an image array.
    unit
        "cycles" per field of view, or "mri-nufft": those over the size of the image, [-0.5, 0.5].
    image
        ``(H, W)`` or ``(D, H, W)``, which they must not go beyond.
    kind
        "readouts", or what they are called.
    full
        How many readouts a full scan takes; by default the lines of a Cartesian scan of the image, H or D H.
    name
        What the message calls them.

    Raises
    ------
    InputError
        Where shape, type, unit or numbers do not fit.

    >>> array = spokes(8, size=4).to_mri_nufft(torch.ones(8, 4, dtype=torch.bool), (4, 4))
    >>> bool((from_array(array, "mri-nufft", (4, 4)).points == spokes(8, size=4).points).all())
    True
    >>> from_array(array, "cycles", (4, 4))                                          # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prom.errors.InputError: trajectory: goes to 0.5 cycles per field of view only; if that is a share of the image's size, ...
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[-1] not in (2, 3) or not 0 < array.size <= array.shape[-1] * MOST:
        raise InputError(f"{name} of shape {array.shape}: must be (readouts, samples, 2 or 3), at most {MOST} samples")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} of type {array.dtype}: must be real numbers")
    points = torch.from_numpy(array.astype(np.float64))
    if not points.isfinite().all():
        raise InputError(f"{name}: has {int((~points.isfinite()).sum())} numbers that are not finite; mend it")
    sides = _sides(image, array.shape[-1])
    points = points * sides if unit == "mri-nufft" else points
    reach, most = points.abs().amax(dim=(0, 1)), sides / 2 + REACH
    if bool((reach > most).any()):
        cycles = unit == "mri-nufft" and bool((reach / sides <= most).all()) and bool((reach / sides >= sides / 4).any())
        radians = _radians(points / sides) if unit == "mri-nufft" else ""
        way = radians or ("name the other unit, or " if cycles else "")
        raise InputError(
            f"{name}: goes to {float(reach.max()):g} cycles per field of view (unit {unit}), and images of {tuple(image)} have half their "
            f"size at most; {way}take larger images"
        )
    if unit == "cycles" and (way := _radians(points)):
        raise InputError(f"{name}: goes to pi cycles per field of view; {way}take other candidates")
    if float(reach.max()) <= 0.5 + REACH:
        way = "; if that is a share of the image's size, name the unit mri-nufft" if unit == "cycles" else ""
        raise InputError(f"{name}: goes to {float(reach.max()):g} cycles per field of view only{way}")
    return Trajectory(points.float(), kind, (math.prod(image[-array.shape[-1] : -1])) if full is None else full)


def _radians(points: Tensor) -> str:
    """The way out where numbers end at pi, as radians do."""
    ends = points.abs().max(), points.norm(dim=-1).max()  # of squares, and of discs
    found = any(abs(float(end) - math.pi) < REACH for end in ends)
    return "if these are radians, divide them by 2 pi and name the unit mri-nufft, or " if found else ""


def _sides(image: Sequence[int], axes: int) -> Tensor:
    if len(image) != axes:
        raise InputError(f"image of {tuple(image)}: has {len(image)} axes, and the trajectory has {axes}")
    return torch.tensor([options.check("size", size, "[1, 1e6]", whole=True) for size in image], dtype=torch.float64)


def _arm(radius: Tensor, size: int, windings: float) -> Tensor:
    angle = 2 * math.pi * windings * radius
    return size / 2 * radius[:, None] * torch.stack([angle.sin(), angle.cos()], dim=-1)


def _checked(candidates: int, size: int, samples: int | None) -> tuple[int, int, int]:
    options.check("candidates", candidates, "[1, 1e6]", whole=True)
    options.check("size", size, "[2, 4096]", whole=True)
    return candidates, size, options.check("samples", size if samples is None else samples, "[2, 1e6]", whole=True)
