"""Films hold the numbers that they show and play by themselves; masks over frames, profiles and errors are what they say."""

from __future__ import annotations

import io
import itertools
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from prom import InputError
from prom.show import figures, films

sys.path.insert(0, str(Path(__file__).parents[1] / "book"))


@pytest.fixture
def series() -> torch.Tensor:
    return torch.rand(6, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def frames_of(png: bytes) -> np.ndarray:
    found = []
    with Image.open(io.BytesIO(png)) as image:
        for index in range(image.n_frames):
            image.seek(index)
            found.append(np.asarray(image.convert("L")))
    return np.stack(found)


def test_a_film_holds_the_numbers_of_every_frame(series):
    made = films.film([("one", series), ("two", series / 4, (0.1, 0.2))], alt="noise", scale=3, milliseconds=70)
    shown = frames_of(made.png)
    assert made.frames == 6 and made.size == shown.shape[:0:-1]
    left = shown[:, films.TITLE : films.TITLE + 60, :72]
    right = shown[:, films.TITLE : films.TITLE + 60, 72 + films.GAP :]
    for picture, values in ((left, series), (right, ((series / 4 - 0.1) / 0.1).clamp(0, 1))):
        assert np.abs(picture[:, 1::3, 1::3] / 255 - values.numpy()).max() <= 0.5 / (films.LEVELS - 1) + 0.5 / 255
        assert np.array_equal(picture[:, ::3, ::3], picture[:, 2::3, 2::3])
    bars = (shown[:, -1] == 0).mean(1)
    np.testing.assert_allclose(bars, np.arange(1, 7) / 6, atol=0.01)
    with Image.open(io.BytesIO(made.png)) as image:
        assert image.is_animated and image.info["duration"] == 70 and image.info["loop"] == 0


def test_a_film_of_more_frames_than_pixels_and_a_title_of_two_lines():
    many = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = frames_of(films.film([("one\nline", many)], alt="noise", scale=1).png)
    black = (shown[:, -1] == 0).sum(axis=1)
    assert len(shown) == 40 and black[0] == 0 and (np.diff(black.astype(int)) >= 0).all()


def test_a_notebook_shows_it_as_a_picture(series):
    from IPython.core.formatters import DisplayFormatter

    made = films.film([("", series)], alt="noise")
    data, _ = DisplayFormatter().format(made, include=["image/png"])
    assert np.array_equal(frames_of(data["image/png"]), frames_of(made.png))


def test_a_heart_fits_into_a_page():
    import prom

    image = prom.load("virtual_heart", "test", subjects=1).images[0, 0]
    noisy = image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    made = films.film([("a", image, (0, 0.8)), ("b", noisy, (0, 0.8)), ("c", (noisy - image).abs(), (0, 0.2))], alt="a heart", scale=1)
    assert len(made.png) < films.LARGEST


@pytest.mark.slow
def test_a_film_plays_in_a_page_without_kernel_or_request(tmp_path):
    from browser import DESK, opened

    moving = torch.zeros(4, 16, 16)
    for index in range(4):
        moving[index, :, 4 * index : 4 * index + 4] = 1
    made = films.film([("bar", moving)], alt='a "bar" that <moves>', milliseconds=80)
    (tmp_path / "page.html").write_text(f"<!doctype html><title>film</title>{made.html()}")
    with opened() as context:
        seen = {}
        for motion in ("no-preference", "reduce"):
            page = context.browser.new_context(viewport=DESK, reduced_motion=motion, java_script_enabled=False).new_page()
            requests = []
            page.on("request", lambda request, kept=requests: kept.append(request.url))
            page.goto((tmp_path / "page.html").as_uri())
            picture = page.locator("img")
            assert picture.get_attribute("alt") == 'a "bar" that <moves>'
            seen[motion], end = set(), time.monotonic() + 20
            for number in itertools.count():  # 12 pictures where nothing moves, and else until it has, on a busy machine too
                seen[motion].add(picture.screenshot())
                page.wait_for_timeout(60)
                if number >= 12 and (motion == "reduce" or len(seen[motion]) >= 3 or time.monotonic() > end):
                    break
            assert all(url.startswith(("file:", "data:")) for url in requests)
        assert len(seen["no-preference"]) >= 3 and len(seen["reduce"]) == 1


@pytest.mark.parametrize(
    ("panels", "options", "message"),
    [
        ([], {}, "0 panels"),
        ([("a", torch.zeros(2, 4))], {}, "panel 'a': array of shape (2, 4)"),
        ([("a", torch.zeros(2, 4, 4) + 0j)], {}, "must be real"),
        ([("a", torch.zeros(2, 4, 4)), ("b", torch.zeros(3, 4, 4))], {}, "[2, 3] frames"),
        ([("a", torch.zeros(2, 4, 4), (1, 1))], {}, "limits 1 and 1"),
        ([("a", torch.zeros(2, 4, 4))], {"milliseconds": 5}, "milliseconds 5"),
        ([("a", torch.rand(24, 256, 256))], {"scale": 1}, "show fewer panels"),
    ],
)
def test_bad_films_are_refused(panels, options, message):
    with pytest.raises(InputError) as caught:
        films.film(panels, "x", **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_contact_sheet_has_every_frame_in_its_place(series):
    sheet = films.contact_sheet(series, columns=4)
    assert sheet.shape == (2 * 21 - 1, 4 * 25 - 1)
    np.testing.assert_allclose(sheet[21:41, 25:49], series[5])
    assert (sheet[20] == 0.5).all() and (sheet[21:, 50:] == 0.5).all()


def test_lines_over_time():
    lines = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]]).bool()
    for name, mask in (("columns", lines[:, None].expand(3, 5, 4)), ("rows", lines[:, :, None].expand(3, 4, 5))):
        found, kind = films.lines_over_time(mask)
        assert kind == name and torch.equal(found, lines)
    mixed = torch.stack([lines[0].expand(4, 4), lines[0].expand(4, 4).T])
    assert films.lines_over_time(mixed) is None and films.lines_over_time(torch.eye(4).bool().expand(2, 4, 4)) is None
    assert films.lines_over_time(torch.ones(2, 4, 4).bool())[1] == "columns"


def test_a_mask_of_lines_has_dc_at_zero_and_time_to_the_right():
    lines = torch.zeros(6, 8, dtype=torch.bool)
    lines[2, 4] = lines[5, 0] = True
    _, axes = figures.grid(1, 1)
    films.show_mask_over_time(axes[0, 0], lines[:, None].expand(6, 5, 8), "mask")
    [image] = axes[0, 0].images
    assert np.argwhere(np.asarray(image.get_array())).tolist() == [[0, 5], [4, 2]]
    assert image.get_extent() == [-0.5, 5.5, -4.5, 3.5] and image.origin == "lower" and axes[0, 0].get_ylabel() == "column, from DC"
    assert [label.get_text() for label in axes[0, 0].get_xticklabels()] == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(InputError, match="T, H, W"):
        films.show_mask_over_time(axes[0, 0], lines)


def test_profiles_are_lines_of_the_image(series):
    assert np.array_equal(films.profile(series, 3), series[:, 3].T) and np.array_equal(
        films.profile(series, 3, rows=False), series[:, :, 3].T
    )
    whole = {"truth": np.full((3, 4, 4), 120, np.uint8), "other": np.full((3, 4, 4), 100, np.uint8)}
    for names in (["truth", "other"], ["other", "truth"]):  # differences of unsigned numbers do not wrap round
        axes = films.profiles({name: whole[name] for name in names}, 2, limits=(0, 200), errors=0.25).axes
        np.testing.assert_allclose(axes[3].images[0].get_array(), 0.1)
    figure = films.profiles({"truth": series, "other": series / 2}, 7, errors=0.25)
    error = figure.axes[3].images[0]
    np.testing.assert_allclose(error.get_array(), (series[:, 7] / 2).T, rtol=1e-6)
    assert error.get_clim() == (0, 0.25)
    figure = films.profiles({"truth": 3 * series, "other": series}, 7, limits=(0, 4.0), errors=0.25)
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), (series[:, 7] / 2).T, rtol=1e-6)  # of the peak
    [bar] = figure.axes[2].child_axes
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "25 %"]
    assert [int(label.get_text()) for label in figure.axes[3].get_xticklabels()] == [1, 2, 3, 4, 5, 6]
    assert len(films.profiles({"truth": series}, 7, errors=0.25).axes) == 2
    for wrong in (-1, 20):
        with pytest.raises(InputError, match=f"row {wrong}: must be 0 to 19"):
            films.profile(series, wrong)


def test_errors_over_time_count_frames_from_1():
    _, axes = figures.grid(1, 1)
    films.show_errors_over_time(axes[0, 0], {"a": [0.1] * 8, "b": [0.2] * 8})
    ticks = zip(axes[0, 0].get_xticks(), axes[0, 0].get_xticklabels(), strict=True)
    assert [(place, label.get_text()) for place, label in ticks] == [(0, "1"), (2, "3"), (4, "5"), (6, "7")]


def test_errors_over_time_add_up_to_the_nmse(series):
    image = series * torch.exp(1j * series) + 0.1
    errors = films.errors_over_time(image, series)
    nmse = (image.abs() - series).square().sum() / series.square().sum()
    assert errors.shape == (6,) and errors.square().mean() == pytest.approx(float(nmse), rel=1e-5)
    with pytest.raises(InputError, match="must be equal"):
        films.errors_over_time(series[:5], series)
    with pytest.raises(InputError, match="is 0"):
        films.errors_over_time(series, 0 * series)


def test_what_no_film_shows_is_named(series):
    broken = series.clone()
    broken[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="columns -1: must be"):
        films.contact_sheet(series, columns=-1)
    with pytest.raises(InputError, match="must be frames of"):
        films.profile(series[0], 1, rows=False)
    with pytest.raises(InputError, match="panel 'a': has 1 values that are not finite"):
        films.film([("a", broken)], alt="x")
    assert films.film([("a", series.clone().requires_grad_())], alt="x").png == films.film([("a", series)], alt="x").png
