"""Figures: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from prom.show import figures


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_intervals_end_where_they_were_given_and_do_not_cover_each_other(axes):
    gains = {
        "one": pd.DataFrame({"mean": [0.5, -0.002], "low": [0.3, -0.004], "high": [0.9, 0.001]}, index=[8.0, 32.0]),
        "two": pd.DataFrame({"mean": [0.1], "low": [0.0], "high": [0.2]}, index=[8.0]),
    }
    figures.intervals(axes, gains, {"one": {"color": "C0"}, "two": {"color": "C1"}}, linear=0.01)
    places = []
    for container, (label, gain) in zip(axes.containers, gains.items(), strict=True):
        line, _, (bars,) = container.lines
        assert container.get_label() == label
        np.testing.assert_allclose(line.get_ydata().astype(float), gain["mean"])
        np.testing.assert_allclose([segment[:, 1].astype(float) for segment in bars.get_segments()], gain[["low", "high"]].to_numpy())
        assert (abs(line.get_xdata().astype(float) / gain.index - 1) < 0.1).all()
        places.append(line.get_xdata()[0])
    assert places[0] != places[1] and axes.get_yscale() == "symlog"
