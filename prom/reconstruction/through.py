"""Any network that reconstructs, as a reconstruction that masks are optimised and scored with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prom.engine import network_files
from prom.engine.threads import gathered
from prom.errors import InputError
from prom.kspace.encoding import Encoding, Fourier, FourierUpToPhase, check_slices


class Through:
    r"""A frozen network ``(samples, mask, encoding) -> complex image``, with :math:`\partial L / \partial m` by autograd.

    Samples are ``(..., K, H, W)`` complex, the mask ``(..., 1, H, W)`` real, the image ``(..., H, W)``, all leading axes being those of a
    batch. Objectives and :func:`prom.evaluate` divide the samples by a unit of their own, and scores are right only if the image is divided
    with them: the network has to normalise what it gets, as :class:`prom.reconstruction.unrolled.Unrolled` does.

    Parameters
    ----------
    network
        It is put into evaluation mode, its weights get no gradient any more, and it follows the samples to their device.
        ``network.train().requires_grad_()`` takes back what was changed.

    Raises
    ------
    InputError
        Where it is called with an encoding whose images have a phase that is not theirs, or the network's image is not of that shape.

    >>> class Filtered(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.filter = nn.Conv2d(1, 1, 3, padding=1, bias=False, dtype=torch.complex64)
    ...
    ...     def forward(self, samples, mask, encoding):
    ...         image = encoding.adjoint(samples * mask)
    ...         return image + self.filter(image.reshape(-1, 1, *image.shape[-2:])).reshape(image.shape)
    >>> from prom.datasets.base import SliceDataset
    >>> from prom.objectives.reconstructed import Reconstructed
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> loss, gradient = Reconstructed(data, Through(Filtered())).loss_and_gradient([0, 1], torch.ones(1, 8, 8))
    >>> gradient.shape
    torch.Size([1, 8, 8])
    """

    def __init__(self, network: nn.Module) -> None:
        check_network(network)
        self.network = network.eval()
        for weight in network.parameters():
            weight.requires_grad_(False)

    def describe(self) -> dict[str, str]:
        """The network in a mask's provenance: its type, and 16 hex digits of its weights and of the text of its layers."""
        kind = getattr(self.network, "original_name", type(self.network).__name__)  # TorchScript's own type is the same for all
        return {"reconstruction": kind, "reconstruction_network": network_files.fingerprint(self.network, [kind, str(self.network)])}

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Encoding) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The image ``(..., H, W)``, and the way back of gradients.

        As :meth:`prom.reconstruction.zero_filled.ZeroFilled.__call__`, but for the gradient's axis of coils, which has the length 1: it is
        summed over them. Where autograd is switched off, the way back runs the network once more, and until then nothing is kept of it.
        """
        if isinstance(getattr(encoding, "fourier", encoding), FourierUpToPhase):
            raise InputError("images up to a phase: a network needs their own; use prom.objectives.reconstructed.Reconstructed")
        check_slices(encoding, "networks")
        self.network.to(samples.device)
        batch = torch.broadcast_shapes(samples.shape, mask.shape)[:-3]
        weight = mask.to(samples.real.dtype).expand(*batch, 1, *samples.shape[-2:])

        def run() -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.enable_grad(), gathered():
                own = weight if weight.requires_grad else weight.detach().requires_grad_()
                return self._image(samples, own, encoding), own

        if torch.is_grad_enabled():
            found, own = run()
        else:
            found, own = self._image(samples, weight, encoding), None

        def pullback(gradient: Tensor) -> Tensor:
            image, at = (found, own) if own is not None else run()
            with gathered():
                led = torch.autograd.grad(image, at, gradient, retain_graph=True, allow_unused=True)[0] if image.requires_grad else None
            if led is None:
                raise InputError(f"{type(self.network).__name__}: its image does not depend on the mask; it must not detach")
            return led

        return (found if mask.requires_grad else found.detach()), pullback

    def _image(self, samples: Tensor, mask: Tensor, encoding: Encoding) -> Tensor:
        image = self.network(samples, mask, encoding)
        sides = mask.shape[-2:] if isinstance(encoding, Fourier) else encoding.maps.shape[-2:]  # off the grid the mask has readouts
        check_image(self.network, image, (*mask.shape[:-3], *sides))
        return image


def check_network(network: nn.Module) -> None:
    """Raise InputError where it is no network, or nothing can be led back through it: made in inference mode, or not made to the end.

    >>> with torch.inference_mode():
    ...     network = nn.Linear(2, 2)
    >>> check_network(network)
    Traceback (most recent call last):
    prom.errors.InputError: Linear: was made in inference mode, where nothing has a gradient; make it outside
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"network of type {type(network).__name__}: must be a torch.nn.Module (an object, no class)")
    if any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in network.parameters()):
        raise InputError(
            f"{type(network).__name__}: has lazy layers that have no weights yet; call it once with samples, mask and encoding"
        )
    if any(weight.is_inference() for weight in network.parameters()):
        raise InputError(f"{type(network).__name__}: was made in inference mode, where nothing has a gradient; make it outside")


def check_image(network: nn.Module, image: Tensor, expected: tuple[int, ...]) -> None:
    """Raise InputError where a network returned anything but a complex image of this shape.

    >>> check_image(nn.Identity(), torch.ones(2, 4, 4), (2, 4, 4))
    Traceback (most recent call last):
    prom.errors.InputError: Identity: returned torch.float32 of (2, 4, 4): must be a complex image of (2, 4, 4)
    """
    if not isinstance(image, Tensor) or tuple(image.shape) != expected or not image.is_complex():
        what = f"{image.dtype} of {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"{type(network).__name__}: returned {what}: must be a complex image of {expected}")
