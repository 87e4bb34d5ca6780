"""Where to compute."""

from __future__ import annotations

import torch

from prom.errors import InputError


def choose_device(name: str | torch.device) -> torch.device:
    """The device called ``name``; "auto" is CUDA where there is one, else the CPU.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: must be auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r}: this machine has no usable CUDA device; use cpu or auto")
    return device


def named(device: str) -> str:
    """A device for records: of a GPU of this machine also what it is.

    >>> named("cpu")
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") and torch.cuda.is_available() else device
