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
from prom.errors import InputError, unknown_noise
from prom.kspace.encoding import Coils, check_coils, weights_of
from prom.kspace.fourier import fftc
from prom.kspace.nonuniform import NonUniform
from prom.reconstruction.conjugate_gradients import conjugate_gradients
from prom.reconstruction.zero_filled import described, digits

SMOOTH = 1.5  # samples, the standard deviation of the Gaussian that smooths a spectrum
LEAST_POWER = 1e-12  # of the largest: less is taken as this, so that the prior stays finite


class Sense:
    r"""The regularised least-squares image of all coils: Pruessmann et al. 2001, doi:10.1002/mrm.1241.

    .. math:: \hat x = \arg\min_x \| W^{1/2} (E x - y) \|^2 + \| r^{1/2} F x \|^2, \qquad A \hat x = E^H W y, \quad A = E^H W E + F^H r F,

    with E of :class:`prom.kspace.encoding.Coils`, W the mask on the diagonal and r a penalty on each spatial frequency: one number (a
    ridge), or :math:`\sigma^2 / P` with the noise's variance and the mean power spectrum, which makes :math:`\hat x` the linear estimate
    of least mean error.

    *Series.* Of frames F has one more transform, over time, so that r is a penalty on each pair of spatial and temporal frequency, (k, f):
    k-t reconstruction with a prior, Tsao et al. 2003, doi:10.1002/mrm.10611. E stays what coils measure of each frame.

    It is solved for :math:`z = F x` by conjugate gradients, with :math:`(d + r)^{-1}` before them, where d is the exact diagonal of
    :math:`F E^H W E F^H`: the mask, convolved with the power of the coils' spectra. Of many images at once each has steps of its own.

    *Gradient.* With :math:`g = \partial L / \partial \hat x` and :math:`A p = g`, one more solve with the same matrix gives

    .. math:: \partial L / \partial w_i = \mathrm{Re} \sum_k \overline{(E p)_{k,i}} \, (y - E \hat x)_{k,i}

    for every sample, measured or not, of the converged image: where few iterations leave an error, it is not the derivative of that loss.
    Nothing is unrolled, and memory does not grow with the iterations.

    Parameters
    ----------
    penalty
        r: > 0, one number or centred, ``(H, W)``, ``(D, H, W)`` of volumes or ``(T, H, W)`` of series, in the units of :math:`|E|^2`.
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

    def describe(self) -> dict[str, str]:
        """What a mask's provenance records: the penalty too, or 16 hex digits of one that is not the same everywhere, and other settings
        where they are not the usual ones.

        >>> Sense(1e-3).describe()
        {'reconstruction': 'Sense', 'reconstruction_penalty': '0.001'}
        """
        penalty = f"{float(self.penalty.detach()):g}" if self.penalty.numel() == 1 else digits(self.penalty)
        return {"reconstruction": described(self, Sense, "iterations", "tolerance"), "reconstruction_penalty": penalty}

    @classmethod
    def of(cls, train: SliceDataset, iterations: int = 50, tolerance: float = 1e-5) -> Sense:
        r"""With the penalty :math:`\sigma^2 / P` of these images: P their :func:`spectrum`, :math:`\sigma` their ``noise``.

        Raises
        ------
        InputError
            Where the noise is not known, or 0.
        """
        if not train.noise:
            more = ", or use Sense(penalty), or a reconstruction that needs no noise: wavelet or tv"
            raise unknown_noise(train.name, "which SENSE needs", more, train.noise)
        return cls(train.noise**2 / spectrum(train), iterations, tolerance)

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)`` of samples ``(..., K, H, W)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`; ``mask`` is ``(..., 1, H, W)`` or ``(H, W)``, and where samples have
        three axes ``(..., 1, T, H, W)`` or ``(T, H, W)``.
        """
        check_coils(encoding, "sense")
        samples = samples if samples.is_complex() else samples + 0j
        if encoding.unshifted is not None:  # a phase takes less time than shifts do
            plain, *phases = encoding.unshifted
            phase, of_samples = (each.to(samples) for each in phases)
            found, pullback = self(samples * of_samples.conj(), mask, plain)
            return found * phase.conj(), lambda gradient: pullback(gradient * phase)
        real, coil, space = samples.real.dtype, encoding.axis, encoding.fourier.axes
        every = tuple(range(coil + 1, 0))  # of z: space, and time where there are frames
        penalty = self.penalty.to(samples.device, real)
        weight = weights_of(mask, encoding, real)
        of_image = weight if weight.ndim == len(every) else weight.squeeze(coil)
        if isinstance(encoding.fourier, NonUniform):
            multiplier, diagonal = encoding.toeplitz(of_image)
            by_coils, size = multiplier.unsqueeze(coil), encoding.fourier.twice
        else:
            multiplier, diagonal = of_image, encoding.diagonal(of_image)
            by_coils, size = weight, None
        diagonal = diagonal.clamp(min=0)
        if time := [axis for axis in every if axis not in space]:
            diagonal = diagonal.mean(dim=time, keepdim=True)  # a transform over time makes a diagonal even over its frequencies
        image = (*encoding.samples[: len(every) - len(space)], *encoding.maps.shape[-len(space) :])
        check_penalty(penalty, image)
        scale = 1 / (diagonal + penalty)
        phase = encoding.fourier.phase.to(samples)  # z of the transform without shifts
        phase_seen = phase * encoding.seen  # where no coil sees, the prior alone would fill the image

        def normal(z: Tensor) -> Tensor:
            coil_images = encoding.maps * torch.fft.ifftn(z, dim=every, norm="ortho").unsqueeze(coil)
            coil_images = torch.fft.ifftn(by_coils * torch.fft.fftn(coil_images, s=size, dim=space), dim=space)
            if size:
                coil_images = coil_images[(..., *(slice(n // 2) for n in size))]
            return torch.fft.fftn((encoding.maps.conj() * coil_images).sum(dim=coil), dim=every, norm="ortho") + penalty * z

        def solve(image: Tensor) -> Tensor:
            right = torch.fft.fftn(image * phase_seen, dim=every, norm="ortho")
            followed = right, weight, penalty, encoding.maps
            recorded = torch.is_grad_enabled() and any(part.requires_grad for part in followed)  # autograd has to follow
            by_image = not asynchronous(right) and right.dtype == torch.complex64 and not recorded
            limits = self.iterations, self.tolerance
            if by_image:
                found = _by_image(encoding, multiplier, penalty, scale, right, *limits)
            else:
                found = conjugate_gradients(normal, scale, right, *limits, image=every)
            return torch.fft.ifftn(found, dim=every, norm="ortho") * phase_seen.conj()

        check_measured(samples, encoding)
        found = solve(encoding.adjoint(weight * samples))

        def pullback(gradient: Tensor) -> Tensor:
            check_finite(gradient, "gradient of the loss: has NaN or infinite values; look for a division by 0 in the loss")
            rest = samples - encoding.forward(found)
            return (encoding.forward(solve(gradient)).conj() * rest).real

        return found, pullback


def check_measured(samples: Tensor, encoding: Coils) -> None:
    """Refuse samples or sensitivities that are not finite: images of them would be none."""
    check_finite(samples, "samples: have NaN or infinite values, measured or not; leave them out, or make them 0")
    check_finite(encoding.maps, "sensitivities: have NaN or infinite values; where nothing is known of a coil, they can be 0")


def check_penalty(penalty: Tensor, image: tuple[int, ...]) -> None:
    """Refuse a penalty that is not for images of this shape."""
    if penalty.ndim > len(image) or any(of not in (1, side) for of, side in zip(penalty.shape[::-1], image[::-1], strict=False)):
        raise InputError(f"penalty of {tuple(penalty.shape)}: is not for images of {tuple(image)}; choose it on data of their size")


def check_finite(values: Tensor, message: str) -> None:
    """Else the solution would be 0: no step of length NaN is taken. On a GPU nobody waits for it."""
    if not asynchronous(values) and not bool(values.isfinite().all()):
        raise InputError(message)


def spectrum(train: SliceDataset) -> Tensor:
    """The power that images like these are expected to have, ``(*samples)`` float64, centred: the prior. All above 0.

    It is the mean of the squared magnitude of their transform along all axes, over time too where there are frames, so that of a series
    it is of each pair of temporal and spatial frequency. Its logarithm is smoothed over a few spatial frequencies.

    The mean over a few dozen images scatters from sample to sample, by a third of its value over ten of them. A prior that takes this
    for truth trusts some samples too much and their neighbours too little; a spectrum is smoother than that (chapter 10).

    >>> power = spectrum(SliceDataset("demo", "train", torch.rand(2, 1, 32, 32), ["a", "b"], [0, 0]))
    >>> power.shape, bool((power > 0).all())
    (torch.Size([32, 32]), True)
    """
    power = _power(train, tuple(range(-len(train.shape), 0)))
    logarithm = power.clamp(min=LEAST_POWER * power.max()).log()
    widths = [SMOOTH if axis in train.axes else 0 for axis in range(-len(train.shape), 0)]
    return torch.from_numpy(gaussian_filter(logarithm.numpy(), widths, mode="wrap")).exp()


def mean_power(train: SliceDataset) -> Tensor:
    """The mean power of every sample that a mask can have: ``(*samples)`` float64, centred, over entries and channels.

    :math:`|F x|^2` in the units of the images squared; of a series, of each frame.

    >>> mean_power(SliceDataset("demo", "train", torch.ones(2, 1, 2, 2), ["a", "b"], [0, 0])).tolist()      # all of it at DC
    [[0.0, 0.0], [0.0, 4.0]]
    """
    return _power(train, train.axes)


def _power(train: SliceDataset, axes: tuple[int, ...]) -> Tensor:
    return sum(fftc(image, axes).abs().double().square().mean(dim=0) for image in train.images) / len(train)


def _by_image(encoding: Coils, weight: Tensor, penalty: Tensor, scale: Tensor, right: Tensor, iterations: int, tolerance: float) -> Tensor:
    """The same on a CPU image by image, by several threads."""
    samples, space = encoding.samples, encoding.fourier.axes
    image = right.shape[right.ndim - len(samples) :]
    maps = encoding.maps if len(space) == len(samples) else encoding.maps.squeeze(-len(samples))
    batch = right.shape[: right.ndim - len(samples)]

    def every(part: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        return list(part.expand(*batch, *shape).reshape(-1, *shape))

    weights = every(weight, weight.shape[-len(samples) :])
    parts = [every(maps.to(right), maps.shape[-len(space) - 1 :]), weights, *(every(part, image) for part in (penalty, scale, right))]
    found = parallel(lambda one: coils.solve(*(part.contiguous() for part in one), iterations, tolerance), list(zip(*parts, strict=True)))
    return torch.stack(found).reshape(right.shape)
