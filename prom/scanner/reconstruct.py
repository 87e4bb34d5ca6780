"""Raw data that were measured with a mask to images: noise, sensitivities, and the reconstruction of that name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.datasets import formats, raw
from prom.datasets.arrays import arranged, numbers
from prom.datasets.base import SliceDataset
from prom.datasets.cache import StoredRows
from prom.errors import InputError, unknown
from prom.kspace.coils import (
    CALIBRATION,
    CROPS,
    LEAST_EXPLAINED,
    compression,
    estimated,
    explained,
    measured_noise_level,
    mixed,
    root_sum_of_squares,
    whitening,
    with_phase,
)
from prom.kspace.encoding import Coils
from prom.kspace.fourier import ifft2c
from prom.masks.centre import reach, whole_centre
from prom.reconstruction import check, named
from prom.reconstruction.from_noise import power_law, sparse_strength
from prom.reconstruction.phase import PhaseConstrained, homodyne, smooth_phase
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.zero_filled import Reconstruction
from prom.scanner.raw_scan import RawScan

ENOUGH = 0.99  # of the centre's energy that sensitivities explain: the next crop is not tried
OUTERMOST = "of the outermost samples"  # where the noise was found if nobody says it
GIVEN = "given"  # of the sensitivities
OF_OTHERS = ("view-sharing", "gridding")  # reconstructions of series, and off the grid
FEWEST = 8  # rows and columns of a centre from which sensitivities can be estimated
ONE_SIDED = 0.8  # of the way on one side of DC: a mask that reaches no farther on the other is one of partial Fourier


@dataclass(frozen=True, eq=False)
class Images:
    """What was made of raw data.

    Attributes
    ----------
    image
        ``(N, H, W)`` complex64, in the units of k-space; of root sums of squares the phase is 0.
    maps
        ``(N, K, H, W)`` complex64 sensitivities, of whitened coils where they were whitened, or None.
    noise
        The standard deviation of a complex sample, or None where it is not known.
    how
        In words: what the noise, the sensitivities and the reconstruction are.
    """

    image: Tensor
    maps: Tensor | None
    noise: float | None
    how: dict[str, str]


@torch.no_grad()
def reconstruct(
    scan: RawScan,
    name: str = "sense",
    maps: Tensor | None = None,
    train: SliceDataset | None = None,
    phase: str = "free",
    noise: float | None = None,
    calibration: int = CALIBRATION,
    compress: int | None = None,
) -> Images:
    r"""Images of raw data.

    Where there is a noise scan, it makes the noise of all coils equal and uncorrelated (:func:`prom.kspace.coils.whitening`).
    Sensitivities are estimated from the fully measured centre, or the reference lines (:func:`prom.kspace.coils.estimated`). Without
    training data ``sense`` weighs samples by the penalty :math:`\sigma^2 / P`, half of it with a smooth phase, with the power of
    :func:`prom.reconstruction.from_noise.power_law`, and ``wavelet`` and ``tv`` have :math:`\lambda = \sigma / 4`; :math:`\sigma` is that
    of the noise scan, else of the outermost samples.

    Parameters
    ----------
    scan
        See :func:`prom.scanner.raw_scan.read`.
    name
        ``zero-filled``: of several coils the root sum of squares; ``sense``, ``wavelet``, ``tv``; of any other that is registered the
        numbers are chosen on training data.
    maps
        Sensitivities ``(K, H, W)``, or ``(N, K, H, W)`` in the order of the slices of the image, complex, of the coils as they are in the
        file. Their size does not matter: the image gets its inverse.
    train
        Slices of this size, on which a reconstruction's numbers are chosen (:func:`prom.reconstruction.named`).
    phase
        ``free``, or ``smooth``: the image's phase is that of its low resolution, so that one side of k-space says what the other is
        (:mod:`prom.reconstruction.phase`). For ``zero-filled`` and ``sense``.
    noise
        Standard deviation of a complex sample, in the units of the file; by default as above. With training data nothing but the misfit is
        weighed by it.
    calibration
        Of the centre at most so many rows and columns are used for sensitivities, 8 at least. Not used where these are not estimated: with
        ``maps``, of one coil, and for ``zero-filled``.
    compress
        To how many virtual coils (:func:`prom.kspace.coils.compression`); the time of estimating sensitivities grows faster than their
        number.

    Raises
    ------
    InputError
        Where sizes do not fit, the centre is too small for sensitivities, the noise cannot be known, or a reconstruction needs training
        data that are not given.
    """
    maps = torch.as_tensor(maps) if isinstance(maps, np.ndarray) else maps
    _check_arguments(scan, check(name), maps, train, phase, noise)
    if phase == "smooth" and not has_centre(scan, name, compress):
        raise InputError("phase smooth: is that of the centre of k-space, which was not measured on all sides; leave it out")
    options.check("calibration", calibration, "[8, 1e4]", whole=True)
    kspace, how = scan.kspace, {}
    reference = scan.kspace if scan.reference is None else scan.reference
    if scan.noise is not None:
        try:
            matrix = whitening(scan.noise)
        except InputError as error:
            how["noise scan"] = f"left out: {error}"
        else:
            kspace, reference = mixed(kspace, matrix), mixed(reference, matrix)
            maps = None if maps is None else mixed(maps, matrix)
            how["noise scan"] = f"{scan.noise.shape[1]} samples, which whitened the coils"
            if noise is None:
                noise, how["noise"] = float(scan.noise.abs().double().square().mean().sqrt()) / scan.averages**0.5, "of the noise scan"
    if noise is None:
        try:
            noise, how["noise"] = measured_noise_level(kspace, scan.mask), OUTERMOST
        except InputError:
            if name != "zero-filled" and train is None:
                raise
    else:
        how.setdefault("noise", "given")
    if compress is not None:
        matrix = compression(kspace, compress)
        kspace, reference = mixed(kspace, matrix), mixed(reference, matrix)
        maps = None if maps is None else mixed(maps, matrix)
        how["coils"] = f"{scan.kspace.shape[1]} compressed to {compress}"
    if name == "zero-filled":
        image, how["reconstruction"] = _zero_filled(kspace, scan.mask, phase)
        return Images(image, None, noise, how)
    maps, how["sensitivities"] = _sensitivities(scan, reference, maps, calibration)
    size = _size(maps) if how["sensitivities"] == GIVEN else 1.0
    if train is not None and train.sensitivities is not None:  # for which the numbers are chosen
        size /= _size(train.sensitivities)
    image, how["reconstruction"] = _by_coils(kspace, scan.mask, maps / size, name, noise, train, phase)
    image = image / size
    if noise:
        how["misfit"] = f"{_misfit(image, maps, kspace, scan.mask) / noise:.1f} times the noise, between the samples and the image"
    return Images(image, maps, noise, how)


def _misfit(image: Tensor, maps: Tensor, kspace: Tensor, mask: Tensor) -> float:
    """The root mean square of what the measured samples have and the image has not; far above the noise, sensitivities may be wrong."""
    left = sum(
        float((Coils(own).forward(one) - samples)[:, mask].abs().double().square().sum())
        for one, own, samples in zip(image, maps, kspace, strict=True)
    )
    return (left / (int(mask.sum()) * kspace.shape[0] * kspace.shape[1])) ** 0.5


def _check_arguments(scan: RawScan, name: str, maps: Tensor | None, train: SliceDataset | None, phase: str, noise: float | None) -> None:
    if phase not in options.PHASES:
        raise unknown("phase", phase, options.PHASES)
    if phase == "smooth" and name not in ("zero-filled", "sense"):
        raise InputError(f"phase smooth: is for zero-filled and sense, not for {name}; leave it out, or choose one of these")
    if name in OF_OTHERS:
        raise InputError(f"reconstruction {name}: is not for slices of a grid, which raw data are here; use sense")
    if name not in ("zero-filled", "sense", "wavelet", "tv") and train is None:
        raise InputError(f"reconstruction {name}: chooses its numbers on training data; give some (--train)")
    if name == "zero-filled" and (maps is not None or train is not None):
        raise InputError("reconstruction zero-filled: uses neither sensitivities nor training data; leave them out, or choose sense")
    if noise is not None:
        options.check("noise", noise, "(0, inf)")
        if name == "zero-filled":
            raise InputError(f"noise {noise:g}: is not used by zero-filled; leave it out, or choose sense")
    if train is not None and tuple(train.shape) != tuple(scan.mask.shape):
        raise InputError(
            f"{train.name}: has slices of {tuple(train.shape)}, the raw data {tuple(scan.mask.shape)}; give training data of this size "
            "(size=), or none: then noise and power are those of the raw data"
        )
    if maps is not None and tuple(maps.shape) not in (tuple(scan.kspace.shape), tuple(scan.kspace.shape[1:])):
        raise InputError(
            f"sensitivities of {tuple(maps.shape)}: must be {tuple(scan.kspace.shape[1:])} (coils, H, W), with slices or without"
        )


def has_centre(scan: RawScan, name: str, compress: int | None = None) -> bool:
    """Whether there is a low resolution whose phase can be taken: of SENSE of several coils also where DC lies between measured lines."""
    whole, both = min(whole_centre(scan.mask)), min(map(min, reach(scan.mask))) >= 1
    return both and (whole >= 2 if name == "zero-filled" else whole >= 1 or (compress or scan.kspace.shape[1]) > 1)


def _zero_filled(kspace: Tensor, mask: Tensor, phase: str) -> tuple[Tensor, str]:
    images = ifft2c(kspace)
    how = "zero-filled"
    if phase == "smooth":
        halves = [side // 2 for side in whole_centre(mask)]
        images = torch.stack([homodyne(samples, mask, smooth_phase(ifft2c(samples), halves)) for samples in kspace])
        how += f", homodyne, the phase of each coil from the centre of {2 * halves[0]} x {2 * halves[1]}"
    if kspace.shape[1] == 1:
        return images[:, 0], how
    return torch.stack([root_sum_of_squares(coils) for coils in images]).to(torch.complex64), f"{how}, root sum of squares of the coils"


def _sensitivities(scan: RawScan, reference: Tensor, maps: Tensor | None, most: int) -> tuple[Tensor, str]:
    """``(N, K, H, W)``, and what they are."""
    if maps is not None:
        return maps.to(torch.complex64).expand(reference.shape), GIVEN
    if reference.shape[1] == 1:
        return torch.ones_like(reference), "one coil"
    mask, what = (scan.mask, "the central") if scan.reference is None else (scan.reference_mask, "reference lines, the central")
    size = min(whole_centre(mask, most))
    if size < FEWEST:
        raise InputError(
            f"sensitivities: the fully measured centre has {size} x {size} samples, and {FEWEST} x {FEWEST} are needed; give sensitivities "
            "(--maps), or --reconstruction zero-filled"
        )
    found, kept, energy = [], 0.0, 0.0
    first = with_phase(reference, size)
    for number, samples in enumerate(tqdm(reference, desc="sensitivities", delay=2, disable=None, leave=False)):
        best = torch.zeros_like(samples)
        share, own = explained(best, samples, size)
        if not own and scan.kspace[number].any():
            raise InputError(f"sensitivities: {what} {size} x {size} samples of slice {number} are 0, though not all; give them (--maps)")
        for crop in CROPS if own else ():
            best = estimated(samples, size, crop, first)
            share = explained(best, samples, size)[0]
            if share >= ENOUGH * own:
                break
        found.append(best)
        kept, energy = kept + share, energy + own
    if not energy:
        raise InputError("k-space: is 0 everywhere; give what the scanner measured")
    if kept < LEAST_EXPLAINED * energy:
        way = "take a smaller --calibration" if size > CALIBRATION else "measure a larger centre whole"
        raise InputError(
            f"sensitivities: those of the central {size} x {size} samples explain {kept / energy:.0%} of them, too little; {way}, "
            "give sensitivities (--maps), or --reconstruction zero-filled"
        )
    return torch.stack(found), f"by ESPIRiT from {what} {size} x {size} samples, of which they explain {kept / energy:.1%}"


def _by_coils(
    kspace: Tensor, mask: Tensor, maps: Tensor, name: str, noise: float | None, train: SliceDataset | None, phase: str
) -> tuple[Tensor, str]:
    if train is not None:
        one = named(name, train, mask)
        made, how = [one] * len(kspace), f"{name}, numbers chosen on {train.name}"
    elif name == "sense":
        penalty = noise**2 / power_law(kspace, mask, noise)
        made, how = [Sense(penalty)] * len(kspace), "sense, penalty: the noise over a power law that was fitted to the samples"
    else:
        made = [Sparse(name, sparse_strength(samples, mask, noise)) for samples in kspace]
        how = f"{name}, lambda a quarter of the noise"
    if phase == "smooth":
        how += f", half of the penalty, smooth phase from the centre of {' x '.join(str(2 * min(sides)) for sides in reach(mask))}"
    together = 1 if len({id(one) for one in made}) > 1 else torch.get_num_threads()
    found = []
    for begin in tqdm(range(0, len(kspace), together), desc=f"reconstruct {name}", delay=2, disable=None, leave=False):
        some = slice(begin, begin + together)
        found.append(_image(made[begin], kspace[some], mask, Coils(maps[some]), phase))
    return torch.cat(found), how


def _image(made: Reconstruction, samples: Tensor, mask: Tensor, encoding: Coils, phase: str) -> Tensor:
    image = made(samples, mask, encoding)[0] * encoding.seen  # elsewhere there are no data, only what is sparse
    if phase == "free":
        return image
    smooth = smooth_phase(image, [min(sides) for sides in reach(mask)])
    return PhaseConstrained(made.penalty / 2, smooth)(samples, mask, encoding)[0]  # real images: half of the noise is in their phase


def _size(maps: Tensor | StoredRows) -> float:
    """The root mean square over the object of sensitivities together: 1 of ESPIRiT's, anything of those that are given."""
    total, count = 0.0, 0
    for own in maps if maps.ndim == 4 else [maps]:  # one slice at a time: they may lie on disk
        power = own.abs().double().square().sum(dim=-3)
        total, count = total + float(power.sum()), count + int((power > 0).sum())
    return (total / count) ** 0.5 if count else 1.0


def one_sided(mask: Tensor) -> str | None:
    """Along which index a mask is that of partial Fourier, ``rows`` or ``columns``; None where along neither.

    >>> one_sided((torch.arange(8) < 6)[:, None].expand(8, 5))
    'rows'
    """
    for axis, name in enumerate(("rows", "columns")):
        lines, (low, high) = mask.any(1 - axis).nonzero().flatten(), reach(mask)[axis]
        shorter, longer = sorted((low, high + 1 - mask.shape[axis] % 2))  # an even grid has one line less above DC
        widest = int(lines.diff().max()) if len(lines) > 1 else 1  # a gap like others is no side that was left out
        if shorter < ONE_SIDED * longer and longer - shorter > widest:
            return name
    return None


def read_maps(path: str | os.PathLike) -> Tensor:
    """Sensitivities in a file: ``(K, H, W)``, or ``(N, K, H, W)`` with slices first; where slices come last, as in MATLAB, H W K N.

    Raises
    ------
    InputError
        Where the file cannot be read, has other numbers of axes, or values that are not finite.
    """
    path = Path(path)
    kind = formats.kind_of(path)
    if kind not in formats.ARRAYS or kind == "twix":
        raise InputError(f"sensitivities {path}: must be a file of type {', '.join(one for one in formats.ARRAYS if one != 'twix')}")
    if not path.is_file():
        raise InputError(f"sensitivities {path}: no such file")
    axes = _axes_of_bart(path) if kind == "BART" else _axes_of_maps
    stack = arranged(formats.content_of_maps(path, kind, axes, "(K, H, W) or (N, K, H, W)"))
    if stack.shape[1] != 1:
        raise InputError(f"sensitivities {path}: has {stack.shape[1]} channels; must be one set of maps")
    maps = numbers(stack[:, 0])
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: has NaN or infinite values; repair it, sensitivities outside the object can be 0")
    if not maps.any():
        raise InputError(f"sensitivities {path}: are all 0, so that no coil sees anything; give those of these coils")
    found = torch.tensor(maps).to(torch.complex64)
    return found[0] if len(found) == 1 else found


def _axes_of_bart(path: Path) -> str | None:
    """Of 3D maps, whose first axis is the readout, along which there are slices; of others BART's own."""
    shape = raw.cfl_shape(path)
    if len(shape) > 4 and shape[4] > 1:
        raise InputError(f"sensitivities {path}: has {shape[4]} sets of maps; save one of them, with 'bart slice 4 0'")
    return "NHWK".ljust(len(shape), "1") if min(shape[:3]) > 1 and len(shape) > 3 and max(shape[4:], default=1) == 1 else None


def _axes_of_maps(path: Path, shape: Sequence[int], usual: str) -> str:
    letters = ("KHW", "NKHW") if usual.startswith("N") else ("HWK", "HWKN")
    if len(shape) not in (3, 4):
        raise InputError(f"sensitivities {path}: array of shape {tuple(shape)}; must be {letters[0]} or {letters[1]} (N slices, K coils)")
    return letters[len(shape) - 3]
