"""Several receive coils: their sensitivities, their noise, fewer of them, and from their images to one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from prom import options
from prom.errors import InputError
from prom.kspace.fourier import ifft2c

CORNER = 8  # an eighth of each axis, at both of its ends: the four corners of k-space, where of an image there is least
CALIBRATION = 24  # rows and columns at the centre of k-space from which sensitivities are estimated
KERNEL = 6  # rows and columns of ESPIRiT's kernels
LEAST_COIL = 0.01  # of the strongest coil's energy in the centre, that a coil has whose phase images get
CROP = 0.95  # of ESPIRiT's eigenvalues, which are 1 in the object: at most so much is taken for outside
CROPS = (CROP, 0.8, 0.0)  # one after another: a small centre has small eigenvalues, and the usual one cuts off the object
LEAST_EXPLAINED = 0.9  # of the centre's energy, by sensitivities: with less they cut off the object
DEPENDENT = 1e-8  # of a coil's noise, that the coils before it leave: less is rounding
LEAST_NOISE = 4  # samples of noise for each coil: the covariance has half as many real numbers for each
OUTER = 16  # of what was measured, the outermost 1 / OUTER: as many as the corners are of all
FEWEST = 64  # samples in the corners of which a median makes a standard deviation to 9 %


def root_sum_of_squares(images: Tensor, axis: int = -3) -> Tensor:
    r"""Magnitude image without knowledge of the coils: :math:`\sqrt{\sum_k |x_k|^2}`.

    What the matched combination becomes where the coil images themselves stand in for the sensitivities: Roemer et al. 1990,
    doi:10.1002/mrm.1910160203. The phase is lost, and noise is not zero in the mean.

    Parameters
    ----------
    images
        Coil images, e.g. ``(..., K, H, W)``, real or complex.
    axis
        The axis of the coils.

    Returns
    -------
    Tensor
        float32 without the axis, in the units of the images.

    >>> root_sum_of_squares(torch.tensor([3.0, 4.0j]).reshape(2, 1, 1))
    tensor([[5.]])
    """
    return images.abs().double().square().sum(axis).sqrt().float()  # squares of small intensities underflow in single precision


def combine(images: Tensor, sensitivities: Tensor) -> Tensor:
    r"""Complex image by known sensitivities: :math:`x = \sum_k \bar s_k x_k / \sum_k |s_k|^2`.

    The least-squares solution of :math:`x_k = s_k x`: Roemer et al. 1990, doi:10.1002/mrm.1910160203, and, as SENSE without
    acceleration, Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S. Noise is taken to be
    equal and uncorrelated in the coils. Where all sensitivities are 0 nothing is known of x, and it is 0.

    Parameters
    ----------
    images
        Coil images ``(..., K, H, W)``, real or complex.
    sensitivities
        ``(K, H, W)``, real or complex; their scale divides the result.

    Returns
    -------
    Tensor
        ``(..., H, W)`` complex64.

    Raises
    ------
    InputError
        Where coils, H or W disagree.

    >>> image, maps = torch.randn(5, 4, dtype=torch.complex64), torch.randn(3, 5, 4, dtype=torch.complex64)
    >>> torch.allclose(combine(maps * image, maps), image, atol=1e-5)
    True
    """
    if sensitivities.ndim != 3 or images.shape[-3:] != sensitivities.shape:
        raise InputError(
            f"sensitivities of shape {tuple(sensitivities.shape)} (coils, H, W) for images of {tuple(images.shape[-3:])}; must be equal"
        )
    maps = sensitivities.to(torch.complex128)
    weight = maps.abs().square().sum(-3)
    combined = (maps.conj() * images).sum(-3) / weight
    return combined.where(weight > 0, 0).to(torch.complex64)


def simulated(coils: int, shape: Sequence[int], distance: float = 1.5) -> Tensor:
    r"""Sensitivities of a ring of coils around the image, a birdcage, or of two around a volume; nothing in them is random.

    Coil k, of K, lies at the angle :math:`\alpha_k = 2 \pi k / K` from the axis of the columns. With :math:`(u, v)` the column and the row
    from it, in units of half the image,

    .. math:: b_k = \frac{1}{\sqrt{u^2 + v^2}} e^{i (\operatorname{atan2}(u, -v) - \alpha_k)}, \qquad
        s_k = b_k \Big/ \sqrt{\textstyle\sum_j |b_j|^2},

    so that :math:`\sum_k |s_k|^2 = 1` everywhere in the image.

    Around a volume there are two rings, of :math:`R = \lceil K / 2 \rceil` coils and the rest, half-way between its middle and either
    end. With w from the coil along the first axis, likewise in units of half the volume,
    :math:`b_k = (u^2 + v^2 + w^2)^{-1/2} e^{i (\operatorname{atan2}(u, -v) - \alpha_k)}`, :math:`\alpha_k = 2 \pi k / R` for the places
    and one step more for the phases of the second ring. So sensitivities vary along all three axes. With K = 1 the coil is alone in a ring.

    It is SigPy's ``birdcage_maps`` in 2D, and in 3D that with ``nzz`` = R. Real coils differ: they load differently, couple, and their
    noise is correlated.

    Parameters
    ----------
    coils
        K, from 1 to 128.
    shape
        (H, W) or (D, H, W).
    distance
        Of the coils from the centre, relative to half the image; above :math:`\sqrt 2`, so that none of them is in the image.

    Returns
    -------
    Tensor
        ``(K, H, W)`` or ``(K, D, H, W)`` complex64.

    Raises
    ------
    InputError
        Where a value is outside what is said above.

    >>> maps = simulated(8, (16, 12))
    >>> maps.shape, torch.allclose(maps.abs().square().sum(0), torch.ones(16, 12))
    (torch.Size([8, 16, 12]), True)
    """
    coils = options.check("coils", coils, "[1, 128]", whole=True)
    distance = options.check("distance", distance, "(1.4143, 1000]")
    shape = [options.check("shape", side, "[1, 16384]", whole=True) for side in shape]
    if len(shape) not in (2, 3):
        raise InputError(f"shape {tuple(shape)}: must be (H, W), or (D, H, W) of a volume")
    ring = coils if len(shape) == 2 else -(-coils // 2)
    number = torch.arange(coils, dtype=torch.float64).reshape(-1, *[1] * len(shape))
    upper = (number / ring).floor()  # 0 in the first ring, 1 in the second
    angle = 2 * math.pi / ring * number
    *depth, rows, columns = torch.meshgrid(*(2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in shape), indexing="ij")
    u = columns - distance * angle.cos()
    v = rows - distance * angle.sin()
    w = [partitions - (upper - (0.5 if coils > 1 else 0)) for partitions in depth]
    far = torch.stack([u.square() + v.square(), *(part.square() for part in w)]).sum(0).sqrt() if w else torch.hypot(u, v)
    maps = torch.polar(1 / far, torch.atan2(u, -v) - angle - 2 * math.pi / ring * upper)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def with_phase(kspace: Tensor, calibration: int = CALIBRATION) -> int:
    """The first coil of k-space ``(..., K, H, W)`` that has in every slice a hundredth of the strongest one's energy in the centre.

    Its phase is that of images: a coil that was not connected, or does not see some of the slices, has none to give there, and another
    coil in each slice would make steps. Where no coil sees all slices it is the first of those that see the most.

    >>> with_phase(torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]))
    1
    """
    middle = (slice(max(0, (side - calibration) // 2), (side + calibration) // 2) for side in kspace.shape[-2:])
    energy = kspace[(..., *middle)].abs().double().square().sum(dim=(-2, -1)).reshape(-1, kspace.shape[-3])
    strongest = energy.amax(dim=1, keepdim=True)
    seen = (energy >= LEAST_COIL * strongest) & (strongest > 0)  # empty slices say nothing
    return int(seen.sum(dim=0).argmax())


def estimated(kspace: Tensor, calibration: int = CALIBRATION, crop: float = CROP, first: int | None = None) -> Tensor:
    r"""Sensitivities of one slice from the centre of its own k-space, by ESPIRiT as SigPy has it, one set of maps.

    Uecker et al. 2014, doi:10.1002/mrm.24751, with kernels of 6 x 6, singular values above 0.02 of the largest, and maps set to 0 where
    the eigenvalue is at most ``crop``: outside the object. Elsewhere :math:`\sum_k |s_k|^2 = 1`, and the coil ``first`` has the phase 0,
    so that the image has the phase of that coil.

    Parameters
    ----------
    kspace
        ``(K, H, W)`` complex, centred, fully sampled at least in its central ``calibration`` x ``calibration`` samples.
    calibration
        From 8 to the shorter of H and W. More smooths the noise, and takes longer.
    crop
        From 0 to 1; a small centre needs a smaller one. With 0 there are maps everywhere, extrapolated by the kernels where there is no
        object: for maps that are put on another object (:meth:`prom.SliceDataset.with_coils`), and so that no pixel is left to the prior
        of a reconstruction.
    first
        The number of the coil whose phase the image gets; by default that of :func:`with_phase`. Of several slices it should be one.

    Returns
    -------
    Tensor
        ``(K, H, W)`` complex64 in the computer's memory.

    Raises
    ------
    InputError
        Where SigPy is not installed, k-space is smaller than 8 x 8 or than the calibration region, is empty, or
        not finite.

    >>> image, maps = torch.zeros(32, 32), simulated(4, (32, 32))
    >>> image[8:24, 8:24] = 1
    >>> from prom.kspace.fourier import fft2c
    >>> found = estimated(fft2c(maps * image))[:, 16, 16]
    >>> torch.allclose(found.abs(), maps[:, 16, 16].abs(), atol=0.01)
    True
    """
    if min(kspace.shape[-2:]) < 8:
        sides = " x ".join(map(str, kspace.shape[-2:]))
        raise InputError(f"k-space of {sides}: is too small to estimate sensitivities, 8 x 8 at least; give sensitivities=")
    calibration = options.check("calibration", calibration, f"[8, {min(kspace.shape[-2:])}]", whole=True)
    crop = options.check("crop", crop, "[0, 1]")
    if find_spec("sigpy") is None:
        raise InputError("sensitivities from k-space need SigPy: pip install 'prom-mri[coils]', or give sensitivities=")
    from sigpy.mri.app import EspiritCalib  # here: it takes a second

    array = kspace.to(torch.complex64).cpu()
    scale = array.abs().max()
    if not scale.isfinite():
        way = "values above 1e38; divide it by a number" if kspace.isfinite().all() else "NaN or infinite values; repair it"
        raise InputError(f"k-space of shape {tuple(kspace.shape)}: has {way}")
    if not scale > 0:
        raise InputError(f"k-space of shape {tuple(kspace.shape)}: is empty, so it says nothing of sensitivities; remove it")
    first = with_phase(array, calibration) if first is None else first
    array = (array / scale).roll(-first, 0).numpy()  # SigPy gives all pixels the phase of the coil 0
    found = EspiritCalib(array, calib_width=calibration, kernel_width=KERNEL, crop=crop, show_pbar=False).run()
    return torch.from_numpy(found).to(torch.complex64).nan_to_num(0.0).roll(first, 0)  # no phase where that coil sees nothing at all


def resampled(maps: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Sensitivities on another grid over the same field of view, with :math:`\sum_k |s_k|^2 = 1` wherever they are known.

    Linear interpolation at the new pixels, whose centre ``[H // 2, W // 2]`` stays where it is; where pixels become larger, the triangle
    becomes as wide as they are. Sensitivities that are 0 where there is no object, as those of ESPIRiT, are 0 where most of the new
    pixel is there.

    Parameters
    ----------
    maps
        ``(K, h, w)``, real or complex.
    shape
        (H, W).

    Returns
    -------
    Tensor
        ``(K, H, W)`` complex64.

    Raises
    ------
    InputError
        Where they do not have these axes, are not finite, or are 0 everywhere.

    >>> maps = resampled(2 * simulated(4, (32, 24)), (16, 16))
    >>> maps.shape, torch.allclose(maps.abs().square().sum(0), torch.ones(16, 16))
    (torch.Size([4, 16, 16]), True)
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise InputError(f"sensitivities of shape {tuple(maps.shape)}: must be (coils, H, W)")
    rows, columns = (_interpolation(old, new).to(maps.device) for old, new in zip(maps.shape[-2:], shape, strict=True))
    if not bool(maps.isfinite().all()):
        raise InputError("sensitivities: have NaN or infinite values; where nothing is known of a coil, they can be 0")
    maps = maps.to(torch.complex128)
    known = (maps != 0).any(dim=0).double()
    if not known.any():
        raise InputError(f"sensitivities of shape {tuple(maps.shape)}: are 0 everywhere")
    inside = rows @ known @ columns.T >= 0.5
    found = rows.to(maps.dtype) @ maps @ columns.T.to(maps.dtype)
    norm = found.abs().square().sum(dim=0).sqrt()
    return (found / norm).where(inside & (norm > 0), 0).to(torch.complex64)


def _interpolation(old: int, new: int) -> Tensor:
    """Weights (new, old), float64, of the old pixels in each of the new; a row sums to 1."""
    at = old // 2 + (torch.arange(new, dtype=torch.float64) - new // 2) * old / new
    distance = (at.clamp(0, old - 1)[:, None] - torch.arange(old, dtype=torch.float64)).abs()
    weights = (1 - distance / max(1.0, old / new)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def noise_level(kspace: Tensor) -> float:
    r"""Standard deviation of the noise of a complex sample, :math:`\sqrt{E|n|^2}`, from the corners of k-space.

    The squared magnitude of complex Gaussian noise is exponentially distributed, with the median :math:`\sigma^2 \ln 2`. Hence

    .. math:: \sigma^2 = \operatorname{mean}_k \, \operatorname{median}_{i \in \text{corners}} |y_{k, i}|^2 / \ln 2,

    with the median, as few bright samples of the image in the corners hardly move it, for each coil over all slices, and the mean over
    the coils. Samples that are 0 in all coils were not measured (zero padding, an elliptical shutter), and are left out. Where the image
    still has energy in the corners the result is too large; where a filter has attenuated the corners, too small.

    Parameters
    ----------
    kspace
        ``(..., K, H, W)``, complex, centred and orthonormal; the corners are an eighth of each axis at both of its ends.

    Returns
    -------
    float
        In the units of k-space, which are those of the image.

    Raises
    ------
    InputError
        Where there are fewer than 64 samples in the corners that are not 0, or those of a coil are.

    >>> noise = torch.randn(2, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))    # of deviation 1
    >>> round(noise_level(0.05 * noise), 2)
    0.05
    """
    samples = kspace[None] if kspace.ndim == 2 else kspace
    for axis in (-2, -1):
        n = samples.shape[axis]
        ends = [*range(n // CORNER), *range(n - n // CORNER, n)]
        samples = samples.index_select(axis, torch.tensor(ends, dtype=torch.long, device=samples.device))
    samples = samples.movedim(-3, 0).flatten(1)
    if samples.shape[1] < FEWEST:
        raise InputError(f"k-space of shape {tuple(kspace.shape)}: has {samples.shape[1]} samples in its corners, too few; give noise=")
    return _deviation(samples, f"k-space of shape {tuple(kspace.shape)}: its corners are empty, so they say nothing of noise; give noise=")


def measured_noise_level(kspace: Tensor, mask: Tensor) -> float:
    r"""As :func:`noise_level`, of undersampled k-space: from the outermost sixteenth of what was measured, and 64 samples at least.

    How far out a sample lies is :math:`\sqrt{(2 k_y / H)^2 + (2 k_x / W)^2}`. The corners of :func:`noise_level` are a sixteenth of all
    samples. Where a mask measures nothing but the centre, the image has energy there, and the result is too large.

    Parameters
    ----------
    kspace
        ``(..., K, H, W)``, complex, centred and orthonormal.
    mask
        ``(H, W)`` bool, what was measured.

    Raises
    ------
    InputError
        Where fewer than 64 samples were measured and are not 0.

    >>> noise = torch.randn(2, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> round(measured_noise_level(0.05 * noise, torch.ones(64, 64, dtype=torch.bool)), 2)
    0.05
    """
    mask = mask & (kspace != 0).flatten(0, -3).any(dim=0)  # lines may be padded too
    height, width = mask.shape
    rows, columns = (2 * (torch.arange(n) - n // 2).double() / n for n in (height, width))
    distance = torch.hypot(rows[:, None], columns)[mask]
    count = max(FEWEST, len(distance) // OUTER)
    if len(distance) < FEWEST:
        raise InputError(f"k-space of {tuple(mask.shape)}: has {len(distance)} measured samples, too few to know the noise; give noise=")
    outer = distance.topk(count).indices
    samples = kspace.movedim(-3, 0)[..., mask][..., outer].flatten(1)
    return _deviation(samples, "k-space: the outermost samples of a coil are 0, so they say nothing of noise; give noise=")


def _deviation(samples: Tensor, empty: str) -> float:
    """Of the noise in samples ``(K, n)``, but for those that are 0 in all coils; ``empty`` is the message where nothing is left."""
    there = samples[:, (samples != 0).any(dim=0)]
    medians = there.abs().double().square().median(dim=1).values if there.shape[1] >= FEWEST else torch.zeros(1)
    if not bool(medians.isfinite().all()):
        raise InputError("k-space: has NaN or infinite values where the noise is looked at; repair it, or give noise=")
    if (medians == 0).any():
        raise InputError(empty)
    return math.sqrt(medians.mean().item() / math.log(2))


def whitening(noise: Tensor) -> Tensor:
    r"""What makes the noise of coils equal and uncorrelated, from a scan of noise alone: a matrix for :func:`mixed`.

    .. math:: W = \sqrt{\operatorname{tr} C / K} \; L^{-1}, \qquad C = L L^H = \frac{1}{n} \sum_i n_i n_i^H,

    so that the noise after it has the covariance :math:`\operatorname{tr} C / K` times the identity: its mean over the coils stays, and
    intensities nearly do. Pruessmann et al. 2001, doi:10.1002/mrm.1241.

    Parameters
    ----------
    noise
        ``(K, n)`` complex, without signal; n of at least 4 K.

    Returns
    -------
    Tensor
        ``(K, K)`` complex64, lower triangular.

    Raises
    ------
    InputError
        Where there are too few samples, or a coil has no noise.

    >>> noise = torch.tensor([[1.0, 0.0], [0.5, 2.0]]) @ torch.randn(2, 4096) + 0j
    >>> white = whitening(noise) @ noise
    >>> covariance = white @ white.mH / 4096
    >>> torch.allclose(covariance, covariance[0, 0] * torch.eye(2), atol=1e-4)
    True
    """
    coils, count = noise.shape
    if count < LEAST_NOISE * coils:
        raise InputError(f"noise scan of {count} samples: must have at least {LEAST_NOISE * coils} for {coils} coils")
    covariance = noise.to(torch.complex128) @ noise.to(torch.complex128).mH / count
    factor, failed = torch.linalg.cholesky_ex(covariance)
    left = factor.diagonal().real.square() / covariance.diagonal().real  # by the coils before each
    if failed or not bool(covariance.isfinite().all()) or not bool((left > DEPENDENT).all()):
        raise InputError("noise scan: a coil has no noise, or the same as another or others; leave out that coil, or the noise scan")
    scale = math.sqrt(covariance.diagonal().real.mean().item())
    identity = torch.eye(coils, dtype=torch.complex128)
    return (scale * torch.linalg.solve_triangular(factor, identity, upper=False)).to(torch.complex64)


def explained(maps: Tensor, kspace: Tensor, calibration: int) -> tuple[float, float]:
    """The energy of the central samples of one slice ``(K, H, W)`` that sensitivities explain, and all of it.

    >>> from prom.kspace.fourier import fft2c
    >>> maps, image = simulated(4, (16, 16)), torch.rand(16, 16)
    >>> share, whole = explained(maps, fft2c(maps * image), 16)
    >>> round(share / whole, 3), explained(0 * maps, fft2c(maps * image), 16)[0]
    (1.0, 0.0)
    """
    centre = tuple(slice(n // 2 - calibration // 2, n // 2 - calibration // 2 + calibration) for n in kspace.shape[-2:])
    low = torch.zeros_like(kspace)
    low[(..., *centre)] = kspace[(..., *centre)]
    low = ifft2c(low)
    kept = maps * (maps.conj() * low).sum(dim=0)
    return tuple(float(part.abs().double().square().sum()) for part in (kept, low))


def compression(kspace: Tensor, count: int) -> Tensor:
    r"""What makes few virtual coils of many: the matrix of the ``count`` strongest combinations of coils, by singular values.

    With the samples of all coils as a matrix :math:`Y` (coils, samples) :math:`= U \Sigma V^H`, it is the first rows of :math:`U^H`:
    of all orthonormal combinations those that keep most energy, strongest first. White noise stays white, with the same deviation.
    Buehrer et al. 2007, doi:10.1002/mrm.21237; Huang et al. 2008, doi:10.1016/j.mri.2007.04.010.

    Parameters
    ----------
    kspace
        ``(..., K, H, W)`` complex: k-space, or images; all slices are compressed alike.
    count
        Virtual coils, from 1 to K.

    Returns
    -------
    Tensor
        ``(count, K)`` complex64. In each row the largest entry is real and positive, so that the matrix is unique.

    Raises
    ------
    InputError
        Where there are fewer coils than that.

    >>> coils = torch.randn(6, 8, 8, dtype=torch.complex64)
    >>> matrix = compression(coils, 2)
    >>> torch.allclose(matrix @ matrix.mH, torch.eye(2) + 0j, atol=1e-6)
    True
    """
    count = options.check("coils to keep", count, f"[1, {kspace.shape[-3]}]", whole=True)
    coils = kspace.shape[-3]
    gram = torch.zeros(coils, coils, dtype=torch.complex128, device=kspace.device)
    for samples in kspace.reshape(-1, coils, *kspace.shape[-2:]):  # slice by slice, for memory in double precision
        samples = samples.flatten(1).to(torch.complex128)
        gram += samples @ samples.mH
    matrix = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :count].mH
    largest = matrix.gather(1, matrix.abs().argmax(1, keepdim=True))
    return (matrix * (largest.conj() / largest.abs())).to(torch.complex64)


def compress(kspace: Tensor, count: int) -> Tensor:
    """Fewer virtual coils, strongest first: ``(..., K, H, W)`` complex to ``(..., count, H, W)`` complex64; see :func:`compression`.

    Maps that belong to the coils must go through the same matrix.

    Raises
    ------
    InputError
        Where there are fewer coils than that.

    >>> compress(torch.randn(3, 6, 8, 8, dtype=torch.complex64), 2).shape
    torch.Size([3, 2, 8, 8])
    """
    return mixed(kspace, compression(kspace, count))


def mixed(coils: Tensor, matrix: Tensor) -> Tensor:
    """Combinations of coils: ``(..., K, H, W)`` by a matrix ``(count, K)`` to ``(..., count, H, W)`` complex64.

    >>> mixed(torch.ones(3, 2, 2) + 0j, torch.tensor([[1.0, 1.0, 0.0]]) + 0j).real.unique()
    tensor([2.])
    """
    return torch.einsum("jk,...khw->...jhw", matrix.to(torch.complex64), coils.to(torch.complex64))
