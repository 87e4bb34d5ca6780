"""The command line: ``prom`` with a command, from ``datasets`` to ``records``.

What a command computes with is named in full, as in ``prom.load``, and so imported when the command runs. Help and errors that
the arguments alone show do not wait for PyTorch, except those about patterns and candidates.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import click

import prom
from prom import methods, options
from prom.cli.common import (
    check_mask_output,
    check_output,
    check_outside,
    example,
    json_option,
    people,
    read_by,
    strict_json,
    threads_option,
)
from prom.cli.demands import demand_options, scan, spoken, tr_option
from prom.cli.exporting import export_command
from prom.cli.inputs import (
    PATTERN_NAMES,
    acceleration_option,
    input_options,
    pattern_option,
    readout_option,
    reconstruction_option,
    seed_option,
    trajectory_options,
    volume_option,
)
from prom.cli.reconstructing import reconstruct_command
from prom.cli.segmenting import segment_group
from prom.cli.sweeping import sweep_command
from prom.cli.types import whole
from prom.errors import InputError, unknown
from prom.files import reason
from prom.learn import recipes
from prom.reconstruction import check as check_reconstruction

NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())  # whose message is the help
UNREACHABLE = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}  # files that are named
# What no program can do anything about: full disks and quotas, limits on the size and number of files, file systems that are read-only.
SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EROFS}


def main() -> None:
    """Run the command line.

    Exit code 0: done; 1: runs failed, or records are not current; 2: bad usage or bad input, with one line on stderr (``inspect`` lists on
    stdout what it refuses); 130: ^C.
    """
    sys.stderr = sys.stderr or io.StringIO()  # None where it is closed, which progress bars do not expect
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names of files that are no text
    try:
        flags = {"--", *_flags(cli)}
        for option, value in pairwise(sys.argv):
            follows = option.startswith("-") and option not in flags and value == ""
            if follows or value.startswith("--") and value.find("=") == len(value) - 1:
                raise click.UsageError(f"{option if follows else value[:-1]}: '' is not a value; give one, or leave it out")
        with group():
            cli.main(prog_name="prom", standalone_mode=False)
    except NO_ARGUMENTS as error:
        click.echo(error.ctx.get_help(), err=True)
        sys.exit(2)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        hint = f" (see '{error.ctx.command_path} --help')" if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo(f"prom: {' '.join(message.split())}{hint}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        if error.errno in UNREACHABLE and error.filename:
            click.echo(f"prom: {str(error.filename)[:100]}: {reason(error)}; check its name, and who may read it", err=True)
        elif error.errno in SURROUNDINGS or "temporary directory" in str(error):
            way = ", or name another folder with TMPDIR" if error.filename or error.errno not in SURROUNDINGS else ""
            click.echo(f"prom: {error.filename or 'a file, or what is printed'}: {reason(error)}; free some space{way}", err=True)
        else:
            raise
        sys.exit(2)


def _flags(command: click.Command) -> Iterator[str]:
    """The options of a command, and of those below it, that take no value."""
    for parameter in command.params:
        yield from parameter.opts if getattr(parameter, "is_flag", False) else ()
    for one in getattr(command, "commands", {}).values():
        yield from _flags(one)


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
    if missing := [folder for folder in folders if not folder or not Path(folder).is_dir()]:
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
        check_output(png, *read_by(settings), option="--png")
        check_outside(png, folder, "--png")
        if not png.lower().endswith(".png"):
            raise click.UsageError(f"--png {png}: must end in .png")
    short = {"dataset_name": key, "skip_constant": skip_constant or None, "volume": volume or None, "readout": readout}
    given = {name: value for name, value in short.items() if value is not None}
    given = options.parse_all(settings, partial(prom.datasets.parse_option, folder), given)
    if of_load := sorted({"scale", "maps", "maps_noise", "grid"} & set(given)):
        raise click.UsageError(f"--set {of_load[0]}: is of what is made of the images that are read, which this shows; leave it out")
    found = prom.inspection.inspect(folder, **given)
    if png and found["pictures"]:
        prom.inspection.picture(found, png)
    elif png:
        click.echo(f"prom: --png {png}: nothing was read that it could show", err=True)
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
    "--recipe",
    help="The recipe: default (scale-invariant ProM), polished, or paper (the authors' procedure). [default: default; with "
    "--network polished]",
)
@click.option(
    "--iterations", type=whole(), help="The number of iterations; with --network of the image's mask. [default: the recipe's own]"
)
@click.option("--members", type=whole(), help="The number of independent solutions to average. [default: the recipe's own]")
@click.option(
    "--network",
    help="Learn for the segmentations of this network (see 'prom segment train') instead of the image. The image's mask is learnt first, "
    "then improved for the network, with a fifth of the patients held out where there are several (chapter 5). With --recipe, learn from "
    "scratch through the network.",
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
    """Learn a mask from the fully sampled slices of DATASET.

    A descent that takes longer than a minute is written to OUTPUT.part on the way, and goes on from there where it was stopped. Polishing
    starts again.
    """
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
        given = {"recipe": chosen, "objective": objective, "seed": seed, "device": device, "checkpoint": f"{output}.part"}
        result = optimize(data, acceleration, pattern, **given, reconstruction=reconstruction, demands=demands)
        loss = float(result.history["loss"].iloc[-1])
        if chosen.polish:  # of which the history knows nothing
            made = prom.problem.Problem.around(result.mask, data, pattern, objective, device, reconstruction, demands).objective
            loss = prom.objectives.whole_loss(made, range(len(data)), result.mask.float().to(made.data.device))
    seconds = time.perf_counter() - started + result.provenance.get("seconds_before", 0)
    if prom.distributed.rank():
        return  # every process has the same mask
    result.save(output)
    Path(f"{output}.part").unlink(missing_ok=True)
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
    """Score the reconstructions of DATASET under MASK: mean and standard deviation over slices, or over series or volumes.

    With --convention fastmri a volume is all slices of a subject that are loaded.

    MASK is a mask file of prom, or a mask as 'prom export' writes it: .npy, .mat or .png.
    """
    check_reconstruction(reconstruction)
    if convention not in options.CONVENTIONS:
        raise unknown("convention", convention, options.CONVENTIONS)
    sampled, trajectory = prom.mask_files.read_with_trajectory(mask)
    data = dataset()

    def measured(data: prom.SliceDataset) -> prom.SliceDataset:
        return data if trajectory is None else data.along(trajectory)

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
    heading = f"{data.name} {data.split}: {len(data)} {data.kind} of {people(data.number_of_subjects, len(data.patient_names()))}"
    how = "" if reconstruction == "zero-filled" else f", reconstruction {reconstruction}"
    click.echo(f"{heading}, x{true:.2f}, {convention} convention{how}")
    click.echo(
        f"PSNR {mean['psnr']:.3f} +- {spread['psnr']:.3f} dB   SSIM {mean['ssim']:.4f} +- {spread['ssim']:.4f}   "
        f"NMSE {mean['nmse']:.4f} +- {spread['nmse']:.4f}"
    )


cli.add_command(export_command)
cli.add_command(reconstruct_command)
cli.add_command(segment_group)
cli.add_command(sweep_command)


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
        f"{spoken(scan(result, tr))}, from {result.provenance['slices']} {result.provenance.get('kind', 'slices')} of {whose}{spent}"
    )


if __name__ == "__main__":
    main()
