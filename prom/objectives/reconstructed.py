"""The error of the image that a reconstruction from several coils makes, with the gradient that the reconstruction gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from prom.datasets.base import SliceDataset
from prom.datasets.units import unit
from prom.engine.threads import added, gathered, parallel
from prom.errors import InputError, unknown
from prom.objectives import curvature
from prom.objectives.contract import ImageCriterion, Objective, check_masks, check_targets, name_of, real, scalar, slope_of
from prom.objectives.magnitude import USUAL
from prom.objectives.measurements import Measurements
from prom.reconstruction.zero_filled import Reconstruction, image_of

CRITERIA = ("mse", "psnr")
Result = TypeVar("Result")


class Reconstructed(Objective):
    r"""Mean error of :math:`|\hat x|` against :math:`|x|`, for :math:`\hat x` reconstructed from the samples of all coils (Eq. 3).

    "mse": mean over images, masks and pixels of :math:`(|\hat x| - |x|)^2`. "psnr": the mean over images and masks of -PSNR in dB, peak
    the range of :math:`|x|`, so that a slice counts by its relative error, and bright ones do not rule. A function ``(x_hat, x) -> mean
    loss``: any loss of the magnitudes, ``(M, 1, H, W)`` float32 (float64 for masks of that) in the unit of the data, against them or
    against entries of ``targets`` (labels, say, for a loss through a network that segments); autograd gives its derivative by the image.

    The gradient is the reconstruction's pullback of :math:`\partial L / \partial \hat x`, for all samples, measured or not.

    Parameters
    ----------
    data
        Slices with coils (:class:`prom.SliceDataset`); without ``sensitivities`` one coil that is 1 everywhere.
    reconstruction
        Such as :class:`prom.reconstruction.sense.Sense`, :func:`prom.reconstruction.named`, or
        :class:`prom.reconstruction.through.Through` a network. Masks record what its ``describe`` answers, else the name of the function
        or of its class.
    device
        Where to work.
    criterion
        "mse", "psnr", or a function.
    targets
        ``(N, ...)``, for a function: one entry for each slice; by default the magnitudes of the images.
    near
        A mask of the wanted acceleration, ``(H, W)`` bool. Then the loss has a curvature, measured there
        (:func:`prom.objectives.curvature.near`).
    described
        What :meth:`describe` answers, the reconstruction apart; by default the criterion's name.

    Raises
    ------
    InputError
        Where the criterion is unknown, there are targets without a function to compare with them, or the images have several channels; with
        "psnr", where the loss of a constant slice is asked for.

    >>> from prom.reconstruction.sense import Sense
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> loss, gradient = Reconstructed(data, Sense(1e-3)).loss_and_gradient([0, 1], torch.ones(1, 8, 8))
    >>> bool(loss < 1e-5), gradient.shape
    (True, torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        data: SliceDataset,
        reconstruction: Reconstruction,
        device: torch.device | str = "cpu",
        criterion: str | ImageCriterion = "mse",
        targets: Tensor | None = None,
        near: Tensor | None = None,
        described: dict[str, str] | None = None,
    ) -> None:
        if not callable(criterion):
            if criterion not in CRITERIA:
                raise unknown("criterion", criterion, CRITERIA)
            if targets is not None:
                raise InputError(f"criterion {criterion!r}: compares with the images; for targets of your own give a function")
        if near is not None and data.trajectory is not None:
            raise InputError(f"near: is a mask of the grid, and the readouts of {data.name} are off it; leave it out")
        data.samples([0])  # refused at once, where there are none
        self.data, self.reconstruction, self.criterion = Measurements(data.images, device, axes=data.axes), reconstruction, criterion
        self.targets = check_targets(targets, len(data))
        self.dataset, self._device = data, device
        shared = data.sensitivities is None or not data.own_maps  # by all slices, so that what follows from them does too
        self._encoding = data.encoding(0, device) if shared else None
        square = self.data.unit**2 if criterion == "mse" else 1.0
        self._square = square if USUAL[0] <= self.data.unit <= USUAL[1] else 1.0
        self.loss_unit = square / self._square
        name = name_of(criterion) if callable(criterion) else f"magnitude_{criterion}"
        self._described = described or {"objective": name}
        self._curvature = None if near is None else curvature.near(self, near)

    def measures(self, data: SliceDataset) -> bool:
        """Whether it has the measurements of these data, and not their images alone."""

        def alike(one: Tensor | None, other: Tensor | None) -> bool:
            if one is None or other is None:
                return one is other
            return one.shape == other.shape and all(torch.equal(one[index], other[index]) for index in range(len(one)))

        own = self.dataset
        if own is data:
            return True
        points = [None if part.trajectory is None else part.trajectory.points for part in (own, data)]
        arrays = [points, *((getattr(own, name), getattr(data, name)) for name in ("sensitivities", "kspace"))]
        return own.noise == data.noise and own.grid == data.grid and all(alike(*pair) for pair in arrays)

    def curvature(self) -> Tensor | None:
        return self._curvature

    def describe(self) -> dict[str, str]:
        return self._described | metadata_of(self.reconstruction)

    def loss_and_gradient(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        def one(index: int, own: Tensor) -> tuple[Tensor, Tensor]:
            error, slope, pullback = self._error(index, own)
            size = unit(slope.abs().amax())  # a power of two: solves square what they get, and squares of tiny numbers are 0
            return error, pullback(slope / size).sum(dim=self._coil) * size

        graded = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(graded):  # no network can be led back through tensors of that mode
            errors, gradients = zip(*self._each(one, indices, masks.clone() if masks.is_inference() else masks), strict=True)
        pairs = len(errors) * masks.shape[self._coil]
        gradient = torch.stack(gradients) if self._apart(masks) else added(gradients)
        return sum(errors) / pairs, gradient.to(masks) / pairs

    def loss(self, indices: Sequence[int] | Tensor, masks: Tensor) -> Tensor:
        """Half the work: without the solve for the gradient."""
        masks = real(masks)
        errors = self._each(lambda index, own: self._error(index, own, slope=False)[0], indices, masks)
        return sum(errors) / (len(errors) * masks.shape[self._coil])

    @property
    def _coil(self) -> int:
        """The axis before those of the samples."""
        return -len(self.dataset.shape) - 1

    def _apart(self, masks: Tensor) -> bool:
        """Whether each image has masks of its own."""
        return masks.ndim == len(self.dataset.shape) + 2

    def _each(self, function: Callable[[int, Tensor], Result], indices: Sequence[int] | Tensor, masks: Tensor) -> list[Result]:
        """A function of every image and its masks, by several threads where the reconstruction is for one."""
        indices = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        check_masks(masks, self.dataset.grid, len(indices))
        pairs = [(index, masks[place] if self._apart(masks) else masks) for place, index in enumerate(indices)]
        if getattr(self.reconstruction, "concurrent", False) and not callable(self.criterion):
            return parallel(lambda pair: function(*pair), pairs)
        return [function(*pair) for pair in pairs]

    def _error(self, index: int, masks: Tensor, slope: bool = True) -> tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]:
        """Of one image and its masks ``(M, *samples)``: the sum of errors, its derivative by the image, and the way back to masks."""
        encoding = self._encoding or self.dataset.encoding(index, self._device)
        samples = self.dataset.samples([index])[0].to(self._device) / self.data.unit
        shape = (len(masks), *self.dataset.shape)
        found, pullback = image_of(self.reconstruction, samples, masks.unsqueeze(self._coil), encoding, shape)
        if callable(self.criterion):
            return *self._by_criterion(index, found, slope), pullback
        target = self.data[[index]][1][0, 0]
        rest = found.abs() - target
        errors = rest.square().flatten(1).mean(dim=1)
        if self.criterion == "mse":
            loss, scale = errors.sum() * self._square, self._square
        else:
            decibels, size = 10 / math.log(10), target.max() - target.min()
            if not size > 0:
                way = "leave it out, or use magnitude_mse (criterion mse)"
                raise InputError(f"{self.dataset.describe(index)}: is constant, so that it has no PSNR; {way}")
            errors = errors.clamp(min=1e-30)  # of an image that is exact
            loss = (decibels * torch.log(errors / size**2)).sum()
            scale = (decibels / errors).reshape(-1, *[1] * target.ndim)
        return loss, rest * (scale * 2 / target.numel()) * found.sgn(), pullback

    def _by_criterion(self, index: int, found: Tensor, slope: bool) -> tuple[Tensor, Tensor | None]:
        """The same for a function as criterion: the sum of losses, and their derivative by the image where it is wanted."""
        with torch.inference_mode(False), torch.set_grad_enabled(slope), gathered():
            found = found.detach().clone().requires_grad_(slope)  # of inference mode a view has no gradient
            target = self.data[[index]][1] * self.data.unit if self.targets is None else self.targets[[index]].to(found.device)
            target = target.repeat_interleave(len(found), dim=0)
            loss = scalar(self.criterion(found.abs().unsqueeze(1) * self.data.unit, target), slope) * len(found)
            return loss.detach(), slope_of(loss, found) if slope else None


def metadata_of(reconstruction: Reconstruction) -> dict[str, str]:
    """A reconstruction in records: what its own ``describe`` answers, or else the name of the function or of its type.

    >>> from prom.reconstruction.sense import Sense
    >>> metadata_of(Sense(1e-3))
    {'reconstruction': 'Sense', 'reconstruction_penalty': '0.001'}
    """
    own = getattr(reconstruction, "describe", None)
    return own() if own else {"reconstruction": name_of(reconstruction)}
