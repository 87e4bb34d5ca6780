"""View sharing: k-space of each frame from the frames nearest in time, by the definition; there is no gradient."""

from __future__ import annotations

import pytest
import torch
from reference import noise

from prom import InputError, SliceDataset
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.trajectories import spokes
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named
from prom.reconstruction.view_sharing import ViewSharing

FRAMES, SIZE = 5, (4, 6)


def lent(samples: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """K-space ``(T, H, W)``, sample by sample."""
    found = torch.zeros_like(samples)
    for t, i, j in torch.cartesian_prod(*(torch.arange(n) for n in samples.shape)).tolist():
        measured = [other for other in range(FRAMES) if mask[other, i, j]]
        if measured:
            found[t, i, j] = samples[min(measured, key=lambda other: abs(other - t)), i, j]
    return found


def test_each_sample_is_of_the_nearest_frame_that_has_it():
    encoding = Coils(torch.ones(1, 1, *SIZE) + 0j, Fourier((FRAMES, *SIZE)))
    samples = noise(2, 1, FRAMES, *SIZE)
    masks = torch.rand(2, 1, FRAMES, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = torch.stack([encoding.fourier.adjoint(lent(one[0], mask[0])) for one, mask in zip(samples, masks, strict=True)])
    torch.testing.assert_close(ViewSharing()(samples, masks, encoding)[0], expected)
    torch.testing.assert_close(ViewSharing()(samples[0], masks, encoding)[0][0], expected[0])  # many masks of one scan
    torch.testing.assert_close(ViewSharing()(samples, masks[0, 0], encoding)[0][0], expected[0])  # and one mask of many
    still = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.5  # the same in all frames, and told in fewer axes
    for shorter, whole in ((still, still.expand(FRAMES, *SIZE)), (still[:1], still[:1].expand(FRAMES, *SIZE))):
        torch.testing.assert_close(ViewSharing()(samples, shorter, encoding)[0], ViewSharing()(samples, whole, encoding)[0])
        assert ViewSharing()(samples, shorter, encoding)[0].abs().amax(dim=(0, 2, 3)).min() > 0


def test_it_has_a_loss_and_no_gradient():
    data = SliceDataset("demo", "train", torch.rand(1, 1, FRAMES, *SIZE), ["a"], [0], kind="series")
    objective = Reconstructed(data, ViewSharing())
    assert objective.loss([0], torch.ones(1, FRAMES, *SIZE)) < 1e-10
    with pytest.raises(InputError, match="view-sharing: has no gradient"):
        objective.loss_and_gradient([0], torch.ones(1, FRAMES, *SIZE))


def test_off_the_grid_it_is_refused():
    data = SliceDataset("demo", "train", torch.rand(1, 1, FRAMES, 6, 6), ["a"], [0], kind="series").along(spokes(8, 6))
    with pytest.raises(InputError, match="reconstruction view-sharing: is for the grid, and demo is off it"):
        named("view-sharing", data)
    with pytest.raises(InputError, match="view-sharing: needs an encoding by Coils"):
        ViewSharing()(torch.ones(FRAMES, 6, 6) + 0j, torch.ones(FRAMES, 6, 6), Fourier((FRAMES, 6, 6)))
    with pytest.raises(InputError, match="view-sharing: is for samples on the grid"):
        ViewSharing()(data.samples([0])[0], torch.ones(FRAMES, 8, 6), data.encoding(0))
