"""The arithmetic between two Fourier transforms on a CPU, each piece in one pass over memory. Compiled by numba, without the GIL.

One operation of PyTorch is one pass, and a complex array costs it strided reads of real and imaginary parts besides; done so, what lies
between the transforms takes as long as the transforms. Complex arrays come here flat, as float32 pairs (:func:`pairs`). Import this
module where it is needed, not at the top of another: it takes half a second.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit

# Sums may be reordered, which the compiler needs in order to use vector registers; the order is the same in every run on a machine.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


def compiled(function: Callable) -> Callable:
    """``function`` compiled at its first call, and kept on the disk where there is a place that may be written to."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no such place: a read-only installation without a home folder
        return njit(**OPTIONS)(function)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous tensor as a 1D array."""
    return tensor.numpy().reshape(-1)


def pairs(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous complex tensor as a 1D array: real part, imaginary part, real part, ...

    >>> pairs(torch.tensor([1 + 2j, 3 - 4j])).tolist()
    [1.0, 2.0, 3.0, -4.0]
    """
    return torch.view_as_real(tensor).numpy().reshape(-1)


@compiled
def masked(kspace, mask, out):
    """out = k m."""
    for i in range(mask.size):
        out[2 * i] = kspace[2 * i] * mask[i]
        out[2 * i + 1] = kspace[2 * i + 1] * mask[i]


@compiled
def residual(reconstruction, image):
    """The sum of (|r| - |x|)^2, while r becomes (|r| - |x|) r / |r|; 0 where r is 0."""
    total = 0.0
    for i in range(image.size):
        real, imaginary = reconstruction[2 * i], reconstruction[2 * i + 1]
        magnitude = np.sqrt(real * real + imaginary * imaginary)
        error = magnitude - image[i]
        total += np.float64(error) * np.float64(error)
        factor = error / max(magnitude, np.float32(1e-30))
        reconstruction[2 * i] = real * factor
        reconstruction[2 * i + 1] = imaginary * factor
    return total


@compiled
def add_products(kspace, back, gradient):
    """gradient += Re(conj(k) b)."""
    for i in range(gradient.size):
        gradient[i] += kspace[2 * i] * back[2 * i] + kspace[2 * i + 1] * back[2 * i + 1]


@compiled
def harden(soft, reciprocal, index, hard, slope):
    """Eq. 5 at the places ``index`` of the grid: 1(m >= 1/2) forwards; backwards m (1 - m) times ``reciprocal``."""
    if index.size == hard.size:  # everywhere, in order: vector registers
        for i in range(hard.size):
            hard[i] = np.float32(soft[i] >= np.float32(0.5))
            slope[i] = soft[i] * (np.float32(1) - soft[i]) * reciprocal[i]
    else:
        for i in range(index.size):
            hard[index[i]] = np.float32(soft[i] >= np.float32(0.5))
            slope[index[i]] = soft[i] * (np.float32(1) - soft[i]) * reciprocal[i]


@compiled
def clipped_sum(values, multiplier):
    """The sum of min(1, max(0, v - lambda)) in float64, and how many of its terms lie strictly inside (0, 1)."""
    total, inside = 0.0, 0
    for start in range(0, values.size, 1024):  # a sum of partial sums: one long sum would be off by a hundred times as much
        part = 0.0
        for i in range(start, min(start + 1024, values.size)):
            shifted = np.float64(values[i]) - multiplier
            part += min(max(shifted, 0.0), 1.0)
            inside += (shifted > 0.0) & (shifted < 1.0)
        total += part
    return total, inside


@compiled
def clip(values, multiplier, out):
    """out = min(1, max(0, v - lambda)), computed in float64."""
    for i in range(values.size):
        out[i] = min(max(np.float64(values[i]) - multiplier, 0.0), 1.0)


@compiled
def smallest(values, rank):
    """The number at place ``rank`` (from 0) of the sorted ``values``, nonnegative float32: by counting those with the same leading bits."""
    bits = values.view(np.uint32)  # of nonnegative numbers they are in the same order
    shift = np.uint32(20)
    counts = np.zeros(1 << 12, np.int64)
    for i in range(bits.size):
        counts[bits[i] >> shift] += 1
    below, leading = 0, 0
    while below + counts[leading] <= rank:
        below += counts[leading]
        leading += 1
    alike, count = np.empty(counts[leading], values.dtype), 0
    for i in range(bits.size):
        if bits[i] >> shift == leading:
            alike[count] = values[i]
            count += 1
    return np.partition(alike, rank - below)[rank - below]
