"""2D turbo spin echo, for lines: one shot measures one line at each of its echoes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prom.errors import InputError
from prom.scanner.events import SPOILING, Lobe, Pulse, Readout, Writer, ceil
from prom.scanner.plan import plan, train_length
from prom.scanner.protocol import GRADIENT_RASTER, Protocol

if TYPE_CHECKING:
    import pypulseq as pulseq

    from prom.masks import MaskResult

FLIP, PULSE, REPETITION, DUMMIES = 90.0, 3.0, 3_000_000_000, 1
SPACING_RASTER = 2 * GRADIENT_RASTER  # of the echo spacing: half of it lies between a pulse and its echo
THICKER = 2.0  # times the slice's thickness: a refocusing pulse's, whose profile is narrower than its spectrum, so that echoes have 95 %
SLACK = 1.5  # times the shortest echo spacing: the longest that is taken to meet an echo time exactly


class TurboSpinEcho:
    r"""Excitation along y, refocusing along x (Carr-Purcell-Meiboom-Gill), each refocusing pulse between two equal crushers.

    Between two refocusing pulses: crusher and phase encode; readout with the echo in the middle between the pulses; rewinder and crusher.
    What the readout has dephased from the echo to its end is made equal to what it was prephased, so that every echo is at DC. Source:
    Hennig, Nauerth and Friedburg 1986, https://doi.org/10.1002/mrm.1910030602.

    The echo time is an exact multiple of the echo spacing; the echo of that number meets the centre of k-space.

    Parameters
    ----------
    result
        The mask, of columns or rows.
    protocol
        The settings.

    Raises
    ------
    InputError
        Where TE or TR is too short, TE is no multiple of a possible echo spacing, or the lines cannot be dealt out to the shots.
    """

    def __init__(self, result: MaskResult, protocol: Protocol) -> None:
        self.protocol, self.limits, self.echoes = protocol, protocol.limits(), train_length(result, protocol)
        made = plan(result, protocol)  # its geometry; the order follows when it is known which echo meets the centre
        length = protocol.ns("pulse") or round(PULSE * 1e6)
        self.excite = Pulse(protocol.flip or FLIP, made.fov[2], length, protocol, "excitation", "flip")
        self.refocus = Pulse(protocol.refocusing, THICKER * made.fov[2], length, protocol, "refocusing", "refocusing")
        after = self.refocus.duration - self.refocus.centre
        # of the readout's own time; from the middle of the pulse to the echo is a multiple of the raster, but for 0.5 us
        self.readout = Readout.of(made.samples, made.extent, protocol, self.limits).echo_at(-after)
        self.echo = round((self.readout.echo + after) / GRADIENT_RASTER) * GRADIENT_RASTER - after
        self.lines = (made.matrix[1] // 2) / made.fov[1]
        self.crusher = SPOILING / made.fov[2]
        self.spacing, self.centre = self._spacing()
        self.plan = plan(result, protocol, self.centre)
        half = self.spacing // 2
        self.before = half - self.refocus.centre - (self.excite.duration - self.excite.centre)
        self.encode = half - after - self.echo
        self.rewind = half - self.refocus.centre - (self.readout.lobe.duration - self.echo)
        shot = self.excite.duration + self.before + self.echoes * self.spacing
        spoil = Lobe.shortest(self.crusher, self.limits).duration
        self.repetition = protocol.ns("tr") or max(REPETITION, shot + spoil)
        if self.repetition < shot + spoil:
            raise InputError(
                f"tr {protocol.tr:g} ms: is too short; the least is {(shot + spoil) / 1e6:g} ms with {self.echoes} echoes of "
                f"{self.spacing / 1e6:g} ms"
            )
        self.spoil = self.repetition - shot

    @property
    def flip(self) -> float:
        """Degrees."""
        return self.excite.flip

    @property
    def dummies(self) -> int:
        """Shots without data at the start."""
        return DUMMIES if self.protocol.dummies is None else self.protocol.dummies

    def _spacing(self) -> tuple[int, int]:
        """Echo spacing in ns, and the number of the echo that meets the centre."""
        lobe = max(Lobe.shortest(area, self.limits).duration for area in (self.lines, self.crusher))
        prephase = max(Lobe.shortest(area, self.limits).duration for area in (self.readout.before, self.crusher + self.excite.half))
        halves = (
            self.excite.duration - self.excite.centre + prephase + self.refocus.centre,
            self.refocus.duration - self.refocus.centre + lobe + self.echo,
            self.readout.lobe.duration - self.echo + lobe + self.refocus.centre,
        )
        least, wanted, echoes = ceil(2 * max(halves), SPACING_RASTER), self.protocol.ns("te"), self.echoes
        if wanted is None:
            return least, (echoes + 1) // 2
        if wanted < least:
            raise InputError(f"te {self.protocol.te:g} ms: is too short; the least is {least / 1e6:g} ms, one echo spacing")
        for number in range(min(wanted // least, echoes), 0, -1):
            if wanted % (number * SPACING_RASTER) == 0 and (wanted // number <= SLACK * least or number == echoes):
                return wanted // number, number
        near = [f"te={time / 1e6:g}" for time in _nearest(wanted, least, echoes)]
        raise InputError(
            f"te {self.protocol.te:g} ms: is no multiple of an echo spacing of {least / 1e6:g} to {SLACK * least / 1e6:g} ms on the "
            f"raster; use {' or '.join(near)}"
        )

    def sequence(self) -> pulseq.Sequence:
        """The sequence, without definitions."""
        write, limits = Writer(self.protocol), self.limits
        encode, rewind = (Lobe.within(self.lines, time, limits) for time in (self.encode, self.rewind))
        prephaser = Lobe.within(self.readout.before, self.before, limits).event("x", self.readout.before)
        crush = self.crusher - self.excite.half  # rephasing and the first crusher in one
        first = Lobe.within(abs(crush), self.before, limits).event("z", crush)
        # so that the area from one echo to the pulse equals that from the pulse to the next
        balance = self.readout.before - self.readout.after
        after = (
            Lobe.within(balance, self.rewind, limits).event("x", balance),
            Lobe.within(self.crusher, self.rewind, limits).event("z", self.crusher),
        )
        last = Lobe.within(self.crusher, self.spoil, limits).event("z", self.crusher)
        excite = [*write.event(("90",), lambda: self.excite.event(90)), *write.event(("z90",), self.excite.gradient)]
        refocus = [*write.event(("180",), lambda: self.refocus.event(0)), *write.event(("z180",), self.refocus.gradient)]
        start = write.event(("start",), lambda: (prephaser, first))
        crusher = write.event(("crusher",), lambda: Lobe.within(self.crusher, self.encode, limits).event("z", self.crusher))
        back, spoiler = write.event(("back",), lambda: after), write.event(("spoil",), lambda: last)
        gradient, adc = write.event(("read",), lambda: self.readout.events(90, limits))
        middle = self.plan.matrix[1] // 2
        shots = int(self.plan.shot.max()) + 1
        lines = self.plan.steps[:, 0].reshape(shots, -1).tolist()
        calibration = self.plan.calibration.reshape(shots, -1).tolist()
        for shot in range(-self.dummies, shots):
            write.block(self.excite.duration, excite)
            write.block(self.before, start)
            for echo in range(self.echoes):
                line = 0 if shot < 0 else lines[shot][echo] - middle
                write.block(self.refocus.duration, refocus)
                write.block(self.encode, crusher, write.event(("y", line), lambda line=line: encode.event("y", line / self.plan.fov[1])))
                if shot < 0:
                    write.block(self.readout.lobe.duration, [gradient])
                else:
                    reference = int(calibration[shot][echo])
                    labels = write.label(LIN=line + middle, SEG=echo, REF=reference, IMA=reference)
                    write.block(self.readout.lobe.duration, [gradient, adc], labels)
                write.block(self.rewind, back, write.event(("-y", line), lambda line=line: rewind.event("y", -line / self.plan.fov[1])))
            write.block(self.spoil, spoiler)
        return write.sequence

    def definitions(self) -> dict[str, float]:
        """Times in seconds, flip angle in degrees, as realised."""
        return {
            "EchoTime": self.centre * self.spacing / 1e9,
            "RepetitionTime": self.repetition / 1e9,
            "FlipAngle": self.flip,
            "EchoSpacing": self.spacing / 1e9,
            "EchoTrainLength": self.echoes,
        }


def _nearest(wanted: int, least: int, echoes: int) -> list[int]:
    """The echo times next below and above one that cannot be, in ns: of the last echo any spacing is possible, of others up to SLACK.

    >>> _nearest(15_000_000, 8_040_000, 3)                 # 15 ms lies between the first echo and the second
    [12060000, 16080000]
    """
    below, above = [], []
    for number in range(1, echoes + 1):
        raster = number * SPACING_RASTER
        first, last = number * least, math.inf if number == echoes else math.floor(SLACK * least / SPACING_RASTER) * raster
        if first <= wanted:
            below.append(min(wanted // raster * raster, last))
        if wanted <= last:
            above.append(max(-(-wanted // raster) * raster, first))
    return [max(below), min(above)]
