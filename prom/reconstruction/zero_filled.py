"""The first reconstruction: what was not measured is taken as 0."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Protocol

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.encoding import Encoding, Fourier
from prom.kspace.fourier import IMAGE_AXES


class Reconstruction(Protocol):
    """From samples to an image, and the way back of gradients."""

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Encoding) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As :meth:`ZeroFilled.__call__`; of operations that autograd can follow, where the objective differentiates by autograd."""


def described(reconstruction: object, kind: type, *names: str, first: Sequence[str] = ()) -> str:
    """The name of its type with ``first``, and those of the settings ``names`` that are not the defaults of ``kind``.

    >>> from prom.reconstruction.sense import Sense
    >>> described(Sense(0.1, iterations=3), Sense, "iterations", "tolerance")
    'Sense(iterations=3)'
    """
    usual = signature(kind).parameters
    own = {name: getattr(reconstruction, name) for name in names}
    settings = [*first, *(f"{name}={value}" for name, value in own.items() if value != usual[name].default)]
    return f"{type(reconstruction).__name__}({', '.join(settings)})" if settings else type(reconstruction).__name__


def digits(values: Tensor) -> str:
    """16 hex digits that the values decide.

    >>> digits(torch.zeros(2)), digits(torch.zeros(3))
    ('af5570f5a1810b7a', '15ec7bf0b50732b4')
    """
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def image_of(
    reconstruction: Reconstruction, samples: Tensor, mask: Tensor, encoding: Encoding, shape: tuple[int, ...] | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What a reconstruction makes, and the way back. ``shape``: that of the image, where it is known.

    Raises
    ------
    InputError
        Where it is a class, or returns something else, as a network does, or an image of another shape.

    >>> image_of(lambda samples, mask, encoding: samples, torch.ones(4, 4) + 0j, torch.ones(4, 4), Fourier((4, 4)))
    Traceback (most recent call last):
    prom.errors.InputError: reconstruction function: must return an image and the way back of gradients; of a network give \
prom.reconstruction.through.Through(network)
    """
    if isinstance(reconstruction, type):
        raise InputError(
            f"reconstruction {reconstruction.__name__}: is a class; give one that is made of it, {reconstruction.__name__}(...)"
        )
    returned = reconstruction(samples, mask, encoding)
    name = type(reconstruction).__name__
    pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not pair or not isinstance(returned[0], Tensor) or not callable(returned[1]):
        raise InputError(
            f"reconstruction {name}: must return an image and the way back of gradients; of a network give "
            "prom.reconstruction.through.Through(network)"
        )
    image, pullback = returned
    if shape is not None and tuple(image.shape) != shape:
        raise InputError(f"reconstruction {name}: returned an image of {tuple(image.shape)}; must be of {shape}")
    return image, pullback


class ZeroFilled:
    r""":math:`\hat x = E^H (m \odot y)` for samples y and a mask m (paper, section 3.1).

    >>> import torch
    >>> image, encoding = torch.rand(4, 6), Fourier((4, 6))
    >>> found, pullback = ZeroFilled()(encoding.forward(image), torch.ones(4, 6), encoding)
    >>> torch.allclose(found.real, image, atol=1e-6), pullback(found).shape
    (True, torch.Size([4, 6]))
    """

    linear = True  # in the samples

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Encoding) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""The image, and the way back of gradients.

        Parameters
        ----------
        samples
            All of them, complex.
        mask
            bool or float, of a shape that broadcasts against ``samples``.
        encoding
            E.

        Returns
        -------
        Tensor
            The complex image.
        Callable
            From :math:`\partial L / \partial \mathrm{Re}\,\hat x + i\, \partial L / \partial \mathrm{Im}\,\hat x` to
            :math:`\partial L / \partial m = \mathrm{Re}(\overline{y} \odot E\, \partial L / \partial \hat x)`, of the shape of
            ``samples * mask``.
        """
        return encoding.adjoint(samples * mask), lambda gradient: (samples.conj() * encoding.forward(gradient)).real


def undersample(image: Tensor, mask: Tensor, axes: tuple[int, ...] = IMAGE_AXES) -> Tensor:
    r"""Magnitude of the zero-filled reconstruction: :math:`\hat x = |F^{-1}(F x \odot m)|`.

    ``image`` is ``(..., H, W)``, ``mask`` broadcasts against it (bool or float, centred). Returns ``(..., H, W)`` real. ``axes``: those
    that the Fourier transform goes over, counted from the last. Raises InputError where their shapes do not fit each other.

    >>> image = torch.rand(8, 8)
    >>> torch.allclose(undersample(image, torch.ones(8, 8)), image, atol=1e-6)
    True
    """
    try:
        torch.broadcast_shapes(image.shape, torch.as_tensor(mask).shape)
    except RuntimeError as error:
        raise InputError(f"mask {tuple(mask.shape)}: does not fit an image of shape {tuple(image.shape)}; make it as large") from error
    encoding = Fourier(tuple(image.shape[-len(axes) :]), axes)
    return ZeroFilled()(encoding.forward(image), mask, encoding)[0].abs()
