"""An unrolled network: gradients against finite differences, what it makes of all samples, its scale, and its files."""

from __future__ import annotations

import pytest
import torch
from reference import gradient, noise

import prom
from prom import InputError
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.reconstruction import unrolled
from prom.reconstruction.sense import Sense
from prom.reconstruction.unrolled import Unrolled

SIZE = (17, 16)


def lively(**settings) -> Unrolled:
    """A network in double precision whose last layer is not 0."""
    network = Unrolled(0.1, **{"cascades": 2, "iterations": 3, "features": (4,) * 6} | settings).double()
    torch.nn.init.normal_(network.unet.final_conv.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return network


def case(images: int = 1) -> tuple[torch.Tensor, torch.Tensor, Coils]:
    """Samples of three coils, weights of the samples, and the encoding, in double precision."""
    encoding = Coils(simulated(3, SIZE).to(torch.complex128))
    weights = torch.rand(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.6 + 0.2
    return encoding.forward(noise(images, *SIZE)), weights, encoding


@pytest.mark.parametrize("what", ["mask", "samples", "weight"])
def test_autograd_is_right_about_mask_samples_and_weights(what):
    network, (samples, mask, encoding) = lively(), case()
    goal = noise(*SIZE, seed=3)

    def loss(at):
        with torch.no_grad():
            network.log_weight.copy_(at if what == "weight" else torch.tensor(0.3))
        return error(samples + at if what == "samples" else samples, at if what == "mask" else mask)

    def error(samples, mask):
        return (network(samples, mask, encoding) - goal).abs().square().mean()

    at = {"mask": mask, "samples": torch.zeros(SIZE, dtype=torch.float64), "weight": torch.tensor(0.3, dtype=torch.float64)}[what]
    mover = network.log_weight if what == "weight" else at.clone().requires_grad_()
    value = loss(0.3) if what == "weight" else loss(mover)
    (found,) = torch.autograd.grad(value, mover)
    gradient(lambda place: loss(place).detach(), found, at, tolerance=1e-5)


def test_untrained_it_is_sense_whose_prior_fades():
    """Nothing left to add: from the least-squares image the second step goes nowhere; and of all samples it returns the image."""
    samples, mask, encoding = case()
    network = Unrolled(1e-3, cascades=4, iterations=200).double()
    image = encoding.adjoint(samples)
    torch.testing.assert_close(network(samples, torch.ones(SIZE), encoding), image, rtol=1e-4, atol=1e-4)
    once, _ = Sense(1e-3, 200)(samples, mask, encoding)
    rest = [(mask.sqrt() * (samples - encoding.forward(x))).norm() for x in (once, network(samples, mask, encoding))]
    assert rest[1] < rest[0]


def test_of_images_it_has_the_penalty_of_sense():
    data = prom.load("mni_brain", subjects=1, slices=[72, 92], size=32, coils=4, phase=True, noise=0.01)
    network = Unrolled.of(data, cascades=3)
    torch.testing.assert_close(network.penalty, Sense.of(data).penalty.float())
    assert network.cascades == 3 and network.penalty.shape == (32, 32)


def test_it_is_its_two_steps_one_after_the_other():
    network, (samples, mask, encoding) = lively(cascades=2, iterations=60), case()
    image = Sense(0.1, 60)(samples, mask, encoding)[0]
    size = image.abs().mean(dim=(-2, -1), keepdim=True)
    for _ in range(2):
        found = network.unet(torch.view_as_real(image / size).movedim(-1, 1)).movedim(1, -1)
        image = image + size * torch.view_as_complex(found.contiguous())
        image = image + Sense(0.1, 60)(samples - encoding.forward(image), mask, encoding)[0]
    torch.testing.assert_close(network(samples, mask, encoding), image, rtol=1e-4, atol=1e-5)


def test_samples_times_a_number_give_the_image_times_it():
    network, (samples, mask, encoding) = lively().float(), case(images=2)
    samples, mask, encoding = samples.to(torch.complex64), mask.float(), Coils(encoding.maps.to(torch.complex64))
    found = network(samples, mask, encoding)
    assert torch.equal(network(32 * samples, mask, encoding), 32 * found)
    factors = torch.tensor([3.0, 0.01])[:, None, None]  # of each image its own
    expected = factors * found
    torch.testing.assert_close(network(factors.unsqueeze(-3) * samples, mask, encoding), expected, rtol=1e-3, atol=1e-4)


def test_many_images_and_masks_at_once_are_each_alone():
    network, (samples, _, encoding) = lively(), case(images=2)
    masks = (torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    found = network(samples.unsqueeze(1), masks, encoding)
    assert found.shape == (2, 3, *SIZE)
    torch.testing.assert_close(found[1, 2], network(samples[1], masks[2, 0], encoding))


def test_nothing_measured_gives_nothing_and_gradients_are_finite():
    network, (samples, mask, encoding) = lively(), case()
    for measured, weights in ((samples, 0 * mask), (0 * samples, mask)):
        at = weights.clone().requires_grad_()
        found = network(measured, at, encoding)
        found.abs().square().sum().backward()
        assert not found.detach().abs().gt(1e-6).any() and at.grad.isfinite().all()
        assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="penalty"):
        Unrolled(0.0)
    with pytest.raises(InputError, match="must be 6 numbers"):
        Unrolled(0.1, features=(8, 8))
    with pytest.raises(InputError, match="sides of at least 16"):
        Unrolled(0.1)(torch.zeros(1, 8, 32) + 0j, torch.ones(8, 32), Coils(torch.ones(1, 8, 32) + 0j))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    network = Unrolled(torch.rand(SIZE) + 0.1, cascades=1, features=(4,) * 6, seed=5)
    network.save(path := tmp_path_factory.mktemp("networks") / "net.pt")
    return network, path


def test_a_file_gives_the_network_back(saved):
    network, path = saved
    again = unrolled.load(path)
    assert again.state_dict().keys() == network.state_dict().keys() and not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert (again.cascades, again.iterations, again.features) == (1, 10, [4] * 6)
    again.double().save(path.with_name("double.pt"))
    assert torch.equal(unrolled.load(path.with_name("double.pt")).log_weight, network.log_weight)


CHANGES = {
    "another format": (lambda said: said.update(format="prom network 1"), "in the format"),
    "a program": (lambda said: said["settings"].update(cascades=print), "is not a network file"),
    "huge features": (lambda said: said["settings"].update(features=[4096] * 6), "weights"),
    "no cascade": (lambda said: said["settings"].update(cascades=0), "cascades"),
    "NaN weights": (lambda said: said["weights"]["log_weight"].fill_(torch.nan), "NaN or infinite"),
    "penalty 0": (lambda said: said["weights"]["penalty"].zero_(), "penalty"),
    "missing weights": (lambda said: said["weights"].pop("log_weight"), "another network"),
    "no penalty": (lambda said: said["weights"].pop("penalty"), "penalty"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_files_are_not_believed(saved, tmp_path, what):
    said = torch.load(saved[1], weights_only=True)
    change, message = CHANGES[what]
    change(said)
    torch.save(said, tmp_path / "net.pt")
    with pytest.raises(InputError, match=message) as caught:
        unrolled.load(tmp_path / "net.pt")
    assert "\n" not in str(caught.value)
