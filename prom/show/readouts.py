"""Pictures of readouts off the grid: their paths, their angles, their point-spread functions."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from prom.errors import InputError
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import Trajectory
from prom.show.figures import COLOURS, show_map

DECADES = 4.0  # below its peak, as far as a point spread is drawn


def show_paths(axes: Axes, points: Tensor, title: str = "", colour: str = COLOURS["default"]) -> None:
    """The paths of readouts in k-space, ``(S, R, 2)`` or, seen along the first axis, ``(S, R, 3)``, in cycles per field of view."""
    for path in points[..., -2:]:
        axes.plot(path[:, 1], path[:, 0], color=colour, lw=0.6)
    axes.set_title(title)
    axes.set_aspect("equal")
    axes.invert_yaxis()  # rows count downwards, as in images
    axes.set_xlabel("$k_x$")
    axes.set_ylabel("$k_y$")


def point_spread(encoding: NonUniform, mask: Tensor) -> Tensor:
    """What one bright pixel in the middle of an image becomes, ``(H, W)``, in decades below the peak, -4 at least.

    The image is E^H W E of that pixel, without any compensation for density.

    >>> from prom.kspace.trajectories import spokes
    >>> radial = spokes(8, size=8)
    >>> spread = point_spread(radial.encoding((8, 8)), torch.ones(8, 8))
    >>> spread.shape, float(spread.max()), divmod(int(spread.argmax()), 8)
    (torch.Size([8, 8]), 0.0, (4, 4))
    """
    if len(encoding.image) != 2 or mask.ndim != 2:
        raise InputError(f"mask of {tuple(mask.shape)} for images of {tuple(encoding.image)}: a point spread is of slices; take one frame")
    if not mask.any():
        raise InputError("mask: measures nothing, so that it has no point spread")
    size = encoding.image
    spread = torch.fft.fftshift(encoding.spread(mask.float()).abs(), dim=(-2, -1))
    middle = spread[tuple(slice(n - n // 2, n - n // 2 + n) for n in size)]
    return (middle / middle.max()).clamp(min=10**-DECADES).log10()


def show_point_spread(axes: Axes, encoding: NonUniform, mask: Tensor, title: str = ""):
    """:func:`point_spread` as a map; returns the artist, for a colour bar."""
    return show_map(axes, point_spread(encoding, mask), title, (-DECADES, 0), "magma")


def _degrees(trajectory: Trajectory) -> Tensor:
    """Of spokes, which these pictures are of: half a turn is all of it."""
    if trajectory.kind != "spokes" or trajectory.degrees is None:
        raise InputError(f"trajectory of {trajectory.kind}: this picture is of the angles of spokes; draw its paths with show_paths")
    return trajectory.degrees


def show_rose(axes: Axes, trajectory: Trajectory, mask: Tensor, title: str = "", colour: str = COLOURS["default"]) -> None:
    """The angles of the spokes of a mask, ``(K, R)``, on polar axes: a line through the centre for each, as it lies in k-space."""
    angles = np.radians(_degrees(trajectory)[mask.any(dim=-1)].numpy())
    for angle in angles:
        axes.plot([angle, angle + np.pi], [1, 1], color=colour, lw=1)
    axes.set_theta_direction(-1)  # rows count downwards
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(np.arange(0, 2 * np.pi, np.pi / 4))
    axes.set_title(title)


def show_gaps(axes: Axes, trajectory: Trajectory, masks: dict[str, Tensor], colours: dict[str, str]) -> None:
    """The angle from each spoke of a mask to the next, in degrees, against the angle in the middle between them."""
    least = 180.0
    for name, mask in masks.items():
        angles = np.sort(_degrees(trajectory)[mask.any(dim=-1)].numpy())
        if not len(angles):
            raise InputError(f"mask {name!r}: measures nothing")
        after = np.append(angles[1:], angles[0] + 180)
        least = min(least, float((after - angles).min()))
        axes.plot((angles + after) / 2 % 180, after - angles, "o", ms=4, color=colours[name], label=name)
    axes.set(xlim=(0, 180), xlabel="angle in degrees", ylabel="gap to the next in degrees")
    axes.set_xticks(range(0, 181, 45))
    axes.set_ylim(bottom=0.7 * least)


def show_angles_over_time(axes: Axes, trajectory: Trajectory, mask: Tensor, title: str = "", colour: str = COLOURS["default"]) -> None:
    """The angles of every frame of a series, ``(T, K, R)``: a dot for each spoke."""
    frames, places = mask.any(dim=-1).nonzero().T.numpy()
    axes.plot(frames + 1, _degrees(trajectory).numpy()[places], "o", ms=3, color=colour)
    axes.set(xlabel="frame", ylim=(0, 180), title=title)
    axes.set_yticks(range(0, 181, 45))
