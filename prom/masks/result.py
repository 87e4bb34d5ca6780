"""The result of an optimisation: the mask, where it came from, and its HDF5 file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prom import options
from prom.datasets import hdf5
from prom.errors import InputError
from prom.files import atomic
from prom.kspace.patterns import LARGEST_MASK, READOUTS, Lines, make
from prom.kspace.trajectories import ARRAYS as TRAJECTORY
from prom.kspace.trajectories import Trajectory
from prom.masks import bernoulli
from prom.masks.checks import LONGEST_RECORD, check, record_as_json
from prom.masks.demands import Demands

HISTORY = {"member": int, "iteration": int, "loss": float, "budget": float, "active_fraction": float}


UNCLEAR = ("function", "method", "__call__")  # what older versions called any function or method
SEEDS = 2**32  # PyTorch's generator on a CPU looks at no more bits
# Far from the seeds that people choose: an optimisation with the same seed began theta from the very numbers drawn otherwise.
SAMPLE_STREAM = 0x9E3779B9
FORMAT = "prom mask 1"


@dataclass(frozen=True, eq=False)
class MaskResult:
    """A mask with its probabilities and its metadata.

    Attributes
    ----------
    mask
        ``(H, W)`` bool, centred: the posterior mode under the budget (Eq. 8); ``(D, H, W)`` of volumes, ``(T, H, W)`` of series.
    probabilities
        float32 of that shape, centred: theta of Eq. 1 on the grid.
    theta
        The parameters themselves: ``(H, W)`` for points, ``(W,)`` for columns, ``(H,)`` for rows, of series with T before them where
        frames have masks of their own; ``(K,)`` or ``(T, K)`` off the grid.
    pattern, acceleration, recipe, seed
        The settings. ``recipe`` has one entry per field of :class:`prom.learn.recipes.Recipe`, or the baseline's name; and ``demands``,
        as :meth:`prom.masks.demands.Demands.as_dict` writes them, where there were any.
    history
        Per iteration: member, iteration, loss, budget S, active share of the sampled masks. A data frame.
    provenance
        Data set, split, counts, fingerprint, objective, versions, device, time of making.
    trajectory
        Of a mask that chooses among readouts off the grid, these candidates; else None. The mask is then ``(K, R)``, of volumes
        ``(1, K, R)`` and of series ``(T, K, R)``.
    """

    mask: Tensor
    probabilities: Tensor
    theta: Tensor
    pattern: str
    acceleration: float
    recipe: dict[str, object]
    seed: int
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    provenance: dict[str, object] = field(default_factory=dict)
    trajectory: Trajectory | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", pd.DataFrame(self.history, columns=list(HISTORY)).astype(HISTORY))

    @property
    def lines(self) -> Lines:
        """What is switched on together, on the grid of the mask. Whether its first axis is time, the provenance says."""
        frames = self.provenance.get("kind") == "series"
        if self.trajectory is not None:
            return self.trajectory.lines(tuple(self.mask.shape), frames)
        return make(self.pattern, tuple(self.mask.shape), frames)

    @property
    def true_acceleration(self) -> float:
        """D over the number of samples: what the scanner really saves. Differs from the nominal value by the floor in S.

        Off the grid, the readouts of a full scan over those of the mask.
        """
        lines = self.lines
        return self.mask.numel() / int(self.mask.sum()) * (lines.full / lines.size)

    @property
    def demands(self) -> Demands:
        """What was demanded of the mask."""
        return Demands.from_dict(self.recipe.get("demands", {}))

    @property
    def excitations(self) -> int:
        """How many lines, or points, are measured, in all frames: each needs one excitation, or one echo of a train."""
        repeated = self.lines.samples[0] if self.lines.frames and not self.lines.apart else 1
        return int(self.lines.select(self.mask).sum()) * repeated

    @property
    def shots(self) -> int:
        """How many echo trains, each with one echo in every band: the excitations over the segments that were demanded."""
        return self.excitations // self.demands.segments

    def minutes(self, repetition_time: float) -> float:
        """How long the scan takes, of one shot every ``repetition_time`` milliseconds.

        >>> from prom.baselines import as_result
        >>> as_result(torch.eye(60, dtype=torch.bool), "identity", acceleration=60).minutes(500)
        0.5
        """
        return self.shots * options.check("repetition time", repetition_time, "(0, 1e9]") / 60_000

    def sample(self, count: int = 1, seed: int = 0) -> Tensor:
        """Masks drawn from Eq. 1: ``(count, H, W)`` bool. Their sizes vary about S; the mode has exactly S.

        What demands make mandatory is in every draw, and what they forbid in none; equal counts of bands and gaps are those of the mode.

        >>> from prom.baselines import as_result
        >>> as_result(torch.eye(4, dtype=torch.bool), "identity", acceleration=4).sample(3).sum(dim=(1, 2)).tolist()
        [4, 4, 4]
        """
        generator = torch.Generator().manual_seed(SAMPLE_STREAM + options.check_seed(seed))
        draws = bernoulli.sample(self.theta, generator, options.check("count", count, "[1, 1e9]", whole=True))
        return self.lines.forward(draws).bool()

    def save(self, path: str | os.PathLike) -> None:
        """Write an HDF5 file: datasets ``mask``, ``probabilities``, ``theta``, ``history/…``, ``trajectory/…``, the rest as attributes.

        All of it has checksums, so that a damaged file is not read as another mask.

        Raises
        ------
        InputError
            Where the file cannot be written, its ending is that of another format, or the fields do not fit each other
            (:func:`prom.masks.checks.check`).
        """
        if os.fspath(path).lower().endswith((*options.FORMATS, *options.SCANNER_FORMATS)) and Path(path).suffix.lower() != ".h5":
            raise InputError(f"output {os.fspath(path)}: is written as HDF5; call it .h5, or export it by prom.masks.export.export")
        try:
            check(self)
        except InputError as error:
            raise InputError(f"output {os.fspath(path)}: cannot hold this mask; {error}") from error
        texts = {"format": FORMAT, "pattern": self.pattern}
        texts |= {name: record_as_json(name, getattr(self, name)) for name in ("recipe", "provenance")}
        arrays = {name: getattr(self, name).numpy() for name in ("mask", "probabilities", "theta")}
        arrays |= {f"history/{name}": self.history[name].to_numpy() for name in self.history}
        if self.trajectory is not None:
            arrays |= {f"trajectory/{name}": values for name, values in self.trajectory.arrays().items()}
        # In memory first, so that a full disk is an error like any other. From HDF5 1.8 on, headers have checksums, and with them
        # attributes of a fixed length.
        with h5py.File("mask", "w", driver="core", backing_store=False, libver=("v108", "v108")) as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, fletcher32=values.size > 0 or None)
            file.attrs.update({name: np.bytes_(text) for name, text in texts.items()})
            file.attrs.update({"acceleration": self.acceleration, "seed": self.seed})
            file.flush()
            image = file.id.get_file_image()
        with atomic(path) as temporary:
            temporary.write_bytes(image)


def load_mask(path: str | os.PathLike) -> MaskResult:
    """Read a mask that :meth:`MaskResult.save` wrote. Nothing in the file is executed or believed, and no other file is read.

    Raises
    ------
    InputError
        Where the file is missing, not HDF5, not such a mask, damaged, or its parts do not fit together.
    """
    name, path = os.fspath(path) or repr(""), Path(path)
    if not path.is_file():
        raise InputError(f"mask {name}: no such file; make one with 'prom optimize' or 'prom baseline'")
    try:
        result = _read(path)
        check(result)
    except InputError as error:
        raise InputError(f"mask {path}: is damaged or was changed by hand; {error}") from error
    except Exception as error:  # a damaged file fails in any of many ways
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"mask {path}: is not a mask file of prom ({cause})") from error
    return result


def _read(path: Path) -> MaskResult:
    with h5py.File(path, "r") as file:
        if (written := hdf5.text(file, "format", 100)) != FORMAT:
            raise ValueError(f"is of format {written!r}, not {FORMAT!r}")
        types = {"mask": bool, "probabilities": np.float32, "theta": np.float32}
        arrays = {name: torch.from_numpy(hdf5.array(file, name, dtype, LARGEST_MASK)) for name, dtype in types.items()}
        history = {name: hdf5.array(file, f"history/{name}", np.dtype(kind), LARGEST_MASK) for name, kind in HISTORY.items()}
        if {values.shape for values in history.values()} != {(len(history["loss"]),)}:
            raise ValueError("its history has columns of different length")
        records = {name: json.loads(hdf5.text(file, name, LONGEST_RECORD)) for name in ("recipe", "provenance")}
        plain = {"pattern": hdf5.text(file, "pattern", 100), "acceleration": float(hdf5.number(file, "acceleration", "f"))}
        seed = hdf5.number(file, "seed", "iu")
        trajectory = None
        if plain["pattern"] in READOUTS:
            kinds = {name: dtype for name, dtype in TRAJECTORY.items() if name != "turns" or "trajectory/turns" in file}
            parts = {name: hdf5.array(file, f"trajectory/{name}", np.dtype(dtype), LARGEST_MASK) for name, dtype in kinds.items()}
            trajectory = Trajectory.from_arrays(plain["pattern"], parts)
    return MaskResult(**arrays, **plain, **records, seed=seed, history=pd.DataFrame(history), trajectory=trajectory)


def as_mask(mask: Tensor | np.ndarray, shape: tuple[int, ...], name: str) -> Tensor:
    """A mask for samples of this shape, as ``(H, W)`` bool on its own device: bool, or 0 and 1 in any type. ``name`` says whose slices.

    Raises
    ------
    InputError
        Where it is no array, of another shape, or has other values than 0 and 1: what 255 or 0.3 would mean is not certain.

    >>> as_mask(np.eye(2), (2, 2), "demo").int().tolist()
    [[1, 0], [0, 1]]
    >>> as_mask(255 * np.eye(2), (2, 2), "demo")
    Traceback (most recent call last):
    prom.errors.InputError: mask with the value 255: must have 0 and 1 only; if 255 is measured, use mask == 255
    """
    if isinstance(mask, str | os.PathLike):
        raise InputError(f"mask {os.fspath(mask)!r}: is a path; use prom.load_mask(path).mask")
    if isinstance(mask, MaskResult):
        raise InputError("mask of type MaskResult: must be an array; use its .mask")
    if isinstance(mask, np.ma.MaskedArray):
        raise InputError("mask: is a masked array, whose own mask would be lost; use mask.filled(0)")
    if not isinstance(mask, Tensor):
        array = np.asarray(mask)
        if array.dtype.kind not in "biufc":
            raise InputError(f"mask of type {type(mask).__name__}: must be an array or a tensor of 0 and 1")
        mask = torch.from_numpy(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    if tuple(mask.shape) != tuple(shape):
        what = "slices" if len(shape) == 2 else "samples"
        raise InputError(f"mask of {tuple(mask.shape)}: does not fit {name}, whose {what} are {tuple(shape)}")
    if mask.dtype == torch.bool:
        return mask
    values = mask.detach().to(torch.complex128 if mask.is_complex() else torch.float64)  # has every operation, as not all types do
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        value = wrong[0].item()
        alone = bool((wrong == value).all()) and not (values == 1).any()
        way = f"if {value:g} is measured, use mask == {value:g}" if alone else "of probabilities, use the mask that was made with them"
        raise InputError(f"mask with the value {value:g}: must have 0 and 1 only; {way}")
    return values == 1


def as_masks(masks: Tensor | np.ndarray, shape: tuple[int, ...], name: str) -> Tensor:
    """One mask for samples of this shape, or several, as ``(M, H, W)`` bool: see :func:`as_mask`.

    Raises
    ------
    InputError
        As by :func:`as_mask`, and where there is none.

    >>> as_masks(np.ones((2, 2)), (2, 2), "demo").shape
    torch.Size([1, 2, 2])
    """
    if not isinstance(masks, Tensor | np.ndarray) or masks.ndim not in (len(shape), len(shape) + 1) or not len(masks):
        what = tuple(masks.shape) if isinstance(masks, Tensor | np.ndarray) else f"type {type(masks).__name__}"
        raise InputError(f"masks of {what}: must be a mask of {tuple(shape)}, or several, one after the other")
    return torch.stack([as_mask(mask, shape, name) for mask in (masks if masks.ndim > len(shape) else masks[None])])


def average(results: Sequence[MaskResult]) -> MaskResult:
    """Bayesian model averaging (section 4): the mean of the probabilities of independent solutions, and its posterior mode.

    Raises
    ------
    InputError
        Where there are fewer than two, or their files say that they differ in anything but the seed. Criteria of one's own are known by
        their names, objects by their classes alone; networks by their weights and layers too.

    >>> import prom
    >>> recipe, images = prom.Recipe(**{**prom.DEFAULT.as_dict(), "iterations": 3}), torch.rand(2, 8, 8)
    >>> both = average([prom.optimize(images, 4, recipe=recipe, seed=seed) for seed in (0, 1)])
    >>> int(both.mask.sum()), both.recipe["members"]
    (16, 2)
    """
    results = list(results)
    for one in results:
        if not isinstance(one, MaskResult):
            raise InputError(f"mask of type {type(one).__name__}: must be a result; read files with prom.load_mask")
    if len(results) < 2:
        raise InputError(f"{len(results)} mask(s): averaging needs at least two")
    first = results[0]
    if "members" not in first.recipe or first.recipe["polish"]:
        raise InputError(f"a mask of {first.recipe['name']}: has no probabilities to average; use masks of recipe default or paper")
    for what in ("objective", "reconstruction"):
        name = str(first.provenance.get(what))
        if name in ("<lambda>", "partial", *UNCLEAR) or name.startswith("method "):
            raise InputError(
                f"{what} {name}: whether it is the same function for all masks is unclear; give it a name of its own, with def"
            )
    penalties = dict.fromkeys(result.provenance.get("reconstruction_penalty") for result in results)
    penalties.pop(None, None)  # masks of an older version do not say it
    if len(penalties) > 1:
        raise InputError(f"reconstruction_penalty {' and '.join(map(str, penalties))}: of different masks; only seeds may differ")
    versions = [result.provenance.get("versions") for result in results]
    hashes = dict.fromkeys(one["golden"] for one in versions if isinstance(one, dict) and "golden" in one)
    if len(hashes) > 1:
        raise InputError(f"golden hashes {' and '.join(map(str, hashes))}: of versions that make other masks; make all with one of them")
    told = {"reconstruction_penalty": next(iter(penalties))} if penalties else {}
    for result in results[1:]:
        if "members" in result.recipe and result.recipe["members"] != first.recipe["members"]:
            counts = f"{result.recipe['members']} and {first.recipe['members']}"
            raise InputError(f"masks of {counts} members: cannot be averaged once more; average all single masks at once")
        for what, own, other in (
            ("pattern", result.pattern, first.pattern),
            ("acceleration", result.acceleration, first.acceleration),
            *((f"recipe's {name}", result.recipe.get(name), first.recipe.get(name)) for name in {**first.recipe, **result.recipe}),
        ):
            if own != other:
                raise InputError(f"{what} {own}: the first mask has {other}; only seeds may differ")
        for what in ("fingerprint", "objective", "reconstruction", "reconstruction_network", "network"):
            if result.provenance.get(what) != first.provenance.get(what):
                raise InputError(f"{what} {result.provenance.get(what)}: the first mask has {first.provenance.get(what)}")
    seeds = [seed for result in results for seed in result.provenance.get("seeds", [result.seed])]  # of averages those of all members
    if len({seed % SEEDS for seed in seeds}) < len(seeds):
        raise InputError(f"seeds {seeds}: the same solution twice is no independent member; use different seeds")
    members = first.recipe["members"]
    theta = bernoulli.average([result.theta for result in results])
    lines = first.lines
    feasible = first.demands.feasible(lines, first.acceleration)
    histories = [result.history.assign(member=result.history["member"] + index * members) for index, result in enumerate(results)]
    spent = [result.provenance.get("seconds") for result in results]  # not of all makers
    told |= {"seeds": seeds, **({"seconds": sum(spent)} if None not in spent else {})}
    return replace(
        first,
        mask=lines.forward(feasible.round(theta)).contiguous(),  # Eq. 8
        probabilities=lines.forward(theta).contiguous(),
        theta=theta,
        recipe={**first.recipe, "members": members * len(results)},
        history=pd.concat(histories, ignore_index=True),
        provenance={name: value for name, value in first.provenance.items() if name not in ("centre", "seconds")} | told,
    )
