"""Partial Fourier: an image whose phase is smooth is known on both sides of k-space from one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prom import options
from prom.errors import InputError
from prom.kspace.encoding import Coils, check_coils, check_grid, check_slices, weights_of
from prom.kspace.fourier import fft2c, ifft2c, opposite
from prom.reconstruction.conjugate_gradients import conjugate_gradients
from prom.reconstruction.sense import Sense, check_finite, check_measured, check_penalty
from prom.reconstruction.zero_filled import described, digits


class PhaseConstrained:
    r"""The regularised least-squares image of all coils whose phase is known: Willig-Onwuachi et al. 2005, doi:10.1016/j.jmr.2005.06.004.

    .. math:: \hat x = P \hat \rho, \qquad
        \hat \rho = \arg\min_{\rho \in \mathbb R^n} \| W^{1/2} (E P \rho - y) \|^2 + \| r^{1/2} F \rho \|^2,

    with P the phase on the diagonal, E, W and r of :class:`prom.reconstruction.sense.Sense`. The image may be negative. Half as many
    numbers are unknown, so that one side of k-space is enough; where the phase is wrong, so is the image.

    The solution is that of :math:`\operatorname{Re}(P^H E^H W E P) \rho + F^H r_s F \rho = \operatorname{Re}(P^H E^H W y)`, where
    :math:`r_s(k) = (r(k) + r(-k)) / 2`, by conjugate gradients for :math:`F \rho`.

    *Gradient.* With :math:`A q = \operatorname{Re}(P^H g)`, as of SENSE:
    :math:`\partial L / \partial w_i = \mathrm{Re} \sum_k \overline{(E P q)_{k,i}} \, (y - E \hat x)_{k,i}`. The phase is taken as given.

    Parameters
    ----------
    penalty, iterations, tolerance
        As of SENSE, but the penalty of least error is half of SENSE's, sigma^2 / 2P: half of the noise is in the phase, which is known.
    phase
        P: ``(..., H, W)`` complex of magnitude 1, or 0 where the image is 0.

    Raises
    ------
    InputError
        As by SENSE.

    >>> maps, image = torch.randn(2, 8, 8, dtype=torch.complex64), torch.rand(8, 8)
    >>> phase, half = torch.polar(torch.ones(8, 8), image), (torch.arange(8) < 5).float()[:, None].expand(8, 8)
    >>> encoding = Coils(maps)
    >>> found, _ = PhaseConstrained(1e-5, phase, iterations=200)(encoding.forward(phase * image), half, encoding)
    >>> torch.allclose(found, phase * image, atol=1e-2)
    True
    """

    concurrent = True  # several threads may call it at once

    def __init__(self, penalty: float | Tensor, phase: Tensor, iterations: int = 50, tolerance: float = 1e-5) -> None:
        self.penalty = Sense(penalty, iterations, tolerance).penalty
        self.phase, self.iterations, self.tolerance = phase.resolve_conj().resolve_neg(), iterations, tolerance

    def describe(self) -> dict[str, str]:
        """What a mask's provenance records: as of SENSE, with 16 hex digits that the phase decides.

        >>> PhaseConstrained(1e-3, torch.ones(4, 4)).describe()
        {'reconstruction': 'PhaseConstrained(phase=9628e545ed3ac074)', 'reconstruction_penalty': '0.001'}
        """
        own = described(self, Sense, "iterations", "tolerance", first=[f"phase={digits(self.phase)}"])
        return Sense(self.penalty).describe() | {"reconstruction": own}

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)`` of samples ``(..., K, H, W)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`; ``mask`` is ``(..., 1, H, W)`` or ``(H, W)``.
        """
        check_coils(encoding, "constraint on the phase")
        check_slices(encoding, "constraints on the phase")
        check_grid(encoding, "constraint on the phase")
        check_penalty(self.penalty, encoding.samples)
        if self.phase.numel() > 1 and tuple(self.phase.shape[-2:]) != tuple(encoding.samples):
            raise InputError(f"phase of {tuple(self.phase.shape)}: is not for images of {tuple(encoding.samples)}; give one of their size")
        samples = samples if samples.is_complex() else samples + 0j
        check_measured(samples, encoding)
        _check_phase(self.phase)
        weight = weights_of(mask, encoding, samples.real.dtype)
        phase = self.phase.to(samples) * encoding.seen
        penalty = _symmetric(self.penalty.to(samples.device, weight.dtype).expand(encoding.samples))
        diagonal = encoding.diagonal(weight if weight.ndim == 2 else weight.squeeze(-3)).clamp(min=0)
        scale = 1 / (_symmetric(diagonal) + penalty)

        def real(image: Tensor) -> Tensor:
            """F Re(P^H image)."""
            return fft2c((phase.conj() * image).real)

        def normal(z: Tensor) -> Tensor:
            return real(encoding.adjoint(weight * encoding.forward(phase * ifft2c(z).real))) + penalty * z

        def solve(image: Tensor) -> Tensor:
            return phase * ifft2c(conjugate_gradients(normal, scale, real(image), self.iterations, self.tolerance)).real

        found = solve(encoding.adjoint(weight * samples))

        def pullback(gradient: Tensor) -> Tensor:
            check_finite(gradient, "gradient of the loss: has NaN or infinite values; look for a division by 0 in the loss")
            return (encoding.forward(solve(gradient)).conj() * (samples - encoding.forward(found))).real

        return found, pullback


def _check_phase(phase: Tensor) -> None:
    check_finite(phase, "phase: has NaN or infinite values; where it is not known, it can be 1")
    if bool((((phase.abs() - 1).abs() > 1e-3) & (phase != 0)).any()):
        raise InputError("phase: has values of other magnitude than 1; divide it by phase.abs()")


def _symmetric(weights: Tensor) -> Tensor:
    """The mean of the weights at k and at -k: ``(..., H, W)``."""
    turned = torch.stack([opposite(one) for one in weights.reshape(-1, *weights.shape[-2:])]).reshape(weights.shape)
    return (weights + turned) / 2


def homodyne(samples: Tensor, mask: Tensor, phase: Tensor) -> Tensor:
    r"""Zero-filling with the phase known: Noll, Nishimura and Macovski 1991, doi:10.1109/42.79473.

    .. math:: \hat x = P \operatorname{Re}(P^H F^{-1} w y), \qquad w(k) = 2 m(k) / (m(k) + m(-k)),

    so that what was measured on one side only counts twice, and where the phase is right, for both.

    Parameters
    ----------
    samples
        ``(..., H, W)`` complex.
    mask
        ``(H, W)`` bool.
    phase
        P: ``(..., H, W)`` complex of magnitude 1, or 0 where the image is 0.

    Raises
    ------
    InputError
        Where the phase is not finite, or of another magnitude.

    >>> image, mask = torch.rand(8, 8), (torch.arange(8) < 5)[:, None].expand(8, 8)
    >>> phase = torch.ones(8, 8, dtype=torch.complex64)
    >>> torch.allclose(homodyne(fft2c(image), mask, phase).real, image, atol=1e-6)
    True
    """
    _check_phase(phase)
    measured = mask.to(samples.real.dtype)
    weight = torch.where(mask, measured / _symmetric(measured).clamp(min=0.5), 0)
    return phase * (phase.conj() * ifft2c(weight * samples)).real


def smooth_phase(image: Tensor, reach: Sequence[int]) -> Tensor:
    r"""The phase of an image at low resolution: ``(..., H, W)`` complex of magnitude 1, and 1 where there is no image.

    The image's samples are weighted by :math:`\cos^2(\pi k / 2 (K + 1))` along each axis, K the ``reach``: how many samples from DC on
    are taken on either side.

    Parameters
    ----------
    image
        ``(..., H, W)`` complex.
    reach
        Along rows' and columns' index, at least 0.

    Raises
    ------
    InputError
        Where it is below 0.

    >>> image = torch.polar(torch.ones(8, 8), torch.full((8, 8), 0.3))
    >>> torch.allclose(smooth_phase(image, (2, 2)), image, atol=1e-6)
    True
    """
    window = torch.ones((), dtype=torch.float32)
    for axis, most in zip((-2, -1), reach, strict=True):
        most = options.check("reach", most, "[0, 1e6]", whole=True)
        n = image.shape[axis]
        share = ((torch.arange(n) - n // 2) / (most + 1)).clamp(-1, 1)
        wave = (torch.pi / 2 * share).cos().square()
        window = window * (wave[:, None] if axis == -2 else wave)
    smooth = ifft2c(window.to(image.device) * fft2c(image))
    size = smooth.abs()
    return torch.where(size > 0, smooth / torch.where(size > 0, size, 1), 1)
