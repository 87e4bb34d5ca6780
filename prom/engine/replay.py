"""On a GPU: the many small operations of an iteration recorded once, and launched as one after that."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EAGER = 3  # calls before the recording: plans of transforms and memory that lasts are made in the first ones


def replayed(function: Callable[..., tuple[Tensor, ...]], generator: torch.Generator, may: bool) -> Callable[..., tuple[Tensor, ...]]:
    """The function, replayed where the generator's device can do that and ``may`` allows it."""
    return Replayed(function, generator) if may and generator.device.type == "cuda" else function


class Replayed:
    """A function of tensors and numbers, called as it is at first, then recorded as a CUDA graph, which is replayed in later calls.

    An iteration of scale-invariant ProM has many operations, most of which end before the next is launched. What the function
    keeps between calls must stay where it is in memory and change there; numbers reach it as scalar tensors from the recording on; and
    it may not look at any value on its way.

    Parameters
    ----------
    function
        From tensors and numbers to a tuple of tensors.
    generator
        What it draws from: every replay goes on with its numbers.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], generator: torch.Generator) -> None:
        self.function, self.generator = function, generator
        self.calls, self.graph = 0, None

    def __call__(self, *given: Tensor | float) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls <= EAGER:
            return self.function(*given)
        if self.graph is None:
            self._record(given)
        for own, new in zip(self.inputs, given, strict=True):
            own.copy_(new) if isinstance(new, Tensor) else own.fill_(new)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)

    def _record(self, given: tuple[Tensor | float, ...]) -> None:
        scalar = torch.empty((), dtype=torch.float64, device=self.generator.device)
        self.inputs = [torch.empty_like(new if isinstance(new, Tensor) else scalar) for new in given]
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        with torch.cuda.graph(self.graph):
            self.outputs = self.function(*self.inputs)
