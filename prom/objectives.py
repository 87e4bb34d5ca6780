"""What a mask is judged by. An objective holds the data and returns loss and gradient with respect to masks.

Every objective is called with the indices of B images and M masks and judges all B x M pairs: with one mask that is "one mask shared by
the batch", with one image it is "L samples for one image" (Algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from prom.errors import InputError, unknown
from prom.fourier import fft2_native, to_centred, to_native

ImageCriterion = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """What :func:`prom.optimize` asks of an objective."""

    curvature: Tensor | None  # (H, W): d2L/dm2 of the expected loss, for recipes that use it; None where there is none

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over all pairs, and its gradient (M, H, W) with respect to the masks (M, H, W)."""


class MagnitudeMSE:
    r"""The paper's reconstruction loss: mean over images, masks and pixels of :math:`(|F^{-1}(x_k \odot m)| - |x|)^2`.

    With :math:`r = F^{-1}(x_k \odot m)`, B images, M masks and n = B M C H W terms in the mean, the gradient is

    .. math:: \partial L / \partial m_i = \frac{2}{n} \sum \mathrm{Re}\big( \overline{x_{k,i}} \; F[(|r| - |x|)\, r / |r|]_i \big),

    one Fourier transform there and one back per pair. Where r = 0 its phase is taken as 0, as PyTorch does.

    Parameters
    ----------
    images
        ``(N, C, H, W)`` float32 or complex64, in any unit: the loss has its square.
    device
        Where to work. On a CPU image by image, so that a block stays in cache; on a GPU the whole batch at once.

    >>> objective = MagnitudeMSE(torch.rand(3, 1, 8, 8))
    >>> loss, gradient = objective([0, 2], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-12), gradient.shape                   # a full mask reconstructs the image
    (True, torch.Size([1, 8, 8]))
    """

    def __init__(self, images: Tensor, device: torch.device | str = "cpu") -> None:
        # Worked on in a unit that makes the largest value 1 to 2, so that squares neither vanish nor overflow, whatever the scanner's
        # unit. A power of two: dividing by it, and multiplying the results by its square, rounds nothing.
        peak = float(images.abs().max())
        self.unit = 2.0 ** math.floor(math.log2(peak)) if peak > 0 else 1.0
        self.images = to_native(images.abs() / self.unit).to(device)
        self.kspace = fft2_native(images.to(device) / self.unit)

    @cached_property
    def curvature(self) -> Tensor:
        r""":math:`h_i = \mathrm{mean} |x_{k,i}|^2 / (H W)`: the Gauss-Newton second derivative, with the phase averaged out."""
        power = torch.zeros(self.kspace.shape[-2:], device=self.kspace.device)
        for kspace in self.kspace:  # image by image: the powers of all of them would be another copy of the data
            power += (kspace.real.square() + kspace.imag.square()).mean(dim=0)
        return to_centred(power * (self.unit**2 / (len(self.kspace) * power.numel())))

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = to_native(masks)
        blocks = [slice(i, i + 1) for i in indices] if masks.device.type == "cpu" else [list(indices)]
        loss, gradient = masks.new_zeros(()), torch.zeros_like(masks)
        for block in blocks:
            block_loss, block_gradient = self._block(self.kspace[block], self.images[block], masks)
            loss += block_loss
            gradient += block_gradient
        terms = len(indices) * len(masks) * self.images[0].numel()
        return loss * (self.unit**2 / terms), to_centred(gradient * (2 * self.unit**2 / terms))

    @staticmethod
    def _block(kspace: Tensor, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of squared errors, and half its gradient, of (B, C, H, W) data under (M, H, W) masks."""
        kspace = kspace.unsqueeze(1)
        reconstruction = torch.fft.ifft2(kspace * masks[:, None], norm="ortho")  # (B, M, C, H, W)
        magnitude = torch.addcmul(reconstruction.real.square(), reconstruction.imag, reconstruction.imag).sqrt_()  # twice as fast as abs
        error = magnitude - images.unsqueeze(1)
        loss = error.square().sum()
        factor = error.div_(magnitude.clamp_(min=1e-30))  # where r = 0 the product with r stays 0
        back = torch.fft.fft2(reconstruction.mul_(factor), norm="ortho")
        product = torch.addcmul(back.real * kspace.real, back.imag, kspace.imag)  # Re(conj(x_k) F[...])
        return loss, product.sum(dim=(0, 2))


class ImageLoss:
    """Any differentiable loss between magnitude images, with the gradient by autograd.

    ``criterion(x_hat, x)`` receives two ``(P, C, H, W)`` float32 batches, the zero-filled and the fully sampled magnitude, and returns
    their mean loss as a scalar: ``torch.nn.functional.l1_loss``, ``monai.losses.SSIMLoss(2)``, your own.

    >>> objective = ImageLoss(torch.rand(3, 1, 8, 8), torch.nn.functional.l1_loss)
    >>> objective([0, 1], torch.ones(2, 8, 8))[1].shape
    torch.Size([2, 8, 8])
    """

    curvature = None

    def __init__(self, images: Tensor, criterion: ImageCriterion, device: torch.device | str = "cpu") -> None:
        self.images = images.abs().to(device)
        self.kspace = fft2_native(images.to(device))
        self.criterion = criterion

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        indices = list(indices)
        masks = masks.detach().requires_grad_()
        with torch.enable_grad():
            masked = self.kspace[indices].unsqueeze(1) * to_native(masks)[:, None]  # (B, M, C, H, W)
            reconstruction = to_centred(torch.fft.ifft2(masked, norm="ortho").abs())
            target = self.images[indices].unsqueeze(1).expand_as(reconstruction)
            loss = self.criterion(reconstruction.flatten(0, 1), target.flatten(0, 1))
            (gradient,) = torch.autograd.grad(loss, masks)
        return loss.detach(), gradient


OBJECTIVES = ("magnitude_mse",)


def make(objective: str | ImageCriterion, images: Tensor, device: torch.device | str) -> Objective:
    """The objective called ``objective``, or the one that a function ``(x_hat, x) -> loss`` defines, on these images.

    Raises
    ------
    InputError
        Where the name is unknown, or the argument is neither a name nor a function.
    """
    if callable(objective):
        return ImageLoss(images, objective, device)
    if not isinstance(objective, str):
        raise InputError(f"objective {objective!r}: must be a name ({', '.join(OBJECTIVES)}) or a function (x_hat, x) -> loss")
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    return MagnitudeMSE(images, device)
