"""Angles are drawn as they lie in k-space, and only of readouts that have them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from prom import InputError
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.show import figures, readouts


@pytest.fixture
def axes():
    yield figures.grid(1, 1)[1][0, 0]
    plt.close("all")


def test_angles_of_spokes_over_time_and_their_gaps(axes):
    candidates = spokes(8, size=16)
    mask = torch.zeros(3, *candidates.points.shape[:2], dtype=torch.bool)
    mask[0, 1] = mask[2, 6] = mask[2, 3] = True
    readouts.show_angles_over_time(axes, candidates, mask)
    [dots] = axes.lines
    assert np.array_equal(dots.get_data(), [[1, 3, 3], [22.5, 67.5, 135.0]])
    turned = Trajectory(candidates.points.flip(0), "spokes", 16, candidates.turns.flip(0))  # in whatever order they come
    for number, (spokes_, chosen) in enumerate(((candidates, mask[2]), (turned, mask[2].flip(0))), 1):
        readouts.show_gaps(axes, spokes_, {"two": chosen}, {"two": "black"})
        assert np.allclose(axes.lines[number].get_data(), [[101.25, 11.25], [67.5, 112.5]])


def test_a_point_spread_is_of_slices():
    candidates = spokes(8, size=8)
    for encoding, mask, message in (
        (candidates.encoding((16, 8, 8)), torch.ones(16, 8, 8), "a point spread is of slices; take one frame"),
        (kooshball(8, size=8).encoding((8, 8, 8)), torch.ones(8, 8), "a point spread is of slices; take one frame"),
        (candidates.encoding((8, 8)), torch.zeros(8, 8), "measures nothing"),
    ):
        with pytest.raises(InputError, match=message):
            readouts.point_spread(encoding, mask)


def test_what_has_no_angles_of_spokes_is_refused(axes):
    arms = spirals(4, size=16, arms=4)
    mask = torch.ones(arms.points.shape[:2], dtype=torch.bool)
    for draw in (readouts.show_rose, readouts.show_angles_over_time):
        with pytest.raises(InputError, match="trajectory of spirals"):
            draw(axes, arms, mask[None])
    with pytest.raises(InputError, match="mask 'none': measures nothing"):
        readouts.show_gaps(axes, spokes(4, size=8), {"none": torch.zeros(4, 8, dtype=torch.bool)}, {"none": "black"})


def test_paths_and_directions_are_those_of_k_space(axes):
    """Columns to the right, rows downwards, as masks are drawn."""
    candidates = spokes(8, size=16)
    mask = torch.zeros(candidates.points.shape[:2], dtype=torch.bool)
    mask[1] = True
    readouts.show_paths(axes, candidates.chosen(mask))
    assert np.allclose(axes.lines[0].get_xydata()[:, ::-1], candidates.points[1]) and axes.yaxis_inverted()
    rose = plt.figure().add_subplot(projection="polar")
    readouts.show_rose(rose, candidates, mask)
    rose.figure.canvas.draw()
    where = rose.transData.transform(np.column_stack([rose.lines[0].get_xdata(), [1, 1]]))
    drawn = (where[0] - where[1]) * [1, -1]  # on the screen, downwards
    along = (candidates.points[1, -1] - candidates.points[1, 0]).numpy()[::-1]
    assert abs(drawn @ along) == pytest.approx(np.linalg.norm(drawn) * np.linalg.norm(along), rel=1e-3)


def test_paths_of_volumes_are_drawn_in_the_plane_of_rows_and_columns(axes):
    points = kooshball(12, 6).points[:1]
    readouts.show_paths(axes, points)
    assert np.allclose(axes.lines[0].get_xydata(), points[0, :, [2, 1]])
