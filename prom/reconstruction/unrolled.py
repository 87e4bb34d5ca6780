"""A network that reconstructs: a small U-Net and consistency with the samples in turn, a few times (MoDL)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prom import options
from prom.datasets.base import SliceDataset
from prom.engine import network_files
from prom.engine.optional import monai
from prom.errors import InputError
from prom.kspace.encoding import Coils, check_slices
from prom.reconstruction.sense import Sense

FORMAT = "prom unrolled network 1"
FEATURES = (8, 8, 16, 16, 16, 8)  # 32 thousand weights
LEVELS = 6  # numbers of features that MONAI's BasicUNet takes: five on the way down, and the last on the way up
LEAST_SIDE = 16  # it halves images four times


class Unrolled(nn.Module):
    r"""Model-based deep learning, MoDL: Aggarwal, Mani and Jacob 2019, doi:10.1109/TMI.2018.2865356.

    From the SENSE image :math:`x_0` on, a few times the same two steps with the same weights:

    .. math:: z_n = x_{n-1} + s \, U(x_{n-1} / s), \qquad x_n = \arg\min_x \| W^{1/2} (E x - y) \|^2 + \mu \| r^{1/2} F (x - z_n) \|^2,

    with E, W and r of :class:`prom.reconstruction.sense.Sense`, and U MONAI's ``BasicUNet`` on the real and imaginary part. U and
    :math:`\mu` are learnt. MoDL has r = 1. The scale s is the mean of :math:`|x_0|` of each image, so that samples times a positive number
    give the image times that number.

    The second step is :math:`x_n = z_n + d` with :math:`(E^H W E + \mu F^H r F) d = E^H W (y - E z_n)`, by the conjugate gradients of
    SENSE. A gradient step, as in the variational network (Sriram et al. 2020, doi:10.1007/978-3-030-59713-9_7), takes less time, but one
    step does not unfold what a mask folds: the network would need many of them, or have to learn what the coils know already.

    The last layer of U begins with 0, so that an untrained network is SENSE, whose prior each repetition weakens.

    Autograd follows samples, mask and weights; ``network.double()`` works in double precision. Memory grows with cascades and iterations.

    Parameters
    ----------
    penalty
        r: > 0, one number or ``(H, W)`` centred, as of SENSE; see :meth:`of`.
    cascades
        How often the two steps are repeated.
    iterations
        Conjugate gradient steps of each solution.
    features
        Six numbers of ``BasicUNet``: on the five levels on the way down, and on the last on the way up.
    seed
        Of the weights at the start.

    Raises
    ------
    InputError
        Where a number is out of range, the penalty is not above 0, MONAI is not installed, or an image has a side of less than 16.

    >>> encoding = Coils(torch.full((4, 16, 16), 0.5 + 0j))
    >>> network, image = Unrolled(penalty=0.05), torch.rand(3, 16, 16) + 0j
    >>> found = network(encoding.forward(image), torch.ones(16, 16), encoding)
    >>> torch.allclose(found, image, atol=1e-3), sum(weight.numel() for weight in network.parameters())
    (True, 32035)
    """

    def __init__(
        self, penalty: float | Tensor, cascades: int = 2, iterations: int = 10, features: Sequence[int] = FEATURES, seed: int = 0
    ) -> None:
        super().__init__()
        self.cascades = options.check("cascades", cascades, "[1, 100]", whole=True)
        self.iterations = options.check("iterations", iterations, "[1, 1000]", whole=True)
        self.features = [options.check("features", number, "[1, 4096]", whole=True) for number in features]
        if len(self.features) != LEVELS:
            raise InputError(f"features {self.features}: must be {LEVELS} numbers")
        seed, make = options.check_seed(seed), monai("nets").BasicUNet
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # One group: the statistics of the whole image, which keep the ratio of channels, and exist at a single pixel too.
            self.unet = make(2, 2, 2, features=self.features, norm=("group", {"num_groups": 1}))
        nn.init.zeros_(self.unet.final_conv.weight)
        nn.init.zeros_(self.unet.final_conv.bias)
        self.log_weight = nn.Parameter(torch.zeros(()))
        self.float()
        self.register_buffer("penalty", Sense(penalty).penalty.float())

    @classmethod
    def of(cls, train: SliceDataset, **settings: int | Sequence[int]) -> Unrolled:
        """With the penalty of :meth:`prom.reconstruction.sense.Sense.of`, from the spectrum and the noise of these images.

        ``settings`` are the other parameters.

        Raises
        ------
        InputError
            Where the noise is not known.
        """
        return cls(Sense.of(train).penalty, **settings)

    def forward(self, samples: Tensor, mask: Tensor, encoding: Coils) -> Tensor:
        """Samples ``(..., K, H, W)``, a mask ``(..., 1, H, W)`` or ``(H, W)``, bool or float, to the complex image ``(..., H, W)``."""
        check_slices(encoding, "unrolled networks")
        sides = tuple(encoding.maps.shape[-2:])
        if min(sides) < LEAST_SIDE:
            raise InputError(f"images of {sides}: must have sides of at least {LEAST_SIDE} for the U-Net")
        image = Sense(self.penalty, self.iterations)(samples, mask, encoding)[0]
        consistent = Sense(self.penalty * self.log_weight.exp(), self.iterations)
        scale = image.abs().mean(dim=(-2, -1), keepdim=True)
        divisor = torch.where(scale > torch.finfo(scale.dtype).tiny ** 0.5, scale, 1)  # its square divides in the gradient
        for _ in range(self.cascades):
            image = image + scale * self._residual(image / divisor)
            image = image + consistent(samples - encoding.forward(image), mask, encoding)[0]
        return image

    def _residual(self, image: Tensor) -> Tensor:
        """U, of complex images ``(..., H, W)``."""
        parts = torch.view_as_real(image.reshape(-1, *image.shape[-2:])).movedim(-1, 1)
        found = self.unet(parts.contiguous()).movedim(1, -1).contiguous()
        return torch.view_as_complex(found).reshape(image.shape)

    def save(self, path: str | os.PathLike) -> None:
        """Write settings and weights, as plain tensors, numbers and text, in single precision."""
        settings = {"cascades": self.cascades, "iterations": self.iterations, "features": self.features}
        network_files.write(path, {"format": FORMAT, "settings": settings, "weights": network_files.single(self)})


def load(path: str | os.PathLike) -> Unrolled:
    """Read a network that :meth:`Unrolled.save` wrote. Nothing in the file is executed.

    Raises
    ------
    InputError
        Where the file is missing, damaged, or not such a network.
    """
    with network_files.refusing(path, "write one with Unrolled.save"):
        content = network_files.read(path)
        if not isinstance(content, dict) or set(content) != {"format", "settings", "weights"} or content["format"] != FORMAT:
            raise ValueError(f"it does not have settings and weights in the format {FORMAT!r}")
        settings, weights = content["settings"], content["weights"]
        penalty = Sense(weights["penalty"].float()).penalty
        with torch.device("meta"):  # where it takes no memory
            network_files.check_weights(weights, Unrolled(penalty, **settings))
        network = Unrolled(penalty, **settings)
        network.load_state_dict(weights)
    return network.eval()
