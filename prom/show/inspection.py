"""What would be read from a folder, and what not: shown before anything is learnt."""

from __future__ import annotations

import math
import os
from collections import Counter

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from prom.datasets import folder, measured, subjects
from prom.datasets.arrays import arranged, domain_of, without_nan
from prom.datasets.base import Part, Plan
from prom.datasets.roles import File
from prom.errors import InputError
from prom.files import atomic

SHOWN = 8  # slices in the picture, and names in a list


def inspect(path: str | os.PathLike, **settings: object) -> dict[str, object]:
    """Read a folder or file of your own images as :func:`prom.load` would, and report what was understood.

    ``settings`` are those of :func:`prom.datasets.folder.plan`. A file that cannot be read does not end it: its error is listed.

    Returns
    -------
    dict
        ``kind`` of the data set; ``read``: subjects, files, and slices or series; ``left_out`` and ``refused``: (file, reason);
        ``patients``: names by split; ``shapes``: number of slices of each (channels, H, W), or (channels, T, H, W), and type;
        ``understood``: of the first file of each kind its axes, domain, coils and the share of k-space that is 0; ``coils``: with
        coils=keep how many, the least and greatest noise of a subject, and where maps and noise come from, else None; ``volumes``: with
        volume=True the sizes and the readout, and how many slices are empty; ``range``: least and greatest magnitude; ``labels``: the
        ``values``, and of how many ``slices``, or None; ``notes``: what else is worth knowing, such as that the scanner may have
        interpolated; ``pictures``: (subject, slice (H, W)) of a few.

    Raises
    ------
    InputError
        Where nothing can be read at all, or it is unclear what belongs together.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for i in range(6):
    ...         np.save(f"{name}/scan{i}.npy", np.random.rand(4, 16, 12))
    ...     found = inspect(name)
    >>> found["patients"]["test"], found["shapes"], found["understood"][0]["axes"]
    (['scan1'], {'float32 (1, 16, 12)': 24}, 'NHW')
    """
    plan = folder.plan(path, "all", **settings)
    shapes: Counter[str] = Counter()
    refused, pictures, values, labels, labelled = [], [], [], set(), 0
    low, high, slices, subjects, skipped = math.inf, 0.0, 0, 0, 0
    counts, noise = set(), []
    wanted = {round(i) for i in np.linspace(0, len(plan.items) - 1, min(SHOWN, len(plan.items)))}
    for index, item in enumerate(tqdm(plan.items, desc=f"read {plan.name}", disable=None, leave=False)):
        try:
            part: Part = plan.read(item)
        except InputError as error:
            refused.append((item[0].path, str(error)))
            continue
        subjects, slices = subjects + (not part.continued), slices + len(part.images)
        skipped += part.skipped
        values += part.values
        if part.kspace is not None:
            counts.add(part.kspace.shape[1])
            noise.append(part.noise)
        shapes[f"{part.images.dtype} {part.images.shape[1:]}"] += len(part.images)
        magnitude = np.abs(part.images)
        if magnitude.size:
            low, high = min(low, float(magnitude.min())), max(high, float(magnitude.max()))
        if part.labels is not None:
            labels |= {int(value) for value in np.unique(part.labels)}
            labelled += len(part.labels)
        if index in wanted and len(magnitude):
            picture = magnitude[len(magnitude) // 2, 0]
            pictures.append((part.subject, picture[0] if plan.kind == "series" else picture))
    return {
        "name": plan.name,
        "kind": plan.kind,
        "source": plan.source_with(values),
        "read": {"subjects": subjects, "files": len(plan.files), "slices": slices},
        "patients": {split: list(names) for split, names in plan.sides.items()},
        "shapes": dict(shapes),
        "understood": _understood(plan, settings),
        "coils": _coils(counts, noise, values),
        "volumes": _volumes(values, skipped) if settings.get("volume") else [],
        "range": (low, high) if slices else None,
        "labels": {"values": sorted(labels), "slices": labelled} if labelled else None,
        "left_out": list(plan.left_out),
        "refused": refused,
        "notes": list(plan.notes),
        "pictures": pictures,
    }


def _coils(counts: set[int], noise: list[float], values: list[str]) -> dict[str, object] | None:
    """What is known of coils that are kept; the readers say in the source of the values how."""
    how = [known for value in dict.fromkeys(values) if (known := value.partition("coils kept: ")[2])]
    return {"counts": sorted(counts), "noise": (min(noise), max(noise)), "how": how} if counts else None


def _volumes(values: list[str], skipped: int) -> list[str]:
    """What is known of volumes; the readers say it in the source of the values."""
    known = [value for value in dict.fromkeys(values) if value.startswith("volume of ")]
    return [*known, f"{skipped} empty slice(s) left out"] if skipped else known


def _understood(plan: Plan, settings: dict[str, object]) -> list[dict[str, object]]:
    """Axes, domain, coils and empty k-space of the first file of each kind."""
    first: dict[str, File] = {}
    for item in plan.items:
        for file in item:
            first.setdefault(file.kind, file)
    rows = []
    for kind, file in first.items():
        try:
            how = (settings.get(name) for name in ("dataset_name", "axes", "part"))
            content = subjects.content_of(file, file.path, *how, *(bool(settings.get(name)) for name in ("volume", "time")))
            domain = domain_of(file.path, without_nan(content, settings.get("nan")), settings.get("domain"))
        except InputError:
            continue  # among those refused
        array = arranged(content)
        empty = float(1 - measured.filled(array).mean()) if domain == "kspace" else None
        coils = array.shape[2] if "K" in content.axes else None
        rows.append({"file": file.path, "kind": kind, "shape": content.array.shape, "axes": content.axes, "domain": domain})
        rows[-1] |= {"coils": coils, "empty": empty, "spacing": content.spacing}
    return rows


def report(found: dict[str, object]) -> str:
    """What :func:`inspect` found, in lines for a terminal.

    >>> from pathlib import Path
    >>> print(report({"name": "a", "read": {"subjects": 0, "files": 0, "slices": 0}, "patients": {}, "shapes": {}, "understood": [],
    ...               "range": None, "labels": None, "left_out": [], "refused": [(Path("a.npy"), "a.npy: is damaged")]}))
    a: 0 slices of 0 subjects are read
    refused     a.npy: is damaged
    """
    read = found["read"]
    in_time = found.get("kind") == "series"
    what = "series" if in_time else "slices"
    lines = [f"{found['name']}: {read['slices']} {what} of {read['subjects']} subjects are read"]
    for split, names in found["patients"].items():
        lines.append(f"{split:11} {len(names)} patient(s): {_listed(names)}")
    for shape, count in found["shapes"].items():
        lines.append(f"{what:11} {count} of {shape}, ({'channels, T, H, W' if in_time else 'channels, H, W'})")
    if len(found["shapes"]) > 1:
        lines.append(f"{'':11} {what} of one data set must be alike: size= makes them so, or contrast= or series= chooses")
    for row in found["understood"]:
        understood = (
            f"{row['kind']} {tuple(row['shape'])} as {', '.join(row['axes'])}: {'k-space' if row['domain'] == 'kspace' else 'images'}"
        )
        understood += f", {row['coils']} coils" if row["coils"] else ""
        understood += f", {row['empty']:.1%} of k-space is 0" if row["empty"] is not None else ""
        understood += f", pixels of {row['spacing'][0]:.3g} x {row['spacing'][1]:.3g} mm" if row["spacing"] else ""
        lines.append(f"{'understood':11} {understood}")
    lines += [f"{'volumes':11} {volume}" for volume in found.get("volumes", ())]
    if coils := found.get("coils"):
        low, high = (f"{value:.4g}" for value in coils["noise"])
        level = low if low == high else f"{low} to {high}"
        lines.append(f"{'coils kept':11} {' or '.join(map(str, coils['counts']))}; noise of a sample {level}")
        lines += [f"{'':11} {how}" for how in coils["how"]]
    if found["range"]:
        lines.append(f"{'values':11} magnitudes from {found['range'][0]:.4g} to {found['range'][1]:.4g}")
    if found["labels"]:
        lines.append(f"{'labels':11} of {found['labels']['slices']} {what}, values {_listed([str(v) for v in found['labels']['values']])}")
    lines += [f"{'note':11} {note}" for note in found.get("notes", ())]
    reasons = Counter(reason for _, reason in found["left_out"])
    for reason, count in reasons.items():
        names = [path.name for path, why in found["left_out"] if why == reason]
        lines.append(f"{'left out':11} {count} file(s), {reason}: {_listed(names)}")
    lines += [f"{'refused':11} {error}" for _, error in found["refused"][:SHOWN]]
    if len(found["refused"]) > SHOWN:
        lines.append(f"{'':11} and {len(found['refused']) - SHOWN} more")
    return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def picture(found: dict[str, object], path: str | os.PathLike) -> None:
    """A PNG of a few slices that were read, each in grey from 0 to its own maximum, named by its subject.

    Raises
    ------
    InputError
        Where there is nothing to show, or the file cannot be written.
    """
    if not found["pictures"]:
        raise InputError(f"{found['name']}: nothing was read that a picture could show")
    pictures = found["pictures"]
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (subject, image) in zip(axes, pictures, strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=float(image.max()) or 1, interpolation="nearest")
        name = subject.encode(errors="replace").decode()  # of a file whose name is not UTF-8
        ax.set_title(name if len(name) <= 28 else f"...{name[-25:]}", fontsize=8, parse_math=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def for_json(found: dict[str, object]) -> dict[str, object]:
    """What :func:`inspect` found, with paths as text and without the pictures."""
    plain = {key: value for key, value in found.items() if key != "pictures"}
    for key in ("left_out", "refused"):
        plain[key] = [{"file": str(path), "reason": reason} for path, reason in found[key]]
    plain["understood"] = [{**row, "file": str(row["file"])} for row in found["understood"]]
    return plain
