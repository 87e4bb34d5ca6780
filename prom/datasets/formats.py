"""The files of a user's own images, by format: one table, `FORMATS`, says what is read and how."""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import h5py
import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from prom.datasets import fastmri_knee, matlab
from prom.datasets.arrays import FIRST, LAST, Content, Spacing, arranged, check_axes, numbers
from prom.datasets.reading import check_declared, decoding
from prom.errors import InputError

HDF5_NAMES = ("images", "reconstruction_esc", "reconstruction_rss")  # first one found is read; the last two are fastMRI's
KSPACE_NAMES = ("kspace", "k_space", "k-space", "ksp")
FASTMRI_AXES = {3: "NHW", 4: "NKHW"}
SUPPORTED = (
    "NIfTI (.nii, .nii.gz), NumPy (.npy, .npz), HDF5 (.h5, .hdf5), MATLAB (.mat), PNG/TIFF/JPEG (.png, .tif, .tiff, .jpg, .jpeg), "
    "DICOM (.dcm, .dicom or no extension)"
)
if TYPE_CHECKING:
    import pydicom

_Arrays = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # shape and type by name


def read_sensitivities(path: Path, axes: str) -> Tensor:
    """Coil sensitivities (K, H, W) complex64 of a file whose axes are those of the images, in their order, without N, C and 1.

    Raises
    ------
    InputError
        Where the file cannot be read, or has other axes or values that are not finite.
    """
    kind = kind_of(path)
    if kind not in ARRAYS:
        raise InputError(f"sensitivities {path}: must be a file of type {', '.join(ARRAYS)}")
    maps = numbers(arranged(content(path, kind, None, "".join(letter for letter in axes if letter in "HWK")))[0, 0])
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: has NaN or infinite values; repair it, sensitivities outside the object can be 0")
    return torch.tensor(maps, dtype=torch.complex64)


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


def read_labels(path: Path, shape: tuple[int, ...], axes: str | None = None) -> np.ndarray:
    """Labels (N, H, W) uint8 of a file of their own, whose axes are those of its images without channels and coils.

    Raises
    ------
    InputError
        Where the file cannot be read, is of another ``shape``, or has other values than whole numbers from 0 to 255.
    """
    kind = kind_of(path)
    with decoding(path, kind):
        try:
            found = content(path, kind, None, None if axes is None else "".join(letter for letter in axes if letter in "HWN1"))
        except InputError:
            found = content(path, kind)
        return _labels(path, arranged(found)[:, 0, 0], shape)


def without_extension(path: Path) -> Path:
    """The path of a file of known extension, without that.

    >>> without_extension(Path("a/scan.nii.gz")).name
    'scan'
    """
    extension = next(e for e in FORMATS[kind_of(path)][0] if path.name.lower().endswith(e))
    return path.with_name(path.name[: -len(extension)])


def content(path: Path, kind: str, dataset_name: str | None = None, axes: str | None = None) -> Content:
    """What one file holds; for the arguments see :func:`prom.datasets.folder.plan`.

    Raises
    ------
    InputError
        Where the file cannot be read, or is not what the arguments say.
    """
    with decoding(path, kind):
        return FORMATS[kind][1](path, dataset_name, axes)


# ------------------------------------------------------------------------------------------------------------------------ array formats


def _choose(path: Path, arrays: _Arrays, name: str | None, candidates: Sequence[str] | None = None, links: Sequence[str] = ()) -> str:
    """The name of the array to read: the one asked for, or the only candidate, by default among numeric ones with two axes or more."""
    listing = [f"{key!r} {shape}" for key, (shape, _) in arrays.items()] + [f"{key!r} (a link, not followed)" for key in links]
    listing = f"{', '.join(listing[:20]) or 'none'}{f' and {len(listing) - 20} more' if len(listing) > 20 else ''}"
    if name is not None:
        if name not in arrays:
            raise InputError(f"{path}: has no array {name!r} of its own; arrays in it: {listing}")
        return name
    if candidates is None:
        candidates = [k for k, (shape, dtype) in arrays.items() if sum(n > 1 for n in shape) >= 2 and dtype.kind in "biufc"]
    if len(candidates) != 1:
        raise InputError(f"{path}: which array to read is unclear, give dataset_name; arrays in it: {listing}")
    return candidates[0]


def _read_nifti(path: Path, _: str | None, axes: str | None) -> Content:
    import nibabel  # here: it takes a third of a second

    volume = nibabel.load(path)
    axes = check_axes(path, volume.shape, volume.get_data_dtype(), axes, LAST)
    zooms = volume.header.get_zooms()
    return Content(np.asanyarray(volume.dataobj), axes, spacing=_spacing(zooms[axes.index("H")], zooms[axes.index("W")]))


def _spacing(row: float, column: float) -> Spacing:
    row, column = float(row), float(column)
    return (row, column) if 0 < row < math.inf and 0 < column < math.inf else None


def _read_npy(path: Path, _: str | None, axes: str | None) -> Content:
    with open(path, "rb") as file:
        axes = check_axes(path, *_header(path, file), axes, FIRST)
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a truncated file fails at once
    return Content(array, axes, domain=_domain(path, "", array.dtype))


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an open npy file."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise InputError(f"{path}: npy version {version}; save the array with np.save")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def _read_npz(path: Path, dataset_name: str | None, axes: str | None) -> Content:
    arrays, stored = {}, {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                arrays[name] = _header(path, file)
            stored[name] = min(member.compress_size, path.stat().st_size)
    others = [name for name in arrays if name != "labels"]
    chosen = _choose(path, arrays, dataset_name, ["images"] if "images" in arrays else others)
    axes = check_axes(path, *arrays[chosen], axes, FIRST, stored[chosen])
    labels = None
    with np.load(path, allow_pickle=False) as members:
        if "labels" in arrays:
            check_declared(path, *arrays["labels"], stored["labels"], axes=(2, 3))
            lengths = dict(zip(axes, arrays[chosen][0], strict=True))
            labels = _labels(path, members["labels"], (lengths.get("N", 1), lengths["H"], lengths["W"]))
        return Content(members[chosen], axes, labels, domain=_domain(path, chosen, arrays[chosen][1]))


def _labels(path: Path, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    labels = labels[None] if labels.ndim == 2 else labels
    if labels.shape != shape:
        raise InputError(f"{path}: labels of shape {labels.shape}; must be {shape}, as the images")
    with np.errstate(invalid="ignore"):
        whole = labels.dtype.kind != "c" and (labels == labels.astype(np.uint8)).all()
    if not whole:
        raise InputError(f"{path}: labels must be whole numbers from 0 to 255")
    return labels.astype(np.uint8)


def _read_hdf5(path: Path, dataset_name: str | None, axes: str | None, matlab_order: bool = False) -> Content:
    """``matlab_order``: MATLAB 7.3 reverses axes, calls dataset c of group a/b field a.b.c, and writes text as numbers."""
    arrays, links, datasets, candidates = {}, [], {}, []
    with h5py.File(path, "r") as file:

        def visit(key: str, link: object) -> None:
            name = key.replace("/", ".") if matlab_order else key
            if not isinstance(link, h5py.HardLink):
                links.append(name)
            elif isinstance(item := file[key], h5py.Dataset) and not (matlab_order and key.startswith("#")):
                shape = item.shape or ()
                arrays[name] = (shape[::-1] if matlab_order else shape, _complex(item.dtype) or item.dtype)
                datasets[name] = item

        file.visititems_links(visit)
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
        keep = None
        if domain and axes is None and "ismrmrd_header" in arrays and len(shape) in FASTMRI_AXES:  # the layout of fastMRI is known
            axes, keep = FASTMRI_AXES[len(shape)], fastmri_knee.without_oversampling(fastmri_knee.header(file), *shape[-2:])
        elif domain and axes is None and len(shape) == 4:
            raise InputError(f"{path}: {name!r} of shape {shape} is k-space, of coils or of channels; give axes=NKHW or axes=NCHW")
        axes = check_axes(path, shape, dtype, axes, LAST if matlab_order else FIRST, stored)
        check_declared(path, dataset.chunks or shape, dtype, stored, axes=(len(shape),))  # a chunk is read whole
        array = dataset[()]
    if array.dtype.names:
        real, imag = array["real"], array["imag"]
        array = np.empty(array.shape, np.complex64)
        with np.errstate(over="ignore"):
            array.real, array.imag = real, imag
    return Content(array.T if matlab_order else array, axes, domain=domain, keep=keep)


def _domain(path: Path, name: str, dtype: np.dtype) -> str | None:
    """ "kspace" where the array, or the file, is called so and holds complex numbers."""
    words = [*re.split(r"[/.]", name.lower())[-1:], *re.split(r"[_. ]+", path.name.lower())]
    return "kspace" if dtype.kind == "c" and set(KSPACE_NAMES) & set(words) else None


def _complex(dtype: np.dtype) -> np.dtype | None:
    """The complex type that is stored as a pair (real, imag), or None."""
    if dtype.names != ("real", "imag") or any(dtype[part].kind not in "iuf" for part in dtype.names):
        return None
    return np.result_type(*(dtype[part] for part in dtype.names), np.complex64)


def _read_matlab(path: Path, dataset_name: str | None, axes: str | None) -> Content:
    if h5py.is_hdf5(path):
        return _read_hdf5(path, dataset_name, axes, matlab_order=True)
    with matlab.unpacked(path, dataset_name) as (arrays, load):
        name = _choose(path, arrays, dataset_name)
        axes = check_axes(path, *arrays[name], axes, LAST)
        return Content(load(name), axes, domain=_domain(path, name, arrays[name][1]))


# ------------------------------------------------------------------------------------------------------------------------ image formats


def _grey(path: Path, array: np.ndarray) -> np.ndarray:
    """(..., channels) with equal channels as (...)."""
    if (array != array[..., :1]).any():
        raise InputError(f"{path}: is a colour image whose channels differ; convert it to grey")
    return array[..., 0]


def _read_image(path: Path, _: str | None, __: str | None) -> Content:
    pages: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "TIFF", "JPEG")) as image:  # by content: others would run a PostScript interpreter
            for page in ImageSequence.Iterator(image):
                bands = len(page.getbands())
                check_declared(path, (len(pages) + 1, bands, page.height, page.width), np.dtype(np.uint8))
                if page.mode in ("P", "PA"):
                    page = page.convert("RGBA")
                array = np.asarray(page)
                if page.mode in ("LA", "RGB", "RGBA"):
                    array = _grey(path, array[..., : len(page.mode.removesuffix("A"))])
                elif array.ndim != 2:
                    raise InputError(f"{path}: is an image of colour mode {page.mode}; convert it to grey")
                if pages and array.shape != pages[0].shape:
                    raise InputError(
                        f"{path}: page 0 has shape {pages[0].shape}, page {len(pages)} {array.shape}; save them as separate files"
                    )
                pages.append(array)
    return Content(np.stack(pages), "NHW")


def _read_dicom(path: Path, _: str | None, __: str | None) -> Content:
    from pydicom import dcmread  # here: a tenth of the time that importing prom takes
    from pydicom.pixels import apply_rescale

    data = dcmread(path)
    if "Rows" not in data or not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(data.dir()):
        raise InputError(f"{path}: is DICOM without an image; remove it from the folder")
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel", 1))
    check_declared(path, (frames, samples, data.Rows, data.Columns), np.dtype(f"u{max(1, data.BitsAllocated // 8)}"))
    array = data.pixel_array
    array = _grey(path, array) if samples > 1 else array
    array = array if array.ndim == 3 else array[None]
    rescaled = np.empty(array.shape, np.float32)
    for number, frame in enumerate(array):
        transformation = _of_frame(data, number, "PixelValueTransformationSequence")
        rescaled[number] = apply_rescale(frame, transformation or data)
    spacing = (_of_frame(data, 0, "PixelMeasuresSequence") or data).get("PixelSpacing")
    return Content(rescaled, "NHW", spacing=_spacing(*spacing) if np.size(spacing) == 2 else None)


def _of_frame(data: pydicom.Dataset, number: int, sequence: str) -> pydicom.Dataset | None:
    """In an enhanced multi-frame file, what the sequence says of this frame, or of all; else None."""
    groups = [data.PerFrameFunctionalGroupsSequence[number]] if "PerFrameFunctionalGroupsSequence" in data else []
    groups += data.get("SharedFunctionalGroupsSequence") or []
    return next((group[sequence][0] for group in groups if sequence in group), None)


_Reader = Callable[[Path, str | None, str | None], Content]
FORMATS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "NIfTI": ((".nii", ".nii.gz"), _read_nifti),
    "npy": ((".npy",), _read_npy),
    "npz": ((".npz",), _read_npz),
    "HDF5": ((".h5", ".hdf5"), _read_hdf5),
    "MATLAB": ((".mat",), _read_matlab),
    "image": ((".png", ".tif", ".tiff", ".jpg", ".jpeg"), _read_image),
    "DICOM": ((".dcm", ".dicom"), _read_dicom),
}
ARRAYS = ("NIfTI", "npy", "npz", "HDF5", "MATLAB")  # whose axes can be named
NAMED = ("npz", "HDF5", "MATLAB")  # that hold arrays by name
