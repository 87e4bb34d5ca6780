"""Several processes make the mask that one process makes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import prom
from prom import InputError, cli
from prom.engine import distributed

pytestmark = pytest.mark.slow

OPTIONS = ("--acceleration", "6", "--seed", "3", "--iterations", "15")


@pytest.fixture(scope="module")
def images(tmp_path_factory, blobs) -> str:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, blobs.images[:, 0].numpy())
    return str(path)


def together(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "prom", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("recipe", ["default", "paper", "polished"])
def test_two_processes_make_the_mask_of_one(tmp_path, images, recipe, monkeypatch):
    """theta differs by the order of summation: by less than a thousandth of a step's length."""
    ask = ("optimize", images, *OPTIONS, "--recipe", recipe, "--members", "1", "--json")
    monkeypatch.setattr(sys, "argv", ["prom", *ask, "-o", str(tmp_path / "one.h5")])
    cli.main()
    said = together(2, *ask, "-o", str(tmp_path / "two.h5"))
    assert said.returncode == 0, said.stderr
    assert len([line for line in said.stdout.splitlines() if line.startswith("{")]) == 1, "one process speaks"
    assert json.loads(said.stdout.splitlines()[-1])["samples"] == 1024 // 6
    one, two = (prom.load_mask(tmp_path / name) for name in ("one.h5", "two.h5"))
    assert float((one.theta - two.theta).abs().max()) < 1e-5
    assert (one.mask != two.mask).sum() <= 2


def test_more_processes_than_images_are_refused(tmp_path, blobs):
    np.save(tmp_path / "few.npy", blobs.images[:2, 0].numpy())
    said = together(3, "optimize", str(tmp_path / "few.npy"), *OPTIONS, "-o", str(tmp_path / "mask.h5"))
    assert said.returncode != 0 and "prom: 3 processes: a batch has 2 images; start no more than one process for each" in said.stderr
    assert not (tmp_path / "mask.h5").exists()


def test_a_number_of_processes_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(InputError, match="WORLD_SIZE x: must be a whole number"), distributed.group():
        pass
    for name, value in {"MASTER_ADDR": "localhost", "WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    for name, value in (
        ("WORLD_SIZE", "0"),
        ("RANK", "x"),
        ("RANK", "2"),
        ("RANK", "-1"),
        ("MASTER_PORT", "abc"),
        ("MASTER_PORT", "65536"),
    ):
        with monkeypatch.context() as changed, pytest.raises(InputError, match=f"^{name} {value}: must be a whole number"):
            changed.setenv(name, value)
            with distributed.group():
                pass


def test_more_processes_than_gpus_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="LOCAL_RANK 1: this machine has GPUs for 1 of its processes; start no more"), distributed.group():
        pass


def test_a_number_of_processes_without_their_addresses_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE 2: is set without RANK, MASTER_ADDR, MASTER_PORT"), distributed.group():
        pass
