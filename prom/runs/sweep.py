"""Many runs: planned here, carried out by Snakemake (``Snakefile``) on this machine or on a cluster, collected here.

One combination of data set, method, pattern, acceleration and seed is one papermill run of ``notebooks/reconstruction.ipynb`` (Table 1) or
``notebooks/segmentation.ipynb`` (Table 2) in a process of its own, and ends in one JSON record. Snakefile and notebooks come with the
package, and the extra ``sweep`` (``pip install 'prom-mri[sweep]'``) brings what runs them::

    prom sweep reconstruction --dataset acdc --root data/ACDC --methods energy default equispaced --patterns points columns \\
        --accelerations 4 8 16 32 --seeds 10 --jobs 2

Records lie in a folder whose name holds a key of the data and one of the code: of the notebook, the packages' versions, and the masks that
this installation makes of one small input (:mod:`prom.runs.golden`). No result is taken from a run with others of these, and every record
is checked against the sweep. You can interrupt a sweep and resume it with the same command.

On a SLURM cluster, where output, data and Python lie on a file system that all nodes share, every run is a job::

    prom sweep reconstruction --dataset acdc --root /shared/ACDC --seeds 10 --jobs 100 --executor slurm \\
        --snakemake "--default-resources slurm_partition=cpu slurm_account=mri runtime=60"

A job gets 4000 MB of memory; ``--set-resources run:mem_mb=16000`` among the options of Snakemake gives it more. Where the cluster keeps no
accounts, ``--slurm-status-command squeue`` among them is needed: ``sacct`` never reports there that a job has ended. ^C cancels the jobs;
those of a sweep that was killed go on: end them with ``scancel`` before it is started again, or both work.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TextIO

import pandas as pd
from tqdm import tqdm

from prom.datasets import REGISTRY, data_root, load
from prom.engine.optional import missing
from prom.errors import InputError, unknown
from prom.evaluation.segmentation import file_fingerprint
from prom.files import atomic
from prom.kspace import patterns
from prom.masks import versions
from prom.methods import named
from prom.options import FILES, check
from prom.runs import results
from prom.runs.records import other_recipe

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

HERE = Path(__file__).parent
SNAKEFILE = HERE / "Snakefile"
NOTEBOOKS = HERE / "notebooks"
PACKAGES = ("snakemake", "papermill", "ipykernel")  # of the extra "sweep"
LOG = "snakemake.log"
LONGEST_NAME = 220  # bytes of a run's name: file systems take 255, of which endings and the names of temporary files take some
SHARED_FIELDS = ("versions", "fingerprint_train", "fingerprint_test")  # in all records of a folder
IDENTIFYING_FIELDS = (
    "dataset",
    "method",
    "variant",
    "members",
    "pattern",
    "acceleration",
)  # all but the seed
SUMMARY = {"psnr": "psnr (dB)", "ssim": "ssim", "nmse": "nmse", "dice": "dice", "iou": "iou"}  # scores, and their headings


def check_possible(executor: str = "local") -> None:
    """Raise InputError where sweeps cannot run here.

    Raises
    ------
    InputError
        Where the system is no Unix, or a package of the extra ``sweep``, Snakemake's plugin for ``executor`` or SLURM is not installed.

    >>> check_possible("cloud")
    Traceback (most recent call last):
    prom.errors.InputError: executor cloud: needs the Python package snakemake_executor_plugin_cloud; the extra sweep brings local and slurm
    """
    if fcntl is None:
        raise InputError("sweep: needs a Unix, such as Linux, macOS or WSL, for its locks; elsewhere, run 'prom optimize' for each mask")
    for package in PACKAGES:
        if not find_spec(package):
            raise missing("sweeps", package, "sweep")
    if not re.fullmatch(r"[a-z0-9_-]+", executor):
        raise InputError(f"executor {executor!r}: must be a name such as local or slurm")
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor == "slurm" and find_spec(plugin) and not shutil.which("sbatch"):
        raise InputError("executor slurm: needs SLURM's command sbatch, which is not on the path; start the sweep where jobs are submitted")
    if executor != "local" and not find_spec(plugin):
        raise InputError(f"executor {executor}: needs the Python package {plugin}; the extra sweep brings local and slurm")


@dataclass(frozen=True)
class Sweep:
    """What is to be run.

    ``folder`` is where the records lie, ``runs`` the notebook's parameters of each run by the run's name, ``expected`` what the run's
    record must say, ``notebook`` what is run, ``left_out`` the combinations of method and pattern that do not exist.
    """

    folder: Path
    notebook: str
    runs: Mapping[str, dict[str, object]]
    expected: Mapping[str, dict[str, object]]
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def table(self) -> Path:
        """The csv file of all records."""
        return self.folder.parent / f"{self.folder.name}.csv"

    @property
    def slices(self) -> Path:
        """The csv file of the scores of every test slice."""
        return self.folder.parent / f"{self.folder.name}-slices.csv"

    def log(self, run: str) -> Path:
        """What a run has printed; its executed notebook lies beside it."""
        return self.folder / f"{run}.log"


def combinations(methods: Sequence[str], names: Sequence[str], accelerations: Sequence[float], seeds: int) -> Iterator[tuple]:
    """(method, pattern, acceleration, seed) of every run that makes sense: patterns a method can make, seeds where one matters.

    Raises
    ------
    InputError
        Where a method or pattern is not known, an acceleration is below 1, or nothing is left.

    >>> list(combinations(["energy", "equispaced"], ["points", "columns"], [8], seeds=2))[1:]
    [('energy', 'columns', 8.0, 0), ('equispaced', 'columns', 8.0, 0), ('equispaced', 'columns', 8.0, 1)]
    """
    for method in methods:
        results.recipe_of(method)  # or it raises the error
    for name in names:
        if name not in patterns.PATTERNS:
            raise unknown("pattern", name, patterns.PATTERNS)
    for acceleration in accelerations:
        if not 1 <= acceleration < float("inf"):
            raise InputError(f"acceleration {acceleration}: must be >= 1")
    check("seeds", seeds, "[1, 1e6]", whole=True)
    pairs = [pair for pair in product(dict.fromkeys(methods), dict.fromkeys(names)) if _possible(*pair)]
    if not pairs or not accelerations:
        raise InputError(f"nothing to run: {', '.join(methods)} cannot make {', '.join(names)} in a sweep; name another method or pattern")
    for (method, name), acceleration in product(pairs, dict.fromkeys(accelerations)):
        for seed in range(seeds if named(name_of(method)).random or "batch_size=" in method else 1):
            yield method, name, float(acceleration), seed


def name_of(method: str) -> str:
    """``gaussian`` of ``gaussian:sigma=35``, ``paper`` of ``task-paper:members=1``."""
    return method.removeprefix(results.TASK).partition(":")[0]


def _possible(method: str, pattern: str) -> bool:
    return pattern in named(name_of(method)).patterns


def plan(
    kind: str,
    dataset: str,
    methods: Sequence[str],
    names: Sequence[str],
    accelerations: Sequence[float],
    seeds: int = 1,
    root: str | None = None,
    options: Mapping[str, object] | None = None,
    ensembles: Sequence[str] = (),
    network: str | None = None,
    tuning_steps: int = 0,
    output: str | os.PathLike = "results/sweep",
) -> Sweep:
    """Plan the runs. Reads the data once, for their fingerprints.

    Parameters
    ----------
    kind
        The notebook in ``prom/runs/notebooks``: "reconstruction" or "segmentation".
    dataset, root, options
        As of :func:`prom.load`.
    methods
        Baselines and recipes, with options where wanted: see :func:`prom.runs.results.parse_method`.
    names
        Patterns.
    accelerations, seeds
        Every acceleration with every seed from 0 to ``seeds - 1``.
    ensembles
        Those of ``methods`` whose solutions of the first 2, 3, ... seeds are also averaged (Bayesian model averaging).
    network, tuning_steps
        Of a segmentation: the file of the network, which is frozen; steps of fine-tuning it to each mask before the scores are taken.
    output
        The folder that gets a folder of records and a table.

    Raises
    ------
    InputError
        Where something is not known or out of range, or the data cannot be read, or have coils.
    """
    kinds = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    if kind not in kinds:
        raise unknown("sweep", kind, kinds)
    wanted = list(combinations(methods, names, accelerations, seeds))
    through = kind == "segmentation"
    if through != bool(network):
        raise InputError(f"network {network}: a segmentation needs one, a reconstruction has none; 'prom segment train' makes one")
    for method in methods:
        if method.startswith(results.TASK) and not through:
            raise InputError(f"method {method}: is learnt through a network, and {kind} has none")
    check("tuning steps", tuning_steps, "[0, 1e9]", whole=True)
    if tuning_steps and not through:
        raise InputError(f"tuning steps {tuning_steps}: are of a network, and {kind} has none; leave them out")
    for method in ensembles:
        if method not in methods:
            raise unknown("ensemble", method, methods)
        recipe = results.recipe_of(method)
        if not recipe.get("members") or recipe.get("polish") or seeds < 2:
            raise InputError(f"ensemble {method}: needs a recipe of probabilities, which are not polished, and at least 2 seeds")

    of_network = {"network": file_fingerprint(network), "tuning_steps": tuning_steps} if through else {}
    train, test = (load(dataset, split, root, **(options or {})) for split in ("train", "test"))
    if test.coils > 1:
        way = "leave out what keeps them, or use 'prom evaluate --reconstruction sense' for each mask"
        raise InputError(
            f"{test.name}: has coils, and a sweep scores zero-filled images, by which masks for coils are ranked wrongly; {way}"
        )
    same = (
        dict(zip(SHARED_FIELDS, (json.dumps(versions(), sort_keys=True), train.fingerprint(), test.fingerprint()), strict=True))
        | of_network
    )
    patients = (repr(list(part.patients)) for part in (train, test) if part.patients)  # whom methods hold out
    data = _key(*(str(value) for name, value in same.items() if name != "versions"), *patients)
    code = _key(same["versions"], (NOTEBOOKS / f"{kind}.ipynb").read_text())
    folder = Path(output).resolve() / f"{kind}-{re.sub(r'[^A-Za-z0-9_]', '_', train.name)[:100]}-data-{data}-code-{code}"

    typed = {"dataset": dataset, "root": root or "", "options": dict(options or {})}
    place = _absolute(**typed)
    if through:
        typed |= {"network": network, "tuning_steps": tuning_steps}
        place |= {"network": str(Path(network).absolute()), "tuning_steps": tuning_steps}
    runs, expected = {}, {}
    averaged = [(*one, count) for one in wanted if one[0] in ensembles and one[-1] == 0 for count in range(2, seeds + 1)]
    for method, pattern, acceleration, seed, count in [*((*one, 1) for one in wanted), *averaged]:
        settings = {"method": method, "pattern": pattern, "acceleration": acceleration, "seed": seed}
        recipe = results.recipe_of(method)
        name = "-".join([re.sub(r"[:,]", "-", method), pattern, f"x{acceleration}".removesuffix(".0")])
        if count > 1:
            settings["average"] = [f"{name}-seed{member}.h5" for member in range(count)]
            recipe["members"] *= count
            name += f"-ensemble{count}"
        else:
            name += f"-seed{seed}"
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(f"method {method}: its options make too long a name for a file; set fewer, or run 'prom optimize'")
        elsewhere = {"average": [str(Path(output, folder.name, file)) for file in settings["average"]]} if count > 1 else {}
        again = ["python", "-m", "prom.runs.notebook", kind, "run.ipynb", "-y", json.dumps({**typed, **settings, **elsewhere})]
        runs[name] = {**place, **settings, "record": f"{name}.json", "command": shlex.join(again)}
        made = {"method": method.partition(":")[0], "variant": method.partition(":")[2], "recipe": json.dumps(recipe, sort_keys=True)}
        expected[name] = {"pattern": pattern, "acceleration": acceleration, "seed": seed, **made, **same}
    left_out = [pair for pair in product(dict.fromkeys(methods), dict.fromkeys(names)) if not _possible(*pair)]
    return Sweep(folder, kind, runs, expected, left_out)


def _key(*texts: str) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:16]


def _absolute(dataset: str, root: str, options: Mapping[str, object]) -> dict[str, object]:
    """Where the data lie, for runs that do not start in this folder."""
    # A link is not followed: what it leads to may have another ending. Nor is .. taken away, which behind a link is another folder.
    files = {name: str(Path(value).absolute()) for name, value in options.items() if name in FILES}
    if dataset not in REGISTRY:
        dataset, root = str(Path(dataset).absolute()), ""
    elif REGISTRY[dataset].FOLDER:
        root = str(Path(root or data_root(dataset)).absolute())
    return {"dataset": dataset, "root": root, "options": {**options, **files}}


def run(sweep: Sweep, jobs: int = 1, executor: str = "local", options: Sequence[str] = ()) -> dict[str, str]:
    """Carry out what has no record yet; returns the runs that failed, each with the last line it has printed.

    Parameters
    ----------
    sweep
        From :func:`plan`.
    jobs
        How many runs at a time. Each has one thread.
    executor
        "local", or what Snakemake has a plugin for: "slurm".
    options
        More options for Snakemake.

    Raises
    ------
    InputError
        Where :func:`check_possible` raises one, ``jobs`` is below 1, or the folder cannot be written to or has a name that SLURM misreads.
    """
    check("jobs", jobs, "[1, 1e6]", whole=True)
    check_possible(executor)
    if executor == "slurm" and "$" in str(sweep.folder):
        raise InputError(f"output {sweep.folder}: SLURM takes $ for the start of a variable; name another folder with --output")
    with _locked(sweep.folder) as lock:
        missing = sorted(set(sweep.runs) - set(records(sweep)))
        for name in missing:  # what an earlier try left would be taken for a result, or for the reason of a failure
            for file in (sweep.folder / f"{name}.json", sweep.log(name), *_job_logs(sweep, name)):
                file.unlink(missing_ok=True)
        if missing:
            with atomic(sweep.folder / "sweep.json") as temporary:
                own = {"python": sys.executable, "notebook": sweep.notebook, "runs": dict(sweep.runs)}
                temporary.write_text(json.dumps(own, indent=1))
            command = [sys.executable, "-m", "snakemake", "--snakefile", SNAKEFILE, "--directory", sweep.folder]
            command += ["--jobs", jobs, "--executor", executor, "--scheduler", "greedy", "--keep-going"]
            # A record is written in one step and was checked above: one that is there is good. Snakemake's lock would outlive a kill.
            command += ["--rerun-triggers", "mtime", "--ignore-incomplete", "--nolock", *options]
            cache = os.environ.get("PROM_CACHE")
            environment = os.environ | ({"PROM_CACHE": os.path.abspath(cache)} if cache else {})  # runs do not start in this folder
            with open(sweep.folder / LOG, "w") as output, tqdm(total=len(missing), desc="sweep", disable=None) as bar:
                # Snakemake inherits the lock, so that it is held until both have ended.
                process = subprocess.Popen(
                    [*map(str, command)],
                    env=environment,
                    pass_fds=[lock.fileno()],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=_interruptible,
                    start_new_session=executor != "local",  # a second ^C, from the terminal, would end the cancelling of jobs
                )
                lock.write(f"{process.pid} on {socket.gethostname()}")
                lock.flush()
                try:
                    while process.poll() is None:
                        bar.update(sum((sweep.folder / f"{name}.json").exists() for name in missing) - bar.n)
                        time.sleep(0.2)
                finally:
                    # Where ^C ended the loop: Snakemake finishes the current runs here and begins no more; jobs of a cluster it cancels.
                    process.send_signal(signal.SIGTERM if executor == "local" else signal.SIGINT)
        return {name: _reason(sweep, name) for name in sorted(set(sweep.runs) - set(records(sweep)))}


def _interruptible() -> None:
    """Of a sweep in the background too, which hands on that it ignores ^C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _locked(folder: Path) -> Iterator[TextIO]:
    """The open lock file of a folder of records, which is made where it does not exist. Waits for another sweep of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a+")  # noqa: SIM115, closed below; what stands in it is of the sweep that has it
    except OSError as error:
        raise InputError(f"output {folder}: cannot be written ({error.strerror}); name another folder with --output") from error
    with file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip()
                which = f" (Snakemake is process {holder}; kill -INT ends it)" if holder else ""
                print(f"another sweep is running in {folder}{which}; waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
        except OSError as error:
            reason = f"its file system has no locks ({error.strerror})"
            raise InputError(f"output {folder}: {reason}; name a folder on another with --output") from error
        yield file


def _reason(sweep: Sweep, name: str) -> str:
    if (sweep.folder / f"{name}.json").exists():
        return "its record is of other code or data; were they changed while it ran?"
    errors = [line for log in _job_logs(sweep, name) for line in _printed(log) if re.match(r"[\w-]+: error: ", line)]  # of SLURM
    limits = [line for line in errors if re.search("limit|oom|out of memory", line, re.I)]  # which the run itself knows nothing of
    told = limits or _printed(sweep.log(name)) or errors or _messages(sweep, name) or _printed(sweep.folder / LOG)
    return told[-1] if told else "ended without a message"


def _job_logs(sweep: Sweep, name: str) -> list[Path]:
    """Those of a cluster's jobs."""
    return sorted((sweep.folder / ".snakemake").glob(f"*_logs/rule_run/{glob.escape(name)}/*.log"), key=os.path.getmtime)


def _printed(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return [line.strip() for line in lines if line.strip()]


def _messages(sweep: Sweep, name: str) -> list[str]:
    """What Snakemake says of a run whose job never began, or was ended: its message stands before the run's output."""
    found, message = [], ""
    for line in _printed(sweep.folder / LOG):
        if line.startswith("message: "):
            message = line.removeprefix("message: ").partition("For further error details")[0]
        elif line == f"output: {name}.json" and message not in ("", "None"):
            found.append(message)
        if line.startswith("output: "):
            message = ""
    return found


def records(sweep: Sweep) -> dict[str, dict[str, object]]:
    """The records of this sweep that are there, by the run's name. One that does not say what the sweep expects is not among them."""
    found = {}
    for name, expected in sweep.expected.items():
        if expected.items() <= (record := _read(sweep.folder / f"{name}.json")).items() and (sweep.folder / f"{name}.csv").exists():
            found[name] = record
    averages = {name: run["average"] for name, run in sweep.runs.items() if "average" in run}
    while True:  # an average is made anew with any of its members, and needs the masks of all
        anew = [masks for name, masks in averages.items() if not {name, *(Path(mask).stem for mask in masks)} <= found.keys()]
        awaited = {mask for masks in anew for mask in masks}
        kept = {name: one for name, one in found.items() if f"{name}.h5" not in awaited or (sweep.folder / f"{name}.h5").exists()}
        if len(kept) == len(found):
            return found
        found = kept


def _read(path: Path) -> dict[str, object]:
    """A record; {} where there is none."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def collect(sweep: Sweep) -> pd.DataFrame:
    """The records of the sweep as a table, one row a run.

    The csv file ``sweep.table``, written in one step, has them together with those that earlier sweeps of the same data and code left
    in the folder; ``sweep.slices`` has the scores of every test slice, averaged over seeds.
    """
    found = records(sweep)
    same = {name: next(iter(sweep.expected.values()))[name] for name in SHARED_FIELDS}
    others = {path.stem: _read(path) for path in sorted(sweep.folder.glob("*.json")) if path.stem not in sweep.runs}
    others = {
        name: record
        for name, record in others.items()
        if same.items() <= record.items()
        and (sweep.folder / f"{name}.csv").exists()  # else it was not copied as a whole
        and not other_recipe(record)
    }
    if found:
        everything = {**others, **found}
        with atomic(sweep.table) as temporary:
            pd.DataFrame(list(everything.values())).to_csv(temporary, index=False)
        slices = pd.concat(_slices(sweep.folder / f"{name}.csv", record) for name, record in everything.items())
        keys = ["subject", "slice", *IDENTIFYING_FIELDS]
        with atomic(sweep.slices) as temporary:
            means = slices.groupby(keys, sort=False).mean().map(lambda score: float(f"{score:.7g}"))  # an NMSE may be 1e-6
            means.reset_index().to_csv(temporary, index=False)
    return pd.DataFrame(list(found.values()))


def _slices(path: Path, record: Mapping[str, object]) -> pd.DataFrame:
    """The scores of the test slices of a run, with what distinguishes it from other runs, except the seed."""
    return results.read(path).assign(**{name: record[name] for name in IDENTIFYING_FIELDS})


def summary(table: pd.DataFrame) -> str:
    """Means over seeds in the order of the runs, and how far the PSNR varies with the seed.

    >>> one = {"method": "energy", "variant": "", "members": 1, "pattern": "points", "acceleration": 8.0}
    >>> one |= {"psnr": 30.0, "ssim": 0.9, "nmse": 0.01}
    >>> print(summary(pd.DataFrame([one, {**one, "psnr": 32.0}])))
    method pattern acceleration  runs psnr (dB)   +-  ssim  nmse
    energy  points            8     2     31.00 1.00 0.900 0.010
    """
    named = table["method"] + (":" + table["variant"]).where(table["variant"] != "", "")
    named += (", mean of " + table["members"].astype(str)).where(table["members"] > 1, "")
    groups = table.assign(method=named).groupby(["method", "pattern", "acceleration"], sort=False)
    scores = [name for name in SUMMARY if name in table]
    rows = groups[scores].mean()
    rows.insert(0, "runs", groups.size())
    rows.insert(2, "+-", groups[scores[0]].std(ddof=0))
    rows = rows.rename(columns=SUMMARY).reset_index()
    formats = {"acceleration": "{:g}", "psnr (dB)": "{:.2f}", "+-": "{:.2f}", **dict.fromkeys(("ssim", "nmse", "dice", "iou"), "{:.3f}")}
    return rows.to_string(index=False, formatters={name: form.format for name, form in formats.items()})
