"""ProM: learned k-space sampling for MRI. The public names; every other module says at its top what it does."""

from prom import baselines, curvature, segmentation
from prom.datasets import SliceDataset, load
from prom.errors import InputError
from prom.evaluate import evaluate
from prom.fourier import fft2c, ifft2c, undersample
from prom.layer import MaskLayer
from prom.masks import MaskResult, load_mask
from prom.optimize import optimize
from prom.polish import polish
from prom.projection import project
from prom.recipes import DEFAULT, PAPER, POLISHED, Recipe

__all__ = [
    "DEFAULT",
    "PAPER",
    "POLISHED",
    "InputError",
    "MaskLayer",
    "MaskResult",
    "Recipe",
    "SliceDataset",
    "baselines",
    "curvature",
    "evaluate",
    "fft2c",
    "ifft2c",
    "load",
    "load_mask",
    "optimize",
    "polish",
    "project",
    "segmentation",
    "undersample",
]
