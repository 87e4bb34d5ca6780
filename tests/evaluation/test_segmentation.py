"""Networks that segment: scores are MONAI's, training is repeatable and goes on where it was stopped, masks are learnt through them."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from monai.networks.nets import UNet
from torch import nn
from torch.nn import functional

import prom
from prom import InputError, SliceDataset
from prom.evaluation import segmentation
from prom.evaluation.segmentation import Segmenter
from prom.kspace import trajectories
from prom.kspace.coils import simulated
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import ZeroFilled

SMALL = {"steps": 20, "batch_size": 4, "channels": (4, 8), "learning_rate": 1e-2}


def discs(count: int, first: int = 0) -> SliceDataset:
    """Bright discs (label 1) with a brighter core (label 2) on a dim ground; the last slice of each subject is empty."""
    generator = torch.Generator().manual_seed(first)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    images, labels = [], []
    for index in range(count):
        row, column = torch.rand(2, generator=generator) * 10 + 11
        radius = ((y - row) ** 2 + (x - column) ** 2).sqrt()
        label = (radius < 8).byte() + (radius < 4).byte()
        label = label * (index % 4 != 3)
        labels.append(label)
        images.append(0.2 + 0.3 * label + 0.05 * torch.rand(32, 32, generator=generator))
    subjects = [f"s{first + index // 4}" for index in range(count)]
    names = ("background", "disc", "core")
    return SliceDataset("discs", "train", torch.stack(images)[:, None], subjects, [i % 4 for i in range(count)], torch.stack(labels), names)


TRAIN, VALIDATION = discs(24), discs(8, first=100)


class Fixed(nn.Module):
    """A network that answers with given logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.at = logits, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.at += len(images)
        return self.logits[self.at - len(images) : self.at]


@pytest.mark.parametrize("regions", [{"disc": (1,), "core": (2,)}, {"whole": (1, 2), "core": (2,)}])
def test_scores_are_monais(regions):
    exclusive = "disc" in regions
    logits = torch.randn(24, 2 + exclusive, 32, 32, generator=torch.Generator().manual_seed(0))
    table = segmentation.evaluate(Segmenter(Fixed(logits), regions), TRAIN, device="cpu")
    if exclusive:
        predicted = functional.one_hot(logits.argmax(1), 3).movedim(-1, 1)[:, 1:]
        truth = functional.one_hot(TRAIN.labels.long(), 3).movedim(-1, 1)[:, 1:]
    else:
        predicted, truth = (logits > 0).long(), torch.stack([TRAIN.labels >= 1, TRAIN.labels == 2], dim=1).long()
    for score, oracle in (("dice", compute_dice), ("iou", compute_iou)):
        expected = oracle(predicted, truth, include_background=True, ignore_empty=True).numpy()
        np.testing.assert_allclose(table[[f"{score} {name}" for name in regions]], expected, rtol=1e-6)
        means = [np.nan if np.isnan(row).all() else np.nanmean(row) for row in expected]
        np.testing.assert_allclose(table[score], means, rtol=1e-6)
    assert table["dice"].isna().sum() == 6  # the empty slices


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_training_learns_repeats_itself_and_goes_on_where_it_was_stopped(augment, tmp_path, monkeypatch):
    short = {**SMALL, "augment": augment}
    whole = segmentation.train(TRAIN, VALIDATION, **{**short, "steps": 120}, device="cpu")
    assert segmentation.evaluate(whole, VALIDATION, device="cpu")["dice"].mean() == pytest.approx(whole.metadata["validation_dice"])
    assert whole.metadata["validation_dice"] > 0.8
    mask = prom.baselines.low_pass(TRAIN, 16)
    assert segmentation.evaluate(whole, VALIDATION, mask, device="cpu")["dice"].mean() < whole.metadata["validation_dice"]

    first = segmentation.train(TRAIN, VALIDATION, **short, device="cpu")
    again = segmentation.train(TRAIN, VALIDATION, **short, device="cpu")
    other = segmentation.train(TRAIN, VALIDATION, **short, seed=1, device="cpu")
    assert same(first, again) and not same(first, other)

    checkpoint, calls = tmp_path / "state.pt", []
    evaluate = segmentation.evaluate

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(segmentation, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint)
    assert checkpoint.exists()
    with pytest.raises(InputError, match="is of a training with other data, masks or settings"):
        segmentation.train(TRAIN, VALIDATION, **short, seed=3, device="cpu", checkpoint=checkpoint)
    for other in ({"start": first, "regions": None}, {"masks": mask[None]}):
        with pytest.raises(InputError, match="is of a training with other data, masks or settings"):
            segmentation.train(TRAIN, VALIDATION, **{**short, **other}, device="cpu", checkpoint=checkpoint)
    resumed = segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint)
    assert len(calls) == 7 + 4 and same(first, resumed) and not checkpoint.exists()
    tested = len(calls)
    with pytest.raises(InputError, match="folder .* does not exist"):
        segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint, output=tmp_path / "none" / "net.pt")
    assert len(calls) == tested and not checkpoint.exists()  # before it begins
    with monkeypatch.context() as disk, pytest.raises(OSError, match="full"):
        disk.setattr(segmentation.Segmenter, "save", Mock(side_effect=OSError("full")))  # when all is done
        segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint, output=tmp_path / "net.pt")
    assert checkpoint.exists()
    again = segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint, output=tmp_path / "net.pt")
    assert same(first, again) and same(first, segmentation.load(tmp_path / "net.pt")) and not checkpoint.exists()
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        segmentation.train(TRAIN, VALIDATION, **short, device="cpu", checkpoint=checkpoint)


def test_variation_moves_image_and_label_alike_and_invents_no_class():
    vary = segmentation.augmentation()
    for seed in range(20):
        vary.set_random_state(seed=seed)
        label = TRAIN.labels[seed % 3][None]
        varied = vary({"image": label.float() + 1, "label": label})
        image, moved = varied["image"].as_tensor(), varied["label"].as_tensor()
        assert image.shape == (1, 32, 32) and set(moved.unique().tolist()) <= set(label.unique().tolist())
        levels = [float(image[moved == value].mean()) for value in (1, 2)]
        assert levels[0] < levels[1], "the brighter core is not where its label is"


def same(first: Segmenter, second: Segmenter) -> bool:
    weights = [segmenter.network.state_dict() for segmenter in (first, second)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_file_gives_the_network_back_and_runs_nothing(tmp_path):
    segmenter = segmentation.train(TRAIN, VALIDATION, **SMALL, device="cpu")
    segmenter.save(tmp_path / "net.pt")
    back = segmentation.load(tmp_path / "net.pt")
    assert same(segmenter, back) and back.regions == segmenter.regions and back.metadata == segmenter.metadata
    assert torch.equal(back.predict(VALIDATION.images), segmenter.predict(VALIDATION.images))

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": segmentation.FORMAT, "weights": Evil()}, tmp_path / "evil.pt")
    for name, content in (("evil.pt", None), ("text.pt", b"hello"), ("other.pt", "dict")):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content:
            torch.save({"format": "something"}, tmp_path / name)
        with pytest.raises(InputError, match=f"network .*{name}: is not a network file"):
            segmentation.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="no such file"):
        segmentation.load(tmp_path / "missing.pt")
    with pytest.raises(InputError, match="save it in your own way"):
        Segmenter(nn.Identity(), {"disc": (1,)}).save(tmp_path / "own.pt")
    own = [Segmenter(layer, {"disc": (1,)}).fingerprint() for layer in (nn.ReLU(), nn.Tanh(), nn.Tanh())]
    assert own[0] != own[1] == own[2]  # layers without weights


def test_labels_are_mirrored_with_their_images():
    data = replace(TRAIN, images=TRAIN.labels[:, None].float())
    pictures, classes = segmentation._batch(data, TRAIN.labels, None, iter([range(24)]), torch.Generator().manual_seed(0), None)
    assert torch.equal(pictures[:, 0], classes.float()) and not torch.equal(classes, TRAIN.labels)


def test_the_best_weights_on_validation_are_kept(monkeypatch):
    seen = []

    def validated(segmenter, *_):
        seen.append({name: value.clone() for name, value in segmenter.network.state_dict().items()})
        return [0.1, 0.9, 0.2][min(len(seen), 3) - 1]

    monkeypatch.setattr(segmentation, "_validate", validated)
    found = segmentation.train(TRAIN, VALIDATION, **{**SMALL, "steps": 60}, device="cpu")
    assert len(seen) > 2 and found.metadata["validation_dice"] == 0.9
    assert all(torch.equal(value, seen[1][name]) for name, value in found.network.state_dict().items())


def test_the_loss_is_dice_without_background_and_cross_entropy():
    logits = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    truth = functional.one_hot(TRAIN.labels.long(), 3).movedim(-1, 1)[:, 1:].float()
    shares = logits.softmax(1)[:, 1:]
    overlap, total = ((part).sum((2, 3)) for part in (shares * truth, shares + truth))
    each = (1 - (2 * overlap + 1e-5) / (total + 1e-5)).mean(dim=1)
    each = each + functional.cross_entropy(logits, TRAIN.labels.long(), reduction="none").mean(dim=(1, 2))
    table = segmentation.evaluate(Segmenter(Fixed(logits), {"disc": (1,), "core": (2,)}), TRAIN, device="cpu")
    np.testing.assert_allclose(table["loss"], each, rtol=1e-5)


def test_the_loss_of_overlapping_regions_is_dice_and_binary_cross_entropy_of_each():
    logits = torch.randn(24, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    segmenter = Segmenter(Fixed(logits), {"all": (1, 2), "core": (2,)})
    truth, shares = segmenter.targets(TRAIN.labels).float(), logits.sigmoid()
    overlap, total = ((part).sum((2, 3)) for part in (shares * truth, shares + truth))
    each = (1 - (2 * overlap + 1e-5) / (total + 1e-5)).mean(dim=1)
    each = each - torch.where(truth > 0, shares, 1 - shares).log().mean(dim=(1, 2, 3))
    table = segmentation.evaluate(segmenter, TRAIN, device="cpu")
    np.testing.assert_allclose(table["loss"], each, rtol=1e-5)
    assert segmenter.loss_of(40 * (2 * truth - 1), TRAIN.labels) < 1e-4  # what is right costs nothing, and what is wrong costs much
    assert segmenter.loss_of(torch.full_like(logits, 40), torch.zeros_like(TRAIN.labels)) > 40


def test_fine_tuning_on_undersampled_images_helps_there():
    trained = segmentation.train(TRAIN, VALIDATION, **{**SMALL, "steps": 120}, device="cpu")
    mask = prom.baselines.low_pass(TRAIN, 64)
    tuned = segmentation.train(TRAIN, VALIDATION, **{**SMALL, "steps": 60}, start=trained, masks=mask[None], device="cpu")
    before, after = (segmentation.evaluate(network, VALIDATION, mask, device="cpu")["dice"].mean() for network in (trained, tuned))
    assert after > before + 0.01
    still = segmentation.train(
        TRAIN, VALIDATION, **{**SMALL, "steps": 1, "learning_rate": 1e-12}, start=trained, masks=mask[None], device="cpu"
    )
    weights = still.network.state_dict()
    assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in trained.network.named_parameters())


def test_the_objective_is_the_frozen_networks_loss():
    segmenter = segmentation.train(TRAIN, VALIDATION, **SMALL, device="cpu")
    masks = (torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.3).float().requires_grad_()
    loss, gradient = segmenter.objective(TRAIN, "cpu").loss_and_gradient([3, 5, 1], masks.detach())
    seen = prom.undersample(TRAIN.images[[3, 5, 1]].unsqueeze(1), masks[None, :, None])
    expected = segmenter.loss(seen.flatten(0, 1), TRAIN.labels[[3, 5, 1]].repeat_interleave(2, dim=0))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, masks)[0], rtol=1e-3, atol=1e-7)
    assert not any(weight.requires_grad for weight in segmenter.network.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_network_is_monais_to_the_bit(frozen):
    """The fast activations of a frozen network change neither what it shows nor a gradient, and take the slopes that it has learnt."""
    ours = segmentation._unet({"disc": (1,), "core": (2,)}, {"channels": (4, 8, 8), "in_channels": 1})
    monais = UNet(2, 1, 3, (4, 8, 8), strides=(2, 2), num_res_units=2)
    slopes = iter(torch.tensor([0.25, -0.5, 0.0]).repeat(10))
    with torch.no_grad():
        for part in ours.modules():
            if isinstance(part, nn.PReLU):
                part.weight.fill_(next(slopes))
    monais.load_state_dict(ours.state_dict())
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for network in (ours, monais):
        network.eval().requires_grad_(not frozen)
        seen = images.clone().requires_grad_()
        logits = network(seen)
        logits.square().sum().backward()
        results.append([logits, seen.grad, *(weight.grad for weight in network.parameters() if not frozen)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


class Stripes(torch.nn.Module):
    """A network that sees faint stripes of 9 periods across the image, and nothing else."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        phase, window = 2 * torch.pi * 9 / 32 * torch.arange(-5.0, 6.0), torch.hann_window(13)[1:12]
        filters = torch.stack([window * phase.cos(), window * phase.sin()])[:, None, None] / window.sum()
        seen = torch.nn.functional.conv2d(images, filters, padding=(0, 5)).square().sum(dim=1, keepdim=True).add(1e-8).sqrt()
        return 200 * torch.cat([0.004 - seen, seen - 0.004], dim=1)


def test_masks_are_learnt_through_the_network():
    """It measures what the network looks at, which is too faint for a mask for the image."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    discs = [(y - 8 - 2 * i) ** 2 + (x - 22 + 2 * i) ** 2 < 36 for i in range(8)]
    broad = [torch.exp(-((y - 16) ** 2 + (x - 16) ** 2) / (60 + 8 * i)) for i in range(8)]
    images = torch.stack([image + 0.03 * disc * torch.cos(2 * torch.pi * 9 / 32 * x) for image, disc in zip(broad, discs, strict=True)])
    labels = {"labels": torch.stack(discs).byte(), "label_names": ("rest", "disc")}
    data = SliceDataset("stripes", "train", images[:, None], [str(i) for i in range(8)], [0] * 8, **labels)
    objective = segmentation.Segmenter(Stripes(), {"disc": (1,)}).objective(data, "cpu")
    masks = [
        prom.optimize(data, 16, recipe=replace(prom.DEFAULT, iterations=60), objective=objective, device="cpu", seed=seed).mask
        for seed in range(3)
    ]
    stripes = [int(mask[12:21, 22:29].sum() + mask[12:21, 4:11].sum()) for mask in (*masks, prom.baselines.energy(data, 16))]
    assert all(int(mask.sum()) == 64 for mask in masks) and min(stripes[:3]) > 1.5 * stripes[3]


def test_regions_are_the_values_that_occur():
    """0 and 255, or 0, 1, 2 and 4: without regions between them."""
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, 2:4], labels[1, 5:] = 255, 4
    data = SliceDataset("own", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0], labels=labels)
    assert segmentation.default_regions(data) == {"label 4": (4,), "label 255": (255,)}
    numbered = replace(data, label_names=("background", *(f"label {value}" for value in range(1, 256))))  # as readers of files name them
    assert segmentation.default_regions(numbered) == {"label 4": (4,), "label 255": (255,)}


def test_bad_input_is_one_line():
    without, network = replace(TRAIN, labels=None), Segmenter(nn.Identity(), {"disc": (1,)})
    spokes = TRAIN.along(trajectories.spokes(32, 32))  # as many readouts of as many samples as the images have rows and columns
    for call, message in (
        (lambda: segmentation.train(TRAIN, TRAIN, **SMALL), "patient s0: is in the training and in the validation slices"),
        (lambda: segmentation.train(without, VALIDATION), "has no labels"),
        (lambda: segmentation.train(TRAIN, VALIDATION, steps=0), "steps 0: must be >= 1"),
        (lambda: segmentation.train(TRAIN, VALIDATION, learning_rate=float("inf")), "learning_rate inf: must be > 0 and <= 1e6"),
        (
            lambda: segmentation.train(TRAIN, replace(VALIDATION, labels=VALIDATION.labels * 0), **SMALL),
            "no slice for validation shows any of disc, core",
        ),
        (lambda: segmentation.train(TRAIN, VALIDATION, batch_size=2.5), "batch_size 2.5: must be a whole number"),
        (lambda: segmentation.train(TRAIN, VALIDATION, channels=(16,)), "must be 2 to 10 numbers"),
        (lambda: segmentation.train(TRAIN, VALIDATION, seed=2**70), "seed .* must be a whole number of 64 bits"),
        (lambda: segmentation.train(TRAIN, VALIDATION, channels=(2,) * 7), "sides must be multiples of 64, and larger"),
        (lambda: segmentation.train(TRAIN, VALIDATION, channels=(2,) * 6), "images of 32 x 32: sides must be multiples of 32, and larger"),
        (
            lambda: segmentation.evaluate(network, TRAIN, torch.ones(4, 4).bool()),
            "does not fit discs, whose slices are",
        ),
        (lambda: segmentation.train(TRAIN, VALIDATION, masks=torch.ones(3, 3), **SMALL), r"mask of \(3, 3\): does not fit discs"),
        (lambda: segmentation.train(TRAIN, VALIDATION, masks=torch.ones(0, 32, 32), **SMALL), r"masks of \(0, 32, 32\): must be a mask of"),
        (
            lambda: segmentation.evaluate(network, TRAIN, reconstruction=ZeroFilled()),
            "reconstruction without masks",
        ),
        (lambda: segmentation.evaluate(network, spokes, torch.ones(32, 32).bool()), "readouts are off the grid, and zero-filling"),
        (lambda: network.objective(spokes), "readouts are off the grid, and zero-filling"),
        (lambda: segmentation.train(spokes, VALIDATION, masks=torch.ones(1, 32, 32).bool(), **SMALL), "readouts are off the grid"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_tumours_have_the_regions_of_brats():
    data = replace(TRAIN, name="brain_tumour", labels=torch.arange(4).byte().repeat_interleave(8)[None, :, None].expand(24, 32, 32))
    segmenter = Segmenter(nn.Identity(), segmentation.default_regions(data))
    from prom.datasets.brain_tumour import regions

    assert not segmenter.exclusive and torch.equal(segmenter.targets(data.labels), regions(data.labels))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network and its file."""
    segmenter = segmentation.train(TRAIN, VALIDATION, **{**SMALL, "steps": 2}, device="cpu")
    path = tmp_path_factory.mktemp("network") / "net.pt"
    segmenter.save(path)
    return segmenter, path


def recursive(said):
    said["story"]["steps"] = said["story"]


def doubling(said):
    """Sixty lists, each twice in the next: 2^60 entries if they were written out."""
    entry = []
    for _ in range(60):
        entry = [entry, entry]
    said["format"] = entry


CHANGES = {
    "another format": (lambda said: said.update(format="prom network 9"), "prom network 9"),
    "no format": (lambda said: said.pop("format"), "does not have format"),
    "a recursive story": (recursive, "contains itself"),
    "a doubling format": (doubling, "contains itself"),
    "a program": (lambda said: said["story"].update(steps=print), "is not a network file"),
    "huge channels": (lambda said: said["story"].update(channels=[2**40, 2**40]), "channels"),
    "large channels": (lambda said: said["story"].update(channels=[4096] * 10), "weights"),
    "no channels": (lambda said: said["story"].update(channels=[]), "channels"),
    "many levels": (lambda said: said["story"].update(channels=[1] * 1000), "channels"),
    "text as channels": (lambda said: said["story"].update(channels="48"), "channels"),
    "negative in_channels": (lambda said: said["story"].update(in_channels=-1), "in_channels"),
    "more regions": (lambda said: said["regions"].update(more=(3,)), "weights"),
    "regions of no label": (lambda said: said["regions"].update(disc=()), "no list of labels"),
    "text as labels": (lambda said: said["regions"].update(disc="12"), "no list of labels"),
    "NaN weights": (lambda said: next(iter(said["weights"].values())).fill_(torch.nan), "NaN or infinite"),
    "infinite weights": (lambda said: next(iter(said["weights"].values())).fill_(-torch.inf), "NaN or infinite"),
    "missing weights": (lambda said: said["weights"].pop("model.0.residual.bias"), "another network"),
    "expanded": (lambda said: said["weights"].update({"model.0.residual.bias": torch.zeros(1).expand(2**40)}), "model.0.residual.bias"),
    "double weights": (lambda said: said["weights"].update({"model.0.residual.bias": torch.zeros(4).double()}), "float64"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_network_files_are_not_believed(saved, tmp_path, what):
    said = torch.load(saved[1], weights_only=True)
    change, message = CHANGES[what]
    change(said)
    torch.save(said, tmp_path / "net.pt")
    with pytest.raises(InputError, match=message) as caught:
        segmentation.load(tmp_path / "net.pt")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_damaged_network_files_are_refused_or_change_nothing(saved, tmp_path):
    segmenter, whole = saved
    content, path = whole.read_bytes(), tmp_path / "net.pt"
    generator, refused = np.random.default_rng(7), 0
    for _ in range(count := int(os.environ.get("PROM_FUZZ", "150"))):
        changed = bytearray(content)
        at, run = int(generator.integers(0, len(changed))), int(generator.integers(1, 9))
        changed[at : at + run] = generator.bytes(run if generator.random() < 0.8 else int(generator.integers(0, 9)))
        path.write_bytes(changed)
        try:
            read = segmentation.load(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert same(read, segmenter) and read.metadata == segmenter.metadata and dict(read.regions) == dict(segmenter.regions)
    assert refused > count / 4


def test_compressed_or_old_archives_are_refused(saved, tmp_path):
    with zipfile.ZipFile(saved[1]) as archive, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as other:
        for part in archive.infolist():
            other.writestr(part.filename, archive.read(part))
    torch.save(torch.load(saved[1], weights_only=True), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("bomb.pt", "old.pt"):
        with pytest.raises(InputError, match="is not a network file of prom"):
            segmentation.load(tmp_path / name)


def test_images_may_come_of_a_reconstruction(saved):
    """Zero-filling as a reconstruction is the way without one; and of all samples of several coils SENSE gives the image back."""
    segmenter, mask = saved[0], prom.baselines.gaussian(VALIDATION, 3)
    by = {"reconstruction": ZeroFilled()}
    one, two = (segmentation.evaluate(segmenter, VALIDATION, mask, device="cpu", **how) for how in ({}, by))
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    given = [segmenter.objective(VALIDATION, "cpu", mask, **how) for how in ({}, by)]
    expected, found = (objective.loss_and_gradient([0, 5], mask[None].float()) for objective in given)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(given[1].curvature(), given[0].curvature(), rtol=0.05, atol=0)
    assert given[1].describe() == given[0].describe() | {"reconstruction": "ZeroFilled"}

    coils = replace(VALIDATION, images=VALIDATION.images + 0j, sensitivities=simulated(3, (32, 32)))
    everything = torch.ones(32, 32, dtype=torch.bool)
    found = segmentation.evaluate(segmenter, coils, everything, "cpu", Sense(1e-6))
    np.testing.assert_allclose(found["loss"], segmentation.evaluate(segmenter, VALIDATION, device="cpu")["loss"], rtol=1e-3)


def test_networks_are_trained_on_reconstructions():
    masks = torch.stack([prom.baselines.gaussian(TRAIN, 3, seed=seed) for seed in (0, 1)])
    short = {**SMALL, "steps": 3, "device": "cpu", "masks": masks}
    one, two = (segmentation.train(TRAIN, VALIDATION, **short, **how) for how in ({}, {"reconstruction": ZeroFilled()}))
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=1e-2, atol=1e-3)
    assert two.metadata["reconstruction"] == "ZeroFilled" and "reconstruction" not in one.metadata
    with pytest.raises(InputError, match="reconstruction without masks"):
        segmentation.train(TRAIN, VALIDATION, **SMALL, reconstruction=ZeroFilled())


def test_data_that_a_network_cannot_take_are_refused(saved):
    four = replace(TRAIN, images=TRAIN.images.expand(-1, 4, -1, -1))
    odd = replace(TRAIN, images=TRAIN.images[..., 1:], labels=TRAIN.labels[..., 1:])
    mask = torch.ones(32, 31, dtype=torch.bool)
    for data, message in (
        (four, r"discs: has 4 channel\(s\), and the network is for 1"),
        (odd, "discs: images of 32 x 31: sides must be multiples of 2, and larger, for 2 levels; size=32,32 fills up images"),
    ):
        for call in (
            lambda data=data: segmentation.evaluate(saved[0], data),
            lambda data=data: saved[0].objective(data, "cpu"),
            lambda data=data: segmentation.train(data, VALIDATION, **SMALL, start=saved[0]),
        ):
            with pytest.raises(InputError, match=message):
                call()
    with pytest.raises(InputError, match="has 4 channel"):
        segmentation.train(TRAIN, replace(four, subjects=[f"v{name}" for name in four.subjects]), **SMALL)
    with pytest.raises(InputError, match="does not fit"):
        segmentation.evaluate(saved[0], TRAIN, mask)
    with pytest.raises(InputError, match="discs: no slice shows any of disc, core, which the network segments"):
        saved[0].objective(replace(TRAIN, labels=TRAIN.labels + 5), "cpu")


THROUGH = [
    "optimize odd -a 4 --network net.pt -o out",
    "segment evaluate net.pt odd --split all",
    "segment evaluate net.pt odd --split all --mask mask.h5",
    "segment train odd --start net.pt -o out",
]
UNDER = ["segment train odd --mask mask.h5 -o out", "evaluate mask.h5 odd --split all"]  # for any number of channels


@pytest.mark.parametrize(
    ("command", "shape"),
    [*((command, (3, 32, 31)) for command in THROUGH + UNDER), *((command, (3, 2, 32, 32)) for command in THROUGH)],
)
def test_commands_refuse_data_that_do_not_fit_in_one_line(saved, tmp_path, command, shape, monkeypatch, capsys):
    saved[0].save(tmp_path / "net.pt")
    prom.baselines.as_result(torch.eye(32, dtype=torch.bool), "identity", 32).save(tmp_path / "mask.h5")
    (tmp_path / "odd").mkdir()
    for subject in range(5):
        images = np.random.default_rng(subject).random(shape)
        labels = images.reshape(3, -1, *shape[-2:])[:, 0] > 0.5
        np.savez(tmp_path / "odd" / f"{subject}.npz", images=images, labels=labels.astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prom", *command.split()])
    with pytest.raises(SystemExit) as ended:
        prom.cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("prom: ") and said.count("\n") == 1 and "odd" in said
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch):
    monkeypatch.setattr(Segmenter, "loss", lambda self, images, labels: self.network(images).mean() * torch.nan)
    with pytest.raises(InputError, match="discs: the loss is nan in step 1; use a lower learning rate"):
        segmentation.train(TRAIN, VALIDATION, **SMALL, device="cpu")


def test_a_network_that_diverged_is_a_matter_of_the_learning_rate():
    bright = [replace(part, images=part.images * 1e18) for part in (TRAIN, VALIDATION)]
    with pytest.raises(InputError, match="discs: .* use a lower learning rate"):
        segmentation.train(*bright, **{**SMALL, "learning_rate": 1e6}, device="cpu")


def labelled(names=("background", "RV", "LV"), dtype=torch.uint8) -> SliceDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (6, 16, 16), generator=generator)
    return SliceDataset("demo", "train", labels[:, None] / 2 + 0.1, list("abcdef"), [0] * 6, labels.to(dtype), names)


def test_labels_of_other_names_are_refused():
    """Else a network for the right ventricle is scored on the left one."""
    network = nn.Conv2d(1, 3, 3, padding=1)
    segmenter = segmentation.Segmenter(network, {"RV": (1,), "LV": (2,)})
    assert "dice RV" in segmentation.evaluate(segmenter, labelled())
    assert "dice RV" in segmentation.evaluate(segmenter, labelled(("background", "rv", "label 2")))
    assert "dice RV" in segmentation.evaluate(segmenter, labelled(("background", "right ventricle", "left ventricle")))
    other = labelled(("background", "LV", "RV"))
    for call in (lambda: segmentation.evaluate(segmenter, other), lambda: segmenter.objective(other, "cpu")):
        with pytest.raises(InputError, match="calls label 2 'RV', which in the network is label 1"):
            call()


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        (lambda logits: [logits], "list"),
        (lambda logits: {"out": logits}, "dict"),
        (lambda logits: logits[:, :1], r"torch.float32 of \(6, 1, 16, 16\)"),
        (lambda logits: torch.cat([logits, logits], dim=1), r"torch.float32 of \(6, 6, 16, 16\)"),
        (lambda logits: logits[..., ::2, ::2], r"torch.float32 of \(6, 3, 8, 8\)"),
    ],
)
def test_what_a_network_must_not_return(returned, what):
    class Own(nn.Conv2d):
        def forward(self, images):
            return returned(super().forward(images))

    segmenter, data = Segmenter(Own(1, 3, 1), {"RV": (1,), "LV": (2,)}), labelled()
    for call in (
        lambda: segmentation.evaluate(segmenter, data),
        lambda: segmenter.predict(data.images),
        lambda: segmenter.loss(data.images, data.labels),
    ):
        with pytest.raises(InputError, match=rf"Own: returned {what}: must be logits of \(6, 3, 16, 16\), for the background and RV, LV"):
            call()


def test_values_that_are_not_finite_have_no_score():
    segmenter = Segmenter(nn.Conv2d(1, 3, 1), {"RV": (1,), "LV": (2,)})
    data = labelled()
    data.images[4, 0, 2, 3] = torch.inf
    with pytest.raises(InputError, match="Conv2d: returned NaN or infinite values for demo, subject e, slice 0"):
        segmentation.evaluate(segmenter, data)

    nowhere = Segmenter(nn.Conv2d(1, 3, 1), {"RV": (1,), "LV": (2,)})
    with pytest.raises(InputError, match="Conv2d: returned NaN or infinite values"):
        nowhere.predict(torch.full((1, 1, 16, 16), torch.nan))

    class Certain(nn.Conv2d):
        def forward(self, images):
            return functional.one_hot(super().forward(images).argmax(dim=1), 3).movedim(-1, 1).float().log()

    assert segmentation.evaluate(Segmenter(Certain(1, 3, 1), {"RV": (1,), "LV": (2,)}), labelled())["dice"].notna().all()


def test_names_of_labels_that_do_not_name_each():
    for names, message in (
        (("background", "lesion", "lesion"), "two labels are called 'lesion'"),
        (("background", "lesion"), "label 2 has no name, label_names are background, lesion from 0"),
    ):
        with pytest.raises(InputError, match=message):
            segmentation.default_regions(labelled(names))
    one_occurs = replace(labelled(), labels=labelled().labels.clamp(max=1) * 3, label_names=("background", "lesion", "heart", "heart"))
    with pytest.raises(InputError, match="two labels are called 'heart'"):  # which of them is the region is not certain
        segmentation.default_regions(one_occurs)
    assert segmentation.default_regions(replace(labelled(), label_names=(0, 1, 2))) == {"1": (1,), "2": (2,)}
    alike = labelled(("background", "Lesion", "lesion"))
    own = Segmenter(nn.Conv2d(1, 3, 1), segmentation.default_regions(alike))
    assert {"dice Lesion", "dice lesion"} <= set(segmentation.evaluate(own, alike))
    two = Segmenter(nn.Conv2d(1, 2, 1), {"heart": (1, 2)})
    with pytest.raises(InputError, match="calls label 3 'heart', which in the network is labels 1, 2"):
        segmentation.evaluate(two, labelled(("background", "lung", "liver", "heart")))
    assert Segmenter(nn.Conv2d(1, 2, 1), {"heart": range(1, 3)}).objective(labelled(), "cpu").describe()["network"]
    with pytest.raises(InputError, match="reconstruction 'sense': is made of training data"):
        segmentation.evaluate(own, alike, torch.ones(16, 16), reconstruction="sense")


def test_regions_that_no_file_holds_are_refused_before_the_training():
    rest, held = labelled().hold_out(0.3)
    for regions, message in (
        ({"x": (1,), "y": (300,)}, "region 'y': must be labels from 0 to 255"),
        ({"x": ()}, "region 'x': must be labels"),
        ({"x": 1}, "must be lists of labels by name"),
        ({"x": "12"}, "must be lists of labels by name"),
        ({"x": (1.7,)}, "must be lists of labels by name"),
        (["x"], "must be lists of labels by name"),
        ({}, "regions: are none"),
        ({1: (1,), "1": (2,)}, "must be lists of labels by name"),
    ):
        with pytest.raises(InputError, match=message):
            segmentation.train(rest, held, steps=1, channels=(2, 4), regions=regions)
    with pytest.raises(InputError, match="labels of type torch.int64: must be whole numbers from 0 to 255"):
        replace(labelled(), labels=labelled().labels.long() * 500)
    with pytest.raises(InputError, match="labels of type torch.float32: must be whole numbers"):
        replace(labelled(), labels=labelled().labels / 2)
    assert replace(labelled(), labels=labelled().labels > 1).labels.dtype == torch.uint8
    for kind in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint16, torch.uint32):
        assert torch.equal(replace(labelled(), labels=labelled().labels.to(kind)).labels, labelled().labels)
    named = {"right ventricle": np.array([1]), "left": torch.tensor([2])}
    assert segmentation.train(rest, held, steps=1, channels=(2, 4), regions=named).regions == {"right ventricle": (1,), "left": (2,)}
    small = segmentation.train(rest, held, steps=1, channels=(2, 4))
    assert segmentation.train(rest, held, steps=1, start=small, regions=small.regions).regions == small.regions
    for given, message in (
        ({"start": small, "regions": {"x": (1,)}}, "regions: the network to start from has its own"),
        ({"start": small, "channels": (2, 4, 8)}, r"channels \[2, 4, 8\]: the network to start from has \[2, 4\]"),
        ({"start": "net.pt"}, "start of type str"),
    ):
        with pytest.raises(InputError, match=message):
            segmentation.train(rest, held, steps=1, **given)
