"""A user's own images, a folder of them or one file: which files, which subjects, which split. The formats are in `formats`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.datasets import dicom, formats, layout, roles, volumes
from prom.datasets.arrays import Coils, Content, arranged, coil_kspace, fitted, informative, numbers, sides_of, slices, with_maps
from prom.datasets.base import Part, Plan
from prom.datasets.formats import ARRAYS, NAMED, SUPPORTED
from prom.datasets.measured import EMPTY
from prom.datasets.reading import decoding, inside, sha256
from prom.datasets.roles import File
from prom.errors import InputError, unknown
from prom.kspace.coils import CALIBRATION, CROP

SPLITS = ("train", "validation", "test", "all")
DOMAINS = ("image", "kspace")
COILS = ("combine", "keep")
EVEN = 0.98  # the least distance of neighbouring slices of a volume, relative to the greatest


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

    *Patients.* Subjects of one patient are on the same side of every split: ``sub-XX`` of BIDS; the folder whose name the file's name
    begins with (BraTS); else the topmost folder; else the file's name without contrast, session, echo or frame. Where several names end in
    the same numbers (P1_0, P2_0) ``patient`` must say whether these are of slices. See :func:`prom.datasets.layout.names`.

    *Splits.* If the folder has sub-folders train, test, validation or val (or both imagesTr and imagesTs), ``split`` picks one of them. If
    not, patients are sorted by name (numbers by value), and every fifth one, beginning with the second, is "test", the others are
    "train"; there is no "validation". The rule counts patients with a file that is read and does not depend on the order of files on disk,
    but adding patients can move others. A single patient is all "train"; "all" is everything.

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
    secondary captures; ``source`` counts them), masks of this package and what it exports, pictures in black and white but labels,
    phases, real and imaginary parts in two files, coil sensitivities, derivatives of BIDS. The same file in two splits is refused. Links to
    files elsewhere in the folder are read once, links out of it refused.

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
        With "keep": estimated sensitivities are 0 where ESPIRiT's eigenvalue is at most this, outside the object; 0 for none.
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
        ``labels`` uint8 where every file is an npz with labels. ``spacing`` of NIfTI and DICOM files. With coils=keep ``images`` (N, 1, H,
        W) complex64, and ``kspace``, ``sensitivities`` and ``noise``.

    Raises
    ------
    InputError
        One line that names the file: missing, empty, damaged, of the wrong shape or type, slices that differ in size, values that are
        not finite, constant slices, colour, unclear or missing array, one subject saved twice, a split without subjects.

    >>> import tempfile, prom
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
    folders = _split_folders(path) if path.is_dir() else {}
    everything, left_out, notes = _recognised(path, folders, maps, patient, labels, contrast, channels, series, part)
    sides = _sides(path, everything, folders)
    _refuse_copies(sides)
    files = _of_split(path, split, everything, folders, sides)
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
        read=partial(read, sensitivities=maps, **settings),
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
        content = content_of(file, file.path, settings["dataset_name"], settings["axes"], settings["part"], volume=True)
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


def _values(content: Content, domain: str | None, maps: Path | None, coils: Coils | None) -> str:
    """What the values of the images of one file are, for the source."""
    if (domain or content.domain) == "kspace":
        values = "inverse Fourier transform of fully sampled k-space" + ("" if domain else f", recognised by {content.known_by}")
        values += ", readout oversampling cut off" if content.keep else ""
    else:
        values = "intensities as stored"
    if coils is not None:
        values += f", coils kept: {coils.values}"
    elif "K" in content.axes:
        values += ", coils combined by " + (f"the sensitivities of {maps.name!r}" if maps else "root sum of squares")
    return values


def read(
    item: list[File],
    dataset_name: str | None,
    axes: str | None,
    domain: str | None,
    sensitivities: Path | None,
    empty: str,
    size: tuple[int, int] | None,
    size_in: str,
    nan: float | None,
    skip_constant: bool,
    part: str | None,
    coils: str = "combine",
    compress: int | None = None,
    calibration: int = CALIBRATION,
    crop: float = CROP,
    noise: float | None = None,
    volume: bool = False,
    readout: int | None = None,
    time: bool | None = None,
    frames: int | None = None,
    stacked: bool = False,
) -> Part:
    """One subject: the slices of its files, numbered through, a piece of its volume, or its series (``time`` is not None)."""
    first = item[0].path
    for file in item:
        for other in (*file.others, *([file.label] if file.label else [])):
            formats.check_place(file.path, other)
    maps = None if sensitivities is None else formats.read_sensitivities(sensitivities, axes, volume)
    stacks, labels, positions, spacings, values = [], [], [], set(), []
    kept_coils: list[tuple[Coils, np.ndarray, int]] = []
    begin = following = (item[0].positions or (0, 0))[0]
    count = 1
    item = _in_order(item)[0] if stacked else item
    pieces: Iterable[tuple[File, list[Content]]] = ((file, _contents(file, dataset_name, axes, part)) for file in item)
    if time is not None:
        pieces = _series(item, dataset_name, axes, part, frames)
    if volume:
        file, contents, maps, what = _volume(item, dataset_name, axes, part, readout, domain, empty, nan, maps)
        pieces, empty = [(file, contents)], "keep"
        values.append(what)
    for file, contents in pieces:
        channels = [file.path, *file.others]
        if stacked:
            _check_even(str(file.path), contents[0].steps)
        if time is not None:
            count = _frames(channels, contents, count if stacks else None)
        by_coil = None
        if coils == "keep":
            if len(channels) > 1:
                raise InputError(f"{file.path}: has {len(channels)} channels; coils=keep is for one, leave out channels or coils")
            samples = coil_kspace(file.path, contents[0], domain, empty, nan)
            by_coil = with_maps(file.path, samples, maps, compress, noise, size, size_in, calibration, crop, count)
            images = [by_coil.images.numpy()]
        else:
            images = [slices(path, found, domain, maps, empty, nan) for path, found in zip(channels, contents, strict=True)]
        for path, other in zip(channels, images, strict=True):
            if other.shape != images[0].shape or other.dtype != images[0].dtype:
                raise InputError(f"{path}: {_shape(other)}, but {file.path}: {_shape(images[0])}; channels must be on one grid")
        stack = images[0] if len(images) == 1 else np.concatenate(images, axis=1)
        label = contents[0].labels
        grid = (len(samples), *samples.shape[2:]) if by_coil else (len(stack), *stack.shape[2:])  # before size
        if file.label is not None:
            label = formats.read_labels(file.label, grid, contents[0].axes, contents[0].axes == axes)
        if label is not None and label.shape != grid:
            raise InputError(f"{file.path}: labels of {label.shape} for images of {grid}; give labels=none")
        if size:
            stack = stack if by_coil else fitted(stack, size, size_in)
            if label is not None and size_in == "kspace":
                raise InputError(f"{file.path}: has labels, which cannot be resized in k-space; give size_in=image or labels=none")
            label = label if label is None else fitted(label, size, "image")
        if stacks and (stack.shape[1:] != stacks[0].shape[1:] or stack.dtype != stacks[0].dtype):
            raise InputError(f"{first}: {_shape(stacks[0])}, but {file.path}: {_shape(stack)}; all slices of a subject must be alike")
        kept = informative(file.path, stack, skip_constant or volume, count)
        positions += [following + int(i) // count for i in kept[::count]]
        following += len(stack) // count
        # A file that contributes no slice still determines the shape of the others.
        stacks.append(stack if len(kept) == len(stack) else stack[kept])
        labels.append(label if label is None or len(kept) == len(stack) else label[kept])
        spacings.add(contents[0].spacing)
        values += [_values(found, domain, sensitivities, by_coil) for found in contents]
        if by_coil:
            kept_coils.append((by_coil, kept, count))
    if len({label is None for label in labels}) > 1:
        raise InputError(f"{first}: is of subject {item[0].subject!r}, of whose files some have labels and others none")
    images, label = stacks[0] if len(stacks) == 1 else np.concatenate(stacks), None if labels[0] is None else np.concatenate(labels)
    return Part(
        path=first,
        subject=item[0].subject,
        images=images if time is None else _in_time(images, count),
        slices=positions,
        labels=label if label is None or time is None else label.reshape(-1, count, *label.shape[1:]),
        spacing=spacings.pop() if len(spacings) == 1 else None,
        patient=item[0].patient,
        skipped=following - begin - len(positions),
        values=tuple(dict.fromkeys(values)),
        continued=begin > 0,
        **(_joined(first, kept_coils, time is not None) if kept_coils else {}),
    )


def _frames(paths: Sequence[Path], contents: Sequence[Content], before: int | None) -> int:
    """How many frames the series of a file have, which all files of a subject must agree on."""
    for path, content in zip(paths, contents, strict=True):
        if not content.frames:
            raise InputError(f"{path}: has no axis of time; name its axes, with T for the frames, e.g. axes='HWNT'")
        before = content.frames if before is None else before
        if content.frames != before:
            raise InputError(
                f"{paths[0]}: has {content.frames} frames, and others {before}; all series must have as many, which frames= makes of them"
            )
    return before


def _in_time(frames: np.ndarray, count: int) -> np.ndarray:
    """Frames one after the other, (N T, C, H, W), as series (N, C, T, H, W)."""
    return np.ascontiguousarray(frames.reshape(-1, count, *frames.shape[1:]).swapaxes(1, 2))


def _joined(path: Path, files: list[tuple[Coils, np.ndarray, int]], in_time: bool) -> dict[str, Any]:
    """The coils of a subject's files, of each the slices that are kept, as fields of a part."""
    counts = sorted({coils.kspace.shape[1] for coils, _, _ in files})
    if len(counts) > 1:
        raise InputError(f"{path}: is of a subject whose files have {counts[0]} and {counts[-1]} coils; compress= makes them equally many")
    total = sum(len(kept) for _, kept, _ in files)
    variance = sum(len(kept) * coils.noise**2 for coils, kept, _ in files) / max(1, total)
    shared = files[0][0].maps.ndim == 3
    kspace = np.concatenate([coils.kspace.numpy()[kept] for coils, kept, _ in files])
    own = None if shared else np.concatenate([coils.maps.numpy()[kept[::frames] // frames] for coils, kept, frames in files])
    return {
        "kspace": _in_time(kspace, files[0][2]) if in_time else kspace,
        "sensitivities": files[0][0].maps.numpy() if shared else own,
        "noise": math.sqrt(variance),
    }


def _series(
    item: list[File], dataset_name: str | None, axes: str | None, part: str | None, frames: int | None
) -> Iterable[tuple[File, list[Content]]]:
    """The files of a subject, each with the series in it, or its first ``frames``; DICOM files are frames, all together its series."""
    if item[0].kind != "DICOM":
        read = ((file, _contents(file, dataset_name, axes, part, time=True)) for file in item)
        return ((file, [_begin(file.path, content, frames) for content in contents]) for file, contents in read)
    with decoding(item[0].path, "DICOM"):
        order = dicom.in_time([file.path for file in item])
    flat = [number for one in order for number in one]
    found = [content_of(item[number], item[number].path, dataset_name, axes, part) for number in flat]
    for number, frame in zip(flat, found, strict=True):
        if frame.array.shape != (1, *found[0].array.shape[1:]):
            raise InputError(
                f"{item[number].path}: {frame.array.shape}, where the frames of its series have {(1, *found[0].array.shape[1:])}; the "
                "frames of a series must be alike, one in each file"
            )
    stack = np.concatenate([frame.array for frame in found]).reshape(len(order), -1, *found[0].array.shape[1:])
    return [(item[0], [_begin(item[0].path, replace(found[0], array=stack, axes="NTHW"), frames)])]


def _begin(path: Path, content: Content, frames: int | None) -> Content:
    """The first frames of a series."""
    if frames is None or not content.frames:
        return content
    if content.frames < frames:
        raise InputError(f"{path}: has {content.frames} frames, frames={frames} asks for more; leave it out, or take fewer")
    labels = content.labels
    if labels is not None:
        labels = labels.reshape(-1, content.frames, *labels.shape[1:])[:, :frames].reshape(-1, *labels.shape[1:])
    first = tuple(slice(frames) if letter == "T" else slice(None) for letter in content.axes)
    return replace(content, array=content.array[first], labels=labels)


def _contents(
    file: File, dataset_name: str | None, axes: str | None, part: str | None, volume: bool = False, time: bool = False
) -> list[Content]:
    """What the files of an image hold, one for each of its files of channels."""
    return [content_of(file, path, dataset_name, axes, part, volume, time) for path in (file.path, *file.others)]


def content_of(
    file: File,
    path: Path,
    dataset_name: str | None,
    axes: str | None,
    part: str | None,
    volume: bool = False,
    time: bool = False,
) -> Content:
    """What one of the files of an image holds: its own, or one with a further channel. ``volume`` and ``time``: whether raw data may be 3D,
    or series."""
    if file.kind == "DICOM":
        with decoding(path, file.kind):
            return dicom.read(path, part, file.second)
    return formats.content(path, formats.kind_of(path) or file.kind, dataset_name, axes, volume, time)


def _volume(
    item: list[File],
    dataset_name: str | None,
    axes: str | None,
    part: str | None,
    readout: int | None,
    domain: str | None,
    empty: str,
    nan: float | None,
    maps: Tensor | None,
) -> tuple[File, list[Content], Tensor | None, str]:
    """The volume of a subject, cut perpendicular to its readout: one file for all, the slices of each channel, the sensitivities of the
    slices, and what was cut, for the source."""
    item, thickness = _in_order(item)
    file, paths = item[0], [file.path for file in item]
    by_file = [_contents(one, dataset_name, axes, part, volume=True) for one in item]
    for one, contents in zip(item, by_file, strict=True):
        _check_even(str(one.path), contents[0].steps)
    wholes = [volumes.joined(paths, contents, thickness) for contents in zip(*by_file, strict=True)]
    sides = tuple(arranged(wholes[0]).shape[place] for place in (0, 3, 4))
    if file.label is not None:
        found = formats.read_labels(file.label, sides, wholes[0].axes, wholes[0].axes == axes, wholes[0].volume)
        wholes[0] = replace(wholes[0], labels=found)
    along = wholes[0].readout if readout is None else readout
    channels = [file.path, *file.others]
    contents = [volumes.cut(path, whole, along, domain, empty, nan, file.positions) for path, whole in zip(channels, wholes, strict=True)]
    if maps is not None:
        if len(maps) not in (1, sides[0]):
            raise InputError(f"{file.path}: has {sides[0]} slices, but the sensitivities are of {len(maps)}; must be equal, or without N")
        own = volumes.turned(maps.expand(sides[0], -1, -1, -1).numpy(), along)
        maps = torch.from_numpy(numbers(own[slice(*file.positions) if file.positions else slice(None)]))
    what = f"volume of {' x '.join(map(str, sides))} (N, H, W), {volumes.READ_OUT[along]} (readout {along})"
    what += ", its k-space transformed along the readout" if contents[0].domain == "kspace" else ""
    return replace(file, label=None), contents, maps, what


def _in_order(item: list[File]) -> tuple[list[File], float | None]:
    """The files of a volume from one end to the other, and how far apart their slices are in mm, where it is known."""
    if len(item) == 1 or item[0].kind != "DICOM":
        return item, None
    where = f"{item[0].path.parent}, subject {item[0].subject!r}"
    if len({file.order[:2] for file in item}) > 1:
        raise InputError(f"{where}: its {len(item)} DICOM files are of several series, which cannot be one volume; choose one with series=")
    places = np.array([file.order[3] for file in item])
    if (places == places[0]).all():
        if len({file.order[2] for file in item}) < len(item):
            raise InputError(f"{where}: its DICOM files have neither positions nor numbers, so how they make a volume is unclear")
        return item, None
    order = np.argsort(places)
    steps = np.diff(places[order])
    _check_even(where, (steps.min(), steps.max(), "mm"))
    return [item[place] for place in order], float(steps.mean())


def _check_even(where: str, steps: tuple[float, float, str] | None) -> None:
    """Refuse slices whose neighbours are not equally far apart. ``steps``: the least and the greatest distance, and its unit, or None."""
    if steps is not None and steps[0] < EVEN * steps[1]:
        raise InputError(
            f"{where}: its slices are {steps[0]:.3g} to {steps[1]:.3g} {steps[2]} apart; those of a volume must be evenly spaced, one at "
            "each position"
        )


def _shape(images: np.ndarray) -> str:
    return f"{images.dtype}, (channels, H, W) = {images.shape[1:]}"


def _sensitivities(path: Path, axes: str | None) -> Path:
    if "K" not in (axes or ""):
        raise InputError(f"sensitivities {path}: name the axis of the coils, K, e.g. axes='NKHW'")
    if not path.is_file():
        raise InputError(f"sensitivities {path}: is no file; give one with the axes {''.join(a for a in axes if a in 'HWK')}")
    return path


# ---------------------------------------------------------------------------------------------------------------- which files, which split


def _walk(root: Path) -> list[Path]:
    """The folder's visible files, each real file once, and none from outside."""
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_unreadable):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        entries = [Path(folder, f) for f in subfolders + files if not f.startswith(".")]
        for entry in entries:
            if entry.is_symlink():
                inside(entry, root)
        found += [entry for entry in entries if entry.is_file()]
    splits = _split_folders(root)
    # Of a file and links to it one is read: the one in a split's sub-folder first, then the file itself.
    found.sort(key=lambda e: (_split_of(e, root, splits) is None, e.is_symlink(), formats.natural(e.as_posix())))
    chosen: dict[Path, Path] = {}
    for entry in found:
        other = chosen.setdefault(entry.resolve(), entry)
        if _split_of(entry, root, splits) not in (None, _split_of(other, root, splits)):
            raise InputError(f"{entry}: is the same file as {other}; a file can be in one split only")
    return list(chosen.values())


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error


def _split_folders(root: Path) -> dict[str, str]:
    """The split of each sub-folder of the root that is named after one."""
    try:
        names = [f.name for f in sorted(root.iterdir()) if f.is_dir()]
    except OSError as error:
        _unreadable(error)
    found = {name: layout.SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in layout.SPLIT_FOLDERS}
    if not found and {"imagesTr", "imagesTs"} <= set(names):
        found = {f"{what}{side}": split for what in ("images", "labels") for side, split in (("Tr", "train"), ("Ts", "test"))}
    return {name: split for name, split in found.items() if name in names}


def _split_of(file: Path, root: Path, folders: dict[str, str]) -> str | None:
    """The split whose sub-folder the file lies in, or None."""
    return folders.get(file.relative_to(root).parts[0])


def _recognised(
    path: Path,
    folders: dict[str, str],
    maps: Path | None,
    patient: str | None,
    labels: str,
    contrast: str | None,
    channels: Sequence[str] | None,
    series: str | int | None,
    part: str | None,
) -> tuple[list[File], list[roles.LeftOut], list[str]]:
    """All files that can be read but ``maps``, those left out, each with the reason, and notes. ``folders``: those that are splits."""
    root = path if path.is_dir() else path.parent
    paths = [file for file in (_walk(path) if path.is_dir() else [path]) if maps is None or not file.samefile(maps)]
    if not paths:
        raise InputError(f"{path}: is an empty folder; supported are {SUPPORTED}")
    kinds = {file: formats.recognise(file) for file in paths}
    headed = [file for file, kind in kinds.items() if kind == "DICOM"]
    others = [(file, kind) for file, kind in kinds.items() if kind not in (None, "DICOM")]
    of_headers, of_names = (patient if patient not in unfit else None for unfit in (layout.OF_NAMES, dicom.PATIENTS))
    if patient is not None and ((of_headers is None and not others) or (of_names is None and not headed)):
        what = "not of DICOM files" if of_headers is None else "of DICOM files, and there are none"
        raise InputError(f"patient {patient!r}: {what}; give folder, or the number of a folder on the path, from 1")
    frames, notes = dicom.organise(root, headed, folders, series, part, of_headers)
    files = [File(one.path, "DICOM", one.subject, one.order, one.subject, second=one.second) for one in frames]
    found, left_out = roles.assigned(root, others, of_names, labels, contrast, channels) if others else ([], [])
    files += found
    pairs = {other for file, kind in others for other in formats.companions(file, kind)}
    left_out = [(file, "not a format that is read") for file, kind in kinds.items() if kind is None and file not in pairs] + left_out
    if not files and others:
        raise InputError(f"{path}: no image among {len(paths)} file(s); {left_out[-1][0].name!r} is {left_out[-1][1]}")
    if not files:
        why = "".join(f" ({note})" for note in notes)
        raise InputError(f"{path}: no file of a supported type among {len(paths)}, e.g. {paths[0].name!r}{why}; supported are {SUPPORTED}")
    saved: dict[Path, Path] = {}
    for file in files:
        if file.kind != "DICOM":
            other = saved.setdefault(formats.without_extension(file.path), file.path)
            if other != file.path:
                raise InputError(
                    f"{other} and {file.path}: have one name except for the ending; if it is one image saved twice, remove one"
                )
    return files, left_out, notes


def _sides(path: Path, files: list[File], folders: dict[str, str]) -> dict[str, list[File]]:
    """The files of each split: by sub-folder where those exist, by patient where not."""
    if folders:
        sides: dict[str, list[File]] = {split: [] for split in folders.values()}
        where: dict[str, str] = {}
        for file in files:
            split = _split_of(file.path, path, folders)
            if split is None:
                continue
            sides[split].append(file)
            if file.sure and where.setdefault(file.patient, split) != split:
                raise InputError(
                    f"{file.path}: patient {file.patient!r} is in {where[file.patient]} and in {split}; leave each patient in one of them"
                )
        return {split: chosen for split, chosen in sides.items() if chosen}
    patients = sorted({file.patient for file in files}, key=formats.natural)
    test = set(patients[1::5])
    sides = {"train": [file for file in files if file.patient not in test], "test": [file for file in files if file.patient in test]}
    return {split: chosen for split, chosen in sides.items() if chosen}


def _refuse_copies(sides: dict[str, list[File]]) -> None:
    """The same bytes under two names, in two splits. Pictures may well be equal, all black; DICOM files say whose they are."""
    alike: dict[object, list[tuple[str, Path]]] = {}
    for split, files in sides.items():
        for file in files:
            if file.kind not in ("image", "DICOM"):
                alike.setdefault(file.path.stat().st_size, []).append((split, file.path))
    for key in (_middle, sha256):  # little of a file is read, unless another one has that too
        groups, alike = [group for group in alike.values() if len({split for split, _ in group}) > 1], {}
        for number, group in enumerate(groups):
            for split, file in group:
                alike.setdefault((number, key(file)), []).append((split, file))
    for group in alike.values():
        (split, first), *others = sorted(group, key=lambda one: formats.natural(one[1].as_posix()))
        for other, second in others:
            if other != split:
                raise InputError(f"{first} in {split} and {second} in {other}: are the same, byte by byte; remove one")


def _middle(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            opened.seek(file.stat().st_size // 2)
            return opened.read(4096)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check its permissions") from error


def _of_split(path: Path, split: str, files: list[File], folders: dict[str, str], sides: dict[str, list[File]]) -> list[File]:
    """The files of the split."""
    if split == "all":
        return files
    if split in sides:
        return sides[split]
    if folders:
        raise InputError(f"{path}: no files for split {split!r}; sub-folders found: {', '.join(folders)}")
    if split == "validation":
        raise InputError(f"{path}: has no sub-folder 'validation' or 'val', and the split by patient makes train and test only; make one")
    raise InputError(
        f"{path}: has one patient, {files[0].patient!r}, who is all in train; use split='all', add patients, or say who is one (patient=)"
    )
