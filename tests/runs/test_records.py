"""Which results are of the golden hash of this installation: counted here row by row, in another way."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from prom import InputError, load_mask
from prom.cli import main
from prom.masks import golden, versions
from prom.runs import golden as golden_masks
from prom.runs import records, results

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
NOW = {"golden": golden()["golden"]}
OTHER = {"golden": "0" * 16}
OLDER = {"prom sources": NOW["golden"]}  # the same digits under another name are no golden hash


def by_file(folder: Path) -> dict[str, list]:
    return {file: rest for file, *rest in records.survey(folder).values.tolist()}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A table, two measurements and two single runs, of several versions."""
    rows = [("b", NOW), ("a", OTHER), ("", OLDER), ("b", NOW)]
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("processor", "versions"), *((name, json.dumps(named)) for name, named in rows)])
    (tmp_path / "speed.json").write_text(json.dumps({"device": "card", "versions": NOW}))
    (tmp_path / "volume.json").write_text(json.dumps({"shape": [1, 2]}))
    (tmp_path / "runs").mkdir()
    for number, named in enumerate((NOW, OTHER)):
        results.write(tmp_path / "runs" / f"{number}.json", {"device": "cpu", "versions": json.dumps(named)})
        (tmp_path / "runs" / f"{number}.csv").write_text("psnr\n30\n31\n")  # scores and mask of this run
        (tmp_path / "runs" / f"{number}.h5").touch()
    (tmp_path / "runs" / "sweep.json").write_text("{}")
    (tmp_path / "table-slices.csv").write_text("psnr\n30\n")
    (tmp_path / ".hidden.json").write_text("no JSON")
    return tmp_path


def test_counts_of_every_file(folder):
    assert by_file(folder) == {
        "table.csv": [4, 2, 1, 1, 0, "a, b"],
        "speed.json": [1, 1, 0, 0, 0, "card"],
        "volume.json": [1, 0, 0, 1, 0, ""],
        "runs/*.json": [2, 1, 1, 0, 0, ""],
    }


def test_masks_name_the_hash_too(tmp_path):
    mask = results.make("energy", golden_masks.slices(), 4)
    mask.save(tmp_path / "mask.h5")
    assert load_mask(tmp_path / "mask.h5").provenance["versions"] == versions()
    assert by_file(tmp_path) == {"*.h5": [1, 1, 0, 0, 0, ""]}


def test_another_recipe_of_the_same_name(tmp_path):
    def row(method: str, variant: str, **settings: object) -> list[str]:
        return [method, variant, json.dumps({**results.recipe_of(method), **settings}), json.dumps(NOW)]

    rows = [
        row("default", ""),
        row("default", "", iterations=600),
        row("default", "iterations=7", iterations=7),
        row("task-polished", "polish=12", polish=12),
        row("task-polished", "", exploration=0.3),
        row("energy", "", sigma=1),  # a closed form has no recipe
    ]
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("method", "variant", "recipe", "versions"), *rows])
    assert by_file(tmp_path) == {"table.csv": [6, 4, 0, 0, 2, ""]}


def test_recorded_results_are_all_counted():
    """By the text of the files alone."""
    found = by_file(RECORDED)
    tables = sorted(RECORDED.glob("*.csv"))
    assert {path.name for path in [*tables, *RECORDED.glob("*.json")]} | {"masks/*.h5"} == set(found)
    for path in tables:
        with open(path, newline="", encoding="utf-8") as file:
            texts = [row["versions"] for row in csv.DictReader(file)]
        named = [json.loads(text).get("golden") for text in texts]
        total, current, other, none, changed, _ = found[path.name]
        assert total == len(texts) == current + other + none + changed, path.name
        assert named.count(NOW["golden"]) >= current >= named.count(NOW["golden"]) - changed, path.name
        assert named.count(None) >= none >= named.count(None) - changed, path.name
    assert found["masks/*.h5"][0] == len(list((RECORDED / "masks").glob("*.h5")))


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("a.json", "[]"), ("a.json", '{"versions": "x"}'), ("a.csv", "versions\n{\n"), ("a.h5", "no HDF5")]
)
def test_what_cannot_be_read_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name}: cannot be read as a record"):
        records.survey(tmp_path)


def test_a_processor_may_be_a_number(tmp_path):
    (tmp_path / "of_another_program.json").write_text('{"model": "unet", "device": 1}')
    assert records.survey(tmp_path)["processor"].tolist() == ["1"]


def test_folders_without_records(tmp_path):
    with pytest.raises(InputError, match="has no records"):
        records.survey(tmp_path)
    with pytest.raises(InputError, match="nowhere: does not exist"):
        records.survey(tmp_path / "nowhere")


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["prom", "records", *arguments])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


def test_strict_is_an_exit_code(folder, monkeypatch, capsys):
    code, text = command(monkeypatch, capsys, str(folder))
    assert code == 0 and f"4 of 8 results are current: golden hash {NOW['golden']}" in text
    assert command(monkeypatch, capsys, str(folder), "--strict") == (1, text)
    code, text = command(monkeypatch, capsys, str(folder), "--strict", "--json")
    told = json.loads(text)
    assert code == 1 and told["current"] is False and [row["rows"] for row in told["files"]] == [2, 1, 4, 1]
    (folder / "volume.json").unlink()
    (folder / "table.csv").unlink()
    (folder / "runs" / "1.json").write_text(json.dumps({"versions": json.dumps(NOW)}))
    assert command(monkeypatch, capsys, str(folder), "--strict")[0] == 0
