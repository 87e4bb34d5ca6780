"""Reading back a sequence that prom has written: what is measured when, from the file alone."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prom.engine.optional import pypulseq
from prom.errors import InputError
from prom.kspace.patterns import READOUTS
from prom.scanner.plan import ScanPlan
from prom.scanner.protocol import Protocol
from prom.scanner.sequence import MOST_SAMPLES, Scan

if TYPE_CHECKING:
    import pypulseq as pulseq

MOST_BYTES = 2**30  # of a file: a million repetitions have 400 MB
LONGEST_SHAPE = 2**20  # samples of a pulse: a second has so many; what a file declares costs memory
SIGNATURE = "\n[SIGNATURE]\n"
NAMES = ("Matrix", "FOV", "Pattern", "TrueAcceleration", "EchoTime", "RepetitionTime", "FlipAngle", "B0")
FORMER = {
    "TE": "EchoTime",
    "TR": "RepetitionTime",
}  # of which an interpreter makes the protocol's, which can stop the scan
PATTERNS = ("columns", "rows", "points")


def read(path: str | os.PathLike) -> Scan:
    """The scan of a ``.seq`` file of :func:`prom.scanner.sequence.write`.

    Lines, partitions, calibration and echoes are those of its labels LIN, PAR, REF and SEG, shots are counted by its excitations, and
    matrix, field of view and times are in its definitions. Nothing comes from the mask it was made of, so that it can be compared.

    Raises
    ------
    InputError
        Where there is no such file, it has another signature than its text, it is not by prom, or its parts do not fit each other.

    >>> read("none.seq")
    Traceback (most recent call last):
    prom.errors.InputError: sequence none.seq: cannot be read (No such file or directory); name a .seq file that prom has written
    """
    sequence = _parsed(Path(path))
    known = {FORMER.get(name, name): value for name, value in sequence.definitions.items()}
    if missing := [name for name in NAMES if name not in known]:
        raise InputError(f"sequence {path}: has no definition {missing[0]}, so it is not by prom; export it again from its mask")
    sequence.system.B0 = float(known["B0"])
    try:
        made = _plan(sequence)
    except InputError:
        raise
    except Exception as error:  # of pypulseq's reading of blocks, and of numbers that are none
        raise InputError(f"sequence {path}: its blocks do not fit each other ({_words(error)}); export it again from its mask") from error
    te, tr, flip = (float(known[name]) for name in ("EchoTime", "RepetitionTime", "FlipAngle"))
    return Scan(sequence, made, te, tr, flip, float(sum(sequence.block_durations.values())))


def _parsed(path: Path) -> pulseq.Sequence:
    library, limits = pypulseq(), Protocol().limits()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"sequence {path}: has {path.stat().st_size / 2**20:.0f} MiB, more than any that prom writes; name another")
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"sequence {path}: cannot be read ({error.strerror}); name a .seq file that prom has written") from error
    body, _, signature = text.partition(SIGNATURE.encode())
    found = re.search(rb"^Type md5\nHash ([0-9a-f]{32})$", signature, re.MULTILINE)
    if not found:
        raise InputError(f"sequence {path}: has no signature, so it is no .seq file of prom; export it again from its mask")
    if found[1].decode() != hashlib.md5(body, usedforsecurity=False).hexdigest():
        raise InputError(f"sequence {path}: has been changed since it was signed, or is damaged; export it again from its mask")
    sequence = library.Sequence(limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sequence.read(str(path))
    except Exception as error:  # pypulseq raises whatever its parser meets
        raise InputError(f"sequence {path}: is no Pulseq file that pypulseq reads ({_words(error)}); export it again") from error
    shapes = [int(shape[0]) for shape in sequence.shape_library.data.values()]
    samples = [int(event[0]) for event in sequence.adc_library.data.values()]
    if max(shapes, default=0) > LONGEST_SHAPE or max(samples, default=0) > MOST_SAMPLES:
        raise InputError(f"sequence {path}: declares a pulse or readout of {max(shapes + samples)} samples; no scanner plays it")
    return sequence


def _plan(sequence: pulseq.Sequence) -> ScanPlan:
    known = sequence.definitions
    matrix = tuple(int(size) for size in known["Matrix"])
    fov, pattern = tuple(float(extent) for extent in known["FOV"]), str(known["Pattern"])
    if pattern in READOUTS:
        raise InputError(f"sequence of {pattern}: has readouts off the grid, and only lines and points are read back; keep its mask file")
    if len(matrix) != 3 or len(fov) != 3 or min(matrix) < 1 or pattern not in PATTERNS or not min(fov) > 0:
        raise InputError(f"sequence: a matrix of {matrix}, a field of view of {fov} m and pattern {pattern!r} are none of prom's")
    oversampling = int(known.get("ReadoutOversamplingFactor", 1))
    samples = matrix[0] * oversampling
    widths = {int(sequence.adc_library.data[events[5]][0]) for events in sequence.block_events.values() if events[5] > 0}
    if widths != {samples}:
        raise InputError(f"sequence: has readouts of {sorted(widths)} samples, where its matrix says {samples}")
    times = sequence.adc_times()[0].reshape(-1, samples)[:, 0]
    pulses = np.searchsorted(np.array(sequence.rf_times()[0]), times)
    labels = sequence.evaluate_labels(evolution="adc")

    def label(name: str) -> torch.Tensor:
        return torch.as_tensor(np.array(labels.get(name, np.zeros(len(times))), dtype=np.int64))

    steps = torch.stack([label("LIN"), label("PAR")], dim=1)
    if bool((steps < 0).any()) or bool((steps >= torch.tensor(matrix[1:])).any()):
        raise InputError(f"sequence: has lines or partitions outside its matrix {matrix}")
    shots = torch.from_numpy(np.unique(pulses, return_inverse=True)[1].astype(np.int64))
    true = float(known["TrueAcceleration"])
    return ScanPlan(pattern, matrix, fov, steps, label("REF") > 0, shots, label("SEG"), true, oversampling=oversampling)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]
