"""The ACDC reader: counts and figures on the real data, and hostile folders."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
import torch
from conftest import threads

import prom
from prom import InputError, baselines, evaluate
from prom.datasets import acdc, cache
from prom.datasets.reading import resize_and_crop


def load(split, root, **options):
    return cache.read(acdc.plan(split, root, **options))


@pytest.fixture(scope="module")
def splits(acdc_root):
    return prom.load("acdc", "train", acdc_root), prom.load("acdc", "test", acdc_root)


@pytest.mark.slow
def test_counts_are_the_papers(splits):
    train, test = splits
    assert (len(train), len(test)) == (548, 338) and train.images.shape[1:] == (1, 256, 256)
    assert (train.number_of_subjects, test.number_of_subjects) == (99, 50) and "patient090" not in train.subjects
    assert not set(train.subjects) & set(test.subjects)
    assert (train.images.amin(dim=(1, 2, 3)) >= 0).all() and train.images.max() <= 1
    assert sorted(train.labels.unique().tolist()) == [0, 1, 2, 3]


@pytest.mark.slow
def test_all_slices(acdc_root):
    train, test = (prom.load("acdc", split, acdc_root, all_slices=True, labels=False) for split in ("train", "test"))
    assert (len(train), len(test)) == (951, 538) and "patient090" in train.subjects and train.number_of_subjects == 100


def test_energy_in_1d_is_the_papers_igs_at_x32(splits):
    """Three digits of three metrics, as printed in Table 1: our pipeline is the paper's."""
    train, test = splits
    scores = evaluate(baselines.energy(train, 32, pattern="columns"), test)
    assert (round(scores.psnr.mean(), 3), round(scores.ssim.mean(), 3), round(scores.nmse.mean(), 3)) == (20.705, 0.621, 0.132)


@pytest.mark.slow
def test_default_beats_the_table_at_x32(splits):
    """Slow to collapse is not enough: 7 dB above the paper's 20.401, and above the energy oracle."""
    train, test = splits
    scores = evaluate(prom.optimize(train, 32).mask, test)
    assert scores.psnr.mean() >= 27.6 and scores.ssim.mean() >= 0.765
    assert scores.psnr.mean() > evaluate(baselines.energy(train, 32), test).psnr.mean()


def test_spacing_is_the_voxel_size_of_the_resized_image(splits, acdc_root):
    """The field of view across the shorter edge is what it was: 256 pixels of the new size are as many mm as the file has."""
    train, _ = splits
    for subject in ("patient001", "patient042"):
        header = nibabel.load(acdc_root / f"database/training/{subject}/{subject}_frame01.nii.gz").header
        shape, zooms = header.get_data_shape(), header.get_zooms()
        edge = int(np.argmin(shape[:2]))
        spacing = train.spacing[train.subjects.index(subject)]
        assert spacing[edge] * 256 == pytest.approx(shape[edge] * zooms[edge], rel=1e-6)


@pytest.mark.slow
def test_validation_takes_patients_from_the_training_part(splits, acdc_root):
    rest, held = (prom.load("acdc", split, acdc_root, validation=0.1) for split in ("train", "validation"))
    train, test = splits
    assert set(rest.subjects) | set(held.subjects) == set(train.subjects) and not set(rest.subjects) & set(held.subjects)
    assert held.number_of_subjects == 10 and len(rest) + len(held) == 548 and not set(held.subjects) & set(test.subjects)
    groups = [int(name.removeprefix("patient")) // 20 for name in sorted(set(held.subjects))]
    assert sorted(set(groups)) == [0, 1, 2, 3, 4]  # 20 patients each of five diagnoses
    assert prom.load("acdc", "test", acdc_root, validation=0.1).fingerprint() == test.fingerprint()


def test_survey_counts_what_is_there(acdc_root):
    found = acdc.survey(acdc_root)["found"]
    assert found["train"] == {"subjects": 100, "volumes": 100, "slices": 951, "slices with labels": 951}
    assert (found["test"]["subjects"], found["test"]["slices"]) == (50, 538)


def write_patient(folder, name="patient001", frame="01", shape=(30, 20, 6), info="ED: 1\nES: 12\n", part="training"):
    folder = folder / "database" / part / name
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    (folder / "Info.cfg").write_text(info)
    for suffix, data in (("", generator.random(shape, dtype=np.float32)), ("_gt", generator.integers(0, 4, shape).astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / f"{name}_frame{frame}{suffix}.nii.gz")
    return folder


def test_paper_rule_and_all_slices_on_a_small_folder(tmp_path):
    write_patient(tmp_path)
    write_patient(tmp_path, "patient002", frame="04", info="ED: 4\n")
    assert load("train", tmp_path).slices == [2, 3]
    everything = load("train", tmp_path, all_slices=True)
    assert len(everything) == 12 and set(everything.subjects) == {"patient001", "patient002"}


def test_end_systole_by_its_own_frame(tmp_path):
    write_patient(tmp_path, info="ED: 4\nES: 12\n", frame="04")
    with pytest.raises(InputError, match="patient001_frame12"):
        load("train", tmp_path, phase="ES")
    write_patient(tmp_path, info="ED: 4\nES: 12\n", frame="12", shape=(30, 20, 7))
    assert load("train", tmp_path, phase="ES").slices == [2, 3, 4]
    both = load("train", tmp_path, phase="both", all_slices=True)
    assert set(both.subjects) == {"patient001 ED", "patient001 ES"} and set(both.patients) == {"patient001"} and len(both) == 13
    with pytest.raises(InputError, match="phase 'es' is not known"):
        load("train", tmp_path, phase="es")


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (256, 256), (300, 257)])
def test_resizing_keeps_the_aspect_and_no_class_is_invented(shape):
    labels = torch.zeros(1, *shape)
    labels[:, shape[0] // 2 :, :] = 3
    [resized] = resize_and_crop(labels, 256, "nearest-exact")
    assert resized.shape == (256, 256) and resized.unique().tolist() == [0, 3]
    assert (resized[:128] == 0).all() and (resized[128:] == 3).all()


@pytest.mark.parametrize("shape", [(30, 20, 6), (216, 256, 6), (300, 257, 6)])
def test_labels_lie_on_their_images(tmp_path, shape):
    """Of an image that is its own label, the centre of mass is the same, within a tenth of a pixel, and so are the pixels."""
    folder = write_patient(tmp_path, shape=shape)
    row, column = (np.arange(n) - n / 2 for n in shape[:2])
    disc = (((row[:, None] - 2) ** 2 + column**2 < 25)[:, :, None] & np.ones(6, bool)).astype(np.uint8)
    for suffix in ("", "_gt"):
        nibabel.save(nibabel.Nifti1Image(disc, np.eye(4)), folder / f"patient001_frame01{suffix}.nii.gz")
    data = load("train", tmp_path)
    image, label = data.images[0, 0], data.labels[0].float()
    place = torch.arange(256.0)
    for axis in (0, 1):
        one, other = ((part.sum(1 - axis) * place).sum() / part.sum() for part in (image, label))
        assert one == pytest.approx(float(other), abs=0.1)
    assert ((image > 0.5) != (label > 0)).sum() <= 0.1 * label.sum()


def break_folder(tmp_path, how):
    patient = write_patient(tmp_path)
    image = patient / "patient001_frame01.nii.gz"
    if how == "truncated":
        image.write_bytes(image.read_bytes()[:-2000])
    elif how == "no labels":
        (patient / "patient001_frame01_gt.nii.gz").unlink()
    elif how == "constant":
        nibabel.save(nibabel.Nifti1Image(np.ones((30, 20, 6), np.float32), np.eye(4)), image)
    elif how == "nan":
        nibabel.save(nibabel.Nifti1Image(np.full((30, 20, 6), np.nan, np.float32), np.eye(4)), image)
    elif how == "other size":
        nibabel.save(nibabel.Nifti1Image(np.random.rand(31, 20, 6).astype(np.float32), np.eye(4)), image)
    elif how == "4D":
        nibabel.save(nibabel.Nifti1Image(np.random.rand(30, 20, 6, 2).astype(np.float32), np.eye(4)), image)
    elif how == "few slices":
        nibabel.save(nibabel.Nifti1Image(np.random.rand(30, 20, 4).astype(np.float32), np.eye(4)), image)
    elif how == "huge":
        header = bytearray(gzip.decompress(image.read_bytes()))
        header[42:48] = struct.pack("<3h", 30000, 30000, 30000)  # dim[1..3]
        image.write_bytes(gzip.compress(bytes(header)))
    elif how == "classes":
        labels = patient / "patient001_frame01_gt.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.full((30, 20, 6), 7, np.uint8), np.eye(4)), labels)
    elif how == "link":
        image.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere.nii.gz")
        image.symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere.nii.gz")
    elif how == "twice":
        write_patient(tmp_path, part="testing")


HOW = ["truncated", "no labels", "constant", "nan", "other size", "4D", "few slices", "huge", "classes", "link", "twice"]


@pytest.mark.parametrize("how", HOW)
def test_damaged_folders_are_named(tmp_path, how):
    break_folder(tmp_path, how)
    with pytest.raises(InputError, match="patient001") as caught:
        load("train", tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_data_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="register for ACDC"):
        load("train", tmp_path)
    write_patient(tmp_path)
    with pytest.raises(InputError, match="testing"):
        load("test", tmp_path)
    with pytest.raises(InputError, match="split 'val'"):
        load("val", tmp_path)
    with pytest.raises(InputError, match="Info.cfg"):
        (tmp_path / "database/training/patient001/Info.cfg").write_text("nothing")
        load("train", tmp_path, all_slices=True)


@pytest.mark.slow
def test_number_of_threads_does_not_change_the_data(acdc_root, monkeypatch):
    """A run of a sweep has one thread and a store, the command that planned it has all threads and none: fingerprints must agree."""
    expected = prom.load("acdc", "test", acdc_root, store=False).fingerprint()
    with threads(1 if torch.get_num_threads() > 1 else 2):
        assert prom.load("acdc", "test", acdc_root, store=False).fingerprint() == expected


def test_images_and_labels_are_those_of_the_files(tmp_path):
    """At 256 x 256 nothing is resized, and the slices are those in the middle."""
    folder = write_patient(tmp_path, shape=(256, 256, 6))
    ends = ("", "_gt")
    image, label = (nibabel.load(folder / f"patient001_frame01{end}.nii.gz").get_fdata()[..., 2:4].transpose(2, 0, 1) for end in ends)
    data = load("train", tmp_path)
    assert np.array_equal(data.labels, label)
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    assert np.allclose(data.images[:, 0], (image - low) / (high - low), atol=1e-6)
