"""The virtual hearts: reproducible, in motion as hearts are, smooth in time, and with a k-space like that of real anatomy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import threads

import prom
from prom.datasets import virtual_heart
from prom.errors import InputError
from prom.kspace.fourier import fft2c

SMALL = {"frames": 4, "size": 64}
ACDC = Path(__file__).parents[3] / "shared" / "data" / "ACDC" / "database" / "training"


@pytest.fixture(scope="module")
def hearts():
    return prom.load("virtual_heart", "test", subjects=2)


def test_same_seed_same_bits_whatever_the_number_of_threads():
    first = virtual_heart.load("train", subjects=2, **SMALL)
    with threads(1):
        again = virtual_heart.load("train", subjects=2, **SMALL)
    assert first.fingerprint() == again.fingerprint() != virtual_heart.load("train", subjects=2, seed=1, **SMALL).fingerprint()


def test_a_subject_depends_on_its_number_only():
    both = virtual_heart.load("train", subjects=2, slices=[30, 60], **SMALL)
    alone = virtual_heart.load("train", subjects=1, slices=[60], **SMALL)
    assert torch.equal(both.images[1], alone.images[0]) and torch.equal(both.labels[1], alone.labels[0])
    assert both.subjects == ["heart-0000", "heart-0000", "heart-0001", "heart-0001"] and both.slices == [30, 60] * 2
    every_other = virtual_heart.load("train", subjects=1, slices=[60], frames=8, size=64).labels[0, ::2]
    assert torch.equal(every_other, alone.labels[0])


def test_global_random_state_is_neither_read_nor_written():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = virtual_heart.load("train", subjects=1, **SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.images, virtual_heart.load("train", subjects=1, **SMALL).images)


def test_no_subject_in_two_splits():
    splits = [virtual_heart.load(split, subjects=1, **SMALL) for split in ("train", "validation", "test")]
    assert len({name for data in splits for name in data.subjects}) == 3
    assert len(torch.unique(torch.cat([data.images[:, 0, 0] for data in splits]).flatten(1), dim=0)) == 3


def test_the_container_is_of_a_series(hearts):
    assert hearts.kind == "series" and hearts.images.shape == (2, 1, 16, 128, 128) and hearts.images.dtype == torch.float32
    assert torch.equal(hearts.images.amax((1, 2, 3, 4)), torch.ones(2)) and hearts.images.min() >= 0
    assert hearts.labels.shape == (2, 16, 128, 128) and hearts.labels.unique().tolist() == [0, 1, 2, 3]
    border = hearts.images.clone()
    border[..., 3:-3, 3:-3] = 0
    assert border.max() < 0.1, "the body must fit into the field of view"


def volumes(subject: virtual_heart._Subject, frames: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Cavity and muscle in ml, (T,) each, from slices 0.2 % of the length apart, those above the base left out."""
    levels = np.arange(-20.0, 100, 0.2) + 0.1
    beats = [virtual_heart._beat(subject, level, frames) for level in levels]
    step = 0.002 * subject.length
    length = subject.length * (1 - subject.shortening * beats[0].ejected)
    cavity, muscle = np.zeros(frames), np.zeros(frames)
    for level, beat in zip(levels, beats, strict=True):
        below = (1 - level / 100) * subject.length <= length
        cavity[below] += (np.pi * beat.inner**2 * step / 1000)[below]
        muscle[below] += (np.pi * (beat.outer**2 - beat.inner**2) * step / 1000)[below]
    return cavity, muscle


@pytest.mark.parametrize("number", range(4))
def test_slices_add_up_to_a_healthy_ventricle(number):
    """Volumes by summation of slices, as a reader of cine images takes them."""
    subject = virtual_heart._subject(0, number)
    cavity, muscle = volumes(subject)
    assert cavity[0] == pytest.approx(subject.volume, rel=0.01) and 105 < cavity[0] < 185
    assert 0.50 <= 1 - cavity.min() / cavity[0] <= 0.65
    assert cavity.argmin() in (5, 6), "systole takes a third of the cycle"
    np.testing.assert_allclose(muscle, muscle[0], rtol=0.01)  # muscle is not compressed
    beat = virtual_heart._beat(subject, 45, 16)
    wall = beat.outer - beat.inner
    assert wall[0] == pytest.approx(subject.wall, rel=0.01) and 1.3 < wall[5] / wall[0] < 1.9
    assert 2 < np.rad2deg(np.abs(beat.turn).max()) < 4
    assert 0.8 < 1 - subject.shortening < 0.9 and cavity[8] < cavity[10] < cavity[15]  # filling, and rest


@pytest.mark.parametrize("number", range(2))
def test_labels_show_the_same_motion_as_the_formula(number):
    labels = virtual_heart._series(0, number, 45, 16, 256, 0.0)[1]
    beat = virtual_heart._beat(virtual_heart._subject(0, number), 45, 16)
    area = (labels == 3).sum((1, 2)) * (virtual_heart.FIELD_OF_VIEW / 256) ** 2
    np.testing.assert_allclose(area, np.pi * beat.inner**2, rtol=0.05)
    right = (labels == 1).sum((1, 2))
    assert 0.4 < right[5] / right[0] < 0.75


def test_an_edge_moves_by_parts_of_a_pixel():
    """The covered area of a disc is that of the disc, whatever its radius, and a shift changes nothing."""
    canvas = virtual_heart._Canvas(1, 128)
    radii = np.linspace(20, 24, 41)
    areas = [float(canvas.covered(canvas.ellipse((shift, 0.3), (radius, radius))[0]).sum()) for radius in radii for shift in (0.0, 1.1)]
    expected = np.repeat(np.pi * radii**2 / canvas.pixel**2, 2)
    np.testing.assert_allclose(areas, expected, rtol=5e-3)


def test_frames_follow_each_other_smoothly():
    """With twice the frames, neighbours differ half as much; and the last passes into the first."""
    steps = {}
    for frames in (32, 64):
        images = virtual_heart.load("train", subjects=1, frames=frames, size=64).images[0, 0]
        change = (images - images.roll(1, 0)).square().mean((1, 2)).sqrt()
        steps[frames] = change.max()
        assert change[0] < change.max()
    assert steps[64] == pytest.approx(steps[32] / 2, rel=0.25)


def test_only_heart_and_aorta_move(hearts):
    change = hearts.images[0, 0].amax(0) - hearts.images[0, 0].amin(0)
    heart = (hearts.labels[0] > 0).any(0)
    rows, columns = (torch.where(heart.any(axis))[0] for axis in (1, 0))
    away = torch.ones_like(heart)
    away[rows[0] - 12 : rows[-1] + 60, columns[0] - 12 : columns[-1] + 12] = False  # below it lies the aorta
    assert change[heart].mean() > 0.1 and change[away].max() < 0.05  # what is left rings from the heart's edges


def test_breathing_moves_the_liver():
    held, free = (virtual_heart.load("train", subjects=1, breathing=breathing).images[0, 0] for breathing in (0.0, 20.0))
    assert (held[15, 70:95, 30:50] - held[0, 70:95, 30:50]).abs().max() < 0.03
    assert (free[15, 60:95, 30:50] - free[0, 60:95, 30:50]).abs().max() > 0.08


def test_tissues_have_the_contrast_of_balanced_ssfp(hearts):
    image, label = hearts.images[0, 0, 0], hearts.labels[0, 0]
    blood, muscle = image[label == 3].median(), image[label == 2].median()
    assert 2.2 < blood / muscle < 4.5
    assert image[64, 2:8].mean() < 0.05
    flow = virtual_heart._ejected(np.arange(16) / 16)[1]
    bright = torch.stack([hearts.images[0, 0, t][hearts.labels[0, t] == 3].quantile(0.7) for t in range(16)])
    assert np.corrcoef(flow, bright)[0, 1] > 0.5, "inflow brightens blood"


def test_the_measurement_is_that_of_the_images():
    plain = virtual_heart.load("test", subjects=1, **SMALL)
    data = virtual_heart.load("test", subjects=1, coils=4, phase=True, noise=0.01, **SMALL)
    torch.testing.assert_close(data.images.abs(), plain.images)
    assert data.images.dtype == torch.complex64 and data.kind == "series"
    noise = data.kspace - fft2c(data.sensitivities[:, None] * data.images)
    assert noise.abs().square().mean().sqrt() == pytest.approx(0.01, rel=0.02)
    frames = torch.corrcoef(noise[0].movedim(1, 0).flatten(1)) - torch.eye(4)
    assert frames.abs().max() < 0.05, "every frame has noise of its own"
    turned = data.images[0, 0] / data.images[0, 0].abs().clamp(min=1e-6)
    bright = plain.images[0, 0, 0] > 0.4
    jump = (turned[0, 1:] * turned[0, :-1].conj()).angle().abs()[bright[1:] & bright[:-1]]
    assert jump.median() < 0.3 and data.images[0, 0, 0].angle()[bright].std() > 0.5  # smooth, and not constant


def test_smaller_sizes_show_the_same_heart():
    large, small = (virtual_heart._series(0, 3, 45, 2, size, 0.0)[0] for size in (128, 64))
    cut = virtual_heart._cut(large, 64)
    assert np.corrcoef(cut.ravel(), small.ravel())[0, 1] > 0.9999


def test_a_store_holds_the_same_series(monkeypatch, tmp_path):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path))
    first = virtual_heart.load("train", subjects=2, coils=2, noise=0.01, **SMALL)
    monkeypatch.setattr(virtual_heart, "STORED", 0)
    stored = virtual_heart.load("train", subjects=2, coils=2, noise=0.01, **SMALL)
    assert list(tmp_path.glob("virtual_heart-train-*")) and stored.kind == "series"
    assert stored.known_fingerprint == first.fingerprint() and torch.equal(stored.kspace[:], first.kspace)


def exponent(image: np.ndarray, pixel: float) -> float:
    """Of the power law of k-space between 0.015 and 0.16 cycles per mm, windowed."""
    edges = np.geomspace(0.015, 0.16, 11)
    window = np.outer(*(np.hanning(n) for n in image.shape))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, pixel) for n in image.shape), indexing="ij"))
    bands = [power[(frequency >= low) & (frequency < high)].mean() for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return -np.polyfit(np.log(edges[:-1]), np.log(bands), 1)[0]


def test_k_space_falls_no_faster_than_that_of_real_hearts(hearts):
    if not ACDC.is_dir():
        pytest.skip("no cardiac images beside the project (shared/data/ACDC)")
    import nibabel

    real = []
    for path in sorted(ACDC.glob("*/*frame01.nii.gz"))[::10]:
        volume = nibabel.load(path)
        real.append(exponent(np.asarray(volume.dataobj)[..., volume.shape[2] // 2], float(volume.header.get_zooms()[0])))
    drawn = [exponent(image.numpy(), virtual_heart.FIELD_OF_VIEW / 128) for image in hearts.images[:, 0, 0]]
    assert np.median(real) - 0.5 < np.median(drawn) < np.median(real) + 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tets"}, "did you mean 'test'"),
        ({"subjects": 0}, "subjects 0: must be a whole number from 1 to 1000"),
        ({"frames": 1}, "frames 1: must be a whole number from 2 to 128"),
        ({"size": 16}, "size 16"),
        ({"slices": [10]}, "slice 10: must be a whole number from 20 to 75"),
        ({"slices": [30, 30]}, "no number twice"),
        ({"breathing": 31.0}, "breathing 31.0: must be"),
        ({"phase": 1}, "phase 1: must be true or false"),
        ({"noise": -1.0}, "noise -1.0"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(InputError) as caught:
        virtual_heart.load(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_labels_lie_where_the_image_lies_at_any_size():
    """In mm from the centre of the grid, [size // 2, size // 2]."""
    centres = []
    for size in (64, 65):
        data = prom.load("virtual_heart", "test", subjects=1, size=size, frames=2)
        places = (data.labels[0, 0] > 1).nonzero().double().mean(dim=0) - size // 2
        centres.append(places * 64 / size)
    assert torch.allclose(*centres, atol=0.2)  # of a pixel


@pytest.mark.parametrize("name", ["virtual_heart", "mni_brain"])
def test_images_are_the_same_whatever_pytorch_makes_by_default(name):
    options = {"frames": 2} if name == "virtual_heart" else {"slices": [60]}
    found = []
    for kind in (torch.float32, torch.float64):
        torch.set_default_dtype(kind)
        try:
            found.append(prom.load(name, size=32, subjects=1, **options))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0].images, found[1].images) and found[0].fingerprint() == found[1].fingerprint()
