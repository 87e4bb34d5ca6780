"""Compressed sensing: a sparse image that explains the samples, and the gradient with respect to the mask by one more solve."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from prom import options
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown
from prom.kspace.encoding import Coils, Fourier, check_coils, check_slices, weights_of
from prom.kspace.nonuniform import NonUniform
from prom.reconstruction.conjugate_gradients import conjugate_gradients
from prom.reconstruction.sense import check_measured
from prom.reconstruction.sparsity import LEVELS, Differences, Wavelets, orthogonal
from prom.reconstruction.typical import typical
from prom.reconstruction.zero_filled import described

KINDS = ("wavelet", "tv")
STRENGTH = 1e-3  # near the best on virtual brains with eight coils, from x3 to x10
DOUBLINGS = 6  # of it, up and down, that are tried
TUNING_SLICES = 4  # that choose it
MOMENTUM = 0.5  # of the last change, which the next parabola is laid ahead by: a tenth of the distance left after as many steps without
GROUP = -3  # the axis of coefficients that are penalised together
ROUNDING = 1e-5  # of the largest entry of what is measured: below it nothing is
UNSEEN = 1e-2  # likewise: the penalty of a constant that nothing measures
LEAST = 1e-6  # of the largest entry of the diagonal: where nothing is measured and nothing penalised, a step stays finite


class Sparse:
    r"""The sparse image of all coils: Lustig, Donoho and Pauly 2007, doi:10.1002/mrm.21391.

    .. math:: \hat x = \arg\min_x \| W^{1/2} (E x - y) \|^2 + 2 \lambda \sum_j \varphi(|(\Psi x)_j|),
              \qquad \varphi(u) = \sqrt{u^2 + \varepsilon^2},

    with E of :class:`prom.kspace.encoding.Coils`, W the mask on the diagonal and :math:`\Psi` orthogonal wavelets, whose coarsest
    approximation is free, or differences of neighbours, the length of both together ("tv": isotropic total variation). For small
    :math:`\varepsilon` that is the sum of magnitudes; :math:`\varepsilon > 0` gives it a second derivative.

    Both numbers are relative to the data: with the root mean square s of what was measured,

    .. math:: \lambda = \text{strength} \cdot s, \qquad \varepsilon = \text{smoothing} \cdot s,
              \qquad s^2 = \sum_{k,i} w_i |y_{k,i}|^2 / (H W),

    H W being the pixels of the image, so that images times a number give results times that number. Sensitivities are taken to have a root
    sum of squares of about 1.

    *Image.* Iteratively reweighted least squares: around the last image :math:`\varphi` lies below a parabola, whose minimum is the next
    one. It is found by conjugate gradients for :math:`z = F x`, with the inverse of the exact diagonal before them, which is that of
    :class:`prom.reconstruction.sense.Sense` plus, for each band, the sum of its weights :math:`1 / \varphi` times the power of its
    filter. Each step begins ahead of the last image by half the last change.

    *Gradient.* With :math:`g = \partial L / \partial \hat x`, :math:`u = \Psi \hat x` and the second derivative at the solution,

    .. math:: H p = g, \qquad H v = E^H W E v
              + \lambda \Psi^H \frac{1}{\varphi} \Big( \Psi v - u \frac{\mathrm{Re}(\bar u \Psi v)}{\varphi^2} \Big),

    linear over the real numbers, one more solve gives

    .. math:: \frac{\partial L}{\partial w_i} = \mathrm{Re} \sum_k \overline{(E p)_{k,i}} \, (y - E \hat x)_{k,i}
              + \frac{\partial L}{\partial s} \frac{\sum_k |y_{k,i}|^2}{2 s H W}, \qquad
              \frac{\partial L}{\partial s} = - \frac{\lambda}{s} \mathrm{Re} \Big\langle \Psi p, \frac{|u|^2}{\varphi^3} u \Big\rangle,

    for every sample, measured or not. It is exact where :math:`\hat x` is the minimum.

    Parameters
    ----------
    kind
        "wavelet" or "tv".
    strength
        :math:`\lambda / s`, > 0. :meth:`of` chooses it.
    smoothing
        :math:`\varepsilon / s`, > 0. Smaller is nearer to magnitudes, and takes more steps.
    wavelet, levels
        As of :class:`prom.reconstruction.sparsity.Wavelets`.
    steps
        At most so many parabolas.
    iterations
        At most so many of conjugate gradients for each; the gradient gets ``steps`` times as many.
    tolerance
        Enough where no residual is above this share of the right-hand side, and no step above this share of the image.

    Raises
    ------
    InputError
        Where a name is not known, or a number is out of range.

    >>> maps, image = torch.randn(4, 16, 16, dtype=torch.complex64), torch.ones(16, 16, dtype=torch.complex64)
    >>> encoding, mask = Coils(maps), torch.ones(16, 16)
    >>> found, pullback = Sparse("tv")(encoding.forward(image), mask, encoding)
    >>> torch.allclose(found, image, atol=1e-2), pullback(found).shape
    (True, torch.Size([4, 16, 16]))
    """

    concurrent = True  # several threads may call it at once

    def __init__(
        self,
        kind: str = "wavelet",
        strength: float = STRENGTH,
        smoothing: float = 0.01,
        wavelet: str = "db4",
        levels: int = LEVELS,
        steps: int = 16,
        iterations: int = 8,
        tolerance: float = 1e-6,
    ) -> None:
        if kind not in KINDS:
            raise unknown("sparsity", kind, KINDS)
        orthogonal(wavelet)
        options.check("strength", strength, "(0, 1e6]")
        options.check("smoothing", smoothing, "(0, 1e6]")
        options.check("levels", levels, "[1, 30]", whole=True)
        options.check("steps", steps, "[1, 1e6]", whole=True)
        options.check("iterations", iterations, "[1, 1e6]", whole=True)
        options.check("tolerance", tolerance, "[0, 1)")
        self.kind, self.strength, self.smoothing = kind, float(strength), float(smoothing)
        self.wavelet, self.levels = wavelet, levels
        self.steps, self.iterations, self.tolerance = steps, iterations, tolerance

    @classmethod
    def of(
        cls,
        train: SliceDataset,
        kind: str = "wavelet",
        mask: Tensor | None = None,
        **given: float,
    ) -> Sparse:
        """With the strength that gives four of these slices, spread evenly, the highest mean PSNR of the magnitude.

        From the default it is doubled, or halved, as long as that helps.

        Parameters
        ----------
        train
            Slices, with or without coils.
        kind
            "wavelet" or "tv".
        mask
            That they are undersampled with, ``(H, W)``, since the best strength is not that of another mask. By default that of
            :func:`prom.reconstruction.typical.typical` at x4.
        given
            The other parameters of the class; a ``strength`` that is given stays as it is.

        Raises
        ------
        InputError
            As by the class, and where the mask is of another size.
        """
        if "strength" in given:
            return cls(kind, **given)
        pattern = "points" if train.trajectory is None else train.trajectory.kind
        mask = typical(train, acceleration=4, pattern=pattern) if mask is None else torch.as_tensor(mask).cpu()
        if tuple(mask.shape) != tuple(train.grid):
            raise InputError(f"mask of {tuple(mask.shape)}: does not fit {train.name}, whose samples are {tuple(train.grid)}")
        few = train.thinned(TUNING_SLICES)

        @cache
        def score(doublings: int) -> float:
            """Mean PSNR in dB, up to a constant."""
            sparse, total = cls(kind, STRENGTH * 2.0**doublings, **given), 0.0
            for index in range(len(few)):
                samples = few.samples([index])[0]
                unit = samples.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
                found, _ = sparse(samples / unit, mask, few.encoding(index))
                error = (found.abs() - few.images[[index]][0, 0].abs() / unit).square().mean()
                total -= 10 * math.log10(max(float(error), 1e-30))
            return total / len(few)

        best = 0
        for step in (1, -1):
            while abs(best + step) <= DOUBLINGS and score(best + step) > score(best):
                best += step
        return cls(kind, STRENGTH * 2.0**best, **given)

    def describe(self) -> dict[str, str]:
        """What a mask's provenance records: settings other than the strength where they are not the usual ones.

        >>> Sparse("tv", strength=0.002).describe()
        {'reconstruction': 'Sparse(tv, strength=0.002)'}
        """
        of_wavelets = ("wavelet", "levels") if self.kind == "wavelet" else ()
        first = [self.kind, f"strength={self.strength:g}"]
        return {"reconstruction": described(self, Sparse, "smoothing", *of_wavelets, "steps", "iterations", "tolerance", first=first)}

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)`` of samples ``(..., K, H, W)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`; ``mask`` is ``(..., 1, H, W)`` or ``(H, W)``. Off the grid samples
        and masks have ``(K, R)`` in place of ``(H, W)``.

        Raises
        ------
        InputError
            Where wavelets do not fit the size, or samples or sensitivities are not finite.
        """
        check_coils(encoding, "wavelet and tv")
        check_slices(encoding, "wavelet and tv")
        samples = samples.to(torch.promote_types(torch.promote_types(samples.dtype, encoding.maps.dtype), torch.complex64))
        check_measured(samples, encoding)
        terms = _Terms(self, samples, mask, encoding)
        fourier = terms.fourier
        right = fourier.forward(encoding.adjoint(terms.weight * samples))
        last = z = right
        for _ in range(self.steps):
            ahead = z + MOMENTUM * (z - last)
            weights = terms.penalised / terms.lengths(fourier.adjoint(ahead))[1]
            last, z = z, terms.solve(weights.mul, weights, right, self.iterations, ahead)
            if bool((_norm(z - last) <= self.tolerance * _norm(z)).all()):
                break
        found = fourier.adjoint(z)

        def pullback(gradient: Tensor) -> Tensor:
            u, phi = terms.lengths(found)
            weights, direction = terms.penalised / phi, u / phi
            share = direction.abs().square().sum(dim=GROUP, keepdim=True)  # |u|^2 / phi^2

            def along(v: Tensor) -> Tensor:
                return (direction.conj() * v).real.sum(dim=GROUP, keepdim=True)

            def second(v: Tensor) -> Tensor:
                return weights * (v - direction * along(v))

            mean = weights * (1 - share / (2 * u.shape[GROUP]))  # over real and imaginary parts
            p = fourier.adjoint(terms.solve(second, mean, fourier.forward(gradient), self.steps * self.iterations))
            by_size = (terms.penalised * along(terms.transform.forward(p)) * share).sum(dim=(-2, -1), keepdim=True) * -self.strength
            by_sample = (encoding.forward(p).conj() * (samples - encoding.forward(found))).real
            return by_sample + by_size * terms.power / (2 * torch.where(terms.size > 0, terms.size, 1))

        return found, pullback


class _Terms:
    """What is minimised, for samples and masks: its parts, and solves with a quadratic penalty in place of the sparse one."""

    def __init__(self, sparse: Sparse, samples: Tensor, mask: Tensor, encoding: Coils) -> None:
        self.encoding, self.weight, fourier = encoding, weights_of(mask, encoding, samples.real.dtype), encoding.fourier
        of_image = self.weight if self.weight.ndim == 2 else self.weight.squeeze(-3)
        off_grid = isinstance(fourier, NonUniform)
        shape = fourier.image if off_grid else encoding.samples
        self.fourier = Fourier(shape) if off_grid else fourier
        multiplier, measured = encoding.toeplitz(of_image) if off_grid else (None, encoding.diagonal(of_image))
        self.multiplier, self.measured = multiplier.unsqueeze(-3) if off_grid else None, measured.clamp(min=0)
        like = {"dtype": samples.dtype, "device": samples.device}
        self.transform = Differences(shape, **like) if sparse.kind == "tv" else Wavelets(shape, sparse.wavelet, sparse.levels, **like)
        self.penalised = self.transform.members.sum(dim=0)
        # A constant has no differences and no details. Where no sample says how large it is, rounding would: there it is kept at 0.
        middle = (..., shape[-2] // 2, shape[-1] // 2)
        most = self.measured.amax(dim=(-2, -1))
        self.unseen = torch.zeros_like(self.measured)
        self.unseen[middle] = torch.where(self.measured[middle] <= ROUNDING * most, UNSEEN * most, 0)
        self.power = samples.abs().square() / math.prod(shape)
        self.size = (self.weight * self.power).sum(dim=(-3, -2, -1), keepdim=True).sqrt()  # s
        self.smoothing = torch.where(self.size > 0, sparse.smoothing * self.size, 1)
        self.strength = (sparse.strength * self.size).squeeze(-3)  # lambda
        self.tolerance = sparse.tolerance

    def lengths(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """u, and varphi of its lengths, ``(..., 1, H, W)``."""
        u = self.transform.forward(image)
        return u, (u.abs().square().sum(dim=GROUP, keepdim=True) + self.smoothing.square()).sqrt()

    def seen(self, image: Tensor) -> Tensor:
        """E^H W E x, off the grid by a product on a grid twice as large."""
        encoding, fourier = self.encoding, self.encoding.fourier
        if self.multiplier is None:
            return encoding.adjoint(self.weight * encoding.forward(image))
        phase = fourier.phase.to(image)
        padded = torch.fft.fft2(encoding.maps * (phase * image).unsqueeze(-3), s=fourier.twice)
        found = torch.fft.ifft2(self.multiplier * padded)[..., : image.shape[-2], : image.shape[-1]]
        return phase.conj() * (encoding.maps.conj() * found).sum(dim=-3)

    def solve(
        self, penalty: Callable[[Tensor], Tensor], mean: Tensor, right: Tensor, iterations: int, start: Tensor | None = None
    ) -> Tensor:
        """z = F x of E^H W E x + lambda Psi^H penalty(Psi x) = F^H right. ``mean``: the penalty's diagonal, for the one of the whole."""
        fourier, transform = self.fourier, self.transform

        def normal(z: Tensor) -> Tensor:
            image = fourier.adjoint(z)
            sparse = self.strength * transform.adjoint(penalty(transform.forward(image)))
            return fourier.forward(self.seen(image) + sparse) + self.unseen * z

        bands = torch.einsum("...hw,bhw->...b", mean.squeeze(GROUP), transform.members)
        diagonal = self.measured + self.unseen + self.strength * torch.einsum("...b,bhw->...hw", bands, transform.spectra)
        scale = torch.where(diagonal > 0, 1 / diagonal.clamp(min=LEAST * diagonal.amax(dim=(-2, -1), keepdim=True)), 0)
        return conjugate_gradients(normal, scale, right, iterations, self.tolerance, start)


def _norm(image: Tensor) -> Tensor:
    """Of each image."""
    return torch.linalg.vector_norm(image, dim=(-2, -1))
