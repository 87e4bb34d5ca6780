"""Training of networks that reconstruct: with one mask, with several, or together with a mask."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from prom import options
from prom.datasets.base import SliceDataset
from prom.datasets.units import unit
from prom.engine.device import choose_device
from prom.errors import InputError
from prom.learn.batches import ShuffledBatches
from prom.learn.layer import MaskLayer
from prom.masks import as_masks
from prom.reconstruction.through import check_image, check_network

MOMENTUM = 0.9  # of the mask's steps
Network = TypeVar("Network", bound=nn.Module)


@torch.inference_mode(False)
@torch.enable_grad()
def train_network(
    network: Network,
    train: SliceDataset,
    masks: Tensor | MaskLayer,
    steps: int = 300,
    batch_size: int = 4,
    learning_rate: float = 3e-3,
    mask_learning_rate: float = 0.05,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Network:
    r"""Train a network ``(samples, mask, encoding) -> complex image``, and with a mask layer the mask as well, on the same loss.

    The loss is the mean over a batch of the relative error of the complex image in the 1-norm,

    .. math:: \frac{\sum_p |\hat x_p - x_p|}{\sum_p |x_p|},

    so that a slice's brightness does not matter. Adam for the network, gradient descent with momentum 0.9 for the mask, whose probabilities
    are projected after every step (Eq. 6, 7); both learning rates fall to 0 along a cosine.

    Parameters
    ----------
    network
        Such as :class:`prom.reconstruction.unrolled.Unrolled`. It is trained in place.
    train
        Slices with coils, or of one channel without. Simulated noise is drawn for every batch; what was measured has its own.
    masks
        ``(H, W)``; or ``(M, H, W)``, one of them at random for each slice; or a :class:`prom.MaskLayer`, which draws one for every
        batch and is trained in place. ``layer.mask()`` is the mask then, with its budget exactly. Those drawn in training have it on
        average, so that the network gains from some more steps with that mask.
    steps, batch_size
        Batches, and slices in each.
    learning_rate, mask_learning_rate
        Of the network and of the mask at the start. 0 leaves the one or the other as it is.
    seed
        Of order, noise and choice of masks; a layer has its own. Same seed, same machine, same number of threads: same bits.
    device
        "cpu", "cuda", or "auto": CUDA where there is one.

    Returns
    -------
    torch.nn.Module
        The network, in evaluation mode. :class:`prom.reconstruction.through.Through` makes a reconstruction of it.

    Raises
    ------
    InputError
        Where a number is out of range, a mask or layer does not fit the data, or the loss is not finite.

    >>> from prom.reconstruction.unrolled import Unrolled
    >>> data = SliceDataset("demo", "train", torch.rand(4, 1, 16, 16), list("abcd"), [0] * 4)
    >>> layer = MaskLayer((16, 16), acceleration=4)
    >>> network = train_network(Unrolled(0.05, cascades=1), data, layer, steps=2, device="cpu")
    >>> int(layer.mask().sum())
    64
    """
    steps = options.check("steps", steps, "[1, 1e9]", whole=True)
    batch_size = options.check("batch_size", batch_size, "[1, 1e6]", whole=True)
    learning_rate = options.check("learning_rate", learning_rate, "[0, 1e6]")
    mask_learning_rate = options.check("mask_learning_rate", mask_learning_rate, "[0, 1e6]")
    device = choose_device(device)
    generator = torch.Generator().manual_seed(options.check_seed(seed))
    if train.kind != "slices" or train.trajectory is not None:
        what = train.kind if train.trajectory is None else "readouts off the grid"
        raise InputError(f"{train.name}: has {what}, and a network is trained on slices of a grid; leave out what makes {what} of them")
    layer = masks.to(device).train() if isinstance(masks, MaskLayer) else None
    if layer is None:
        masks = as_masks(masks, train.shape, train.name).to(device)
    elif layer.pattern.samples != train.shape:
        raise InputError(f"mask layer of {layer.pattern.samples}: does not fit {train.name}, which is {train.shape}")
    for module in (network, *([layer] if layer else [])):
        check_network(module)
    inner = [module for module in network.modules() if isinstance(module, MaskLayer) and module is not layer]
    if learning_rate and any(one.theta.requires_grad for one in inner):
        raise InputError(f"{type(network).__name__}: has a mask layer of its own, which would leave its budget; give that as masks")
    of_layer = {weight for one in (layer, *inner) if one is not None for weight in one.parameters()}  # which may be parts of the network
    weights = [weight for weight in network.parameters() if weight not in of_layer]
    if not (layer and mask_learning_rate and layer.theta.requires_grad) and not (weights and learning_rate):
        raise InputError(f"{type(network).__name__}: nothing is to be learnt, neither weights nor a mask; give a learning rate above 0")
    network.to(device).train(learning_rate > 0)  # else its statistics of batches stay too
    if layer:
        layer.train()
    if learning_rate and not any(weight.requires_grad for weight in weights):
        for weight in weights:
            weight.requires_grad_()  # it was frozen to be used
    optimisers = [torch.optim.Adam(weights, learning_rate)] if weights else []
    optimisers += [torch.optim.SGD(layer.parameters(), mask_learning_rate, MOMENTUM)] if layer else []
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps) for optimiser in optimisers]
    batches = ShuffledBatches(len(train), batch_size, generator)
    bar = tqdm(range(steps), desc=f"train {type(network).__name__} on {train.name}", disable=None, leave=False)
    for step in bar:
        indices = next(batches)
        samples, target = train.samples(indices, generator), train.images[indices][:, 0]
        scale = unit(target.abs().amax(dim=(-2, -1), keepdim=True))  # a power of two, so that no unit is too small or too large
        samples, target = (samples / scale.unsqueeze(-3)).to(device), (target / scale).to(device)
        picked = None if layer else torch.randint(len(masks), (len(indices),), generator=generator)
        mask = layer.sample() if layer else masks[picked].unsqueeze(1)
        found = network(samples, mask, train.encoding(indices, device))
        check_image(network, found, tuple(target.shape))
        sizes = target.abs().sum(dim=(-2, -1))
        loss = ((found - target).abs().sum(dim=(-2, -1)) / sizes).mean()
        if not loss.isfinite():
            if len(empty := (sizes == 0).nonzero()):
                name = train.describe(int(indices[int(empty[0, 0])]))
                raise InputError(f"{name}: is 0 everywhere, so that no relative error of it is defined; leave it out (skip_constant)")
            raise InputError(f"{train.name}: the loss is {loss.item():g} in step {step + 1}; use a lower learning rate")
        if not loss.requires_grad:
            raise InputError(f"{type(network).__name__}: its image does not depend on its weights, nor on the mask; it must not detach")
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        if not step:
            _check_led_back(network, weights if learning_rate else [], layer if mask_learning_rate else None)
        for part in (*optimisers, *schedules):
            part.step()
        if layer:
            layer.project()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    if layer:
        layer.eval()
    return network.eval()


def _check_led_back(network: nn.Module, weights: list[nn.Parameter], layer: MaskLayer | None) -> None:
    """Refuse a network of which what is to be learnt has no gradient."""
    if weights and all(weight.grad is None for weight in weights):
        raise InputError(f"{type(network).__name__}: its image does not depend on its weights; it must not detach, or learning_rate=0")
    if layer and layer.theta.requires_grad and layer.theta.grad is None:
        raise InputError(f"{type(network).__name__}: its image does not depend on the mask; it must not detach, or mask_learning_rate=0")
