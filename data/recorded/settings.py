"""Record settings.csv, which settings of the recipes were chosen by: python data/recorded/settings.py acdc --root data/ACDC

On training patients only: masks are learnt on four fifths of them and scored on the others. The test patients are not looked at.

- Of ``prom.POLISHED``, on ACDC: iterations of learning and evaluations of polishing. The closed forms are in it for comparison, and for
  lines IGS.
- Of ``prom.DEFAULT``: how long the budget is everything (exploration), how long it is the final one (exploitation), and of how many
  iterations these are shares.

Goes on where it was stopped.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

import prom
from prom.runs import results

POLISHED = (
    "energy",
    "conjugate_energy",
    "igs",
    *(f"polished:iterations={i},polish={p}" for i in (25, 50, 100, 200) for p in (4, 8, 16, 24)),
)
BUDGETS = ((600, 0.1, 0.1), (300, 0.1, 0.1), (300, 0.02, 0.3), (300, 0.05, 0.5), (300, 0.02, 0.6), (300, 0.02, 0.8), (200, 0.02, 0.6))
DEFAULT = tuple(f"default:iterations={n},exploration={first},exploitation={last}" for n, first, last in BUDGETS)
KEYS = ["dataset", "method", "variant", "pattern", "acceleration", "seed"]


@click.command(help=__doc__)
@click.argument("dataset", type=click.Choice(["acdc", "brain_tumour"]))
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False))
@click.option("--seeds", default=1, show_default=True)
def main(dataset: str, root: str, seeds: int) -> None:
    file = Path(__file__).with_suffix(".csv")
    train, held = (prom.load(dataset, split, root, validation=0.2) for split in ("train", "validation"))
    done = set(results.read(file)[KEYS].fillna("").itertuples(index=False, name=None)) if file.exists() else set()
    methods = (*(POLISHED if dataset == "acdc" else ()), *DEFAULT)
    for seed, pattern, acceleration, method in tqdm(
        list(product(range(seeds), ("points", "columns"), (4.0, 8.0, 16.0, 32.0), methods)), disable=None
    ):
        name, _, variant = method.partition(":")
        if (seed and name != "default") or (name == "igs" and pattern == "points"):
            continue
        if (dataset, name, variant, pattern, acceleration, seed) in done:
            continue
        made = results.make(method, train, acceleration, pattern, seed)
        entry = results.record(made, held, prom.evaluate(made.mask, held))
        results.append(file, {**entry, "command": f"python data/recorded/settings.py {dataset} --root {root}"})
    table = results.read(file).fillna({"variant": ""})
    for what, digits in (("psnr", 3), ("seconds", 1)):
        shown = table.pivot_table(index=["dataset", "pattern", "method", "variant"], columns="acceleration", values=what)
        print(shown.round(digits).to_string())


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main()
