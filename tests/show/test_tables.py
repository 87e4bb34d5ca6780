"""Tables of recorded runs: sorting, what is refused, what is printed, and differences by patient."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy
import torch

from prom.errors import InputError
from prom.runs import results
from prom.show import figures, tables


def run(method: str, psnr: float, acceleration: float = 8.0, **fields: object) -> dict[str, object]:
    defaults = {"variant": "", "members": 1, "pattern": "points", "seed": 0, "ssim": psnr / 100, "options": "{}", "device": "cpu"}
    shape = {"slices_train": 3, "slices_test": 2, "fingerprint_test": "f", "versions": "v"}
    return {"method": method, "acceleration": acceleration, "psnr": psnr, **defaults, **shape, **fields}


RUNS = [
    *(run("energy", psnr, seed=seed) for seed, psnr in enumerate((30.0, 31.0, 32.0))),
    run("energy", 27.0, acceleration=32.0),
    run("polished", 31.004),
    run("igs", 25.0, pattern="columns"),
    run("equispaced", 29.0, pattern="columns", variant="exact_budget=false"),
    run("energy", 99.0, options=json.dumps({"scale": 0.01}), fingerprint_test="other"),
]
PAPER = "dataset,method,acceleration,psnr_db,ssim,nmse\nX,prom,8,30.5,0.7,0.1\nX,prom,16,20,0.5,0.2\nY,igs,8,1,0.1,0.9\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of which only the tables are there."""
    for name in ("recorded", "paper"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "paper" / "table1_reconstruction.csv").write_text(PAPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "recorded"


def recorded(project, runs) -> tables.Table:
    pd.DataFrame(runs).to_csv(project / "x_reconstruction.csv", index=False)
    return tables.reconstruction("x", paper="X")


def cell(html: str, label: str, column: int) -> str:
    """A cell of a table in HTML, the number of runs being column 0."""
    [row] = [row for row in html.split("<tr>") if f"<th>{label}</th>" in row]
    return re.findall(r"<td>(.*?)</td>", row)[column]


def test_runs_are_sorted_into_cells_without_those_on_rescaled_images(project):
    table = recorded(project, RUNS)
    assert table["energy oracle", 8.0]["psnr"].to_list() == [30, 31, 32]
    assert table["equispaced lines", 8.0].empty and len(table["equispaced lines, paper's variant", 8.0]) == 1
    means = table.mean("psnr")
    assert list(means.index) == list(tables.RECONSTRUCTION) and means.loc["energy oracle", [8.0, 32.0]].to_list() == [31, 27]
    assert means.notna().sum().sum() == 5
    assert table.summary() == "7 runs; 3 training and 2 test slices, fingerprint f\ndevice that computed the masks: cpu, 7 runs"


@pytest.mark.parametrize(
    ("field", "acceleration", "message"),
    [("fingerprint_test", 32.0, "2 values of fingerprint_test"), ("versions", 8.0, "2 versions of the code"), ("network", 32.0, "network")],
)
def test_what_cannot_stand_in_one_table_is_refused(field, acceleration, message, project):
    runs = [run("energy", 30.0, network="n"), run("energy", 31.0, acceleration, seed=1, **{"network": "n", field: "other"})]
    with pytest.raises(InputError, match=message):
        recorded(project, runs)


def test_cells_may_come_from_different_code(project):
    assert len(recorded(project, [run("energy", 30.0), run("energy", 27.0, 32.0, versions="other")]).runs) == 2


def test_nothing_recorded_is_a_table_without_runs(project):
    table = tables.reconstruction("nothing", paper="X")
    assert table["polished ProM", 8.0].empty and table.mean("psnr").isna().all(axis=None)
    html = table.html({"psnr": 2})
    assert cell(html, "polished ProM", 2) == "<i>not run</i><br><small>paper 30.50</small>"
    assert "<td>" not in table.html({"psnr": 2}, not_run=False)


def test_a_cell_has_mean_spread_and_the_difference_from_the_paper(project):
    html = recorded(project, RUNS).html({"psnr": 2}, bold=False)
    assert [cell(html, "energy oracle", i) for i in range(4)] == ["1 to 3", "<i>not run</i>", "31.00 ± 1.00", "<i>not run</i>"]
    assert cell(html, "polished ProM", 2) == "31.00<br><small>paper 30.50 (+0.50)</small>"
    assert cell(html, "polished ProM", 3) == "<i>not run</i><br><small>paper 20.00</small>"
    assert "paper 1.00" not in html  # of another data set


def test_numbers_of_runs_that_differ_are_both_told(project):
    html = recorded(project, [run("energy", 30.0), run("energy", 31.0, seed=1), run("energy", 27.0, 32.0)]).html({"psnr": 2})
    assert cell(html, "energy oracle", 0) == "1 to 2"
    assert tables.read_runs(project / "x_reconstruction.csv").size > 0
    scaled = run("energy", 30.0, options=json.dumps({"scale": 0.01}))
    assert recorded(project, [scaled])["energy oracle", 8.0].empty


def test_some_rows_alone_keep_their_cells_and_the_best_of_all(project):
    table = recorded(project, RUNS)
    few = table.html({"psnr": 2}, labels=["polished ProM", "energy oracle"])
    assert re.findall(r"<th>(.*?)</th>", few.partition("<tbody>")[2]) == ["polished ProM", "energy oracle"]
    whole = table.html({"psnr": 2})
    for label in ("polished ProM", "energy oracle"):
        assert [cell(few, label, i) for i in range(5)] == [cell(whole, label, i) for i in range(5)]
    better = recorded(project, [*RUNS, run("default", 40.0)])  # the best of its pattern is not shown
    assert "<b>31" not in better.html({"psnr": 2}, labels=["polished ProM", "energy oracle"])
    with pytest.raises(InputError, match="'polishd ProM'.*polished ProM"):
        table.html({"psnr": 2}, labels=["polishd ProM"])


def test_further_scores_follow_without_spread_or_difference(project):
    html = recorded(project, RUNS).html({"psnr": 1, "ssim": 3}, bold=False)
    assert cell(html, "energy oracle", 2) == "31.0 ± 1.0 / 0.310"
    assert cell(html, "polished ProM", 2) == "31.0 / 0.310<br><small>paper 30.5 / 0.700</small>"


def test_the_best_of_lines_and_of_points_are_those_that_print_alike(project):
    table = recorded(project, RUNS)
    lines = {("IGS, lines", 8.0)}  # the paper's variant has more samples, and does not compete
    alone = {("energy oracle", 32.0)}
    assert table.best("psnr", 2) == lines | alone | {("energy oracle", 8.0), ("polished ProM", 8.0)}
    assert table.best("psnr", 3) == lines | alone | {("polished ProM", 8.0)}
    assert cell(table.html({"psnr": 3}), "polished ProM", 2).startswith("<b>31.004</b><br>")
    assert cell(table.html({"psnr": 3}), "energy oracle", 2) == "31.000 ± 1.000"


def test_fully_sampled_images_have_a_column_of_their_own(project):
    network = {"network": "n", "tuning_steps": 0, "dice": 0.9, "iou": 0.8}
    pd.DataFrame([run("energy", 60.0, 1.0, **network), run("energy", 30.0, **network)]).to_csv(project / "x_segmentation.csv", index=False)
    (project.parent / "paper" / "table2_segmentation.csv").write_text("dataset,method,acceleration,dice,iou\nX,fully_sampled,1,0.95,0.9\n")
    table = tables.segmentation("x", paper="X")
    assert len(table["fully sampled", 1.0]) == 1 and table["fully sampled", 8.0].empty
    assert len(table["energy oracle", 8.0]) == 1 and table["energy oracle", 1.0].empty
    html = table.html({"dice": 3, "iou": 3}, not_run=False)
    assert cell(html, "fully sampled", 1) == "0.900 / 0.800<br><small>paper 0.950 / 0.900</small>"
    assert [cell(html, "energy oracle", i) for i in (1, 2, 3)] == ["", "<b>0.900</b> / 0.800", "<i>not run</i>"]
    assert "task, lines" not in html
    assert "network n" in table.summary()


def test_classes_are_listed_by_acceleration(project):
    scores = {"dice": 0.9, "loss": 0.2, "train_loss": 0.1, "dice heart": 0.85, "iou heart": 0.7, "dice heart_std": 0.1}
    pd.DataFrame([run("energy", 30.0, network="n", **scores)]).to_csv(project / "x_segmentation.csv", index=False)
    (project.parent / "paper" / "table2_segmentation.csv").write_text("dataset,method,acceleration,dice,iou\n")
    detail = tables.segmentation("x").classes(["energy oracle", "task"])
    expected = {"loss, training": "0.1000", "loss, test": "0.2000", "Dice": "0.9000", "heart": "0.8500 / 0.700", "PSNR (dB)": "30.00"}
    assert detail.T.to_dict() == {("x8", "energy oracle"): expected}


def test_a_difference_is_one_number_a_patient(project):
    table = recorded(project, RUNS)
    fields = {"options": "{}", "variant": "", "members": 1, "pattern": "points", "acceleration": 8.0}
    scores = {("energy", "a"): (1, 3), ("energy", "b"): (5,), ("polished", "a"): (4, 6), ("polished", "b"): (5,)}
    slices = [
        {"method": method, "subject": subject, "slice": i, "psnr": psnr, **fields}
        for (method, subject), values in scores.items()
        for i, psnr in enumerate(values)
    ]
    slices.append({"method": "energy", "subject": "a", "slice": 0, "psnr": 99.0, **fields, "options": json.dumps({"scale": 0.01})})
    for method in ("energy", "polished"):  # a patient none of whose slices shows a region
        slices.append({"method": method, "subject": "c", "slice": 0, "psnr": np.nan, **fields})
    pd.DataFrame(slices).to_csv(project / "x_slices.csv.gz", index=False)
    assert table.difference("polished ProM", "energy oracle", 8.0, "psnr").to_dict() == {"a": 3.0, "b": 0.0}
    assert table.difference("polished ProM", "energy oracle", 32.0, "psnr").empty
    gains = table.gains("polished ProM", "energy oracle", "psnr", lambda each: (each.min(), each.max()))
    assert gains.to_dict("index") == {8.0: {"mean": 1.5, "low": 0.0, "high": 3.0}}
    assert (
        list(table.gains("IGS", "energy oracle", "psnr").columns) == ["mean", "low", "high"]
        and len(table.gains("IGS", "LOUPE's layer", "psnr")) == 0
    )


def test_intervals_cover_the_mean_as_often_as_they_promise():
    drawing, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    samples = [pd.Series(drawing.normal(0.3, 1, 50)) for _ in range(100)]
    for intervals in ([tables.bca_interval(s) for s in samples], [tables.percentile_interval(s, generator, 1000) for s in samples]):
        assert 85 <= sum(low < 0.3 < high for low, high in intervals) <= 99
    method = {"rng": np.random.default_rng(1), "n_resamples": 9999, "confidence_level": 0.95}
    for name, interval in (("BCa", tables.bca_interval(samples[0])), ("percentile", tables.percentile_interval(samples[0], generator))):
        expected = scipy.stats.bootstrap((samples[0],), np.mean, method=name, **method).confidence_interval
        assert interval == pytest.approx(tuple(expected), abs=0.02)  # one of 90 % would be narrower by .08
    same = pd.Series(np.zeros(5))
    assert tables.bca_interval(same) == tables.percentile_interval(same, generator) == (0, 0) and tables.signed_rank(same) == 1
    assert tables.bca_interval(same + 0.3) == (0.3, 0.3) and np.isnan(tables.bca_interval(same[:1])).all()
    assert np.isnan(tables.percentile_interval(same[:1], generator)).all() and np.isnan(tables.signed_rank(same[:0]))
    alike = pd.Series([0.1] * 3)  # whose mean is not 0.1 to the last bit
    gain = pd.DataFrame({"mean": alike.mean(), "low": 0.1, "high": 0.1}, index=[8.0])
    figures.intervals(figures.grid(1, 1)[1][0, 0], {"a": gain}, {"a": {}}, 0.01)
    assert tables.signed_rank(pd.Series(drawing.normal(2, 1, 50))) < 1e-6


@pytest.mark.parametrize(
    ("rows", "file"), [(tables.RECONSTRUCTION, "table1_reconstruction"), (tables.segmentation_rows(100), "table2_segmentation")]
)
def test_rows_hold_different_runs_and_their_names_are_the_papers(rows, file):
    """A name of a row that the paper's table lacks would drop the paper's value without a word."""
    keys = [(row.key, row.full) for row in rows.values()]
    assert len(keys) == len(set(keys))
    printed = pd.read_csv(results.data_folder() / "paper" / f"{file}.csv")
    assert {row.paper for row in rows.values()} - {""} == set(printed["method"])
