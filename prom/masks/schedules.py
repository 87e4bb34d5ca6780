"""How the budget and the temperature change over the iterations (paper, A.1 and section 4)."""

from __future__ import annotations


def annealed_budget(
    progress: float, target: float, size: int, exploration: float = 0.1, exploitation: float = 0.1, power: float = 3.0
) -> float:
    r"""The number of samples S allowed at a moment of the optimisation (A.1).

    Everything during exploration, ``target`` during exploitation, and in between
    :math:`d = d^* + (1 - d^*)(1 - t)^p` times D, with :math:`d^*` = target / D and t running from 0 to 1. The paper prints the formula
    without an exponent (p = 1); the authors' code has p = 3, as in the schedule of Zhu and Gupta (2017) that it cites.

    Parameters
    ----------
    progress
        Share of the iterations done, in [0, 1].
    target, size
        Final budget S and number of parameters D.
    exploration, exploitation
        Shares of the iterations at either end during which the budget does not change.
    power
        p.

    >>> [round(annealed_budget(p, 10, 100)) for p in (0.0, 0.1, 0.5, 0.9, 1.0)]
    [100, 100, 21, 10, 10]
    """
    t = (progress - exploration) / max(1 - exploration - exploitation, 1e-12)
    t = min(max(t, 0.0), 1.0)
    density = target / size + (1 - target / size) * (1 - t) ** power
    return target if t == 1.0 else density * size


def linear(progress: float, start: float, end: float) -> float:
    """From ``start`` to ``end``: the paper's temperature, 1 to 0.03 "in the last step".

    >>> linear(0.5, 1.0, 0.0)
    0.5
    """
    return start + (end - start) * progress
