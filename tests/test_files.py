"""Output paths: what is no file is refused before anything is computed, links stay, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prom import InputError, files
from prom.files import atomic, check_writable

CALLS = {"check_writable": check_writable, "atomic": lambda path: atomic(path).__enter__()}


def write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


@pytest.fixture(params=CALLS)
def refused(request):
    """Both ways must refuse, in one line, and leave the folder as it is."""

    def check(path: Path, message: str) -> None:
        before = sorted(os.listdir(path.parent)) if os.path.isdir(path.parent) else None
        with pytest.raises(InputError, match=message) as caught:
            CALLS[request.param](path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert before is None or sorted(os.listdir(path.parent)) == before

    return check


def test_pipes_sockets_and_folders_are_refused(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    here = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    os.fchdir(here)
    os.close(here)
    for name in ("pipe", "socket", "folder"):
        (tmp_path / f"to-{name}").symlink_to(name)
        message = "is a folder" if name == "folder" else f"is no file, but a {name}"
        refused(tmp_path / name, message)
        refused(tmp_path / f"to-{name}", message)


def test_devices_are_refused(tmp_path, refused, monkeypatch):
    """No real one is touched: a file is taken for one."""
    (tmp_path / "disk").write_text("x")
    monkeypatch.setattr(files.stat, "S_ISREG", lambda mode: False)
    monkeypatch.setattr(files.stat, "S_IFMT", lambda mode: files.stat.S_IFBLK)
    refused(tmp_path / "disk", "is no file, but a device")
    assert (tmp_path / "disk").read_text() == "x"


def test_links_stay_and_their_target_is_replaced(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("old")
    (tmp_path / "link").symlink_to("other/file")
    (tmp_path / "new").symlink_to("other/second")
    (tmp_path / "chain").symlink_to("link")
    for link, target in (("link", "file"), ("new", "second"), ("chain", "file")):
        check_writable(tmp_path / link)
        write(tmp_path / link, link)
        assert (tmp_path / link).is_symlink() and (tmp_path / "other" / target).read_text() == link
    assert sorted(os.listdir(tmp_path / "other")) == ["file", "second"]


def test_links_that_lead_nowhere_are_refused(tmp_path, refused):
    (tmp_path / "dangling").symlink_to("missing/file")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "dangling", "a link to .*folder .*missing does not exist")
    refused(tmp_path / "loop", "leads back to itself|levels of symbolic links")


def test_files_that_may_not_be_written_to_are_refused(tmp_path, refused, monkeypatch):
    path = tmp_path / "kept.h5"
    path.write_text("old")
    path.chmod(0o444)
    asked = os.access
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file) != path and asked(file, mode))  # root may write anywhere
    refused(path, "may not be written to")
    assert path.read_text() == "old"


def test_names_as_long_as_the_file_system_allows(tmp_path, refused):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    for name in ("a" * (longest - 3) + ".h5", "a." + "b" * (longest - 2), "é" * (longest // 2 - 2) + ".h5"):
        check_writable(tmp_path / name)
        write(tmp_path / name, "done")
        assert (tmp_path / name).read_text() == "done"
        refused(tmp_path / f"{name}abc", "over .* bytes|too long")
    refused(tmp_path / "a\0b", "null")
    refused(Path("/".join([str(tmp_path), *["a" * 200] * 30])), "too long|does not exist")


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EFBIG, "ulimit"), (errno.EIO, "Input/output")])
def test_errors_of_the_system_are_one_line(tmp_path, number, message):
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match=f"file: cannot be written .*{message}"), atomic(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


LIMITED = """
import resource, torch, prom
from prom.baselines import as_result
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    as_result(torch.eye(64, dtype=torch.bool), "eye", 64).save("mask.h5")
except prom.InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "larger than the file system or 'ulimit -f' allows" in done.stdout and done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir()) and resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000


WRITER = "import sys, time; from prom.files import atomic\nwith atomic(sys.argv[1]): print('writing', flush=True); time.sleep(600)"


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".prom-file").write_text("not ours")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / f"{n}.h5")], stdout=subprocess.PIPE, text=True) for n in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "writing\n"
    dead, alive = writers
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert len(os.listdir(tmp_path)) == 3
    write(tmp_path / "file", "done")
    left = sorted(os.listdir(tmp_path))
    assert len(left) == 3 and f"-{alive.pid}-" in left[0] and left[1:] == [".prom-file", "file"]
    alive.terminate()
    alive.wait()


def test_only_temporary_files_that_are_certainly_left_over_are_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    ours, gone, old = files._machine(), process.pid, time.time() - 8 * 24 * 3600
    kept = [
        f".prom-{ours}-{os.getpid()}-abcd1234.h5",  # is being written
        f".prom-00000000-{gone}-abcd1234.h5",  # of another machine
        f".prom-{ours}-{gone}-abcd1234x",  # other names
        f"prom-{ours}-{gone}-abcd1234.h5",
        f".prom-{ours}-{gone}.h5",
        ".mask-abcd1234.h5",
    ]
    removed = [f".prom-{ours}-{gone}-abcd1234.h5", f".prom-{ours}-{gone}-abcd1234", f".prom-00000000-{gone}-abcd_234.h5"]
    for name in [*kept, *removed]:
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / removed[2], (old, old))
    os.utime(tmp_path / kept[-1], (old, old))
    (tmp_path / "target").write_text("x")
    (tmp_path / f".prom-{ours}-{gone}-linklink.h5").symlink_to("target")
    (tmp_path / f".prom-{ours}-{gone}-folderfo.h5").mkdir()
    write(tmp_path / "file", "done")
    assert set(os.listdir(tmp_path)) == {*kept, "target", "file", f".prom-{ours}-{gone}-linklink.h5", f".prom-{ours}-{gone}-folderfo.h5"}


def test_temporary_names_are_the_ones_that_are_looked_for(tmp_path):
    with atomic(tmp_path / "mask.h5") as temporary:
        assert re.fullmatch(rf"\.prom-{files._machine()}-{os.getpid()}-[a-z0-9_]{{8}}\.h5", temporary.name)
