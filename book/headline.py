"""Draw book/headline.png, of the README and the introduction, and book/acdc.png, of the introduction: python book/headline.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import prom
from prom import baselines
from prom.runs import results
from prom.show import figures

ACCELERATION = 16
BOOK = Path(__file__).parent


def pictures() -> None:
    """Three masks of one size, and what each makes of a slice."""
    train = prom.load("mni_brain", "train", subjects=20)
    test = prom.load("mni_brain", "test", subjects=1)
    image = test.images[4, 0]
    masks = {
        "equispaced lines": baselines.equispaced(train, ACCELERATION),
        "strongest lines": baselines.energy(train, ACCELERATION, pattern="columns"),
        "learnt points": prom.optimize(train, ACCELERATION).mask,
    }
    figure, axes = figures.grid(2, 4, size=2.1)
    for column, (name, mask) in enumerate(masks.items()):
        psnr = prom.evaluate(mask, test.select([4]))["psnr"].item()
        figures.show_mask(axes[0, column], mask, f"{name}, x{mask.numel() / int(mask.sum()):.0f}")
        figures.show_image(axes[1, column], prom.undersample(image, mask), f"{psnr:.1f} dB")
    figures.show_kspace(axes[0, 3], prom.fft2c(image), "all of k-space")
    figures.show_image(axes[1, 3], image, "fully sampled")
    figure.savefig(BOOK / "headline.png")


def curves() -> None:
    """PSNR on ACDC against acceleration: the paper's learnt masks and lines, the energy oracle, and ours."""
    printed = results.read(BOOK.parent / "data/paper/table1_reconstruction.csv").query("dataset == 'ACDC'")
    recorded = results.read(BOOK.parent / "data/recorded/acdc_reconstruction.csv").fillna({"variant": ""})
    recorded = recorded.query("pattern == 'points' and options == '{}' and variant == ''")
    lines = {
        "ours, polished": (recorded.query("method == 'polished'"), "psnr", "black", "o-"),
        "energy oracle, learns nothing": (recorded.query("method == 'energy'"), "psnr", "energy", "o-"),
        "paper: ProM, points": (printed.query("method == 'prom'"), "psnr_db", "paper", "x-"),
        "paper: IGS, lines": (printed.query("method == 'igs'"), "psnr_db", "equispaced", "x--"),
    }
    figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for label, (runs, score, colour, style) in lines.items():
        mean = runs.groupby("acceleration")[score].mean()
        ax.plot(mean.index, mean, style, color=figures.COLOURS[colour], label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(mean.index, [f"x{alpha:g}" for alpha in mean.index])
    ax.minorticks_off()
    ax.set(xlabel="acceleration", ylabel="PSNR (dB), ACDC test slices")
    ax.legend()
    figure.savefig(BOOK / "acdc.png")


if __name__ == "__main__":
    figures.use_style()
    pictures()
    curves()
