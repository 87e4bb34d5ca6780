"""Reconstruction from several coils by regularised least squares, and the gradient with respect to the mask by one more solve."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from prom import options
from prom.datasets.base import SliceDataset
from prom.engine import coils
from prom.engine.device import asynchronous
from prom.engine.threads import parallel
from prom.errors import InputError
from prom.kspace.encoding import Coils
from prom.kspace.fourier import fft2c
from prom.reconstruction.conjugate_gradients import conjugate_gradients

SMOOTH = 1.5  # samples, the standard deviation of the Gaussian that smooths a spectrum
LEAST_POWER = 1e-12  # of the largest: less is taken as this, so that the prior stays finite


class Sense:
    r"""The regularised least-squares image of all coils: Pruessmann et al. 2001, doi:10.1002/mrm.1241.

    .. math:: \hat x = \arg\min_x \| W^{1/2} (E x - y) \|^2 + \| r^{1/2} F x \|^2, \qquad A \hat x = E^H W y, \quad A = E^H W E + F^H r F,

    with E of :class:`prom.kspace.encoding.Coils`, W the mask on the diagonal and r a penalty on each spatial frequency: one number (a
    ridge), or :math:`\sigma^2 / P` with the noise's variance and the mean power spectrum, which makes :math:`\hat x` the linear estimate
    of least mean error.

    It is solved for :math:`z = F x` by conjugate gradients, with :math:`(d + r)^{-1}` before them, where d is the exact diagonal of
    :math:`F E^H W E F^H`: the mask, convolved with the power of the coils' spectra. Of many images at once each has steps of its own.

    *Gradient.* With :math:`g = \partial L / \partial \hat x` and :math:`A p = g`, one more solve with the same matrix gives

    .. math:: \partial L / \partial w_i = \mathrm{Re} \sum_k \overline{(E p)_{k,i}} \, (y - E \hat x)_{k,i}

    for every sample, measured or not. Nothing is unrolled, and memory does not grow with the iterations.

    Parameters
    ----------
    penalty
        r: > 0, one number or ``(H, W)`` centred, in the units of :math:`|E|^2`.
    iterations
        At most so many steps for the image, and as many for the gradient.
    tolerance
        Enough where no residual is above this share of the right-hand side.

    Raises
    ------
    InputError
        Where the penalty is not above 0, or a number is out of range.

    >>> maps, image = torch.randn(4, 8, 8, dtype=torch.complex64), torch.randn(8, 8, dtype=torch.complex64)
    >>> encoding = Coils(maps)
    >>> found, pullback = Sense(1e-4, iterations=200)(encoding.forward(image), torch.eye(8).roll(1) + torch.ones(8, 8), encoding)
    >>> torch.allclose(found, image, atol=1e-2), pullback(found).shape
    (True, torch.Size([4, 8, 8]))
    """

    concurrent = True  # several threads may call it at once
    linear = True  # in the samples

    def __init__(self, penalty: float | Tensor, iterations: int = 50, tolerance: float = 1e-5) -> None:
        options.check("iterations", iterations, "[1, 1e6]", whole=True)
        options.check("tolerance", tolerance, "[0, 1)")
        self.penalty = penalty if isinstance(penalty, Tensor) else torch.tensor(penalty, dtype=torch.float64)
        if not bool(((self.penalty > 0) & self.penalty.isfinite()).all()):
            raise InputError("penalty: must be finite and above 0 everywhere")
        self.iterations, self.tolerance = iterations, tolerance

    @classmethod
    def of(cls, train: SliceDataset, iterations: int = 50, tolerance: float = 1e-5) -> Sense:
        r"""With the penalty :math:`\sigma^2 / P` of these images: P their :func:`spectrum`, :math:`\sigma` their ``noise``.

        Raises
        ------
        InputError
            Where the noise is not known.
        """
        if not train.noise:
            raise InputError(
                f"{train.name}: its noise is not known, which SENSE needs; give its reader noise=..., or use Sense(penalty), or a "
                "reconstruction that needs no noise: wavelet or tv"
            )
        return cls(train.noise**2 / spectrum(train), iterations, tolerance)

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)`` of samples ``(..., K, H, W)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`; ``mask`` is ``(..., 1, H, W)`` or ``(H, W)``.
        """
        real = samples.real.dtype
        weight = mask.to(real)
        penalty = self.penalty.to(samples.device, real)
        scale = 1 / (encoding.diagonal(weight if weight.ndim == 2 else weight.squeeze(-3)).clamp(min=0) + penalty)
        phase = encoding.fourier.phase.to(samples)  # z of the transform without shifts, which take more time than it does
        phase_seen = phase * encoding.seen  # where no coil sees, the prior alone would fill the image

        def normal(z: Tensor) -> Tensor:
            coil_images = encoding.maps * torch.fft.ifft2(z, norm="ortho").unsqueeze(-3)
            coil_images = torch.fft.ifft2(weight * torch.fft.fft2(coil_images))
            return torch.fft.fft2((encoding.maps.conj() * coil_images).sum(dim=-3), norm="ortho") + penalty * z

        def solve(image: Tensor) -> Tensor:
            right = torch.fft.fft2(image * phase_seen, norm="ortho")
            recorded = torch.is_grad_enabled() and (right.requires_grad or weight.requires_grad)  # autograd has to follow
            by_image = not asynchronous(right) and right.dtype == torch.complex64 and not recorded
            limits = self.iterations, self.tolerance
            if by_image:
                found = _by_image(encoding.maps, weight, penalty, scale, right, *limits)
            else:
                found = conjugate_gradients(normal, scale, right, *limits)
            return torch.fft.ifft2(found, norm="ortho") * phase_seen.conj()

        found = solve(encoding.adjoint(weight * samples))

        def pullback(gradient: Tensor) -> Tensor:
            rest = samples - encoding.forward(found)
            return (encoding.forward(solve(gradient)).conj() * rest).real

        return found, pullback


def spectrum(train: SliceDataset) -> Tensor:
    """The power that images like these are expected to have: :func:`mean_power`, its logarithm smoothed over a few samples. All above 0.

    The mean over a few dozen images scatters from sample to sample, by a third of its value over ten of them. A prior that takes this
    for truth trusts some samples too much and their neighbours too little; a spectrum is smoother than that (chapter 10).

    >>> power = spectrum(SliceDataset("demo", "train", torch.rand(2, 1, 32, 32), ["a", "b"], [0, 0]))
    >>> power.shape, bool((power > 0).all())
    (torch.Size([32, 32]), True)
    """
    power = mean_power(train)
    logarithm = power.clamp(min=LEAST_POWER * power.max()).log()
    return torch.from_numpy(gaussian_filter(logarithm.numpy(), SMOOTH, mode="wrap")).exp()


def mean_power(train: SliceDataset) -> Tensor:
    """P: ``(H, W)`` float64, centred, the mean of :math:`|F x|^2` over slices and channels, in the units of the images squared.

    >>> mean_power(SliceDataset("demo", "train", torch.ones(2, 1, 2, 2), ["a", "b"], [0, 0])).tolist()      # all of it at DC
    [[0.0, 0.0], [0.0, 4.0]]
    """
    return sum(fft2c(image).abs().double().square().mean(dim=0) for image in train.images) / len(train)


def _by_image(maps: Tensor, weight: Tensor, penalty: Tensor, scale: Tensor, right: Tensor, iterations: int, tolerance: float) -> Tensor:
    """The same on a CPU image by image, by several threads."""
    shape = right.shape[-2:]

    def every(part: Tensor, *own: int) -> list[Tensor]:
        return list(part.expand(*right.shape[:-2], *own, *shape).reshape(-1, *own, *shape))

    weight = weight if weight.ndim == 2 else weight.squeeze(-3)
    parts = [every(maps.to(right), maps.shape[-3]), *(every(part) for part in (weight, penalty, scale, right))]
    found = parallel(lambda one: coils.solve(*(part.contiguous() for part in one), iterations, tolerance), list(zip(*parts, strict=True)))
    return torch.stack(found).reshape(right.shape)
