"""Reconstruction off the grid without iterations: samples weighted by the area that each stands for, and the adjoint transform."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.errors import InputError
from prom.kspace.encoding import Coils, check_coils, weights_of
from prom.kspace.nonuniform import NonUniform
from prom.reconstruction.zero_filled import described

KERNEL = {"width": 4, "beta": 14}  # Kaiser-Bessel: a fully sampled image is nearer to the truth than with SigPy's beta of 8 (its test)
KEPT = 2**24  # weights that are remembered, of the last masks: 64 MB
EVEN = 16  # points along an axis of the grid whose density is 1


class Gridding:
    r"""The adjoint transform of samples, each times the area of k-space that it stands for:

    .. math:: \hat x = \Big( \sum_c |S_c|^2 \Big)^{-1} E^H (w(m) \odot m \odot y),

    with E of :class:`prom.kspace.encoding.Coils` and the density compensation w of Pipe and Menon 1999,
    doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V, as SigPy has it: the fixed point of :math:`w = w / (C w)`, where C
    is a convolution with a narrow kernel between the samples of the mask. It is scaled so that w = 1 on the grid: a full scan of it is the
    image itself. Off the grid a full scan of an image gives it to some percent, provided that readouts are oversampled, and of a volume to
    a tenth or two with 30 iterations.

    *Gradient.* The density depends on the mask, and its iteration is not differentiated: w is held fixed at that of the present mask. With
    :math:`g = \partial L / \partial \hat x`,

    .. math:: \frac{\partial L}{\partial m_i} = \mathrm{Re} \sum_c \overline{w_i y_{c,i}} \,
              \Big( E \Big( \sum_c |S_c|^2 \Big)^{-1} g \Big)_{c,i} .

    A readout that is not in the mask has no w. It gets the first step of the same iteration, as if it were in the mask,

    .. math:: w_i = 1 \Big/ \Big( \sum_{j \in m} C_{i,j} + \sum_{j \in r(i)} C_{i,j} \Big),

    with r(i) the samples of its own readout. So it is weighted as a sample among those that are near it, and not as the only one. What is
    left out is how its neighbours' weights fall when it is added, so that the gradient ranks readouts, but is too pessimistic of each.
    Masks that are learnt by it from scratch end with neighbouring spokes: learn through SENSE, and score through this.

    Parameters
    ----------
    iterations
        Of the density.

    Raises
    ------
    InputError
        When called: where the samples are on a grid, or SigPy is not installed.

    >>> from prom.kspace.trajectories import spokes
    >>> image = torch.hann_window(16).outer(torch.hann_window(16)) + 0j
    >>> encoding = Coils(torch.ones(1, 16, 16) + 0j, spokes(26, 16, samples=32).encoding((16, 16)))
    >>> found, pullback = Gridding()(encoding.forward(image), torch.ones(26, 32), encoding)
    >>> bool((found - image).norm() < 0.1 * image.norm()), pullback(found).shape
    (True, torch.Size([1, 26, 32]))
    """

    concurrent = True  # several threads may call it at once
    linear = True  # in the samples

    def __init__(self, iterations: int = 30) -> None:
        self.iterations = options.check("iterations", iterations, "[1, 1e6]", whole=True)
        self._forget()

    def describe(self) -> dict[str, str]:
        """What a mask's provenance records: iterations too, where they are not the usual ones.

        >>> Gridding(5).describe()
        {'reconstruction': 'Gridding(iterations=5)'}
        """
        return {"reconstruction": described(self, Gridding, "iterations")}

    def __getstate__(self) -> dict[str, object]:
        """Of a copy: what is remembered, and its lock, stay here."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_known", "_alone", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._known: OrderedDict[tuple[NonUniform, int, bytes], Tensor] = OrderedDict()
        self._alone: dict[NonUniform, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)`` of samples ``(..., coils, K, R)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`; ``mask`` is ``(..., 1, K, R)`` or ``(K, R)``, of whole readouts: one
        in part is weighted as if it were whole.
        """
        check_coils(encoding, "gridding")
        if not isinstance(encoding.fourier, NonUniform):
            raise InputError("gridding: is for readouts off the grid, and these samples are on it; use zero-filled or sense")
        if find_spec("sigpy") is None:
            raise InputError("gridding needs SigPy for the density of samples: pip install 'prom-mri[coils]', or use sense")
        mask = weights_of(mask, encoding, samples.real.dtype)
        weight = self.weights(mask, encoding.fourier).to(samples.device, samples.real.dtype)
        power = encoding.maps.abs().square().sum(dim=encoding.axis)
        share = torch.where(power > 0, 1 / power, 0)
        found = share * encoding.adjoint(weight * mask * samples)
        return found, lambda gradient: ((weight * samples).conj() * encoding.forward(share * gradient)).real

    def weights(self, mask: Tensor, fourier: NonUniform) -> Tensor:
        """w of every sample, measured or not, of masks ``(..., K, R)``: float32 of that shape. Above 0 is measured.

        >>> from prom.kspace.encoding import Fourier
        >>> rows = NonUniform(Fourier((8, 8)).locations.float(), (8, 8))               # readouts along the rows of the grid
        >>> Gridding().weights(torch.ones(8, 8), rows).round(decimals=4).unique()
        tensor([1.])
        """
        selected = (mask.detach() > 0).any(dim=-1).cpu().reshape(-1, len(_frames(fourier)), fourier.samples[-2])
        found = [self._remembered(fourier, frame, part) for one in selected for frame, part in enumerate(one)]
        return torch.stack(found).reshape(mask.shape)

    def _remembered(self, fourier: NonUniform, frame: int, selected: Tensor) -> Tensor:
        size = tuple(fourier.image[axis] for axis in fourier.axes)
        key = (fourier, frame, np.packbits(selected.numpy()).tobytes())
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            if fourier not in self._alone:
                self._alone[fourier] = torch.stack([_alone(points, size) for points in _frames(fourier)])
        found = self._density(_frames(fourier)[frame], selected, self._alone[fourier][frame], size)
        with self._lock:
            self._known[key] = found
            while len(self._known) > max(1, KEPT // found.numel()):
                self._known.popitem(last=False)
        return found

    def _density(self, points: Tensor, selected: Tensor, alone: Tensor, size: tuple[int, ...]) -> Tensor:
        """w of the samples ``(K, R)`` of candidates, of which some are selected."""
        from sigpy.mri.dcf import pipe_menon_dcf  # here: it takes a second

        axes = points.shape[-1]
        even = torch.cartesian_prod(*[torch.arange(EVEN) - EVEN // 2] * axes)
        scale = float(_convolved(even, torch.ones(len(even)), (EVEN,) * axes).mean())
        near = _convolved(points, selected[:, None].expand(points.shape[:2]).float(), size) + alone
        found = scale / near
        if selected.any():
            inside = points[selected].double()
            measured = pipe_menon_dcf(inside.numpy().reshape(-1, axes), size, max_iter=self.iterations, show_pbar=False, **KERNEL)
            found[selected] = scale * torch.from_numpy(measured).float().reshape(inside.shape[:-1])
        return found


def _alone(points: Tensor, size: tuple[int, ...]) -> Tensor:
    """C of ones of each readout by itself: ``(K, R)``."""
    ones = torch.ones(points.shape[1])
    return torch.stack([_convolved(one, ones, size) for one in tqdm(points, "densities of readouts", disable=None, delay=2, leave=False)])


def _convolved(points: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """C w between these points, ``(..., axes)`` in cycles per field of view, periodic as pixels make it: float32 of the weights' shape."""
    from sigpy.linop import Gridding as Spread

    coordinates = points.double().numpy()
    spread = Spread(size, coordinates, kernel="kaiser_bessel", param=KERNEL["beta"], width=KERNEL["width"])
    return torch.from_numpy(np.abs(spread.H * (spread * weight.double().numpy()))).float()


def _frames(fourier: NonUniform) -> Tensor:
    """``(T, K, R, axes)`` of a series, else with one frame."""
    return fourier.trajectory.reshape(-1, *fourier.trajectory.shape[-3:])
