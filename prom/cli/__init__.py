"""The command line: ``prom`` with a command, from ``datasets`` to ``records``.

What a command computes with is named in full, as in ``prom.load``, and so imported when the command runs. Help and errors about arguments
do not wait for PyTorch.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path

import click

import prom
from prom import methods, options
from prom.cli.common import check_mask_output, check_output, check_outside, example, json_option, strict_json, threads_option
from prom.cli.demands import demand_options, scan, spoken, tr_option
from prom.cli.exporting import export_command
from prom.cli.reconstructing import reconstruct_command
from prom.cli.types import real, whole
from prom.errors import InputError, unknown
from prom.files import check_writable, reason
from prom.kspace import patterns
from prom.learn import recipes
from prom.reconstruction import RECONSTRUCTIONS
from prom.reconstruction import check as check_reconstruction

# What no program can do anything about: full disks and quotas, limits on the size and number of files, file systems that are read-only.
SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EROFS}


def main() -> None:
    """Run the command line. Exit code 0: done; 2: bad usage or bad input, with one line on stderr."""
    try:
        with group():
            cli.main(prog_name="prom", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        hint = f" (see '{error.ctx.command_path} --help')" if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo(f"prom: {' '.join(message.split())}{hint}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        if error.errno not in SURROUNDINGS and "temporary directory" not in str(error):
            raise
        click.echo(f"prom: {error.filename or 'a file'}: {reason(error)}; free some space, or name another folder with TMPDIR", err=True)
        sys.exit(2)


@contextmanager
def group() -> Iterator[None]:
    """The processes that ``torchrun`` has started; a single process needs no PyTorch to know that it is alone."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    with prom.distributed.group():
        yield


class Silent(click.Group):
    """Ends on ^C with exit code 130, and without the empty line that click writes."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=Silent, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prom-mri")
def cli() -> None:
    """Learn which points of k-space to measure.

    DATASET is a registered name (see 'prom datasets') or a folder or file of your own images: NIfTI, npy/npz, HDF5, MATLAB,
    PNG/TIFF, DICOM, raw data of ISMRMRD, Siemens and BART.

    \b
    Example:
      prom optimize mni_brain --acceleration 8 --output mask.h5
      prom evaluate mask.h5 mni_brain
      prom export mask.h5 --output mask.png
    """


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
                given |= options.parse_all(settings, partial(prom.datasets.parse_option, dataset))
                return prom.load(dataset, split, root, validation, **given)

            read.place = root or dataset
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
                "--validation", type=real("[0, 1)"), default=0.0, help="Hold out this share of the training patients as split 'validation'."
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
    "--acceleration", "-a", type=real(), required=True, help="The acceleration alpha: measure exactly floor(D / alpha) samples."
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


@cli.command("datasets", epilog=example("prom datasets", "prom datasets --clear-cache path/to/my/images"))
@click.argument("folders", nargs=-1)
@click.option("--clear-cache", is_flag=True, help="Remove all preprocessed data, and those in FOLDERS of your own.")
@json_option
def datasets_command(folders: tuple[str, ...], clear_cache: bool, json: bool) -> None:
    """List the data sets: where each is looked for, what is there, what is missing, licence and citation."""
    if folders and not clear_cache:
        raise click.UsageError(f"{folders[0]}: only --clear-cache takes folders; leave it out, or add --clear-cache")
    registry = prom.datasets.REGISTRY
    roots = {name: prom.datasets.data_root(name) for name, module in registry.items() if module.FOLDER}
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        raise click.UsageError(f"{missing[0] or repr('')}: no such folder; nothing was removed")
    if clear_cache:
        removed = prom.datasets.cache.clear([*roots.values(), *map(Path, folders)])
        click.echo(strict_json([str(path) for path in removed]) if json else f"removed {len(removed)} preprocessed data set(s)")
        return
    rows = {
        name: {**_survey(name, roots), "obtain": m.OBTAIN, "licence": m.LICENCE, "citation": m.CITATION} for name, m in registry.items()
    }
    if json:
        click.echo(strict_json(rows))
        return
    for name, row in rows.items():
        click.echo(f"{name}: {row['what']}\n  looked for: {row['looked for']} ({'found' if row['found'] else 'not found'})")
        for split, counts in row["splits"].items():
            click.echo(f"  {split}: {', '.join(f'{count} {what}' for what, count in counts.items() if count is not None)}")
        for what in row["missing"]:
            click.echo(f"  missing: {what}")
        if not row["found"] or row["missing"]:
            click.echo(f"  to obtain it: {row['obtain']}")
        click.echo(f"  licence: {row['licence']}\n  citation: {row['citation']}\n")
    click.echo("or the path of a folder or file of your own images: NIfTI, npy/npz, HDF5, MATLAB, PNG/TIFF, DICOM, raw data")


def _survey(name: str, roots: dict[str, Path]) -> dict[str, object]:
    """What a data set is, and what of it is there."""
    module = prom.datasets.REGISTRY[name]
    row = {"what": module.SUMMARY, "looked for": str(roots.get(name, "in the installation")), "found": name not in roots}
    row |= {"obtain": module.OBTAIN, "licence": module.LICENCE, "citation": module.CITATION}
    if name not in roots:
        splits = {s: {"subjects": n, module.KIND: n * len(module.SLICES)} for s, n in module.SUBJECTS.items()}
        return {**row, "splits": splits, "missing": []}
    if not roots[name].is_dir():
        return {**row, "splits": {}, "missing": []}
    try:
        found = module.survey(roots[name])
    except InputError as error:
        return {**row, "splits": {}, "missing": [str(error)]}
    return {**row, "found": True, "splits": found["found"], "missing": found["missing"]}


@cli.command("inspect", epilog=example("prom inspect path/to/my/images", "prom inspect path/to/my/images --png look.png"))
@click.argument("folder")
@click.option("--key", help="The name of the dataset in HDF5 or MATLAB files.")
@click.option("--skip-constant", is_flag=True, help="Leave out slices without any contrast instead of refusing them.")
@volume_option
@readout_option
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Set an option of the reader.")
@click.option("--png", help="Draw a few of the slices and write them to this file.")
@json_option
def inspect_command(folder, key, skip_constant, volume, readout, settings, png, json) -> None:
    """Show what would be read from FOLDER, or one file, and how it was understood, before anything is learnt.

    It shows the patients of each split, slices, axes, k-space or images, coils, values, labels and empty k-space. It names the files that
    are left out or refused, with the reason. The exit code is 2 if a file is refused.
    """
    if folder in prom.datasets.REGISTRY:
        raise click.UsageError(f"{folder}: is a registered data set, which 'prom datasets' describes; give a folder of your own images")
    if png:
        check_writable(png)
        check_outside(png, folder, "--png")
    given = {"dataset_name": key, "skip_constant": skip_constant, "volume": volume, "readout": readout}
    given |= options.parse_all(settings, partial(prom.datasets.parse_option, folder))
    if of_load := sorted({"scale", "maps", "maps_noise", "grid"} & set(given)):
        raise click.UsageError(f"--set {of_load[0]}: is of what is made of the images that are read, which this shows; leave it out")
    found = prom.inspection.inspect(folder, **given)
    if png and found["pictures"]:
        prom.inspection.picture(found, png)
    click.echo(strict_json(prom.inspection.for_json(found)) if json else prom.inspection.report(found))
    if found["refused"]:
        sys.exit(2)


@cli.command(
    "optimize",
    epilog=example(
        "prom optimize mni_brain --acceleration 8 --output mask.h5",
        "prom optimize path/to/nifti --acceleration 4 --pattern columns --calibration 24 --max-gap 8 --output lines.h5",
        "prom optimize mni_brain --acceleration 16 --network net.pt --output task.h5",
        "prom optimize path/to/kspace --set coils=keep --acceleration 4 --reconstruction sense --iterations 100 --output mask.h5",
        "prom optimize path/to/kspace --set coils=keep --acceleration 8 --pattern spokes --reconstruction sense --output spokes.h5",
        "prom optimize path/to/nifti --volume --readout 0 --acceleration 4 --output ky_kz.h5",
        "torchrun --nproc-per-node 2 -m prom optimize mni_brain --acceleration 8 --output mask.h5",
    ),
)
@input_options(split="train")
@acceleration_option
@pattern_option
@trajectory_options
@click.option(
    "--recipe", help="The recipe: default (scale-invariant ProM), polished, or paper (the authors' procedure). [default: default]"
)
@click.option("--iterations", type=whole(), help="The number of iterations. [default: the recipe's own]")
@click.option("--members", type=whole(), help="The number of independent solutions to average. [default: the recipe's own]")
@click.option(
    "--network",
    help="Learn for the segmentations of this network (see 'prom segment train') instead of the image. The image's mask is learnt first, "
    "then improved for the network, with a fifth of the patients held out (chapter 5). With --recipe, learn from scratch through the "
    "network.",
)
@reconstruction_option("The reconstruction whose error is minimised", learning=True)
@demand_options
@tr_option
@seed_option
@threads_option
@click.option("--device", default="auto", show_default=True, help="The device: auto, cpu, cuda, or cuda:1 for the second GPU.")
@click.option("--output", "-o", required=True, help="The mask file to write (.h5).")
@json_option
def optimize_command(
    dataset,
    acceleration,
    pattern,
    candidates,
    recipe,
    iterations,
    members,
    network,
    reconstruction,
    demands,
    tr,
    seed,
    device,
    output,
    json,
) -> None:
    """Learn a mask from the fully sampled slices of DATASET."""
    if check_reconstruction(reconstruction) != "zero-filled" and network:
        raise click.UsageError(f"--network reads zero-filled images; leave out --network or --reconstruction {reconstruction}")
    changes = {name: value for name, value in (("iterations", iterations), ("members", members)) if value is not None}
    chosen = replace(recipes.get(recipe or ("polished" if network else "default")), **changes)
    check_mask_output(output)
    prom.device.choose_device(device)
    optimize = prom.optimize  # imported here, outside the time it takes
    segmenter = prom.segmentation.load(network) if network else None
    demands = demands()
    data = candidates(dataset(), pattern)
    near = prom.baselines.energy(data, acceleration, pattern, demands=demands) if segmenter else None
    objective = segmenter.objective(data, device, near) if segmenter else "magnitude_mse"
    started = time.perf_counter()
    if segmenter and recipe is None:
        settings = prom.results.TASK_SETTINGS if len(data.patient_names()) > 1 else {"polish": prom.results.TASK_SETTINGS["polish"]}
        result = prom.results.for_task(data, acceleration, pattern, replace(chosen, **settings), objective, seed, demands)
        loss = prom.objectives.whole_loss(objective, range(len(data)), result.mask.float().to(objective.data.device))
    else:
        given = {"recipe": chosen, "objective": objective, "seed": seed, "device": device}
        result = optimize(data, acceleration, pattern, **given, reconstruction=reconstruction, demands=demands)
        loss = float(result.history["loss"].iloc[-1])
    seconds = time.perf_counter() - started
    if prom.distributed.rank():
        return  # every process has the same mask
    result.save(output)
    report_mask(result, output, json, tr, seconds=round(seconds, 2), final_loss=loss)


@cli.command(
    "baseline",
    help=f"Make the mask of a baseline. NAME is one of {', '.join(methods.baselines())}.",
    epilog=example("prom baseline energy mni_brain --acceleration 8 --output energy.h5"),
)
@click.argument("name")
@input_options(split="train")
@acceleration_option
@click.option("--pattern", help=f"What the mask switches on: {PATTERN_NAMES}. [default: the baseline's own]")
@trajectory_options
@demand_options
@tr_option
@seed_option
@threads_option
@click.option("--option", "choices", multiple=True, metavar="NAME=VALUE", help="Set an option of the baseline, e.g. sigma=35 for gaussian.")
@click.option("--output", "-o", required=True, help="The mask file to write (.h5).")
@json_option
def baseline_command(name, dataset, acceleration, pattern, candidates, demands, tr, seed, choices, output, json) -> None:
    method = prom.baselines.get(name)
    known = options.names(method, without=("train", "acceleration", "pattern", "seed", "objective", "demands"))
    chosen = options.parse_all(choices, partial(options.parse, known=known, of=f"baseline {name}"))
    check_mask_output(output)
    chosen |= prom.baselines.with_demands(name, demands())
    pattern = pattern or prom.baselines.default_pattern(name)
    data = candidates(dataset(), pattern)
    mask = method(data, acceleration, pattern=pattern, seed=seed, **chosen)
    result = prom.baselines.as_result(mask, name, acceleration, pattern, seed, data, chosen)
    result.save(output)
    report_mask(result, output, json, tr)


@cli.command("average", epilog=example("prom average seed0.h5 seed1.h5 seed2.h5 --output ensemble.h5"))
@click.argument("masks", nargs=-1, required=True)
@click.option("--output", "-o", required=True, help="The mask file to write (.h5).")
@json_option
def average_command(masks, output, json) -> None:
    """Average the probabilities of MASKS that differ in their seed only, learnt at the same time on many machines."""
    check_mask_output(output, *masks)
    result = prom.masks.average([prom.load_mask(mask) for mask in masks])
    result.save(output)
    report_mask(result, output, json)


@cli.command("evaluate", epilog=example("prom evaluate mask.h5 mni_brain --split test"))
@click.argument("mask")
@input_options(split="test")
@click.option("--convention", default="paper", show_default=True, help=f"The definition of the scores: {' or '.join(options.CONVENTIONS)}.")
@reconstruction_option("The reconstruction that is scored")
@threads_option
@json_option
def evaluate_command(mask, dataset, convention, reconstruction, json) -> None:
    """Score the reconstructions of DATASET under MASK: mean and standard deviation over slices (fastmri: volumes).

    MASK is a mask file of prom, or a mask as 'prom export' writes it: .npy, .mat or .png.
    """
    check_reconstruction(reconstruction)
    sampled, trajectory = prom.mask_files.read_with_trajectory(mask)
    data = dataset()

    def measured(data: prom.SliceDataset) -> prom.SliceDataset:
        return data if trajectory is None else data.along(trajectory)

    if trajectory is not None:
        trajectory.check_image(data.shape)
    data = measured(data)
    prom.masks.as_mask(sampled, data.grid, data.name)  # refused before anything is made for it
    found = None if reconstruction == "zero-filled" else prom.reconstruction.named(reconstruction, measured(dataset("train")), sampled)
    scores = prom.evaluate(sampled, data, convention, found)
    true = sampled.numel() / int(sampled.sum()) * (1 if trajectory is None else trajectory.full / len(trajectory))
    columns = ["psnr", "ssim", "nmse"]
    mean, spread = scores[columns].mean(), scores[columns].std(ddof=0)
    summary = {
        "mask": mask,
        "true_acceleration": true,
        "dataset": data.name,
        "split": data.split,
        "slices": len(data),
        "subjects": data.number_of_subjects,
        "patients": data.patient_names(),
        "convention": convention,
        "reconstruction": reconstruction,
        **{name: float(mean[name]) for name in columns},
        **{f"{name}_std": float(spread[name]) for name in columns},
    }
    if json:
        click.echo(strict_json(summary))
        return
    heading = f"{data.name} {data.split}: {len(data)} slices of {people(data.number_of_subjects, len(data.patient_names()))}"
    how = "" if reconstruction == "zero-filled" else f", reconstruction {reconstruction}"
    click.echo(f"{heading}, x{true:.2f}, {convention} convention{how}")
    click.echo(
        f"PSNR {mean['psnr']:.3f} +- {spread['psnr']:.3f} dB   SSIM {mean['ssim']:.4f} +- {spread['ssim']:.4f}   "
        f"NMSE {mean['nmse']:.4f} +- {spread['nmse']:.4f}"
    )


cli.add_command(export_command)
cli.add_command(reconstruct_command)


@cli.group("segment")
def segment_group() -> None:
    """Train a network that segments fully sampled images, and score it on undersampled ones."""


@segment_group.command(
    "train",
    epilog=example(
        "prom segment train mni_brain --output net.pt",
        "prom segment train mni_brain --start net.pt --mask mask.h5 --output tuned.pt",
    ),
)
@input_options(split="train")
@click.option("--steps", type=whole("[1, 1e9]"), default=900, show_default=True, help="The number of batches.")
@click.option("--batch-size", type=whole("[1, 1e6]"), default=12, show_default=True, help="The number of slices in a batch.")
@click.option(
    "--learning-rate",
    type=real("(0, 1e6]"),
    default=1.5e-3,
    show_default=True,
    help="The learning rate of Adam at the start; it falls to 0 along a cosine.",
)
@click.option("--start", help="Fine-tune this network instead of training a new one.")
@click.option("--mask", "masks", multiple=True, help="Undersample every image by one of these masks.")
@click.option("--augment", is_flag=True, help="Vary the images at random, as nnU-Net does. This helps with few patients and more steps.")
@seed_option
@threads_option
@click.option("--device", default="auto", show_default=True, help="The device: auto, cpu, cuda, or cuda:1 for the second GPU.")
@click.option("--output", "-o", required=True, help="The network file to write (.pt). An interrupted training resumes from OUTPUT.part.")
@json_option
def segment_train_command(dataset, steps, batch_size, learning_rate, start, masks, augment, seed, device, output, json) -> None:
    """Train a U-Net on the labelled slices of DATASET. A fifth of the patients is held out to choose the best weights."""
    check_output(output, start, *masks)
    if Path(output).suffix != ".pt":
        check_outside(output, dataset.place)
    check_writable(f"{output}.part")
    prom.device.choose_device(device)
    import torch

    seen = [prom.mask_files.read(mask) for mask in masks]
    first = prom.segmentation.load(start) if start else None
    data = dataset()
    seen = torch.stack([prom.masks.as_mask(mask, data.shape, data.name) for mask in seen]) if seen else None
    rest, held = data.hold_out(0.2)
    given = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "start": first, "masks": seen, "seed": seed}
    network = prom.segmentation.train(rest, held, **given, augment=augment, device=device, checkpoint=f"{output}.part")
    network.save(output)
    report = {"output": output, "regions": list(network.regions), "slices": len(rest), "slices_validation": len(held), **network.metadata}
    if json:
        click.echo(strict_json(report))
        return
    click.echo(
        f"wrote {output}: segments {', '.join(network.regions)}; Dice {network.metadata['validation_dice']:.3f} on {len(held)} slices"
    )


@segment_group.command("evaluate", epilog=example("prom segment evaluate net.pt mni_brain --mask mask.h5"))
@click.argument("network")
@input_options(split="test")
@click.option("--mask", help="Undersample with this mask; without it the images are fully sampled.")
@threads_option
@json_option
def segment_evaluate_command(network, dataset, mask, json) -> None:
    """Score the segmentations that NETWORK makes of DATASET: mean Dice coefficient and intersection over union over slices."""
    segmenter = prom.segmentation.load(network)
    sampled = prom.mask_files.read(mask) if mask else None
    data = dataset()
    table = prom.segmentation.evaluate(segmenter, data, sampled)
    mean = table.drop(columns=["subject", "slice"]).mean()
    true = sampled.numel() / int(sampled.sum()) if mask else 1.0
    if json:
        report = {"network": network, "mask": mask, "true_acceleration": true, "dataset": data.name, "split": data.split}
        click.echo(strict_json({**report, "slices": len(data), "scored": int(table["dice"].notna().sum()), **mean}))
        return
    click.echo(f"{data.name} {data.split}: {len(data)} slices of {people(data.number_of_subjects, len(data.patient_names()))}, x{true:.2f}")
    for name in ("", *(f" {region}" for region in segmenter.regions)):
        click.echo(f"{name.strip() or 'mean'}: Dice {mean[f'dice{name}']:.4f}, IoU {mean[f'iou{name}']:.4f}")


class Lists(click.Command):
    """Takes ``--methods energy default`` for ``--methods energy --methods default``, which is all that click knows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread, current = [], None
        for arg in args:
            if arg.startswith("-"):
                current = arg if arg in repeatable else None
            elif current and spread[-1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(ctx, spread)


@cli.command(
    "sweep",
    cls=Lists,
    epilog=example(
        "prom sweep reconstruction --dataset acdc --root data/ACDC --methods energy default equispaced \\",
        "    --patterns points columns --accelerations 4 8 16 32 --seeds 10 --jobs 2",
        "prom sweep segmentation --dataset acdc --root data/ACDC --network net.pt --methods energy polished task-polished \\",
        "    --accelerations 8 16 32 --seeds 3 --jobs 2",
    ),
)
@click.argument("kind")
@click.option("--dataset", required=True, help="A registered name, or a folder or file of your own images.")
@click.option("--root", help="The folder of a registered data set. [default: data/<its folder>, or below $PROM_DATA]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE ...", help="Set options of the data set's reader.")
@click.option(
    "--methods",
    multiple=True,
    default=["energy", "default"],
    show_default=True,
    help="Baselines, recipes and their variants, as paper:members=1; task-NAME is learnt through the network.",
)
@click.option(
    "--patterns",
    "names",
    multiple=True,
    default=["points"],
    show_default=True,
    help=f"What masks switch on: {', '.join(patterns.PATTERNS)}; the still ones for the baseline repeated of series.",
)
@click.option("--accelerations", multiple=True, type=real(), default=[4, 8, 16, 32], show_default=True, help="The nominal accelerations.")
@click.option(
    "--seeds", type=whole("[1, 1e6]"), default=1, show_default=True, help="The number of seeds (0, 1, ...) of every random method."
)
@click.option("--ensembles", multiple=True, help="Also average the solutions of the first 2, 3, ... seeds of these METHODS.")
@click.option("--network", help="For segmentation: the file of the network, as 'prom segment train' writes it.")
@click.option(
    "--tuning-steps", type=whole("[0, 1e9]"), default=0, show_default=True, help="For segmentation: fine-tune the network to each mask."
)
@click.option("--jobs", type=whole("[1, 1e6]"), default=1, show_default=True, help="The number of runs at a time, each with one thread.")
@click.option("--executor", default="local", show_default=True, help="local, or slurm, where every run is a job of a cluster.")
@click.option("--snakemake", default="", metavar="OPTIONS", help="Further options for Snakemake, in quotes.")
@click.option("--output", "-o", default="results/sweep", show_default=True, help="The folder for records, logs and the table.")
def sweep_command(kind, dataset, settings, jobs, executor, snakemake, **what) -> None:
    """Run many methods, accelerations and seeds, and make one table: KIND is reconstruction or segmentation.

    You can interrupt a sweep and resume it with the same command. Runs that fail do not stop the others; they are named at the end,
    with exit code 1. Scores are those of zero-filled images, or of the network's regions in them. Sweeps need the extra 'sweep': pip
    install 'prom-mri[sweep]'.
    """
    try:
        more = shlex.split(snakemake)
    except ValueError as error:
        raise InputError(f"snakemake {snakemake!r}: cannot be split into options ({error}); close every quotation mark") from error
    sweep = prom.sweep
    sweep.check_possible(executor)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as ^C, or Snakemake would go on alone
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    plan = sweep.plan(kind, dataset, options=options.parse_all(settings, partial(prom.datasets.parse_option, dataset)), **what)
    for method, pattern in plan.left_out:
        click.echo(f"left out: {method} cannot make {pattern}")
    failed = sweep.run(plan, jobs, executor, more)
    table = sweep.collect(plan)
    if len(table):
        click.echo(f"{sweep.summary(table)}\n\nwrote {plan.table}: {len(table)} of {len(plan.runs)} runs")
    if failed:
        click.echo(f"prom: {len(failed)} of {len(plan.runs)} runs failed; run the same command to try them again", err=True)
        for name, reason in failed.items():
            click.echo(f"  {name}: {reason}", err=True)
        jobs_too = "" if executor == "local" else "; of the cluster's jobs: .snakemake/*_logs/rule_run/<run>"
        click.echo(f"  logs and notebooks: {plan.folder}/<run>.log and <run>.ipynb; of Snakemake: {sweep.LOG}{jobs_too}", err=True)
        sys.exit(1)


@cli.command("records", epilog=example("prom records", "prom records data/recorded --strict"))
@click.argument("folder", default="results/sweep")
@click.option("--strict", is_flag=True, help="Exit code 1 where a result is not current.")
@json_option
def records_command(folder, strict, json) -> None:
    """Count the results in FOLDER that come from code which makes the same masks as this installation. [default: results/sweep]

    Tables, records and masks name a golden hash, which stands for the masks that recipes and the baselines for one coil make of one small
    input. A result is current where its hash is that of this installation. "no hash" counts results that are older than the hash or name
    no versions, and "other recipe" those whose recipe has had its settings changed since.
    """
    table = prom.records.survey(folder)
    counts = table[prom.records.COUNTS].sum()
    current, here = bool(counts["current"] == counts["rows"]), prom.masks.golden()["golden"]
    if json:
        click.echo(strict_json({"golden": here, "current": current, "files": table.to_dict("records")}))
    else:
        click.echo(f"{prom.records.report(table)}\n\n{counts['current']} of {counts['rows']} results are current: golden hash {here}")
    if strict and not current:
        sys.exit(1)


def people(subjects: int, patients: int) -> str:
    """How many subjects, and how many patients where some have several.

    >>> people(1, 1), people(8, 2)
    ('1 subject', '8 subjects, 2 patients')
    """
    count = f"{subjects} subject{'' if subjects == 1 else 's'}"
    return count if patients == subjects else f"{count}, {patients} patient{'' if patients == 1 else 's'}"


def report_mask(result: prom.MaskResult, output: str, json: bool, tr: float | None = None, **extra: object) -> None:
    """Report what was written, as text or as JSON."""
    samples = int(result.mask.sum())
    if json:
        summary = {"output": output, "acceleration": result.acceleration, "true_acceleration": result.true_acceleration, "samples": samples}
        summary |= {"pattern": result.pattern, "seed": result.seed, **scan(result, tr)}
        click.echo(strict_json({**summary, **result.provenance, **extra}))
        return
    spent = f", optimised in {extra['seconds']:.1f} s" if "seconds" in extra else ""
    subjects = result.provenance["subjects"]
    whose = people(subjects, result.provenance.get("patients", subjects))  # masks averaged may be of a time that did not count patients
    click.echo(
        f"wrote {output}: {samples} of {result.mask.numel()} k-space samples (x{result.true_acceleration:.2f}), {result.pattern}, "
        f"{spoken(scan(result, tr))}, from {result.provenance['slices']} slices of {whose}{spent}"
    )


if __name__ == "__main__":
    main()
