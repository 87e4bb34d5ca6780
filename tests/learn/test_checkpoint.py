"""An optimisation that is stopped goes on where it was, to the bits of one that was not."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

import prom
from prom import DEFAULT, PAPER, POLISHED, InputError, optimize
from prom.learn import checkpoint
from prom.runs import results

RECIPES = {
    "default": replace(DEFAULT, iterations=30),
    "polished": replace(POLISHED, iterations=20, polish=2),
    "paper": replace(PAPER, members=3, iterations=12),
    "members that go on": replace(PAPER, members=3, iterations=12, independent_members=False, project_after_step=False),
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
    assert not list(tmp_path.iterdir())


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
        assert torch.equal(found.mask, results.make(method, blobs, 4, task=of).mask) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"acceleration": 5},
        {"pattern": "columns"},
        {"recipe": replace(RECIPES["default"], iterations=31)},
        {"objective": torch.nn.functional.l1_loss},
        {"calibration": 4},
        {"data": torch.rand(24, 1, 32, 32)},
    ],
)
def test_what_is_of_another_optimisation_is_refused(blobs, tmp_path, change):
    given = {"data": blobs, "acceleration": 4, "recipe": RECIPES["default"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}
    with pytest.raises(Stopped):
        optimize(**given, callback=stopped_after(5))
    before = (tmp_path / "mask.part").read_bytes()
    with pytest.raises(InputError, match=r"mask.part: is of an optimisation with other data, settings or versions; remove it"):
        optimize(**(given | change))
    assert (tmp_path / "mask.part").read_bytes() == before


def test_what_is_damaged_is_refused(blobs, tmp_path):
    given = {"recipe": RECIPES["default"], "device": "cpu", "checkpoint": tmp_path / "mask.part"}
    with pytest.raises(Stopped):
        optimize(blobs, 4, **given, callback=stopped_after(5))
    content = (tmp_path / "mask.part").read_bytes()
    for wrong in (b"", b"PK", content[:-200], content[:300] + b"\xff" * 40 + content[340:]):
        (tmp_path / "mask.part").write_bytes(wrong)
        with pytest.raises(InputError, match="cannot be read; remove it to start again"):
            optimize(blobs, 4, **given)
    with pytest.raises(InputError, match="does not exist"):
        optimize(blobs, 4, recipe=RECIPES["default"], checkpoint=tmp_path / "none" / "mask.part")


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
    """A file of another run beside the output is named in one line, and neither used nor replaced."""
    given = [
        "optimize",
        "mni_brain",
        "--set",
        "subjects=2",
        "--set",
        "size=32",
        "--acceleration",
        "4",
        "--iterations",
        "30",
        "--output",
        "mask.h5",
    ]
    written = []
    monkeypatch.setattr(checkpoint.Checkpoint, "remove", lambda self: written.append(self.path.read_bytes()))
    assert command_line(*given)[0] == 0 and len(written) == 1
    first = prom.load_mask("mask.h5")
    code, _, err = command_line(*given[:-2], "--seed", "1", "--output", "mask.h5")
    assert code == 2 and err.count("\n") == 1 and "checkpoint mask.h5.part: is of an optimisation with other data" in err
    assert command_line(*given)[0] == 0 and torch.equal(prom.load_mask("mask.h5").mask, first.mask)
