"""Record true_phase.csv: python data/recorded/true_phase.py --root FOLDER, which has knee_complex, cardiac_complex and multicoil_head.

Each set is taken twice: as it was measured, with phase, and as magnitudes, whose emulated k-space is Hermitian. The sets are small (one or
two people each), so that masks are made of the very images they are scored on: this compares methods, and says nothing about new patients.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

import prom
from prom.files import atomic
from prom.runs import results

SETS = {  # path, options of the reader: every echo and every coil image is a slice of its own
    "cardiac_complex": ("cardiac_complex", {"axes": "HW11N"}),
    "knee_complex": ("knee_complex/imdb_fig7.mat", {"axes": "HW1N", "dataset_name": "images.labels"}),
    "multicoil_head": ("multicoil_head/head.mat", {"axes": "HWN"}),
}
METHODS = ("low_pass", "gaussian:protect_centre=true", "energy", "conjugate_energy", "default", "polished")


@click.command(help=__doc__)
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--accelerations", default="4,8,16,32", show_default=True)
def main(root: Path, accelerations: str) -> None:
    rows = []
    runs = [(name, phase, a, method) for name in SETS for phase in ("true", "none") for a in accelerations.split(",") for method in METHODS]
    for name, phase, acceleration, method in tqdm(runs, disable=None):
        if phase == "true" and method == "conjugate_energy":
            continue  # refuses complex images
        path, options = SETS[name]
        data = prom.load(root / path, "all", **options)
        if phase == "none":
            data = replace(data, images=data.images.abs())
        result = results.make(method, data, float(acceleration))
        record = results.record(result, data, prom.evaluate(result.mask, data))
        rows.append({**record, "dataset": name, "phase": phase, "command": "python data/recorded/true_phase.py --root FOLDER"})
    with atomic(Path(__file__).with_suffix(".csv")) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


if __name__ == "__main__":
    main()
