"""Any differentiable loss of an image, with the gradient by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prom.engine.threads import gathered
from prom.kspace.encoding import Fourier
from prom.kspace.fourier import IMAGE_AXES
from prom.objectives import curvature
from prom.objectives.contract import ImageCriterion, Objective, check_masks, check_targets, name_of, real, scalar, slope_of
from prom.objectives.measurements import Measurements
from prom.objectives.reconstructed import metadata_of
from prom.reconstruction.zero_filled import Reconstruction, ZeroFilled, image_of


class ImageLoss(Objective):
    """Any differentiable loss of the zero-filled magnitude image, with the gradient by autograd.

    ``criterion(x_hat, x)`` receives a ``(P, C, H, W)`` batch of zero-filled magnitudes, float32 (float64 for masks of that), and the P
    targets, and returns their mean loss as a scalar. Targets are the fully sampled magnitudes (``torch.nn.functional.l1_loss``,
    ``monai.losses.SSIMLoss(2)``, your own), or entries of ``targets``, ``(N, ...)``: labels, say, for a loss *through a network* (Eq. 3
    with a task, paper, section 4.4).

    ``near``: a mask of the wanted acceleration, ``(H, W)`` bool. Then the loss has a curvature, measured there
    (:func:`prom.objectives.curvature.near`). ``described``: what :meth:`describe` answers; by default the criterion's name.
    ``reconstruction``: what makes the image of its k-space, by :class:`prom.kspace.encoding.Fourier`; by default zero-filling. ``axes``:
    those that the Fourier transform goes over; images of volumes and series are ``(N, C, *samples)``, and the criterion receives ``(P, C,
    *samples)``.

    >>> objective = ImageLoss(torch.rand(3, 1, 8, 8), torch.nn.functional.l1_loss)
    >>> objective.loss_and_gradient([0, 1], torch.ones(2, 8, 8))[1].shape
    torch.Size([2, 8, 8])
    >>> network = torch.nn.Conv2d(1, 2, kernel_size=3, padding=1)    # any network of yours, frozen
    >>> labels = torch.randint(2, (3, 8, 8))
    >>> objective = ImageLoss(torch.rand(3, 1, 8, 8), lambda x, y: torch.nn.functional.cross_entropy(network(x), y), targets=labels)
    >>> objective.loss_and_gradient([0, 2], torch.ones(1, 8, 8))[1].shape
    torch.Size([1, 8, 8])
    """

    concurrent = False  # nobody knows what the criterion keeps

    def __init__(
        self,
        images: Tensor,
        criterion: ImageCriterion,
        device: torch.device | str = "cpu",
        targets: Tensor | None = None,
        near: Tensor | None = None,
        described: dict[str, str] | None = None,
        reconstruction: Reconstruction | None = None,
        axes: tuple[int, ...] = IMAGE_AXES,
    ) -> None:
        self.data = Measurements(images, device, axes=axes)
        self.criterion = criterion
        self.targets = check_targets(targets, len(images))
        self.reconstruction = reconstruction or ZeroFilled()
        self._fast = type(self.reconstruction) is ZeroFilled  # others may look at the image's phase
        self._described = described or {"objective": name_of(criterion)}
        self._curvature = None if near is None else curvature.near(self, near)

    def curvature(self) -> Tensor | None:
        return self._curvature

    def describe(self) -> dict[str, str]:
        return self._described | ({} if self._fast else metadata_of(self.reconstruction))

    def loss_and_gradient(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        check_masks(masks, self.data.samples, len(indices))
        with torch.inference_mode(False), torch.enable_grad(), gathered():
            masks = masks.detach().clone().requires_grad_()  # of inference mode a view has no gradient
            loss = self.loss(indices, masks)
            gradient = slope_of(loss, masks)
        return loss.detach(), gradient

    def loss(self, indices: Sequence[int] | Tensor, masks: Tensor) -> Tensor:
        """A scalar, which autograd can differentiate by the masks; without a gradient, a network needs its forward pass only."""
        indices = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        masks = real(masks)
        check_masks(masks, self.data.samples, len(indices))
        kspace, images = self.data[indices]
        encoding, unit = self.data.encoding, self.data.unit  # the criterion gets the images in their own unit
        if not self._fast:
            encoding = Fourier(self.data.samples, self.data.axes)
            kspace = encoding.forward(self.data.images[indices].to(kspace.device) / unit).to(kspace.dtype)
        by_channel = masks.unsqueeze(-len(self.data.samples) - 1)
        shape = (len(images), masks.shape[-len(self.data.samples) - 1], *images.shape[1:])  # (B, M, C, *samples)
        found, _ = image_of(self.reconstruction, (kspace * unit).unsqueeze(1), by_channel, encoding, shape)
        reconstruction = found.abs()
        target = images * unit if self.targets is None else self.targets[indices].to(images.device)
        target = target.repeat_interleave(reconstruction.shape[1], dim=0)
        return scalar(self.criterion(reconstruction.flatten(0, 1), target), masks.requires_grad and torch.is_grad_enabled())
