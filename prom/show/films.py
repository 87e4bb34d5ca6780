"""Series in time as pictures: films that play in a page of their own accord, masks over frames, x-t profiles, and errors over time."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from prom import options
from prom.errors import InputError
from prom.masks.difference import lines_of
from prom.show.figures import COLOURS, grid, show_image, show_map, show_mask

LEVELS = 64  # greys: noise hides the steps, and a page should stay small
LARGEST = 2**20  # bytes of a film in a page
GAP, TITLE, BAR = 4, 18, 3  # pixels between panels, above them for titles, and below them for the time that has passed
SHEET = 24  # frames that a contact sheet shows


@dataclass(frozen=True, eq=False)
class Film:
    """An animated PNG that plays by itself, in notebooks and in pages without a kernel: nothing else is loaded.

    Attributes
    ----------
    png
        The file, whose first frame a program shows that plays none.
    alt
        Words for those who do not see it.
    frames
        How many there are.
    size
        (width, height) in pixels.
    """

    png: bytes = field(repr=False)
    alt: str
    frames: int
    size: tuple[int, int]

    def _repr_png_(self) -> bytes:
        return self.png

    def html(self) -> str:
        """A picture for a page of its own, the file within. Where a reader wants no motion, it stands still.

        >>> import torch
        >>> page = film([("a", torch.zeros(2, 4, 4))], alt="nothing moves").html()
        >>> page.count("<img"), "http" in page, 'alt="nothing moves"' in page
        (1, False, True)
        """
        with Image.open(io.BytesIO(self.png)) as image:
            still = _saved([image.copy()], 0)
        data, first = (f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in (self.png, still))
        width, height = self.size
        return (
            f'<picture><source srcset="{first}" media="(prefers-reduced-motion: reduce)">'
            f'<img src="{data}" alt="{escape(self.alt)}" width="{width}" height="{height}" style="max-width: 100%; height: auto"></picture>'
        )


def film(
    panels: Sequence[tuple[str, Tensor | np.ndarray] | tuple[str, Tensor | np.ndarray, tuple[float, float]]],
    alt: str,
    milliseconds: int = 60,
    scale: int = 2,
    levels: int = LEVELS,
) -> Film:
    """Series side by side, in grey between fixed limits, frame by frame and over and over; a bar shows the time that has passed.

    Parameters
    ----------
    panels
        Of each its title, magnitudes ``(T, H, W)``, and, where they are not 0 and 1, the values that are black and white.
    alt
        What is to be seen, in words.
    milliseconds
        How long a frame is shown, 20 to 5000; a browser slows down what is faster.
    scale
        Screen pixels along the side of a pixel, 1 to 8.
    levels
        Greys, 2 to 256.

    Raises
    ------
    InputError
        Where series are not 3D, of different numbers of frames or of none, limits are equal, or the file has over 1 MiB.

    >>> import torch
    >>> beating = torch.linspace(0, 1, 4)[:, None, None].expand(4, 16, 16)
    >>> made = film([("heart", beating), ("its error", beating / 10, (0, 0.1))], alt="A square that becomes brighter.")
    >>> made.frames, made.size, len(made.png) < 5000
    (4, (68, 53), True)
    """
    milliseconds = options.check("milliseconds", milliseconds, "[20, 5000]", whole=True)
    scale = options.check("scale", scale, "[1, 8]", whole=True)
    levels = options.check("levels", levels, "[2, 256]", whole=True)
    titles, series = [], []
    for title, frames, *limits in panels:
        low, high = limits[0] if limits else (0.0, 1.0)
        if not low < high:
            raise InputError(f"panel {title!r}: limits {low:g} and {high:g}; the first must be less than the second")
        titles.append(title)
        series.append(_greys(_series(title, frames), low, high, levels, scale))
    counts = {len(frames) for frames in series}
    if len(counts) != 1:
        raise InputError(f"a film of {len(series)} panels with {sorted(counts)} frames: must be one panel at least, all of as many frames")
    count = counts.pop()
    pictures = [_arranged([frames[index] for frames in series], titles, (index + 1) / count) for index in range(count)]
    png = _saved(pictures, milliseconds)
    if len(png) > LARGEST:
        raise InputError(
            f"a film of {len(png) / 2**20:.1f} MiB: a page should not hold over {LARGEST / 2**20:g}; show fewer panels or frames, cut the "
            "images, or take a smaller scale or fewer levels"
        )
    return Film(png, alt, count, pictures[0].size)


def _series(title: str, frames: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu().float() if frames.is_floating_point() else frames.detach().cpu()  # NumPy has no bfloat16
    array = np.asarray(frames)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "biuf":
        raise InputError(f"panel {title!r}: array of shape {array.shape} and type {array.dtype}; must be real, (T, H, W)")
    if not np.isfinite(array).all():
        raise InputError(f"panel {title!r}: has {int((~np.isfinite(array)).sum())} values that are not finite; set them to 0")
    return array


def _greys(frames: np.ndarray, low: float, high: float, levels: int, scale: int) -> np.ndarray:
    share = np.clip((frames.astype(np.float64) - low) / (high - low), 0, 1)
    grey = np.round(np.round(share * (levels - 1)) * (255.0 / (levels - 1))).astype(np.uint8)
    return grey.repeat(scale, axis=1).repeat(scale, axis=2)


def _arranged(panels: Sequence[np.ndarray], titles: Sequence[str], passed: float) -> Image.Image:
    """Panels side by side on white, titles above, and a bar below, black as far as the time has passed."""
    height = max(len(panel) for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + GAP * (len(panels) - 1)
    top = TITLE if any(titles) else 0
    picture = Image.new("L", (width, top + height + BAR), 255)
    draw, font, left = ImageDraw.Draw(picture), ImageFont.load_default(12), 0
    for panel, title in zip(panels, titles, strict=True):
        picture.paste(Image.fromarray(panel), (left, top))
        draw.text((left + panel.shape[1] / 2, 2), _fitting(draw, title, font, panel.shape[1]), fill=0, font=font, anchor="ma")
        left += panel.shape[1] + GAP
    draw.rectangle((0, top + height, width, top + height + BAR), fill=221)
    if done := round(passed * width):  # a film may have more frames than the bar has pixels
        draw.rectangle((0, top + height, done - 1, top + height + BAR), fill=0)
    return picture


def _fitting(draw: ImageDraw.ImageDraw, title: str, font: ImageFont.ImageFont, width: int) -> str:
    """As much of the title as fits in one line."""
    title = " ".join(title.split())
    while title and draw.textlength(title, font=font) > width:
        title = title[:-1]
    return title


def _saved(pictures: Sequence[Image.Image], milliseconds: int) -> bytes:
    file = io.BytesIO()
    first, *others = pictures
    moving = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0} if others else {}
    first.save(file, "PNG", optimize=True, **moving)
    return file.getvalue()


def contact_sheet(frames: Tensor | np.ndarray, columns: int | None = None, gap: float = 0.5) -> np.ndarray:
    """Frames ``(T, H, W)`` as one picture, row by row, with a line of the value ``gap`` between them.

    >>> import torch
    >>> contact_sheet(torch.eye(3).bool().expand(5, 3, 3), columns=3).shape
    (7, 11)
    """
    array = _series("contact sheet", frames).astype(np.float64)
    if columns is not None:
        options.check("columns", columns, "[1, 1e6]", whole=True)
    count, height, width = array.shape
    columns = min(count, columns or int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), gap)
    for index, frame in enumerate(array):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def lines_over_time(mask: Tensor) -> tuple[Tensor, str] | None:
    """What lines each frame of a mask measures: ``(T, W)`` of columns or ``(T, H)`` of rows, and their name; None where it has points.

    >>> import torch
    >>> mask = torch.eye(4).bool()[:, None].expand(4, 6, 4)
    >>> lines, name = lines_over_time(mask)
    >>> torch.equal(lines, torch.eye(4).bool()), name
    (True, 'columns')
    """
    names = {lines_of(frame) for frame in mask if frame.any() and not frame.all()} or {"columns"}  # all or nothing is either
    if len(names) > 1 or names == {"points"}:
        return None
    [name] = names
    return mask.any(-2 if name == "columns" else -1), name


def show_mask_over_time(axes: Axes, mask: Tensor, title: str = "") -> None:
    """A mask of a series, ``(T, H, W)`` bool: white is measured.

    Of lines one picture, phase encode upwards and time to the right, each frame a column of it; of points a contact sheet, of at most 24
    frames.

    Raises
    ------
    InputError
        Where it is not 3D.

    >>> import torch
    >>> figure, axes = grid(1, 2)
    >>> show_mask_over_time(axes[0, 0], torch.eye(8).bool()[:, None].expand(8, 5, 8))
    >>> show_mask_over_time(axes[0, 1], torch.rand(4, 5, 8) > 0.5)
    >>> axes[0, 0].get_xlabel(), axes[0, 1].images[0].get_array().shape
    ('frame', (11, 17))
    """
    if mask.ndim != 3:
        raise InputError(f"mask of {tuple(mask.shape)}: must be (T, H, W)")
    lines = lines_over_time(mask)
    if lines is None:
        show_mask(axes, contact_sheet(mask[:SHEET].cpu().numpy()), title)
        return
    measured, name = lines
    count, encodes = measured.shape
    low = -(encodes // 2) - 0.5
    axes.imshow(
        measured.cpu().T.float().numpy(),
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(-0.5, count - 0.5, low, low + encodes),
    )
    _count_frames(axes, count)
    axes.set(title=title, ylabel=f"{name.removesuffix('s')}, from DC")
    axes.grid(False)


def _count_frames(axes: Axes, count: int) -> None:
    """Label the axis of time with numbers of frames, from 1."""
    ticks = range(0, count, max(1, count // 4))
    axes.set_xticks(ticks, [frame + 1 for frame in ticks])
    axes.set_xlabel("frame")


def profile(series: Tensor | np.ndarray, index: int, rows: bool = True) -> np.ndarray:
    """One row of every frame of ``(T, H, W)``, or one column: ``(W, T)``, or ``(H, T)``, the time to the right.

    Raises
    ------
    InputError
        Where there is no such row or column.

    >>> import torch
    >>> profile(torch.arange(24).reshape(2, 3, 4), 1).tolist()
    [[4, 16], [5, 17], [6, 18], [7, 19]]
    """
    array = np.asarray(series)
    if array.ndim != 3:
        raise InputError(f"series of {array.shape}: must be frames of (T, H, W)")
    length = array.shape[1 if rows else 2]
    if not 0 <= index < length:
        raise InputError(f"{'row' if rows else 'column'} {index}: must be 0 to {length - 1}")
    return (array[:, index] if rows else array[:, :, index]).T


def profiles(
    panels: Mapping[str, Tensor | np.ndarray],
    index: int,
    rows: bool = True,
    limits: tuple[float, float] = (0.0, 1.0),
    errors: float | None = None,
    size: float = 2.0,
) -> Figure:
    """x-t profiles of series ``(T, H, W)`` side by side: one line of the image downwards, the frames to the right, counted from 1.

    Parameters
    ----------
    panels
        By title; the first is the truth.
    index, rows
        Which row of the image, or column with ``rows=False``.
    limits
        Values that are black and white: the second is the peak.
    errors
        Where given, there is a second row of panels: absolute differences from the first, from 0 to this share of the peak.
    size
        Inches of a panel.

    >>> import torch
    >>> series = torch.rand(5, 8, 8)
    >>> figure = profiles({"truth": series, "other": series / 2}, 4, errors=0.2)
    >>> len(figure.axes)
    4
    """
    drawn = {title: profile(series, index, rows) for title, series in panels.items()}
    truth = next(iter(drawn.values()))
    figure, axes = grid(1 if errors is None else 2, len(drawn), size)
    for column, (title, picture) in enumerate(drawn.items()):
        show_image(axes[0, column], picture, title, limits)
        if errors is not None:
            show_map(axes[1, column], np.abs(picture.astype(float) - truth.astype(float)) / limits[1], "", (0, errors))
    for ax in axes.ravel():
        ax.set_aspect("auto")  # a frame is wider than a pixel, as there are fewer of them
    for ax in (axes[0, 0], *axes[-1]):
        _count_frames(ax, truth.shape[1])
    axes[0, 0].set_ylabel("along the line")
    if errors is not None and len(drawn) > 1:
        _bar_for_truth(figure, axes[1, 0], axes[1, 1].images[0])
    return figure


def _bar_for_truth(figure: Figure, axes: Axes, errors: AxesImage) -> None:
    """The truth has no error: its place has the bar of those of the others."""
    axes.clear()
    axes.axis("off")
    bar = figure.colorbar(errors, cax=axes.inset_axes((0.85, 0, 0.09, 1)), ticklocation="left", extend="max")
    bar.set_ticks([0, errors.norm.vmax], labels=["0", f"{100 * errors.norm.vmax:g} %"])
    bar.set_label("error, share of the peak")


def errors_over_time(image: Tensor, target: Tensor) -> Tensor:
    r"""The error of every frame relative to the mean energy of a frame, ``(T,)`` float64.

    .. math:: e_t = \sqrt{\frac{\sum_i (|\hat x_{t, i}| - |x_{t, i}|)^2}{\frac{1}{T} \sum_{t, i} |x_{t, i}|^2}}

    ``image`` and ``target`` are ``(T, H, W)``, real or complex. The mean of the squares is the NMSE of the series.

    Raises
    ------
    InputError
        Where they are of different shapes, not 3D, or the target is 0.

    >>> import torch
    >>> target = torch.ones(3, 2, 2)
    >>> errors_over_time(target * torch.tensor([1.0, 1.1, 0.8])[:, None, None], target).round(decimals=3).tolist()
    [0.0, 0.1, 0.2]
    """
    if image.shape != target.shape or image.ndim != 3:
        raise InputError(f"series of {tuple(image.shape)} and {tuple(target.shape)}: must be equal, (T, H, W)")
    truth = target.abs().double()
    energy = truth.square().sum() / len(truth)
    if not energy > 0:
        raise InputError("target: is 0, so that no error is relative to it")
    return ((image.abs().double() - truth).square().sum((-2, -1)) / energy).sqrt()


def show_errors_over_time(axes: Axes, errors: Mapping[str, Sequence[float]], colours: Mapping[str, str] | None = None) -> None:
    """Lines of :func:`errors_over_time`, by the name of what made them.

    >>> figure, axes = grid(1, 1)
    >>> show_errors_over_time(axes[0, 0], {"frame by frame": [0.1, 0.2], "view sharing": [0.2, 0.1]})
    >>> [text.get_text() for text in axes[0, 0].get_legend().get_texts()]
    ['frame by frame', 'view sharing']
    """
    given = {} if colours is None else colours
    cycle = [COLOURS[name] for name in ("default", "paper", "accent", "equispaced", "accent2", "energy")]
    for number, (name, values) in enumerate(errors.items()):
        axes.plot(np.asarray(values), label=name, color=given.get(name, cycle[number % len(cycle)]), lw=1.6, marker="o", ms=3)
    _count_frames(axes, max(map(len, errors.values()), default=0))
    axes.set(ylabel="relative error", ylim=(0, None))
    axes.legend()
