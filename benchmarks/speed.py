"""How fast the optimiser is, against the transforms that it cannot do without: python benchmarks/speed.py --output results/speed.json

Writes one JSON file and, beside it, a figure. Everything that is compared is measured in one process by turns, and medians are told. The
part on time to quality needs ACDC (--root data/ACDC) or --quality-of-brains and takes most of the time; without, it is left out.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import cycle, product
from pathlib import Path

import click
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

import prom
from prom import objectives
from prom.engine.replay import replayed
from prom.engine.threads import parallel, spread
from prom.files import atomic
from prom.learn.batches import ShuffledBatches
from prom.learn.iterate import iterate
from prom.learn.steps import STEP_RULES
from prom.masks import versions
from prom.masks.projection import project
from prom.masks.schedules import linear
from prom.problem import Problem
from prom.show import figures

SINGLE_PAPER = replace(prom.PAPER, members=1)
STAGES = 11  # not a multiple of the calls in a turn, so that all of them are timed


def seconds(work: Callable[[], object], device: str, rounds: int, warm: int = 2) -> list[float]:
    """What each of several calls took, the first ones left out."""
    taken = []
    for turn in range(warm + rounds):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            spent = start.elapsed_time(end) / 1e3
        else:
            begun = time.perf_counter()
            work()
            spent = time.perf_counter() - begun
        if turn >= warm:
            taken.append(spent)
    return taken


def by_turns(works: dict[str, Callable[[], object]], device: str, turns: int, rounds: int = 3) -> dict[str, float]:
    """The median time of each, in seconds. A few calls of one, then of the next, again and again: a slow minute slows all of them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            taken[name] += seconds(work, device, rounds)
    return {name: statistics.median(values) for name, values in taken.items()}


def brains(count: int, size: int) -> torch.Tensor:
    """``count`` slices of virtual brains, ``(count, 1, size, size)``."""
    images = prom.load("mni_brain").images
    return torch.nn.functional.interpolate(images[torch.arange(count) % len(images)], size=(size, size), mode="bilinear")


def stages(recipe: prom.Recipe, images: torch.Tensor, acceleration: float, device: str) -> list[tuple[int, torch.Tensor]]:
    """Iterations, evenly spaced over a run of the recipe, and theta there: as the run goes on, fewer and fewer points are undecided."""
    wanted = {round((place + 0.5) / STAGES * recipe.iterations) for place in range(STAGES)}
    found = []

    def keep(iteration: int, theta: torch.Tensor) -> None:
        if iteration in wanted:
            found.append((iteration, theta.clone()))

    short = replace(recipe, batch_size=2, polish=0)  # theta takes much the same course, in a fraction of the time
    prom.optimize(images, acceleration, recipe=short, device=device, callback=keep)
    return found


def step_of(recipe: prom.Recipe, images: torch.Tensor, acceleration: float, device: str) -> Callable[[], object]:
    """One iteration of :func:`prom.optimize`, gradient, step and projection, at the next of the :func:`stages` with each call."""
    problem = Problem.of(images, acceleration, device=device)
    generator = torch.Generator(device).manual_seed(0)
    rule = STEP_RULES[recipe.step_rule](recipe, torch.zeros(problem.pattern.shape, device=device), acceleration)
    batches = ShuffledBatches(len(images), recipe.batch_size, generator)
    if recipe.curvature:
        problem.objective.curvature()  # computed once an optimisation
    course = cycle(stages(recipe, images, acceleration, device))

    move = partial(iterate, problem, rule, recipe, generator)
    move = replayed(move, generator, problem.replayable)

    @spread()
    def step() -> object:
        iteration, theta = next(course)
        progress = iteration / recipe.iterations
        tau = linear(progress, recipe.tau_start, recipe.tau_end)
        return move(theta, next(batches), tau, problem.feasible.annealed(progress, *recipe.phases))

    return step


def transforms(images: torch.Tensor, times: int, device: str) -> dict[str, Callable[[], object]]:
    """One transform there and one back for every image, ``times`` times, and nothing else: in one call, and image by image."""
    kspace = torch.fft.fft2(images.to(device), norm="ortho")

    def there_and_back(data: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(torch.fft.ifft2(data, norm="ortho"), norm="ortho")

    def at_once() -> None:
        for _ in range(times):
            there_and_back(kspace)

    def one_by_one() -> None:
        for _ in range(times):
            for image in kspace:
                there_and_back(image)

    @spread()
    def by_workers() -> None:
        parallel(lambda image: [there_and_back(image) for _ in range(times)], kspace)

    ways = {"at once": at_once, "one by one": one_by_one}
    if device == "cpu" and torch.get_num_threads() > 1:
        ways["by workers"] = by_workers
    return ways


def unscaled(images: torch.Tensor, times: int, device: str) -> Callable[[], None]:
    """The same at once, without the factors that make a transform orthonormal. The package multiplies once for each pair."""
    kspace = torch.fft.fft2(images.to(device), norm="ortho")

    def at_once() -> None:
        for _ in range(times):
            torch.fft.fft2(torch.fft.ifft2(kspace, norm="forward"))

    return at_once


def naive_step(images: torch.Tensor, samples: int, device: str, seed: int = 0) -> Callable[[], object]:
    """Algorithm 1 as one writes it first: two Gumbel draws, centred transforms of image and mask, autograd, Adam, bisection."""
    images = images.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    theta = torch.rand(images.shape[-2:], generator=generator, device=device).clamp_(1e-6, 1 - 1e-6).requires_grad_()
    adam = torch.optim.Adam([theta], lr=0.01)
    budget = theta.numel() / 2

    def step() -> None:
        adam.zero_grad()
        logits = torch.log(theta) - torch.log1p(-theta)
        shape = (len(images), samples, *theta.shape)
        first, second = (-torch.log(-torch.log(torch.rand(shape, generator=generator, device=device) + 1e-20)) for _ in range(2))
        soft = torch.sigmoid((logits + first - second) / 0.5)
        mask = (soft >= 0.5).float() + soft - soft.detach()
        reconstruction = prom.undersample(images, mask)
        loss = (reconstruction - images.abs()).square().mean()
        loss.backward()
        adam.step()
        with torch.no_grad():
            low, high = theta.min() - 1, theta.max()
            for _ in range(50):
                middle = (low + high) / 2
                above = (theta - middle).clamp(0, 1).sum() > budget
                low, high = torch.where(above, middle, low), torch.where(above, high, middle)
            theta.copy_((theta - high.clamp(min=0)).clamp(1e-6, 1 - 1e-6))

    return step


def iterations(device: str, threads: Iterable[int], turns: int, size: int = 256, slices: int = 548) -> list[dict[str, object]]:
    """Both recipes' iterations over their bare transforms and under the naive step."""
    images = brains(slices, size)
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        for recipe in (prom.DEFAULT, SINGLE_PAPER):
            batch = images[: recipe.batch_size]
            floors = transforms(batch, recipe.samples, device)
            ours = step_of(recipe, images, 8.0, device)
            plain = unscaled(batch, recipe.samples, device)
            times = by_turns({**floors, "unscaled": plain, "ours": ours}, device, turns)
            if recipe is SINGLE_PAPER:
                few = max(turns // 4, 1)
                times["naive"] = by_turns({"naive": naive_step(batch, recipe.samples, device)}, device, few, rounds=1)["naive"]
            floor = min(times[name] for name in floors)
            rows.append(
                {
                    "recipe": recipe.name,
                    "device": device,
                    "threads": count,
                    "size": size,
                    "transforms": 2 * recipe.batch_size * recipe.samples,
                    "seconds": times,
                    "over_transforms": times["ours"] / floor,
                    "naive_over_ours": times["naive"] / times["ours"] if "naive" in times else None,
                }
            )
    return rows


def sizes(device: str, turns: int) -> list[dict[str, object]]:
    """An iteration of DEFAULT on images of other sizes."""
    rows = []
    for size in (128, 256, 320, 512):
        images = brains(64, size)
        floors = transforms(images[:16], 1, device)
        times = by_turns({**floors, "ours": step_of(prom.DEFAULT, images, 8.0, device)}, device, turns)
        rows.append({"size": size, "seconds": times["ours"], "transforms": min(times[name] for name in floors)})
    return rows


def projections(device: str) -> dict[str, float]:
    """Ten million entries."""
    theta = torch.rand(10_000_000, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 0.5
    budget = 1_250_000.0
    spent = statistics.median(seconds(lambda: project(theta, budget), device, rounds=5))
    return {"entries": theta.numel(), "seconds": spent, "off_budget": abs(float(project(theta, budget).double().sum()) / budget - 1)}


def counts(device: str, turns: int, size: int = 128) -> list[dict[str, object]]:
    """An iteration of DEFAULT on data sets of other lengths."""
    rows = []
    for count in (100, 1000, 5000, 20000):
        step = step_of(prom.DEFAULT, brains(count, size), 8.0, device)
        rows.append({"slices": count, "size": size, "seconds": by_turns({"ours": step}, device, turns)["ours"]})
    return rows


def recorded(work: Callable[[], object]) -> Callable[[], None]:
    """What ``work`` has the GPU do, in one launch."""
    work()  # plans and memory that are made once
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def alternatives(device: str, turns: int) -> dict[str, float | str]:
    """Seconds for the gradient of 16 images under one mask: ours, PyTorch's operations, these compiled, and in half precision.

    What cannot be done is told by PyTorch's own words.
    """
    images = brains(16, 256).to(device)
    objective = objectives.make("magnitude_mse", images, device)
    kspace, magnitude = objective.data[list(range(16))]
    mask = (torch.rand(256, 256, generator=torch.Generator().manual_seed(0)) < 0.3).float().to(device)

    def gradient(kspace: torch.Tensor, magnitude: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        reconstruction = torch.fft.ifft2(kspace * mask, norm="ortho")
        size = reconstruction.abs()
        back = torch.fft.fft2(reconstruction * ((size - magnitude) / size.clamp(min=1e-30)), norm="ortho")
        return (kspace.real * back.real + kspace.imag * back.imag).sum(dim=0)

    compiled = torch.compile(gradient)
    halves = kspace.to(torch.complex32), magnitude.half(), mask.half()
    works = {
        "package": spread()(lambda: objective.loss_and_gradient(list(range(16)), mask[None])),  # as a run calls it
        "PyTorch": lambda: gradient(kspace, magnitude, mask),
        "PyTorch, compiled": lambda: compiled(kspace, magnitude, mask),
        "PyTorch, half precision": lambda: gradient(*halves),
    }
    if device == "cuda":
        works["PyTorch, replayed as a graph"] = recorded(works["PyTorch"])
    said: dict[str, float | str] = {}
    for name, work in list(works.items()):
        try:
            work()
        except Exception as error:  # of a compiler that is missing, or of a type that the device's library does not have
            said[name] = str(error).splitlines()[0]
            del works[name]
    return said | by_turns(works, device, turns)


MEMORY = """
import json, sys, torch, prom
from prom.engine import kernels
from prom.runs.results import peak_memory
prom.optimize(torch.rand(2, 1, 256, 256), 8, recipe=prom.recipes.get("{recipe}"), device="{device}")  # loads what the libraries need
before = peak_memory()
images = torch.rand({slices}, 1, 256, 256)
images /= images.amax(dim=(1, 2, 3), keepdim=True)  # as data sets are: to a maximum of 1
data = images.numel() * 4 / 2**20
on_gpu = "{device}" == "cuda"
if on_gpu:
    torch.cuda.reset_peak_memory_stats()
prom.optimize(images, 8, recipe=prom.recipes.get("{recipe}"), device="{device}")
extra = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory() - before - data
print(json.dumps(dict(recipe="{recipe}", slices={slices}, data_mib=data, extra_mib=extra, before_mib=before)))
"""


def memory(device: str) -> list[dict[str, object]]:
    """The most memory beyond the images themselves, each in a process of its own, which begins with what its imports take.

    Of a GPU its own memory, which holds a copy of the images besides.
    """
    rows = []
    for recipe, slices in product(("default", "polished"), (100, 274, 548, 2000)):
        code = MEMORY.format(slices=slices, recipe=recipe, device=device)
        rows.append(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))
    return rows


def time_to_quality(train: prom.SliceDataset, device: str, seeds: int, paper_iterations: int) -> list[dict[str, object]]:
    """Seconds and training objective of the final mask for schedules of growing length, at x8."""
    objective = objectives.make("magnitude_mse", train.images, device)
    recipes = [replace(prom.DEFAULT, iterations=n) for n in (25, 50, 100, 200, 300, 400, 600, 1200, 2400)]
    recipes += [replace(prom.POLISHED, iterations=10, initialisation="energy", polish=3)]
    recipes += [replace(prom.POLISHED, iterations=25, polish=n) for n in (3, 4, 6)]
    recipes += [replace(prom.POLISHED, iterations=n) for n in (25, 50, 100)]
    recipes += [replace(SINGLE_PAPER, iterations=n) for n in (100, 300, 1000, paper_iterations) if n <= paper_iterations]
    rows = []
    for recipe, seed in tqdm([(recipe, seed) for recipe in recipes for seed in range(seeds)], desc="time to quality", disable=None):
        begun = time.perf_counter()
        mask = prom.optimize(train, 8, recipe=recipe, seed=seed, device=device).mask
        spent = time.perf_counter() - begun
        loss, _ = objectives.whole_set(objective, range(len(train)), mask.float().to(device))
        rows.append(
            {
                "dataset": train.name,
                "recipe": recipe.name,
                "iterations": recipe.iterations,
                "polish": recipe.polish,
                "seed": seed,
                "seconds": spent,
                "objective": loss,
            }
        )
        click.echo(json.dumps(rows[-1]), err=True)
        if recipe.name == "paper" and seed == 0 and recipe.iterations == paper_iterations:
            break  # one full run tells the time
    return rows


def draw(said: dict[str, object], path: Path) -> None:
    """Four pictures of what was measured: steps over transforms, growth with the size, memory, time to quality."""
    figures.use_style()
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    ax = axes[0, 0]
    rows = said["iterations"]
    names = [f"{row['recipe']}, {row['threads']} thread(s)" for row in rows]
    bars = ax.barh(names, [row["over_transforms"] for row in rows], color=[figures.COLOURS[row["recipe"]] for row in rows])
    ax.bar_label(bars, [f" {row['over_transforms']:.2f}" for row in rows])
    ax.axvline(1, color="black", ls="--", lw=1)
    ax.set_xlabel("a step over its bare transforms")
    ax.invert_yaxis()

    ax = axes[0, 1]
    points = [row["size"] ** 2 for row in said["sizes"]]
    law = [count * math.log(count) for count in points]
    scale = statistics.median(row["seconds"] / value for row, value in zip(said["sizes"], law, strict=True))
    ax.loglog(points, [1e3 * row["seconds"] for row in said["sizes"]], "o-", color=figures.COLOURS["default"], label="a step of DEFAULT")
    ax.loglog(points, [1e3 * row["transforms"] for row in said["sizes"]], "s-", color=figures.COLOURS["energy"], label="bare transforms")
    ax.loglog(points, [1e3 * scale * value for value in law], "--", color="black", lw=1, label=r"proportional to $D \log D$")
    ax.set(xlabel="points of k-space, D", ylabel="ms", xticks=points, xticklabels=[f"{row['size']}²" for row in said["sizes"]])
    ax.minorticks_off()
    ax.legend()

    ax = axes[1, 0]
    for recipe in ("default", "polished"):
        rows = [row for row in said["memory"] if row["recipe"] == recipe]
        colour = figures.COLOURS["default" if recipe == "default" else "accent"]
        ax.loglog([row["slices"] for row in rows], [row["extra_mib"] for row in rows], "o-", color=colour, label=recipe)
    ax.loglog([row["slices"] for row in rows], [2 * row["data_mib"] for row in rows], "--", color="black", lw=1, label="k-space alone")
    ax.set(xlabel="slices of 256²", ylabel="MiB beyond the images")
    ax.legend()

    ax = axes[1, 1]
    if "time_to_quality" in said:
        best = min(row["objective"] for row in said["time_to_quality"])
        for recipe, colour in (("paper", "paper"), ("default", "default"), ("polished", "accent")):
            rows = [row for row in said["time_to_quality"] if row["recipe"] == recipe]
            above = [max(row["objective"] / best - 1, 1e-4) for row in rows]
            ax.loglog([row["seconds"] for row in rows], above, "o", color=figures.COLOURS[colour], label=recipe)
        ax.axhline(0.01, color="black", ls="--", lw=1)
        ax.set(xlabel="seconds", ylabel="objective over the best, minus 1", title=f"{said['time_to_quality'][0]['dataset']}, x8")
        ax.legend()
    else:
        ax.axis("off")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def processor() -> str:
    """The name of the CPU, where the system tells."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


@click.command(help=__doc__)
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The JSON file to write.")
@click.option("--root", help="Where ACDC lies.")
@click.option("--quality-of-brains", is_flag=True, help="Without ACDC: time to quality on 548 slices of virtual brains.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--turns", default=8, show_default=True, help="How often each is measured, a few calls each time.")
@click.option("--seeds", default=1, show_default=True, help="Of the schedules whose time to quality is measured.")
@click.option("--paper-iterations", default=2500, show_default=True)
def main(output: Path, root: str | None, quality_of_brains: bool, device: str, turns: int, seeds: int, paper_iterations: int) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    cores = torch.get_num_threads()
    said = {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "cores": cores,
        "versions": versions(),
        "iterations": iterations(device, sorted({1, cores}) if device == "cpu" else [cores], turns),
    }
    torch.set_num_threads(cores)
    parts = {"sizes": lambda: sizes(device, turns), "counts": lambda: counts(device, turns)}
    parts |= {"alternatives": lambda: alternatives(device, turns), "projection": lambda: projections(device)}
    parts["memory"] = lambda: memory(device)
    if root or quality_of_brains:
        train = prom.load("acdc", root=root) if root else prom.SliceDataset("brains", "train", brains(548, 256), ["one"] * 548, [0] * 548)
        parts["time_to_quality"] = lambda: time_to_quality(train, device, seeds, paper_iterations)
    for name, part in parts.items():
        click.echo(name, err=True)
        said[name] = part()
        with atomic(output) as temporary:
            temporary.write_text(json.dumps(said, indent=1) + "\n")
    draw(said, output.with_suffix(".png"))
    for row in said["iterations"]:
        naive = f", naive step {row['naive_over_ours']:.1f} times as long" if row["naive_over_ours"] else ""
        click.echo(
            f"{row['recipe']}, {row['threads']} thread(s): {row['seconds']['ours'] * 1e3:.1f} ms, "
            f"{row['over_transforms']:.2f} times its {row['transforms']} bare transforms{naive}"
        )
    for row in said["counts"]:
        click.echo(f"default, {row['slices']} slices of {row['size']} x {row['size']}: {row['seconds'] * 1e3:.1f} ms")
    for name, value in said["alternatives"].items():
        click.echo(f"gradient of 16 images, {name}: {value if isinstance(value, str) else f'{value * 1e3:.1f} ms'}")
    click.echo(f"projection of 1e7: {said['projection']['seconds']:.3f} s, off by {said['projection']['off_budget']:.1e} of the budget")
    for row in said["memory"]:
        click.echo(f"{row['recipe']}, {row['slices']} slices, {row['data_mib']:.0f} MiB: {row['extra_mib']:.0f} MiB more")


if __name__ == "__main__":
    main()
