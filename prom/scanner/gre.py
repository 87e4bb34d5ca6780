"""Spoiled gradient echo: 2D for lines, 3D for points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prom.errors import InputError
from prom.scanner.events import SPOILING, Lobe, Pulse, Readout, Writer, ceil
from prom.scanner.plan import ScanPlan
from prom.scanner.protocol import GRADIENT_RASTER, Protocol

if TYPE_CHECKING:
    import pypulseq as pulseq

    from prom.scanner.readout_plan import ReadoutPlan

FLIP, PULSE = 12.0, 2.0
RELAXATION, TRANSIENT = 1500.0, 0.05  # T1 in ms that default dummies serve, and how far from the steady state its signal may still be
QUADRATIC = 117  # degrees by which the step of the pulse's phase grows from each TR to the next (Zur et al. 1991)


@dataclass(frozen=True)
class Timing:
    """The four blocks of a TR in ns, and what is realised: echo and repetition time in ns."""

    pulse: int
    encode: int
    read: int
    spoil: int
    echo: float

    @property
    def repetition(self) -> int:
        """TR in ns."""
        return self.pulse + self.encode + self.read + self.spoil


def to_steady_state(repetition: float, flip: float) -> int:
    r"""The pulses, one at least, after which tissue of T1 = 1.5 s has a signal within 5 % of that of the steady state.

    With :math:`E = e^{-TR / T_1}` each pulse leaves :math:`E \cos\alpha` of what is too much, :math:`1 - E \cos\alpha` over
    :math:`1 - E` less 1 of the steady state at first (Ernst and Anderson 1966, https://doi.org/10.1063/1.1719961).

    Parameters
    ----------
    repetition, flip
        TR in ms, and the flip angle in degrees.

    >>> to_steady_state(8, 12), to_steady_state(500, 60)
    (161, 4)
    """
    kept = math.exp(-repetition / RELAXATION) * math.cos(math.radians(flip))
    excess = abs((1 - kept) / -math.expm1(-repetition / RELAXATION) - 1)
    return max(1, math.ceil(math.log(TRANSIENT / excess) / math.log(abs(kept)))) if excess > TRANSIENT else 1


class SpoiledEcho:
    """What spoiled gradient echoes have in common: pulse, dummies, definitions. Each has a ``timing`` of its own."""

    timing: Timing

    def __init__(self, made: ScanPlan | ReadoutPlan, protocol: Protocol) -> None:
        self.plan, self.protocol, self.limits = made, protocol, protocol.limits()
        self.thickness = made.fov[2] if protocol.thickness is None else protocol.thickness / 1000
        length = protocol.ns("pulse") or round(PULSE * 1e6)
        self.pulse = Pulse(protocol.flip or FLIP, self.thickness, length, protocol, "excitation", "flip")

    @property
    def flip(self) -> float:
        """Degrees."""
        return self.pulse.flip

    @property
    def dummies(self) -> int:
        """TRs without data at the start."""
        if self.protocol.dummies is not None:
            return self.protocol.dummies
        return to_steady_state(self.timing.repetition / 1e6, self.flip)

    def definitions(self) -> dict[str, float]:
        """Times in seconds and the flip angle in degrees, as realised."""
        return {"EchoTime": self.timing.echo / 1e9, "RepetitionTime": self.timing.repetition / 1e9, "FlipAngle": self.flip}


class GradientEcho(SpoiledEcho):
    r"""Every TR has four blocks: pulse; prephasing, encoding and rephasing; readout; rewinding and spoiling.

    The n-th pulse and its readout have the phase :math:`117^\circ\, n (n + 1) / 2` (RF spoiling: Zur, Wood and Neuringer 1991,
    https://doi.org/10.1002/mrm.1910210210).

    Parameters
    ----------
    made
        The plan.
    protocol
        The settings.

    Raises
    ------
    InputError
        Where TE or TR is too short; the message says the shortest, rounded up to 10 µs.
    """

    def __init__(self, made: ScanPlan, protocol: Protocol) -> None:
        super().__init__(made, protocol)
        self.readout = Readout.of(made.samples, made.extent, protocol, self.limits)
        self.lines = (made.matrix[1] // 2) / made.fov[1]  # the largest encode, 1/m
        self.partitions = (made.matrix[2] // 2) / made.fov[2] if made.three_dimensional else 0.0
        self.timing = self._timing()

    @property
    def spoilers(self) -> tuple[float, float]:
        """Areas along the readout, which spoils already, and through the slice, 1/m."""
        along = SPOILING * self.plan.matrix[0] / self.plan.fov[0] - self.readout.after
        return along, 0.0 if self.plan.three_dimensional else SPOILING / self.thickness

    def _timing(self) -> Timing:
        after_pulse = self.pulse.duration - self.pulse.centre
        areas = (self.readout.largest, self.lines, self.pulse.half + self.partitions)
        encode = max(Lobe.shortest(area, self.limits).duration for area in areas)
        least = ceil(after_pulse + encode + self.readout.echo)
        wanted = self.protocol.ns("te") or least
        if wanted < least:
            raise InputError(f"te {self.protocol.te:g} ms: is too short; the least is {least / 1e6:g} ms with these settings")
        self.readout = self.readout.echo_at(wanted - after_pulse)
        encode = round((wanted - after_pulse - self.readout.echo) / GRADIENT_RASTER) * GRADIENT_RASTER
        spoil = max(Lobe.shortest(area, self.limits).duration for area in (*self.spoilers, self.lines, self.partitions))
        read = self.readout.lobe.duration
        least = self.pulse.duration + encode + read + spoil
        wanted = self.protocol.ns("tr") or least
        if wanted < least:
            raise InputError(
                f"tr {self.protocol.tr:g} ms: is too short; the least is {least / 1e6:g} ms at an echo time of "
                f"{(after_pulse + encode + self.readout.echo) / 1e6:g} ms with these settings"
            )
        echo = after_pulse + encode + self.readout.echo
        return Timing(self.pulse.duration, encode, read, wanted - least + spoil, echo)

    def sequence(self) -> pulseq.Sequence:
        """The sequence, without definitions."""
        write, timing = Writer(self.protocol), self.timing
        encode, spoil = timing.encode, timing.spoil
        shapes = {  # one shape for all steps of an axis, of which only the amplitude changes
            "y": Lobe.within(self.lines, encode, self.limits),
            "z": Lobe.within(self.pulse.half + self.partitions, encode, self.limits),
            "-y": Lobe.within(self.lines, spoil, self.limits),
            "-z": Lobe.within(self.partitions, spoil, self.limits),
        }
        prephaser = Lobe.within(self.readout.before, encode, self.limits).event("x", -self.readout.before)
        spoilers = [Lobe.within(area, spoil, self.limits).event(axis, area) for axis, area in zip("xz", self.spoilers, strict=True) if area]
        select, pre = write.event(("select",), self.pulse.gradient), write.event(("pre",), lambda: prephaser)
        spoiling = write.event(("spoil",), lambda: tuple(spoilers))
        steps = [(None, None)] * self.dummies + list(zip(self.plan.steps.tolist(), self.plan.calibration.tolist(), strict=True))
        for number, (step, calibration) in enumerate(steps):
            phase = QUADRATIC * (number * (number + 1) // 2) % 360
            line, partition = (0, 0) if step is None else self.offsets(step)
            write.block(timing.pulse, write.event(("rf", phase), lambda phase=phase: self.pulse.event(phase)), select)
            write.block(
                encode,
                pre,
                write.event(("y", line), lambda line=line: shapes["y"].event("y", line / self.plan.fov[1])),
                write.event(
                    ("z", partition),
                    lambda partition=partition: shapes["z"].event("z", partition / self.plan.fov[2] - self.pulse.half),
                ),
            )
            gradient, adc = write.event(("read", phase), lambda phase=phase: self.readout.events(phase, self.limits))
            if step is None:
                write.block(timing.read, [gradient])
            else:
                labels = write.label(LIN=step[0], PAR=step[1], REF=int(calibration), IMA=int(calibration))
                write.block(timing.read, [gradient, adc], labels)
            rewind = [write.event(("-y", line), lambda line=line: shapes["-y"].event("y", -line / self.plan.fov[1]))]
            if self.plan.three_dimensional:
                rewind.append(
                    write.event(("-z", partition), lambda partition=partition: shapes["-z"].event("z", -partition / self.plan.fov[2]))
                )
            write.block(spoil, *rewind, spoiling)
        return write.sequence

    def offsets(self, step: list[int]) -> tuple[int, int]:
        """Signed phase encodes of a step, 0 at DC."""
        return step[0] - self.plan.matrix[1] // 2, step[1] - self.plan.matrix[2] // 2
