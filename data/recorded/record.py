"""Record the ACDC figures of the book: python data/recorded/record.py --root FOLDER [--seeds 3]. Goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import click
from tqdm import tqdm

import prom
from prom import results
from prom.masks import versions

ACCELERATIONS = (4, 8, 16, 32)
OUTPUT = Path(__file__).parent / "acdc_reconstruction.csv"
KEYS = ["method", "pattern", "acceleration", "seed", "variant"]


@click.command(help=__doc__)
@click.option("--root", required=True, help="The folder with database/training and database/testing.")
@click.option("--seeds", default=3, show_default=True, help="Seeds of every method that has any randomness.")
def main(root: str, seeds: int) -> None:
    train, test = (prom.load("acdc", split, root) for split in ("train", "test"))
    runs = [("energy", pattern, 0, "", {}) for pattern in ("points", "columns")]
    runs += [("default", pattern, seed, "", {}) for seed in range(seeds) for pattern in ("points", "columns")]
    runs += [("equispaced", "columns", seed, "exact budget", {}) for seed in range(10)]
    runs += [("equispaced", "columns", seed, "paper", {"exact_budget": False}) for seed in range(10)]
    runs = [(*run, acceleration) for run in runs for acceleration in ACCELERATIONS]
    done = set()
    if OUTPUT.exists():  # only what the same code made from the same data counts
        recorded = results.read(OUTPUT).fillna({"variant": ""})
        same = recorded["versions"] == json.dumps(versions(), sort_keys=True)
        same &= (recorded["fingerprint_train"] == train.fingerprint()) & (recorded["fingerprint_test"] == test.fingerprint())
        done = set(recorded.loc[same, KEYS].itertuples(index=False, name=None))
        if not same.all():
            raise click.ClickException(f"{OUTPUT} holds {int((~same).sum())} rows of other code or data; move it away first")
    for method, pattern, seed, variant, options, acceleration in tqdm(runs, disable=None):
        if (method, pattern, float(acceleration), seed, variant) in done:
            continue
        record = results.run(method, train, test, acceleration, pattern, seed, **options)
        results.append(OUTPUT, {**record, "variant": variant, "command": f"python data/recorded/record.py --root ACDC --seeds {seeds}"})


if __name__ == "__main__":
    main()
