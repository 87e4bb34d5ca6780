"""Exchange of lines, against an exhaustive search that has no line of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from prom import baselines
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.learn import exchange
from prom.learn.polish import polish
from prom.objectives import ImageLoss, whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import ZeroFilled


def oracle(columns: set[int], images: torch.Tensor) -> float:
    """Mean absolute error of zero-filled magnitudes, by numpy."""
    pictures = images[:, 0].double().numpy()
    kspace = np.fft.fftshift(np.fft.fft2(pictures), axes=(-2, -1))
    mask = np.isin(np.arange(pictures.shape[-1]), list(columns))
    seen = np.abs(np.fft.ifft2(np.fft.ifftshift(kspace * mask, axes=(-2, -1))))
    return float(np.abs(seen - pictures).mean())


def columns_of(mask: torch.Tensor) -> set[int]:
    return set(mask[0].nonzero().flatten().tolist())


def lines(chosen: list[int], side: int = 32) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[:, chosen] = True
    return mask


@pytest.mark.parametrize("start", [[16, 17, 18, 19, 20, 21], [0, 5, 10, 16, 20, 31]])
def test_in_the_end_no_exchange_helps(start, blobs, monkeypatch):
    """With every outsider tried and every image looked at; from two sets of lines that do not suit the images."""
    monkeypatch.setattr(exchange, "CANDIDATES", 32)
    objective = ImageLoss(blobs.images, torch.nn.functional.l1_loss)
    better = exchange.exchange(lines(start), objective, range(len(blobs)))
    found = columns_of(better)
    assert len(found) == len(start) and torch.equal(better, lines(sorted(found)))
    reached = oracle(found, blobs.images)
    assert reached < oracle(set(start), blobs.images)
    for leaving, taken in itertools.product(found, set(range(32)) - found):
        assert oracle(found - {leaving} | {taken}, blobs.images) > reached * (1 - 1e-5), (leaving, taken)


def test_the_loss_never_rises_and_nothing_is_random(blobs):
    objective = ImageLoss(blobs.images, torch.nn.functional.l1_loss)
    start = baselines.equispaced(blobs, 4, pattern="columns")
    one, two = (exchange.exchange(start, objective, range(len(blobs))) for _ in range(2))
    assert torch.equal(one, two) and int(one.sum()) == int(start.sum())
    assert oracle(columns_of(one), blobs.images) < oracle(columns_of(start), blobs.images)


def test_rows_of_turned_images_are_the_columns(blobs):
    start = lines([10, 12, 16, 19])
    upright = exchange.exchange(start, ImageLoss(blobs.images, torch.nn.functional.l1_loss), range(len(blobs)))
    turned = ImageLoss(blobs.images.mT.contiguous(), torch.nn.functional.l1_loss)
    rows = exchange.exchange(start.mT, turned, range(len(blobs)), "rows").mT
    assert torch.equal(rows, lines(sorted(columns_of(rows))))  # two opposite lines are worth the same, and rounding chooses one
    assert oracle(columns_of(rows), blobs.images) == pytest.approx(oracle(columns_of(upright), blobs.images), rel=1e-5)


def test_what_a_few_images_gain_is_not_lost_by_all(blobs, monkeypatch):
    monkeypatch.setattr(exchange, "SCREENING_IMAGES", 1)
    fine = (0.5 + 0.4 * torch.cos(2 * torch.pi * 9 * torch.arange(32) / 32)).expand(3, 1, 32, 32)
    objective, start = ImageLoss(torch.cat([blobs.images[:1], fine]), torch.nn.functional.l1_loss), lines([7, 15, 16, 25])
    found = exchange.exchange(start, objective, range(4))
    before, after = (whole_loss(objective, range(4), mask.float()) for mask in (start, found))
    assert after <= before * (1 + 1e-6)


def test_images_held_out_have_a_veto(blobs):
    """Images whose content lies elsewhere lose by what the others gain; with a veto they do not."""
    fine = (0.5 + 0.4 * torch.cos(2 * torch.pi * 9 * torch.arange(32) / 32)).expand(3, 1, 32, 32)
    objective = ImageLoss(torch.cat([blobs.images, fine]), torch.nn.functional.l1_loss)
    start, seen, held = lines([7, 15, 16, 25]), range(len(blobs)), range(len(blobs), len(blobs) + 3)  # 16 - 9, 16 + 9: theirs
    free, kept = exchange.exchange(start, objective, seen), exchange.exchange(start, objective, seen, held=held)
    before = oracle(columns_of(start), fine)
    assert oracle(columns_of(free), fine) > before + 0.01 and oracle(columns_of(kept), fine) <= before + 1e-6


def test_bad_input(blobs):
    objective = ImageLoss(blobs.images, torch.nn.functional.l1_loss)
    with pytest.raises(InputError, match="use prom.polish"):
        exchange.exchange(baselines.energy(blobs, 8), objective, range(4), "points")
    for mask, message in (
        (lines([3]).mT, "columns that are measured in part"),
        (lines([3]).float(), "must be bool"),
        (2.0 * lines([3]).numpy(), "mask with the value 2: must have 0 and 1 only"),
        (lines([3], 16), "does not fit"),
    ):
        with pytest.raises(InputError, match=message):
            exchange.exchange(mask, objective, range(4))
    for arguments, message in (
        (([99],), "seen 99: must be"),
        (([0], "columns", [-1]), "held -1: must be"),
        (([True, False],), "seen True: must be"),
        (([0.5],), "seen 0.5: must be"),
        (([False],), "seen False: must be"),
        ((torch.tensor([True, False]),), "seen True: must be"),
        ((torch.tensor([[0, 1]]),), "seen .0, 1.: must be"),
        ((3,), "seen 3: must be"),
        ((torch.tensor(3),), "seen 3: must be"),
    ):
        with pytest.raises(InputError, match=message):
            exchange.exchange(lines([3]), objective, *arguments)
    with pytest.raises(InputError, match="objective 'magnitude_mse': must be one that has its images"):
        exchange.exchange(lines([3]), "magnitude_mse", [0])
    series = SliceDataset(
        "s", "train", torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), ["a", "b"], [0, 0], kind="series"
    )
    moving = torch.zeros(8, 8, 8, dtype=torch.bool)
    moving[:, :, [3, 4]] = True
    with pytest.raises(InputError, match="pattern columns: exchange is for lines along one axis, the same in all frames; use prom.polish"):
        exchange.exchange(moving, Reconstructed(series, Sense(1e-3)), [0, 1])
    still = exchange.exchange(moving, Reconstructed(series, Sense(1e-3)), [0, 1], "still-columns")
    assert still.sum() == moving.sum() and (still == still[:1, :1]).all()
    assert torch.equal(exchange.exchange(lines([3]), objective, list(torch.arange(2))), exchange.exchange(lines([3]), objective, [0, 1]))
    with pytest.raises(InputError, match="seen: are no images"):
        exchange.exchange(lines([3]), objective, [])
    assert torch.equal(exchange.exchange(lines([3]).numpy(), objective, iter([0])), exchange.exchange(lines([3]), objective, [0]))


@pytest.mark.parametrize("criterion", ["psnr", lambda x, y: (x - y).square().mean() - 1])
def test_a_loss_below_0_ends_too(criterion):
    """Opposite lines of real images have the same loss: where it is negative, 1e-6 of it is not a gain."""
    window = torch.hann_window(16).outer(torch.hann_window(16))
    images = window * torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    data, mask = SliceDataset("demo", "train", images, list("abc"), [0] * 3), torch.zeros(16, 16, dtype=torch.bool)
    mask[:, [8, 9]] = True
    objective = Reconstructed(data, ZeroFilled(), criterion=criterion)
    assert torch.equal(polish(mask, data, "columns", objective, evaluations=20), mask)
    evaluate, calls = objective.loss, []

    def counted(*given):
        calls.append(1)
        assert len(calls) < 500, "it goes on and on"
        return evaluate(*given)

    objective.loss = counted
    assert torch.equal(exchange.exchange(mask, objective, range(3)), mask) and calls


def test_a_start_of_infinite_loss_is_left():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outer = torch.zeros(8, 8, dtype=torch.bool)
    outer[:, :2] = True

    def criterion(x, y):
        error = (x - y).square().mean()
        return torch.where(error > 0.15, error + float("inf"), error)

    found = exchange.exchange(outer, ImageLoss(images, criterion), range(4))
    assert found[0].nonzero().flatten().tolist() == [3, 4]
