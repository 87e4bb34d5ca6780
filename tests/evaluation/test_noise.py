"""The g-factor against the matrices that unfold equispaced lines, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from prom import InputError
from prom.evaluation.noise import g_factor
from prom.kspace.coils import simulated
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.zero_filled import ZeroFilled

SIZE, EVERY, REPLICAS = (12, 24), 3, 300
MAPS = simulated(6, SIZE, distance=1.5)


def columns(every: int) -> torch.Tensor:
    """Equispaced, with DC."""
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, SIZE[1] // 2 % every :: every] = True
    return mask


def unfolded(every: int, ridge: float) -> torch.Tensor:
    """Pruessmann's g: every pixel is folded onto ``every`` pixels of its row, which small matrices take apart."""
    apart = SIZE[1] // every
    folded = MAPS.to(torch.complex128).unflatten(2, (every, apart)).permute(1, 3, 0, 2)  # (row, place, coil, pixel)
    normal = folded.mH @ folded / every
    inverse = torch.linalg.inv(normal + ridge * torch.eye(every))
    under = (inverse @ normal @ inverse).diagonal(dim1=-2, dim2=-1).real  # its covariance, for noise of variance 1
    power = MAPS.abs().double().square().sum(dim=0)
    full = power / (power + ridge) ** 2
    return (under.permute(0, 2, 1).flatten(1) / full / every).sqrt()


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
def test_it_is_that_of_the_unfolding_matrices(ridge):
    expected = unfolded(EVERY, ridge)
    found = g_factor(Sense(ridge, iterations=60), columns(EVERY), MAPS, REPLICAS)
    assert found.dtype == torch.float32 and found.shape == SIZE
    error = found / expected - 1
    assert error.abs().max() < 0.2 and error.square().mean().sqrt() < 0.05 and error.mean().abs() < 0.01
    assert expected.max() / expected.min() > 1.2  # there is a pattern to be found


def test_regularisation_lowers_it():
    weak, strong = (g_factor(Sense(ridge), columns(EVERY), MAPS, 20) for ridge in (1e-5, 0.1))
    assert (strong < weak).double().mean() > 0.99 and weak.mean() > 1


def test_zero_filling_loses_noise_with_the_samples():
    """Of white noise in one even coil 1 / R of the variance is left: g = 1 / R, for any mask."""
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.3
    found = g_factor(ZeroFilled(), mask, torch.ones(1, *SIZE, dtype=torch.complex64), 400)
    assert float(found.mean()) == pytest.approx(float(mask.float().mean()), rel=0.01)


def test_it_is_0_where_no_coil_sees_and_the_same_for_the_same_seed():
    maps = MAPS.clone()
    maps[:, :4] = 0
    first, again, other = (g_factor(Sense(0.01), columns(2), maps, 4, seed) for seed in (0, 0, 1))
    assert (first[:4] == 0).all() and (first[4:] > 0).all() and first.isfinite().all()
    assert first.equal(again) and not first.equal(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reconstruction": Sparse()}, "Sparse: is not linear"),
        ({"mask": torch.zeros(SIZE, dtype=torch.bool)}, "measures nothing"),
        ({"mask": torch.ones(4, 4, dtype=torch.bool)}, "does not fit"),
        ({"replicas": 1}, "replicas 1"),
    ],
)
def test_what_has_no_g_factor(change, message):
    with pytest.raises(InputError, match=message):
        g_factor(**({"reconstruction": Sense(0.01), "mask": columns(2), "maps": MAPS} | change))


def test_a_reconstruction_that_returns_its_image_alone_is_refused():
    class Alone:
        linear = True

        def __call__(self, *given):
            return Sense(1e-3)(*given)[0]

    with pytest.raises(InputError, match="Alone: must return an image and the way back"):
        g_factor(Alone(), columns(EVERY), MAPS, 4)
    with pytest.raises(InputError, match="Sense: is a class"):
        g_factor(Sense, columns(EVERY), MAPS, 4)
