"""The store: the same data as in memory, keyed by everything it depends on, whole or not there, and small in memory."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import prom
from prom import InputError
from prom.datasets import cache
from prom.datasets.base import Part, Plan
from prom.show.views import look

ROOT = Path(__file__).parents[2]


def read_file(path: Path, labels: bool = True, offset: float = 0.0) -> Part:
    """One subject: five slices made from the number in its file."""
    generator = np.random.default_rng(int(path.read_text()))
    images = generator.random((5, 2, 16, 12), dtype=np.float32) + np.float32(offset)
    classes = generator.integers(0, 3, (5, 16, 12)).astype(np.uint8) if labels else None
    return Part(path, path.stem, images, range(5), classes, (1.5, 2.0), patient=path.stem[0])


def write_plan(folder: Path, count: int = 4, **options) -> Plan:
    folder.mkdir(exist_ok=True)
    files = []
    for number in range(count):
        files.append(folder / f"{'ab'[number % 2]}{number}.txt")
        if not files[-1].exists():  # another process may be reading it
            files[-1].write_text(str(number))
    return Plan("demo", "train", folder, files, partial(read_file, **options), files, options, source="made for a test")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))  # tests that clear leave the user's own cache alone
    return tmp_path / "cache"


def stores(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def forbidden(_):
    raise AssertionError("was read again")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_a_store_holds_what_is_read_into_memory(tmp_path, monkeypatch, lazy, labels):
    plan = write_plan(tmp_path / "data", labels=labels)
    expected = cache.read(plan, store=False)
    monkeypatch.setattr(cache, "IN_MEMORY", 0 if lazy else 2**29)
    for data in (cache.read(plan, store=True), cache.read(replace(plan, read=forbidden), store=True)):
        assert isinstance(data.images, cache.StoredRows) == lazy
        assert torch.equal(data.images[:], expected.images)
        assert data.labels is None if expected.labels is None else torch.equal(data.labels[:], expected.labels)
        for name in ("name", "split", "subjects", "slices", "label_names", "source", "spacing", "patients"):
            assert getattr(data, name) == getattr(expected, name), name
        assert data.known_fingerprint == expected.fingerprint() == replace(data).fingerprint()
        assert replace(data, images=data.images[:] + 1).fingerprint() != data.fingerprint()


@pytest.mark.slow
def test_several_processes_keep_the_order(tmp_path):
    plan = write_plan(tmp_path / "data", count=7)
    assert cache.read(plan, store=True, processes=2).fingerprint() == cache.read(plan, store=False).fingerprint()


@given(st.lists(st.integers(0, 9)), st.slices(10), st.lists(st.integers(0, 9), min_size=1))
def test_stored_rows_index_as_arrays_do(tmp_path_factory, chosen, some, several):
    array = np.arange(120, dtype=np.float32).reshape(10, 3, 4)
    path = tmp_path_factory.getbasetemp() / "rows.bin"
    array.tofile(path)
    rows = cache.StoredRows(path, "float32", array.shape)
    assert np.array_equal(rows[some], array[some]) and np.array_equal(rows[several], array[several])
    assert np.array_equal(rows.select(several)[:], array[several]) and np.array_equal(rows[several[0]], array[several[0]])
    assert rows.select(chosen).shape == (len(chosen), 3, 4) and len(list(rows)) == 10


def test_the_key_holds_all_that_matters_and_nothing_else(tmp_path, monkeypatch, cache_folder):
    plan = write_plan(tmp_path / "data")
    first = cache.read(plan, store=True).fingerprint()
    os.utime(plan.files[0])  # another time, the same content
    cache.read(replace(plan, read=forbidden), store=True)
    (tmp_path / "data").rename(tmp_path / "moved")
    cache.read(replace(write_plan(tmp_path / "moved"), read=forbidden), store=True)
    assert len(stores(cache_folder)) == 1

    with pytest.raises(AssertionError, match="read again"):
        cache.read(replace(write_plan(tmp_path / "moved"), read=forbidden, options={"offset": 1.0}), store=True)
    changed = write_plan(tmp_path / "moved")
    changed.files[1].write_text("9")  # one character for another: the same size
    assert cache.read(changed, store=True).fingerprint() != first
    monkeypatch.setattr(cache, "_code", lambda: "another version")
    with pytest.raises(AssertionError, match="read again"):
        cache.read(replace(changed, read=forbidden), store=True)
    assert len(stores(cache_folder)) == 2


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch, cache_folder):
    plan = write_plan(tmp_path / "data")

    def fails_late(path: Path) -> Part:
        if path == plan.files[-1]:
            raise InputError(f"{path}: is damaged")
        return read_file(path)

    with pytest.raises(InputError, match="is damaged"):
        cache.read(replace(plan, read=fails_late), store=True)
    assert stores(cache_folder) == []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(InputError, match="disk is full.*PROM_CACHE") as caught:
        cache.read(plan, store=True)
    assert stores(cache_folder) == [] and "\n" not in str(caught.value)


SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cache import read_file, write_plan
from prom.datasets import cache
from dataclasses import replace

def slow(path):
    Path(sys.argv[2], f"started-{path.stem}").touch()
    time.sleep(float(sys.argv[4]))
    return read_file(path)

plan = replace(write_plan(Path(sys.argv[1])), read=slow)
print(cache.read(plan, store=True).fingerprint())
"""


def start(data: Path, marks: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(data), str(marks), str(Path(__file__).parent), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_build_never_yields_a_store(tmp_path, cache_folder):
    plan = write_plan(tmp_path / "data")
    process = start(tmp_path / "data", tmp_path, 30)
    for _ in range(2400):
        if (tmp_path / "started-a0").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [name for name in stores(cache_folder) if not name.startswith(".building-")] == [] != stores(cache_folder)
    data = cache.read(plan, store=True)
    assert data.fingerprint() == cache.read(plan, store=False).fingerprint()
    assert len(stores(cache_folder)) == 1  # what was left of the killed build is gone


@pytest.mark.slow
def test_two_processes_at_once_make_one_store(tmp_path, cache_folder):
    expected = cache.read(write_plan(tmp_path / "data"), store=False).fingerprint()
    marks = [tmp_path / "first", tmp_path / "second"]
    for mark in marks:
        mark.mkdir()
    processes = [start(tmp_path / "data", mark, 0.3) for mark in marks]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [answer[0].strip() for answer in answers] == [expected] * 2, answers
    assert sorted(len(list(mark.iterdir())) for mark in marks) == [0, 4]  # the second waited and read nothing
    assert len(stores(cache_folder)) == 1


EDITS = {
    "edited": lambda path: path.write_text("9"),
    "replaced": lambda path: (path.with_suffix(".new").write_text("9"), os.replace(path.with_suffix(".new"), path)),
    "edited with its old time": lambda path: (path.write_text("9"), os.utime(path, ns=(0, 0))),
    "longer": lambda path: path.write_text("99"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", EDITS)
@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("old", [True, False])
def test_files_that_change_during_a_build_are_named_and_nothing_is_stored(tmp_path, cache_folder, how, when, old):
    plan = write_plan(tmp_path / "data")
    if old:
        for file in plan.files:
            os.utime(file, ns=(0, 0))
    victim = plan.files[1]

    def interfering(path: Path) -> Part:
        part = read_file(path)
        if path == plan.files[when]:
            EDITS[how](victim)
        return part

    with pytest.raises(InputError, match=r"b1.txt: (was changed while it was read|cannot be read)|No such file"):
        try:
            cache.read(replace(plan, read=interfering), store=True)
        except FileNotFoundError as error:  # a reader would have said it so
            raise InputError(str(error)) from error
    assert stores(cache_folder) == []
    victim.write_text("1")
    assert cache.read(plan, store=True).fingerprint() == cache.read(plan, store=False).fingerprint()


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path, monkeypatch):
    """The stamps are the same; a file that is as new as that is read again."""
    plan = write_plan(tmp_path / "data")
    now = time.time_ns()
    monkeypatch.setattr(cache, "_stamp", lambda file: [1, now, now, 7])
    first = cache.read(plan, store=True).fingerprint()
    plan.files[0].write_text("8")
    assert cache.read(plan, store=True).fingerprint() != first

    def interfering(path: Path) -> Part:
        plan.files[1].write_text("7")
        return read_file(path)

    with pytest.raises(InputError, match="b1.txt: was changed while it was read"):
        cache.read(replace(plan, read=interfering, options={"other": True}), store=True)


WORKERS = """
import os, sys, time
from pathlib import Path
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from test_cache import write_plan
from prom.datasets import cache

def slow(path):
    Path(sys.argv[1], f"worker-{os.getpid()}").touch()
    time.sleep(600)

class Unpickled:  # takes long as it is unpickled, as the import of a library does
    def __reduce__(self):
        return slow, (None,)

plan = replace(write_plan(Path(sys.argv[1], "data")), read=slow if sys.argv[3] == "read" else Unpickled())
cache.read(plan, store=True, processes=2)
"""


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
@pytest.mark.parametrize(
    ("sent", "when"), [(signal.SIGTERM, "read"), (signal.SIGKILL, "read"), (signal.SIGINT, "read"), (signal.SIGKILL, "start")]
)
def test_workers_end_with_their_parent(tmp_path, cache_folder, sent, when):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS, str(tmp_path), str(Path(__file__).parent), when],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        if len(workers := [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]) == 2:
            break
        time.sleep(0.1)
    assert len(workers) == 2 and all(map(runs, workers)) and process.pid not in workers
    process.send_signal(sent)
    process.wait(timeout=60)
    for _ in range(100):
        if not any(map(runs, workers)):
            break
        time.sleep(0.1)
    assert not any(map(runs, workers))


READER = """
import os, sys
from pathlib import Path
from prom.datasets import matlab, twix
os.environ["PYTHONPATH"] = sys.argv[1]  # of the program that uses the library
path = Path(sys.executable)  # any file
matlab.unpacked(path).__enter__() if sys.argv[2] == "scipy" else twix.lines(path)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
@pytest.mark.parametrize("library", ["scipy", "twixtools"])
def test_a_library_ends_with_the_process_that_reads_by_it(tmp_path, library):
    """Of the library there is a stand-in, which takes long. No temporary file stays."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / library).mkdir()
    stand_in = f"import os, time; open(f'{tmp_path}/worker-{{os.getpid()}}', 'w').close(); time.sleep(600)"
    (tmp_path / library / "__init__.py").write_text(stand_in)
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen([sys.executable, "-c", READER, str(tmp_path), library], env=environment)
    for _ in range(600):
        if worker := [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]:
            break
        time.sleep(0.1)
    assert runs(worker[0]) and process.pid != worker[0]
    process.kill()
    process.wait()
    for _ in range(20):
        if not runs(worker[0]):
            break
        time.sleep(0.1)
    assert not runs(worker[0]) and not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
def test_a_watching_thread_ends_a_worker_too(tmp_path):
    """Where the system has no signal for it: a process between this one and the worker is killed."""
    worker = "import time, sys; sys.platform = 'other'; from prom import workers; workers.end_with(int(sys.argv[1])); "
    worker += "print('ready', flush=True); time.sleep(600)"
    middle = "import os, subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], "
    middle += "stdout=subprocess.PIPE, text=True); p.stdout.readline(); print(p.pid, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", middle, worker], stdout=subprocess.PIPE, text=True)
    number = int(process.stdout.readline())
    assert runs(number)
    process.kill()
    process.wait()
    for _ in range(100):
        if not runs(number):
            break
        time.sleep(0.1)
    assert not runs(number)


def test_damaged_stores_are_refused(tmp_path, cache_folder):
    plan = write_plan(tmp_path / "data")
    cache.read(plan, store=True)
    [name] = stores(cache_folder)
    images = cache_folder / name / "images.bin"
    images.write_bytes(images.read_bytes()[:-4])
    with pytest.raises(InputError, match="images.bin has .* bytes.*--clear-cache"):
        cache.read(plan, store=True)
    (cache_folder / name / "index.json").write_text(json.dumps({"format": cache.FORMAT, "shape": "nonsense"}))
    with pytest.raises(InputError, match="is damaged"):
        cache.read(plan, store=True)


def test_clearing_removes_stores_and_nothing_else(tmp_path, cache_folder):
    plan = write_plan(tmp_path / "data")
    cache.read(plan, store=True)
    (cache_folder / ".building-0123-x").mkdir()
    (cache_folder / "mine").mkdir()
    (cache_folder / "mine" / "index.json").write_text("{}")
    assert len(cache.clear([])) == 2
    assert stores(cache_folder) == ["mine"] and plan.files[0].exists()


def test_where_stores_lie(tmp_path, monkeypatch):
    monkeypatch.delenv("PROM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    plan = write_plan(tmp_path / "data")
    cache.read(plan, store=True)
    assert len(stores(tmp_path / "data" / cache.FOLDER)) == 1
    assert len(cache.clear([tmp_path / "data"])) == 1
    monkeypatch.setattr(os, "access", lambda *_: False)  # shared data, read-only
    cache.read(plan, store=True)
    assert len(stores(tmp_path / "user" / "prom")) == 1


@pytest.mark.parametrize("change", ["shape", "dtype", "labels", "name"])
def test_parts_that_do_not_fit_are_named(tmp_path, change):
    plan = write_plan(tmp_path / "data")

    def odd(path: Path) -> Part:
        part = read_file(path)
        if path != plan.files[2]:
            return part
        return {
            "shape": lambda: replace(part, images=part.images[..., :8]),
            "dtype": lambda: replace(part, images=part.images.astype(np.complex64)),
            "labels": lambda: replace(part, labels=None),
            "name": lambda: replace(part, subject="a0"),
        }[change]()

    with pytest.raises(InputError, match=r"a0\.txt.*a2\.txt"):
        cache.read(replace(plan, read=odd), store=True)


def test_optimising_from_disk_gives_the_mask_of_memory(tmp_path, monkeypatch):
    """Bit for bit, and the scores too; a part of a store is selected without reading it."""
    plan = write_plan(tmp_path / "data", count=8)
    memory = cache.read(plan, store=False)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    stored = cache.read(plan, store=True)
    recipe = replace(prom.DEFAULT, iterations=30)
    masks = [prom.optimize(data, 4, recipe=recipe).mask for data in (memory, stored)]
    assert torch.equal(*masks)
    for convention in ("paper", "fastmri"):
        scores = [prom.evaluate(masks[0], data, convention) for data in (memory, stored)]
        assert scores[0].equals(scores[1])
    assert torch.equal(*(prom.baselines.energy(data, 4) for data in (memory, stored)))
    with monkeypatch.context() as context:
        context.setattr(cache.StoredRows, "_read", forbidden)
        parts = stored.hold_out(0.5)
    for mine, theirs in zip(parts, memory.hold_out(0.5), strict=True):
        assert mine.fingerprint() == theirs.fingerprint() and mine.patients == theirs.patients


def test_a_part_that_fits_into_memory_is_read(tmp_path, monkeypatch):
    """So that few slices of a large set are what the figures and chapters know."""
    plan = write_plan(tmp_path / "data", count=8)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    stored = cache.read(plan, store=True)
    monkeypatch.setattr(cache, "IN_MEMORY", 3 * stored.images[0].numel() * 4)
    assert isinstance(stored.select([0, 1, 5, 6]).images, cache.StoredRows)
    assert torch.equal(stored.select([6, 1, 4]).images, stored.images[[6, 1, 4]])
    view = look(stored, 2, torch.ones(stored.shape, dtype=torch.bool))
    torch.testing.assert_close(view.target, stored.images[2][0] / stored.images[2][0].max())


def test_hold_out_keeps_patients_together(tmp_path):
    data = cache.read(write_plan(tmp_path / "data", count=8), store=False)
    rest, held = data.hold_out(0.5)  # two patients, a and b, of four volumes each
    assert set(rest.patients) == {"a"} and set(held.patients) == {"b"} and held.split == "validation"
    with pytest.raises(InputError, match="validation 1.0"):
        data.hold_out(1.0)
    with pytest.raises(InputError, match="validation 0.9"):
        data.hold_out(0.9)


MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from dataclasses import replace
import prom, large_store
from prom.datasets import cache
cache.IN_MEMORY = 0
def use(slices):
    data = large_store.load(Path(sys.argv[1]), slices)
    prom.evaluate(prom.optimize(data, 8, recipe=replace(prom.DEFAULT, iterations=3)).mask, data.select(range(0, slices, 5)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

if sys.argv[3] == "make":
    large_store.load(Path(sys.argv[1]), 50), large_store.load(Path(sys.argv[1]), 200)
else:
    few = use(50)
    print(use(200) - few)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    """200 MiB of images after 50 MiB: kept in memory, with their k-space, they would need 600 MiB more."""
    for what in ("make", "use"):
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(ROOT / "benchmarks"), what]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
        assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150, done.stdout


def test_a_user_without_a_home_folder(tmp_path, monkeypatch):
    def none(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.user_folder() == tmp_path / "cache"  # PROM_CACHE
    monkeypatch.delenv("PROM_CACHE")
    assert cache.folder_for(tmp_path) == tmp_path / cache.FOLDER
    with pytest.raises(InputError, match="home folder: this user has none; .* PROM_CACHE"):
        cache.folder_for(tmp_path / "missing" / "data")


def test_a_fingerprint_that_was_written_down_ends_with_the_first_change():
    data = prom.SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    expected = data.fingerprint()
    assert data.knowing("0" * 16).fingerprint() == "0" * 16
    data.images[0, 0, 0, 0] += 1
    changed = data.fingerprint()
    assert changed not in ("0" * 16, expected) and changed == replace(data).fingerprint()
