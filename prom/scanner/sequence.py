"""From a mask to a Pulseq sequence: spoiled gradient echo in 2D and 3D, on the grid and off it, and turbo spin echo."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prom.errors import InputError
from prom.files import atomic
from prom.masks import MaskResult
from prom.scanner.gre import GradientEcho
from prom.scanner.off_grid import OffGridEcho
from prom.scanner.plan import ScanPlan, plan
from prom.scanner.protocol import Protocol
from prom.scanner.readout_plan import ReadoutPlan
from prom.scanner.readout_plan import plan as plan_of_readouts
from prom.scanner.tse import TurboSpinEcho

if TYPE_CHECKING:
    import pypulseq as pulseq

MOST_SAMPLES = 8192  # of one ADC event on the scanners of one vendor; prom has no need to cut longer ones


@dataclass(frozen=True, eq=False)
class Scan:
    """A sequence and what is known about it.

    Attributes
    ----------
    sequence
        Of pypulseq, with definitions; :func:`write` makes a file of it.
    plan
        What is measured when.
    te, tr
        Realised, in seconds.
    flip
        Degrees.
    duration
        Seconds.
    """

    sequence: pulseq.Sequence
    plan: ScanPlan
    te: float
    tr: float
    flip: float
    duration: float


def make(result: MaskResult, protocol: Protocol | None = None, name: str = "prom") -> Scan:
    r"""The sequence that measures a mask: columns and rows in 2D, points in 3D with the readout along a third axis.

    Gradients x, y, z are readout, lines, and partitions or slice. The ADC's samples, o times :math:`n_x` with an oversampling of o, have
    their centres at

    .. math:: k_x = (i - o n_x // 2) / (o \mathrm{FOV}_x),\quad k_y = (\mathrm{LIN} - n_y // 2) / \mathrm{FOV}_y,\quad
        k_z = (\mathrm{PAR} - n_z // 2) / \mathrm{FOV}_z

    so that the image is that of :func:`prom.fft2c`. Labels: ``LIN`` and ``PAR`` as in the formula, ``REF`` and ``IMA`` set for lines of
    the calibration region, which belong to the image too, and ``SEG``, the number of the echo in its train.

    Readouts off the grid are gradient echoes whose samples are the points of their trajectory
    (:class:`prom.scanner.off_grid.OffGridEcho`), and ``LIN`` counts them in the order of measurement.

    *What is checked*: the timing on the rasters, dead times, amplitude and slew rate of each axis, the peak of B1.

    *What is not*, and somebody with a scanner must: stimulation of nerves (PNS) and heating (SAR), for which the scanner's own models are
    needed; heating and duty cycle of the gradients and the sum of axes in oblique slices; eddy currents, delays and other errors of the
    trajectory; sound and forbidden frequencies; what a vendor's interpreter wants of labels, or of the number of samples (some want a
    multiple of 4). First on a phantom, and with a fully sampled scan to compare with.

    Raises
    ------
    InputError
        Where the settings cannot be met; the message has the least or largest value that can. pypulseq must be installed.

    >>> import torch
    >>> from prom.baselines import as_result
    >>> lines = torch.zeros(32, 32, dtype=torch.bool)
    >>> lines[:, ::2] = True
    >>> scan = make(as_result(lines, "half", 2, "columns"), Protocol(fov=(220,), tr=8, te=4))
    >>> scan.sequence.check_timing()[0], len(scan.plan.steps), round(1000 * scan.te, 3), round(scan.duration, 3)
    (True, 16, 4.0, 1.416)
    """
    protocol = Protocol() if protocol is None else protocol
    if result.trajectory is not None:
        chosen = OffGridEcho(plan_of_readouts(result, protocol), protocol)
    else:
        chosen = TurboSpinEcho(result, protocol) if protocol.kind == "tse" else GradientEcho(plan(result, protocol), protocol)
    if (samples := chosen.plan.samples) > MOST_SAMPLES:
        raise InputError(f"readout of {samples} samples: must be <= {MOST_SAMPLES}; use a smaller matrix or oversampling")
    sequence, found = chosen.sequence(), chosen.definitions()
    for key, value in {**_definitions(chosen.plan, protocol, name), **found}.items():
        sequence.set_definition(key, value)
    return Scan(sequence, chosen.plan, found["EchoTime"], found["RepetitionTime"], chosen.flip, sum(sequence.block_durations.values()))


def _definitions(made: ScanPlan, protocol: Protocol, name: str) -> dict[str, object]:
    matrix, samples = made.matrix, made.samples
    centres = {
        "kSpaceCenterLine": matrix[1] // 2,
        "kSpaceCenterPartition": matrix[2] // 2,
        "kSpaceCenterSample": samples // 2,
    }
    return {
        "Name": re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:64] or "prom",
        "FOV": list(made.fov),
        "Kind": f"{protocol.kind}{2 + made.three_dimensional}d",
        "Matrix": list(matrix),
        "Pattern": made.pattern,
        "TrueAcceleration": made.acceleration,
        "B0": protocol.field,
        **({} if isinstance(made, ReadoutPlan) else centres),  # of lines
        "kSpacePhaseEncodingLines": made.lengths[1],
        "MaxAdcSegmentLength": samples,
        "ReadoutOversamplingFactor": made.oversampling,
    }


def write(scan: Scan, path: Path) -> None:
    """Write a sequence as a ``.seq`` file of Pulseq 1.5 (https://pulseq.github.io/specification.pdf), signed.

    Raises
    ------
    InputError
        Where the file cannot be written, or pypulseq finds an error in the timing, which would be one of prom.
    """
    fine, errors = scan.sequence.check_timing()
    if not fine:
        raise InputError(f"sequence: has {len(errors)} errors of timing, the first in block {errors[0].block}; please report it")
    with tempfile.TemporaryDirectory() as folder:  # pypulseq changes names that do not end in .seq
        scan.sequence.write(f"{folder}/scan.seq", check_timing=False)
        with atomic(path) as temporary:
            temporary.write_bytes(Path(folder, "scan.seq").read_bytes())
