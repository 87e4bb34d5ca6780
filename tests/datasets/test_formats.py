"""Arrays of a user's own files: MATLAB, named axes, k-space and coils, and files made to do harm."""

import gzip
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import tifffile
import torch
from conftest import SHARED, error, load
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prom.datasets import cache, folder, matlab
from prom.datasets.arrays import fitted
from prom.kspace.coils import combine, root_sum_of_squares
from prom.kspace.fourier import fft2c
from prom.show import inspection

RNG = np.random.default_rng(1)


def random(*shape, dtype=np.float32):
    if np.dtype(dtype).kind in "iub":
        return RNG.integers(0, 2 if np.dtype(dtype).kind == "b" else 100, shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)
    return RNG.random(shape).astype(dtype)


def save_v73(path, **arrays):
    """As MATLAB's ``save -v7.3``: a block of 512 bytes with its header text, axes reversed, complex as (real, imag), structs as groups."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = np.asarray(array).T
            if np.iscomplexobj(stored):
                pair = np.empty(stored.shape, [("real", stored.real.dtype), ("imag", stored.real.dtype)])
                pair["real"], pair["imag"] = stored.real, stored.imag
                stored = pair
            file.create_dataset(name.replace(".", "/"), data=stored, compression="gzip").attrs["MATLAB_class"] = np.bytes_("double")
        text = file.create_dataset("comment", data=np.array([[104, 97], [105, 98], [106, 99]], np.uint16))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        file["#refs#/a"] = random(9, 9)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 .".ljust(124))
        file.write(struct.pack("<H", 0x0200) + b"IM")


def save_v5(path, **arrays):
    """By SciPy; a name with a dot is a field of a struct."""
    variables = {}
    for name, array in arrays.items():
        *structs, last = name.split(".")
        place = variables
        for part in structs:
            place = place.setdefault(part, {})
        place[last] = array
    scipy.io.savemat(path, variables, do_compression=True)


def save(path, array):
    """The array in a file of the kind that its name says."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["images"] = array
    elif path.suffix == ".mat":
        save_v5(path, x=array)
    else:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


# -------------------------------------------------------------------------------------------------------------------------------- MATLAB


@pytest.mark.parametrize("form, compressed", [("5", True), ("5", False), ("4", False)])
def test_numeric_arrays_as_scipy_reads_them(tmp_path, form, compressed):
    path, arrays = tmp_path / "a.mat", {}
    for dtype in ("f4", "f8", "c8", "c16", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", ">f8"):
        for shape in ((2, 2), (11, 9), (11, 9, 3), (11, 9, 3, 2), (0, 4)):
            if form == "5" or len(shape) == 2:
                arrays[f"x{len(arrays)}"] = random(*shape, dtype=dtype)
    scipy.io.savemat(path, arrays, do_compression=compressed, format=form)
    expected = {name: array for name, array in scipy.io.loadmat(path).items() if name in arrays}
    expected = {name: array.astype(np.complex64) if np.iscomplexobj(array) else array for name, array in expected.items()}
    assert len(expected) == len(arrays) > 20
    with matlab.unpacked(path) as (found, load_array):
        assert found == {name: (array.shape, array.dtype) for name, array in expected.items()}
        for name, array in expected.items():
            assert np.array_equal(load_array(name), array) and load_array(name).dtype == array.dtype


def test_only_numeric_arrays_and_fields_of_single_structs_are_found(tmp_path):
    path, array = tmp_path / "a.mat", random(11, 9, 3)
    variables = {"text": "some text", "cell": np.array([[array, "a"]], object), "sparse": scipy.sparse.eye_array(9, format="csc")}
    variables |= {"several": np.zeros((1, 2), [("x", object)]), "none": {}, "file": [1.0, 2.0], "s": {"t": {"x": array, "y": "b"}}}
    scipy.io.savemat(path, variables)
    with matlab.unpacked(path) as (found, _):
        assert {name: shape for name, (shape, _) in found.items()} == {"file": (1, 2), "s.t.x": (11, 9, 3)}
    for name in (None, "s.t.x"):
        assert np.array_equal(load(path, dataset_name=name).images[:, 0], array.transpose(2, 0, 1))
    assert "arrays in it: 'file' (1, 2), 's.t.x' (11, 9, 3)" in error(path, dataset_name="several.x")


def test_whole_numbers_that_matlab_stores_as_bytes_and_big_endian_files(tmp_path):
    """MATLAB writes doubles that are whole numbers in the smallest type that holds them; SciPy does not, so the bytes are made here."""
    array = random(9, 8, dtype=np.uint8)
    for order, mark in (("<", b"IM"), (">", b"MI")):

        def element(kind, data, order=order):
            return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)

        content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + mark
        for name in (b"x", b""):  # MATLAB keeps what objects need in an array without a name
            head = element(6, struct.pack(order + "II", 6, 0)) + element(5, struct.pack(order + "ii", 9, 8)) + element(1, name)
            content += element(14, head + element(2, array.tobytes("F")))
        (tmp_path / "a.mat").write_bytes(content)
        assert torch.equal(load(tmp_path).images, torch.from_numpy(array.astype(np.float32))[None, None])


@pytest.mark.parametrize(
    "shape, dtype", [((11, 9), np.uint8), ((11, 9, 3), np.complex64), ((11, 9, 3), np.float64), ((11, 9, 3, 2), complex)]
)
def test_version_73_is_the_same_as_version_5(tmp_path, shape, dtype):
    array = random(*shape, dtype=dtype)
    save_v5(tmp_path / "old.mat", **{"data.images": array, "data.TE": [[1.0, 2.0]]})
    save_v73(tmp_path / "new.mat", **{"data.images": array, "data.TE": [[1.0, 2.0]]})
    old = load(tmp_path / "old.mat", domain="image")
    for name in (None, "data.images"):
        new = load(tmp_path / "new.mat", dataset_name=name, domain="image")
        assert torch.equal(old.images, new.images) and old.images.shape[2:] == (11, 9) and len(old) == (*shape, 1)[2]
        assert torch.equal(old.images[0, 0], torch.from_numpy(array.reshape(11, 9, -1)[..., 0].astype(new.images.numpy().dtype)))


@pytest.mark.parametrize("writer", [save_v5, save_v73])
def test_matlab_unclear_or_missing_array(tmp_path, writer):
    path = tmp_path / "a.mat"
    writer(path, **{"s.one": random(10, 8), "s.two": random(10, 8, 3), "row": random(1, 6)})
    message = error(path)
    assert "dataset_name" in message and "'s.one' (10, 8)" in message and "'s.two' (10, 8, 3)" in message and "'row' (1, 6)" in message
    assert "'s.three'" in (message := error(path, dataset_name="s.three")) and "'s.two' (10, 8, 3)" in message
    assert "'s'" in error(path, dataset_name="s")
    assert len(load(path, dataset_name="s.two")) == 3
    writer(path, row=random(1, 6))
    assert "'row' (1, 6)" in error(path)


# ---------------------------------------------------------------------------------------------------------------------------------- axes


@settings(max_examples=40)
@given(st.permutations("HWNC1"), st.sampled_from(["a.npy", "a.npz", "a.h5", "a.mat", "a.nii"]), st.sampled_from([np.float32, np.complex64]))
def test_named_axes_give_the_same_slices_in_any_order_and_format(tmp_path_factory, letters, name, dtype):
    lengths = {"N": 3, "C": 2, "H": 9, "W": 8, "1": 1}
    array = random(3, 2, 9, 8, 1, dtype=dtype)
    path = tmp_path_factory.mktemp("axes") / name
    stored = array.transpose(["NCHW1".index(letter) for letter in letters])
    save(path, stored)
    while name == "a.mat" and letters[-1] == "1":
        letters = letters[:-1]  # MATLAB drops them
    assert stored.squeeze().shape == tuple(lengths[letter] for letter in letters if letter != "1")
    if name != "a.mat" or scipy.io.loadmat(path)["x"].ndim == len(letters):
        assert torch.equal(load(path, axes="".join(letters), domain="image").images, torch.from_numpy(array[..., 0]))


@pytest.mark.parametrize("axes", ["", "HW", "HWX", "hwn", "HHW", "WNC", "HWNN", "HW1", "HWNC", "1HW", "HWN\n"])
@pytest.mark.parametrize("name", ["a.npy", "a.h5", "a.nii", "a.npz"])
def test_wrong_axes_are_named_with_the_shape_and_an_example(tmp_path, name, axes):
    save(tmp_path / name, random(10, 8, 3))
    message = error(tmp_path, axes=axes)
    assert name in message and repr(axes) in message and "(10, 8, 3)" in message and "e.g. '" in message


@pytest.mark.parametrize("axes", ["HWNN", "CHWC", "KKHW", "HHWW", "11HW"])
def test_axes_named_twice(tmp_path, axes):
    np.save(tmp_path / "a.npy", random(3, 4, 10, 8))
    assert repr(axes) in (message := error(tmp_path, axes=axes)) and "e.g. 'NCHW'" in message


def test_five_axes_must_be_named(tmp_path):
    np.save(tmp_path / "a.npy", random(10, 8, 1, 1, 4))
    assert "axes='HWNKC'" in error(tmp_path)
    assert load(tmp_path, axes="HWN1C").images.shape == (1, 4, 10, 8)


def test_axes_without_a_file_that_has_them(tmp_path):
    Image.fromarray(random(8, 8, dtype=np.uint8)).save(tmp_path / "a.png")
    assert "'HW'" in error(tmp_path, axes="HW")
    assert "'x'" in error(tmp_path, dataset_name="x")


def test_labels_follow_the_number_of_slices(tmp_path):
    labels = RNG.integers(0, 3, (3, 10, 8))
    np.savez(tmp_path / "a.npz", images=random(10, 8, 3), labels=labels)
    data = load(tmp_path, axes="HWN")
    assert np.array_equal(data.labels, labels) and data.images.shape == (3, 1, 10, 8)


def test_npz_array_by_name(tmp_path):
    one, two = random(2, 8, 8), random(2, 8, 8)
    np.savez(tmp_path / "a.npz", one=one, two=two)
    assert torch.equal(load(tmp_path, dataset_name="two").images[:, 0], torch.from_numpy(two))
    assert "'three'" in (message := error(tmp_path, dataset_name="three")) and "'one' (2, 8, 8)" in message


def test_size_of_a_pixel_of_nifti(tmp_path):
    image = nibabel.Nifti1Image(random(10, 8, 3), np.diag([1.5, 0.75, 4, 1]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    np.save(tmp_path / "b.npy", random(2, 10, 8))
    assert list(load(tmp_path).spacing) == [(1.5, 0.75)] * 3 + [None] * 2
    assert load(tmp_path / "a.nii.gz", axes="NHW").spacing[0] == (0.75, 4)
    assert load(tmp_path / "b.npy").spacing == ()
    for wrong in (np.nan, np.inf):
        image.header["pixdim"][1] = wrong
        nibabel.save(image, tmp_path / "a.nii.gz")
        assert load(tmp_path / "a.nii.gz").spacing == ()


# ---------------------------------------------------------------------------------------------------- volumes of other programs, and others


@pytest.mark.parametrize("form", [nibabel.Nifti1Pair, nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage])
def test_pairs_of_image_and_header(tmp_path, form):
    array = random(11, 9, 3, dtype=np.int16)
    nibabel.save(form(array, np.diag([2, 1.5, 4, 1])), tmp_path / "a.img")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".mat") == ["a.hdr", "a.img"]
    for path in tmp_path.glob("*.mat"):
        path.unlink()  # SPM's affine map
    data = load(tmp_path)
    assert np.array_equal(data.images[:, 0], array.transpose(2, 0, 1)) and data.spacing[0] == (2, 1.5) and data.subjects[0] == "a.img"
    assert {path.name for path in folder.plan(tmp_path, "all").files} == {"a.img", "a.hdr"}
    (tmp_path / "a.hdr").unlink()
    assert "has no header a.hdr beside it" in error(tmp_path)


@pytest.mark.parametrize("form", [nibabel.Nifti1Pair, nibabel.AnalyzeImage, nibabel.Spm2AnalyzeImage])
@pytest.mark.parametrize(
    ("image", "header", "wanted"),
    [
        ("a.img.gz", "a.hdr.gz", None),
        ("A.IMG.GZ", "A.HDR.GZ", None),
        ("a.img.gz", "a.hdr", "a.hdr.gz"),
        ("a.img", "a.hdr.gz", "a.hdr"),
        ("a.img", "a.HDR", "a.hdr"),
        ("a.img.gz", "b.hdr.gz", "a.hdr.gz"),
    ],
)
def test_compressed_pairs_are_read_or_refused(tmp_path, form, image, header, wanted):
    array = random(11, 9, 3, dtype=np.int16)
    (tmp_path / "pair").mkdir()
    nibabel.save(form(array, np.eye(4)), tmp_path / "pair" / "a.img")
    (tmp_path / "data").mkdir()
    for name, part in ((image, "a.img"), (header, "a.hdr")):
        content = (tmp_path / "pair" / part).read_bytes()
        (tmp_path / "data" / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    if wanted is None:
        data = load(tmp_path / "data")
        assert np.array_equal(data.images[:, 0], array.transpose(2, 0, 1)) and set(data.subjects) == {image}
        assert {path.name for path in folder.plan(tmp_path / "data", "all").files} == {image, header}
        (tmp_path / "data" / image).write_bytes((tmp_path / "data" / image).read_bytes()[:-20])
        assert f"{image}: cannot be read as Analyze" in error(tmp_path / "data")
    else:
        np.save(tmp_path / "data" / "other.npy", random(3, 11, 9))
        assert f"{image}: has no header {wanted} beside it" in error(tmp_path / "data")


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
def test_freesurfer_volumes(tmp_path, name):
    array = random(11, 9, 3)
    nibabel.save(nibabel.MGHImage(array, np.diag([2, 1.5, 4, 1])), tmp_path / name)
    data = load(tmp_path)
    assert np.array_equal(data.images[:, 0], array.transpose(2, 0, 1)) and data.spacing[0] == (2, 1.5)
    assert load(tmp_path, axes="NHW").images.shape == (11, 1, 9, 3)


@pytest.mark.parametrize("names", [("r", "i"), ("re", "im"), ("real", "imag"), ("Re", "Im")])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i2", "<i4", "<u1"])
def test_complex_numbers_as_pairs(tmp_path, names, dtype):
    array = np.zeros((2, 10, 8), [(name, dtype) for name in names])
    for name in names:
        array[name] = random(2, 10, 8, dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = array
    data = load(tmp_path, domain="image")
    expected = array[names[0]].astype(float) + 1j * array[names[1]].astype(float)
    assert data.images.dtype == torch.complex64 and np.array_equal(data.images[:, 0], expected)


def test_hdf5_of_other_programs(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model/weights"], file["name"] = np.zeros(9), "a model"
    assert "no array of numbers that could be images" in (message := error(tmp_path)) and "'model/weights' (9,)" in message


def contents(root):
    """One file of each format, by its right ending."""
    array = random(4, 10, 8)
    for name in ("a.npy", "a.npz", "a.h5", "a.nii", "a.nii.gz", "a.mat"):
        save(root / name, array)
    nibabel.save(nibabel.MGHImage(array, np.eye(4)), root / "a.mgz")
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(random(10, 8, dtype=np.uint8)).save(root / name)
    (root / "a.dcm").write_bytes(bytes(128) + b"DICM")
    return {path.name[1:]: path.read_bytes() for path in root.iterdir()}


def test_endings_that_are_wrong(tmp_path):
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    right, checked = contents(tmp_path / "right"), 0
    pictures, gzipped = {".png", ".tif", ".jpg"}, {".nii.gz", ".mgz"}
    for ending in right:
        for other, content in right.items():
            alike = {ending, other} <= pictures or {ending, other} <= gzipped or (ending, other) == (".mat", ".h5")
            if other == ending or alike:
                continue
            path = tmp_path / "wrong" / f"b{ending}"
            path.write_bytes(content)
            message = error(path)
            assert "by its content" in message and f"its ending {ending} says" in message and other in message, (ending, other)
            checked += 1
    assert checked > 90


@pytest.mark.parametrize("name", ["a.nii.gz", "a.h5", "a.dcm", "a.png", "a.mat", "a.npy"])
@pytest.mark.parametrize(
    "content, what",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "git annex get"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b"%PDF-1.7", "is PDF by its content"),
    ],
)
def test_files_that_only_stand_for_others(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    assert what in (message := error(tmp_path)) and name in message and "damaged" not in message


def test_links_of_git_annex_without_their_content(tmp_path):
    for number, target in enumerate(("../.git/annex/objects/x/a.nii.gz", ".git/annex/objects/x/a.nii.gz")):
        root = tmp_path / str(number)
        root.mkdir()
        (root / "a.nii.gz").symlink_to(target)
        np.save(root / "b.npy", random(8, 8))
        assert "git annex get" in error(root)


# ----------------------------------------------------------------------------------------------------------------------- k-space, coils


@pytest.mark.parametrize("shape", [(10, 8), (11, 9), (10, 9)])
def test_kspace_becomes_its_images(tmp_path, shape):
    images = random(3, 2, *shape, dtype=np.complex128)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(2, 3)), norm="ortho"), axes=(2, 3))
    np.save(tmp_path / "a.npy", kspace)
    data = load(tmp_path, domain="kspace", axes="NCHW")
    assert data.images.dtype == torch.complex64 and np.allclose(data.images, images, atol=1e-5)
    assert "k-space" in data.source and "as stored" not in data.source and "as stored" in load(tmp_path, domain="image").source
    np.save(tmp_path / "a.npy", np.abs(kspace))
    assert "a.npy" in (message := error(tmp_path, domain="kspace")) and "complex" in message and "axes=NRHW where" in message
    assert "did you mean 'kspace'" in error(tmp_path, domain="k-space")


def test_few_complex_numbers_and_none_but_zeros_say_nothing_of_their_domain(tmp_path):
    """12 rows are too few to tell k-space from images, and NaN must not hide which of both they are."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    disc = np.stack([(np.hypot(x, y) < radius) * (1.0 + 0.1j * x) for radius in (0.5, 0.6)])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(disc, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    np.save(tmp_path / "a.npy", kspace[:, 10:22, 10:22])
    assert "domain=kspace" in error(tmp_path)
    kspace[:, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", kspace)
    assert "nan=0" in error(tmp_path) and "nan=0" in error(tmp_path, domain="kspace", axes="NHW")
    assert "energy at the centre" in error(tmp_path, nan=0)
    assert inspection.inspect(tmp_path, nan=0, domain="kspace", axes="NHW", empty="keep")["understood"][0]["domain"] == "kspace"
    assert np.allclose(load(tmp_path, nan=0, domain="kspace", axes="NHW", empty="keep").images[:, 0], disc, atol=0.02)
    np.save(tmp_path / "a.npy", np.zeros_like(kspace))
    assert "empty" in error(tmp_path, domain="kspace", axes="NHW") and "constant" in error(tmp_path)


@pytest.mark.parametrize("rows", [15, 16])
def test_padding_is_cut_off_odd_and_even_numbers_of_rows(tmp_path, rows):
    padded = np.zeros((2, 32, 32), np.complex64)
    padded[:, 16 - rows // 2 : 16 - rows // 2 + rows] = random(2, rows, 32, dtype=np.complex64)
    np.save(tmp_path / "a.npy", padded)
    assert load(tmp_path, domain="kspace", axes="NHW", empty="crop").images.shape == (2, 1, rows, 32)


def test_units_of_nifti_and_labels_of_another_shape(tmp_path):
    image = nibabel.Nifti1Image(random(10, 8, 3), np.diag([500, 500, 2000, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert load(tmp_path).spacing == [(0.5, 0.5)] * 3
    image.header["xyzt_units"] = 5  # of no unit
    nibabel.save(image, tmp_path / "a.nii")
    assert load(tmp_path).spacing == [(500, 500)] * 3
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", images=random(3, 10, 8), labels=np.zeros((3, 10, 9), np.uint8))
    assert "labels of shape (3, 10, 9); must be (3, 10, 8)" in error(tmp_path / "in")


@pytest.mark.parametrize("unit", ["sec", "msec", "usec"])
def test_nifti_whose_header_speaks_of_time_is_asked_about(tmp_path, unit):
    image = nibabel.Nifti1Image(random(10, 8, 3, 4), np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    assert load(tmp_path).images.shape == (3, 4, 10, 8)
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert "axes=HWNT or axes=HWNC" in error(tmp_path)
    assert load(tmp_path, axes="HWNC").images.shape == (3, 4, 10, 8) and load(tmp_path, axes="HWNT").images.shape == (3, 1, 4, 10, 8)
    (tmp_path / "a.nii").rename(tmp_path.parent / f"{unit}.nii")
    repeated = nibabel.MGHImage(random(10, 8, 3, 2), np.eye(4))
    repeated.header.set_zooms((1, 1, 1, 2000))
    nibabel.save(repeated, tmp_path / "a.mgz")
    assert "axes=HWNT or axes=HWNC, or axes=HWNR" in error(tmp_path)
    (tmp_path / "a.mgz").unlink()
    nibabel.save(image.slicer[..., :1], tmp_path / "a.nii")
    assert load(tmp_path).images.shape == (3, 1, 10, 8)


def test_real_images_with_negative_values_stay_real_in_kspace(tmp_path):
    np.save(tmp_path / "a.npy", image := random(3, 16, 16) - 0.5)
    assert np.allclose(load(tmp_path, size=16, size_in="kspace").images[:, 0], image, atol=1e-6)
    assert (load(tmp_path, size=np.int64(12), size_in="kspace").images < 0).any()


def test_sizes_in_kspace_are_its_central_samples():
    """By NumPy's transform: rows and columns change to odd numbers, whose centre is another."""
    images = np.random.default_rng(0).random((2, 10, 12), dtype=np.float32) - 0.5
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(-2, -1))), axes=(-2, -1))[:, 2:9, 4:9]
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1))), axes=(-2, -1)) * 35 / 120
    assert np.allclose(fitted(images, (7, 5), "kspace"), expected.real, atol=1e-5)
    assert np.allclose(fitted(images + 0j, (7, 5), "kspace"), expected, atol=1e-5)
    assert np.allclose(fitted(images + 1, (7, 5), "kspace"), np.abs(expected + 1), atol=1e-5)  # images without negative values


def test_coils_without_sensitivities_become_their_root_sum_of_squares(tmp_path):
    array = random(3, 4, 10, 8, dtype=np.complex64)
    np.save(tmp_path / "a.npy", array)
    data = load(tmp_path, axes="NKHW", domain="image")
    assert data.images.dtype == torch.float32 and data.images.shape == (3, 1, 10, 8) and "root sum of squares" in data.source
    assert np.allclose(data.images[:, 0], np.linalg.norm(array, axis=1), rtol=1e-6)
    assert torch.equal(load(tmp_path, domain="image").images, torch.from_numpy(array))  # an axis that is not named is channels
    np.save(tmp_path / "a.npy", fft2c(torch.from_numpy(array)).numpy())
    assert torch.allclose(load(tmp_path, axes="NKHW", domain="kspace").images, data.images, atol=1e-5)


@pytest.mark.parametrize("domain", ["image", "kspace"])
@pytest.mark.parametrize("axes", ["NCKHW", "KHWNC", "HWCNK"])
def test_coils_with_sensitivities_give_back_the_complex_image(tmp_path, axes, domain):
    images, maps = random(3, 2, 10, 8, dtype=np.complex64), random(4, 10, 8, dtype=np.complex64)
    coils = torch.from_numpy(images[:, :, None] * maps)
    array = (fft2c(coils) if domain == "kspace" else coils).numpy()
    np.save(tmp_path / "a.npy", array.transpose(["NCKHW".index(letter) for letter in axes]))
    save(tmp_path / "maps.h5", maps.transpose(["KHW".index(letter) for letter in axes if letter in "KHW"]))
    data = load(tmp_path, axes=axes, domain=domain, sensitivities=tmp_path / "maps.h5")  # in the same folder: no subject
    assert data.images.dtype == torch.complex64 and "'maps.h5'" in data.source and list(data.subjects) == ["a.npy"] * 3
    assert np.allclose(data.images, images, atol=1e-5)


def test_sensitivities_are_part_of_what_a_store_depends_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", array := random(1, 2, 10, 8, dtype=np.complex64))
    for _ in range(2):
        np.save(tmp_path / "maps.npy", maps := random(2, 10, 8, dtype=np.complex64))
        plan = folder.plan(tmp_path / "in", "train", axes="NKHW", domain="image", sensitivities=tmp_path / "maps.npy")
        stored = cache.read(pickle.loads(pickle.dumps(plan)), store=True)
        assert torch.equal(stored.images[:, 0], combine(torch.from_numpy(array), torch.from_numpy(maps)))


def test_sensitivities_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", random(2, 4, 10, 8, dtype=np.complex64))
    maps = tmp_path / "maps.npy"

    def refused(axes="NKHW", sensitivities=maps):
        return error(tmp_path, axes=axes, domain="image", sensitivities=sensitivities)

    assert "no file" in refused()
    for shape in ((3, 10, 8), (4, 8, 10)):
        np.save(maps, random(*shape, dtype=np.complex64))
        assert "a.npy" in (message := refused()) and str(shape) in message and "(4, 10, 8)" in message
    np.save(maps, random(2, 4, 10, 8, dtype=np.complex64))
    assert "maps.npy: are of 2 slices" in refused()
    np.save(maps, random(1, 1, 4, 10, 8, dtype=np.complex64))
    assert "'KHW'" in (message := refused()) and "(1, 1, 4, 10, 8)" in message and "maps.npy" in message
    np.save(maps, np.full((4, 10, 8), np.nan))
    assert "maps.npy" in (message := refused()) and "NaN" in message
    assert "axes='NKHW'" in refused(axes=None) and "axes='NKHW'" in refused(axes="NCHW")
    Image.fromarray(random(8, 8, dtype=np.uint8)).save(tmp_path / "maps.png")
    assert "maps.png" in refused(sensitivities=tmp_path / "maps.png")


def test_sensitivities_of_one_slice(tmp_path):
    np.save(tmp_path / "a.npy", random(2, 4, 10, 8, dtype=np.complex64))
    np.save(tmp_path / "maps.npy", maps := random(4, 10, 8, dtype=np.complex64))
    how = {"axes": "NKHW", "domain": "image", "sensitivities": tmp_path / "maps.npy"}
    found = load(tmp_path, **how).images
    np.save(tmp_path / "maps.npy", maps[None])
    assert torch.equal(load(tmp_path, **how).images, found)


def test_values_that_are_not_finite_do_not_hide_behind_sensitivities_of_0(tmp_path):
    array, maps = random(3, 2, 10, 8, dtype=np.complex64), random(2, 10, 8, dtype=np.complex64)
    array[1, 0, 4, 4], maps[:, 4, 4] = np.nan, 0
    np.save(tmp_path / "a.npy", array), np.save(tmp_path / "maps.npy", maps)
    assert "slice 1" in (message := error(tmp_path, axes="NKHW", sensitivities=tmp_path / "maps.npy")) and "a.npy" in message


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    np.save(tmp_path / "a.npy", array := random(2, 8, 8))
    plan = folder.plan(tmp_path, "train")
    part = plan.read(plan.items[0])
    with open(tmp_path / "a.npy", "r+b") as file:
        file.seek(128)
        file.write(bytes(100))
    assert np.array_equal(part.images[:, 0], array)


def test_the_coils_of_a_subject_are_in_memory_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = random(16, 8, 128, 128, dtype=np.complex64)
        size = file["kspace"].nbytes
    plan = folder.plan(tmp_path, "train", axes="NKHW", domain="kspace")
    tracemalloc.start()
    plan.read(plan.items[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * size


# ------------------------------------------------------------------------------------------------------------------------------ real data


def real(name):
    if not (path := SHARED / name).is_file():
        pytest.skip(f"no real MATLAB files beside the project ({SHARED.name}/{name})")
    return path


@pytest.mark.parametrize("name, echoes", [("PKdata1", 4), ("PKdata3", 3), ("PKdata10", 4), ("PKdata12", 3), ("PKdataset16", 2)])
def test_cardiac_echoes_as_channels(name, echoes):
    path = real(f"cardiac_complex/{name}.mat")
    expected = scipy.io.loadmat(path)["data"]["images"][0, 0][:, :, 0, 0].transpose(2, 0, 1)
    data = load(path, axes="HWN1C")  # it is the only image in the file
    assert data.images.shape == (1, echoes, 256, 192) and np.array_equal(data.images[0], expected)
    magnitude = load(path, axes="HWNKC", dataset_name="data.images").images
    assert torch.allclose(magnitude, data.images.abs())  # one coil: its root sum of squares is the magnitude


def test_knee_slices():
    path = real("knee_complex/imdb_fig7.mat")
    expected = scipy.io.loadmat(path)["images"]["labels"][0, 0][:, :, 0].transpose(2, 0, 1)
    data = load(path, axes="HW1N", dataset_name="images.labels")
    assert data.images.shape == (2, 1, 320, 256) and np.array_equal(data.images[:, 0], expected)
    assert "'images.labels' (320, 256, 1, 2)" in (message := error(path)) and "'images.data'" in message


def test_multicoil_head(tmp_path):
    path = real("multicoil_head/head.mat")
    coils = scipy.io.loadmat(path)["data"]
    magnitude = np.sqrt((np.abs(coils.astype(np.complex128)) ** 2).sum(2))
    data = load(path, axes="HWK")
    assert data.images.shape == (1, 1, 256, 256) and data.images.dtype == torch.float32
    assert np.allclose(data.images[0, 0], magnitude, rtol=1e-6)
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["kspace"] = fft2c(torch.from_numpy(coils.transpose(2, 0, 1)[None])).numpy()
    same = load(tmp_path / "head.h5", axes="NKHW", domain="kspace")
    assert torch.allclose(same.images, data.images, atol=1e-5 * magnitude.max())
    np.save(tmp_path / "maps.npy", coils / magnitude[..., None])
    combined = load(path, axes="HWK", sensitivities=tmp_path / "maps.npy").images[0, 0]
    assert combined.is_complex() and np.allclose(combined.abs(), magnitude, rtol=1e-4, atol=1e-6 * magnitude.max())
    assert torch.allclose(root_sum_of_squares(torch.from_numpy(coils), axis=2), combined.abs(), rtol=1e-4, atol=1e-6 * magnitude.max())


# -------------------------------------------------------------------------------------------------------------------------- hostile files


def test_hdf5_that_declares_much_and_stores_nothing(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape=(10, 1000, 1000), dtype="f8", chunks=(1, 100, 100))
    assert "declares shape (10, 1000, 1000)" in error(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape=(10, 1000, 1000), dtype="f8")
    assert "declares shape (10, 1000, 1000)" in error(path)
    with h5py.File(path, "a") as file:  # what else is in the file does not count
        file["other"] = random(512, 512)
    assert "declares shape (10, 1000, 1000)" in error(path)
    with h5py.File(path, "w") as file:  # a small part of a chunk that would be decompressed as a whole
        file.create_dataset("images", (1, 8, 8), "f8", maxshape=(None, None, None), chunks=(40, 2000, 2000), compression="gzip")
        file["images"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1000)))
    assert "declares shape (40, 2000, 2000)" in error(path)


def test_hdf5_stays_in_the_file(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["group/images"] = random(2, 8, 8)
    np.save(tmp_path / "raw.bin", random(2, 8, 8))
    path = tmp_path / "in" / "a.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["images"] = h5py.ExternalLink("../secret.h5", "/group/images")
        file["group"] = h5py.ExternalLink("../secret.h5", "/group")
        file["soft"] = h5py.SoftLink("/group/images")
    for name in (None, "images", "group/images", "soft"):
        assert "'images' (a link, not followed)" in error(path, dataset_name=name)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((2, 8, 8), "f4")
        layout[...] = h5py.VirtualSource("../secret.h5", "group/images", (2, 8, 8))
        file.create_virtual_dataset("images", layout)
    assert "other files" in error(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (2, 8, 8), "f4", external=[("../raw.bin.npy", 128, 512)])
    assert "other files" in error(path)


def test_hdf5_names_and_numbers_of_arrays_fit_in_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(30):
            file[f"two\nlines{i}"] = random(8, 8)
    assert "and 10 more" in error(tmp_path)


@pytest.mark.parametrize("dtype", [[("a", "f4"), ("b", "f4")], [("real", "f4"), ("imag", "S4")], "S5", "M8[s]"])
def test_arrays_of_other_types(tmp_path, dtype):
    array = np.zeros((8, 8), dtype)
    np.save(tmp_path / "a.npy", array)
    assert "values of type" in error(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", images=array)
    assert "values of type" in error(tmp_path / "a.npz")
    if dtype != "M8[s]":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["images"] = array
        assert "values of type" in error(tmp_path / "a.h5")


def test_zip_member_that_expands_beyond_what_deflate_can(tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((64, 1000, 1000), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.write(tmp_path / "big.npy", "images.npy")
    assert "declares shape (64, 1000, 1000)" in error(tmp_path / "a.npz")
    np.save(tmp_path / "small.npy", random(64, 8, 8))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.write(tmp_path / "small.npy", "images.npy")
        archive.write(tmp_path / "big.npy", "labels.npy")
    assert "declares shape (64, 1000, 1000)" in error(tmp_path / "b.npz")


def tiff_of_pages(path, side, pages):
    """A TIFF all pages of which are the same strip of zeros."""
    strip = zlib.compress(bytes(side * side), 9)
    content = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip
    for page in range(pages):
        entries = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, side), (279, len(strip))]
        here = len(content)
        after = here + 2 + 12 * len(entries) + 4
        content += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        content += struct.pack("<I", after if page + 1 < pages else 0)
    path.write_bytes(content)


def test_tiff_pages_that_share_their_data(tmp_path):
    tiff_of_pages(tmp_path / "a.tif", 8, 3)
    assert Image.open(tmp_path / "a.tif").n_frames == 3 and "slice 0 is constant" in error(tmp_path / "a.tif")
    tiff_of_pages(tmp_path / "b.tif", 2000, 100)
    assert "declares shape" in error(tmp_path / "b.tif")


@pytest.mark.slow
def test_tiff_of_many_pages(tmp_path):
    tiff_of_pages(tmp_path / "c.tif", 2, 5000)
    begin = time.monotonic()
    assert "more than 4096 pages" in error(tmp_path / "c.tif")
    assert time.monotonic() - begin < 60  # to read all pages would take minutes


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">u2", "i2", ">i2", "u4", "i4", ">i4", "f4", ">f4"])
def test_tiff_values_are_those_that_the_file_declares(tmp_path, dtype):
    kind = np.dtype(dtype)
    info = np.iinfo(kind) if kind.kind in "iu" else None
    array = RNG.integers(info.min, info.max, (3, 10, 8), endpoint=True).astype(dtype) if info else random(3, 10, 8).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", byteorder=kind.byteorder if kind.byteorder == ">" else "<")
    assert np.array_equal(load(tmp_path).images[:, 0], array.astype(np.float32))
    for page in array:
        if dtype in ("u1", "i1", "u2", "u4", "i4", "f4"):
            tifffile.imwrite(tmp_path / "a.tif", page, photometric="minisblack", compression="zlib")
            assert np.array_equal(load(tmp_path).images[0, 0], page.astype(np.float32))


def test_tiff_of_true_and_false_is_a_mask(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random(10, 8) > 0.5, photometric="minisblack")
    assert "black and white" in error(tmp_path)


@pytest.mark.parametrize("dtype, bits", [("f2", 16), ("f8", 64), ("u8", 64), ("c8", 64), (">u4", 32)])
def test_tiff_of_numbers_that_pillow_does_not_read(tmp_path, dtype, bits):
    tifffile.imwrite(tmp_path / "a.tif", random(10, 8).astype(dtype), photometric="minisblack", byteorder=dtype[0].strip("fuc") or "<")
    assert f"{bits}-bit" in (message := error(tmp_path)) and "damaged" not in message and "npy" in message


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "?"])
def test_tiff_in_which_0_is_white(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", (random(10, 8) * 9).astype(dtype), photometric="miniswhite")
    assert "MinIsWhite" in error(tmp_path)


def test_pictures_of_16_bits_and_several_channels(tmp_path):
    """Pillow would read 8 of the bits."""
    grey = random(10, 8, dtype=np.uint16) * 300
    for channels, photometric in ((3, "rgb"), (2, "minisblack")):
        array = np.stack([grey] * channels, axis=-1)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, planarconfig="contig")
        assert "channels of 16 bits" in error(tmp_path)
    (tmp_path / "a.tif").unlink()
    for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        rows = np.repeat(grey[..., None], channels, axis=-1).astype(">u2")
        content = b"".join(b"\0" + row.tobytes() for row in rows)
        chunks = ((b"IHDR", struct.pack(">IIBBBBB", 8, 10, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
        data = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        if kind:
            assert "PNG of 16 bits" in error(tmp_path)
        else:
            assert np.array_equal(load(tmp_path).images[0, 0], grey)


def test_tiff_whose_pages_are_not_all_there(tmp_path):
    """ImageJ writes one page for a stack of more than 4 GiB, and says in it how many images follow."""
    tifffile.imwrite(tmp_path / "a.tif", random(10, 8), photometric="minisblack", description="ImageJ=1.53\nimages=5\nslices=5\n")
    assert "says that it has 5 images, but has 1 pages" in error(tmp_path)


def test_pictures_are_of_the_kinds_that_are_named(tmp_path):
    """A PostScript file would be given to an interpreter of programs, whatever its name."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "cannot identify" in error(tmp_path)


def test_picture_with_more_pixels_than_pillow_allows(tmp_path, monkeypatch):
    Image.fromarray(random(64, 64, dtype=np.uint8)).save(tmp_path / "a.png")
    for limit in (3000, 1000):  # Pillow warns beyond its limit, and refuses beyond twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "a.png" in (message := error(tmp_path)) and "limit of" in message


def test_hdf5_that_expands_without_end(tmp_path):
    """Zeros, of which gzip needs a thousandth of their bytes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset("images", (1024, 1024, 1024), "u1", chunks=(64, 1024, 1024), compression="gzip")
        chunk = zlib.compress(bytes(2**26), 9)
        for begin in range(0, 1024, 64):
            images.id.write_direct_chunk((begin, 0, 0), chunk)
    tracemalloc.start()
    assert "declares shape (1024, 1024, 1024)" in error(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_hdf5_groups_nested_deeply_and_in_themselves(tmp_path):
    array = random(3, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b/images"] = array
        file["a/b/up"], file["a/b/root"], file["a/b/soft"] = file["a"], file["/"], h5py.SoftLink("/a/b/soft")
    assert np.array_equal(load(tmp_path).images[:, 0], array)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(2000):
            group = group.create_group("g")
        group["images"] = array
    begin = time.monotonic()
    assert "nested deeper than 100" in error(tmp_path)
    assert time.monotonic() - begin < 60


def test_nifti_whose_voxels_begin_far_away(tmp_path):
    save(tmp_path / "a.nii", random(10, 8, 3))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[108:112] = struct.pack("<f", 2.0**31)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    (tmp_path / "a.nii").unlink()
    assert "a.nii.gz" in (message := error(tmp_path)) and "voxels begin at byte" in message


def nested_mat(path, kind, depth):
    """Cells (1) or structs (2) in one another."""

    def element(number, data):
        return struct.pack("<II", number, len(data)) + data + bytes(-len(data) % 8)

    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    if kind == 2:
        head += element(5, struct.pack("<i", 8)) + element(1, b"x".ljust(8, b"\0"))
    tags = [struct.pack("<II", 14, level * (8 + len(head)) + len(head)) + head for level in reversed(range(depth))]
    data = zlib.compress(b"".join(tags))
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + struct.pack("<II", 15, len(data)) + data)


@pytest.mark.parametrize("kind", [1, 2])
def test_matlab_file_that_crashes_scipy(tmp_path, kind):
    nested_mat(tmp_path / "a.mat", kind, 100_000)
    assert "a.mat: cannot be read as MATLAB (SciPy crashed on it, exit status" in error(tmp_path)


def test_matlab_that_declares_more_than_it_holds(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": random(8, 8)}, do_compression=False)
    content = path.read_bytes()
    dimensions, length = (content.index(struct.pack("<II", *tag)) for tag in ((5, 8), (7, 256)))
    for shape in ((30000, 30000), (8, 9), (-8, -8)):
        path.write_bytes(content[: dimensions + 8] + struct.pack("<ii", *shape) + content[dimensions + 16 :])
        assert "a.mat: cannot be read as MATLAB (" in error(path)
    path.write_bytes(content[: length + 4] + struct.pack("<I", 2**32 - 8) + content[length + 8 :])
    assert "a.mat: cannot be read as MATLAB (" in (message := error(path)) and ("MemoryError" in message or sys.platform != "linux")


def test_matlab_file_that_takes_too_long(tmp_path, monkeypatch):
    save(tmp_path / "a.mat", random(8, 8))
    monkeypatch.setattr(matlab, "SECONDS", 0.01)
    assert "a.mat: cannot be read as MATLAB (SciPy took more than 0.01 s)" in error(tmp_path)


def test_matlab_file_that_was_cut_off(tmp_path):
    path = tmp_path / "a.mat"
    for compressed, keep in ((False, 0), (False, 100), (False, -8), (True, -8)):
        scipy.io.savemat(path, {"s": {"t": {"x": random(8, 8, dtype=np.complex64)}}}, do_compression=compressed)
        path.write_bytes(path.read_bytes()[:keep])
        assert "a.mat: cannot be read as MATLAB (" in error(path)


def test_empty_matlab_array_and_file_that_is_none(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros((0, 8))})
    assert "'x' (0, 8)" in error(tmp_path) and "is empty" in error(tmp_path, dataset_name="x")
    (tmp_path / "a.mat").write_text("no such file")
    assert "a.mat: cannot be read as MATLAB (" in error(tmp_path)


def test_headers_in_metres(tmp_path):
    image = nibabel.Nifti1Image(np.random.rand(10, 8, 3).astype(np.float32), np.diag([0.0005, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    assert load(tmp_path).spacing[0] == pytest.approx((0.5, 1.0))


def test_parts_of_complex_numbers_are_real(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 16, 12, 2), np.complex64) * np.random.rand(3, 16, 12, 2))
    assert "must be 2, of real numbers" in error(tmp_path, axes="NHWR", domain="image")


def test_parts_of_numbers_that_overlap_are_not_read(tmp_path):
    """A damaged exponent makes doubles of the parts of complex numbers, which HDF5 would write beyond their end."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = RNG.random((3, 16, 16)).astype(np.complex64)
    content, single = (tmp_path / "a.h5").read_bytes(), bytes.fromhex("11201f00040000000000200017080017")
    place = content.index(single) + len(single)
    (tmp_path / "a.h5").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
    assert "overlap; it is damaged" in error(tmp_path)
