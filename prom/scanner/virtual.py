"""A virtual scan: what a sequence measures of a phantom, at the places where its own gradients put every sample."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.errors import InputError
from prom.scanner import raw_data
from prom.scanner.plan import ScanPlan
from prom.scanner.readout_plan import ReadoutPlan
from prom.scanner.sequence import Scan
from prom.scanner.writing import acquisition_times, times

STRAIGHT = 1e-4  # grid steps by which line and partition may change within a readout of a Cartesian scan
BLOCK = 64  # groups of readouts that are summed at once: of 3D each needs a plane in double precision
SCAN, ALONE = 0, 1  # streams of random numbers: of the samples, and of a scan of noise
SAME = 1e-7  # grid steps: readouts that differ less are summed together; it turns the edge's phase by 3e-7


def scan(made: Scan, images: Tensor, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    r"""The samples of every readout in the order of measurement, by exact Fourier sums over the pixels of a phantom.

    .. math:: y_{c,i} = \frac{1}{\sqrt{N}} \sum_r x_c(r) \, e^{-2 \pi i \, k_i \cdot r} + n_{c,i},

    with r the pixels' places over the field of view, :math:`r = (j - n // 2) / n` times FOV along each axis, N their number (times the
    oversampling of the readout, so that what is left when that is cut off has the scale of the image, and this noise), and
    :math:`k_i` where pypulseq's integration of the gradients (``calculate_kspace``) puts sample i: mask and plan are not asked. So it is
    :func:`prom.fft2c` of the image at the mask where the sequence is right, and something else where it is not. Of 3D that is the
    orthonormal transform along the readout as well. Of 2D each pixel is a slice of uniform signal, which loses what is dephased
    through its thickness.

    The spins do nothing but precess: relaxation, contrast, slice profile, off-resonance and motion are not simulated.

    Parameters
    ----------
    made
        A sequence, of :func:`prom.scanner.sequence.make` or read from its file by :func:`prom.scanner.seq_files.read`.
    images
        ``(H, W)`` or coil images ``(K, H, W)``; for a 3D sequence ``(R, H, W)`` or ``(K, R, H, W)`` with the readout's axis R. Real or
        complex, of the sequence's matrix.
    noise
        Standard deviation of n, :math:`\sqrt{E|n|^2}`, complex Gaussian, white, equal in all coils.
    seed
        Of the noise.

    Returns
    -------
    numpy.ndarray
        ``(S, K, readout)`` complex64, in the units of the image. Besides it and the images, one coil's image is held in double precision.

    Raises
    ------
    InputError
        Where the image has another size, the noise is below 0, or a readout is not straight.

    >>> import torch, prom
    >>> from prom.baselines import as_result
    >>> from prom.scanner.sequence import make
    >>> lines, image = torch.arange(8) % 2 == 0, torch.rand(6, 8, generator=torch.manual_seed(0))
    >>> made = make(as_result(lines.expand(6, 8).contiguous(), "half", 2, "columns"))
    >>> samples = scan(made, image)
    >>> samples.shape, np.allclose(samples[:, 0], prom.fft2c(image).T[lines], atol=1e-4)
    ((4, 1, 6), True)
    """
    plan = made.plan
    if isinstance(plan, ReadoutPlan):
        raise InputError(f"sequence of {plan.pattern}: a virtual scan measures lines and points; use the trajectory itself, data.along")
    coils = _arranged(images, plan)
    options.check("noise", noise, "[0, 1e30]")
    positions = _positions(made)  # (S, samples, 3) in cycles per field of view
    readouts, steps = positions[..., 0], positions[:, plan.samples // 2, 1:]
    through = np.ones(len(steps)) if plan.three_dimensional else np.sinc(steps[:, 1])
    _, first, group = np.unique(_alike(readouts, steps[:, 1]), return_index=True, return_inverse=True)
    found = np.empty((len(steps), len(coils), plan.samples), np.complex64)
    bar = tqdm(total=len(coils) * len(first), desc="virtual scan", delay=2, disable=None, leave=False)
    for coil, image in enumerate(coils):
        volume = image.numpy().astype(np.complex128) / np.sqrt(image.numel() * plan.oversampling)
        for begin in range(0, len(first), BLOCK):
            examples = first[begin : begin + BLOCK]
            planes = _waves(steps[examples, 1], volume.shape[2]) @ volume.reshape(-1, volume.shape[2]).T
            for number, plane in enumerate(planes.reshape(-1, *volume.shape[:2]), begin):
                members = np.flatnonzero(group == number)
                lines = plane @ _waves(steps[members, 0], volume.shape[1]).T  # (readout, members)
                found[members, coil] = (_waves(readouts[first[number]], volume.shape[0]) @ lines).T * through[members, None]
                bar.update()
    bar.close()
    if noise:
        found += _noise(found.shape, noise, seed, SCAN)
    return found


def write(path: str | os.PathLike, made: Scan, samples: np.ndarray, noise: float = 0.0, noise_samples: int = 0, seed: int = 0) -> None:
    """Write samples ``(S, K, readout)`` of :func:`scan` as ISMRMRD, with the sequence's counters (:func:`prom.scanner.raw_data.write`).

    With ``noise_samples`` above 0 a scan of noise alone comes first, of so many samples and the standard deviation ``noise``; it has
    other numbers than the noise of the samples, also where the seed is the same.

    Raises
    ------
    InputError
        Where the file cannot be written, or the samples have another shape.
    """
    expected = (len(made.plan.steps), samples.shape[1] if samples.ndim == 3 else 1, made.plan.samples)
    if samples.shape != expected:
        raise InputError(f"samples of shape {samples.shape}: this sequence measures (readouts, coils, samples) = {expected}")
    count = options.check("noise samples", noise_samples, f"[0, {raw_data.MOST}]", whole=True)
    alone = _noise((samples.shape[1], count), options.check("noise", noise, "[0, 1e30]"), seed, ALONE) if count else None
    raw_data.write(Path(path), made.plan, times(made), samples, acquisition_times(made), alone)


def _arranged(images: Tensor, plan: ScanPlan) -> Tensor:
    """Coil images (K, readout, lines, partitions)."""
    three = plan.three_dimensional
    shape = (plan.matrix[0], *plan.shape) if three else plan.shape
    if images.ndim not in (len(shape), len(shape) + 1) or tuple(images.shape[-len(shape) :]) != shape or 0 in images.shape:
        raise InputError(
            f"image of shape {tuple(images.shape)}: this sequence measures {shape}"
            f"{' (readout, height, width)' if three else ''}, or several coils of it; give one of this size"
        )
    images = images.detach().cpu()
    coils = images[None] if images.ndim == len(shape) else images
    if three:
        return coils
    return (coils if plan.pattern == "columns" else coils.transpose(-2, -1))[..., None]


def _positions(made: Scan) -> np.ndarray:
    """Where every sample is, ``(S, samples, 3)`` in cycles per field of view, by pypulseq."""
    found = made.sequence.calculate_kspace()[0].T.reshape(-1, made.plan.samples, 3) * np.array(made.plan.fov)
    if len(found) != len(made.plan.steps):
        raise InputError(f"sequence: has {len(found)} readouts, its plan {len(made.plan.steps)}; make both again")
    if np.ptp(found[..., 1:], axis=1).max() > STRAIGHT:
        raise InputError("sequence: lines or partitions change within a readout, so it is not Cartesian; a virtual scan measures no such")
    return found


def _alike(readouts: np.ndarray, partitions: np.ndarray) -> np.ndarray:
    """A number for each readout, ``(S,)``: equal where partition and all samples are, but for rounding in pypulseq."""
    order = np.argsort(partitions)
    places = np.empty(len(order), np.int64)
    places[order] = np.cumsum(np.diff(partitions[order], prepend=partitions[order[0]]) > SAME)
    rows, number = np.full(len(readouts), -1), 0
    while len(left := np.flatnonzero(rows < 0)):
        rows[left[np.abs(readouts[left] - readouts[left[0]]).max(axis=1) <= SAME]] = number
        number += 1
    return rows * len(places) + places


def _waves(frequencies: np.ndarray, size: int) -> np.ndarray:
    """What the spins of each of ``size`` places have precessed to: ``(frequencies, size)``, frequencies in cycles per field of view."""
    return np.exp(-2j * np.pi * frequencies[:, None] * (np.arange(size) - size // 2) / size)


def _noise(shape: tuple[int, ...], deviation: float, seed: int, stream: int) -> np.ndarray:
    generator = np.random.default_rng((options.check_seed(seed) % 2**64, stream))
    values = generator.standard_normal((*shape, 2), dtype=np.float32)
    return values.view(np.complex64)[..., 0] * np.float32(deviation / np.sqrt(2))
