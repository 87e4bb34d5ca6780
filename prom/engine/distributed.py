"""Several processes, one optimisation: each takes its share of every batch, and what they add up is no larger than a mask.

Started by ``torchrun --nproc-per-node 2 -m prom optimize ...``, or by any program that has called
``torch.distributed.init_process_group``. Every process draws the same batches and masks from the same seed; without a group, all of this
does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from prom.errors import InputError

Item = TypeVar("Item")


def size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of ``items``: every ``size()``-th.

    >>> share([3, 1, 2])    # one process alone has them all
    [3, 1, 2]
    """
    return items[rank() :: size()]


def total(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sums over all processes, in one exchange. All tensors have one dtype and device.

    >>> total(torch.tensor(2.0), torch.ones(2))
    (tensor(2.), tensor([1., 1.]))
    """
    if size() == 1:
        return tensors
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(joined)
    parts = joined.split([tensor.numel() for tensor in tensors])
    return tuple(part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


@contextmanager
def group() -> Iterator[None]:
    """The group of processes that ``torchrun`` has started, one on each GPU where there are GPUs; nothing for a single process."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or not int(size):
        raise InputError(f"WORLD_SIZE {size}: must be a whole number above 0; start with torchrun, or unset it")
    if int(size) == 1:
        yield
        return
    ends = {"RANK": int(size), "MASTER_ADDR": None, "MASTER_PORT": 65536}  # of what must be numbers
    if torch.cuda.is_available():
        ends["LOCAL_RANK"] = int(size)
    if missing := [name for name in ends if not os.environ.get(name)]:
        raise InputError(f"WORLD_SIZE {size}: is set without {', '.join(missing)}; start with torchrun, or unset it")
    for name, end in ends.items():
        value = os.environ[name]
        if end is not None and not (value.isdecimal() and int(value) < end):
            raise InputError(f"{name} {value}: must be a whole number from 0 to {end - 1}; start with torchrun, or unset WORLD_SIZE")
    if torch.cuda.is_available():
        if int(os.environ["LOCAL_RANK"]) >= (gpus := torch.cuda.device_count()):
            ways = f"start no more processes (--nproc-per-node {gpus}), or hide the GPUs (CUDA_VISIBLE_DEVICES=)"
            raise InputError(f"LOCAL_RANK {os.environ['LOCAL_RANK']}: this machine has GPUs for {gpus} of its processes; {ways}")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
