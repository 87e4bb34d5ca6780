"""Record settings.csv, which the settings of ``prom.POLISHED`` were chosen by: python data/recorded/settings.py --root data/ACDC

Iterations of learning and evaluations of polishing, on training patients of ACDC only: masks are learnt on four fifths of them and scored
on the others. The test patients are not looked at. The closed forms are in it for comparison, and for lines IGS. Goes on where it was
stopped.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

import prom
from prom.runs import results

METHODS = (
    "energy",
    "conjugate_energy",
    "igs",
    *(f"polished:iterations={i},polish={p}" for i in (25, 50, 100, 200) for p in (4, 8, 16, 24)),
)
KEYS = ["method", "variant", "pattern", "acceleration", "seed"]


@click.command(help=__doc__)
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False))
@click.option("--seeds", default=1, show_default=True)
def main(root: str, seeds: int) -> None:
    file = Path(__file__).with_suffix(".csv")
    train, held = (prom.load("acdc", split, root, validation=0.2) for split in ("train", "validation"))
    done = set(results.read(file)[KEYS].fillna("").itertuples(index=False, name=None)) if file.exists() else set()
    for seed, pattern, acceleration, method in tqdm(
        list(product(range(seeds), ("points", "columns"), (4.0, 8.0, 16.0, 32.0), METHODS)), disable=None
    ):
        name, _, variant = method.partition(":")
        if (seed and not variant) or (name == "igs" and pattern == "points") or (name, variant, pattern, acceleration, seed) in done:
            continue
        made = results.make(method, train, acceleration, pattern, seed)
        entry = results.record(made, held, prom.evaluate(made.mask, held))
        results.append(file, {**entry, "command": "python data/recorded/settings.py --root data/ACDC"})
    table = results.read(file).fillna({"variant": ""})
    print(table.pivot_table(index=["pattern", "method", "variant"], columns="acceleration", values="psnr").round(3).to_string())
    print(table.pivot_table(index=["pattern", "method", "variant"], columns="acceleration", values="seconds").round(1).to_string())


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main()
