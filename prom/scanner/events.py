"""Pulseq events whose times are whole nanoseconds and whose amplitudes a .seq file keeps: gradients, pulses, readouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING

from prom.engine.optional import pypulseq
from prom.errors import InputError
from prom.scanner.protocol import ADC_DEAD_TIME, ADC_RASTER, GAMMA, GRADIENT_RASTER, NS, RF_DEAD_TIME, RF_RASTER, Protocol

if TYPE_CHECKING:
    import pypulseq as pulseq

BANDWIDTH = 500.0  # Hz per pixel
TIME_BANDWIDTH = 4.0  # of the sinc pulses
LONGEST = 4_000_000  # ns, of a gradient that has more time than it needs
SPOILING = 2.0  # cycles of phase from the echo to the next pulse: across a voxel along the readout, and across the slice
CHANNELS = "xyz"  # readout, lines, partitions or slice


def ceil(time: float, raster: int = GRADIENT_RASTER) -> int:
    """The first multiple of a raster that is not before a time, in ns.

    >>> ceil(10_001), ceil(20_000)
    (20000, 20000)
    """
    return math.ceil(round(time, 3) / raster) * raster


def kept(amplitude: float) -> float:
    """An amplitude in the six digits that a .seq file has for it, so that what is written is what was computed.

    >>> kept(227272.7272)
    227273.0
    """
    return float(f"{amplitude:g}") + 0.0  # of -0 makes 0


@dataclass(frozen=True)
class Lobe:
    """A trapezoid without its sign and size: rise and fall, and flat top, in ns."""

    rise: int
    flat: int

    @property
    def duration(self) -> int:
        """In ns."""
        return 2 * self.rise + self.flat

    @property
    def effective(self) -> float:
        """Area over amplitude, in s."""
        return (self.rise + self.flat) / NS

    @classmethod
    def shortest(cls, area: float, limits: pulseq.Opts) -> Lobe:
        """For up to this area, in 1/m, under the limits."""
        area = abs(area)
        rise = max(ceil(math.sqrt(area / limits.max_slew) * NS), GRADIENT_RASTER)
        if area * NS / rise <= limits.max_grad:
            return cls(rise, 0)
        rise = ceil(limits.max_grad / limits.max_slew * NS)
        return cls(rise, max(ceil(area / limits.max_grad * NS) - rise, 0))

    @classmethod
    def within(cls, area: float, duration: int, limits: pulseq.Opts) -> Lobe:
        """The gentlest for this area that lasts at most ``duration``, which must be enough: of the shortest ramps the slew rate allows.

        It is at most 4 ms long where it can be: what is longer is hardly quieter, and dephases what moves.
        """
        duration = min(duration, max(LONGEST, cls.shortest(area, limits).duration))
        for rise in range(GRADIENT_RASTER, duration // 2 + 1, GRADIENT_RASTER):
            made = cls(rise, duration - 2 * rise)
            if abs(area) / made.effective <= min(limits.max_grad, limits.max_slew * rise / NS):
                return made
        return cls.shortest(area, limits)

    def event(self, channel: str, area: float | None = None, amplitude: float | None = None, delay: int = 0) -> SimpleNamespace:
        """The trapezoid of this area in 1/m, or amplitude in Hz/m, on a channel."""
        size = kept(area / self.effective if amplitude is None else amplitude)
        times = {"rise_time": self.rise / NS, "flat_time": self.flat / NS, "fall_time": self.rise / NS, "delay": delay / NS}
        areas = {"area": size * self.effective, "flat_area": size * self.flat / NS}
        return SimpleNamespace(type="trap", channel=channel, amplitude=size, first=0, last=0, **times, **areas)


@dataclass(frozen=True)
class Readout:
    """The readout: n samples whose centres are at (i - n // 2) / FOV, sample n // 2 at the echo.

    ``shift`` is the time in ns from the start of the flat top to the ADC, by which the echo comes to the raster.
    """

    samples: int
    fov: float
    dwell: int
    rise: int
    shift: int = 0

    @classmethod
    def of(cls, samples: int, fov: float, protocol: Protocol, limits: pulseq.Opts, where: str | None = None) -> Readout:
        """The one of this bandwidth, over ``fov`` in metres. ``where`` it goes is for messages, by default over that without oversampling.

        Raises
        ------
        InputError
            Where it needs a stronger gradient than there is, or a shorter dwell time.
        """
        bandwidth = protocol.bandwidth or BANDWIDTH
        dwell = round(NS / (bandwidth * samples) / ADC_RASTER) * ADC_RASTER
        if dwell < 10 * ADC_RASTER:
            most = NS / (10 * ADC_RASTER * samples)
            raise InputError(
                f"bandwidth {bandwidth:g} Hz per pixel: of {samples} samples makes a dwell time below 0.001 ms; "
                f"use at most {math.floor(most)}{' or less oversampling' if protocol.oversampling > 1 else ''}"
            )
        amplitude = NS / (fov * dwell)
        where = where or f"over a field of view of {1000 * fov / protocol.oversampling:g} mm"
        if amplitude > limits.max_grad:
            most = math.floor(NS / (ceil(NS / (fov * limits.max_grad), ADC_RASTER) * samples))
            raise InputError(
                f"bandwidth {bandwidth:g} Hz per pixel: {where} needs "
                f"{amplitude / GAMMA * 1000:.1f} mT/m, where max_grad is {protocol.max_grad:g}; use bandwidth={most} or less, or a larger "
                "fov"
            )
        return cls(samples, fov, dwell, max(ceil(amplitude / limits.max_slew * NS), ceil(ADC_DEAD_TIME)))

    @property
    def amplitude(self) -> float:
        """Hz/m: one grid step, 1 / FOV, in a dwell time."""
        return kept(NS / (self.fov * self.dwell))

    @property
    def echo(self) -> float:
        """The time of sample n // 2 from the start, in ns: half a dwell time after the sample's begin."""
        return self.rise + self.shift + (self.samples // 2 + 0.5) * self.dwell

    @property
    def lobe(self) -> Lobe:
        """The trapezoid."""
        return Lobe(self.rise, ceil(self.shift + self.samples * self.dwell))

    @property
    def before(self) -> float:
        """Area from the start to the echo, 1/m."""
        return self.amplitude * (self.echo - self.rise / 2) / NS

    @property
    def after(self) -> float:
        """Area from the echo to the end, 1/m."""
        return self.amplitude * self.lobe.effective - self.before

    @property
    def largest(self) -> float:
        """``before`` of any shift, 1/m: what the prephaser must be able to do."""
        return replace(self, shift=GRADIENT_RASTER).before

    def echo_at(self, time: float) -> Readout:
        """The same readout with its ADC moved by 0 to 9 us, so that ``time`` - echo becomes a multiple of the raster but for 0.5 us."""
        rest = (time - replace(self, shift=0).echo) % GRADIENT_RASTER
        return replace(self, shift=round(rest / RF_RASTER) * RF_RASTER % GRADIENT_RASTER)

    def events(self, phase: int, limits: pulseq.Opts) -> tuple[SimpleNamespace, SimpleNamespace]:
        """Gradient and ADC, the latter with a phase in degrees."""
        gradient = self.lobe.event("x", amplitude=self.amplitude)
        adc = pypulseq().make_adc(
            self.samples,
            dwell=self.dwell / NS,
            delay=(self.rise + self.shift) / NS,
            phase_offset=math.radians(phase),
            system=limits,
        )
        return gradient, adc


@dataclass(frozen=True)
class Pulse:
    """A slice-selective sinc pulse with its gradient: times in ns from the start of the block.

    The gradient is symmetric about the middle of the pulse, so that of a refocusing pulse both halves have one area.
    """

    flip: float
    thickness: float
    length: int
    protocol: Protocol
    use: str
    label: str

    def __post_init__(self) -> None:
        limits = self.protocol.limits()
        if self.amplitude > limits.max_grad:
            thickest = TIME_BANDWIDTH * NS / self.length / limits.max_grad * 1000
            raise InputError(
                f"thickness {self.thickness * 1000:g} mm: needs a gradient of {self.amplitude / GAMMA * 1000:.1f} mT/m during a pulse of "
                f"{self.length / 1e6:g} ms, where max_grad is {self.protocol.max_grad:g}; use thickness="
                f"{math.ceil(thickest * 100) / 100:g} or more, or a longer pulse"
            )
        if (peak := abs(self.event(0).signal).max() / GAMMA * 1e6) > self.protocol.max_b1:
            longer = math.ceil(self.length * peak / self.protocol.max_b1 / GRADIENT_RASTER) * GRADIENT_RASTER / 1e6
            raise InputError(
                f"{self.label} {self.flip:g}: needs {peak:.1f} uT in a pulse of {self.length / 1e6:g} ms, where max_b1 is "
                f"{self.protocol.max_b1:g}; use pulse={longer:g} or more"
            )

    @property
    def amplitude(self) -> float:
        """Of the slice-selection gradient, Hz/m: bandwidth over thickness."""
        return kept(TIME_BANDWIDTH * NS / self.length / self.thickness)

    @cached_property
    def lobe(self) -> Lobe:
        """Of the slice-selection gradient."""
        return Lobe(max(ceil(self.amplitude / self.protocol.limits().max_slew * NS), GRADIENT_RASTER), self.length)

    @property
    def start(self) -> int:
        """When the pulse begins: after the dead time, and on the flat top."""
        return max(ceil(RF_DEAD_TIME), self.lobe.rise)

    @property
    def centre(self) -> int:
        """The middle of the pulse."""
        return self.start + self.length // 2

    @property
    def duration(self) -> int:
        """Of the block: until the gradient is down and the coil has rung down."""
        limits = self.protocol.limits()
        return max(self.start + self.length + self.lobe.rise, self.start + self.length + ceil(limits.rf_ringdown_time * NS))

    @property
    def half(self) -> float:
        """Area of the gradient from the middle on, 1/m."""
        return self.amplitude * self.lobe.effective / 2

    def gradient(self) -> SimpleNamespace:
        """The slice-selection gradient."""
        return self.lobe.event("z", amplitude=self.amplitude, delay=self.start - self.lobe.rise)

    def event(self, phase: int) -> SimpleNamespace:
        """The pulse with a phase in degrees."""
        return pypulseq().make_sinc_pulse(
            flip_angle=math.radians(self.flip),
            duration=self.length / NS,
            delay=self.start / NS,
            apodization=0.5,
            time_bw_product=TIME_BANDWIDTH,
            phase_offset=math.radians(phase),
            system=self.protocol.limits(),
            use=self.use,
        )


class Writer:
    """A Pulseq sequence that grows block by block, in which equal events are made and registered once: pypulseq would search them."""

    def __init__(self, protocol: Protocol) -> None:
        self.pulseq = pypulseq()
        self.sequence = self.pulseq.Sequence(protocol.limits())
        self.events: dict[tuple, list[SimpleNamespace]] = {}

    def event(self, key: tuple, make: Callable[[], SimpleNamespace | tuple[SimpleNamespace, ...]]) -> list[SimpleNamespace]:
        """The events of this key, made when they are first asked for."""
        if key not in self.events:
            made = make()
            made = list(made) if isinstance(made, tuple) else [made]
            for event in made:
                self._register(event)
            self.events[key] = made
        return self.events[key]

    def _register(self, event: SimpleNamespace) -> None:
        if event.type == "rf":
            event.id, event.shape_IDs = self.sequence.register_rf_event(event)
        elif event.type == "adc":
            event.id, _ = self.sequence.register_adc_event(event)
        elif event.type == "trap":
            event.id = self.sequence.register_grad_event(event)
        elif event.type == "grad":
            event.id, event.shape_IDs = self.sequence.register_grad_event(event)
        elif event.type == "labelset":
            event.id = self.sequence.register_label_event(event)

    def label(self, **values: int) -> list[SimpleNamespace]:
        """Labels set to these values, as ``LIN=3``."""
        make = self.pulseq.make_label
        return [self.event((name, value), lambda name=name, value=value: make(name, "SET", value))[0] for name, value in values.items()]

    def block(self, duration: int, *events: list[SimpleNamespace]) -> None:
        """A block of this duration in ns."""
        delay = SimpleNamespace(type="delay", delay=duration / NS)
        self.sequence.add_block(*(event for group in events for event in group), delay)
