"""Zero-filling: the image with its own phase, and its way back as a gradient."""

from __future__ import annotations

import pytest
import reference
import torch
from reference import noise

from prom.errors import InputError
from prom.kspace.encoding import Fourier, FourierUpToPhase
from prom.reconstruction.zero_filled import ZeroFilled, undersample


@pytest.mark.parametrize("encoding", [Fourier((6, 7)), FourierUpToPhase((6, 7))])
def test_the_way_back_is_the_gradient(encoding):
    """Of the squared distance to another image, whose derivative by the image is twice the difference."""
    samples, target = encoding.forward(noise(6, 7)), noise(6, 7, seed=1)
    mask = noise(6, 7, seed=2, dtype=torch.float64)

    def loss(mask: torch.Tensor) -> torch.Tensor:
        return (ZeroFilled()(samples, mask, encoding)[0] - target).abs().square().sum()

    image, pullback = ZeroFilled()(samples, mask, encoding)
    reference.gradient(loss, pullback(2 * (image - target)), mask)


def test_a_complex_image_comes_out_with_its_own_phase():
    image = noise(5, 8)
    encoding = Fourier((5, 8))
    found, _ = ZeroFilled()(encoding.forward(image), torch.ones(5, 8), encoding)
    torch.testing.assert_close(found, image)
    torch.testing.assert_close(undersample(image, torch.ones(5, 8)), image.abs())
    with pytest.raises(InputError, match=r"mask \(8, 5\): does not fit an image of shape \(5, 8\)"):
        undersample(image, torch.ones(8, 5))
