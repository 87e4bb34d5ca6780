"""Masks: their distribution (Eq. 1), the set of those that are allowed, the most probable one (Eq. 8), and its file."""

from prom.masks.origin import commit, golden, provenance, versions
from prom.masks.result import MaskResult, as_mask, as_masks, average, load_mask

__all__ = ["MaskResult", "as_mask", "as_masks", "average", "commit", "golden", "load_mask", "provenance", "versions"]
