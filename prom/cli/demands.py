"""Options for what a scanner demands of a mask, and the scan time that a mask stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import click

import prom
from prom.cli.common import check_output
from prom.cli.types import real, whole

NAMES = ("calibration", "calibration_shape", "shutter", "partial_fourier", "max_gap", "require", "forbid", "segments", "axis", "per_frame")

tr_option = click.option("--tr", type=real("(0, 1e9]"), metavar="MS", help="The repetition time: also report how long the scan takes.")


def demand_options(command: Callable) -> Callable:
    """The options that become ``demands``, which ``command`` receives as a function that makes :class:`prom.masks.demands.Demands`.

    It is called once the other arguments have been checked, as it waits for PyTorch.
    """

    @wraps(command)
    def demanding(**given):
        named = {name: given.pop(name) for name in NAMES}
        check_output(given["output"], named["require"], named["forbid"])
        return command(demands=lambda: prom.demands.Demands(**named), **given)

    for option in (
        click.option("--per-frame", is_flag=True, help="For series in time: measure equally many samples in every frame."),
        click.option("--axis", help="For points: the phase-encode axis, rows or columns. [default: rows]"),
        click.option(
            "--segments",
            type=whole("[1, 1e6]"),
            default=1,
            metavar="N",
            help="Measure equal numbers in N bands, one for each echo of a train.",
        ),
        click.option("--forbid", metavar="FILE", help="Never measure the samples of this mask."),
        click.option("--require", metavar="FILE", help="Always measure the samples of this mask."),
        click.option(
            "--max-gap",
            type=whole("[0, 1e6]"),
            default=0,
            metavar="N",
            help="For lines: keep neighbours at most N apart. [default: any]",
        ),
        click.option(
            "--partial-fourier",
            type=real("(0.5, 1]"),
            default=1.0,
            metavar="F",
            help="Measure only the first share F of the phase-encode axis.",
        ),
        click.option("--shutter", is_flag=True, help="For points: measure only those in the ellipse that touches the edges."),
        click.option(
            "--calibration-shape",
            default="square",
            show_default=True,
            help="For points: the shape of the calibration region, square or disc.",
        ),
        click.option(
            "--calibration", type=whole("[0, 1e6]"), default=0, metavar="N", help="Measure the N innermost lines, or N x N points."
        ),
    ):
        demanding = option(demanding)
    return demanding


def scan(result: prom.MaskResult, repetition_time: float | None) -> dict[str, object]:
    """Excitations, shots and, where the repetition time is known, minutes; and the demands that were met."""
    found = {"excitations": result.excitations, "shots": result.shots}
    if not result.demands.plain:
        found["demands"] = result.demands.describe()
    return found if repetition_time is None else {**found, "minutes": result.minutes(repetition_time)}


def spoken(scan: dict[str, object]) -> str:
    """What :func:`scan` has found, as text.

    >>> spoken({"excitations": 32, "shots": 8, "minutes": 0.25})
    '32 excitations in 8 shots, 15 s'
    >>> spoken({"excitations": 32, "shots": 32, "demands": "calibration 4"})
    '32 excitations, with calibration 4'
    """
    trains = f" in {scan['shots']} shots" if scan["shots"] != scan["excitations"] else ""
    time = f", {duration(60 * scan['minutes'])}" if "minutes" in scan else ""
    demands = f", with {scan['demands']}" if "demands" in scan else ""
    return f"{scan['excitations']} excitations{trains}{time}{demands}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0.416), duration(75)
    ('0.416 s', '1.25 min')
    """
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.2f} min"
