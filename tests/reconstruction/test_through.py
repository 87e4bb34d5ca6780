"""Networks as reconstructions: their gradients are those of known formulas, and masks are scored and improved through them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference import noise
from torch import nn

import prom
from prom import InputError, SliceDataset
from prom.engine import network_files
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils, FourierUpToPhase
from prom.learn.exchange import exchange
from prom.objectives import whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense
from prom.reconstruction.through import Through
from prom.reconstruction.zero_filled import ZeroFilled

SIZE = (8, 7)


class Known(nn.Module):
    """A reconstruction that has a formula for its gradient, as a network; with a weight of 1."""

    def __init__(self, known) -> None:
        super().__init__()
        self.known, self.one = known, nn.Parameter(torch.ones(()))

    def forward(self, samples, mask, encoding):
        return self.one * self.known(samples, mask, encoding)[0]


@pytest.fixture(scope="module")
def measured(blobs) -> SliceDataset:
    """Six slices, seen by four coils."""
    few = blobs.select(range(6))
    return replace(few, images=few.images + 0j, sensitivities=simulated(4, few.shape), labels=None)


@pytest.mark.parametrize("known", [ZeroFilled(), Sense(0.3, iterations=300, tolerance=1e-13)], ids=["zero-filled", "sense"])
@pytest.mark.parametrize("tracked", [True, False])
def test_the_way_back_is_that_of_the_formula(known, tracked):
    encoding, slope = Coils(noise(3, *SIZE)), noise(2, 2, *SIZE, seed=2)
    samples = encoding.forward(noise(2, 1, *SIZE, seed=1))
    masks = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    with torch.set_grad_enabled(tracked):
        found, pullback = Through(Known(known))(samples, masks, encoding)
    expected, formula = known(samples, masks, encoding)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pullback(slope).sum(dim=-3), formula(slope).sum(dim=-3))
    alone, back = Through(Known(known))(samples[0, 0], masks[1, 0], encoding)
    torch.testing.assert_close(alone, expected[0, 1])
    torch.testing.assert_close(back(slope[0, 1])[0], formula(slope)[0, 1].sum(dim=0))


def test_autograd_goes_on_to_a_mask_that_is_being_learnt():
    encoding, mask = Coils(noise(3, *SIZE)), torch.ones(SIZE, dtype=torch.float64, requires_grad=True)
    samples = encoding.forward(noise(*SIZE, seed=1))
    Through(Known(ZeroFilled()))(samples, mask, encoding)[0].abs().sum().backward()
    found = mask.grad.clone()
    (encoding.adjoint(samples * mask)).abs().sum().backward()
    torch.testing.assert_close(found, mask.grad - found)


def test_masks_are_scored_and_improved_through_a_network(measured):
    sense, network = Sense(1e-2, iterations=15), Through(Known(Sense(1e-2, iterations=15)))
    objective = Reconstructed(measured, network, criterion="psnr")
    start = prom.baselines.gaussian(measured, 4)
    better = prom.polish(start, measured, objective=objective, evaluations=6, device="cpu")
    assert int(better.sum()) == int(start.sum())
    assert whole_loss(objective, range(6), better.float()) < whole_loss(objective, range(6), start.float())
    lines = torch.zeros(32, 32, dtype=torch.bool)
    lines[:, 12:16] = True
    assert int(exchange(lines, objective, range(2))[0].sum()) == 4
    scores = [prom.evaluate(better, measured, reconstruction=by)["psnr"] for by in (sense, network)]
    torch.testing.assert_close(*(torch.tensor(score) for score in scores))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.jit")  # users still have such networks
def test_provenance_names_the_network_and_its_weights():
    one, two = Through(Known(ZeroFilled())), Through(Known(ZeroFilled()))
    assert one.describe() == two.describe() and one.describe()["reconstruction"] == "Known"
    nn.init.zeros_(two.network.one)
    assert one.describe() != two.describe()
    layers = [nn.Sequential(Known(ZeroFilled()), one) for one in (nn.ReLU(), nn.Tanh())]  # without weights of their own
    assert len({str(Through(one).describe()) for one in layers}) == 2
    plain = [nn.Conv2d(1, 1, 3).eval() for _ in range(2)]
    frozen = [nn.Sequential(torch.jit.freeze(torch.jit.script(one))) for one in (*plain, *plain)]
    assert len({network_files.fingerprint(one, "") for one in frozen}) == 2  # in a network of one's own, and whoever froze it

    class Complex(nn.Module):
        def __init__(self, maps: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("maps", maps)

    class Inside(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.numbers = {"key": [torch.full((2,), value)]}

        def forward(self, x: torch.Tensor, key: str = "key", place: int = 0) -> torch.Tensor:
            return x * self.numbers[key][place]

    frozen = [torch.jit.freeze(torch.jit.script(Inside(value).eval())) for value in (1.0, 3.0)]
    assert len({network_files.fingerprint(one, "") for one in frozen}) == 2

    maps = torch.rand(4, 4, dtype=torch.complex64)
    kinds = [network_files.fingerprint(Complex(one), "") for one in (maps, maps.conj(), maps.conj().resolve_conj())]
    assert kinds[0] != kinds[1] == kinds[2]

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.GRU(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gate(x)[0]

    assert len({network_files.fingerprint(torch.jit.freeze(torch.jit.script(Steps().eval())), "") for _ in range(2)}) == 2
    named = [Through(torch.jit.script(kind())).describe() for kind in (nn.ReLU, nn.Tanh)]
    assert named[0] != named[1] and named[0]["reconstruction"] == "ReLU"

    class More(nn.Linear):
        def get_extra_state(self):
            return {"scale": self.scale}

    more, found = More(2, 2), set()
    for place in range(3):
        more.scale = torch.zeros(2000)
        more.scale[1000] = min(place, 1)
        found.add(network_files.fingerprint(more, ""))
    assert len(found) == 2


def test_what_no_network_can_do_is_refused(measured):
    masks = torch.ones(1, 32, 32)
    with pytest.raises(InputError, match="images up to a phase"):
        Through(Known(ZeroFilled()))(torch.ones(1, 32, 32) + 0j, masks, FourierUpToPhase((32, 32)))

    class Magnitude(Known):
        def forward(self, *samples):
            return super().forward(*samples).abs()

    with pytest.raises(InputError, match=r"Magnitude: returned torch.float32 of \(1, 32, 32\)"):
        Reconstructed(measured, Through(Magnitude(ZeroFilled()))).loss([0], masks)


def test_a_network_has_gradients_in_inference_mode(measured):
    objective = Reconstructed(measured, Through(Known(Sense(1e-2, iterations=5))))
    mask = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = objective.loss_and_gradient([0, 1], mask)
    with torch.inference_mode():
        found = objective.loss_and_gradient([0, 1], mask + 0)
    for pair in zip(found, expected, strict=True):
        torch.testing.assert_close(*pair)
