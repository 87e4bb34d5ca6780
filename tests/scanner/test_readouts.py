"""Readouts off the grid on their way to a scanner: what pypulseq, ismrmrd, SciPy and plain files find is the trajectory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import ismrmrd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pypulseq
import pytest
import torch
from scans import GRID_STEP, MOST, measured, moments, reread
from scipy.io import loadmat

from prom.errors import InputError
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.masks import MaskResult
from prom.scanner import seq_files, virtual
from prom.scanner.off_grid import Curves
from prom.scanner.protocol import Protocol
from prom.scanner.readout_plan import resolved
from prom.scanner.sequence import Scan, make, write
from prom.scanner.writing import write_scan
from prom.show.diagrams import order_figure, sequence_diagram

GAMMA = 42.576e6  # Hz/T
CURVE_STEP = 5e-3  # of a grid step: a spline between the edges of the gradient raster, of which 0.0037 was measured


def of(trajectory: Trajectory, every: int = 3, frames: int = 0) -> MaskResult:
    """A mask that measures every third candidate; of a series it begins one later in every frame."""
    numbers = torch.arange(len(trajectory))
    theta = ((numbers[None] - torch.arange(max(1, frames))[:, None]) % every == 0).float()
    theta = theta if frames else theta[0]
    mask = theta.bool()[..., None].expand(*theta.shape, trajectory.points.shape[1])
    if not frames and trajectory.points.shape[-1] == 3:
        mask = mask[None]
    mask = mask.contiguous()
    known = {"kind": "series"} if frames else {}
    acceleration = trajectory.full * max(1, frames) / float(theta.sum())
    given = {"recipe": {"name": "drawn"}, "seed": 0, "provenance": known, "trajectory": trajectory}
    return MaskResult(mask, mask.float(), theta, trajectory.kind, acceleration, **given)


def half_spokes() -> Trajectory:
    """Of one's own: from the centre outwards, in 24 samples, over a rectangle."""
    angle, radius = torch.arange(9) * 0.7, torch.linspace(0, 1, 24)
    direction = torch.stack([10 * angle.sin(), 14 * angle.cos()], dim=-1)
    return Trajectory(radius[:, None] * direction[:, None], "readouts", 20)


def waves() -> Trajectory:
    """Of one's own: lines of 40 samples that swing to both sides, from one edge to the other."""
    along = torch.linspace(-1, 1, 40, dtype=torch.float64)
    swing = torch.stack([2 * (5 * along).sin() + 0 * along, 11 * along], dim=-1)
    return Trajectory((swing + torch.tensor([[[-6.0, 0]], [[0, 0]], [[6, 0]]])).float(), "readouts", 20)


CASES = {
    "spokes": lambda: (of(spokes(30, 24)), {"fov": (220,), "tr": 9, "te": 4.321, "flip": 12, "dummies": 2}),
    "odd spokes, oversampled": lambda: (of(spokes(16, 31, samples=62)), {"fov": (220, 180), "order": "golden", "dummies": 0}),
    "kooshball": lambda: (of(kooshball(50, 18)), {"fov": (200,), "thickness": 150, "order": "interleaved", "shots": 3, "dummies": 1}),
    "kooshball, unequal": lambda: (of(kooshball(20, 15)), {"fov": (160, 220, 200), "dummies": 0, "bandwidth": 800}),
    "spirals": lambda: (of(spirals(12, 32, arms=6)), {"fov": (220,), "dummies": 1, "te": 3}),
    "slow spirals": lambda: (of(spirals(6, 24, arms=1)), {"fov": (240,), "dummies": 0, "bandwidth": 30, "tr": 45, "max_slew": 80}),
    "own half spokes": lambda: (of(half_spokes()), {"fov": (200, 280), "dummies": 0}),
    "own curves": lambda: (of(waves(), every=1), {"fov": (200, 220), "dummies": 1, "max_grad": 15}),
}


@pytest.fixture(params=CASES)
def name(request) -> str:
    return request.param


@cache
def scan(name: str) -> Scan:
    result, settings = CASES[name]()
    return make(result, Protocol(**settings), name)


def expected(made: Scan, result: MaskResult) -> np.ndarray:
    """``(S, R, axes)`` in cycles per field of view, x first, by the plan's numbers of candidates."""
    return result.trajectory.points[made.plan.steps[:, 0]].double().flip(-1).numpy()


def tolerance(name: str) -> float:
    return CURVE_STEP if "spiral" in name or "curves" in name else GRID_STEP


def test_samples_are_the_points_of_the_trajectory(name):
    """By pypulseq's integration of the gradients; in 2D the slice stays rephased."""
    (result, _), made = CASES[name](), scan(name)
    assert made.sequence.check_timing()[0]
    points = expected(made, result)
    axes = points.shape[-1]
    found = measured(made.sequence, points.shape[1]).kspace
    assert np.abs(found[..., :axes] * made.plan.fov[:axes] - points).max() < tolerance(name)
    if axes == 2:
        assert np.abs(found[..., 2]).max() * made.plan.fov[2] < 1e-4  # turns across the slice
    assert torch.equal(made.plan.mask(), result.mask)
    assert len(made.plan.steps) == len(set(made.plan.steps[:, 0].tolist()))


def test_the_file_read_again_is_equal(name, tmp_path):
    made, samples = scan(name), scan(name).plan.samples
    read = reread(made, tmp_path)
    assert read.check_timing()[0] and len(read.block_events) == len(made.sequence.block_events)
    assert list(read.block_durations.values()) == pytest.approx(list(made.sequence.block_durations.values()), abs=1e-12)
    ours, theirs = (measured(sequence, samples) for sequence in (made.sequence, read))
    assert np.abs((ours.kspace - theirs.kspace) * np.array(made.plan.fov)).max() < 0.1 * GRID_STEP
    np.testing.assert_allclose(ours.times, theirs.times, atol=1e-9)
    for one, two in zip(made.sequence.waveforms()[:3], read.waveforms()[:3], strict=True):
        np.testing.assert_allclose(one[0], two[0], atol=1e-9)
        np.testing.assert_allclose(one[1], two[1], atol=2e-6 * np.abs(one[1]).max())
    one, two = (sequence.evaluate_labels(evolution="adc") for sequence in (made.sequence, read))
    assert one.keys() == two.keys() == {"LIN"} and np.array_equal(one["LIN"], two["LIN"])
    np.testing.assert_array_equal(one["LIN"], np.arange(len(made.plan.steps)))
    for key, value in made.sequence.definitions.items():
        there = read.definitions[key]
        assert there == value if isinstance(value, str) else there == pytest.approx(np.array(value).squeeze(), rel=1e-6)


def test_limits_hold_for_the_length_of_the_gradient(name):
    """So that a rotated scan keeps them too; while the slice is selected only the axis counts."""
    made, protocol = scan(name), Protocol(**CASES[name]()[1])
    times = np.unique(np.concatenate([axis[0] for axis in made.sequence.waveforms()[:3] if axis.size]))
    times = np.unique(np.round(np.concatenate([times, times[:-1] + np.diff(times) / 2]), 9))
    values = np.stack([np.interp(times, *axis) if axis.size else 0 * times for axis in made.sequence.waveforms()[:3]], axis=-1)
    assert np.linalg.norm(values, axis=-1).max() / GAMMA * 1e3 <= protocol.max_grad * MOST
    apart = np.diff(times) > 1e-8
    slopes = np.diff(values, axis=0)[apart] / np.diff(times)[apart, None]
    assert np.linalg.norm(slopes, axis=-1).max() / GAMMA <= protocol.max_slew * MOST


def test_echo_repetition_spoiling(name):
    """Times by pypulseq; every repetition ends with the same moment, and pulse and receiver have the phase 117 n (n + 1) / 2."""
    (result, settings), made = CASES[name](), scan(name)
    protocol = Protocol(**settings)
    found, points = measured(made.sequence, made.plan.samples), expected(made, result)
    centre = int(np.linalg.norm(points, axis=-1).mean(axis=0).argmin())
    assert made.sequence.definitions["kSpaceCenterSample"] == centre
    np.testing.assert_allclose(found.times[:, centre] - found.excitations[found.pulses], made.te, atol=1e-8)
    np.testing.assert_allclose(np.diff(found.excitations), made.tr, atol=1e-9)
    assert protocol.te is None or made.te == pytest.approx(protocol.te / 1000, abs=1.01e-6)
    assert protocol.tr is None or made.tr == pytest.approx(protocol.tr / 1000, abs=1e-9)
    assert made.duration == pytest.approx(len(found.excitations) * made.tr, abs=1e-9)
    np.testing.assert_array_equal(found.pulses - protocol.dummies, made.plan.shot)
    steps = np.diff(moments(made.sequence, found.excitations), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=GRID_STEP / max(made.plan.fov))
    width = made.plan.fov[2] / made.plan.matrix[2] if made.plan.three_dimensional else made.plan.fov[2]
    assert steps[0, 2] * width > 1.999  # what spoils, and half of the slice's own gradient
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    pulses = [block.rf.phase_offset for block in blocks if block.rf is not None]
    wanted = np.radians([117 * n * (n + 1) / 2 % 360 for n in range(len(pulses))])
    np.testing.assert_allclose(pulses, wanted, atol=1e-9)
    received = [block.adc.phase_offset for block in blocks if block.adc is not None]
    np.testing.assert_allclose(received, wanted[protocol.dummies :], atol=1e-9)


def test_curves_go_as_fast_as_the_limits_allow():
    """Without a bandwidth the arm comes to 95% of a limit; stronger gradients make it shorter, and its points stay."""
    result = of(spirals(9, 64, arms=16))
    lasts = []
    for limits in ({"max_grad": 10}, {"max_slew": 40}, {"max_grad": 40, "max_slew": 200}):
        made = make(result, Protocol(dummies=0, **limits))
        arm = made.sequence.get_block(3).gx, made.sequence.get_block(3).gy
        wave = np.stack([axis.waveform for axis in arm], axis=-1)
        share = np.linalg.norm(wave, axis=-1).max() / GAMMA * 1e3 / limits.get("max_grad", 28)
        slew = np.linalg.norm(np.diff(wave, axis=0), axis=-1).max() / 1e-5 / GAMMA / limits.get("max_slew", 150)
        assert 0.95 < max(share, slew) <= 1
        found = measured(made.sequence, made.plan.samples).kspace[..., :2] * 0.22
        assert np.abs(found - expected(made, result)).max() < CURVE_STEP
        lasts.append(made.tr)
    assert lasts[2] < min(lasts[:2])


def test_orders():
    """The same readouts in each; golden steps leave no gap of more than 3 shares in any stretch of time."""
    result = of(spokes(60, 16), every=2)
    found = {name: make(result, Protocol(order=name, dummies=0)).plan.steps[:, 0].tolist() for name in ("linear", "golden")}
    assert found["linear"] == list(range(0, 60, 2)) == sorted(found["golden"])
    for count in (5, 8, 13):
        for begin in range(30 - count):
            angles = sorted(3 * number for number in found["golden"][begin : begin + count])
            gaps = np.diff([*angles, angles[0] + 180])
            assert gaps.max() <= 3 * 180 / count
    shots = make(result, Protocol(order="interleaved", shots=4, dummies=0)).plan.steps[:, 0].tolist()
    assert shots == [number for shot in range(4) for number in found["linear"][shot::4]]


def test_angles_as_a_list(tmp_path):
    for result, turn in ((of(spokes(20, 8), 4), 180), (of(spirals(20, 8), 4), 360)):
        write_scan(result, tmp_path / "angles.csv")
        read = pd.read_csv(tmp_path / "angles.csv")
        assert read.columns.tolist() == ["candidate", "angle"] and read["candidate"].tolist() == [0, 4, 8, 12, 16]
        np.testing.assert_allclose(read["angle"], read["candidate"] * turn / 20)
    angle = np.radians(read["angle"].to_numpy())
    arms = spirals(20, 8).points[::4].double().numpy()  # of arms what turns the first one into each
    turn = np.stack([np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)], -2)
    np.testing.assert_allclose(np.einsum("kab,rb->kra", turn, arms[0]), arms, atol=1e-6)
    write_scan(of(spokes(20, 8), 4), tmp_path / "angles.csv")
    angle = np.radians(pd.read_csv(tmp_path / "angles.csv")["angle"].to_numpy())
    ends = spokes(20, 8).points[::4, -1].double().numpy()  # rows first
    np.testing.assert_allclose(ends, 3 * np.stack([np.sin(angle), np.cos(angle)], -1), atol=1e-6)
    write_scan(of(kooshball(12, 6)), tmp_path / "angles.csv")
    read = pd.read_csv(tmp_path / "angles.csv")
    ends = kooshball(12, 6).points[::3, -1].double().flip(-1)
    np.testing.assert_allclose(read[["x", "y", "z"]], ends / ends.norm(dim=-1, keepdim=True), atol=1e-6)
    write_scan(of(spokes(20, 8), 4), tmp_path / "order.csv", order="golden")
    read = pd.read_csv(tmp_path / "order.csv")
    assert read.columns.tolist() == ["candidate", "angle", "shot"] and read["shot"].tolist() == [0, 1, 2, 3, 4]
    assert read["candidate"].tolist() == [0, 12, 4, 16, 8]


def test_series(tmp_path):
    """Frame after frame; counters of lines begin anew; a sequence is of one frame."""
    result = of(spokes(12, 8), 4, frames=3)
    write_scan(result, tmp_path / "angles.csv")
    write_scan(result, tmp_path / "order.csv", order="golden")
    plain, ordered = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("angles", "order"))
    pairs = [(frame, number) for frame in range(3) for number in range(frame, 12, 4)]
    assert list(zip(plain["frame"], plain["candidate"], strict=True)) == pairs
    assert sorted(zip(ordered["frame"], ordered["candidate"], strict=True)) == pairs and ordered["shot"].tolist() == list(range(9))
    made = write_scan(result, tmp_path / "scan.mrd")
    assert torch.equal(made.mask(), result.mask)
    _, acquisitions = opened(tmp_path / "scan.mrd")
    assert [a.idx.phase for a in acquisitions] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [a.idx.kspace_encode_step_1 for a in acquisitions] == [0, 1, 2] * 3
    with pytest.raises(InputError, match="is of one frame"):
        write_scan(result, tmp_path / "scan.seq")
    write_scan(result, tmp_path / "traj.cfl")
    points = bart(tmp_path / "traj")
    assert points.shape[:3] == (3, 8, 3) and points.shape[10] == 3
    np.testing.assert_array_equal(points.squeeze()[:2, :, :, 1].transpose(2, 1, 0), result.trajectory.points[1::4])


def opened(path) -> tuple[object, list]:
    with ismrmrd.Dataset(path, mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        return header, [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]


@pytest.mark.parametrize(("name", "kind"), [("spokes", "radial"), ("spirals", "spiral"), ("kooshball", "radial"), ("own curves", "other")])
def test_raw_data_carry_the_trajectory(name, kind, tmp_path):
    (result, settings), made = CASES[name](), scan(name)
    write_scan(result, tmp_path / "scan.mrd", **settings)
    header, acquisitions = opened(tmp_path / "scan.mrd")
    [encoding] = header.encoding
    assert encoding.trajectory.value == kind
    space = encoding.encodedSpace
    assert (space.matrixSize.x, space.matrixSize.y, space.matrixSize.z) == made.plan.matrix
    points = expected(made, result)
    np.testing.assert_array_equal(np.stack([a.traj for a in acquisitions]), points.astype(np.float32))
    centre = made.sequence.definitions["kSpaceCenterSample"]
    shape = (points.shape[1], centre, points.shape[2], 0)
    assert {(a.number_of_samples, a.center_sample, a.trajectory_dimensions, a.active_channels) for a in acquisitions} == {shape}
    assert [a.idx.kspace_encode_step_1 for a in acquisitions] == list(range(len(points)))
    assert [a.idx.user[2] for a in acquisitions] == made.plan.steps[:, 0].tolist()
    words = {parameter.name: parameter.value for parameter in header.userParameters.userParameterString}
    assert words == {"pattern": result.pattern, "trajectory_unit": "cycles per field of view"}


def bart(path) -> np.ndarray:
    dimensions = [int(word) for word in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), "<c8").reshape(dimensions, order="F")


def test_arrays_for_other_programs(tmp_path):
    result = of(spokes(12, 8))
    for ending in (".npy", ".mat", ".cfl", ".h5"):
        write_scan(result, tmp_path / f"out{ending}")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), result.mask)
    read = loadmat(tmp_path / "out.mat")
    np.testing.assert_array_equal(read["mask"], result.mask)
    np.testing.assert_array_equal(read["trajectory"], result.trajectory.points)
    points = bart(tmp_path / "out")
    assert points.shape == (3, 8, 4, *[1] * 13)
    np.testing.assert_array_equal(points.squeeze()[:2].T, result.trajectory.points[::3].numpy().transpose(0, 1, 2))
    assert not points.squeeze()[2].any()
    write_scan(of(kooshball(12, 6)), tmp_path / "volume.cfl")
    np.testing.assert_array_equal(bart(tmp_path / "volume").squeeze().T, kooshball(12, 6).points[::3][..., [1, 2, 0]])
    with pytest.raises(InputError, match=r"a picture of k-space has no place for spokes; export them as .csv"):
        write_scan(result, tmp_path / "out.png")
    unequal = of(spokes(10, 8), 3, frames=2)  # 4 and 3 spokes
    with pytest.raises(InputError, match="no room for frames with 3 to 4 spokes"):
        write_scan(unequal, tmp_path / "series.cfl")


HOSTILE = [
    ("spokes", "kind=tse", "kind tse: measures lines of a grid, but this mask has spokes; use kind=gre"),
    ("spokes", "fov=-1", "fov -1.0: must be >= 1"),
    ("spokes", "fov=200,200,200", "fov of 3 values: a mask of spokes makes a 2D sequence, so give 1 or 2 (height, width)"),
    ("kooshball", "fov=200,200", "fov of 2 values: a mask of kooshball makes a 3D sequence, so give 1 or 3 (depth, height, width)"),
    ("spokes", "readout=64", "readout 64: a mask of spokes says itself"),
    ("spokes", "calibration=4", "calibration 4: is of lines and points"),
    ("spokes", "oversampling=2", "oversampling 2: is of lines and points; make the spokes with more samples each"),
    ("spokes", "order=centric", "order centric: is of lines and points of a grid; of spokes use linear, interleaved, golden"),
    ("spokes", "order=interleaved shots=99", "shots 99: only 4 lines"),
    ("spokes", "te=1", "te 1 ms: is too short; the least is "),
    ("spokes", "tr=3", "tr 3 ms: is too short; the least is "),
    ("spokes", "bandwidth=20000 max_grad=5 thickness=20", "bandwidth 20000 Hz per pixel"),
    ("spirals", "bandwidth=3000", "bandwidth 3000 Hz per pixel: the gradients cannot go along these 28 points so fast"),
    ("spirals", "bandwidth=0.01", "bandwidth 0.01 Hz per pixel: makes readouts longer than 200 ms; use bandwidth=6 or more"),
    ("spirals", "te=0.5", "te 0.5 ms: is too short; the least is "),
    ("spirals", "tr=3", "tr 3 ms: is too short; the least is "),
    ("spirals", "max_slew=0.00001", "max_slew 1e-05: cannot follow these curves"),
    ("spirals", "te=nan", "option 'te=nan'"),
]


@pytest.fixture
def run(command_line):
    of(spokes(12, 8)).save("spokes.h5")
    of(spirals(12, 16, arms=8)).save("spirals.h5")
    of(kooshball(12, 6)).save("kooshball.h5")
    return command_line


@pytest.mark.parametrize(("mask", "settings", "message"), HOSTILE, ids=[f"{mask} {settings}" for mask, settings, _ in HOSTILE])
def test_what_cannot_be_is_one_line_and_no_file(run, tmp_path, mask, settings, message):
    before = sorted(path.name for path in tmp_path.iterdir())
    given = [word for setting in settings.split(" ") for word in ("--set", setting)]
    code, out, err = run("export", f"{mask}.h5", "--output", "scan.seq", *given)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err, err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("mask", "settings"), [("spokes", "te=1"), ("spirals", "tr=3"), ("spirals", "te=0.5"), ("kooshball", "tr=2")])
def test_the_way_out_is_one(run, mask, settings):
    name = settings.split("=")[0]
    _, _, err = run("export", f"{mask}.h5", "--output", "scan.seq", "--set", settings)
    least = err.split("the least is ")[1].split(" ms")[0]
    code, out, err = run("export", f"{mask}.h5", "--output", "scan.seq", "--set", f"{name}={least}")
    assert code == 0 and f"{name.upper()} {float(least):g} ms" in out, err


@pytest.mark.parametrize(
    ("mask", "settings"), [("spokes", ["max_grad=5", "thickness=20"]), ("spirals", ["max_slew=50"]), ("spirals", ["te=4.003"])]
)
def test_the_way_out_of_a_bandwidth(run, mask, settings):
    given = [word for setting in settings for word in ("--set", setting)]
    _, _, err = run("export", f"{mask}.h5", "--output", "scan.seq", *given, "--set", "bandwidth=20000")
    most = err.split("use bandwidth=")[1].split(" ")[0]
    code, _, err = run("export", f"{mask}.h5", "--output", "scan.seq", *given, "--set", f"bandwidth={most}")
    assert code == 0, err


@pytest.mark.parametrize("slow", ["0.01", "5"])
def test_the_way_out_of_a_readout_that_is_too_long(run, slow):
    code, _, err = run("export", "spirals.h5", "--output", "scan.seq", "--set", f"bandwidth={slow}")
    assert code == 2 and "makes readouts longer than 200 ms" in err
    least = err.split("use bandwidth=")[1].split(" ")[0]
    code, _, err = run("export", "spirals.h5", "--output", "scan.seq", "--set", f"bandwidth={least}")
    assert code == 0, err


def test_too_fast_is_not_too_slow():
    """The ramps of a readout that is far too fast are longer than any readout may be."""
    turns = spirals(4, 128).points.double().numpy() / 0.22
    protocol = Protocol(max_slew=10, bandwidth=20000)
    with pytest.raises(InputError, match="so fast.* use bandwidth=11.* or less"):
        Curves(np.concatenate([turns, np.zeros((*turns.shape[:2], 1))], axis=-1), protocol, protocol.limits())


def test_curves_that_just_fit_are_followed():
    """Slower they would take over 200 ms, and faster more than the gradients can do."""
    turns = spirals(2, 64, samples=1024).points.double().numpy() / 0.22
    curves = np.concatenate([turns, np.zeros((*turns.shape[:2], 1))], axis=-1)
    protocol = Protocol(max_grad=0.146051, max_slew=150)
    made = Curves(curves, protocol, protocol.limits())
    assert 100_000 < made.dwell <= 190_000 and made.duration <= 200_000_000


def test_what_is_said_is_what_is_in_the_file(run):
    code, out, _ = run("export", "spirals.h5", "-o", "scan.seq", "--set", "fov=200")
    sequence = pypulseq.Sequence()
    sequence.read("scan.seq")
    assert code == 0 and "gre2d: 4 of 12 spirals (x2.00), 28 samples each, matrix 16 x 16 (x first)" in out
    assert sequence.definitions["Pattern"] == "spirals" and "kSpaceCenterLine" not in sequence.definitions
    seconds = float(out.split("scan time ")[1].split(" s")[0])
    assert seconds == pytest.approx(sequence.duration()[0], rel=0.005)


def test_nothing_measured_or_one_sample():
    result = of(spokes(12, 8))
    empty = replace(result, mask=torch.zeros_like(result.mask))
    with pytest.raises(InputError, match="measures nothing"):
        make(empty)
    with pytest.raises(InputError, match="needs at least 2"):
        make(of(Trajectory(torch.rand(6, 1, 2), "readouts", 6)))
    with pytest.raises(InputError, match="stay at one point"):
        make(of(Trajectory(torch.ones(6, 5, 2), "readouts", 6)))


def test_what_only_grids_have(tmp_path):
    """Is refused in one line; the diagram of a sequence shows three axes."""
    made = scan("spokes")
    write(made, tmp_path / "scan.seq")
    for refused, message in (
        (lambda: seq_files.read(tmp_path / "scan.seq"), "has readouts off the grid, and only lines and points are read back"),
        (lambda: virtual.scan(made, torch.rand(24, 24)), "a virtual scan measures lines and points"),
        (lambda: order_figure(made.plan), "this figure is of lines and points"),
    ):
        with pytest.raises(InputError, match=message):
            refused()
    figure = sequence_diagram(made)
    assert [axes.get_ylabel().partition("\n")[0] for axes in figure.axes] == ["RF", "x", "y", "z", "ADC"]
    assert {text.get_text() for text in figure.axes[4].texts} == {str(number) for number in made.plan.steps[:2, 0].tolist()}
    plt.close(figure)


def test_the_matrix_of_own_readouts_is_what_they_reach():
    """Of a stack of stars, of half spokes, and of lines of a grid: also along axes on which no readout moves."""
    angles, along, planes = torch.arange(8) * torch.pi / 8, torch.arange(-8.0, 8), torch.arange(-8.0, 8)
    star = torch.stack([0 * angles[:, None] + 0 * along, angles.sin()[:, None] * along, angles.cos()[:, None] * along], dim=-1)
    stack = torch.cat([star + torch.tensor([plane, 0, 0]) for plane in planes])
    lines = torch.stack(torch.meshgrid(torch.arange(-16.0, 16), torch.arange(-16.0, 16), indexing="ij"), dim=-1)
    for points, matrix in ((stack, (16, 16, 16)), (lines, (32, 32, 1))):
        assert resolved(Trajectory(points, "readouts", 8)) == matrix
    assert resolved(spokes(12, 31)) == (31, 31, 1) and resolved(half_spokes())[:2] == (28, 20)


def test_counters_and_dwell_times_that_raw_data_cannot_hold(tmp_path):
    many = kooshball(70_000, 4)
    theta = torch.zeros(70_000)
    theta[[5, 65_536]] = 1
    mask = theta.bool()[None, :, None].expand(1, -1, many.points.shape[1]).contiguous()
    result = MaskResult(mask, mask.float(), theta, "kooshball", 9.0, {"name": "drawn"}, 0, trajectory=many)
    with pytest.raises(InputError, match="candidate 65536"):
        write_scan(result, tmp_path / "a.mrd")
    with pytest.raises(InputError, match="use bandwidth="):
        make(of(spirals(8, 64)), Protocol(bandwidth=20_000))
    wide, narrow = waves().points, waves().points * torch.tensor([0.1, 0.3])
    own = of(Trajectory(torch.cat([wide, narrow])[[0, 3, 1, 4]], "readouts", 20), every=2, frames=2)
    with pytest.raises(InputError, match="different times"):
        write_scan(own, tmp_path / "b.mrd")
    assert not list(tmp_path.iterdir())


FIELDS = {"own half spokes": (0.28, 0.2), "odd spokes, oversampled": (0.18, 0.22), "kooshball, unequal": (0.2, 0.22, 0.16)}


@pytest.mark.parametrize("name", FIELDS)
def test_an_unequal_field_of_view_has_its_axes(name):
    assert scan(name).plan.fov[: len(FIELDS[name])] == pytest.approx(FIELDS[name])
