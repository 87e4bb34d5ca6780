"""Mask files: what was saved comes back, what does not fit together is refused; averages and draws."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import huber_loss

from prom import DEFAULT, InputError, SliceDataset, baselines, load_mask, masks, optimize
from prom.files import atomic
from prom.masks.export import export
from prom.masks.result import UNCLEAR
from prom.methods import METHODS
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.phase import PhaseConstrained
from prom.reconstruction.sense import Sense
from prom.runs import results


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
    with pytest.raises(InputError, match=r"mask\.npy: is written as HDF5; call it \.h5"):
        result.save(tmp_path / "mask.npy")
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


def replaced(file, name, values, **settings):
    del file[name]
    file.create_dataset(name, data=values, **settings)


def flipped(file, at):
    mask = file["mask"][()]
    mask[at] = ~mask[at]
    replaced(file, "mask", mask)


def external(file, name):
    """The dataset now lies in another file beside this one."""
    Path(file.filename).with_suffix(".raw").write_bytes(file[name][()].tobytes())
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[(str(Path(file.filename).with_suffix(".raw")), 0, h5py.h5f.UNLIMITED)])


def linked(file, name):
    """The dataset is now a link into another file that holds the same."""
    with h5py.File(Path(file.filename).with_suffix(".other"), "w") as other:
        other[name] = file[name][()]
    del file[name]
    file[name] = h5py.ExternalLink(str(Path(file.filename).with_suffix(".other")), name)


def virtual(file, name):
    with h5py.File(Path(file.filename).with_suffix(".other"), "w") as other:
        other[name] = file[name][()]
    layout = h5py.VirtualLayout(file[name].shape, file[name].dtype)
    layout[...] = h5py.VirtualSource(str(Path(file.filename).with_suffix(".other")), name, file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def declared(file, name, shape, **settings):
    """Any size can be declared: nothing is stored before it is written."""
    dtype = file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, **settings)


def record(file, name, **changes):
    file.attrs[name] = json.dumps({**json.loads(file.attrs[name]), **changes})


# Of a mask of columns: 6 of 32, so 192 of 1024 samples.
CHANGES = {
    "a sample more": (lambda f: flipped(f, (3, 0)), "measured in part"),
    "a line more": (lambda f: flipped(f, np.s_[:, 0]), "makes 6"),
    "another line": (lambda f: replaced(f, "mask", np.roll(f["mask"][()], 13, axis=1)), "more probable"),
    "another acceleration": (lambda f: f.attrs.__setitem__("acceleration", 4.0), "makes 8"),
    "NaN as acceleration": (lambda f: f.attrs.__setitem__("acceleration", np.nan), "acceleration"),
    "infinite acceleration": (lambda f: f.attrs.__setitem__("acceleration", np.inf), "acceleration"),
    "an acceleration below 1": (lambda f: f.attrs.__setitem__("acceleration", 0.5), "must be >= 1"),
    "two accelerations": (lambda f: f.attrs.__setitem__("acceleration", [5.0, 5.0]), "is an array"),
    "a text as acceleration": (lambda f: f.attrs.__setitem__("acceleration", "5"), "not a number"),
    "a broken seed": (lambda f: f.attrs.__setitem__("seed", 2.5), "not a number"),
    "another pattern": (lambda f: f.attrs.__setitem__("pattern", "rows"), "measured in part|not those of theta"),
    "points": (lambda f: f.attrs.__setitem__("pattern", "points"), "theta"),
    "probabilities": (lambda f: replaced(f, "probabilities", f["probabilities"][()] / 2), "not those of theta"),
    "NaN": (lambda f: replaced(f, "theta", np.full(32, np.nan, "f4")), "outside 0 to 1"),
    "above 1": (lambda f: (replaced(f, "theta", np.full(32, 2, "f4")), replaced(f, "probabilities", np.full((32, 32), 2, "f4"))), "0 to 1"),
    "float64": (lambda f: replaced(f, "theta", f["theta"][()].astype(float)), "of type float64"),
    "3D": (lambda f: replaced(f, "mask", f["mask"][()][None]), "probabilities is"),
    "nothing": (lambda f: replaced(f, "mask", np.zeros((0, 32), bool)), "declares|2D"),
    "huge": (lambda f: declared(f, "mask", (2**20, 2**20), chunks=(64, 64)), "declares the shape"),
    "unwritten": (lambda f: declared(f, "mask", (2**12, 2**12)), "declares the shape"),
    "a bomb": (
        lambda f: replaced(f, "mask", np.zeros((2**13, 2**13 + 1), bool), compression=9, chunks=(2**13, 2**13)),
        "declares the shape",
    ),
    "a chunk": (lambda f: replaced(f, "theta", f["theta"][()], chunks=(2**24,), maxshape=(None,)), "declares chunks"),
    "a foreign filter": (lambda f: replaced(f, "theta", f["theta"][()], compression="lzf"), "packed by filter"),
    "an external link": (lambda f: linked(f, "theta"), "is a link"),
    "a soft link": (lambda f: (f.move("theta", "other"), f.__setitem__("theta", h5py.SoftLink("/other"))), "is a link"),
    "external storage": (lambda f: external(f, "theta"), "in another file"),
    "a virtual dataset": (lambda f: virtual(f, "mask"), "in another file"),
    "a group": (lambda f: (f.__delitem__("theta"), f.create_group("theta")), "is a Group"),
    "another format": (lambda f: f.attrs.__setitem__("format", "prom mask 9"), "prom mask 9"),
    "a list as recipe": (lambda f: f.attrs.__setitem__("recipe", "[]"), "no dictionary"),
    "no name": (lambda f: f.attrs.__setitem__("recipe", "{}"), "no name"),
    "no provenance": (lambda f: f.attrs.__delitem__("provenance"), "provenance is missing"),
    "NaN in a record": (lambda f: record(f, "provenance", seconds=float("nan")), "provenance is no JSON"),
    "deep JSON": (lambda f: f.attrs.__setitem__("provenance", "[" * 30000), "is not a mask file"),
    "short history": (lambda f: replaced(f, "history/loss", np.zeros(3)), "different length"),
    "2D history": (lambda f: [replaced(f, f"history/{n}", np.zeros((5, 3), d.dtype)) for n, d in f["history"].items()], "different length"),
    "NaN in the history": (lambda f: replaced(f, "history/loss", np.full(15, np.nan)), "history has NaN"),
    "a share of 2": (lambda f: replaced(f, "history/active_fraction", np.full(15, 2.0)), "shares outside"),
    "texts as history": (lambda f: replaced(f, "history/member", np.full(15, b"a")), "of type"),
    "a linked history": (lambda f: (f.move("history", "h"), f.__setitem__("history", h5py.SoftLink("/h"))), "is a link"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_mask_files_whose_fields_do_not_fit_are_refused(result, tmp_path, what):
    path = tmp_path / "mask.h5"
    result.save(path)
    change, message = CHANGES[what]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=message) as caught:
        load_mask(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


OF_SLICES = [name for name in baselines.BASELINES if not (METHODS[name].in_time or METHODS[name].off_grid)]


@pytest.mark.parametrize("name", [*OF_SLICES, "equispaced:exact_budget=false", "default", "paper:members=2", "polished"])
@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_whatever_a_method_makes_is_saved_and_loaded(blobs, tmp_path, name, pattern):
    if (name.startswith("equispaced") and pattern == "points") or (name in ("poisson_disc", "lattice") and pattern != "points"):
        return
    quick = {"default": ":iterations=3", "paper:members=2": ",iterations=3", "polished": ":iterations=3,polish=3"}
    quick |= dict.fromkeys(("loupe", "score_prune", "bass"), ":iterations=3")
    result = results.make(name + quick.get(name, ""), blobs, 5.3, pattern, seed=-3)
    result.save(tmp_path / "mask.h5")
    loaded = load_mask(tmp_path / "mask.h5")
    for field in ("mask", "probabilities", "theta"):
        assert torch.equal(getattr(loaded, field), getattr(result, field))
    assert (loaded.recipe, loaded.provenance, loaded.seed) == (result.recipe, result.provenance, -3)


def test_recorded_masks_can_be_read():
    recorded = sorted((Path(__file__).parents[2] / "data/recorded/masks").glob("*.h5"))
    assert len(recorded) > 10 and all(load_mask(path).mask.any() for path in recorded)


def test_what_does_not_fit_together_is_not_written(result, tmp_path):
    for wrong in ({"acceleration": 4.0}, {"seed": 2**64}, {"seed": True}, {"recipe": {"name": "x", "rate": float("inf")}}, {"recipe": {}}):
        with pytest.raises(InputError, match="mask.h5: cannot hold this mask; its"):
            replace(result, **wrong).save(tmp_path / "mask.h5")
    assert not list(tmp_path.iterdir())
    replace(result, seed=2**64 - 1).save(tmp_path / "mask.h5")
    assert load_mask(tmp_path / "mask.h5").seed == 2**64 - 1


def assert_consistent(read):
    """Whatever a file holds, these are one mask."""
    height, width = read.mask.shape
    lines = {"points": read.mask.flatten(), "columns": read.mask[0], "rows": read.mask[:, 0]}[read.pattern]
    full = {"points": read.mask, "columns": lines.expand(height, width), "rows": lines[:, None].expand(height, width)}[read.pattern]
    assert torch.equal(full, read.mask) and int(lines.sum()) == int(len(lines) / read.acceleration)
    assert float(read.probabilities.min()) >= 0 and float(read.probabilities.max()) <= 1
    theta = {"points": read.theta, "columns": read.theta[None], "rows": read.theta[:, None]}[read.pattern]
    assert torch.equal(theta.expand(height, width), read.probabilities)
    assert read.history.notna().all(axis=None) and isinstance(read.recipe, dict) and isinstance(read.provenance, dict)


def test_damaged_bytes_are_refused_or_change_no_number(result, tmp_path):
    """``PROM_FUZZ`` says how many; the seed is fixed, so that a failure comes again."""
    path = tmp_path / "mask.h5"
    result.save(path)
    content = path.read_bytes()
    generator = np.random.default_rng(5)
    refused, count = 0, int(os.environ.get("PROM_FUZZ", "300"))
    for number in range(count):
        changed = bytearray(content)
        for _ in range(generator.integers(1, 4)):
            at, run = int(generator.integers(0, len(changed))), int(generator.integers(1, 9))
            match generator.integers(0, 4):
                case 0:
                    changed[at] ^= 1 << int(generator.integers(0, 8))
                case 1:
                    changed[at : at + run] = generator.bytes(run)
                case 2:
                    changed[at : at + run] = bytes([int(generator.choice([0, 255]))]) * run
                case 3:
                    del changed[at : at + run]
        path.write_bytes(changed)
        try:
            read = load_mask(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        except BaseException as error:
            raise AssertionError(f"input {number}: {type(error).__name__}: {error}") from error
        assert_consistent(read)
        for name in ("mask", "probabilities", "theta"):  # by their checksums
            assert torch.equal(getattr(read, name), getattr(result, name)), f"input {number}: {name}"
        assert (read.recipe, read.seed, read.acceleration) == (result.recipe, result.seed, result.acceleration), f"input {number}"
    assert refused > count / 4


def test_damaged_numbers_are_refused_or_fit_together(result, tmp_path):
    """Here the file is whole, and one number in it is another."""
    path = tmp_path / "mask.h5"
    generator = np.random.default_rng(6)
    numbers = [0, 1, -1, 0.5, 2, np.nan, np.inf, -np.inf, 1e30, 2**31, 2**62]
    for _ in range(int(os.environ.get("PROM_FUZZ", "300")) // 3):
        result.save(path)
        with h5py.File(path, "r+") as file:
            names = ["mask", "probabilities", "theta", *(f"history/{name}" for name in file["history"]), "acceleration", "seed"]
            name, value = names[generator.integers(len(names))], numbers[generator.integers(len(numbers))]
            if name in file.attrs:
                file.attrs[name] = value
            else:
                values = file[name][()]
                with np.errstate(invalid="ignore", over="ignore"):
                    values.flat[generator.integers(values.size)] = np.array(value).astype(values.dtype)
                file[name][...] = values
        try:
            assert_consistent(load_mask(path))
        except InputError as error:
            assert "\n" not in str(error)


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
    pairs = [masks.average(members[:2]), masks.average(members[1:])]
    third = masks.average([optimize(blobs, 4, recipe=recipe, seed=seed) for seed in (2, 3)])
    assert masks.average([pairs[0], third]).provenance["seeds"] == [0, 1, 2, 3]
    again = optimize(blobs, 4, recipe=recipe, seed=0)
    for wrong, message in (
        (members[:1], "at least two"),
        ([members[0], again], "seeds \\[0, 0\\]"),
        (pairs, "seeds \\[0, 1, 1, 2\\]"),
        ([members[0], optimize(blobs, 8, recipe=recipe, seed=1)], "acceleration 8.0"),
        ([members[0], optimize(blobs, 4, recipe=replace(recipe, samples=2), seed=1)], "recipe's samples 2: the first mask has 1; only"),
        ([members[2], pairs[0]], "masks of 2 and 1 members: cannot be averaged once more"),
        ([members[0], optimize(blobs.scaled(2), 4, recipe=recipe, seed=1)], "fingerprint"),
        ([optimize(blobs, 4, recipe=replace(recipe, polish=1), seed=seed) for seed in (0, 1)], "no probabilities to average"),
        ([baselines.as_result(members[0].mask, "energy", 4)] * 2, "no probabilities to average"),
    ):
        with pytest.raises(InputError, match=message):
            masks.average(wrong)


def test_what_differs_between_masks_beside_their_seeds():
    data, recipe = torch.rand(2, 8, 8), replace(DEFAULT, iterations=3)
    one, two, far = (optimize(data, 4, recipe=recipe, seed=seed) for seed in (0, 1, 2**32))
    with pytest.raises(InputError, match="seeds .0, 4294967296.: the same solution twice"):
        masks.average([one, far])
    timed = replace(one, provenance=one.provenance | {"seconds": 1.0})
    assert "seconds" not in masks.average([timed, two]).provenance and "seconds" not in masks.average([two, timed]).provenance
    old = replace(two, provenance=two.provenance | {"versions": {"golden": "0123"}})
    with pytest.raises(InputError, match="golden hashes .* and 0123: of versions that make other masks"):
        masks.average([one, old])
    maps, phase = torch.ones(2, 8, 8) + 0j, torch.ones(8, 8) + 0j

    def weak(*given):
        return Sense(1e-3)(*given)

    def strong(*given):
        return Sense(10.0)(*given)

    coils = SliceDataset("demo", "train", data[:, None] + 0j, ["a", "b"], [0, 0], sensitivities=maps, noise=0.1)
    ways = [(weak, strong), (PhaseConstrained(0.1, phase), PhaseConstrained(0.1, (1j * phase).conj()))]
    for pair in ways:
        found = [optimize(coils, 4, recipe=recipe, seed=seed, reconstruction=way) for seed, way in enumerate(pair)]
        with pytest.raises(InputError, match="^reconstruction .*: the first mask has "):
            masks.average(found)


def test_a_mask_is_no_result_of_data_of_another_size():
    data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    with pytest.raises(InputError, match=r"mask of \(4, 4\): does not fit demo"):
        baselines.as_result(torch.eye(4).bool(), "mine", 4, train=data)


def test_what_cannot_be_averaged_is_named():
    with pytest.raises(InputError, match="mask of type str: must be a result; read files with prom.load_mask"):
        masks.average(["a.h5", "b.h5"])
    data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    recipe = replace(DEFAULT, iterations=3)
    one, two = (optimize(data, 4, recipe=recipe, seed=seed, reconstruction=Sense(penalty)) for seed, penalty in ((0, 1e-3), (1, 0.1)))
    old = replace(one, provenance={name: value for name, value in one.provenance.items() if name != "reconstruction_penalty"}, seed=7)
    assert masks.average([old, one]).provenance["reconstruction_penalty"] == "0.001"  # those of older versions do not say it
    for chosen in ([one, two], [old, one, two], [one, old, two]):
        with pytest.raises(InputError, match="reconstruction_penalty 0.001 and 0.1: of different masks"):
            masks.average(chosen)

    class Own(Sense):
        def __init__(self) -> None:
            super().__init__(0.1, iterations=20)

    assert Own().describe()["reconstruction"] == "Own(iterations=20)"  # what it makes of samples may be its own too
    few, many = (optimize(data, 4, recipe=recipe, seed=n, reconstruction=Sense(0.1, iterations=n)) for n in (3, 30))
    with pytest.raises(InputError, match=r"reconstruction Sense\(iterations=30\): the first mask has Sense\(iterations=3\)"):
        masks.average([few, many])
    for name, criterion in (("<lambda>", lambda a, b: (a - b).abs().mean()), ("partial", partial(huber_loss, delta=0.1))):
        found = [optimize(data, 4, recipe=recipe, seed=seed, objective=criterion) for seed in (0, 1)]
        with pytest.raises(InputError, match=f"objective {name}: whether it is the same function"):
            masks.average(found)
    found = [optimize(data, 4, recipe=recipe, seed=seed, objective=Reconstructed(data, Sense(10.0**-seed).__call__)) for seed in (0, 1)]
    named = {name: [replace(one, provenance={**one.provenance, "reconstruction": name}) for one in found] for name in UNCLEAR}
    for name, pair in {"method __call__": found, **named}.items():
        with pytest.raises(InputError, match=f"reconstruction {name}: whether it is the same function"):
            masks.average(pair)
    with pytest.raises(InputError, match="reconstruction_penalty 0.001 and 0.1"):
        masks.average(iter([one, two]))
