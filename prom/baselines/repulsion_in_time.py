"""The closed form for series in time: what is not known yet is followed exactly from frame to frame, at each spatial frequency."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from prom.engine.kernels import exactly
from prom.masks.feasible import Feasible

NEAR, NEAR_LINES = 6, 16  # samples and lines, as far as K is looked at: farther away K of lines is below a thousandth
MARGIN = 1e-9  # relative; by less another is not better, so that rounding moves nothing
PASSES = 6  # of exchanges; few change anything after the fourth
AT_ONCE = 64  # samples or lines between two looks at the progress bar


class Knowledge:
    r"""What the samples taken so far leave unknown of a series, and by how much each further one would lower it.

    The T values of a spatial frequency k over the frames have, before any sample, the covariance of a stationary series,

    .. math:: (C_k)_{t t'} = \frac{1}{T} \sum_f P(f, k) \, e^{2 \pi i f (t - t') / T},

    which is :math:`\operatorname{diag}_f P(f, k)` between the orthonormal transform over time and its inverse. A sample at (k, t) tells of
    (k', t) as a measurement of variance :math:`\sigma^2 / (\mu K(k' - k))` does (:func:`prom.baselines.repulsion.reach`), so that of k' is
    left

    .. math:: V_{k'} = \big( C_{k'}^{-1} + \operatorname{diag}_t n_{k'}(t) / \sigma^2 \big)^{-1}, \qquad
              n_{k'}(t) = \mu \, (K * m_t)(k'),

    exact in time and diagonal in k. A sample at (k, t) lowers the sum of all :math:`\operatorname{tr} V_{k'}`, to first order, by

    .. math:: g(k, t) = \sum_{k'} K(k' - k) \, \| V_{k'} e_t \|^2,

    up to one factor, and in fact, with :math:`w = \mu K(k' - k) / \sigma^2`, by the sum of
    :math:`w \| V_{k'} e_t \|^2 / (1 + w \, (V_{k'})_{tt})`, as by Sherman and Morrison it takes

    .. math:: V_{k'} \leftarrow V_{k'} - \frac{w}{1 + w \, (V_{k'})_{tt}} V_{k'} e_t e_t^T V_{k'} .

    For T = 1 both V and C are one number, and g is the sum of :func:`prom.baselines.repulsion.repulsion`.

    Parameters
    ----------
    power
        P, ``(T, rows, columns, depth)`` float64, centred in f: the ``depth`` samples of each parameter of a grid; of lines it has one row.
    kernel
        K, ``(rows, columns)`` float64, centred, 1 in the middle.
    strength
        :math:`\mu / \sigma^2`.
    reach
        Rows and columns, each way, as far as K is looked at.
    exact
        Whether ``gain`` is by how much the sum is lowered in fact, or to first order.

    >>> one = Knowledge(np.full((2, 1, 1, 1), 4.0), np.ones((1, 1)), strength=1.0, reach=(0, 0))      # frames that tell nothing of another
    >>> one.take(1, 0, 0)
    >>> one.variance[0, 0, 0].tolist(), one.error()                      # 4 becomes 4 / (1 + 4)
    ([4.0, 0.8], 4.8)
    """

    def __init__(self, power: np.ndarray, kernel: np.ndarray, strength: float, reach: tuple[int, int], exact: bool = False) -> None:
        frames, rows, columns, depth = power.shape
        lag = np.arange(frames)
        waves = np.exp(2j * np.pi * np.outer(lag, lag - frames // 2) / frames) / frames  # of each lag and frequency
        along = np.tensordot(waves, power, axes=1)  # C by its lag, (T, rows, columns, depth)
        circulant = np.moveaxis(along, 0, -1)[..., (lag[:, None] - lag) % frames]
        self.real, self.imaginary = np.ascontiguousarray(circulant.real), np.ascontiguousarray(circulant.imag)
        self.kernel, self.strength, self.reach, self.exact = np.ascontiguousarray(kernel), float(strength), reach, exact
        diagonals = power.mean(axis=0), (power**2).mean(axis=0)  # of C and its square, the same in all frames
        self.variance, self.unknown = (np.stack([diagonal] * frames, axis=-1) for diagonal in diagonals)
        self.gain = np.zeros((rows, columns, frames))
        begin(self.kernel, self.strength, *reach, exact, self.unknown, self.variance, self.gain)

    def take(self, frame: int, row: int, column: int) -> None:
        """Measure a parameter."""
        take(frame, row, column, *self._arrays())

    def grow(self, taken: np.ndarray, possible: np.ndarray, groups: np.ndarray, left: np.ndarray, number: int) -> None:
        """Measure the ``number`` best ones after another, each of those ``possible`` and of a group that has some left; all change."""
        grow(taken, possible, groups, left, number, *self._arrays())

    def exchange(self, taken: np.ndarray, movable: np.ndarray, possible: np.ndarray, groups: np.ndarray) -> int:
        """Leave out each movable parameter in turn, and measure the best of its group instead: how many others are measured then."""
        return exchange(taken, movable, possible, groups, *self._arrays())

    def error(self) -> float:
        """The sum of all tr V: the mean squared error of a series of this spectrum, in the units of P."""
        return float(self.variance.sum())

    def _arrays(self) -> tuple[object, ...]:
        parts = self.kernel, self.strength, *self.reach, self.exact, self.real, self.imaginary
        return *parts, self.unknown, self.variance, self.gain


def greedy_in_time(
    power: np.ndarray,
    kernel: np.ndarray,
    strength: float,
    feasible: Feasible,
    exact: bool = False,
    start: np.ndarray | None = None,
    passes: int = PASSES,
) -> tuple[np.ndarray, float]:
    """One sample or line after another, that of the largest gain of :class:`Knowledge`, until a mask is complete; and its error.

    What is mandatory comes first, or all of ``start``, a complete mask. Then each is taken out in turn and the best of its group put in its
    place, until nothing changes, ``passes`` times at most: the first ones were chosen when nobody knew what would follow. ``feasible`` is
    of the shape (T, rows, columns), or that without an axis of 1; so is the result, bool.
    """
    shape, near = power.shape[:3], NEAR_LINES if power.shape[1] == 1 else NEAR
    known = Knowledge(power, kernel, strength, tuple(min(near, (n - 1) // 2) for n in shape[1:]), exact)
    fixed = np.zeros(shape, np.bool_) if feasible.mandatory is None else feasible.mandatory.numpy().reshape(shape)
    taken = fixed.copy() if start is None else start.reshape(shape).copy()
    for place in np.argwhere(taken):
        known.take(*place)
    bar = tqdm(total=feasible.count - int(taken.sum()), desc="samples in time", delay=2, disable=None, leave=False)
    with bar:
        if feasible.gap is None and feasible.cost is None:
            possible = ~taken if feasible.forbidden is None else ~taken & ~feasible.forbidden.numpy().reshape(shape)
            groups, left = _groups(feasible, taken)
            for first in range(0, bar.total, AT_ONCE):
                known.grow(taken, possible, groups.reshape(shape), left, min(AT_ONCE, bar.total - first))
                bar.update(min(AT_ONCE, bar.total - first))
        else:
            import torch

            for _ in range(bar.total):
                possible = feasible.open(torch.from_numpy(taken.reshape(feasible.shape))).numpy().reshape(shape)
                groups, left = np.zeros(shape, np.int64), np.ones(1, np.int64)
                known.grow(taken, possible, groups, left, 1)
                bar.update()
    if feasible.gap is None and feasible.cost is None:
        possible = np.ones(shape, np.bool_) if feasible.forbidden is None else ~feasible.forbidden.numpy().reshape(shape)
        for _ in tqdm(range(passes), desc="exchange in time", delay=2, disable=None, leave=False):
            if not known.exchange(taken, ~fixed, possible, groups.reshape(shape)):
                break
    return taken.reshape(feasible.shape), known.error()


def _groups(feasible: Feasible, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each parameter's group, and how many each group may still have."""
    if feasible.groups is None:
        return np.zeros(taken.shape, np.int64), np.array([feasible.count - int(taken.sum())])
    numbers, groups = np.unique(feasible.groups.numpy().ravel(), return_inverse=True)
    return groups, feasible.count // len(numbers) - np.bincount(groups[taken.ravel()], minlength=len(numbers))


@exactly
def gained(kernel: float, strength: float, exact: bool, unknown: float, variance: float) -> float:
    """What a sample would gain at another, to first order or in fact, both in units of mu / sigma^2."""
    return kernel * unknown / (1 + strength * kernel * variance) if exact else kernel * unknown


@exactly
def begin(
    kernel: np.ndarray, strength: float, up: int, left: int, exact: bool, unknown: np.ndarray, variance: np.ndarray, gain: np.ndarray
) -> None:
    """The gain of every parameter before any is taken."""
    rows, columns, depth, frames = unknown.shape
    for y in range(rows):  # k-space is periodic, as the transform is
        for x in range(columns):
            for i in range(-up, up + 1):
                for j in range(-left, left + 1):
                    there, across, share = (y + i) % rows, (x + j) % columns, kernel[rows // 2 + i, columns // 2 + j]
                    for t in range(frames):
                        for k in range(depth):
                            gain[y, x, t] += gained(share, strength, exact, unknown[there, across, k, t], variance[there, across, k, t])


@exactly
def grow(
    taken: np.ndarray,
    possible: np.ndarray,
    groups: np.ndarray,
    left: np.ndarray,
    number: int,
    kernel: np.ndarray,
    strength: float,
    up: int,
    across: int,
    exact: bool,
    real: np.ndarray,
    imaginary: np.ndarray,
    unknown: np.ndarray,
    variance: np.ndarray,
    gain: np.ndarray,
) -> None:
    """See :meth:`Knowledge.grow`."""
    frames, rows, columns = taken.shape
    for _ in range(number):
        best, frame, row, column = -np.inf, -1, -1, -1
        for t in range(frames):
            for y in range(rows):
                for x in range(columns):
                    if possible[t, y, x] and left[groups[t, y, x]] > 0 and gain[y, x, t] > best:
                        best, frame, row, column = gain[y, x, t], t, y, x
        if frame < 0:
            return
        taken[frame, row, column], possible[frame, row, column] = True, False
        left[groups[frame, row, column]] -= 1
        take(frame, row, column, kernel, strength, up, across, exact, real, imaginary, unknown, variance, gain)


@exactly
def take(
    frame: int,
    row: int,
    column: int,
    kernel: np.ndarray,
    strength: float,
    up: int,
    left: int,
    exact: bool,
    real: np.ndarray,
    imaginary: np.ndarray,
    unknown: np.ndarray,
    variance: np.ndarray,
    gain: np.ndarray,
    sign: float = 1.0,
) -> None:
    """What a measured parameter changes: V around it, which is real + i imaginary, its diagonal, the squares of its columns, the gains.

    With the sign -1, what changes where it is no longer measured.
    """
    rows, columns, depth, frames = unknown.shape
    before, spread = np.empty((depth, frames)), np.empty((depth, frames))
    c, d, change = np.empty(frames), np.empty(frames), np.empty(frames)
    for i in range(-up, up + 1):
        for j in range(-left, left + 1):
            y, x = (row + i) % rows, (column + j) % columns
            weight = sign * strength * kernel[rows // 2 + i, columns // 2 + j]
            if weight == 0:
                continue
            change[:] = 0
            for k in range(depth):
                v, w = real[y, x, k], imaginary[y, x, k]
                for s in range(frames):
                    c[s], d[s] = v[s, frame], w[s, frame]
                    before[k, s], spread[k, s] = unknown[y, x, k, s], variance[y, x, k, s]
                    unknown[y, x, k, s] = 0
                left_over = 1 / (1 + weight * c[frame])
                for n in range(frames):
                    e, f = weight * left_over * c[n], weight * left_over * d[n]
                    if n == frame:  # V_ts / (1 + w V_tt), which loses no digits
                        for s in range(frames):
                            v[n, s], w[n, s] = left_over * c[s], -left_over * d[s]
                    else:
                        for s in range(frames):
                            v[n, s] -= e * c[s] + f * d[s]
                            w[n, s] -= f * c[s] - e * d[s]
                        v[n, frame], w[n, frame] = left_over * c[n], left_over * d[n]
                    for s in range(frames):
                        unknown[y, x, k, s] += v[n, s] * v[n, s] + w[n, s] * w[n, s]
                for s in range(frames):
                    variance[y, x, k, s] = v[s, s]
                    change[s] += unknown[y, x, k, s] - before[k, s]
            for a in range(-up, up + 1):
                for b in range(-left, left + 1):
                    here, there, share = (y - a) % rows, (x - b) % columns, kernel[rows // 2 + a, columns // 2 + b]
                    if not exact:
                        for s in range(frames):
                            gain[here, there, s] += share * change[s]
                        continue
                    for k in range(depth):
                        for s in range(frames):
                            gain[here, there, s] += gained(share, strength, True, unknown[y, x, k, s], variance[y, x, k, s]) - gained(
                                share, strength, True, before[k, s], spread[k, s]
                            )


@exactly
def exchange(
    taken: np.ndarray,
    movable: np.ndarray,
    possible: np.ndarray,
    groups: np.ndarray,
    kernel: np.ndarray,
    strength: float,
    up: int,
    left: int,
    exact: bool,
    real: np.ndarray,
    imaginary: np.ndarray,
    unknown: np.ndarray,
    variance: np.ndarray,
    gain: np.ndarray,
) -> int:
    """See :meth:`Knowledge.exchange`."""
    frames, rows, columns = taken.shape
    changed = 0
    for t in range(frames):
        for y in range(rows):
            for x in range(columns):
                if not (taken[t, y, x] and movable[t, y, x]):
                    continue
                take(t, y, x, kernel, strength, up, left, exact, real, imaginary, unknown, variance, gain, -1.0)
                taken[t, y, x] = False
                best, frame, row, column = gain[y, x, t] * (1 + MARGIN), t, y, x
                for s in range(frames):
                    for i in range(rows):
                        for j in range(columns):
                            if possible[s, i, j] and not taken[s, i, j] and groups[s, i, j] == groups[t, y, x] and gain[i, j, s] > best:
                                best, frame, row, column = gain[i, j, s], s, i, j
                if frame != t or row != y or column != x:
                    changed += 1
                take(frame, row, column, kernel, strength, up, left, exact, real, imaginary, unknown, variance, gain, 1.0)
                taken[frame, row, column] = True
    return changed
