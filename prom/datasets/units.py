"""The unit of images: a power of two near their peak, which they are divided by so that squares neither vanish nor overflow."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(peak: Tensor) -> Tensor:
    """The largest power of two that is at most ``peak``, elementwise; 1 where the peak is 0 or not finite.

    Dividing by a power of two changes no digit of a number, so that scores in usual units stay as they are.

    >>> unit(torch.tensor([1.0, 3.5, 1e-30, 0.0]))
    tensor([1.0000e+00, 2.0000e+00, 7.8886e-31, 1.0000e+00])
    """
    mantissa, _ = torch.frexp(peak)  # from 1/2 up to 1
    return torch.where((peak > 0) & peak.isfinite(), peak / (2 * mantissa), 1.0)
