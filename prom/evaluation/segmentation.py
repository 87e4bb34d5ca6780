"""Networks that segment: trained on fully sampled images, frozen, and looked at through masks (section 4.4, Table 2)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from prom import options
from prom.datasets.base import SliceDataset
from prom.engine import network_files
from prom.engine.device import choose_device
from prom.engine.optional import monai
from prom.errors import InputError
from prom.evaluation.evaluate import check_masked, reconstructed
from prom.files import check_writable
from prom.learn.batches import ShuffledBatches
from prom.masks import as_mask, as_masks
from prom.objectives import ImageLoss, Objective
from prom.objectives.reconstructed import Reconstructed, metadata_of
from prom.reconstruction.zero_filled import Reconstruction, undersample

FORMAT = "prom network 1"
CHANNELS = (16, 32, 64, 128, 256)  # paper, section 4.4
TUMOUR_REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing tumour": (3,)}  # as BraTS scores them
BATCH = 16  # slices that are segmented together
NOT_FINITE = "returned NaN or infinite values"
UNMASKED = "reconstruction without masks: fully sampled images need none; give masks too, or leave it out"


class _DiceAndBinary(nn.Module):
    """Dice and the cross-entropy of each region by itself."""

    def __init__(self, dice: nn.Module) -> None:
        super().__init__()
        self.dice, self.binary = dice, nn.BCEWithLogitsLoss()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.dice(logits, targets) + self.binary(logits, targets)


@dataclass(eq=False)
class Segmenter:
    """A network that segments, and what its output means.

    Attributes
    ----------
    network
        Any ``torch.nn.Module`` from ``(P, C, H, W)`` float32 magnitude images to ``(P, K, H, W)`` logits: one channel for each region
        where regions overlap, and one for the background before them where they do not.
    regions
        The label values that each region consists of, by name: ``{"RV": (1,), "MYO": (2,), "LV": (3,)}``.
    metadata
        What is known of its training, for records.

    >>> segmenter = Segmenter(nn.Conv2d(1, 3, 1), {"a": (1,), "b": (2,)})
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.randint(3, (2, 8, 8))
    >>> segmenter.exclusive, segmenter.predict(images).shape, segmenter.loss(images, labels).ndim
    (True, torch.Size([2, 2, 8, 8]), 0)
    """

    network: nn.Module
    regions: Mapping[str, Sequence[int]]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.regions = _checked(self.regions)

    @property
    def exclusive(self) -> bool:
        """Whether no label is in two regions: then a pixel gets one of them or the background, by the largest logit."""
        values = [value for region in self.regions.values() for value in region]
        return len(values) == len(set(values))

    @cached_property
    def _criterion(self) -> nn.Module:
        of = monai("losses")
        if self.exclusive:
            return of.DiceCELoss(include_background=False, softmax=True)
        return _DiceAndBinary(of.DiceLoss(sigmoid=True))  # DiceCELoss has a softmax over channels, here too

    def targets(self, labels: Tensor) -> Tensor:
        """``(P, H, W)`` labels to ``(P, K, H, W)`` bool, one channel a region."""
        return torch.stack([torch.isin(labels, torch.tensor(values, device=labels.device)) for values in self.regions.values()], dim=1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Dice plus cross-entropy, the mean over images ``(P, C, H, W)``; a scalar. The background has no part in the Dice term.

        It is MONAI's ``DiceCELoss``, of a softmax. Where regions overlap, both terms are of a sigmoid for each region instead.
        """
        return self.loss_of(self.logits(images), labels)

    def logits(self, images: Tensor) -> Tensor:
        """The network's output, ``(P, K, H, W)``.

        Raises
        ------
        InputError
            Where it returns anything else.
        """
        found, wanted = self.network(images), (len(images), len(self.regions) + self.exclusive, *images.shape[-2:])
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted or not found.is_floating_point():
            what = f"{found.dtype} of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            channels = f"{'the background and ' if self.exclusive else ''}{', '.join(self.regions)}"
            raise InputError(f"{type(self.network).__name__}: returned {what}: must be logits of {wanted}, for {channels}")
        return found

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same for the network's output, ``(P, K, H, W)`` logits."""
        targets = self.targets(labels)
        if self.exclusive:
            targets = torch.cat([~targets.any(dim=1, keepdim=True), targets], dim=1)
        return self._criterion(logits, targets.float())

    def _shows(self, labels: Tensor, device: torch.device) -> bool:
        """Whether any of the regions is in ``(P, H, W)`` labels."""
        return any(bool(self.targets(labels[at : at + BATCH].to(device)).any()) for at in range(0, len(labels), BATCH))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """``(P, C, H, W)`` magnitude images to ``(P, K, H, W)`` bool, one channel a region. Puts the network into evaluation mode."""
        self.network.eval()
        return self.decide(self.logits(images))

    def decide(self, logits: Tensor) -> Tensor:
        """What is segmented: ``(P, K, H, W)`` logits to bool, one channel a region. NaN is refused, as no region's."""
        if logits.isnan().any():
            raise InputError(f"{type(self.network).__name__}: {NOT_FINITE}; repair it")
        if not self.exclusive:
            return logits > 0
        best = logits.argmax(dim=1, keepdim=True)
        return best == torch.arange(1, logits.shape[1], device=best.device)[:, None, None]

    def objective(
        self,
        data: SliceDataset,
        device: torch.device | str = "auto",
        near: Tensor | None = None,
        reconstruction: Reconstruction | None = None,
    ) -> Objective:
        """The loss of the frozen network on images seen under a mask, for :func:`prom.optimize`, :func:`prom.polish` and learnt baselines.

        The images are zero-filled, or what ``reconstruction`` makes of the samples of all coils.

        ``near``: a mask of the wanted acceleration, ``(H, W)`` bool. Then the loss has a curvature, measured there
        (:func:`prom.curvature.near`), without which scale-invariant ProM loses the lowest frequencies.

        Raises
        ------
        InputError
            Where the data have no labels, or none of what the network segments, or the network or the mask does not fit them.
        """
        device = choose_device(device)
        _check_fit(self.metadata, data)
        _check_names(self.regions, data)
        if not self._shows(_labels(data), device):
            raise InputError(f"{data.name}: no slice shows any of {', '.join(self.regions)}, which the network segments; give other labels")
        check_masked(data, reconstruction)
        for weight in self.network.to(device).eval().parameters():
            weight.requires_grad_(False)
        described = {"objective": "segmentation", "network": self.fingerprint()}
        if reconstruction is None:
            return ImageLoss(data.images, self.loss, device, targets=_labels(data), near=near, described=described)
        return Reconstructed(data, reconstruction, device, self.loss, targets=_labels(data), near=near, described=described)

    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of weights, regions and metadata, and of a network of your own the text of its layers."""
        layers = [] if "channels" in self.metadata else [str(self.network)]  # the metadata of our own tell them
        return network_files.fingerprint(self.network, [dict(self.regions), self.metadata, *layers])

    def save(self, path: str | os.PathLike) -> None:
        """Write weights, in single precision, and metadata, as plain tensors, numbers and text. Only for networks of :func:`train`."""
        if "channels" not in self.metadata:
            raise InputError("a network of your own: save it in your own way; only networks of prom.segmentation.train are written")
        weights = network_files.single(self.network)
        regions = {name: list(values) for name, values in self.regions.items()}
        network_files.write(path, {"format": FORMAT, "regions": regions, "story": self.metadata, "weights": weights})


def load(path: str | os.PathLike) -> Segmenter:
    """Read a network that :meth:`Segmenter.save` wrote. Nothing in the file is executed.

    Raises
    ------
    InputError
        Where the file is missing, damaged, or not such a network.
    """
    with network_files.refusing(path, "make one with 'prom segment train'"):
        regions, metadata, weights = network_files.described(network_files.read(path), FORMAT)
        with torch.device("meta"):  # where it takes no memory
            network_files.check_weights(weights, _unet(regions, metadata))
        segmenter = Segmenter(_unet(regions, metadata), regions, metadata)
        segmenter.network.load_state_dict(weights)
    segmenter.network.eval()
    return segmenter


def file_fingerprint(path: str | os.PathLike) -> str:
    """:meth:`Segmenter.fingerprint` of the network in a file.

    Raises
    ------
    InputError
        As :func:`load`.
    """
    return load(path).fingerprint()


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    data: SliceDataset,
    validation: SliceDataset,
    steps: int = 900,
    batch_size: int = 12,
    learning_rate: float = 1.5e-3,
    channels: Sequence[int] = CHANNELS,
    regions: Mapping[str, Sequence[int]] | None = None,
    start: Segmenter | None = None,
    masks: Tensor | None = None,
    augment: bool = False,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | os.PathLike | None = None,
    reconstruction: Reconstruction | None = None,
    output: str | os.PathLike | None = None,
) -> Segmenter:
    """Train MONAI's U-Net on the slices of ``data``, and keep the weights that were best on ``validation``.

    Adam, the learning rate falling to 0 along a cosine, batches of shuffled slices, each mirrored left to right at random. Ten times in
    the course of the training the mean Dice coefficient over ``validation`` is taken.

    Parameters
    ----------
    data, validation
        Slices with labels; no patient in both (``data.hold_out(0.2)`` makes both from one).
    steps, batch_size, learning_rate
        Batches, slices in each, and Adam's step at the start.
    channels
        Features on each level of the U-Net, two residual units a level.
    regions
        What is to be segmented: see :class:`Segmenter`. By default every label by itself; of brain tumours the three regions of BraTS.
    start
        A network of this function to go on from (fine-tuning), instead of new weights.
    masks
        ``(M, H, W)`` bool: then every image is seen zero-filled, in training under one of them, chosen at random, in validation under each.
    augment
        Whether training images are also varied at random (:func:`augmentation`): for few patients, with more steps.
    seed
        Of weights, order, mirroring, choice of masks and variation. Same seed, same machine, same number of threads: same bits.
    device
        "cpu", "cuda", or "auto": CUDA where there is one.
    checkpoint
        A file that the state is written to ten times, and that an interrupted training goes on from. Removed at the end.
    reconstruction
        What makes the images that are seen under ``masks``, from the samples of all coils; by default zero-filling.
    output
        A file that the network is saved to, before the checkpoint is removed.

    Raises
    ------
    InputError
        Where labels are missing, a patient is on both sides, a number is out of range, the images cannot be halved often enough, no
        slice for validation shows what is to be segmented, the loss is not finite, or a checkpoint is of another training.
    """
    steps = options.check("steps", steps, "[1, 1e9]", whole=True)
    batch_size = options.check("batch_size", batch_size, "[1, 1e6]", whole=True)
    learning_rate = options.check("learning_rate", learning_rate, "(0, 1e6]")
    channels = [options.check("channels", number, "[1, 4096]", whole=True) for number in channels]
    if not 2 <= len(channels) <= 10:
        raise InputError(f"channels {list(channels)}: must be 2 to 10 numbers, one for each level")
    seed = options.check_seed(seed)
    labels = _labels(data)
    both = set(data.patients or data.subjects) & set(validation.patients or validation.subjects)
    if both:
        raise InputError(f"patient {min(both)}: is in the training and in the validation slices; use data.hold_out(0.2)")
    if start is not None:
        _check_start(start, regions, channels)
    regions = dict(start.regions if start else default_regions(data) if regions is None else _checked(regions))
    _check_names(regions, data)
    _check_names(regions, validation)
    metadata = {"channels": list(start.metadata["channels"] if start else channels), "in_channels": data.images.shape[1]}
    _check_fit(start.metadata if start else metadata, data)
    _check_fit(start.metadata if start else metadata, validation)
    if masks is not None:
        for part in (data, validation):
            masks = as_masks(masks, part.grid, part.name)
            check_masked(part, reconstruction)
    settings = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "fingerprint": data.fingerprint(),
        "fingerprint_validation": validation.fingerprint(),
        "fine_tuned": start is not None,
        "masks": 0 if masks is None else len(masks),
        "augmented": augment,
    }
    if reconstruction is not None:
        if masks is None:
            raise InputError(UNMASKED)
        settings |= metadata_of(reconstruction)
    named = {name: [int(value) for value in values] for name, values in regions.items()}
    seen = None if masks is None else hashlib.sha256(masks.cpu().numpy().tobytes()).hexdigest()
    asked = settings | {"masks": seen, "start": start and start.fingerprint(), "regions": named}  # to know an interrupted one again
    device = choose_device(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _unet(regions, metadata)
    if start:
        network.load_state_dict(start.network.state_dict())
    segmenter = Segmenter(network.to(device), regions, {**metadata, **settings})
    if not segmenter._shows(_labels(validation), device):
        raise InputError(f"{validation.name}: no slice for validation shows any of {', '.join(regions)}; hold out other patients")
    adam = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    batches = ShuffledBatches(len(data), min(batch_size, len(data)), generator)
    state: dict[str, Any] = {"step": 0, "best": -1.0, "weights": {}}
    if output:
        check_writable(output)
    if checkpoint:
        check_writable(checkpoint)
        if Path(checkpoint).is_file():
            state = _resume(Path(checkpoint), asked, network, adam, schedule)
            for _ in range(state["step"]):  # the same draws as before
                _batch(data, labels, masks, batches, generator, reconstruction, images=False)
    vary = augmentation() if augment else None
    stops = {math.ceil(steps * (place + 1) / 10) for place in range(10)}
    bar = tqdm(total=steps, initial=state["step"], desc=f"train U-Net on {data.name}", disable=None, leave=False)
    while state["step"] < steps:
        network.train().requires_grad_(True)
        images, classes = _batch(data, labels, masks, batches, generator, reconstruction)
        if vary:
            vary.set_random_state(seed=seed + 1_000_000 * (state["step"] + 1))  # by step: one that goes on draws the same
            varied = [vary({"image": image, "label": label[None]}) for image, label in zip(images, classes, strict=True)]
            images, classes = (torch.stack([one[part].as_tensor() for one in varied]) for part in ("image", "label"))
            classes = classes[:, 0]
        adam.zero_grad()
        loss = segmenter.loss(images.to(device), classes.to(device))
        if not loss.isfinite():
            raise InputError(f"{data.name}: the loss is {loss.item():g} in step {state['step'] + 1}; use a lower learning rate")
        loss.backward()
        adam.step()
        schedule.step()
        state["step"] += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", best=f"{state['best']:.3f}", refresh=False)
        if state["step"] in stops:
            try:
                dice = _validate(segmenter, validation, masks, reconstruction)
            except InputError as error:
                if NOT_FINITE not in str(error):
                    raise
                raise InputError(f"{data.name}: the network {NOT_FINITE} after step {state['step']}; use a lower learning rate") from error
            if dice > state["best"]:
                state |= {"best": dice, "weights": {name: value.detach().clone() for name, value in network.state_dict().items()}}
            if checkpoint:
                live = {"network": network.state_dict(), "adam": adam.state_dict(), "schedule": schedule.state_dict()}
                network_files.write(checkpoint, {**state, **live, "asked": asked})
    bar.close()
    network.load_state_dict(state["weights"])
    network.eval().requires_grad_(False)
    segmenter.metadata["validation_dice"] = state["best"]
    if output:
        segmenter.save(output)
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return segmenter


@torch.no_grad()
def evaluate(
    segmenter: Segmenter,
    data: SliceDataset,
    mask: Tensor | None = None,
    device: str | torch.device = "auto",
    reconstruction: Reconstruction | None = None,
) -> pd.DataFrame:
    """Dice coefficient and intersection over union of every slice and region, of images seen under ``mask`` (None: fully sampled).

    The images are zero-filled, or what ``reconstruction`` makes of the samples of all coils.

    MONAI's rule for absent regions: where a slice does not show a region, it has no score for it (NaN), whatever was predicted; ``dice``
    and ``iou`` are the means over the regions that it shows, and NaN where it shows none. Table 2's numbers are means over slices.

    Returns
    -------
    pandas.DataFrame
        One row a slice: subject, slice, ``loss`` (NaN or infinite where logits are -inf), ``dice``, ``iou``, and ``dice NAME``, ``iou
        NAME`` for every region.

    Raises
    ------
    InputError
        Where the data have no labels, the network or the mask does not fit them, or it returns NaN.
    """
    labels = _labels(data)
    if mask is not None:
        mask = as_mask(mask, data.grid, data.name)
        check_masked(data, reconstruction)
    elif reconstruction is not None:
        raise InputError(UNMASKED)
    device = choose_device(device)
    _check_fit(segmenter.metadata, data)
    _check_names(segmenter.regions, data)
    segmenter.network.to(device).eval()
    scores, losses = [], []
    starts = range(0, len(data), BATCH)
    for start in tqdm(starts, desc=f"segment {data.name} {data.split}", delay=2, disable=None, leave=False):
        block = slice(start, start + BATCH)
        if mask is None or reconstruction is None:
            images = data.images[block].to(device)
            images = images.abs() if mask is None else undersample(images, mask.to(device))
        else:
            images = reconstructed(data, range(len(data))[block], mask.to(device), reconstruction)
        classes = labels[block].to(device)
        logits = segmenter.logits(images)
        if len(wrong := (logits.isnan() | (logits == torch.inf)).flatten(1).any(dim=1).nonzero()):
            of = data.describe(start + int(wrong[0]))
            raise InputError(f"{type(segmenter.network).__name__}: {NOT_FINITE} for {of}; repair it")
        losses += [float(segmenter.loss_of(logits[one : one + 1], classes[one : one + 1])) for one in range(len(logits))]
        predicted, targets = segmenter.decide(logits), segmenter.targets(classes)
        both, size, target_size = (part.sum(dim=(-2, -1)).double() for part in (predicted & targets, predicted, targets))
        there = torch.where(target_size > 0, 1.0, torch.nan)
        dice, iou = 2 * both / (size + target_size), both / (size + target_size - both)
        scores.append((torch.stack([dice, iou], dim=-1) * there.unsqueeze(-1)).cpu())
    values = torch.cat(scores)  # (N, K, 2)
    table = pd.DataFrame({"subject": list(data.subjects), "slice": list(data.slices), "loss": losses})
    for place, score in enumerate(("dice", "iou")):
        table[score] = values[..., place].nanmean(dim=1).numpy()
    for region, name in enumerate(segmenter.regions):
        for place, score in enumerate(("dice", "iou")):
            table[f"{score} {name}"] = values[:, region, place].numpy()
    return table


def default_regions(data: SliceDataset) -> dict[str, tuple[int, ...]]:
    """Every label but the background by itself, without names those that occur; of brain tumours the three nested regions of BraTS.

    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 4, 4), ["a"], [0], torch.ones(1, 4, 4).byte(), ("background", "heart"))
    >>> default_regions(data)
    {'heart': (1,)}
    """
    if data.name == "brain_tumour":
        return dict(TUMOUR_REGIONS)
    found = sorted({value for one in _labels(data) for value in one.unique().tolist()})
    if data.label_names:  # those made of numbers alone are of all up to the largest
        named = [(str(name), value) for value, name in enumerate(data.label_names) if value in found or value and name != f"label {value}"]
        names = [name for name, _ in named]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{data.name}: two labels are called {doubled[0]!r}; give each a name of its own, or name regions")
        if found and found[-1] >= len(data.label_names):
            known = ", ".join(map(str, data.label_names))
            raise InputError(
                f"{data.name}: label {found[-1]} has no name, label_names are {known} from 0; name all, or none, or name regions"
            )
        return {name: (value,) for name, value in named if value}
    return {f"label {value}": (value,) for value in found if value}


def augmentation() -> Any:
    """Random variation as in nnU-Net, of MONAI's transforms: of ``{"image": (C, H, W), "label": (1, H, W)}``.

    Rotation, size, noise, blur, brightness, contrast and resolution, about as often and as far as nnU-Net varies them (Isensee et al.,
    "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature Methods 18, 2021). The network sees
    low resolution, then, down to half of it, but no undersampled k-space.

    >>> vary = augmentation().set_random_state(seed=0)
    >>> vary({"image": torch.rand(1, 32, 32), "label": torch.ones(1, 32, 32)})["image"].shape
    torch.Size([1, 32, 32])
    """
    of = monai("transforms")
    image, both = "image", ["image", "label"]
    turn = {"rotate_range": math.pi / 12, "scale_range": (-0.3, 0.4), "padding_mode": "zeros"}
    return of.Compose(
        [
            of.RandAffined(both, prob=0.5, mode=["bilinear", "nearest"], **turn),
            of.RandGaussianNoised(image, prob=0.15, std=0.1),
            of.RandGaussianSmoothd(image, prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            of.RandScaleIntensityd(image, prob=0.15, factors=0.25),
            of.RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.5)),
            of.RandSimulateLowResolutiond(image, prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="bilinear"),
        ]
    )


def _unet(regions: Mapping[str, Sequence[int]], metadata: Mapping[str, Any]) -> nn.Module:
    channels = tuple(metadata["channels"])
    out = len(regions) + Segmenter(nn.Identity(), regions).exclusive
    network = monai("nets").UNet(2, metadata["in_channels"], out, channels, strides=(2,) * (len(channels) - 1), num_res_units=2)
    for part in list(network.modules()):
        for name, child in part.named_children():
            if type(child) is nn.PReLU:
                setattr(part, name, _PReLU())
    return network.float()


class _PReLU(nn.PReLU):
    """The same bits, on a CPU five times as fast while its slope is frozen: PyTorch computes the slope's gradient all the same."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad or x.device.type != "cpu":  # elsewhere reading the slope would wait for the device
            return super().forward(x)
        return nn.functional.leaky_relu(x, self.weight.item())


def _check_fit(metadata: Mapping[str, Any], data: SliceDataset) -> None:
    """Refuse data that a network of :func:`train` cannot take; of other networks nothing is known but that they take slices."""
    if data.kind != "slices":
        raise InputError(f"{data.name}: has {data.kind}, and the network segments slices; leave out what makes {data.kind} of them")
    if "channels" not in metadata:
        return
    channels, halvings = data.images.shape[1], 2 ** (len(metadata["channels"]) - 1)
    if channels != metadata["in_channels"]:
        raise InputError(
            f"{data.name}: has {channels} channel(s), and the network is for {metadata['in_channels']}; train one on such data"
        )
    if any(side % halvings or side == halvings for side in data.shape):
        wanted = ",".join(str(max(2, math.ceil(side / halvings)) * halvings) for side in data.shape)
        raise InputError(
            f"{data.name}: images of {data.shape[0]} x {data.shape[1]}: sides must be multiples of {halvings}, and larger, for "
            f"{len(metadata['channels'])} levels; size={wanted} fills up images of your own"
        )


def _check_names(regions: Mapping[str, Sequence[int]], data: SliceDataset) -> None:
    """Refuse data in which a region's name is that of another label: the network would be scored by what it does not segment."""
    names = [str(name) for name in data.label_names]
    for name, values in regions.items():
        known = [value for value, other in enumerate(names) if other == name]
        known = known or [value for value, other in enumerate(names) if other.casefold() == name.casefold()]
        if known and not set(known) & set(values):
            has = f"label{'' if len(values) == 1 else 's'} {', '.join(map(str, values))}"
            raise InputError(f"{data.name}: calls label {known[0]} {name!r}, which in the network is {has}; give labels as it has")


def _checked(regions: object) -> dict[str, tuple[int, ...]]:
    """Regions as a network's file can hold them."""
    try:
        given = dict(regions)
        found = {str(name): tuple(dict.fromkeys(index(value) for value in values)) for name, values in given.items()}
        if len(found) < len(given):
            raise ValueError("two names are alike as text")
    except (TypeError, ValueError) as error:
        raise InputError(f"regions {regions!r}: must be lists of labels by name, e.g. {{'heart': (1, 2)}}") from error
    for name, values in found.items():
        if not values or not all(0 <= value <= 255 for value in values):
            raise InputError(f"region {name!r}: must be labels from 0 to 255, one at least, not {values}")
    if not found:
        raise InputError("regions: are none; name one at least")
    return found


def _check_start(start: object, regions: object, channels: Sequence[int]) -> None:
    """What a network that is trained further has already."""
    if not isinstance(start, Segmenter) or "channels" not in start.metadata:
        raise InputError(f"start of type {type(start).__name__}: must be a network of prom.segmentation.train; read one with load")
    if regions is not None and _checked(regions) != start.regions:
        raise InputError(f"regions: the network to start from has its own, {', '.join(start.regions)}; leave them out")
    if list(channels) not in (list(CHANNELS), list(start.metadata["channels"])):
        raise InputError(f"channels {list(channels)}: the network to start from has {list(start.metadata['channels'])}; leave them out")


def _labels(data: SliceDataset) -> Tensor:
    if data.labels is None:
        raise InputError(f"{data.name}: has no labels; a segmentation needs them")
    return data.labels


def _batch(
    data: SliceDataset,
    labels: Tensor,
    masks: Tensor | None,
    batches: Any,
    generator: torch.Generator,
    reconstruction: Reconstruction | None,
    images: bool = True,
) -> Any:
    """The next images and labels, mirrored and undersampled at random; without ``images`` only the draws are made."""
    chosen = next(batches)
    mirrored = torch.rand(len(chosen), generator=generator, dtype=torch.float32) < 0.5
    picked = torch.randint(1 if masks is None else len(masks), (len(chosen),), generator=generator)
    if not images:
        return None
    pictures, classes = data.images[chosen], labels[chosen]
    if reconstruction is not None:
        pictures = reconstructed(data, chosen, masks[picked].unsqueeze(1), reconstruction)
    else:
        pictures = pictures.abs() if masks is None else undersample(pictures, masks[picked].unsqueeze(1))
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
    return pictures, torch.where(mirrored[:, None, None], classes.flip(-1), classes)


def _validate(segmenter: Segmenter, validation: SliceDataset, masks: Tensor | None, reconstruction: Reconstruction | None) -> float:
    device = next(segmenter.network.parameters()).device
    tables = [evaluate(segmenter, validation, mask, device, reconstruction) for mask in ([None] if masks is None else masks)]
    return float(sum(table["dice"].mean() for table in tables) / len(tables))


def _resume(path: Path, asked: Mapping[str, Any], network: nn.Module, adam: Any, schedule: Any) -> dict[str, Any]:
    try:
        state = torch.load(network_files.checked(path), map_location="cpu", weights_only=True)
        same = state.pop("asked") == asked
        if same:
            network.load_state_dict(state.pop("network"))
            adam.load_state_dict(state.pop("adam"))
            schedule.load_state_dict(state.pop("schedule"))
    except Exception as error:  # a damaged file fails in any of many ways
        raise InputError(f"checkpoint {path}: cannot be read; remove it to start again") from error
    if not same:
        raise InputError(f"checkpoint {path}: is of a training with other data, masks or settings; remove it, or name another file")
    return state
