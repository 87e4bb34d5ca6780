"""The paper's loss of a reconstruction, with its gradient as a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prom.engine.device import asynchronous
from prom.engine.threads import added, parallel
from prom.engine.transforms import plan
from prom.kspace.fourier import IMAGE_AXES
from prom.objectives.contract import Objective, check_masks
from prom.objectives.measurements import CURVATURE_IMAGES, Measurements

IMAGES_PER_SUM = 4  # images whose gradients a thread of a CPU adds up; a batch of 16 is work for 4 threads
USUAL = (1e-12, 1e12)  # units whose squares, and the small and large numbers that gradients are made of, float32 holds


class MagnitudeMSE(Objective):
    r"""The paper's reconstruction loss: mean over images, masks and pixels of :math:`(|F^{-1}(x_k \odot m)| - |x|)^2`.

    With :math:`r = F^{-1}(x_k \odot m)`, B images, M masks and n = B M C H W terms in the mean, the gradient is

    .. math:: \partial L / \partial m_i = \frac{2}{n} \sum \mathrm{Re}\big( \overline{x_{k,i}} \; F[(|r| - |x|)\, r / |r|]_i \big),

    one Fourier transform there and one back per pair. Where r = 0, ``r / |r|`` is taken as 0, as PyTorch does.

    Parameters
    ----------
    images
        ``(N, C, *samples)`` float32 or complex64, in any unit: the loss has its square. Where ``data.unit`` is below 1e-12 or above
        1e12, the square of which float32 hardly holds, the loss is that of the images divided by ``data.unit``, and ``loss_unit`` is
        what it has to be multiplied by; else ``loss_unit`` is 1.
    device
        Where to work. On a CPU pair by pair, so that all of it stays in cache, several images at once where PyTorch may use several
        threads; their number changes no bit of the result. On a GPU all pairs at once.
    axes
        Those that the Fourier transform goes over, counted from the last: of volumes ``(-3, -2, -1)``.

    >>> objective = MagnitudeMSE(torch.rand(3, 1, 8, 8))
    >>> loss, gradient = objective.loss_and_gradient([0, 2], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-12), gradient.shape                   # a full mask reconstructs the image
    (True, torch.Size([1, 8, 8]))
    """

    concurrent = True

    def __init__(self, images: Tensor, device: torch.device | str = "cpu", axes: tuple[int, ...] = IMAGE_AXES) -> None:
        self.data = Measurements(images, device, axes=axes)
        square = self.data.unit**2
        self._square = square if USUAL[0] <= self.data.unit <= USUAL[1] else 1.0
        self.loss_unit = square / self._square

    def curvature(self) -> Tensor:
        r""":math:`h_i = \mathrm{mean} |x_{k,i}|^2 / (H W)`: the Gauss-Newton second derivative, with the phase averaged out.

        Where no phase averages out, as at DC, and in dark images it is up to twice that. So what follows from it is a model of a sample's
        worth, whose sign can be wrong of a DC that is not measured (:mod:`prom.learn.centre`).
        """
        return self._curvature

    @cached_property
    def _curvature(self) -> Tensor:
        power = self.data.power(most=CURVATURE_IMAGES) * self._square
        return power / power.numel()

    def describe(self) -> dict[str, str]:
        return {"objective": "magnitude_mse"}

    def loss_and_gradient(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices if isinstance(indices, Tensor) else list(indices)
        check_masks(masks, self.data.samples, len(indices))
        masks = masks.detach().to(torch.promote_types(masks.dtype, torch.float32))  # compiled loops have no half precision
        loss, gradient = (self._at_once if asynchronous(masks) else self._one_by_one)(indices, masks.contiguous())
        pairs = masks.shape[-len(self.data.samples) - 1] * len(indices)
        unit = self._square / (pairs * math.prod(self.data.shape[1:]))
        return loss * unit, gradient.mul_(2 * unit * self._scale)

    @property
    def replayable(self) -> bool:
        """Whether a GPU may replay a call (:mod:`prom.engine.replay`): not where the images have to be read first."""
        return self.data.kept

    @property
    def _scale(self) -> float:
        """What makes a pair of transforms orthonormal, once for both: a library that scales each takes a tenth longer, a GPU half."""
        return 1 / math.sqrt(math.prod(self.data.shape[axis] for axis in self.data.axes))

    def _apart(self, masks: Tensor) -> bool:
        """Whether each image has masks of its own."""
        return masks.ndim == len(self.data.samples) + 2

    def _one_by_one(self, indices: list[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over pairs (and channels) of squared errors, and of half their gradients over the scale."""
        if self._apart(masks):  # each image has its own masks, and they their own gradients
            sums = parallel(lambda pair: self._sum(*pair), [([index], own) for index, own in zip(indices, masks, strict=True)])
            return torch.tensor(sum(loss for loss, _ in sums)), torch.stack([gradient for _, gradient in sums])
        blocks = [indices[start : start + IMAGES_PER_SUM] for start in range(0, len(indices), IMAGES_PER_SUM)]
        sums = parallel(lambda block: self._sum(block, masks), blocks)
        return torch.tensor(sum(loss for loss, _ in sums)), added([gradient for _, gradient in sums])

    def _sum(self, indices: list[int], masks: Tensor) -> tuple[float, Tensor]:
        from prom.engine.kernels import add_squared_errors, pairs

        loss, gradients = 0.0, torch.zeros_like(masks)
        room = torch.empty(masks.shape[1:], dtype=torch.complex64)
        transform = plan(room.shape, len(self.data.axes))
        fixed = masks.flatten(1).numpy(), np.float32(self._scale), pairs(room), gradients.flatten(1).numpy()
        for index in indices:
            loss = add_squared_errors(transform, *self.data.arrays(index), *fixed, loss)
        return loss, gradients

    def _at_once(self, indices: list[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        kspace, images = (part.unsqueeze(1) for part in self.data[indices])  # (B, 1, C, H, W), copies
        product = (kspace * self._scale) * masks.unsqueeze(-len(self.data.samples) - 1)  # (B, M, C, *samples)
        reconstruction = torch.fft.ifftn(product, dim=self.data.axes, norm="forward")  # neither transform scales
        error = reconstruction.abs().sub_(images)
        loss = torch.linalg.vector_norm(error).square()
        back = torch.fft.fftn(reconstruction.sgn_().mul_(error), dim=self.data.axes)  # r / |r|, 0 where r is 0
        gradient = (torch.view_as_real(back).mul_(torch.view_as_real(kspace))).sum(dim=(2, -1))  # (B, M, *samples)
        return loss, gradient if self._apart(masks) else gradient.sum(dim=0)
