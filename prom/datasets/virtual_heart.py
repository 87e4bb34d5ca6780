r"""``virtual_heart``: a beating heart that works offline. Short-axis cine series of virtual subjects, drawn by the package.

What it is, and what it is not
------------------------------
*No real person is in it, and no scan.* A virtual subject is a set of drawn shapes: a chest with subcutaneous fat, muscle, ribs, lungs,
liver, stomach, spine and aorta, and a left ventricle that is half of an ellipsoid, with papillary muscles and a right ventricle beside it.
Sizes and motion are those of healthy adults, from the papers below. One cycle of the heart is T frames long. The volume follows a
physiological curve. The muscle keeps its volume, so that its wall thickens as it contracts; the base comes down to the apex, so that a
slice that stands still shows other muscle; and the muscle turns about its axis. The contrast is that of balanced SSFP at 1.5 T, from T1,
T2 and density, where fat has the opposite sign of water. Tissues have textures that move with them, and blood has one that changes as it
flows.

*k-space is emulated*: every frame is the Fourier transform of a picture drawn twice as fine and cut to its central samples, as a scanner
cuts; frames do not blur as a scan's do, and there is no artefact of flow, of banding or of an arrhythmia. There are no valves, no atria and
no disease. Edges are simpler than anatomy is, and textures are noise of a power law. Good for learning the method and for testing code; a
mask for a scanner should be optimized on that scanner's data.

References
----------
Sizes: S. E. Petersen et al., J Cardiovasc Magn Reson 19:18, 2017 (volumes, ejection fraction); N. Kawel et al., Circ Cardiovasc Imaging
5(4):500-508, 2012 (wall thickness). Motion: A. Stoylen et al., Open Heart 6:e001050, 2019 (the half ellipsoid, long-axis shortening of
16 %); A. A. Young and B. R. Cowan, J Cardiovasc Magn Reson 14:49, 2012 (rotation: 10 degrees at the apex, -3 at the base).
Signal: G. J. Stanisz et al., Magn Reson Med 54:507-512, 2005 and C. M. J. de Bazelaire et al., Radiology 230:652-659, 2004 (T1, T2);
B. A. Hargreaves et al., Magn Reson Med 50:210-213, 2003 (the sign of fat). The idea of such a phantom: L. Wissmann et al.,
J Cardiovasc Magn Reson 16:63, 2014.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from prom import options
from prom.datasets import cache
from prom.datasets.base import Part, Plan, SliceDataset
from prom.datasets.seeded import FIRST_NUMBER, NUMBERS_PER_SPLIT, generator, uniform, whole
from prom.errors import InputError, unknown
from prom.kspace.coils import simulated
from prom.kspace.fourier import fft2c, ifft2c

FOLDER, KIND = None, "series"
SUMMARY = "virtual beating hearts in short axis: series in time, drawn by the package"
OBTAIN = "nothing to do: the package draws it"
LICENCE = "that of the package"
CITATION = "this package; sizes and motion from the papers that its page names"
LABEL_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")  # as in ACDC
SUBJECTS = {"train": 16, "validation": 4, "test": 8}  # virtual subjects of a split by default
SLICES = (45,)  # per cent of the way from the base of the left ventricle to its apex: mid-ventricular
SLICE_RANGE = (20, 75)

FIELD_OF_VIEW = 360.0  # mm, both directions: the whole body fits
FINER = 2  # times finer a picture is drawn than k-space is cut
COARSEST = 256  # points of an axis that a picture is drawn with at least
TEXTURE = 512  # points of an axis of the textures
STORED = 32 * 2**20  # bytes of images above which they are made once and kept in the user's cache

# Balanced SSFP of 50 degrees, TR 3 ms, TE 1.5 ms; density, T1 and T2 (ms) of tissues at 1.5 T. Of air in the lung little is left by T2*.
FLIP, TR, TE = 50.0, 3.0, 1.5
TISSUES = {
    "blood": (0.95, 1441, 290),
    "myocardium": (0.80, 1030, 45),
    "muscle": (0.79, 1008, 44),
    "liver": (0.75, 586, 46),
    "stomach": (0.80, 1057, 79),
    "marrow": (0.60, 549, 49),
    "cartilage": (0.35, 1060, 40),
    "lung": (0.08, 1100, 40),
    "fat": (0.90, 343, 58),
}

# The share of the stroke volume that has left the left ventricle, over the cycle: systole takes a third, then rapid filling, rest, and the
# contraction of the atria.
EJECTED = ((0.0, 0.0), (0.05, 0.02), (0.20, 0.66), (0.34, 1.0), (0.40, 0.98), (0.58, 0.28), (0.80, 0.20), (0.94, 0.01), (1.0, 0.0))
ED_VOLUME = (145.0, 35.0)  # ml, middle and largest deviation
EJECTION_FRACTION = (0.575, 0.06)
LENGTH = (92.0, 6.0)  # mm, from base to apex in end-diastole
SHORTENING = (0.16, 0.02)  # of that length
WALL = (6.0, 0.9)  # mm, in end-diastole, at 45 % of the way to the apex
ROTATION = (10.0, -3.0)  # degrees, of apex and base, at end-systole
PAPILLARY = (4.2, 0.7)  # mm, radius
FLOWING = 0.08  # how much brighter blood is at the fastest flow, by inflow
ROUGHNESS = {"myocardium": 0.14, "blood": 0.07, "liver": 0.12, "muscle": 0.2, "fat": 0.09, "lung": 0.4, "stomach": 0.22, "marrow": 0.2}

PHASE, SAMPLES = -1, -2  # what the generators of the phase and of the noise in k-space have in their key, where others have numbers from 0


def load(
    split: str = "train",
    *,
    subjects: int | None = None,
    slices: Sequence[int] = SLICES,
    frames: int = 16,
    size: int = 128,
    seed: int = 0,
    coils: int = 1,
    phase: bool = False,
    noise: float = 0.0,
    breathing: float = 0.0,
) -> SliceDataset:
    """Cine series of virtual hearts in short axis: drawn shapes, no real person, k-space emulated (see the module's text).

    A subject has an end-diastolic volume of 110 to 180 ml, an ejection fraction of 52 to 64 %, a wall of 5.1 to 6.9 mm, and a body of
    296 to 332 x 210 to 250 mm. It depends on ``seed`` and its number only: fewer subjects, other slices or frames leave it as it is.

    Images have no noise; with ``noise`` there is a simulated measurement of them, y_k = F (s_k x) + n_k, frame by frame, with x the image
    times a smooth phase, s_k the sensitivities of :func:`prom.kspace.coils.simulated`, the same in all frames, and n_k white complex
    Gaussian noise.

    Parameters
    ----------
    split
        "train", "validation" or "test"; no virtual subject is in two of them.
    subjects
        How many virtual subjects, 1 to 1000; by default 16, 4 and 8. Fewer are the first ones of more.
    slices
        How far down the left ventricle, in per cent of its length from base to apex, 20 to 75, no number twice. By default 45.
    frames
        T, 2 to 128: the cycle is cut into so many. The first one is end-diastole.
    size
        H = W, 32 to 512. The field of view stays 360 mm, so that 128 is 2.8 mm.
    seed
        Of the subjects and their noise. Same seed, same machine: same bits.
    coils
        K, 1 to 128, in a ring around the field of view.
    phase
        Whether the images have a phase: a smooth one, 1 rad rms, the same in all frames, and fat with the opposite sign of water.
    noise
        Standard deviation of the noise of a complex sample of k-space, sqrt(E|n|^2), 0 to 1, for images in [0, 1].
    breathing
        How far the organs move with slow breathing, in mm peak to peak, 0 to 30: a quarter of a breath passes in the cycle of the heart.
        With 0 the breath is held, and the last frame passes into the first.

    Returns
    -------
    SliceDataset
        Of kind "series": ``images`` (N, 1, frames, size, size) float32, every series scaled so that its largest value is 1, row 0
        anterior, the right ventricle to the left; ``labels`` (N, frames, size, size) uint8: 0 background, 1 right ventricle, 2
        myocardium, 3 left ventricle; subject by subject, N = subjects times slices.
        With coils, phase or noise ``images`` are complex64, free of n_k; with coils or noise there are ``sensitivities`` (K, size, size),
        those of one coil being 1, and ``noise``; with noise ``kspace`` (N, K, frames, size, size) complex64, y_k.

    Raises
    ------
    InputError
        Where a value is out of range.

    >>> data = load("test", subjects=1, frames=4, size=64)
    >>> data.images.shape, data.kind, data.subjects, float(data.images.max())
    (torch.Size([1, 1, 4, 64, 64]), 'series', ['heart-2000'], 1.0)
    >>> data = load("test", subjects=1, frames=4, size=64, coils=8, phase=True, noise=0.005)
    >>> data.images.dtype, data.sensitivities.shape, data.kspace.shape
    (torch.complex64, torch.Size([8, 64, 64]), torch.Size([1, 8, 4, 64, 64]))
    """
    if split not in SUBJECTS:
        raise unknown("split", split, SUBJECTS)
    subjects = whole("subjects", SUBJECTS[split] if subjects is None else subjects, 1, NUMBERS_PER_SPLIT)
    slices = [slices] if isinstance(slices, Integral) else list(slices)
    slices = [whole("slice", number, *SLICE_RANGE) for number in slices]
    if not slices or len(set(slices)) < len(slices):
        raise InputError(f"slices {slices}: must be at least one number and no number twice")
    if not isinstance(phase, bool):
        raise InputError(f"phase {phase!r}: must be true or false")
    how = {
        "seed": whole("seed", seed, 0, 2**63 - 1),
        "slices": slices,
        "frames": whole("frames", frames, 2, 128),
        "size": whole("size", size, 32, 512),
        "breathing": options.check("breathing", breathing, "[0, 30]"),
        "coils": whole("coils", coils, 1, 128),
        "phase": phase,
        "noise": options.check("noise", noise, "[0, 1]"),
    }
    numbers = range(FIRST_NUMBER[split], FIRST_NUMBER[split] + subjects)
    plan = Plan(
        name="virtual_heart",
        split=split,
        root=cache.user_folder(),
        items=list(numbers),
        read=functools.partial(_part, **how),
        files=(),
        options={**how, "subjects": subjects},
        label_names=LABEL_NAMES,
        source=_source(**how),
        kind=KIND,
    )
    values = 2 * (1 + (coils if noise else 0)) if coils > 1 or phase or noise else 1  # of 4 bytes, a pixel
    large = subjects * len(slices) * frames * values * size**2 * 4 > STORED
    return cache.read(plan, store=large and cache.usable(cache.folder_for(plan.root)))


def _source(coils: int, phase: bool, noise: float, breathing: float, **_) -> str:
    what = [f"{coils} simulated coils"] if coils > 1 else []
    what += ["a simulated smooth phase"] if phase else []
    what += [f"simulated noise of {noise:g} in k-space"] if noise else []
    what += [f"simulated breathing of {breathing:g} mm"] if breathing else []
    return (
        "Virtual subjects, no real person: beating hearts in short axis, drawn as shapes with sizes and motion from the literature "
        "(Petersen et al. 2017; Kawel et al. 2012; Stoylen et al. 2019; Young and Cowan 2012); k-space is emulated from these images"
        + (", with " + ", ".join(what) if what else "")
    )


def _part(
    number: int,
    seed: int,
    slices: list[int],
    frames: int,
    size: int,
    breathing: float,
    coils: int,
    phase: bool,
    noise: float,
) -> Part:
    drawn = [_series(seed, number, level, frames, size, breathing) for level in slices]
    images, labels = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    images = images[:, None]
    part = {"path": Path("virtual_heart"), "subject": f"heart-{number:04d}", "slices": slices, "labels": labels}
    if coils == 1 and not phase and not noise:
        return Part(images=np.abs(images), **part)
    turned = (images * np.exp(1j * _phase(seed, number, size)) if phase else np.abs(images)).astype(np.complex64)
    if coils == 1 and not noise:
        return Part(images=turned, **part)
    maps = simulated(coils, (size, size)) if coils > 1 else torch.ones(1, size, size, dtype=torch.complex64)
    kspace = None
    if noise:
        kspace = fft2c(maps[:, None] * torch.from_numpy(turned))
        for samples, level in zip(kspace, slices, strict=True):
            samples += noise * torch.randn(samples.shape, dtype=samples.dtype, generator=generator(seed, number, level, SAMPLES))
        kspace = kspace.numpy()  # torch's complex normal numbers have E|n|^2 = 1
    return Part(images=turned, sensitivities=maps.numpy(), kspace=kspace, noise=noise, **part)


# ------------------------------------------------------------------------------------------------------------------------------ who it is


@dataclass(frozen=True, eq=False)
class _Subject:
    """The numbers of a virtual subject, all of them drawn before anything that depends on slices, frames or size. Lengths in mm.

    ``volume`` (ml) and ``length`` at end-diastole, ``ejection`` fraction, ``shortening`` of the length, ``wall`` thickness, ``papillary``
    radius; ``centre`` of the left ventricle, ``septum`` the angle from it to the right ventricle; ``right`` the semi-axes of the right
    ventricle in and across that direction; ``body`` the semi-axes of the chest, ``fat`` and ``muscle`` the thickness of its layers;
    ``outline`` and ``trabeculae`` harmonics of chest and endocardium; ``signal`` factors of the tissues; ``shading`` of the coils;
    ``breath`` the phase of breathing.
    """

    volume: float
    length: float
    ejection: float
    shortening: float
    wall: float
    papillary: float
    centre: np.ndarray
    septum: float
    right: np.ndarray
    body: np.ndarray
    fat: float
    muscle: float
    outline: np.ndarray
    trabeculae: np.ndarray
    signal: dict[str, float]
    shading: np.ndarray
    breath: float


def _subject(seed: int, number: int) -> _Subject:
    drawn = generator(seed, number)

    def about(middle: float, deviation: float) -> float:
        return middle + uniform(drawn, deviation, 1)[0]

    large = uniform(drawn, 1.0, 1)[0]  # large people have large hearts
    volume = ED_VOLUME[0] + ED_VOLUME[1] * (0.6 * large + 0.4 * uniform(drawn, 1.0, 1)[0])
    return _Subject(
        volume=volume,
        length=LENGTH[0] + LENGTH[1] * (0.6 * large + 0.4 * uniform(drawn, 1.0, 1)[0]),
        ejection=about(*EJECTION_FRACTION),
        shortening=about(*SHORTENING),
        wall=about(*WALL),
        papillary=about(*PAPILLARY),
        centre=np.array([about(30.0, 6.0), about(-14.0, 5.0)]),
        septum=np.pi + np.deg2rad(about(8.0, 12.0)),
        right=np.array([about(33.0, 3.0), about(39.0, 3.0)]) * (volume / ED_VOLUME[0]) ** (1 / 3),
        body=np.array([314.0 + 12 * large + about(0.0, 6.0), 230.0 + 12 * large + about(0.0, 8.0)]) / 2,
        fat=about(14.0, 6.0),
        muscle=about(11.0, 2.0),
        outline=uniform(drawn, 0.008, 6, 2),
        trabeculae=uniform(drawn, 1.0, 8, 2),
        signal={name: about(1.0, 0.08) for name in TISSUES},
        shading=uniform(drawn, 1.0, 4, 3),
        breath=uniform(drawn, np.pi, 1)[0],
    )


def _ejected(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the stroke volume that has left at these times of the cycle, 0 to 1, and the speed of flow, 1 at its fastest."""
    from scipy.interpolate import PchipInterpolator  # here: it takes a moment, and only this data set needs it

    curve = PchipInterpolator(*np.array(EJECTED).T)
    every = np.linspace(0, 1, 1001)
    speed = curve.derivative()
    return curve(time % 1.0), np.abs(speed(time % 1.0)) / np.abs(speed(every)).max()


@dataclass(frozen=True, eq=False)
class _Beat:
    """The left ventricle in one slice over the cycle, each ``(T,)``.

    ``inner`` and ``outer`` radius in mm, ``ejected`` the share of the stroke volume that has left, ``flow`` its speed, 1 at its fastest,
    ``turn`` the rotation in radians, ``thickening`` of cross-sections of muscle as the ventricle shortens.
    """

    inner: np.ndarray
    outer: np.ndarray
    ejected: np.ndarray
    flow: np.ndarray
    turn: np.ndarray
    thickening: np.ndarray


def _beat(subject: _Subject, level: int, frames: int) -> _Beat:
    r"""The half ellipsoid of Stoylen et al.: V = 2/3 pi a^2 L, cut at a height that stays, its apex too.

    At u, the share of the way from base to apex, the radii are those of the base times :math:`\sqrt{1 - u^2}`. The area of the muscle's
    ring at the base times L stays, since muscle cannot be compressed.
    """
    ejected, flow = _ejected(np.arange(frames) / frames)
    length = subject.length * (1 - subject.shortening * ejected)
    volume = subject.volume * 1000 * (1 - subject.ejection * ejected)  # mm^3
    inner = np.sqrt(3 * volume / (2 * np.pi * length))
    first = np.sqrt(3 * subject.volume * 1000 / (2 * np.pi * subject.length))
    height = (1 - level / 100) * subject.length  # of the slice above the apex
    cut = np.sqrt(1 - (1 - height / length) ** 2)
    wall = subject.wall / np.sqrt(1 - (SLICES[0] / 100) ** 2)  # at the base
    ring = ((first + wall) ** 2 - first**2) * subject.length / length
    outer = np.sqrt(inner**2 + ring)
    turn = np.deg2rad(ROTATION[1] + (ROTATION[0] - ROTATION[1]) * level / 100) * ejected
    return _Beat(inner * cut, outer * cut, ejected, flow, turn, subject.length / length)


# ---------------------------------------------------------------------------------------------------------------------------- how it looks


def signal(tissue: str) -> float:
    r"""The steady-state signal of balanced SSFP, of a tissue of ``TISSUES``, that of fat negative.

    .. math:: \rho \sin\alpha \, \frac{1 - E_1}{1 - (E_1 - E_2) \cos\alpha - E_1 E_2} \, e^{-TE / T_2}, \qquad E_i = e^{-TR / T_i}

    >>> round(signal("blood") / signal("myocardium"), 1), signal("fat") < 0
    (3.4, True)
    """
    density, t1, t2 = TISSUES[tissue]
    e1, e2, cosine = np.exp(-TR / t1), np.exp(-TR / t2), np.cos(np.deg2rad(FLIP))
    value = density * np.sin(np.deg2rad(FLIP)) * (1 - e1) / (1 - (e1 - e2) * cosine - e1 * e2) * np.exp(-TE / t2)
    return float(-value if tissue == "fat" else value)


class _Canvas:
    """Frames ``(T, n, n)`` to paint shapes on, coordinates in mm from the middle, x to the right and y downwards.

    A shape covers a pixel by as much of it as lies inside, so that an edge moves smoothly.
    """

    def __init__(self, frames: int, n: int) -> None:
        self.pixel = FIELD_OF_VIEW / n
        self.axis = ((np.arange(n) - n // 2) * self.pixel).astype(np.float32)
        self.values = np.zeros((frames, n, n), dtype=np.float32)

    def box(self, centre: Sequence[np.ndarray | float], radius: float) -> tuple[slice, slice]:
        """Rows and columns within ``radius`` of where the centre comes."""
        n, found = len(self.axis), []
        for place in (centre[1], centre[0]):
            low, high = np.min(place) - radius, np.max(place) + radius
            first, last = (int(np.floor(edge / self.pixel)) + n // 2 for edge in (low, high))
            found.append(slice(max(0, first), max(0, min(n, last + 2))))
        return tuple(found)

    def covered(self, inside: np.ndarray) -> np.ndarray:
        """The covered share of pixels, of the distance ``inside`` (mm) of their middles from the edge."""
        return np.clip(0.5 + inside / self.pixel, 0, 1)

    def paint(self, cover: np.ndarray, value: np.ndarray | float, box: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        part = self.values[:, box[0], box[1]]
        part += cover * (value - part)

    def ellipse(
        self, centre: Sequence[np.ndarray | float], axes: Sequence[np.ndarray | float], angle: float = 0.0, box: tuple | None = None
    ) -> tuple[np.ndarray, tuple[slice, slice]]:
        """The distance inside an ellipse, where it is: ``(T or 1, h, w)``, and the box of rows and columns."""
        box = self.box(centre, float(np.max(axes)) + 2 * self.pixel) if box is None else box
        x = self.axis[box[1]] - _frames(centre[0])
        y = self.axis[box[0], None] - _frames(centre[1])
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = (cosine * x + sine * y) / _frames(axes[0]), (cosine * y - sine * x) / _frames(axes[1])
        radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
        gradient = np.sqrt((u / _frames(axes[0])) ** 2 + (v / _frames(axes[1])) ** 2) / radius + np.float32(1e-9)
        return (1 - radius) / gradient, box


def _frames(value: np.ndarray | float) -> np.ndarray:
    """A number, or one a frame, to be broadcast over (T, h, w)."""
    return np.asarray(value, dtype=np.float32).reshape(-1, 1, 1)


def _texture(key: tuple[int, ...], exponent: float = 2.0, largest: float = 90.0) -> np.ndarray:
    """Noise of mean 0 and deviation 1 with power falling as frequency to the minus ``exponent``, over the field of view, periodic.

    Of waves longer than ``largest`` (mm) the power is constant: larger structures are drawn.
    """
    white = torch.randn(TEXTURE, TEXTURE, generator=generator(*key), dtype=torch.float32)
    frequency = torch.hypot(torch.fft.fftfreq(TEXTURE, dtype=torch.float32)[:, None], torch.fft.rfftfreq(TEXTURE, dtype=torch.float32))
    frequency[0, 0] = torch.inf
    spectrum = torch.fft.rfft2(white) * frequency.clamp(min=FIELD_OF_VIEW / TEXTURE / largest) ** (-exponent / 2)
    spectrum[0, 0] = 0
    values = torch.fft.irfft2(spectrum, s=(TEXTURE, TEXTURE))
    return (values / values.std()).numpy()


def _sampled(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A texture at these places (mm), linearly interpolated."""
    from scipy.ndimage import map_coordinates

    scale = TEXTURE / FIELD_OF_VIEW
    places = np.stack(np.broadcast_arrays(y * scale, x * scale)) + TEXTURE // 2
    return map_coordinates(texture, places, order=1, mode="grid-wrap", output=np.float32)


def _series(seed: int, number: int, level: int, frames: int, size: int, breathing: float) -> tuple[np.ndarray, np.ndarray]:
    """One slice of a subject: frames (T, size, size) float32, fat negative, and labels (T, size, size) uint8."""
    subject = _subject(seed, number)
    beat = _beat(subject, level, frames)
    n = size * max(FINER, -(-COARSEST // size))
    time = np.arange(frames) / frames
    breath = breathing * (0.5 - 0.5 * np.cos(0.5 * np.pi * time + subject.breath)) if breathing else np.zeros(1)
    tissue = {name: signal(name) * factor for name, factor in subject.signal.items()}
    canvas = _Canvas(1 if breathing == 0 else frames, n)
    _paint_chest(canvas, subject, tissue, (seed, number, level), breath)
    if breathing == 0:
        canvas.values = np.repeat(canvas.values, frames, axis=0)
    covers = _paint_heart(canvas, subject, beat, tissue, (seed, number, level), breath)
    canvas.values *= _shading(canvas, subject)
    values = _cut(canvas.values, size)
    labels = np.zeros((frames, n, n), dtype=np.uint8)
    for label, (cover, box) in enumerate(covers, start=1):
        part = labels[:, box[0], box[1]]
        part[cover > 0.5] = label
    step = n // size
    first = n // 2 - size // 2 * step  # so that the centres of both grids are one place, also where size is odd
    return values / np.abs(values).max(), np.ascontiguousarray(labels[:, first::step, first::step])


def _cut(values: np.ndarray, size: int) -> np.ndarray:
    """Frames ``(T, n, n)`` to ``(T, size, size)``: the central samples of their k-space."""
    n = values.shape[-1]
    middle = slice(n // 2 - size // 2, n // 2 - size // 2 + size)
    spectrum = fft2c(torch.from_numpy(values))[..., middle, middle]
    return ifft2c(spectrum).real.numpy() * (size / n)


def _shading(canvas: _Canvas, subject: _Subject) -> np.ndarray:
    """What coils on chest and back leave after they were combined: brighter at the front, smooth."""
    x, y = canvas.axis / FIELD_OF_VIEW, canvas.axis[:, None] / FIELD_OF_VIEW
    logarithm = -0.35 * y + 0.9 * y * y
    for fx, fy, height in subject.shading:
        logarithm = logarithm + 0.06 * height * np.cos(2 * np.pi * (fx * x + fy * y) + 3 * height)
    return np.exp(logarithm).astype(np.float32)


def _paint_chest(canvas: _Canvas, subject: _Subject, tissue: dict, key: tuple[int, ...], breath: np.ndarray) -> None:
    drawn = generator(*key, 0)
    x, y = canvas.axis, canvas.axis[:, None]
    textures = {name: _texture((*key, 1, index)) for index, name in enumerate(ROUGHNESS)}

    def rough(name: str, box: tuple = (slice(None), slice(None)), shift: np.ndarray | float = 0.0) -> np.ndarray:
        places = _sampled(textures[name], x[box[1]], y[box[0]] - _frames(shift)) if name in textures else 0
        return tissue[name] * (1 + ROUGHNESS.get(name, 0) * places)

    # 1. The layers of the chest's wall: a superellipse whose front rises with the breath.
    angle = np.arctan2(y, x)
    harmonics = sum(a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(subject.outline, start=2))
    height = subject.body[1] + 0.15 * _frames(breath) * (y < 0)

    def wall(depth: float) -> np.ndarray:
        u, v = np.abs(x) / (subject.body[0] - depth), np.abs(y) / (height - depth)
        radius = (u**2.4 + v**2.4) ** (1 / 2.4) + 1e-6
        length = np.hypot(x, y)
        return ((1 + harmonics - radius) * length / radius).astype(np.float32)

    skin, flesh, cavity = (canvas.covered(wall(depth)) for depth in (0.0, subject.fat, subject.fat + subject.muscle))
    canvas.paint(skin, rough("fat"))
    canvas.paint(flesh, rough("muscle"))
    middle = subject.fat + subject.muscle / 2
    for k in range(14):  # ribs, cut obliquely: marrow in a dark rind
        around = 2 * np.pi * (k + 0.5 + uniform(drawn, 0.15, 1)[0]) / 14
        radius = (
            np.abs(np.cos(around) / (subject.body[0] - middle)) ** 2.4 + np.abs(np.sin(around) / (subject.body[1] - middle)) ** 2.4
        ) ** (-1 / 2.4)
        centre = radius * np.cos(around), radius * np.sin(around)
        along = np.arctan2(np.cos(around) * subject.body[1], -np.sin(around) * subject.body[0])
        for grown, name in ((1.5, "cartilage"), (0.0, "marrow")):
            inside, box = canvas.ellipse(centre, (11.0 + grown, 3.6 + grown), along)
            canvas.paint(canvas.covered(inside), rough(name, box) * (0.15 if grown else 1.0), box)
    canvas.paint(cavity, rough("lung"))
    down = 0.9 * breath

    # 2. Vessels in the lungs, and what lies below the diaphragm.
    for _ in range(70):
        place = uniform(drawn, 1.0, 2) * (subject.body - subject.fat - subject.muscle - 6) * np.array([1.0, 0.9])
        size = 1.0 + 2.2 * torch.rand(1, generator=drawn, dtype=torch.float32).item() ** 3
        tilt, stretch = uniform(drawn, np.pi, 1)[0], 1 + 2 * torch.rand(1, generator=drawn, dtype=torch.float32).item() ** 2
        inside, box = canvas.ellipse((place[0], place[1] + 0.4 * breath), (size * stretch, size), tilt)
        canvas.paint(canvas.covered(inside) * cavity[:, box[0], box[1]], 0.75 * tissue["blood"], box)
    jitter = uniform(drawn, 5.0, 6)
    for centre, axes, tilt, name in (
        ((-62 + jitter[0], 58 + jitter[1]), (96.0, 56 + jitter[2] / 2), -0.12, "liver"),
        ((80 + jitter[3], 60 + jitter[4]), (60.0, 44 + jitter[5] / 2), 0.25, "stomach"),
    ):
        moved = centre[0], centre[1] + down
        inside, box = canvas.ellipse(moved, axes, tilt)
        cover = canvas.covered(inside) * cavity[:, box[0], box[1]]
        canvas.paint(cover, rough(name, box, down), box)
        for _ in range(16):
            u, v = uniform(drawn, 0.75, 2)
            size, turn = 1.2 + 2.0 * torch.rand(1, generator=drawn, dtype=torch.float32).item() ** 2, uniform(drawn, np.pi, 1)[0]
            inside, small = canvas.ellipse((moved[0] + u * axes[0], moved[1] + v * axes[1]), (2.2 * size, size), turn)
            canvas.paint(canvas.covered(inside) * cavity[:, small[0], small[1]], 0.7 * tissue["blood"], small)

    # 3. The spine with its canal, and fat in front of the heart.
    behind = subject.body[1] - subject.fat - subject.muscle
    for centre, axes, name, share in (
        ((0.0, behind - 22), (25.0, 22.0), "cartilage", 0.3),
        ((0.0, behind - 22), (23.0, 20.0), "marrow", 1.0),
        ((0.0, behind + 6), (30.0, 9.0), "cartilage", 0.3),
        ((0.0, behind + 5), (9.0, 7.5), "stomach", 1.6),
    ):
        inside, box = canvas.ellipse(centre, axes)
        canvas.paint(canvas.covered(inside), share * rough(name, box), box)
    front = -(subject.body[1] - subject.fat - subject.muscle)
    inside, box = canvas.ellipse((subject.centre[0] - 40, front + 8 + 0.4 * breath), (58.0, 20.0), 0.08)
    canvas.paint(canvas.covered(inside) * cavity[:, box[0], box[1]], 0.8 * rough("fat", box), box)


def _paint_heart(
    canvas: _Canvas, subject: _Subject, beat: _Beat, tissue: dict, key: tuple[int, ...], breath: np.ndarray
) -> list[tuple[np.ndarray, tuple[slice, slice]]]:
    """Paint it, and return where right ventricle, myocardium and left ventricle are: covered shares and the box."""
    ejected = beat.ejected
    towards = np.array([np.cos(subject.septum), np.sin(subject.septum)])
    centre = [c + t * 2.5 * ejected + (0.25, 0.9)[i] * breath for i, (c, t) in enumerate(zip(subject.centre, towards, strict=True))]
    rest = np.sqrt(3 * subject.volume * 1000 / (2 * np.pi * subject.length))
    share = beat.outer[0] / (rest + subject.wall)  # of the right ventricle, smaller towards the apex too
    axes = [subject.right[0] * share * (1 - 0.16 * ejected), subject.right[1] * share * (1 - 0.13 * ejected)]
    apart = (subject.right[0] * share) * (1 - 0.20 * ejected)
    right = [c + t * apart for c, t in zip(centre, towards, strict=True)]
    box = canvas.box(centre, 90.0)
    x, y = canvas.axis[box[1]] - _frames(centre[0]), canvas.axis[box[0], None] - _frames(centre[1])
    radius, angle = np.hypot(x, y), np.arctan2(y, x)

    # 1. Aorta, which widens in systole, and the fat around the heart.
    flow = 1 + FLOWING * beat.flow
    cavity_end = subject.body[1] - subject.fat - subject.muscle
    for grown, value in ((1.6, 0.8 * tissue["muscle"]), (0.0, 0.95 * tissue["blood"] * flow)):
        width = 11.0 * (1 + 0.05 * ejected) + grown
        inside, place = canvas.ellipse((27.0, cavity_end - 28), (width, width))
        canvas.paint(canvas.covered(inside), _frames(value), place)
    turned = angle - _frames(beat.turn)
    wave = 1 + 0.03 * np.cos(2 * (turned - subject.trabeculae[0, 0] * np.pi))
    fine = sum(a * np.cos(k * turned + 3 * b) for k, (a, b) in enumerate(subject.trabeculae, start=5))
    outer = _frames(beat.outer) * wave - radius
    inner = _frames(beat.inner) * wave + 0.9 * fine - radius
    right_inside, _ = canvas.ellipse(right, axes, subject.septum, box)
    hull = np.maximum(outer + 1.5, right_inside + 7.0)
    fat = _texture((*key, 2))
    material = (
        canvas.axis[box[1]] - _frames(centre[0]) + subject.centre[0],
        canvas.axis[box[0], None] - _frames(centre[1]) + subject.centre[1],
    )
    canvas.paint(canvas.covered(hull), 0.85 * tissue["fat"] * (1 + ROUGHNESS["fat"] * _sampled(fat, *material)), box)

    # 2. Blood, its texture changing with the flow: three fields of their own, each of one harmonic of the cycle.
    time = np.arange(len(ejected)) / len(ejected)
    swirl = sum(
        _frames(np.cos(2 * np.pi * (k * time + 0.37 * k))) * _sampled(_texture((*key, 3, k), 3.0, 25.0), *(m[:1] for m in material))
        for k in (1, 2, 3)
    )
    blood = tissue["blood"] * _frames(flow) * (1 + ROUGHNESS["blood"] * _frames(0.4 + 0.6 * beat.flow) * swirl)

    # 3. Right ventricle: a thin wall, trabeculated.
    rough = fine * 0.8
    canvas.paint(canvas.covered(right_inside + 3.2 + 1.2 * _frames(ejected)), 0.95 * tissue["myocardium"], box)
    right_cover = canvas.covered(right_inside + rough)
    canvas.paint(right_cover, 0.93 * blood, box)

    # 4. Left ventricle. A point of the muscle comes from the ring of end-diastole that held as much muscle within.
    ratio = _frames((beat.outer[0] ** 2 - beat.inner[0] ** 2) / (beat.outer**2 - beat.inner**2))
    before = np.sqrt(np.clip(beat.inner[0] ** 2 + (radius**2 - _frames(beat.inner) ** 2) * ratio, 0, None))
    muscle = _sampled(_texture((*key, 4)), before * np.cos(turned), before * np.sin(turned))
    muscle = tissue["myocardium"] * (1 + ROUGHNESS["myocardium"] * muscle)
    outer_cover, inner_cover = canvas.covered(outer), canvas.covered(inner)
    canvas.paint(outer_cover, muscle, box)
    canvas.paint(inner_cover, blood, box)
    for side in (-1, 1):
        at = subject.septum + np.pi + side * np.deg2rad(62) + beat.turn
        far = 0.70 * beat.inner
        width = subject.papillary * np.sqrt(beat.thickening) * min(1.0, beat.inner[0] / 20)
        place = [c + far * f(at) for c, f in zip(centre, (np.cos, np.sin), strict=True)]
        inside, _ = canvas.ellipse(place, (width, width * 1.15), subject.septum, box)
        canvas.paint(canvas.covered(inside) * inner_cover, muscle, box)
    wall = outer_cover * (1 - inner_cover)
    return [(right_cover * (1 - outer_cover), box), (wall, box), (inner_cover, box)]


def _phase(seed: int, number: int, size: int) -> np.ndarray:
    """Of a subject's images, in radians: (size, size) float64, 1 rad rms about a constant of its own."""
    drawn = generator(seed, number, PHASE)
    axis = (np.arange(size) - size // 2) / size
    phase = np.zeros((size, size))
    for fx, fy, shift in uniform(drawn, 1.0, 5, 3):
        phase += np.cos(2 * np.pi * (1.3 * fx * axis + 1.3 * fy * axis[:, None]) + np.pi * shift)
    phase -= phase.mean()
    return np.pi * uniform(drawn, 1.0, 1)[0] + phase / np.sqrt(np.mean(phase**2))
