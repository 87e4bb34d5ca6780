"""The fastMRI knee reader: the paper's selection on the real annotations, files of fastMRI's layout, and hostile ones.

No fastMRI file may be passed on, so the files are written here: two real complex knee slices where they are present, and smooth
synthetic ones everywhere.
"""

from __future__ import annotations

import csv
import pickle
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from conftest import SHARED

from prom import InputError, fft2c
from prom.datasets import cache, fastmri_knee
from prom.datasets.fastmri_knee import Box, paint, pixel_size, read_annotations, survey

CSV = SHARED / "fastmri_plus" / "knee.csv"
KNEES = SHARED / "knee_complex" / "imdb_fig7.mat"
HEADER = "file,slice,study_level,x,y,width,height,label\n"
XML = (
    '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize>'
    "<x>640</x><y>368</y><z>1</z></matrixSize><fieldOfView_mm><x>320.0</x><y>165.6</y><z>4.5</z></fieldOfView_mm></encodedSpace>"
    "<reconSpace><matrixSize><x>320</x><y>320</y><z>1</z></matrixSize><fieldOfView_mm><x>160.0</x><y>144.0</y><z>4.5</z>"
    "</fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"
)


@pytest.fixture(autouse=True)
def stores(tmp_path_factory, monkeypatch):
    """No store beside the data of a test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PROM_CACHE", str(folder))
    return folder


def synthetic(count=2, height=320, width=256, seed=0) -> np.ndarray:
    """Smooth complex images with smooth phase, of fastMRI's intensities."""
    generator = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    noise = generator.standard_normal((count, height, width)) + 1j * generator.standard_normal((count, height, width))
    images = np.fft.ifft2(np.fft.fft2(noise) / (radius + 0.01) ** 2)
    return (3e-4 * images / abs(images).max()).astype(np.complex64)


@pytest.fixture(params=["synthetic", "knee"])
def images(request) -> np.ndarray:
    """(2, 320, 256) complex64, at most 3e-4."""
    if request.param == "synthetic":
        return synthetic()
    if not KNEES.exists():
        pytest.skip(f"no complex knee images beside the project ({KNEES.parent.name}/{KNEES.name})")
    knees = np.moveaxis(scipy.io.loadmat(KNEES)["images"]["labels"][0, 0][:, :, 0], -1, 0)
    return (knees * (3e-4 / abs(knees).max())).astype(np.complex64)


def embedded(images, width, height=640) -> np.ndarray:
    """The images in the middle of a larger frame of zeros."""
    frame = np.zeros((len(images), height, width), np.complex128)
    top, left = (height - images.shape[1]) // 2, (width - images.shape[2]) // 2
    frame[:, top : top + images.shape[1], left : left + images.shape[2]] = images
    return frame


def write_fastmri(path, images, width=368, height=640, header=XML, patient="p1", esc=True, **kspace):
    """A file of fastMRI's single-coil layout; ``kspace``: options of the dataset. NumPy's transform, not ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = embedded(images, width, height)
    shifted = np.fft.fft2(np.fft.ifftshift(frame, axes=(1, 2)), norm="ortho")
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", data=np.fft.fftshift(shifted, axes=(1, 2)).astype(kspace.pop("dtype", np.complex64)), **kspace)
        if esc:
            rows, columns = (slice((n - 320) // 2, (n - 320) // 2 + 320) for n in (height, width))
            file["reconstruction_esc"] = abs(frame[:, rows, columns]).astype(np.float32)
        if header is not None:
            file["ismrmrd_header"] = header
        file.attrs.update({"acquisition": "CORPD_FBK", "max": abs(images).max(), "norm": np.linalg.norm(images)})
        if patient is not None:
            file.attrs["patient_id"] = patient
    return path


def write_csv(root, *rows):
    (root / "knee.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One file in each part, each with a box."""
    folder = tmp_path_factory.mktemp("written")
    write_fastmri(folder / "singlecoil_train" / "file1000001.h5", synthetic())
    write_fastmri(folder / "singlecoil_val" / "file1000002.h5", synthetic(seed=1), patient="p2")
    write_csv(folder, "file1000001,1,No,90,173,35,10,Meniscus Tear", "file1000002,0,No,9,17,5,10,Bone - Lesion")
    return folder


@pytest.fixture
def root(written, tmp_path):
    """A copy of these, for a test to change."""
    return shutil.copytree(written, tmp_path / "knee_fastmri")


def load(root, split="train", store=False, **options):
    return cache.read(fastmri_knee.plan(split, root, **options), store)


# ------------------------------------------------------------------------------------------------------------------------- the selection


@pytest.fixture(scope="module")
def real_csv():
    if not CSV.exists():
        pytest.skip(f"no fastMRI+ annotations beside the project ({CSV.parent.name}/{CSV.name})")
    return CSV


def test_the_real_annotations_give_the_papers_counts(real_csv):
    with open(real_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16167 and sum(row["label"] == "artifact" for row in rows) == 13
    boxes, names = read_annotations(real_csv)
    assert sum(map(len, boxes.values())) == 16154 and len(boxes) == 969
    pairs = {(file, box.number) for file in boxes for box in boxes[file]}
    assert len(pairs) == 9581 == 8057 + 1524
    assert len(names) == 21 and "artifact" not in names and "Joint Effusion" in names and list(names) == sorted(names)


def test_a_plan_of_all_annotated_files_is_the_papers(tmp_path, real_csv):
    """Planning opens no file, so that empty ones do."""
    boxes, _ = read_annotations(real_csv)
    for index, name in enumerate(sorted(boxes)):
        part = tmp_path / ("singlecoil_val" if index % 6 == 0 else "singlecoil_train")
        part.mkdir(exist_ok=True)
        (part / f"{name}.h5").touch()
    (tmp_path / "singlecoil_train" / "file9999999.h5").touch()
    plans = [fastmri_knee.plan(split, tmp_path, annotations=real_csv) for split in ("train", "test")]
    assert sum(len({box.number for box in kept}) for plan in plans for _, kept in plan.items) == 9581
    assert sum(len(plan.items) for plan in plans) == 969
    for plan in plans:
        names = [path.stem for path, _ in plan.items]
        assert names == sorted(names) and "file9999999" not in names and real_csv in plan.files
    every = fastmri_knee.plan("train", tmp_path, annotated=False, labels=False)
    assert len(every.items) == len(plans[0].items) + 1 and len(every.files) == len(every.items)


def test_slices_come_once_and_in_order(tmp_path):
    for name in ("file2", "file1", "file3"):
        write_fastmri(tmp_path / "singlecoil_train" / f"{name}.h5", synthetic(4, 64, 64))
    write_csv(
        tmp_path,
        "file2,3,No,1,2,3,4,a",
        "file1,2,No,1,2,3,4,b",
        "file2,0,No,1,2,3,4,a",
        "file2,3,No,1,2,3,4,a",
        "file9,1,No,1,2,3,4,c",
        "file3,0,Yes,,,,,artifact",
    )
    data = load(tmp_path)
    assert list(zip(data.subjects, data.slices, strict=True)) == [("file1", 2), ("file2", 0), ("file2", 3)]
    assert data.label_names == ("background", "a", "b", "c") and data.labels.unique().tolist() == [0, 1, 2]


def test_all_slices_with_and_without_annotations(root):
    data = load(root, annotated=False)
    assert data.slices == [0, 1] and [label.any().item() for label in data.labels] == [False, True]
    (root / "knee.csv").unlink()
    data = load(root, annotated=False, labels=False)
    assert data.slices == [0, 1] and data.labels is None and data.label_names == ()
    for options in ({}, {"labels": False}, {"annotated": False}):
        with pytest.raises(InputError, match="knee.csv.*annotated=False, labels=False"):
            load(root, **options)


@pytest.mark.parametrize("name", ["knee.csv", "annotations.csv", "fastmri_plus/knee.csv", "elsewhere/mine.csv"])
def test_where_the_annotations_lie(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / "knee.csv").rename(root / name)
    data = load(root, annotations=root / name if name.startswith("elsewhere") else None)
    assert data.slices == [1]


# ---------------------------------------------------------------------------------------------------------------------------- the images


@pytest.mark.parametrize(("height", "width"), [(640, 368), (640, 372), (641, 375), (320, 320)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_images_are_the_centre_of_what_was_measured(tmp_path, images, height, width, dtype):
    path = write_fastmri(tmp_path / "singlecoil_train" / "file1.h5", images, width, height, dtype=dtype)
    expected = embedded(images, 320, 320)
    tolerance = 1e-6 * abs(images).max()
    options = {"annotated": False, "labels": False}
    both = load(tmp_path, signal="complex", **options)
    assert both.images.dtype == torch.complex64 and both.images.shape == (2, 1, 320, 320)
    np.testing.assert_allclose(both.images[:, 0], expected, atol=tolerance, rtol=0)
    magnitude = load(tmp_path, **options)
    assert magnitude.images.dtype == torch.float32 and 1e-6 < magnitude.images.mean() < magnitude.images.max() < 1e-3
    np.testing.assert_allclose(magnitude.images[:, 0], abs(expected), atol=tolerance, rtol=0)
    with h5py.File(path) as file:
        np.testing.assert_allclose(magnitude.images[:, 0], file["reconstruction_esc"], atol=tolerance, rtol=0)


def test_only_the_magnitudes_kspace_is_hermitian(tmp_path, images):
    write_fastmri(tmp_path / "singlecoil_train" / "file1.h5", images)

    def asymmetry(signal):
        kspace = fft2c(load(tmp_path, signal=signal, annotated=False, labels=False).images.to(torch.complex128))
        mirrored = kspace[..., 1:, 1:].flip(-2, -1).conj()  # of an even length the first row and column have no partner
        return ((kspace[..., 1:, 1:] - mirrored).norm() / kspace.norm()).item()

    assert asymmetry("magnitude") < 1e-6 and asymmetry("complex") > 0.1


def test_the_reconstruction_is_not_needed(root):
    path = root / "singlecoil_train" / "file1000001.h5"
    expected = load(root).images
    write_fastmri(path, synthetic(), esc=False)
    torch.testing.assert_close(load(root).images, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "options", [{"chunks": (1, 640, 368), "compression": "gzip"}, {"chunks": (2, 64, 64)}, {"maxshape": (None, 640, 368)}]
)
def test_storage_makes_no_difference(root, options):
    expected = load(root).images
    write_fastmri(root / "singlecoil_train" / "file1000001.h5", synthetic(), **options)
    torch.testing.assert_close(load(root).images, expected, atol=0, rtol=0)


@pytest.mark.parametrize("signal", ["magnitude", "complex"])
def test_a_store_holds_what_memory_holds(root, stores, signal):
    write_fastmri(root / "singlecoil_train" / "file1000003.h5", synthetic(seed=3))
    plan = fastmri_knee.plan("train", root, signal=signal, annotated=False)
    sent = pickle.loads(pickle.dumps(plan))  # as to another process
    memory, stored = cache.read(plan, store=False), cache.read(sent, store=True, processes=1)
    assert stored.known_fingerprint and stored.fingerprint() == memory.fingerprint() and len(stored) == 4
    assert torch.equal(stored.labels[:], memory.labels) and stored.label_names == memory.label_names
    assert (stored.spacing, stored.patients) == (memory.spacing, memory.patients)
    assert [entry for entry in stores.iterdir() if entry.name.startswith("fastmri_knee-train-")]


def test_a_store_is_made_anew_for_other_annotations_and_options(root):
    assert load(root, store=True).slices == [1]
    write_csv(root, "file1000001,0,No,90,173,35,10,Meniscus Tear")
    assert load(root, store=True).slices == [0]
    assert load(root, store=True, signal="complex").images.dtype == torch.complex64
    assert load(root, store=True, labels=False).labels is None and len(load(root, store=True, annotated=False)) == 2


# -------------------------------------------------------------------------------------------------------------------- labels and metadata


def test_a_box_lies_on_what_was_seen_in_the_flipped_image(tmp_path):
    """A bright rectangle; the box is found in the image as the radiologist saw it, flipped up/down."""
    image = np.full((1, 320, 320), 1e-6, np.complex64)
    image[0, 41:71, 200:215] = 1e-3
    write_fastmri(tmp_path / "singlecoil_train" / "file1.h5", image)
    rows, columns = np.nonzero(abs(image[0, ::-1]) > 5e-4)
    box = f"{columns.min()},{rows.min()},{columns.max() - columns.min() + 1},{rows.max() - rows.min() + 1}"
    assert box == "200,249,15,30"
    write_csv(tmp_path, f"file1,0,No,{box},Bone - Lesion")
    data = load(tmp_path)
    assert torch.equal(data.labels[0] == 1, data.images[0, 0] > 5e-4) and data.labels.sum() == 15 * 30


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10, -1, 20, 11), (310, 320), (10, 30)),
        ((-5, 0, 20, 1), (319, 320), (0, 15)),
        ((300, 310, 40, 40), (0, 10), (300, 320)),
        ((10, 10, 20, 0), (0, 0), (10, 30)),
        ((10, 10, 0, 20), (290, 310), (0, 0)),
        ((-300, -300, 20, 20), (0, 0), (0, 0)),
        ((400, 400, 10**30, 10**30), (0, 0), (0, 0)),
        ((-320, -320, 10**30, 10**30), (0, 320), (0, 320)),
    ],
)
def test_boxes_are_cut_at_the_frame(box, rows, columns):
    label, expected = np.zeros((320, 320), np.uint8), np.zeros((320, 320), np.uint8)
    expected[slice(*rows), slice(*columns)] = 7
    paint(label, Box(2, 0, *box, value=7))
    np.testing.assert_array_equal(label, expected)


def test_classes_are_the_sorted_labels_and_later_rows_lie_above(root):
    write_csv(
        root,
        "file1000001,0,No,0,300,20,20,Meniscus Tear ",
        "file1000001,0,No,10.0,300,20,20,Bone - Lesion",
        "file1000001,1,No,0,0,1,1, Meniscus Tear",
        "file1000002,0,No,0,0,1,1,Joint Effusion ",
    )
    data = load(root)
    assert data.label_names == ("background", "Bone - Lesion", "Joint Effusion", "Meniscus Tear")
    expected = torch.zeros(320, 320, dtype=torch.uint8)
    expected[:20, :20], expected[:20, 10:30] = 3, 1
    assert torch.equal(data.labels[0], expected)
    assert load(root, "test").labels.unique().tolist() == [0, 2]  # the same numbers in both splits
    assert load(root, labels=False).labels is None


def test_volumes_of_one_patient_stay_together(root):
    for number, patient in ((3, "p1"), (4, np.bytes_(b"p4")), (5, None), (6, 6), (7, " "), (8, np.ones(3))):
        write_fastmri(root / "singlecoil_train" / f"file100000{number}.h5", synthetic(1), patient=patient)
    data = load(root, annotated=False)
    known = dict(zip(data.subjects, data.patients, strict=True))
    assert [known[f"file100000{n}"] for n in (1, 3, 4)] == ["p1", "p1", "p4"]
    assert all(known[f"file100000{n}"] == f"file100000{n}" for n in (5, 6, 7, 8))
    for fraction in (0.2, 0.4, 0.6, 0.8):
        rest, held = data.hold_out(fraction)
        assert not set(rest.patients) & set(held.patients)


def test_spacing_is_rows_first(root):
    assert load(root).spacing == [(0.5, 0.45)]


NAMESPACE = ' xmlns="http://www.ismrm.org/ISMRMRD"'
BOMB = XML.replace("<ismrm", '<!DOCTYPE ismrmrdHeader [<!ENTITY a "1">]><ismrm', 1)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        XML[:-20],
        "<a/>",
        XML.replace("160.0", "wide"),
        XML.replace("160.0", "-160"),
        XML.replace("160.0", "1e999"),
        XML.replace("<x>320</x>", "<x>0</x>"),
        XML.replace("<x>320</x>", ""),
        XML + " " * 2**20,
        BOMB,
        BOMB.replace("<x>320</x>", "<x>&a;</x>"),
        "<a>" * 200_000 + "</a>" * 200_000,
        5.0,
        np.zeros(7),
        np.bytes_(XML.encode() + b" " * 2**20),
    ],
    ids=lambda header: "none" if header is None else str(header)[:30],
)
def test_a_damaged_header_only_costs_the_spacing(root, header):
    path = write_fastmri(root / "singlecoil_train" / "file1000001.h5", synthetic(), header=header)
    if isinstance(header, str):
        assert pixel_size(header.encode()) is None
    assert load(root).spacing == () and len(load(root)) == 1
    with h5py.File(path, "a") as file:
        file.pop("ismrmrd_header", None)
        file["ismrmrd_header"] = h5py.ExternalLink(root / "singlecoil_val" / "file1000002.h5", "ismrmrd_header")
    assert load(root).spacing == ()


def test_a_header_that_cannot_be_unpacked_only_costs_the_spacing(root):
    path = write_fastmri(root / "singlecoil_train" / "file1000001.h5", synthetic(), patient=np.bytes_(b"p1"))
    whole = path.read_bytes()
    assert whole.count(b"GCOL") == 1  # HDF5's mark of where text lies
    path.write_bytes(whole.replace(b"GCOL", b"LOST"))
    data = load(root)
    assert data.spacing == () and data.patients == ["p1"]


@pytest.mark.parametrize("how", ["bytes of variable length", "external storage", "virtual"])
def test_only_text_in_the_file_itself_is_read_as_header(root, tmp_path_factory, monkeypatch, how):
    """HDF5 can crash on the first where it is damaged, and the others read other files."""
    read = []
    original = h5py.Dataset.__getitem__
    path, secret = root / "singlecoil_train" / "file1000001.h5", tmp_path_factory.mktemp("outside") / "secret"
    secret.write_bytes(XML.encode())
    kind = h5py.string_dtype(length=len(XML))
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
        if how == "virtual":
            file.create_virtual_dataset("ismrmrd_header", h5py.VirtualLayout((), kind))
        elif how == "external storage":
            file.create_dataset("ismrmrd_header", (1,), kind, external=[(secret, 0, h5py.h5f.UNLIMITED)])
        else:
            file.create_dataset("ismrmrd_header", (), h5py.vlen_dtype(np.uint8))
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key, **more: read.append(self.name) or original(self, key, **more))
    assert load(root).spacing == () and set(read) == {"/kspace"}


def test_headers_in_other_encodings_hide_no_entities():
    plain = XML.replace('encoding="utf-8"', 'encoding="utf-16"').encode("utf-16")
    assert pixel_size(plain) is None and pixel_size(XML.encode()) == pixel_size(XML.replace(NAMESPACE, "").encode()) == (0.5, 0.45)


# ------------------------------------------------------------------------------------------------------------------------------ refusals


def refused(root, match, split="train", **options):
    with pytest.raises(InputError, match=match) as caught:
        load(root, split, **options)
    assert "\n" not in str(caught.value)


def replaced(file, **options):
    del file["kspace"]
    return file.create_dataset("kspace", **options)


def other_files(file, folder, how):
    """k-space that lies outside the file, where it is fine."""
    secret = folder / "secret.h5"
    if how == "external storage":
        np.zeros((2, 640, 368), np.complex64).tofile(folder / "secret.bin")
        replaced(file, shape=(2, 640, 368), dtype=np.complex64, external=[(folder / "secret.bin", 0, h5py.h5f.UNLIMITED)])
        return
    write_fastmri(secret, synthetic())
    if how == "external link":
        del file["kspace"]
        file["kspace"] = h5py.ExternalLink(secret, "kspace")
    elif how == "soft link":
        del file["kspace"]
        file["elsewhere"] = h5py.ExternalLink(secret, "/")
        file["kspace"] = h5py.SoftLink("/elsewhere/kspace")
    elif how == "virtual":
        layout = h5py.VirtualLayout((2, 640, 368), np.complex64)
        layout[:] = h5py.VirtualSource(secret, "kspace", (2, 640, 368))
        del file["kspace"]
        file.create_virtual_dataset("kspace", layout)


@pytest.mark.parametrize("how", ["external link", "soft link", "virtual", "external storage"])
def test_kspace_of_other_files_is_not_followed(root, tmp_path_factory, how):
    path = root / "singlecoil_train" / "file1000001.h5"
    with h5py.File(path, "a") as file:
        other_files(file, tmp_path_factory.mktemp("outside"), how)
    refused(root, "file1000001.h5.*must be stored in the file itself")


KSPACES = {
    "real numbers": ({"data": np.ones((2, 640, 368), np.float32)}, "type float32; must be complex"),
    "text": ({"data": "kspace"}, "type object; must be complex"),
    "quadruple": ({"shape": (2, 640, 368), "dtype": np.clongdouble}, "type complex256; must be complex"),
    "multi-coil": ({"data": np.ones((2, 15, 64, 36), np.complex64)}, "multi-coil, and single-coil is needed"),
    "2D": ({"data": np.ones((640, 368), np.complex64)}, r"shape \(640, 368\); must have 3 axes"),
    "null": ({"data": h5py.Empty(np.complex64)}, r"shape \(\); must have 3 axes"),
    "no slices": ({"shape": (0, 640, 368), "dtype": np.complex64}, "is empty"),
    "bomb": ({"shape": (900, 4000, 4000), "dtype": np.complex64, "chunks": (1, 640, 368)}, "declares shape .* but holds 0 MiB"),
    "unwritten": ({"shape": (30, 640, 368), "dtype": np.complex64}, "declares shape .* but holds 0 MiB"),
    "narrow": ({"data": np.ones((2, 640, 319), np.complex64)}, "640 x 319; must have at least 320 x 320"),
    "low": ({"data": np.ones((2, 256, 368), np.complex64)}, "256 x 368; must have at least 320 x 320"),
    "zeros": ({"data": np.zeros((2, 640, 368), np.complex64)}, "slice 1 is constant"),
    "long": ({"data": np.ones((2, 320, 4097), np.complex64), "compression": 1}, "more than any knee has"),
}


@pytest.mark.parametrize("kind", KSPACES)
def test_unusable_kspace_is_named(root, kind):
    options, message = KSPACES[kind]
    with h5py.File(root / "singlecoil_train" / "file1000001.h5", "a") as file:
        replaced(file, **options)
    refused(root, f"file1000001.h5: .*{message}")


def test_a_huge_chunk_is_not_unpacked(root):
    """Of a gigabyte and more that hold a few slices, when one of them is asked for."""
    with h5py.File(root / "singlecoil_train" / "file1000001.h5", "a") as file:
        kspace = replaced(
            file, shape=(2, 640, 368), maxshape=(None, 640, 368), chunks=(600, 640, 368), dtype=np.complex64, compression="gzip"
        )
        kspace.id.write_direct_chunk((0, 0, 0), b"0" * 2**22)
    refused(root, "file1000001.h5: declares k-space .*more than any knee has")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(root, value):
    path = root / "singlecoil_train" / "file1000001.h5"
    write_fastmri(path, synthetic(), dtype=np.complex128)
    with h5py.File(path, "a") as file:
        file["kspace"][0, 0, 0] = value
    assert load(root).slices == [1]  # the wanted slice is sound, and no other is read
    refused(root, "file1000001.h5: slice 0 has NaN or infinite values", annotated=False)


def test_undersampled_files_are_refused(root):
    with h5py.File(root / "singlecoil_train" / "file1000001.h5", "a") as file:
        file["mask"] = np.ones(368)
    refused(root, "file1000001.h5: has no fully sampled k-space")


def test_files_that_are_not_fastmris(root):
    path = root / "singlecoil_train" / "file1000001.h5"
    whole = path.read_bytes()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", whole[: len(whole) // 2], whole[:300]):
        path.write_bytes(content)
        refused(root, "file1000001.h5: cannot be read as HDF5")
    with h5py.File(path, "w") as file:
        file["images"] = np.ones((2, 8, 8))
    refused(root, "file1000001.h5: has no 'kspace'")
    with h5py.File(path, "w") as file:
        file.create_group("kspace")
    refused(root, "file1000001.h5: its 'kspace' is not an array")


def test_a_link_out_of_the_folder_is_refused(root, tmp_path_factory):
    path = root / "singlecoil_train" / "file1000001.h5"
    outside = tmp_path_factory.mktemp("outside") / "file1000001.h5"
    path.rename(outside)
    path.symlink_to(outside)
    refused(root, "file1000001.h5: is a link to .*, outside the folder")
    outside.rename(path)
    (root / "knee.csv").rename(outside)
    (root / "knee.csv").symlink_to(outside)
    refused(root, "knee.csv: is a link to .*, outside the folder")


def test_a_slice_beyond_the_file_names_both(root):
    write_csv(root, "file1000001,1,No,1,2,3,4,a", "file1000001,2,No,1,2,3,4,a")
    refused(root, r"knee.csv, line 3: slice 2 of .*file1000001.h5, which has 2 \(from 0\)")


GOOD = "file1000001,1,No,90,173,35,10,Meniscus Tear"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column file, slice, x, y, width, height, label"),
        ("file,slice,x,y,w,h,label\n", "has no column width, height"),
        (HEADER + "file1000001,one,No,1,2,3,4,a\n", "line 2: slice 'one' must be a whole number >= 0"),
        (HEADER + GOOD + "\nfile1000001,-1,No,1,2,3,4,a\n", "line 3: slice '-1' must be a whole number >= 0"),
        (HEADER + "file1000001,1,No,nan,2,3,4,a\n", "line 2: x 'nan' must be a whole number >= -320"),
        (HEADER + "file1000001,1,No,1,inf,3,4,a\n", "line 2: y 'inf' must be"),
        (HEADER + "file1000001,1,No,1,-321,3,4,a\n", "line 2: y '-321' must be"),
        (HEADER + "file1000001,1,No,1,2,-3,4,a\n", "line 2: width '-3' must be a whole number >= 0"),
        (HEADER + "file1000001,1,No,1,2,3,4.5,a\n", "line 2: height '4.5' must be"),
        (HEADER + "file1000001,1,Yes,,,,,Meniscus Tear\n", "line 2: x '' must be"),
        (HEADER + "file1000001,1,No,1\n", "line 2: names no label"),
        (HEADER + ",1,No,1,2,3,4,a\n", "line 2: names no file"),
        (HEADER + f"file1000001,{'9' * 999}.5,No,1,2,3,4,a\n", "line 2: slice '999"),
        (HEADER + '"' + "a" * 200_000 + '",1,No,1,2,3,4,a\n', "cannot be read as CSV"),
        (HEADER + "".join(f"file1000001,1,No,1,2,3,4,label {n}\n" for n in range(256)), "256 different labels"),
        (HEADER + "other,1,No,1,2,3,4,a\n", "no box in any file of .*singlecoil_train.*annotated=False"),
        (HEADER + "file1000001,0,Yes,,,,,artifact\n", "no box in any file"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_bad_annotations_are_named(root, text, message):
    (root / "knee.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(root, f"knee.csv.*{message}")


def test_unknown_labels_byte_order_marks_and_more_columns_are_fine(root):
    text = "\ufeff" + HEADER.replace("\n", ",reader\r\n") + GOOD + ",A\r\n" + GOOD.replace("Meniscus Tear", "something new") + ",B,,\r\n"
    (root / "knee.csv").write_bytes(text.encode())
    data = load(root)
    assert len(data) == 1 and data.label_names == ("background", "Meniscus Tear", "something new")


def test_missing_annotations_file_is_named(root):
    refused(root, "nowhere.csv: cannot be read as fastMRI", annotations=root / "nowhere.csv")


def test_what_the_folder_must_hold(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    refused(empty, "no singlecoil_train or singlecoil_val there; register at fastmri.med.nyu.edu")
    (empty / "singlecoil_test").mkdir()
    refused(empty, "singlecoil_test has no fully sampled k-space")
    refused(empty / "singlecoil_test", "singlecoil_test: has no fully sampled k-space")
    refused(root / "singlecoil_train", "give the folder above it")
    (empty / "singlecoil_val").mkdir()
    refused(empty, "singlecoil_train: no files")
    (root / "singlecoil_train" / "._file1000001.h5").write_bytes(b"left by macOS")
    assert len(load(root, annotated=False)) == 2
    write_fastmri(root / "singlecoil_val" / "file1000001.h5", synthetic(1))
    for split in ("train", "test"):
        refused(root, "two subjects with one name", split)


@pytest.mark.parametrize("split", ["challenge", "validation", "val", "singlecoil_test"])
def test_other_splits(root, split):
    refused(root, f"split '{split}': fastMRI knee has 'train' and 'test'", split)


def test_other_signals(root):
    refused(root, "signal 'complx' is not known; did you mean 'complex'", signal="complx")


# -------------------------------------------------------------------------------------------------------------------------------- survey


def test_survey_says_what_is_there(root):
    for path in root.glob("singlecoil_*/*.h5"):
        path.write_bytes(b"not opened")
    assert survey(root) == {
        "found": {"train": {"subjects": 1, "slices": 1}, "test": {"subjects": 1, "slices": 1}},
        "missing": ["972 of 973 files in singlecoil_train", "198 of 199 files in singlecoil_val"],
    }
    (root / "knee.csv").unlink()
    without = survey(root)
    assert without["found"]["test"] == {"subjects": 1, "slices": None} and without["missing"][-1] == "knee.csv of fastMRI+"
    with pytest.raises(InputError, match="register at"):
        survey(root / "nowhere")
