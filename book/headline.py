"""Draw book/headline.png, the picture of the README and of the introduction: python book/headline.py"""

from __future__ import annotations

from pathlib import Path

import prom
from prom import baselines, figures

ACCELERATION = 16


def main() -> None:
    figures.use_style()
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
    figure.savefig(Path(__file__).parent / "headline.png")


if __name__ == "__main__":
    main()
