"""ISMRMRD files: the header and the heads of all acquisitions in the order of measurement, with their samples or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from prom.engine.optional import ismrmrd
from prom.errors import InputError
from prom.files import atomic
from prom.scanner.plan import ScanPlan

MOST = 65535  # what a counter of 16 bits holds
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

    Encoded and reconstructed space are the plan's matrix and field of view, so there is no oversampling; ``encodingLimits`` have the
    centres ``n // 2``. Every acquisition has ``idx.kspace_encode_step_1`` and ``_2`` (line and partition), the flag
    ``ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING`` within the calibration region, and first and last ones the flags that say so.
    Echo and shot of a turbo spin echo are ``idx.user[0]`` and ``idx.user[1]``: programs take acquisitions of different
    ``idx.segment`` apart. The frame of a series is ``idx.phase``.

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
    count, width = len(made.steps), made.matrix[0]
    frames = 1 if made.frame is None else int(made.frame.max()) + 1
    if max(*made.matrix, int(made.shot.max()), frames, samples.shape[1] if samples is not None else 0) > MOST:
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
    head["number_of_samples"], head["center_sample"] = width, width // 2
    head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    if at is not None:
        head["acquisition_time_stamp"] = np.round(at * 1000)  # ms
    steps = made.steps.numpy()
    index = head["idx"]
    index["kspace_encode_step_1"], index["kspace_encode_step_2"] = steps[:, 0], steps[:, 1]
    index["phase"] = 0 if made.frame is None else made.frame.numpy()
    index["user"][:, 0], index["user"][:, 1] = made.echo.numpy(), made.shot.numpy()
    head["flags"] = _flags(library, made)
    written = [*([noise] if before else []), *(np.zeros((count, 0)) if samples is None else samples)]
    for number, values in enumerate(written):
        rows["traj"][number] = np.zeros(0, np.float32)
        rows["data"][number] = np.ascontiguousarray(values, np.complex64).view(np.float32).ravel()
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[header(made, times, channels).encode()], dtype=h5py.special_dtype(vlen=bytes))
        group.create_dataset("data", data=rows, maxshape=(None,), chunks=True)


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
    extent = dict(zip("xyz", (1000 * value for value in made.fov), strict=True))
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**dict(zip("xyz", made.matrix, strict=True))), fieldOfView_mm=xsd.fieldOfViewMm(**extent)
    )

    def limit(length: int, centre: int | None = None) -> object:
        return xsd.limitType(minimum=0, maximum=length - 1, center=length // 2 if centre is None else centre)

    single = {name: limit(1) for name in ("average", "slice", "contrast", "repetition", "set", "segment")}
    single["phase"] = limit(1 if made.frame is None else int(made.frame.max()) + 1, 0)
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        trajectory=xsd.trajectoryType.CARTESIAN,
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_0=limit(made.matrix[0]),
            kspace_encoding_step_1=limit(made.matrix[1]),
            kspace_encoding_step_2=limit(made.matrix[2]),
            **single,
            user_0=limit(int(made.echo.max()) + 1, 0),
            user_1=limit(int(made.shot.max()) + 1, 0),
        ),
        echoTrainLength=int(made.echo.max()) + 1,
    )
    made_of = xsd.userParameterStringType(name="pattern", value=made.pattern)
    true = xsd.userParameterDoubleType(name="true_acceleration", value=made.acceleration)
    document = xsd.ismrmrdHeader(
        version=1,
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=round(times.field * GAMMA_HERTZ)),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=times.field, receiverChannels=channels or None
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(TR=[1000 * times.tr], TE=[1000 * times.te], flipAngle_deg=[times.flip]),
        userParameters=xsd.userParametersType(userParameterDouble=[true], userParameterString=[made_of]),
    )
    return xsd.ToXML(document)
