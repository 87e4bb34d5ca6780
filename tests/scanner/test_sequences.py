"""Sequences without a scanner: what pypulseq finds in them is the mask, in order, within the limits, and so it is in their files."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from scans import CASES, GRID_STEP, MOST, case, grid, measured, moments, of, random_mask, reread, scan

from prom.scanner.gre import to_steady_state
from prom.scanner.protocol import Protocol
from prom.scanner.sequence import make

GAMMA = 42.576e6  # Hz/T


@pytest.fixture(params=CASES)
def name(request) -> str:
    return request.param


@pytest.fixture
def made(name):
    return scan(name)


def test_timing(made):
    fine, errors = made.sequence.check_timing()
    assert fine, errors[:3]


def test_kspace_is_the_mask_in_order(name, made):
    """Of every readout all samples, at the places that the plan says, and the plan is the mask."""
    found = grid(made, measured(made.sequence, made.plan.samples).kspace)
    x, y, z = np.moveaxis(found, -1, 0)
    assert np.abs(x - np.arange(made.plan.samples)).max() < GRID_STEP
    steps = np.stack([y, z], axis=-1)
    assert np.abs(steps - made.plan.steps.numpy()[:, None]).max() < GRID_STEP
    places = np.rint(steps[:, 0]).astype(int)
    mask, shape = np.zeros(made.plan.matrix[1:], dtype=bool), case(name).result.mask.shape
    mask[tuple(places.T)] = True
    assert mask.sum() == len(places)  # nothing twice
    pattern = case(name).result.pattern
    whole = {"columns": mask.T, "rows": mask, "points": mask}[pattern]
    np.testing.assert_array_equal(np.broadcast_to(whole, shape), case(name).result.mask.numpy())
    assert torch.equal(made.plan.mask(), case(name).result.mask)


def test_labels(made):
    labels = made.sequence.evaluate_labels(evolution="adc")
    np.testing.assert_array_equal(labels["LIN"], made.plan.steps[:, 0])
    np.testing.assert_array_equal(labels["REF"], made.plan.calibration)
    np.testing.assert_array_equal(labels["IMA"], made.plan.calibration)
    np.testing.assert_array_equal(labels.get("PAR", np.zeros(len(made.plan.steps))), made.plan.steps[:, 1])
    np.testing.assert_array_equal(labels.get("SEG", np.zeros(len(made.plan.steps))), made.plan.echo)


def test_the_file_read_again_is_equal(made, tmp_path):
    """Block by block, to the digits that a file has; and the trajectory, to a hundredth of what a sample may lie off."""
    read = reread(made, tmp_path)
    assert read.check_timing()[0] and len(read.block_events) == len(made.sequence.block_events)
    assert list(read.block_durations.values()) == pytest.approx(list(made.sequence.block_durations.values()), abs=1e-12)
    for number in made.sequence.block_events:
        same(made.sequence.get_block(number), read.get_block(number))
    ours, theirs = (measured(sequence, made.plan.samples) for sequence in (made.sequence, read))
    assert np.abs(grid(made, ours.kspace) - grid(made, theirs.kspace)).max() < 0.01 * GRID_STEP
    np.testing.assert_allclose(ours.times, theirs.times, atol=1e-9)
    one, two = (sequence.evaluate_labels(evolution="adc") for sequence in (made.sequence, read))
    assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)
    for key, value in made.sequence.definitions.items():
        there = read.definitions[key]
        assert there == value if isinstance(value, str) else there == pytest.approx(np.array(value).squeeze(), rel=1e-6)
    assert read.definitions["TotalDuration"] == pytest.approx(made.duration, abs=1e-6)
    text, signature = (tmp_path / "scan.seq").read_text().split("\n[SIGNATURE]\n")  # the line's end before it belongs to it
    assert signature.endswith(f"Type md5\nHash {hashlib.md5(text.encode()).hexdigest()}\n")


def same(one: object, two: object) -> None:
    """Two blocks with the same events."""
    for key in ("rf", "gx", "gy", "gz", "adc", "label"):
        first, second = getattr(one, key, None), getattr(two, key, None)
        assert (first is None) == (second is None), key
        if first is None:
            continue
        if key == "label":
            listed = [sorted((e.label, e.value) for e in events.values()) for events in (first, second)]
            assert listed[0] == listed[1]
            continue
        for field, value in vars(first).items():
            if field in ("id", "shape_IDs", "name", "dead_time", "ringdown_time"):  # the last two are of the scanner, in no file
                continue
            other = getattr(second, field)
            if isinstance(value, str) or value is None:
                assert value == other, (key, field)
            elif field == "signal":
                np.testing.assert_allclose(value, other, atol=1e-4 * np.abs(value).max())
            elif field == "phase_offset":
                assert abs(np.exp(1j * value) - np.exp(1j * other)) < 1e-5
            else:
                np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-9, err_msg=f"{key} {field}")


def test_limits_of_gradients(name, made):
    """From the waveforms: amplitude and slew rate of every axis."""
    protocol = case(name).protocol
    for axis, (times, values) in enumerate(made.sequence.waveforms()[:3]):
        step = np.diff(times)
        assert np.abs(values).max() / GAMMA * 1e3 <= protocol.max_grad * MOST, axis
        jumps = np.abs(np.diff(values))[step < 1e-9]
        assert (jumps < 1e-3).all()  # what two blocks have at their seam
        slopes = np.abs(np.diff(values))[step > 1e-9] / step[step > 1e-9]
        assert slopes.max() / GAMMA <= protocol.max_slew * MOST, axis


def test_echo_and_repetition_time(name, made):
    """From the middle of the pulse to the sample at the centre of the readout; and from one excitation to the next."""
    found, centre = measured(made.sequence, made.plan.samples), made.plan.samples // 2
    after = found.times[:, centre] - found.excitations[found.pulses]
    train = made.sequence.definitions.get("EchoSpacing", 0)
    effective = after if not train else after - (made.plan.echo.numpy() + 1 - round(made.te / train)) * train
    np.testing.assert_allclose(effective, made.te, atol=1.01e-6)  # half a dwell time is on no raster
    np.testing.assert_allclose(np.diff(found.excitations), made.tr, atol=1e-9)
    assert made.duration == pytest.approx(len(found.excitations) * made.tr, abs=1e-9)
    protocol = case(name).protocol
    assert protocol.te is None or made.te == pytest.approx(protocol.te / 1000, abs=1.01e-6)
    assert protocol.tr is None or made.tr == pytest.approx(protocol.tr / 1000, abs=1e-9)
    default = 1 if protocol.kind == "tse" else until_steady(made.tr, math.radians(made.flip))
    dummies = default if protocol.dummies is None else protocol.dummies
    assert found.pulses.min() == dummies == len(found.excitations) - (int(made.plan.shot.max()) + 1)
    np.testing.assert_array_equal(found.pulses - dummies, made.plan.shot)


def test_effective_echo_time_is_that_of_the_centre(name, made):
    """The line nearest to DC is measured TE after its excitation."""
    found, middle = measured(made.sequence, made.plan.samples), made.plan.matrix[1] // 2
    nearest = min(range(len(found.times)), key=lambda number: abs(int(made.plan.steps[number, 0]) - middle))
    after = found.times[nearest, made.plan.samples // 2] - found.excitations[found.pulses[nearest]]
    assert after == pytest.approx(made.te, abs=1.01e-6)


def test_definitions(name, made):
    known = made.sequence.definitions
    assert known["FOV"] == list(made.plan.fov) and known["Matrix"] == list(made.plan.matrix)
    assert known["Kind"] == name.split(",")[0]
    assert known["TrueAcceleration"] == pytest.approx(made.plan.matrix[1] * made.plan.matrix[2] / len(made.plan.steps))
    seconds = made.plan.samples * np.diff(measured(made.sequence, made.plan.samples).times).mean()
    assert 1 / seconds == pytest.approx(case(name).protocol.bandwidth or 500, rel=made.plan.samples * 1e-7 / seconds)  # raster: 0.1 us
    times = case(name).settings.get("oversampling", 1)
    assert known["ReadoutOversamplingFactor"] == times and made.plan.samples == times * made.plan.matrix[0]
    sizes = (made.plan.samples, *made.plan.matrix[1:])
    assert [known[f"kSpaceCenter{axis}"] for axis in ("Sample", "Line", "Partition")] == [n // 2 for n in sizes]
    assert known["B0"] == case(name).settings.get("field", 3.0)
    assert known["FlipAngle"] == made.flip == (case(name).protocol.flip or {"gre": 12, "tse": 90}[case(name).protocol.kind])


def test_dummies_have_no_adc_and_are_else_alike():
    result = random_mask("columns", (16, 16))
    with_, without = (make(result, Protocol(dummies=number)).sequence for number in (3, 0))
    blocks = len(without.block_events)
    assert len(with_.block_events) == blocks + 12
    assert all(with_.get_block(number).adc is None for number in range(1, 13))
    assert sum(with_.get_block(number).adc is not None for number in with_.block_events) == len(make(result).plan.steps)


def test_every_repetition_dephases_alike(name, made):
    """From pulse to pulse the same moment, whatever was encoded: the steady state of spoiling needs it. Spoilers of 2 cycles a voxel."""
    found = measured(made.sequence, made.plan.samples)
    steps = np.diff(moments(made.sequence, found.excitations), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=GRID_STEP / max(made.plan.fov))
    if case(name).protocol.kind == "tse":
        return
    assert steps[0, 0] * made.plan.fov[0] / made.plan.matrix[0] > 1.999  # along the readout
    thickness = (case(name).protocol.thickness or 5.0) / 1000
    assert made.plan.three_dimensional or steps[0, 2] * thickness > 1.999  # and through the slice


def test_phase_of_spoiling(name, made):
    """The n-th pulse has 117 n (n + 1) / 2 degrees (Zur et al. 1991), and the receiver follows it."""
    if case(name).protocol.kind == "tse":
        return
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    pulses = [block.rf.phase_offset for block in blocks if block.rf is not None]
    wanted = np.radians(117 * np.array([n * (n + 1) / 2 for n in range(len(pulses))]))
    np.testing.assert_allclose(np.exp(1j * np.array(pulses)), np.exp(1j * wanted), atol=1e-9)
    received = np.array([block.adc.phase_offset for block in blocks if block.adc is not None])
    np.testing.assert_allclose(np.exp(1j * received), np.exp(1j * wanted[len(pulses) - len(received) :]), atol=1e-9)


def until_steady(repetition, flip, t1=1.5):
    """Pulses, one at least, until the magnetisation that the next one meets is within 5 % of the steady state's, one after the other."""
    recovery, meets, pulses = math.exp(-repetition / t1), 1.0, 0
    steady = (1 - recovery) / (1 - recovery * math.cos(flip))
    while abs(meets / steady - 1) > 0.05 or not pulses:
        meets, pulses = 1 + (meets * math.cos(flip) - 1) * recovery, pulses + 1
    return pulses


@pytest.mark.parametrize("repetition", [0.004, 0.02, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("flip", [3, 12, 40, 90, 120, 180])
def test_so_many_dummies_reach_the_steady_state(repetition, flip):
    """By pulses played one after the other; one case of the sequences has them too."""
    assert to_steady_state(1000 * repetition, flip) == until_steady(repetition, math.radians(flip))


@pytest.mark.parametrize("settings", [{"tr": 100, "te": 30}, {"kind": "tse", "echoes": 4, "tr": 1000}])
def test_gradients_rest_where_there_is_time(settings):
    """Of all but slice selection and readout, none is longer than 4 ms: what is longer is hardly quieter, and dephases what moves."""
    sequence = make(of(torch.arange(16) % 2 == 0, "columns", (16, 16)), Protocol(**settings)).sequence
    for number in sequence.block_events:
        block = sequence.get_block(number)
        for gradient in (block.gx, block.gy, block.gz):
            if gradient is not None and block.rf is None:
                assert gradient.rise_time + gradient.flat_time + gradient.fall_time <= 0.004 + 1e-9


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("tse")])
def test_carr_purcell_meiboom_gill(name):
    """Pulses at 90 and 0 degrees; refocusing at odd multiples of half the echo spacing; between neighbours equal moments."""
    made = scan(name)
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    for use, phase, flip in (("excitation", 90, 90), ("refocusing", 0, case(name).protocol.refocusing)):
        of = [block.rf for block in blocks if block.rf is not None and block.rf.use == use]
        assert {round(math.degrees(pulse.phase_offset), 9) for pulse in of} == {phase}
        for pulse in of:
            assert 360 * np.trapezoid(pulse.signal, pulse.t) == pytest.approx(flip, rel=1e-3)
    assert {round(math.degrees(block.adc.phase_offset), 9) for block in blocks if block.adc is not None} == {90}
    found, echoes = measured(made.sequence, made.plan.samples), case(name).protocol.echoes
    spacing = made.sequence.definitions["EchoSpacing"]
    refocusing = found.refocusing.reshape(-1, echoes) - found.excitations[:, None]
    np.testing.assert_allclose(refocusing, np.broadcast_to((np.arange(echoes) + 0.5) * spacing, refocusing.shape), atol=1e-9)
    at = found.refocusing.reshape(-1, echoes)
    first = moments(made.sequence, at[:, 0]) - moments(made.sequence, found.excitations)
    between = np.diff(np.stack([moments(made.sequence, times) for times in at.T], axis=1), axis=1)
    expected = np.broadcast_to(2 * first[:, None], between.shape)  # the same dephasing in every half, so that all echoes are one
    np.testing.assert_allclose(between, expected, atol=GRID_STEP / max(made.plan.fov))


def test_pulses_are_what_was_asked_for(name, made):
    """Flip angle by the area; the width of the slice by the spectrum of the pulse, for small angles; the middle on the raster."""
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    [block] = [block for block in blocks if block.rf is not None and block.rf.use == "excitation"][:1]
    pulse = block.rf
    assert 360 * np.trapezoid(pulse.signal, pulse.t) == pytest.approx(made.flip, rel=1e-3)
    assert round((pulse.delay + pulse.center) * 1e9) % 1000 == 0
    assert pulse.center == pytest.approx(pulse.shape_dur / 2, abs=1e-9)
    usual = {"gre": 2, "tse": 3}[case(name).protocol.kind]
    assert pulse.shape_dur == pytest.approx(case(name).settings.get("pulse", usual) / 1000, abs=1e-9)
    frequencies = np.linspace(-4000, 4000, 801)
    profile = np.abs(np.exp(-2j * np.pi * frequencies[:, None] * pulse.t) @ pulse.signal)
    width = np.ptp(frequencies[profile > profile.max() / 2]) / block.gz.amplitude
    protocol = case(name).protocol
    thickness = made.plan.fov[2] if protocol.thickness is None else protocol.thickness / 1000
    assert width == pytest.approx(thickness, rel=0.1)
    flat = block.gz.delay + block.gz.rise_time  # the gradient is constant while the pulse lasts
    assert flat <= pulse.delay + 1e-9 and flat + block.gz.flat_time >= pulse.delay + pulse.shape_dur - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "shape", "settings"),
    [
        ("points", (96, 80), {"fov": (220, 220, 180), "readout": 192}),
        ("columns", (320, 320), {"kind": "tse", "echoes": 8, "te": 80}),
    ],
)
def test_real_sizes(pattern, shape, settings, tmp_path):
    result = random_mask(pattern, shape, 0.25) if pattern == "points" else of(torch.arange(shape[1]) % 4 == 0, pattern, shape)
    made = make(result, Protocol(**settings))
    read = reread(made, tmp_path)
    assert made.sequence.check_timing()[0] and read.check_timing()[0]
    found = grid(made, measured(read, made.plan.samples).kspace)
    assert np.abs(found[..., 1:] - made.plan.steps.numpy()[:, None]).max() < 2 * GRID_STEP  # six digits of an amplitude, over whole trains
    assert np.abs(found[..., 0] - np.arange(made.plan.samples)).max() < GRID_STEP


FIELDS = {"gre2d, repulsion, rows": (0.2405, 0.18), "tse2d, random columns": (0.24, 0.2), "gre3d, random points": (0.2, 0.22, 0.16)}


@pytest.mark.parametrize("name", FIELDS)
def test_an_unequal_field_of_view_has_its_axes(name):
    """In metres, as Pulseq has it: x is along the columns' index, y along the rows'."""
    assert scan(name).sequence.definitions["FOV"][: len(FIELDS[name])] == pytest.approx(list(FIELDS[name]))
