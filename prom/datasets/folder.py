"""A user's own images, a folder of them or one file: what is asked for, checked, and what will be read. The formats are in `formats`, which
files and splits there are in `splits`, and what one subject's files are made into in `subjects`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from prom import options
from prom.datasets import formats, roles, splits, subjects, volumes
from prom.datasets.arrays import sides_of
from prom.datasets.base import Plan
from prom.datasets.formats import ARRAYS, NAMED
from prom.datasets.measured import EMPTY
from prom.datasets.roles import File
from prom.errors import InputError, unknown
from prom.kspace.coils import CALIBRATION, CROP

SPLITS = ("train", "validation", "test", "all")
DOMAINS = ("image", "kspace")
COILS = ("combine", "keep")


def plan(
    path: str | os.PathLike,
    split: str = "train",
    *,
    dataset_name: str | None = None,
    axes: str | None = None,
    domain: str | None = None,
    sensitivities: str | os.PathLike | None = None,
    empty: str = "refuse",
    patient: str | None = None,
    labels: str = "auto",
    contrast: str | None = None,
    channels: str | Sequence[str] | None = None,
    size: int | Sequence[int] | None = None,
    size_in: str = "image",
    nan: float | None = None,
    name: str | None = None,
    skip_constant: bool = False,
    series: str | int | None = None,
    part: str | None = None,
    coils: str = "combine",
    compress: int | None = None,
    calibration: int = CALIBRATION,
    crop: float = CROP,
    noise: float | None = None,
    volume: bool = False,
    readout: int | None = None,
    time: bool = False,
    frames: int | None = None,
    stacked: bool = False,
) -> Plan:
    """Your own images: a folder of them, or one file, of any supported format.

    ==============  ==================================================================================================================
    NIfTI           (H, W), (H, W, N) slices last, or (H, W, N, C) channels last; axis 0 becomes the rows, nothing is reoriented; scaled
                    by the header's slope and intercept
    npy, npz        (H, W), (N, H, W) or (N, C, H, W). npz: the array ``dataset_name``, else "images", else the only one; optional
                    "labels", (H, W) or (N, H, W)
    HDF5            shapes as npy: the dataset ``dataset_name``, else "images", "reconstruction_esc" or "reconstruction_rss" (in this
                    order), else the only numeric one with two axes longer than 1. Links and data in other files are not followed
    MATLAB          versions 5 to 7.3, shapes as NIfTI: the array ``dataset_name``, fields of structs by dots, else the only numeric one
                    with two axes longer than 1
    PNG/TIFF/JPEG   grey, or colour with equal channels (an alpha channel is ignored); a TIFF's pages are slices
    DICOM           recognised by content, whatever the file is called; single- or multi-frame, a frame is a slice, by position; rescale
                    slope and intercept applied; compressed pixels need ``pip install 'prom-mri[dicom]'``
    Analyze, MGH    ``.img`` with its ``.hdr`` (also a NIfTI pair), or both with ``.gz``; ``.mgh``, ``.mgz``: as NIfTI
    ISMRMRD, twix   ``.h5`` or ``.mrd`` with a table of lines, Siemens ``.dat``: k-space of slices, coils, lines (rows) and samples
                    (columns), 2D, or 3D with ``volume``, Cartesian and complete; readout oversampling cut off, averages averaged;
                    ``pip install 'prom-mri[scanner]'``
    BART            ``.cfl`` with its ``.hdr``: the two of its first three axes that are longer than 1, coils, slices; k-space where its
                    energy lies in the centre, images where that of its transform does
    ==============  ==================================================================================================================

    *Subjects.* A file is a subject, named by its path in the folder. Two exceptions: PNG/TIFF/JPEG files in a sub-folder are one subject,
    the sub-folder; DICOM files with the same PatientID are one subject, their slices sorted by SeriesNumber, series, InstanceNumber and
    ImagePositionPatient. Where the PatientID was removed (empty, "anonymous", 000), the StudyInstanceUID takes its place, or the
    sub-folder where that does not differ but each sub-folder has its own series, of the same kinds; ``source`` says so. Whether one
    PatientID for several studies, or several studies in one sub-folder, are of one patient must be given (``patient``). Subject names go
    into results: de-identify DICOM files first.

    *Patients.* Subjects of one patient are on the same side of every split: the ``patient_id`` in an HDF5 file (fastMRI); else ``sub-XX``
    of BIDS; the folder whose name the file's name begins with (BraTS); else the topmost folder; else the file's name without contrast,
    session, echo or frame. Where several names end in the same numbers (P1_0, P2_0) ``patient`` must say whether these are of slices. See
    :func:`prom.datasets.layout.names`.

    *Splits.* If the folder has sub-folders train, test, validation or val (or both imagesTr and imagesTs, or fastMRI's multicoil_train,
    multicoil_val ...), ``split`` picks one of them. If not, patients are sorted by name (numbers by value), and every fifth one, beginning
    with the second, is "test", the others are "train"; there is no "validation". The rule counts patients with a file that is read and does
    not depend on the order of files on disk, but adding patients can move others. A single patient is all "train"; "all" is everything.

    *Labels.* A file is a label by its name (``_seg``, ``_gt``, ``-label``, ``_dseg`` ...), its folder (labelsTr, labels, masks), or its
    values, whole and few, beside an image of the patient on the same grid. It belongs to the image that is called the same, and has its
    axes, without channels and coils. Labels and further contrasts of NIfTI and MGH files must lie where the image lies, by their headers.

    *Volumes.* With ``volume`` the slices of a subject, in the order above (DICOM: by position), are one volume, of the axes N, H and W, and
    the data set has the slices perpendicular to its ``readout``: a mask then chooses among the two other axes, ky and kz of a 3D scan,
    and is the same at every position of the readout. They have the axes H and W of the volume (readout 0), N and W (1), or N and H (2).
    K-space must have all three axes (of raw data: lines, partitions and samples; of BART: its second axis, its first and its third); it
    is transformed along the readout. Slices without any contrast, or of rounding alone, as there are beside the object, are left
    out, and ``source`` says how many. ``slices`` is the position along the readout.

    *Series in time.* With an axis T in ``axes``, e.g. ``HWNT``, the data set is of kind "series": ``images`` (N, C, T, H, W), each with
    as many frames. Every frame is k-space or an image of its own; T can also be another axis along which images look alike, such as
    echoes or b-values. Raw data and DICOM files say themselves what a frame is, where ``time`` asks for series: the phases, or the
    repetitions, of ISMRMRD and twix files; of DICOM the trigger times, or temporal positions, at each position. What is not certain is
    refused. A series with a frame that is constant is left out as a constant slice is. Labels are read from npz files alone, as
    ``(N, T, H, W)``. With coils=keep all frames of a series have the same sensitivities.

    *Not read.* Hidden files, files of other types, DICOM files without an image of the scanner (DICOMDIR, reports, presentation states,
    secondary captures; ``source`` counts them), masks of this package and what it exports, pictures in black and white but labels, phases,
    real and imaginary parts in two files, coil sensitivities, derivatives and field maps of BIDS. The same file in two splits is refused.
    Links to files elsewhere in the folder are read once, links out of it refused.

    Parameters
    ----------
    path
        A folder, searched with its sub-folders, or one file.
    split
        "train", "test", "validation", or "all".
    dataset_name
        Which array of npz, HDF5 and MATLAB files to read, e.g. ``"scan/magnitude"`` (HDF5) or ``"data.images"`` (MATLAB).
    axes
        What the axes of arrays in npy, npz, HDF5, MATLAB and NIfTI files are, a letter for each: H and W (rows, columns), N (slices), C
        (channels: contrasts, echoes, all measured with one mask), K (coils), R (real and imaginary part), 1 (one of length 1, to drop).
        E.g. ``"HWCN"``, or for multi-coil k-space ``"NKHW"``. Without names the axes are those of the table where that makes slices, of
        at least 8 rows and columns. They must be named where k-space may be of coils, but for fastMRI, where two channels or slices
        with negative values may be real and imaginary part, and where NIfTI of four axes gives a unit of time, or FreeSurfer a
        repetition time.
    domain
        "image", or "kspace": arrays are fully sampled k-space with its centre at ``[H // 2, W // 2]``, complex, and the images are
        :func:`prom.ifft2c` of it, for each coil. Without it an array called kspace is k-space, and complex numbers that are not
        certainly images are refused: those whose transform has not at least five times their share of energy in its centre.
    sensitivities
        A file with the sensitivities of the coils, one for all slices, with the axes of ``axes`` in the same order without N, C and 1;
        the images are then complex, :func:`prom.kspace.coils.combine`. Without it the images of coils become the magnitude
        :func:`prom.kspace.coils.root_sum_of_squares`.
    empty
        What to do where rows, columns, or more than a tenth of the points of k-space are 0: "refuse", "keep", or "crop" (rows and
        columns at the edges, as zero-padding leaves them).
    patient
        Who is one, where names or headers leave it open: "file", "case" (its name without contrast, session, echo or frame), "name"
        (likewise; where two names end in the same number, all of them without their numbers), "folder" (the innermost), or the number
        of a folder on the path, from 1; of DICOM "id" (PatientID) or "study" (StudyInstanceUID) instead of the file and its name,
        which DICOM does not go by.
    labels
        "auto"; "only": leave out images that have none; "none": read none.
    contrast, channels
        Which contrast to read, as the files' names end, e.g. ``"t1"``; or several, as channels: ``"flair,t1,t1ce,t2"``. By default all
        are read, each as slices of its own.
    size, size_in
        Rows and columns of every slice, (256, 256) or 256: cut or filled up with zeros around the centre, in "image" space (the pixels
        stay) or in "kspace" (the field of view stays).
    nan
        What takes the place of NaN, e.g. 0 for a background.
    name
        What to call the data set; by default the name of the folder or file.
    skip_constant
        Leave out slices in which all values are equal, which say nothing about k-space, instead of refusing them; ``source`` says how many.
    series
        Which DICOM series to read: its SeriesDescription (in any case), SeriesNumber or SeriesInstanceUID. Needed where a patient has
        several that differ in size or description.
    part
        Where DICOM files are magnitude and phase, or real and imaginary part: "magnitude", or "complex", which joins them.
    coils
        "combine": to one image, see ``sensitivities``. "keep": the data set has ``kspace`` of each coil and ``sensitivities``, those of
        the file, or else estimated for each slice by ESPIRiT (:func:`prom.kspace.coils.estimated`, ``pip install 'prom-mri[coils]'``);
        ``images`` are :func:`prom.kspace.coils.combine` of all samples, so they hold the measurement's noise, and are 0 where the
        sensitivities are. K-space without coils is that of one.
    compress
        With "keep": how many virtual coils to make of a file's coils, :func:`prom.kspace.coils.compress`.
    calibration
        With "keep": rows and columns at the centre of k-space from which sensitivities are estimated.
    crop
        With "keep": estimated sensitivities are 0 where ESPIRiT's eigenvalue is at most this, outside the object; 0 for none. The usual one
        is lowered, to 0.8 or 0, in slices whose object it would cut off, as it does where the centre is small.
    noise
        With "keep": standard deviation of the noise of a complex sample of k-space, as stored. By default estimated in the corners:
        too large where the image has energy there, too small where k-space was filtered (:func:`prom.kspace.coils.noise_level`).
    volume
        Whether a subject's slices are one volume, which is cut perpendicular to its readout. ``sensitivities`` then also have the axis
        N, unless they are the same along it. npy and BART files larger than 64 MiB are read in pieces.
    readout
        With ``volume``: 0, 1 or 2, the axis N, H or W of the volume. By default of raw data that along which the scanner measured (2
        of ISMRMRD and twix, 1 of BART), of others 0.
    time
        Whether raw data or DICOM files are series in time. Of array files the axis T says it.
    frames
        The first so many frames of each series, 2 or more; by default all, of which all series must have as many.
    stacked
        Whether a subject's DICOM files come by position and must be evenly apart, as :func:`prom.load` asks with ``grid``.

    Returns
    -------
    Plan
        For :func:`prom.datasets.cache.read`, which makes a :class:`SliceDataset` of it. ``images`` (N, C, H, W): complex64 where files
        are complex, else float32, integers included; intensities as stored. ``slices``: the number within the subject, from 0.
        ``labels`` uint8 where every image has them. ``spacing`` of NIfTI and DICOM files. With coils=keep ``images`` (N, 1, H,
        W) complex64, and ``kspace``, ``sensitivities`` and ``noise``.

    Raises
    ------
    InputError
        One line that names the file: missing, empty, damaged, of the wrong shape or type, slices that differ in size, values that are
        not finite, constant slices, colour, unclear or missing array, one subject saved twice, a split without subjects.

    >>> import tempfile, numpy as np, prom
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         np.save(f"{folder}/scan{i}.npy", np.random.rand(16, 16, 4))
    ...     test = prom.load(folder, "test", axes="HWN")
    >>> test.images.shape, set(test.subjects)
    (torch.Size([4, 1, 16, 16]), {'scan1.npy'})
    """
    if not os.fspath(path):
        raise InputError("path '': must be that of a folder or file; the folder at hand is '.'")
    path = Path(path)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if domain not in (None, *DOMAINS):
        raise unknown("domain", domain, DOMAINS)
    try:
        path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist; give a folder of images or one file") from error
    except OSError as error:
        raise InputError(f"{str(path)[:80]}: cannot be read ({error.strerror}); check its name and its permissions") from error
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: is neither a folder nor a file; give a folder of images or one file")
    for option, value, choices in (("empty", empty, EMPTY), ("labels", labels, roles.LABELS), ("size_in", size_in, ("image", "kspace"))):
        if value not in choices:
            raise unknown(option, value, choices)
    if coils not in COILS:
        raise unknown("coils", coils, COILS)
    kept = {}
    if coils == "keep":
        kept = {"coils": coils, "calibration": options.check("calibration", calibration, "[8, 1024]", whole=True)}
        kept["crop"] = options.check("crop", crop, "[0, 1]")
        kept["compress"] = None if compress is None else options.check("compress", compress, "[1, 1024]", whole=True)
        kept["noise"] = None if noise is None else options.check("noise", noise, "[0, 1e30]")
    if sensitivities is not None and (calibration, crop) != (CALIBRATION, CROP):
        raise InputError("calibration and crop: are for estimating sensitivities, and these are given; leave them out")
    usual = {"compress": None, "noise": None, "calibration": CALIBRATION, "crop": CROP}
    for option, value in zip(usual, (compress, noise, calibration, crop), strict=True):
        if value != usual[option] and not kept:
            raise InputError(f"{option} {value}: is of coils that are kept; give coils=keep, or leave it out")
    if contrast is not None and channels is not None:
        raise InputError(f"contrast {contrast!r} and channels {channels!r}: give one of them")
    channels = channels.split(",") if isinstance(channels, str) else channels
    size, nan = sides_of(size), None if nan is None else options.check("nan", nan, "(-1e30, 1e30)")
    volumes.check(volume, readout)
    if not isinstance(time, bool):
        raise InputError(f"time {time!r}: must be true or false")
    in_time = time or "T" in (axes or "")
    if frames is not None and not in_time:
        raise InputError(f"frames {frames}: is of series in time; give an axis T or time=true, or leave it out")
    frames = None if frames is None else options.check("frames", frames, "[2, 1e6]", whole=True)
    if in_time and volume:
        raise InputError(f"{path}: volume and series in time: give one of them, volume=true, or an axis T or time=true")
    name = name or path.resolve().name
    if name != Path(name).name:
        raise InputError(f"name {name!r}: must not have a {os.sep!r}, for files are called after it")
    maps = None if sensitivities is None else _sensitivities(Path(sensitivities), axes)
    patient = None if patient is None else str(patient)
    folders = splits.split_folders(path) if path.is_dir() else {}
    everything, left_out, notes = splits.recognised(path, folders, maps, patient, labels, contrast, channels, series, part)
    sides = splits.sides_by_split(path, everything, folders)
    splits.refuse_copies(sides)
    files = splits.of_split(path, split, everything, folders, sides)
    if labels != "none":
        roles.check_labels(files, split)
    files.sort(key=lambda file: (formats.natural(file.subject), file.kind, file.order))
    kinds = sorted({file.kind for file in files})
    for option, value, usable in (
        ("dataset_name", dataset_name, NAMED),
        ("axes", axes, ARRAYS),
        ("series", series, ("DICOM",)),
        ("part", part, ("DICOM",)),
    ):
        if value is not None and not set(usable) & set(kinds):
            raise InputError(f"{path}: {option} {value!r}: there is no {', '.join(usable)} file that it could be of; leave it out")
    if "DICOM" in kinds:
        for option, value in (("labels", labels if labels == "only" else None), ("contrast", contrast), ("channels", channels)):
            if value is not None:
                raise InputError(
                    f"{path}: {option} {value!r}: goes by the names of files, and those of DICOM say nothing; use series, or leave it out"
                )
    if maps is not None and formats.kind_of(maps) == "BART" and kinds != ["BART"]:
        other = next(kind for kind in kinds if kind != "BART")
        raise InputError(
            f"sensitivities {maps}: of BART beside {other}, whose axes have another order; save them as .npy with the axes "
            + "".join(letter for letter in axes or "KHW" if letter in ("NKHW" if volume else "KHW"))
        )
    settings = {"dataset_name": dataset_name, "axes": axes, "domain": domain, "empty": empty, "size": size, "size_in": size_in, "nan": nan}
    settings |= {"skip_constant": skip_constant, "part": part, **kept}
    settings |= {"volume": volume, "readout": readout} if volume else {}
    settings |= {"stacked": True} if stacked else {}
    settings |= {"time": time, "frames": frames} if in_time else {}
    if in_time:
        _check_series(path, files, axes)
    used = [used for file in files for used in (file.path, *file.others, file.label, file.second) if used]
    used += [other for file in files for other in formats.companions(file.path, file.kind) if other.is_file()]
    items = [list(group) for _, group in groupby(files, key=lambda file: file.subject)]
    return Plan(
        name=name,
        split=split,
        root=path,
        items=[piece for item in items for piece in _pieces(item, settings, maps)] if volume else items,
        read=partial(subjects.read, sensitivities=maps, **settings),
        files=[*used, *([maps] if maps else [])],
        options={**settings, "sensitivities": maps is not None, "patient": patient, "labels": labels, "contrast": contrast}
        | ({"sigpy": _sigpy()} if kept else {})
        | {"channels": channels, "series": series, "patients": [file.patient for file in files]},
        source="; ".join(
            [
                f"{len(files)} {', '.join(kinds)} file(s) of {path.resolve().name!r}",
                *_what(files, size, size_in),
                f"patients: {', '.join(f'{len({file.patient for file in chosen})} {side}' for side, chosen in sides.items())}",
                *notes,
            ]
        ),
        sides={side: sorted({file.patient for file in chosen}, key=formats.natural) for side, chosen in sides.items()},
        left_out=left_out,
        notes=notes,
        kind="series" if in_time else Plan.kind,
        skipping="empty slice(s)" if volume else "series with a constant frame" if in_time else Plan.skipping,
    )


def _check_series(path: Path, files: list[File], axes: str | None) -> None:
    """Refuse files of which no frame can be certain."""
    if named := next(
        (file for file in files if file.kind in ARRAYS and file.kind not in ("HDF5", "twix") and "T" not in (axes or "")), None
    ):
        raise InputError(f"{named.path}: which of its axes is time is unclear; name all, with T for the frames, e.g. axes='HWNT'")
    if other := next((file for file in files if file.kind == "image"), None):
        raise InputError(f"{other.path}: is a picture, of which no frames are known; save the series as npy, and name its axes, e.g. NTHW")
    if labelled := next((file for file in files if file.label), None):
        raise InputError(
            f"{labelled.label}: has the labels of a series, which are read from npz files alone, beside the images; give labels=none"
        )


def _pieces(item: list[File], settings: dict[str, Any], maps: Path | None) -> list[list[File]]:
    """The pieces in which a subject's volume is read: several of a large file that is mapped, else one."""
    [file, *others] = item
    mapped = file.kind in formats.MAPPED and not others and not file.others and settings.get("compress") is None
    estimated = settings.get("coils") == "keep" and (maps is None or settings["noise"] is None)  # from all slices, as what all share
    if not mapped or estimated or file.path.stat().st_size <= volumes.SLAB or "R" in (settings["axes"] or ""):
        return [item]
    try:
        content = subjects.content_of(file, file.path, settings["dataset_name"], settings["axes"], settings["part"], volume=True)
    except InputError:
        return [item]  # whose reader says it, when it comes to this file
    return [[replace(file, positions=piece)] for piece in volumes.slabs(content, settings["readout"])]


def _sigpy() -> str | None:
    """The version of SigPy, on which estimated sensitivities depend, or None."""
    try:
        return version("sigpy")
    except PackageNotFoundError:
        return None


def _what(files: list[File], size: tuple[int, int] | None, size_in: str) -> list[str]:
    """What is read of the files, and in which size, for the source."""
    what = []
    contrasts = sorted({file.contrast for file in files if file.contrast})
    if files[0].others:
        what.append(f"{1 + len(files[0].others)} contrasts as channels")
    elif len(contrasts) > 1:
        what.append(f"slices of contrasts {', '.join(contrasts)}")
    if size:
        what.append(f"cut or filled up to {size[0]} x {size[1]} in {'k-space' if size_in == 'kspace' else 'image space'}")
    return what


def _sensitivities(path: Path, axes: str | None) -> Path:
    if "K" not in (axes or ""):
        raise InputError(f"sensitivities {path}: name the axis of the coils, K, e.g. axes='NKHW'")
    if not path.is_file():
        raise InputError(f"sensitivities {path}: is no file; give one with the axes {''.join(a for a in axes if a in 'HWK')}")
    return path
