"""What every objective computes: the loss of masks on its images, and its gradient with respect to the masks.

An objective takes the indices of B images and masks: M masks that every image gets ("one mask shared by the batch" where M is
1), or M masks for each image ("L samples" of Algorithm 1). Either way its result is the mean over B x M pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from prom.engine import distributed
from prom.engine.device import asynchronous
from prom.errors import InputError
from prom.objectives.measurements import TRANSFORM_CHUNK, Measurements

GRAPH_CHUNK = 8  # images that autograd works on at once over the whole set: on a CPU more of them take longer each
GRAPH_CHUNK_GPU = 64  # and on a GPU, which 8 do not fill

ImageCriterion = Callable[[Tensor, Tensor], Tensor]


def name_of(function: Callable) -> str:
    """What records call a function of one's own, or an object that can be called: its name, or its type's.

    >>> name_of(len), name_of([].append), name_of(torch.nn.MSELoss())
    ('len', 'method append', 'MSELoss')
    """
    if isinstance(function, torch.jit.ScriptFunction):
        return function.name
    function = inspect.unwrap(getattr(function, "_orig_mod", function))  # of torch.compile
    owner = getattr(function, "__self__", None)
    of_object = owner is not None and not inspect.ismodule(owner) and not isinstance(owner, type)
    if type(function).__name__ == "ScriptMethod" or (of_object and (inspect.ismethod(function) or inspect.isbuiltin(function))):
        return f"method {getattr(function, '__name__', getattr(function, 'name', ''))}"  # two objects of one class may differ
    return getattr(function, "__name__", getattr(function, "original_name", type(function).__name__))


def check_masks(masks: Tensor, samples: Sequence[int], images: int) -> None:
    """Refuse masks that are not M for samples of this shape, or M for each of so many images: compiled loops believe what they get.

    >>> check_masks(torch.ones(1, 4, 4), (4, 4), images=2)
    >>> check_masks(torch.ones(3, 1, 4, 4), (4, 4), images=2)
    Traceback (most recent call last):
    prom.errors.InputError: masks of (3, 1, 4, 4): for 2 images; give each of them as many masks, one at least
    """
    shape, samples = tuple(masks.shape), tuple(samples)
    if shape[-len(samples) :] != samples or masks.ndim not in (len(samples) + 1, len(samples) + 2):
        raise InputError(f"masks of {shape}: must be (M, ...) or (B, M, ...) of {samples}, as the images")
    if not masks.is_floating_point():
        raise InputError(f"masks of type {masks.dtype}: must be floating point, as their gradient is; use masks.float()")
    if 0 in (*shape, images) or (masks.ndim == len(samples) + 2 and shape[0] != images):
        raise InputError(f"masks of {shape}: for {images} images; give each of them as many masks, one at least")


def check_targets(targets: Tensor | None, images: int) -> Tensor | None:
    """The targets, of which there must be one for each image.

    >>> check_targets(torch.ones(2, 4, 4), images=3)
    Traceback (most recent call last):
    prom.errors.InputError: targets: are 2, for 3 images; give one for each
    """
    if targets is not None and not (isinstance(targets, Tensor) and targets.ndim):
        raise InputError(f"targets of type {type(targets).__name__}: must be a tensor, with one for each image")
    if targets is not None and len(targets) != images:
        raise InputError(f"targets: are {len(targets)}, for {images} images; give one for each")
    return targets


def scalar(loss: Tensor, slope: bool = False) -> Tensor:
    """What a criterion returned, which must be one real number; where a gradient is wanted (``slope``), one that has it.

    >>> scalar(torch.ones(3))
    Traceback (most recent call last):
    prom.errors.InputError: criterion: returned a tensor of (3,), torch.float32; must return a scalar tensor, real, the mean over images
    """
    if isinstance(loss, Tensor) and not loss.ndim and slope and not loss.requires_grad:
        raise _without_gradient()
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        what = f"a tensor of {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"criterion: returned {what}; must return a scalar tensor, real, the mean over images")
    return loss


def slope_of(loss: Tensor, at: Tensor) -> Tensor:
    """The gradient of what a criterion returned.

    >>> at, weight = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    >>> slope_of((at.detach() * weight).sum(), at)
    Traceback (most recent call last):
    prom.errors.InputError: criterion: its result has no gradient; compute it by operations of PyTorch alone, without detach or counting
    """
    (found,) = torch.autograd.grad(loss, at, allow_unused=True)
    if found is None:  # of its own weights it may have one
        raise _without_gradient()
    return found


def _without_gradient() -> InputError:
    return InputError("criterion: its result has no gradient; compute it by operations of PyTorch alone, without detach or counting")


def real(masks: Tensor) -> Tensor:
    """Masks of whole numbers, or of true and false, as floats; others stay for :func:`check_masks`."""
    return masks if masks.is_floating_point() or masks.is_complex() else masks.float()


class Objective:
    """What a mask is optimised for. One of your own has ``data`` and :meth:`loss_and_gradient`; the rest may stay as it is here.

    Attributes
    ----------
    data
        The images.
    concurrent
        Whether several threads may call it at once.
    replayable
        Whether a GPU may record a call and replay it with other numbers (:mod:`prom.engine.replay`).
    loss_unit
        What a loss has to be multiplied by to be in the square of the images' unit.

    >>> class Distance(Objective):
    ...     "Of the masks from one that we like."
    ...
    ...     data = Measurements(torch.rand(2, 1, 4, 4))
    ...
    ...     def loss_and_gradient(self, indices, masks):
    ...         return (masks - torch.eye(4)).square().sum(), 2 * (masks - torch.eye(4))
    >>> Distance().loss([0], torch.ones(1, 4, 4)), Distance().curvature(), Distance().describe()
    (tensor(12.), None, {'objective': 'Distance'})
    """

    data: Measurements
    concurrent = False
    replayable = False
    loss_unit = 1.0

    def loss_and_gradient(self, indices: Sequence[int] | Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over all pairs, and its gradient with respect to the masks, ``(M, H, W)`` or ``(B, M, H, W)`` float."""
        raise NotImplementedError

    def loss(self, indices: Sequence[int] | Tensor, masks: Tensor) -> Tensor:
        """The loss by itself, where that is less work."""
        return self.loss_and_gradient(indices, masks)[0]

    def curvature(self) -> Tensor | None:
        """``(H, W)``: the second derivative of the mean loss by each sample, for recipes that use it; None where it is not known."""
        return None

    def describe(self) -> dict[str, str]:
        """The objective in a mask's provenance: masks whose descriptions differ are not averaged."""
        return {"objective": type(self).__name__}


def whole_set(objective: Objective, indices: range | list[int], mask: Tensor) -> tuple[float, Tensor]:
    """Mean loss of one float mask ``(H, W)`` over many images, and its gradient ``(H, W)``, a piece at a time to bound the memory.

    >>> from prom.objectives import MagnitudeMSE
    >>> objective = MagnitudeMSE(torch.rand(40, 1, 8, 8))
    >>> loss, gradient = whole_set(objective, range(40), torch.ones(8, 8))
    >>> loss < 1e-10, gradient.shape
    (True, torch.Size([8, 8]))
    """
    loss, gradient = mask.new_zeros((), dtype=torch.float64), torch.zeros_like(mask, dtype=torch.float64)
    for chunk, share in _pieces(objective, indices, mask):
        chunk_loss, chunk_gradient = objective.loss_and_gradient(chunk, mask[None])
        loss += chunk_loss * share
        gradient += chunk_gradient[0] * share
    loss, gradient = distributed.total(loss, gradient)
    return float(loss), gradient.to(mask.dtype)


@torch.no_grad()
def whole_loss(objective: Objective, indices: range | list[int], mask: Tensor) -> float:
    """The same without the gradient, in less time where the objective can do without.

    >>> from prom.objectives import ImageLoss
    >>> objective = ImageLoss(torch.rand(40, 1, 8, 8), torch.nn.functional.l1_loss)
    >>> abs(whole_loss(objective, range(40), torch.ones(8, 8)) - whole_set(objective, range(40), torch.ones(8, 8))[0]) < 1e-7
    True
    """
    loss = mask.new_zeros((), dtype=torch.float64)
    for chunk, share in _pieces(objective, indices, mask):
        loss += objective.loss(chunk, mask[None]) * share
    return float(distributed.total(loss)[0])


def _pieces(objective: Objective, indices: range | list[int], mask: Tensor) -> Iterator[tuple[range | list[int], float]]:
    """The images of this process that are looked at together, and their share of all."""
    size = TRANSFORM_CHUNK if objective.concurrent else GRAPH_CHUNK_GPU if asynchronous(mask) else GRAPH_CHUNK
    for start in distributed.share(range(0, len(indices), size)):
        chunk = indices[start : start + size]
        yield chunk, len(chunk) / len(indices)
