"""ProM as a layer of a network: a mask learnt together with whatever comes after it (the paper's outlook, section 5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from prom.errors import InputError
from prom.kspace import patterns
from prom.kspace.encoding import FourierUpToPhase
from prom.masks.demands import Demands
from prom.masks.result import SAMPLE_STREAM, bernoulli
from prom.options import check_seed
from prom.reconstruction.zero_filled import ZeroFilled


class MaskLayer(nn.Module):
    r"""Undersamples images with a mask from a Bernoulli distribution whose probabilities are learnt like any other parameter.

    In training, every call draws one mask for the whole batch (Eq. 1) and lets the gradient of the mask pass to theta unchanged
    (straight-through), so that also a point at theta = 0 can come back. In evaluation, the mask is the posterior mode (Eq. 8). After each
    step of the optimiser, call :meth:`project`, which makes theta feasible again (Eq. 6, 7).

    Adam divides each coordinate by its own size, and with it the ranking of the gradient is lost, which is what the collapse in chapter 6
    comes from. So the gradient of theta is normalised here by *one* number, its largest magnitude, and plain SGD is meant for it::

        layer = MaskLayer((256, 256), acceleration=8)
        optimiser = torch.optim.Adam(network.parameters())
        masks = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
        for images in batches:
            loss = criterion(network(layer(images)), images)
            loss.backward()
            optimiser.step(), masks.step()
            layer.project()

    Where a network needs the mask itself, as with several coils, :meth:`sample` gives it (:func:`prom.learn.networks.train_network`).

    In mixed precision everything is computed in float32 all the same: half precision holds neither k-space, which spans more decades, nor
    small steps of theta, which therefore stays float32 after ``layer.half()``. What comes out has the precision of what went in. With
    ``torch.amp.GradScaler`` step the optimiser of theta by itself, ``masks.step()``: its gradient has no scale left to be divided by.
    Where that scale overflowed the gradient is NaN: leave such a step out. On a CPU :meth:`project` refuses NaN; on a GPU, which would
    have to wait, theta becomes NaN.

    Draws follow from the seed and from how many there were before, which the state keeps; those of seed 1 are those of seed 0 one call
    later, so take seeds that are far apart. A part of a network that is computed twice (``torch.utils.checkpoint``) must not hold the
    layer: it would draw twice. ``nn.DataParallel`` copies the layer for every batch, and the copies draw the same masks each time: use
    ``DistributedDataParallel``.

    Parameters
    ----------
    shape
        (H, W) of the images.
    acceleration
        alpha >= 1: the budget is exactly floor(D / alpha).
    pattern
        "points", "columns" or "rows".
    start
        Probabilities to begin with, of the pattern's shape: e.g. ``result.theta``; by default the budget, spread evenly.
    seed
        Of the masks drawn in training.
    demands, named
        What the scanner demands of the mask, as for :func:`prom.optimize`. Draws in training have what is mandatory and nothing that is
        forbidden; equal numbers in bands and gaps are those of :meth:`mask`.

    Raises
    ------
    InputError
        Where the acceleration, the pattern or the start cannot be used, or the images are not of this shape, or integers.

    >>> layer = MaskLayer((8, 8), acceleration=4)
    >>> layer(torch.rand(2, 1, 8, 8)).shape, int(layer.mask().sum()), layer.theta.sum().item()
    (torch.Size([2, 1, 8, 8]), 16, 16.0)
    """

    def __init__(
        self,
        shape: tuple[int, int],
        acceleration: float,
        pattern: str = "points",
        start: Tensor | None = None,
        seed: int = 0,
        demands: Demands | None = None,
        **named: object,
    ) -> None:
        super().__init__()
        self.pattern = patterns.make(pattern, shape)
        self.feasible = Demands.of(demands, named).feasible(self.pattern, acceleration)
        self.budget = self.feasible.count
        share = self.budget / self.pattern.size if self.feasible.plain else 1.0  # what is left of the budget is divided by the projection
        even = torch.full(self.pattern.shape, share, dtype=torch.float32)
        if isinstance(start, np.ma.MaskedArray):
            raise InputError("start: is a masked array, whose own mask would be lost; use start.filled(0)")
        if start is not None and not isinstance(start, Tensor):
            try:
                given = np.asarray(start)
                start = torch.from_numpy(given.astype(np.complex64 if given.dtype.kind == "c" else np.float32))
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(f"start of type {type(start).__name__}: must be numbers, of {tuple(even.shape)}") from error
        if start is not None and start.is_complex():
            raise InputError("start: is complex; must be probabilities")
        begin = even if start is None else start.detach().float()
        if begin.shape != even.shape or not begin.isfinite().all():
            raise InputError(f"start of {tuple(begin.shape)}: must be finite, of {tuple(even.shape)}, the shape of pattern {pattern!r}")
        self.theta = nn.Parameter(self.feasible.project(begin))
        self._watch()
        self.seed, self.drawn = SAMPLE_STREAM + check_seed(seed), 0

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images, real or complex, to the magnitudes of their zero-filled reconstructions: real, in the same precision."""
        if not isinstance(images, Tensor) or not (images.is_floating_point() or images.is_complex()):
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"images of type {kind}: must be a tensor of real or complex floating-point numbers; use images.float()")
        if tuple(images.shape[-2:]) != self.pattern.samples:
            raise InputError(f"images of {tuple(images.shape[-2:])}: do not fit the mask, which is {self.pattern.samples}")
        with torch.autocast(images.device.type, enabled=False):
            mask = self.sample()
            half = images.real.dtype.itemsize < 4
            exact = images.to(torch.complex64 if images.is_complex() else torch.float32) if half else images
            encoding = FourierUpToPhase(self.pattern.samples)
            found, _ = ZeroFilled()(encoding.samples_of(exact), mask, encoding)
        return found.abs().to(images.real.dtype)

    def sample(self) -> Tensor:
        """The mask that the next images are measured with, ``(H, W)``, for a network that does more with it than zero-filling.

        In training a new draw, float32 zeros and ones, whose gradient goes to theta; in evaluation :meth:`mask`.

        >>> layer, samples = MaskLayer((8, 8), acceleration=4), torch.ones(8, 8)
        >>> (layer.sample() * samples).sum().backward()
        >>> layer.theta.grad.max(), layer.eval().sample().sum()
        (tensor(1.), tensor(16))
        """
        if not self.training:
            return self.mask()
        generator = torch.Generator(self.theta.device).manual_seed(self.seed + self.drawn)
        self.drawn += 1
        hard = bernoulli.sample(self.theta.detach(), generator)[0]
        return self.pattern.forward(hard + (self.theta - self.theta.detach()))  # the value of the one, the gradient of the other

    def mask(self) -> Tensor:
        """The most probable mask, ``(H, W)`` bool, exactly ``budget`` points or lines (Eq. 8)."""
        return self.pattern.forward(self.feasible.round(self.theta.detach())).contiguous()

    @torch.no_grad()
    def project(self) -> None:
        """Bring theta back to 0 <= theta <= 1, sum <= S (Eq. 6, 7)."""
        self.theta.copy_(self.feasible.project(self.theta))

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskLayer:
        """What ``to``, ``half`` and the like do to theta: it goes to another device, and stays float32."""

        def kept(tensor: Tensor) -> Tensor:
            changed = change(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        theta = self.theta
        super()._apply(kept, recurse)
        if self.theta is not theta:
            self._watch()
        return self

    def get_extra_state(self) -> Tensor:
        """How many masks were drawn."""
        return torch.tensor(self.drawn)

    def set_extra_state(self, state: Tensor) -> None:
        """A training that goes on draws the following ones."""
        self.drawn = int(state)

    def _load_from_state_dict(self, state: dict[str, object], prefix: str, *rest: object) -> None:
        """With ``assign=True`` theta is another tensor. States of before draws were counted have no number of them."""
        theta = self.theta
        state.setdefault(f"{prefix}_extra_state", torch.tensor(self.drawn))
        super()._load_from_state_dict(state, prefix, *rest)
        if self.theta is not theta:
            self._watch()

    def __setstate__(self, state: dict[str, object]) -> None:
        """Of a copy: hooks are not copied."""
        super().__setstate__(state)
        self._watch()

    def _watch(self) -> None:
        wanted = self.theta.requires_grad
        self.theta.requires_grad_(True).register_hook(_divided)  # of a frozen one too, which may be thawed
        self.theta.requires_grad_(wanted)


def _divided(gradient: Tensor) -> Tensor:
    """By its largest magnitude."""
    return gradient / gradient.abs().max().clamp(min=torch.finfo(gradient.dtype).tiny)
