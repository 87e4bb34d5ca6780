"""The arithmetic between two Fourier transforms on a CPU, each piece in one pass over memory. Compiled by numba, without the GIL.

One operation of PyTorch is one pass over memory, and reads the real and imaginary parts of a complex array with a stride. Several
operations in one pass take less time (chapter 3). Complex arrays come here flat, as float32 pairs (:func:`pairs`). Import this module
where it is needed, not at the top of another: loading numba takes time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Sums may be reordered, which the compiler needs in order to use vector registers; the order is the same in every run on a machine.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}

SMALLEST = np.finfo(np.float32).tiny  # normal number
ROOT_HALF = np.float32(0.5**0.5).view(np.int32)
# Coefficients of log2(m) in s = (m - 1) / (m + 1) and of 2^r, the highest power first: what is left out is below 1e-8.
ARTANH = tuple(np.float32(2 / math.log(2) / power) for power in (9, 7, 5, 3, 1))
EXPONENTIAL = tuple(np.float32(math.log(2) ** power / math.factorial(power)) for power in range(7, -1, -1))


def compiled(function: Callable, **options: object) -> Callable:
    """``function`` compiled at its first call, and kept on the disk where there is a place that may be written to."""
    try:
        return njit(cache=True, **OPTIONS | options)(function)
    except RuntimeError:  # no such place: a read-only installation without a home folder
        return njit(**OPTIONS | options)(function)


def exactly(function: Callable) -> Callable:
    """:func:`compiled`, with every operation rounded as it stands there."""
    return compiled(function, fastmath=False)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous tensor as a 1D array; of one that PyTorch has negated in name only, of a copy."""
    return tensor.detach().resolve_neg().numpy().reshape(-1)


def pairs(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous complex tensor as a 1D array: real part, imaginary part, real part, ...

    >>> pairs(torch.tensor([1 + 2j, 3 - 4j])).tolist()
    [1.0, 2.0, 3.0, -4.0]
    """
    return tensor.detach().resolve_conj().resolve_neg().numpy().reshape(-1).view(np.float32)


@intrinsic
def call(typing, function, handle, data):
    """function(handle, data): a C function of two pointers, given by its address, that returns 64 bits."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.int64, types.int64, types.int64), generate


@compiled
def forward(plan, data):
    """The transform of a :func:`prom.engine.transforms.plan`, in the memory of the data."""
    if call(plan[0], plan[2], data.ctypes.data) != 0:
        raise RuntimeError("a Fourier transform failed")


@compiled
def backward(plan, data):
    """The inverse transform, without a scale."""
    if call(plan[1], plan[2], data.ctypes.data) != 0:
        raise RuntimeError("a Fourier transform failed")


@compiled
def masked(kspace, mask, scale, out):
    """out = scale k m."""
    for i in range(mask.size):
        factor = mask[i] * scale
        out[2 * i] = kspace[2 * i] * factor
        out[2 * i + 1] = kspace[2 * i + 1] * factor


@compiled
def residual(reconstruction, image):
    """The sum of (|r| - |x|)^2, while r becomes (|r| - |x|) r / |r|; 0 where r is 0, and towards it below 1e-19, whose square is lost."""
    total = 0.0
    for i in range(image.size):
        real, imaginary = reconstruction[2 * i], reconstruction[2 * i + 1]
        magnitude = np.sqrt(real * real + imaginary * imaginary)
        error = magnitude - image[i]
        total += np.float64(error) * np.float64(error)
        factor = error / max(magnitude, np.float32(1e-19))
        reconstruction[2 * i] = real * factor
        reconstruction[2 * i + 1] = imaginary * factor
    return total


@compiled
def add_products(kspace, back, gradient):
    """gradient += Re(conj(k) b)."""
    for i in range(gradient.size):
        gradient[i] += kspace[2 * i] * back[2 * i] + kspace[2 * i + 1] * back[2 * i + 1]


@compiled
def add_squared_errors(plan, kspace, images, masks, scale, room, gradients, total):
    """total + the sum of (|r| - |x|)^2 over channels and masks; ``gradients += Re(conj(k) F[(|r| - |x|) r / |r|])``."""
    for channel in range(len(kspace)):
        for row in range(len(masks)):
            masked(kspace[channel], masks[row], scale, room)
            backward(plan, room)
            total += residual(room, images[channel])
            forward(plan, room)
            add_products(kspace[channel], room, gradients[row])
    return total


@compiled
def product(one, two, out):
    """out = a b."""
    for i in range(out.size // 2):
        real, imaginary = two[2 * i], two[2 * i + 1]
        out[2 * i] = one[2 * i] * real - one[2 * i + 1] * imaginary
        out[2 * i + 1] = one[2 * i] * imaginary + one[2 * i + 1] * real


@compiled
def add_conjugate(one, two, out):
    """out += conj(a) b."""
    for i in range(out.size // 2):
        real, imaginary = two[2 * i], two[2 * i + 1]
        out[2 * i] += one[2 * i] * real + one[2 * i + 1] * imaginary
        out[2 * i + 1] += one[2 * i] * imaginary - one[2 * i + 1] * real


@compiled
def multiply(out, factor):
    """out *= f, real."""
    for i in range(factor.size):
        out[2 * i] *= factor[i]
        out[2 * i + 1] *= factor[i]


@compiled
def to_coils(maps, image, out):
    """out_k = S_k x for each coil k."""
    for first in range(0, out.size, image.size):
        product(maps[first : first + image.size], image, out[first : first + image.size])


@compiled
def weigh(samples, weight):
    """y_k = w y_k for each coil k."""
    for first in range(0, samples.size, 2 * weight.size):
        multiply(samples[first : first + 2 * weight.size], weight)


@compiled
def add_rows(maps, images, out, width):
    """out += the sum of conj(S_k) x_k over coils k; the rows of x_k, of so many numbers in ``out``, go on for as many more, left out."""
    for row in range(maps.size // width):
        first, at = row * width, row * width % out.size
        add_conjugate(maps[first : first + width], images[2 * first : 2 * first + width], out[at : at + width])


@compiled
def normal(of_image, of_coil, maps, weight, direction, image, room, total):
    """The sum over coils of F S_k^H F^H W F S_k F^H d in ``total``; frame by frame, each with its weight, F of the image over all of them.

    ``image`` and ``room`` are memory, of an image and of one coil's.
    """
    image[:] = direction
    backward(of_image, image)
    total[:] = 0
    for frame in range(len(weight)):
        first = frame * room.size
        part, out = image[first : first + room.size], total[first : first + room.size]
        for coil in range(maps.size // room.size):
            sensitivity = maps[coil * room.size : (coil + 1) * room.size]
            product(sensitivity, part, room)
            forward(of_coil, room)
            multiply(room, weight[frame])
            backward(of_coil, room)
            add_conjugate(sensitivity, room, out)
    forward(of_image, total)


@compiled
def add_penalty(penalty, direction, image):
    """image += r d, and Re <d, image>."""
    total = 0.0
    for i in range(penalty.size):
        real, imaginary = direction[2 * i], direction[2 * i + 1]
        image[2 * i] += penalty[i] * real
        image[2 * i + 1] += penalty[i] * imaginary
        total += np.float64(real * image[2 * i] + imaginary * image[2 * i + 1])
    return total


@compiled
def descend(step, direction, image, scale, found, rest):
    """x += a d and r -= a A d; then |r|^2 and <r, C r> for the scale C."""
    square, scaled = 0.0, 0.0
    for i in range(scale.size):
        found[2 * i] += step * direction[2 * i]
        found[2 * i + 1] += step * direction[2 * i + 1]
        real, imaginary = rest[2 * i] - step * image[2 * i], rest[2 * i + 1] - step * image[2 * i + 1]
        rest[2 * i], rest[2 * i + 1] = real, imaginary
        part = np.float64(real * real + imaginary * imaginary)
        square += part
        scaled += part * scale[i]
    return square, scaled


@compiled
def turn(ratio, scale, rest, direction):
    """d = C r + b d."""
    for i in range(scale.size):
        direction[2 * i] = scale[i] * rest[2 * i] + ratio * direction[2 * i]
        direction[2 * i + 1] = scale[i] * rest[2 * i + 1] + ratio * direction[2 * i + 1]


@compiled
def advance(size, penalty, scale, direction, image, found, rest):
    """A step of conjugate gradients, where ``image`` is that of the direction but for the penalty; then <r, C r> and |r|^2.

    The last is 0, and no step is taken, where the direction has no length.
    """
    length = add_penalty(penalty, direction, image)
    if not length > 0:
        return size, 0.0
    square, after = descend(np.float32(size / length), direction, image, scale, found, rest)
    turn(np.float32(after / size), scale, rest, direction)
    return after, square


@compiled
def mixed(word, following, distant):
    """A word of the Mersenne Twister's next state."""
    joined = (word & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
    return distant ^ (joined >> np.uint32(1)) ^ ((np.uint32(0) - (following & np.uint32(1))) & np.uint32(0x9908B0DF))


@compiled
def uniforms(state, out):
    """Fill ``out`` with float32 of [0, 1) as PyTorch does, and move on the ``state`` of its generator, the bytes of ``get_state``.

    They are the seed (8), words left plus one (4), a flag (4), words used (8), the 624 words of the Mersenne Twister (8 each), and what
    normal numbers need.
    """
    left, stored = state[8:12].view(np.int32), state[24 : 24 + 8 * 624].view(np.uint64)
    words, used, done = stored.astype(np.uint32), 625 - left[0], 0
    while done < out.size:
        if used == 624:
            for i in range(227):  # three loops, so that none needs what it wrote a moment ago: vector registers
                words[i] = mixed(words[i], words[i + 1], words[i + 397])
            for i in range(227, 623):
                words[i] = mixed(words[i], words[i + 1], words[i - 227])
            words[623] = mixed(words[623], words[0], words[396])
            used = 0
        count = min(624 - used, out.size - done)
        for i in range(count):
            word = words[used + i]
            word ^= word >> np.uint32(11)
            word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
            word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
            word ^= word >> np.uint32(18)
            out[done + i] = np.float32(np.int32(word & np.uint32(0xFFFFFF))) * np.float32(2.0**-24)
        used += count
        done += count
    left[0], state[16:24].view(np.uint64)[0] = 625 - used, used
    stored[:] = words


@compiled
def log2(x):
    """The binary logarithm of a normal positive float32 to 2e-7 of it, by arithmetic alone, which vector registers can do."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32(np.int32(bits - ROOT_HALF) >> 23)
    mantissa = np.int32(bits - (exponent << 23)).view(np.float32)  # of [sqrt(1/2), sqrt(2)), so that the series below converges fast
    s = (mantissa - np.float32(1)) / (mantissa + np.float32(1))  # log(mantissa) = 2 artanh(s)
    series = np.float32(0)
    for coefficient in ARTANH:
        series = series * (s * s) + coefficient
    return np.float32(exponent) + s * series


@compiled
def exp2(x):
    """2^x of a float32 below 127.5 to 1e-7 of it, by arithmetic alone; 0 below -126.5."""
    x = max(x, np.float32(-127))
    whole = np.floor(x + np.float32(0.5))
    series = np.float32(0)
    for coefficient in EXPONENTIAL:
        series = series * (x - whole) + coefficient
    power = np.int32((np.int32(whole) + 127) << 23).view(np.float32)  # 2^-127 comes out as 0
    return series * power


@compiled
def relax(uniform, odds, reciprocal, tau, index, sure, hard, slope):
    """Eq. 4 and 5 for every row of ``uniform``: 1(m >= 1/2) forwards; backwards m (1 - m) times ``reciprocal``.

    ``uniform`` has only the places ``index`` of the grid; everywhere else hard is ``sure``, and slope 0. The odds m / (1 - m) of a soft
    mask are those of theta times u / (1 - u), to the power 1 / tau.
    """
    backwards = np.empty_like(odds)
    for row in range(len(uniform)):
        ratio = uniform[row]
        for i in range(index.size):
            ratio[i] = odds[i] * ratio[i] / (np.float32(1) - ratio[i])
            power = exp2(-abs(log2(max(ratio[i], SMALLEST))) / tau)  # the odds or one over them, whichever is at most 1
            backwards[i] = power / ((np.float32(1) + power) * (np.float32(1) + power)) * reciprocal[i]
        hard[row] = sure
        slope[row] = 0
        for i in range(index.size):  # apart from the arithmetic: stores to scattered places would keep that out of vector registers
            hard[row, index[i]] = np.float32(ratio[i] >= np.float32(1))
            slope[row, index[i]] = backwards[i]


@compiled
def product_sum(first, second, out):
    """The sum over the rows of their products, element by element."""
    out[:] = 0
    for row in range(len(first)):
        for i in range(out.size):
            out[i] += first[row, i] * second[row, i]


@compiled
def clipped_sum(values, multiplier):
    """The sum of min(1, max(0, v - lambda)) in float64, and how many of its terms lie strictly inside (0, 1)."""
    total, inside = 0.0, 0
    for start in range(0, values.size, 1024):  # a sum of partial sums: one long sum would gather more rounding errors
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
    """The number at place ``rank`` (from 0) of the sorted magnitudes of float32 values: by counting those with the same leading bits."""
    bits = values.view(np.uint32)
    magnitude = np.uint32(0x7FFFFFFF)  # of nonnegative numbers the bits are in the same order as they
    shift = np.uint32(20)
    counts = np.zeros(1 << 12, np.int64)
    for i in range(bits.size):
        counts[(bits[i] & magnitude) >> shift] += 1
    below, leading = 0, 0
    while below + counts[leading] <= rank:
        below += counts[leading]
        leading += 1
    alike, count = np.empty(counts[leading], values.dtype), 0
    for i in range(bits.size):
        if (bits[i] & magnitude) >> shift == leading:
            alike[count] = abs(values[i])
            count += 1
    return np.partition(alike, rank - below)[rank - below]


@exactly
def moved(theta, direction, quantile, rate, out):
    """out = theta - rate d, with d the direction over the quantile, cut to [-1, 1]; 0 where that is 0 / 0."""
    for i in range(out.size):
        ratio = direction[i] / quantile
        whole = np.float32(0) if ratio != ratio else min(max(ratio, np.float32(-1)), np.float32(1))
        out[i] = theta[i] - rate * whole
