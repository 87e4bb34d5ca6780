"""Bias-accelerated subset selection: a mask learnt through a reconstruction by exchanging many samples at once, and ever fewer."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm import tqdm

from prom import objectives, options
from prom.baselines.densities import polynomial
from prom.datasets.base import SliceDataset
from prom.engine.device import choose_device
from prom.engine.threads import spread
from prom.errors import unknown
from prom.masks import bernoulli
from prom.masks.demands import Demands
from prom.objectives import whole_loss, whole_set
from prom.objectives.reconstructed import Reconstructed
from prom.problem import Problem
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import Reconstruction, ZeroFilled, image_of

FLOOR = 1e-3  # of the mean power of a sample: added to both sides of the ratio, so that samples without signal do not decide it
REMOVALS = ("ratio", "gradient")
POOL = 0.5  # share of the measured, and of the other, samples that may be exchanged in an iteration


@spread()
def bass(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    objective: str | objectives.ImageCriterion | objectives.Objective | None = None,
    iterations: int = 60,
    exchanged: float = 0.2,
    shrink: float = 0.7,
    removal: str = "ratio",
    device: str = "auto",
    demands: Demands | None = None,
) -> Tensor:
    r"""Bias-accelerated subset selection: exchange the K least important samples for the K most important, if the loss falls.

    In the way of Zibetti, Herman and Regatte 2021 (BASS, doi:10.1038/s41598-021-97995-w). With the residual :math:`e = y - E \hat x` of
    what the mask lets be reconstructed, summed over training images n and coils c, samples that are not measured are added by

    .. math:: \epsilon_i = \sum_{n,c} |e_{n,c,i}|^2 \quad \text{(the largest)},
              \qquad r_i = \sum_{n,c} \frac{|e_{n,c,i}|^2 + \delta}{|y_{n,c,i}|^2 + \delta} \quad \text{(of measured ones, the largest),}

    and measured ones removed by r: what is measured and still not explained is noise, not signal. Of lines both are summed along the line.
    Where the loss does not fall, the exchange is undone and :math:`K \leftarrow \lfloor (K - 1) \alpha \rfloor + 1`.

    Chosen here: the start (:func:`prom.baselines.polynomial`), that only a random half of the samples may be exchanged in an iteration,
    the form of r, and :math:`\delta`, a thousandth of the mean power. Left out: conditions on positions (of conjugate pairs or neighbours
    at most one in an iteration), budgets that grow during the search, and a centre that is never removed.

    Parameters
    ----------
    train, acceleration, pattern, seed
        As for a baseline; the seed draws the start and the pools.
    objective
        What has to fall: a name, a function ``(x_hat, x) -> mean loss``, or an objective made of these data. By default the mean squared
        error of the magnitude (:class:`prom.objectives.reconstructed.Reconstructed`) through SENSE, or by zero-filling where there are no
        coils. The residual is that of the objective's own reconstruction, where it has one, else of zero-filling.
    iterations
        Exchanges that are tried; each takes a reconstruction of every slice, and after a success another one.
    exchanged
        The first K, as a share of the budget.
    shrink
        alpha.
    removal
        "ratio": by r, as above. "gradient", not theirs: by the derivative of the loss, those that it says are needed least.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.
    demands
        The start meets them, and an exchange that does not is undone in part, until it does.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where a name or a number cannot be used.

    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> int(bass(data, acceleration=4, iterations=5).sum())
    16
    """
    options.check("iterations", iterations, "[1, 1e9]", whole=True)
    options.check("exchanged", exchanged, "(0, 1]")
    options.check("shrink", shrink, "[0, 1)")
    if removal not in REMOVALS:
        raise unknown("removal", removal, REMOVALS)
    if objective is None:
        usual = Sense.of(train) if train.sensitivities is not None else ZeroFilled()
        objective = Reconstructed(train, usual, choose_device(device))
    problem = Problem.of(train, acceleration, pattern, objective, device, demands=demands)
    reconstruction = getattr(problem.objective, "reconstruction", None) or ZeroFilled()
    generator = torch.Generator().manual_seed(options.check_seed(seed))
    lines, feasible, images = problem.pattern, problem.feasible, range(len(train))
    mandatory, forbidden = (False if part is None else part for part in (feasible.mandatory, feasible.forbidden))

    def loss(selected: Tensor) -> float:
        return float(whole_loss(problem.objective, images, lines.forward(selected).float().to(problem.device)))

    def gradient(selected: Tensor) -> Tensor:
        by_mask = whole_set(problem.objective, images, lines.forward(selected).float().to(problem.device))[1]
        slope = lines.adjoint(by_mask).cpu()
        return slope - slope.min()  # largest where the loss would rise least, and never negative

    selected = lines.select(polynomial(train, acceleration, pattern, seed, demands=demands))
    size = int(selected.sum())
    count = min(math.ceil(exchanged * size), lines.size - size)
    least, maps = loss(selected), None
    for _ in tqdm(range(iterations if count else 0), desc=f"BASS {train.name} x{acceleration:g}", disable=None, leave=False):
        if maps is None:
            maps = [lines.adjoint(one) for one in importance(train, reconstruction, lines.forward(selected))]
            if removal == "gradient":
                maps[1] = gradient(selected)
        pool = torch.rand(lines.shape, generator=generator, dtype=torch.float32) < POOL
        coming, leaving = ~(selected | forbidden), selected & ~(selected & mandatory)
        wanted, unwanted = (torch.where(allowed & pool, one, -1) for allowed, one in zip((coming, leaving), maps, strict=True))
        number = min(count, int((wanted >= 0).sum()), int((unwanted >= 0).sum()))
        changed = feasible.repaired(selected ^ bernoulli.mode(wanted, number) ^ bernoulli.mode(unwanted, number), selected)
        if number and (found := loss(changed)) < least:
            selected, least, maps = changed, found, None
        else:
            count = math.floor((count - 1) * shrink) + 1
    return lines.forward(selected).contiguous()


def importance(train: SliceDataset, reconstruction: Reconstruction, mask: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\epsilon` and r of every sample, for a mask ``(H, W)``: float32 of that shape.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 2, 2), ["a"], [0])
    >>> importance(data, ZeroFilled(), torch.tensor([[True, True], [True, False]]))[0].tolist()       # all of it is at DC, left out
    [[0.0, 0.0], [0.0, 4.0]]
    """
    energy, ratio = torch.zeros(train.shape), torch.zeros(train.shape)
    for index in range(len(train)):
        encoding, samples = train.encoding(index), train.samples([index])[0]
        found, _ = image_of(reconstruction, samples, mask.float(), encoding, train.shape)
        rest, power = (part.abs().square() for part in (samples - encoding.forward(found), samples))
        floor = FLOOR * power.mean()
        energy += rest.sum(dim=0)
        ratio += ((rest + floor) / (power + floor)).sum(dim=0)
    return energy, ratio
