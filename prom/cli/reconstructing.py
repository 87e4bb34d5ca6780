"""``prom reconstruct``: an image of what a scanner measured with a mask."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

import prom
from prom import options
from prom.cli.common import check_output, check_outside, example, json_option, read_by, strict_json, threads_option
from prom.cli.types import real, whole
from prom.errors import InputError, unknown
from prom.reconstruction import RECONSTRUCTIONS
from prom.reconstruction import check as check_reconstruction

HERE = [name for name in RECONSTRUCTIONS if name not in ("view-sharing", "gridding")]  # those are of series, and off the grid


def check_ending(output: str) -> None:
    """Refuse the name of a file that is none of an image's formats, before anything is read."""
    if not output.lower().endswith(options.IMAGE_FORMATS):
        raise unknown("image format", Path(output).suffix, options.IMAGE_FORMATS)


@click.command(
    "reconstruct",
    epilog=example(
        "prom reconstruct raw.h5 --output image.nii.gz --mask mask.h5",
        "prom reconstruct raw.dat --output image.h5 --reconstruction wavelet",
        "prom reconstruct kspace.cfl --output image.nii.gz --maps maps.npy --phase smooth",
    ),
)
@click.argument("raw")
@click.option(
    "--output",
    "-o",
    required=True,
    help="The file to write: .nii.gz or .nii (magnitude, voxel sizes), .npy (complex), .h5 (complex, with mask, sensitivities and how it "
    "was made), .png (magnitude).",
)
@click.option("--mask", "asked", help="The planned mask: it is compared with the mask in the data, and the latter is used.")
@click.option(
    "--reconstruction",
    default="sense",
    show_default=True,
    help=f"The reconstruction: {', '.join(HERE)}. Without --train, sense weighs samples by their own noise and power, and "
    "the threshold of wavelet and tv is a quarter of the noise. Zero-filled makes the root sum of squares of the coils.",
)
@click.option("--train", metavar="DATASET", help="Choose the settings of the reconstruction on training slices of the same size.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Set an option of the reader of --train, as coils=keep.")
@click.option(
    "--maps",
    help="Coil sensitivities: .npy or .h5 (coils, rows, columns), .mat (rows, columns, coils), or .cfl with BART's axes; those of each "
    "slice in the order of the image. [default: those of ESPIRiT from the fully measured centre]",
)
@click.option(
    "--calibration",
    type=whole("[8, 1e4]"),
    metavar="N",
    help="Estimate sensitivities from at most N rows and columns of the centre. [default: 24]",
)
@click.option("--compress", type=whole("[1, 1024]"), metavar="N", help="Combine all coils into N virtual ones, which takes less time.")
@click.option(
    "--phase",
    default="free",
    show_default=True,
    help="free, or smooth for partial Fourier, where the image has the phase of its low resolution. For zero-filled and sense.",
)
@click.option(
    "--noise",
    type=real("(0, 1e30]"),
    help="The standard deviation of the noise in a sample; with --train for the misfit alone. [default: from a noise scan, else from outer "
    "samples]",
)
@click.option("--key", help="The name of the measurement in an HDF5 file that has several.")
@threads_option
@json_option
def reconstruct_command(raw, output, asked, reconstruction, train, settings, maps, calibration, compress, phase, noise, key, json) -> None:
    """Reconstruct RAW, Cartesian data that a scanner measured with a mask.

    RAW is ISMRMRD (.h5, .mrd), Siemens twix (.dat) or BART (.cfl with .hdr). The mask is found in the data.
    RAW has slices of one mask, or a 3D volume, which is reconstructed position by position along the readout.
    """
    check_ending(output)
    check_reconstruction(reconstruction)
    if phase not in options.PHASES:
        raise unknown("phase", phase, options.PHASES)
    if settings and not train:
        raise click.UsageError(f"--set {settings[0]}: is an option of training data; give --train, or leave it out")
    if calibration and (maps or reconstruction == "zero-filled"):
        why = f"sensitivities are given, --maps {maps}" if maps else "zero-filled needs none"
        raise click.UsageError(f"--calibration {calibration}: is for estimating sensitivities, but {why}; leave it out")
    check_output(output, raw, asked, maps, train, *read_by(settings))
    if output.lower().endswith(".h5") and Path(output).is_file() and not prom.image_files.is_image(Path(output)):
        raise click.UsageError(f"--output {output}: exists and is no image of 'prom reconstruct'; name another file")
    if train:
        check_outside(output, train)
    read = options.parse_all(settings, partial(prom.datasets.parse_option, train))
    wanted = prom.mask_files.read_with_pattern(asked) if asked else None
    sensitivities = prom.reconstruct.read_maps(maps) if maps else None
    scan = prom.raw_scan.read(raw, key, wanted and wanted[1])
    if calibration and 1 in (scan.kspace.shape[1], compress):
        what = f"{raw} has one coil" if scan.kspace.shape[1] == 1 else "--compress 1 leaves one coil"
        raise InputError(f"calibration {calibration}: is for estimating sensitivities, and {what}; leave it out")
    compared = prom.difference.difference(prom.difference.of_scan(*wanted, scan.mask), scan.mask) if wanted else None
    data = prom.load(train, "train", **read) if train else None
    most = calibration or prom.reconstruct.CALIBRATION
    images = prom.reconstruct.reconstruct(scan, reconstruction, sensitivities, data, phase, noise, most, compress)
    record = described(raw, scan, images, reconstruction, phase)
    if compared:
        record |= {"asked": asked, "equal": compared.equal, "comparison": str(compared)}
    more = {"mask": scan.mask} | ({} if images.maps is None else {"maps": images.maps})
    record["written"] = prom.image_files.write(output, images.image, scan.voxel, record, **more)
    if compared and not compared.equal:
        click.echo(f"prom: {raw} was not measured with the mask of {asked}: {compared}; the mask in the data is used", err=True)
    click.echo(strict_json({"output": output, **record}) if json else report(raw, output, scan, record, compress))


def described(raw: str, scan: prom.raw_scan.RawScan, images: prom.reconstruct.Images, reconstruction: str, phase: str) -> dict[str, object]:
    """What was found in the data and made of them, for the file and for JSON."""
    slices, coils, *matrix = scan.kspace.shape
    lines = prom.patterns.make(scan.pattern, tuple(matrix))
    return {
        "raw": raw,
        "kind": scan.kind,
        "slices": slices,
        "coils": coils,
        "matrix": matrix,
        "voxel": scan.voxel,
        "pattern": scan.pattern,
        "measured": int(lines.select(scan.mask).sum()),
        "of": lines.size,
        "true_acceleration": scan.mask.numel() / int(scan.mask.sum()),
        "centre": prom.centre.whole_centre(scan.mask),
        "one_sided": prom.reconstruct.one_sided(scan.mask),
        "averages": scan.averages,
        "noise": images.noise,
        "reconstruction": reconstruction,
        "phase": phase,
        "how": images.how,
        "notes": scan.notes,
        "versions": prom.masks.versions(),
        "commit": prom.masks.commit(),
    }


def report(raw: str, output: str, scan: prom.raw_scan.RawScan, record: dict[str, object], compress: int | None) -> str:
    """The same as text, one line each."""
    how = record["how"]
    height, width = record["matrix"]
    coils = f"{record['coils']} coil{'' if record['coils'] == 1 else 's'}"
    slices = f"{record['slices']} slice{'' if record['slices'] == 1 else 's'}"
    averages = f", averages {record['averages']:.3g}" if record["averages"] > 1 else ""
    centre = " x ".join(map(str, record["centre"]))
    lines = [
        f"{raw}: {scan.kind}, {slices} of {height} x {width} (rows x columns), {coils}{averages}",
        f"measured: {record['measured']} of {record['of']} {scan.pattern} (x{record['true_acceleration']:.2f}), fully the central {centre}",
    ]
    if "comparison" in record:
        lines.append(f"compared with {record['asked']}: {record['comparison']}")
    if record["noise"] is not None:
        lines.append(f"noise: {record['noise']:.4g}, {how['noise']}" + (f"; {how['noise scan']}" if "noise scan" in how else ""))
    if "coils" in how:
        lines.append(f"coils: {how['coils']}")
    if "sensitivities" in how:
        lines.append(f"sensitivities: {how['sensitivities']}")
    lines.append(f"reconstruction: {how['reconstruction']}")
    if "misfit" in how:
        lines.append(f"misfit: {how['misfit']}")
    lines += [f"note: {note}" for note in scan.notes]
    if how.get("noise") == prom.reconstruct.OUTERMOST and record["reconstruction"] != "zero-filled":
        lines.append("note: the outermost samples hold signal too, so the noise may be less; give --noise, or use a noise scan")
    usable = record["phase"] == "free" and record["reconstruction"] in ("zero-filled", "sense")
    if record["one_sided"] and usable and prom.reconstruct.has_centre(scan, record["reconstruction"], compress):
        lines.append(f"note: the {record['one_sided']} reach less far on one side (partial Fourier); --phase smooth uses that")
    return "\n".join([*lines, f"wrote {output}: {record['written']}"])
