"""A mask as what a scanner is given: a Pulseq sequence, headers of raw data, or a list in the order of measurement."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prom import options
from prom.errors import InputError, unknown
from prom.files import atomic, check_writable
from prom.kspace.patterns import AXES
from prom.masks import MaskResult
from prom.masks.export import described, export
from prom.scanner import raw_data
from prom.scanner.plan import ScanPlan, across, frames_of, joined, plan
from prom.scanner.protocol import Protocol
from prom.scanner.readout_plan import ReadoutPlan
from prom.scanner.readout_plan import plan as plan_of_readouts
from prom.scanner.sequence import Scan, make, write


def write_scan(result: MaskResult, path: str | os.PathLike, **settings: object) -> Scan | ScanPlan | None:
    """Write a mask in the format that the ending of ``path`` names; ``settings`` are those of :class:`prom.scanner.protocol.Protocol`.

    - ``.seq``: the sequence (:func:`prom.scanner.sequence.make`); returned as a :class:`~prom.scanner.sequence.Scan`.
    - ``.mrd``: headers of its acquisitions without data (:func:`prom.scanner.raw_data.write`), likewise.
    - ``.csv`` with settings: the list of :func:`prom.masks.export.to_csv` in the order of measurement, with the columns shot and echo,
      counted from 0, and calibration, 0 or 1 (of readouts off the grid with shot alone); its :class:`~prom.scanner.plan.ScanPlan` is
      returned. Of a gradient echo the order alone is settled: whether its times and gradients can be met, ``.seq`` and ``.mrd`` say.
    - any other, and ``.csv`` without settings: as :func:`prom.masks.export.export`, which knows no settings.

    A volume's lines are a 3D scan, whose partitions are the volume's. A series is measured frame after frame, with the frame as the counter
    ``phase`` of ``.mrd`` and the column frame of ``.csv``; its plan is returned.

    Raises
    ------
    InputError
        Where the ending is not known, settings are given that the format does not have, or they cannot be met.

    >>> write_scan(None, "mask.docx")
    Traceback (most recent call last):
    prom.errors.InputError: output format '.docx' is not known (known: .cfl, .csv, .h5, .mat, .mrd, .npy, .png, .seq)
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (*options.FORMATS, *options.SCANNER_FORMATS):
        raise unknown("output format", path.suffix, (*options.FORMATS, *options.SCANNER_FORMATS))
    ordered, names = bool(settings) or ending in options.SCANNER_FORMATS, None
    if result is not None and ordered and result.lines.frames:
        return _write_series(result, path, ending, settings)
    if result is not None and ordered and result.mask.ndim == 3 and result.trajectory is None:
        if "readout" in settings:
            raise InputError(f"readout {settings['readout']}: the mask of a volume says itself how long its lines are; leave it out")
        names = [AXES[axis] for axis in (-1, -2, -3) if axis not in result.lines.readout]
        result, readout = across(result)
        settings |= {"readout": readout}
    if ending in options.SCANNER_FORMATS:
        check_writable(path)
        scan = make(result, Protocol(**settings), path.stem)
        if ending == ".seq":
            write(scan, path)
        else:
            raw_data.write(path, scan.plan, times(scan), at=acquisition_times(scan))
        return scan
    if not settings:
        export(result, path)
        return None
    if ending != ".csv":
        raise InputError(f"option {next(iter(settings))}: {ending} has no order of measurement; use .seq, .mrd or .csv, or leave it out")
    made = _ordered(result, Protocol(**settings))
    with atomic(path) as temporary:
        table(made, names).to_csv(temporary, index=False, lineterminator="\n")
    return made


def _write_series(result: MaskResult, path: Path, ending: str, settings: dict[str, object]) -> ScanPlan:
    """The frames of a series, one after the other."""
    if ending not in (".mrd", ".csv"):
        what = "a Pulseq sequence is of one frame" if ending == ".seq" else f"{ending} has no order of measurement"
        raise InputError(f"output {path}: {what}, and this mask has {len(result.mask)}; export it as .csv, or as .mrd, which count frames")
    check_writable(path)
    frames, protocol = frames_of(result), Protocol(**settings)
    if ending == ".csv":
        made = joined([_ordered(one, protocol) for one in frames])
        with atomic(path) as temporary:
            table(made).to_csv(temporary, index=False, lineterminator="\n")
        return made
    scans = [make(one, protocol, path.stem) for one in frames]
    if len({times(scan) for scan in scans}) > 1:
        raise InputError(
            "frames: take different times for their readouts, and raw data have one dwell time, TE and TR; set bandwidth, te and tr"
        )
    begins = np.cumsum([0.0, *(scan.duration for scan in scans)])
    made = joined([scan.plan for scan in scans])
    at = np.concatenate([begin + acquisition_times(scan) for begin, scan in zip(begins, scans, strict=False)])
    raw_data.write(path, made, times(scans[0]), at=at)
    return made


def _ordered(result: MaskResult, protocol: Protocol) -> ScanPlan:
    """The order alone: of a turbo spin echo it depends on all settings, as these decide which echo meets the centre."""
    if result.trajectory is not None:
        return plan_of_readouts(result, protocol)
    return make(result, protocol).plan if protocol.kind == "tse" else plan(result, protocol)


def table(made: ScanPlan, names: Sequence[str] | None = None) -> pd.DataFrame:
    """The plan as a table, one line a measured line, point or readout, in the order of measurement. ``names``: of its axes, by default
    those of a slice's; a volume has others."""
    if isinstance(made, ReadoutPlan):
        numbers = {"frame": made.frame.numpy()} if made.frame is not None else {}
        return pd.DataFrame({**numbers, **described(made.trajectory, made.steps[:, 0]), "shot": made.shot.numpy()})
    names = names or [AXES[axis] for axis in {"columns": (-1,), "rows": (-2,), "points": (-2, -1)}[made.pattern]]
    numbers = {name: made.steps[:, place].numpy() for place, name in enumerate(names)}
    offsets = {f"{name}_offset": numbers[name] - made.matrix[1 + place] // 2 for place, name in enumerate(names)}
    counters = {"shot": made.shot.numpy(), "echo": made.echo.numpy(), "calibration": made.calibration.numpy().astype(int)}
    frame = {} if made.frame is None else {"frame": made.frame.numpy()}
    return pd.DataFrame({**frame, **numbers, **offsets, **counters})


def times(scan: Scan) -> raw_data.Times:
    """What raw data say of a sequence."""
    dwell = next(iter(scan.sequence.adc_library.data.values()))[1]
    return raw_data.Times(scan.tr, scan.te, scan.flip, dwell, scan.sequence.system.B0)


def acquisition_times(scan: Scan) -> np.ndarray:
    """When each acquisition begins, in seconds from the start of the sequence."""
    starts = np.cumsum([0.0, *scan.sequence.block_durations.values()])[:-1]
    measured = np.array([events[5] > 0 for events in scan.sequence.block_events.values()])
    return starts[measured]
