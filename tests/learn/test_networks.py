"""Training of networks that reconstruct, alone and together with a mask."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prom import InputError, MaskLayer, SliceDataset
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.learn.networks import train_network
from prom.objectives import whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.through import Through
from prom.reconstruction.unrolled import Unrolled

SETTINGS = {"batch_size": 2, "learning_rate": 1e-2, "device": "cpu"}


def network() -> Unrolled:
    return Unrolled(1e-2, cascades=1, iterations=4)


@pytest.fixture(scope="module")
def measured(blobs) -> SliceDataset:
    """Four slices of a part of the image, seen by four coils, with noise."""
    few = blobs.select(range(4))
    images = few.images[..., 8:24, 8:24] + 0j
    return replace(few, images=images, sensitivities=simulated(4, (16, 16)), labels=None, noise=0.01)


def error(model: Unrolled, mask: torch.Tensor, data: SliceDataset) -> float:
    return whole_loss(Reconstructed(data, Through(model), criterion="psnr"), range(len(data)), mask.float())


def test_training_lowers_the_loss_and_repeats_itself(measured):
    mask = MaskLayer((16, 16), 4, start=torch.rand(16, 16, generator=torch.Generator().manual_seed(0))).mask()
    trained = train_network(network(), measured, mask, steps=15, **SETTINGS)
    assert error(trained, mask, measured) < error(network(), mask, measured) - 1
    again = [
        train_network(network(), measured.scaled(unit), torch.stack([mask, ~mask]), steps=2, **SETTINGS) for unit in (2.0**-40, 2.0**40)
    ]
    assert torch.equal(again[0].unet.final_conv.weight, again[1].unet.final_conv.weight)


def test_a_mask_is_learnt_together_with_the_network(measured):
    """Through the frozen network too, where nothing but the mask can lower the loss."""
    spread = torch.zeros(16, 16)
    spread[::2, ::2] = 1  # without DC's neighbours, and as many as the budget
    layer = MaskLayer((16, 16), 4, start=0.5 * spread + 0.125)
    before = layer.mask()
    trained = train_network(network(), measured, layer, steps=25, mask_learning_rate=0.2, **SETTINGS)
    assert int(layer.mask().sum()) == layer.budget == 64 and float(layer.theta.detach().sum()) <= 64 * (1 + 1e-5)
    assert error(trained, layer.mask(), measured) < error(network(), before, measured) - 1
    fixed = network().requires_grad_(False)
    layer = MaskLayer((16, 16), 4, start=0.5 * spread + 0.125)
    train_network(fixed, measured, layer, steps=25, mask_learning_rate=0.2, **SETTINGS | {"learning_rate": 0})
    assert torch.equal(fixed.unet.final_conv.weight, network().unet.final_conv.weight)
    assert error(fixed, layer.mask(), measured) < error(network(), before, measured) - 1


def test_masks_that_do_not_fit_are_refused(measured):
    with pytest.raises(InputError, match="mask layer of"):
        train_network(network(), measured, MaskLayer((8, 8), 4), device="cpu")
    with pytest.raises(InputError, match="mask of"):
        train_network(network(), measured, torch.ones(8, 8), device="cpu")


@pytest.mark.parametrize("kind", ["series", "volumes"])
def test_what_a_network_is_not_trained_on(measured, kind):
    images = measured.images[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()
    stacked = replace(measured, images=images, sensitivities=None, kind=kind)
    with pytest.raises(InputError, match=f"has {kind}"):
        train_network(network(), stacked, MaskLayer((16, 16), 4), steps=1, **SETTINGS)
    for masks in ([torch.ones(16, 16)], torch.zeros(0, 16, 16), "mask.h5"):
        with pytest.raises(InputError, match=r"masks of (type|\(0, 16, 16\))"):
            train_network(network(), measured, masks, steps=1, **SETTINGS)


@pytest.mark.parametrize(
    ("returned", "what"), [(lambda x: x.unsqueeze(1), "torch.complex64 of"), (torch.abs, "torch.float32 of"), (tuple, "tuple")]
)
def test_what_a_network_must_not_return(measured, returned, what):
    class Wrong(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, samples, mask, encoding):
            return returned(encoding.adjoint(samples * mask) * self.factor)

    with pytest.raises(InputError, match=f"Wrong: returned {what}.*must be a complex image of"):
        train_network(Wrong(), measured, torch.ones(16, 16), steps=1, **SETTINGS)


class Filled(torch.nn.Module):
    """Zero-filling, with statistics of batches and without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1, affine=False)

    def forward(self, samples, mask, encoding):
        image = encoding.adjoint(samples * mask)
        self.norm(image.abs().unsqueeze(1))
        return image


def test_a_layer_within_the_network_learns_alone(measured):
    class Holds(torch.nn.Module):
        def __init__(self, layer) -> None:
            super().__init__()
            self.layer, self.factor = layer, torch.nn.Parameter(torch.ones(()))

        def forward(self, samples, mask, encoding):
            return encoding.adjoint(samples * mask) * self.factor

    layer = MaskLayer((16, 16), 4)
    before = layer.theta.detach().clone()
    trained = train_network(Holds(layer), measured, layer, **{**SETTINGS, "learning_rate": 0, "steps": 2})
    assert trained.factor == 1 and not torch.equal(layer.theta, before)


class Own(torch.nn.Module):
    """A network with a mask layer of its own, or one that forgets where its image comes from."""

    def __init__(self, detach: bool = False) -> None:
        super().__init__()
        self.layer, self.factor, self.detach = MaskLayer((16, 16), 4), torch.nn.Parameter(torch.ones(())), detach

    def forward(self, samples, mask, encoding):
        image = encoding.adjoint(samples * mask * self.layer.sample()) * self.factor
        return image.detach() if self.detach else image


def test_a_layer_that_would_leave_its_budget_is_refused(measured):
    model = Own()
    with pytest.raises(InputError, match="Own: has a mask layer of its own, which would leave its budget; give that as masks"):
        train_network(model, measured, torch.ones(16, 16), steps=1, **SETTINGS)
    train_network(model, measured, MaskLayer((16, 16), 4), steps=1, **{**SETTINGS, "learning_rate": 0})  # nothing of it moves
    model.layer.requires_grad_(False)
    before = model.layer.theta.clone()
    assert train_network(model, measured, torch.ones(16, 16), steps=1, **SETTINGS).factor != 1 and torch.equal(model.layer.theta, before)


def test_networks_of_which_nothing_can_be_learnt_are_one_line(measured):
    still = Own(detach=True)
    still.layer.requires_grad_(False)
    lazy = torch.nn.Sequential(torch.nn.LazyConv2d(1, 1))
    for model, message in (
        (still, "Own: its image does not depend on its weights"),
        (lazy, "Sequential: has lazy layers that have no weights yet"),
        (lambda samples, mask, encoding: samples, "network of type function: must be a torch.nn.Module"),
        (torch.nn.Identity, "network of type type: must be a torch.nn.Module"),
    ):
        with pytest.raises(InputError, match=message):
            train_network(model, measured, torch.ones(16, 16), steps=1, **SETTINGS)
    with pytest.raises(InputError, match="Own: its image does not depend on the mask; it must not detach"):
        Reconstructed(measured, Through(still)).loss_and_gradient([0], torch.ones(1, 16, 16))


class Apart(torch.nn.Module):
    """A network whose image hangs on its weight or on the mask alone."""

    def __init__(self, of_mask: bool) -> None:
        super().__init__()
        self.of_mask, self.factor = of_mask, torch.nn.Parameter(torch.ones(()))

    def forward(self, samples, mask, encoding):
        if self.of_mask:
            return encoding.adjoint(samples * mask) * self.factor.detach()
        return encoding.adjoint(samples * (mask > 0.5)) * self.factor


def test_what_would_never_be_learnt_is_refused(measured):
    layer, settings = MaskLayer((16, 16), 4), {**SETTINGS, "steps": 2}
    with pytest.raises(InputError, match="Apart: its image does not depend on the mask; it must not detach, or mask_learning_rate=0"):
        train_network(Apart(of_mask=False), measured, layer, **settings)
    assert train_network(Apart(of_mask=False), measured, layer, mask_learning_rate=0, **settings).factor != 1
    with pytest.raises(InputError, match="Apart: its image does not depend on its weights; it must not detach, or learning_rate=0"):
        train_network(Apart(of_mask=True), measured, layer, **settings)
    through = Through(Apart(of_mask=False))
    through.network.train().requires_grad_()
    with pytest.raises(InputError, match="Apart: its image does not depend on the mask"):
        Reconstructed(measured, through).loss_and_gradient([0], torch.ones(1, 16, 16))


def test_a_network_without_weights_lets_a_mask_learn(measured):
    layer, settings = MaskLayer((16, 16), 4), {**SETTINGS, "steps": 2}
    before = layer.theta.detach().clone()
    model = train_network(Filled(), measured, layer, **settings)
    assert not torch.equal(layer.theta, before) and model.norm.num_batches_tracked == 2
    settings["learning_rate"] = 0
    assert train_network(Filled(), measured, layer, **settings).norm.num_batches_tracked == 0
    with pytest.raises(InputError, match="nothing is to be learnt"):
        train_network(Filled(), measured, torch.ones(16, 16), **settings)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_trainings_learn_where_gradients_are_switched_off(measured, context):
    model = network()
    with context():
        trained = train_network(model, measured, torch.ones(16, 16), steps=2, **SETTINGS)
    expected = train_network(network(), measured, torch.ones(16, 16), steps=2, **SETTINGS)
    assert all(torch.equal(one, other) for one, other in zip(trained.parameters(), expected.parameters(), strict=True))


def test_a_layer_that_is_a_part_of_the_network_has_its_own_learning_rate(measured):
    """It moves as one that is none, and with a rate of 0 not at all."""

    class Holding(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.factor = layer, torch.nn.Parameter(torch.ones(()))

        def forward(self, samples, mask, encoding):
            return encoding.adjoint(samples * mask) * self.factor

    for rate in (0, 0.1):
        apart, held = MaskLayer((16, 16), 4), MaskLayer((16, 16), 4)
        start = held.theta.detach().clone()
        for layer, part in ((apart, torch.nn.Identity()), (held, held)):
            train_network(Holding(part), measured, layer, steps=3, mask_learning_rate=rate, **SETTINGS)
        assert torch.equal(apart.theta, held.theta) and torch.equal(held.theta, start) == (rate == 0)
    frozen = Holding(held)
    frozen.factor.requires_grad_(False)
    train_network(frozen, measured, held, steps=3, **SETTINGS)
    assert frozen.factor != 1


def test_an_unrolled_network_is_of_single_precision_whatever_pytorch_makes_by_default(measured):
    torch.set_default_dtype(torch.float64)
    try:
        train_network(network(), measured, torch.ones(16, 16).bool(), steps=1, **SETTINGS)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_empty_slice_is_named(measured):
    images = measured.images.clone()
    images[2] = 0
    with pytest.raises(InputError, match="is 0 everywhere, so that no relative error"):
        train_network(network(), replace(measured, images=images), torch.ones(16, 16).bool(), steps=4, **SETTINGS)


class Scaled(torch.nn.Module):
    """One weight, and the masks that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.masks = torch.nn.Parameter(torch.tensor(0.5)), []

    def forward(self, samples: torch.Tensor, mask: torch.Tensor, encoding: Coils) -> torch.Tensor:
        self.masks.append(mask)
        return self.factor * encoding.adjoint(samples * mask)


def test_the_loss_is_the_relative_1_norm_and_rates_fall_along_a_cosine(measured):
    clean, mask = replace(measured, noise=0.0), torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    found = train_network(Scaled(), clean, mask, steps=3, **SETTINGS | {"batch_size": 4}).factor.detach()
    images = clean.encoding(range(4)).adjoint(clean.samples(range(4)) * mask)
    factor, mean, square = torch.tensor(0.5, requires_grad=True), 0.0, 0.0
    for step in range(3):
        errors = (factor * images - clean.images[:, 0]).abs().sum((-2, -1)) / clean.images[:, 0].abs().sum((-2, -1))
        [slope] = torch.autograd.grad(errors.mean(), factor)
        mean, square = 0.9 * mean + 0.1 * float(slope), 0.999 * square + 0.001 * float(slope) ** 2
        move = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.999 ** (step + 1))) ** 0.5 + 1e-8)
        factor = (factor - 1e-2 * (1 + math.cos(math.pi * step / 3)) / 2 * move).detach().requires_grad_()
    assert float(found) == pytest.approx(float(factor.detach()), abs=1e-6) and abs(float(found) - 0.5) > 5e-3


def test_each_slice_has_one_of_the_masks(measured):
    one = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    network = train_network(Scaled(), measured, torch.stack([one, ~one]), steps=4, **SETTINGS | {"batch_size": 4})
    given = torch.cat(network.masks)[:, 0]
    kinds = [bool(mask.equal(one)) for mask in given]
    assert given.shape == (16, 16, 16) and 4 <= sum(kinds) <= 12 and all(mask.equal(one) or mask.equal(~one) for mask in given)


def test_noise_is_drawn_for_every_batch(measured):
    class Watching(Scaled):
        def forward(self, samples, mask, encoding):
            seen.append(samples)
            return super().forward(samples, mask, encoding)

    seen, drawn = [], []
    train_network(Watching(), measured, torch.ones(16, 16, dtype=torch.bool), steps=3, **SETTINGS | {"batch_size": 4})
    for batch in seen:
        noise = [None] * 4
        for samples in batch:
            alike = [float((samples * clean.conj()).sum().abs() / clean.norm()) for clean in measured.samples(range(4))]
            number = alike.index(max(alike))
            clean = measured.samples([number])[0]
            unit = 2.0 ** torch.round(torch.log2(clean.norm() / samples.norm()))  # a slice is divided by its own power of two
            noise[number] = unit * samples - clean
        drawn.append(torch.stack(noise))  # of every slice once
        assert float(drawn[-1].abs().square().mean().sqrt()) == pytest.approx(0.01, rel=0.05)
    assert not torch.equal(drawn[0], drawn[1]) and abs(float((drawn[0] * drawn[1].conj()).mean().abs())) < 1e-5


def test_the_mask_moves_with_momentum_and_a_rate_that_falls_along_a_cosine(measured):
    """Written out: v = 0.9 v + g / max |g|, theta - rate (1 + cos(pi k / 3)) / 2 v, projected."""
    clean, start = replace(measured, noise=0.0), torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    layer, other = (MaskLayer((16, 16), 4, start=start, seed=3) for _ in range(2))
    frozen = Scaled().requires_grad_(False)
    given = SETTINGS | {"batch_size": 4, "learning_rate": 0}
    train_network(frozen, clean, layer, steps=3, mask_learning_rate=0.1, **given)
    samples, speed = clean.samples(range(4)), 0.0
    encoding, targets = clean.encoding(range(4)), clean.images[:, 0]
    for step in range(3):
        mask = other.train().sample().detach().requires_grad_()
        images = 0.5 * encoding.adjoint(samples * mask)
        errors = (images - targets).abs().sum((-2, -1)) / targets.abs().sum((-2, -1))
        [slope] = torch.autograd.grad(errors.mean(), mask)
        speed = 0.9 * speed + slope / slope.abs().max()
        with torch.no_grad():
            other.theta -= 0.1 * (1 + math.cos(math.pi * step / 3)) / 2 * speed
        other.project()
    torch.testing.assert_close(layer.theta.detach(), other.theta.detach(), rtol=1e-4, atol=1e-5)
    assert float((layer.theta.detach() - MaskLayer((16, 16), 4, start=start).theta.detach()).abs().max()) > 0.05
