"""ISMRMRD files: the header and the heads of all acquisitions in the order of measurement, with their samples or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from prom.engine.optional import ismrmrd
from prom.errors import InputError
from prom.files import atomic
from prom.scanner.off_grid import nearest
from prom.scanner.plan import ScanPlan
from prom.scanner.readout_plan import ReadoutPlan

MOST = 65535  # what a counter of 16 bits holds
UNIT = "cycles per field of view"
GAMMA_HERTZ = 42.576e6  # Hz/T


@dataclass(frozen=True)
class Times:
    """What raw data say of the sequence: TR and TE in s, the flip angle in degrees, the dwell time in s, the field in tesla."""

    tr: float
    te: float
    flip: float
    dwell: float
    field: float


def write(
    path: Path,
    made: ScanPlan,
    times: Times,
    samples: np.ndarray | None = None,
    at: np.ndarray | None = None,
    noise: np.ndarray | None = None,
) -> None:
    """Write an ISMRMRD file (HDF5, group ``dataset``; https://ismrmrd.github.io).

    Reconstructed space is the plan's matrix and field of view; the encoded one is as many times as long along x as the readout is
    oversampled. ``encodingLimits`` have the centres ``n // 2``. Every acquisition has ``idx.kspace_encode_step_1`` and ``_2`` (line and
    partition), the flag ``ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING`` within the calibration region, and first and last ones the flags that
    say so. Echo and shot of a turbo spin echo are ``idx.user[0]`` and ``idx.user[1]``: programs take acquisitions of different
    ``idx.segment`` apart. The frame of a series is ``idx.phase``.

    Acquisitions of readouts off the grid have their trajectory, x before y before z (columns, rows, partitions), in cycles per field of
    view, so that the encoded matrix spans -n / 2 to n / 2; the format knows no unit, and the user parameter ``trajectory_unit`` names it.
    ``idx.kspace_encode_step_1`` counts them in the order of measurement, and ``idx.user[2]`` is the number of the candidate.

    Parameters
    ----------
    samples
        ``(S, K, readout)`` complex64, or None: then the acquisitions have no channels, and so no data that could be taken for measured.
    at
        ``(S,)`` seconds from the start of the sequence, for the time stamps, or None.
    noise
        ``(K, samples)`` complex64 of a scan without signal, or None: the first acquisition then, with ``ACQ_IS_NOISE_MEASUREMENT``.

    Raises
    ------
    InputError
        Where the file cannot be written, a counter has more than 16 bits, or ismrmrd is not installed.
    """
    library = ismrmrd()
    count, width = len(made.steps), made.samples
    frames = 1 if made.frame is None else int(made.frame.max()) + 1
    if isinstance(made, ReadoutPlan) and int(made.steps.max()) > MOST:
        raise InputError(f"candidate {int(made.steps.max())}: raw data count to {MOST}; use fewer candidates")
    if max(*made.matrix, *made.lengths, int(made.shot.max()), frames, samples.shape[1] if samples is not None else 0) > MOST:
        raise InputError(f"matrix {made.matrix} with {int(made.shot.max()) + 1} shots: raw data count to {MOST}; use a smaller one")
    channels = 0 if samples is None else samples.shape[1]
    before = 0 if noise is None else 1
    rows = np.zeros(before + count, dtype=library.hdf5.acquisition_dtype)
    head = rows["head"]
    head["version"] = 1
    head["scan_counter"] = np.arange(len(rows)) + 1
    head["available_channels"] = head["active_channels"] = channels
    head["channel_mask"][:, : -(-channels // 64)] = [(1 << min(64, channels - word)) - 1 for word in range(0, channels, 64)]
    head["sample_time_us"] = times.dwell * 1e6
    if before:
        head["number_of_samples"][0] = noise.shape[1]
        head["flags"][0] = 1 << (library.ACQ_IS_NOISE_MEASUREMENT - 1)
    head = head[before:]
    trajectory, centre = _trajectory(made)
    head["number_of_samples"], head["center_sample"], head["trajectory_dimensions"] = width, centre, trajectory.shape[-1]
    head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    if at is not None:
        head["acquisition_time_stamp"] = np.round(at * 1000)  # ms
    counters = made.counters.numpy()
    index = head["idx"]
    index["kspace_encode_step_1"], index["kspace_encode_step_2"] = counters[:, 0], counters[:, 1]
    index["phase"] = 0 if made.frame is None else made.frame.numpy()
    index["user"][:, 0], index["user"][:, 1] = made.echo.numpy(), made.shot.numpy()
    if isinstance(made, ReadoutPlan):
        index["user"][:, 2] = made.steps[:, 0].numpy()
    head["flags"] = _flags(library, made)
    written = [*([noise] if before else []), *(np.zeros((count, 0)) if samples is None else samples)]
    for number, values in enumerate(written):
        rows["traj"][number] = np.zeros(0, np.float32) if number < before else trajectory[number - before].ravel()
        rows["data"][number] = np.ascontiguousarray(values, np.complex64).view(np.float32).ravel()
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[header(made, times, channels).encode()], dtype=h5py.special_dtype(vlen=bytes))
        group.create_dataset("data", data=rows, maxshape=(None,), chunks=True)


def _trajectory(made: ScanPlan) -> tuple[np.ndarray, int]:
    """``(S, R, axes)`` float32, of lines and points without axes, and the sample of the echo."""
    if not isinstance(made, ReadoutPlan):
        return np.zeros((len(made.steps), made.samples, 0), np.float32), made.samples // 2
    points = made.points.numpy()
    return points[..., : 2 + made.three_dimensional].astype(np.float32), nearest(points)


def _kind(made: ScanPlan) -> str:
    """What ISMRMRD calls the trajectory."""
    if not isinstance(made, ReadoutPlan):
        return "CARTESIAN"
    return {"spokes": "RADIAL", "kooshball": "RADIAL", "spirals": "SPIRAL"}.get(made.pattern, "OTHER")


def _flags(library: object, made: ScanPlan) -> np.ndarray:
    flags = np.zeros(len(made.steps), dtype=np.uint64)

    def add(name: str, where: object) -> None:
        flags[where] |= np.uint64(1 << (getattr(library, f"ACQ_{name}") - 1))

    add("IS_PARALLEL_CALIBRATION_AND_IMAGING", made.calibration.numpy())
    frame = np.zeros(len(flags), int) if made.frame is None else made.frame.numpy()
    first, last = (np.flatnonzero(np.diff(frame, **{end: -1})) for end in ("prepend", "append"))  # of each frame
    for name in ("REPETITION", "AVERAGE", "CONTRAST", "SET"):
        add(f"FIRST_IN_{name}", 0)
        add(f"LAST_IN_{name}", -1)
    for name in ("SLICE", "PHASE", "ENCODE_STEP1", *(["ENCODE_STEP2"] if made.three_dimensional else [])):
        add(f"FIRST_IN_{name}", first)
        add(f"LAST_IN_{name}", last)
    add("LAST_IN_MEASUREMENT", -1)
    return flags


def header(made: ScanPlan, times: Times, channels: int) -> str:
    """The XML header.

    Raises
    ------
    InputError
        Where ismrmrd is not installed.
    """
    xsd = ismrmrd().xsd

    def space(oversampling: int) -> object:
        size, extent = (
            dict(zip("xyz", (oversampling * first, *rest), strict=True))
            for first, *rest in (made.matrix, [1000 * value for value in made.fov])
        )
        return xsd.encodingSpaceType(matrixSize=xsd.matrixSizeType(**size), fieldOfView_mm=xsd.fieldOfViewMm(**extent))

    def limit(length: int, centre: int | None = None) -> object:
        return xsd.limitType(minimum=0, maximum=length - 1, center=length // 2 if centre is None else centre)

    single = {name: limit(1) for name in ("average", "slice", "contrast", "repetition", "set", "segment")}
    single["phase"] = limit(1 if made.frame is None else int(made.frame.max()) + 1, 0)
    encoding = xsd.encodingType(
        encodedSpace=space(made.oversampling),
        reconSpace=space(1),
        trajectory=xsd.trajectoryType[_kind(made)],
        encodingLimits=xsd.encodingLimitsType(
            **{f"kspace_encoding_step_{number}": limit(length) for number, length in enumerate(made.lengths)},
            **single,
            user_0=limit(int(made.echo.max()) + 1, 0),
            user_1=limit(int(made.shot.max()) + 1, 0),
        ),
        echoTrainLength=int(made.echo.max()) + 1,
    )
    words = {"pattern": made.pattern} | ({"trajectory_unit": UNIT} if isinstance(made, ReadoutPlan) else {})
    named = [xsd.userParameterStringType(name=name, value=value) for name, value in words.items()]
    true = xsd.userParameterDoubleType(name="true_acceleration", value=made.acceleration)
    document = xsd.ismrmrdHeader(
        version=1,
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=round(times.field * GAMMA_HERTZ)),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=times.field, receiverChannels=channels or None
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(TR=[1000 * times.tr], TE=[1000 * times.te], flipAngle_deg=[times.flip]),
        userParameters=xsd.userParametersType(userParameterDouble=[true], userParameterString=named),
    )
    return xsd.ToXML(document)
