"""Sweeps as real processes: killed and started again, with failing runs, other data, other code."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from prom import InputError, SliceDataset, baselines, evaluate, load, load_mask, masks
from prom.baselines import rivals
from prom.cli import main
from prom.evaluation import segmentation
from prom.kspace import patterns
from prom.learn import recipes
from prom.methods import named
from prom.runs import notebook, results, sweep

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
FOUR = ["--methods", "energy", "--patterns", "points", "columns", "--accelerations", "4", "40"]  # 40 is more than the 32 columns
SMALL = {"subjects": 2, "frames": 4, "size": 32}
LONG = "polished:" + ",".join(f"{name}=0.{'1' * 50}" for name in ("exploration", "exploitation", "learning_rate", "momentum", "hold_out"))
UNREPEATABLE = ("seconds", "wall_seconds", "peak_memory_mib", "command")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a data set of five subjects of 32 x 32 slices."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mine").mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        np.save(folder / "mine" / f"subject{i}.npy", generator.random((3, 32, 32)).cumsum(1).cumsum(2))
    return folder


@pytest.fixture
def planned(work, monkeypatch):
    """Plans a sweep of the energy baseline in that folder."""
    monkeypatch.chdir(work)
    return lambda *accelerations, **changes: sweep.plan("reconstruction", "mine", ["energy"], ["points"], accelerations, **changes)


def start(work: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "prom", "sweep", "reconstruction", "--dataset", "mine", *arguments]
    return subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/energy-*.json")}


def test_goes_on_after_a_kill_and_reports_what_fails(work):
    output = work / "results" / "sweep"
    process = start(work, *FOUR)
    while not times(output):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = times(output)
    assert 1 <= len(before) < 3 and not list(output.glob("*.csv"))

    process = start(work, *FOUR, "--jobs", "2")
    told, errors = process.communicate(timeout=300)
    after = times(output)
    assert process.returncode == 1 and before.items() <= after.items()
    assert sorted(after) == [f"energy-{run}-seed0.json" for run in ("columns-x4", "points-x4", "points-x40")]
    assert "prom: 1 of 4 runs failed" in errors and "energy-columns-x40-seed0: InputError: acceleration 40: must be <= 32" in errors
    [folder] = [path for path in output.iterdir() if path.is_dir()]
    assert str(folder) in errors and (folder / "energy-columns-x40-seed0.ipynb").exists() and "3 of 4 runs" in told
    table = pd.read_csv(output / f"{folder.name}.csv")
    assert table[["pattern", "acceleration"]].values.tolist() == [["points", 4.0], ["points", 40.0], ["columns", 4.0]]
    assert (table["peak_memory_mib"] > 50).all() and (table["wall_seconds"] > 0).all() and (table["device"] == "cpu").all()

    record = json.loads((folder / "energy-points-x4-seed0.json").read_text())
    python, *arguments = shlex.split(record["command"])
    subprocess.run([sys.executable, *arguments], cwd=work, check=True, capture_output=True)
    again = json.loads((work / "record.json").read_text())
    assert all(again[name] == value for name, value in record.items() if name not in UNREPEATABLE)


def test_only_records_of_this_code_and_these_data_count(planned, work):
    plan = planned(2, output="other")
    [(run, parameters)] = plan.runs.items()
    file = plan.folder / f"{run}.json"
    plan.folder.mkdir(parents=True)
    train, test = (load(work / "mine", split) for split in ("train", "test"))
    result = results.make("energy", train, 2)
    scores = evaluate(result.mask, test)
    scores.to_csv(file.with_suffix(".csv"), index=False)
    results.write(file, {**results.record(result, test, scores), "command": parameters["command"]})
    written = file.stat().st_mtime_ns
    assert sweep.run(plan) == {} and file.stat().st_mtime_ns == written and len(sweep.collect(plan)) == 1

    good = file.read_text()
    for broken in ("", "[]", good[:50]):
        file.write_text(broken)
        assert sweep.records(plan) == {}
    for name in ("fingerprint_train", "fingerprint_test", "recipe", "seed", "versions"):
        file.write_text(json.dumps({**json.loads(good), name: "other"}))
        assert sweep.records(plan) == {} and sweep.collect(plan).empty, name
    assert sweep.run(plan) == {}  # and what does not count is run again
    [again] = sweep.records(plan).values()
    assert {**again, **dict.fromkeys(UNREPEATABLE)} == {**json.loads(good), **dict.fromkeys(UNREPEATABLE)}

    np.save(work / "mine" / "subject0.npy", np.load(work / "mine" / "subject0.npy") + 1)
    changed = planned(2, output="other")
    assert changed.folder != plan.folder and sweep.records(changed) == {} and list(changed.runs) == [run] and file.exists()


def test_runs_find_the_data_from_another_folder(work, monkeypatch):
    monkeypatch.chdir(work)
    here = str(work.resolve())
    assert sweep._absolute("mine", "", {"sensitivities": "maps", "name": "maps"}) == {
        "dataset": f"{here}/mine",
        "root": "",
        "options": {"sensitivities": f"{here}/maps", "name": "maps"},
    }
    monkeypatch.setenv("PROM_DATA", "shared")
    assert sweep._absolute("acdc", "", {})["root"] == f"{here}/shared/ACDC"
    assert sweep._absolute("acdc", "there", {})["root"] == f"{here}/there"
    assert sweep._absolute("mni_brain", "", {}) == {"dataset": "mni_brain", "root": "", "options": {}}


def test_links_and_files_of_readers_are_found_from_another_folder_too(work, monkeypatch):
    """What a link leads to may have another ending, which says what a file is."""
    monkeypatch.chdir(work)
    (work / "link.npy").symlink_to("mine/subject1.npy")
    place = sweep._absolute("link.npy", "", {"maps": "link.npy"})
    assert place["dataset"] == place["options"]["maps"] == str(work / "link.npy")
    assert sweep._absolute("fastmri_knee", "", {"annotations": "knee.csv"})["options"]["annotations"] == str(work / "knee.csv")


def test_other_patients_have_another_folder(work, monkeypatch):
    """Methods hold out patients."""
    monkeypatch.chdir(work)
    for part in ("train", "test"):
        (work / "heads" / part).mkdir(parents=True)
        for name in ("a1", "a2"):
            np.save(work / "heads" / part / f"{part}{name}.npy", np.load(work / "mine" / "subject2.npy") + len(name + part))
    plans = [sweep.plan("reconstruction", "heads", ["energy"], ["points"], [4], options={"patient": how}) for how in ("folder", "file")]
    assert plans[0].folder != plans[1].folder


def test_a_run_of_series_that_are_made_on_the_spot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = sweep.plan("reconstruction", "virtual_heart", ["energy"], ["columns"], [4], options=SMALL, output=tmp_path / "hearts")
    [(name, parameters)] = plan.runs.items()
    more = {**parameters, "options": {"scale": 1e-05, "name": "köpfe 🧠"}}
    assert notebook._parsed(json.dumps(more)) == more
    names: dict[str, object] = {}
    cells = json.loads((sweep.NOTEBOOKS / "reconstruction.ipynb").read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            names |= parameters if "parameters" in cell["metadata"].get("tags", ()) else {}
    plan.folder.mkdir(parents=True)
    for file in tmp_path.glob(f"{name}.*"):
        shutil.move(file, plan.folder)
    assert sweep.records(plan)[name]["slices_test"] > 0


def test_a_long_temporary_folder_takes_ports():
    assert "transport" not in notebook.kernel_of_its_own("x" * 100).KernelManager
    assert notebook.kernel_of_its_own("/tmp").KernelManager.transport == "ipc"


def test_other_code_has_another_folder(planned, monkeypatch):
    folder = planned(2).folder
    assert planned(2).folder == folder
    monkeypatch.setattr(sweep, "versions", lambda: {"golden": "other"})
    assert planned(2).folder != folder


@pytest.mark.parametrize("method", [method for method in baselines.BASELINES if not named(method).in_time])
@pytest.mark.parametrize("pattern", patterns.PATTERNS)
def test_seeds_and_patterns_of_baselines_are_known(method, pattern):
    """Seeds are swept where they change the mask, and patterns where there is a mask."""
    data = SliceDataset("noise", "train", torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)), list("abcd"), [0] * 4)
    if not sweep._possible(method, pattern):
        with pytest.raises(InputError):
            baselines.get(method)(data, 4, pattern=pattern)
        return
    first, *others = (partial(baselines.get(method), data, 4, pattern=pattern, seed=seed) for seed in range(6))
    mask = first()  # at the first seed with another mask the others are not asked for theirs
    assert all(torch.equal(mask, other()) for other in others) == (not named(method).random)


def test_waits_for_a_sweep_in_the_same_folder(tmp_path):
    holder = "import sys, pathlib; from prom import sweep\nwith sweep._locked(pathlib.Path(sys.argv[1])): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdin=-1, stdout=-1, stderr=-1, text=True) as second:
            assert "waiting" in second.stderr.readline()
            first.kill()
            assert second.stdout.readline() == "\n"
            second.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "segmentatoin"}, "sweep 'segmentatoin' is not known"),
        ({"methods": ["energie"]}, "did you mean 'energy'"),
        ({"names": ["colums"]}, "did you mean 'columns'"),
        ({"accelerations": [0.5]}, "acceleration 0.5: must be >= 1"),
        ({"accelerations": []}, "nothing to run"),
        ({"methods": ["equispaced"]}, "equispaced cannot make points"),
        ({"seeds": 0}, "seeds 0"),
        ({"methods": ["default:iterations=0"]}, "iterations=0"),
        ({"methods": ["default:iteration=5"]}, "did you mean .iterations"),
        ({"ensembles": ["default"]}, "ensemble .default. is not known"),
        ({"ensembles": ["energy"], "seeds": 2}, "ensemble energy: needs a recipe"),
        ({"methods": ["default"], "ensembles": ["default"]}, "at least 2 seeds"),
        ({"methods": ["polished"], "ensembles": ["polished"], "seeds": 2}, "are not polished"),
        ({"dataset": "mni_brian"}, "did you mean 'mni_brain'"),
        ({"methods": ["task-energy"]}, "task-energy"),
        ({"methods": ["task-default"]}, "task-default: is learnt through a network"),
        ({"kind": "segmentation"}, "a segmentation needs one"),
        ({"network": "net.pt"}, "a reconstruction has none"),
        ({"kind": "segmentation", "network": "net.pt", "tuning_steps": -1}, "tuning steps -1"),
        ({"dataset": "virtual_heart", "options": {**SMALL, "coils": 4, "phase": True}}, "has coils, and a sweep scores zero-filled"),
        ({"tuning_steps": 5}, "tuning steps 5: are of a network"),
        ({"dataset": "virtual_heart", "options": SMALL, "methods": [LONG]}, "too long a name"),
        ({"kind": "segmentation", "network": "net.pt", "dataset": "mni_brain"}, "net.pt: no such file"),
    ],
)
def test_bad_plans(arguments, message):
    good = {"kind": "reconstruction", "dataset": "none", "methods": ["energy"], "names": ["points"], "accelerations": [4]}
    with pytest.raises(InputError, match=message):
        sweep.plan(**{**good, **arguments})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("reconstruction --dataset mine --patterns points colums", "did you mean 'columns'"),
        ("reconstruction --dataset mine --accelerations 4 eight", "'eight'"),
        ("reconstruction --dataset mine --set axis=HW --jobs 2", "did you mean 'axes'"),
        ("reconstruction", "--dataset"),
        ("--dataset mine", "KIND"),
    ],
)
def test_bad_command_lines(line, message, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["prom", "sweep", *line.split()])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == "" and told.err.count("\n") == 1 and message in told.err


@pytest.mark.parametrize("package", sweep.PACKAGES)
def test_says_how_to_install_what_is_missing_before_data_are_read(package, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "find_spec", lambda name: name != package)
    monkeypatch.setattr(sweep, "load", None)
    monkeypatch.setattr(sys, "argv", ["prom", "sweep", "reconstruction", "--dataset", "mine"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == "" and told.err.count("\n") == 1
    assert package in told.err and "pip install 'prom-mri[sweep]'" in told.err


def test_bad_ways_to_run(planned, work, monkeypatch):
    (work / "file").touch()
    for arguments, message in (
        ({"jobs": 0}, "jobs 0"),
        ({"executor": "a.b"}, "executor 'a.b': must be a name"),
        ({"executor": "slum"}, "snakemake_executor_plugin_slum; the extra sweep brings local and slurm"),
        ({}, "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            sweep.run(planned(2, output="file"), **arguments)
    monkeypatch.setattr(sweep, "check_possible", lambda executor: None)
    with pytest.raises(InputError, match=r"of \$mine/.*: SLURM takes \$"):
        sweep.run(planned(2, output="of $mine"), executor="slurm")
    plan = planned(2, output="third")
    assert "unrecognized arguments: --no-such-option" in sweep.run(plan, options=["--no-such-option"])["energy-points-x2-seed0"]


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({}, "ended without a message"),
        (
            {sweep.LOG: "WorkflowError:\nAt least one job did not complete successfully.\n"},
            "At least one job did not complete successfully.",
        ),
        (
            {  # as SLURM's plugin writes it, for a partition that is not there, or where squeue says how a job ended
                sweep.LOG: "Error in rule run:\n    message: SLURM sbatch failed. The error message was 'invalid partition: nope\nX'.\n"
                "    jobid: 1\n    output: {run}.json\n\nError in rule run:\n    message: of another\n    output: other.json\n"
                "Error in rule run:\n    message: None\n    output: {run}.json\nWorkflowError:\nAt least one job did not complete.\n"
            },
            "SLURM sbatch failed. The error message was 'invalid partition: nope",
        ),
        (
            {
                sweep.LOG: "    message: SLURM-job '65' failed: 'FAILED'. For further error details see the log.\n    output: {run}.json\n",
                ".snakemake/slurm_logs/rule_run/{run}/65.log": "Error in rule run:\nslurmstepd-vm: error: Exceeded job memory limit\n"
                "srun: error: vm: task 0: Killed\nWorkflowError:\n",
                "{run}.log": "",
            },
            "slurmstepd-vm: error: Exceeded job memory limit",
        ),
        (  # the kernel was what took the memory: papermill goes on to say that it died
            {
                ".snakemake/slurm_logs/rule_run/{run}/65.log": "slurmstepd: error: Detected 1 oom_kill event in StepId=65.0.\n",
                "{run}.log": "Traceback\nnbclient.exceptions.DeadKernelError: Kernel died\n",
            },
            "slurmstepd: error: Detected 1 oom_kill event in StepId=65.0.",
        ),
        ({"{run}.log": "read the data\nInputError: too few\n", sweep.LOG: "At least one job failed."}, "InputError: too few"),
    ],
)
def test_why_a_run_failed(planned, logs, reason):
    plan = planned(2, output=f"reasons{len(reason)}")
    [run] = plan.runs
    for name, text in logs.items():
        path = plan.folder / name.replace("{run}", run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{run}", run))
    assert sweep._reason(plan, run) == reason


def test_what_ended_an_earlier_job_is_no_reason_now(planned):
    plan = planned(2, output="earlier")
    [run] = plan.runs
    log = plan.folder / ".snakemake" / "slurm_logs" / "rule_run" / run / "65.log"
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd-vm: error: Exceeded job memory limit\n")
    assert "Exceeded job memory limit" in sweep._reason(plan, run)
    assert "unrecognized arguments: --no-such-option" in sweep.run(plan, options=["--no-such-option"])[run]


def test_slurm_is_looked_for_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs SLURM's command sbatch, which is not on the path"):
        sweep.check_possible("slurm")
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    sweep.check_possible("slurm")


def test_who_waits_is_told_for_whom(tmp_path, capsys):
    with sweep._locked(tmp_path) as lock:
        lock.write("4711 on node1")
        lock.flush()
        waiting = Thread(target=lambda: sweep._locked(tmp_path).__enter__().close(), daemon=True)
        waiting.start()
        while not (told := capsys.readouterr().err):
            time.sleep(0.01)
    waiting.join(timeout=60)
    assert "(Snakemake is process 4711 on node1; kill -INT ends it); waiting for it" in told


def test_runs_of_an_older_recipe_are_not_in_the_table(work, monkeypatch, tmp_path):
    """Nor are runs complete whose masks are still to be averaged, and are not there."""
    monkeypatch.chdir(work)
    plan = partial(sweep.plan, "reconstruction", "mine", ["default"], ["points"], [4], output=tmp_path)
    both = plan(seeds=2, ensembles=["default"])
    both.folder.mkdir(parents=True)
    fields = dict.fromkeys(sweep.IDENTIFYING_FIELDS, "x")
    for name, expected in both.expected.items():
        (both.folder / f"{name}.json").write_text(json.dumps({**fields, **expected, "psnr": 30.0}))
        pd.DataFrame({"subject": ["a"], "slice": [0], "psnr": [30.0]}).to_csv(both.folder / f"{name}.csv", index=False)
    singles = [f"default-points-x4-seed{seed}" for seed in (0, 1)]
    assert sorted(sweep.records(plan(seeds=2))) == singles and sorted(sweep.records(both)) == ["default-points-x4-ensemble2", *singles]
    (both.folder / "default-points-x4-ensemble2.csv").rename(tmp_path / "scores.csv")
    assert not sweep.records(both)
    (both.folder / f"{singles[0]}.h5").touch()
    assert sorted(sweep.records(both)) == [singles[0]]
    (tmp_path / "scores.csv").rename(both.folder / "default-points-x4-ensemble2.csv")
    (both.folder / f"{singles[0]}.h5").unlink()
    (both.folder / f"{singles[1]}.json").rename(tmp_path / "one.json")
    assert sorted(sweep.records(both)) == ["default-points-x4-ensemble2"]  # it is made anew after seed 1, of both masks
    (tmp_path / "one.json").rename(both.folder / f"{singles[1]}.json")
    monkeypatch.setitem(recipes.RECIPES, "default", replace(recipes.DEFAULT, learning_rate=2 * recipes.DEFAULT.learning_rate))
    today = plan(seeds=1)
    [name], [expected] = today.expected, today.expected.values()
    (today.folder / f"{name}.json").write_text(json.dumps({**fields, **expected, "psnr": 20.0}))
    refused = {**fields, **both.expected[singles[1]], "method": "default", "variant": "hold_out=0.2", "psnr": 40.0}  # it was valid once
    (both.folder / f"{singles[1]}.json").write_text(json.dumps(refused))
    assert today.folder == both.folder and len(sweep.collect(today)) == 1
    assert pd.read_csv(today.table)["psnr"].tolist() == [20.0]


def test_every_number_of_members_is_averaged(work, monkeypatch):
    monkeypatch.chdir(work)
    runs = sweep.plan("reconstruction", "mine", ["default", "energy"], ["points"], [4], seeds=3, ensembles=["default"]).runs
    [command] = [run["command"] for run in runs.values() if len(run.get("average", ())) == 3]
    wanted = json.loads(shlex.split(command)[-1])["average"]  # as the data, from the folder in which the sweep was started
    assert [Path(path).parts[:2] for path in wanted] == [("results", "sweep")] * 3
    assert {name: run["average"] for name, run in runs.items() if "average" in run} == {
        f"default-points-x4-ensemble{count}": [f"default-points-x4-seed{seed}.h5" for seed in range(count)] for count in (2, 3)
    }


def recorder(folder: Path) -> Callable[..., Result]:
    """The script that makes the files of records, for records in ``folder``."""
    script = runpy.run_path(shutil.copy(PROJECT / "data" / "recorded" / "record.py", folder))["main"]
    return lambda *arguments: CliRunner().invoke(script, [str(argument) for argument in arguments])


def test_variants_ensembles_and_the_recorded_table(work, tmp_path):
    """Two seeds of a variant and their average; then the files of data/recorded made from them."""
    variant = "default:iterations=4,batch_size=2"
    arguments = [
        "--methods",
        variant,
        "--ensembles",
        variant,
        "--accelerations",
        "4",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--output",
        os.path.relpath(tmp_path, work),
    ]
    told, errors = (process := start(work, *arguments)).communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"{variant}, mean of 2" in told
    (tmp_path / "recorded").mkdir()
    record = recorder(tmp_path / "recorded")
    done = record("mine", tmp_path, "--masks", "default-*-ensemble2")
    assert done.exit_code == 0, done.stderr

    table = pd.read_csv(tmp_path / "recorded" / "mine_reconstruction.csv")
    assert table[["method", "variant", "members", "seed"]].values.tolist() == [
        ["default", "iterations=4,batch_size=2", 1, 0],
        ["default", "iterations=4,batch_size=2", 1, 1],
        ["default", "iterations=4,batch_size=2", 2, 0],
    ]
    assert (table["options"] == "{}").all() and json.loads(table["recipe"][2])["members"] == 2
    test, [folder] = load(work / "mine", "test"), [path for path in tmp_path.iterdir() if path.is_dir() and "code" in path.name]
    members = [load_mask(folder / f"default-iterations=4-batch_size=2-points-x4-seed{seed}.h5") for seed in (0, 1)]
    ensemble = load_mask(tmp_path / "recorded" / "masks" / "mine-default-iterations=4-batch_size=2-points-x4-ensemble2.h5")
    assert torch.equal(ensemble.mask, masks.average(members).mask) and len(ensemble.history) == 8
    assert ensemble.recipe["members"] == 2 and ensemble.provenance["seeds"] == [0, 1]
    expected = [evaluate(member.mask, test)["psnr"] for member in members]
    assert table["psnr"][2] == pytest.approx(evaluate(ensemble.mask, test)["psnr"].mean())
    slices = pd.read_csv(tmp_path / "recorded" / "mine_slices.csv.gz").query("members == 1")
    assert slices["psnr"].to_numpy() == pytest.approx((sum(expected) / 2).to_numpy(), abs=1e-5)

    part = tmp_path / "part" / folder.name  # without the ensemble, whose recorded run is to stay
    shutil.copytree(folder, part, ignore=shutil.ignore_patterns("*ensemble*"))
    table.assign(psnr=-1.0).to_csv(tmp_path / "recorded" / "mine_reconstruction.csv", index=False)
    assert record("mine", part.parent, "--add").exit_code == 0
    again = pd.read_csv(tmp_path / "recorded" / "mine_reconstruction.csv")
    assert again["psnr"].tolist() == pytest.approx([*table["psnr"][:2], -1.0]) and again["members"].tolist() == [1, 1, 2]
    slices_again = pd.read_csv(tmp_path / "recorded" / "mine_slices.csv.gz")
    assert slices_again.query("members == 1")["psnr"].tolist() == slices["psnr"].tolist() and (slices_again["members"] == 2).sum() == len(
        test
    )

    other = json.loads((folder / "default-iterations=4-batch_size=2-points-x4-seed0.json").read_text())
    results.write(folder / "default-iterations=4-batch_size=2-points-x4-seed0.json", {**other, "versions": "other"})
    refused = record("mine", tmp_path, "--masks", "default-*-ensemble2")
    assert refused.exit_code == 1 and "2 versions of the code" in refused.stderr


def test_segmentation(work, tmp_path):
    """Masks for the image and masks learnt through a network, with the network frozen and fine-tuned; recorded like the others."""
    generator = np.random.default_rng(1)
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[:, 8:20, 8:24] = 1
    (work / "labelled").mkdir()
    for i in range(6):
        np.savez(work / "labelled" / f"subject{i}.npz", images=labels + 0.3 * generator.random(labels.shape), labels=labels)
    data = load(work / "labelled", "train")
    learning, validation = data.hold_out(0.2)
    segmenter = segmentation.train(learning, validation, steps=20, channels=(4, 8, 16))
    segmenter.save(work / "net.pt")
    command = [sys.executable, "-m", "prom", "sweep", "segmentation", "--dataset", "labelled", "--network", "net.pt"]
    command += ["--accelerations", "4", "--output", os.path.relpath(tmp_path, work), "--jobs", "2"]
    through = ["task-polished:iterations=4,polish=3", "task-igs:per_round=64,batch_size=2", "task-paper:members=1,iterations=2"]
    for extra in (["--methods", "energy", *through], ["--methods", "energy", "--tuning-steps", "5"]):
        done = subprocess.run([*command, *extra], cwd=work, capture_output=True, text=True)
        assert done.returncode == 0 and "dice" in done.stdout, done.stderr
    (tmp_path / "recorded").mkdir()
    assert recorder(tmp_path / "recorded")("labelled", tmp_path).exit_code == 0
    table = pd.read_csv(tmp_path / "recorded" / "labelled_segmentation.csv").set_index(["method", "tuning_steps", "seed"]).sort_index()
    assert len(table) == 5 and table["network"].unique().tolist() == [segmentation.file_fingerprint(work / "net.pt")]

    test = load(work / "labelled", "test")
    mask = baselines.energy(data, 4)
    scores = segmentation.evaluate(segmenter, test, mask)
    frozen, tuned = table.loc[("energy", 0, 0)], table.loc[("energy", 5, 0)]
    assert frozen["dice"] == pytest.approx(scores["dice"].mean()) and frozen["psnr"] == pytest.approx(evaluate(mask, test)["psnr"].mean())
    assert frozen["train_loss"] == pytest.approx(segmentation.evaluate(segmenter, data, mask)["loss"].mean())
    assert tuned["psnr"] == frozen["psnr"] and tuned["train_loss"] < frozen["train_loss"]
    slices = pd.read_csv(tmp_path / "recorded" / "labelled_segmentation_slices.csv.gz").query("method == 'energy' and tuning_steps == 0")
    assert slices["dice"].to_numpy() == pytest.approx(scores["dice"].to_numpy(), abs=1e-5)

    image = results.make("polished:iterations=4,polish=3", data, 4).mask
    [polished] = [load_mask(path).mask for path in tmp_path.glob("*/task-polished*seed0.h5")]
    points = {"image": image, "default": results.make("default", data, 4).mask, "closed form": baselines.conjugate_energy(data, 4)}
    points["task"] = polished
    loss = {name: segmentation.evaluate(segmenter, data, chosen)["loss"].mean() for name, chosen in points.items()}
    assert loss["image"] > min(loss.values()) + 1e-6 and loss["task"] < min(loss.values()) + 1e-6  # it starts from the best of them
    task = segmenter.objective(data)
    lines = {"image": results.make("polished:iterations=4,polish=3", data, 4, "columns").mask}
    lines["greedy"] = rivals.igs(data, 4, "columns", objective=task, batch_size=results.TASK_SLICES // 2)
    lines["task"] = results.make("task-polished:iterations=4,polish=3", data, 4, "columns", task=task).mask
    loss = {name: segmentation.evaluate(segmenter, data, chosen)["loss"].mean() for name, chosen in lines.items()}
    assert abs(loss["greedy"] - loss["image"]) > 1e-6 and loss["task"] < min(loss["greedy"], loss["image"]) + 1e-6  # it starts from both
    with pytest.raises(InputError, match="name the network"):
        results.make("task-polished", data, 4)


@pytest.mark.parametrize("place", [{"network": "/home/me/net.pt"}, {"average": ["/scratch/a.h5", "/scratch/b.h5"]}, {"root": "/data/set"}])
def test_places_of_one_machine_are_not_recorded(tmp_path, place):
    folder = tmp_path / "one" / "reconstruction-mine-data-0-code-0"
    folder.mkdir(parents=True)
    named = {"dataset": "mine", "root": "", "options": {}, **place}
    results.write(folder / "a.json", {"command": shlex.join(["python", "-m", "prom.runs.notebook", json.dumps(named)])})
    (folder / "a.csv").write_text("subject,slice,psnr\n")
    done = recorder(tmp_path)("mine", tmp_path / "one")
    assert done.exit_code == 1 and "a place of this machine" in done.stderr and not list(tmp_path.glob("*.csv*"))


def test_subjects_keep_their_names_in_a_table_of_slices(tmp_path):
    """001 and 01 are two subjects, NA is one; and a record whose scores were not copied does not stop the table."""
    same = dict.fromkeys(sweep.SHARED_FIELDS, "x")
    record = {**same, **dict.fromkeys(sweep.IDENTIFYING_FIELDS, "y"), "seed": 0, "psnr": 30.0}
    for name in ("one", "lost"):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    pd.DataFrame({"subject": ["NA", "001", "01"], "slice": 0, "psnr": [20.0, 30.0, 40.0], "nmse": 1 / 3e5}).to_csv(
        tmp_path / "one.csv", index=False
    )
    plan = sweep.Sweep(tmp_path, "reconstruction", {"one": {}}, {"one": {**same, "seed": 0}})
    assert len(sweep.collect(plan)) == 1
    table = results.read(plan.slices)
    assert table["subject"].tolist() == ["NA", "001", "01"] and table["psnr"].tolist() == [20, 30, 40]
    assert table["nmse"].to_numpy() == pytest.approx(1 / 3e5, rel=1e-6)  # small scores keep their digits
