"""The explorer: views are the package's own numbers, the page holds every choice, and the widgets follow their controls."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prom
from prom import baselines
from prom.datasets import SliceDataset
from prom.errors import InputError
from prom.evaluation import segmentation
from prom.evaluation.noise import g_factor
from prom.kspace.coils import simulated
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.zero_filled import ZeroFilled
from prom.show import views, widgets

sys.path.insert(0, str(Path(__file__).parents[1] / "book"))

from browser import opened


class Threshold(torch.nn.Module):
    """A network that knows: everything brighter than 0.5 is the region."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - images, images - 0.5], dim=1)


@pytest.fixture
def labelled(blobs) -> SliceDataset:
    return replace(blobs, labels=(blobs.images[:, 0] > 0.5).byte(), label_names=("background", "bright"))


@pytest.fixture
def network() -> segmentation.Segmenter:
    return segmentation.Segmenter(Threshold(), {"bright": (1,)})


@pytest.fixture
def coils(labelled) -> SliceDataset:
    return replace(labelled, images=labelled.images + 0j).with_coils(simulated(4, (32, 32)), noise=0.01)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The learnt methods, a few iterations long."""
    for name, recipe in {"scale-invariant ProM": prom.DEFAULT, "polished ProM": prom.POLISHED}.items():
        monkeypatch.setitem(widgets.METHODS, name, widgets._learnt(replace(recipe, iterations=12)))


def read(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_scores_are_those_of_the_package(labelled, network):
    mask = baselines.energy(labelled, 8)
    for index in (0, 7):
        scores = views.look(labelled, index, mask, network).scores
        row = prom.evaluate(mask, labelled).iloc[index]
        assert {name: scores[name] for name in ("psnr", "ssim", "nmse")} == pytest.approx(row[["psnr", "ssim", "nmse"]].to_dict(), rel=1e-5)
        assert scores["dice"] == pytest.approx(segmentation.evaluate(network, labelled, mask)["dice"][index])
        assert scores["acceleration"] == 8


def test_pictures_are_shares_of_the_maximum(blobs):
    mask = baselines.low_pass(blobs, 4)
    image = blobs.images[3, 0]
    view = views.look(blobs.scaled(50.0), 3, mask)
    torch.testing.assert_close(view.target, image / image.max())
    torch.testing.assert_close(view.image, prom.undersample(image, mask) / image.max(), atol=1e-5, rtol=1e-5)
    assert torch.equal(view.error, (view.image - view.target).abs()) and view.error.max() > 0.01


def test_stray_light_of_a_comb(blobs):
    """Every fourth of 32 columns: equal peaks 8, 8 and 16 pixels away, so that half of what is astray lies within 8."""
    comb = torch.zeros(32, 32, dtype=torch.bool)
    comb[:, ::4] = True
    view = views.look(blobs, 0, comb)
    assert sorted((view.spread > -1).nonzero().tolist()) == [[16, 0], [16, 8], [16, 16], [16, 24]]
    assert view.scores["stray"] == 8


def test_the_same_amount_goes_astray_through_every_mask(blobs):
    energies = []
    for mask in (baselines.energy(blobs, 4), baselines.gaussian(blobs, 4, protect_centre=True), baselines.equispaced(blobs, 4)):
        energies.append(float((10 ** (views.look(blobs, 0, mask).spread / 10)).sum()))
    assert energies == pytest.approx([4.0] * 3, rel=1e-3)  # in units of the pixel's own: D / S


def test_a_network_that_knows_makes_no_mistake_on_a_full_mask(labelled, network):
    full, some = (views.look(labelled, 0, mask, network) for mask in (torch.ones(32, 32, dtype=torch.bool), baselines.energy(labelled, 32)))
    assert full.scores["dice"] == 1 and full.scores["wrong"] == 0 and torch.equal(full.regions, labelled.labels[0].int())
    assert 0 < some.scores["wrong"] < 1 and some.scores["dice"] < 1
    wrong = read(views.pictures(some, "energy oracle", 32)["wrong"].png) == 2
    assert np.array_equal(wrong, (some.regions != some.truth).numpy())


def test_nested_regions_show_the_innermost():
    nested = torch.tensor([[[[1, 1, 0]], [[1, 0, 0]]]], dtype=torch.bool)  # two regions, three pixels
    assert views._numbered(nested).tolist() == [[2, 1, 0]]


def test_pngs_hold_the_numbers(labelled, network):
    view = views.look(labelled, 2, baselines.energy(labelled, 8), network)
    made = views.pictures(view, "energy oracle", 8, "slice 1")
    assert list(made) == [part for part in views.TITLES if part != "noise"]
    assert np.array_equal(read(made["mask"].png) > 0, view.mask.numpy())
    assert np.abs(read(made["image"].png) / 255 - view.image.clamp(0, 1).numpy()).max() < 0.51 / (views.GREYS - 1) + 0.5 / 255
    steps = (view.error / views.ERRORS).clamp(0, 1) * (views.LEVELS - 1)
    assert np.abs(read(made["error"].png) - steps.numpy()).max() <= 0.5 + 1e-5
    assert read(made["spread"].png).shape == (16, 16) and read(made["spread"].png)[8, 8] == views.LEVELS - 1
    assert np.array_equal(read(made["regions"].png), view.regions.numpy())


def test_words_say_what_is_seen(blobs):
    view = views.look(blobs, 2, baselines.energy(blobs, 8))
    made = views.pictures(view, "energy oracle", 8, "slice 1")
    assert all(name in picture.alt for name in ("energy oracle", "x8") for key, picture in made.items() if key != "target")
    for key in ("image", "error"):
        assert (
            f"{view.scores['psnr']:.1f} dB" in made[key].alt
            and f"{view.scores['ssim']:.3f}" in made[key].alt
            and "slice 1" in made[key].alt
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(32, 32, dtype=torch.bool)}, "measures nothing"),
        ({"mask": torch.ones(16, 16, dtype=torch.bool)}, "does not fit"),
        ({"channel": 1}, "channel 1: blobs has channels 0 to 0"),
        ({"index": 24}, "index 24: must be "),
        ({"data": SliceDataset("dark", "test", torch.zeros(1, 1, 32, 32), ["a"], [0])}, "channel 0 is 0 everywhere"),
        ({"segmenter": segmentation.Segmenter(Threshold(), {"bright": (1,)})}, "no labels"),
    ],
)
def test_what_cannot_be_looked_at(change, message, blobs):
    with pytest.raises(InputError, match=message):
        views.look(**({"data": blobs, "index": 0, "mask": torch.ones(32, 32, dtype=torch.bool)} | change))


@pytest.mark.parametrize("method", widgets.METHODS)
@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_every_method_keeps_the_budget(method, pattern, blobs):
    if method == "Poisson disc" and pattern != "points":
        with pytest.raises(InputError, match="Poisson disc has points"):
            widgets.make_mask(method, blobs, 8, pattern)
        return
    mask = widgets.make_mask(method, blobs, 8, pattern)
    assert mask.shape == (32, 32) and mask.dtype == torch.bool and int(mask.sum()) == 128


def test_unknown_method(blobs):
    with pytest.raises(InputError, match="did you mean 'low-pass'"):
        widgets.make_mask("lowpass", blobs, 8)


# Several coils


@pytest.mark.parametrize("reconstruction", [Sense(1e-3), Sparse("tv", steps=4), ZeroFilled()])
def test_a_reconstruction_is_seen_and_scored(reconstruction, coils, network):
    mask = baselines.gaussian(coils, 4, protect_centre=True)
    data = coils.scaled(50.0)
    view = views.look(data, 3, mask, network, reconstruction=reconstruction)
    row = prom.evaluate(mask, data, reconstruction=reconstruction).iloc[3]
    assert {name: view.scores[name] for name in ("psnr", "ssim", "nmse")} == pytest.approx(
        row[["psnr", "ssim", "nmse"]].to_dict(),
        rel=1e-4,  # one image alone stops at another iteration than with others, within the solver's tolerance
    )
    assert view.scores["dice"] == segmentation.evaluate(network, data, mask, "cpu", reconstruction)["dice"][3]
    assert float(10 * torch.log10(1 / view.error.square().mean())) == pytest.approx(view.scores["psnr"], abs=0.3)  # but for clamping
    assert torch.equal(view.spread, views.look(data, 3, mask).spread)
    pictures = views.pictures(view, "Gaussian", 4, "slice 1", "total variation")
    assert pictures["image"].title == "Total variation" and "zero-filled" in pictures["spread"].alt.lower()
    assert all("total variation" in pictures[part].alt for part in ("image", "error", "regions", "wrong"))


def test_the_map_of_noise_stands_for_the_point_spread(coils):
    sense, mask = Sense(1e-3), baselines.equispaced(coils, 4)
    noise = g_factor(sense, mask, coils.maps([0])[0], 8)
    made = views.pictures(views.look(coils, 0, mask, reconstruction=sense), "lines", 4, "slice 1", "SENSE", noise)
    assert list(made) == ["mask", "noise", "target", "image", "error"]
    steps = (noise / views.AMPLIFIED).clamp(0, 1) * (views.LEVELS - 1)
    assert np.abs(read(made["noise"].png) - steps.numpy()).max() <= 0.5 + 1e-5
    assert f"largest {noise.max():.2f}" in made["noise"].alt and "regularisation" in made["noise"].alt


def test_reconstructions_can_be_chosen_for_coils(coils, monkeypatch):
    asked = []
    monkeypatch.setitem(widgets.RECONSTRUCTIONS, "wavelets", lambda train: asked.append(train) or Sparse("tv", steps=4))
    train = coils.select([0, 1])
    explorer = widgets.explore(coils, train)
    offered = explorer.controls["reconstruction"]
    assert list(offered.options) == ["zero-filled", "SENSE", "wavelets", "total variation"] and offered in explorer.children
    plain = explorer.view
    offered.value = "SENSE"
    assert explorer.view.scores["psnr"] > plain.scores["psnr"] + 1 and torch.equal(explorer.view.mask, plain.mask)
    assert "g-factor" in explorer.children[-1].value and "Point spread" not in explorer.children[-1].value
    offered.value = "wavelets"
    explorer.controls["slice"].value = 0
    assert [data is train for data in asked] == [True] and "Wavelets" in explorer.children[-1].value
    offered.value = "zero-filled"
    explorer.controls["slice"].value = len(coils) // 2
    assert explorer.view.scores == plain.scores


def test_what_is_offered_hangs_on_the_data(blobs, coils):
    assert "reconstruction" not in widgets.explore(blobs).controls
    quiet = replace(coils, noise=None)
    assert "SENSE" not in widgets.explore(coils, quiet).controls["reconstruction"].options


def test_a_page_of_reconstructions_holds_every_choice(coils, blobs, network):
    images = {"coils": coils.select([0]), "one": replace(blobs.select([1]), images=blobs.images[[1]] + 0j)}
    masks = {(name, 4): widgets.make_mask(name, blobs, 4) for name in ("low-pass", "energy oracle")}
    offered = {"zero-filled": None, "SENSE & <co>": Sense(1e-2)}
    html = widgets.page(images, masks, network, reconstructions=offered)
    content, script = content_of(html), html.split("<script>")[1]
    assert len(content["frames"]) == 8 and "SENSE &amp; &lt;co&gt;" in content["form"] and 'name="reconstruction"' in content["form"]
    for name, data in images.items():
        for by, reconstruction in offered.items():
            frame = content["frames"][f"{name}|low-pass|4|{by}"]
            expected = prom.evaluate(masks["low-pass", 4], data, reconstruction=reconstruction)["psnr"].iloc[0]
            assert frame["scores"]["psnr"] == pytest.approx(expected, abs=1e-3)
            assert ("noise" in frame, "spread" in frame) == ((True, False) if reconstruction else (False, True))
    hidden = re.findall(r'data-part="(\w+)" hidden', html)
    assert hidden == ["noise", "truth", "regions", "wrong"] and script.count('chosen("reconstruction")') == 2


def test_one_reconstruction_is_no_choice(choices, coils):
    images, masks = choices
    assert widgets.page(images, masks, reconstructions=None) == widgets.page(images, masks)
    html = widgets.page({"coils": coils.select([0])}, masks, reconstructions={"SENSE": Sense(1e-2)})
    assert "reconstruction" not in content_of(html)["form"] and 'data-part="noise"' in html and ">SENSE</div>" in html
    for word in widgets.CHOICE:
        assert word not in html
    with pytest.raises(InputError, match="none is given"):
        widgets.page(images, masks, reconstructions={})


# The page


@pytest.fixture
def choices(labelled, blobs) -> tuple[dict, dict]:
    images = {"a & <b>": labelled.select([0]), "without labels": blobs.select([5])}
    methods = ("low-pass", "energy oracle")
    return images, {(method, alpha): widgets.make_mask(method, blobs, alpha) for method in methods for alpha in (4, 6.5)}


def content_of(html: str) -> dict:
    return json.loads(re.search(r"content = (\{.*\});\n", html)[1])


def test_the_page_holds_every_choice(choices, network):
    images, masks = choices
    html = widgets.page(images, masks, network)
    content = content_of(html)
    assert len(content["frames"]) == 8 and len(content["masks"]) == 4
    for (method, alpha), mask in masks.items():
        key = f"{method}|{alpha:g}"
        assert np.array_equal(read(base64.b64decode(content["masks"][key]["mask"][0])) > 0, mask.numpy())
        for name, data in images.items():
            frame = content["frames"][f"{name}|{key}"]
            assert frame["scores"]["psnr"] == pytest.approx(prom.evaluate(mask, data)["psnr"].iloc[0], abs=1e-3)
            assert ("regions" in frame) == ("dice" in frame["scores"]) == (data.labels is not None)
    assert (
        "http" not in html and "a &amp; &lt;b&gt;" in html and "<b>" not in html.split("<script>")[0].split("<form")[1].split("</form>")[0]
    )


def test_without_scripts_the_first_choice_is_seen(choices):
    images, masks = choices
    html = widgets.page(images, masks, start=("without labels", "energy oracle", 6.5)).split("<script>")[0]
    key = "energy oracle|6.5"
    content = content_of(widgets.page(images, masks))
    for part in ("image", "error"):
        assert content["frames"][f"without labels|{key}"][part][0] in html
    assert content["masks"][key]["mask"][0] in html and "<select" not in html and "Scripts are off" in html
    assert "segmentation" not in html  # no such task without a network


def test_the_same_page_twice_is_the_same(choices):
    assert widgets.page(*choices) == widgets.page(*choices)


def test_names_and_regions_of_every_kind_can_be_chosen(labelled, blobs, network, tmp_path):
    """Blanks in names, a slice without any region, and one page twice in a document."""
    empty = replace(labelled.select([1]), labels=torch.zeros(1, 32, 32, dtype=torch.uint8))
    images = {" two  blanks <!--<script>": labelled.select([0]), "no region ": empty}
    masks = {(method, 4): widgets.make_mask(method, blobs, 4) for method in ("low-pass", "energy oracle")}
    html = widgets.page(images, masks, network)
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{html}{html}")
    with opened() as context:
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        for explorer in page.locator(".prom-explorer").all():
            explorer.locator("select[name=picture]").select_option(index=1)
            assert explorer.locator("[data-part=image] img").get_attribute("alt").startswith("Zero-filled no region  by low-pass at x4")
            explorer.locator("input[value=segmentation]").check()
            assert "there is no region" in explorer.locator(".prom-scores").inner_text()
            assert explorer.locator(".prom-ranking button b").all_inner_texts() == ["–", "–"]
            assert explorer.locator(".prom-ranking button i").evaluate_all("bars => bars.map(bar => bar.style.width)") == ["0%", "0%"]
        assert page.locator(".prom-explorer select").count() == 4 and errors == []


FAULTS = ["nothing", "missing", "two slices", "no labels", "no such image", "no such acceleration", "a bar", "alike"]


@pytest.mark.parametrize("fault", FAULTS)
def test_pages_that_cannot_be_made(fault, choices, network, blobs):
    images, masks = choices
    arguments = {
        "nothing": ({}, masks),
        "missing": (images, dict(list(masks.items())[1:])),
        "two slices": ({"two": blobs.select([0, 1])}, masks),
        "no labels": (images, masks, network, ("without labels", "low-pass", 4)),
        "no such image": (images, masks, None, ("b", "low-pass", 4)),
        "a bar": ({"a|b": images["without labels"]}, masks),
        "alike": (images, {("low-pass", alpha): masks["low-pass", 4] for alpha in (10.6666666, 10.6666667)}),
        "no such acceleration": (images, masks, None, ("without labels", "low-pass", 8)),
    }
    with pytest.raises(InputError):
        widgets.page(*arguments[fault])


# The widgets


def drawn(explorer) -> list[str]:
    return re.findall(r'src="data:image/png;base64,([^"]+)"', explorer.children[-1].value)


@pytest.mark.parametrize(
    ("control", "value", "stays"),
    [
        ("method", "low-pass", "target"),
        ("method", "polished ProM", "target"),
        ("acceleration", 8, "target"),
        ("pattern", "rows", "target"),
        ("slice", 1, "mask"),
    ],
)
def test_a_choice_changes_what_is_shown(control, value, stays, blobs):
    explorer = widgets.explore(blobs)
    before, pictures, words = explorer.view, drawn(explorer), explorer.children[-2].value
    explorer.controls[control].value = value
    after = explorer.view
    assert torch.equal(getattr(before, stays), getattr(after, stays))
    assert torch.equal(before.mask, after.mask) == (control == "slice")
    assert before.scores["psnr"] != after.scores["psnr"] and not torch.equal(before.image, after.image)
    assert len(pictures) == len(drawn(explorer)) == 5 and sum(a != b for a, b in zip(pictures, drawn(explorer), strict=True)) >= 3
    assert explorer.children[-2].value != words and f"{after.scores['psnr']:.1f} dB" in explorer.children[-2].value
    assert int(after.mask.sum()) == 1024 // explorer.controls["acceleration"].value


def test_masks_are_made_once_and_of_the_training_images(blobs, monkeypatch):
    made = []

    def count(train, acceleration, pattern, seed):
        made.append((train, acceleration, pattern, seed))
        return baselines.energy(train, acceleration, pattern)

    monkeypatch.setitem(widgets.METHODS, "energy oracle", count)
    train = blobs.select([0, 1])
    explorer = widgets.explore(blobs, train, accelerations=[5, 10], seed=3)
    for control, value in [("acceleration", 10), ("slice", 2), ("acceleration", 5), ("slice", 0)]:
        explorer.controls[control].value = value
    assert made == [(train, 5, "points", 3), (train, 10, "points", 3)]


def test_an_impossible_choice_is_said_and_can_be_left(blobs):
    explorer = widgets.explore(blobs)
    explorer.controls["method"].value = "Poisson disc"
    explorer.controls["pattern"].value = "columns"
    assert explorer.view is None and not drawn(explorer) and "Poisson disc has points" in explorer.children[-2].value
    explorer.controls["pattern"].value = "points"
    assert int(explorer.view.mask.sum()) == 256 and len(drawn(explorer)) == 5


def test_images_with_phase(blobs):
    explorer = widgets.explore(replace(blobs, images=blobs.images * torch.exp(torch.tensor(0.5j))))
    assert explorer.view.scores["psnr"] == pytest.approx(widgets.explore(blobs).view.scores["psnr"], abs=1e-3)
    explorer.controls["method"].value = "conjugate-aware energy"
    assert explorer.view is None and "complex" in explorer.children[-2].value


def test_regions_are_shown_with_a_network(labelled, network):
    explorer = widgets.explore(labelled, segmenter=network)
    assert len(drawn(explorer)) == 8 and "Dice" in explorer.children[-2].value and "bright" in explorer.children[-1].value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": SliceDataset("other", "train", torch.rand(1, 1, 8, 8), ["a"], [0])}, "do not fit"),
        ({"accelerations": [0.5]}, "must be >= 1"),
        ({"accelerations": []}, "none is given"),
    ],
)
def test_what_cannot_be_explored(change, message, blobs):
    with pytest.raises(InputError, match=message):
        widgets.explore(blobs, **change)


def test_a_missing_package_is_named(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match=r"ipywidgets, which is not installed: pip install"):
        widgets.explore(blobs)


@pytest.mark.parametrize("kind", ["series", "volumes"])
def test_only_slices_are_explored(blobs, kind):
    stacked = replace(blobs, images=blobs.images[:, :, None].expand(-1, -1, 3, -1, -1).contiguous(), labels=None, kind=kind)
    with pytest.raises(InputError, match=f"has {kind}, and the explorer shows slices"):
        widgets.explore(stacked)
    with pytest.raises(InputError, match=f"has {kind}, and the explorer shows slices"):
        views.look(stacked, 0, torch.ones(stacked.shape, dtype=torch.bool))
