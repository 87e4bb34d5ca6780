"""What is to be optimised, made once: data, pattern, objective and the masks that are allowed, which so cannot disagree."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prom import objectives
from prom.datasets.base import SliceDataset
from prom.engine import distributed
from prom.engine.device import choose_device
from prom.errors import InputError
from prom.kspace import patterns
from prom.masks import as_mask
from prom.masks.demands import Demands
from prom.masks.feasible import Feasible
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import RECONSTRUCTIONS, check, named
from prom.reconstruction.typical import typical
from prom.reconstruction.zero_filled import Reconstruction

THROUGH = {"magnitude_mse": "mse", "magnitude_psnr": "psnr"}  # objectives of a reconstruction's image, and their criteria


@dataclass(frozen=True, eq=False)
class Problem:
    """Eq. 3 on data.

    Attributes
    ----------
    data
        The training slices.
    pattern
        What is switched on together.
    objective
        The loss, on the images of ``data``.
    feasible
        The masks that are allowed.
    acceleration
        alpha, the nominal one.
    demands
        What ``feasible`` was made of, beside the acceleration.

    >>> Problem.of(torch.rand(2, 8, 8), acceleration=4).describe()
    '16 of 64 points (x4) for magnitude_mse on images, all: 2 slices of 2 subjects, 8 x 8'
    """

    data: SliceDataset
    pattern: patterns.Lines
    objective: objectives.Objective
    feasible: Feasible
    acceleration: float
    demands: Demands = Demands()

    @classmethod
    def of(
        cls,
        data: SliceDataset | Tensor | np.ndarray,
        acceleration: float,
        pattern: str = "points",
        objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
        device: str | torch.device = "auto",
        reconstruction: str | Reconstruction | None = None,
        demands: Demands | None = None,
    ) -> Problem:
        """From the arguments of the public functions, which are described there.

        Raises
        ------
        InputError
            Where a name or the acceleration cannot be used, demands cannot be met, a ready objective has other images than ``data``, or a
            reconstruction is to go with an objective that has one already.
        """
        data = as_dataset(data)
        device = choose_device(device)
        lines = data.choices(pattern)
        demands = demands or Demands()
        feasible = demands.feasible(lines, acceleration)
        made = _of(objective, data, device, reconstruction, lambda: typical(data, acceleration, pattern))
        return cls(data, lines, made, feasible, float(acceleration), demands)

    @classmethod
    def around(
        cls,
        mask: Tensor,
        data: SliceDataset,
        pattern: str = "points",
        objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
        device: str | torch.device = "auto",
        reconstruction: str | Reconstruction | None = None,
        demands: Demands | None = None,
    ) -> Problem:
        """With as many samples as a mask has.

        Raises
        ------
        InputError
            As above, or where the mask does not fit the data, is not made of whole lines, or does not meet the demands.
        """
        device, mask = choose_device(device), as_mask(mask, data.grid, data.name)
        lines = data.choices(pattern)
        selected = lines.select(mask)
        count, demands = int(selected.sum()), demands or Demands()
        feasible = demands.of_size(lines, count)
        if not feasible.admits(selected):
            raise InputError(f"mask: does not meet the demands ({demands.describe()}); make it with them")
        made = _of(objective, data, device, reconstruction, lambda: mask)
        return cls(data, lines, made, feasible, lines.full / max(count, 1), demands)

    @property
    def device(self) -> torch.device:
        """Where theta and the data are."""
        return torch.device(self.objective.data.device)

    @property
    def replayable(self) -> bool:
        """Whether a GPU may record an iteration: nothing in it looks at a number, or waits for another process."""
        return self.objective.replayable and self.feasible.plain and distributed.size() == 1

    def describe(self) -> str:
        """One line."""
        demands = f" with {self.demands.describe()}" if not self.demands.plain else ""
        what = f"{self.feasible.count} of {self.pattern.size} {self.pattern.name} (x{self.acceleration:g}){demands}"
        return f"{what} for {self.objective.describe()['objective']} on {self.data.summary()}"


def _of(
    objective: str | objectives.ImageCriterion | objectives.Objective,
    data: SliceDataset,
    device: torch.device,
    reconstruction: str | Reconstruction | None,
    mask: Callable[[], Tensor],
) -> objectives.Objective:
    if reconstruction is None or reconstruction == "zero-filled":
        of_grid = not isinstance(objective, objectives.Objective) or isinstance(objective, objectives.MagnitudeMSE | objectives.ImageLoss)
        if data.trajectory is not None and of_grid:
            raise InputError(
                f"{data.name}: its readouts are off the grid, and zero-filling is for grids; name a reconstruction, e.g. sense"
            )
        if isinstance(objective, str) and objective in THROUGH and objective not in objectives.OBJECTIVES:
            raise InputError(f"objective {objective}: is of a reconstruction's image; name the reconstruction, e.g. sense")
        made = objectives.make(objective, data.images, device, data.axes)
    else:
        name = check(reconstruction) if isinstance(reconstruction, str) else type(reconstruction).__name__
        if not callable(reconstruction) and not isinstance(reconstruction, str):
            raise InputError(
                f"reconstruction {reconstruction!r}: must be a name ({', '.join(RECONSTRUCTIONS)}) or an object that makes images"
            )
        if name in ("view-sharing", "ViewSharing"):
            raise InputError(f"reconstruction {name}: has no gradient by the mask; learn through sense, and score with it")
        if not isinstance(objective, str) or objective not in THROUGH:
            what = objective if isinstance(objective, str) else getattr(objective, "__name__", type(objective).__name__)
            raise InputError(f"reconstruction {name}: goes with objective {' or '.join(THROUGH)}, not with {what}; leave one of them out")
        found = named(reconstruction, data, mask()) if isinstance(reconstruction, str) else reconstruction
        made = Reconstructed(data, found, device, THROUGH[objective])
    if not made.data.are_of(data.images):
        raise InputError(f"objective {made.describe()['objective']}: has other images than {data.name}; make it of these")
    if sorted(made.data.axes) != sorted(data.axes):
        what = f"other axes of the Fourier transform than {data.name}, which has {data.kind}"
        way = "" if isinstance(made, Reconstructed) else f", with axes={data.axes}"
        raise InputError(f"objective {made.describe()['objective']}: has {what}; make it of these data{way}")
    if isinstance(made, Reconstructed) and not made.measures(data):
        what = "other coils, k-space, noise or readouts"
        raise InputError(f"objective {made.describe()['objective']}: has {what} than {data.name}; make it of these data")
    return made


def as_dataset(data: SliceDataset | Tensor | np.ndarray) -> SliceDataset:
    """Wrap plain images, ``(H, W)``, ``(N, H, W)`` or ``(N, C, H, W)``, into a data set of one subject a slice.

    >>> as_dataset(np.ones((4, 8, 8))).images.shape
    torch.Size([4, 1, 8, 8])
    """
    if isinstance(data, SliceDataset):
        return data
    if isinstance(data, str | os.PathLike):
        raise InputError(f"data {str(data)!r}: must be images, not their path; read them with prom.load")
    if isinstance(data, np.ma.MaskedArray):
        raise InputError("data: is a masked array, whose mask would be lost; use data.filled(0)")
    try:
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data, data.dtype.newbyteorder("="))  # which PyTorch needs
        images = torch.as_tensor(data).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = getattr(data, "dtype", type(data).__name__)
        raise InputError(f"data of type {kind}: must be an array of numbers, a tensor, or what prom.load has read") from error
    if images.ndim not in (2, 3, 4):
        raise InputError(f"images of shape {tuple(images.shape)}: must be (H, W), (N, H, W) or (N, C, H, W)")
    images = images.to(torch.complex64 if images.is_complex() else torch.float32)
    images = images[None, None] if images.ndim == 2 else images[:, None] if images.ndim == 3 else images
    return SliceDataset("images", "all", images, [str(i) for i in range(len(images))], [0] * len(images))
