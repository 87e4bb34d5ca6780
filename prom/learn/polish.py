"""Discrete polishing: swap samples of a mask for others, and keep a swap only where the loss over the whole training set falls."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from prom import objectives, options
from prom.datasets.base import SliceDataset
from prom.engine.threads import spread
from prom.kspace.fourier import opposite
from prom.learn.start import mean_power
from prom.masks import as_mask
from prom.masks.demands import Demands
from prom.objectives import evenly, whole_loss, whole_set
from prom.objectives.curvature import measure_scale
from prom.problem import Problem, as_dataset
from prom.reconstruction.zero_filled import Reconstruction

RELATIVE_TOLERANCE = 1e-6  # relative; a smaller fall is rounding of the float32 sums


@spread()
def polish(
    mask: Tensor,
    train: SliceDataset,
    pattern: str = "points",
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    evaluations: int = 45,
    exhaustive: bool = False,
    device: str | torch.device = "auto",
    slices: int | None = None,
    hold_out: float = 0.0,
    reconstruction: str | Reconstruction | None = None,
    demands: Demands | None = None,
) -> Tensor:
    r"""Improve a mask by swapping its worst samples for the best of the others. The loss never rises, the number of samples never changes.

    First, where the images are real, every conjugate pair with one selected sample takes the partner on one side of k-space, if the loss
    falls by it. Both partners are worth the same alone, so that an optimiser leaves the choice to chance; together they can be worth more
    when all come from one side (chapter 4). No single swap gets there.

    With g and h the first and second derivative of the loss over all training images, to second order

    .. math:: \Delta L(\text{remove } i) = -g_i + h_i / 2, \qquad \Delta L(\text{add } j) = g_j + h_j / 2.

    The n best removals and the n best additions whose sum is negative are carried out together, no two of the removals, and no two of the
    additions, conjugate partners: in real images their effects are not independent. If the loss truly falls, they are kept and n doubles;
    else they are taken back and n is halved. Below two swaps at a time, the next best single swaps are tried in turn, as long as a fall is
    predicted.

    h is the objective's own curvature; where it has none, it is taken as proportional to the mean power spectrum (which it is, phases
    averaged out, where the loss of a pixel is twice differentiable), and one evaluation without the weakest samples gives the factor.
    Without h the search would drop the lowest frequencies: their gradient is the largest.

    The prediction holds near a sensible mask. Start from one that has the centre of k-space: without it the phase of the reconstruction
    is far from the image's, and the derivatives are of no use.

    Parameters
    ----------
    mask
        ``(H, W)`` bool, centred; of whole columns or rows where ``pattern`` says so.
    train
        The slices that the loss is the mean over, in every evaluation: all of them, or ``slices``.
    pattern
        "points", "columns" or "rows": what is swapped.
    objective
        "magnitude_mse", a function ``(x_hat, x) -> mean loss`` of two ``(P, C, H, W)`` batches, or an
        :class:`prom.objectives.Objective` that has been made of these data.
    evaluations
        At most this many losses with gradient over the whole set.
    exhaustive
        Go on with single swaps that are predicted not to help, until none is left or the evaluations are used up. With enough of them
        (S (D - S) after the last success) no single swap improves the result.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.
    slices
        At most so many slices, evenly spaced, are used; by default all.
    hold_out
        A share of the patients (:meth:`prom.SliceDataset.hold_out`) that is not among them, and whose loss must fall as well for a swap
        to be kept. Of use where the loss is that of a network: what suits the slices at hand need not suit other patients, all the
        less if the network was trained on them (chapter 5).
    reconstruction
        What makes the image, as for :func:`prom.optimize`; by name it is made for this mask.
    demands
        Which the mask meets, and still meets in the end: a swap that would break them is not tried.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, as many True as in ``mask``. The same input on the same machine gives the same bits: nothing is random.

    Raises
    ------
    InputError
        Where the mask does not fit the data, is not made of whole lines or does not meet the demands, or a name or a number cannot be
        used.

    >>> from prom import baselines
    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), list("abcd"), [0] * 4)
    >>> start = baselines.energy(data, acceleration=4)
    >>> better = polish(start, data)
    >>> int(start.sum()), int(better.sum())
    (16, 16)
    """
    train, demands = as_dataset(train), Demands.of(demands, {})
    options.check("evaluations", evaluations, "[1, 1e9]", whole=True)
    options.check("slices", 1 if slices is None else slices, "[1, 1e9]", whole=True)
    options.check("hold_out", hold_out, "[0, 1)")
    mask = as_mask(mask, train.grid, train.name)
    problem = Problem.around(mask, train, pattern, objective, device, reconstruction, demands)
    return improve(mask, problem, evaluations, exhaustive, slices, hold_out)


@spread()
def improve(
    mask: Tensor, problem: Problem, evaluations: int, exhaustive: bool = False, slices: int | None = None, hold_out: float = 0.0
) -> Tensor:
    """:func:`polish`, for a problem that has been made already."""
    train, pattern, objective, device, feasible = problem.data, problem.pattern, problem.objective, problem.device, problem.feasible
    selected = pattern.select(mask).to(device)
    mandatory, forbidden = (None if part is None else part.to(device) for part in (feasible.mandatory, feasible.forbidden))
    chosen, held = split_slices(train, slices, hold_out)
    bar = tqdm(total=evaluations, desc=f"polish {train.name}", disable=None, leave=False)
    left = evaluations

    def evaluate(candidate: Tensor) -> tuple[float, Tensor]:
        nonlocal left
        left -= 1
        bar.update()
        loss, gradient = whole_set(objective, chosen, pattern.forward(candidate.float()))
        return loss, pattern.adjoint(gradient)

    loss, gradient = evaluate(selected)
    curvature = objective.curvature()
    if curvature is not None:
        curvature = pattern.adjoint(curvature)
    else:
        curvature = pattern.adjoint(mean_power(train, device))
        if left and selected.any():
            curvature = curvature * measure_scale(evaluate, selected, loss, gradient, curvature)
    # For every parameter the index of the one at the opposite frequency; DC's own, and that of a Nyquist frequency, is itself.
    index = torch.arange(pattern.size, device=device).reshape(pattern.shape)
    partners = opposite(index, range(int(pattern.apart), index.ndim)).flatten()
    others = whole_loss(objective, held, pattern.forward(selected.float())) if held else None

    def improves(candidate: Tensor) -> bool:
        """Go on from this mask if it is better, and return whether it is."""
        nonlocal selected, loss, gradient, others
        if not feasible.plain and (candidate.equal(selected) or not feasible.admits(candidate)):
            return False
        new_loss, new_gradient = evaluate(candidate)
        if not loss - new_loss > RELATIVE_TOLERANCE * abs(new_loss):  # decibels are negative
            return False
        new_others = whole_loss(objective, held, pattern.forward(candidate.float())) if held else None
        if held and not new_others < others:
            return False
        selected, loss, gradient, others = candidate, new_loss, new_gradient, new_others
        return True

    if left and not train.images.is_complex():
        improves(one_sided(selected, partners))
    swaps = max(1, int(selected.sum()) // 8)
    while left:
        leaving = selected if mandatory is None else selected & ~mandatory
        coming = ~selected if forbidden is None else ~selected & ~forbidden
        removing = torch.where(leaving, curvature / 2 - gradient, torch.inf).flatten()
        adding = torch.where(coming, curvature / 2 + gradient, torch.inf).flatten()
        removals = removing.argsort(stable=True)[: int(leaving.sum())]  # best first
        additions = adding.argsort(stable=True)[: int(coming.sum())]
        apart = [_one_of_each_pair(order, partners) for order in (removals, additions)]
        pairs = min(len(order) for order in apart)
        swaps = min(swaps, int((removing[apart[0][:pairs]] + adding[apart[1][:pairs]] < 0).sum()))
        if swaps > 1:
            candidate = feasible.repaired(_swapped(selected, apart[0][:swaps], apart[1][:swaps]), selected)
            swaps = 2 * swaps if improves(candidate) else swaps // 2
            continue
        if feasible.gap is None and feasible.groups is None:
            # The best swaps, as many as there are evaluations left, are among that many best removals and additions.
            singles = _single_swaps(removing, adding, removals[:left], additions[:left], left, exhaustive)
        else:
            singles = _allowed_swaps(problem, selected, removing, adding, removals, additions, left, exhaustive)
        for removal, addition in singles:
            if improves(_swapped(selected, removal, addition)):
                swaps = 2
                break
        else:
            break  # no single swap helps
    bar.close()
    return pattern.forward(selected.cpu()).contiguous()


def split_slices(train: SliceDataset, slices: int | None, hold_out: float) -> tuple[list[int], list[int]]:
    """Indices of at most so many slices, evenly spaced, and of the slices of a share of the patients, which are not among them.

    >>> split_slices(SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abcd"), [0] * 4), 2, hold_out=0.25)
    ([0, 3], [2])
    """
    rest, held = train.held_out(hold_out, "hold_out") if hold_out else (range(len(train)), [])
    return [rest[place] for place in evenly(len(rest), slices)], held


def one_sided(selected: Tensor, partners: Tensor) -> Tensor:
    """Of every pair with one selected parameter, the partner that comes first. ``partners`` has the index of each parameter's partner.

    >>> one_sided(torch.tensor([False, True, True, True, False]), torch.tensor([4, 3, 2, 1, 0])).int()   # a pair with both, DC, none
    tensor([0, 1, 1, 1, 0], dtype=torch.int32)
    >>> one_sided(torch.tensor([False, False, True, True, True]), torch.tensor([4, 3, 2, 1, 0])).int()
    tensor([1, 1, 1, 0, 0], dtype=torch.int32)
    """
    flat = selected.flatten()
    single = flat ^ flat[partners]
    first = torch.arange(len(partners), device=flat.device) < partners
    return torch.where(single, first, flat).reshape(selected.shape)


def _one_of_each_pair(order: Tensor, partners: Tensor) -> Tensor:
    """``order`` without the entries whose partner comes earlier in it."""
    rank = torch.full_like(partners, len(partners))
    rank[order] = torch.arange(len(order), device=order.device)
    return order[rank[order] <= rank[partners[order]]]


def _single_swaps(
    removing: Tensor, adding: Tensor, removals: Tensor, additions: Tensor, most: int, exhaustive: bool
) -> list[tuple[int, int]]:
    """The ``most`` best swaps (removal, addition) of these by prediction; only where a fall is predicted, unless ``exhaustive``."""
    change = (removing[removals][:, None] + adding[additions]).flatten()
    order = change.argsort(stable=True)[:most]
    if not exhaustive:
        order = order[change[order] < 0]
    return [(int(removals[k // len(additions)]), int(additions[k % len(additions)])) for k in order.tolist()]


def _allowed_swaps(
    problem: Problem, selected: Tensor, removing: Tensor, adding: Tensor, removals: Tensor, additions: Tensor, most: int, exhaustive: bool
) -> list[tuple[int, int]]:
    """Likewise, of those alone that keep the samples of every band and the gaps: of each band the best are among its best ``most``."""
    feasible, found = problem.feasible, []
    band = torch.zeros_like(removing, dtype=torch.int64) if feasible.groups is None else feasible.groups.flatten().to(removing.device)
    few = most if feasible.gap is None else problem.pattern.size  # the gap may refuse the best
    for number in band.unique():
        inside = [order[band[order] == number][:few] for order in (removals, additions)]
        found += _single_swaps(removing, adding, *inside, problem.pattern.size if feasible.gap is None else few**2, exhaustive)
    found.sort(key=lambda swap: float(removing[swap[0]] + adding[swap[1]]))
    possible = (swap for swap in found if feasible.gap is None or feasible.admits(_swapped(selected, *swap)))
    return list(islice(possible, most))


def _swapped(selected: Tensor, removals: Tensor | int, additions: Tensor | int) -> Tensor:
    changed = selected.flatten().clone()
    changed[removals], changed[additions] = False, True
    return changed.reshape(selected.shape)
