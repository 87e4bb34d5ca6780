"""The container that every data set is read into, and what a reader knows of its files before they are read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.errors import InputError, unknown
from prom.kspace.coils import resampled
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.fourier import IMAGE_AXES, fftc, ifftc
from prom.kspace.patterns import Lines, make
from prom.kspace.trajectories import Trajectory

SEEDS = {"train": 0, "validation": 1, "test": 2, "all": 3}  # of the noise that is put on a split, so that no two splits share it
KINDS = {"slices": "NCHW", "volumes": "NCDHW", "series": "NCTHW"}  # and the axes of their images


@dataclass(frozen=True, eq=False)
class SliceDataset:
    """Fully sampled slices, volumes or series in time, with the subject and the slice number that each came from.

    Attributes
    ----------
    name, split
        What it is called and which part of it this is, e.g. ``"acdc"`` and ``"train"``.
    images
        ``(N, C, H, W)``, of volumes ``(N, C, D, H, W)`` and of series in time ``(N, C, T, H, W)``, float32 (magnitude images) or complex64
        (images with phase); what follows after C are the *samples*, on which masks lie. Intensities in the units of the reader
        that made them; the readers say which. All C channels of a slice are measured with one mask. A tensor, or, for a set too
        large for memory, :class:`prom.datasets.cache.StoredRows`: indexed in the same way, it reads from disk what is indexed.
    subjects, slices
        Length N: the subject's name and the number of the slice in the subject's volume. A subject is in one split only.
    labels
        ``(N, H, W)`` uint8 (likewise a tensor or stored), or None. ``label_names[v]`` names the class of value v, background first.
    source
        One sentence for figures and records: where the data come from and what they are.
    spacing
        Length N: (row, column) size of a pixel in mm, None where it is not known; or empty.
    patients
        Length N, where a patient has several volumes, each of them a subject; else empty, and a patient is a subject.
    known_fingerprint
        Of data that come from a store, which has it written down; it holds until an array is changed in place. Data made of these by
        ``dataclasses.replace`` have none.
    sensitivities
        Of data with K coils, complex64: ``(K, H, W)``, the same for all slices, or ``(N, K, H, W)``; of volumes ``(K, D, H, W)`` or
        ``(N, K, D, H, W)``; of series, whose frames all have the same, as of slices; else None. ``images`` are then
        ``(N, 1, *samples)`` complex64: what the coils see, known exactly where it is simulated, of measured data the combination
        :func:`prom.kspace.coils.combine` of all samples.
    kspace
        ``(N, K, *samples)`` complex64 (a tensor or stored), centred and orthonormal as of :func:`prom.fft2c`: what each coil measured,
        noise included. None where it is the transform of sensitivity times image: see :meth:`samples`.
    noise
        Standard deviation of the noise of one complex sample of k-space, sqrt(E|n|^2), in the units of the images; None where it is not
        known.
    kind
        "slices"; "volumes", of which all three axes are measured point by point; or "series", whose frames are measured one after the
        other, each with a mask of its own.
    trajectory
        Of data whose samples are not those of a grid, the readouts that were measured (:class:`prom.kspace.trajectories.Trajectory`), of
        which masks choose: see :meth:`along`. ``kspace`` is then ``(N, K, *grid)``.

    Raises
    ------
    InputError
        Where the images are not 4D (of volumes and series 5D), empty, of another dtype or not finite, where lengths disagree, or where
        coils do not fit the images.

    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "a"], [0, 1])
    >>> len(data), data.shape, data.number_of_subjects
    (2, (8, 8), 1)
    >>> image, maps = torch.rand(2, 1, 8, 8) + 0j, torch.full((4, 8, 8), 0.5 + 0j)
    >>> coils = SliceDataset("demo", "train", image, ["a", "a"], [0, 1], sensitivities=maps, noise=0.01)
    >>> coils.coils, coils.samples([1]).shape
    (4, torch.Size([1, 4, 8, 8]))
    >>> series = SliceDataset("demo", "train", torch.rand(2, 1, 5, 8, 8), ["a", "b"], [0, 0], kind="series")
    >>> series.shape, series.axes, series.samples([0]).shape
    ((5, 8, 8), (-2, -1), torch.Size([1, 1, 5, 8, 8]))
    """

    name: str
    split: str
    images: Tensor
    subjects: Sequence[str]
    slices: Sequence[int]
    labels: Tensor | None = None
    label_names: Sequence[str] = field(default_factory=tuple)
    source: str = ""
    spacing: Sequence[tuple[float, float] | None] = ()
    patients: Sequence[str] = ()
    known_fingerprint: str | None = field(default=None, init=False, repr=False)
    _known_versions: list[int] = field(default_factory=list, init=False, repr=False)  # of the arrays, when it was known
    sensitivities: Tensor | None = None
    kspace: Tensor | None = None
    noise: float | None = None
    kind: str = "slices"
    trajectory: Trajectory | None = None

    def __post_init__(self) -> None:
        for what in ("subjects", "slices", "patients", "spacing"):
            object.__setattr__(self, what, _plain(getattr(self, what)))
        for what in ("images", "kspace", "sensitivities"):
            values = getattr(self, what)
            if isinstance(values, Tensor) and (values.requires_grad or values.is_conj() or values.is_neg()):
                object.__setattr__(self, what, values.detach().resolve_conj().resolve_neg())
        if self.kind not in KINDS:
            raise unknown("kind", self.kind, KINDS)
        letters = KINDS[self.kind]
        if self.images.ndim != len(letters) or 0 in self.images.shape:
            shape = tuple(self.images.shape)
            raise InputError(f"{self.name}: images of shape {shape}: {self.kind} must be ({', '.join(letters)}), none of them 0")
        for what in ("images", "labels", "kspace", "sensitivities"):
            if isinstance(values := getattr(self, what), np.ndarray | list | tuple):
                raise InputError(f"{self.name}: {what} of type {type(values).__name__}: must be a tensor; use torch.from_numpy")
        if self.images.dtype not in (torch.float32, torch.complex64):
            raise InputError(f"{self.name}: images of type {self.images.dtype}: must be float32 or complex64")
        if not (len(self.subjects) == len(self.slices) == len(self.images)):
            raise InputError(
                f"{self.name}: {len(self.images)} images, {len(self.subjects)} subjects, {len(self.slices)} slice numbers: must be equal"
            )
        for what in ("spacing", "patients"):
            if len(getattr(self, what)) not in (0, len(self.images)):
                raise InputError(f"{self.name}: {len(self.images)} images, but {len(getattr(self, what))} entries of {what}: must be equal")
        if self.labels is not None and tuple(self.labels.shape) != (len(self.images), *self.shape):
            raise InputError(f"{self.name}: labels of shape {tuple(self.labels.shape)}: must be {(len(self.images), *self.shape)}")
        if isinstance(self.labels, Tensor):
            self._check_labels()
        if self.trajectory is not None and (axes := self.trajectory.points.shape[-1]) != len(self.axes):
            way = "read them with grid=True" if axes == 3 else "use one of 3 axes, e.g. kooshball"
            of = "volumes" if axes == 3 else "slices and series"
            raise InputError(f"{self.name}: trajectory of {axes} axes: is of {of}, and these are {self.kind}; {way}")
        self._check_coils()
        if not isinstance(self.images, Tensor):
            return  # a store was checked when it was made
        for index, image in enumerate(self.images):  # slice by slice: a mask of all of them would double the memory
            if not torch.isfinite(image).all():
                raise InputError(f"{self.describe(index)}: has NaN or infinite values; repair or leave out this slice")
        for index, samples in enumerate(self.kspace if isinstance(self.kspace, Tensor) else ()):
            if not torch.isfinite(samples).all():
                raise InputError(f"{self.describe(index)}: k-space has NaN or infinite values; repair or leave out this slice")

    def _check_coils(self) -> None:
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise InputError(f"{self.name}: noise {self.noise}: must be a standard deviation, 0 or more, or None where it is not known")
        if self.sensitivities is None:
            if self.kspace is not None:
                raise InputError(
                    f"{self.name}: has k-space of coils but no sensitivities; give them, for one coil torch.ones(1, H, W) + 0j"
                )
            return
        if self.images.dtype != torch.complex64 or self.images.shape[1] != 1:
            raise InputError(f"{self.name}: {self.images.dtype} images with {self.images.shape[1]} channel(s): with coils complex64 and 1")
        shape, space = tuple(self.sensitivities.shape), self.shape[-len(self.axes) :]
        own = len(shape) - len(space) - 1  # whether each entry has its own: 0 or 1
        fits = own in (0, 1) and shape[own + 1 :] == space and shape[own] > 0 and (not own or shape[0] == len(self))
        if not fits or self.sensitivities.dtype != torch.complex64:
            letters = "K, D, H, W" if self.kind == "volumes" else "K, H, W"
            raise InputError(
                f"{self.name}: {self.sensitivities.dtype} sensitivities of shape {shape}: must be complex64 ({letters}) or (N, {letters}) "
                f"for images of {tuple(self.images.shape)}"
            )
        if isinstance(self.sensitivities, Tensor) and not all(torch.isfinite(coil).all() for coil in self.sensitivities):
            raise InputError(f"{self.name}: sensitivities have NaN or infinite values; where nothing is known of a coil, they can be 0")
        expected = (len(self), self.coils, *self.grid)
        if self.kspace is not None and (tuple(self.kspace.shape) != expected or self.kspace.dtype != torch.complex64):
            raise InputError(f"{self.name}: {self.kspace.dtype} k-space of shape {tuple(self.kspace.shape)}: must be complex64 {expected}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of images, and of the samples of a grid: (H, W) of slices, (D, H, W) of volumes, (T, H, W) of series."""
        return tuple(self.images.shape[2:])

    @property
    def grid(self) -> tuple[int, ...]:
        """Of the samples that a mask can have: ``shape``, or on a trajectory of K readouts of R samples (K, R), (1, K, R) or (T, K, R)."""
        return self.shape if self.trajectory is None else self.choices(self.trajectory.kind).samples

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of an image that the Fourier transform goes over, counted from the last."""
        return (-3, -2, -1) if self.kind == "volumes" else IMAGE_AXES

    @property
    def own_maps(self) -> bool:
        """Whether each entry has sensitivities of its own."""
        return self.sensitivities is not None and self.sensitivities.ndim == len(self.axes) + 2

    @property
    def coils(self) -> int:
        """How many coils there are; 1 where there are no sensitivities."""
        return 1 if self.sensitivities is None else self.sensitivities.shape[-len(self.axes) - 1]

    def maps(self, indices: Sequence[int]) -> Tensor:
        """Coil sensitivities of these entries: ``(n, K, H, W)`` complex64, or ``(1, K, H, W)`` where all slices have the same.

        Of volumes ``(n, K, D, H, W)``, of series ``(n, K, 1, H, W)``. Without coils, those of a single one that sees everything alike:
        ones, ``(1, 1, H, W)``.

        >>> SliceDataset("demo", "train", torch.rand(2, 1, 4, 4), ["a", "a"], [0, 1]).maps([0, 1]).shape
        torch.Size([1, 1, 4, 4])
        """
        if self.sensitivities is None:
            found = torch.ones(1, 1, *self.shape[-len(self.axes) :], dtype=torch.complex64)
        else:
            found = self.sensitivities[_listed(indices)] if self.own_maps else self.sensitivities[:][None]
        return found.unsqueeze(-3) if self.kind == "series" else found

    def lines(self, pattern: str) -> Lines:
        """The pattern of that name on the grid, such as columns of each frame: :func:`prom.kspace.patterns.make`.

        Raises
        ------
        InputError
            Where the name is not known, or the samples are off the grid.

        >>> SliceDataset("demo", "train", torch.rand(1, 1, 5, 4, 6), ["a"], [0], kind="series").lines("rows").shape
        (5, 4)
        """
        if self.trajectory is not None:
            raise InputError(
                f"{self.name}: its {self.trajectory.kind} are off the grid, and this is for grids; use repulsion, equal_angles, "
                "golden_angle or random_readouts, or learn through sense"
            )
        return make(pattern, self.shape, self.kind == "series")

    def choices(self, pattern: str) -> Lines:
        """What masks choose from: :meth:`lines` of the grid, or on a trajectory its readouts, whose pattern has the trajectory's kind.

        >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 4, 4), ["a"], [0])
        >>> data.choices("rows").shape
        (4,)
        """
        if self.trajectory is None:
            return self.lines(pattern)
        if pattern != self.trajectory.kind:
            raise InputError(f"pattern {pattern}: {self.name} is measured along a trajectory; use pattern {self.trajectory.kind}")
        return self.trajectory.lines(self.shape, self.kind == "series")

    def encoding(self, entries: int | Sequence[int], device: torch.device | str = "cpu") -> Coils:
        """What the coils measure of one of these entries, or of several: E of :meth:`samples`.

        >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 3, 4, 4), ["a", "a"], [0, 1], kind="series")
        >>> torch.allclose(data.encoding([0, 1]).forward(data.images[:, 0]), data.samples([0, 1]), atol=1e-6)
        True
        """
        maps = self.maps([entries])[0] if isinstance(entries, int) else self.maps(entries)
        return Coils(maps.to(device), Fourier(self.shape, self.axes) if self.trajectory is None else self.trajectory.encoding(self.shape))

    def samples(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        r"""Fully sampled k-space of these entries, for every coil: ``(n, K, *grid)`` complex64.

        What was measured, or, where that is simulated, :math:`y_k = F (s_k x) + n_k`. The noise :math:`n_k`, of standard deviation
        :attr:`noise`, is drawn from the generator; without one there is none. What was measured has its own, and gets no other.

        Raises
        ------
        InputError
            Where there are no coils and several channels.

        >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 4, 4), ["a"], [0], noise=0.1)
        >>> data.samples([0]).abs().sum(), data.samples([0], torch.Generator().manual_seed(0)).abs().sum() > 5
        (tensor(4.), tensor(True))
        """
        indices = _listed(indices)
        if self.kspace is not None:
            return self.kspace[indices]
        if self.images.shape[1] != 1:
            raise InputError(f"{self.name}: has {self.images.shape[1]} channels; samples of coils are of images with 1")
        samples = self.encoding(indices).forward(self.images[indices][:, 0])
        if generator is None or not self.noise:
            return samples
        drawn = torch.randn(samples.shape, dtype=samples.dtype, generator=generator, device=generator.device)
        return samples + self.noise * drawn.to(samples.device)

    @property
    def number_of_subjects(self) -> int:
        """How many different subjects the slices come from."""
        return len(set(self.subjects))

    def patient_names(self) -> list[str]:
        """The patients, sorted; subjects where nothing is known of patients."""
        return sorted(set(self.patients or self.subjects))

    def describe(self, index: int) -> str:
        """``name, subject s, slice i`` of one entry, for messages."""
        return f"{self.name}, subject {self.subjects[index]}, slice {self.slices[index]}"

    def summary(self) -> str:
        """One line for a page: name, split, how many slices of how many subjects, their size, and coils where there are several.

        Also for volumes and series.

        >>> SliceDataset("demo", "train", torch.ones(2, 1, 4, 6), ["a", "a"], [0, 1]).summary()
        'demo, train: 2 slices of 1 subject, 4 x 6'
        """
        count = self.number_of_subjects
        subjects = f"{count} subject{'' if count == 1 else 's'}"
        coils = f", {self.coils} coils" if self.coils > 1 else ""
        what = "series" if self.kind == "series" else self.kind[:-1] if len(self) == 1 and self.kind == "volumes" else self.kind
        size = " x ".join(map(str, self.shape))
        size = f"{self.shape[0]} frames of {self.shape[1]} x {self.shape[2]}" if self.kind == "series" else size
        return f"{self.name}, {self.split}: {len(self)} {what} of {subjects}, {size}{coils}"

    def _check_labels(self) -> None:
        if self.labels.dtype == torch.uint8:
            return
        real = not self.labels.is_complex()
        values = self.labels.double() if real else self.labels.new_full((1,), -1).real
        if not bool(((values >= 0) & (values <= 255) & (values == values.round())).all()):
            raise InputError(f"{self.name}: labels of type {self.labels.dtype}: must be whole numbers from 0 to 255")
        object.__setattr__(self, "labels", self.labels.to(torch.uint8))

    def _versions(self) -> list[int]:
        """How often each array was changed in place, as far as PyTorch counts it."""
        arrays = (self.images, self.labels, self.sensitivities, self.kspace)
        return [one._version for one in arrays if isinstance(one, Tensor) and not one.is_inference()]

    def knowing(self, fingerprint: str | None) -> SliceDataset:
        """Itself, with a fingerprint that is known, and holds as long as no array is changed."""
        object.__setattr__(self, "known_fingerprint", fingerprint)
        object.__setattr__(self, "_known_versions", self._versions())
        return self

    def fingerprint(self) -> str:
        """What identifies the data of a result: 16 hex digits of a SHA-256.

        It is taken over shape, dtype, subjects, slices, images and labels, and, where there are any, sensitivities, k-space and noise.
        """
        if self.known_fingerprint and self._known_versions == self._versions():
            return self.known_fingerprint
        digest = hashlib.sha256(repr((tuple(self.images.shape), str(self.images.dtype), list(self.subjects), list(self.slices))).encode())
        if self.kind != "slices":
            digest.update(self.kind.encode())
        if self.trajectory is not None:
            digest.update(f"{self.trajectory.kind} {self.trajectory.full}".encode())

        def add(array: Tensor | None) -> None:
            for index in range(0 if array is None else len(array)):
                row = array[index].resolve_conj()
                digest.update((torch.view_as_real(row) if row.is_complex() else row).contiguous().numpy().tobytes())

        add(self.images)
        add(self.labels)
        add(None if self.trajectory is None else self.trajectory.points)
        for what in ("sensitivities", "kspace"):
            if (array := getattr(self, what)) is not None:
                digest.update(f"{what} {tuple(array.shape)}".encode())
                add(array)
        if self.noise is not None:
            digest.update(f"noise {float(self.noise)!r}".encode())
        return digest.hexdigest()[:16]

    def scaled(self, factor: float) -> SliceDataset:
        """The same slices with all intensities, k-space and noise times ``factor``. Sensitivities stay as they are.

        Raises
        ------
        InputError
            Where the factor is not positive, or the slices stay on disk.

        >>> SliceDataset("demo", "train", torch.ones(1, 1, 2, 2), ["a"], [0]).scaled(0.5).images.max()
        tensor(0.5000)
        """
        if factor == 1:
            return self
        if not 0 < factor < float("inf"):
            raise InputError(f"scale {factor}: must be > 0")
        if not isinstance(self.images, Tensor):
            raise InputError(f"scale {factor:g}: {self.name} is too large for memory, and is read from disk as it is")
        return replace(
            self,
            images=self.images * factor,
            kspace=None if self.kspace is None else self.kspace[:] * factor,
            noise=None if self.noise is None else self.noise * factor,
            source=f"{self.source}; intensities times {factor:g}",
        )

    def with_coils(self, maps: Tensor, noise: float = 0.0, seed: int | None = None) -> SliceDataset:
        r"""The same slices as coils with these sensitivities would have measured them: :math:`y_k = F (s_k x) + n_k`, emulated.

        The sensitivities, measured in another scan, are those of all slices, on the grid of the images and with
        :math:`\sum_k |s_k|^2 = 1` (:func:`prom.kspace.coils.resampled`). Where all of them are 0 no coil sees anything, so the images
        become 0 there. What noise the images have is a part of them; k-space of their own scan is left out.

        Parameters
        ----------
        maps
            ``(K, h, w)`` complex, over the field of view of the images, e.g. of :func:`prom.kspace.coils.estimated`.
        noise
            Standard deviation of the noise of a complex sample of k-space, sqrt(E|n|^2), in the units of the images; with 0 there is none,
            and no ``kspace`` is kept, since :meth:`samples` makes it.
        seed
            Of the noise; by default the split's own, so that training and test do not share it. Same seed, same machine: same bits.

        Raises
        ------
        InputError
            Where the images are magnitudes, have several channels or stay on disk, or the sensitivities do not fit.

        >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8) + 0j, ["a", "b"], [0, 0])
        >>> coils = data.with_coils(torch.ones(4, 16, 16) + 0j, noise=0.01)
        >>> coils.sensitivities.shape, coils.kspace.shape, torch.equal(coils.images, data.images)
        (torch.Size([4, 8, 8]), torch.Size([2, 4, 8, 8]), True)
        """
        if self.kind == "volumes":
            raise InputError(f"{self.name}: has volumes; coils are put on slices and on series, so cut them along a readout")
        if self.images.dtype != torch.complex64 or self.images.shape[1] != 1:
            raise InputError(
                f"{self.name}: {self.images.dtype} images with {self.images.shape[1]} channel(s); coils are put on complex images of one"
            )
        if not isinstance(self.images, Tensor):
            raise InputError(f"{self.name}: is too large for memory; take fewer slices before coils are put on it")
        if self.trajectory is not None:
            raise InputError(f"{self.name}: is along {self.trajectory.kind}; put coils on the images first, and then go along them")
        noise = options.check("noise", noise, "[0, 1e30]")
        sensitivities = resampled(maps, self.shape[-2:])
        images = self.images.where(sensitivities.abs().sum(dim=0) > 0, 0)
        kspace = None
        if noise:
            kspace = fftc((sensitivities.unsqueeze(1) if self.kind == "series" else sensitivities) * images)
            seed = self._noise_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            for samples in kspace:  # slice by slice, for memory
                samples += noise * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)
        added = f", noise of {noise:g} added to their k-space (seed {seed})" if noise else ""
        what = f"{len(maps)} coils emulated: sensitivities of another scan, {maps.shape[1]} x {maps.shape[2]}, put on these images{added}"
        return replace(
            self,
            images=images,
            sensitivities=sensitivities,
            kspace=kspace,
            noise=noise,
            source=f"{self.source}; {what}",
        )

    def _noise_seed(self, seed: int | None) -> int:
        if seed is None:
            own = hashlib.sha256(repr(self.split).encode(errors="backslashreplace")).digest()[:4]
            seed = SEEDS.get(self.split, int.from_bytes(own))
        return options.check_seed(seed)

    def along(self, trajectory: Trajectory, seed: int | None = None) -> SliceDataset:
        """The same images as all readouts of a trajectory would have measured them, with noise of the same level: emulated.

        What was measured on the grid is left out; the images, and what the coils see of them, are taken as they are.

        Parameters
        ----------
        trajectory
            Such as :func:`prom.kspace.trajectories.spokes`, of candidates among which a mask is to choose.
        seed
            Of the noise; by default the split's own, so that training and test do not share it. Same seed, same machine: same bits.

        Raises
        ------
        InputError
            Where there are several channels, the images stay on disk, were measured along a trajectory already, or do not reach its ends.

        >>> from prom.kspace.trajectories import spokes
        >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8) + 0j, ["a", "b"], [0, 0], noise=0.01)
        >>> radial = data.along(spokes(16, size=8))
        >>> radial.grid, radial.samples([0]).shape, radial.choices("spokes").budget(acceleration=2)
        ((16, 8), torch.Size([1, 1, 16, 8]), 4)
        """
        if self.trajectory is not None:
            raise InputError(f"{self.name}: was measured along a trajectory already; choose among its readouts")
        trajectory.check_image(self.shape)
        if self.images.shape[1] != 1 or not isinstance(self.images, Tensor):
            raise InputError(f"{self.name}: must be images of one channel, in memory, to be measured along a trajectory")
        maps = self.sensitivities
        if maps is None:
            maps = torch.ones(1, *self.shape[-len(self.axes) :], dtype=torch.complex64)
        bare = replace(
            self,
            images=self.images.to(torch.complex64),
            sensitivities=maps,
            kspace=None,
            trajectory=trajectory,
            source=f"{self.source}; emulated along {len(trajectory)} {trajectory.kind} of {trajectory.points.shape[1]} samples",
        )
        generator = torch.Generator().manual_seed(self._noise_seed(seed))
        if not self.noise:
            return bare
        return replace(bare, kspace=torch.cat([bare.samples([index], generator) for index in range(len(self))]))

    def select(self, indices: Sequence[int]) -> SliceDataset:
        """The data set of these entries only, in this order. What is stored on disk is read where it is no more than 512 MiB."""
        indices = _listed(indices)

        def picked(entries: Any) -> Any:
            if isinstance(entries, Tensor):
                return entries[indices]
            return entries.select(indices) if hasattr(entries, "select") else [entries[i] for i in indices] if entries else entries

        per_slice = ["images", "subjects", "slices", "labels", "spacing", "patients", "kspace"]
        if self.own_maps:
            per_slice.append("sensitivities")
        return replace(self, **{name: picked(getattr(self, name)) for name in per_slice})

    def thinned(self, count: int) -> SliceDataset:
        """At most ``count`` slices, spread evenly over the data set.

        >>> data = SliceDataset("demo", "train", torch.rand(5, 1, 8, 8), list("abcde"), [0] * 5)
        >>> data.thinned(3).subjects, data.thinned(9).subjects
        (['a', 'c', 'e'], ['a', 'b', 'c', 'd', 'e'])
        """
        return self.select(torch.linspace(0, len(self) - 1, min(count, len(self))).long().tolist())

    def as_volumes(self) -> SliceDataset:
        """The slices of each subject as one volume whose three axes are all measured point by point: kind "volumes".

        The slice numbers, evenly apart and the same for all subjects, are the positions along the first axis. K-space of coils gets a
        transform along that axis.

        Raises
        ------
        InputError
            Where they are no slices, stay on disk, are not evenly apart, or a subject lacks a slice or has one twice: what is between would
            be a guess.

        >>> data = SliceDataset("demo", "train", torch.rand(6, 1, 8, 8), list("aaabbb"), [4, 6, 8, 8, 6, 4])
        >>> volumes = data.as_volumes()
        >>> volumes.images.shape, torch.equal(volumes.images[1, 0, 0], data.images[5, 0])
        (torch.Size([2, 1, 3, 8, 8]), True)
        """
        if self.kind != "slices" or not isinstance(self.images, Tensor):
            raise InputError(f"{self.name}: only slices in memory become volumes, and these are {self.kind}, or too large for memory")
        names, numbers = list(dict.fromkeys(self.subjects)), sorted(set(self.slices))
        if len({after - before for before, after in pairwise(numbers)}) > 1:
            raise InputError(f"{self.name}: slices {', '.join(map(str, numbers[:20]))} are not evenly apart; a volume needs all of them")
        found = sorted(zip(self.subjects, self.slices, strict=True))
        if found != sorted((name, number) for name in names for number in numbers):
            raise InputError(f"{self.name}: subjects have different slices, or one twice; those of volumes must be alike, each once")
        depth = len(numbers)
        places = torch.tensor([names.index(name) for name in self.subjects]), torch.tensor([numbers.index(n) for n in self.slices])

        def stacked(rows: Tensor | None) -> Tensor | None:
            if rows is None:
                return None
            whole = rows.new_empty(len(names), depth, *rows.shape[1:])
            whole[places] = rows[:]
            return whole.movedim(1, -3)

        maps = self.sensitivities
        if maps is not None:
            maps = stacked(maps) if self.own_maps else maps[:].unsqueeze(1).expand(-1, depth, -1, -1).contiguous()
        first = [self.subjects.index(name) for name in names]
        return replace(
            self,
            images=stacked(self.images),
            subjects=names,
            slices=[numbers[0]] * len(names),
            labels=stacked(self.labels),
            spacing=[self.spacing[index] for index in first] if self.spacing else (),
            patients=[self.patients[index] for index in first] if self.patients else (),
            sensitivities=maps,
            kspace=None if self.kspace is None else fftc(stacked(self.kspace), (-3,)),
            source=f"{self.source}; the slices of a subject as one volume of {depth}",
            kind="volumes",
        )

    def cropped(self, size: int) -> SliceDataset:
        """Magnitudes at a lower resolution: k-space cropped to its central ``size`` x ``size`` points, or fewer where it has fewer.

        The grey value of a uniform region stays as it is. Labels are left out, since they have the old resolution; so are coils, since
        these are magnitudes.

        >>> SliceDataset("demo", "train", torch.ones(1, 1, 8, 6), ["a"], [0]).cropped(4).images.mean().round(decimals=4)
        tensor(1.)
        """
        old = self.shape[-len(self.axes) :]
        new = tuple(min(n, size) for n in old)
        kept = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(old, new, strict=True))
        scale = math.sqrt(math.prod(new) / math.prod(old))  # of the orthonormal transform
        images = ifftc(fftc(self.images[:], self.axes)[..., *kept], self.axes).abs() * scale
        without = dict.fromkeys(("labels", "sensitivities", "kspace", "noise", "trajectory"))
        larger = [n / m for n, m in zip(old[-2:], new[-2:], strict=True)]
        spacing = [known and (known[0] * larger[0], known[1] * larger[1]) for known in self.spacing]
        return replace(self, images=images, label_names=(), spacing=spacing, **without)

    def hold_out(self, fraction: float) -> tuple[SliceDataset, SliceDataset]:
        """Split off whole patients, for anything that needs early stopping: (the rest, the held-out part, called "validation").

        The patients, sorted by name, are cut into as many equal runs as patients are wanted, and the middle one of each is held
        out: no randomness, and evenly over groups that follow one another (in ACDC the diagnoses).

        Parameters
        ----------
        fraction
            Of the patients, between 0 and 1; at least one is held out.

        Raises
        ------
        InputError
            Where the fraction is out of range, or one of the two parts would be empty.

        >>> data = SliceDataset("demo", "train", torch.rand(10, 1, 8, 8), list("aabbccddee"), [0, 1] * 5)
        >>> [sorted(set(part.subjects)) for part in data.hold_out(0.4)]
        [['a', 'c', 'e'], ['b', 'd']]
        """
        rest, held = self.held_out(fraction)
        return self.select(rest), replace(self.select(held), split="validation")

    def held_out(self, fraction: float, name: str = "validation") -> tuple[list[int], list[int]]:
        """The entries of the two parts that :meth:`hold_out` makes; ``name``: of the share in messages."""
        patients = self.patients or self.subjects
        names = sorted(set(patients))
        count = max(1, round(fraction * len(names))) if 0 < fraction < 1 else 0
        if not 0 < count < len(names):
            way = "read more" if len(names) < 2 else f"give a share from {1 / len(names):.2g} to {1 - 1 / len(names):.2g}"
            raise InputError(f"{name} {fraction}: of {len(names)} patient(s) of {self.name} it must leave some on both sides; {way}")
        held = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
        return [i for i, name in enumerate(patients) if name not in held], [i for i, name in enumerate(patients) if name in held]


def _listed(indices: Sequence[int]) -> list[int]:
    """Indices as tensors and stored rows both take them."""
    found = _plain(indices)
    if any(isinstance(i, bool) for i in found):
        raise InputError("entries of True and False: must be numbers; use numpy.flatnonzero(...) of them")
    return [int(i) for i in found]


def _plain(entries: Sequence) -> Sequence:
    """Entries as Python has them, not NumPy or PyTorch, whose text in a fingerprint is another."""
    entries = entries.tolist() if hasattr(entries, "tolist") else entries
    return [entry.item() if isinstance(entry, np.generic | Tensor) else entry for entry in entries] if len(entries) else entries


@dataclass(frozen=True)
class Part:
    """What one subject's files hold. Values are finite, and no slice is constant: the reader has checked.

    ``images`` (n, C, H, W) float32 or complex64, ``slices`` n numbers, ``labels`` (n, H, W) uint8 or None, ``path`` the file to
    name where this part does not fit the others, ``skipped`` how many slices were left out for being constant, ``values`` what the
    values are, as found while reading, for the source. ``kspace`` (n, K, H, W) and ``sensitivities`` (n, K, H, W), or (K, H, W) where
    all parts have the same, both complex64, and ``noise``, of data with coils. All but the sensitivities have the axis T before H where
    the plan is of series. ``continued``: whether it goes on with the subject of the part before. For the other fields see
    :class:`SliceDataset`.
    """

    path: Path
    subject: str
    images: np.ndarray
    slices: Sequence[int]
    labels: np.ndarray | None = None
    spacing: tuple[float, float] | None = None
    patient: str | None = None
    skipped: int = 0
    values: Sequence[str] = ()
    sensitivities: np.ndarray | None = None
    kspace: np.ndarray | None = None
    noise: float | None = None
    continued: bool = False


@dataclass(frozen=True)
class Plan:
    """A data set before it is read: what it consists of, and how to read one piece of it. Items and ``read`` can be pickled.

    ``files`` are all files whose content decides what is read, ``options`` whatever else does. ``root`` is the data set's own folder.
    ``sides`` are the patients of each split, and ``left_out`` the files that are not read, each with the reason, where that is known.
    ``notes`` are what else a user should know, ``kind`` is that of the data set, ``skipping`` what slices are called that are left out.
    """

    name: str
    split: str
    root: Path
    items: Sequence[Any]
    read: Callable[[Any], Part]
    files: Sequence[Path]
    options: dict[str, Any] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    source: str = ""
    sides: dict[str, Sequence[str]] = field(default_factory=dict)
    left_out: Sequence[tuple[Path, str]] = ()
    notes: Sequence[str] = ()
    kind: str = "slices"
    skipping: str = "constant slice(s)"

    def source_with(self, values: Iterable[str]) -> str:
        """The source, with what the parts say of their values, each once."""
        return "; ".join([self.source, *dict.fromkeys(values)])

    def parts(self) -> Iterator[Part]:
        """Read one item after the other."""
        return map(self.read, self.items)
