"""Other ways to learn a mask, from the literature, under the same objective and the same exact budget as ProM.

Each is ``(train, acceleration, pattern=, seed=, ...) -> mask``, as a baseline is. All reconstruct by zero-filling, or as a ready
objective does, so that the masks differ by how they were searched for and by nothing else. What is demanded of a mask
(:mod:`prom.masks.demands`) is met by each as it goes.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from prom import objectives, options
from prom.datasets.base import SliceDataset
from prom.engine.device import asynchronous
from prom.engine.random import uniform_numbers
from prom.engine.threads import added, parallel, spread
from prom.learn.batches import ShuffledBatches
from prom.masks import bernoulli
from prom.masks.demands import Demands
from prom.masks.feasible import Feasible
from prom.objectives import whole_set
from prom.problem import Problem

ROUNDS = 64  # of IGS on points: each is a pass over the training images


@spread()
def igs(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    per_round: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    demands: Demands | None = None,
) -> Tensor:
    """Iterative gradient sampling: from the line through DC (of every frame), add in every round that whose gradient is the most negative.

    After Razumov, Rogov and Dylov, "Optimal MRI undersampling patterns for ultimate benefit of medical vision tasks" (2023,
    doi:10.1016/j.mri.2023.06.020), as the paper's authors implement it, with two differences. Theirs minimises the L1 loss
    (``objective=torch.nn.functional.l1_loss``), and adds S lines to the first, so that it measures S + 1; ours has exactly S, DC included.
    It must start somewhere: without any sample the reconstruction is 0, and so is its gradient.

    Parameters
    ----------
    train, acceleration, pattern
        As for a baseline.
    seed
        Draws the batches; not used with the whole training set.
    objective
        "magnitude_mse", a function ``(x_hat, x) -> mean loss``, or an objective made of these data.
    per_round
        Lines or points added a round; by default one line, or a 64th of the points, as points one by one would take S rounds.
    batch_size
        Images that a round uses; by default all of them.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) lines or points.

    Raises
    ------
    InputError
        Where a name or a number cannot be used.

    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abcd"), [0] * 4)
    >>> igs(data, acceleration=4)[0].sum(), igs(data, acceleration=8)[0].nonzero().item()
    (tensor(2), 4)
    """
    problem = Problem.of(train, acceleration, pattern, objective, device, demands=demands)
    if per_round is None:
        per_round = math.ceil(problem.feasible.count / ROUNDS) if pattern in ("points", "still-points") else 1
    _check(per_round=per_round, batch_size=1 if batch_size is None else batch_size)
    generator = torch.Generator(problem.device).manual_seed(options.check_seed(seed))
    batches = None if batch_size is None else ShuffledBatches(len(problem.data), batch_size, generator)
    even = torch.zeros(problem.pattern.shape, device=problem.device)
    centre = bernoulli.mode(even.new_zeros(problem.pattern.frame.shape), 1)  # of equal values the one at the centre
    selected = problem.feasible.fitting(problem.pattern.in_frames(centre))  # of a frame without samples the gradient is 0
    if not selected.any():
        selected = problem.feasible.grown(selected, even)
    rounds = math.ceil((problem.feasible.count - int(selected.sum())) / per_round)
    for _ in tqdm(range(rounds), desc=f"IGS {train.name} x{acceleration:g}", disable=None, leave=False):
        indices = range(len(problem.data)) if batches is None else next(batches)
        _, by_mask = whole_set(problem.objective, indices, problem.pattern.forward(selected.float()))
        selected = problem.feasible.grown(selected, -problem.pattern.adjoint(by_mask), per_round)
    return problem.pattern.forward(selected.cpu()).contiguous()


@spread()
@torch.inference_mode(False)
@torch.enable_grad()
def loupe(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    iterations: int = 600,
    batch_size: int = 16,
    learning_rate: float = 0.05,
    slope: float = 5.0,
    sample_slope: float = 12.0,
    device: str = "auto",
    demands: Demands | None = None,
) -> Tensor:
    r"""LOUPE's mask layer without its network: sigmoid probabilities, rescaled to the budget, sampled by a soft threshold.

    :math:`p = \sigma(t w)`, rescaled by :func:`rescale` to a mean of S / D, and for every image its own :math:`m = \sigma(s (p - u))` with
    u uniform; Adam on w; at the end the S largest p. Bahadir, Wang, Dalca and Sabuncu, "Deep-learning-based optimization of the
    under-sampling pattern in MRI", IEEE Trans. Comput. Imaging 6 (2020), doi:10.1109/TCI.2020.3006727. m is soft while learning: even where
    p = 0 a share log(2) / s of the signal passes on average, which a hard mask will not let through.

    The defaults t = 5 and s = 12, and the start, w such that sigmoid(t w) is uniform on (0.01, 0.99), are those of the authors' code
    (``loupe_model`` of cagladbahadir/LOUPE; its script for MR slices has s = 10, Adam at 0.001 and 16 images). They train for
    thousands of steps; ours are fewer and fifty times as long.

    Parameters
    ----------
    train, acceleration, pattern, seed
        As for a baseline; the seed draws the start, the batches and u.
    objective
        "magnitude_mse", a function ``(x_hat, x) -> mean loss``, or an objective made of these data. LOUPE's own is the L1 loss.
    iterations, batch_size, learning_rate
        Steps of Adam, images in each, and its rate.
    slope, sample_slope
        t and s.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) lines or points.

    Raises
    ------
    InputError
        Where a name or a number cannot be used.

    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abcd"), [0] * 4)
    >>> int(loupe(data, acceleration=4, iterations=5).sum())
    16
    """
    _check(iterations=iterations, batch_size=batch_size, learning_rate=learning_rate, slope=slope, sample_slope=sample_slope)
    problem = Problem.of(train, acceleration, pattern, objective, device, demands=demands)
    generator = torch.Generator(problem.device).manual_seed(options.check_seed(seed))
    uniform = torch.rand(problem.pattern.shape, generator=generator, dtype=torch.float32, device=problem.device)
    weights = (uniform * 0.98 + 0.01).logit_().div_(slope).requires_grad_()
    adam = torch.optim.Adam([weights], lr=learning_rate)
    batches = ShuffledBatches(len(problem.data), batch_size, generator)
    for _ in tqdm(range(iterations), desc=f"LOUPE {train.name} x{acceleration:g}", disable=None, leave=False):
        probabilities = _within(problem.feasible, torch.sigmoid(slope * weights))
        if not probabilities.requires_grad:
            break  # the demands leave nothing to choose
        batch = next(batches)
        uniform = uniform_numbers(generator, (len(batch), 1, *problem.pattern.shape), weights)
        alone = problem.objective.concurrent and not asynchronous(weights)  # on a CPU image by image: what belongs to one stays in cache
        groups = list(zip(([image] for image in batch), uniform.split(1), strict=True)) if alone else [(batch, uniform)]
        gradient = added(parallel(partial(_through_soft_mask, problem, probabilities.detach(), sample_slope), groups)) / len(groups)
        adam.zero_grad()
        probabilities.backward(gradient)
        adam.step()
    with torch.no_grad():
        probabilities = _within(problem.feasible, torch.sigmoid(slope * weights))
    return problem.pattern.forward(problem.feasible.round(probabilities).cpu()).contiguous()


def _through_soft_mask(problem: Problem, probabilities: Tensor, slope: float, group: tuple[list[int], Tensor]) -> Tensor:
    """The gradient with respect to LOUPE's probabilities from some images, each with a soft mask of its own."""
    images, uniform = group
    soft = torch.sigmoid(slope * (probabilities - uniform))
    _, by_mask = problem.objective.loss_and_gradient(images, problem.pattern.forward(soft))
    return (problem.pattern.adjoint(by_mask) * (slope * soft * (1 - soft))).sum(dim=(0, 1))


def _within(feasible: Feasible, probabilities: Tensor) -> Tensor:
    """LOUPE's probabilities, rescaled to the budget: 1 where mandatory, 0 where forbidden, and the others of each band to what is left."""
    if feasible.plain:
        return rescale(probabilities, feasible.budget / probabilities.numel())
    scaled = torch.zeros_like(probabilities) if feasible.mandatory is None else feasible.mandatory.to(probabilities)
    for free, fixed in feasible.parts:
        if size := int(free.sum()):
            free = free.to(probabilities.device)
            scaled[free] = rescale(probabilities[free], (feasible.budget - fixed) / size)
    return scaled


def rescale(probabilities: Tensor, density: float) -> Tensor:
    """LOUPE's rescaling to a mean of ``density``, within [0, 1]: p shrinks towards 0 where its mean is too high, towards 1 where too low.

    >>> rescale(torch.tensor([0.5, 1.0]), 0.25), rescale(torch.tensor([0.0, 0.5]), 0.625)
    (tensor([0.1667, 0.3333]), tensor([0.5000, 0.7500]))
    """
    mean = probabilities.mean()
    if density <= mean:
        return probabilities * (density / mean)
    return 1 - (1 - probabilities) * ((1 - density) / (1 - mean))


@spread()
def score_prune(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    iterations: int = 600,
    batch_size: int = 16,
    learning_rate: float = 5.0,
    momentum: float = 0.9,
    device: str = "auto",
    demands: Demands | None = None,
) -> Tensor:
    """Straight-through scores: the mask is the top k of real-valued scores, its gradient goes to all scores, and k falls from D to S.

    The estimator of Ramanujan et al., "What's hidden in a randomly weighted neural network?" (CVPR 2020), which the hybrid methods of the
    paper's related work use for masks, with step-by-step pruning (Xuan et al., "Learning MRI k-space subsampling pattern using progressive
    weight pruning", MICCAI 2020). k follows A.1 with the exponent 3 of the authors' code, without its exploration: a full mask of the
    magnitude loss has no gradient. Scores start uniform on (0, 1) and move by gradient descent with momentum, the momentum divided by its
    largest entry, so that multiplying all images by a power of two changes nothing. A rate above 1 is needed: most entries of the gradient
    are far below the largest, and scores that move less than the width of their start stay where chance put them.

    Parameters
    ----------
    train, acceleration, pattern, seed
        As for a baseline; the seed draws the start and the batches.
    objective
        "magnitude_mse", a function ``(x_hat, x) -> mean loss``, or an objective made of these data.
    iterations, batch_size
        Steps, and images in each.
    learning_rate, momentum
        The most that a score moves in a step; decay of the running mean of the gradient.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) lines or points.

    Raises
    ------
    InputError
        Where a name or a number cannot be used.

    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abcd"), [0] * 4)
    >>> int(score_prune(data, acceleration=4, iterations=5).sum())
    16
    """
    _check(iterations=iterations, batch_size=batch_size, learning_rate=learning_rate)
    options.check("momentum", momentum, "[0, 1)")
    problem = Problem.of(train, acceleration, pattern, objective, device, demands=demands)
    generator = torch.Generator(problem.device).manual_seed(options.check_seed(seed))
    scores = torch.rand(problem.pattern.shape, generator=generator, dtype=torch.float32, device=problem.device)
    mean = torch.zeros_like(scores)
    batches = ShuffledBatches(len(problem.data), batch_size, generator)
    for iteration in tqdm(range(iterations), desc=f"scores {train.name} x{acceleration:g}", disable=None, leave=False):
        count = math.floor(problem.feasible.annealed((iteration + 1) / iterations, 0.0))  # no exploration
        mask = problem.pattern.forward(problem.feasible.round(scores, count).float())
        _, by_mask = problem.objective.loss_and_gradient(next(batches), mask[None])
        mean.mul_(momentum).add_(problem.pattern.adjoint(by_mask[0]), alpha=1 - momentum)
        largest = mean.abs().max()
        if largest > 0:
            scores = scores - learning_rate * (mean / largest)
    return problem.pattern.forward(problem.feasible.round(scores).cpu()).contiguous()


def _check(**values: float) -> None:
    """Counts from 1 on, and rates and slopes above 0."""
    for name, value in values.items():
        whole = name in ("per_round", "batch_size", "iterations")
        options.check(name, value, "[1, 1e9]" if whole else "(0, 1e6]", whole)
