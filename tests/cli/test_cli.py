"""The command line as a user meets it: a real process, its exit code, one line on stderr, and the files it leaves."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from prom import baselines, evaluate, load, load_mask
from prom import options as prom_options
from prom.cli import main, report_mask, strict_json
from prom.datasets import folder
from prom.evaluation import segmentation


def prom(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A whole process, as from a shell. Each costs seconds for importing PyTorch."""
    command = [sys.executable, "-m", "prom", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)


@pytest.fixture
def here(capsys, monkeypatch):
    """The same in this process, for the many cases."""

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["prom", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a data set of its own: eight subjects of 32 x 32 slices in npy files."""
    folder = tmp_path_factory.mktemp("work")
    generator = np.random.default_rng(0)
    (folder / "mine").mkdir()
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    for i in range(8):
        ellipses = [(x * a + y * b) ** 2 + (y * c) ** 2 < 0.6 for a, b, c in generator.uniform(0.8, 2, (3, 3))]
        np.save(folder / "mine" / f"subject{i}.npy", sum(ellipses) + 0.01 * generator.random((4, 32, 32)))
    return folder


@pytest.mark.slow
def test_from_a_folder_to_a_picture(work, here):
    done = prom("optimize", "mine", "--acceleration", 4, "--iterations", 60, "--output", "mask.h5", cwd=work)
    assert done.returncode == 0 and "256 of 1024 k-space samples (x4.00)" in done.stdout and done.stderr == ""
    assert here("baseline", "energy", "mine", "-a", "4", "-o", "energy.h5", cwd=work).returncode == 0
    scores = {}
    for run, name in ((prom, "mask"), (here, "energy")):
        done = run("evaluate", f"{name}.h5", "mine", "--json", cwd=work)
        scores[name] = json.loads(done.stdout)
        assert done.returncode == 0 and scores[name]["split"] == "test" and scores[name]["true_acceleration"] == 4.0
    assert scores["mask"]["psnr"] > scores["energy"]["psnr"] - 0.3
    for run, ending in ((here, "npy"), (prom, "png")):
        assert run("export", "mask.h5", "--output", f"mask.{ending}", cwd=work).returncode == 0
    assert np.array_equal(np.load(work / "mask.npy"), load_mask(work / "mask.h5").mask.numpy())


def test_what_is_read_is_not_overwritten(here, tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((4, 32, 32)))
    before = (tmp_path / "images.npy").read_bytes()
    baseline = ("baseline", "energy", "images.npy", "-a", "4", "--split", "all", "-o")
    for name in ("one.h5", "two.h5", "one.h5"):  # a mask may be made anew
        assert here(*baseline, name, cwd=tmp_path).returncode == 0
    for command, message in (
        ((*baseline, "images.npy"), "a mask file is HDF5; name it images.h5, and prom export makes .npy"),
        (("inspect", "images.npy", "--png", "images.npy"), "lies among the files that are read"),
        (("inspect", ".", "--png", "look.png"), "lies among the files that are read"),
        (("segment", "train", ".", "--steps", "1", "-o", "images.npy"), "lies among the files that are read"),
        (("inspect", "nosuch", "--png", "one.png"), "does not exist"),
        (("inspect", "images.npy", "--set", "scale=2"), "leave it out"),
        (("baseline", "energy", "", "-a", "4", "-o", "new.h5"), "data set ''"),
        (("datasets", "--clear-cache", "nosuch"), "nothing was removed"),
        (("average", "one.h5", "two.h5", "-o", "one.h5"), "would overwrite a file that is read"),
        ((*baseline, "one.h5", "--require", "one.h5"), "would overwrite a file that is read"),
        (("export", "one.h5", "-o", "one.h5"), "would overwrite a file that is read"),
        (("export", "one.h5", "-o", "images.npy"), "exists and is no mask"),
    ):
        done = here(*command, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr
    (tmp_path / "thesis.pt").write_bytes(b"of years")
    for command, message in (
        ((*baseline, "mask.tif"), "a mask file is HDF5; name it mask.h5"),  # which would be one of the images
        ((*baseline, "mask.npz"), "a mask file is HDF5; name it mask.h5"),
        (("inspect", "images.npy", "--png", "letter.docx"), "--png letter.docx: must end in .png"),
        (("inspect", "images.npy", "--set", "maps=maps.png", "--png", "maps.png"), "--png maps.png: would overwrite a file that is read"),
        (("reconstruct", "one.h5", "--train", ".", "--set", "maps=maps.png", "-o", "maps.png"), "would overwrite a file that is read"),
        (("segment", "train", ".", "--steps", "1", "-o", "thesis.pt"), "exists and is no network of 'prom segment'"),
        (("segment", "train", ".", "--set", "maps=maps.png", "-o", "maps.png"), "would overwrite a file that is read"),
        (("evaluate", "one.h5", "images.npy", "--convention", "papper"), "convention 'papper' is not known"),
        (("evaluate", "", "images.npy"), "mask '': no such file"),
        (("segment", "evaluate", "", "images.npy"), "network '': no such file"),
        (("segment", "evaluate", "net.pt", "images.npy", "--mask", ""), "--mask: '' is not a value; give one, or leave it out"),
        (("inspect", "--json", ""), "''"),
        (("optimize", "images.npy", "-a", "4", "--network=", "-o", "new.h5"), "--network: '' is not a value"),
        (("baseline", "energy", "mni_brian", "--set", "subjects=5", "-a", "4", "-o", "x.h5"), "did you mean 'mni_brain'"),
        (("evaluate", "x" * 300, "images.npy"), "check its name, and who may read it"),
    ):
        (tmp_path / "maps.png").write_bytes(b"precious")
        done = here(*command, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, command
    assert (tmp_path / "maps.png").read_bytes() == b"precious" and (tmp_path / "thesis.pt").read_bytes() == b"of years"
    done = here(cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("Usage: prom [OPTIONS] COMMAND") and done.stderr.count("\n") > 20
    (tmp_path / "images.npy").rename(tmp_path / "images")
    (tmp_path / "other.npy").write_bytes(before)
    done = here("baseline", "energy", "other.npy", "-a", "4", "--split", "all", "-o", "images", cwd=tmp_path)
    assert done.returncode == 2 and "exists and is no mask" in done.stderr and (tmp_path / "images").read_bytes() == before


def test_export_replaces_what_it_has_written_and_no_other_list_or_sequence(here, tmp_path):
    for pattern, kind in (("points", "gaussian"), ("columns", "equispaced"), ("spokes", "random_readouts")):
        made = here("baseline", kind, "mni_brain", "-a", "4", "--pattern", pattern, "--set", "subjects=1", "-o", "mask.h5", cwd=tmp_path)
        assert made.returncode == 0
        for output in (("list.csv",), ("order.csv", "--set", "order=radial"), ("scan.seq",))[: 1 if pattern == "spokes" else 3]:
            assert [here("export", "mask.h5", "-o", *output, cwd=tmp_path).returncode for _ in range(2)] == [0, 0]
    for name, text in (
        ("traj.csv", "kx,ky,kz\n0,0,1\n"),
        ("gre.seq", "# Pulseq sequence file\n[VERSION]\nmajor 1\n"),
        ("a.csv", ""),
        ("votes.csv", "candidate,votes\nSmith,3\n"),
        ("seats.csv", "candidate\nSmith\n"),
        ("moves.csv", "x,y,x_offset,y_offset\n1,2,3,4\n"),
        ("runs.csv", "candidate,x,y\n1,3,1\n"),
    ):
        (tmp_path / name).write_text(text)
        done = here("export", "mask.h5", "-o", name, cwd=tmp_path)
        assert done.returncode == 2 and "exists and was not written by export" in done.stderr and (tmp_path / name).read_text() == text


def test_a_series_is_chosen_by_its_description_as_by_its_number():
    known = prom_options.names(folder.plan, without=())
    for value in ("T2 TSE", "3", "1.2.840.1"):
        assert prom_options.parse(f"series={value}", known, "a folder") == ("series", value)


@pytest.mark.slow
def test_json_of_optimize(work, here):
    options = ["--pattern", "rows", "--seed", "5", "--recipe", "paper", "--iterations", "3", "--members", "2"]
    done = here("optimize", "mine", "-a", "4", *options, "-o", "rows.h5", "--json", cwd=work)
    told = json.loads(done.stdout)
    assert told["samples"] == 256 and told["seed"] == 5 and told["seconds"] >= 0 and len(told["fingerprint"]) == 16
    result = load_mask(work / "rows.h5")
    assert result.recipe["name"] == "paper" and len(result.history) == 6 and result.pattern == "rows"


@pytest.mark.slow
def test_same_command_same_mask(work, here):
    masks = []
    for run, name in ((prom, "first.h5"), (here, "second.h5")):  # in a process of its own, and in this one
        run("optimize", "mine", "-a", "8", "--iterations", "20", "-o", name, cwd=work)
        masks.append(load_mask(work / name).theta)
    assert np.array_equal(*masks)


@pytest.mark.slow
def test_datasets(work, here, monkeypatch):
    done = here("datasets", cwd=work)
    assert done.returncode == 0 and "data/ACDC (not found)" in done.stdout and "register" in done.stdout
    monkeypatch.setenv("PROM_DATA", "elsewhere")
    found = json.loads(here("datasets", "--json", cwd=work).stdout)
    assert found["acdc"]["looked for"] == "elsewhere/ACDC" and found["mni_brain"]["found"]
    assert set(found) == {"mni_brain", "virtual_heart", "acdc", "brain_tumour", "fastmri_knee", "lowfield"}
    assert all(row["licence"] and row["citation"] and row["obtain"] for row in found.values())


def test_datasets_counts_what_is_there(acdc_root, here, tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_DATA", str(acdc_root.parent))
    done = here("datasets", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["acdc"]["splits"]["train"]["slices"] == 951 and found["acdc"]["splits"]["test"]["slices with labels"] == 538
    tumours = found["brain_tumour"]["splits"]
    assert {split: (n["subjects"], n["slices"]) for split, n in tumours.items()} == {"train": (6, 300), "test": (2, 100)}
    assert found["brain_tumour"]["missing"] == ["476 of 484 subjects"] and not found["fastmri_knee"]["found"]


def test_a_damaged_data_set_is_told_and_the_others_are_listed(here, tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_DATA", str(tmp_path))
    (tmp_path / "Task01_BrainTumour").mkdir()
    (tmp_path / "Task01_BrainTumour/dataset.json").write_text("{")
    done = here("datasets", cwd=tmp_path)
    assert done.returncode == 0 and "is not JSON" in done.stdout and "fastmri_knee" in done.stdout


def test_clear_cache(work, here, monkeypatch, tmp_path):
    monkeypatch.delenv("PROM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load(work / "mine", "train", store=True)
    assert (work / "mine/.prom-cache").is_dir()
    assert "removed 0" in here("datasets", "--clear-cache", cwd=work).stdout  # folders of one's own are named
    assert "removed 1" in here("datasets", "--clear-cache", "mine", cwd=work).stdout
    assert [file.name for file in (work / "mine").iterdir() if file.suffix == ".npy"] != []


def test_validation_and_options_of_the_reader(work, here):
    counts = {}
    for split in ("train", "validation", "test"):
        done = here(
            "baseline", "energy", "mine", "-a", "4", "-o", f"{split}.h5", "--json", "--split", split, "--validation", "0.3", cwd=work
        )
        counts[split] = json.loads(done.stdout)["subjects"]
    assert counts == {"train": 4, "validation": 2, "test": 2}
    done = here("baseline", "energy", "mine", "-a", "4", "-o", "t.h5", "--json", "--set", "axes=NWH", "--set", "name=turned", cwd=work)
    assert json.loads(done.stdout)["dataset"] == "turned"


@pytest.mark.parametrize("command", ["", "optimize", "average", "evaluate", "baseline", "export", "datasets", "sweep"])
def test_help_shows_an_example(work, here, command):
    done = here(*command.split(), "--help", cwd=work)
    assert done.returncode == 0 and "Example:" in done.stdout and f"prom {command}".strip() in done.stdout


def test_options_of_a_baseline(work, here):
    command = ["baseline", "gaussian", "mine", "-a", "8", "--option", "sigma=3", "--option", "protect_centre=true", "-o", "g.h5"]
    assert here(*command, cwd=work).returncode == 0
    result = load_mask(work / "g.h5")
    assert result.recipe == {"name": "gaussian", "sigma": 3.0, "protect_centre": True} and bool(result.mask[16, 16])
    assert here("baseline", "gaussian", "mine", "-a", "8", "-o", "default.h5", cwd=work).returncode == 0
    assert not np.array_equal(load_mask(work / "default.h5").mask, result.mask)


def test_average_of_seeds(work, here):
    for seed in ("0", "1"):
        here("optimize", "mine", "-a", "4", "--iterations", "5", "--seed", seed, "-o", f"seed{seed}.h5", cwd=work)
    done = here("average", "seed0.h5", "seed1.h5", "-o", "both.h5", cwd=work)
    assert done.returncode == 0 and "256 of 1024" in done.stdout
    both, members = load_mask(work / "both.h5"), [load_mask(work / f"seed{seed}.h5") for seed in "01"]
    assert torch.allclose(both.theta, (members[0].theta + members[1].theta) / 2) and both.recipe["members"] == 2
    done = here("average", "seed0.h5", "seed0.h5", "-o", "none.h5", cwd=work)
    assert done.returncode == 2 and "seeds [0, 0]" in done.stderr and not (work / "none.h5").exists()


def test_scale_of_the_images(work, here):
    done = here("optimize", "mine", "-a", "4", "--iterations", "5", "--set", "scale=0.5", "-o", "half.h5", cwd=work)
    assert done.returncode == 0
    assert torch.equal(load(work / "mine", scale=0.5).images, load(work / "mine").images / 2)
    assert load_mask(work / "half.h5").provenance["source"].endswith("intensities times 0.5")
    done = here("optimize", "mine", "-a", "4", "--set", "scale=0", "-o", "zero.h5", cwd=work)
    assert done.returncode == 2 and "scale 0.0: must be > 0" in done.stderr


def test_export_names_both_files_of_bart(work, here):
    assert here("baseline", "energy", "mine", "-a", "8", "-o", "energy.h5", cwd=work).returncode == 0
    done = here("export", "energy.h5", "-o", "energy.cfl", cwd=work)
    assert done.stdout == "wrote energy.cfl and energy.hdr\n" and (work / "energy.hdr").exists()


def test_evaluate_takes_exported_masks(work, here):
    assert here("baseline", "gaussian", "mine", "-a", "5", "-o", "five.h5", cwd=work).returncode == 0
    scores = []
    for name in ("five.h5", "five.npy", "five.mat", "five.png"):
        if name != "five.h5":
            assert here("export", "five.h5", "-o", name, cwd=work).returncode == 0
        done = here("evaluate", name, "mine", "--json", cwd=work)
        assert done.returncode == 0, done.stderr
        scores.append({**json.loads(done.stdout), "mask": ""})
    assert scores[0]["true_acceleration"] == 1024 / 204 and scores.count(scores[0]) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_null_for_what_it_cannot_say(value):
    assert json.loads(strict_json({"a": [value, 1.5], "b": {"c": value}}), parse_constant=pytest.fail) == {
        "a": [None, 1.5],
        "b": {"c": None},
    }


BAD = [
    ("baseline gaussian mine --option sigma=wide -a 4 -o bad.h5", "must be a number, e.g. sigma=0.1"),
    ("baseline energy mine --option sigma=3 -a 4 -o bad.h5", "option of baseline energy 'sigma' is not known"),
    ("optimize mine -a 0.5 -o bad.h5", "acceleration 0.5: must be >= 1"),
    ("optimize mine -a 5000 -o bad.h5", "must be <= 1024"),
    ("optimize mine -a four -o bad.h5", "'four'"),
    ("optimize mine -o bad.h5", "--acceleration"),
    ("optimize mine -a 4", "--output"),
    ("optimize mni_brian -a 4 -o bad.h5", "did you mean 'mni_brain'"),
    ("optimize no/such/folder -a 4 -o bad.h5", "no/such/folder"),
    ("optimize empty -a 4 -o bad.h5", "is an empty folder"),
    ("optimize mixed -a 4 -o bad.h5", "all slices must be alike"),
    ("optimize nan -a 4 -o bad.h5", "NaN"),
    ("optimize constant -a 4 -o bad.h5", "slice 0 is constant"),
    ("optimize truncated -a 4 -o bad.h5", "cannot be read as npy"),
    ("optimize acdc -a 4 -o bad.h5", "register for ACDC"),
    ("optimize mine --root mine -a 4 -o bad.h5", "root mine"),
    ("optimize mine --set axis=HW -a 4 -o bad.h5", "did you mean 'axes'"),
    ("optimize mine --set skip_constant=perhaps -a 4 -o bad.h5", "e.g. skip_constant=true"),
    ("optimize mine --validation 0.01 --split validation -a 9999 -o bad.h5", "must be <= 1024"),
    ("optimize mine --validation 2 -a 4 -o bad.h5", "'--validation': number 2.0: must be >= 0 and < 1"),
    ("optimize mni_brain --validation 0.1 -a 4 -o bad.h5", "has a validation split of its own"),
    ("optimize fastmri_knee -a 4 -o bad.h5", "fastmri.med.nyu.edu"),
    ("optimize brain_tumour -a 4 -o bad.h5", "medicaldecathlon.com"),
    ("datasets mine", "--clear-cache"),
    ("optimize mine --split nonsense -a 4 -o bad.h5", "nonsense"),
    ("optimize mine --pattern colums -a 4 -o bad.h5", "did you mean 'columns'"),
    ("optimize mine --reconstruction sence -a 4 -o bad.h5", "did you mean 'sense'"),
    ("optimize mine --reconstruction sense -a 4 -o bad.h5", "its noise is not known"),
    ("optimize mine --reconstruction tv --network net.pt -a 4 -o bad.h5", "leave out --network or --reconstruction tv"),
    ("optimize mine --recipe papper -a 4 -o bad.h5", "did you mean 'paper'"),
    ("optimize mine --iterations 0 -a 4 -o bad.h5", "iterations=0"),
    ("optimize mine --device quantum -a 4 -o bad.h5", "device 'quantum'"),
    ("optimize mine --device mps -a 4 -o bad.h5", "device 'mps': must be auto, cpu, cuda"),
    ("segment train mine --device cpu:3 -o bad.pt", "device 'cpu:3'"),
    ("optimize mine -a 4 -o no/folder/bad.h5", "no/folder"),
    ("optimize mine -a 4 -o empty", "is a folder"),
    ("baseline energi mine -a 4 -o bad.h5", "did you mean 'energy'"),
    ("baseline equispaced mine --pattern points -a 4 -o bad.h5", "use columns or rows"),
    ("evaluate bad.h5 mine", "bad.h5"),
    ("evaluate mine/subject0.npy mine", "is no mask"),
    ("evaluate mine mine", "mask mine"),
    ("optimize mine -a 4 --set maps= -o bad.h5", "option 'maps=': '' is no file; name one, or leave it out"),
    ("export bad.h5 -o bad.npy", "bad.h5"),
    ("optimise mine", "optimise"),
    ("optimize mine -a nan -o bad.h5", "'nan' is not a finite number"),
    ("optimize mine -a 1e999 -o bad.h5", "'1e999' is not a finite number"),
    ("optimize mine -a 1_0 -o bad.h5", "'1_0' is not a finite number"),
    ("optimize mine -a ٤ -o bad.h5", "'٤' is not a finite number"),
    ("optimize mine -a 4 --seed 18446744073709551616 -o bad.h5", "'18446744073709551616' is not a whole number of 64 bits"),
    ("optimize mine -a 4 --seed 1_0 -o bad.h5", "'1_0' is not a whole number"),
    ("optimize mine -a 4 --seed ٥ -o bad.h5", "'٥' is not a whole number"),
    ("optimize mine -a 4 --seed 1.0 -o bad.h5", "'1.0' is not a whole number"),
    ("optimize mine -a 4 --threads 0 -o bad.h5", "must be >= 1 and <= 1024"),
    ("optimize mine -a 4 --threads 99999999 -o bad.h5", "must be >= 1 and <= 1024"),
    ("optimize mine -a 4 --iterations 1000000000000 -o bad.h5", "iterations=1000000000000: must be >= 1 and <= 1e8"),
    ("optimize mine -a 4 --iterations 100000 --members 100000 -o bad.h5", "together"),
    ("optimize mine -a 4 --validation nan -o bad.h5", "'nan' is not a finite number"),
    ("optimize mine -a 4 --set scale=inf -o bad.h5", "scale=inf"),
    ("baseline gaussian mine -a 4 --option sigma=1e200 -o bad.h5", "sigma 1e+200: must be >= 0.001 and <= 1e9"),
    ("baseline gaussian mine -a 4 --option sigma=nan -o bad.h5", "sigma=nan"),
    ("baseline equispaced mine -a 4 --option centre_fraction=-1 -o bad.h5", "centre_fraction -1.0: must be >= 0 and <= 1"),
    ("baseline equispaced mine -a 4 --option centre_fraction=1_0 -o bad.h5", "centre_fraction=1_0"),
    ("baseline loupe mine -a 4 --option iterations=0 -o bad.h5", "iterations 0: must be >= 1"),
    ("baseline score_prune mine -a 4 --option learning_rate=1e30 -o bad.h5", "learning_rate 1e+30: must be > 0 and <= 1e6"),
    ("segment train mine --learning-rate nan -o bad.pt", "'nan' is not a finite number"),
    ("segment train mine --learning-rate 0 -o bad.pt", "must be > 0 and <= 1e6"),
    ("segment train mine --batch-size -1 -o bad.pt", "must be >= 1"),
    ("sweep reconstruction --dataset mine --jobs 0", "must be >= 1"),
    ("sweep reconstruction --dataset mine --accelerations 4 8x", "'8x' is not a finite number"),
]


@pytest.fixture(scope="module")
def hostile(work) -> Path:
    """The folder with more beside the good data: empty, mixed sizes, NaN, a constant slice, a truncated file."""
    for name in ("empty", "mixed", "nan", "constant", "truncated"):
        (work / name).mkdir()
    for name, height in (("a", 8), ("b", 8), ("c", 9)):
        np.save(work / f"mixed/{name}.npy", np.random.rand(height, 8))
    np.save(work / "nan/a.npy", np.full((8, 8), np.nan))
    np.save(work / "constant/a.npy", np.ones((8, 8)))
    np.save(work / "truncated/a.npy", np.random.rand(64, 64))
    data = (work / "truncated/a.npy").read_bytes()
    (work / "truncated/a.npy").write_bytes(data[:1000])
    return work


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(hostile, here, line, message):
    before = sorted(p.name for p in hostile.iterdir())
    done = here(*line.split(), cwd=hostile)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("prom: ") and message in done.stderr
    assert sorted(p.name for p in hostile.iterdir()) == before


def test_snakemakes_options_need_both_quotation_marks(work, here):
    done = here("sweep", "reconstruction", "--dataset", "mine", "--snakemake", "--config 'a", cwd=work)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "close every quotation mark" in done.stderr


@pytest.mark.parametrize("text", [" 5", "5 ", "+ 5", "0x5", "5\n", ""])
@pytest.mark.parametrize("option", ["--seed", "-a", "--validation"])
def test_numbers_have_no_blanks(hostile, here, option, text):
    done = here("optimize", "mine", "-o", "bad.h5", *(() if option == "-a" else ("-a", "4")), option, text, cwd=hostile)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is not a" in done.stderr


@pytest.mark.slow
def test_bad_input_from_a_shell(hostile):
    done = prom("optimize", "mni_brian", "-a", 4, "-o", "bad.h5", cwd=hostile)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "did you mean" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(work):
    (work / "locked").mkdir(mode=0o500)
    done = prom("optimize", "mine", "-a", 4, "-o", "locked/mask.h5", cwd=work)
    assert done.returncode == 2 and "may not be written" in done.stderr


def labelled(folder: Path) -> None:
    """Five subjects with a rectangle that is labelled."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for i in range(5):
        labels = np.zeros((2, 32, 32), np.uint8)
        labels[:, 8 : 16 + 2 * i, 9:22] = 1
        np.savez(folder / f"s{i}.npz", images=labels + 0.1 * generator.random(labels.shape), labels=labels)


def test_training_a_segmentation_takes_its_settings(here, tmp_path, monkeypatch):
    labelled(tmp_path / "mine")
    seen = {}

    def train(data, validation, **settings):
        seen.update(settings, slices=(len(data), len(validation)))
        return SimpleNamespace(regions={"1": [1]}, metadata={"validation_dice": 0.5})

    monkeypatch.setattr(segmentation, "train", train)
    given = ("--augment", "--seed", "3", "--steps", "20", "--batch-size", "4", "--learning-rate", "0.01")
    wanted = {"augment": True, "seed": 3, "steps": 20, "batch_size": 4, "learning_rate": 0.01}
    usual = {"augment": False, "seed": 0, "steps": 900, "batch_size": 12, "learning_rate": 1.5e-3}
    for more, expected in ((given, wanted), ((), usual)):
        assert here("segment", "train", "mine", *more, "-o", "net.pt", cwd=tmp_path).returncode == 0
        assert seen.items() >= expected.items() and (seen["start"], seen["masks"], seen["output"]) == (None, None, "net.pt")
        assert seen["slices"] == (6, 2)  # of four subjects in train, one of them held out


@pytest.mark.slow
def test_from_labels_to_a_mask_for_them(here, tmp_path):
    labelled(tmp_path / "mine")
    small = ("--steps", "20", "--batch-size", "4", "--learning-rate", "0.01")
    done = here("segment", "train", "mine", *small, "--output", "net.pt", cwd=tmp_path)
    assert done.returncode == 0 and "wrote net.pt: segments" in done.stdout and not list(tmp_path.glob("*.part"))
    made = here("optimize", "mine", "-a", "8", "--iterations", "10", "--network", "net.pt", "-o", "mask.h5", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    found = load_mask(tmp_path / "mask.h5")
    assert found.provenance["objective"] == "segmentation" and len(found.provenance["network"]) == 16
    assert (found.recipe["name"], found.recipe["polish"], found.recipe["hold_out"]) == ("polished", 12, 0.2)
    scratch = here(
        "optimize", "mine", "-a", "8", "--iterations", "10", "--network", "net.pt", "--recipe", "default", "-o", "other.h5", cwd=tmp_path
    )
    assert scratch.returncode == 0 and load_mask(tmp_path / "other.h5").recipe["name"] == "default"
    full, masked = (
        json.loads(here("segment", "evaluate", "net.pt", "mine", *more, "--json", cwd=tmp_path).stdout)
        for more in ((), ("--mask", "mask.h5"))
    )
    assert full["true_acceleration"] == 1 and masked["true_acceleration"] == 8 and 0 <= masked["dice"] <= full["dice"] <= 1
    network = segmentation.load(tmp_path / "net.pt")
    expected = segmentation.evaluate(network, load(tmp_path / "mine", "test"), found.mask, device="cpu")
    assert masked["dice"] == pytest.approx(expected["dice"].mean(), abs=1e-3) and masked["loss"] != full["loss"]
    tuned = here("segment", "train", "mine", *small, "--start", "net.pt", "--mask", "mask.h5", "-o", "tuned.pt", cwd=tmp_path)
    assert tuned.returncode == 0
    metadata = segmentation.load(tmp_path / "tuned.pt").metadata
    assert metadata["fine_tuned"] is True and metadata["masks"] == 1

    for arguments, message in (
        (("segment", "evaluate", "mask.h5", "mine"), "network mask.h5: is not a network file of prom"),
        (("segment", "train", "mni_brain", "--steps", "0", "-o", "x.pt", "--set", "subjects=5", "--set", "size=32"), "'--steps': number 0"),
        (("optimize", "mine", "-a", "4", "--network", "none.pt", "-o", "x.h5"), "network none.pt: no such file"),
    ):
        wrong = here(*arguments, cwd=tmp_path)
        assert wrong.returncode == 2 and message in wrong.stderr and wrong.stderr.count("\n") == 1
        assert not (tmp_path / "x.pt").exists() and not (tmp_path / "x.h5").exists()


def raising(error):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x: the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "No usable temporary directory"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
    ],
)
def test_what_the_system_refuses_is_one_line(work, here, monkeypatch, error, message):
    monkeypatch.setattr("prom.datasets.load", raising(error))
    monkeypatch.setitem(vars(sys.modules["prom"]), "load", raising(error))
    done = here("baseline", "energy", "mine", "-a", "4", "-o", "none.h5", cwd=work)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr and not (work / "none.h5").exists()


def test_outputs_that_are_no_files_are_refused_before_anything_is_read(work, here):
    os.mkfifo(work / "pipe")
    for command in ("optimize none -a 4", "baseline energy none -a 4", "average none", "export none", "segment train none"):
        done = here(*command.split(), "-o", "pipe", cwd=work)
        assert done.returncode == 2 and done.stderr == "prom: output pipe: is no file, but a pipe; give another name\n"
    (work / "pipe").unlink()


@pytest.mark.parametrize("module", ["click", "torch"])
@pytest.mark.parametrize("program", [["-m", "prom"], ["-c", "from prom.__main__ import main; main()"]])
def test_ctrl_c_while_importing_is_silent(work, tmp_path, module, program):
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *program, "baseline", "energy", "mine", "-a", "4", "-o", "stopped.h5"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "") and not (work / "stopped.h5").exists()


def test_ctrl_c_that_a_library_would_turn_into_another_error_is_silent_too(work, tmp_path):
    stop = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    while True: pass\n"
    (tmp_path / "torch.py").write_text(stop + "except KeyboardInterrupt:\n    raise RecursionError from None")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "prom", "baseline", "energy", "mine", "-a", "4", "-o", "stopped.h5"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "call", ["_raw_object_cache_notify()", "Ended()", "weakref.ref(set(), lambda _: signal.raise_signal(signal.SIGINT))"]
)
def test_ctrl_c_where_exceptions_are_ignored_is_not_lost(call):
    """In what C code calls back, and when an object has ended: it comes after it, and ends a wait."""
    lines = [
        "import signal, sys, time, weakref",
        "from prom.__main__ import ignored, interrupt",
        "sys.unraisablehook = ignored",
        "signal.signal(signal.SIGINT, interrupt)",
        "def _raw_object_cache_notify(): signal.raise_signal(signal.SIGINT)",
        "class Ended:",
        "    def __del__(self): signal.raise_signal(signal.SIGINT)",
        "try:",
        f"    {call}",
        "    print('went on', flush=True)",
        "    time.sleep(60)",
        "except KeyboardInterrupt:",
        "    print('ended')",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30)
    assert (done.stdout.split("\n"), done.stderr) == (["went on", "ended", ""], "")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.1, 3.0])
def test_ctrl_c_at_any_time_is_silent_and_leaves_nothing(work, seconds):
    before = sorted(os.listdir(work))
    command = [sys.executable, "-m", "prom", "optimize", "mine", "-a", "4", "--iterations", "1000000", "-o", "stopped.h5"]
    process = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=60), process.returncode) == ("", "", 130)
    assert sorted(os.listdir(work)) == before


def test_masks_of_before_patients_were_counted_are_reported(capsys):
    result = baselines.as_result(torch.eye(16, dtype=torch.bool), "identity", 16)
    result.provenance.update(slices=8, subjects=2)
    report_mask(result, "old.h5", json=False)
    assert "from 8 slices of 2 subjects" in capsys.readouterr().out


def test_scores_are_those_of_the_convention_that_is_asked_for(work, here):
    here("baseline", "energy", "mine", "-a", "4", "-o", "convention.h5", cwd=work)
    mask, test = load_mask(work / "convention.h5").mask, load(work / "mine", "test")
    told = {}
    for convention in ("paper", "fastmri"):
        said = json.loads(here("evaluate", "convention.h5", "mine", "--convention", convention, "--json", cwd=work).stdout)
        told[convention], table = said["psnr"], evaluate(mask, test, convention)
        for name in ("psnr", "ssim", "nmse"):
            assert said[name] == pytest.approx(float(table[name].mean()))
            assert said[f"{name}_std"] == pytest.approx(float(table[name].std(ddof=0))) and said[f"{name}_std"] > 0
        assert (said["slices"], said["subjects"], said["convention"]) == (len(test), test.number_of_subjects, convention)
        line = here("evaluate", "convention.h5", "mine", "--convention", convention, cwd=work).stdout.splitlines()[-1]
        shown = [f"{name.upper()} {said[name]:.{n}f} +- {said[f'{name}_std']:.{n}f}" for name, n in (("psnr", 3), ("ssim", 4), ("nmse", 4))]
        assert line == f"{shown[0]} dB   {shown[1]}   {shown[2]}"
    assert told["paper"] != told["fastmri"]


def test_a_baseline_has_the_seed_that_is_asked_for(work, here):
    for seed in ("0", "1"):
        here("baseline", "gaussian", "mine", "-a", "4", "--seed", seed, "-o", f"seed{seed}.h5", cwd=work)
    assert not torch.equal(*(load_mask(work / f"seed{seed}.h5").mask for seed in (0, 1)))


def test_the_array_that_is_asked_for_is_read(work, here):
    with h5py.File(work / "two.h5", "w") as file:
        file["images"], file["other"] = np.random.rand(3, 16, 16), np.random.rand(3, 16, 12)
    here("baseline", "energy", "two.h5", "-a", "4", "--key", "other", "-o", "other.h5", cwd=work)
    assert load_mask(work / "other.h5").mask.shape == (16, 12)
    assert "(1, 16, 12)" in here("inspect", "two.h5", "--key", "other", cwd=work).stdout
