"""What a mask is optimised for: the paper's loss, any loss of the image, or one through a network."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.errors import InputError, unknown
from prom.kspace.fourier import IMAGE_AXES
from prom.objectives.contract import ImageCriterion, Objective, whole_loss, whole_set
from prom.objectives.image_loss import ImageLoss
from prom.objectives.magnitude import MagnitudeMSE
from prom.objectives.measurements import CURVATURE_IMAGES, Measurements, evenly

__all__ = [
    "CURVATURE_IMAGES",
    "ImageCriterion",
    "ImageLoss",
    "MagnitudeMSE",
    "Measurements",
    "Objective",
    "evenly",
    "make",
    "whole_loss",
    "whole_set",
]

OBJECTIVES = ("magnitude_mse",)


def make(
    objective: str | ImageCriterion | Objective,
    images: Tensor,
    device: torch.device | str,
    axes: tuple[int, ...] = IMAGE_AXES,
) -> Objective:
    """The objective called ``objective``, or the one that a function ``(x_hat, x) -> loss`` defines, on these images.

    ``axes``: those of the images that the Fourier transform goes over.

    An :class:`Objective` that has been made already stays as it is, on images of its own.

    Raises
    ------
    InputError
        Where the name is unknown, or the argument is none of these.
    """
    if isinstance(objective, Objective):
        return objective
    if callable(objective):
        return ImageLoss(images, objective, device, axes=axes)
    if not isinstance(objective, str):
        raise InputError(
            f"objective {objective!r}: must be a name ({', '.join(OBJECTIVES)}), a function (x_hat, x) -> loss or an Objective"
        )
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    return MagnitudeMSE(images, device, axes)
