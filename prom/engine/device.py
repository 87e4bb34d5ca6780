"""Where to compute."""

from __future__ import annotations

import re

import torch

from prom.errors import InputError


def choose_device(name: str | torch.device) -> torch.device:
    """The device called ``name``: "auto" is CUDA where there is one, else the CPU; or "cpu", "cuda", or "cuda:1" for the second GPU.

    Raises
    ------
    InputError
        Where it is any other, or a GPU that this machine does not have.

    >>> choose_device("cpu")
    device(type='cpu')
    >>> choose_device("mps")
    Traceback (most recent call last):
    prom.errors.InputError: device 'mps': must be auto, cpu, cuda, or cuda:N of GPU number N
    """
    text = str(name)
    found = re.fullmatch("cpu|auto|cuda(?::(0|[1-9][0-9]{0,3}))?", text)
    if found is None:
        raise InputError(f"device {text!r}: must be auto, cpu, cuda, or cuda:N of GPU number N")
    usable = torch.cuda.is_available()
    if text == "auto":
        return torch.device("cuda" if usable else "cpu")
    if text != "cpu" and not usable:
        raise InputError(f"device {text!r}: this machine has no usable CUDA device; use cpu or auto")
    if found[1] and int(found[1]) >= torch.cuda.device_count():
        raise InputError(f"device {text!r}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0; use cuda or auto")
    return torch.device(text)


def compiles(tensor: torch.Tensor) -> bool:
    """Whether the compiled passes of :mod:`prom.engine.kernels` work on a tensor: float32, on a CPU.

    >>> compiles(torch.ones(2)), compiles(torch.ones(2, dtype=torch.float64))
    (True, False)
    """
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def asynchronous(place: torch.Tensor | torch.device) -> bool:
    """Whether work there runs apart from the program, which waits for it where it reads a number: a GPU.

    >>> asynchronous(torch.ones(2))
    False
    """
    device = place.device if isinstance(place, torch.Tensor) else place
    return device.type == "cuda"


def named(device: str) -> str:
    """A device for records: of a GPU of this machine also what it is.

    >>> named("cpu")
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") and torch.cuda.is_available() else device
