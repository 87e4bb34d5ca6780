"""How theta moves, given the gradient: the paper's Adam, and a step that keeps the ranking of the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prom.engine.device import asynchronous, compiles
from prom.learn.recipes import Recipe


class AdamStep:
    """The paper's rule: PyTorch's Adam, which divides each coordinate by its own root mean square."""

    def __init__(self, recipe: Recipe, theta: Tensor, acceleration: float) -> None:
        self.theta = theta.clone().requires_grad_()
        betas = (recipe.momentum, recipe.rms_decay)
        self.adam = torch.optim.Adam([self.theta], lr=recipe.learning_rate, betas=betas, eps=recipe.epsilon, capturable=asynchronous(theta))

    @torch.no_grad()
    def __call__(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """The unconstrained theta-tilde of section 3.3."""
        self.theta.copy_(theta)
        self.theta.grad = gradient
        self.adam.step()
        return self.theta.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        """What it keeps between steps."""
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.adam.load_state_dict(state)


class QuantileStep:
    r"""Divide the averaged gradient by *one* number, so that multiplying all images by a constant changes nothing.

    That number is the :math:`1 - 1 / (2 \alpha)` quantile of its magnitude: on the grid, one more than half as many coordinates as the
    budget has samples move at full speed, the others in proportion to their gradient; off it that share of the candidates.

    >>> from prom.learn.recipes import DEFAULT
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
        if compiles(theta):
            return self._in_one_pass(theta)
        magnitudes = self.mean.abs().flatten()
        quantile = magnitudes.sort().values[self.rank - 1]  # on a GPU faster than kthvalue
        direction = (self.mean / quantile).nan_to_num_(0.0).clamp_(-1, 1)  # 0 / 0 where hardly any coordinate has a gradient
        return theta - self.rate * direction

    def state_dict(self) -> dict[str, Any]:
        """What it keeps between steps."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.mean.copy_(state["mean"])

    def _in_one_pass(self, theta: Tensor) -> Tensor:
        from prom.engine.kernels import flat, moved, smallest

        quantile, result = np.float32(smallest(flat(self.mean), self.rank - 1)), torch.empty_like(theta)
        moved(flat(theta.contiguous()), flat(self.mean), quantile, np.float32(self.rate), flat(result))
        return result


STEP_RULES = {"adam": AdamStep, "quantile": QuantileStep}
