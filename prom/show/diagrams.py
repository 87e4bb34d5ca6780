"""Figures of a scan: its gradients and pulses in time, and who is measured when."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from prom import options
from prom.errors import InputError
from prom.scanner.plan import ScanPlan
from prom.scanner.protocol import GAMMA
from prom.scanner.readout_plan import ReadoutPlan
from prom.scanner.sequence import Scan
from prom.show.figures import COLOURS

NARROW = 5.0  # inches, below which type is smaller and numbers are fewer
SHOTS = 16  # at most so many have a number
GHOSTS = 12  # other repetitions whose encodes are drawn faintly
RF, READOUT, LINES, SLICE = "#000000", COLOURS["default"], COLOURS["paper"], COLOURS["accent"]
QUIET, MARK = "#999999", "#D55E00"
EMPTY = "#F0F0F0"
TIMES = "cividis"
PATCH = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.5}  # behind words, so that lines do not cross them


def sequence_diagram(scan: Scan, shot: int = 0, repetitions: int | None = None, width: float = 7.0) -> Figure:
    """Pulses, gradients and readouts of one shot or several, from pypulseq's waveforms, with units and the time from the excitation.

    Encodes of other shots are drawn faintly behind. Numbers in the readouts are lines, of 3D lines and partitions, 0 at DC; off the
    grid they count the candidates from 0.

    Parameters
    ----------
    scan
        A sequence, made or read from its file.
    shot
        The first that is drawn, counted from 0 without dummies.
    repetitions
        How many are drawn: by default one that has several echoes, else two.
    width
        Inches.

    Raises
    ------
    InputError
        Where there is no such shot.

    >>> import torch
    >>> from prom.baselines import as_result
    >>> from prom.scanner.sequence import make
    >>> lines = torch.arange(16) % 2 == 0
    >>> figure = sequence_diagram(make(as_result(lines.expand(12, 16).contiguous(), "half", 2, "columns")))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['RF\\n\xb5T', 'readout\\nmT/m', 'lines\\nmT/m', 'slice\\nmT/m', 'ADC']
    >>> plt.close(figure)
    """
    plan = scan.plan
    shots = int(plan.shot.max()) + 1
    shot = options.check("shot", shot, f"[0, {shots - 1}]", whole=True)
    train = int(plan.echo.max()) + 1
    wanted = repetitions if repetitions is not None else 1 if train > 1 else 2
    count = min(options.check("repetitions", wanted, "[1, 20]", whole=True), shots - shot)
    pulses = np.array(scan.sequence.rf_times()[0])[-shots:]
    begin, lead = pulses[shot], _before(scan)
    start = begin - lead
    rest = scan.tr if train == 1 else min(scan.tr, (train + 0.9) * float(scan.sequence.definitions["EchoSpacing"]))
    end = start + (count - 1) * scan.tr + rest
    waves = scan.sequence.waveforms(append_RF=True, time_range=[start + 1e-6, end - 1e-6])
    narrow = width < NARROW
    with plt.rc_context({"font.size": 7 if narrow else 9, "axes.grid": False, "axes.linewidth": 0.6}):
        figure, rows = plt.subplots(
            5,
            1,
            figsize=(width, 0.30 * width + 1.9),
            sharex=True,
            layout="constrained",
            gridspec_kw={"height_ratios": [1.5, 1, 1, 1, 0.5], "hspace": 0.02},
        )
        limits = (1000 * (start - begin), 1000 * (end - begin))
        off_grid = isinstance(plan, ReadoutPlan)
        names = ("x", "y", "z") if off_grid else ("readout", "lines", "partitions" if plan.three_dimensional else "slice")
        _trace(rows[0], *_flat_phase(waves[3], begin), "RF\n\N{MICRO SIGN}T", RF, limits)
        for axes, name, wave, colour in zip(rows[1:4], names, waves, (READOUT, LINES, SLICE), strict=False):
            time, gradient = 1000 * (wave[0].real - begin), wave[1].real / GAMMA * 1000
            _trace(axes, time, gradient, f"{name}\nmT/m", colour, limits)
        varying = range(0 if off_grid else 1, 3 if plan.three_dimensional else 2)  # gradients that differ between repetitions
        _ghosts(scan, {channel: rows[1 + channel] for channel in varying}, pulses - lead, rest, begin, shot, count)
        _readouts(rows[4], scan, rows, begin, (start, end), narrow)
        _brackets(rows[0], scan, count, train, narrow)
        rows[4].set_xlabel("time from the excitation (ms)")
        rows[4].set_xlim(limits)
        figure.align_ylabels(rows)
    return figure


def _before(scan: Scan) -> float:
    """From the start of the block of an excitation to the middle of its pulse, s."""
    first = scan.sequence.get_block(1).rf
    return first.delay + first.center


def _flat_phase(wave: np.ndarray, begin: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every pulse the amplitude in uT with its sign, and the time in ms: without the phase of the pulse, which changes from TR to TR."""
    time, signal = wave[0].real, wave[1]
    values = np.zeros(len(time))
    for part in np.split(np.arange(len(time)), np.flatnonzero(np.diff(time) > 1e-4) + 1):
        strongest = signal[part][np.abs(signal[part]).argmax()]
        values[part] = (signal[part] * np.conj(strongest) / abs(strongest)).real
    return 1000 * (time - begin), values / GAMMA * 1e6


def _trace(axes: Axes, time: np.ndarray, values: np.ndarray, name: str, colour: str, limits: tuple[float, float]) -> None:
    """A line with what is under it filled, and marks at its extremes alone."""
    time, values = np.concatenate([[limits[0]], time, [limits[1]]]), np.concatenate([[0.0], values, [0.0]])
    axes.plot(limits, (0, 0), color=QUIET, lw=0.5, zorder=0)
    axes.fill_between(time, values, color=colour, alpha=0.25, lw=0, zorder=2)
    axes.plot(time, values, color=colour, lw=0.9, zorder=3, solid_joinstyle="round")
    _fit(axes, values)
    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _fit(axes: Axes, values: np.ndarray) -> None:
    """Limits with a margin, 0 among them."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    margin = 0.15 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _ghosts(scan: Scan, rows: dict[int, Axes], starts: np.ndarray, rest: float, begin: float, shot: int, count: int) -> None:
    """Encodes of other shots, in the time of those that are drawn: ``rest`` seconds from their start on."""
    for other in np.unique(np.linspace(0, len(starts) - 1, GHOSTS).round().astype(int)):
        waves = scan.sequence.waveforms(time_range=[starts[other] + 1e-6, starts[other] + rest - 1e-6])
        for axes, wave in ((axes, waves[channel]) for channel, axes in rows.items()):
            for drawn in range(shot, shot + count):
                time = 1000 * (wave[0] - starts[other] + starts[drawn] - begin)
                axes.plot(time, wave[1] / GAMMA * 1000, color=QUIET, lw=0.5, alpha=0.5, zorder=1)
    for axes in rows.values():
        values = np.concatenate([line.get_ydata() for line in axes.lines])
        _fit(axes, values)


def _readouts(axes: Axes, scan: Scan, rows: Sequence[Axes], begin: float, span: tuple[float, float], narrow: bool) -> None:
    """The ADC: what is measured when, and through all rows the time at which it is at the middle of k-space along the readout."""
    samples, plan = scan.plan.samples, scan.plan
    echo_sample = int(scan.sequence.definitions["kSpaceCenterSample"])
    times = scan.sequence.adc_times()[0].reshape(-1, samples)
    off_grid = isinstance(plan, ReadoutPlan)
    offsets = (plan.steps if off_grid else plan.steps - plan.steps.new_tensor(plan.matrix[1:]) // 2).tolist()
    central = _echo_at_centre(plan)
    shown = [number for number, time in enumerate(times) if span[0] <= time[0] and time[-1] <= span[1]]
    for number in shown:
        first, last = (1000 * (times[number][place] - begin) for place in (0, -1))
        echo = 1000 * (times[number][echo_sample] - begin)
        centre = int(plan.echo[number]) == central
        axes.add_patch(Rectangle((first, 0), last - first, 1, facecolor=MARK if centre else QUIET, alpha=0.45 if centre else 0.3, lw=0))
        for row in rows:
            row.axvline(echo, color=MARK if centre else QUIET, lw=0.6, ls=(0, (2, 2)), zorder=0)
        text = f"{offsets[number][0]:+d}, {offsets[number][1]:+d}" if plan.three_dimensional else f"{offsets[number][0]:+d}"
        text = str(offsets[number][0]) if off_grid else text
        if not narrow or len(shown) <= 8:
            text = text.replace("-", "\N{MINUS SIGN}").replace("+0", "0")
            axes.text((first + last) / 2, 0.5, text, ha="center", va="center", bbox=PATCH)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("ADC", rotation=0, ha="right", va="center")
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set_visible(True)


def _echo_at_centre(plan: ScanPlan) -> int:
    """The echo of the line nearest to DC, as :func:`prom.scanner.ordering.trains` has it, counted from 0; -1 without trains."""
    if int(plan.echo.max()) == 0:
        return -1
    offsets = (plan.steps[:, 0] - plan.matrix[1] // 2).tolist()
    return int(plan.echo[min(range(len(offsets)), key=lambda number: (abs(offsets[number]), offsets[number]))])


def _brackets(axes: Axes, scan: Scan, count: int, train: int, narrow: bool) -> None:
    """TE, and TR or the echo spacing, above the pulses."""
    te, tr = 1000 * scan.te, 1000 * scan.tr
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    spans = [(0.0, te, 0, f"TE {te:.4g} ms")]
    if train > 1:
        spacing = 1000 * float(scan.sequence.definitions["EchoSpacing"])
        first = spacing * (round(te / spacing) if round(te / spacing) < train else 0)
        spans.append((first, first + spacing, 1, f"echo spacing {spacing:.4g} ms"))
    elif count > 1:
        spans.append((0.0, tr, 1, f"TR {tr:.4g} ms"))
    step = (0.6 if narrow else 0.45) * (high - low)
    for first, last, level, text in spans:
        height = high + step * (level + 0.2)
        axes.annotate("", (first, height), (last, height), arrowprops={"arrowstyle": "<->", "lw": 0.7, "shrinkA": 0, "shrinkB": 0})
        place = {"xytext": (0, 2.5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(text, ((first + last) / 2, height), bbox=PATCH, zorder=4, **place)
    axes.set_ylim(low, high + step * (max(level for *_, level, _ in spans) + 1))


def order_figure(plan: ScanPlan, width: float = 7.0) -> Figure:
    """Who is measured when.

    Of points: k-space with each point in the colour of its time, and how far from DC the scan is as it goes on. Of lines: the measured line
    over time, with the mask beside it; of a turbo spin echo over the echoes of each shot, counted from 1, with the echo that meets the
    centre marked.

    Parameters
    ----------
    plan
        Of :func:`prom.scanner.plan.plan`, or of a sequence.
    width
        Inches.

    Raises
    ------
    InputError
        Of readouts off the grid, whose order their angles show, and of series, whose frames are scans of their own.

    >>> import torch
    >>> from prom.baselines import as_result
    >>> from prom.scanner.plan import plan
    >>> from prom.scanner.protocol import Protocol
    >>> figure = order_figure(plan(as_result(torch.eye(16).bool(), "diagonal", 16), Protocol(order="centric")))
    >>> figure.axes[0].get_xlabel(), figure.axes[1].get_ylabel()
    ('partition, from DC', 'distance from DC')
    >>> plt.close(figure)
    """
    if isinstance(plan, ReadoutPlan):
        raise InputError(f"plan of {plan.pattern}: this figure is of lines and points; draw the angles over the order instead")
    if plan.frame is not None:
        raise InputError("plan of a series: this figure is of one frame; draw the plan of one, plan(frames_of(result)[0], protocol)")
    narrow = width < NARROW
    with plt.rc_context({"font.size": 7 if narrow else 9, "axes.titlesize": 7 if narrow else 9, "axes.grid": False, "axes.linewidth": 0.6}):
        if plan.three_dimensional:
            return _order_of_points(plan, width)
        return _order_of_lines(plan, width)


def _order_of_points(plan: ScanPlan, width: float) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(width, 0.5 * width), layout="constrained", gridspec_kw={"width_ratios": [1, 0.9]})
    offsets = (plan.steps - plan.steps.new_tensor(plan.matrix[1:]) // 2).numpy()
    share = (np.arange(len(offsets)) + 0.5) / len(offsets)
    picture = np.full(plan.shape, np.nan)
    picture[tuple(plan.steps.T.numpy())] = share
    left.set_facecolor(EMPTY)
    top, edge = (-(n // 2) - 0.5 for n in plan.shape)
    extent = (edge, edge + plan.shape[1], top + plan.shape[0], top)
    times = left.imshow(picture, cmap=TIMES, vmin=0, vmax=1, extent=extent, interpolation="nearest", aspect="auto")
    left.set_box_aspect(plan.shape[0] / plan.shape[1])
    if bool(plan.calibration.any()):
        _outline(left, plan, offsets)
    left.set(xlabel="partition, from DC", ylabel="line, from DC")
    figure.colorbar(times, ax=left, location="top", shrink=0.8, label="share of the scan")
    distance = np.hypot(*offsets.T)
    right.scatter(share, distance, c=share, cmap=TIMES, vmin=0, vmax=1, s=max(1.0, min(9.0, 4000 / len(share))), lw=0)
    right.set(xlabel="share of the scan", ylabel="distance from DC", xlim=(0, 1), ylim=(0, None))
    return figure


def _outline(axes: Axes, plan: ScanPlan, offsets: np.ndarray) -> None:
    """Around the calibration region, along the edges of its pixels."""
    inside = np.zeros(tuple(n + 2 for n in plan.shape), dtype=bool)
    inside[tuple((plan.steps[plan.calibration] + 1).T.numpy())] = True
    top, left = (-(n // 2) - 0.5 for n in plan.shape)
    for row, column in np.argwhere(inside[:, 1:] != inside[:, :-1]):
        axes.plot([left + column] * 2, [top + row - 1, top + row], color=MARK, lw=1.0)
    for row, column in np.argwhere(inside[1:] != inside[:-1]):
        axes.plot([left + column - 1, left + column], [top + row] * 2, color=MARK, lw=1.0)


def _order_of_lines(plan: ScanPlan, width: float) -> Figure:
    echoes, narrow = int(plan.echo.max()) + 1, width < NARROW
    figure, (axes, strip) = plt.subplots(
        1, 2, figsize=(width, (0.6 if narrow else 0.45) * width), sharey=True, layout="constrained", gridspec_kw={"width_ratios": [1, 0.09]}
    )
    offsets = (plan.steps[:, 0] - plan.matrix[1] // 2).numpy()
    time = plan.shot.numpy() + plan.echo.numpy() / echoes if echoes > 1 else np.arange(len(offsets), dtype=float)
    value = plan.echo.numpy() + 1 if echoes > 1 else (time + 0.5) / len(time)
    colours = plt.get_cmap(TIMES)
    norm = BoundaryNorm(np.arange(0.5, echoes + 1), colours.N) if echoes > 1 else plt.Normalize(0, 1)
    axes.axhline(0, color=QUIET, lw=0.6, zorder=0)
    if bool(plan.calibration.any()):
        inner = offsets[plan.calibration.numpy()]
        axes.axhspan(inner.min() - 0.5, inner.max() + 0.5, color=MARK, alpha=0.12, lw=0, zorder=0, label="calibration")
    if echoes > 1:
        for shot in range(int(plan.shot.max()) + 1):
            inside = plan.shot.numpy() == shot
            axes.plot(time[inside], offsets[inside], color=QUIET, lw=0.5, zorder=1)
        at_centre = plan.echo.numpy() == _echo_at_centre(plan)
        name = f"echo {_echo_at_centre(plan) + 1}: the centre"
        axes.scatter(
            time[at_centre], offsets[at_centre], s=22 if narrow else 40, facecolor="none", edgecolor=MARK, lw=0.9, zorder=3, label=name
        )
    artist = axes.scatter(time, offsets, c=value, cmap=colours, norm=norm, s=7 if narrow else 14, lw=0, zorder=2)
    axes.set(xlabel="shot" if echoes > 1 else "readout", ylabel=f"{plan.pattern.removesuffix('s')}, from DC")
    if echoes > 1:
        shots = np.arange(0, int(plan.shot.max()) + 1, 1 + int(plan.shot.max()) // SHOTS)
        axes.set_xticks(shots + 0.5 - 0.5 / echoes, shots + 1)  # below the middle of each
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handletextpad=0.5, frameon=False)
    _mask_strip(strip, plan, value, colours, norm)
    label = "echo" if echoes > 1 else "share of the scan"
    figure.colorbar(artist, ax=strip, label=label, fraction=1.0, ticks=np.arange(1, echoes + 1) if 1 < echoes <= 16 else None)
    return figure


def _mask_strip(axes: Axes, plan: ScanPlan, value: np.ndarray, colours: ListedColormap, norm: plt.Normalize) -> None:
    """The mask, each measured line in its colour."""
    lines = np.full((plan.matrix[1], 1), np.nan)
    lines[plan.steps[:, 0].numpy(), 0] = value
    top = -(plan.matrix[1] // 2) - 0.5
    axes.set_facecolor(EMPTY)
    axes.imshow(lines, cmap=colours, norm=norm, extent=(0, 1, top + plan.matrix[1], top), aspect="auto", interpolation="nearest")
    axes.set_ylim((top + plan.matrix[1], top) if plan.pattern == "rows" else (top, top + plan.matrix[1]))  # rows as in a picture
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.set_title("mask")
