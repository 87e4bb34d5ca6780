"""Uniform random numbers, those of PyTorch, in less time."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.engine.device import compiles

STATE = 5056  # bytes of the state of PyTorch's generator on a CPU, as prom.engine.kernels.uniforms takes it apart


def uniform_numbers(generator: torch.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """``torch.rand``, of the device and dtype of ``like``. On a CPU the same numbers in less than half the time, where float32.

    >>> like = torch.empty(0)
    >>> torch.equal(uniform_numbers(torch.Generator().manual_seed(0), (20,), like), torch.rand(20, generator=torch.manual_seed(0)))
    True
    """
    state = generator.get_state() if compiles(like) else None
    if state is None or len(state) != STATE:
        return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    from prom.engine.kernels import flat, uniforms

    uniform = like.new_empty(shape)
    uniforms(state.numpy(), flat(uniform))
    generator.set_state(state)
    return uniform
