"""What a mask does to one image, as pictures, numbers and words: for pages and widgets, which know nothing of k-space."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prom import options
from prom.datasets.base import SliceDataset
from prom.datasets.units import unit
from prom.errors import InputError
from prom.evaluation import segmentation
from prom.evaluation.evaluate import evaluate, reconstructed
from prom.kspace.encoding import Encoding
from prom.reconstruction.zero_filled import Reconstruction, image_of, undersample
from prom.show.figures import COLOURS

DECIBELS = 40.0  # how far below its peak a point spread is drawn
ERRORS = 0.2  # share of the image's maximum that is the brightest error, as in the chapters
AMPLIFIED = 3.0  # the brightest g-factor: beyond it noise covers the image
SPREAD_MAP, NOISE_MAP, ERROR_MAP = "magma", "magma", "cividis"
LEVELS = 24  # of maps: hardly fewer than an eye can distinguish, and half the bytes of 256
GREYS = 64  # of images: noise hides the steps, and a page holds hundreds of them
REGION_COLOURS = ("#000000", COLOURS["equispaced"], COLOURS["energy"], COLOURS["accent"], COLOURS["accent2"], COLOURS["paper"])
WRONG_COLOURS = ("#000000", "#555555", COLOURS["paper"])  # background, right, wrong

TITLES = {
    "mask": "Mask",
    "spread": "Point spread, its middle",
    "noise": "Noise (g-factor)",
    "target": "Fully sampled",
    "image": "Zero-filled",
    "error": "Error",
    "truth": "True regions",
    "regions": "Seen by the network",
    "wrong": "Wrong pixels",
}


ZERO_FILLED = "zero-filled"  # the name of what there is without a reconstruction


class Picture(NamedTuple):
    """A PNG file, what is to be seen on it (alternative text), a short note to stand under it, and a title to stand above it."""

    png: bytes
    alt: str
    note: str
    title: str


@dataclass(frozen=True, eq=False)
class View:
    """One image through one mask.

    Attributes
    ----------
    mask
        ``(H, W)`` bool, centred.
    spread
        The magnitude of the point-spread function of zero-filling, ``(H, W)``, in dB relative to its peak, which is in the middle; -120
        at least.
    target, image
        Magnitudes ``(H, W)``, fully sampled and reconstructed, as shares of the maximum of the former.
    scores
        ``psnr`` (dB), ``ssim`` and ``nmse`` in the paper's convention, ``acceleration`` (the true one, D by the number of samples),
        ``stray`` (pixels within which half of the energy outside the point spread's own pixel lies); with a network also ``dice`` and
        ``wrong`` (the share of the pixels in or taken for a region for which the network finds another one).
    truth, regions
        With a network: the true region of each pixel and the region that the network finds, ``(H, W)`` int, 0 for none; else None.
    names
        Of the regions, from 1.
    """

    mask: Tensor
    spread: Tensor
    target: Tensor
    image: Tensor
    scores: dict[str, float]
    truth: Tensor | None = None
    regions: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def error(self) -> Tensor:
        """``(H, W)``: the absolute difference, as a share of the fully sampled image's maximum."""
        return (self.image - self.target).abs()


def look(
    data: SliceDataset,
    index: int,
    mask: Tensor,
    segmenter: segmentation.Segmenter | None = None,
    channel: int = 0,
    reconstruction: Reconstruction | None = None,
) -> View:
    r"""What ``mask`` makes of slice ``index`` of a data set.

    Scores are those of :func:`prom.evaluate` and :func:`prom.evaluation.segmentation.evaluate` for this slice, all channels; the
    pictures show one. The point-spread function is :math:`p = F^{-1}(m \odot F \delta)` with one bright pixel :math:`\delta` in the
    middle: of zero-filling with one coil, whatever the reconstruction, since it describes the mask.

    ``reconstruction`` is as of :func:`prom.evaluate`: it makes the image of the samples of all coils; without one it is zero-filled.

    Raises
    ------
    InputError
        Where the mask is empty or of another size, the channel is not there, or a network is given and labels are not.

    >>> data = SliceDataset("demo", "test", torch.rand(1, 1, 16, 16), ["a"], [0])
    >>> view = look(data, 0, torch.ones(16, 16, dtype=torch.bool))      # everything measured: no error, nothing goes astray
    >>> view.scores["acceleration"], view.scores["stray"], bool(view.error.max() < 1e-5)
    (1.0, 0.0, True)
    """
    refuse_all_but_slices(data)
    if not 0 <= channel < data.images.shape[1]:
        raise InputError(f"channel {channel}: {data.name} has channels 0 to {data.images.shape[1] - 1}")
    options.check("index", index, f"[0, {len(data) - 1}]", whole=True)
    if not mask.any():
        raise InputError("mask: measures nothing")
    one = data.select([index])
    if not one.images[0, channel].any():
        raise InputError(f"{data.describe(index)}: channel {channel} is 0 everywhere; choose another")
    kept = None if reconstruction is None else _Kept(reconstruction)
    table = evaluate(mask, one, reconstruction=kept)
    delta = torch.zeros(data.shape)
    middle = tuple(n // 2 for n in data.shape)
    delta[middle] = 1.0
    spread = undersample(delta, mask)
    scores = {name: float(table[name].iloc[0]) for name in ("psnr", "ssim", "nmse")}
    scores |= {"acceleration": mask.numel() / int(mask.sum()), "stray": _half_of(spread.square(), middle)}
    picture = one.images[0, channel].abs()
    peak = float(picture.max())
    if reconstruction is None:
        zero_filled = undersample(one.images, mask)
        image = zero_filled[0, channel] / peak
    else:
        image = kept.image[0].abs() * (unit(picture.max()) / peak)  # evaluate divides samples by that unit
    truth = regions = None
    if segmenter is not None:
        scores["dice"] = float(segmentation.evaluate(segmenter, one, mask, "cpu", reconstruction)["dice"].iloc[0])
        seen = zero_filled if reconstruction is None else reconstructed(one, [0], mask, reconstruction)
        truth, regions = (_numbered(part) for part in (segmenter.targets(one.labels), segmenter.predict(seen)))
        scores["wrong"] = float((truth != regions).sum() / max(1, int(((truth > 0) | (regions > 0)).sum())))
    decibels = 20 * (spread / spread.max()).clamp(min=1e-6).log10()
    names = tuple(segmenter.regions) if segmenter else ()
    return View(mask, decibels, picture / peak, image, scores, truth, regions, names)


def refuse_all_but_slices(data: SliceDataset) -> None:
    """Raise InputError for what is no picture of rows and columns: volumes, series, and readouts off the grid."""
    if data.kind != "slices" or data.trajectory is not None:
        what = data.kind if data.trajectory is None else data.trajectory.kind
        raise InputError(f"{data.name}: has {what}, and the explorer shows slices of a grid; leave out what makes {what} of them")


def dice(score: float) -> str:
    """The score of regions in words; NaN where there are none.

    >>> dice(0.5), dice(float("nan"))
    ('Dice 0.500', 'Dice undefined, as there is no region')
    """
    return "Dice undefined, as there is no region" if math.isnan(score) else f"Dice {score:.3f}"


def pictures(
    view: View,
    method: str,
    acceleration: float,
    what: str = "the image",
    reconstruction: str = ZERO_FILLED,
    noise: Tensor | None = None,
) -> dict[str, Picture]:
    """The pictures of a view by the names in ``TITLES``, with words for those who do not see them.

    Of the point spread the middle is drawn, half as high and half as wide: single pixels must be seen. It is that of zero-filling, and
    with another reconstruction its words say so: sparse reconstructions need it to look like noise. Where ``noise`` is given, a map
    ``(H, W)`` of :func:`prom.evaluation.noise.g_factor`, that is there instead: a linear reconstruction unfolds what the point spread
    shows, and pays for it in noise.

    ``method``, ``what`` and ``reconstruction`` are used in sentences: "energy oracle", "slice 80 of subject mni-2000", "SENSE". Regions
    are among the pictures where the view has them. Grey values are those of the fully sampled image, 0 to its maximum; maps have fixed
    scales.

    >>> data = SliceDataset("demo", "test", torch.rand(1, 1, 16, 16), ["a"], [0])
    >>> made = pictures(look(data, 0, torch.ones(16, 16, dtype=torch.bool)), "full sampling", 1)
    >>> list(made), made["mask"].alt
    (['mask', 'spread', 'target', 'image', 'error'], 'Mask of full sampling at x1: white where k-space is measured, 256 of 256 samples.')
    """
    scores, samples = view.scores, int(view.mask.sum())
    by = f"{method} at x{acceleration:g}"
    plain = reconstruction == ZERO_FILLED
    through = by if plain else f"{by}, {reconstruction}"
    quality = f"PSNR {scores['psnr']:.1f} dB, SSIM {scores['ssim']:.3f}"
    mean, largest = 100 * float(view.error.mean()), 100 * float(view.error.max())
    reach = f"{scores['stray']:.0f} pixel{'' if round(scores['stray']) == 1 else 's'}"
    light = f"half of the stray light within {reach}" if scores["stray"] else "no stray light"
    top, left = (n // 4 for n in view.spread.shape)
    middle = view.spread[top : view.spread.shape[0] - top, left : view.spread.shape[1] - left]
    made = {
        "mask": Picture(
            grey_png(view.mask.float(), 2),
            f"Mask of {by}: white where k-space is measured, {samples} of {view.mask.numel()} samples.",
            f"{samples} of {view.mask.numel()} samples",
            TITLES["mask"],
        ),
        "spread": Picture(
            map_png(middle / DECIBELS + 1, SPREAD_MAP),
            f"Point spread of {by}{'' if plain else ', zero-filled'}, the {middle.shape[0]} x {middle.shape[1]} pixels about its peak: "
            f"{light}.",
            light,
            TITLES["spread"] if plain else "Point spread, zero-filled",
        ),
        "target": Picture(grey_png(view.target), f"The fully sampled image: {what}.", "what a perfect mask would show", TITLES["target"]),
        "image": Picture(
            grey_png(view.image),
            f"Zero-filled {what} by {by}: {quality}." if plain else f"Reconstruction of {what} by {through}: {quality}.",
            quality,
            TITLES["image"] if plain else reconstruction[0].upper() + reconstruction[1:],
        ),
        "error": Picture(
            map_png(view.error / ERRORS, ERROR_MAP),
            f"Error of {what} by {through}: {mean:.1f} % of the maximum on average, {largest:.0f} % at most; {quality}.",
            f"mean {mean:.1f} %, largest {largest:.0f} %",
            TITLES["error"],
        ),
    }
    if noise is not None:
        made = {"noise" if part == "spread" else part: picture for part, picture in made.items()} | {"noise": _noise(noise, through)}
    if view.regions is not None:
        missed, agreement = f"{100 * scores['wrong']:.0f} % of the regions' pixels wrong", dice(scores["dice"])
        colours = [region_colour(number) for number in range(len(view.names) + 1)]
        wrong = torch.where(view.truth == view.regions, (view.truth > 0).int(), 2)
        made |= {
            "truth": Picture(
                indexed_png(view.truth, colours), f"The true regions of {what}.", "what the network should say", TITLES["truth"]
            ),
            "regions": Picture(
                indexed_png(view.regions, colours),
                f"Regions by the network, {what} by {through}: {agreement}.",
                agreement,
                TITLES["regions"],
            ),
            "wrong": Picture(
                indexed_png(wrong, WRONG_COLOURS),
                f"Where the network is wrong by {through}: {missed}, {agreement}.",
                missed,
                TITLES["wrong"],
            ),
        }
    return made


def _noise(g_factor: Tensor, through: str) -> Picture:
    seen = g_factor[g_factor > 0]
    median, largest = (float(seen.median()), float(seen.max())) if len(seen) else (0.0, 0.0)
    return Picture(
        map_png(g_factor / AMPLIFIED, NOISE_MAP),
        f"g-factor of {through}, the noise beyond what fewer samples explain: median {median:.2f}, largest {largest:.2f}; regularisation, "
        "if any, lowers it.",
        f"median {median:.2f}, largest {largest:.2f}",
        TITLES["noise"],
    )


def grey_png(values: Tensor, levels: int = GREYS) -> bytes:
    """``(H, W)`` values, 0 to 1, as a grey PNG file of so many levels; what is outside is black or white.

    >>> Image.open(io.BytesIO(grey_png(torch.eye(3)))).getpixel((1, 1))
    255
    """
    return _png(Image.fromarray((_steps(values, levels) * (255.0 / (levels - 1))).round().astype(np.uint8)))


def map_png(values: Tensor, colours: str, levels: int = LEVELS) -> bytes:
    """``(H, W)`` values, 0 to 1, in a colour map of matplotlib's, as a PNG file of so many colours.

    >>> Image.open(io.BytesIO(map_png(torch.eye(3), "cividis"))).size
    (3, 3)
    """
    return indexed_png(torch.from_numpy(_steps(values, levels)), colour_steps(colours, levels))


def region_colour(number: int) -> str:
    """The colour ``#rrggbb`` of a region: black for 0, and those of the others come again when they are used up.

    >>> region_colour(0), region_colour(1) == region_colour(len(REGION_COLOURS))
    ('#000000', True)
    """
    return REGION_COLOURS[1 + (number - 1) % (len(REGION_COLOURS) - 1)] if number else REGION_COLOURS[0]


def indexed_png(values: Tensor, colours: Sequence[str]) -> bytes:
    """``(H, W)`` whole numbers, each drawn in its colour ``#rrggbb``.

    >>> Image.open(io.BytesIO(indexed_png(torch.tensor([[0, 1]]), ["#000000", "#ffffff"]))).getpixel((1, 0))
    1
    """
    image = Image.fromarray(values.numpy().astype(np.uint8))
    image.putpalette(b"".join(bytes.fromhex(colour[1:]) for colour in colours))
    return _png(image)


def colour_steps(colours: str, levels: int = LEVELS) -> list[str]:
    """So many colours of a colour map of matplotlib's, from its first to its last, as ``#rrggbb``.

    >>> colour_steps("gray", 3)
    ['#000000', '#808080', '#ffffff']
    """
    return [matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps[colours](np.linspace(0, 1, levels))]


def _steps(values: Tensor, levels: int) -> np.ndarray:
    return (values.clamp(0, 1) * (levels - 1)).round().byte().numpy()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _numbered(regions: Tensor) -> Tensor:
    """``(1, K, H, W)`` bool to ``(H, W)``: the number from 1 of the last region that a pixel is in (the innermost, where they nest)."""
    return (regions[0].int() * torch.arange(1, regions.shape[1] + 1)[:, None, None]).amax(dim=0)


def _half_of(energy: Tensor, middle: tuple[int, int]) -> float:
    """The distance from the middle within which half of the energy ``(H, W)`` lies, that of the middle itself left out."""
    rows, columns = (torch.arange(n) - place for n, place in zip(energy.shape, middle, strict=True))
    distance = (rows[:, None].square() + columns.square()).sqrt().flatten()
    outside = energy.clone()
    outside[middle] = 0
    if outside.sum() <= 1e-9 * energy[middle]:
        return 0.0
    order = distance.argsort(stable=True)
    share = outside.flatten()[order].double().cumsum(0)
    return float(distance[order][int((share < share[-1] / 2).sum())])


class _Kept:
    """A reconstruction whose last image can be had, so that nothing is reconstructed twice."""

    def __init__(self, reconstruction: Reconstruction) -> None:
        self.reconstruction, self.image = reconstruction, None

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Encoding) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        self.image, pullback = image_of(self.reconstruction, samples, mask, encoding)
        return self.image, pullback
