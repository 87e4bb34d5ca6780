"""The error of the image that a reconstruction from several coils makes, with the gradient that the reconstruction gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prom.datasets.base import SliceDataset
from prom.errors import unknown
from prom.kspace.encoding import Coils
from prom.objectives.contract import Objective
from prom.objectives.magnitude import USUAL
from prom.objectives.measurements import Measurements
from prom.reconstruction.zero_filled import Reconstruction

CRITERIA = ("mse", "psnr")


class Reconstructed(Objective):
    r"""Mean error of :math:`|\hat x|` against :math:`|x|`, for :math:`\hat x` reconstructed from the samples of all coils (Eq. 3).

    "mse": mean over images, masks and pixels of :math:`(|\hat x| - |x|)^2`. "psnr": the mean over images and masks of -PSNR in dB, peak
    the range of :math:`|x|`, so that a slice counts by its relative error, and bright ones do not rule.

    The gradient is the reconstruction's pullback of :math:`\partial L / \partial \hat x`, for all samples, measured or not.

    Parameters
    ----------
    data
        Slices with coils (:class:`prom.SliceDataset`); without ``sensitivities`` one coil that is 1 everywhere.
    reconstruction
        Such as :class:`prom.reconstruction.sense.Sense`, or :func:`prom.reconstruction.named`. Where it has a text ``described``, masks
        record that, else the name of its class.
    device
        Where to work.
    criterion
        "mse" or "psnr".

    Raises
    ------
    InputError
        Where the criterion is unknown, or the images have several channels.

    >>> from prom.reconstruction.sense import Sense
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> loss, gradient = Reconstructed(data, Sense(1e-3)).loss_and_gradient([0, 1], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-5), gradient.shape
    (True, torch.Size([1, 8, 8]))
    """

    def __init__(
        self, data: SliceDataset, reconstruction: Reconstruction, device: torch.device | str = "cpu", criterion: str = "mse"
    ) -> None:
        if criterion not in CRITERIA:
            raise unknown("criterion", criterion, CRITERIA)
        data.samples([0])  # refused at once, where there are none
        self.data, self.reconstruction, self.criterion = Measurements(data.images, device), reconstruction, criterion
        self._slices, self._device = data, device
        square = self.data.unit**2 if criterion == "mse" else 1.0
        self._square = square if USUAL[0] <= self.data.unit <= USUAL[1] else 1.0
        self.loss_unit = square / self._square

    def describe(self) -> dict[str, str]:
        name = getattr(self.reconstruction, "described", type(self.reconstruction).__name__)
        return {"objective": f"magnitude_{self.criterion}", "reconstruction": name}

    def loss_and_gradient(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(masks)
        loss = 0.0
        indices = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        for place, index in enumerate(indices):
            own = masks[place] if masks.ndim == 4 else masks
            error, slope, pullback = self._error(index, own)
            into = gradient[place] if masks.ndim == 4 else gradient
            into += pullback(slope).sum(dim=-3)
            loss = loss + error
        pairs = len(indices) * masks.shape[-3]
        return loss / pairs, gradient / pairs

    def loss(self, indices: Sequence[int] | Tensor, masks: Tensor) -> Tensor:
        """Half the work: without the solve for the gradient."""
        indices = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        errors = [self._error(index, masks[place] if masks.ndim == 4 else masks)[0] for place, index in enumerate(indices)]
        return sum(errors) / (len(indices) * masks.shape[-3])

    def _error(self, index: int, masks: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Of one image and its masks ``(M, H, W)``: the sum of errors, its derivative by the image, and the way back to masks."""
        encoding = Coils(self._slices.maps([index])[0].to(self._device))
        samples = self._slices.samples([index])[0].to(self._device) / self.data.unit
        found, pullback = self.reconstruction(samples, masks.unsqueeze(-3), encoding)
        target = self.data[[index]][1][0, 0]
        size = found.abs()
        rest = size - target
        phase = torch.where(size > 0, found / size, 0)
        errors = rest.square().mean(dim=(-2, -1))
        slope = rest * phase * (2 / target.numel())
        if self.criterion == "mse":
            return errors.sum() * self._square, slope * self._square, pullback
        scale = 10 / math.log(10)
        losses = scale * torch.log(errors / (target.max() - target.min()) ** 2)
        return losses.sum(), slope * (scale / errors)[:, None, None], pullback
