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
from tqdm import tqdm

from prom.errors import InputError, unknown
from prom.fourier import fft2_native, to_centred, to_native

CHUNK = 32  # images transformed at once
CURVATURE_IMAGES = 2048  # enough for the curvature to 2 %, in seconds; a correction of the gradient needs no more

ImageCriterion = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """What :func:`prom.optimize` asks of an objective."""

    data: Measurements
    curvature: Tensor | None  # (H, W): d2L/dm2 of the expected loss, for recipes that use it; None where there is none

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over all pairs, and its gradient (M, H, W) with respect to the masks (M, H, W)."""


class Measurements:
    """Magnitude images and k-space of the data, in the transform's own layout, in a unit in which squares neither vanish nor overflow.

    Of images in memory both are kept. Of stored images, which do not fit, they are made when asked for: a transform takes less time
    than reading k-space, which is twice as large, from a disk.

    Parameters
    ----------
    images
        ``(N, C, H, W)`` float32 or complex64, in any unit: a tensor, or the stored images of a data set.
    device
        Where to keep and return them.
    keep
        Whether to keep both; by default where ``images`` is a tensor.

    Attributes
    ----------
    unit
        What the images were divided by, a power of two, so that nothing is rounded. The largest value (of stored images: among the
        first 32) becomes 1 to 2.

    >>> kspace, magnitude = Measurements(torch.ones(3, 1, 4, 4))[[0, 2]]
    >>> kspace.shape, kspace[0, 0, 0, 0].abs().item(), magnitude.max().item()    # everything is at DC, which comes first
    (torch.Size([2, 1, 4, 4]), 4.0, 1.0)
    """

    def __init__(self, images: Tensor, device: torch.device | str = "cpu", keep: bool | None = None) -> None:
        in_memory = isinstance(images, Tensor)
        peak = float((images if in_memory else images[:32]).abs().max())
        self.unit = 2.0 ** math.floor(math.log2(peak)) if peak > 0 else 1.0
        self.device = device
        self._source, self._kept = images, None
        if in_memory if keep is None else keep:
            self._kept = (torch.empty(images.shape, dtype=torch.complex64, device=device), torch.empty(images.shape, device=device))
            for start in range(0, len(images), CHUNK):  # piece by piece: the transform's copies would double the memory
                for kept, made in zip(self._kept, self._make(slice(start, start + CHUNK)), strict=True):
                    kept[start : start + CHUNK] = made

    def __len__(self) -> int:
        return len(self._source)

    @property
    def shape(self) -> torch.Size:
        """``(N, C, H, W)``."""
        return self._source.shape

    def __getitem__(self, block: slice | list[int]) -> tuple[Tensor, Tensor]:
        """K-space and magnitude images ``(B, C, H, W)`` of these entries."""
        return self._make(block) if self._kept is None else (self._kept[0][block], self._kept[1][block])

    def _make(self, block: slice | list[int]) -> tuple[Tensor, Tensor]:
        images = self._source[block].to(self.device) / self.unit
        return fft2_native(images), to_native(images.abs())

    def power(self, most: int | None = None) -> Tensor:
        """``(H, W)``, centred: the mean of :math:`|x_k|^2` over images and channels, in the squared unit of the images.

        ``most``: of no more images than this, evenly spaced.
        """
        total = torch.zeros(self._source.shape[-2:], device=self.device)
        chosen = torch.linspace(0, len(self) - 1, min(most or len(self), len(self)), dtype=torch.float64).long().tolist()
        for index in tqdm(chosen, desc="mean power spectrum", delay=2, disable=None, leave=False):
            kspace, _ = self[index : index + 1]  # image by image: the powers of all of them would be another copy of the data
            total += (kspace.real.square() + kspace.imag.square()).mean(dim=(0, 1))
        return to_centred(total * (self.unit**2 / len(chosen)))


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
        Where to work. On a CPU image by image and mask by mask, so that all of it stays in cache; on a GPU the whole batch at once.

    >>> objective = MagnitudeMSE(torch.rand(3, 1, 8, 8))
    >>> loss, gradient = objective([0, 2], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-12), gradient.shape                   # a full mask reconstructs the image
    (True, torch.Size([1, 8, 8]))
    """

    def __init__(self, images: Tensor, device: torch.device | str = "cpu") -> None:
        self.data = Measurements(images, device)

    @cached_property
    def curvature(self) -> Tensor:
        r""":math:`h_i = \mathrm{mean} |x_{k,i}|^2 / (H W)`: the Gauss-Newton second derivative, with the phase averaged out."""
        power = self.data.power(most=CURVATURE_IMAGES)
        return power / power.numel()

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = to_native(masks)
        loss, products = masks.new_zeros(()), torch.zeros_like(masks, dtype=torch.complex64)  # of real parts, and of imaginary parts
        if masks.device.type == "cpu":
            for index in indices:
                for kspace, image in zip(*(part.flatten(0, 1) for part in self.data[index : index + 1]), strict=True):
                    for mask, product in zip(masks, products, strict=True):
                        error, back = self._back(kspace, image, mask)
                        loss += error
                        torch.view_as_real(product).addcmul_(torch.view_as_real(back), torch.view_as_real(kspace))
        else:
            kspace, images = (part.flatten(0, 1).unsqueeze(1) for part in self.data[list(indices)])
            loss, back = self._back(kspace, images, masks)
            products = torch.view_as_complex((torch.view_as_real(back) * torch.view_as_real(kspace)).sum(dim=0))
        terms = len(indices) * len(masks) * math.prod(self.data.shape[1:])
        unit = self.data.unit**2 / terms
        return loss * unit, to_centred((products.real + products.imag).mul_(2 * unit))

    @staticmethod
    def _back(kspace: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of squared errors and :math:`F[(|r| - |x|) r / |r|]`, of arrays that broadcast. In place: memory costs more."""
        reconstruction = torch.fft.ifft2(kspace * mask, norm="ortho")
        magnitude = reconstruction.real * reconstruction.real  # faster than abs
        magnitude.addcmul_(reconstruction.imag, reconstruction.imag).sqrt_()
        error = magnitude - image
        loss = torch.dot(error.view(-1), error.view(-1))
        factor = error.div_(magnitude.clamp_(min=1e-30))  # where r = 0 the product with r stays 0
        return loss, torch.fft.fft2(reconstruction.mul_(factor), norm="ortho")


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
        self.data = Measurements(images, device)
        self.criterion = criterion

    def __call__(self, indices: Sequence[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        kspace, images = self.data[list(indices)]
        unit = self.data.unit  # the criterion is told the images as they are
        masks = masks.detach().requires_grad_()
        with torch.enable_grad():
            masked = (kspace * unit).unsqueeze(1) * to_native(masks)[:, None]  # (B, M, C, H, W)
            reconstruction = to_centred(torch.fft.ifft2(masked, norm="ortho").abs())
            target = to_centred(images * unit).unsqueeze(1).expand_as(reconstruction)
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
