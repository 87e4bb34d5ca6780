"""What each demand of a scanner costs in dB: the table of ``data/recorded/demands.csv``, by data, pattern, method and demand."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from prom.errors import InputError
from prom.methods import METHODS
from prom.runs import results

PLACES = {("virtual", "test"): "virtual", ("lowfield", "test"): "low field", ("lowfield", "brain"): "measured brain"}
PLAIN = "none"  # the demand of rows that nothing is demanded of
CELL = ["place", "pattern", "method", "demand"]


def read() -> pd.DataFrame:
    """The recorded rows, one a mask and subject: ``place, pattern, method, demand, seed, subject, psnr, ssim``, and how the mask was made.

    ``place`` is "virtual", "low field" or "measured brain", ``pattern`` "lines" or "points", and ``demand`` all that was demanded.

    >>> rows = read()
    >>> sorted(set(rows["place"])), rows["demand"].unique()[:3].tolist()
    (['low field', 'measured brain', 'virtual'], ['none', 'calibration 24', 'partial_fourier 0.75'])
    """
    rows = results.read(results.data_folder() / "recorded" / "demands.csv")
    rows["place"] = [PLACES[where] for where in zip(rows["data"], rows["part"], strict=True)]
    return rows.assign(pattern=rows["pattern"].replace({"rows": "lines", "columns": "lines"}), demand=rows["asked"].fillna(PLAIN))


def demand_costs(rows: pd.DataFrame, score: str = "psnr") -> pd.DataFrame:
    r"""Mean scores, and what demands cost: the score without any minus the score with them, of the same subject, positive where it is lost.

    A subject's score is the mean over masks (seeds, and training sets where it was in none of them). The interval is that of Student's t
    over the subjects' differences, :math:`\bar d \pm t_{n - 1} s_d / \sqrt n`: 95 %. One subject has none.

    Parameters
    ----------
    rows
        As from :func:`read`: ``place, pattern, method, demand, subject``, and the score.
    score
        "psnr" (dB) or "ssim".

    Returns
    -------
    pandas.DataFrame
        Indexed by ``place, pattern, method, demand``, each in the order of its first row: ``mean``, ``cost``, ``low``, ``high``,
        ``subjects``.

    Raises
    ------
    InputError
        Where a demand was scored on other subjects than "none" was.

    >>> common = {"place": "here", "pattern": "lines", "method": "energy"}
    >>> scores = {"none": (30.0, 31.0), "calibration": (29.0, 28.0)}
    >>> rows = [{**common, "demand": name, "subject": i, "psnr": score} for name, pair in scores.items() for i, score in enumerate(pair)]
    >>> demand_costs(pd.DataFrame(rows)).loc[("here", "lines", "energy", "calibration")].round(1).to_dict()
    {'mean': 28.5, 'cost': 2.0, 'low': -10.7, 'high': 14.7, 'subjects': 2.0}
    """
    by_subject = rows.groupby([*CELL, "subject"], sort=False)[score].mean().unstack("subject")
    found = {}
    for cell, scores in by_subject.iterrows():
        before = (*cell[:-1], PLAIN)
        if before not in by_subject.index:
            continue  # the record is not complete yet
        differences = by_subject.loc[before] - scores
        if not scores.notna().equals(by_subject.loc[before].notna()):
            raise InputError(f"{' '.join(cell)}: was scored on other subjects than {' '.join(before)}; record them anew")
        n = int(differences.count())
        half = float(stats.t.ppf(0.975, n - 1) * differences.std() / math.sqrt(n)) if n > 1 else math.nan
        cost = float(differences.mean())
        found[cell] = {"mean": float(scores.mean()), "cost": cost, "low": cost - half, "high": cost + half, "subjects": n}
    index = pd.MultiIndex.from_tuples(found, names=CELL)
    return pd.DataFrame(list(found.values()), index=index, columns=["mean", "cost", "low", "high", "subjects"])


def costs_table(costs: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """:func:`demand_costs` to be read: one row a pattern, method and demand, one column a place, "34.2, 1.3 (1.1 to 1.5)" in a cell.

    That is the mean, the cost and its interval; without demands the mean; "–" where there is no run. Methods have their labels.

    >>> index = pd.MultiIndex.from_tuples([("here", "lines", "energy", name) for name in ("none", "shutter")], names=CELL)
    >>> costs = pd.DataFrame({"mean": [30, 29], "cost": [0, 1], "low": [0, 0.8], "high": [0, 1.2]}, index=index)
    >>> costs_table(costs)["here"].to_list()
    ['30.0', '29.0, 1.0 (0.8 to 1.2)']
    """

    def written(cell: pd.Series) -> str:
        mean, cost, low, high = (f"{round(cell[name], digits) + 0.0:.{digits}f}" for name in ("mean", "cost", "low", "high"))  # no "-0.0"
        if cell.name[-1] == PLAIN:
            return mean
        return f"{mean}, {cost}" if math.isnan(cell["low"]) else f"{mean}, {cost} ({low} to {high})"

    places, rows = costs.index.unique("place"), costs.index.droplevel("place").unique()
    table = costs.apply(written, axis=1).unstack("place", fill_value="–")
    labels = {name: method.label for name, method in METHODS.items()}
    return table.reindex(index=rows, columns=places).rename(index=labels, level="method").rename_axis(columns=None)
