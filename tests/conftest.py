"""Data that several test files need."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch

from prom import InputError, SliceDataset
from prom.cli import main
from prom.datasets import cache, folder

# Wall times vary on shared machines, and a test must fail for what it tests; the seed is fixed, so that a failure comes again.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

# Programs started in the background may find ^C ignored, and hand that on to those that they start: tests of ^C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What tests read from shared data is preprocessed once a run, and never beside those data. Workers of pytest-xdist inherit the folder.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of programs that tests start
else:
    os.environ["PROM_CACHE"] = tempfile.mkdtemp(prefix="prom-tests-")
    atexit.register(shutil.rmtree, os.environ["PROM_CACHE"], ignore_errors=True)

SHARED = Path(__file__).parents[2] / "shared" / "data"
LONGEST = ("test_book.py", "test_chapters.py", "test_sweep.py", "test_lab.py", "test_cache.py")  # minutes each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process of several still has one of them when the others have ended."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def load(path: Path, split: str = "all", **options) -> SliceDataset:
    """A folder or file of one's own images."""
    return cache.read(folder.plan(path, split, **options))


def error(*arguments, **keywords) -> str:
    """The message of the InputError of :func:`load`, which must be one line."""
    with pytest.raises(InputError) as caught:
        load(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A number of PyTorch's threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def command_line(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process, in ``tmp_path``: arguments to exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prom", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def acdc_root() -> Path:
    """The ACDC folder; the test skips where there is none."""
    if not (SHARED / "ACDC" / "database").is_dir():
        pytest.skip(f"no ACDC data beside the project ({SHARED.name}/ACDC)")
    return SHARED / "ACDC"


@pytest.fixture(scope="session")
def blobs() -> SliceDataset:
    """Twelve smooth 32 x 32 images, cheap and with the steep spectrum of real ones."""
    generator = torch.Generator().manual_seed(7)
    frequency = torch.fft.fftfreq(32)
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt()
    spectrum = torch.fft.fft2(torch.randn(12, 1, 32, 32, generator=generator)) / (radius + 0.02) ** 2
    images = torch.fft.ifft2(spectrum).real
    images = (images - images.amin((2, 3), keepdim=True)) / (images.amax((2, 3), keepdim=True) - images.amin((2, 3), keepdim=True))
    return SliceDataset("blobs", "train", images.float(), [str(i // 2) for i in range(12)], [i % 2 for i in range(12)])
