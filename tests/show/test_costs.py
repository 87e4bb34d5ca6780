"""What demands cost: paired by subject, with an interval over subjects, and only where it can be known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prom.errors import InputError
from prom.show.costs import CELL, costs_table, demand_costs


def rows(**scores: np.ndarray) -> pd.DataFrame:
    """Rows of one method: of each demand ``(masks, subjects)`` scores."""
    common = {"place": "here", "pattern": "lines", "method": "energy"}
    return pd.DataFrame(
        [
            {**common, "demand": demand, "seed": seed, "subject": f"subject {subject}", "psnr": psnr}
            for demand, masks in scores.items()
            for seed, mask in enumerate(masks)
            for subject, psnr in enumerate(mask)
        ]
    )


def test_the_cost_is_paired_and_its_interval_students():
    """Subjects that differ by far more than the demand costs do not blur it; SciPy's one-sample test has the interval."""
    generator = np.random.default_rng(0)
    before = 30 + 10 * generator.random((1, 6))
    after = before - 1 + 0.1 * generator.normal(size=(3, 6))
    costs = demand_costs(rows(none=before, shutter=after))
    differences = before[0] - after.mean(axis=0)
    found = costs.loc[("here", "lines", "energy", "shutter")]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found[["cost", "low", "high"]], [differences.mean(), *expected], rtol=1e-9)
    assert (found["mean"], found["subjects"]) == (pytest.approx(after.mean()), 6)
    assert costs.loc[("here", "lines", "energy", "none"), ["cost", "low", "high"]].to_list() == [0, 0, 0]


def test_one_subject_has_no_interval():
    costs = demand_costs(rows(none=np.array([[30.0]]), shutter=np.array([[29.5], [28.5]])))
    assert costs["cost"].to_list() == [0, 1] and costs[["low", "high"]].isna().all(axis=None)
    assert costs_table(costs)["here"].to_list() == ["30.0", "29.0, 1.0"]


def test_what_was_scored_on_other_subjects_is_refused():
    with pytest.raises(InputError, match="here lines energy shutter: was scored on other subjects than here lines energy none"):
        demand_costs(rows(none=np.ones((1, 3)), shutter=np.ones((1, 2))))


def test_without_anything_to_compare_with_there_is_no_cost():
    """A record that is still being made."""
    costs = demand_costs(rows(shutter=np.ones((1, 3))))
    assert costs.empty and list(costs.index.names) == CELL


def test_a_table_has_a_column_for_each_place_and_a_dash_where_nothing_was_run():
    there = rows(none=np.full((1, 2), 31.0)).assign(place="there")
    table = costs_table(demand_costs(pd.concat([there, rows(none=np.full((1, 2), 30.0), shutter=np.full((1, 2), 29.96))])))
    assert list(table.columns) == ["there", "here"] and set(table.index.get_level_values("method")) == {"energy oracle"}
    assert table.index.get_level_values("demand").to_list() == ["none", "shutter"]
    assert table.to_numpy().tolist() == [["31.0", "30.0"], ["–", "30.0, 0.0 (0.0 to 0.0)"]]
