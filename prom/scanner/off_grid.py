"""Spoiled gradient echo off the grid: straight readouts in any direction, and curves that the gradients follow."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded

from prom.engine.optional import pypulseq
from prom.errors import InputError
from prom.scanner.events import CHANNELS, SPOILING, Lobe, Readout, Writer, ceil, kept
from prom.scanner.gre import QUADRATIC, SpoiledEcho, Timing
from prom.scanner.protocol import ADC_DEAD_TIME, ADC_RASTER, GRADIENT_RASTER, NS, RF_RASTER, Protocol
from prom.scanner.readout_plan import ReadoutPlan, straight

if TYPE_CHECKING:
    import pypulseq as pulseq

ROOM = 1 - 1e-5  # of the limits: the six digits of an amplitude in a file
RAMP = 1.2  # times the shortest ramp, of curves: where it meets them the slew rate overshoots
LONGEST_DWELL, LONGEST_READOUT = 1_000_000, 200_000_000  # ns: no readout is useful that is so slow


class Spokes:
    """Straight readouts with even steps: a trapezoid on each axis, of one shape and with the spoke's own amplitudes.

    Parameters
    ----------
    points
        ``(S, R, 3)`` float64 in 1/m.

    Raises
    ------
    InputError
        Where the bandwidth needs a stronger gradient than there is, or a shorter dwell time.
    """

    def __init__(self, points: np.ndarray, protocol: Protocol, limits: pulseq.Opts) -> None:
        self.samples, self.centre = points.shape[1], nearest(points)
        steps = (points[:, -1] - points[:, 0]) / (self.samples - 1)
        self.readout = Readout.of(self.samples, 1 / np.linalg.norm(steps, axis=-1).max(), protocol, limits, "along these readouts")
        self.amplitudes = np.vectorize(kept)(steps * NS / self.readout.dwell)
        self.middle = points[:, self.centre]  # is met exactly; amplitudes have six digits, so the ends are up to N / 2 times 5e-6 off

    @property
    def dwell(self) -> int:
        """Of the ADC, in ns."""
        return self.readout.dwell

    @property
    def delay(self) -> int:
        """From the start of the block to the ADC, in ns."""
        return self.readout.rise + self.readout.shift

    @property
    def duration(self) -> int:
        """Of the block, in ns."""
        return self.readout.lobe.duration

    @property
    def start(self) -> np.ndarray:
        """``(S, 3)``: where k-space must be at the start of the block, in 1/m."""
        return self.middle - self.amplitudes * (self.delay - self.readout.rise / 2 + (self.centre + 0.5) * self.dwell) / NS

    @property
    def end(self) -> np.ndarray:
        """``(S, 3)``: and where it is at the end."""
        return self.start + self.amplitudes * self.readout.lobe.effective

    def shifted(self, shift: int) -> Spokes:
        """The same with an ADC that begins ``shift`` ns later on the flat top."""
        made = object.__new__(Spokes)
        made.__dict__ = {**self.__dict__, "readout": Readout(**{**self.readout.__dict__, "shift": shift})}
        return made

    def gradients(self, number: int) -> list[SimpleNamespace]:
        """Of a readout, those that are not 0."""
        sizes = zip(CHANNELS, self.amplitudes[number], strict=True)
        return [self.readout.lobe.event(axis, amplitude=float(size)) for axis, size in sizes if size]


class Curves:
    r"""Readouts along any smooth curve: the gradients that are at point i of it at the time of sample i.

    A cubic spline :math:`k(t)` goes through the points at even times, the dwell time apart, so that points far apart are passed fast. It
    is met at every edge of the gradient's raster: with values :math:`g_j` in the middle of the raster's intervals, of length h, between
    which gradients are linear,

    .. math:: (g_{j-1} + 6 g_j + g_{j+1}) / 8 = (k_{j+1} - k_j) / h .

    Before the first point and after the last the gradients go straight from 0 and to 0. The dwell time is the shortest with which their
    length keeps the limits, however the curve is rotated, or that of the bandwidth that is asked for.

    Parameters
    ----------
    points
        ``(S, R, 3)`` float64 in 1/m.

    Raises
    ------
    InputError
        Where the gradients cannot follow it at that bandwidth, or at any.
    """

    def __init__(self, points: np.ndarray, protocol: Protocol, limits: pulseq.Opts) -> None:
        self.points, self.samples, self.limits, self.shift = points, points.shape[1], limits, 0
        self.spline = CubicSpline(np.arange(self.samples), points, axis=1)
        self.speeds = self.spline(np.array([0, self.samples - 1]), 1)  # at both ends, a step of samples
        self.centre = nearest(points)
        shortest = self._shortest()
        if shortest is None:
            raise InputError(
                f"max_grad {protocol.max_grad:g}, max_slew {protocol.max_slew:g}: cannot follow these curves, even with "
                f"{LONGEST_DWELL / 1e6:g} ms a sample and {LONGEST_READOUT / 1e6:g} ms in all; use stronger gradients, or a larger fov"
            )
        self.dwell = shortest
        if protocol.bandwidth is not None:
            self.dwell = max(1, round(NS / (protocol.bandwidth * self.samples) / ADC_RASTER)) * ADC_RASTER
            if self.dwell >= shortest and self._with(dwell=self.dwell, shift=GRADIENT_RASTER).duration > LONGEST_READOUT:
                raise InputError(
                    f"bandwidth {protocol.bandwidth:g} Hz per pixel: makes readouts longer than {LONGEST_READOUT / 1e6:g} ms; use "
                    f"bandwidth={math.ceil(1.05 * NS / LONGEST_READOUT)} or more"
                )
            if not self._fits(self.dwell):
                most = math.floor(1000 * NS / (shortest * self.samples)) / 1000
                raise InputError(
                    f"bandwidth {protocol.bandwidth:g} Hz per pixel: the gradients cannot go along these {self.samples} points so fast, "
                    f"where max_grad is {protocol.max_grad:g} and max_slew {protocol.max_slew:g}; use bandwidth={most:g} or less"
                )
        self._make()

    def _shortest(self) -> int | None:
        """The shortest dwell time that keeps the limits, in ns; None where there is none."""
        least, most = 5 * ADC_RASTER, 10 * ADC_RASTER
        longest = self._longest()
        while not self._fits(most):
            if most >= longest:
                return None
            least, most = most, min(2 * most, longest)
        while most - least > ADC_RASTER:
            middle = (most + least) // (2 * ADC_RASTER) * ADC_RASTER
            least, most = (least, middle) if self._fits(middle) else (middle, most)
        return most

    def _longest(self) -> int:
        """The longest dwell time whose readout is not too long, ramps included: the slower, the shorter these are."""
        fits, beyond = 10 * ADC_RASTER, LONGEST_DWELL + ADC_RASTER
        while beyond - fits > ADC_RASTER:
            middle = (fits + beyond) // (2 * ADC_RASTER) * ADC_RASTER
            short = self._with(dwell=middle, shift=GRADIENT_RASTER).duration <= LONGEST_READOUT
            fits, beyond = (middle, beyond) if short else (fits, middle)
        return fits

    def _fits(self, dwell: int) -> bool:
        """Whether this dwell time keeps the limits, wherever on the raster the ADC begins."""
        tried = (self._with(dwell=dwell, shift=shift) for shift in range(0, GRADIENT_RASTER, RF_RASTER))
        return all(one.duration <= LONGEST_READOUT and one._within(one._waveform()[0]) for one in tried)

    def _within(self, waveform: np.ndarray) -> bool:
        """Whether gradients ``(S, n, 3)``, 0 at both ends, keep the limits."""
        raster = GRADIENT_RASTER / NS
        change = np.diff(waveform, axis=1) / raster
        ends = waveform[:, [0, -1]] / (raster / 2)
        slew = max(np.linalg.norm(values, axis=-1).max(initial=0) for values in (change, ends))
        return slew <= ROOM * self.limits.max_slew and np.linalg.norm(waveform, axis=-1).max() <= ROOM * self.limits.max_grad

    def _ramp(self, end: int) -> float:
        """How long the gradient takes from 0 to its value at an end, in ns."""
        return RAMP * np.linalg.norm(self.speeds[:, end], axis=-1).max() * (NS / self.dwell) / self.limits.max_slew * NS

    @property
    def delay(self) -> int:
        """From the start of the block to the ADC, in ns."""
        return max(ceil(self._ramp(0)), ceil(ADC_DEAD_TIME)) + self.shift

    @property
    def duration(self) -> int:
        """Of the block, in ns."""
        last = self.delay + (self.samples - 0.5) * self.dwell
        return max(ceil(last + self._ramp(1)), ceil(last + self.dwell / 2 + ADC_DEAD_TIME))

    def _waveform(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradients ``(S, n, 3)`` in Hz/m, and where they begin ``(S, 3)`` in 1/m."""
        raster, dwell = GRADIENT_RASTER, self.dwell
        count = self.duration // raster
        edges = np.arange(count + 1) * raster
        begin, end = self.delay + dwell / 2, self.delay + (self.samples - 0.5) * dwell  # of the points
        positions = self.spline(np.clip((edges - begin) / dwell, 0, self.samples - 1))
        before, after = np.maximum(begin - edges, 0), np.maximum(edges - end, 0)
        lead = before - before**2 / (2 * begin)  # of a gradient that grows evenly until the first point
        tail = after - after**2 / (2 * (edges[-1] - end))
        positions = positions - self.speeds[:, :1] * (lead / dwell)[:, None] + self.speeds[:, 1:] * (tail / dwell)[:, None]
        steps = np.diff(positions, axis=1) / (raster / NS)
        bands = np.ones((3, count)) / 8
        bands[1] = 6 / 8
        bands[1, [0, -1]] = 5 / 8  # the gradient is 0 at both ends
        solved = solve_banded((1, 1), bands, steps.transpose(1, 0, 2).reshape(count, -1))
        return solved.reshape(count, -1, 3).transpose(1, 0, 2), positions[:, 0]

    def _make(self) -> None:
        waveform, self.start = self._waveform()
        peaks = np.abs(waveform).max(axis=1, keepdims=True)
        peaks[peaks < 1e-6 * peaks.max()] = 0  # of curves in a plane, the third axis
        rounded = np.vectorize(kept)(peaks)  # as files have them
        self.waveform = waveform * np.divide(rounded, peaks, out=np.zeros_like(peaks), where=peaks > 0)
        sums = 6 * self.waveform.sum(axis=1) + self.waveform[:, 1:].sum(axis=1) + self.waveform[:, :-1].sum(axis=1)
        sums -= self.waveform[:, 0] + self.waveform[:, -1]
        self.end = self.start + sums / 8 * (GRADIENT_RASTER / NS)

    def shifted(self, shift: int) -> Curves:
        """The same with points that begin ``shift`` ns later."""
        made = self._with(shift=shift)
        made._make()
        return made

    def _with(self, **changes: int) -> Curves:
        made = object.__new__(Curves)
        made.__dict__ = {**self.__dict__, **changes}
        return made

    def gradients(self, number: int) -> list[SimpleNamespace]:
        """Of a readout, those that are not 0."""
        make = pypulseq().make_arbitrary_grad
        waves = zip(CHANNELS, self.waveform[number].T, strict=True)
        return [make(axis, np.ascontiguousarray(wave), first=0.0, last=0.0, system=self.limits) for axis, wave in waves if wave.any()]


def nearest(points: np.ndarray) -> int:
    """The sample at which readouts ``(S, R, 3)`` are, on average, nearest to the centre: the echo."""
    return int(np.linalg.norm(points, axis=-1).mean(axis=0).argmin())


class OffGridEcho(SpoiledEcho):
    r"""Every TR has four blocks: pulse; the way to the start of the readout; readout; the way back to the centre and spoiling.

    The samples of the ADC are at the points of the plan's trajectory, over the fields of view, in 1/m, along x, y and z: columns, rows and
    partitions of the image. Every TR ends with the same moment, that of the spoiler along z. Pulses and their phases are those of
    :class:`prom.scanner.gre.GradientEcho`; limits are kept by the length of the gradient of all axes, so that every direction has one
    timing.

    Parameters
    ----------
    made
        The plan.
    protocol
        The settings.

    Raises
    ------
    InputError
        Where TE, TR or bandwidth cannot be met; the message says what can.
    """

    def __init__(self, made: ReadoutPlan, protocol: Protocol) -> None:
        super().__init__(made, protocol)
        if made.samples < 2:
            raise InputError(f"readouts of {made.samples} sample: have no direction; a sequence needs at least 2")
        points = made.points.numpy() / np.array(made.fov if made.three_dimensional else (*made.fov[:2], 1.0))
        if not np.linalg.norm(np.diff(points, axis=1), axis=-1).any():
            raise InputError("readouts: stay at one point, which needs no gradient; a sequence needs some that move")
        self.readout = (Spokes if straight(made.points) else Curves)(points, protocol, self.limits)
        self.spoiler = np.array([0, 0, SPOILING * made.matrix[2] / made.fov[2] if made.three_dimensional else SPOILING / self.thickness])
        self.timing = self._timing()

    def _before(self, readout: Spokes | Curves) -> np.ndarray:
        """``(S, 3)``: areas of the gradients from pulse to readout, in 1/m, which rephase the slice as well."""
        return readout.start - np.array([0, 0, self.pulse.half])

    def _after(self, readout: Spokes | Curves) -> np.ndarray:
        return self.spoiler - readout.end

    def _shortest(self, areas: np.ndarray) -> int:
        return Lobe.shortest(np.linalg.norm(areas, axis=-1).max(), self.limits).duration

    def _timing(self) -> Timing:
        after_pulse = self.pulse.duration - self.pulse.centre
        readout, latest = self.readout, self.readout.shifted(GRADIENT_RASTER - RF_RASTER)
        echo = readout.delay + (readout.centre + 0.5) * readout.dwell
        encode, spoil = (max(self._shortest(areas(one)) for one in (readout, latest)) for areas in (self._before, self._after))
        least = ceil(after_pulse + encode + echo)
        wanted = self.protocol.ns("te") or least
        if wanted < least:
            raise InputError(f"te {self.protocol.te:g} ms: is too short; the least is {least / 1e6:g} ms with these settings")
        rest = (wanted - after_pulse - echo) % GRADIENT_RASTER
        shift = round(rest / RF_RASTER) * RF_RASTER % GRADIENT_RASTER
        self.readout = readout.shifted(shift)
        encode = round((wanted - after_pulse - echo - shift) / GRADIENT_RASTER) * GRADIENT_RASTER
        realised = after_pulse + encode + echo + shift
        least = self.pulse.duration + encode + self.readout.duration + spoil
        wanted = self.protocol.ns("tr") or least
        if wanted < least:
            raise InputError(
                f"tr {self.protocol.tr:g} ms: is too short; the least is {least / 1e6:g} ms at an echo time of {realised / 1e6:g} ms with "
                "these settings"
            )
        return Timing(self.pulse.duration, encode, self.readout.duration, wanted - least + spoil, realised)

    def sequence(self) -> pulseq.Sequence:
        """The sequence, without definitions."""
        write, timing, readout = Writer(self.protocol), self.timing, self.readout
        before, after = self._before(readout), self._after(readout)
        lobes = [
            Lobe.within(np.linalg.norm(areas, axis=-1).max(), duration, self.limits)
            for areas, duration in ((before, timing.encode), (after, timing.spoil))
        ]
        select = write.event(("select",), self.pulse.gradient)
        for number in range(-self.dummies, len(self.plan.steps)):
            measured, shown = number >= 0, max(number, 0)
            counter = number + self.dummies
            phase = QUADRATIC * (counter * (counter + 1) // 2) % 360
            write.block(timing.pulse, write.event(("rf", phase), lambda phase=phase: self.pulse.event(phase)), select)
            moves = [
                write.event((name, shown), lambda lobe=lobe, row=areas[shown]: moved(lobe, row))
                for name, lobe, areas in zip(("before", "after"), lobes, (before, after), strict=True)
            ]
            write.block(timing.encode, moves[0])
            gradients = write.event(("read", shown), lambda shown=shown: tuple(readout.gradients(shown)))
            if measured:
                adc = write.event(("adc", phase), lambda phase=phase: self._adc(phase))
                write.block(timing.read, gradients, adc, write.label(LIN=number))
            else:
                write.block(timing.read, gradients)
            write.block(timing.spoil, moves[1])
        return write.sequence

    def _adc(self, phase: int) -> SimpleNamespace:
        return pypulseq().make_adc(
            self.plan.samples,
            dwell=self.readout.dwell / NS,
            delay=self.readout.delay / NS,
            phase_offset=math.radians(phase),
            system=self.limits,
        )

    def definitions(self) -> dict[str, float]:
        """Times in seconds and the flip angle in degrees, as realised; and the sample of the echo."""
        return {**super().definitions(), "kSpaceCenterSample": self.readout.centre}


def moved(lobe: Lobe, areas: np.ndarray) -> tuple[SimpleNamespace, ...]:
    """Trapezoids of these areas along x, y and z in 1/m."""
    return tuple(lobe.event(axis, float(area)) for axis, area in zip(CHANNELS, areas, strict=True))
