"""The files of a user's own images, by format: one table, `FORMATS`, says what is read and how."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import torch
from PIL import Image, ImageSequence, TiffImagePlugin
from torch import Tensor

from prom.datasets import dicom, fastmri_knee, hdf5, matlab, raw
from prom.datasets.arrays import FIRST, LAST, Axes, Content, arranged, check_axes, numbers
from prom.datasets.reading import check_declared, decoding, grey, pixel_spacing
from prom.datasets.signatures import check_signature
from prom.errors import InputError

HDF5_NAMES = ("images", "reconstruction_esc", "reconstruction_rss")  # first one found is read; the last two are fastMRI's
KSPACE_NAMES = ("kspace", "k_space", "k-space", "ksp")
MILLIMETRES = {1: 1e3, 3: 1e-3}  # codes of NIfTI for metre and micron; others are mm, or not known and taken for mm
UNITS_OF_TIME = {8: "seconds", 16: "milliseconds", 24: "microseconds"}  # codes of NIfTI
FASTMRI_AXES = {3: "NHW", 4: "NKHW"}
SUPPORTED = (
    "NIfTI (.nii, .nii.gz), pairs of NIfTI or Analyze (.img with .hdr, .img.gz with .hdr.gz), FreeSurfer (.mgh, .mgz), NumPy (.npy, "
    ".npz), HDF5 (.h5, .hdf5), MATLAB (.mat), PNG/TIFF/JPEG (.png, .tif, .tiff, .jpg, .jpeg), DICOM (whatever the file is called), raw "
    "data of ISMRMRD (.h5, .mrd), Siemens twix (.dat) and BART (.cfl with .hdr)"
)

DEPTH, OBJECTS = 100, 100_000  # of groups in groups, and of groups and arrays in an HDF5 file
COMPLEX_PAIRS = (("real", "imag"), ("re", "im"), ("r", "i"))
PAGES = 4096  # of a TIFF: the time that its library takes grows with their square
TIFF_TYPES = {("u", 1), ("u", 8), ("u", 16), ("u", 32), ("i", 8), ("i", 16), ("i", 32), ("f", 32)}  # kind of number and bits
NIFTI_OFFSET = 64 * 2**20  # bytes before the voxels
_Arrays = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # shape and type by name
OF_KSPACE = re.compile("(?<!wor)kspace|(?<![a-z])k[-_ ]space|(?<![a-z])ksp(?![a-z])", re.I)  # no workspace, no mask_space
OF_MAPS = re.compile(  # no map of T1, no SENSE, no sensor
    "^s?maps?(?![a-z])|(space|ksp)[-_ ]s?maps?(?![a-z])|(?<![a-z0-9])smaps?|(coil|sense?)[-_ ]?maps?|csm|sens(?![a-z])|sensitivit", re.I
)


def read_sensitivities(path: Path, axes: str | None, volume: bool = False, layout: str = "") -> Tensor:
    """Coil sensitivities (K, H, W) complex64 of a file whose axes are those of the images, in their order, without N and C.

    Of a ``volume`` they are (N, K, H, W), with N among the axes. Without ``axes`` those of a BART file are its own. ``layout``: of an .npy
    that would be read, in messages; by default of these axes.

    Raises
    ------
    InputError
        Where the file cannot be read, or has other axes or values that are not finite.
    """
    kind = kind_of(path)
    if kind not in ARRAYS:
        raise InputError(f"sensitivities {path}: must be a file of type {', '.join(ARRAYS)}")
    layout = layout or f"({', '.join(letter for letter in axes or 'KHW' if letter in ('NHWK' if volume else 'HWK'))})"
    if kind == "BART" and axes is not None:  # which has axes of length 1 too
        shape = raw.cfl_shape(path)
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        letters = "".join(letter for letter in axes if letter in "NHWK1")
        either = (letters.rstrip("1"), letters.replace("N", "").rstrip("1"))  # of one slice N has the length 1 too, and is none of them
        axes = next((those for those in either if len(those) == len(shape)), either[-1])
    elif kind != "BART":
        axes = partial(_letters_of_maps, letters="".join(letter for letter in axes or "KHW" if letter in "NHWK"))
    found = arranged(content_of_maps(path, kind, axes, layout, volume))
    if len(found) > 1 and not volume or found.shape[1] > 1:
        what = f"{len(found)} slices" if len(found) > 1 else f"{found.shape[1]} channels"
        raise InputError(f"sensitivities {path}: are of {what}; save those of one, which all slices get")
    maps = numbers(found[:, 0] if volume else found[0, 0])
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: has NaN or infinite values; repair it, sensitivities outside the object can be 0")
    return torch.tensor(maps, dtype=torch.complex64)


def content_of_maps(path: Path, kind: str, axes: Axes, layout: str, volume: bool = False) -> Content:
    """The one array of numbers in a file of coil sensitivities: what images are called says nothing of them. ``layout``: of its axes, in
    messages.

    Raises
    ------
    InputError
        Where there are several, or the array, or the file, is called k-space; and as by :func:`content`.
    """
    names, alone = [], f"save the maps alone, as .npy {layout}"
    if kind in ("HDF5", "npz"):
        with decoding(path, kind):
            names = numeric(npz_arrays(path)[0] if kind == "npz" else hdf5_arrays(path))
    if len(names) > 1:
        raise InputError(f"sensitivities {path}: has several arrays ({', '.join(names)}); {alone}")
    try:
        found = content(path, kind, names[0] if names else None, axes, volume, labels=False)
    except InputError as error:
        if "dataset_name" in str(error) or "axes=" in str(error):  # which settle it for images, and there are none here
            what = "which array, or what its axes are, is unclear"
            raise InputError(f"sensitivities {path}: {what}; {alone}") from error
        if "raw data say" in str(error):
            raise InputError(f"sensitivities {path}: is raw data, and has no maps; {alone}") from error
        raise
    own = re.split(r"[/.]", found.name)[-1]
    if OF_KSPACE.search(own) and not OF_MAPS.search(own):
        raise InputError(f"sensitivities {path}: has k-space, {found.name}, and no maps; {alone}")
    stem = without_extension(path).name
    if OF_KSPACE.search(stem) and not (OF_MAPS.search(own) or OF_MAPS.search(stem) or re.search("maps?$", stem, re.I)):
        raise InputError(f"sensitivities {path}: is called k-space; if it has maps, call it {stem}_maps")
    return found


def _letters_of_maps(path: Path, shape: Sequence[int], usual: str, letters: str) -> str:
    """The axes of sensitivities: those of the images, without N where one set is for all slices."""
    found = letters if len(shape) == len(letters) else letters.replace("N", "")
    if len(found) != len(shape):
        raise InputError(f"sensitivities {path}: array of shape {tuple(shape)}; must be {found!r} (K coils)")
    return found


def kind_of(path: Path) -> str | None:
    """Which format a file has by its extension, or None.

    >>> kind_of(Path("scan.NII.GZ"))
    'NIfTI'
    """
    return next((kind for kind, (extensions, _) in FORMATS.items() if path.name.lower().endswith(extensions)), None)


def natural(text: str) -> tuple:
    """Sort key in which slice2 comes before slice10; the text itself decides between 'a1' and 'a01'.

    >>> sorted(["slice10", "slice2"], key=natural)
    ['slice2', 'slice10']
    """
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)), text


def read_labels(path: Path, shape: tuple[int, ...], images: str, named: bool, raw_volume: bool = False) -> np.ndarray:
    """Labels (N, H, W) uint8 of a file of their own, for images of this ``shape``, which is (N, H, W), in a file with the axes ``images``.

    Its axes are those of the images, without channels and coils, where they were ``named`` or are the usual ones of its format; else, and
    beside a volume of raw data, its shape must leave no choice.

    Raises
    ------
    InputError
        Where the file cannot be read, is of another shape, or of axes that are unclear, or has other values than whole numbers from 0 to
        255.
    """
    kind = kind_of(path)
    own = kind in ("image", "BART", "twix")  # which say themselves what their axes are
    with decoding(path, kind):
        theirs = partial(_axes_of_labels, expected=shape, images=images, named=named, raw_volume=raw_volume)
        found = content(path, kind, None, None if own else theirs)
        return _labels(path, arranged(found).squeeze((1, 2)), shape)


def check_place(path: Path, other: Path) -> None:
    """Refuse two volumes, an image and its label or a further contrast, whose headers say that their voxels lie elsewhere in space.

    Half a voxel is tolerated. Formats without an orientation, and without voxels of one number, are not compared.

    Raises
    ------
    InputError
        Where a corner of the one lies elsewhere than that of the other, as where one of them is flipped.
    """
    import nibabel

    if {kind_of(path), kind_of(other)} - {"NIfTI", "MGH"}:
        return
    with decoding(path, kind_of(path)):
        one = nibabel.load(path)
    with decoding(other, kind_of(other)):
        two = nibabel.load(other)
        if one.shape[:3] != two.shape[:3] or len(one.shape) < 3:
            return  # what follows says it
        corners = np.array([*product(*((0, length - 1) for length in one.shape[:3]))])
        places = [nibabel.affines.apply_affine(volume.affine, corners) for volume in (one, two)]
    apart = np.linalg.norm(places[1] - places[0], axis=1).max()
    if apart > np.linalg.norm(one.affine[:3, :3], axis=0).min() / 2:
        raise InputError(
            f"{other}: lies {apart:.3g} mm from {path.name!r} by their headers; if their voxels are in one order, save it with that one's "
            "affine, else reorient or resample it"
        )


def _axes_of_labels(
    path: Path, shape: Sequence[int], usual: str, expected: tuple[int, ...], images: str, named: bool, raw_volume: bool = False
) -> str:
    """A letter for each axis of labels of this ``shape``. Axes of length 1 may be there or not."""
    lengths = dict(zip("NHW", expected, strict=True))
    letters = "".join(letter for letter in images if lengths.get(letter, 1) > 1)
    long, theirs = [length for length in shape if length > 1], [lengths[letter] for letter in letters]
    if sorted(long) != sorted(theirs):
        raise InputError(f"{path}: labels of shape {tuple(shape)}; must be {tuple(theirs)}, as the images")
    as_usual = not raw_volume and letters == "".join(letter for letter in usual if letter in letters)
    if long != theirs or not (named or as_usual):
        if len(set(long)) < len(long):
            raise InputError(
                f"{path}: what the axes of labels of shape {tuple(shape)} are is unclear, those of the images are {', '.join(images)}; "
                f"save the labels with these (without channels and coils) and give axes={images!r}, or give labels=none"
            )
        letters = "".join(letter for length in long for letter in letters if lengths[letter] == length)
    following = iter(letters)
    return "".join(next(following) if length > 1 else "1" for length in shape)


def recognise(path: Path) -> str | None:
    """Which format a file has: by its extension, or DICOM by its content, whatever it is called; None for one that is not read.

    >>> recognise(Path("scan.NII.GZ"))
    'NIfTI'
    """
    kind = kind_of(path)
    if kind in (None, "Analyze", "twix") and (path.name.lower() == "dicomdir" or dicom.is_dicom(path)):
        return "DICOM"
    if (kind == "twix" and not raw.is_twix(path)) or (path.suffix.lower() == ".mrd" and _is_stream(path)):
        return None  # .dat is an ending of anything, and .mrd of streams too
    return kind


def _is_stream(path: Path) -> bool:
    """Whether a file is no HDF5, and no HDF5 that was damaged either: not empty, nor of zeros, as what a copy that broke off leaves."""
    with open(path, "rb") as file:
        return not h5py.is_hdf5(path) and any(file.read(8))


def companions(path: Path, kind: str) -> list[Path]:
    """The other files that decide what this one says: the header of a pair.

    >>> companions(Path("full.cfl"), "BART")
    [PosixPath('full.hdr')]
    """
    if kind == "Analyze":
        start, ending, end = re.fullmatch(r"(.*\.)(img)((?:\.gz)?)", path.name, re.I | re.S).groups()
        return [path.with_name(f"{start}{'HDR' if ending == 'IMG' else 'hdr'}{end}")]  # the one that nibabel looks for
    return [path.with_suffix(".hdr")] if kind == "BART" else []


def without_extension(path: Path) -> Path:
    """The path of a file of known extension, without that.

    >>> without_extension(Path("a/scan.nii.gz")).name
    'scan'
    """
    extension = next(e for e in FORMATS[kind_of(path)][0] if path.name.lower().endswith(e))
    return path.with_name(path.name[: -len(extension)])


def content(
    path: Path,
    kind: str,
    dataset_name: str | None = None,
    axes: Axes = None,
    volume: bool = False,
    time: bool = False,
    labels: bool = True,
) -> Content:
    """What one file holds; for the arguments see :func:`prom.datasets.folder.plan`, for ``axes`` also :data:`prom.datasets.arrays.Axes`.
    ``volume`` and ``time``: whether raw data may be 3D, or series; ``labels``: whether an array of that name in a npz is labels.

    Raises
    ------
    InputError
        Where the file cannot be read, or is not what the arguments say.
    """
    with decoding(path, kind):
        check_signature(path)
        reader = FORMATS[kind][1]
        asked = {name: True for name, given in (("volume", volume), ("time", time)) if given} if kind in RAW else {}
        asked |= {"labelled": labels} if kind == "npz" else {}
        return reader(path, dataset_name, axes, **asked)


# ------------------------------------------------------------------------------------------------------------------------ array formats


def _choose(path: Path, arrays: _Arrays, name: str | None, candidates: Sequence[str] | None = None, links: Sequence[str] = ()) -> str:
    """The name of the array to read: the given one, or the only candidate, by default among numeric ones with two axes or more."""
    listing = [f"{key!r} {shape}" for key, (shape, _) in arrays.items()] + [f"{key!r} (a link, not followed)" for key in links]
    listing = f"{', '.join(listing[:20]) or 'none'}{f' and {len(listing) - 20} more' if len(listing) > 20 else ''}"
    if name is not None:
        if name not in arrays:
            raise InputError(f"{path}: has no array {name!r} of its own; arrays in it: {listing}")
        return name
    if candidates is None:
        candidates = numeric(arrays)
    if not candidates and not any(dtype.kind in "biufc" and len(shape) >= 2 for shape, dtype in arrays.values()):
        raise InputError(f"{path}: has no array of numbers that could be images, remove it; arrays in it: {listing}")
    if len(candidates) != 1:
        raise InputError(f"{path}: which array to read is unclear, give dataset_name; arrays in it: {listing}")
    return candidates[0]


def numeric(arrays: _Arrays) -> list[str]:
    """Names of arrays of numbers with two axes or more that are longer than 1."""
    return [name for name, (shape, dtype) in arrays.items() if sum(n > 1 for n in shape) >= 2 and dtype.kind in "biufc"]


def _read_nifti(path: Path, _: str | None, axes: Axes) -> Content:
    import nibabel  # here: it takes a third of a second

    volume = nibabel.load(path)
    if (offset := getattr(volume.dataobj, "offset", 0)) > NIFTI_OFFSET:
        raise InputError(f"{path}: its voxels begin at byte {offset}, behind more than any header; it is damaged")
    guessed, axes = axes is None, check_axes(path, volume.shape, volume.get_data_dtype(), axes, LAST)
    units = int(volume.header["xyzt_units"]) if "xyzt_units" in volume.header else 0
    repeated = isinstance(volume, nibabel.MGHImage) and volume.ndim == 4 and volume.header.get_zooms()[3] > 0
    if guessed and axes == "HWNC" and volume.shape[3] > 1 and (units & 56 in UNITS_OF_TIME or repeated):
        raise InputError(
            f"{path}: {volume.shape[3]} images a slice, and its header gives their distance in {UNITS_OF_TIME.get(units & 56, 'time')}: "
            "whether they are frames in time or channels is unclear; give axes=HWNT or axes=HWNC"
            + (", or axes=HWNR of real and imaginary part" if volume.shape[3] == 2 else "")
        )
    zooms = [float(zoom) * MILLIMETRES.get(units & 7, 1.0) for zoom in volume.header.get_zooms()]
    spacing = pixel_spacing(zooms[axes.index("H")], zooms[axes.index("W")])
    thickness = zooms[axes.index("N")] if "N" in axes else None
    return Content(np.asanyarray(volume.dataobj), axes, spacing=spacing, thickness=thickness, guessed=guessed)


def _read_analyze(path: Path, _: str | None, axes: Axes) -> Content:
    [header] = companions(path, "Analyze")
    if not header.is_file():
        raise InputError(
            f"{path}: has no header {header.name} beside it, and is no DICOM file; copy the header too (both compressed, or neither), or "
            "remove it"
        )
    return _read_nifti(path, None, axes)


def _read_npy(path: Path, _: str | None, axes: Axes) -> Content:
    with open(path, "rb") as file:
        guessed, axes = axes is None, check_axes(path, *_header(path, file), axes, FIRST)
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a truncated file fails at once
    return Content(array, axes, domain=_domain(path, "", array.dtype), guessed=guessed)


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an open npy file."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise InputError(f"{path}: npy version {version}; save the array with np.save")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def npz_arrays(path: Path) -> tuple[_Arrays, dict[str, int]]:
    """Shape and type of each array of an npz file, and the bytes that it takes there."""
    arrays, stored = {}, {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                arrays[name] = _header(path, file)
            stored[name] = min(member.compress_size, path.stat().st_size)
    return arrays, stored


def _read_npz(path: Path, dataset_name: str | None, axes: Axes, labelled: bool = True) -> Content:
    arrays, stored = npz_arrays(path)
    others = [name for name in arrays if name != "labels"]
    chosen = _choose(path, arrays, dataset_name, ["images"] if "images" in arrays else others)
    guessed, axes = axes is None, check_axes(path, *arrays[chosen], axes, FIRST, stored[chosen])
    labels = None
    with np.load(path, allow_pickle=False) as members:
        if labelled and "labels" in arrays:
            check_declared(path, *arrays["labels"], stored["labels"], axes=(2, 3, 4) if "T" in axes else (2, 3))
            lengths = dict(zip(axes, arrays[chosen][0], strict=True))
            labels = _labels(path, members["labels"], tuple(lengths.get(letter, 1) for letter in ("NTHW" if "T" in axes else "NHW")))
        return Content(members[chosen], axes, labels, domain=_domain(path, chosen, arrays[chosen][1]), guessed=guessed, name=chosen)


def _labels(path: Path, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    labels = labels[None] if labels.ndim == len(shape) - 1 else labels
    if labels.shape != shape:
        raise InputError(f"{path}: labels of shape {labels.shape}; must be {shape}, as the images")
    with np.errstate(invalid="ignore"):
        whole = labels.dtype.kind != "c" and (labels == labels.astype(np.uint8)).all()
    if not whole:
        raise InputError(f"{path}: labels must be whole numbers from 0 to 255")
    return labels.astype(np.uint8).reshape(-1, *shape[-2:])


def _read_hdf5(
    path: Path, dataset_name: str | None, axes: Axes, matlab_order: bool = False, volume: bool = False, time: bool = False
) -> Content:
    """``matlab_order``: MATLAB 7.3 reverses axes, calls dataset c of group a/b field a.b.c, and writes text as numbers."""
    arrays, links, datasets, candidates = {}, [], {}, []
    with h5py.File(path, "r") as file:
        if measured := [group for group in raw.ismrmrd_groups(file) if dataset_name in (None, group, f"{group}/data")]:
            if len(measured) > 1:
                raise InputError(f"{path}: has several ISMRMRD measurements, give dataset_name: {', '.join(measured)}")
            return raw.read_ismrmrd(path, measured[0], axes, volume, time)

        for key, item in _walk(file, skip="#" if matlab_order else None):
            name = key.replace("/", ".") if matlab_order else key
            if item is None:
                links.append(name)
            else:
                shape = item.shape or ()
                arrays[name] = (shape[::-1] if matlab_order else shape, _complex(item.dtype) or item.dtype)
                datasets[name] = item
        if matlab_order:
            texts = [name for name, item in datasets.items() if item.attrs.get("MATLAB_class") == b"char"]
            arrays = {name: array for name, array in arrays.items() if name not in texts}
        else:
            candidates = [name for name in HDF5_NAMES if name in arrays and len(arrays[name][0]) >= 2][:1]
        name = _choose(path, arrays, dataset_name, candidates or None, links)
        dataset, (shape, dtype) = datasets[name], arrays[name]
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{path}: the values of {name!r} lie in other files, which are not read; copy them into this one")
        stored = min(dataset.id.get_storage_size(), path.stat().st_size)
        domain = _domain(path, name, dtype)
        keep, known_by = None, "its name"
        if domain and "ismrmrd_header" in arrays:
            if axes is None and len(shape) in FASTMRI_AXES:  # the layout of fastMRI is known
                axes, known_by = FASTMRI_AXES[len(shape)], "its name and ismrmrd_header"
            if len(shape) == 2 if axes is None else axes.endswith("HW"):
                keep = fastmri_knee.without_oversampling(fastmri_knee.header(file), *shape[-2:])
        guessed, axes = axes is None, check_axes(path, shape, dtype, axes, LAST if matlab_order else FIRST, stored)
        check_declared(path, dataset.chunks or shape, dtype, stored, axes=(len(shape),))  # a chunk is read whole
        if hdf5.overlap(dataset.dtype):
            raise InputError(f"{path}: the parts of the numbers of {name!r} overlap; it is damaged, copy it again")
        array = dataset[()]
    if array.dtype.names:
        real, imag = (array[part] for part in array.dtype.names)
        array = np.empty(array.shape, np.complex64)
        with np.errstate(over="ignore"):
            array.real, array.imag = real, imag
    return Content(array.T if matlab_order else array, axes, domain=domain, keep=keep, known_by=known_by, guessed=guessed, name=name)


def _domain(path: Path, name: str, dtype: np.dtype) -> str | None:
    """ "kspace" where the array, or the file, is called so and holds complex numbers."""
    words = [*re.split(r"[/.]", name.lower())[-1:], *re.split(r"[_. ]+", path.name.lower())]
    return "kspace" if dtype.kind == "c" and set(KSPACE_NAMES) & set(words) else None


def hdf5_arrays(path: Path) -> _Arrays:
    """Shape and type of each array of an HDF5 file; links are not followed, and one with several names has the first of them."""
    with h5py.File(path, "r") as file:
        found = {h5py.h5o.get_info(item.id).addr: (name, item) for name, item in reversed(list(_walk(file))) if item is not None}
        return {name: (item.shape or (), _complex(item.dtype) or item.dtype) for name, item in reversed(found.values())}


def _walk(file: h5py.File, skip: str | None = None) -> Iterator[tuple[str, h5py.Dataset | None]]:
    """All data sets of a file by name, and None for links, which are not followed; a group that is in itself is entered once.

    ``skip``: how the names of groups at the top begin that are left out. Not by HDF5's own walk, whose time grows with the square of
    the depth. Raises InputError for a file of more than `OBJECTS` or deeper than `DEPTH`.
    """
    seen: set[int] = set()
    count = 0

    def below(group: h5py.Group, prefix: str, depth: int) -> Iterator[tuple[str, h5py.Dataset | None]]:
        nonlocal count
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            return
        seen.add(address)
        count += len(group)
        if depth > DEPTH or count > OBJECTS:
            raise InputError(f"{file.filename}: has groups nested deeper than {DEPTH}, or more than {OBJECTS} objects; take the images out")
        for name in group:
            if skip and depth == 0 and name.startswith(skip):
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                yield prefix + name, None
            elif isinstance(item := group[name], h5py.Group):
                yield from below(item, f"{prefix}{name}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                yield prefix + name, item

    yield from below(file["/"], "", 0)


def _complex(dtype: np.dtype) -> np.dtype | None:
    """The complex type that is stored as a pair (real, imag), by any of its names, or None."""
    if tuple(name.lower() for name in dtype.names or ()) not in COMPLEX_PAIRS or any(dtype[part].kind not in "iuf" for part in dtype.names):
        return None
    return np.result_type(*(dtype[part] for part in dtype.names), np.complex64)


def _read_matlab(path: Path, dataset_name: str | None, axes: Axes) -> Content:
    if h5py.is_hdf5(path):
        return _read_hdf5(path, dataset_name, axes, matlab_order=True)
    with matlab.unpacked(path, dataset_name) as (arrays, load):
        name = _choose(path, arrays, dataset_name)
        guessed, axes = axes is None, check_axes(path, *arrays[name], axes, LAST)
        return Content(load(name), axes, domain=_domain(path, name, arrays[name][1]), guessed=guessed, name=name)


# ------------------------------------------------------------------------------------------------------------------------ image formats


def _read_image(path: Path, _: str | None, __: str | None) -> Content:
    pages: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which is not used
        _check_picture(path)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "TIFF", "JPEG")) as image:  # by content: others would run a PostScript interpreter
            for page in ImageSequence.Iterator(image):
                if len(pages) == PAGES:
                    raise InputError(f"{path}: has more than {PAGES} pages; split it, or save it as npy")
                tags = getattr(page, "tag_v2", {})
                dtype = _check_tiff(path, tags) if tags else np.dtype(np.uint8)
                check_declared(path, (len(pages) + 1, len(page.getbands()), page.height, page.width), dtype)
                if page.mode in ("P", "PA"):
                    page = page.convert("RGBA")
                array = np.asarray(page)
                if page.mode in ("LA", "RGB", "RGBA"):
                    array = grey(path, array[..., : len(page.mode.removesuffix("A"))])
                elif array.ndim != 2:
                    raise InputError(f"{path}: is an image of colour mode {page.mode}; convert it to grey")
                elif page.mode in ("I", "L") and array.dtype.itemsize == dtype.itemsize:
                    array = array.view(dtype)  # Pillow has no uint32 and no int8
                if pages and array.shape != pages[0].shape:
                    raise InputError(
                        f"{path}: page 0 has shape {pages[0].shape}, page {len(pages)} {array.shape}; save them as separate files"
                    )
                pages.append(array)
            stated = re.search(r"^images=(\d+)", str(getattr(image, "tag_v2", {}).get(270, "")), re.MULTILINE)
    if stated and int(stated[1]) != len(pages):
        raise InputError(f"{path}: says that it has {stated[1]} images, but has {len(pages)} pages (ImageJ writes so); save it as npy")
    stack = np.stack(pages)
    if len(pages) == 2 and stack.dtype.kind in "if" and (stack < 0).any():
        raise InputError(
            f"{path}: whether 2 pages with negative values are slices or real and imaginary part is unclear; save them as two files, or as "
            "one complex array"
        )
    return Content(stack, "NHW")


def _check_picture(path: Path) -> None:
    """Refuse what Pillow does not read, or would read with fewer bits than there are."""
    with open(path, "rb") as file:
        head = file.read(26)
        if head[:4] in (b"II*\0", b"MM\0*"):
            tags = TiffImagePlugin.ImageFileDirectory_v2(head[:8])
            file.seek(tags.next)
            tags.load(file)
            _check_tiff(path, tags)
    if head[:4] == b"\x89PNG" and len(head) == 26 and head[24] == 16 and head[25] != 0:
        raise InputError(f"{path}: is PNG of 16 bits with colours or transparency, and only 8 would be read; save it as 16-bit grey")


def _check_tiff(path: Path, tags: TiffImagePlugin.ImageFileDirectory_v2) -> np.dtype:
    """The type of the values that a page of a TIFF declares; refuses those that Pillow cannot read, or not as they are."""
    bits, kinds = (np.atleast_1d(tags.get(tag, 1)) for tag in (TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.SAMPLEFORMAT))
    kind = {1: "u", 2: "i", 3: "f"}.get(int(kinds[0]), "")
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raise InputError(f"{path}: is TIFF in which 0 is white (MinIsWhite); invert it and save it with 0 as black")
    if len(set(bits)) > 1 or len(set(kinds)) > 1 or (len(bits) > 1 and bits[0] > 8):
        raise InputError(f"{path}: is TIFF of {len(bits)} channels of {bits.max()} bits, and only 8 would be read; save it as grey")
    if (kind, int(bits[0])) not in TIFF_TYPES or (kind, int(bits[0]), tags.prefix) == ("u", 32, b"MM"):
        raise InputError(
            f"{path}: is TIFF of {bits[0]}-bit {dict(u='unsigned', i='signed', f='floating').get(kind, 'complex or other')} numbers, which "
            "Pillow cannot read; save it with 32 bits, or as npy"
        )
    return np.dtype(f"{kind}{max(1, int(bits[0]) // 8)}")


_Reader = Callable[..., Content]  # of a path, dataset_name and axes; of `RAW` also whether it may be a volume or a series
FORMATS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "NIfTI": ((".nii", ".nii.gz"), _read_nifti),
    "npy": ((".npy",), _read_npy),
    "npz": ((".npz",), _read_npz),
    "HDF5": ((".h5", ".hdf5", ".mrd"), _read_hdf5),
    "MATLAB": ((".mat",), _read_matlab),
    "image": ((".png", ".tif", ".tiff", ".jpg", ".jpeg"), _read_image),
    "DICOM": ((".dcm", ".dicom"), lambda path, _, __: dicom.read(path)),
    "Analyze": ((".img", ".img.gz"), _read_analyze),
    "MGH": ((".mgh", ".mgz"), _read_nifti),
    "BART": ((".cfl",), lambda path, _, axes, volume=False, time=False: raw.read_cfl(path, axes, volume)),
    "twix": ((".dat",), lambda path, _, axes, volume=False, time=False: raw.read_twix(path, axes, volume, time)),
}
ARRAYS = ("NIfTI", "npy", "npz", "HDF5", "MATLAB", "Analyze", "MGH", "BART", "twix")  # whose axes can be named
NAMED = ("npz", "HDF5", "MATLAB")  # that hold arrays by name
RAW = ("HDF5", "BART", "twix")  # that can hold raw data
MAPPED = ("npy", "BART")  # whose arrays stay in the file until a part of them is needed
