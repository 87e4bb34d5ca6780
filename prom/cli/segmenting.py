"""``prom segment``: networks that segment, trained and scored."""

from __future__ import annotations

from pathlib import Path

import click

import prom
from prom.cli.common import check_output, check_outside, example, json_option, people, strict_json, threads_option
from prom.cli.inputs import input_options, seed_option
from prom.cli.types import real, whole
from prom.errors import InputError
from prom.files import check_writable


@click.group("segment")
def segment_group() -> None:
    """Train a network that segments fully sampled images, and score it on undersampled ones."""


@segment_group.command(
    "train",
    epilog=example(
        "prom segment train mni_brain --output net.pt",
        "prom segment train mni_brain --start net.pt --mask mask.h5 --output tuned.pt",
    ),
)
@input_options(split="train")
@click.option("--steps", type=whole("[1, 1e9]"), default=900, show_default=True, help="The number of batches.")
@click.option("--batch-size", type=whole("[1, 1e6]"), default=12, show_default=True, help="The number of slices in a batch.")
@click.option(
    "--learning-rate",
    type=real("(0, 1e6]"),
    default=1.5e-3,
    show_default=True,
    help="The learning rate of Adam at the start; it falls to 0 along a cosine.",
)
@click.option("--start", help="Fine-tune this network instead of training a new one.")
@click.option("--mask", "masks", multiple=True, help="Undersample every image by one of these masks.")
@click.option("--augment", is_flag=True, help="Vary the images at random, as nnU-Net does. This helps with few patients and more steps.")
@seed_option
@threads_option
@click.option("--device", default="auto", show_default=True, help="The device: auto, cpu, cuda, or cuda:1 for the second GPU.")
@click.option("--output", "-o", required=True, help="The network file to write (.pt). An interrupted training resumes from OUTPUT.part.")
@json_option
def segment_train_command(dataset, steps, batch_size, learning_rate, start, masks, augment, seed, device, output, json) -> None:
    """Train a U-Net on the labelled slices of DATASET. A fifth of the patients is held out to choose the best weights."""
    check_output(output, start, *masks, *dataset.files)
    if Path(output).suffix != ".pt":
        check_outside(output, dataset.place)
    check_writable(f"{output}.part")
    prom.device.choose_device(device)
    _check_replaced(output)
    import torch

    seen = [prom.mask_files.read(mask) for mask in masks]
    first = prom.segmentation.load(start) if start else None
    data = dataset()
    seen = torch.stack([prom.masks.as_mask(mask, data.shape, data.name) for mask in seen]) if seen else None
    rest, held = data.hold_out(0.2)
    given = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "start": first, "masks": seen, "seed": seed}
    network = prom.segmentation.train(rest, held, **given, augment=augment, device=device, checkpoint=f"{output}.part", output=output)
    report = {"output": output, "regions": list(network.regions), "slices": len(rest), "slices_validation": len(held), **network.metadata}
    if json:
        click.echo(strict_json(report))
        return
    click.echo(
        f"wrote {output}: segments {', '.join(network.regions)}; Dice {network.metadata['validation_dice']:.3f} on {len(held)} slices"
    )


def _check_replaced(output: str) -> None:
    """Refuse to replace what is no network."""
    if Path(output).is_file():
        try:
            prom.segmentation.load(output)
        except InputError as error:
            raise click.UsageError(f"--output {output}: exists and is no network of 'prom segment'; name another file") from error


@segment_group.command("evaluate", epilog=example("prom segment evaluate net.pt mni_brain --mask mask.h5"))
@click.argument("network")
@input_options(split="test")
@click.option("--mask", help="Undersample with this mask; without it the images are fully sampled.")
@threads_option
@json_option
def segment_evaluate_command(network, dataset, mask, json) -> None:
    """Score the segmentations that NETWORK makes of DATASET: mean Dice coefficient and intersection over union over slices."""
    segmenter = prom.segmentation.load(network)
    sampled = prom.mask_files.read(mask) if mask else None
    data = dataset()
    table = prom.segmentation.evaluate(segmenter, data, sampled)
    mean = table.drop(columns=["subject", "slice"]).mean()
    true = sampled.numel() / int(sampled.sum()) if mask else 1.0
    if json:
        report = {"network": network, "mask": mask, "true_acceleration": true, "dataset": data.name, "split": data.split}
        click.echo(strict_json({**report, "slices": len(data), "scored": int(table["dice"].notna().sum()), **mean}))
        return
    click.echo(f"{data.name} {data.split}: {len(data)} slices of {people(data.number_of_subjects, len(data.patient_names()))}, x{true:.2f}")
    for name in ("", *(f" {region}" for region in segmenter.regions)):
        click.echo(f"{name.strip() or 'mean'}: Dice {mean[f'dice{name}']:.4f}, IoU {mean[f'iou{name}']:.4f}")
