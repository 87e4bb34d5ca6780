"""Draw book/kspace.png, the introduction's picture of what k-space is: python book/kspace.py"""

from __future__ import annotations

from pathlib import Path

import torch

import prom
from prom.show import figures


def main() -> None:
    figures.use_style()
    image = prom.load("mni_brain", "test", subjects=1).images[4, 0]
    kspace = prom.fft2c(image)
    rows, columns = (torch.arange(n) - n // 2 for n in image.shape)
    radius = (rows[:, None].square() + columns.square()).float().sqrt()

    def pair(down: int, right: int) -> torch.Tensor:
        """One frequency: a point and its mirror image, without which the wave would not be real."""
        kept = torch.zeros(image.shape, dtype=torch.bool)
        for sign in (1, -1):
            kept[image.shape[0] // 2 + sign * down, image.shape[1] // 2 + sign * right] = True
        return kept

    middle = radius < 12
    parts = {
        "one frequency:\na wave": pair(2, 8),
        "another, further out:\na finer wave": pair(18, -10),
        f"the middle,\n{100 * float(middle.float().mean()):.1f} % of k-space": middle,
        "all but the middle:\nedges, noise": ~middle,
        "all of it": torch.ones_like(middle),
    }
    figure, axes = figures.grid(2, len(parts), size=1.85)
    for column, (title, kept) in enumerate(parts.items()):
        decades = (kspace.abs() * kept / kspace.abs().max()).clamp(min=1e-12).log10()  # one scale for all
        figures.show_map(axes[0, column], decades, title, (-5, 0), "magma")
        if kept.sum() == 2:  # single points are too small to be seen
            y, x = kept.nonzero().T
            axes[0, column].plot(x, y, "o", ms=4, color="white")
        part = prom.ifft2c(kspace * kept).real
        peak = float(part.abs().max())
        waves = not kept[image.shape[0] // 2, image.shape[1] // 2]  # without DC, values lie about 0
        figures.show_image(axes[1, column], part, "", (-peak, peak) if waves else (0, float(image.max())))
    axes[0, 0].set_ylabel("k-space")
    axes[1, 0].set_ylabel("the image")
    figure.savefig(Path(__file__).parent / "kspace.png")


if __name__ == "__main__":
    main()
