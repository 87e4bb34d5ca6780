"""What a mask is judged by. An objective holds the data and returns loss and gradient with respect to masks.

Every objective is called with the indices of B images and masks: M masks that every image gets ("one mask shared by the batch" where M is
1), or M masks for each image ("L samples" of Algorithm 1). Either way it judges B x M pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom import distributed
from prom.errors import InputError, unknown
from prom.fourier import to_centred
from prom.threads import added, gathered, parallel

CHUNK = 32  # images transformed at once
GRAPH = 8  # images that autograd works on at once where the whole set is looked at: on a CPU 32 take twice as long each, through a U-Net
GRAPH_GPU = 64  # and on a GPU, which 8 do not fill
PIECE = 2  # images made ready at once: what a piece takes comes on top of the data
TOGETHER = 4  # images whose gradients a thread of a CPU adds up; a batch of 16 is work for 4 threads
CURVATURE_IMAGES = 2048  # enough for the curvature to 2 %, in seconds; a correction of the gradient needs no more

USUAL = (1e-12, 1e12)  # units whose squares, and the small and large numbers that gradients are made of, float32 holds

ImageCriterion = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """What :func:`prom.optimize` asks of an objective."""

    data: Measurements
    concurrent: bool  # whether several threads may call it at once
    curvature: Tensor | None  # (H, W): d2L/dm2 of the expected loss, for recipes that use it; None where there is none

    def __call__(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over all pairs, and its gradient with respect to the masks, ``(M, H, W)`` or ``(B, M, H, W)``."""


class Measurements:
    """Magnitude images and k-space of the data, in a unit in which squares neither vanish nor overflow.

    K-space is centred and that of the image as it lies in memory, as if the first pixel were the origin. So no shift is ever needed again:
    a mask multiplies k-space, to which the origin makes no difference, and the inverse transform of centred k-space is the image times
    a phase, which its magnitude does not have.

    Of images in memory both are kept; the magnitude is the image itself where that is one already. Of stored images, which do not fit,
    they are made when asked for: a transform takes less time than reading k-space, which is twice as large, from a disk.

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
    >>> kspace.shape, kspace[0, 0, 2, 2].abs().item(), magnitude.max().item()    # everything is at DC
    (torch.Size([2, 1, 4, 4]), 4.0, 1.0)
    """

    def __init__(self, images: Tensor, device: torch.device | str = "cpu", keep: bool | None = None) -> None:
        in_memory = isinstance(images, Tensor)
        peak = _largest(images if in_memory else images[:CHUNK])
        self.unit = 2.0 ** math.floor(math.log2(peak)) if peak > 0 else 1.0
        self.device = device
        self._source, self._kept, self._arrays = images, None, None
        if in_memory if keep is None else keep:
            kspace, magnitude = torch.empty(images.shape, dtype=torch.complex64, device=device), images
            alike = in_memory and self.unit == 1 and images.dtype == torch.float32 and images.device == kspace.device
            if not alike or images.min() < 0:
                magnitude = torch.empty(images.shape, device=device)
            for start in range(0, len(images), PIECE):  # piece by piece: the transform's copies would double the memory
                block = slice(start, start + PIECE)
                kspace[block], made = self._make(block)
                if magnitude is not images:
                    magnitude[block] = made
            self._kept = kspace, magnitude.contiguous()
            if not kspace.is_cuda:  # of the same memory
                self._arrays = torch.view_as_real(kspace).flatten(2).numpy(), self._kept[1].flatten(2).numpy()

    def __len__(self) -> int:
        return len(self._source)

    @property
    def kept(self) -> bool:
        """Whether k-space and magnitudes are in memory."""
        return self._kept is not None

    @property
    def shape(self) -> torch.Size:
        """``(N, C, H, W)``."""
        return self._source.shape

    def __getitem__(self, block: slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """K-space and magnitude images ``(B, C, H, W)`` of these entries."""
        return self._make(block) if self._kept is None else (self._kept[0][block], self._kept[1][block])

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """K-space as pairs ``(C, 2 H W)`` and magnitudes ``(C, H W)`` of one entry on a CPU, for :mod:`prom.kernels`."""
        if self._arrays:
            return self._arrays[0][index], self._arrays[1][index]
        kspace, magnitude = self._make(slice(index, index + 1))
        return torch.view_as_real(kspace[0]).flatten(1).numpy(), magnitude[0].flatten(1).numpy()

    def _make(self, block: slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        where = block.tolist() if isinstance(block, Tensor) else block
        images = self._source[where].to(self.device) / self.unit
        return to_centred(torch.fft.fft2(images, norm="ortho")), images.abs()

    def power(self, most: int | None = None) -> Tensor:
        """``(H, W)``, centred: the mean of :math:`|x_k|^2` over images and channels, in units of ``unit`` squared.

        ``most``: of no more images than this, evenly spaced.
        """
        total = torch.zeros(self._source.shape[-2:], device=self.device)
        chosen = evenly(len(self), most)
        for index in tqdm(chosen, desc="mean power spectrum", delay=2, disable=None, leave=False):
            kspace, _ = self[index : index + 1]  # image by image: the powers of all of them would be another copy of the data
            total += (kspace.real.square() + kspace.imag.square()).mean(dim=(0, 1))
        return total * (1 / len(chosen))


def _largest(images: Tensor) -> float:
    """The largest magnitude, without a copy of all of them."""
    return max(float(piece.abs().max()) for piece in images.split(PIECE))


class MagnitudeMSE:
    r"""The paper's reconstruction loss: mean over images, masks and pixels of :math:`(|F^{-1}(x_k \odot m)| - |x|)^2`.

    With :math:`r = F^{-1}(x_k \odot m)`, B images, M masks and n = B M C H W terms in the mean, the gradient is

    .. math:: \partial L / \partial m_i = \frac{2}{n} \sum \mathrm{Re}\big( \overline{x_{k,i}} \; F[(|r| - |x|)\, r / |r|]_i \big),

    one Fourier transform there and one back per pair. Where r = 0 its phase is taken as 0, as PyTorch does.

    Parameters
    ----------
    images
        ``(N, C, H, W)`` float32 or complex64, in any unit: the loss has its square. Where their peak is below 1e-12 or above 1e12, the
        square of which float32 hardly holds, the loss is that of the images divided by ``data.unit``, and ``loss_unit`` is what it has
        to be multiplied by; else ``loss_unit`` is 1.
    device
        Where to work. On a CPU pair by pair, so that all of it stays in cache, several images at once where PyTorch may use several
        threads; their number changes no bit of the result. On a GPU all pairs at once.

    >>> objective = MagnitudeMSE(torch.rand(3, 1, 8, 8))
    >>> loss, gradient = objective([0, 2], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-12), gradient.shape                   # a full mask reconstructs the image
    (True, torch.Size([1, 8, 8]))
    """

    concurrent = True

    def __init__(self, images: Tensor, device: torch.device | str = "cpu") -> None:
        self.data = Measurements(images, device)
        square = self.data.unit**2
        self._square = square if USUAL[0] <= self.data.unit <= USUAL[1] else 1.0
        self.loss_unit = square / self._square

    @cached_property
    def curvature(self) -> Tensor:
        r""":math:`h_i = \mathrm{mean} |x_{k,i}|^2 / (H W)`: the Gauss-Newton second derivative, with the phase averaged out."""
        power = self.data.power(most=CURVATURE_IMAGES) * self._square
        return power / power.numel()

    def __call__(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices if isinstance(indices, Tensor) else list(indices)
        loss, gradient = (self._on_gpu if masks.is_cuda else self._on_cpu)(indices, masks.contiguous())
        pairs = masks.shape[-3] * len(indices)
        unit = self._square / (pairs * math.prod(self.data.shape[1:]))
        return loss * unit, gradient.mul_(2 * unit * self._scale)

    @property
    def replayable(self) -> bool:
        """Whether a GPU may replay a call (:mod:`prom.replay`): not where the images have to be read first."""
        return self.data.kept

    @property
    def _scale(self) -> float:
        """What makes a pair of transforms orthonormal, once for both: a library that scales each takes a tenth longer, a GPU half."""
        return 1 / math.sqrt(math.prod(self.data.shape[-2:]))

    def _on_cpu(self, indices: list[int], masks: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over pairs (and channels) of squared errors, and of half their gradients over the scale."""
        if masks.ndim == 4:  # each image has its own masks, and they their own gradients
            sums = parallel(lambda pair: self._sum(*pair), [([index], own) for index, own in zip(indices, masks, strict=True)])
            return torch.tensor(sum(loss for loss, _ in sums)), torch.stack([gradient for _, gradient in sums])
        blocks = [indices[start : start + TOGETHER] for start in range(0, len(indices), TOGETHER)]
        sums = parallel(lambda block: self._sum(block, masks), blocks)
        return torch.tensor(sum(loss for loss, _ in sums)), added([gradient for _, gradient in sums])

    def _sum(self, indices: list[int], masks: Tensor) -> tuple[float, Tensor]:
        from prom.kernels import add_products, flat, masked, pairs, residual

        loss, gradients = 0.0, torch.zeros_like(masks)
        arrays = [(flat(mask), flat(gradient)) for mask, gradient in zip(masks, gradients, strict=True)]
        product = torch.empty(masks.shape[1:], dtype=torch.complex64)
        product_pairs = pairs(product)
        scale = np.float32(self._scale)
        for index in indices:
            for kspace, image in zip(*self.data.arrays(index), strict=True):  # channels
                for mask, gradient in arrays:
                    masked(kspace, mask, scale, product_pairs)
                    reconstruction = torch.fft.ifft2(product, norm="forward")  # neither transform scales
                    loss += residual(pairs(reconstruction), image)
                    add_products(kspace, pairs(torch.fft.fft2(reconstruction)), gradient)
        return loss, gradients

    def _on_gpu(self, indices: list[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        kspace, images = (part.unsqueeze(1) for part in self.data[indices])  # (B, 1, C, H, W), copies
        product = (kspace * self._scale) * masks.unsqueeze(-3)  # (B, M, C, H, W)
        reconstruction = torch.fft.ifft2(product, norm="forward")  # neither transform scales
        error = reconstruction.abs().sub_(images)
        loss = torch.linalg.vector_norm(error).square()
        back = torch.fft.fft2(reconstruction.sgn_().mul_(error))  # r / |r|, 0 where r is 0
        gradient = (torch.view_as_real(back).mul_(torch.view_as_real(kspace))).sum(dim=(2, -1))  # (B, M, H, W)
        return loss, gradient if masks.ndim == 4 else gradient.sum(dim=0)


class ImageLoss:
    """Any differentiable loss of the zero-filled magnitude image, with the gradient by autograd.

    ``criterion(x_hat, x)`` receives a ``(P, C, H, W)`` float32 batch of zero-filled magnitudes and the P targets, and returns their mean
    loss as a scalar. Targets are the fully sampled magnitudes (``torch.nn.functional.l1_loss``, ``monai.losses.SSIMLoss(2)``, your own),
    or entries of ``targets``, ``(N, ...)``: labels, say, for a loss *through a network* (Eq. 3 with a task, paper, section 4.4).

    >>> objective = ImageLoss(torch.rand(3, 1, 8, 8), torch.nn.functional.l1_loss)
    >>> objective([0, 1], torch.ones(2, 8, 8))[1].shape
    torch.Size([2, 8, 8])
    >>> network = torch.nn.Conv2d(1, 2, kernel_size=3, padding=1)    # any network of yours, frozen
    >>> labels = torch.randint(2, (3, 8, 8))
    >>> objective = ImageLoss(torch.rand(3, 1, 8, 8), lambda x, y: torch.nn.functional.cross_entropy(network(x), y), targets=labels)
    >>> objective([0, 2], torch.ones(1, 8, 8))[1].shape
    torch.Size([1, 8, 8])
    """

    curvature = None  # see prom.curvature
    concurrent = False  # nobody knows what the criterion keeps

    def __init__(
        self, images: Tensor, criterion: ImageCriterion, device: torch.device | str = "cpu", targets: Tensor | None = None
    ) -> None:
        self.data = Measurements(images, device)
        self.criterion = criterion
        self.targets = targets

    def __call__(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = masks.detach().requires_grad_()
        with torch.enable_grad(), gathered():
            loss = self.value(indices, masks)
            (gradient,) = torch.autograd.grad(loss, masks)
        return loss.detach(), gradient

    def value(self, indices: Sequence[int] | Tensor, masks: Tensor) -> Tensor:
        """The loss by itself, a scalar: through a network a third of the work."""
        indices = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        kspace, images = self.data[indices]
        unit = self.data.unit  # the criterion is told the images as they are
        masked = (kspace * unit).unsqueeze(1) * masks.unsqueeze(-3)  # (B, M, C, H, W)
        reconstruction = torch.fft.ifft2(masked, norm="ortho").abs()
        target = images * unit if self.targets is None else self.targets[indices].to(images.device)
        target = target.repeat_interleave(reconstruction.shape[1], dim=0)
        return self.criterion(reconstruction.flatten(0, 1), target)


def evenly(count: int, most: int | None) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spaced; all of them where ``most`` is None.

    >>> evenly(5, 3), evenly(3, None)
    ([0, 2, 4], [0, 1, 2])
    """
    return torch.linspace(0, count - 1, min(most or count, count), dtype=torch.float64).long().tolist()


def whole_set(judge: Objective, indices: range | list[int], mask: Tensor) -> tuple[float, Tensor]:
    """Mean loss of one float mask ``(H, W)`` over many images, and its gradient ``(H, W)``, a piece at a time to bound the memory.

    >>> judge = MagnitudeMSE(torch.rand(40, 1, 8, 8))
    >>> loss, gradient = whole_set(judge, range(40), torch.ones(8, 8))
    >>> loss < 1e-10, gradient.shape
    (True, torch.Size([8, 8]))
    """
    loss, gradient = mask.new_zeros((), dtype=torch.float64), torch.zeros_like(mask, dtype=torch.float64)
    size = CHUNK if judge.concurrent else _graph(mask)
    for start in distributed.share(range(0, len(indices), size)):
        chunk = indices[start : start + size]
        chunk_loss, chunk_gradient = judge(chunk, mask[None])
        loss += chunk_loss * (len(chunk) / len(indices))
        gradient += chunk_gradient[0] * (len(chunk) / len(indices))
    loss, gradient = distributed.total(loss, gradient)
    return float(loss), gradient.to(mask.dtype)


@torch.no_grad()
def whole_loss(judge: Objective, indices: range | list[int], mask: Tensor) -> float:
    """The same without the gradient, in less time where the objective can do without.

    >>> judge = ImageLoss(torch.rand(40, 1, 8, 8), torch.nn.functional.l1_loss)
    >>> abs(whole_loss(judge, range(40), torch.ones(8, 8)) - whole_set(judge, range(40), torch.ones(8, 8))[0]) < 1e-7
    True
    """
    if not isinstance(judge, ImageLoss):
        return whole_set(judge, indices, mask)[0]
    loss = mask.new_zeros((), dtype=torch.float64)
    size = _graph(mask)
    for start in distributed.share(range(0, len(indices), size)):
        chunk = indices[start : start + size]
        loss += judge.value(chunk, mask[None]) * (len(chunk) / len(indices))
    return float(distributed.total(loss)[0])


def _graph(mask: Tensor) -> int:
    return GRAPH_GPU if mask.is_cuda else GRAPH


OBJECTIVES = ("magnitude_mse",)


def make(objective: str | ImageCriterion | Objective, images: Tensor, device: torch.device | str) -> Objective:
    """The objective called ``objective``, or the one that a function ``(x_hat, x) -> loss`` defines, on these images.

    Any other object is taken as an :class:`Objective` that has been made already, on images of its own.

    Raises
    ------
    InputError
        Where the name is unknown, or the argument is none of these.
    """
    if hasattr(objective, "data") and hasattr(objective, "concurrent"):
        return objective
    if callable(objective):
        return ImageLoss(images, objective, device)
    if not isinstance(objective, str):
        raise InputError(f"objective {objective!r}: must be a name ({', '.join(OBJECTIVES)}) or a function (x_hat, x) -> loss")
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    return MagnitudeMSE(images, device)
