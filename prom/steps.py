"""How theta moves, given the gradient: the paper's Adam, and a step that keeps the ranking of the gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom.recipes import Recipe


class AdamStep:
    """The paper's rule: PyTorch's Adam, which divides each coordinate by its own root mean square."""

    def __init__(self, recipe: Recipe, theta: Tensor, acceleration: float) -> None:
        self.theta = theta.clone().requires_grad_()
        betas = (recipe.momentum, recipe.rms_decay)
        self.adam = torch.optim.Adam([self.theta], lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon)

    @torch.no_grad()
    def __call__(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """The unconstrained theta-tilde of section 3.3."""
        self.theta.copy_(theta)
        self.theta.grad = gradient
        self.adam.step()
        return self.theta.detach().clone()


class QuantileStep:
    r"""Divide the averaged gradient by *one* number, so that multiplying all images by a constant changes nothing.

    That number is the :math:`1 - 1 / (2 \alpha)` quantile of its magnitude: half as many coordinates as the budget has samples move at
    full speed, the others in proportion to their gradient.

    >>> from prom.recipes import DEFAULT
    >>> theta, gradient = torch.full((8,), 0.5), torch.arange(8.0)
    >>> small, large = (QuantileStep(DEFAULT, theta, 4.0)(theta, scale * gradient) for scale in (1.0, 2.0**20))
    >>> torch.equal(small, large)
    True
    """

    def __init__(self, recipe: Recipe, theta: Tensor, acceleration: float) -> None:
        self.rate, self.momentum = recipe.learning_rate, recipe.momentum
        self.rank = min(max(math.ceil((1 - 1 / (2 * acceleration)) * theta.numel()), 1), theta.numel())
        self.mean = torch.zeros_like(theta)

    def __call__(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """The unconstrained theta-tilde of section 3.3."""
        self.mean.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
        quantile = _smallest(self.mean.abs().flatten(), self.rank)
        direction = (self.mean / quantile).nan_to_num_(0.0).clamp_(-1, 1)  # 0 / 0 where hardly any coordinate has a gradient
        return theta - self.rate * direction


def _smallest(values: Tensor, rank: int) -> Tensor | float:
    """``values.kthvalue(rank).values``, on a CPU in a tenth of the time where they are float32. They are not negative."""
    if values.is_cuda or values.dtype != torch.float32:
        return values.kthvalue(rank).values
    from prom.kernels import flat, smallest

    return float(smallest(flat(values), rank - 1))


STEP_RULES = {"adam": AdamStep, "quantile": QuantileStep}
