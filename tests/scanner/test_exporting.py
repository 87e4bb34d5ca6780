"""``prom export`` to a scanner: every ending, what is refused, and that nothing is left of what fails."""

from __future__ import annotations

import h5py
import ismrmrd
import numpy as np
import pandas as pd
import pypulseq
import pytest
import torch
from scans import CASES, case, measured, of, random_mask, scan

from prom.datasets import raw
from prom.errors import InputError
from prom.scanner import raw_data
from prom.scanner.writing import acquisition_times, times, write_scan


@pytest.fixture
def run(command_line):
    """The command line in this process, beside masks of every pattern: exit code, output, errors."""
    for pattern in ("columns", "rows", "points"):
        random_mask(pattern, (16, 18)).save(f"{pattern}.h5")
    of(torch.arange(16) % 2 == 0, "columns", (16, 16)).save("half.h5")
    return command_line


HOSTILE = [
    # times
    ("columns", "kind=tse order=centric", "order centric: is of gre"),
    ("columns", "echoes=4", "echoes 4: is of a turbo spin echo; use kind=tse"),
    ("columns", "refocusing=120", "refocusing 120: is of a turbo spin echo"),
    ("columns", "shots=3", "shots 3: are of the order interleaved"),
    ("columns", "te=1", "te 1 ms: is too short; the least is 2."),
    ("columns", "te=-1", "te -1.0: must be > 0"),
    ("columns", "te=4.00005", "te 4.00005: must be a multiple of 0.001 ms"),
    ("columns", "tr=3", "tr 3 ms: is too short; the least is 5."),
    ("columns", "tr=8 te=7", "tr 8 ms: is too short; the least is 9."),
    ("columns", "tr=8.005", "tr 8.005: must be a multiple of 0.01 ms"),
    ("columns", "tr=0", "tr 0.0: must be > 0"),
    ("half", "kind=tse te=4", "te 4 ms: is too short; the least is 8."),
    ("half", "kind=tse te=15", "te 15 ms: is no multiple of an echo spacing of"),
    ("half", "kind=tse tr=50", "tr 50 ms: is too short; the least is"),
    # geometry
    ("columns", "fov=1", "bandwidth 500 Hz per pixel: over a field of view of 1 mm needs 187"),
    ("columns", "fov=2000", "fov 2000.0: must be >= 1 and <= 1000"),
    ("columns", "fov=220,220,220", "fov of 3 values: this mask makes a 2D sequence"),
    ("points", "fov=220,220", "fov of 2 values: this mask makes a 3D sequence"),
    ("columns", "fov=1,2,3,4", "fov of 4 values: must be 1, 2"),
    ("columns", "fov=0", "fov 0.0: must be >= 1"),
    ("columns", "fov=wide", "fov of a sequence must be numbers, e.g. fov=220,180.5"),
    ("columns", "thickness=0.1", "thickness 0.1 mm: needs a gradient of"),
    ("half", "kind=tse thickness=0.2", "thickness 0.2 mm: needs a gradient of"),
    ("columns", "readout=64", "readout 64: a mask of columns says itself how long they are, 16"),
    ("points", "readout=1", "readout 1: must be >= 2"),
    ("columns", "oversampling=0", "oversampling 0: must be >= 1 and <= 8"),
    ("columns", "oversampling=1.5", "oversampling of a sequence must be a whole number"),
    ("points", "readout=4096 oversampling=3 bandwidth=50", "readout of 12288 samples: must be <= 8192; use a smaller matrix or over"),
    ("points", "readout=64.5", "readout of a sequence must be a whole number"),
    # the scanner's limits
    ("columns", "bandwidth=100000", "bandwidth 100000.0: must be > 0 and <= 20000"),
    ("columns", "bandwidth=20000", "bandwidth 20000 Hz per pixel"),
    ("points", "readout=4096 bandwidth=300", "of 4096 samples makes a dwell time below 0.001 ms; use at most 244"),
    ("columns", "bandwidth=0", "bandwidth 0.0: must be > 0"),
    ("columns", "flip=180", "flip 180: needs"),
    ("columns", "flip=190", "flip 190.0: must be > 0 and <= 180"),
    ("half", "kind=tse pulse=1.5", "refocusing 180: needs"),
    ("half", "kind=tse max_b1=3", "max_b1 is 3"),
    ("columns", "max_grad=1", "max_grad is 1"),
    ("columns", "max_slew=0", "max_slew 0.0: must be > 0"),
    # orders, calibration, trains
    ("columns", "order=zigzag", "order 'zigzag' is not known"),
    ("columns", "order=interleaved shots=1000", "shots 1000: only"),
    ("half", "calibration=4", "calibration 4: the mask does not measure 2 of the lines"),
    ("columns", "calibration=-1", "calibration -1: must be >= 0"),
    ("half", "kind=tse echoes=3", "echo train of length 3: 8 measured lines cannot be dealt out, 2 are left over; use a length of 2 or 4"),
    ("half", "kind=tse echoes=0", "echoes 0: must be >= 1"),
    ("points", "kind=tse", "kind tse: is 2D and measures whole lines, but this mask has points"),
    # names
    ("columns", "kind=epi", "kind of sequence 'epi' is not known"),
    ("columns", "tre=8", "option of a sequence 'tre' is not known; did you mean 'tr'?"),
    ("columns", "flip=", "option 'flip=': flip of a sequence must be a number"),
    ("columns", "flip", "option 'flip'"),
    ("columns", "te=nan", "option 'te=nan'"),
]  # fmt: skip


@pytest.mark.parametrize(("mask", "settings", "message"), HOSTILE, ids=[f"{mask} {settings}" for mask, settings, _ in HOSTILE])
@pytest.mark.parametrize("ending", [".seq", ".mrd"])
def test_what_cannot_be_is_one_line_and_no_file(run, tmp_path, mask, settings, message, ending):
    before = sorted(path.name for path in tmp_path.iterdir())
    given = [word for setting in settings.split(" ") for word in ("--set", setting)]
    code, out, err = run("export", f"{mask}.h5", "--output", f"scan{ending}", *given)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err, err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("settings", ["te=1", "tr=3"])
def test_the_way_out_is_one(run, settings):
    """The least that the message names can be made."""
    name = settings.split("=")[0]
    _, _, err = run("export", "columns.h5", "--output", "scan.seq", "--set", settings)
    least = err.split("the least is ")[1].split(" ms")[0]
    code, out, err = run("export", "columns.h5", "--output", "scan.seq", "--set", f"{name}={least}")
    assert code == 0 and f"{name.upper()} {float(least):g} ms" in out, err


@pytest.mark.parametrize("bandwidth", [2500, 7000])
def test_the_way_out_of_a_bandwidth(run, bandwidth):
    settings = ["--set", "fov=60", "--set", "max_grad=10"]
    _, _, err = run("export", "columns.h5", "--output", "scan.seq", *settings, "--set", f"bandwidth={bandwidth}")
    least = err.split("use bandwidth=")[1].split(" ")[0]
    code, _, err = run("export", "columns.h5", "--output", "scan.seq", *settings, "--set", f"bandwidth={least}")
    assert code == 0, err


def test_the_way_out_of_a_turbo_spin_echo(run):
    _, _, err = run("export", "half.h5", "--output", "scan.seq", "--set", "kind=tse", "--set", "te=15")
    for time in [word.split("=")[1] for word in err.split() if word.startswith("te=")]:
        code, out, err = run("export", "half.h5", "--output", "scan.seq", "--set", "kind=tse", "--set", f"te={time}")
        assert code == 0 and f"TE {float(time):g} ms" in out, err


@pytest.mark.parametrize("mask", ["columns", "rows", "points"])
@pytest.mark.parametrize("ending", [".npy", ".h5", ".mat", ".cfl", ".csv", ".png", ".seq", ".mrd"])
def test_every_ending(run, tmp_path, mask, ending):
    code, out, err = run("export", f"{mask}.h5", "--output", f"out{ending}")
    assert (code, err) == (0, "") and out.startswith(f"wrote out{ending}") and (tmp_path / f"out{ending}").stat().st_size > 0
    assert out.count("\n") == (3 + (mask == "rows") if ending in (".seq", ".mrd") else 1)
    assert ("readouts of 18 samples: some scanners want a multiple of 4" in out) == (mask == "rows" and ending in (".seq", ".mrd"))
    expected = {f"out{ending}"} | ({"out.hdr"} if ending == ".cfl" else set())
    assert {path.name for path in tmp_path.iterdir() if path.stem == "out"} == expected


@pytest.mark.parametrize("ending", [".npy", ".h5", ".mat", ".cfl", ".png"])
def test_settings_without_meaning_are_refused(run, tmp_path, ending):
    code, _, err = run("export", "columns.h5", "--output", f"out{ending}", "--set", "tr=8")
    assert code == 2 and "has no order of measurement" in err and not (tmp_path / f"out{ending}").exists()


@pytest.mark.parametrize("output", ["missing/scan.seq", "folder.seq", "scan.sequence", "missing/scan.mrd"])
def test_where_nothing_can_be_written(run, tmp_path, output):
    (tmp_path / "folder.seq").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("export", "columns.h5", "--output", output)
    assert code == 2 and out == "" and err.count("\n") == 1 and sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_the_older_file(run, tmp_path, monkeypatch):
    for name in ("scan.seq", "scan.mrd"):
        assert run("export", "columns.h5", "--output", name)[0] == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("scan.seq", "scan.mrd")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for name in ("scan.seq", "scan.mrd"):
        code, _, err = run("export", "columns.h5", "--output", name)
        assert code == 2 and "the disk is full" in err and (tmp_path / name).read_bytes() == before[name]
        assert not list(tmp_path.glob(".prom-*"))


def test_what_is_said_is_what_is_in_the_file(run):
    code, out, _ = run("export", "points.h5", "-o", "my scan.seq", "--set", "fov=200,220,180", "--set", "te=5", "--set", "flip=9")
    sequence = pypulseq.Sequence()
    sequence.read("my scan.seq")
    count = int(random_mask("points", (16, 18)).mask.sum())
    assert code == 0 and f"gre3d: {count} of 288 points" in out and "matrix 16 x 16 x 18" in out
    assert "field of view 200 x 220 x 180 mm" in out and "TE 5 ms" in out and "flip 9 degrees" in out
    assert sequence.definitions["Name"] == "my_scan" and sequence.definitions["EchoTime"] == pytest.approx(0.005, abs=1e-6)
    seconds = float(out.split("scan time ")[1].split(" s")[0])
    assert seconds == pytest.approx(sequence.duration()[0], rel=0.005)


@pytest.mark.parametrize("name", CASES)
def test_raw_data_headers(name, tmp_path):
    """Read by the library of the format: geometry, counters, flags, times; and no channel, so nothing is taken for measured."""
    made = scan(name)
    write_scan(case(name).result, tmp_path / "scan.mrd", **case(name).settings)
    with ismrmrd.Dataset(tmp_path / "scan.mrd", mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        acquisitions = [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]
    [encoding] = header.encoding
    oversampling = case(name).settings.get("oversampling", 1)
    for space, wider in ((encoding.encodedSpace, oversampling), (encoding.reconSpace, 1)):
        assert (space.matrixSize.x / wider, space.matrixSize.y, space.matrixSize.z) == made.plan.matrix
        extent = space.fieldOfView_mm
        assert (extent.x / wider, extent.y, extent.z) == pytest.approx([1000 * value for value in made.plan.fov])
    for number, size in enumerate((made.plan.matrix[0] * oversampling, *made.plan.matrix[1:])):
        limit = getattr(encoding.encodingLimits, f"kspace_encoding_step_{number}")
        assert (limit.minimum, limit.maximum, limit.center) == (0, size - 1, size // 2)
    assert str(encoding.trajectory.value).lower() == "cartesian"
    parameters = header.sequenceParameters
    found = [*parameters.TR, *parameters.TE, *parameters.flipAngle_deg]
    assert found == pytest.approx([1000 * made.tr, 1000 * made.te, made.flip])
    field = case(name).settings.get("field", 3.0)
    assert header.acquisitionSystemInformation.systemFieldStrength_T == pytest.approx(field)
    assert header.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(42.577478e6 * field, rel=1e-4)  # CODATA
    assert len(acquisitions) == len(made.plan.steps)
    index = [acquisition.idx for acquisition in acquisitions]
    assert [[i.kspace_encode_step_1, i.kspace_encode_step_2] for i in index] == made.plan.steps.tolist()
    assert [i.user[0] for i in index] == made.plan.echo.tolist() and [i.user[1] for i in index] == made.plan.shot.tolist()
    assert {i.segment for i in index} == {0}
    calibration = [a.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING) for a in acquisitions]
    assert calibration == made.plan.calibration.tolist()
    assert not any(a.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) or a.is_flag_set(ismrmrd.ACQ_IS_REVERSE) for a in acquisitions)
    last = [a.is_flag_set(ismrmrd.ACQ_LAST_IN_MEASUREMENT) for a in acquisitions]
    assert last == [False] * (len(last) - 1) + [True] and acquisitions[0].is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE)
    assert [a.scan_counter for a in acquisitions] == list(range(1, len(acquisitions) + 1))
    assert {(a.number_of_samples, a.center_sample, a.active_channels) for a in acquisitions} == {
        (made.plan.samples, made.plan.samples // 2, 0)
    }
    found = measured(made.sequence, made.plan.samples)
    dwell = np.diff(found.times, axis=1).mean()
    assert {round(a.sample_time_us, 3) for a in acquisitions} == {round(dwell * 1e6, 3)}
    begun = [a.acquisition_time_stamp for a in acquisitions]  # ms
    np.testing.assert_allclose(begun, 1000 * found.times[:, 0], atol=1.5)


def test_samples_in_raw_data(tmp_path):
    """What is written is read: 65 channels, so that the mask of channels has two words."""
    made = scan("gre2d, random columns")
    generator = np.random.default_rng(0)
    shape = (len(made.plan.steps), 65, made.plan.matrix[0])
    samples = (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(np.complex64)
    raw_data.write(tmp_path / "scan.mrd", made.plan, times(made), samples, acquisition_times(made))
    with ismrmrd.Dataset(tmp_path / "scan.mrd", mode="r") as file:
        assert ismrmrd.xsd.CreateFromDocument(file.read_xml_header()).acquisitionSystemInformation.receiverChannels == 65
        for number, expected in enumerate(samples):
            acquisition = file.read_acquisition(number)
            np.testing.assert_array_equal(acquisition.data, expected)
            assert list(acquisition.channel_mask)[:3] == [2**64 - 1, 1, 0]


@pytest.mark.parametrize("name", CASES)
def test_a_list_in_order(name, tmp_path):
    made, settings = scan(name), case(name).settings
    write_scan(case(name).result, tmp_path / "order.csv", **settings)
    read = pd.read_csv(tmp_path / "order.csv")
    axes = {"columns": ["column"], "rows": ["row"], "points": ["row", "column"]}[made.plan.pattern]
    assert read.columns.tolist() == axes + [f"{axis}_offset" for axis in axes] + ["shot", "echo", "calibration"]
    assert read[axes].to_numpy().tolist() == made.plan.steps[:, : len(axes)].tolist()
    for number, axis in enumerate(axes):
        np.testing.assert_array_equal(read[f"{axis}_offset"], read[axis] - made.plan.matrix[1 + number] // 2)
    for counter in ("shot", "echo", "calibration"):
        assert read[counter].tolist() == getattr(made.plan, counter).int().tolist()


def test_counters_have_16_bits(tmp_path):
    result = of(torch.eye(2, 70000, dtype=torch.bool)[0].roll(35000), "columns", (2, 70000))
    with pytest.raises(InputError, match="raw data count to 65535"):
        write_scan(result, tmp_path / "scan.mrd", fov=(1000,), max_grad=200, max_slew=500)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".mrd", ".cfl", ".h5", ".npy"])
def test_measured_data_are_not_replaced(run, tmp_path, ending):
    """Nor images; what export has written before is."""
    output = f"out{ending}"
    for mask in ("columns.h5", "points.h5"):
        assert run("export", mask, "--output", output)[0] == 0
    kspace = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.complex64)
    if ending == ".cfl":
        (tmp_path / "out.hdr").write_text("# Dimensions\n16 16 1 4\n")
        kspace.tofile(tmp_path / output)
    elif ending == ".npy":
        np.save(tmp_path / output, kspace)
    else:
        (tmp_path / output).unlink()
        with h5py.File(tmp_path / output, "w") as file:
            file["kspace"] = kspace
    before = (tmp_path / output).read_bytes()
    code, out, err = run("export", "columns.h5", "--output", output)
    assert (code, out, err.count("\n")) == (2, "", 1) and f"--output {output}: exists and" in err
    assert (tmp_path / output).read_bytes() == before


def test_the_header_of_another_pair_is_not_replaced(run, tmp_path):
    (tmp_path / "pair.hdr").write_bytes(b"Analyze")
    code, out, err = run("export", "columns.h5", "--output", "pair.cfl")
    assert (code, out) == (2, "") and "pair.hdr exists" in err and (tmp_path / "pair.hdr").read_bytes() == b"Analyze"


def test_a_setting_that_is_given_twice_is_refused(run):
    code, out, err = run("export", "columns.h5", "-o", "scan.seq", "--set", "fov=220", "--set", "fov=180")
    assert (code, out) == (2, "") and err.startswith("prom: option 'fov=180': fov is set already")


@pytest.mark.parametrize("offsets", [(0, 0, 2), (0, 2, 4)])
def test_a_table_of_other_lines_is_neither_read_nor_replaced(run, tmp_path, offsets):
    """Heads whose fields overlap, as those of a damaged file, and numbers that are single where lines have many: HDF5 would crash."""
    heads = ["active_channels", "number_of_samples", "trajectory_dimensions"]
    head = np.dtype({"names": heads, "formats": ["<u2"] * 3, "offsets": offsets, "itemsize": 8})
    with h5py.File(tmp_path / "scan.mrd", "w") as file:
        file.create_dataset("dataset/data", data=np.zeros(2, [("head", head), ("traj", "<f4"), ("data", "<f4")]))
    with pytest.raises(InputError, match="is damaged, copy it again"):
        raw.is_empty(tmp_path / "scan.mrd")
    code, out, err = run("export", "columns.h5", "--output", "scan.mrd")
    assert (code, out, err.count("\n")) == (2, "", 1) and "exists and was not written by export" in err
