"""How much a mask amplifies the noise of a reconstruction, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from prom import options
from prom.errors import InputError
from prom.kspace.encoding import Coils
from prom.masks import as_mask
from prom.reconstruction.zero_filled import Reconstruction, image_of

CHUNK = 2**20  # samples of noise that are reconstructed at once


@torch.no_grad()
def g_factor(reconstruction: Reconstruction, mask: Tensor, maps: Tensor, replicas: int = 100, seed: int = 0) -> Tensor:
    r"""The g-factor of a mask: how many times noisier a linear reconstruction is than the smaller number of samples explains.

    .. math:: g_i = \frac{\operatorname{std} \hat x_i(m)}{\sqrt{R} \, \operatorname{std} \hat x_i(1)}, \qquad R = D / \textstyle\sum_i m_i,

    with the same reconstruction of all D samples below the line: Pruessmann et al. 1999,
    doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S. Standard deviations are those of pseudo replicas: Robson et al.
    2008, doi:10.1002/mrm.21728. As the reconstruction is linear, the image drops out, and noise alone is reconstructed; as both use the
    same noise, full sampling gives exactly 1. Noise is white, and equal and uncorrelated in the coils.

    Of SENSE without regularisation g is at least 1. Regularisation lowers it, also below 1, since it trades noise for blur and
    aliasing: compare masks through the same reconstruction only.

    Parameters
    ----------
    reconstruction
        A linear one, which has ``linear = True``: :class:`prom.reconstruction.sense.Sense`, or
        :class:`prom.reconstruction.zero_filled.ZeroFilled`.
    mask
        ``(H, W)``, centred, bool or 0 and 1.
    maps
        Sensitivities ``(K, H, W)``, complex.
    replicas
        N, at least 2. Each value has a relative error of about :math:`1 / \sqrt{2 N}`, or less.
    seed
        Of the noise.

    Returns
    -------
    Tensor
        ``(H, W)`` float32, 0 where no coil sees anything.

    Raises
    ------
    InputError
        Where the reconstruction is not linear, sizes differ, or the mask is empty.

    >>> from prom.reconstruction.sense import Sense
    >>> maps = torch.tensor([1.0, 1.0j]).reshape(2, 1, 1) * torch.ones(2, 8, 8)
    >>> g_factor(Sense(1e-3), torch.ones(8, 8), maps, replicas=2).mean().round()           # everything measured
    tensor(1.)
    """
    if not getattr(reconstruction, "linear", False):
        name = type(reconstruction).__name__
        raise InputError(f"reconstruction {name}: is not linear, so it has no g-factor; take Sense")
    options.check("replicas", replicas, "[2, 1e6]", whole=True)
    if maps.ndim != 3:
        raise InputError(f"sensitivities of {tuple(maps.shape)}: must be (K, H, W), those of one slice")
    mask = as_mask(mask, maps.shape[-2:], "sensitivities")
    if not mask.any():
        raise InputError("mask: measures nothing")
    maps = maps if maps.is_complex() else maps + 0j
    encoding, everything = Coils(maps.to(mask.device)), torch.ones_like(mask)
    generator = torch.Generator().manual_seed(options.check_seed(seed))
    under, full = torch.zeros(2, *mask.shape, dtype=torch.float64, device=mask.device)
    step = max(1, CHUNK // maps.numel())
    for start in range(0, replicas, step):
        shape = (min(step, replicas - start), *maps.shape)
        noise = torch.randn(shape, dtype=maps.dtype, generator=generator).to(mask.device)
        for power, measured in ((under, mask), (full, everything)):
            image, _ = image_of(reconstruction, noise, measured, encoding, (len(noise), *mask.shape))
            power += image.abs().double().square().sum(dim=0)
    ratio = under / full * (mask.sum() / mask.numel())
    seen = (maps != 0).any(dim=0).to(mask.device)
    return ratio.sqrt().where(seen, 0.0).float()
