"""The options that several commands have: which slices, which mask, off the grid or on it, and through what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps

import click

import prom
from prom import options
from prom.cli.common import read_by
from prom.cli.types import real, whole
from prom.errors import unknown
from prom.kspace import patterns
from prom.reconstruction import RECONSTRUCTIONS

volume_option = click.option(
    "--volume", is_flag=True, help="Read the slices of a subject as one volume of a 3D scan, whose mask chooses among ky and kz."
)
readout_option = click.option(
    "--readout",
    type=whole("[0, 2]"),
    help="With --volume, the readout axis: 0 across the slices, 1 along their columns, 2 along their rows. "
    "[default: that of raw data, else 0]",
)


def input_options(split: str) -> Callable:
    """The argument and options that choose the slices to read; the command receives a function that reads them as ``dataset``."""

    def decorate(command: Callable) -> Callable:
        def reading(dataset, root, split, validation, key, all_slices, skip_constant, volume, readout, settings, **rest):
            short = {"dataset_name": key, "all_slices": all_slices or None, "skip_constant": skip_constant or None}
            short |= {"volume": volume or None, "readout": readout}

            def read(split: str = split) -> prom.SliceDataset:
                given = {name: value for name, value in short.items() if value is not None}
                chosen = options.parse_all(settings, partial(prom.datasets.parse_option, dataset), given)
                return prom.load(dataset, split, root, validation, **chosen)

            read.place, read.files = root or dataset, read_by(settings)
            return command(dataset=read, **rest)

        reading.__name__, reading.__doc__ = command.__name__, command.__doc__
        reading.__click_params__ = list(getattr(command, "__click_params__", []))
        for option in (
            click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Set an option of the data set's reader."),
            readout_option,
            volume_option,
            click.option("--skip-constant", is_flag=True, help="Leave out slices without any contrast instead of refusing them."),
            click.option(
                "--all-slices", is_flag=True, help="For ACDC: read every slice, and patient090, instead of the paper's selection."
            ),
            click.option("--key", help="The name of the dataset in HDF5 or MATLAB files."),
            click.option(
                "--validation",
                type=real("[0, 1)"),
                default=0.0,
                help="Hold out this share of the training patients as split 'validation'; what is made of train then has the others.",
            ),
            click.option(
                "--split", default=split, show_default=True, help="The split to read: train, test, or another that the data set has."
            ),
            click.option("--root", help="The folder of a registered data set. [default: data/<its folder>, or below $PROM_DATA]"),
            click.argument("dataset"),
        ):
            reading = option(reading)
        return reading

    return decorate


acceleration_option = click.option(
    "--acceleration",
    "-a",
    type=real(),
    required=True,
    callback=lambda context, option, value: options.check("acceleration", value, "[1, inf)"),  # before anything is read
    help="The acceleration alpha: measure exactly floor(D / alpha) samples.",
)
CANDIDATES = 256  # readouts off the grid that a mask is chosen from
PATTERN_NAMES = ", ".join((*patterns.PATTERNS, *patterns.READOUTS))
pattern_option = click.option("--pattern", default="points", show_default=True, help=f"What the mask switches on: {PATTERN_NAMES}.")
candidates_option = click.option(
    "--candidates",
    type=whole("[1, 1e6]"),
    help="For spokes, spirals and kooshball: the number of evenly turned readouts to choose from. [default: 256]",
)


def trajectory_options(command: Callable) -> Callable:
    """The options of readouts off the grid; ``command`` receives as ``candidates`` a function that puts data on them."""

    @wraps(command)
    def choosing(candidates, trajectory, unit, **given):
        return command(candidates=partial(on_trajectory, candidates=candidates, trajectory=trajectory, unit=unit), **given)

    unit_option = click.option(
        "--unit", help="The unit of --trajectory: cycles (per field of view), or mri-nufft ([-0.5, 0.5] of the image's size)."
    )
    file_option = click.option(
        "--trajectory",
        metavar="FILE",
        help="With --pattern readouts, read your own candidates: .npy (readouts, samples, axes), rows first, or ISMRMRD (.mrd, .h5).",
    )
    return candidates_option(file_option(unit_option(choosing)))


def on_trajectory(
    data: prom.SliceDataset, pattern: str, candidates: int | None = None, trajectory: str | None = None, unit: str | None = None
) -> prom.SliceDataset:
    """Data as the candidates of such a pattern would have measured them; as they are where the pattern is one of the grid."""
    if pattern not in (known := (*patterns.PATTERNS, *patterns.READOUTS)):
        raise unknown("pattern", pattern, known)
    if (trajectory is None) != (unit is None):
        missing, given = ("--unit", f"--trajectory {trajectory}") if unit is None else ("--trajectory", f"--unit {unit}")
        raise click.UsageError(f"{given}: needs {missing} as well; units are cycles and mri-nufft")
    own = pattern == "readouts" and data.trajectory is None
    if trajectory is not None and not own:
        way = "use pattern readouts" if data.trajectory is None else "these data have their own"
        raise click.UsageError(f"--trajectory {trajectory}: is not for pattern {pattern}; {way}")
    if candidates is not None and (own or pattern not in patterns.READOUTS or data.trajectory is not None):
        raise click.UsageError(f"--candidates {candidates}: is for spokes, spirals and kooshball; leave it out with pattern {pattern}")
    if pattern not in patterns.READOUTS or data.trajectory is not None:
        return data
    if own and trajectory is None:
        raise click.UsageError("pattern readouts: needs candidates of your own; give --trajectory FILE and --unit")
    if own:
        axes = 2 if data.kind == "series" else len(data.shape)
        return data.along(prom.trajectory_files.read(trajectory, unit, data.shape[-axes:]))
    return data.along(prom.trajectories.make(pattern, data.shape, candidates or CANDIDATES, data.kind == "series"))


def reconstruction_option(what: str, learning: bool = False) -> Callable:
    """The option for a registered reconstruction, or only for those through which a mask can be learnt."""
    names = [name for name in RECONSTRUCTIONS if not (learning and name == "view-sharing")]
    in_time = "" if learning else "view-sharing is for series, and "
    text = (
        f"{what}: {', '.join(names)}. sense, wavelet and tv use all coils, and weigh samples by what the training data show; "
        f"{in_time}gridding is for readouts off the grid."
    )
    return click.option("--reconstruction", default="zero-filled", show_default=True, help=text)


seed_option = click.option(
    "--seed", type=whole(), default=0, show_default=True, help="The seed: on one machine, the same seed gives the same result."
)
