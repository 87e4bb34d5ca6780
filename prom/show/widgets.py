"""The explorer, twice: a page that needs no kernel, no network and no library, and live widgets for the reader's own data."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prom import baselines, methods
from prom.datasets.base import SliceDataset
from prom.engine import optional
from prom.errors import InputError, unknown
from prom.evaluation import segmentation
from prom.evaluation.noise import g_factor
from prom.kspace.patterns import PATTERNS, make
from prom.learn import recipes
from prom.learn.optimize import optimize
from prom.reconstruction import RECONSTRUCTIONS as registered
from prom.reconstruction import named
from prom.reconstruction.zero_filled import Reconstruction, ZeroFilled
from prom.show.views import (
    AMPLIFIED,
    DECIBELS,
    ERROR_MAP,
    ERRORS,
    NOISE_MAP,
    SPREAD_MAP,
    TITLES,
    ZERO_FILLED,
    Picture,
    View,
    colour_steps,
    dice,
    look,
    pictures,
    refuse_all_but_slices,
    region_colour,
)

if TYPE_CHECKING:
    from ipywidgets import VBox

Maker = Callable[[SliceDataset, float, str, int], Tensor]


def _equispaced(train: SliceDataset, acceleration: float, pattern: str, seed: int) -> Tensor:
    return baselines.equispaced(train, acceleration, "columns" if pattern == "points" else pattern, seed)


def _gaussian(train: SliceDataset, acceleration: float, pattern: str, seed: int) -> Tensor:
    return baselines.gaussian(train, acceleration, pattern, seed, protect_centre=True)


def _learnt(recipe: recipes.Recipe) -> Maker:
    return lambda train, acceleration, pattern, seed: optimize(train, acceleration, pattern, recipe, seed=seed).mask


# What can be chosen, in the order of the lists: (train, acceleration, pattern, seed) -> mask.
METHODS: dict[str, Maker] = {
    "equispaced lines": _equispaced,
    "Gaussian with centre": _gaussian,
    **{method.label: method.make for method in map(methods.METHODS.get, ("low_pass", "poisson_disc", "energy", "conjugate_energy"))},
    **{methods.METHODS[name].label: _learnt(recipes.get(name)) for name in ("default", "polished")},
}

# What can be chosen for data with several coils: train -> reconstruction.
LABELS = {"sense": "SENSE", "wavelet": "wavelets", "tv": "total variation"}  # of the registry's names
# Of slices on the grid, which view sharing and gridding are not for.
RECONSTRUCTIONS: dict[str, Callable[[SliceDataset], Reconstruction | None]] = {
    LABELS.get(name, name): partial(named, name) for name in registered if name not in ("view-sharing", "gridding")
}
REPLICAS = 32  # of noise, for a g-factor to be looked at: values to 12 %, in a second or two at 128 x 128 with 8 coils


def make_mask(method: str, train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0) -> Tensor:
    """The mask of one of the ``METHODS``: ``(H, W)`` bool, exactly floor(D / alpha) samples or lines.

    Equispaced lines are columns where the pattern is "points".

    Raises
    ------
    InputError
        Where the method is not known, or cannot be used for the data, the pattern or the acceleration.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 32, 32), ["a", "b"], [0, 0])
    >>> int(make_mask("low-pass", data, 8).sum())
    128
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return METHODS[method](train, acceleration, pattern, seed)


def page(
    images: Mapping[str, SliceDataset],
    masks: Mapping[tuple[str, float], Tensor],
    segmenter: segmentation.Segmenter | None = None,
    start: tuple[str, str, float] | None = None,
    reconstructions: Mapping[str, Reconstruction | None] | None = None,
) -> str:
    """An explorer as one piece of HTML: all pictures are in it, native form controls choose among them, a short script swaps them.

    Without scripts, the pictures of ``start`` are seen, and no controls. No kernel, no file beside it and no network is needed.

    Parameters
    ----------
    images
        What can be looked at, by the name in the list: data sets of one slice each. With ``segmenter``, those that have labels can be
        looked at through the network.
    masks
        Every mask by (method, acceleration): all methods at all accelerations.
    segmenter
        A frozen network.
    start
        (image, method, acceleration) to begin with; by default the first of each.
    reconstructions
        By the name in the list, which begins with the first; None, and by default, is zero-filling. One need not be chosen. With a linear
        one the map of its noise is seen instead of the point spread.

    Raises
    ------
    InputError
        Where there is nothing to choose, a combination is missing, an image has more than one slice or does not fit the masks, or
        there is a network and the image to begin with has no labels.

    >>> import torch
    >>> image = SliceDataset("demo", "test", torch.rand(1, 1, 16, 16), ["a"], [0])
    >>> html = page({"noise": image}, {("low-pass", 4): make_mask("low-pass", image, 4)})
    >>> html.count("<img"), "http" in html
    (5, False)
    """
    methods, accelerations = (list(dict.fromkeys(key[part] for key in masks)) for part in (0, 1))
    offered = {ZERO_FILLED: None} if reconstructions is None else dict(reconstructions)
    if not offered:
        raise InputError("reconstructions: none is given; leave it out for zero-filled images")
    if not images or not masks or len(masks) != len(methods) * len(accelerations):
        raise InputError("page: needs an image, and a mask of every method at every acceleration")
    if wrong := [name for name in (*images, *methods, *offered) if not name or "|" in name]:
        raise InputError(f"page: name {wrong[0]!r}: names of images, methods and reconstructions must be there, and without |")
    if len({f"{value:g}" for value in accelerations}) < len(accelerations):
        raise InputError(f"page: accelerations {', '.join(repr(float(value)) for value in accelerations)} are shown alike; round them")
    for name, data in images.items():
        if len(data) != 1:
            raise InputError(f"image {name!r}: has {len(data)} slices; select one")
    found: dict[str, Any] = {"targets": {}, "masks": {}, "frames": {}}
    shared = ("mask", "spread") if reconstructions is None else ("mask",)  # by all images and reconstructions
    several, noise = len(offered) > 1, _NoiseMaps()
    for (name, data), (by, reconstruction) in itertools.product(images.items(), offered.items()):
        network = segmenter if data.labels is not None else None
        for (method, acceleration), mask in masks.items():
            view = look(data, 0, mask, network, reconstruction=reconstruction)
            amplified = noise.of(by, reconstruction, mask, data.maps([0])[0])
            drawn = pictures(view, method, acceleration, name, by, amplified)
            made = {key: _content(picture, titled=reconstructions is not None) for key, picture in drawn.items()}
            key = f"{method}|{acceleration:g}"
            found["targets"][name] = {part: made.pop(part) for part in ("target", "truth") if part in made}
            found["masks"][key] = {part: made.pop(part) for part in shared}
            found["frames"][f"{name}|{key}" + (f"|{by}" if several else "")] = made | {
                "scores": {score: round(value, 4) for score, value in view.scores.items()},
                "line": score_line(view),
            }
    image, method, acceleration = start or (next(iter(images)), methods[0], accelerations[0])
    for what, value, known in (("image", image, images), ("method", method, methods)):
        if value not in known:
            raise unknown(what, value, known)
    if acceleration not in accelerations:
        raise InputError(f"acceleration {acceleration:g}: is not among those of the masks, {', '.join(f'{a:g}' for a in accelerations)}")
    if segmenter and images[image].labels is None:
        raise InputError(f"image {image!r}: has no labels; begin with one that has")
    key = f"{method}|{acceleration:g}"
    tasks = {"image": "image, for an eye"} | ({"segmentation": "segmentation, by a network"} if segmenter else {})
    found["form"] = "".join(
        [
            _select("picture", "Image", images, image),
            _select("method", "Method", methods, method),
            _radios("acceleration", "Acceleration", {f"{value:g}": f"x{value:g}" for value in accelerations}, f"{acceleration:g}"),
            *([_select("reconstruction", "Reconstruction", offered, next(iter(offered)))] if several else []),
            _radios("task", "Task", tasks, "image"),
        ]
    )
    first = (
        found["targets"][image] | found["masks"][key] | found["frames"][f"{image}|{key}" + (f"|{next(iter(offered))}" if several else "")]
    )
    every = {part: content for frame in found["frames"].values() for part, content in frame.items()} | first
    content = json.dumps(found, separators=(",", ":")).replace("<", r"\u003c")
    identity = "prom-explorer-" + hashlib.sha256(content.encode()).hexdigest()[:8]
    names = tuple(segmenter.regions) if segmenter else ()
    there = [part for part in ORDER if part in every]
    tiles = [_tile(part, *every[part], regions=names, hidden=part in LABELLED or part not in first) for part in there]
    tiles.insert(sum(part not in LABELLED for part in there), RANKING)
    script = SCRIPT.replace("IDENTITY", identity)
    for place, (one, more) in CHOICE.items():
        script = script.replace(place, more if several else one)
    return "".join(
        [
            f'<div class="prom-explorer" id="{identity}">{STYLE}',
            f"<form>{WITHOUT}</form>",
            f'<p class="prom-scores" role="status">{escape(first["line"])}</p>',
            f'<div class="prom-tiles">{"".join(tiles)}</div>',
            f"<script>{script.replace('CONTENT', content)}</script></div>",
        ]
    )


def explore(
    data: SliceDataset,
    train: SliceDataset | None = None,
    accelerations: Sequence[float] = (4, 8, 16, 32),
    segmenter: segmentation.Segmenter | None = None,
    seed: int = 0,
    channel: int = 0,
) -> VBox:
    """The explorer in a notebook, on your own data: choose a method, an acceleration, a pattern and a slice.

    A mask is made when it is first needed, which for the learnt ones takes as long as :func:`prom.optimize`, and kept from then on.

    For data with several coils the reconstruction can be chosen too: zero-filled, SENSE where the noise of the training data is known,
    and sparse by wavelets or total variation, whose strength the training data choose. With SENSE the map of its noise is seen
    (:func:`prom.evaluation.noise.g_factor`) instead of the point spread.

    Parameters
    ----------
    data
        What is looked at.
    train
        What masks are made from. By default ``data`` itself: then the learnt masks have seen what they are shown on, and their scores
        say nothing about other people.
    accelerations
        What the slider offers.
    segmenter
        A network, whose regions are then shown too. The data need labels.
    seed
        Of everything random.
    channel
        Which one is drawn. Scores are of all channels.

    Returns
    -------
    ipywidgets.VBox
        It also has ``controls`` (the widgets by name: "method", "acceleration", "pattern", "slice", and with coils "reconstruction") and
        ``view``, the :class:`prom.show.views.View` that is shown, whose ``mask`` you may take along; None where the choice is
        impossible, which is said instead: a Poisson disc of lines, say.

    Raises
    ------
    InputError
        Where ipywidgets is not installed, the sizes of the two sets differ, or an acceleration is out of range.

    >>> import torch
    >>> images = SliceDataset("demo", "test", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> explorer = explore(images)
    >>> explorer.controls["acceleration"].value = 8
    >>> int(explorer.view.mask.sum())
    32
    """
    widgets = optional.ipywidgets()
    train = data if train is None else train
    refuse_all_but_slices(data)
    if train.shape != data.shape:
        raise InputError(f"train: slices of {train.shape} do not fit {data.name}, whose slices are {data.shape}")
    if not len(accelerations):
        raise InputError("accelerations: none is given; leave them out for x4 to x32")
    for acceleration in accelerations:
        make("points", data.shape).budget(acceleration)
    wide = {"style": {"description_width": "7rem"}, "layout": {"width": "min(30rem, 95%)"}}
    offered = [(f"x{value:g}", value) for value in accelerations]
    controls = {
        "method": widgets.Dropdown(options=list(METHODS), value="energy oracle", description="Method", **wide),
        "acceleration": widgets.SelectionSlider(options=offered, description="Acceleration", **wide),
        "pattern": widgets.Dropdown(options=list(PATTERNS), value="points", description="Pattern", **wide),
        "slice": widgets.IntSlider(value=len(data) // 2, max=len(data) - 1, description="Slice", continuous_update=False, **wide),
    }
    offered = _offered(data, train)
    if len(offered) > 1:
        controls["reconstruction"] = widgets.Dropdown(options=list(offered), value=ZERO_FILLED, description="Reconstruction", **wide)
    status, tiles = widgets.HTML(), widgets.HTML()
    box = widgets.VBox([*controls.values(), status, tiles])
    box.controls, box.view = controls, None
    masks: dict[tuple[str, float, str], Tensor] = {}
    reconstructions: dict[str, Reconstruction | None] = {}
    noise = _NoiseMaps()

    def show(_: object = None) -> None:
        values = {name: control.value for name, control in controls.items()}
        by = values.pop("reconstruction", ZERO_FILLED)
        method, acceleration, pattern, index = values.values()
        key = (method, acceleration, pattern)
        try:
            if key not in masks:
                status.value = "making the mask ..."
                masks[key] = make_mask(method, train, acceleration, pattern, seed)
            if by not in reconstructions:
                status.value = "preparing the reconstruction ..."
                reconstructions[by] = offered[by](train)
            view = look(data, index, masks[key], segmenter, channel, reconstructions[by])
            amplified = noise.of(by, reconstructions[by], masks[key], data.maps([index])[0])
        except InputError as error:
            box.view, tiles.value, status.value = None, "", escape(str(error))
            return
        box.view = view
        who = f"slice {data.slices[index]} of {data.subjects[index]}"
        made = pictures(view, method, acceleration, who, by, amplified)
        drawn = "".join(_tile(name, *_content(made[name]), regions=view.names) for name in ORDER if name in made)
        status.value = f'<span role="status">{escape(f"{who}: {score_line(view)}")}</span>'
        tiles.value = f'{STYLE}<div class="prom-explorer"><div class="prom-tiles">{drawn}</div></div>'

    for control in controls.values():
        control.observe(show, "value")
    show()
    return box


def score_line(view: View) -> str:
    """The scores of a view in one line.

    >>> import torch
    >>> data = SliceDataset("demo", "test", torch.eye(16).expand(1, 1, 16, 16), ["a"], [0])
    >>> score_line(look(data, 0, torch.eye(16) > 0))
    'PSNR 12.6 dB, SSIM 0.063, true acceleration x16.00'
    """
    scores = view.scores
    line = f"PSNR {scores['psnr']:.1f} dB, SSIM {scores['ssim']:.3f}, true acceleration x{scores['acceleration']:.2f}"
    return line + (f", {dice(scores['dice'])}" if "dice" in scores else "")


def _offered(data: SliceDataset, train: SliceDataset) -> dict[str, Callable[[SliceDataset], Reconstruction | None]]:
    """The reconstructions that these data can be looked at through."""
    if data.sensitivities is None:
        return {ZERO_FILLED: RECONSTRUCTIONS[ZERO_FILLED]}
    return {name: make for name, make in RECONSTRUCTIONS.items() if name != "SENSE" or (train.sensitivities is not None and train.noise)}


class _NoiseMaps(dict[tuple[str, bytes, bytes], Tensor]):
    """g-factors of linear reconstructions, each made once for a mask and sensitivities: slices often share these."""

    def of(self, name: str, reconstruction: Reconstruction | None, mask: Tensor, maps: Tensor) -> Tensor | None:
        """That of the reconstruction of this name; None where it is not linear, or zero-filling."""
        if isinstance(reconstruction, ZeroFilled) or not getattr(reconstruction, "linear", False):
            return None
        key = (name, *(hashlib.sha256(part.resolve_conj().numpy().tobytes()).digest() for part in (mask, maps)))
        if key not in self:
            self[key] = g_factor(reconstruction, mask, maps, REPLICAS)
        return self[key]


ORDER = ("mask", "spread", "noise", "target", "image", "error", "truth", "regions", "wrong")
LABELLED = ("truth", "regions", "wrong")


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _content(picture: Picture, titled: bool = True) -> list[str]:
    return [_text(picture.png), picture.alt, picture.note, picture.title][: 4 if titled else 3]


def _tile(name: str, png: str, alt: str, note: str, title: str = "", regions: Sequence[str] = (), hidden: bool = False) -> str:
    scale = {
        "spread": (SPREAD_MAP, f"-{DECIBELS:g} dB", "peak"),
        "noise": (NOISE_MAP, "0", f"{AMPLIFIED:g}"),
        "error": (ERROR_MAP, "0", f"{100 * ERRORS:g} % of the maximum"),
    }.get(name)
    key = ""
    if scale:
        colours = ", ".join(colour_steps(scale[0], 9))
        key = f'<span class="prom-scale"><i style="background: linear-gradient(to right, {colours})"></i>{scale[1]}<b>{scale[2]}</b></span>'
    if name == "truth":
        named = [f'<b><i style="background: {region_colour(number)}"></i>{escape(region)}</b>' for number, region in enumerate(regions, 1)]
        key = f'<span class="prom-key">{"".join(named)}</span>'
    return (
        f'<div class="prom-tile" data-part="{name}"{" hidden" if hidden else ""}>'
        f'<div class="prom-title">{escape(title or TITLES[name])}</div>'
        f'<img src="data:image/png;base64,{png}" alt="{escape(alt)}">{key}<div class="prom-note">{escape(note)}</div></div>'
    )


def _select(name: str, label: str, values: Sequence[str] | Mapping[str, object], chosen: str) -> str:
    # With a value of its own: of the text alone a browser drops blanks, and then names no frame.
    options = "".join(f'<option value="{escape(v)}"{" selected" if v == chosen else ""}>{escape(v)}</option>' for v in values)
    return f'<label><span>{label}</span><select name="{name}">{options}</select></label>'


def _radios(name: str, label: str, values: Mapping[str, str], chosen: str) -> str:
    inputs = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" if value == chosen else ""}>{escape(text)}</label>'
        for value, text in values.items()
    )
    return (
        f"<fieldset><legend>{label}</legend>{inputs}</fieldset>"
        if len(values) > 1
        else f'<input type="hidden" name="{name}" value="{chosen}">'
    )


WITHOUT = "Scripts are off here: one choice is shown. In JupyterLab, run or trust this notebook."

# Beside the reconstruction: every method on the same image, one of which can be clicked.
RANKING = '<div class="prom-ranking" hidden><div class="prom-title"></div><div></div></div>'

# The colours of text and lines are those of the page around it, light or dark; pictures stay as they are.
STYLE = """<style>
html[data-theme=dark] .bd-content div.cell_output .prom-explorer img { padding: 0; }
html[data-theme=dark] .bd-content div.cell_output div.text_html:has(.prom-explorer) { background: none; color: inherit; padding: 0; }
.prom-explorer { margin: 1rem 0; color: inherit; font-variant-numeric: tabular-nums; }
.prom-explorer form { display: flex; flex-wrap: wrap; gap: .6rem 1.4rem; align-items: end; margin: 0 0 .6rem; }
.prom-explorer [hidden] { display: none; }
.prom-explorer form > label > span, .prom-explorer legend { display: block; float: none; width: auto; margin: 0 0 .2rem; padding: 0;
  font-size: .8rem; line-height: 1.2; font-weight: 600; }
.prom-explorer select { font: inherit; max-width: 100%; padding: .25rem .5rem; color: inherit; background: transparent;
  border: 1px solid currentColor; border-radius: 4px; }
.prom-explorer select option { color: #000; background: #fff; }
.prom-explorer fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
.prom-explorer fieldset label { display: inline-flex; align-items: center; gap: .3rem; margin: 0 .8rem 0 0; padding: .25rem 0; }
.prom-explorer .prom-scores { margin: 0 0 .6rem; font-weight: 600; }
.prom-explorer .prom-tiles { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .9rem .8rem; max-width: 54rem; }
.prom-explorer .prom-tile { min-width: 0; display: flex; flex-direction: column; }
.prom-explorer .prom-title { margin: 0 0 .2rem; font-weight: 600; font-size: .85rem; }
.prom-explorer .prom-tiles img { display: block; width: 100%; max-width: 100%; height: auto; margin: 0; border-radius: 3px; filter: none; }
.prom-explorer [data-part=mask] img, .prom-explorer [data-part=spread] img { image-rendering: pixelated; }
.prom-explorer .prom-note { font-size: .78rem; line-height: 1.3; margin-top: .2rem; }
.prom-explorer .prom-scale { display: flex; justify-content: space-between; flex-wrap: wrap; font-size: .72rem; line-height: 1.3; }
.prom-explorer .prom-scale i { flex: 0 0 100%; height: .4rem; margin: .25rem 0 .1rem; }
.prom-explorer b { font-weight: inherit; }
.prom-explorer .prom-key { display: flex; flex-wrap: wrap; gap: 0 .8rem; margin-top: .2rem; font-size: .72rem; line-height: 1.4; }
.prom-explorer .prom-key i { display: inline-block; width: .7em; height: .7em; margin-right: .35em; border-radius: 2px; }
.prom-explorer .prom-ranking button { position: relative; display: flex; justify-content: space-between; gap: .5rem; width: 100%;
  margin: 0 0 3px; padding: .12rem .4rem; font: inherit; font-size: .78rem; text-align: left; color: inherit; cursor: pointer;
  background: none; border: 1px solid transparent; border-radius: 3px; isolation: isolate; }
.prom-explorer .prom-ranking button i { position: absolute; inset: 0 auto 0 0; z-index: -1; background: #56B4E9; opacity: .35;
  border-radius: 3px; }
.prom-explorer .prom-ranking button[aria-pressed=true] { border-color: currentColor; font-weight: 600; }
@media (max-width: 36rem) {
  .prom-explorer .prom-tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .prom-explorer .prom-ranking { grid-column: 1 / -1; order: 1; }
}
</style>"""

# Places in the script: what stands there where nothing or where a reconstruction can be chosen.
CHOICE = {
    "ITS_FRAME": ("", ' + "|" + chosen("reconstruction")'),
    "IF_MISSING": ("continue;", "{ tile.hidden = true; continue; }"),
    "ITS_TITLE": ("", '\n      tile.querySelector(".prom-title").textContent = part[3];'),
}

SCRIPT = """(() => {
  const nearest = document.currentScript?.closest(".prom-explorer");  // an id is of the first, where a page is shown twice
  const root = nearest ?? document.getElementById("IDENTITY"), content = CONTENT;
  const form = root.querySelector("form"), chosen = name => form.elements[name].value;
  form.innerHTML = content.form;  // made here: where no script may run, no dead controls are seen
  form.setAttribute("autocomplete", "off");
  form.setAttribute("aria-label", "What to look at");
  const ranking = root.querySelector(".prom-ranking");
  const show = () => {
    const picture = chosen("picture"), key = chosen("method") + "|" + chosen("acceleration");
    const segmented = Boolean(content.targets[picture].truth);
    for (const input of form.elements.task.length ? form.elements.task : []) {
      input.disabled = input.value === "segmentation" && !segmented;
      if (input.disabled && input.checked) form.elements.task.value = "image";
    }
    const segmenting = chosen("task") === "segmentation", frame = content.frames[picture + "|" + keyITS_FRAME];
    const parts = {...content.targets[picture], ...content.masks[key], ...frame};
    for (const tile of root.querySelectorAll(".prom-tile")) {
      const part = parts[tile.dataset.part];
      tile.hidden = ["truth", "regions", "wrong"].includes(tile.dataset.part) && !segmenting;
      if (!part) IF_MISSING
      const image = tile.querySelector("img");
      image.src = "data:image/png;base64," + part[0];
      image.alt = part[1];
      tile.querySelector(".prom-note").textContent = part[2];ITS_TITLE
    }
    root.querySelector("[role=status]").textContent = frame.line;
    const score = segmenting ? "dice" : "psnr", rows = [...form.elements.method.options].map(option => option.value);
    const scores = rows.map(method => content.frames[[picture, method, chosen("acceleration")].join("|")ITS_FRAME].scores[score]);
    const most = Math.max(...scores.filter(Number.isFinite), 0);  // Dice is NaN where the slice shows no region
    ranking.firstElementChild.textContent = segmenting ? "All methods by Dice" : "All methods by PSNR (dB)";
    ranking.querySelectorAll("button").forEach((button, row) => {
      const there = Number.isFinite(scores[row]);
      button.querySelector("b").textContent = there ? scores[row].toFixed(segmenting ? 3 : 1) : "–";
      button.querySelector("i").style.width = (there && most ? 100 * scores[row] / most : 0) + "%";
      button.setAttribute("aria-pressed", rows[row] === chosen("method"));
    });
  };
  for (const option of form.elements.method.options) {
    const button = ranking.lastElementChild.appendChild(document.createElement("button"));
    button.type = "button";
    for (const [tag, text] of [["i", ""], ["span", option.value], ["b", ""]]) {
      button.appendChild(document.createElement(tag)).textContent = text;
    }
    button.addEventListener("click", () => { form.elements.method.value = option.value; show(); });
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", event => event.preventDefault());
  ranking.hidden = false;
  show();
})();"""
