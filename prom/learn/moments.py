"""What Adam has accumulated of the gradients at one place: whose size it divides out, and whose it keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from prom import options
from prom.datasets.base import SliceDataset
from prom.learn.batches import ShuffledBatches
from prom.learn.gradient import expected_gradient
from prom.learn.recipes import Recipe
from prom.problem import Problem


def adam_moments(train: SliceDataset, acceleration: float, recipe: Recipe, draws: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Running means of gradient and squared gradient at a random start that is kept, without their bias (Kingma and Ba 2015).

    .. math::
        \hat m = \frac{1 - \beta_1}{1 - \beta_1^n} \sum_{k=1}^n \beta_1^{n-k} g_k, \qquad
        \hat v = \frac{1 - \beta_2}{1 - \beta_2^n} \sum_{k=1}^n \beta_2^{n-k} g_k^2

    Adam's step there is :math:`-\eta\, \hat m_i / (\sqrt{\hat v_i} + \epsilon)`. The size of a point's gradient cancels where
    :math:`\sqrt{\hat v_i}` is above :math:`\epsilon`, and stays where it is below.

    Parameters
    ----------
    train
        The slices, ``(N, C, H, W)``.
    acceleration
        Of the masks.
    recipe
        Its estimator draws n = ``draws`` gradients g, one at least, each of a batch at temperature 1; :math:`\beta_1` is its ``momentum``
        and :math:`\beta_2` its ``rms_decay``.
    seed
        Of the start, uniform in [0, 1], the batches and the draws.

    Returns
    -------
    tuple of Tensor
        :math:`\hat m` and :math:`\hat v`, ``(H, W)``.

    >>> from prom.learn.recipes import PAPER
    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abcd"), [0] * 4)
    >>> mean, square = adam_moments(data, 4, PAPER, draws=5)
    >>> mean.shape, bool((square >= 0).all())
    (torch.Size([8, 8]), True)
    """
    draws = options.check("draws", draws, "[1, 1e9]", whole=True)
    problem = Problem.of(train, acceleration, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(train.shape, generator=generator, dtype=torch.float32)
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    batches = ShuffledBatches(len(train), recipe.batch_size, generator)
    for _ in range(draws):
        _, gradient, _ = expected_gradient(problem, next(batches), start, 1.0, recipe, generator)
        mean.lerp_(gradient, 1 - recipe.momentum)
        square.lerp_(gradient.square(), 1 - recipe.rms_decay)
    return mean / (1 - recipe.momentum**draws), square / (1 - recipe.rms_decay**draws)
