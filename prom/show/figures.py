"""The look of every figure: grey images with fixed limits, cividis for maps, Okabe-Ito for lines, titles that carry the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, SymmetricalLogLocator
from torch import Tensor

from prom.methods import METHODS

# The colour of every method by its name, so that it is the same everywhere, and Okabe and Ito's (2008) for anything else
COLOURS = {
    **{method.name: method.colour for method in METHODS.values()},
    "accent": "#009E73",
    "accent2": "#CC79A7",
    "black": "#000000",
}


def use_style() -> None:
    """Set matplotlib up for the book: 2x PNG, no needless frames, one size of type."""
    plt.rcParams.update(
        {
            "figure.dpi": 144,  # twice what notebooks take by themselves: sharp on every screen
            "figure.facecolor": "white",  # stays white in dark mode, so that axes remain readable
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=[COLOURS[n] for n in ("default", "paper", "accent", "equispaced", "accent2", "energy")]),
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def show_image(axes: Axes, image: Tensor | np.ndarray, title: str = "", limits: tuple[float, float] = (0.0, 1.0)) -> None:
    """A magnitude image, ``(H, W)``, in grey between fixed limits."""
    axes.imshow(np.asarray(image), cmap="gray", vmin=limits[0], vmax=limits[1])
    _bare(axes, title)


def show_map(axes: Axes, values: Tensor | np.ndarray, title: str = "", limits: tuple[float, float] = (0.0, 1.0), cmap: str = "cividis"):
    """A map over k-space or over the image, ``(H, W)``; returns the artist, for a colour bar."""
    artist = axes.imshow(np.asarray(values), cmap=cmap, vmin=limits[0], vmax=limits[1])
    _bare(axes, title)
    return artist


def show_mask(axes: Axes, mask: Tensor | np.ndarray, title: str = "") -> None:
    """A mask, ``(H, W)`` bool: white is measured."""
    # smoothed where it must be shrunk: picking single pixels would drop whole lines of a mask
    axes.imshow(np.asarray(mask, dtype=float), cmap="gray", vmin=0, vmax=1, interpolation="auto")
    _bare(axes, title)
    axes.spines[:].set(visible=True, color="0.6", lw=0.6)  # what is measured to the edge is as white as the page


def show_kspace(axes: Axes, kspace: Tensor | np.ndarray, title: str = "", decades: float = 5.0):
    """log10 of the magnitude of centred k-space, ``(H, W)`` complex, relative to its maximum, down to ``-decades``."""
    magnitude = np.abs(np.asarray(kspace))
    floor = magnitude.max() * 10.0**-decades
    artist = axes.imshow(np.log10(np.maximum(magnitude, floor) / magnitude.max()), cmap="magma", vmin=-decades, vmax=0)
    _bare(axes, title)
    return artist


def grid(rows: int, columns: int, size: float = 2.0) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` x ``columns`` square panels of ``size`` inches; the axes always come as a 2D array.

    >>> grid(1, 3)[1].shape
    (1, 3)
    """
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, size * rows + 0.25), squeeze=False, layout="constrained")
    return figure, axes


def acceleration_axis(axes: Axes, accelerations: Sequence[float], label: str = "acceleration") -> None:
    """A logarithmic horizontal axis with a mark at each of these accelerations: x4, x8, ...

    >>> axes = plt.figure().add_subplot()
    >>> acceleration_axis(axes, [4, 8])
    >>> [text.get_text() for text in axes.get_xticklabels()]
    ['x4', 'x8']
    """
    axes.set_xscale("log", base=2)
    axes.set_xticks(accelerations, [f"x{acceleration:g}" for acceleration in accelerations])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def strip(axes: Axes, position: float, values: Sequence[float], width: float = 0.12, marker: str = "o", **style: object) -> None:
    """One dot for each value, side by side around a position of the horizontal axis, so that equal values show.

    >>> axes = plt.figure().add_subplot()
    >>> strip(axes, 1, [30.1, 30.2, 30.1])
    >>> axes.lines[0].get_xdata().round(2).tolist()
    [0.94, 1.0, 1.06]
    """
    places = position + (np.linspace(-width / 2, width / 2, len(values)) if len(values) > 1 else np.zeros(len(values)))
    axes.plot(places, values, marker, **{"ms": 4, "alpha": 0.7, "mec": "none", **style})


def intervals(axes: Axes, gains: Mapping[str, pd.DataFrame], styles: Mapping[str, dict], linear: float) -> None:
    """Mean gains with their 95 % intervals against acceleration, one line for each label, on an axis that is linear around zero.

    Parameters
    ----------
    gains
        By label the columns ``mean``, ``low`` and ``high``, indexed by acceleration, as from :meth:`prom.show.tables.Table.gains`.
    styles
        Matplotlib's options of each label's line.
    linear
        Below this magnitude the vertical axis is linear, above it logarithmic.

    >>> axes = plt.figure().add_subplot()
    >>> intervals(axes, {"a": pd.DataFrame({"mean": 1.0, "low": 0.5, "high": 2.0}, index=[8.0])}, {"a": {"marker": "o"}}, 0.01)
    >>> axes.get_legend_handles_labels()[1]
    ['a']
    """
    axes.axhline(0, color="black", lw=0.8)
    shifts = np.geomspace(0.94, 1.06, len(gains)) if len(gains) > 1 else np.ones(1)  # intervals of several lines do not cover each other
    for shift, (label, gain) in zip(shifts, gains.items(), strict=True):
        reach = [gain["mean"] - gain["low"], gain["high"] - gain["mean"]]
        reach = [each.mask(each.abs() < 1e-12 * gain["mean"].abs(), 0.0) for each in reach]  # where all are equal, rounding is left
        axes.errorbar(gain.index * shift, gain["mean"], yerr=reach, label=label, capsize=2, **styles[label])
    axes.set_yscale("symlog", linthresh=linear)
    axes.yaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=range(2, 10)))


def row(panels: Sequence[tuple[str, Tensor | np.ndarray, str]], size: float = 2.0) -> Figure:
    """One row of pictures: (kind, array, title) with kind "image", "mask", "map" or "kspace".

    >>> figure = row([("image", np.zeros((4, 4)), "x"), ("mask", np.ones((4, 4)), "m")])
    """
    kinds = {"image": show_image, "mask": show_mask, "map": show_map, "kspace": show_kspace}
    figure, axes = grid(1, len(panels), size)
    for ax, (kind, array, title) in zip(axes[0], panels, strict=True):
        kinds[kind](ax, array, title)
    return figure


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(False)
