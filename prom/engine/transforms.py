"""Fourier transforms of an array on a CPU in its own memory, for the compiled loops of :mod:`prom.engine.kernels`.

PyTorch allocates what each transform returns, plans every one again, and is called through Python, whose lock threads wait for. Of an
image of 256 x 256 that takes half as long as the transform itself. On Linux the functions of MKL, which PyTorch brings and calls, can be
found in its library and called without it: the same bits in less time (chapter 3). Elsewhere they are replaced by ones that call PyTorch.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

# Of MKL's mkl_dfti.h, of which a release changes no number.
COMPLEX, THREAD_LIMIT, NUMBER_OF_TRANSFORMS, INPUT_DISTANCE, OUTPUT_DISTANCE = 32, 27, 7, 14, 15
FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
Transform = tuple[int, int, int]  # addresses of C functions (handle, data), there and back, which return 0; and the handle


@cache
def plan(shape: tuple[int, ...], axes: int) -> Transform:
    """How to transform complex64 arrays of this shape along their last ``axes`` axes, as :func:`torch.fft.fftn` does, without any scale.

    Kept for good. Any thread may use it, and then works on its own.

    >>> from prom.engine.kernels import forward, pairs
    >>> data = torch.ones(2, 4, dtype=torch.complex64)
    >>> forward(plan((2, 4), axes=1), pairs(data))
    >>> data.real.tolist()
    [[4.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]]
    """
    library = _mkl()
    handle = None if library is None else _handle(library, shape, axes)
    if handle is None:
        return by_pytorch(shape, axes)
    functions = (ctypes.cast(part, ctypes.c_void_p).value for part in (library.DftiComputeForward, library.DftiComputeBackward))
    return *functions, handle


@cache
def _mkl() -> ctypes.CDLL | None:
    """PyTorch's library, where MKL's functions can be found in it and do what PyTorch does."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not torch.backends.mkl.is_available() or not path.exists():
        return None
    library = ctypes.CDLL(str(path))
    names = ("CreateDescriptor_s_md", "SetValue", "CommitDescriptor", "ComputeForward", "ComputeBackward")
    if not all(hasattr(library, f"Dfti{name}") for name in names):
        return None
    handle, data = _handle(library, (3, 4, 6), 2), torch.complex(*torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)))
    wanted = torch.fft.fft2(data)
    call = FUNCTION(ctypes.cast(library.DftiComputeForward, ctypes.c_void_p).value)
    return library if handle and call(handle, data.data_ptr()) == 0 and torch.allclose(data, wanted, atol=1e-4) else None


def _handle(library: ctypes.CDLL, shape: tuple[int, ...], axes: int) -> int | None:
    """A plan of MKL's; None where it makes none."""
    lengths, long = shape[len(shape) - axes :], ctypes.c_long
    handle, sizes = ctypes.c_void_p(), (long * axes)(*lengths)
    if library.DftiCreateDescriptor_s_md(ctypes.byref(handle), COMPLEX, long(axes), sizes):
        return None
    number, distance = math.prod(shape[: len(shape) - axes]), math.prod(lengths)
    settings = {THREAD_LIMIT: 1, NUMBER_OF_TRANSFORMS: number, INPUT_DISTANCE: distance, OUTPUT_DISTANCE: distance}
    failed = any(library.DftiSetValue(handle, name, long(value)) for name, value in settings.items())
    return None if failed or library.DftiCommitDescriptor(handle) else handle.value


_shapes: list[tuple[tuple[int, ...], int]] = []  # of the plans below, whose handle is the place here


def by_pytorch(shape: tuple[int, ...], axes: int) -> Transform:
    """The same :func:`plan` by PyTorch's own functions.

    >>> from prom.engine.kernels import backward, pairs
    >>> data = torch.ones(2, 2, dtype=torch.complex64)
    >>> backward(by_pytorch((2, 2), axes=2), pairs(data))
    >>> data.real.tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    _shapes.append((shape, axes))
    return *(ctypes.cast(part, ctypes.c_void_p).value for part in (_forward, _backward)), len(_shapes)


def _array(handle: int, address: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    shape, axes = _shapes[handle - 1]
    memory = (ctypes.c_float * (2 * math.prod(shape))).from_address(address)
    return torch.frombuffer(memory, dtype=torch.complex64).reshape(shape), tuple(range(-axes, 0))


def _function(transform: Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]) -> ctypes._CFuncPtr:
    """A C function that puts a transform of data, by their axes, in their place; 1 where that fails."""

    @FUNCTION
    def called(handle: int, address: int) -> int:
        try:
            data, axes = _array(handle, address)
            data.copy_(transform(data, axes))
        except Exception:  # which would end here unseen; the compiled loop raises one
            return 1
        return 0

    return called


_forward = _function(lambda data, axes: torch.fft.fftn(data, dim=axes))
_backward = _function(lambda data, axes: torch.fft.ifftn(data, dim=axes, norm="forward"))
