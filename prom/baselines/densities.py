"""Masks that are drawn from a density about DC, or equally spaced. They look at the size of the images only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom.baselines.frames import each_frame, no_volumes
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.kspace.patterns import Lines
from prom.masks import bernoulli
from prom.masks.demands import Demands, allowed
from prom.options import check, check_seed


@each_frame
def equispaced(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    centre_fraction: float = 0.04,
    exact_budget: bool = True,
    demands: Demands | None = None,
) -> Tensor:
    """Equally spaced lines plus a fully sampled centre of 4 % of the lines, with a random offset (fastMRI; the paper's "Equi.").

    With ``exact_budget`` the spacing is widened so that centre and spaced lines together are floor(n / alpha) lines; where even the centre
    is over budget, the innermost lines are kept. Without it every round(alpha)-th line is *added* to the centre, as in the authors' code
    (an alpha that would be rounded up is refused), so that the true acceleration is lower than the nominal one (of few lines, without a
    centre, it may be higher).

    With demands the spaced lines are spread over what is neither mandatory nor forbidden, and then as few of them as possible are moved.

    Raises
    ------
    InputError
        Where the pattern is "points", which has no lines, the centre is not a share from 0 to 1, the acceleration is out of range, or
        demands cannot be met, as none can be without an exact budget.

    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 256), ["a"], [0])
    >>> int(equispaced(data, 8)[0].sum()), int(equispaced(data, 8, exact_budget=False)[0].sum()) > 32
    (32, True)
    """
    if pattern == "points":
        raise InputError("pattern 'points': equispaced sampling has lines; use columns or rows")
    no_volumes("equispaced", train)
    check("centre_fraction", centre_fraction, "[0, 1]")
    lines = train.lines(pattern)
    feasible = allowed(lines, acceleration, demands)
    if not exact_budget and not feasible.plain:
        raise InputError("exact_budget False: adds lines to the budget, which demands are part of; leave it out, or the demands")
    if not exact_budget and round(acceleration) > acceleration:
        fewer = f"is rounded to {round(acceleration)}, which makes fewer lines"
        raise InputError(f"exact_budget False: acceleration {acceleration:g} {fewer}; give a whole number")
    budget = feasible.count
    generator = torch.Generator().manual_seed(check_seed(seed))
    centre = torch.zeros(lines.size, dtype=torch.bool)
    count = round(lines.size * centre_fraction)
    first = (lines.size - count + 1) // 2
    centre[first : first + count] = True
    if not exact_budget:
        offset = int(torch.randint(round(acceleration), (), generator=generator))
        centre[torch.arange(offset, lines.size, round(acceleration))] = True
        return lines.forward(centre).contiguous()
    feasible = feasible.keeping(innermost(centre, budget))
    full = centre | feasible.mandatory
    outside = (~full if feasible.forbidden is None else ~full & ~feasible.forbidden).nonzero().flatten()
    left, spaced = budget - int(feasible.mandatory.sum()), torch.zeros(lines.size)
    if left and len(outside):
        spacing = len(outside) / left
        offset = float(torch.rand((), generator=generator, dtype=torch.float32)) * spacing
        spaced[outside[((offset + spacing * torch.arange(left)) % len(outside)).long()]] = 1
    return lines.forward(feasible.round(spaced)).contiguous()


@each_frame
def gaussian(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    sigma: float = 25.0,
    protect_centre: bool = False,
    demands: Demands | None = None,
) -> Tensor:
    r"""Samples (or lines) drawn without replacement from a Gaussian density about DC (the paper's "Gauss.").

    One after the other is drawn with probability proportional to :math:`p_i = \exp(-d_i^2 / 2 \sigma^2)` among those that are left,
    d being the distance to DC in samples. All S at once, by a theorem (Efraimidis and Spirakis 2006; in this form the Gumbel-max trick):
    with independent standard Gumbel variables :math:`g_i`, the indices of the S largest :math:`\log p_i + g_i`, in falling order, have
    the distribution of S such draws. No draw is ever rejected, so the time does not depend on the density, and far out, where p is 0 in
    floating point, its logarithm still ranks.

    Parameters
    ----------
    sigma
        Standard deviation in samples. The paper does not state its own: the authors' last commit has 35, older notebooks 25 for ACDC and
        BraTS and 30 for the knee.
    protect_centre
        Always measure DC and its immediate neighbours (3 x 3 samples, or 3 lines; of points of volumes the 19 of 3 x 3 x 3 but its corners;
        the innermost of them where the budget is smaller).
        Without it, as in the paper, DC can be missing, and with it the mean brightness of the image.

    Raises
    ------
    InputError
        Where sigma is not from 0.001 to 1e9 samples, or the acceleration is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 64, 64), ["a"], [0])
    >>> mask = gaussian(data, acceleration=8, sigma=10, protect_centre=True)
    >>> int(mask.sum()), bool(mask[31:34, 31:34].all())
    (512, True)
    """
    check("sigma", sigma, "[0.001, 1e9]")
    lines = train.lines(pattern)
    distance = offsets(lines.shape).square().sum(dim=-1)
    feasible = allowed(lines, acceleration, demands)
    if protect_centre:
        feasible = feasible.keeping(innermost(distance <= 2, feasible.count))
    return lines.forward(feasible.round(_keys(-distance / (2 * sigma**2), seed))).contiguous()


@each_frame
def polynomial(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    power: float = 4.0,
    centre_share: float = 0.25,
    demands: Demands | None = None,
) -> Tensor:
    r"""Samples (or lines) drawn without replacement from the density :math:`(1 - r)^p`, around a fully sampled centre.

    r is the distance to DC, each axis in units of its half width, divided by the largest: 0 at DC, 1 in the corner (or, of lines, at the
    edge). The variable density of Lustig, Donoho and Pauly 2007, doi:10.1002/mrm.21391, drawn as :func:`gaussian` draws, so that the
    budget is exact; they keep or leave each sample independently, and choose of several masks that with the least aliasing peak.

    Parameters
    ----------
    power
        p, from 0 (even) on.
    centre_share
        Share of the budget, from 0 to 1, that is spent on the samples (or lines) nearest to DC.

    Raises
    ------
    InputError
        Where the power is not from 0 to 1000, the share is not from 0 to 1, or the acceleration is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 64, 64), ["a"], [0])
    >>> mask = polynomial(data, acceleration=8, power=3)
    >>> int(mask.sum()), bool(mask[28:37, 28:37].all())
    (512, True)
    """
    check("power", power, "[0, 1000]")
    lines = train.lines(pattern)
    feasible = allowed(lines, acceleration, demands).keeping(central(lines, acceleration, centre_share))
    half = torch.tensor([max(n // 2, 1) for n in lines.shape])
    radius = (offsets(lines.shape) / half.double()).square().sum(dim=-1).sqrt()
    density = (1 - radius / radius.max().clamp(min=1)).clamp(min=torch.finfo(torch.float64).eps)  # in the corner, where it is 0
    return lines.forward(feasible.round(_keys(power * density.log(), seed))).contiguous()


def central(lines: Lines, acceleration: float, share: float) -> Tensor:
    """The samples (or lines) nearest to DC on which a share of the budget is spent: bool of the pattern's shape.

    >>> central(Lines((8, 8), readout=(-2,)), acceleration=2, share=0.75)
    tensor([False, False, False,  True,  True,  True, False, False])
    """
    count = round(check("centre_share", share, "[0, 1]") * lines.budget(acceleration))
    return bernoulli.mode(torch.zeros(lines.shape), count)


def _keys(logarithm: Tensor, seed: int) -> Tensor:
    """Keys whose S largest are S draws without replacement, from the logarithm of the density: float64."""
    uniform = torch.rand(logarithm.shape, generator=torch.Generator().manual_seed(check_seed(seed)), dtype=torch.float64)
    return -(-uniform.clamp_(min=torch.finfo(torch.float64).tiny).log()).log() + logarithm


@each_frame
def poisson_disc(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    calibration: int = 16,
    demands: Demands | None = None,
) -> Tensor:
    """Variable-density Poisson disc: random points that keep a distance from each other which grows outwards (Bridson 2007).

    The density is found within a tolerance (:mod:`prom.baselines.poisson`). What the mask has too much is removed at random outside the
    calibration region, what it lacks is added at random among the free points.

    Parameters
    ----------
    calibration
        Side of the fully sampled square about DC; less where that would be over half the budget. 0: none, and DC may be missing.
    demands
        What else is mandatory is added, what is forbidden left out, with a density that makes up for it; then the mask is completed as
        above, in every band.

    Raises
    ------
    InputError
        Where the pattern is not "points", the calibration is below 0, or the acceleration is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 64, 64), ["a"], [0])
    >>> mask = poisson_disc(data, acceleration=8)
    >>> int(mask.sum()), bool(mask[24:40, 24:40].all())
    (512, True)
    """
    if pattern != "points":
        train.lines(pattern)
        raise InputError(f"pattern {pattern!r}: a Poisson disc has points; use points, or equispaced or gaussian for lines")
    no_volumes("poisson_disc", train)
    check("calibration", calibration, "[0, 1e9]", whole=True)
    height, width = train.shape
    lines = train.lines(pattern)
    feasible = allowed(lines, acceleration, demands)
    budget, possible = feasible.count, height * width if feasible.forbidden is None else int((~feasible.forbidden).sum())
    side = min(calibration, max(1, math.isqrt(budget // 2)), height, width)
    centre = torch.zeros(train.shape, dtype=torch.bool)
    first_row, first_column = height // 2 - side // 2, width // 2 - side // 2
    centre[first_row : first_row + side, first_column : first_column + side] = True

    from prom.baselines.poisson import variable_density  # here, as it loads numba, which takes time

    generator = torch.Generator().manual_seed(check_seed(seed))
    wanted = max(possible / budget, DENSEST)
    inner = (min(side, height - 1), min(side, width - 1))  # what lies outside must have an extent
    for _ in range(10):
        found = variable_density(train.shape, wanted, inner, int(torch.randint(2**32, (), generator=generator)))
        if found.sum() > math.prod(inner):
            break  # else its first point fell into the calibration region, where there is no room for a second one
    points = torch.from_numpy(found) | centre
    if not feasible.plain:
        chances = points + torch.rand(train.shape, generator=generator, dtype=torch.float32)  # of equal ones at random
        return lines.forward(feasible.keeping(centre).round(chances)).contiguous()
    excess = int(points.sum()) - budget
    candidates = (points & ~centre if excess > 0 else ~points).flatten().nonzero().flatten()
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[: abs(excess)]]
    points.view(-1)[chosen] = excess < 0
    return lines.forward(feasible.keeping(centre).round(points.float())).contiguous()


DENSEST = 1.5  # acceleration that is looked for at least: below, the search takes longer and longer, and random points fill up the rest


def innermost(chosen: Tensor, count: int) -> Tensor:
    """Those of the chosen samples, bool, that are nearest to DC: at most so many.

    >>> innermost(torch.tensor([False, True, True, True, False]), 2)
    tensor([False,  True,  True, False, False])
    """
    return bernoulli.mode(chosen.float(), count) if int(chosen.sum()) > count else chosen
