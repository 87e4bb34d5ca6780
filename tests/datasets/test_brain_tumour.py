"""The BrainTumour reader: the authors' rule computed a second way on real subjects, the split, and hostile folders."""

from __future__ import annotations

import json
import random
import shutil
import time

import nibabel
import numpy as np
import pytest
import torch
from conftest import SHARED
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses
from torch.nn import functional

from prom import InputError
from prom.datasets import brain_tumour, cache

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root():
    folder = SHARED / brain_tumour.FOLDER
    if not (folder / "dataset.json").is_file():
        pytest.skip(f"no brain tumour data beside the project ({SHARED.name}/{brain_tumour.FOLDER})")
    return folder


@pytest.fixture(scope="module")
def splits(root):
    return {split: cache.read(brain_tumour.plan(split, root), store=False) for split in ("train", "test")}


def load(folder, split="train", **options):
    return cache.read(brain_tumour.plan(split, folder, **options), store=False)


# ------------------------------------------------------------------------------------------------------------------------- real subjects


@pytest.mark.slow
def test_eight_subjects_give_four_hundred_slices(splits):
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (300, 100) and (train.number_of_subjects, test.number_of_subjects) == (6, 2)
    assert set(train.subjects) | set(test.subjects) == {f"BRATS_{i:03d}" for i in range(1, 9)}
    for data in (train, test):
        assert data.images.shape[1:] == (4, 256, 256) and data.images.dtype == torch.float32
        assert data.slices == list(range(60, 110)) * data.number_of_subjects
        assert data.images.min() == 0 and data.images.max() == 1
        assert data.labels.unique().tolist() == [0, 1, 2, 3] and len(data.label_names) == 4
        assert set(data.spacing) == {(0.9375, 0.9375)}
        assert "a list of 8 subject(s)" in data.source


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 149), ("train", 299), ("test", 31), ("test", 50)])
def test_a_slice_is_what_the_authors_rule_gives(root, splits, split, index):
    """By nibabel's own reading in float64, torch's quantiles, and indices written out."""
    data = splits[split]
    image, label = (nibabel.load(root / part / f"{data.subjects[index]}.nii.gz").get_fdata() for part in ("imagesTr", "labelsTr"))
    number = data.slices[index]
    slice_ = torch.from_numpy(image[:, :, number, :].transpose(2, 0, 1).copy())
    low, high = torch.quantile(slice_, 0.001), torch.quantile(slice_, 0.999)
    scaled = ((slice_.clamp(low, high) - low) / (high - low)).float()
    expected = functional.interpolate(scaled[None], size=(256, 256), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(data.images[index], expected, rtol=0, atol=1e-6)
    nearest = ((np.arange(256) + 0.5) * 240 / 256).astype(int)  # the pixel in which the centre of the new one lies
    assert np.array_equal(data.labels[index], label[nearest][:, nearest, number])


def test_channels_are_four_different_contrasts_of_one_slice(splits):
    """Scaled together: in every slice some channel reaches 1 (nearly: it is resized), and no two are alike."""
    images = splits["test"].images
    assert (images.amax((1, 2, 3)) > 0.9).all()
    for a in range(4):
        for b in range(a):
            assert not torch.allclose(images[:, a], images[:, b], atol=0.05)


def test_store_and_memory_agree_and_whole_subjects_are_held_out(root, splits, tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path))
    stored = cache.read(brain_tumour.plan("test", root), store=True)
    assert stored.fingerprint() == splits["test"].fingerprint()
    rest, held = splits["train"].hold_out(0.34)
    assert held.split == "validation" and (rest.number_of_subjects, held.number_of_subjects) == (4, 2)
    assert not set(rest.subjects) & set(held.subjects) and len(held.labels) == 100


def test_without_labels(root, splits):
    data = load(root, "test", labels=False)
    assert data.labels is None and data.label_names == () and torch.equal(data.images, splits["test"].images)


def test_survey_of_the_subset(root):
    survey = brain_tumour.survey(root)
    assert survey["found"]["train"] == {"subjects": 6, "slices": 300, "labelled subjects": 6}
    assert survey["found"]["test"] == {"subjects": 2, "slices": 100, "labelled subjects": 2}
    assert survey["missing"] == ["476 of 484 subjects"]


def test_a_subject_takes_seconds_at_most(root):
    plan = brain_tumour.plan("test", root)
    times = []
    for item in plan.items:
        start = time.process_time()
        plan.read(item)
        times.append(time.process_time() - start)
    assert min(times) < 5


# ------------------------------------------------------------------------------------------------------------------------------- regions


def test_regions_are_those_of_brats(splits):
    """MONAI's transform knows the BraTS numbers (1 non-enhancing, 2 oedema, 4 enhancing) and the order core, whole, enhancing."""
    labels = splits["test"].labels
    regions = brain_tumour.regions(labels)
    assert regions.shape == (100, 3, 256, 256) and regions.dtype == torch.bool and len(brain_tumour.REGIONS) == 3
    brats = torch.tensor([0, 2, 1, 4])[labels.long()]
    core, whole, enhancing = ConvertToMultiChannelBasedOnBratsClasses()(brats)
    for index, expected in enumerate((whole, core, enhancing)):
        assert expected.any() and torch.equal(regions[:, index], expected)
    assert (regions[:, 1] <= regions[:, 0]).all() and (regions[:, 2] <= regions[:, 1]).all()


def test_regions_of_one_slice_and_of_a_batch_of_batches():
    labels = torch.randint(0, 4, (2, 3, 5, 6), dtype=torch.uint8)
    assert torch.equal(brain_tumour.regions(labels)[1, 2], brain_tumour.regions(labels[1, 2]))


# --------------------------------------------------------------------------------------------------------------------- folders made here


def write_list(folder, names, **more):
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    (folder / "dataset.json").write_text(json.dumps({"name": "BRATS", "numTraining": 484, "training": training, **more}))


def save(array, path):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 1.0, 1.0])), path)


def write_folder(folder, count=5, shape=(6, 6, 112, 4)):
    """Subjects a, b, ... of small random volumes."""
    generator = np.random.default_rng(0)
    names = [chr(ord("a") + i) for i in range(count)]
    for name in names:
        save(generator.integers(0, 900, shape, dtype=np.int16), folder / "imagesTr" / f"{name}.nii.gz")
        save(generator.integers(0, 4, shape[:3], dtype=np.uint8), folder / "labelsTr" / f"{name}.nii.gz")
    write_list(folder, names)
    return folder


def touch_official(folder):
    """What the archive lists, 484 subjects not in order, as empty files."""
    names = [f"BRATS_{i:03d}" for i in random.Random(1).sample(range(1, 485), 484)]
    write_list(folder, names)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
        for name in names:
            (folder / part / f"{name}.nii.gz").touch()
            (folder / part / f"._{name}.nii.gz").touch()  # which the official archive holds too
    return names


def test_the_complete_list_is_split_as_the_authors_do(tmp_path):
    names = touch_official(tmp_path)
    plans = {split: brain_tumour.plan(split, tmp_path) for split in ("train", "test")}
    subjects = {split: [image.name.removesuffix(".nii.gz") for image, _ in plan.items] for split, plan in plans.items()}
    assert (len(subjects["train"]), len(subjects["test"])) == (387, 97)
    random.Random(42).shuffle(names)
    assert subjects["train"] + subjects["test"] == names
    assert len(plans["test"].files) == 1 + 2 * 97 and "list of" not in plans["test"].source
    survey = brain_tumour.survey(tmp_path)
    assert survey["missing"] == [] and survey["found"]["train"] == {"subjects": 387, "slices": 19350, "labelled subjects": 387}


def test_missing_files_are_counted_and_nobody_changes_sides(tmp_path):
    names = touch_official(tmp_path)
    before = {split: brain_tumour.plan(split, tmp_path).items for split in ("train", "test")}
    gone = names[::4]
    for name in gone:
        (tmp_path / "imagesTr" / f"{name}.nii.gz").unlink()
    (tmp_path / "labelsTr" / f"{names[1]}.nii.gz").unlink()
    for split, items in before.items():
        lost = [image for image, _ in items if image.name.removesuffix(".nii.gz") in gone]
        with pytest.raises(InputError, match=rf"{len(lost)} of {len(items)} files .* the first is {lost[0]}; .*partial=True"):
            brain_tumour.plan(split, tmp_path, labels=False)
        plan = brain_tumour.plan(split, tmp_path, labels=False, partial=True)
        assert [image for (image,) in plan.items] == [image for image, _ in items if image not in lost]
        assert f"{len(plan.items)} of the {len(items)} subjects of {split}" in plan.source
    sides = sum(len(brain_tumour.plan(split, tmp_path, partial=True).items) for split in before)
    assert sides == 484 - 121 - 1  # a subject without the labels that are asked for is left out too
    assert brain_tumour.survey(tmp_path)["missing"] == ["121 of 484 subjects", "labels of 1 subjects"]


def test_small_folder_keeps_rows_and_columns(tmp_path):
    """Rows and columns as in the file, each with its own size; a bright first row stays the first row."""
    write_folder(tmp_path)
    plan = brain_tumour.plan("test", tmp_path)
    (image, label), volume = plan.items[0], np.zeros((6, 6, 110, 4), np.int16)
    volume[0], volume[1, :, :, 2] = 100, 50
    save(volume, image)
    save((volume[..., 2] // 50).astype(np.uint8), label)
    data = load(tmp_path, "test")
    assert data.spacing[0] == (2 * 6 / 256, 3 * 6 / 256) and len(data) == 50
    assert (data.images[:, :, :20] == 1).all() and (data.images[:, :, 107:] == 0).all()
    assert (data.images[:, 2, 60:66] > 0.4).all() and (data.images[:, 3, 64:] < 0.5).all()
    assert (data.labels[:, :43] == 2).all() and (data.labels[:, 43:85] == 1).all() and (data.labels[:, 85:] == 0).all()


def test_slope_and_byte_order_of_the_file_do_not_matter(tmp_path):
    write_folder(tmp_path)
    before = load(tmp_path, "test")
    image = brain_tumour.plan("test", tmp_path).items[0][0]
    stored = nibabel.load(image)
    values = np.asarray(stored.dataobj)
    big = nibabel.Nifti1Image(values.astype(">i2"), stored.affine, nibabel.Nifti1Header(endianness=">"))
    big.header.set_data_dtype(">i2")
    nibabel.save(big, image)
    assert torch.equal(load(tmp_path, "test").images, before.images)
    sloped = nibabel.Nifti1Image(values, stored.affine)
    sloped.header.set_slope_inter(0.25, 10)
    nibabel.save(sloped, image)
    assert not np.array_equal(nibabel.load(image).get_fdata(), values.astype(float))
    assert torch.allclose(load(tmp_path, "test").images, before.images, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------------------- hostile


def refused(folder, split="train", **options):
    """The message, which must be one line."""
    with pytest.raises(InputError) as caught:
        load(folder, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entry(image="imagesTr/x.nii.gz", label="labelsTr/x.nii.gz"):
    return {"image": image, "label": label}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no list of subjects"),
        ("{}", "no list of subjects"),
        ('{"training": {"image": 1}}', "no list of subjects"),
        ('{"training": []}', "no list of subjects"),
        ('{"training": ["imagesTr/a.nii.gz"]}', "names no image"),
        ('{"training": [{"image": 3}]}', "names no image"),
        ('{"training": [{"image": "imagesTr/a.nii.gz"}]}', "names no label"),
        ({"training": [entry("imagesTr/a.pkl")]}, "names no image"),
        ({"training": [entry("imagesTr/.nii.gz")]}, "names no image"),
        ({"training": [entry("a\0.nii.gz")]}, "names no image"),
        ({"training": [entry("a\n.nii.gz")]}, "names no image"),
        ({"training": [entry("a\ud800.nii.gz")]}, "names no image"),
        ({"training": [entry("a" * 5000 + ".nii.gz")] * 1 + [entry()]}, "of 2 files"),
        ({"training": [entry("../x.nii.gz")]}, "leaves the folder"),
        ({"training": [entry("/etc/x.nii.gz")]}, "leaves the folder"),
        ({"training": [entry(), entry("./imagesTr/x.nii.gz")]}, "twice"),
        ({"training": [entry(), entry("imagesTs/x.nii.gz")]}, "two subjects with one name, 'x'"),
        ({"training": [entry()]}, "no subject of split 'train'"),
    ],
)
def test_hostile_lists(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert message in refused(tmp_path)


def test_list_that_is_not_text(tmp_path):
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe\xfa")
    assert "not UTF-8 text" in refused(tmp_path)


def test_links_stay_in_the_folder(tmp_path):
    folder, outside = tmp_path / "data", tmp_path / "outside.nii.gz"
    folder.mkdir()
    write_folder(folder)
    image, label = brain_tumour.plan("train", folder).items[0]
    shutil.move(image, outside)
    image.symlink_to(outside)
    assert "outside the folder" in refused(folder)
    image.unlink()
    image.symlink_to(image)
    assert "1 of 8 files" in refused(folder)
    image.unlink()
    image.symlink_to(brain_tumour.plan("test", folder).items[0][0])  # the same subject on both sides
    assert "twice" in refused(folder)
    (folder / "dataset.json").rename(tmp_path / "dataset.json")
    (folder / "dataset.json").symlink_to(tmp_path / "dataset.json")
    assert "outside the folder" in refused(folder)


def volume(*shape, dtype=np.int16):
    return np.random.default_rng(1).integers(0, 900, shape).astype(dtype)


def with_slice(array, number, value):
    array = array.astype(np.float32)
    array[:, :, number] = value
    return array


def sparse():
    """One bright voxel a slice: not constant, and nothing between the quantiles once a slice has 4000 voxels."""
    array = np.zeros((32, 32, 110, 4), np.int16)
    array[3, 4, :, 2] = 1
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (volume(6, 6, 109, 4), "array of shape (6, 6, 109, 4)"),
        (volume(6, 6, 40, 4), "array of shape (6, 6, 40, 4)"),
        (volume(6, 6, 112, 3), "4 channels (FLAIR, T1w, T1gd, T2w)"),
        (volume(6, 6, 112), "array of shape (6, 6, 112)"),
        (volume(6, 900, 112, 4), "square"),
        (with_slice(volume(6, 6, 112, 4), 60, 7), "slice 60 is constant"),
        (with_slice(volume(6, 6, 112, 4), 109, np.nan), "slice 109 has NaN"),
        (with_slice(volume(6, 6, 112, 4), 75, np.inf), "slice 75 has NaN or infinite"),
        (sparse(), "slice 60 has nothing between its quantiles"),
        (volume(6, 6, 112, 4, dtype=np.complex64), "complex"),
        (volume(8, 8, 112, 4), "image of (8, 8, 112)"),
        (volume(6, 6, 111, 4), "image of (6, 6, 111)"),
    ],
)
def test_hostile_images(tmp_path, array, message):
    write_folder(tmp_path)
    image = brain_tumour.plan("train", tmp_path).items[0][0]
    save(array, image)
    said = refused(tmp_path)
    assert message in said and image.name in said


def test_slices_that_are_not_used_are_not_judged(tmp_path):
    write_folder(tmp_path)
    array = with_slice(with_slice(volume(6, 6, 112, 4), 59, np.nan), 110, 0)
    save(array, brain_tumour.plan("test", tmp_path).items[0][0])
    assert len(load(tmp_path, "test")) == 50


@pytest.mark.parametrize("value", [4, -1, 1.5, np.nan])
def test_labels_of_other_values(tmp_path, value):
    write_folder(tmp_path)
    label = brain_tumour.plan("test", tmp_path).items[0][1]
    save(with_slice(np.zeros((6, 6, 112)), 80, value), label)
    assert f"{label}: labels other than 0, 1, 2, 3" in refused(tmp_path, "test")
    assert load(tmp_path, "test", labels=False).labels is None


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("keep", [0, 100, 1000])
def test_truncated_files(tmp_path, which, keep):
    write_folder(tmp_path)
    path = brain_tumour.plan("train", tmp_path).items[0][which]
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path}: cannot be read as NIfTI" in refused(tmp_path)


def test_no_data_and_no_such_split(tmp_path):
    assert "medicaldecathlon.com" in refused(tmp_path)
    with pytest.raises(InputError, match="medicaldecathlon.com"):
        brain_tumour.survey(tmp_path)
    write_folder(tmp_path)
    assert "split 'val'" in refused(tmp_path, "val")
    shutil.rmtree(tmp_path / "imagesTr")
    assert "no subject of split 'test' is there" in refused(tmp_path, "test", partial=True)
    assert brain_tumour.survey(tmp_path)["missing"] == ["484 of 484 subjects"]
