"""``mni_brain``: the data set that works offline. Axial brain slices of virtual subjects, made from the MNI152 template in nilearn's wheel.

What it is, and what it is not
------------------------------
*No real person is in it.* The ICBM 152 nonlinear template is the average of 152 aligned brains; nilearn's wheel carries its T1 volume
(skull-stripped: there is no scalp, no skull, no eyes) and its grey- and white-matter maps, at 1 mm. A *virtual subject* is that one
averaged brain under a smooth invertible deformation, a small affine change, a gamma curve and a smooth bias field, with noise added.
Virtual subjects therefore share their topology (the same gyri, displaced), and the images are smoother than a scan of one person.
*k-space is emulated*: it is the Fourier transform of these magnitude images; no scanner measured it. Good for learning the method and
for testing code; a mask for a scanner should be optimized on that scanner's data.

References
----------
V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54(1), 313-327, 2011.
V. Fonov et al., "Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", NeuroImage 47, S102, 2009.
Y. Choi and S. Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62(6), 411-427, 2000.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from prom import options
from prom.datasets import cache, volumes
from prom.datasets.arrays import LEAST
from prom.datasets.base import Part, Plan, SliceDataset
from prom.datasets.seeded import FIRST_NUMBER, NUMBERS_PER_SPLIT
from prom.datasets.seeded import generator as _generator
from prom.datasets.seeded import uniform as _uniform
from prom.datasets.seeded import whole as _checked
from prom.errors import InputError, unknown
from prom.kspace.coils import simulated
from prom.kspace.fourier import fft2c

FOLDER, KIND = None, "slices"
SUMMARY = "virtual subjects made from the MNI152 averaged brain; comes with the installation"
OBTAIN = "nothing to do: it comes with nilearn"
LICENCE = "the template: permission to use, copy, modify and distribute for any purpose, with its copyright notice (MNI, McGill)"
CITATION = "Fonov et al., NeuroImage 54(1):313-327, 2011, and NeuroImage 47:S102, 2009"
LABEL_NAMES = ("background", "grey matter", "white matter", "CSF and rest")
CONTRASTS = ("T1", "T2", "PD", "FLAIR")
SUBJECTS = {"train": 40, "validation": 10, "test": 20}  # virtual subjects of a split by default
SLICES = (44, 56, 68, 80, 92, 104, 116, 128)  # template slices, 12 mm apart, cerebellum to vertex: neighbours look different
SLICE_RANGE = (20, 140)  # further out, a deformed slice can miss the brain
PARTITIONS = range(-4, 164, 2)  # of a volume by default: the whole brain, and how far the affine change can move its ends
PARTITION_RANGE = (-40, 200)
STEPS = (1, 4)  # mm between partitions
TOGETHER = 8  # partitions that are deformed at once, for memory

# Signal of (grey matter, white matter, CSF) relative to the brightest tissue. Spin echo, rho exp(-TE/T2) (1 - exp(-TR/T1)), with T2 at
# TR/TE 4000/100 ms, PD at 2000/20 ms; FLAIR at TE 120 ms with the inversion time that nulls CSF, left a little above 0 as in practice.
# Tissue (rho, T1, T2) at 1.5 T: GM (0.86, 833 ms, 83 ms), WM (0.77, 500 ms, 70 ms), CSF (1.00, 2569 ms, 329 ms). The T1 channel is not
# in the table: it is the template's own T1 volume.
TISSUE_SIGNAL = {"T2": (0.44, 0.32, 1.00), "PD": (1.00, 0.92, 0.83), "FLAIR": (1.00, 0.85, 0.05)}

FIELD_OF_VIEW = 256.0  # mm, both directions: the template's 145 x 181 mm brain fits with room for the affine change
CENTRE = (98.0, 117.0, 75.0)  # template index (= mm) of the middle of the brain: what rotations and scalings leave in place
BRAIN_THRESHOLD = 0.055  # half the smallest T1 inside the brain, on the [0, 1] scale; outside it is exactly 0

WARP_SPACING = 30.0  # mm between control points
WARP_LIMIT = 0.4 * WARP_SPACING  # a cubic B-spline warp is invertible where no control point moves by more than 0.403 spacings (Choi, Lee)
BIAS_SPACING, BIAS_LIMIT = 80.0, 0.5  # mm; of the logarithm at the control points: 0.75 to 1.36 in the default subjects
STORED = 32 * 2**20  # bytes of images above which they are made once and kept in the user's cache: every run of a sweep would wait

PHASE_SPACING, PHASE_LIMIT = 80.0, 2 * np.pi  # mm; radians at the control points: 1 rad rms within a slice
# What the generators of the phase, of the noise in k-space and of volumes have in their key, where others have numbers from 0.
PHASE, SAMPLES, VOLUME = -1, -2, "volume"
NOISE = 0.01  # standard deviation of the noise in each of real and imaginary part, relative to the slice's maximum


def load(
    split: str = "train",
    *,
    subjects: int | None = None,
    slices: Sequence[int] | None = None,
    contrasts: int = 1,
    size: int = 256,
    seed: int = 0,
    coils: int = 1,
    phase: bool = False,
    noise: float = 0.0,
    volume: bool = False,
    readout: int | None = None,
) -> SliceDataset:
    """Virtual subjects made from the MNI152 template: an averaged brain, no real person, k-space emulated (see the module's text).

    Each virtual subject is the template under (1) a cubic B-spline warp with control points every 30 mm, each moved by up to 12 mm a
    direction, which stays invertible and moves tissue by 2.3 mm rms a direction, rarely by over 8 mm; (2) rotations up to 5 degrees,
    scalings up to 5 % and shifts up to 4 mm; (3) a gamma of 0.8 to 1.25; (4) a smooth bias field of about 10 %, rarely over 30 %; (5)
    Rician noise of 1 % of the slice's maximum. Noise is in because an averaged brain has next to nothing in the outer k-space, and no
    measurement is like that. A subject depends on ``seed`` and its number only: fewer subjects, other slices, other contrasts or other
    splits leave its images bit for bit as they are.

    With ``coils``, ``phase`` or ``noise`` there is a simulated measurement of these images: y_k = F (s_k x) + n_k, with x the image
    above times a smooth phase, its 1 % of noise being a part of it, s_k the sensitivities of :func:`prom.kspace.coils.simulated` and n_k
    white complex Gaussian noise. The magnitude of x is that of the images without these options.

    With ``volume`` the slices are the partitions of a 3D scan, and the data set has the slices perpendicular to its readout: a mask
    chooses among the other two axes, and is the same at every position of the readout. Each partition is the template in its plane, not
    averaged over its thickness. Noise, scaling and phase are those of the whole volume; with coils there are two rings of them, whose
    sensitivities vary along all three axes. Slices without brain are left out, and ``source`` says how many.

    Parameters
    ----------
    split
        "train", "validation" or "test"; no virtual subject is in two of them.
    subjects
        How many virtual subjects, 1 to 1000; by default 40, 10 and 20. Fewer are the first ones of more.
    slices
        Axial slice numbers of the template (1 mm apart, MNI z = number - 72 mm), 20 to 140, no number twice. By default 8. Of a
        volume from -40 to 200, 1 to 4 mm apart, all alike; by default the whole brain, 84 slices 2 mm apart.
    contrasts
        1: T1. 4: channels T1, T2, PD, FLAIR; channel 0 is the image of ``contrasts=1``, the others are sums of the tissue fractions
        weighted by the intensities in ``TISSUE_SIGNAL``, each varied by 5 % between subjects.
    size
        H = W, 32 to 1024. The field of view stays 256 mm, so that 256 is 1 mm; smaller sizes average over the larger pixel.
    seed
        Of the subjects and their noise. Same seed, same machine: same bits.
    coils
        K, 1 to 128, in a ring around the field of view; around a volume in two.
    phase
        Whether the images have a phase: a constant from -pi to pi and a cubic B-spline with control points every 80 mm, 1 rad rms within a
        slice, both the subject's own, through all of its slices.
    noise
        Standard deviation of the noise of a complex sample of k-space, sqrt(E|n|^2), 0 to 1, for images in [0, 1].
    volume, readout
        Whether to make volumes, and along which of their axes they are read out: 0 (across the slices, the default), 1 (along their
        columns, anterior to posterior) or 2 (along their rows, left to right).

    Returns
    -------
    SliceDataset
        ``images`` (N, contrasts, size, size) float32, every channel of every slice scaled to [0, 1] by its minimum and maximum, row 0
        anterior, column 0 the subject's left; ``labels`` (N, size, size) uint8: 0 background, 1 grey matter, 2 white matter, 3 CSF and
        rest of the brain; ``slices`` the template's slice numbers; subject by subject, N = subjects times slices.
        With coils, phase or noise: ``images`` (N, 1, size, size) complex64, x, free of n_k; with coils or noise also ``sensitivities``
        (K, size, size), those of one coil being 1, and ``noise``; with noise ``kspace`` (N, K, size, size) complex64, y_k, which without
        is what :meth:`SliceDataset.samples` makes of image and sensitivities.
        Of volumes of D slices, instead of (size, size): the same for readout 0, (D, size) for 1 and 2, ``slices`` being the position
        along the readout; ``sensitivities`` (N, K, ...); the largest value of a volume is 1, not that of each slice.

    Raises
    ------
    InputError
        Where a value is out of range, or there are four contrasts and coils, phase or noise.

    >>> data = load("test", subjects=1, slices=[80], size=64)
    >>> data.images.shape, data.subjects, data.slices, float(data.images.max())
    (torch.Size([1, 1, 64, 64]), ['mni-2000'], [80], 1.0)
    >>> data = load("test", subjects=1, slices=[80], size=64, coils=8, phase=True, noise=0.005)
    >>> data.images.dtype, data.sensitivities.shape, data.kspace.shape
    (torch.complex64, torch.Size([8, 64, 64]), torch.Size([1, 8, 64, 64]))
    >>> load("test", subjects=1, slices=range(60, 100, 4), size=32, volume=True, readout=2).images.shape[1:]
    torch.Size([1, 10, 32])
    """
    if split not in SUBJECTS:
        raise unknown("split", split, SUBJECTS)
    subjects = _checked("subjects", SUBJECTS[split] if subjects is None else subjects, 1, NUMBERS_PER_SPLIT)
    size = _checked("size", size, 32, 1024)
    seed = _checked("seed", seed, 0, 2**63 - 1)
    if contrasts not in (1, len(CONTRASTS)):
        raise InputError(f"contrasts {contrasts!r}: must be 1 (T1) or 4 ({', '.join(CONTRASTS)})")
    volumes.check(volume, readout)
    slices = (PARTITIONS if volume else SLICES) if slices is None else slices
    slices = [slices] if isinstance(slices, Integral) else list(slices)
    slices = [_checked("slice", number, *(PARTITION_RANGE if volume else SLICE_RANGE)) for number in slices]
    if not slices or len(set(slices)) < len(slices):
        raise InputError(f"slices {slices}: must be at least one number and no number twice")
    steps = {after - before for before, after in pairwise(slices)}
    if volume and (len(slices) < LEAST or len(steps) > 1 or not STEPS[0] <= min(steps) <= STEPS[1]):
        raise InputError(
            f"slices {slices[0]} to {slices[-1]}, {len(slices)} of them: those of a volume must be at least {LEAST}, in rising order, all "
            "1, 2, 3 or 4 mm apart"
        )
    if not isinstance(phase, bool):
        raise InputError(f"phase {phase!r}: must be true or false")
    measurement = {"coils": _checked("coils", coils, 1, 128), "phase": phase, "noise": options.check("noise", noise, "[0, 1]")}
    if measurement == {"coils": 1, "phase": False, "noise": 0.0}:
        measurement = {}
    elif contrasts != 1:
        raise InputError(f"contrasts {contrasts}: with coils, phase or noise must be 1")

    numbers = range(FIRST_NUMBER[split], FIRST_NUMBER[split] + subjects)
    how = {"seed": seed, "slices": slices, "contrasts": contrasts, "size": size, **measurement}
    how |= {"readout": readout or 0} if volume else {}
    plan = Plan(
        name="mni_brain",
        split=split,
        root=cache.user_folder(),
        items=list(numbers),
        read=functools.partial(_part, **how),
        files=(),
        options={**how, "subjects": subjects, "nilearn": version("nilearn")},
        label_names=LABEL_NAMES,
        source=(
            "Virtual subjects, no real person: deformations of the averaged ICBM 152 nonlinear 2009a brain (Fonov et al. 2009, 2011; "
            "volumes from nilearn, skull-stripped), with 1 % Rician noise; k-space is emulated from these magnitude images"
            + (f", {_simulated(**measurement)}" if measurement else "")
            + (f"; volumes of {len(slices)} slices {min(steps)} mm apart, {volumes.READ_OUT[how['readout']]}" if volume else "")
            + (", their coils in two rings" if volume and coils > 1 else "")
        ),
        skipping="slice(s) without brain",
    )
    values = 2 * (1 + (coils if noise else 0) + (coils if volume and coils > 1 else 0)) if measurement else contrasts  # of 4 bytes, a pixel
    large = subjects * len(slices) * values * size**2 * 4 > STORED
    return cache.read(plan, store=large and cache.usable(cache.folder_for(plan.root)))


def _simulated(coils: int, phase: bool, noise: float) -> str:
    """What is simulated, for the source."""
    what = [f"{coils} simulated coils"] if coils > 1 else []
    what += ["a simulated smooth phase"] if phase else []
    what += [f"simulated noise of {noise:g} in k-space"] if noise else []
    return "with " + ", ".join(what)


def _part(
    number: int,
    seed: int,
    slices: list[int],
    contrasts: int,
    size: int,
    coils: int = 1,
    phase: bool = False,
    noise: float = 0.0,
    readout: int | None = None,
) -> Part:
    if readout is not None:
        return _volume_part(number, seed, slices, contrasts, size, coils, phase, noise, readout)
    images, labels = _virtual_subject(seed, number, slices, contrasts, size)
    part = Part(Path("nilearn"), f"mni-{number:04d}", images, slices, labels)
    if coils == 1 and not phase and not noise:
        return part
    turned = np.exp(1j * _phase(seed, number, slices, size)) if phase else 1
    images = (images * turned).astype(np.complex64)
    if coils == 1 and not noise:
        return replace(part, images=images)
    maps = simulated(coils, (size, size)) if coils > 1 else torch.ones(1, size, size, dtype=torch.complex64)
    kspace = None
    if noise:
        kspace = fft2c(maps * torch.from_numpy(images))
        for samples, template_slice in zip(kspace, slices, strict=True):
            generator = _generator(seed, number, template_slice, SAMPLES)
            samples += noise * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)  # torch's has E|n|^2 = 1
        kspace = kspace.numpy()
    return replace(part, images=images, sensitivities=maps.numpy(), kspace=kspace, noise=noise)


def _volume_part(
    number: int, seed: int, slices: list[int], contrasts: int, size: int, coils: int, phase: bool, noise: float, readout: int
) -> Part:
    """The slices of a volume perpendicular to its readout that have brain in them."""
    images, labels = _virtual_volume(seed, number, slices, contrasts, size)
    if phase:
        images = images * np.exp(1j * np.concatenate([_phase(seed, number, [one], size) for one in slices]))  # slice by slice, for memory
    labels = volumes.turned(labels, readout)
    kept = np.flatnonzero(labels.any(axis=(1, 2)))
    images = volumes.turned(images, readout)[kept].astype(np.complex64 if phase or coils > 1 or noise else np.float32)
    part = Part(
        path=Path("nilearn"),
        subject=f"mni-{number:04d}",
        images=images,
        slices=kept.tolist(),
        labels=labels[kept],
        spacing=volumes.sizes((FIELD_OF_VIEW / size,) * 2, float(slices[1] - slices[0]), readout),
        skipped=len(labels) - len(kept),
    )
    if coils == 1 and not noise:
        return part
    maps = torch.ones(1, *images.shape[2:], dtype=torch.complex64)
    if coils > 1:
        around = simulated(coils, (len(slices), size, size)).transpose(0, 1).numpy()
        maps = torch.from_numpy(volumes.turned(around, readout)[kept])
    kspace = None
    if noise:
        kspace = np.empty((len(kept), coils, *images.shape[2:]), np.complex64)
        for place, position in enumerate(kept.tolist()):
            samples = fft2c((maps[place] if maps.ndim == 4 else maps) * torch.from_numpy(images[place]))
            generator = _generator(seed, number, VOLUME, readout, position, SAMPLES)
            kspace[place] = samples + noise * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)
    return replace(part, sensitivities=maps.numpy(), kspace=kspace, noise=noise)


def _phase(seed: int, number: int, slices: list[int], size: int) -> np.ndarray:
    """Of a subject's slices, in radians: (slices, 1, size, size) float64."""
    generator = _generator(seed, number, PHASE)
    constant = _uniform(generator, np.pi, 1)
    n = _spline_basis(np.zeros(1), PHASE_SPACING).shape[1]
    control = _uniform(generator, PHASE_LIMIT, n, n, n)
    axis = (np.arange(size) + 0.5) * FIELD_OF_VIEW / size - FIELD_OF_VIEW / 2  # mm from the centre, as in the images
    z = np.array(slices, dtype=float) - CENTRE[2]
    return (constant + _smooth_field(control, axis, axis[::-1], z, PHASE_SPACING))[:, None]


@functools.cache
def _template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1, grey and white matter, each (197, 233, 189) float32 in [0, 1]; axes to the right, to anterior, upwards; 1 mm."""
    from nilearn import datasets  # imported here: it takes seconds, and only this data set needs it

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    return tuple(np.asarray(loader(resolution=1).dataobj, dtype=np.float32) for loader in loaders)


def _spline_basis(positions: np.ndarray, spacing: float) -> np.ndarray:
    """(positions, control points): the cubic B-splines whose control points lie every ``spacing`` mm and cover the field of view."""
    from scipy.interpolate import BSpline  # here, as below: half a second, which every command would pay

    half = np.ceil(FIELD_OF_VIEW / 2 / spacing)
    knots = spacing * np.arange(-half - 3, half + 4)
    return BSpline.design_matrix(positions, knots, 3).toarray()


def _smooth_field(control: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, spacing: float) -> np.ndarray:
    """The spline with these control values (..., n, n, n) on the grid z, y, x (mm): (..., Z, Y, X)."""
    return np.einsum("...abc,xa,yb,zc->...zyx", control, *(_spline_basis(axis, spacing) for axis in (x, y, z)), optimize=True)


def _virtual_subject(seed: int, number: int, slices: list[int], contrasts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (slices, contrasts, size, size) float32 and labels (slices, size, size) uint8 of one virtual subject."""
    clean, labels = _without_noise(seed, number, slices, contrasts, size)
    images = np.empty(clean.shape, dtype=np.float32)
    for s, template_slice in enumerate(slices):
        for c in range(contrasts):
            images[s, c] = _measured(clean[s, c], _generator(seed, number, template_slice, c))
    return images, labels


def _virtual_volume(seed: int, number: int, slices: list[int], contrasts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, with the noise and the scale of the whole volume."""
    pieces = [slices[at : at + TOGETHER] for at in range(0, len(slices), TOGETHER)]
    clean, labels = map(np.concatenate, zip(*(_without_noise(seed, number, piece, contrasts, size) for piece in pieces), strict=True))
    images = np.empty(clean.shape, dtype=np.float32)
    for c in range(contrasts):
        images[:, c] = _measured(clean[:, c], _generator(seed, number, VOLUME, c))
    return images, labels


def _without_noise(seed: int, number: int, slices: list[int], contrasts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (slices, contrasts, size, size) float64, in the units of the tissue, and labels (slices, size, size) uint8."""
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    # 1. Who it is. All of it is drawn before anything that depends on slices, contrasts or size.
    generator = _generator(seed, number)
    n = _spline_basis(np.zeros(1), WARP_SPACING).shape[1]
    warp = _uniform(generator, WARP_LIMIT, 3, n, n, n)
    rotation = Rotation.from_euler("xyz", _uniform(generator, 5.0, 3), degrees=True).as_matrix()
    affine = rotation * (1 + _uniform(generator, 0.05, 3))  # from the image to the template: stretches x, y, z, then rotates
    shift = _uniform(generator, 4.0, 3)
    gamma = np.exp(_uniform(generator, np.log(1.25), 1)[0])
    signal_change = 1 + _uniform(generator, 0.05, len(CONTRASTS), 3)
    n = _spline_basis(np.zeros(1), BIAS_SPACING).shape[1]
    log_bias = _uniform(generator, BIAS_LIMIT, n, n, n)

    # 2. Where in the template each pixel lies. Below 256 the grid is a multiple of `size` and averaged over, as a large pixel averages.
    finer = -(-int(FIELD_OF_VIEW) // size)
    axis = (np.arange(size * finer) + 0.5) * FIELD_OF_VIEW / (size * finer) - FIELD_OF_VIEW / 2  # mm from the centre
    x, y, z = axis, axis[::-1], np.array(slices, dtype=float) - CENTRE[2]  # row 0 is the largest y: anterior
    points = np.stack(np.broadcast_arrays(x[None, None], y[None, :, None], z[:, None, None]))
    points = points + _smooth_field(warp, x, y, z, WARP_SPACING)
    points = np.tensordot(affine, points, axes=1) + (shift + CENTRE)[:, None, None, None]

    # 3. The tissue there. One interpolation a volume, of the pixels that can be brain only.
    t1, grey, white = _template()
    inside = np.all([(p >= 0) & (p <= n - 1) for p, n in zip(points, t1.shape, strict=True)], axis=0)
    coordinates = points[:, inside]
    maps = np.zeros((4, *inside.shape), dtype=np.float32)
    for volume, target in zip((t1, grey, white), maps, strict=False):
        target[inside] = map_coordinates(volume, coordinates, order=1, output=np.float32)
    maps[3] = maps[0] > BRAIN_THRESHOLD
    maps[:3] *= maps[3]  # the tissue maps reach a little beyond the skull-stripped T1
    maps = maps.reshape(4, len(slices), size, finer, size, finer).mean((3, 5))
    t1, grey, white, brain = maps
    rest = np.clip(brain - grey - white, 0, None)
    labels = np.where(brain > 0.5, 1 + np.argmax([grey, white, rest], axis=0), 0).astype(np.uint8)

    # 4. What a scanner would show.
    means = (axis.reshape(size, finer).mean(1), axis[::-1].reshape(size, finer).mean(1))
    bias = np.exp(_smooth_field(log_bias, *means, z, BIAS_SPACING))
    images = np.empty((len(slices), contrasts, size, size))
    for c, contrast in enumerate(CONTRASTS[:contrasts]):
        if contrast == "T1":
            images[:, c] = t1**gamma * bias
        else:
            weights = np.array(TISSUE_SIGNAL[contrast]) * signal_change[c]
            images[:, c] = np.tensordot(weights, (grey, white, rest), axes=1) * bias
    return images, labels


def _measured(clean: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Magnitude after complex Gaussian noise (hence Rician), scaled to [0, 1] by minimum and maximum."""
    noise = NOISE * clean.max() * torch.randn(2, *clean.shape, generator=generator, dtype=torch.float32).numpy()
    image = np.hypot(clean + noise[0], noise[1])
    return (image - image.min()) / (image.max() - image.min())
