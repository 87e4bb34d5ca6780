"""Mask files of readouts off the grid: their candidates come back, and files whose candidates do not fit are refused."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import prom
from prom import DEFAULT, InputError, SliceDataset, baselines, load_mask, optimize
from prom.kspace.patterns import make
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.learn import start
from prom.masks import mask_files
from prom.masks.demands import Demands
from prom.masks.export import export
from prom.reconstruction.sense import Sense


def data(trajectory: Trajectory, kind: str = "slices") -> SliceDataset:
    shape = {"slices": (8, 8), "series": (3, 8, 8), "volumes": (8, 8, 8)}[kind]
    images = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    return SliceDataset("demo", "train", images, ["a"], [0], kind=kind, noise=0.05).along(trajectory)


def made(train: SliceDataset, name: str = "random_readouts") -> prom.MaskResult:
    pattern = train.trajectory.kind
    return baselines.as_result(baselines.get(name)(train, 2, pattern), name, 2, pattern, train=train)


@pytest.fixture
def result() -> prom.MaskResult:
    return made(data(spokes(12, 8)))


@pytest.mark.parametrize(
    ("trajectory", "kind"),
    [
        (spokes(12, 8), "slices"),
        (spirals(12, 8), "slices"),
        (spokes(12, 8), "series"),
        (kooshball(40, 8), "volumes"),
        (Trajectory(torch.rand(12, 5, 2), "readouts", 8), "slices"),
    ],
)
def test_saved_and_loaded_are_the_same(trajectory, kind, tmp_path):
    result = made(data(trajectory, kind))
    result.save(tmp_path / "mask.h5")
    loaded = load_mask(tmp_path / "mask.h5")
    for name in ("mask", "probabilities", "theta"):
        assert getattr(loaded, name).equal(getattr(result, name))
    assert loaded.trajectory.points.equal(trajectory.points) and loaded.trajectory.full == trajectory.full
    assert loaded.trajectory.kind == trajectory.kind == loaded.pattern
    assert (loaded.trajectory.turns is None) == (trajectory.turns is None)
    assert trajectory.turns is None or loaded.trajectory.turns.equal(trajectory.turns)
    assert loaded.lines == result.lines and loaded.provenance == result.provenance
    full = trajectory.full * (3 if kind == "series" else 1)
    assert loaded.excitations == full // 2 and loaded.true_acceleration == pytest.approx(2)
    drawn = loaded.sample(3)
    assert drawn.shape == (3, *loaded.mask.shape) and drawn.equal(drawn[..., :1].expand_as(drawn))


def test_what_is_learnt_has_its_candidates_and_exactly_its_budget(tmp_path):
    train, recipe = data(spokes(12, 8)), replace(DEFAULT, iterations=4)
    found = optimize(train, 2, pattern="spokes", recipe=recipe, reconstruction=Sense(0.01))
    assert found.theta.shape == (12,) and int(found.mask[:, 0].sum()) == 4 and found.trajectory.points.equal(train.trajectory.points)
    found.save(tmp_path / "mask.h5")
    assert load_mask(tmp_path / "mask.h5").theta.equal(found.theta)


def replaced(file, name, values):
    del file[name]
    if values is not None:
        file[name] = values


CHANGES = {
    "no points": (lambda f: replaced(f, "trajectory/points", None), "points is missing"),
    "no full scan": (lambda f: replaced(f, "trajectory/full", None), "full is missing"),
    "no trajectory": (lambda f: replaced(f, "trajectory", None), "trajectory is missing|is missing"),
    "float64": (lambda f: replaced(f, "trajectory/points", f["trajectory/points"][()].astype(float)), "of type float64"),
    "other candidates": (lambda f: replaced(f, "trajectory/points", f["trajectory/points"][:-1]), "11 shares|trajectory has"),
    "shorter readouts": (lambda f: replaced(f, "trajectory/points", f["trajectory/points"][:, :-1]), "trajectory has"),
    "one axis": (lambda f: replaced(f, "trajectory/points", f["trajectory/points"][..., :1]), "2 or 3"),
    "flat points": (lambda f: replaced(f, "trajectory/points", f["trajectory/points"][..., 0]), "2 or 3"),
    "NaN": (lambda f: replaced(f, "trajectory/points", np.full((12, 8, 2), np.nan, "<f4")), "finite"),
    "a full scan of 0": (lambda f: replaced(f, "trajectory/full", np.array([0])), "full"),
    "another full scan": (lambda f: replaced(f, "trajectory/full", np.array([16])), "makes 8"),
    "two full scans": (lambda f: replaced(f, "trajectory/full", np.array([8, 8])), "full: is 2 numbers"),
    "a turn of 1": (lambda f: replaced(f, "trajectory/turns", np.ones(12)), "shares of a turn"),
    "turns missing": (lambda f: replaced(f, "trajectory/turns", np.zeros(11)), "shares of a turn"),
    "another kind": (lambda f: f.attrs.__setitem__("pattern", "spoke"), "spoke"),
    "a pattern of the grid": (lambda f: f.attrs.__setitem__("pattern", "rows"), "damaged"),
    "a sample less": (lambda f: replaced(f, "mask", np.logical_and(f["mask"][()], np.arange(8) > 0)), "measured in part"),
    "a link": (lambda f: (f.move("trajectory/points", "p"), f.__setitem__("trajectory/points", h5py.SoftLink("/p"))), "is a link"),
    "a linked group": (lambda f: (f.move("trajectory", "t"), f.__setitem__("trajectory", h5py.SoftLink("/t"))), "is a link"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_files_whose_candidates_do_not_fit_are_refused(result, tmp_path, what):
    path = tmp_path / "mask.h5"
    result.save(path)
    change, message = CHANGES[what]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=message) as caught:
        load_mask(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_bytes_are_refused_or_change_no_number(result, tmp_path):
    path = tmp_path / "mask.h5"
    result.save(path)
    content, generator, refused = path.read_bytes(), np.random.default_rng(5), 0
    for _ in range(150):
        changed = bytearray(content)
        at, run = int(generator.integers(0, len(changed))), int(generator.integers(1, 9))
        changed[at : at + run] = generator.bytes(run)
        path.write_bytes(changed)
        try:
            read = load_mask(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert read.mask.equal(result.mask) and read.trajectory.points.equal(result.trajectory.points)
        assert read.trajectory.full == 8 and (read.trajectory.turns is None or read.trajectory.turns.equal(result.trajectory.turns))
    assert refused > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectory": None}, "does not go with its trajectory"),
        ({"trajectory": spirals(12, 8, samples=8)}, "does not go with its trajectory"),
        ({"trajectory": spokes(13, 8)}, "its trajectory has"),
        ({"trajectory": spokes(12, 6, samples=8)}, "makes 3"),
        ({"pattern": "rows"}, "does not go with its trajectory"),
    ],
)
def test_what_does_not_fit_together_is_not_written(result, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        replace(result, **changes).save(tmp_path / "mask.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mask.h5", "mask.mat"])
def test_it_is_no_mask_of_lines(tmp_path, name):
    """12 spokes of 12 samples have the shape of rows of a grid."""
    result = made(data(spokes(12, 8, samples=12)))
    result.save(tmp_path / "mask.h5")
    export(result, tmp_path / name) if name != "mask.h5" else None
    for read in (mask_files.read, mask_files.read_with_pattern):
        with pytest.raises(InputError, match="off the grid"):
            read(tmp_path / name)
    demands = Demands(require=tmp_path / "mask.h5")
    assert demands.feasible(result.lines, 1).mandatory.sum() == result.theta.sum()
    for pattern in ("points", "rows"):
        with pytest.raises(InputError, match="off the grid"):
            demands.feasible(make(pattern, (12, 12)), 1)


def test_polishing_knows_the_energy_of_a_readout():
    train = data(spokes(12, 8))
    power = start.mean_power(train, "cpu")
    assert torch.allclose(power, train.samples([0])[0].abs().square().sum(dim=0))
    for recipe in (replace(DEFAULT, iterations=4, polish=3), replace(DEFAULT, iterations=4, initialisation="energy")):
        found = optimize(train, 2, pattern="spokes", recipe=recipe, reconstruction=Sense(0.01))
        assert int(found.lines.select(found.mask).sum()) == 4  # half of a full scan, of 8
