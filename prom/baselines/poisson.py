"""Random points that keep a distance from each other which grows away from DC: a Poisson disc of variable density.

Bridson, "Fast Poisson disk sampling in arbitrary dimensions" (SIGGRAPH 2007), in the form of SigPy (``sigpy.mri.poisson``, BSD licence,
F. Ong and M. Lustig): ``disc`` draws the points that it draws. SigPy's search for the density accepts one tolerance, which some sizes
cannot meet, and then may never end; ``variable_density`` accepts more and more.
"""

from __future__ import annotations

import numpy as np

from prom.engine.kernels import compiled

ATTEMPTS = 30  # points tried around one before it is given up
TOLERANCE = 0.1  # of the acceleration, for the first searches ...
STRICT_SEARCHES, MOST_SEARCHES = 20, 50  # ... then twice the last, and in the end any


def variable_density(shape: tuple[int, int], acceleration: float, calibration: tuple[int, int], seed: int) -> np.ndarray:
    """Points whose density is about :math:`1 / (1 + s |r|)^2`, s such that their number is near to the acceleration: ``(H, W)`` bool.

    r is the distance to the calibration region relative to the edge's; corners, where r is 1 or more, stay empty. s is found by bisection.

    >>> mask = variable_density((64, 64), 8, (8, 8), seed=0)
    >>> bool(mask[28:36, 28:36].all()), bool(450 < mask.sum() < 570)
    (True, True)
    """
    height, width = shape
    y, x = (
        np.maximum(abs(grid - n / 2) - side / 2, 0) for grid, n, side in zip(np.mgrid[:height, :width], shape, calibration, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.sqrt((x / x.max()) ** 2 + (y / y.max()) ** 2)
    low, high = 0.0, float(max(shape))
    for search in range(1, MOST_SEARCHES + 2):
        slope = (low + high) / 2
        rows, columns = (np.clip((1 + r * slope) * n / max(shape), 1, None) for n in shape)
        mask = disc(rows, columns, calibration, seed) * (r < 1)
        points = mask.sum()
        found = height * width / points if points else np.inf
        tolerance = TOLERANCE * 2.0 ** max(0, search - STRICT_SEARCHES) if search <= MOST_SEARCHES else np.inf
        if abs(found - acceleration) < tolerance or low >= high:
            break
        low, high = (slope, high) if found < acceleration else (low, slope)
    return mask


def _disc(rows, columns, calibration, seed):
    """Points, no two of them inside the same ellipse with half axes ``rows`` and ``columns``, around a full calibration region."""
    height, width = rows.shape
    mask = np.zeros((height, width), np.bool_)
    mask[
        int(height / 2 - calibration[0] / 2) : int(height / 2 + calibration[0] / 2),
        int(width / 2 - calibration[1] / 2) : int(width / 2 + calibration[1] / 2),
    ] = True
    np.random.seed(seed)  # of compiled code: NumPy's own generator is another
    active_x, active_y = np.empty(mask.size, np.int32), np.empty(mask.size, np.int32)
    active_x[0], active_y[0] = np.random.randint(0, width), np.random.randint(0, height)
    count = 1
    while mask.size > count > 0:
        i = np.random.randint(0, count)
        px, py = active_x[i], active_y[i]
        reach_x, reach_y = columns[py, px], rows[py, px]
        free = False
        for _ in range(ATTEMPTS):
            distance = (np.random.random() * 3 + 1) ** 0.5  # 1 to 2, evenly over the ring
            angle = 2 * np.pi * np.random.random()
            qx, qy = px + distance * reach_x * np.cos(angle), py + distance * reach_y * np.sin(angle)
            if not (0 <= qx < width and 0 <= qy < height):
                continue
            free = True
            for x in range(max(int(qx - reach_x), 0), min(int(qx + reach_x + 1), width)):
                for y in range(max(int(qy - reach_y), 0), min(int(qy + reach_y + 1), height)):
                    if mask[y, x] and ((qx - x) / columns[y, x]) ** 2 + ((qy - y) / rows[y, x]) ** 2 < 1:
                        free = False
                        break
                if not free:
                    break
            if free:
                break
        if free:
            active_x[count], active_y[count] = qx, qy
            mask[int(qy), int(qx)] = True
            count += 1
        else:
            count -= 1
            active_x[i], active_y[i] = active_x[count], active_y[count]
    return mask


disc = compiled(_disc, fastmath=False, error_model="python")
