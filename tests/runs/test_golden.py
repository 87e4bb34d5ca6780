"""Every method makes the masks that are written down, to the bit on a processor that is known, by their scores on any other."""

from __future__ import annotations

import json
import platform
import subprocess

import pytest
import torch

from prom import masks
from prom.masks import origin
from prom.runs import golden, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made() -> dict[str, torch.Tensor]:
    if torch.cuda.is_available():
        pytest.skip("golden masks are made on a CPU, and results.make would take the GPU")
    return golden.masks()


def test_masks_and_scores_are_those_that_are_written_down(made):
    known, here = masks.golden()["processors"], {"hashes": golden.hashes(made), "scores": golden.scores(made)}
    if golden.processor() in known:
        assert known[golden.processor()] == here
    elif platform.machine() == "x86_64":  # the last bits of few methods differ there
        assert max(sum(one["hashes"][name] == here["hashes"][name] for name in made) for one in known.values()) >= len(made) - 3
    for other in known.values():
        assert golden.close(other["scores"], here["scores"])


def test_a_change_of_a_mask_or_of_a_score_is_another_version(made, tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "GOLDEN", tmp_path / "golden.json")

    def written() -> dict:
        golden.write()
        return json.loads((tmp_path / "golden.json").read_text())

    monkeypatch.setattr(golden, "masks", lambda: made)
    before = written()
    monkeypatch.setattr(golden, "golden", lambda: before)
    assert written() == before and golden.processor() in before["processors"]
    with monkeypatch.context() as patch:
        patch.setattr(golden, "scores", lambda _: {**before["processors"][golden.processor()]["scores"], "energy, points": {"psnr": 0.0}})
        assert written()["golden"] != before["golden"]
    monkeypatch.setattr(golden, "processor", lambda: "another")
    with monkeypatch.context() as patch:  # rounds differently, with scores as good as the same
        patch.setattr(golden, "hashes", lambda _: dict.fromkeys(made, "0"))
        after = written()
    assert after["golden"] == before["golden"] and set(after["processors"]) == {*before["processors"], "another"}
    monkeypatch.setattr(golden, "masks", lambda: {**made, "energy, points": ~made["energy, points"]})
    after = written()
    assert after["golden"] != before["golden"] and list(after["processors"]) == ["another"]


def test_records_name_the_golden_hash_and_the_commit():
    record = results.run("energy", golden.slices(), golden.slices(), 4)
    assert json.loads(record["versions"])["golden"] == masks.golden()["golden"]
    assert record["commit"] == masks.commit()


def test_commit_is_that_of_the_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "PROJECT", tmp_path)
    assert masks.commit.__wrapped__() == ""
    (tmp_path / "prom").mkdir()
    (tmp_path / "prom" / "a.py").touch()
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -qm x"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    clean = masks.commit.__wrapped__()
    (tmp_path / "prom" / "a.py").write_text("changed")
    assert len(clean) == 12 and masks.commit.__wrapped__() == f"{clean}+"
