"""What a scanner demands of a mask, in one vocabulary for every method: calibration, shutter, partial Fourier, gaps, bands, samples."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.errors import InputError, unknown
from prom.kspace.fourier import offsets
from prom.kspace.patterns import Lines, Readouts, count_of
from prom.masks import gaps
from prom.masks.feasible import Feasible

SHAPES = ("square", "disc")
AXES = ("rows", "columns")
MASKS = ("require", "forbid")
OFF_GRID = (*MASKS, "per_frame")  # what can be demanded of readouts that are not on the grid


@dataclass(frozen=True, eq=False)
class Demands:
    r"""What every mask must have, or must not have. The budget counts all of it: :math:`S = \lfloor D / \alpha \rfloor` stays exact.

    Of a series in time, each demand is on every frame.

    Parameters
    ----------
    calibration
        n: the n innermost lines, indices :math:`N/2 - \lfloor n/2 \rfloor` on of N (N/2 rounded down); of points the n x n square that has
        these indices along both axes, or a disc. 0: none.
    calibration_shape
        "square" or "disc", of points with calibration: those samples of the square with :math:`4 (y^2 + x^2) \le n^2`, counted from DC.
    shutter
        Of points: only those inside the ellipse that touches the edges of the grid, :math:`(2 y / H)^2 + (2 x / W)^2 \le 1`, from DC.
    partial_fourier
        f in (0.5, 1]: the last round((1 - f) N) of N indices along the phase-encode axis are not measured (a half is rounded to even). DC
        must be.
    max_gap
        Of lines: neighbouring measured lines have indices that differ by at most this, as if the lines just outside those that may be
        measured were measured too (:mod:`prom.masks.gaps`). 0: any gap.
    require, forbid
        Samples that must, and must not, be measured: bool ``(H, W)``, of whole lines where the pattern is of lines, or a file of a mask
        (:func:`prom.masks.mask_files.read`).
    segments
        So many bands have equal numbers of measured lines or points: an echo train meets each band once, unless its first or last echo
        meets DC (:func:`prom.scanner.ordering.trains`). Bands lie one after the other along the phase-encode axis; of the M indices that
        partial Fourier leaves, i is in band :math:`\lfloor i \, n / M \rfloor` of n. Frames of a series that have masks of their own need
        ``per_frame`` too.
    axis
        Of points: the phase-encode axis along which partial Fourier and bands count, "rows" (the default; the last rows are left out) or
        "columns". Lines have their own.
    per_frame
        Of series: every frame has equally many samples or lines, :math:`\lfloor D_t / \alpha \rfloor` of its D_t, so that all frames take
        the same time.

    Raises
    ------
    InputError
        Where a value is out of its range, or a file cannot be read.

    >>> wanted = Demands(calibration=4, max_gap=8)
    >>> wanted.describe(), Demands().plain
    ('calibration 4, max_gap 8', True)
    >>> int(wanted.feasible(Lines((8, 64), readout=(-2,)), acceleration=4).mandatory.sum())
    4
    """

    calibration: int = 0
    calibration_shape: str = "square"
    shutter: bool = False
    partial_fourier: float = 1.0
    max_gap: int = 0
    require: Tensor | None = None
    forbid: Tensor | None = None
    segments: int = 1
    axis: str | None = None
    per_frame: bool = False
    off_grid: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # the masks that are of readouts, and whose: their key

    def __post_init__(self) -> None:
        given = {name: _mask(name, getattr(self, name)) for name in MASKS}
        known = dict(self.off_grid) | {name: key for name, (_, key) in given.items() if key}
        of_readouts = ((name, key) for name, key in known.items() if given[name][0] is not None)
        object.__setattr__(self, "off_grid", tuple(of_readouts))
        checked = {
            "calibration": options.check("calibration", self.calibration, "[0, 1e6]", whole=True),
            "partial_fourier": options.check("partial_fourier", self.partial_fourier, "(0.5, 1]"),
            "max_gap": options.check("max_gap", self.max_gap, "[0, 1e6]", whole=True),
            "segments": options.check("segments", self.segments, "[1, 1e6]", whole=True),
            **{name: mask for name, (mask, _) in given.items()},
        }
        for name in ("shutter", "per_frame"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} {getattr(self, name)!r}: must be True or False")
        if self.calibration_shape not in SHAPES:
            raise unknown("calibration_shape", self.calibration_shape, SHAPES)
        if self.axis not in (None, *AXES):
            raise unknown("axis", self.axis, AXES)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, demands: Demands | None, named: Mapping[str, object]) -> Demands:
        """Those given ready, or by name, as functions take them.

        Raises
        ------
        InputError
            Where both are given, or a name is not known.

        >>> Demands.of(None, {"calibratoin": 24})                                   # doctest: +ELLIPSIS
        Traceback (most recent call last):
        prom.errors.InputError: demand 'calibratoin' is not known; did you mean 'calibration'? (known: axis, ...)
        """
        known = [one.name for one in fields(cls) if one.repr]
        for name in named:
            if name not in known:
                raise unknown("demand", name, known)
        if demands is None:
            return cls(**named)
        if not isinstance(demands, Demands):
            raise InputError(f"demands of type {type(demands).__name__}: must be Demands, e.g. Demands(calibration=24)")
        if named:
            raise InputError(f"{', '.join(named)}: are demands too; name all, or put them into demands=Demands(...)")
        return demands

    @property
    def plain(self) -> bool:
        """Whether nothing is demanded."""
        return not any(True for _ in self._given())

    def feasible(self, lines: Lines, acceleration: float) -> Feasible:
        """The masks of a pattern at an acceleration that meet the demands: S = floor(D / alpha), demands included.

        Raises
        ------
        InputError
            Where no mask meets them. The message says which demands cannot be met, by how much they fail, and what can be.
        """
        return self.of_size(lines, self.budget(lines, acceleration), acceleration)

    def budget(self, lines: Lines, acceleration: float) -> int:
        """S = floor(D / alpha), or where every frame has its own budget the sum of those.

        >>> series = Lines((3, 8, 10), readout=(-2,), frames=True)
        >>> Demands().budget(series, acceleration=4), Demands(per_frame=True).budget(series, acceleration=4)
        (7, 6)
        """
        return lines.samples[0] * lines.frame.budget(acceleration) if self.per_frame and lines.apart else lines.budget(acceleration)

    def of_size(self, lines: Lines, count: int, acceleration: float | None = None) -> Feasible:
        """Likewise, with so many samples or lines. ``acceleration`` is for messages."""
        if self.plain:
            return Feasible(lines.shape, count)
        alpha = lines.full / max(count, 1) if acceleration is None else acceleration
        self._check_pattern(lines)
        if conflict := self._conflict(lines, count, alpha):
            ways = self._ways_out(lines, count)
            raise InputError(f"{conflict}; {'take ' + ', or '.join(ways) if ways else 'leave one of them out'}")
        return self._made(lines, count)

    def of_frame(self, lines: Lines, frame: int) -> Demands:
        """What is demanded of one frame of a series with this pattern.

        >>> series = Lines((3, 1, 4), readout=(-2,), frames=True)
        >>> Demands(per_frame=True, require=torch.eye(3, 4, dtype=torch.bool)).of_frame(series, 1).require
        tensor([False,  True, False, False])
        """
        own = {name: _of_pattern(name, mask, lines) for name in MASKS if (mask := getattr(self, name)) is not None}
        return replace(self, per_frame=False, **{name: mask[frame] if lines.apart else mask for name, mask in own.items()})

    def describe(self) -> str:
        """All demands, in one line; empty where there are none."""
        words = []
        for name, value in self._given():
            shown = f"{int(value.sum())} samples" if isinstance(value, Tensor) else f"{value:g}" if isinstance(value, float) else value
            words.append(name if value is True else f"{name} {shown}")
        return ", ".join(words)

    def as_dict(self) -> dict[str, object]:
        """What is demanded, by name, as JSON can say it: masks as their shape and their bits, in base 64. Without what is not demanded.

        >>> Demands(require=torch.eye(4, dtype=torch.bool), segments=2).as_dict()
        {'require': {'shape': [4, 4], 'bits': 'hCE='}, 'segments': 2}
        """
        return {name: _packed(value) if isinstance(value, Tensor) else value for name, value in self._given()}

    @classmethod
    def from_dict(cls, record: object) -> Demands:
        """What :meth:`as_dict` has made; nothing in it is believed.

        Raises
        ------
        InputError
            Where it is something else.

        >>> Demands.from_dict({"shutter": True}).describe()
        'shutter'
        """
        if not isinstance(record, dict):
            raise InputError(f"its demands are no dictionary, but of type {type(record).__name__}")
        if any(isinstance(record.get(name), str) for name in MASKS):
            raise InputError("its demands name a file; they must hold the mask")
        return cls.of(None, {name: _unpacked(name, value) if name in MASKS else value for name, value in record.items()})

    def _given(self) -> Iterator[tuple[str, object]]:
        """Names and values of what is not left at its default."""
        for one in fields(self):
            value = getattr(self, one.name)
            if one.repr and (isinstance(value, Tensor) or value != one.default):
                yield one.name, value

    def _check_pattern(self, lines: Lines) -> None:
        """What goes with points only, and what with lines only."""
        frame = lines.frame
        if isinstance(lines, Readouts) and (wrong := [name for name, _ in self._given() if name not in OFF_GRID]):
            raise InputError(f"{wrong[0]}: is of a grid, and {lines.name} are not on one; leave it out, or use require and forbid")
        for name, key in self.off_grid:
            if not isinstance(lines, Readouts):
                raise InputError(f"{name}: is of readouts off the grid, and {lines.name} are not; give a mask of {lines.name}")
            if lines.key and lines.key != key:
                raise InputError(f"{name}: chooses among other {lines.name} than these; give a mask of the same candidates, in their order")
        if self.per_frame and not lines.apart:
            what = f"pattern {lines.name} has one mask for all frames" if lines.frames else "is of series in time, and these are not"
            raise InputError(f"per_frame: {what}; leave it out")
        if self.segments > 1 and lines.apart and not self.per_frame:
            raise InputError(f"segments {self.segments}: of a series are of each frame, which then have equally many; add per_frame")
        if frame.readout and len(frame.shape) > 1 and (self.partial_fourier < 1 or self.segments > 1):
            name = "partial_fourier" if self.partial_fourier < 1 else "segments"
            raise InputError(f"{name}: of {lines.name} of a volume the phase-encode axis is not certain; cut the volume along its readout")
        if self.max_gap and frame.readout and len(lines.shape) > 1:
            still = "use still-columns or still-rows, or " if lines.frames else ""
            raise InputError(f"max_gap {self.max_gap}: is for lines of one axis; {still}leave it out")
        if frame.readout:
            axis = "rows" if frame.name == "rows" else "columns"
            if self.shutter:
                raise InputError(f"shutter: is for points, and {lines.name} are measured whole; use pattern points, or leave it out")
            if self.calibration_shape != "square":
                raise InputError(f"calibration_shape {self.calibration_shape}: is for points; of {lines.name} leave it out")
            if self.axis not in (None, axis):
                raise InputError(f"axis {self.axis}: is for points; pattern {lines.name} has the phase-encode axis {axis}, so leave it out")
        elif self.max_gap:
            raise InputError(f"max_gap {self.max_gap}: is for lines; use pattern columns or rows, or leave it out")
        elif self.calibration_shape != "square" and not self.calibration:
            raise InputError(f"calibration_shape {self.calibration_shape}: is that of calibration, which is 0; set both, or leave it out")
        elif self.axis and self.partial_fourier == 1 and self.segments == 1:
            raise InputError(f"axis {self.axis}: is that of partial_fourier and segments, and neither is set; set one, or leave it out")
        for name in MASKS:
            if (mask := getattr(self, name)) is not None:
                _of_pattern(name, mask, lines)

    def _along(self, lines: Lines) -> tuple[int, int]:
        """The axis of a frame's theta that is phase-encoded, and its length."""
        shape = lines.frame.shape
        axis = len(shape) - 1 if len(shape) == 1 or self.axis == "columns" else len(shape) - 2
        return axis, shape[axis]

    def _left_out(self, lines: Lines) -> int:
        """How many indices partial Fourier leaves out."""
        return round(round((1 - self.partial_fourier) * self._along(lines)[1], 9))  # the inner one mends 1 - 0.95

    def _sides(self, lines: Lines) -> dict[str, dict[str, Tensor]]:
        """What each demand wants, and what each forbids, bool of theta's shape, by the demand with its value."""
        wanted, unwanted, shape = {}, {}, lines.frame.shape
        if self.calibration:
            disc = self.calibration_shape == "disc"
            wanted[f"calibration {self.calibration}"] = lines.in_frames(central(shape, self.calibration, disc))
        if self.require is not None:
            wanted["require"] = _of_pattern("require", self.require, lines)
        if self.shutter:
            unwanted["shutter"] = lines.in_frames(~ellipse(shape))
        if cut := self._left_out(lines):
            axis, size = self._along(lines)
            index = torch.arange(size).reshape([-1 if place == axis else 1 for place in range(len(shape))])
            unwanted[f"partial_fourier {self.partial_fourier:g}"] = lines.in_frames((index >= size - cut).expand(shape))
        if self.forbid is not None:
            unwanted["forbid"] = _of_pattern("forbid", self.forbid, lines)
        return {"wanted": wanted, "unwanted": unwanted}

    def _bands(self, lines: Lines) -> Tensor | None:
        """The band of every sample or line, in every frame another one where frames have budgets of their own: int64 of theta's shape."""
        if self._number_of_bands(lines) == 1:
            return None
        axis, size = self._along(lines)
        left, shape = size - self._left_out(lines), lines.frame.shape
        band = (torch.arange(size) * self.segments // left).clamp(max=self.segments - 1)  # what is left out counts for the last
        band = lines.in_frames(band.reshape([-1 if place == axis else 1 for place in range(len(shape))]).expand(shape))
        if self.per_frame:
            band = band + self.segments * torch.arange(lines.samples[0]).reshape(-1, *[1] * len(shape))
        return band.contiguous()

    def _number_of_bands(self, lines: Lines) -> int:
        return self.segments * (lines.samples[0] if self.per_frame else 1)

    def _union(self, lines: Lines) -> tuple[Tensor, Tensor]:
        """All that is mandatory, and all that is forbidden."""
        nothing = torch.zeros(lines.shape, dtype=torch.bool)
        sides = self._sides(lines)
        return tuple(torch.stack([nothing, *sides[side].values()]).any(dim=0) for side in ("wanted", "unwanted"))

    def _made(self, lines: Lines, count: int) -> Feasible:
        mandatory, forbidden = self._union(lines)
        return Feasible(
            lines.shape,
            count // self._number_of_bands(lines),
            mandatory if mandatory.any() else None,
            forbidden if forbidden.any() else None,
            groups=self._bands(lines),
            gap=self.max_gap or None,
        )

    def _conflict(self, lines: Lines, count: int, alpha: float) -> str:
        """What cannot be met, and by how much; empty where all can be."""
        name, size = lines.name, self._along(lines)[1]
        if self.calibration > min(lines.frame.shape):
            return f"calibration {self.calibration}: is larger than the grid, which has {min(lines.frame.shape)}"
        cut = self._left_out(lines)
        if size - cut <= size // 2:
            return f"partial_fourier {self.partial_fourier:g}: leaves out {cut} of {size} indices, and DC is among them"
        if self.segments > size - cut:
            return f"segments {self.segments}: are more bands than the {size - cut} indices of the phase-encode axis"
        sides = self._sides(lines)
        for one, wanted in sides["wanted"].items():
            for other, unwanted in sides["unwanted"].items():
                if both := int((wanted & unwanted).sum()):
                    return f"{one} and {other}: {both} {name} would be measured and left out"
        mandatory, forbidden = self._union(lines)
        needed, allowed = int(mandatory.sum()), int((~forbidden).sum())
        budget = f"x{alpha:.4g} of {lines.full}"
        if needed > count:
            both = " and ".join(sides["wanted"])
            return f"{both} need{'s' if len(sides['wanted']) == 1 else ''} {needed} {name}, and {budget} allows {count}"
        if allowed < count:
            both = " and ".join(sides["unwanted"])
            return f"{both} leave{'s' if len(sides['unwanted']) == 1 else ''} {allowed} {name}, and {budget} needs {count}"
        number = self._number_of_bands(lines)
        each, rest = divmod(count, number)
        demand = f"segments {self.segments}" if self.segments > 1 else "per_frame"
        if rest or not each:
            return f"{demand}: {budget} makes {count} {name}, which cannot be divided equally ({rest} would be left over)"
        bands = self._bands(lines)
        for band in range(number if bands is not None else 0):
            here = bands == band
            fixed, free = int((mandatory & here).sum()), int((~forbidden & here).sum())
            if not fixed <= each <= free:
                what = f"holds {fixed} that are required" if fixed > each else f"allows {free}"
                where = f"band {band % self.segments + 1}" if self.segments > 1 else f"frame {band + 1}"
                return f"{demand}: {where} {what}, and each has {each} of {count} {name}"
        if self.max_gap:
            arrays = mandatory.numpy(), forbidden.numpy()
            least = gaps.fewest(self.max_gap, *arrays)
            if least is None:
                gap = int(np.diff((~forbidden).numpy().nonzero()[0]).max())
                return f"max_gap {self.max_gap}: {gap - 1} neighbouring {name} are forbidden, which leaves a gap of {gap}"
            if least > count:
                with_others = " with the other demands" if mandatory.any() or forbidden.any() else ""
                return f"max_gap {self.max_gap} needs {least} {name}{with_others}, and {budget} allows {count}"
            if not gaps.reachable(count, self.max_gap, *arrays, None if bands is None else bands.numpy()).any():
                return f"max_gap {self.max_gap} and segments {self.segments}: {each} {name} in each band leave a larger gap"
        return ""

    def _ways_out(self, lines: Lines, count: int) -> list[str]:
        """What could be demanded instead: of one demand each the nearest value that works, tried out."""

        def works(other: Demands = self, size: int = count) -> bool:
            divisible = size % other._number_of_bands(lines) == 0  # first, as it costs nothing
            try:
                other._check_pattern(lines)
            except InputError:  # as of an axis that is that of nothing then
                return False
            return 1 <= size <= lines.size and divisible and not other._conflict(lines, size, 1.0)

        size = self._along(lines)[1]
        cuts = range(self._left_out(lines) - 1, -1, -1)
        frames = self._number_of_bands(lines) // self.segments
        divisors = [n for n in range(1, count // frames + 1) if count // frames % n == 0 and n != self.segments]
        choices: dict[str, list[object]] = {
            "calibration": list(range(min(self.calibration - 1, min(lines.frame.shape)), -1, -1)) if self.calibration else [],
            "partial_fourier": [math.ceil((1 - cut / size) * 1000) / 1000 for cut in cuts],
            "max_gap": list(range(self.max_gap + 1, size + 1)) if self.max_gap else [],
        }
        if self.segments > 1:
            below = [n for n in reversed(divisors) if n < self.segments]
            choices |= {"segments": below, "segments ": [n for n in divisors if n > self.segments]}
        ways = []
        for name, values in choices.items():
            found = next((value for value in values if works(replace(self, **{name.strip(): value}))), None)
            if found is not None:
                ways.append(f"{name.strip()} {found:g}" if found else f"no {name}")
        counts = sorted(self._counts(lines, count))
        below = next((n for n in reversed(counts) if n < count and works(size=n)), None)
        above = next((n for n in counts if n > count and works(size=n)), None)
        if near := [acceleration_of(lines.full, n) for n in (above, below) if n is not None]:
            ways.append(f"acceleration {' or '.join(near)}")
        return ways

    def _counts(self, lines: Lines, count: int) -> set[int]:
        """Numbers of samples at which a demand that cannot be met may become one that can be."""
        mandatory, forbidden = self._union(lines)
        limits = {int(mandatory.sum()), int((~forbidden).sum()), count}
        bands, number = self._bands(lines), self._number_of_bands(lines)
        if bands is not None:
            places = [bands == band for band in range(number)]
            limits |= {number * max(int((mandatory & here).sum()) for here in places)}
            limits |= {number * min(int((~forbidden & here).sum()) for here in places)}
        if self.max_gap and (least := gaps.fewest(self.max_gap, mandatory.numpy(), forbidden.numpy())) is not None:
            limits |= {least, *(range(1, lines.size + 1) if bands is not None else ())}
        return limits | {part for n in limits for part in (n // number * number, -(-n // number) * number)}


def allowed(lines: Lines, acceleration: float, demands: Demands | None = None) -> Feasible:
    """The masks that a baseline may make: of this acceleration, with the demands where there are any.

    >>> allowed(Lines((4, 4)), 4).budget
    4
    """
    return (demands or Demands()).feasible(lines, acceleration)


def ellipse(shape: tuple[int, ...]) -> Tensor:
    r"""The samples with :math:`\sum_a (2 k_a / n_a)^2 \le 1`, k counted from DC: those inside the ellipse that touches the edges.

    >>> ellipse((4, 6)).int().tolist()
    [[0, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
    """
    return (2 * offsets(shape).double() / torch.tensor(shape).clamp(min=1)).square().sum(dim=-1) <= 1 + 1e-12


def central(shape: tuple[int, ...], width: int, disc: bool = False) -> Tensor:
    """The centre of this width, bool: all of an axis where it is wider than that. Also as a disc, where it is not wider.

    >>> central((6,), 2)
    tensor([False, False,  True,  True, False, False])
    """
    region = torch.zeros(shape, dtype=torch.bool)
    inside = ellipse((width,) * len(shape)) if disc and width <= min(shape) else True
    region[tuple(slice(max(n // 2 - width // 2, 0), n // 2 - width // 2 + width) for n in shape)] = inside
    return region


def acceleration_of(size: int, count: int) -> str:
    """An acceleration of few decimals, none or two at least, as text, of which floor(D / alpha) is this count.

    >>> acceleration_of(128, 24), acceleration_of(128, 16)
    ('5.33', '8')
    """
    for digits in (0, *range(2, 13)):
        alpha = math.floor(size / count * 10**digits) / 10**digits
        if alpha >= 1 and count_of(size, alpha) == count:
            return f"{alpha:.12g}"
    return repr(size / count)


def _mask(name: str, mask: object) -> tuple[Tensor | None, str]:
    """A mask in memory or in a file, as bool; and where the file says of which readouts off the grid it is, their key."""
    if isinstance(mask, str | os.PathLike):
        from prom.masks.mask_files import read_with_trajectory  # here: masks have demands, and are what such files hold

        found, trajectory = read_with_trajectory(mask)
        return found, "" if trajectory is None else trajectory.key
    if mask is None:
        return None, ""
    if isinstance(mask, np.ma.MaskedArray):
        raise InputError(f"{name}: is a masked array, whose own mask would be lost; use its .filled(False)")
    mask = torch.as_tensor(mask) if isinstance(mask, np.ndarray) else mask
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"{name} of type {kind}: must be a bool mask, or the path of a mask file")
    return mask.detach().cpu().clone(), ""


def _of_pattern(name: str, mask: Tensor, lines: Lines) -> Tensor:
    """A mask as bool of theta's shape; it may have that shape already, or be that of every frame."""
    of_theta = tuple(mask.shape) == tuple(lines.shape)
    if lines.frames and tuple(mask.shape) == lines.frame.samples:
        try:
            found = lines.in_frames(_of_pattern(name, mask, lines.frame))
        except InputError:
            if not of_theta:
                raise
            return mask
        if of_theta and not torch.equal(found, mask):
            shape = " x ".join(map(str, lines.samples))
            raise InputError(f"{name}: whether its first axis is rows or frames, of which there are as many, is unclear; give all {shape}")
        return found
    if of_theta:
        return mask
    try:
        return lines.select(mask)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _packed(mask: Tensor) -> dict[str, object]:
    return {"shape": list(mask.shape), "bits": base64.b64encode(np.packbits(mask.numpy())).decode()}


def _unpacked(name: str, record: object) -> Tensor | None:
    if record is None:
        return None
    try:
        shape, bits = record["shape"], np.frombuffer(base64.b64decode(record["bits"], validate=True), dtype=np.uint8)
        if not all(type(side) is int and side > 0 for side in shape):
            raise ValueError("it has no shape")
        size = math.prod(shape)
        if len(bits) != -(-size // 8):
            raise ValueError("its bits do not fit its shape")
        return torch.from_numpy(np.unpackbits(bits)[:size].reshape(shape).astype(bool))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"its demand {name} is damaged ({error})") from error
