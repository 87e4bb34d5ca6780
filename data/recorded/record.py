"""Make the files of data/recorded from the folders of sweeps: python data/recorded/record.py NAME FOLDER... [--masks PATTERN]...

FOLDER is what ``prom sweep --output`` was given. Writes NAME_reconstruction.csv, one row a run, NAME_slices.csv.gz with PSNR and SSIM of
every test slice, averaged over seeds, and the mask files of the runs that a PATTERN names; of sweeps with a network NAME_segmentation.csv,
and Dice and intersection over union in NAME_segmentation_slices.csv.gz. With --add, what the files hold of other methods, patterns and
accelerations stays. All seeds of one of these must come from the same code, and all runs from the same data.
"""

from __future__ import annotations

import json
import os
import shlex
from fnmatch import fnmatch
from pathlib import Path

import click
import h5py
import pandas as pd

from prom.files import atomic
from prom.runs import results
from prom.runs.sweep import FILES

HERE = Path(__file__).parent
SAME = ["dataset", "options", "method", "variant", "members", "pattern", "acceleration", "tuning_steps"]  # all of a run but its seed
SCORES = ["psnr", "ssim", "dice", "iou"]  # of a slice


@click.command(help=__doc__)
@click.argument("name")
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--masks", multiple=True, help="Runs whose masks are wanted, e.g. 'default-points-*-seed0'.")
@click.option("--add", is_flag=True, help="Keep the recorded runs of what no FOLDER has: they take hours.")
def main(name: str, folders: tuple[Path, ...], masks: tuple[str, ...], add: bool) -> None:
    runs, slices, wanted = [], [], []
    for folder in folders:
        for file in sorted(folder.glob("*-code-*/*.json")):
            if file.name == "sweep.json" or not file.with_suffix(".csv").exists():
                continue
            run = json.loads(file.read_text())
            named = json.loads(shlex.split(run["command"])[-1])
            options = named["options"]  # of the data set's reader
            files = [str(options[option]) for option in FILES if option in options]
            for place in (named["dataset"], named["root"], named.get("network", ""), *named.get("average", ()), *files):
                if os.path.isabs(place):
                    raise click.ClickException(f"{file}: its command names {place}, a place of this machine; sweep with relative paths")
            run["options"] = json.dumps(options)
            run.setdefault("tuning_steps", 0)
            runs.append(run)
            slices.append(results.read(file.with_suffix(".csv")).assign(**{key: run[key] for key in SAME}))
            if any(fnmatch(file.stem, pattern) for pattern in masks):
                label = "-".join([name, *(f"{option}{value}" for option, value in options.items()), file.stem])
                wanted.append((file.with_suffix(".h5"), HERE / "masks" / f"{label}.h5"))
    kinds = {"network" in run for run in runs}
    if len(kinds) != 1:
        raise click.ClickException("the folders have runs with a network and without; name either" if runs else "the folders have no runs")
    [networks] = kinds
    file = HERE / f"{name}_{'segmentation' if networks else 'reconstruction'}.csv"
    slices_file = HERE / f"{name}_{'segmentation_' if networks else ''}slices.csv.gz"
    same = SAME if networks else SAME[:-1]
    table, scores = pd.DataFrame(runs), pd.concat(slices)
    by_slice = scores.groupby([*same, "subject", "slice"])[[score for score in SCORES if score in scores]].mean().round(5).reset_index()
    if add:
        table, by_slice = extended(file, table, same), extended(slices_file, by_slice, same)
    table = table.sort_values([*same, "seed"], kind="stable")
    for key, group in table.groupby(same):
        if group["versions"].nunique() > 1:
            raise click.ClickException(f"the runs of {key} come from {group['versions'].nunique()} versions of the code")
    for (data, options), group in table.groupby(["dataset", "options"]):
        if len(group[["fingerprint_train", "fingerprint_test", *(["network"] if networks else [])]].drop_duplicates()) > 1:
            raise click.ClickException(f"the runs of {data} {options} come from different data or networks")
    if table.duplicated([*same, "seed"]).any():
        raise click.ClickException("some runs are there twice; name each folder once")
    write(table if networks else table.drop(columns="tuning_steps", errors="ignore"), file)
    write(by_slice.sort_values([*same, "subject", "slice"], kind="stable"), slices_file)
    for source, target in wanted:
        compress(source, target)
    click.echo(f"{len(table)} runs, {len(by_slice)} mean scores of slices, {len(list((HERE / 'masks').glob(f'{name}-*.h5')))} masks")


def extended(file: Path, new: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """The rows of a file for which there are no new ones, and the new ones."""
    if not file.is_file():
        return new
    old = results.read(file)
    old = old.assign(variant=old["variant"].astype(object).fillna(""))
    replaced = pd.MultiIndex.from_frame(old[same]).isin(pd.MultiIndex.from_frame(new[same]))
    return pd.concat([old[~replaced], new], ignore_index=True)


def write(table: pd.DataFrame, path: Path) -> None:
    """As csv, in one step. Compressed without the time, so that the same table is the same file."""
    compression = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, compression=compression)


def compress(source: Path, target: Path) -> None:
    """Copy a mask file with its arrays compressed: most probabilities are 0 or 1."""
    target.parent.mkdir(exist_ok=True)
    with h5py.File(source) as old, atomic(target) as temporary, h5py.File(temporary, "w") as new:
        new.attrs.update(old.attrs)

        def copy(path: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                new.create_dataset(path, data=item[()], compression="gzip", shuffle=True)

        old.visititems(copy)


if __name__ == "__main__":
    main()
