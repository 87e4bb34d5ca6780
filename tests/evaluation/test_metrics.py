"""Both conventions against independent implementations: MONAI and scikit-image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric, SSIMMetric
from skimage import metrics as skimage

from prom import InputError, SliceDataset, evaluate
from prom.evaluation.metrics import fastmri_scores, nmse, paper_scores, psnr, ssim
from prom.reconstruction.zero_filled import undersample


@pytest.fixture(params=[1, 3])
def pair(request) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(4, request.param, 20, 24, generator=generator)
    return (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


def test_psnr_and_ssim_are_monais(pair):
    prediction, target = pair
    theirs = SSIMMetric(spatial_dims=2, kernel_type="gaussian", win_size=7, kernel_sigma=1.0)(prediction, target).flatten()
    torch.testing.assert_close(ssim(prediction, target), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(psnr(prediction, target), PSNRMetric(max_val=1.0)(prediction, target).flatten(), atol=1e-4, rtol=0)


def test_ssim_of_a_dark_background_is_monais():
    """There its constants are all there is."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 1, 24, 20, generator=generator)
    target[:, :, :14] *= 0.01
    prediction = (target + 0.02 * torch.rand(target.shape, generator=generator)).clamp(0, 1)
    theirs = SSIMMetric(spatial_dims=2, kernel_type="gaussian", win_size=7, kernel_sigma=1.0)(prediction, target).flatten()
    torch.testing.assert_close(ssim(prediction, target), theirs, atol=1e-5, rtol=0)


def test_the_range_of_a_slice_is_that_of_all_its_channels(pair):
    prediction, target = (images * torch.tensor([1.0, 0.3, 0.1])[: images.shape[1], None, None] for images in pair)
    for score, p, t in zip(paper_scores(prediction, target)["psnr"], prediction.numpy(), target.numpy(), strict=True):
        clamped = p.clip(t.min(), t.max())
        assert float(score) == pytest.approx(10 * np.log10(np.ptp(t) ** 2 / np.square(clamped - t).mean()), abs=1e-3)


def test_nmse_is_scikit_images(pair):
    for p, t, value in zip(*pair, nmse(*pair), strict=True):
        assert float(value) == pytest.approx(skimage.normalized_root_mse(t.numpy(), p.numpy()) ** 2, rel=1e-5)


def test_fastmri_convention_is_scikit_images(pair):
    prediction, target = (volume[:, :1] * 37.0 for volume in pair)
    ours = fastmri_scores(prediction, target)
    p, t = prediction[:, 0].numpy(), target[:, 0].numpy()
    peak = t.max()
    assert float(ours["psnr"]) == pytest.approx(skimage.peak_signal_noise_ratio(t, p, data_range=peak), abs=1e-3)
    expected = np.mean([skimage.structural_similarity(a, b, data_range=peak) for a, b in zip(t, p, strict=True)])
    assert float(ours["ssim"]) == pytest.approx(expected, abs=1e-4)
    assert float(ours["nmse"]) == pytest.approx(np.linalg.norm(t - p) ** 2 / np.linalg.norm(t) ** 2, rel=1e-4)


def test_paper_convention_ignores_scale_and_offset_of_the_slices(pair):
    prediction, target = pair
    before, after = paper_scores(prediction, target), paper_scores(prediction * 50 - 3, target * 50 - 3)
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("scores", [paper_scores, fastmri_scores])
def test_whole_numbers_are_those_of_the_same_value(pair, scores):
    """What is below the target's least value is no large number."""
    whole = [(250 * part.clamp(0, 1)).to(torch.uint8) for part in pair]
    before, after = scores(*whole), scores(*(part.double() for part in whole))
    for name in before:
        torch.testing.assert_close(before[name].double(), after[name].double(), atol=1e-5, rtol=1e-5)


def test_paper_convention_clamps_to_the_target(pair):
    _, target = pair
    high = target.amax(dim=(1, 2, 3), keepdim=True)
    overshoot = torch.where(target == high, target * 5, target)
    assert (paper_scores(overshoot, target)["nmse"] == 0).all()


def test_small_images_are_refused():
    with pytest.raises(InputError, match="at least 7"):
        ssim(torch.rand(1, 1, 6, 9), torch.rand(1, 1, 6, 9))


def test_evaluate_per_slice_and_per_volume(blobs):
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:24, 8:24] = True
    slices, volumes = evaluate(mask, blobs), evaluate(mask, blobs, "fastmri")
    assert len(slices) == 12 and len(volumes) == 6 and (volumes["slice"] == 2).all()
    assert slices["subject"].tolist() == blobs.subjects
    prediction = torch.fft.fftshift(torch.fft.fft2(blobs.images[5, 0])) * mask
    prediction = torch.fft.ifft2(torch.fft.ifftshift(prediction)).abs()
    expected = paper_scores(prediction[None, None], blobs.images[5:6])
    assert slices["psnr"][5] == pytest.approx(float(expected["psnr"]), abs=1e-2)
    for row, subject in enumerate(volumes["subject"]):  # of the images of this subject, and no other
        own = [index for index, name in enumerate(blobs.subjects) if name == subject]
        p, t = undersample(blobs.images[own, 0], mask).numpy(), blobs.images[own, 0].numpy()
        assert volumes["psnr"][row] == pytest.approx(skimage.peak_signal_noise_ratio(t, p, data_range=t.max()), abs=1e-2)


def test_evaluate_refuses_what_has_no_score(blobs):
    mask = torch.ones(32, 32, dtype=torch.bool)
    flat = SliceDataset("flat", "test", torch.ones(1, 1, 32, 32), ["a"], [3])
    with pytest.raises(InputError, match="flat, subject a, slice 3: is constant"):
        evaluate(mask, flat)
    with pytest.raises(InputError, match="does not fit"):
        evaluate(mask[:16], blobs)
    with pytest.raises(InputError, match="did you mean 'fastmri'"):
        evaluate(mask, blobs, "fastmr")


@pytest.mark.parametrize("unit", [1e-30, 1e-20, 1e-10, 1e-7, 3.0, 1e9, 1e20, 1e30])
@pytest.mark.parametrize("convention", ["paper", "fastmri"])
@pytest.mark.parametrize("phase", [False, True])
def test_scores_do_not_depend_on_the_unit(blobs, unit, convention, phase):
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[10:22, 10:22] = True
    images = blobs.images.clone()
    images[..., :8, :] = 0  # a background without noise: here the constants of SSIM are all there is
    images = images * torch.exp(6j * images) if phase else images
    data, other = (SliceDataset("x", "test", images * factor, blobs.subjects, blobs.slices) for factor in (1.0, unit))
    expected, found = evaluate(mask, data, convention), evaluate(mask, other, convention)
    columns = ["psnr", "ssim", "nmse"]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=1e-4)


@pytest.mark.parametrize("unit", [1e-30, 1e-10, 1e10, 1e30])
def test_fastmri_convention_is_scikit_images_in_any_unit(pair, unit):
    prediction, target = (volume[:, :1] * unit for volume in pair)
    ours = fastmri_scores(prediction, target)
    p, t = prediction[:, 0].double().numpy() / unit, target[:, 0].double().numpy() / unit  # scikit-image's constants underflow
    assert float(ours["psnr"]) == pytest.approx(skimage.peak_signal_noise_ratio(t, p, data_range=t.max()), abs=1e-3)
    expected = np.mean([skimage.structural_similarity(a, b, data_range=t.max()) for a, b in zip(t, p, strict=True)])
    assert float(ours["ssim"]) == pytest.approx(expected, abs=1e-4)
    assert float(ours["nmse"]) == pytest.approx(np.linalg.norm(t - p) ** 2 / np.linalg.norm(t) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    "same",
    [torch.Tensor.float, torch.Tensor.double, torch.Tensor.half, torch.Tensor.byte, torch.Tensor.numpy, lambda m: m.numpy()[::-1][::-1]],
)
def test_evaluate_takes_zeros_and_ones_of_any_type(blobs, same):
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.3
    assert evaluate(same(mask), blobs).equals(evaluate(mask, blobs))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda m: m.byte() * 255, "the value 255: must have 0 and 1 only; if 255 is measured, use mask == 255"),
        (lambda m: m.numpy() * 0.5, "the value 0.5"),
        (lambda m: m.float() * torch.nan, "the value nan"),
        (lambda m: m * torch.linspace(0, 1, 32), "of probabilities, use the mask that was made with them"),
        (lambda m: m * 1j, "the value 0.*1j"),
        (lambda m: m[8], r"mask of \(32,\): does not fit"),
        (lambda m: m[None, ..., None], r"mask of \(1, 32, 32, 1\): does not fit"),
        (lambda m: "mask.npy", "'mask.npy': is a path"),
        (lambda m: None, "of type NoneType"),
    ],
)
def test_evaluate_refuses_what_is_no_mask(blobs, wrong, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate(wrong(torch.ones(32, 32, dtype=torch.bool)), blobs)
    assert "\n" not in str(caught.value)


def test_similarity_is_of_images_with_channels():
    with pytest.raises(InputError, match=r"must be \(N, C, H, W\); use image.unsqueeze\(1\)"):
        ssim(torch.rand(3, 16, 16), torch.rand(3, 16, 16))
    with pytest.raises(InputError, match=r"must be \(N, C, H, W\); use image\[None, None\]"):
        ssim(torch.rand(16, 16), torch.rand(16, 16))


def test_images_of_two_shapes_have_no_scores():
    """They would be broadcast: every slice against every other."""
    images = torch.rand(3, 1, 16, 16)
    for other in (images[:, 0], images[:1], images[..., :8]):
        for score in (psnr, nmse, ssim, paper_scores, fastmri_scores):
            with pytest.raises(InputError, match=r"must be of one shape"):
                score(other, images)


def test_complex_images_have_no_scores():
    image = torch.rand(1, 1, 16, 16)
    for pair in ((image + 0j, image), (image, image + 0j)):
        for score in (psnr, nmse, ssim, paper_scores, fastmri_scores):
            with pytest.raises(InputError, match="scores are those of magnitudes"):
                score(*pair)
    assert torch.allclose(psnr((image * 100).int(), (image * 90).int()), psnr((image * 100).int().double(), (image * 90).int().double()))


def test_a_volume_may_have_an_empty_slice():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    images[3] = 0
    data = SliceDataset("volume", "test", images, ["s"] * 4, [0, 1, 2, 3])
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    found, expected = evaluate(mask, data, "fastmri"), fastmri_scores(undersample(images, mask), images)
    assert found["psnr"][0] == pytest.approx(float(expected["psnr"]), abs=1e-4)
    with pytest.raises(InputError, match="slice 3: is constant"):
        evaluate(mask, data)
    with pytest.raises(InputError, match="volume, subject s.*: is constant"):
        evaluate(mask, replace(data, images=torch.zeros_like(images)), "fastmri")
    with pytest.raises(InputError, match="data of type Tensor: must be a data set"):
        evaluate(mask, images)


def test_windows_have_names():
    with pytest.raises(InputError, match="window 'gauss' is not known; did you mean 'gaussian'"):
        ssim(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16), window="gauss")
