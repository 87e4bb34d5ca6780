"""Tables of recorded runs: what a row holds, means over seeds beside the paper's values, and differences patient by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from prom.errors import InputError, unknown
from prom.methods import METHODS
from prom.runs import results

CELL = ["method", "variant", "members", "pattern", "tuning_steps", "acceleration"]  # all of a run but its seed: a cell of a table


@dataclass(frozen=True)
class Row:
    """One row of a table: which runs it holds, by the fields of their records, and what the paper calls it.

    Parameters
    ----------
    paper
        The method in the paper's table; "" where the paper has none.
    ranked
        Whether it competes for the best of its pattern. Not so with another budget or a network of its own.
    full
        Whether these are fully sampled images, which have acceleration 1 and no other.

    >>> Row("energy", pattern="columns").key
    ('energy', '', 1, 'columns', 0)
    """

    method: str
    variant: str = ""
    pattern: str = "points"
    members: int = 1
    tuning_steps: int = 0
    paper: str = ""
    ranked: bool = True
    full: bool = False

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What its runs have in common: ``CELL`` without the acceleration."""
        return self.method, self.variant, self.members, self.pattern, self.tuning_steps


def lines(method: str, variant: str = "", **fields: object) -> Row:
    """A row of masks of whole columns.

    >>> lines("igs", paper="igs").pattern
    'columns'
    """
    return Row(method, variant, pattern="columns", **fields)


LABEL = {name: method.label for name, method in METHODS.items()}
POINTS_WITHOUT_LEARNING = {
    LABEL["gaussian"]: Row("gaussian", paper="gaussian"),
    f"{LABEL['gaussian']} with centre": Row("gaussian", "protect_centre=true"),
    LABEL["poisson_disc"]: Row("poisson_disc"),
    LABEL["low_pass"]: Row("low_pass"),
    LABEL["energy"]: Row("energy"),
    LABEL["conjugate_energy"]: Row("conjugate_energy"),
}
RECONSTRUCTION = {
    f"{LABEL['equispaced']}, paper's variant": lines("equispaced", "exact_budget=false", paper="equispaced", ranked=False),
    LABEL["equispaced"]: lines("equispaced"),
    f"{LABEL['gaussian']} lines": lines("gaussian"),
    f"{LABEL['gaussian']} lines with centre": lines("gaussian", "protect_centre=true"),
    f"{LABEL['low_pass']} lines": lines("low_pass"),
    f"{LABEL['energy']}, lines": lines("energy"),
    f"{LABEL['conjugate_energy']}, lines": lines("conjugate_energy"),
    f"{LABEL['igs']}, lines": lines("igs", paper="igs"),
    f"{LABEL['loupe']}, lines": lines("loupe"),
    f"{LABEL['score_prune']}, lines": lines("score_prune"),
    f"{LABEL['default']}, lines": lines("default"),
    f"{LABEL['polished']}, lines": lines("polished"),
    **POINTS_WITHOUT_LEARNING,
    LABEL["igs"]: Row("igs"),
    LABEL["loupe"]: Row("loupe"),
    LABEL["score_prune"]: Row("score_prune"),
    f"{LABEL['paper']}, one member": Row("paper", "members=1"),
    f"{LABEL['paper']}, mean of 3 members": Row("paper", "members=1", members=3, paper="prom"),
    f"{LABEL['paper']}, mean of 10 members": Row("paper", "members=1", members=10, paper="prom"),
    LABEL["default"]: Row("default", paper="prom"),
    LABEL["polished"]: Row("polished", paper="prom"),
}


def segmentation_rows(iterations: int) -> dict[str, Row]:
    """The rows of Table 2, where what is learnt through the network from scratch had so many iterations.

    >>> segmentation_rows(100)["task, from scratch"].variant
    'iterations=100'
    """
    scratch = f"iterations={iterations}"
    polish = "polish=12,hold_out=0.2"
    return {
        "fully sampled": Row("energy", paper="fully_sampled", ranked=False, full=True),
        LABEL["equispaced"]: lines("equispaced", paper="equispaced"),
        f"{LABEL['low_pass']} lines": lines("low_pass"),
        f"{LABEL['energy']}, lines": lines("energy"),
        f"{LABEL['conjugate_energy']}, lines": lines("conjugate_energy"),
        f"{LABEL['igs']} for the image, lines": lines("igs"),
        f"{LABEL['igs']} for the task, lines": lines("task-igs", "batch_size=128", paper="igs"),
        "image, lines": lines("polished"),
        f"{LABEL['paper']} for the image, lines": lines("paper", "members=1"),
        f"{LABEL['paper']} for the task, 250 iterations, lines": lines("task-paper", "members=1,iterations=250"),
        f"{LABEL['default']}, image, lines": lines("default"),
        "task, from scratch, lines": lines("task-default", scratch),
        "task, lines": lines("task-polished", polish, paper="prom_1d"),
        **POINTS_WITHOUT_LEARNING,
        f"{LABEL['paper']} for the image": Row("paper", "members=1"),
        f"{LABEL['default']}, image": Row("default"),
        f"image ({LABEL['polished']})": Row("polished"),
        "naive: task without curvature": Row("task-default", f"{scratch},curvature=false"),
        "naive, from the energy order": Row("task-default", f"{scratch},curvature=false,initialisation=energy"),
        f"{LABEL['loupe']} for the task": Row("task-loupe", scratch),
        f"{LABEL['loupe']} for the task, 600 iterations": Row("task-loupe", "iterations=600"),
        f"{LABEL['paper']} for the task, 50 iterations": Row("task-paper", "members=1,iterations=50"),
        f"{LABEL['paper']} for the task, 250 iterations": Row("task-paper", "members=1,iterations=250"),
        f"{LABEL['paper']} for the task, its 2500": Row("task-paper", "members=1"),
        "task, from scratch": Row("task-default", scratch),
        "task, from scratch, 600 iterations": Row("task-default", "iterations=600"),
        "task, no patients held out": Row("task-polished", "polish=12"),
        "task": Row("task-polished", polish, paper="prom_2d"),
        f"{LABEL['energy']}, network fine-tuned to it": Row("energy", tuning_steps=200, ranked=False),
        "image, network fine-tuned to it": Row("polished", tuning_steps=200, ranked=False),
        "task, network fine-tuned to it": Row("task-polished", polish, tuning_steps=200, ranked=False),
    }


@dataclass(frozen=True)
class Table:
    """Recorded runs on one data set, sorted into rows and accelerations, and what the paper prints for it.

    ``table[label, acceleration]`` are the runs of a cell, one row a seed; none where it was not run.

    Parameters
    ----------
    rows
        By label, in the order of the table.
    accelerations
        The columns, where 1 is fully sampled.
    runs
        One row a run, indexed by ``CELL``, as from :func:`read_runs`.
    paper
        One row a value of the paper, indexed by method and acceleration, as from :func:`read_paper`.
    slices
        File of the scores slice by slice, for differences by patient.

    >>> table = reconstruction("acdc", paper="ACDC")
    >>> len(table["polished ProM", 8.0]), table.mean("psnr").loc["energy oracle"].round(1).to_list()
    (10, [40.8, 35.1, 30.8, 27.5])
    """

    rows: dict[str, Row]
    accelerations: tuple[float, ...]
    runs: pd.DataFrame
    paper: pd.DataFrame
    slices: Path | None = None

    def __getitem__(self, cell: tuple[str, float]) -> pd.DataFrame:
        return self._cells.get(cell, self.runs.iloc[:0])

    @cached_property
    def _cells(self) -> dict[tuple[str, float], pd.DataFrame]:
        by_cell = dict(list(self.runs.groupby(level=CELL))) if len(self.runs) else {}
        keys = {(label, alpha): (*self.rows[label].key, alpha) for label in self.rows for alpha in self._accelerations_of(label)}
        return {cell: by_cell[key] for cell, key in keys.items() if key in by_cell}

    def _accelerations_of(self, label: str) -> list[float]:
        return [alpha for alpha in self.accelerations if (alpha == 1) == self.rows[label].full]

    def labels(self, pattern: str) -> list[str]:
        """The rows that compete for the best of a pattern, whether they were run or not."""
        return [label for label, row in self.rows.items() if row.ranked and row.pattern == pattern]

    def mean(self, score: str) -> pd.DataFrame:
        """Means over seeds, labels x accelerations; NaN where there are no runs."""
        means = {
            alpha: {label: self[label, alpha][score].mean() for label in self.rows if len(self[label, alpha])}
            for alpha in self.accelerations
        }
        return pd.DataFrame(means, index=list(self.rows), columns=pd.Index(self.accelerations, name="acceleration"), dtype=float)

    def best(self, score: str, digits: int) -> set[tuple[str, float]]:
        """The cells with the highest mean of their pattern and acceleration; several where they print alike at so many digits."""
        means = self.mean(score).round(digits)
        groups = [means.loc[self.labels(pattern)] for pattern in ("columns", "points")]
        return {(label, alpha) for group in groups for alpha in group for label in group.index[group[alpha] == group[alpha].max()]}

    def summary(self) -> str:
        """How many runs there are, on which slices, through which network, and which devices computed their masks: two lines."""
        if not len(self.runs):
            return "0 runs"
        first = self.runs.iloc[0]
        devices = ", ".join(f"{name}, {count} runs" for name, count in self.runs["device"].value_counts().items())
        network = f"; network {first['network']}" if "network" in self.runs else f", fingerprint {first['fingerprint_test']}"
        counts = f"{len(self.runs)} runs; {first['slices_train']} training and {first['slices_test']} test slices"
        return f"{counts}{network}\ndevice that computed the masks: {devices}"

    def html(self, scores: dict[str, int], bold: bool = True, not_run: bool = True, labels: Sequence[str] | None = None) -> str:
        """The table in HTML: mean ± standard deviation over seeds of the first score, means of the others, and below them the paper's.

        Parameters
        ----------
        scores
            Digits of each score. With a single one, ours minus the paper's stands in brackets.
        bold
            Whether :meth:`best` of the first score are set in bold.
        not_run
            Whether rows without any run are shown.
        labels
            The rows to show, in this order; all of them by default. Bold means the best of all rows, shown or not.

        Raises
        ------
        InputError
            Where a label names no row.
        """
        labels = list(self.rows) if labels is None else list(labels)
        for label in labels:
            if label not in self.rows:
                raise unknown("row", label, list(self.rows))
        first, *others = scores
        best = self.best(first, scores[first]) if bold else set()

        def written(cell: tuple[str, float]) -> str:
            runs, digits = self[cell], scores[first]
            if not len(runs):
                return "<i>not run</i>" if cell[1] in self._accelerations_of(cell[0]) else ""
            spread = f" ± {runs[first].std(ddof=1):.{digits}f}" if len(runs) > 1 else ""
            text = f"{runs[first].mean():.{digits}f}{spread}"
            return " / ".join(
                [f"<b>{text}</b>" if cell in best else text, *(f"{runs[other].mean():.{scores[other]}f}" for other in others)]
            )

        def printed(cell: tuple[str, float]) -> str:
            place = self.rows[cell[0]].paper, cell[1]
            if place not in self.paper.index:
                return ""
            values = self.paper.loc[place]
            text = " / ".join(f"{values[score]:.{digits}f}" for score, digits in scores.items())
            if len(self[cell]) and not others:
                text += f" ({self[cell][first].mean() - values[first]:+.{scores[first]}f})"
            return f"<br><small>paper {text}</small>"

        def counted(label: str) -> str:
            counts = sorted({len(self[label, alpha]) for alpha in self.accelerations} - {0}) or [0]
            return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])

        counts = {label: counted(label) for label in labels}
        columns = {
            "full" if alpha == 1 else f"x{alpha:g}": {label: written((label, alpha)) + printed((label, alpha)) for label in labels}
            for alpha in self.accelerations
        }
        frame = pd.DataFrame({"runs": counts, **columns}, index=labels)
        return (frame if not_run else frame[frame["runs"] != "0"]).to_html(escape=False)

    def classes(self, labels: Sequence[str]) -> pd.DataFrame:
        """Of runs through a network: the losses, Dice coefficient / intersection over union of every class, and PSNR, by acceleration."""
        named = {"loss, training": "train_loss", "loss, test": "loss", "Dice": "dice"}
        regions = [name.removeprefix("dice ") for name in self.runs if name.startswith("dice ") and not name.endswith("_std")]
        columns = [*named.values(), "psnr", *(f"{score} {region}" for region in regions for score in ("dice", "iou"))]
        detail = {}
        for alpha, label in ((alpha, label) for alpha in self.accelerations for label in labels if len(self[label, alpha])):
            mean = self[label, alpha][columns].mean()
            detail[f"x{alpha:g}", label] = {
                **{name: f"{mean[column]:.4f}" for name, column in named.items()},
                **{region: f"{mean[f'dice {region}']:.4f} / {mean[f'iou {region}']:.3f}" for region in regions},
                "PSNR (dB)": f"{mean['psnr']:.2f}",
            }
        return pd.DataFrame(detail).T

    @cached_property
    def _by_patient(self) -> pd.DataFrame:
        scores = _unscaled(results.read(self.slices))
        return scores.groupby([*CELL, "subject"]).mean(numeric_only=True)

    def difference(self, first: str, second: str, acceleration: float, score: str) -> pd.Series:
        """A score of one row minus that of another by subject, each the mean over the subject's slices and the seeds.

        Slices of a patient are not independent of each other, patients are; a subject is a patient where each has one volume. Those without
        a score in one of the rows are left out. Empty where one of the rows was not run.
        """
        if not (len(self[first, acceleration]) and len(self[second, acceleration])):
            return pd.Series(dtype=float)
        one, other = (self._by_patient.loc[(*self.rows[label].key, acceleration), score] for label in (first, second))
        return (one - other).dropna()

    def gains(
        self, first: str, second: str, score: str, interval: Callable[[pd.Series], tuple[float, float]] | None = None
    ) -> pd.DataFrame:
        """Mean of :meth:`difference` over patients and its 95 % interval, one row for each acceleration at which both were run.

        Parameters
        ----------
        interval
            Lowest and highest mean of differences; :func:`bca_interval` by default.

        Returns
        -------
        pd.DataFrame
            Columns ``mean``, ``low`` and ``high``, indexed by acceleration.

        >>> reconstruction("acdc").gains("polished ProM", "energy oracle", "psnr").loc[8.0].round(2).to_list()
        [0.44, 0.42, 0.45]
        """
        found = {}
        for alpha in self.accelerations:
            difference = self.difference(first, second, alpha, score)
            if len(difference):
                low, high = (interval or bca_interval)(difference)
                found[alpha] = {"mean": difference.mean(), "low": low, "high": high}
        return pd.DataFrame.from_dict(found, orient="index", columns=["mean", "low", "high"])


def reconstruction(name: str, paper: str = "") -> Table:
    """Table 1 on a recorded data set, beside what the paper prints for its data set ``paper``; without runs where none is recorded.

    >>> reconstruction("fastmri_knee", paper="fastMRI").paper.loc[("prom", 8.0), "psnr"]
    np.float64(28.472)
    """
    folder = results.data_folder()
    runs = read_runs(folder / "recorded" / f"{name}_reconstruction.csv")
    values = read_paper(folder / "paper" / "table1_reconstruction.csv", paper)
    return Table(RECONSTRUCTION, (4.0, 8.0, 16.0, 32.0), runs, values, folder / "recorded" / f"{name}_slices.csv.gz")


def segmentation(name: str, iterations: int = 100, paper: str = "") -> Table:
    """Table 2 on a recorded data set, with the rows of :func:`segmentation_rows`.

    >>> segmentation("acdc", paper="ACDC").paper.loc[("prom_2d", 8.0), "dice"]
    np.float64(0.839)
    """
    folder = results.data_folder()
    runs = read_runs(folder / "recorded" / f"{name}_segmentation.csv")
    values = read_paper(folder / "paper" / "table2_segmentation.csv", paper)
    slices = folder / "recorded" / f"{name}_segmentation_slices.csv.gz"
    return Table(segmentation_rows(iterations), (1.0, 8.0, 16.0, 32.0), runs, values, slices)


def read_runs(path: Path) -> pd.DataFrame:
    """Recorded runs on a data set as it is, not on rescaled images, indexed by ``CELL``; empty where there is no file.

    Raises
    ------
    InputError
        Where runs were scored on different slices or through different networks, or those of a cell come from different code.
    """
    if not path.exists():
        return pd.DataFrame(index=pd.MultiIndex.from_product([[]] * len(CELL), names=CELL))
    runs = _unscaled(results.read(path))
    for name in {"fingerprint_test", "network"} & set(runs):
        if runs[name].nunique() > 1:
            raise InputError(f"file {path}: its runs have {runs[name].nunique()} values of {name} and cannot stand in one table")
    runs = runs.set_index(CELL)
    versions = runs.groupby(level=CELL)["versions"].nunique()
    if (versions > 1).any():
        raise InputError(f"file {path}: the runs of {versions.idxmax()} come from {versions.max()} versions of the code")
    return runs


def read_paper(path: Path, dataset: str) -> pd.DataFrame:
    """The values that the paper prints for a data set, indexed by method and acceleration, with the names of scores in records."""
    printed = pd.read_csv(path).rename(columns={"psnr_db": "psnr"}).astype({"acceleration": float})
    return printed[printed["dataset"] == dataset].drop(columns="dataset").set_index(["method", "acceleration"])


def _unscaled(runs: pd.DataFrame) -> pd.DataFrame:
    """Without runs on rescaled images; what the records leave empty filled in."""
    runs = runs[~runs["options"].str.contains('"scale"')]
    runs = runs.assign(variant=runs["variant"].astype(object).fillna(""))
    return runs if "tuning_steps" in runs else runs.assign(tuning_steps=0)


def bca_interval(differences: pd.Series) -> tuple[float, float]:
    """95 % interval of a mean by the bias-corrected and accelerated bootstrap, 9999 draws.

    Where all differences are equal it has the width 0, and of a single one it is not known, (NaN, NaN). Of few it is too narrow: of two
    differences it is these two, and has the mean in it half of the time; of five, five times in six.

    >>> low, high = bca_interval(pd.Series([1.0, 2.0, 3.0, 4.0]))
    >>> 1 <= low < 2.5 < high <= 4
    True
    """
    if len(differences) < 2:
        return math.nan, math.nan
    if differences.nunique() == 1:
        return float(differences.iloc[0]), float(differences.iloc[0])
    low, high = stats.bootstrap((differences,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return float(low), float(high)


def percentile_interval(differences: pd.Series, generator: torch.Generator, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of a mean by the percentile bootstrap; (NaN, NaN) of a single difference, and too narrow of few.

    >>> low, high = percentile_interval(pd.Series([1.0, 2.0, 3.0, 4.0]), torch.Generator().manual_seed(0))
    >>> 1 <= low < 2.5 < high <= 4
    True
    """
    if len(differences) < 2:
        return math.nan, math.nan
    values: Tensor = torch.tensor(differences.to_numpy(dtype=float))
    means = values[torch.randint(len(values), (draws, len(values)), generator=generator)].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high


def signed_rank(differences: pd.Series) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, uncorrected; 1 where all differences are 0, NaN of none.

    >>> signed_rank(pd.Series([0.0, 0.0])), round(signed_rank(pd.Series(range(1, 11))), 4)
    (1.0, 0.002)
    """
    if not len(differences):
        return math.nan
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
