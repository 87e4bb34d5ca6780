"""An optimisation that is stopped goes on where it was, to the bits of one that was not."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

import prom
from prom import DEFAULT, PAPER, POLISHED, InputError, optimize
from prom.engine import network_files
from prom.learn import checkpoint
from prom.problem import Problem
from prom.runs import results

RECIPES = {  # three batches a pass, so that one that is stopped is in the middle of it
    "default": replace(DEFAULT, iterations=30, batch_size=4),
    "polished": replace(POLISHED, iterations=20, polish=2, batch_size=4),
    "paper": replace(PAPER, members=3, iterations=12, batch_size=4),
    "members that go on": replace(PAPER, members=3, iterations=12, batch_size=4, independent_members=False, project_after_step=False),
}


class Stopped(Exception):
    pass


def stopped_after(count: int):
    """A callback that raises at the iteration of this number, counted over all members."""
    seen = iter(range(1, 10_000))

    def callback(*_):
        if next(seen) == count:
            raise Stopped

    return callback


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.mark.parametrize("pattern", ["points", "columns"])
@pytest.mark.parametrize("name", RECIPES)
def test_it_goes_on_to_the_same_bits(blobs, tmp_path, name, pattern):
    """Stopped twice, and once within another member."""
    given = {"acceleration": 4, "pattern": pattern, "recipe": RECIPES[name], "seed": 3, "device": "cpu", "calibration": 2}
    expected, file = optimize(blobs, **given), tmp_path / "mask.part"
    for count in (5, 11):
        with pytest.raises(Stopped):
            optimize(blobs, **given, checkpoint=file, callback=stopped_after(count))
        assert file.is_file()
    found = optimize(blobs, **given, checkpoint=file)
    assert torch.equal(found.mask, expected.mask) and torch.equal(found.theta, expected.theta)
    pd.testing.assert_frame_equal(found.history, expected.history)
    assert found.provenance["seconds_before"] > 0 and "seconds_before" not in expected.provenance
    again = optimize(blobs, **given, checkpoint=file)  # which stays, until the mask is saved
    assert torch.equal(again.mask, expected.mask)


def test_the_work_that_was_done_is_not_done_again(blobs, tmp_path):
    given, seen = {"recipe": RECIPES["paper"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}, []
    with pytest.raises(Stopped):
        optimize(blobs, 4, **given, callback=stopped_after(20))
    optimize(blobs, 4, **given, callback=lambda iteration, _: seen.append(iteration))
    assert seen == [*range(7, 12), *range(12)]  # 19 of 36 were written


def test_a_run_of_a_sweep_goes_on_too(blobs, tmp_path):
    task = prom.objectives.ImageLoss(blobs.images, torch.nn.functional.l1_loss)
    for method, of in (("default:iterations=20", None), ("task-default:iterations=20", task)):
        recipe = replace(DEFAULT, iterations=20)
        with pytest.raises(Stopped):
            given = {"objective": of or "magnitude_mse", "checkpoint": tmp_path / "run.part", "callback": stopped_after(9)}
            optimize(blobs, 4, recipe=recipe, **given)
        found = results.make(method, blobs, 4, task=of, checkpoint=tmp_path / "run.part")
        assert torch.equal(found.mask, results.make(method, blobs, 4, task=of).mask)
        assert found.provenance["seconds"] > found.provenance["seconds_before"] > 0
        (tmp_path / "run.part").unlink()


@pytest.mark.parametrize(
    "change, named",
    [
        ({"seed": 1}, "seed;"),
        ({"acceleration": 5}, "acceleration;"),
        ({"pattern": "columns"}, "pattern"),
        ({"recipe": replace(RECIPES["default"], iterations=31)}, "recipe;"),
        ({"objective": lambda x, y: (x - y).abs().sum()}, "objective;"),
        ({"calibration": 4}, "demands;"),
        ({"data": torch.rand(24, 1, 32, 32)}, "data"),
    ],
)
def test_what_is_of_another_optimisation_is_refused(blobs, tmp_path, change, named):
    """A loss of the same name is another one too."""
    given = {"objective": lambda x, y: (x - y).square().sum()} | {
        "data": blobs,
        "acceleration": 4,
        "recipe": RECIPES["default"],
        "device": "cpu",
        "checkpoint": tmp_path / "mask.part",
    }
    with pytest.raises(Stopped):
        optimize(**given, callback=stopped_after(5))
    before = (tmp_path / "mask.part").read_bytes()
    with pytest.raises(InputError, match=rf"mask.part: is of an optimisation with other [a-z, ]*{named}.*remove it"):
        optimize(**(given | change))
    assert (tmp_path / "mask.part").read_bytes() == before


def test_what_is_of_other_versions_is_refused(blobs, tmp_path, monkeypatch):
    given = {"recipe": RECIPES["default"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}
    with pytest.raises(Stopped):
        optimize(blobs, 4, **given, callback=stopped_after(5))
    monkeypatch.setattr(checkpoint, "versions", lambda: {"torch": "0"})
    with pytest.raises(InputError, match="is of an optimisation with other versions; remove it"):
        optimize(blobs, 4, **given)


def test_what_is_damaged_is_refused(blobs, tmp_path):
    given = {"recipe": RECIPES["default"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}
    with pytest.raises(Stopped):
        optimize(blobs, 4, **given, callback=stopped_after(5))
    content = (tmp_path / "mask.part").read_bytes()
    for wrong in (b"", b"PK", content[:-200], content[:300] + b"\xff" * 40 + content[340:]):
        (tmp_path / "mask.part").write_bytes(wrong)
        with pytest.raises(InputError, match="cannot be read; remove it to start again"):
            optimize(blobs, 4, **given)
    with pytest.raises(InputError, match="checkpoint .*does not exist"):
        optimize(blobs, 4, recipe=RECIPES["default"], checkpoint=tmp_path / "none" / "mask.part")
    with pytest.raises(InputError, match="checkpoint True: must be the name of a file"):
        optimize(blobs, 4, recipe=RECIPES["default"], checkpoint=True)


def test_a_disk_that_is_full_for_a_moment_ends_nothing(blobs, tmp_path, monkeypatch, capsys):
    written, real = [], network_files.write

    def write(path, content):
        written.append(content["done"])
        if len(written) == 3:
            raise InputError(f"output {path}: cannot be written (the disk is full); name another file or folder")
        real(path, content)

    monkeypatch.setattr(checkpoint.network_files, "write", write)
    found = optimize(blobs, 4, recipe=RECIPES["default"], checkpoint=tmp_path / "mask.part", device="cpu")
    assert written == [*range(1, 31)] and torch.equal(found.mask, optimize(blobs, 4, recipe=RECIPES["default"], device="cpu").mask)
    assert "mask.part: cannot be written (the disk is full); the optimisation goes on" in capsys.readouterr().err


def test_processes_that_see_different_files_are_refused(blobs, tmp_path, monkeypatch):
    given = {"recipe": RECIPES["default"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}
    with pytest.raises(Stopped):
        optimize(blobs, 4, **given, callback=stopped_after(5))
    monkeypatch.setattr(checkpoint.distributed, "size", lambda: 2)
    monkeypatch.setattr(checkpoint.distributed, "total", lambda *tensors: tensors)  # of another one that sees none
    with pytest.raises(InputError, match="is not the same for all processes"):
        checkpoint.Checkpoint(tmp_path / "mask.part", Problem.of(blobs, 4, device="cpu"), RECIPES["default"], 0).read()
    monkeypatch.setattr(checkpoint.distributed, "total", lambda *tensors: tuple(2 * one for one in tensors))
    assert checkpoint.Checkpoint(tmp_path / "mask.part", Problem.of(blobs, 4, device="cpu"), RECIPES["default"], 0).read().done == 4


def test_what_is_fast_leaves_no_file(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 60.0)
    optimize(
        blobs,
        4,
        recipe=RECIPES["default"],
        checkpoint=tmp_path / "mask.part",
        callback=lambda *_: pytest.fail("written") if list(tmp_path.iterdir()) else None,
    )


def test_the_command_goes_on(command_line, tmp_path, monkeypatch):
    """The state stays until the mask is saved. One of another run beside the output is named in one line, and neither used nor replaced."""
    given = ["optimize", "mni_brain", "--set", "subjects=2", "--set", "size=32", "--acceleration", "4", "--iterations", "30"]
    expected = command_line(*given, "--output", "other.h5")[0], prom.load_mask("other.h5").mask
    with monkeypatch.context() as patched:
        patched.setattr(prom.MaskResult, "save", lambda *_: (_ for _ in ()).throw(InputError("output mask.h5: the disk is full")))
        assert command_line(*given, "--output", "mask.h5")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.h5.part", "other.h5"]
    before = (tmp_path / "mask.h5.part").read_bytes()
    code, _, err = command_line(*given, "--seed", "1", "--output", "mask.h5")
    assert code == 2 and err.count("\n") == 1 and "checkpoint mask.h5.part: is of an optimisation with other seed; remove it" in err
    assert (tmp_path / "mask.h5.part").read_bytes() == before
    assert command_line(*given, "--output", "mask.h5")[0] == expected[0] == 0
    found = prom.load_mask("mask.h5")
    assert torch.equal(found.mask, expected[1]) and not (tmp_path / "mask.h5.part").exists()
    assert found.provenance["seconds_before"] > 0
