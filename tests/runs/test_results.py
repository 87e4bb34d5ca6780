"""Records can be repeated, and methods for a task take complex images too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

import pytest
import torch

from prom import DEFAULT, InputError, SliceDataset, evaluate, optimize, options
from prom.objectives import ImageLoss
from prom.runs import golden, results


def test_a_record_can_be_repeated(blobs, tmp_path):
    record = results.run("default:iterations=10", blobs, blobs, 4, seed=1)
    again = results.run("default:iterations=10", blobs, blobs, 4, seed=1)
    assert {**record, "seconds": 0} == {**again, "seconds": 0}
    expected = evaluate(optimize(blobs, 4, recipe=replace(DEFAULT, iterations=10), seed=1).mask, blobs)
    assert record["psnr"] == pytest.approx(float(expected.psnr.mean()))
    results.append(tmp_path / "runs.csv", record)
    results.append(tmp_path / "runs.csv", results.run("energy", blobs, blobs, 8))
    table = results.read(tmp_path / "runs.csv")
    assert table["method"].tolist() == ["default", "energy"] and table["true_acceleration"].tolist() == [4.0, 8.0]


def test_names_that_look_like_numbers_stay_words(tmp_path):
    written = {"dataset": "001", "commit": "1234567", "fingerprint_test": "12e4567890123456", "network": "0012", "psnr": 31.5}
    results.append(tmp_path / "runs.csv", written)
    results.append(tmp_path / "runs.csv", written)
    assert results.read(tmp_path / "runs.csv").to_dict("records") == [written, written]


@pytest.mark.parametrize("method", ["task-igs:batch_size=4", "task-default:iterations=2"])
def test_a_mask_learnt_through_a_network_names_it(method):
    task = golden.network().objective(golden.slices(), "cpu")
    provenance = results.make(method, golden.slices(), 8, "columns", task=task).provenance
    assert provenance["network"] == golden.network().fingerprint() and provenance["method"] == method


def test_memory_that_the_system_does_not_report_is_none(monkeypatch):
    monkeypatch.setattr(results.Path, "read_text", lambda path: "VmSize: 1 kB")
    monkeypatch.setattr(results.sys, "platform", "linux")
    assert results.peak_memory() is None


def test_complex_images_are_polished_for_a_task_too():
    """The closed form, of which polishing may start, exists for real images alone."""
    data = SliceDataset("complex", "train", torch.rand(4, 1, 16, 16) * torch.exp(6j * torch.rand(4, 1, 16, 16)), list("abcd"), [0] * 4)
    task = ImageLoss(data.images, torch.nn.functional.l1_loss)
    mask = results.make("task-polished:iterations=3,polish=2", data, 4, task=task).mask
    assert int(mask.sum()) == 64


def test_numbers_of_annotated_options_are_named_in_one_line():
    def mine(train, acceleration, bins=None, widths=()): ...

    mine.__annotations__ |= {"bins": Optional[int], "widths": Sequence[float]}  # noqa: UP045, as users write it
    known = options.names(mine, ("train", "acceleration"))
    assert options.parse("bins=3", known, "baseline mine") == ("bins", 3)
    for text, words in (("bins=abc", "a whole number, e.g. bins=10"), ("widths=a", "numbers, e.g. widths=220,180.5")):
        with pytest.raises(InputError, match=f"of baseline mine must be {words}"):
            options.parse(text, known, "baseline mine")
