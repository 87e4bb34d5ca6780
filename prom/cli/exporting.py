"""``prom export``: a mask for another program, or for a scanner."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import click

import prom
from prom import options
from prom.cli.common import check_output
from prom.cli.demands import duration
from prom.errors import InputError

STEPS = {f"{name}{end}" for name in ("partition", "row", "column") for end in ("", "_offset")}  # columns of lists
CERTAIN = (".h5", ".npy", ".mat", ".png")  # formats of which a file shows whether it is a mask

EXAMPLE = """\b
Example:
  prom export mask.h5 --output mask.npy
  prom export mask.h5 --output scan.seq --set fov=220 --set tr=8 --set te=4 --set flip=12
  prom export lines.h5 --output scan.seq --set kind=tse --set echoes=8 --set te=80
  prom export spokes.h5 --output scan.seq --set fov=220 --set order=golden
  prom export spokes.h5 --output angles.csv
  prom export mask.h5 --output order.csv --set order=radial"""


@click.command("export", epilog=EXAMPLE)
@click.argument("mask")
@click.option(
    "--output",
    "-o",
    required=True,
    help="The file to write. Its ending chooses the format: "
    f"{', '.join(options.FORMATS)}; a Pulseq sequence (.seq), or headers of ISMRMRD raw data (.mrd).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="For .seq, .mrd and .csv: kind (gre, tse), fov (mm), tr and te (ms), flip (degrees), thickness (mm), bandwidth (Hz per pixel), "
    "readout (3D: samples), oversampling (of the readout), order, shots, calibration, echoes, dummies, pulse (ms), refocusing, max_grad, "
    "max_slew, max_b1, field. A .csv has the order alone, whatever the times.",
)
def export_command(mask, output, settings) -> None:
    """Write a mask for another program or a scanner. DC is at row H // 2, column W // 2.

    For spokes, spirals and kooshball, .csv has their numbers and angles or directions. The files .npy and .mat have the mask (candidates,
    samples), after an axis of 1 for kooshball and of frames for series; .mat has the trajectory too. The file .cfl has BART's trajectory
    of the measured readouts, and .mrd that of every acquisition.
    """
    check_output(output, mask)
    if Path(output).is_file():
        _check_replaced(Path(output))
    elif output.lower().endswith(".cfl") and (header := Path(output).with_suffix(".hdr")).is_file():
        raise click.UsageError(f"--output {output}: {header} exists, and is of other data; name another file")
    result = prom.load_mask(mask)
    known = prom.protocol.NAMES
    made = prom.writing.write_scan(result, output, **options.parse_all(settings, partial(options.parse, known=known, of="a sequence")))
    click.echo(f"wrote {output}" + (f" and {Path(output).with_suffix('.hdr')}" if output.lower().endswith(".cfl") else ""))
    if hasattr(made, "sequence"):
        click.echo(described(made))


def _check_replaced(output: Path) -> None:
    """Refuse to replace what export has not written, where the format shows it."""
    ending = output.suffix.lower()
    if ending in CERTAIN:
        try:
            prom.mask_files.read_with_trajectory(output)
        except InputError as error:
            if "off the grid" not in str(error):
                raise click.UsageError(f"--output {output}: exists and is no mask; name another file") from error
    elif ending in WRITTEN:
        try:
            replaceable = WRITTEN[ending](output)
        except Exception:  # a damaged file fails in any of many ways
            replaceable = False
        if not replaceable:
            raise click.UsageError(f"--output {output}: exists and was not written by export; name another file")


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        header, first = (file.readline(1000).decode("utf-8-sig", errors="replace").strip().split(",") for _ in range(2))
    steps = {name for column in header if column.endswith("_offset") for name in (column, column.removesuffix("_offset"))}
    readouts = [{"candidate", *more} for more in ((), ("angle",), ("x", "y", "z"))]
    known = set(header) - {"frame", "shot", "echo", "calibration"} in ([steps] if steps and steps <= STEPS else readouts)
    return known and all(re.fullmatch(r"-?[\d.]*(e[-+]\d+)?", value) for value in first)


def _is_sequence(path: Path) -> bool:
    return b"\nTrueAcceleration " in path.read_bytes()


# Whether export has written a file. BART's trajectories look alike, whoever wrote them.
WRITTEN = {
    ".csv": _is_list,
    ".seq": _is_sequence,
    ".mrd": lambda path: prom.raw.is_empty(path),  # called here, so that help does not wait for it
    ".cfl": lambda path: prom.raw.is_mask_or_trajectory(path),
}


def described(scan: prom.sequence.Scan) -> str:
    """Two lines about a sequence: what it measures, and how long it takes; and a third where some scanners may refuse it."""
    plan, kind = scan.plan, scan.sequence.definitions["Kind"]
    if isinstance(plan, prom.readout_plan.ReadoutPlan):
        of, detail, first = len(plan.trajectory), f"{plan.samples} samples each", "x"
    else:
        of = plan.matrix[1] * plan.matrix[2] if plan.three_dimensional else plan.matrix[1]
        detail, first = f"{int(plan.calibration.sum())} for calibration", "readout"
        detail += f", readouts {plan.oversampling} times oversampled" if plan.oversampling > 1 else ""
    return (
        f"{kind}: {len(plan.steps)} of {of} {plan.pattern} (x{plan.acceleration:.2f}), {detail}, matrix "
        f"{' x '.join(map(str, plan.matrix[: 2 + plan.three_dimensional]))} ({first} first), field of view "
        f"{' x '.join(f'{1000 * value:g}' for value in plan.fov)} mm\n"
        f"TR {1000 * scan.tr:g} ms, TE {round(1000 * scan.te, 2):g} ms, flip {scan.flip:g} degrees, "
        f"scan time {duration(scan.duration)}"
        + (f"\nreadouts of {plan.samples} samples: some scanners want a multiple of 4" if plan.samples % 4 else "")
    )
