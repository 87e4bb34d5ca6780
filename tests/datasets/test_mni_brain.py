"""The virtual subjects: reproducible, never shared between splits, and looking like what the docstring says."""

import numpy as np
import pytest
import torch
from conftest import threads

from prom.datasets import mni_brain
from prom.datasets.seeded import uniform
from prom.errors import InputError

SMALL = dict(slices=[60, 90], size=64)


@pytest.fixture(scope="module")
def full():
    return mni_brain.load("test", subjects=2, contrasts=4)


def test_same_seed_same_bits_whatever_the_number_of_threads():
    first = mni_brain.load("train", subjects=2, **SMALL)
    with threads(1):
        again = mni_brain.load("train", subjects=2, **SMALL)
    assert first.fingerprint() == again.fingerprint()


def test_another_seed_is_other_subjects_not_only_other_noise():
    first, other = (mni_brain.load("train", subjects=1, seed=seed, **SMALL) for seed in (0, 1))
    assert (first.labels != other.labels).float().mean() > 0.01


@pytest.mark.parametrize(
    ("limit", "axes", "moves"),
    [
        pytest.param(mni_brain.WARP_LIMIT, 4, True, id="warp"),
        pytest.param(5.0, 1, True, id="rotation"),
        pytest.param(0.05, 1, True, id="scaling"),
        pytest.param(4.0, 1, True, id="shift"),
        pytest.param(np.log(1.25), 1, False, id="gamma"),
        pytest.param(0.05, 2, False, id="signals of tissues"),
        pytest.param(mni_brain.BIAS_LIMIT, 3, False, id="bias field"),
    ],
)
def test_each_variation_alone_makes_other_subjects(monkeypatch, limit, axes, moves):
    """Without noise and all the others: the anatomy moves under the deformations, and under the rest only the grey values change."""

    def alone(generator, most, *shape):
        drawn = uniform(generator, most, *shape)
        return drawn if (most, len(shape)) == (limit, axes) else 0 * drawn

    monkeypatch.setattr(mni_brain, "_uniform", alone)
    monkeypatch.setattr(mni_brain, "NOISE", 0.0)
    first, other = (mni_brain.load("train", subjects=1, contrasts=4, seed=seed, **SMALL) for seed in (0, 1))
    assert (first.images - other.images).abs().max() > 0.01
    assert torch.equal(first.labels, other.labels) is not moves


def test_noise_differs_between_slices_channels_and_subjects(full):
    corner = full.images[:, :, :20, :20].flatten(2).flatten(0, 1)  # background: noise only
    correlation = torch.corrcoef(corner) - torch.eye(len(corner))
    assert correlation.abs().max() < 0.3  # 400 pixels: a standard deviation of 0.05


def test_global_random_state_is_neither_read_nor_written():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = mni_brain.load("train", subjects=1, **SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.images, mni_brain.load("train", subjects=1, **SMALL).images)


def test_fewer_subjects_are_a_prefix():
    more = mni_brain.load("train", subjects=3, **SMALL)
    fewer = mni_brain.load("train", subjects=2, **SMALL)
    assert torch.equal(more.images[:4], fewer.images) and torch.equal(more.labels[:4], fewer.labels)
    assert more.subjects[:4] == fewer.subjects and more.slices[:4] == fewer.slices


def test_a_slice_does_not_depend_on_which_others_are_loaded():
    both = mni_brain.load("train", subjects=1, **SMALL)
    alone = mni_brain.load("train", subjects=1, slices=[90], size=64)
    assert torch.equal(both.images[1], alone.images[0]) and torch.equal(both.labels[1], alone.labels[0])


def test_first_of_four_contrasts_is_the_only_one_of_one(full):
    t1 = mni_brain.load("test", subjects=2)
    assert t1.images.shape == (16, 1, 256, 256) and full.images.shape == (16, 4, 256, 256)
    assert torch.equal(t1.images[:, 0], full.images[:, 0]) and torch.equal(t1.labels, full.labels)


def test_no_subject_and_no_image_in_two_splits():
    splits = {split: mni_brain.load(split, subjects=3, **SMALL) for split in ("train", "validation", "test")}
    names = [set(data.subjects) for data in splits.values()]
    assert [len(n) for n in names] == [3, 3, 3] and len(set.union(*names)) == 9
    images = torch.cat([data.images for data in splits.values()]).flatten(1)
    assert len(torch.unique(images, dim=0)) == len(images) == 18


def test_default_counts():
    assert mni_brain.SUBJECTS == {"train": 40, "validation": 10, "test": 20}
    data = mni_brain.load("validation", size=32)
    assert data.number_of_subjects == 10 and len(data) == 80 and data.slices[:8] == list(mni_brain.SLICES)


def test_images_fill_0_to_1_and_noise_fills_the_background(full):
    assert full.images.dtype == torch.float32
    assert torch.equal(full.images.amin((2, 3)), torch.zeros(16, 4)) and torch.equal(full.images.amax((2, 3)), torch.ones(16, 4))
    corner = full.images[:, :, :20, :20]  # outside every brain: Rayleigh of sigma 0.01, of mean 0.0125
    assert 0.011 < corner.mean() < 0.014


def test_labels_are_the_four_classes_in_every_slice(full):
    assert full.labels.dtype == torch.uint8 and len(full.label_names) == 4
    for label in full.labels:
        assert torch.unique(label).tolist() == [0, 1, 2, 3]
    border = torch.ones(256, 256, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert not full.labels[:, border].any(), "the brain must fit into the field of view"


def test_tissues_have_the_contrast_of_their_sequence(full):
    middle = full.images[4::8], full.labels[4::8]  # slice 92: ventricles
    grey, white, rest = (torch.stack([middle[0][:, c][middle[1] == v].median() for c in range(4)]) for v in (1, 2, 3))
    t1, t2, pd, flair = range(4)
    assert white[t1] > grey[t1] > rest[t1]
    assert rest[t2] > grey[t2] > white[t2]
    assert grey[pd] > white[pd] > rest[pd] * 0.9
    assert grey[flair] > white[flair] > rest[flair]


def test_row_0_is_anterior_and_the_template_is_where_it_was(monkeypatch):
    """With the deformations off, the image is the template, turned upright: anterior at the top, the subject's left on the left."""
    monkeypatch.setattr(mni_brain, "_uniform", lambda generator, limit, *shape: np.zeros(shape))
    monkeypatch.setattr(mni_brain, "NOISE", 0.0)
    image = mni_brain.load("train", subjects=1, slices=[80]).images[0, 0].numpy()
    t1 = mni_brain._template()[0]
    expected = np.zeros((256, 256), dtype=np.float32)
    for row in range(256):
        for column in range(256):
            # pixel centres lie at half millimetres from the brain's middle, (98, 117)
            x, y = 98 + column - 127.5, 117 - (row - 127.5)
            if 1 <= x < 195 and 1 <= y < 231:
                x, y = int(x), int(y)
                expected[row, column] = t1[x : x + 2, y : y + 2, 80].mean()
    inside = expected > mni_brain.BRAIN_THRESHOLD
    assert np.abs(image / image.max() - expected / expected.max())[inside].max() < 1e-5


@pytest.mark.parametrize("number", range(3))
def test_the_warp_is_invertible(number):
    """The Jacobian determinant is positive everywhere: no tissue is folded over or torn."""
    n = mni_brain._spline_basis(np.zeros(1), mni_brain.WARP_SPACING).shape[1]
    control = mni_brain._uniform(mni_brain._generator(number), mni_brain.WARP_LIMIT, 3, n, n, n)
    axis = np.arange(-90, 91, 3.0)
    warp = mni_brain._smooth_field(control, axis, axis, axis, mni_brain.WARP_SPACING)
    gradient = np.stack([np.stack(np.gradient(component, 3.0)[::-1]) for component in warp])  # (component, x y z, Z, Y, X)
    determinant = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
    assert determinant.min() > 0.2
    assert 1.5 < warp.std() < 3 and np.abs(warp).max() < 12


def test_smaller_sizes_show_the_same_brain_in_the_same_place():
    large = mni_brain.load("test", subjects=1, slices=[80])
    small = mni_brain.load("test", subjects=1, slices=[80], size=64)
    pooled = torch.nn.functional.avg_pool2d(large.images, 4)
    difference = (pooled / pooled.mean() - small.images / small.images.mean()).square().mean().sqrt() / (pooled / pooled.mean()).std()
    assert difference < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(split="tets"), "did you mean 'test'"),
        (dict(subjects=0), "subjects 0: must be a whole number from 1 to 1000"),
        (dict(subjects=1001), "subjects 1001"),
        (dict(subjects=2.0), "subjects 2.0"),
        (dict(subjects=True), "subjects True"),
        (dict(contrasts=3), "contrasts 3: must be 1"),
        (dict(size=16), "size 16: must be"),
        (dict(seed=-1), "seed -1"),
        (dict(slices=[]), "slices"),
        (dict(slices=[80, 80]), "no number twice"),
        (dict(slices=[0]), "slice 0: must be a whole number from 20 to 140"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(InputError) as caught:
        mni_brain.load(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)
