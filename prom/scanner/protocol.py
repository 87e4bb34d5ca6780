"""What a sequence is made with: fields of view, times, limits of the gradients. Each has a default that a clinical scanner can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from prom import options
from prom.engine.optional import pypulseq
from prom.errors import InputError, unknown
from prom.scanner.ordering import ORDERS

if TYPE_CHECKING:
    import pypulseq as pulseq

KINDS = ("gre", "tse")
NS = 1_000_000_000  # of a second: times are whole nanoseconds, so that sums of them are exact
GRADIENT_RASTER = 10_000  # ns, of block durations as well
RF_RASTER = 1_000  # ns, of RF pulses and of the start of the ADC
ADC_RASTER = 100  # ns, of the dwell time
RF_DEAD_TIME, RF_RINGDOWN_TIME, ADC_DEAD_TIME = 100_000, 30_000, 20_000  # ns: at least what Siemens's scanners need
GAMMA = 42.576e6  # Hz/T, of protons: that of pypulseq


@dataclass(frozen=True)
class Protocol:
    """The settings of a sequence; ``prom export --set name=value`` sets them by these names.

    Attributes
    ----------
    kind
        ``gre``, a spoiled gradient echo, 2D for lines, spokes and spirals, 3D for points and kooshball; or ``tse``, a 2D turbo spin echo,
        for lines.
    fov
        Field of view in mm: one value for all axes, or for 2D height and width of the image; for 3D the extent along the readout, the
        lines and the partitions (of a mask of points its height and width), of a kooshball depth, height and width.
    tr, te
        Repetition and echo time in ms; the latter of a turbo spin echo is the effective one. By default the shortest (gre), or 3000 and
        the shortest at which the middle echo meets the centre (tse).
    flip, refocusing
        Flip angles in degrees: of the excitation, by default 12 (gre) or 90 (tse), and of the refocusing pulses.
    thickness
        Of the slice in mm, by default 5; of the slab of a 3D sequence, by default the field of view along it. A slab's edges are
        soft: where the object fills the field of view, they fold in unless it is thinner.
    bandwidth
        Hz per pixel: one over the time of a readout; by default 500, of curved readouts the largest that the gradients can do.
    readout
        3D: samples along the readout; by default as many as the mask has rows.
    oversampling
        How many samples are measured for each of the readout, by default 1. With 2 what lies outside the field of view along the readout
        folds in only from beyond twice that field; readers, and ``prom reconstruct``, cut it away. Time and gradient of a readout
        stay, but for the dwell time, which is a multiple of 0.1 us. Off the grid the trajectory itself says how densely it is sampled.
    pulse
        Duration of the RF pulses in ms, sinc pulses of a time-bandwidth product of 4.
    order, shots
        Of gre: see :func:`prom.scanner.ordering.order`; of readouts off the grid linear (by the number of the candidate), interleaved or
        golden.
    calibration
        The width of the fully measured centre that is labelled as calibration data, and by gre measured first: a square of points, or a
        disc where that was demanded of the mask. By default what the mask's metadata say,
        else 0.
    echoes
        Of tse: the length of the echo train; by default the segments that were demanded of the mask, else 8.
    dummies
        Shots without data before the first line, to reach the steady state; by default 1 (tse), or as many as bring the signal of tissue
        of T1 = 1.5 s within 5 % of it (gre: 161 at a TR of 8 ms and 12 degrees).
    max_grad, max_slew, max_b1
        Limits in mT/m, T/m/s and uT, of each axis alone; of spokes, spirals and kooshball of all axes together. An oblique slice adds
        axes up, to sqrt(2) times that in a plane.
    field
        Tesla: for headers of raw data and the definition B0 of sequences alone.

    Raises
    ------
    InputError
        Where a value is out of range.

    >>> Protocol(fov=(220.0,), tr=8, te=4).tr
    8.0
    >>> Protocol(flip=270)
    Traceback (most recent call last):
    prom.errors.InputError: flip 270: must be > 0 and <= 180
    """

    kind: str = "gre"
    fov: Sequence[float] = (220.0,)
    tr: float | None = None
    te: float | None = None
    flip: float | None = None
    refocusing: float = 180.0
    thickness: float | None = None
    bandwidth: float | None = None
    readout: int | None = None
    oversampling: int = 1
    pulse: float | None = None
    order: str = "linear"
    shots: int = 1
    calibration: int | None = None
    echoes: int | None = None
    dummies: int | None = None
    max_grad: float = 28.0
    max_slew: float = 150.0
    max_b1: float = 20.0
    field: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of sequence", self.kind, KINDS)
        if self.order not in ORDERS:
            raise unknown("order", self.order, ORDERS)
        for name, (interval, whole) in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, options.check(name, value, interval, whole))
        self._check_kind()
        fov = self.fov if isinstance(self.fov, Sequence) else (self.fov,)
        if not 1 <= len(fov) <= 3:
            raise InputError(f"fov of {len(fov)} values: must be 1, 2 (height, width) or 3 (readout, lines, partitions), in mm")
        object.__setattr__(self, "fov", tuple(options.check("fov", value, "[1, 1000]") for value in fov))
        for name, raster in (("tr", GRADIENT_RASTER), ("te", RF_RASTER), ("pulse", GRADIENT_RASTER)):
            value = getattr(self, name)
            if value is not None and abs(value * 1e6 / raster - round(value * 1e6 / raster)) > 1e-6:
                raise InputError(f"{name} {value:g}: must be a multiple of {raster / 1e6:g} ms, the raster of the scanner")

    def _check_kind(self) -> None:
        """Refuse what another kind of sequence, or another order, is set by."""
        if self.kind == "tse":
            if self.order != "linear":
                raise InputError(f"order {self.order}: is of gre; a turbo spin echo deals its lines out to the echoes, so leave it out")
        elif self.echoes is not None or self.refocusing != 180:
            name = "refocusing" if self.echoes is None else "echoes"
            raise InputError(f"{name} {getattr(self, name):g}: is of a turbo spin echo; use kind=tse, or leave it out")
        if self.shots != 1 and self.order != "interleaved":
            raise InputError(f"shots {self.shots:g}: are of the order interleaved; use order=interleaved, or leave it out")

    def ns(self, name: str) -> int | None:
        """A time of this name, in ms, as whole nanoseconds."""
        value = getattr(self, name)
        return None if value is None else round(value * 1e6)

    def limits(self) -> pulseq.Opts:
        """The limits of the scanner, in the units of Pulseq (Hz/m, s)."""
        return pypulseq().Opts(
            max_grad=self.max_grad,
            grad_unit="mT/m",
            max_slew=self.max_slew,
            slew_unit="T/m/s",
            rf_dead_time=RF_DEAD_TIME / NS,
            rf_ringdown_time=RF_RINGDOWN_TIME / NS,
            adc_dead_time=ADC_DEAD_TIME / NS,
            adc_raster_time=ADC_RASTER / NS,
            rf_raster_time=RF_RASTER / NS,
            grad_raster_time=GRADIENT_RASTER / NS,
            block_duration_raster=GRADIENT_RASTER / NS,
            B0=self.field,
        )


RANGES = {
    "tr": ("(0, 60000]", False),
    "te": ("(0, 2000]", False),
    "flip": ("(0, 180]", False),
    "refocusing": ("(0, 180]", False),
    "thickness": ("(0, 1000]", False),
    "bandwidth": ("(0, 20000]", False),
    "readout": ("[2, 4096]", True),
    "oversampling": ("[1, 8]", True),
    "pulse": ("[0.1, 20]", False),
    "shots": ("[1, 65535]", True),
    "calibration": ("[0, 65535]", True),
    "echoes": ("[1, 512]", True),
    "dummies": ("[0, 10000]", True),
    "max_grad": ("(0, 500]", False),
    "max_slew": ("(0, 1000]", False),
    "max_b1": ("(0, 100]", False),
    "field": ("(0, 21]", False),
}
NAMES = {field.name: str(field.type) for field in fields(Protocol)}  # with their types, for prom.options.parse
