"""Folders as hospitals and challenges leave them: who is a patient, what is an image, what is a label, and what is refused."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from pathlib import Path, PurePath

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from PIL import Image
from test_dicom import write as write_dicom

import prom
from prom import InputError
from prom.baselines import as_result
from prom.datasets import folder, layout, measured
from prom.datasets.arrays import FIRST, LAST, centred, check_axes
from prom.kspace.fourier import fft2c
from prom.masks.export import export
from prom.scanner import writing
from prom.show import inspection

RNG = np.random.default_rng(0)
MASK = prom.baselines.as_result(torch.eye(16, dtype=torch.bool), "identity", 16)
FOLDERS = int(os.environ.get("PROM_FUZZ", "10000")) * 3 // 100  # 300; PROM_FUZZ=100000 makes 3,000


def image(shape=(16, 12, 3)):
    return (RNG.random(shape) * 500 + 30).astype(np.int16)


def label(shape=(16, 12, 3)):
    return RNG.integers(0, 4, shape).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.moveaxis(array, -1, 0))
    else:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def sides(path, **options):
    return [set(prom.load(path, split, **options).patients or prom.load(path, split, **options).subjects) for split in ("train", "test")]


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        prom.load(path, "all", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("paths", "patients"),
    [
        (["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii", "sub-02/anat/sub-02_T2w.nii"], ["sub-01", "sub-02"]),
        (["sub-01_T1w.nii", "sub-01_T2w.nii"], ["sub-01", "sub-01"]),
        (["B_001/B_001_t1.nii", "B_001/B_001_seg.nii", "B_002/B_002_t1.nii"], ["B_001", "B_001", "B_002"]),
        (["imagesTr/la_003.nii", "labelsTr/la_003.nii"], ["la_003", "la_003"]),
        (["imagesTr/c_000_0000.nii", "imagesTr/c_000_0001.nii", "labelsTr/c_000.nii"], ["c_000"] * 3),
        (["imagesTr/case_0001.nii", "imagesTr/case_0002.nii"], ["case_0001", "case_0002"]),  # no labels called case: no channels
        (["p1_t1.nii", "p1_flair.nii", "p2_t1.nii"], ["p1", "p1", "p2"]),
        (["p1_ses-1.nii", "p1_ses-2.nii", "p1_run_3.nii"], ["p1", "p1", "p1"]),
        (["p1_pre.nii", "p1_post.nii", "p1_x.nii", "p1_y.nii"], ["p1"] * 4),
        (["07-alpha.nii", "07-beta.nii", "08-alpha.nii"], ["07", "07", "08-alpha"]),
        (["c_000_0000.nii", "c_000_0001.nii", "c_001_0000.nii", "c_001_0001.nii"], ["c_000", "c_000", "c_001", "c_001"]),
        (["case_0000.nii", "case_0001.nii"], ["case_0000", "case_0001"]),
        (["IXI002-Guys-0828-T1.nii", "IXI002-Guys-0828-T2.nii"], ["IXI002-Guys-0828"] * 2),
        (["OAS1_0001_MR1_mpr-1.nii", "OAS1_0001_MR2_mpr-1.nii"], ["OAS1_0001"] * 2),
        (["A0S9V9_sa_ED.nii", "A0S9V9_sa_ES.nii", "A0S9V9_la_ED.nii", "A0S9V9_sa_ED_gt.nii"], ["A0S9V9"] * 4),
        (["P1/s/scan.nii", "P1/t/scan.nii"], ["P1", "P1"]),
        (["P1/P1_visit1/P1_visit1_t1.nii", "P1/P1_visit2/P1_visit2_t1.nii"], ["P1", "P1"]),
        (["pat1_ses1/x.nii", "pat1_ses2/x.nii", "pat2_T1/x.nii"], ["pat1", "pat1", "pat2"]),
        (["BraTS-GLI-00005-000/BraTS-GLI-00005-000-t1c.nii", "BraTS-GLI-00005-001/BraTS-GLI-00005-001-t1c.nii"], ["BraTS-GLI-00005"] * 2),
        (["HGG/Brats18_2_1/Brats18_2_1_t1.nii", "HGG/Brats18_3_1/Brats18_3_1_t1.nii"], ["HGG/Brats18_2_1", "HGG/Brats18_3_1"]),
        (["scan_1.nii", "scan_2.nii", "scan3.nii"], ["scan_1", "scan_2", "scan3"]),
        (["pat7/T1/a.nii", "pat7/T2/a.nii", "pat8/T1/a.nii"], ["pat7", "pat7", "pat8"]),
        (["T1/anna.nii", "T2/anna.nii", "T1/ben.nii"], ["anna", "anna", "ben"]),
        (["study/p1/x.nii", "study/p1/y.nii", "study/p2/x.nii"], ["study"] * 3),
        (["nifti/a.nii", "nifti/b.nii"], ["a", "b"]),
        (["patient1/2019-03-01/x.nii", "patient1/2020-05-02/y.nii", "patient2/2020-07-01/x.nii"], ["patient1", "patient1", "patient2"]),
    ],
)
def test_a_patient_is_a_patient(paths, patients):
    found = layout.names([PurePath(path) for path in paths], [PurePath(path).stem for path in paths])
    assert [name.patient for name in found] == patients


@pytest.mark.parametrize("paths", [["visit1/x.nii", "visit2/x.nii"], ["2019-03-01/x.nii", "20200502/x.nii"], ["ses-1.nii", "ses-2.nii"]])
def test_sessions_without_a_patient_are_asked(paths):
    """The folder of one patient: its sessions on both sides of a split would be the same head."""
    paths, stems = [PurePath(path) for path in paths], [PurePath(path).stem for path in paths]
    with pytest.raises(InputError, match="are named as sessions"):
        layout.names(paths, stems)
    assert len({name.patient for name in layout.names(paths, stems, "file")}) == 2
    assert {name.patient for name in layout.names([PurePath("p") / path for path in paths], stems, "1")} == {"p"}


def test_what_names_leave_open_is_asked():
    paths = [PurePath(f"{a}/{b}.nii") for a in ("left", "right") for b in ("anna", "ben")]
    stems = [path.stem for path in paths]
    with pytest.raises(InputError, match="patient=name"):
        layout.names(paths, stems)
    assert [name.patient for name in layout.names(paths, stems, "name")] == ["anna", "ben"] * 2
    assert [name.patient for name in layout.names(paths, stems, "folder")] == ["left", "left", "right", "right"]
    assert [name.patient for name in layout.names(paths, stems, "1")] == ["left", "left", "right", "right"]
    for wrong in ("2", "0", "x", "²"):
        with pytest.raises(InputError, match="patient"):
            layout.names(paths, stems, wrong)


# ------------------------------------------------------------------------------------------------------------------------ real layouts


def test_brats(tmp_path):
    for p in range(6):
        for contrast in ("flair", "t1", "t1ce", "t2"):
            save(tmp_path / f"BraTS_{p}" / f"BraTS_{p}_{contrast}.nii.gz", image())
        save(tmp_path / f"BraTS_{p}" / f"BraTS_{p}_seg.nii.gz", label())
    train, test = sides(tmp_path)
    assert (len(train), len(test), train & test) == (5, 1, set())
    data = prom.load(tmp_path, "all", channels="flair,t1,t1ce,t2")
    assert data.images.shape == (18, 4, 16, 12) and data.number_of_subjects == 6
    for index, contrast in enumerate(("flair", "t1", "t1ce", "t2")):
        expected = nibabel.load(tmp_path / "BraTS_0" / f"BraTS_0_{contrast}.nii.gz").get_fdata()
        assert np.array_equal(data.images[:3, index].numpy(), np.moveaxis(expected, 2, 0))
    expected = np.asanyarray(nibabel.load(tmp_path / "BraTS_0" / "BraTS_0_seg.nii.gz").dataobj)
    assert np.array_equal(data.labels[:3].numpy(), np.moveaxis(expected, 2, 0))
    assert len(prom.load(tmp_path, "all", contrast="T1")) == 18
    assert prom.load(tmp_path, "all", labels="none").labels is None
    assert "flair" in message(tmp_path, contrast="pd")
    (tmp_path / "BraTS_3" / "BraTS_3_t2.nii.gz").unlink()
    assert "BraTS_3" in message(tmp_path, channels="t1,t2") and "t2" in message(tmp_path, channels="t1,t2")


def test_medical_segmentation_decathlon(tmp_path):
    for p in range(5):
        save(tmp_path / "imagesTr" / f"la_{p:03}.nii.gz", image())
        save(tmp_path / "labelsTr" / f"la_{p:03}.nii.gz", label())
    data = prom.load(tmp_path, "all")
    assert data.labels.shape == (15, 16, 12) and data.number_of_subjects == 5
    save(tmp_path / "imagesTs" / "la_100.nii.gz", image())
    assert prom.load(tmp_path, "test").labels is None and len(prom.load(tmp_path)) == 15
    (tmp_path / "labelsTr" / "la_002.nii.gz").unlink()
    with pytest.raises(InputError, match="labels=only"):
        prom.load(tmp_path)
    assert len(prom.load(tmp_path, labels="only")) == 12


def test_labels_are_known_by_their_values_too(tmp_path):
    for p in range(5):
        save(tmp_path / f"p{p}" / "picture.nii", image())
        save(tmp_path / f"p{p}" / "outline.nii", label())
    data = prom.load(tmp_path, "all")
    assert data.images.min() >= 30 and data.labels.max() == 3 and len(data) == 15


def test_labels_alone_are_no_images(tmp_path):
    for p in range(3):
        save(tmp_path / f"p{p}_seg.nii", label())
    assert "are labels; give a folder" in message(tmp_path)
    for p in range(3):
        save(tmp_path / f"p{p}_seg.nii", image())  # ground truth, which is an image
    assert len(prom.load(tmp_path, "all")) == 9


def test_label_of_another_grid_is_refused(tmp_path):
    save(tmp_path / "p_t1.nii", image())
    save(tmp_path / "p_seg.nii", label((16, 12, 2)))
    assert "p_seg.nii" in message(tmp_path)


@pytest.mark.parametrize(
    ("ending", "of_labels", "axes", "named"),
    [
        ("nii.gz", "nii", "HWN", None),
        ("npy", "npy", "NHW", None),
        ("nii", "mat", "HWN", None),
        ("nii", "npy", "NHW", "NHW"),
        ("npy", "nii", "WNH", "WNH"),
        ("npy", "npy", "HWCN", "HWCN"),
    ],
)
def test_labels_have_the_axes_of_their_images(tmp_path, ending, of_labels, axes, named):
    """Rows, columns and slices are as many, so that nothing but the axes decides. Axes of length 1 may be missing."""
    values = np.stack([RNG.permutation(16) for _ in range(256)]).reshape(16, 16, 16)  # (N, H, W)
    letters = axes.replace("C", "")
    stored = values.transpose(["NHW".index(letter) for letter in letters])
    pictures = np.expand_dims(stored, axes.index("C")) if "C" in axes else stored
    for name, array in ((f"p.{ending}", pictures + 0.5), (f"p_seg.{of_labels}", stored.astype(np.uint8))):
        if name.endswith("npy"):
            np.save(tmp_path / name, array)
        elif name.endswith("mat"):
            scipy.io.savemat(tmp_path / name, {"x": array})
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / name)
    data = prom.load(tmp_path, "all", axes=named)
    assert np.array_equal(data.labels, values) and np.array_equal(data.images[:, 0], values + 0.5)


@pytest.mark.parametrize(("shape", "clear"), [((3, 16, 12), True), ((3, 16, 16), False), ((16, 16, 16), False), ((1, 16, 12), True)])
def test_labels_of_a_format_with_other_axes_are_read_where_the_shape_leaves_no_choice(tmp_path, shape, clear):
    """The images are npy, slices first; the labels are NIfTI, slices last."""
    classes = label(shape)
    np.save(tmp_path / "p.npy", np.float32(image(shape)))
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(classes, 0, -1), np.eye(4)), tmp_path / "p_seg.nii")
    if clear:
        assert np.array_equal(prom.load(tmp_path, "all").labels, classes)
    else:
        assert "p_seg.nii: what the axes" in (said := message(tmp_path)) and "axes='NHW'" in said and "labels=none" in said
        assert prom.load(tmp_path, "all", labels="none").labels is None


def test_labels_of_several_channels_are_refused(tmp_path):
    save(tmp_path / "p_t1.nii", image())
    save(tmp_path / "p_seg.nii", label((16, 12, 3, 4)))
    assert "p_seg.nii: labels of shape (16, 12, 3, 4); must be (16, 12, 3)" in message(tmp_path)
    save(tmp_path / "p_seg.nii", label((16, 12, 3, 1)))
    assert prom.load(tmp_path, "all").labels.shape == (3, 16, 12)


def test_what_this_package_wrote_is_never_input(tmp_path):
    for i in range(6):
        np.save(tmp_path / f"scan{i}.npy", RNG.random((2, 16, 16)))
    before = sides(tmp_path)
    result = prom.baselines.as_result(prom.baselines.energy(prom.load(tmp_path), 4), "energy", 4)
    result.save(tmp_path / "a.h5")
    for name in ("b.npy", "c.png", "d.mat", "e.csv"):
        prom.export.export(result, tmp_path / name)
    writing.write_scan(result, tmp_path / "f.mrd")
    assert sides(tmp_path) == before and len(prom.load(tmp_path, "all")) == 12
    reasons = {path.name: reason for path, reason in folder.plan(tmp_path, "all").left_out}
    assert set(reasons) == {"a.h5", "b.npy", "c.png", "d.mat", "e.csv", "f.mrd"} and reasons["f.mrd"].startswith("headers of raw data")
    assert all("mask" in reasons[n] for n in ("a.h5", "b.npy", "c.png", "d.mat"))


@pytest.mark.parametrize("patient", [None, "name", "file"])
@pytest.mark.parametrize("folders", [("{}/images", "{}/masks", "train", "test"), ("images{}", "labels{}", "Tr", "Ts")])
def test_a_label_belongs_to_the_image_of_its_split(tmp_path, folders, patient):
    """Others are called the same: case_1 of train and of test are of two patients."""
    of_images, of_labels, *words = folders
    for side, word in enumerate(words):
        for number in (1, 2):
            save(tmp_path / of_images.format(word) / f"case_{number}.nii", image())
            save(tmp_path / of_labels.format(word) / f"case_{number}.nii", np.full((16, 12, 3), 10 * side + number, np.uint8))
    for side, split in enumerate(("train", "test")):
        assert prom.load(tmp_path, split, patient=patient).labels.unique().tolist() == [10 * side + 1, 10 * side + 2]
    shutil.rmtree(tmp_path / of_labels.format(words[1]))
    assert prom.load(tmp_path, "train", patient=patient).labels is not None
    assert prom.load(tmp_path, "test", patient=patient).labels is None


def test_a_label_in_no_splits_folder_is_of_one_image(tmp_path):
    for name in ("train/case_1", "test/case_2", "labels/case_1", "labels/case_2"):
        save(tmp_path / f"{name}.nii", label() if "labels" in name else image())
    assert prom.load(tmp_path, "test").labels is not None
    save(tmp_path / "test" / "case_1.nii", image())
    assert "case_1.nii: by its name is the label of" in message(tmp_path)


def test_channels_and_labels_by_value_where_each_file_is_a_patient(tmp_path):
    for number in range(3):
        for name, array in (("t1", image()), ("t2", image()), ("seg", label())):
            save(tmp_path / f"P{number}_{name}.npy", array)
    data = prom.load(tmp_path, "all", patient="file", channels="t1,t2")
    assert data.images.shape[:2] == (9, 2) and data.labels is not None and len(set(data.patients or data.subjects)) == 3
    for number in range(3):
        for name in ("t2", "seg"):
            (tmp_path / f"P{number}_{name}.npy").unlink()
        (tmp_path / f"P{number}_t1.npy").rename(tmp_path / f"P{number}_a.npy")
        save(tmp_path / f"P{number}_b.npy", label())
    assert len(data := prom.load(tmp_path, "all", patient="file")) == 9 and data.labels is not None


def test_channels_are_of_one_split(tmp_path):
    save(tmp_path / "train" / "case1_flair.nii", image())
    save(tmp_path / "test" / "case1_t1.nii", image())
    assert "its volume has no" in message(tmp_path, channels="flair,t1")
    save(tmp_path / "train" / "case1_t1.nii", image())
    save(tmp_path / "test" / "case1_flair.nii", image())
    assert [prom.load(tmp_path, split, channels="flair,t1").images.shape[:2] for split in ("train", "test")] == [(3, 2), (3, 2)]


@pytest.mark.parametrize("where", ["{}.npy {}_seg.npy", "images/{}.npy labels/{}.npy", "{}_t1.npy {}_seg.npy"])
def test_a_label_belongs_to_its_image_where_each_file_is_a_patient(tmp_path, where):
    shades = {f"P{i}": i + 1 for i in range(3)}
    for name, shade in shades.items():
        for path, array in zip(where.format(name, name).split(), (image((16, 12)), np.full((16, 12), shade)), strict=True):
            save(tmp_path / path, array)
    data = prom.load(tmp_path, "all", patient="file")
    assert len(set(data.subjects)) == 3 and data.labels.amax((1, 2)).tolist() == [1, 2, 3]


def test_numbers_at_the_end_of_names_are_asked_about(tmp_path):
    names = [f"P{i:02d}_{n:03d}" for i in range(3) for n in range(4)]
    for name in names:
        save(tmp_path / f"{name}.npy", image())
    said = "whether 'P00_000' or 'P00' is a patient is unclear; give patient=name where 'P00' is one, or patient=case"
    assert said in message(tmp_path)
    assert [len(side) for side in sides(tmp_path, patient="name")] == [2, 1]
    assert len(set().union(*sides(tmp_path, patient="case"))) == 12
    assert len(set().union(*sides(tmp_path, patient="file"))) == 12
    (tmp_path / "P01_002.npy").unlink()
    (tmp_path / "P02_002.npy").unlink()  # a number of one patient alone
    for number in (20, 21):
        save(tmp_path / f"P03_{number:03d}.npy", image())  # and one that shares no number
    assert {patient for side in sides(tmp_path, patient="name") for patient in side} == {"P00", "P01", "P02", "P03"}
    for number in (20, 21):
        (tmp_path / f"P03_{number:03d}.npy").unlink()
    for name in names[4:]:
        (tmp_path / f"{name}.npy").unlink(missing_ok=True)
    assert len(set().union(*sides(tmp_path))) == 4  # one start: these are numbered patients


def test_numbered_cases_of_several_contrasts_are_patients_where_that_is_said(tmp_path):
    for site, number, contrast in itertools.product(("siteA", "siteB"), ("001", "002", "003"), ("t1", "t2")):
        save(tmp_path / f"{site}_{number}_{contrast}.npy", image())
    assert "give patient=name where 'siteA' is one, or patient=case" in message(tmp_path)
    train, test = sides(tmp_path, patient="case")
    assert not train & test and len(train | test) == 6


def test_names_of_which_each_has_one_number_leave_nothing_open(tmp_path):
    for name in ("e14089s3_P53248", "e13992s3_P53248", "e14090s3_P00512"):
        save(tmp_path / f"{name}.npy", image())
    assert len(set().union(*sides(tmp_path))) == 3
    save(tmp_path / "a_7.npy", image())
    save(tmp_path / "b_7.npy", image())
    assert len(set().union(*sides(tmp_path))) == 5


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sub-01_part-phase_T2starw.nii.gz", "a phase"),
        ("gre_e1_ph.nii.gz", "a phase"),
        ("sub-01_phasediff.nii.gz", "a phase"),
        ("sub-01_part-imag_bold.nii.gz", "a real or imaginary part"),
        ("sens.npy", "coil sensitivities"),
    ],
)
def test_what_is_no_image_by_its_name_is_left_out(tmp_path, name, why):
    save(tmp_path / "sub-01_part-mag_T2starw.nii.gz", image())
    save(tmp_path / name, image())
    plan = folder.plan(tmp_path, "all")
    assert [path.name for path, reason in plan.left_out if reason.startswith(why)] == [name]


def test_what_was_reconstructed_from_a_file_beside_it_is_not_another_patient(tmp_path):
    for number in range(6):
        save(tmp_path / f"P{number}.npy", image())
    test = sides(tmp_path)[1]
    save(tmp_path / "P1_image.nii.gz", image())
    assert "P1.npy and P1_image.nii.gz: seem to be one image, once reconstructed; remove one" in message(tmp_path)
    (tmp_path / "P1.npy").unlink()
    assert sides(tmp_path)[1] == test  # the split stays as it was
    for number in range(6):
        save(tmp_path / f"P{number}_label.nii.gz", label())
    assert folder.plan(tmp_path, "all", labels="only").sides.keys() == {"train", "test"}


def test_an_image_without_its_imaginary_part_is_an_image(tmp_path):
    save(tmp_path / "e1_real.npy", image())
    assert len(prom.load(tmp_path, "all")) == 3
    save(tmp_path / "e1_imaginary.npy", image())
    assert "is a real or imaginary part, by its name; save both as one complex array" in message(tmp_path)


@pytest.mark.parametrize("words", ["real imaginary", "real im", "re imag", "Re Im", "Real1 Imag1", "realpart imagpart"])
@pytest.mark.parametrize("where", ["P{}_{}.npy", "P{}_{}_1.npy", "P{}/{}/a.npy"])
def test_parts_of_complex_numbers_are_known_by_their_names(tmp_path, words, where):
    words = words.split()
    for number, word in itertools.product(range(3), words):
        save(tmp_path / where.format(number, word), image())
    assert "is a real or imaginary part, by its name" in message(tmp_path, patient="case")
    for word in (words[1], words[1].lower()):
        for path in [*tmp_path.rglob(f"*_{word}*.npy"), *tmp_path.rglob(f"{word}/*.npy")]:
            path.unlink()
    assert len(prom.load(tmp_path, "all", patient="file")) == 9  # without the other part it is a word like any


@pytest.mark.parametrize("where", ["P{}{}.npy", "P{}_{}.npy", "P{}/{}.npy", "P{}/{}/0.npy", "P{}_{}_t1.npy"])
def test_parts_of_complex_numbers_without_a_word_of_their_own(tmp_path, where):
    words = ("R", "I") if where != "P{}{}.npy" else ("Real", "Imag")
    for number, word in itertools.product(range(3), words):
        save(tmp_path / where.format(number, word), image())
    assert "is a real or imaginary part, by its name" in message(tmp_path, patient="case")


def test_magnitudes_beside_parts_are_images(tmp_path):
    for number, letter in itertools.product(range(5), "mri"):
        save(tmp_path / f"P{number}_{letter}.npy", image())
    assert len(prom.load(tmp_path, "all")) == 15


@pytest.mark.parametrize("patients", [("P1", "P2", "P3"), ("pat_01", "pat_02", "pat_03"), ("P_1",)])
def test_one_second_scan_is_asked_about(tmp_path, patients):
    first = patients[0]
    for name in (*patients, f"{first}_2"):
        save(tmp_path / f"{name}.npy", image())
    assert f"{first}_2 and {first}: whether '{first}_2' or '{first}' is a patient is unclear" in message(tmp_path)
    assert prom.load(tmp_path, "all", patient="name").number_of_subjects == len(patients) + 1
    assert {*prom.load(tmp_path, "all", patient="name").patients} == set(patients)


@pytest.mark.parametrize("where", ["{}/scan.npy", "pat_{}.npy", "pat{}.npy"])
def test_patients_may_be_called_r_and_i(tmp_path, where):
    for letter in "girls":
        save(tmp_path / where.format(letter), image())
    assert prom.load(tmp_path, "all", patient="file").number_of_subjects == 5
    if where == "pat{}.npy":
        return  # no word by itself
    for letter in "gls":
        (tmp_path / where.format(letter)).unlink()
    for letter in "am":
        save(tmp_path / where.format(letter), image())
    assert "whether r, i, m and a are parts of complex images or patients is unclear" in message(tmp_path, patient="file")


def test_first_scans_without_a_number_are_asked_about(tmp_path):
    for number in range(1, 4):
        save(tmp_path / f"P{number}.npy", image())
        save(tmp_path / f"P{number}_2.npy", image())
    assert "whether 'P1_2' or 'P1' is a patient is unclear; give patient=name" in message(tmp_path)
    assert {*prom.load(tmp_path, "all", patient="name").patients} == {"P1", "P2", "P3"}


def test_files_that_are_patients_have_labels_and_channels_that_their_folder_names(tmp_path):
    for number in range(1, 4):
        save(tmp_path / f"P{number}" / "image.nii", image())
        save(tmp_path / f"P{number}" / "seg.nii", label())
    found = prom.load(tmp_path, "all", patient="file")
    assert found.labels is not None and found.number_of_subjects == 3
    for number in range(1, 4):
        for contrast in ("t1", "t2"):
            save(tmp_path / f"P{number}" / f"{contrast}.nii", image())
    assert prom.load(tmp_path, "all", patient="file", channels="t1,t2").images.shape[1] == 2


def test_an_image_of_few_values_is_no_label_of_another_split(tmp_path):
    for path in ("train/P1.npy", "train/P2.npy", "test/P3.npy"):
        save(tmp_path / path, image())
    save(tmp_path / "test" / "P1.npy", label())
    assert len(prom.load(tmp_path, "test")) == 6


def test_labels_and_channels_lie_where_their_image_lies(tmp_path):
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 15  # the same voxels in space, stored in the other order
    save(tmp_path / "P0_t1.nii", image())
    nibabel.save(nibabel.Nifti1Image(label(), flipped), tmp_path / "P0_seg.nii")
    assert "lies 15 mm from 'P0_t1.nii' by their headers" in message(tmp_path)
    assert len(prom.load(tmp_path, "all", labels="none")) == 3
    nibabel.save(nibabel.Nifti1Image(label(), np.diag([1.0, 1, 1.1, 1])), tmp_path / "P0_seg.nii")  # rounding, as programs do
    assert prom.load(tmp_path, "all").labels is not None
    nibabel.save(nibabel.Nifti1Image(image(), flipped), tmp_path / "P0_t2.nii")
    assert "P0_t2.nii: lies 15 mm" in message(tmp_path, channels="t1,t2", labels="none")
    (tmp_path / "P0_t2.nii").unlink()
    (tmp_path / "P0_t1.nii").write_bytes((tmp_path / "P0_t1.nii").read_bytes()[:200])
    assert "P0_t1.nii: cannot be read as NIfTI" in message(tmp_path)  # and not the label, which is whole


def test_one_image_is_in_one_split(tmp_path):
    stack = image()
    for number in range(4):
        save(tmp_path / f"scan{number}.npy", stack if number < 2 else image())
    assert "scan0.npy in train and " in (text := message(tmp_path)) and "scan1.npy in test: are the same, byte by byte" in text
    save(tmp_path / "scan1.npy", stack + 1)
    assert len(prom.load(tmp_path, "all")) == 12


@pytest.mark.parametrize("ending", ["mat", "h5", "mgz"])
def test_labels_are_known_by_their_values_in_every_format(tmp_path, ending):
    for name, array in (("P0_one", image()), ("P0_two", label())):
        if ending == "mat":
            scipy.io.savemat(tmp_path / f"{name}.mat", {"a": array})
        elif ending == "mgz":
            nibabel.save(nibabel.MGHImage(array, np.eye(4)), tmp_path / f"{name}.mgz")
        else:
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                file["a"] = np.moveaxis(array, -1, 0)
    assert prom.load(tmp_path, "all").labels.shape == (3, 16, 12)


def test_phase_images_are_not_read_as_images(tmp_path):
    save(tmp_path / "p1_mag.nii", image())
    save(tmp_path / "p1_phase.nii", image())
    data = prom.load(tmp_path, "all")
    assert len(data) == 3 and set(data.subjects) == {"p1_mag.nii"}


# --------------------------------------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("shape", "dtype", "default", "axes"),
    [
        ((4, 32, 48), "f4", FIRST, "NHW"),
        ((4, 32, 48, 1), "f4", FIRST, "NHW1"),
        ((4, 32, 48, 3), "u1", FIRST, "NHWC"),
        ((32, 48, 1), "f4", FIRST, "HW1"),
        ((4, 2, 32, 48), "c8", FIRST, "NCHW"),
        ((176, 256, 256), "i2", LAST, "HWN"),
        ((32, 48, 1), "i2", LAST, "HWN"),
        ((4, 32, 48, 2), "f4", FIRST, None),  # real and imaginary part, or two channels
        ((4, 32, 48, 2), "c8", FIRST, None),
        ((32, 48, 2), "f4", FIRST, None),
        ((256, 256, 30), "f4", FIRST, None),  # slices last
        ((240, 200, 30), "f4", FIRST, None),
        ((1, 32, 48), "f4", LAST, None),
        ((30, 256, 256), "f4", LAST, None),
        ((4, 32), "f4", FIRST, None),
    ],
)
def test_axes_are_understood_where_there_is_one_way(shape, dtype, default, axes):
    def found():
        return check_axes(Path("a.npy"), shape, np.dtype(dtype), None, default, stored=2**40)

    if axes:
        assert found() == axes
    else:
        with pytest.raises(InputError, match="name its axes, e.g. axes="):
            found()


@pytest.mark.parametrize("word", ["slice_", "sl-", "frame", "echo-", "Z"])
def test_names_of_slices_alone_are_no_patients(tmp_path, word):
    for number in range(4):
        save(tmp_path / f"{word}{number:03}.npy", image())
    assert "patient=name" in message(tmp_path)
    assert sides(tmp_path, patient="name") == [{f"{word}{n:03}" for n in (0, 2, 3)}, {f"{word}001"}]
    for name, split in (("train", (0, 1)), ("test", (2, 3))):
        for number in split:
            save(tmp_path / "divided" / name / f"{word}{number:03}.npy", image())
    assert [len(side) for side in sides(tmp_path / "divided")] == [2, 2]


@pytest.mark.parametrize(("one", "other"), [("p1_ED.npy", "p1_ES_gt.npy"), ("sub-01_ses-1_T1w.npy", "sub-01_ses-2_dseg.npy")])
def test_the_label_of_another_part_is_not_taken(tmp_path, one, other):
    save(tmp_path / one, image())
    save(tmp_path / other, label())
    assert one in (found := message(tmp_path)) and other in found
    assert prom.load(tmp_path, "all", labels="none").labels is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sub-01_ses-1_T1w.npy", "sub-01_ses-1_space-orig_dseg.npy"),
        ("P1_T1_anon.npy", "P1_lh_seg.npy"),
        ("P1/ses-01/T1.npy", "P1/P1_ses1_seg.npy"),
        ("phase1/img.npy", "phase1/seg.npy"),
        ("imagesTr/slice_000_0000.npy", "labelsTr/slice_000.npy"),
    ],
)
def test_labels_of_the_same_part_in_other_words(tmp_path, one, other):
    save(tmp_path / one, image())
    save(tmp_path / other, label())
    assert prom.load(tmp_path, "all").labels is not None


def test_frames_of_nnunet_are_of_one_patient(tmp_path):
    """ACDC as nnU-Net has it: two frames of a patient, whose labels are called the same without the channel."""
    for patient in range(1, 6):
        for frame in ("01", "12")[: 1 + patient % 2]:
            save(tmp_path / "imagesTr" / f"patient{patient:03}_frame{frame}_0000.npy", image())
            save(tmp_path / "labelsTr" / f"patient{patient:03}_frame{frame}.npy", label())
    train, test = sides(tmp_path)
    assert test == {"patient002"} and len(train) == 4 and prom.load(tmp_path, "all").labels is not None


@pytest.mark.parametrize("shape", [(3, 1, 16, 12), (3, 2, 16, 12)])
def test_a_label_by_its_values_beside_channels(tmp_path, shape):
    for patient in ("P1", "P2"):
        (tmp_path / patient).mkdir()
        np.save(tmp_path / patient / "scan.npy", RNG.random(shape).astype(np.float32))
        np.save(tmp_path / patient / "classes.npy", RNG.choice(np.array([0, 3], np.uint8), (3, 16, 12)))
    data = prom.load(tmp_path, "all")
    assert len(data) == 6 and set(data.labels.unique().tolist()) == {0, 3}


def test_a_slice_of_two_values_is_not_left_out_in_silence(tmp_path):
    bright, dark = (RNG.integers(0, high, (4, 16, 16), np.uint8) for high in (200, 2))
    for patient in ("P1", "P2"):
        (tmp_path / "stacks").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "stacks" / f"{patient}.tif", np.concatenate([dark[:1], bright]), photometric="minisblack")
        (tmp_path / "folders" / patient).mkdir(parents=True)
        for number, picture in enumerate([dark[0], *bright]):
            Image.fromarray(picture).save(tmp_path / "folders" / patient / f"s{number}.png")
    assert len(prom.load(tmp_path / "stacks", "all")) == 10
    assert "s0.png" in message(tmp_path / "folders")
    for picture in (tmp_path / "folders").glob("*/s0.png"):
        picture.rename(picture.with_name("s1_mask.png"))
    assert "s2.png: has no label" in message(tmp_path / "folders") and len(prom.load(tmp_path / "folders", "all", labels="none")) == 8
    tifffile.imwrite(tmp_path / "stacks" / "more.tif", dark, photometric="minisblack")
    assert len(prom.load(tmp_path / "stacks", "all")) == 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path):
    save(tmp_path / "in" / "a.npy", image())
    (tmp_path / "in").chmod(0)
    try:
        assert "permissions" in message(tmp_path / "in") and "permissions" in message(tmp_path / "in" / "a.npy")
    finally:
        (tmp_path / "in").chmod(0o700)


@pytest.mark.parametrize("locked", [".", "P2"])
def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch, locked):
    """The whole folder or one inside; root may list everything, so that the system's answer is made here."""
    for patient in ("P1", "P2"):
        save(tmp_path / patient / "a.npy", np.eye(16)[..., None])
    scandir = os.scandir

    def refusing(path="."):
        if Path(path) == tmp_path / locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert message(tmp_path) == f"{tmp_path / locked}: cannot be listed (Permission denied); check its permissions"


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    assert "cannot be read" in message(tmp_path / ("x" * 300))


def test_the_complex_pair(tmp_path):
    values = RNG.normal(size=(3, 16, 12)) + 1j * RNG.normal(size=(3, 16, 12))
    np.save(tmp_path / "a.npy", np.stack([values.real, values.imag], -1).astype("f4"))
    assert "NHWR" in message(tmp_path)
    assert np.array_equal(prom.load(tmp_path, "all", axes="NHWR", domain="image").images[:, 0].numpy(), values.astype("c8"))
    assert "R, of float32, has length 3; must be 2" in message(tmp_path, axes="RNHW")


# ------------------------------------------------------------------------------------------------------------------------------- k-space


def anatomy(number=6, size=(40, 32)):
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    return np.stack([(np.hypot((x - 0.2) * 1.3, y + 0.1) < 0.5 + 0.02 * s) * (1 + 0.3 * RNG.random(size)) for s in range(number)])


def kspace(images):
    return fft2c(torch.from_numpy(images).to(torch.complex64)).numpy()


def test_images_and_kspace_are_told_apart(tmp_path):
    np.save(tmp_path / "a.npy", anatomy().astype("c8"))
    assert prom.load(tmp_path, "all").images.shape == (6, 1, 40, 32)
    np.save(tmp_path / "a.npy", kspace(anatomy()))
    assert "domain=kspace" in message(tmp_path)
    np.save(tmp_path / "a.npy", np.fft.fft2(anatomy()).astype("c8"))
    assert "fftshift" in message(tmp_path) and "fftshift" in message(tmp_path, domain="kspace")
    assert len(prom.load(tmp_path, "all", domain="image")) == 6


def test_complex_numbers_are_images_or_kspace_or_refused(tmp_path):
    """An echo off the centre, noise, a small object, DC shifted along one axis, one axis transformed: none of them is read as images."""
    x = np.linspace(-1, 1, 32)
    small = np.zeros((6, 40, 32))
    small[:, 16:24, 12:20] = 1 + anatomy()[:, 16:24, 12:20]
    noise = np.random.default_rng(0).normal(size=(2, 6, 40, 32))
    one_axis = np.fft.fft(anatomy(), axis=-1).astype("c8")
    arrays = [kspace(anatomy() * np.exp(3j * np.pi * x)), kspace(anatomy()) + 0.2 * (noise[0] + 1j * noise[1]), kspace(small), one_axis]
    for array in [*arrays, np.fft.ifftshift(kspace(anatomy()), axes=-1), kspace(anatomy())]:
        np.save(tmp_path / "a.npy", array)
        assert "domain=kspace" in message(tmp_path)
    np.save(tmp_path / "a.npy", np.fft.ifftshift(kspace(anatomy()), axes=-1))
    assert "at two edges" in message(tmp_path, domain="kspace", axes="NHW")
    for phase in (0, np.pi * x, 3 * x**2):
        images = (anatomy() * np.exp(1j * phase)).astype("c8") + np.complex64(0.01) * noise[0].astype("f4")
        np.save(tmp_path / "a.npy", images)
        assert np.array_equal(prom.load(tmp_path, "all").images[:, 0].numpy(), images)
        assert "as images have, not k-space; give domain=image" in message(tmp_path, domain="kspace", axes="NHW")


def test_coils_are_not_taken_for_slices_or_channels(tmp_path):
    y, x = np.mgrid[-1:1:40j, -1:1:32j]
    maps = np.stack([np.exp(-((x - a) ** 2) - (y - b) ** 2) for a, b in ((-1, 0), (1, 0), (0, 1))])
    of_coils = kspace(anatomy()[:, None] * maps)
    np.savez(tmp_path / "P0.npz", kspace=of_coils)
    assert "of channels or of coils is unclear; give axes=NCHW or axes=NKHW" in message(tmp_path)
    assert prom.load(tmp_path, "all", axes="NKHW").images.shape == (6, 1, 40, 32)
    (tmp_path / "P0.npz").unlink()
    np.save(tmp_path / "kspace.npy", of_coils[0])
    assert "of slices or of coils is unclear; give axes=NHW or axes=KHW" in message(tmp_path)
    assert prom.load(tmp_path, "all", axes="KHW").images.shape == (1, 1, 40, 32)
    scipy.io.savemat(tmp_path / "kspace.mat", {"k": of_coils[0].transpose(1, 2, 0)})
    (tmp_path / "kspace.npy").unlink()
    assert "give axes=HWN or axes=HWK" in message(tmp_path)


def test_real_and_imaginary_part_are_not_taken_for_channels(tmp_path):
    images = anatomy() * np.exp(1j)
    np.save(tmp_path / "a.npy", np.stack([images.real, images.imag], axis=1) * np.array([1, -1])[:, None, None])
    assert "give axes=NCHW or axes=NRHW" in message(tmp_path)
    assert prom.load(tmp_path, "all", axes="NRHW").images.is_complex() and prom.load(tmp_path, "all", axes="NCHW").images.shape[1] == 2
    np.save(tmp_path / "a.npy", np.stack([images[0].real, -images[0].imag]))
    assert "give axes=NHW or axes=RHW" in message(tmp_path)
    assert prom.load(tmp_path, "all", axes="RHW").images.is_complex() and len(prom.load(tmp_path, "all", axes="NHW")) == 2
    np.save(tmp_path / "a.npy", np.stack([images.real, -images.imag]))
    assert "give axes=NCHW or axes=RNHW" in message(tmp_path) and "or axes=RNHW" in message(tmp_path, volume=True)
    assert len(prom.load(tmp_path, "all", axes="RNHW")) == len(images)
    np.save(tmp_path / "a.npy", np.stack([images[:1].real, -images[:1].imag]))
    assert "give axes=NCHW or axes=R1HW" in message(tmp_path) and len(prom.load(tmp_path, "all", axes="R1HW")) == 1
    np.save(tmp_path / "a.npy", np.stack([images[0].real, images[0].imag]).clip(min=0))
    assert len(prom.load(tmp_path, "all")) == 2  # magnitudes are none


def fastmri(path, k, header="<xml/>"):
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"] = k, header


def test_patients_of_fastmri_are_those_of_the_files(tmp_path):
    """Several volumes of a patient are on one side, whatever their files are called; and so are those in the folders of its splits."""
    images = anatomy()
    for number in range(12):
        fastmri(tmp_path / f"file{1000 + number}.h5", kspace(images * (1 + number)))
        with h5py.File(tmp_path / f"file{1000 + number}.h5", "a") as file:
            file.attrs["patient_id"] = f"p{number // 2}"
    train, test = (set(prom.load(tmp_path, split).patients) for split in ("train", "test"))
    assert (train, test) == ({"p0", "p2", "p3", "p4", "p5"}, {"p1"})
    assert len(set(prom.load(tmp_path, "train", patient="file").patient_names())) == 9  # of 12, as is asked for
    for number, side in enumerate(("train", "val", "test")):
        (tmp_path / "all" / f"multicoil_{side}").mkdir(parents=True)
        for file in [tmp_path / f"file{1000 + 4 * number + one}.h5" for one in range(4)]:
            file.rename(tmp_path / "all" / f"multicoil_{side}" / file.name)
    sides = {split: set(prom.load(tmp_path / "all", split).patients) for split in ("train", "validation", "test")}
    assert sides == {"train": {"p0", "p1"}, "validation": {"p2", "p3"}, "test": {"p4", "p5"}}
    with h5py.File(tmp_path / "all" / "multicoil_test" / "file1011.h5", "a") as file:
        file.attrs["patient_id"] = "p0"
    assert "patient 'p0' is in" in message(tmp_path / "all")


def test_field_maps_of_bids_are_no_images(tmp_path):
    for number in range(2):
        save(tmp_path / f"sub-{number}" / "anat" / f"sub-{number}_T1w.nii.gz", image())
        for name in ("phase1", "phase2", "magnitude1", "fieldmap"):
            save(tmp_path / f"sub-{number}" / "fmap" / f"sub-{number}_{name}.nii.gz", image())
    found = inspection.inspect(tmp_path)
    assert found["read"]["files"] == 2 and len(found["left_out"]) == 8
    assert "8 file(s), of the field maps of BIDS" in inspection.report(found)


def test_multicoil_fastmri_without_options(tmp_path):
    images = anatomy()
    y, x = np.mgrid[-1:1:40j, -1:1:32j]
    maps = np.stack([np.exp(-((x - a) ** 2) - (y - b) ** 2) for a, b in ((-1, 0), (1, 0), (0, 1))])
    fastmri(tmp_path / "a.h5", kspace(images[:, None] * maps))
    data = prom.load(tmp_path, "all")
    assert data.images.shape == (6, 1, 40, 32)
    expected = np.sqrt(((images[:, None] * maps) ** 2).sum(1))
    assert np.allclose(data.images[:, 0].numpy(), expected, atol=1e-5)
    done = "inverse Fourier transform of fully sampled k-space, recognised by its name and ismrmrd_header"
    done += ", coils combined by root sum of squares"
    assert done in data.source and done in prom.load(tmp_path, "all", store=True).source and "as stored" not in data.source
    assert done in inspection.inspect(tmp_path)["source"]
    with h5py.File(tmp_path / "a.h5", "w") as file:  # of an unknown layout
        file["kspace"] = kspace(images[:, None] * maps)
    assert "axes=NKHW" in message(tmp_path)


@pytest.mark.parametrize("low_high", [(0, 255), (0, 1)])
@pytest.mark.parametrize("names", ["images/{}.png masks/{}.png", "{}.png {}_label.png", "P/{}.png P/{}_seg.png"])
def test_label_pictures_of_one_region_are_labels(tmp_path, names, low_high):
    generator = np.random.default_rng(0)
    for number in range(3):
        for name, picture in zip(
            names.split(),
            (generator.integers(0, 200, (16, 16)), np.where(generator.random((16, 16)) < 0.3, low_high[1], low_high[0])),
            strict=True,
        ):
            path = tmp_path / name.format(f"s{number}")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(path)
    data = prom.load(tmp_path, "all")
    assert len(data) == 3 and data.labels.unique().tolist() == list(low_high)


@pytest.mark.parametrize("exported", [False, True])
def test_a_sampling_mask_among_pictures_is_no_label(tmp_path, exported):
    """What prom exports says so itself, whatever it is called; of others a bare name says it."""
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (16, 16)).astype(np.uint8)).save(tmp_path / "s0.png")
    if exported:
        export(as_result(torch.eye(16).bool(), "diagonal", 16), tmp_path / "s0_mask.png")
    else:
        Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    data = prom.load(tmp_path, "all")
    assert len(data) == 1 and data.labels is None


@pytest.mark.parametrize("most", [2, 4])
@pytest.mark.parametrize("name", ["{}_{}.png", "P/{}_{}.png"])
def test_a_label_word_that_is_not_the_last_is_refused(tmp_path, name, most):
    for number, kind in itertools.product(range(3), ("image", "label")):
        path = tmp_path / name.format(kind, number)
        path.parent.mkdir(exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 200 if kind == "image" else most, (16, 16)).astype(np.uint8)
        Image.fromarray(picture).save(path)
    with pytest.raises(InputError, match="its name says that it is a label, but not at its end"):
        prom.load(tmp_path, "all", patient="file")
    assert len(prom.load(tmp_path, "all", patient="file", labels="none")) == (3 if most == 2 else 6)  # unless it is none


def test_readout_oversampling_is_cut_off(tmp_path):
    wide = np.pad(anatomy(), ((0, 0), (20, 20), (0, 0)))
    space = "<{0}Space><matrixSize><x>{1}</x><y>32</y></matrixSize></{0}Space>"
    header = f"<h><encoding>{space.format('encoded', 80)}{space.format('recon', 40)}</encoding></h>"
    fastmri(tmp_path / "a.h5", kspace(wide), header)
    data = prom.load(tmp_path, "all")
    assert data.source.endswith("recognised by its name and ismrmrd_header, readout oversampling cut off")
    assert torch.equal(prom.load(tmp_path, "all", axes="NHW").images, data.images)  # named, they are the same axes
    (tmp_path / "one").mkdir()
    fastmri(tmp_path / "one" / "a.h5", kspace(wide)[:1], header)
    assert torch.equal(prom.load(tmp_path / "one", "all", axes="KHW").images.abs(), data.images[:1].abs())  # of one coil
    fastmri(tmp_path / "one" / "a.h5", kspace(wide)[0], header)
    assert torch.equal(prom.load(tmp_path / "one", "all").images, data.images[:1])
    (tmp_path / "one" / "a.h5").unlink()
    found = data.images[:, 0].abs().numpy()
    assert found.shape == (6, 40, 32) and np.allclose(found, wide[:, 20:60], atol=1e-5)
    columns = np.abs(np.arange(32) - 15.5) < 10
    fastmri(tmp_path / "a.h5", kspace(wide) * columns, header)
    cropped = prom.load(tmp_path, "all", empty="crop").images[:, 0].numpy()
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace(wide)[..., columns], axes=(1, 2)), norm="ortho"), axes=(1, 2))
    assert np.allclose(cropped, expected[:, 20:60], atol=1e-5)


def test_the_source_says_of_every_file_what_was_done(tmp_path):
    np.save(tmp_path / "a_kspace.npy", kspace(anatomy()))
    np.save(tmp_path / "b.npy", anatomy().astype("c8"))
    done = "inverse Fourier transform of fully sampled k-space"
    assert prom.load(tmp_path, "all", axes="NHW").source.endswith(f"; {done}, recognised by its name; intensities as stored")
    assert prom.load(tmp_path, "all", domain="image").source.endswith("; intensities as stored")
    (tmp_path / "b.npy").unlink()
    assert prom.load(tmp_path, "all", domain="kspace", axes="NHW").source.endswith(f"; {done}")


def test_kspace_that_was_not_fully_sampled(tmp_path):
    k = kspace(anatomy())
    lines = np.zeros(32)
    lines[::4] = lines[14:18] = 1
    fastmri(tmp_path / "a.h5", k * lines)
    assert f"{int((lines == 0).sum())} of 32 columns" in message(tmp_path) and "undersampled" in message(tmp_path)
    padded = np.zeros(32)
    padded[6:26] = 1
    fastmri(tmp_path / "a.h5", k * padded)
    assert "12 of 32 columns" in message(tmp_path) and "empty=crop" in message(tmp_path)
    cropped = prom.load(tmp_path, "all", empty="crop")
    assert cropped.shape == (40, 20)
    assert np.allclose(fft2c(cropped.images)[:, 0].numpy(), k[..., 6:26], atol=1e-4)
    assert prom.load(tmp_path, "all", empty="keep").shape == (40, 32)
    different = np.stack([np.roll(k[s] * lines, 0) if s % 2 else k[s] * np.roll(lines, 1) for s in range(6)])  # full only in the union
    fastmri(tmp_path / "a.h5", different)
    assert "undersampled" in message(tmp_path)


def test_dc_stays_in_the_middle_of_what_is_cut():
    for n in (8, 9, 31, 32):
        for left in range(4):
            line = np.ones(n, bool)
            line[:left] = False
            part = measured._middle(line)
            length = len(range(n)[part])
            assert part.start + length // 2 == n // 2 and part.start <= left


def test_the_centre_stays_in_the_middle_of_what_is_cut_or_filled_up():
    """From even to odd sizes and back, where half of the difference is no whole number."""
    assert centred(torch.arange(10.0)[None], (1, 7))[0].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert centred(torch.ones(1, 10), (1, 13))[0].tolist() == [0, *[1] * 10, 0, 0]
    for old in range(1, 9):
        point = (torch.arange(old) == old // 2).float()[:, None]
        for new in range(1, 9):
            assert torch.equal(centred(point, (new, 1))[:, 0], (torch.arange(new) == new // 2).float())


# -------------------------------------------------------------------------------------------------------------------- sizes, NaN, inspect


def test_sizes_on_request(tmp_path):
    for i, width in enumerate((32, 36)):
        np.save(tmp_path / f"s{i}.npy", anatomy(3, (40, width)))
    assert "size=" in message(tmp_path)
    data = prom.load(tmp_path, "all", size=(40, 34))
    expected = np.load(tmp_path / "s1.npy")[..., 1:35].astype("f4")
    assert data.shape == (40, 34) and np.array_equal(data.images[3:, 0].numpy(), expected)
    assert prom.load(tmp_path, "all", size=32, size_in="kspace").images.mean() == pytest.approx(float(expected.mean()), rel=0.1)
    assert "size 4: must be" in message(tmp_path, size=4)


def test_nan_background(tmp_path):
    array = RNG.random((3, 16, 16))
    array[:, :4] = np.nan
    np.save(tmp_path / "a.npy", array)
    assert "nan=0" in message(tmp_path)
    assert np.array_equal(prom.load(tmp_path, "all", nan=0.0).images[:, 0].numpy(), np.nan_to_num(array).astype("f4"))


def test_inspect_says_what_is_read_and_what_not(tmp_path):
    for p in range(6):
        save(tmp_path / f"sub-{p}" / "anat" / f"sub-{p}_T1w.nii.gz", image())
        save(tmp_path / f"sub-{p}" / "anat" / f"sub-{p}_dseg.nii.gz", label())
    (tmp_path / "notes.txt").write_text("x")
    save(tmp_path / "sub-6" / "anat" / "sub-6_T1w.nii.gz", image())
    (tmp_path / "sub-6" / "anat" / "sub-6_T1w.nii.gz").write_bytes(b"no image")
    found = inspection.inspect(tmp_path, labels="only")
    assert found["patients"]["test"] == ["sub-1"] and len(found["patients"]["train"]) == 5
    assert found["labels"] == {"values": [0, 1, 2, 3], "slices": 18} and found["understood"][0]["axes"] == "HWN"
    assert {path.name for path, _ in found["left_out"]} == {"notes.txt", "sub-6_T1w.nii.gz"}
    assert "notes.txt" in inspection.report(found)
    inspection.picture(found, tmp_path / "x.png")
    from PIL import Image

    assert len(np.unique(np.asarray(Image.open(tmp_path / "x.png").convert("L")))) > 50  # it shows something


# ------------------------------------------------------------------------------------------------------------------------ random folders


def bids(root: Path, chance: random.Random) -> None:
    for p in range(chance.randint(1, 7)):
        for session in ["", *(f"ses-{s}" for s in range(1, chance.randint(1, 3)))]:
            for contrast in chance.sample(["T1w", "T2w", "FLAIR", "PDw"], chance.randint(1, 3)):
                name = "_".join(part for part in (f"sub-{p:02}", session, contrast) if part)
                save(root / f"sub-{p:02}" / session / "anat" / f"{name}.nii.gz", image())
                if chance.random() < 0.2:
                    save(root / "derivatives" / f"sub-{p:02}" / f"{name}_dseg.nii.gz", label())


def brats(root: Path, chance: random.Random) -> None:
    words = chance.choice([("flair", "t1", "t1ce", "t2"), ("t1n", "t1c", "t2w", "t2f"), ("T1", "T2")])
    ending = chance.choice(["seg", "gt", "label", "labels"])
    for p in range(chance.randint(1, 7)):
        case = chance.choice([f"Brats18_{p}_1", f"BraTS-GLI-{p:05}-000", f"patient{p}"]) if p else "Brats18_0_1"
        for word in words:
            save(root / case / f"{case}_{word}.nii.gz", image())
        save(root / case / f"{case}{chance.choice('_-')}{ending}.nii.gz", label())


def decathlon(root: Path, chance: random.Random) -> None:
    for p in range(chance.randint(1, 7)):
        save(root / "imagesTr" / f"organ_{p:03}.nii.gz", image())
        save(root / "labelsTr" / f"organ_{p:03}.nii.gz", label())


def nnunet(root: Path, chance: random.Random) -> None:
    channels = chance.randint(1, 3)
    for p in range(chance.randint(1, 7)):
        for channel in range(channels):
            save(root / "imagesTr" / f"case_{p:03}_{channel:04}.nii.gz", image())
        save(root / "labelsTr" / f"case_{p:03}.nii.gz", label())


def visits(root: Path, chance: random.Random) -> None:
    for p in range(chance.randint(1, 7)):
        for visit in range(chance.randint(1, 3)):
            date = f"20{chance.randint(10, 29)}-0{chance.randint(1, 9)}-1{visit}"
            for name in chance.sample(["t1", "scan", "knee"], chance.randint(1, 2)):
                save(root / f"pat{p}" / date / f"{name}.npy", image())


def flat(root: Path, chance: random.Random) -> None:
    for p in range(chance.randint(1, 7)):
        for word in chance.sample(["t1", "t2", "flair", "frame01", "run-2", "ses_2"], chance.randint(1, 4)):
            save(root / f"case{p}_{word}.npy", image())
        if chance.random() < 0.5:
            save(root / f"case{p}_mask.npy", label())


def knees(root: Path, chance: random.Random) -> None:
    root.mkdir(parents=True, exist_ok=True)
    coils = chance.randint(0, 4)
    for p in range(chance.randint(1, 4)):
        fastmri(root / f"file100{p}.h5", kspace(anatomy(2)) if not coils else kspace(anatomy(2 * coils).reshape(2, coils, 40, 32)))


def dicom(root: Path, chance: random.Random) -> None:
    """As a PACS exports: any ending, and often without identities."""
    ending = chance.choice([".dcm", ".IMA", "", ".0001"])
    hidden = chance.choice(["", "ANON", None, "4711"])
    for p in range(chance.randint(1, 7)):
        study = f"1.2.{p + 1}"
        who = f"ID{p}" if hidden is None else hidden
        for visit in range(chance.randint(1, 2)):
            more = {"StudyInstanceUID": f"{study}.{visit}", "SeriesInstanceUID": f"{study}.{visit}.1"}
            for i in range(2):
                pixels = RNG.integers(30, 900, (16, 12)).astype(np.uint16)
                write_dicom(root / f"pat{p}" / f"visit{visit}" / f"I{i}{ending}", pixels, i + 1, who, **more)


def mixed(root: Path, chance: random.Random) -> None:
    """One of the others, with what else lies about."""
    chance.choice([bids, brats, decathlon, visits])(root, chance)
    (root / "notes").mkdir(exist_ok=True)
    (root / "notes" / "README.txt").write_text("x")
    (root / "Thumbs.db").write_bytes(b"x" * 99)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "dataset.json").write_text("{}")
    prom.export.export(MASK, root / f"mask{chance.choice(['.npy', '.png', '.mat', '.cfl', '.h5', '.csv'])}")


LAYOUTS = {
    dicom: lambda name: name.split("/")[0],
    mixed: lambda name: name.split("/")[-1].split(".")[0].split("_T1w")[0] if name.startswith("images") else name.split("/")[0],
    bids: lambda name: name.split("_")[0],
    brats: lambda name: name.split("/")[0],
    decathlon: lambda name: name,
    nnunet: lambda name: name.split("/")[-1][:8],
    visits: lambda name: name.split("/")[0],
    flat: lambda name: name.split("_")[0],
    knees: lambda name: name,
}


@pytest.mark.slow
def test_random_folders_of_real_layouts(tmp_path):
    """No patient on both sides, no label among the images, no traceback; strays move nobody. Who is a patient is asked of DICOM only."""
    chance = random.Random(0)
    read = refused = asked = 0
    for number in range(FOLDERS):
        write = chance.choice(list(LAYOUTS))
        root = tmp_path / f"f{number}"
        write(root, chance)
        patient = None
        try:
            folder.plan(root, "all", labels="none")
        except InputError as error:
            assert write is dicom and "patient=1" in str(error)
            patient, asked = "1", asked + 1
        try:
            plans = {split: folder.plan(root, split, patient=patient, labels="none") for split in ("train", "test")}
        except InputError as error:
            assert "\n" not in str(error)
            if "one patient" not in str(error):
                refused += 1
            continue
        who = {}
        for split, plan in plans.items():
            who[split] = set()
            for item in plan.items:
                name = item[0].path.relative_to(root).as_posix()
                who[split].add(LAYOUTS[write](name.split("/")[-1] if write is bids else name))
                part = plan.read(item)
                if write is not knees:
                    assert np.abs(part.images).min() >= 29, name  # labels are below 5
        assert not who["train"] & who["test"], write.__name__
        read += 1
        np.save(root / "a_mask.npy", np.eye(16, dtype=bool))
        (root / "README.md").write_text("hello")
        again = folder.plan(root, "test", patient=patient, labels="none")
        assert again.sides == plans["test"].sides
    assert read > FOLDERS // 2 and refused == 0 and 0 < asked < FOLDERS // 4


@pytest.mark.parametrize("order", ["t2,flair", "flair,t2"])
def test_channels_come_in_the_order_that_is_asked_for(tmp_path, order):
    for contrast, brighter in (("flair", 0), ("t2", 6000)):
        save(tmp_path / "B_0" / f"B_0_{contrast}.nii", image() + np.int16(brighter))
    images = prom.load(tmp_path, "all", channels=order).images
    assert (images[:, 0].min() > images[:, 1].max()) == (order == "t2,flair")
