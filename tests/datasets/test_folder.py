"""A reader's own files: every format read back exactly, every kind of bad input named in one line."""

import gzip
import io
import os
import struct
import tempfile
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from conftest import error, load
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

import prom
from prom.datasets import cache, folder
from prom.kspace.fourier import ifft2c

RNG = np.random.default_rng(0)


def random(*shape, dtype=np.float32):
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(0, 200, shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)
    return RNG.random(shape).astype(dtype)


def equal(data, expected):
    assert data.images.shape == expected.shape
    assert torch.equal(data.images, torch.from_numpy(np.ascontiguousarray(expected)))


def write_dicom(
    path, pixels, *, instance=1, patient="P1", series=1, slope=1, intercept=0, position=0.0, frames=None, frame_slopes=None, spacing=None
):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EnhancedMRImageStorage if frames else MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.SeriesNumber, data.SeriesInstanceUID = patient, series, f"1.2.3.{series}"
    if instance is not None:
        data.InstanceNumber = instance
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, position]
    colour = pixels.ndim == 3 and not frames
    data.Rows, data.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsAllocated - 1, 0
    if frames:
        data.NumberOfFrames = frames
    if frame_slopes is None:
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
    else:
        groups = []
        for value in frame_slopes:
            transformation, group = Dataset(), Dataset()
            transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = value, 0, "US"
            group.PixelValueTransformationSequence = [transformation]
            groups.append(group)
        data.PerFrameFunctionalGroupsSequence = groups
    if spacing:
        data.PixelSpacing = list(spacing)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


# ------------------------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 5), (12, 10, 5, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.complex64])
def test_nifti(tmp_path, extension, shape, dtype):
    array = random(*shape, dtype=dtype)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"a{extension}")
    full = array.reshape(*shape, *(1,) * (4 - len(shape)))
    data = load(tmp_path, domain="image")
    equal(data, full.transpose(2, 3, 0, 1).astype(np.complex64 if dtype == np.complex64 else np.float32))
    assert data.subjects == [f"a{extension}"] * len(data) and data.slices == list(range(len(data)))


def test_nifti_scaling_of_the_header_is_applied(tmp_path):
    array = random(9, 9, 2, dtype=np.int16)
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").dataobj.slope == 0.5
    equal(load(tmp_path), (0.5 * array + 10).transpose(2, 0, 1)[:, None].astype(np.float32))


SHAPES = {2: (9, 8), 3: (3, 9, 8), 4: (3, 2, 9, 8)}
AS_STACK = {2: (1, 1, 9, 8), 3: (3, 1, 9, 8), 4: (3, 2, 9, 8)}


@pytest.mark.parametrize("ndim", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, ">f4", np.complex64, np.complex128])
def test_npy_npz_and_hdf5(tmp_path, ndim, dtype):
    array = random(*SHAPES[ndim], dtype=dtype)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", anything=array)
    np.savez_compressed(tmp_path / "c.npz", images=array, other=np.zeros(3))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["group/only"] = array
    expected = array.reshape(AS_STACK[ndim]).astype(np.complex64 if array.dtype.kind == "c" else np.float32)
    data = load(tmp_path, domain="image")
    equal(data, np.concatenate([expected] * 4))
    assert data.subjects == [name for name in ("a.npy", "b.npz", "c.npz", "d.h5") for _ in expected]


def test_hdf5_chooses_the_dataset(tmp_path):
    images, esc, rss, kspace = random(2, 8, 8), random(2, 8, 8), random(2, 8, 8), random(2, 8, 8, dtype=np.complex64)
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["kspace"], file["reconstruction_rss"], file["header"] = kspace, rss, b"<xml/>"
    equal(load(path), rss[:, None])
    named = {"dataset_name": "kspace", "axes": "NHW"}  # k-space by its name
    assert torch.equal(load(path, **named).images, ifft2c(torch.from_numpy(kspace[:, None])))
    equal(load(path, dataset_name="kspace", domain="image"), kspace[:, None])
    with h5py.File(path, "a") as file:
        file["reconstruction_esc"] = esc
    equal(load(path), esc[:, None])
    with h5py.File(path, "a") as file:
        file["images"] = images
    equal(load(path), images[:, None])


def test_labels_of_npz(tmp_path):
    images, labels = random(3, 8, 8), RNG.integers(0, 4, (3, 8, 8))
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    data = load(tmp_path)
    assert data.labels.dtype == torch.uint8 and np.array_equal(data.labels.numpy(), labels)
    assert list(data.label_names) == ["background", "label 1", "label 2", "label 3"]
    np.savez(tmp_path / "b.npz", images=images)
    assert "a.npz" in (message := error(tmp_path)) and "b.npz" in message and "labels" in message


@pytest.mark.parametrize("labels", [np.full((3, 8, 8), -1), np.full((3, 8, 8), 0.5), np.full((3, 8, 8), np.nan), np.full((3, 8, 8), 256)])
def test_labels_that_are_not_bytes(tmp_path, labels):
    np.savez(tmp_path / "a.npz", images=random(3, 8, 8), labels=labels)
    assert "0 to 255" in error(tmp_path)


def test_labels_of_another_shape(tmp_path):
    np.savez(tmp_path / "a.npz", images=random(3, 8, 8), labels=np.zeros((3, 8, 7), dtype=np.uint8))
    assert "(3, 8, 7)" in error(tmp_path)


@pytest.mark.parametrize("extension", [".png", ".PNG", ".tif", ".tiff"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_images_exactly(tmp_path, extension, mode):
    grey = random(9, 7, dtype=np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(grey * 300 if mode == "I;16" else grey)
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / f"a{extension}")
    equal(load(tmp_path), (grey * (300 if mode == "I;16" else 1))[None, None].astype(np.float32))


def test_float_tiff_and_pages_as_slices(tmp_path):
    array = random(3, 9, 7)
    pages = [Image.fromarray(page) for page in array]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    equal(load(tmp_path), array[:, None])


def test_jpeg_as_pillow_decodes_it(tmp_path):
    Image.fromarray(random(16, 16, dtype=np.uint8)).save(tmp_path / "a.jpg")
    equal(load(tmp_path), np.asarray(Image.open(tmp_path / "a.jpg"))[None, None].astype(np.float32))


def test_images_in_a_subfolder_are_one_subject_in_natural_order(tmp_path):
    arrays = {}
    for where in ("anna/slice2", "anna/slice10", "anna/slice1", "bob/x", "loose"):
        path = tmp_path / f"{where}.png"
        path.parent.mkdir(exist_ok=True)
        arrays[where] = random(8, 8, dtype=np.uint8)
        Image.fromarray(arrays[where]).save(path)
    data = load(tmp_path)
    assert list(data.subjects) == ["anna", "anna", "anna", "bob", "loose.png"] and list(data.slices) == [0, 1, 2, 0, 0]
    order = ("anna/slice1", "anna/slice2", "anna/slice10", "bob/x", "loose")
    equal(data, np.stack([arrays[o] for o in order])[:, None].astype(np.float32))


def test_dicom_series_sorted_and_rescaled(tmp_path):
    arrays = random(4, 8, 6, dtype=np.uint16)
    for number, (name, array) in enumerate(zip(("z.dcm", "IM0003", "1.2.840.7", "a.DCM"), arrays, strict=True)):
        write_dicom(tmp_path / name, array, instance=number + 1, slope=2, intercept=-5)
    data = load(tmp_path)
    equal(data, (2 * arrays.astype(np.float32) - 5)[:, None])
    assert set(data.subjects) == {"P1"} and list(data.slices) == [0, 1, 2, 3]


def test_dicom_without_instance_number_sorted_by_position(tmp_path):
    arrays = random(3, 8, 6, dtype=np.uint16)
    for name, array, position in zip("cab", arrays, (-20.0, -3.5, 100.0), strict=True):
        write_dicom(tmp_path / f"{name}.dcm", array, instance=None, position=position)
    equal(load(tmp_path), arrays[:, None].astype(np.float32))


def test_dicom_subjects_are_patients_or_folders(tmp_path):
    arrays = random(4, 8, 6, dtype=np.uint8)
    for i, (where, patient) in enumerate([("x", "P2"), ("y", "P1"), ("x", "P1"), ("y", "")]):
        (tmp_path / where).mkdir(exist_ok=True)
        write_dicom(tmp_path / where / f"{i}.dcm", arrays[i], patient=patient, instance=i)
    data = load(tmp_path)
    assert list(data.subjects) == ["P1", "P1", "P2", "y"]
    equal(data, arrays[[1, 2, 0, 3]][:, None].astype(np.float32))


def test_dicom_multi_frame_with_slopes_of_its_frames(tmp_path):
    array = random(3, 8, 6, dtype=np.uint16)
    write_dicom(tmp_path / "a.dcm", array, frames=3, slope=3)
    equal(load(tmp_path), 3 * array[:, None].astype(np.float32))
    write_dicom(tmp_path / "a.dcm", array, frames=3, frame_slopes=[1, 2, 0.5])
    equal(load(tmp_path), array[:, None].astype(np.float32) * np.array([1, 2, 0.5], dtype=np.float32)[:, None, None, None])


def test_one_file_hidden_files_and_others(tmp_path):
    array = random(2, 8, 8)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / ".hidden.npy").write_text("x")
    (tmp_path / ".cache").mkdir()
    np.save(tmp_path / ".cache" / "b.npy", random(5, 5))
    for path in (tmp_path, tmp_path / "a.npy", str(tmp_path)):
        equal(load(path), array[:, None])
    assert load(tmp_path).name == tmp_path.name and load(tmp_path, name="mine").name == "mine"
    assert str(tmp_path) not in load(tmp_path).source


# -------------------------------------------------------------------------------------------------------------------------------- splits


def loaded_subjects(path, split):
    return list(dict.fromkeys(load(path, split).subjects))


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 200), min_size=2, max_size=12), st.randoms())
def test_split_by_subject_is_a_partition_that_file_order_does_not_change(numbers, random_order):
    shuffled = list(numbers)
    random_order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as path:
        for number in shuffled:
            np.save(Path(path, f"s{number}.npy"), random(2, 8, 8))
        train, test, everything = (loaded_subjects(path, split) for split in ("train", "test", "all"))
        assert everything == [f"s{n}.npy" for n in sorted(numbers)]
        assert test == everything[1::5] and not set(test) & set(train) and sorted(test + train) == sorted(everything)
        assert len(load(path, "train")) + len(load(path, "test")) == len(load(path)) == 2 * len(numbers)


def test_subfolders_are_the_splits(tmp_path):
    for where in ("train/a", "train/b", "val/c", "test/d", "elsewhere/e"):
        (tmp_path / where).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{where}.npy", random(8, 8))
    assert loaded_subjects(tmp_path, "train") == ["train/a.npy", "train/b.npy"]
    assert loaded_subjects(tmp_path, "validation") == ["val/c.npy"]
    assert loaded_subjects(tmp_path, "test") == ["test/d.npy"]
    assert len(load(tmp_path, "all")) == len(load(tmp_path)) == 5


def test_images_directly_in_a_split_folder_are_subjects_of_their_own(tmp_path):
    for where in ("train/a", "train/b", "train/anna/1", "train/anna/2"):
        (tmp_path / where).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(random(4, 4, dtype=np.uint8)).save(tmp_path / f"{where}.png")
    assert loaded_subjects(tmp_path, "train") == ["train/a.png", "train/anna", "train/b.png"]
    assert "'test'" in (message := error(tmp_path, "test")) and "found: train" in message


def test_a_patient_in_two_split_folders_is_refused(tmp_path):
    for where in ("train", "test"):
        (tmp_path / where).mkdir()
        write_dicom(tmp_path / where / "a.dcm", random(4, 4, dtype=np.uint8), patient="P7")
    assert "'P7'" in (message := error(tmp_path, "train")) and "test" in message


def test_one_subject_is_train(tmp_path):
    np.save(tmp_path / "a.npy", random(3, 8, 8))
    assert len(load(tmp_path, "train")) == len(load(tmp_path / "a.npy", "train")) == 3
    assert "split='all'" in error(tmp_path, "test")
    assert "validation" in error(tmp_path, "validation")
    assert "did you mean 'train'" in error(tmp_path, "trian")


# ------------------------------------------------------------------------------------------------------------------- subjects, their files


def test_one_subject_saved_twice_is_refused(tmp_path):
    np.save(tmp_path / "p1.npy", random(2, 8, 8))
    np.save(tmp_path / "p2.npy", random(2, 8, 8))
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "p1.npy", random(2, 8, 8))
    write_dicom(tmp_path / "p1.dcm", random(8, 8, dtype=np.uint8))  # DICOM files are told apart by their headers
    assert len(set(load(tmp_path).subjects)) == 4
    nibabel.save(nibabel.Nifti1Image(random(8, 8, 2), np.eye(4)), tmp_path / "p1.nii.gz")
    for split in ("train", "test"):
        assert str(tmp_path / "p1.nii.gz") in (message := error(tmp_path, split)) and str(tmp_path / "p1.npy") in message


def test_size_of_a_pixel_of_dicom(tmp_path):
    for instance, spacing in ((1, (0.5, 0.75)), (2, (0.5, 0.75)), (3, None)):
        write_dicom(tmp_path / f"{instance}.dcm", random(8, 6, dtype=np.uint8), instance=instance, spacing=spacing)
    assert load(tmp_path / "1.dcm").spacing == [(0.5, 0.75)] and load(tmp_path / "3.dcm").spacing == ()
    assert load(tmp_path).spacing == ()  # the files of the subject do not agree
    (tmp_path / "3.dcm").unlink()
    assert load(tmp_path).spacing == [(0.5, 0.75)] * 2
    data, measures, group = pydicom.dcmread(tmp_path / "1.dcm"), Dataset(), Dataset()
    del data.PixelSpacing
    measures.PixelSpacing, group.PixelMeasuresSequence = [2, 3], [measures]
    data.SharedFunctionalGroupsSequence = [group]
    data.save_as(tmp_path / "1.dcm")
    assert load(tmp_path / "1.dcm").spacing == [(2, 3)]


def test_files_of_one_subject_that_differ_are_named(tmp_path):
    for name, shape in (("a", (8, 6)), ("b", (8, 7))):
        write_dicom(tmp_path / f"{name}.dcm", random(*shape, dtype=np.uint8), position=shape[1])
    message = error(tmp_path)
    assert "a.dcm" in message and "b.dcm" in message and "(1, 8, 7)" in message


def test_default_split_is_train_and_items_are_subjects(tmp_path):
    for i in range(4):
        write_dicom(tmp_path / f"{i}.dcm", random(8, 6, dtype=np.uint8), instance=i, patient=f"P{i // 2}")
    assert [len(item) for item in folder.plan(tmp_path, "all").items] == [2, 2]
    assert set(prom.load(tmp_path).subjects) == {"P0"} and set(prom.load(tmp_path, "test").subjects) == {"P1"}


def test_a_store_holds_what_is_read_directly(tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for i in range(3):
        np.savez(tmp_path / "in" / f"{i}.npz", images=random(3, 9, 8), labels=random(3, 9, 8, dtype=np.uint8))
    plan = folder.plan(tmp_path / "in", "all")
    direct, stored = (cache.read(plan, store=store, processes=1) for store in (False, True))
    assert direct.fingerprint() == stored.fingerprint() and torch.equal(direct.labels, stored.labels)
    assert list(direct.slices) == list(stored.slices) == [0, 1, 2] * 3 and direct.source == stored.source
    assert "'/'" in error(tmp_path / "in", name="../elsewhere")


# --------------------------------------------------------------------------------------------------------------------------------- links


def test_links_out_of_the_folder_are_refused(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir(), outside.mkdir()
    np.save(inside / "a.npy", random(8, 8))
    np.save(outside / "b.npy", random(8, 8))
    (inside / "link.npy").symlink_to(outside / "b.npy")
    assert "link.npy" in error(inside)
    (inside / "link.npy").unlink()
    (inside / "folder").symlink_to(outside)
    assert "outside the folder" in error(inside)


@pytest.mark.parametrize("target", ["gone.npy", "b.npy"])
def test_links_to_nothing_are_refused(tmp_path, target):
    np.save(tmp_path / "a.npy", random(8, 8))
    (tmp_path / "b.npy").symlink_to(target)  # a patient that is not read would change the split without a word
    assert f"b.npy: is a link to {target}, which is not there" in error(tmp_path)


def test_links_within_the_folder_are_read_once(tmp_path):
    array = random(8, 8)
    np.save(tmp_path / "b.npy", array)
    (tmp_path / "a.npy").symlink_to(tmp_path / "b.npy")
    (tmp_path / "loop").symlink_to(tmp_path)
    equal(load(tmp_path), array[None, None])
    assert load(tmp_path).subjects == ["b.npy"]


def test_split_folders_of_links(tmp_path):
    for name in ("pool", "train", "test"):
        (tmp_path / name).mkdir()
    for i in range(2):
        np.save(tmp_path / "pool" / f"{i}.npy", random(8, 8))
    (tmp_path / "train" / "0.npy").symlink_to(tmp_path / "pool" / "0.npy")
    (tmp_path / "test" / "1.npy").symlink_to(tmp_path / "pool" / "1.npy")
    assert loaded_subjects(tmp_path, "train") == ["train/0.npy"] and loaded_subjects(tmp_path, "test") == ["test/1.npy"]
    assert len(load(tmp_path)) == 2
    (tmp_path / "test" / "0.npy").symlink_to(tmp_path / "pool" / "0.npy")
    assert "one split only" in error(tmp_path, "train")


# -------------------------------------------------------------------------------------------------------------------------------- errors


def test_nothing_to_read(tmp_path):
    assert "does not exist" in error(tmp_path / "none")
    assert "empty folder" in (message := error(tmp_path)) and "NIfTI" in message
    (tmp_path / "a.txt").write_text("x")
    assert "'a.txt'" in (message := error(tmp_path)) and "DICOM" in message
    assert "NIfTI" in error(tmp_path / "a.txt")
    assert "neither" in error("/dev/null")


def save_any(path):
    array = random(64, 64)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array[..., None], np.eye(4)), path)
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["images"] = array
    elif path.suffix == ".dcm":
        write_dicom(path, (255 * array).astype(np.uint8))
    else:
        Image.fromarray((255 * array).astype(np.uint8)).save(path)


ALL = ["a.nii", "a.nii.gz", "a.npy", "a.npz", "a.h5", "a.png", "a.tif", "a.jpg", "a.dcm"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6])
def test_truncated_files_are_named(tmp_path, name, keep):
    path = tmp_path / name
    save_any(path)
    assert len(load(path)) == 1
    os.truncate(path, int(keep * path.stat().st_size))
    message = error(tmp_path)
    assert str(path) in message and ("cannot be read" in message or "without an image" in message)


@pytest.mark.parametrize("name", ALL)
def test_files_of_noise_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(RNG.bytes(5000))
    assert str(tmp_path / name) in error(tmp_path)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickles_are_refused_and_not_run(tmp_path, save):
    array = np.empty((2, 2), dtype=object)
    array[:] = Trap(tmp_path / "sprung")
    save(tmp_path / ("a.npy" if save is np.save else "a.npz"), array)
    assert "type object" in error(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("shape", [(8,), (2, 2, 2, 8, 8), ()])
def test_wrong_number_of_axes(tmp_path, shape):
    np.save(tmp_path / "a.npy", random(*shape) if shape else np.float32(1))
    assert f"shape {shape}" in error(tmp_path)
    if len(shape) == 5:
        nibabel.save(nibabel.Nifti1Image(random(*shape), np.eye(4)), tmp_path / "a.nii")
        assert f"shape {shape}" in error(tmp_path / "a.nii")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = random(*shape) if shape else np.float32(1)
    assert f"shape {shape}" in error(tmp_path / "a.h5", dataset_name="x")


def test_empty_arrays_and_text(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 8, 8)))
    assert "a.npy" in (message := error(tmp_path)) and "is empty; remove it" in message
    np.save(tmp_path / "a.npy", np.full((8, 8), "x"))
    assert "<U1" in error(tmp_path)


@pytest.mark.parametrize("other", [random(2, 8, 9), random(2, 2, 8, 8), random(2, 8, 8, dtype=np.complex64)])
def test_mixed_sizes_channels_and_types_name_both_files(tmp_path, other):
    np.save(tmp_path / "a.npy", random(2, 8, 8))
    np.save(tmp_path / "b.npy", other)
    message = error(tmp_path, domain="image")
    assert str(tmp_path / "a.npy") in message and str(tmp_path / "b.npy") in message and "8 x 8" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    array = random(4, 8, 8)
    array[2, 3, 3] = value
    np.save(tmp_path / "a.npy", array)
    assert "a.npy" in (message := error(tmp_path)) and "slice 2" in message


def test_values_beyond_float32(tmp_path):
    np.save(tmp_path / "a.npy", random(4, 8, 8, dtype=np.float64) + [[[0]], [[1e300]], [[0]], [[0]]])
    assert "slice 1" in error(tmp_path)


@pytest.mark.parametrize("value", [0, 7 + 1j])
def test_constant_slices_are_refused_or_left_out_by_wish(tmp_path, value):
    array = random(4, 8, 8, dtype=np.complex64)
    array[1] = value
    np.savez(tmp_path / "a.npz", images=array, labels=np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8))
    message = error(tmp_path, domain="image")
    assert "slice 1" in message and "skip_constant" in message and "a.npz" in message
    data = load(tmp_path, domain="image", skip_constant=True)
    equal(data, array[[0, 2, 3], None])
    assert list(data.slices) == [0, 2, 3] and data.labels[:, 0, 0].tolist() == [0, 2, 3] and "1 constant" in data.source
    np.savez(tmp_path / "a.npz", images=np.ones((2, 8, 8)))
    assert "all slices" in error(tmp_path, skip_constant=True)


def test_a_slice_is_constant_only_if_all_its_channels_are(tmp_path):
    array = random(2, 3, 8, 8)
    array[0, 1] = 0
    np.save(tmp_path / "a.npy", array)
    equal(load(tmp_path), array)
    array[1] = np.array([1, 2, 3])[:, None, None]
    np.save(tmp_path / "a.npy", array)
    assert "slice 1" in error(tmp_path)


def test_colour(tmp_path):
    Image.fromarray(random(8, 8, 3, dtype=np.uint8)).save(tmp_path / "a.png")
    assert "a.png" in (message := error(tmp_path)) and "grey" in message
    Image.fromarray(random(8, 8, 4, dtype=np.uint8), mode="CMYK").save(tmp_path / "b.tif")
    assert "CMYK" in error(tmp_path / "b.tif")
    write_dicom(tmp_path / "c.dcm", random(8, 8, 3, dtype=np.uint8))
    assert "is a colour image" in error(tmp_path / "c.dcm")
    grey = random(8, 8, dtype=np.uint8)
    write_dicom(tmp_path / "c.dcm", np.repeat(grey[..., None], 3, axis=2))
    equal(load(tmp_path / "c.dcm"), grey[None, None].astype(np.float32))


def test_hdf5_unclear_or_missing_dataset(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["one"], file["two/three"], file["vector"] = random(8, 8), random(8, 8), random(8)
    assert "'one' (8, 8), 'two/three' (8, 8)" in (message := error(path)) and "dataset_name" in message
    assert "'four'" in (message := error(path, dataset_name="four")) and "two/three" in message
    assert "'two'" in error(path, dataset_name="two")  # a group
    assert len(load(path, dataset_name="two/three")) == 1
    with h5py.File(path, "w") as file:
        file["vector"] = random(8)
    assert "vector" in error(path)
    np.save(tmp_path / "b.npy", random(8, 8))
    assert "no npz, HDF5, MATLAB file" in error(tmp_path / "b.npy", dataset_name="x")


def test_npz_unclear(tmp_path):
    np.savez(tmp_path / "a.npz", one=random(8, 8), two=random(8, 8))
    assert "'one' (8, 8), 'two' (8, 8)" in error(tmp_path)
    np.savez(tmp_path / "a.npz", labels=random(8, 8))
    assert "labels" in error(tmp_path)


def npy_header(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_absurd_declared_shapes_are_refused_before_memory_is_asked_for(tmp_path):
    huge = (10**5, 10**4, 10**4)
    (tmp_path / "a.npy").write_bytes(npy_header(huge))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy_header(huge))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", shape=huge, dtype="f8", chunks=(1, 100, 100))
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    write_dicom(tmp_path / "a.dcm", random(8, 8, dtype=np.uint8))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.Rows, data.Columns, data.NumberOfFrames = 60000, 60000, 100
    data.save_as(tmp_path / "a.dcm")
    write_dicom(tmp_path / "b.dcm", random(8, 8, dtype=np.uint8), frames=10**6)
    for name in ("a.npy", "a.npz", "a.h5", "a.nii", "a.nii.gz", "a.dcm", "b.dcm"):
        assert "GiB" in (message := error(tmp_path / name)) and name in message, name


def test_png_that_declares_too_many_pixels(tmp_path):
    Image.fromarray(random(8, 8, dtype=np.uint8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 10**5, 10**5)
    content[29:33] = struct.pack(">I", zipfile.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    assert "a.png" in (message := error(tmp_path)) and "limit of" in message


def test_dicom_without_an_image(tmp_path):
    write_dicom(tmp_path / "a.dcm", random(8, 8, dtype=np.uint8))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    del data.PixelData
    data.save_as(tmp_path / "a.dcm")
    assert "without an image" in error(tmp_path)


def test_a_store_is_of_one_reading(tmp_path, monkeypatch):
    """The same file with other options is other data."""
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((12, 12, 12)))
    one, two = (prom.load(tmp_path / "a.npy", "all", axes=axes, store=True) for axes in ("NHW", "HWN"))
    assert torch.equal(two.images[:, 0], one.images[:, 0].permute(2, 0, 1))


def test_labels_are_not_resized_in_k_space(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.random.rand(3, 16, 16), labels=np.zeros((3, 16, 16), np.uint8))
    assert "cannot be resized in k-space" in error(tmp_path, size=12, size_in="kspace")
