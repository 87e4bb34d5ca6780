"""Files of masks, exports, baselines and records."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from prom import DEFAULT, InputError, SliceDataset, baselines, evaluate, fft2c, load_mask, masks, optimize, results
from prom.export import export
from prom.files import atomic
from prom.objectives import ImageLoss


@pytest.fixture(scope="module")
def result(blobs):
    return optimize(blobs, 5, pattern="columns", recipe=replace(DEFAULT, iterations=15), seed=2)


def test_saved_and_loaded_are_the_same(result, tmp_path):
    result.save(tmp_path / "mask.h5")
    loaded = load_mask(tmp_path / "mask.h5")
    for name in ("mask", "probabilities", "theta"):
        assert torch.equal(getattr(loaded, name), getattr(result, name)) and getattr(loaded, name).dtype == getattr(result, name).dtype
    pd.testing.assert_frame_equal(loaded.history, result.history)
    for name in ("pattern", "acceleration", "recipe", "seed", "provenance"):
        assert getattr(loaded, name) == getattr(result, name)
    assert [p.name for p in tmp_path.iterdir()] == ["mask.h5"]


def test_provenance_identifies_the_data(result, blobs):
    changed = SliceDataset("blobs", "train", blobs.images + 1e-3, blobs.subjects, blobs.slices)
    assert result.provenance["fingerprint"] == blobs.fingerprint() != changed.fingerprint()
    assert result.provenance["versions"]["torch"] == torch.__version__.partition("+cu")[0]  # as pip names it


def test_samples_follow_the_probabilities(result):
    draws = result.sample(400, seed=1)
    assert draws.shape == (400, 32, 32) and draws.dtype == torch.bool
    assert (draws == draws[:, :1]).all()  # columns stay columns
    torch.testing.assert_close(draws.float().mean(dim=0), result.probabilities, atol=0.1, rtol=0)
    assert torch.equal(draws, result.sample(400, seed=1))


def break_file(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif how == "text":
        path.write_text("no mask")
    else:
        with h5py.File(path, "r+") as file:
            if how == "no theta":
                del file["theta"]
            elif how == "float mask":
                del file["mask"]
                file["mask"] = np.zeros((32, 32))
            elif how == "wrong shape":
                del file["theta"]
                file["theta"] = np.zeros(5, dtype=np.float32)
            elif how == "bad pattern":
                file.attrs["pattern"] = "spiral"
            elif how == "bad json":
                file.attrs["recipe"] = "{"


@pytest.mark.parametrize("how", ["missing", "truncated", "text", "no theta", "float mask", "wrong shape", "bad pattern", "bad json"])
def test_what_is_not_a_mask_file_is_refused(result, tmp_path, how):
    path = tmp_path / "mask.h5"
    result.save(path)
    break_file(path, how)
    with pytest.raises(InputError) as caught:
        load_mask(path)
    assert "\n" not in str(caught.value)


def test_exports_hold_the_mask(result, tmp_path):
    export(result, tmp_path / "mask.npy")
    export(result, tmp_path / "mask.png")
    assert np.array_equal(np.load(tmp_path / "mask.npy", allow_pickle=False), result.mask.numpy())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")) == 255, result.mask.numpy())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_energy_minimises_the_complex_error(blobs):
    """Section 4 of the findings: the top-S of the power spectrum, against every swap of one sample."""
    power = fft2c(blobs.images).abs().square().mean(dim=(0, 1))
    mask = baselines.energy(blobs, 4)
    assert mask.sum() == 256 and power[mask].min() >= power[~mask].max()
    columns = baselines.energy(blobs, 4, pattern="columns")
    assert columns[0].sum() == 8 and power.sum(dim=0)[columns[0]].min() >= power.sum(dim=0)[~columns[0]].max()


@pytest.mark.parametrize("acceleration", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("seed", range(5))
def test_equispaced_has_the_exact_budget(acceleration, seed):
    data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 256), ["a"], [0])
    lines = baselines.equispaced(data, acceleration, seed=seed)[0]
    assert lines.sum() == 256 // acceleration and lines[128]
    outside = lines.nonzero().flatten()
    gaps = outside[outside > 134].diff()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_equispaced_of_the_paper_is_denser_than_its_name():
    data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 320), ["a"], [0])
    for acceleration, true in ((4, 3.6), (8, 6.2), (16, 9.9), (32, 14.2)):
        lines = torch.stack([baselines.equispaced(data, acceleration, seed=s, exact_budget=False)[0] for s in range(20)]).float()
        assert float(320 / lines.sum(dim=1).mean()) == pytest.approx(true, abs=0.25)


def test_equispaced_has_lines_only(blobs):
    with pytest.raises(InputError, match="use columns or rows"):
        baselines.equispaced(blobs, 4, pattern="points")


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


def test_draws_are_independent_of_the_start(blobs):
    """With the optimiser's own seed, draws must not repeat the numbers that theta began as."""
    result = optimize(blobs, 2, recipe=replace(DEFAULT, iterations=1, learning_rate=1e-6), seed=0)
    assert result.sample(50, seed=0)[0].float().mean() == pytest.approx(float(result.theta.mean()), abs=0.06)


def test_average_of_independent_solutions(blobs):
    recipe = replace(DEFAULT, iterations=15)
    members = [optimize(blobs, 4, recipe=recipe, seed=seed) for seed in (0, 1, 2)]
    ensemble = masks.average(members)
    expected = torch.stack([member.theta for member in members]).mean(dim=0)
    assert torch.allclose(ensemble.theta, expected) and ensemble.recipe["members"] == 3
    assert int(ensemble.mask.sum()) == 256 and expected[ensemble.mask].min() >= expected[~ensemble.mask].max()
    assert ensemble.history["member"].unique().tolist() == [0, 1, 2] and ensemble.provenance["seeds"] == [0, 1, 2]
    again = optimize(blobs, 4, recipe=recipe, seed=0)
    for wrong, message in (
        (members[:1], "at least two"),
        ([members[0], again], "seeds \\[0, 0\\]"),
        ([members[0], optimize(blobs, 8, recipe=recipe, seed=1)], "acceleration 8.0"),
        ([members[0], optimize(blobs, 4, recipe=replace(recipe, samples=2), seed=1)], "only seeds may differ"),
        ([members[0], optimize(blobs.scaled(2), 4, recipe=recipe, seed=1)], "fingerprint"),
        ([optimize(blobs, 4, recipe=replace(recipe, polish=1), seed=seed) for seed in (0, 1)], "no probabilities to average"),
        ([baselines.as_result(members[0].mask, "energy", 4)] * 2, "no probabilities to average"),
    ):
        with pytest.raises(InputError, match=message):
            masks.average(wrong)


def test_complex_images_are_polished_for_a_task_too():
    """The closed form, of which polishing may start, exists for real images alone."""
    data = SliceDataset("complex", "train", torch.rand(4, 1, 16, 16) * torch.exp(6j * torch.rand(4, 1, 16, 16)), list("abcd"), [0] * 4)
    task = ImageLoss(data.images, torch.nn.functional.l1_loss)
    mask = results.make("task-polished:iterations=3,polish=2", data, 4, task=task).mask
    assert int(mask.sum()) == 64
