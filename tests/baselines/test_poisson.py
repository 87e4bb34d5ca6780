"""The points of the Poisson disc are those of SigPy."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
from sigpy.mri import samp

from prom.baselines import poisson


@pytest.mark.parametrize("shape", [(48, 64), (41, 37)])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_points_at_given_distances(shape, seed):
    rows, columns = (1 + 3 * np.random.default_rng(side).random(shape) for side in (1, 2))
    expected = samp._poisson(shape[1], shape[0], poisson.ATTEMPTS, columns, rows, (9, 8), seed).reshape(shape)
    assert np.array_equal(poisson.disc(rows, columns, (9, 8), seed), expected == 1)


@pytest.mark.parametrize("acceleration", [4, 8])
def test_masks_where_its_search_ends(acceleration):
    for seed in (1, 2, 5):  # with 0 its first point lies in the calibration region, where there is no room for a second one
        expected = sigpy.mri.poisson((96, 80), acceleration, calib=(12, 12), dtype=bool, seed=seed)
        assert np.array_equal(poisson.variable_density((96, 80), acceleration, (12, 12), seed), expected)
