"""The hand-written gradient is autograd's, in real and complex data, any number of images, channels and masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.losses import SSIMLoss
from torch.nn import functional

import prom
from prom import InputError, SliceDataset, baselines
from prom.datasets import cache
from prom.kspace.fourier import fft2c, ifft2c
from prom.objectives import ImageLoss, MagnitudeMSE, make
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.zero_filled import ZeroFilled


def images(*shape: int, phase: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(*shape, generator=generator)
    return real * torch.exp(6j * torch.rand(*shape, generator=generator)) if phase else real


def masks(count: int, height: int, width: int) -> torch.Tensor:
    return (torch.rand(count, height, width, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def straightforward(data: torch.Tensor, indices: list[int], m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of section 3.1 written out, with the gradient by autograd, in float64."""
    m = m.double().requires_grad_()
    data = data[indices].to(torch.complex128)
    reconstruction = ifft2c(fft2c(data)[:, None] * m[None, :, None]).abs()
    loss = (reconstruction - data.abs()[:, None]).square().mean()
    return loss.detach(), torch.autograd.grad(loss, m)[0]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("phase", [False, True])
@pytest.mark.parametrize(("channels", "indices", "count"), [(1, [0], 1), (1, [2, 0, 1], 1), (3, [1, 2], 1), (2, [1], 4), (1, [0, 1], 3)])
def test_gradient_is_autograds(phase, channels, indices, count, at_once, monkeypatch):
    """``at_once``: as on a GPU."""
    if at_once:
        monkeypatch.setattr("prom.objectives.magnitude.asynchronous", lambda _: True)
    data, m = images(3, channels, 7, 10, phase=phase), masks(count, 7, 10)
    loss, gradient = MagnitudeMSE(data).loss_and_gradient(indices, m)
    expected_loss, expected_gradient = straightforward(data, indices, m)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-7)


def test_image_loss_agrees_with_the_hand_written_one():
    data, m = images(4, 2, 8, 8), masks(2, 8, 8)
    for mine, theirs in zip(
        *(objective.loss_and_gradient([0, 3], m) for objective in (MagnitudeMSE(data), ImageLoss(data, functional.mse_loss))), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_any_differentiable_loss():
    data = images(2, 1, 16, 16)
    loss, gradient = ImageLoss(data, SSIMLoss(2)).loss_and_gradient([0, 1], masks(1, 16, 16))
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0 and 0 < loss < 1


def test_empty_mask_has_a_finite_gradient():
    loss, gradient = MagnitudeMSE(images(1, 1, 8, 8)).loss_and_gradient([0], torch.zeros(1, 8, 8))
    assert torch.isfinite(gradient).all() and loss == pytest.approx(images(1, 1, 8, 8).square().mean().item(), rel=1e-5)


THREE = images(3, 1, 8, 6)
ALL = (
    MagnitudeMSE(THREE),
    ImageLoss(THREE, functional.l1_loss),
    Reconstructed(SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0]), ZeroFilled()),
)


@pytest.mark.parametrize("objective", ALL, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 4, 4), (1, 12, 12), (2, 1, 6), (8, 6), (1, 1, 1, 8, 6)])
def test_masks_of_another_size_are_refused(shape, objective):
    """The compiled loops go over the image's samples, whatever memory the mask has."""
    for compute in (objective.loss_and_gradient, objective.loss):
        with pytest.raises(InputError, match=r"masks of .*: must be \(M, ...\) or \(B, M, ...\) of \(8, 6\)"):
            compute([0], torch.ones(shape))


@pytest.mark.parametrize("objective", ALL, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("shape", [(2, 1, 8, 6), (0, 8, 6), (3, 0, 8, 6)])
def test_masks_for_another_number_of_images_are_refused(shape, objective):
    with pytest.raises(InputError, match="for 3 images; give each of them as many masks, one at least"):
        objective.loss_and_gradient([0, 1, 2], torch.ones(shape))
    with pytest.raises(InputError, match="for 0 images"):
        objective.loss_and_gradient([], torch.ones(1, 8, 6))
    with pytest.raises(InputError, match="masks of type torch.bool: must be floating point"):
        objective.loss_and_gradient([0, 1, 2], torch.ones(1, 8, 6).bool())
    if not isinstance(objective, MagnitudeMSE):  # which has no loss without its gradient
        assert objective.loss([0, 1], masks(1, 8, 6).bool()) == objective.loss([0, 1], masks(1, 8, 6))


def test_curvature_is_the_mean_power_over_the_pixels():
    data = images(3, 2, 6, 6)
    expected = fft2c(data).abs().square().mean(dim=(0, 1)) / 36
    torch.testing.assert_close(MagnitudeMSE(data).curvature(), expected)


def test_curvature_corrects_the_gradient_towards_the_true_difference(blobs):
    """Near a good mask, g + (1/2 - m) h is ten times nearer to L(m_i = 1) - L(m_i = 0) than g alone."""
    generator = torch.Generator().manual_seed(0)
    good = baselines.energy(blobs, 4).float()
    m = torch.where(torch.rand(good.shape, generator=generator) < 0.05, 1 - good, good)
    m[16, 16] = 1
    objective, everyone = MagnitudeMSE(blobs.images), list(range(len(blobs)))
    _, gradient = objective.loss_and_gradient(everyone, m[None])
    corrected = gradient[0] + (0.5 - m) * objective.curvature()
    true = torch.zeros(32, 32)
    for i, j in itertools.product(range(32), repeat=2):
        on, off = m.clone(), m.clone()
        on[i, j], off[i, j] = 1, 0
        true[i, j] = objective.loss(everyone, on[None]) - objective.loss(everyone, off[None])
    true[16, 16] = corrected[16, 16] = gradient[0, 16, 16] = 0  # without DC no expansion holds
    assert (corrected - true).norm() < 0.1 * (gradient[0] - true).norm()


@pytest.mark.parametrize("objective", ["magnitude_msee", 3])
def test_unknown_objectives(objective):
    with pytest.raises(InputError, match="objective"):
        make(objective, images(1, 1, 4, 4), "cpu")


def test_an_objective_made_already_is_taken_as_it_is():
    mine = MagnitudeMSE(images(2, 1, 8, 8))
    assert make(mine, images(3, 1, 8, 8), "cpu") is mine


def test_real_images_with_a_maximum_of_1_are_not_kept_twice():
    data = images(3, 1, 8, 8)
    data /= data.max()
    assert MagnitudeMSE(data).data[[0, 1, 2]][1].equal(data) and MagnitudeMSE(data).data._kept[1].data_ptr() == data.data_ptr()
    assert MagnitudeMSE(-data).data[[0]][1].equal(data[:1])


def test_only_what_is_in_memory_may_be_replayed(tmp_path):
    """Of stored rows every call reads some, which a CUDA graph cannot do."""
    data = images(3, 1, 8, 8)
    data.numpy().tofile(tmp_path / "rows.bin")
    stored = MagnitudeMSE(cache.StoredRows(tmp_path / "rows.bin", "float32", data.shape))
    assert MagnitudeMSE(data).replayable and not stored.replayable
    m = masks(1, 8, 8)
    torch.testing.assert_close(stored.loss_and_gradient([2, 0], m), MagnitudeMSE(data).loss_and_gradient([2, 0], m))


@pytest.mark.parametrize("objective", ALL, ids=lambda objective: type(objective).__name__)
def test_masks_with_a_gradient_are_masks(objective):
    mask = masks(1, 8, 6)
    loss, gradient = objective.loss_and_gradient([0, 2], mask)
    again = objective.loss_and_gradient([0, 2], mask.clone().requires_grad_())
    assert torch.equal(again[0], loss) and torch.equal(again[1], gradient)


@pytest.mark.parametrize("criterion", [lambda a, b: (a - b).abs(), lambda a, b: 1.0, lambda a, b: (a - b).abs().mean().reshape(1)])
def test_a_criterion_must_be_one_number(criterion):
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])
    for objective in (ImageLoss(THREE, criterion), Reconstructed(data, ZeroFilled(), criterion=criterion)):
        with pytest.raises(InputError, match="criterion: returned .*; must return a scalar tensor"):
            objective.loss_and_gradient([0], masks(1, 8, 6))


@pytest.mark.parametrize("count", [2, 9])
def test_targets_are_one_for_each_image(count):
    with pytest.raises(InputError, match=f"targets: are {count}, for 3 images"):
        ImageLoss(THREE, functional.l1_loss, targets=torch.rand(count, 1, 8, 6))
    with pytest.raises(InputError, match="targets of type list"):
        ImageLoss(THREE, functional.l1_loss, targets=[1, 2, 3])


def test_a_criterion_must_have_a_gradient():
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])

    def criterion(one, other):
        return functional.l1_loss(one, other).detach()

    for objective in (ImageLoss(THREE, criterion), Reconstructed(data, ZeroFilled(), criterion=criterion)):
        assert objective.loss([0], masks(1, 8, 6)) > 0
        with pytest.raises(InputError, match="criterion: its result has no gradient"):
            objective.loss_and_gradient([0], masks(1, 8, 6))


def test_a_gradient_of_the_criterions_own_weights_is_not_enough():
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])
    layer = torch.nn.Linear(6, 1)

    def criterion(one, other):
        return layer(one.detach()).mean()

    for objective in (ImageLoss(THREE, criterion), Reconstructed(data, ZeroFilled(), criterion=criterion)):
        with pytest.raises(InputError, match="criterion: its result has no gradient"):
            objective.loss_and_gradient([0], masks(1, 8, 6))


def test_complex_masks_are_refused_and_whole_numbers_are_not():
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])
    for objective in (ImageLoss(THREE, functional.l1_loss), Reconstructed(data, ZeroFilled())):
        with pytest.raises(InputError, match=r"masks of type torch\.complex64"):
            objective.loss([0], masks(1, 8, 6) + 1j)
        assert objective.loss([0], torch.ones(1, 8, 6).int()) == objective.loss([0], torch.ones(1, 8, 6))


def test_losses_have_gradients_in_inference_mode():
    objective = ImageLoss(THREE, functional.l1_loss)
    expected = objective.loss_and_gradient([0, 2], masks(1, 8, 6))
    with torch.inference_mode():
        found = objective.loss_and_gradient([0, 2], masks(1, 8, 6))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_an_image_of_another_shape_is_refused():
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])

    def coil_images(samples, mask, encoding):
        return encoding.fourier.adjoint(samples * mask), abs

    with pytest.raises(InputError, match=r"returned an image of \(1, 1, 8, 6\); must be of \(1, 8, 6\)"):
        Reconstructed(data, coil_images).loss([0], masks(1, 8, 6))
    with pytest.raises(InputError, match=r"returned an image of \(2, 1, 1, 1, 8, 6\); must be of \(2, 1, 1, 8, 6\)"):
        ImageLoss(THREE, functional.l1_loss, reconstruction=lambda *given: (ZeroFilled()(*given)[0][:, None], abs)).loss(
            [0, 1], masks(1, 8, 6)
        )
    with pytest.raises(InputError, match=r"returned an image of \(3, 1, 8, 6\); must be of \(3, 8, 6\)"):
        prom.evaluate(torch.ones(8, 6), data, reconstruction=coil_images)


def test_a_network_is_no_reconstruction():
    data = SliceDataset("three", "train", THREE, [*"abc"], [0, 0, 0])
    for wrong, message in ((ZeroFilled, "is a class"), (lambda *_: THREE[0], r"must return an image .*Through\(network\)")):
        with pytest.raises(InputError, match=message):
            Reconstructed(data, wrong).loss_and_gradient([0], masks(1, 8, 6))
        with pytest.raises(InputError, match=message):
            prom.evaluate(torch.ones(8, 6), data, reconstruction=wrong)


def test_gradients_stay_finite_where_almost_nothing_is_measured():
    """The square of a magnitude below 1e-22 is lost in float32."""
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    objective = MagnitudeMSE(images)
    for tiny in (1e-17, 1e-21, 1e-23, 1e-25, 0.0):
        _, gradient = objective.loss_and_gradient([0, 1], torch.full((1, 8, 8), tiny))
        assert float(gradient.abs().max()) < 10
    expected = ImageLoss(images, functional.mse_loss).loss_and_gradient([0, 1], torch.full((1, 8, 8), 1e-17))[1]
    assert torch.allclose(objective.loss_and_gradient([0, 1], torch.full((1, 8, 8), 1e-17))[1], expected, rtol=1e-3, atol=1e-5)


def test_objectives_are_names_functions_or_made():
    with pytest.raises(InputError, match="must be a name .magnitude_mse., a function .x_hat, x. -> loss or an Objective"):
        make(3, torch.rand(2, 1, 8, 8), "cpu")
