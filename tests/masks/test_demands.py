"""What a scanner demands: every method meets it, exactly; what cannot be met is refused in one line, with a way out that works."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import prom
from prom import InputError, SliceDataset, baselines
from prom.kspace.patterns import Lines, make
from prom.learn.exchange import exchange
from prom.learn.layer import MaskLayer
from prom.learn.polish import polish
from prom.masks.checks import check
from prom.masks.demands import Demands, acceleration_of, ellipse
from prom.methods import METHODS
from prom.objectives import MagnitudeMSE
from prom.runs import results

SHORT = {
    "default": "default:iterations=8,batch_size=2",
    "paper": "paper:iterations=5,members=2,batch_size=2",
    "polished": "polished:iterations=6,batch_size=2,polish=8",
    "loupe": "loupe:iterations=4,batch_size=2",
    "score_prune": "score_prune:iterations=6,batch_size=2",
    "bass": "bass:iterations=8",
}
SIDES = {"points": (20, 18), "columns": (12, 48), "rows": (48, 12)}


def violations(mask: torch.Tensor, demands: Demands, pattern: str, acceleration: float) -> list[str]:
    """What a mask does not meet: counted sample by sample, from the definitions alone."""
    grid = mask.numpy() if pattern != "rows" else mask.numpy().T  # lines are columns from here on
    wanted, unwanted = (None if part is None else part.numpy() for part in (demands.require, demands.forbid))
    if pattern == "rows":
        wanted, unwanted = (None if part is None else part.T for part in (wanted, unwanted))
    rows, columns = grid.shape
    wrong = []
    if pattern != "points" and not (grid == grid[0]).all():
        wrong.append("lines")
    if wanted is not None and not grid[wanted].all():
        wrong.append("require")
    if unwanted is not None and grid[unwanted].any():
        wrong.append("forbid")
    along = grid.sum(axis=1) if pattern == "points" else grid[0].astype(int)  # the phase-encode axis
    if pattern == "points" and demands.axis == "columns":
        along = grid.sum(axis=0)
    size = rows * columns if pattern == "points" else columns
    if along.sum() != int(size / acceleration):
        wrong.append("count")
    half = demands.calibration // 2
    for y in range(-half, demands.calibration - half):
        for x in range(-half, demands.calibration - half) if pattern == "points" else (0,):
            inside = demands.calibration_shape == "square" or 4 * (y * y + x * x) <= demands.calibration**2
            place = (rows // 2 + y, columns // 2 + x) if pattern == "points" else (0, columns // 2 + y)
            if inside and not grid[place]:
                wrong.append("calibration")
    if demands.shutter:
        wrong += [
            "shutter"
            for y, x in np.argwhere(grid)
            if ((y - rows // 2) / (rows / 2)) ** 2 + ((x - columns // 2) / (columns / 2)) ** 2 > 1 + 1e-9
        ]
    left = len(along) - round((1 - demands.partial_fourier) * len(along))
    if along[left:].any():
        wrong.append("partial_fourier")
    bands = [0] * demands.segments
    for index in range(left):
        bands[index * demands.segments // left] += along[index]
    if len(set(bands)) > 1:
        wrong.append("segments")
    if demands.max_gap:
        free = [line for line in range(left) if unwanted is None or not unwanted[0, line]]
        places = [free[0] - 1, *np.flatnonzero(along), free[-1] + 1]
        if max(np.diff(places)) > demands.max_gap:
            wrong.append("max_gap")
    return wrong


@st.composite
def demanded(draw, pattern):
    """Demands that can be met, and the acceleration."""
    lines = make(pattern, SIDES[pattern])
    acceleration = draw(st.sampled_from([2.0, 2.5, 3.0, 4.0]))
    count = lines.budget(acceleration)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    chosen = {
        "calibration": draw(st.sampled_from([0, 0, 3, 4])),
        "partial_fourier": draw(st.sampled_from([1.0, 1.0, 0.7, 0.8])),
        "segments": draw(st.sampled_from([1, 1, *(n for n in (2, 3, 4) if count % n == 0)])),
    }
    if pattern == "points":
        shapes = ["square", "disc"] if chosen["calibration"] else ["square"]
        chosen |= {"shutter": draw(st.booleans()), "calibration_shape": draw(st.sampled_from(shapes))}
        chosen |= {"axis": draw(st.sampled_from([None, "rows", "columns"]))}
    else:
        chosen["max_gap"] = draw(st.sampled_from([0, 4, 6, 9]))
    for name, share in (("require", 0.04), ("forbid", 0.06)):
        if draw(st.booleans()):
            chosen[name] = lines.forward(torch.rand(lines.shape, generator=generator) < share).contiguous()
    demands = Demands(**chosen)
    try:
        demands.feasible(lines, acceleration)
    except InputError:
        assume(False)
    return demands, acceleration


@pytest.fixture(scope="module")
def slices() -> dict[str, SliceDataset]:
    """Three images, once real with one coil, once complex with three."""
    made = {}
    for pattern, (height, width) in SIDES.items():
        generator = torch.Generator().manual_seed(3)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        discs = [((y - a) ** 2 + (x - b) ** 2 < 0.1 + r).float() for a, b, r in torch.rand(3, 3, generator=generator) - 0.3]
        images = torch.stack(discs)[:, None] + 0.05 * torch.rand(3, 1, height, width, generator=generator)
        made[pattern] = SliceDataset("discs", "train", images, list("abc"), [0] * 3)
        maps = torch.stack([torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a, b in ((-1, 0), (1, 0), (0, 1))])
        maps = (maps / maps.abs().square().sum(dim=0).sqrt()).to(torch.complex64)
        coils = replace(made[pattern], images=images.to(torch.complex64), sensitivities=maps, noise=0.02)
        made[f"{pattern}, coils"] = coils
    return made


def respected(mask: torch.Tensor, demands: Demands, pattern: str, acceleration: float) -> bool:
    """Whether a random draw, whose size is random too, has what is mandatory, and nothing that is forbidden."""
    lines = make(pattern, SIDES[pattern])
    feasible, selected = demands.feasible(lines, acceleration), lines.select(mask)
    nothing = torch.zeros(lines.shape, dtype=torch.bool)
    mandatory, forbidden = (nothing if part is None else part for part in (feasible.mandatory, feasible.forbidden))
    return bool(selected[mandatory].all() and not selected[forbidden].any())


def drawn(name: str, pattern: str, slices: dict[str, SliceDataset], data: st.DataObject, path: Path) -> None:
    """Draw demands, make a mask of one method with them, and compare: in memory, and as its file has it."""
    demands, acceleration = data.draw(demanded(pattern))
    train = slices[pattern if name == "conjugate_energy" or data.draw(st.booleans()) else f"{pattern}, coils"]
    made = results.make(SHORT.get(name, name), train, acceleration, pattern, seed=data.draw(st.integers(0, 9)), demands=demands)
    for name in demands.as_dict():
        event(name)  # pytest --hypothesis-show-statistics has their shares
    assert violations(made.mask, demands, pattern, acceleration) == []
    assert [sampled for sampled in made.sample(3) if not respected(sampled, demands, pattern, acceleration)] == []
    check(made)
    made.save(path)
    assert prom.load_mask(path).demands.as_dict() == demands.as_dict()


PAIRS = [(name, pattern) for name, method in METHODS.items() if not (method.in_time or method.off_grid) for pattern in method.patterns]
DRAWS = -(-int(os.environ.get("PROM_DRAWS", "400")) // len(PAIRS))  # of all methods together
unhurried = partial(settings, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


@pytest.mark.parametrize(("name", "pattern"), [pair for pair in PAIRS if pair[1] != "rows"])
@unhurried(max_examples=8)
@given(data=st.data())
def test_every_method_meets_every_demand(name, pattern, slices, data, tmp_path_factory):
    drawn(name, pattern, slices, data, tmp_path_factory.mktemp("masks") / "mask.h5")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pattern"), PAIRS)
@unhurried(max_examples=DRAWS)
@given(data=st.data())
def test_no_method_violates_a_demand_in_many_draws(name, pattern, slices, data, tmp_path_factory):
    """All methods together; by hypothesis, which counts only what was drawn whole."""
    drawn(name, pattern, slices, data, tmp_path_factory.mktemp("masks") / "mask.h5")


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
@unhurried(max_examples=20)
@given(data=st.data())
def test_a_layer_in_training_meets_every_demand(pattern, data):
    """Its mask all of them after every step; its draws have what is mandatory, and nothing that is forbidden."""
    demands, acceleration = data.draw(demanded(pattern))
    layer = MaskLayer(SIDES[pattern], acceleration, pattern, seed=data.draw(st.integers(0, 9)), demands=demands)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    for _ in range(3):
        assert violations(layer.mask(), demands, pattern, acceleration) == []
        assert respected(layer.sample().detach().bool(), demands, pattern, acceleration)
        with torch.no_grad():
            layer.theta += torch.randn(layer.theta.shape, generator=generator)
        layer.project()


@pytest.mark.parametrize("pattern", ["points", "columns"])
@unhurried(max_examples=4)
@given(data=st.data())
def test_averages_and_masks_for_a_task_meet_every_demand(pattern, slices, data):
    demands, acceleration = data.draw(demanded(pattern))
    train, short = slices[pattern], replace(prom.DEFAULT, iterations=6, batch_size=2)
    members = [prom.optimize(train, acceleration, pattern, short, seed=seed, demands=demands) for seed in (0, 1)]
    task = MagnitudeMSE(train.images)
    for_task = results.for_task(train, acceleration, pattern, replace(short, polish=4), task, demands=demands)
    for made in (prom.masks.average(members), for_task):
        assert violations(made.mask, demands, pattern, acceleration) == [] and made.demands.as_dict() == demands.as_dict()
        check(made)


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
@unhurried(max_examples=12)
@given(data=st.data())
def test_improving_a_mask_never_leaves_the_set(pattern, slices, data):
    demands, acceleration = data.draw(demanded(pattern))
    train, loss = slices[pattern], MagnitudeMSE(slices[pattern].images)
    begin = baselines.gaussian(train, acceleration, pattern, seed=data.draw(st.integers(0, 9)), demands=demands)
    better = polish(begin, train, pattern, evaluations=12, exhaustive=data.draw(st.booleans()), demands=demands)
    assert violations(better, demands, pattern, acceleration) == []
    improved = [better]
    if pattern != "points":
        improved.append(exchange(begin, loss, range(3), pattern, demands=demands))
        assert violations(improved[-1], demands, pattern, acceleration) == []
    before, *after = (float(loss.loss([0, 1, 2], mask.float()[None])) for mask in (begin, *improved))
    assert all(value <= before for value in after)


def test_polishing_uses_what_is_left_free(slices):
    """A bad start with a fixed centre gets better, and by single swaps alone within bands and gaps."""
    train, demands = slices["columns"], Demands(calibration=4, segments=4, max_gap=9)
    feasible = demands.feasible(make("columns", train.shape), 3)
    start = feasible.round(torch.arange(48.0).sub(23.5).abs())[None].expand(train.shape).contiguous()
    loss = MagnitudeMSE(train.images)
    before, after = (
        float(loss.loss([0, 1, 2], mask.float()[None]))
        for mask in (start, polish(start, train, "columns", evaluations=60, demands=demands))
    )
    assert after < 0.95 * before


def test_a_mask_that_does_not_meet_the_demands_cannot_be_polished(slices):
    train = slices["columns"]
    mask = baselines.low_pass(train, 4, "columns")
    with pytest.raises(InputError, match=r"mask: does not meet the demands \(max_gap 8\)"):
        polish(mask, train, "columns", demands=Demands(max_gap=8))


@unhurried(max_examples=300)
@given(
    pattern=st.sampled_from(["points", "columns", "rows"]),
    acceleration=st.sampled_from([1.0, 1.3, 2.0, 4.0, 8.0]),
    calibration=st.integers(0, 24),
    partial=st.sampled_from([1.0, 0.51, 0.6, 0.75]),
    gap=st.integers(0, 8),
    segments=st.integers(1, 9),
    shutter=st.booleans(),
    axis=st.sampled_from([None, None, "rows", "columns"]),
    disc=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_what_cannot_be_met_is_refused_in_one_line_with_ways_out_that_work(
    pattern, acceleration, calibration, partial, gap, segments, shutter, axis, disc, seed
):
    """Also where what is left out takes along what it had an axis, or a shape, for."""
    lines = make(pattern, SIDES[pattern])
    generator = torch.Generator().manual_seed(seed)
    forbidden = lines.forward(torch.rand(lines.shape, generator=generator) < 0.1).contiguous()
    chosen = {"calibration": calibration, "partial_fourier": partial, "segments": segments, "forbid": forbidden}
    of_points = {"shutter": shutter, "axis": axis if partial < 1 or segments > 1 else None}
    of_points["calibration_shape"] = "disc" if disc and calibration else "square"
    demands = Demands(**chosen, **(of_points if pattern == "points" else {"max_gap": gap}))
    try:
        feasible = demands.feasible(lines, acceleration)
    except InputError as error:
        message = str(error)
    else:
        mask = lines.forward(feasible.round(torch.rand(lines.shape, generator=generator))).contiguous()
        assert violations(mask, demands, pattern, acceleration) == []
        return
    assert "\n" not in message and re.match(r"calibration|partial_fourier|max_gap|segments|shutter|forbid", message)
    ways = message.partition("; ")[2]
    assert ways.startswith("take ") or ways == "leave one of them out"
    for way in ways.removeprefix("take ").split(", or ") if ways.startswith("take ") else ():
        if way.startswith("acceleration "):
            for alpha in way.removeprefix("acceleration ").split(" or "):
                demands.feasible(lines, float(alpha))
        else:
            name, value = ("calibration", "0") if way == "no calibration" else way.split()
            kind = type(next(field.default for field in fields(Demands) if field.name == name))
            replace(demands, **{name: kind(value)}).feasible(lines, acceleration)


@pytest.mark.parametrize(
    ("demands", "pattern", "acceleration", "message"),
    [
        ({"calibration": 24}, "columns", 16, "calibration 24 needs 24 columns, and x16 of 128 allows 8; take calibration 8, or "),
        ({"calibration": 24, "partial_fourier": 0.55}, "columns", 4, "24 and partial_fourier 0.55: 6 columns would be measured"),
        ({"calibration": 128, "shutter": True}, "points", 1, "calibration 128 and shutter: 3533 points would be measured and left out"),
        ({"segments": 5}, "columns", 8, "segments 5: x8 of 128 makes 16 columns, which cannot be divided equally (1 would be left over)"),
        ({"segments": 8, "calibration": 8}, "rows", 8, "segments 8: band 4 holds 4 that are required, and each has 2 of 16 rows"),
        ({"max_gap": 4}, "columns", 8, "max_gap 4 needs 32 columns, and x8 of 128 allows 16; take max_gap 8, or acceleration 4"),
        ({"partial_fourier": 0.501}, "points", 8, "leaves out 64 of 128 indices, and DC is among them; take partial_fourier 0.508"),
        ({"shutter": True}, "rows", 8, "shutter: is for points, and rows are measured whole; use pattern points, or leave it out"),
        ({"max_gap": 3}, "points", 8, "max_gap 3: is for lines; use pattern columns or rows, or leave it out"),
        ({"calibration": 9, "calibration_shape": "disc"}, "rows", 8, "calibration_shape disc: is for points"),
        ({"calibration_shape": "disc"}, "columns", 8, "calibration_shape disc: is for points"),
        ({"calibration_shape": "disc"}, "points", 8, "calibration_shape disc: is that of calibration, which is 0; set both, or"),
        ({"segments": 2}, "columns", 4.1, "makes 31 columns, which cannot be divided equally (1 would be left over); take segments 1, or"),
        ({"axis": "rows"}, "points", 8, "axis rows: is that of partial_fourier and segments, and neither is set; set one, or"),
        ({"max_gap": 20, "forbid": torch.ones(128, 128).bool()}, "columns", 8, "forbid leaves 0 columns, and x8 of 128 needs 16"),
        ({"axis": "rows"}, "columns", 8, "axis rows: is for points; pattern columns has the phase-encode axis columns"),
        ({"forbid": torch.eye(128).bool()}, "columns", 8, "forbid: mask: has columns that are measured in part"),
        ({"forbid": torch.eye(12).bool()}, "points", 8, "forbid: mask of (12, 12): does not fit the slices"),
    ],
)  # fmt: skip
def test_messages_name_the_demand_the_numbers_and_the_way_out(demands, pattern, acceleration, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Demands(**demands).feasible(make(pattern, (128, 128)), acceleration)


@pytest.mark.parametrize("frames", [7, 8])
def test_a_mask_of_every_frame_is_not_taken_for_one_of_all_frames(frames):
    """Of rows of 8 x 8 in 8 frames both have the shape 8 x 8."""
    lines = make("rows", (frames, 8, 8), frames=True)
    forbid = torch.zeros(8, 8, dtype=torch.bool)
    forbid[:3] = True  # rows 0 to 2, in every frame
    whole = forbid.expand(frames, 8, 8)
    expected = Demands(forbid=whole).feasible(lines, 2).forbidden
    assert expected[:, :3].all() and not expected[:, 3:].any()
    if frames == 7:
        assert torch.equal(Demands(forbid=forbid).feasible(lines, 2).forbidden, expected)
    else:
        with pytest.raises(InputError, match="forbid: whether its first axis is rows or frames.* give all 8 x 8 x 8"):
            Demands(forbid=forbid).feasible(lines, 2)


@pytest.mark.parametrize("acceleration", [2.24, 2.239, 168 / 75])
def test_baselines_of_every_frame_have_its_budget(acceleration):
    series = SliceDataset("cine", "train", torch.rand(1, 1, 4, 8, 168), ["a"], [0], kind="series")
    mask = baselines.low_pass(series, acceleration, pattern="columns", demands=Demands(per_frame=True))
    assert mask[:, 0].sum(dim=-1).tolist() == [75] * 4


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        ({"calibration": 2.5}, "calibration 2.5: must be a whole number"),
        ({"calibration": -1}, "calibration -1: must be >= 0"),
        ({"partial_fourier": 0.5}, "partial_fourier 0.5: must be > 0.5"),
        ({"segments": 0}, "segments 0: must be >= 1"),
        ({"shutter": 1}, "shutter 1: must be True or False"),
        ({"calibration_shape": "dics"}, "did you mean 'disc'"),
        ({"axis": "z"}, "axis 'z' is not known"),
        ({"require": "none.npy"}, "mask none.npy: no such file"),
        ({"require": torch.ones(4, 4)}, "require of type torch.float32: must be a bool mask"),
    ],
)
def test_values_out_of_range_are_refused(demands, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Demands(**demands)


@pytest.mark.parametrize("seed", range(8))
def test_the_projection_is_the_nearest_point(seed):
    """Against SciPy's SLSQP: fixed samples, and a budget for every band."""
    demands = Demands(calibration=2, shutter=True, partial_fourier=0.8, segments=2 if seed % 2 else 1)
    lines = make("points", (6, 5))
    feasible = demands.feasible(lines, 3)
    theta = 3 * torch.rand(lines.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    low = torch.zeros(lines.shape) if feasible.mandatory is None else feasible.mandatory.double()
    high = 1 - feasible.forbidden.double()
    bands = torch.zeros(lines.shape) if feasible.groups is None else feasible.groups
    wanted = theta.numpy().ravel()
    rows = [(bands == band).numpy().ravel().astype(float) for band in bands.unique()]
    found = scipy.optimize.minimize(
        lambda x: ((x - wanted) ** 2).sum(),
        low.numpy().ravel(),
        jac=lambda x: 2 * (x - wanted),
        bounds=list(zip(low.numpy().ravel(), high.numpy().ravel(), strict=True)),
        constraints=[{"type": "ineq", "fun": lambda x, row=row: feasible.budget - row @ x, "jac": lambda x, row=row: -row} for row in rows],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    torch.testing.assert_close(feasible.project(theta), torch.from_numpy(found.x).reshape(lines.shape), rtol=0, atol=1e-6)


def test_what_is_left_open_can_always_be_completed():
    lines, generator = make("columns", (1, 24)), torch.Generator().manual_seed(0)
    feasible = Demands(calibration=2, max_gap=5, segments=3).feasible(lines, 4)
    for _ in range(20):
        taken = feasible.fitting(torch.zeros(lines.shape, dtype=torch.bool))
        while int(taken.sum()) < feasible.count:
            free = feasible.open(taken).nonzero().flatten()
            taken = feasible.grown(taken, torch.rand(24, generator=generator)) if taken.sum() % 2 else taken.index_fill(0, free[-1:], True)
        assert feasible.admits(taken) and not feasible.open(taken).any()


def test_without_demands_nothing_changes(blobs):
    assert Demands().plain and Demands(calibration=0, segments=1, max_gap=0).feasible(make("points", (8, 8)), 4).plain
    short = replace(prom.DEFAULT, iterations=10)
    one, two = (prom.optimize(blobs, 4, recipe=short, **given) for given in ({}, {"demands": Demands(), "device": "cpu"}))
    assert torch.equal(one.mask, two.mask) and "demands" not in one.recipe


def test_names_or_an_object(blobs):
    short = replace(prom.DEFAULT, iterations=10)
    one = prom.optimize(blobs, 4, "columns", short, calibration=4, max_gap=9)
    two = prom.optimize(blobs, 4, "columns", short, demands=Demands(calibration=4, max_gap=9))
    assert torch.equal(one.mask, two.mask) and one.recipe["demands"] == {"calibration": 4, "max_gap": 9}
    with pytest.raises(InputError, match="did you mean 'calibration'"):
        prom.optimize(blobs, 4, calibratoin=4)
    with pytest.raises(InputError, match="calibration: are demands too"):
        prom.optimize(blobs, 4, calibration=4, demands=Demands())
    with pytest.raises(InputError, match="demands of type dict"):
        prom.optimize(blobs, 4, demands={"calibration": 4})


def test_files_are_masks_too(tmp_path, blobs):
    mask = baselines.low_pass(blobs, 16)
    np.save(tmp_path / "centre.npy", mask.numpy())
    demands = Demands(require=tmp_path / "centre.npy", segments=2)
    assert Demands.from_dict(demands.as_dict()).require.equal(mask)
    assert (baselines.gaussian(blobs, 8, demands=demands) & mask).equal(mask)


@pytest.mark.parametrize(
    "record",
    [
        7,
        {"calibration": "24"},
        {"require": "/etc/passwd"},
        {"require": {"shape": [4, 4], "bits": "hCEA"}},
        {"forbid": {"shape": [-1, 4], "bits": ""}},
        {"forbid": {"shape": 4, "bits": "hA=="}},
        {"other": 1},
    ],
)
def test_records_that_are_damaged_are_refused(record):
    with pytest.raises(InputError):
        Demands.from_dict(record)


def test_a_file_whose_mask_does_not_meet_its_demands_is_refused(blobs):
    made = baselines.as_result(baselines.low_pass(blobs, 4, "columns"), "low_pass", 4, "columns", 0, blobs, {"demands": Demands(max_gap=8)})
    with pytest.raises(InputError, match="does not meet the demands that it names"):
        check(made)


def test_bands_of_series_are_those_of_each_frame():
    lines = Lines((3, 4, 16), readout=(-2,), frames=True)
    with pytest.raises(InputError, match="segments 2: of a series are of each frame, which then have equally many; add per_frame"):
        Demands(segments=2).feasible(lines, 4)
    mask = Demands(segments=2, per_frame=True).feasible(lines, 4).round(torch.rand(lines.shape))
    assert (mask.reshape(3, 2, 8).sum(dim=-1) == 2).all()


def test_bands_of_lines_and_scan_time():
    lines = Lines((4, 64), readout=(-2,))
    demands = Demands(segments=8)
    bands = demands.feasible(lines, 4).groups
    assert torch.equal(bands.bincount(), torch.full((8,), 8)) and (bands.diff() >= 0).all()
    made = baselines.as_result(
        lines.forward(demands.feasible(lines, 4).round(torch.rand(64))).contiguous(), "low_pass", 4, "columns", options={"demands": demands}
    )
    assert (made.excitations, made.shots, made.minutes(3000)) == (16, 2, 0.1)


@given(st.integers(1, 5000), st.data())
def test_accelerations_that_are_suggested_have_their_count(size, data):
    count = data.draw(st.integers(1, size))
    assert Lines((size, 1)).budget(float(acceleration_of(size, count))) == count


@given(st.integers(1, 30), st.integers(1, 30))
def test_the_shutter_touches_the_edges(height, width):
    inside = ellipse((height, width))
    assert inside[height // 2].all() and inside[:, width // 2].all() or min(height, width) == 1
    assert inside[height // 2, width // 2]
    if height > 3 and width > 3:
        assert not inside[0, 0] and abs(float(inside.double().mean()) - np.pi / 4) < 0.25


@pytest.mark.parametrize(("share", "size", "left_out"), [(0.95, 10, 0), (0.95, 50, 2), (0.9, 15, 2), (0.7, 15, 4), (0.75, 16, 4)])
def test_a_half_is_rounded_to_even(share, size, left_out):
    forbidden = Demands(partial_fourier=share).feasible(make("columns", (4, size)), 2).forbidden
    assert (0 if forbidden is None else int(forbidden.sum())) == left_out


def test_still_patterns_are_advised_for_series_alone():
    for frames, advice in ((True, True), (False, False)):
        with pytest.raises(InputError, match="lines of one axis") as caught:
            Demands(max_gap=4).feasible(make("columns", (4, 8, 10), frames), 2)
        assert ("still-columns" in str(caught.value)) == advice
