"""Record lines.csv, what else could choose lines on hearts at x16: python data/recorded/lines.py --root data/ACDC

In this one cell of Table 1 IGS has a higher PSNR than polished ProM. Tried are a loss of each slice in decibels in the place of the squared
error, in which bright slices weigh most; and exchange of lines (:func:`prom.learn.exchange.exchange`) after swaps or after IGS. Learnt on
four fifths of the training patients and scored on the others; then on all of them, scored on the test patients. Goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import pandas as pd
from torch import Tensor

import prom
from prom.baselines.rivals import igs
from prom.evaluation import metrics
from prom.learn.exchange import exchange
from prom.masks import versions
from prom.objectives import ImageLoss, MagnitudeMSE
from prom.runs import golden, results
from prom.show.tables import bca_interval

ACCELERATION, PATTERN = 16, "columns"


def decibels(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Minus the mean PSNR of ``(P, C, H, W)``."""
    return -metrics.psnr(reconstruction, image, image.flatten(1).amax(dim=1) - image.flatten(1).amin(dim=1)).mean()


def ways(train: prom.SliceDataset) -> Iterator[tuple[str, str, Tensor]]:
    """Search, loss, and the mask that they find."""
    losses = {"squared error": MagnitudeMSE(train.images), "decibels": ImageLoss(train.images, decibels)}
    starts = {"polished": results.make("polished", train, ACCELERATION, PATTERN).mask, "igs": igs(train, ACCELERATION, PATTERN)}
    for name, mask in starts.items():
        yield name, "squared error", mask
    yield "igs", "decibels", igs(train, ACCELERATION, PATTERN, objective=losses["decibels"])
    for (name, mask), (loss, objective) in product(starts.items(), losses.items()):
        yield f"{name}, exchange", loss, exchange(mask, objective, range(len(train)), PATTERN)


@click.command(help=__doc__)
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False))
def main(root: str) -> None:
    file = Path(__file__).with_suffix(".csv")
    done = set(results.read(file)["scored"]) if file.exists() else set()
    for scored, validation in (("validation", 0.2), ("test", 0.0)):
        if scored in done:
            continue
        train, others = (prom.load("acdc", split, root, validation=validation) for split in ("train", scored))
        found = [(search, loss, mask, prom.evaluate(mask, others)) for search, loss, mask in ways(train)]
        rival = next(scores for search, loss, _, scores in found if (search, loss) == ("igs", "squared error"))
        rows = []
        for search, loss, mask, scores in found:
            gain = (scores["psnr"] - rival["psnr"]).groupby(scores["subject"]).mean()
            low, high = bca_interval(gain)
            chosen = " ".join(str(line - mask.shape[1] // 2) for line in mask[0].nonzero().flatten().tolist())
            means = {score: scores[score].mean() for score in ("psnr", "ssim", "nmse")}
            row = {"scored": scored, "search": search, "loss": loss, "acceleration": ACCELERATION, **means}
            rows.append({**row, "above_igs": gain.mean(), "low": low, "high": high, "lines": chosen})
        command = f"python data/recorded/lines.py --root {root}"
        made = {"processor": golden.processor(), "versions": json.dumps(versions()), "command": command}
        for row in rows:
            results.append(file, {**row, **made})
    print(results.read(file).drop(columns=["versions", "command", "processor"]).round(4).to_string())


if __name__ == "__main__":
    pd.set_option("display.width", 250)
    main()
