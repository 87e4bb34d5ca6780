"""Frames of a series that lend one another what was not measured in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.encoding import Coils, check_coils, check_grid, weights_of


class ViewSharing:
    r""":math:`\hat x_t = E^H y'_t`, where :math:`y'_t(k)` is y(k) of the frame nearest to t in which k was measured; 0 where it never was.

    Of two frames equally near the earlier one lends. Riederer et al. 1988, doi:10.1002/mrm.1910080101. It knows nothing of noise and of
    coils, and what moves is blurred over the frames that share. Slices, which have no other frames, are zero-filled.

    >>> from prom.kspace.encoding import Fourier
    >>> encoding, still = Coils(torch.ones(1, 1, 4, 4), Fourier((3, 4, 4))), torch.rand(1, 4, 4).expand(3, 4, 4)
    >>> mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    >>> mask[0, :2], mask[2, 2:] = True, True                                    # between them, two frames measure everything
    >>> torch.allclose(ViewSharing()(encoding.forward(still), mask, encoding)[0].real, still, atol=1e-6)
    True
    """

    linear = True  # in the samples

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image, as :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`. There is no way back of gradients.

        Raises
        ------
        InputError
            Where a gradient is asked for: which frame lends changes in steps; without coils, and off the grid.
        """
        check_coils(encoding, "view-sharing")
        check_grid(encoding, "view-sharing")
        if len(encoding.samples) == 2 or len(encoding.fourier.axes) == 3:
            return encoding.adjoint(samples * mask), _refused
        axis, mask = -len(encoding.samples), weights_of(mask, encoding, samples.real.dtype)
        batch = torch.broadcast_shapes(mask.shape[:-3], samples.shape[:-3])
        mask, samples = (part.expand(*batch, *part.shape[-3:]) for part in (mask, samples))
        measured, by_frame = mask.bool().movedim(axis, 0), samples.movedim(axis, 0)
        number = torch.arange(len(measured), device=mask.device).reshape(-1, *[1] * (measured.ndim - 1))
        unmeasured = 2 * len(measured)
        shared = torch.zeros_like(samples)
        for frame in range(len(measured)):
            distance = torch.where(measured, (number - frame).abs(), unmeasured)
            nearest = distance.min(dim=0)  # of equal ones the first
            lent = by_frame.gather(0, nearest.indices.expand(by_frame.shape[1:])[None])[0]
            shared.select(axis, frame).copy_(lent * (nearest.values < unmeasured))
        return encoding.adjoint(shared), _refused


def _refused(gradient: Tensor) -> Tensor:
    raise InputError("reconstruction view-sharing: has no gradient by the mask; learn through sense, and score with it")
