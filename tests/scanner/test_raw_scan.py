"""Undersampled raw data: what is written by prom, by the libraries of the formats and by hand is found as it was measured, or refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import h5py
import hypothesis
import ismrmrd
import numpy as np
import pytest
import torch
import twixtools
from conftest import SHARED
from hypothesis import strategies

from prom import InputError
from prom.baselines import as_result
from prom.datasets import raw
from prom.datasets import twix as twix_files
from prom.datasets.acquisitions import Geometry, Line
from prom.scanner import raw_data, reconstruct
from prom.scanner.plan import plan
from prom.scanner.protocol import Protocol
from prom.scanner.raw_scan import assembled, read

RNG = np.random.default_rng(5)
TIMES = raw_data.Times(0.01, 0.004, 12, 1e-5, 3.0)
LIMIT = "<kspace_encoding_step_{0}><minimum>0</minimum><maximum>{1}</maximum><center>{2}</center></kspace_encoding_step_{0}>"


def numbers(*shape):
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


def transform(array, *axes):
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


def error(path, *arguments):
    with pytest.raises(InputError) as caught:
        read(path, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mask_of(pattern, shape=(12, 10)):
    lines = {"rows": shape[:1], "columns": shape[1:], "points": shape}[pattern]
    selected = torch.from_numpy(RNG.random(lines) < 0.4)
    selected[tuple(slice(n // 2 - 2, n // 2 + 2) for n in lines)] = True
    return {"rows": selected[:, None], "columns": selected, "points": selected}[pattern].expand(shape).contiguous()


def header(matrix, width=None, centres=None, extra="", extent=(200, 180, 5)):
    x, y, z = matrix
    spaces = "".join(
        f"<{name}><matrixSize><x>{n}</x><y>{y}</y><z>{z}</z></matrixSize><fieldOfView_mm><x>{extent[0] * n / (width or x)}</x>"
        f"<y>{extent[1]}</y><z>{extent[2]}</z></fieldOfView_mm></{name}>"
        for name, n in (("encodedSpace", x), ("reconSpace", width or x))
    )
    limits = "".join(LIMIT.format(i + 1, n - 1, c) for i, (n, c) in enumerate(zip((y, z), centres or (y // 2, z // 2), strict=True)))
    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>1'
        f"</H1resonanceFrequency_Hz></experimentalConditions><encoding>{spaces}<encodingLimits>{limits}</encodingLimits>"
        f"<trajectory>cartesian</trajectory></encoding>{extra}</ismrmrdHeader>"
    )


def write(path, lines, xml, group="dataset", mode="w"):
    """Lines of (samples (coils, n), values of its head and counters, flags) by the library of the format."""
    with ismrmrd.Dataset(path, group, mode=mode) as file:
        file.write_xml_header(xml.encode())
        for data, values, flags in lines:
            line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data), center_sample=data.shape[-1] // 2)
            for name, value in values.items():
                setattr(line.idx if hasattr(line.idx, name) else line, name, value)
            for flag in flags:
                line.set_flag(getattr(ismrmrd, f"ACQ_IS_{flag}"))
            file.append_acquisition(line)


def of_rows(kspace, rows, flags=(), **values):
    """Of k-space (slices, coils, rows, samples)."""
    return [
        (kspace[number, :, row], {"slice": number, "kspace_encode_step_1": row, **values}, flags)
        for number in range(len(kspace))
        for row in rows
    ]


# ------------------------------------------------------------------------------------------------------------------------------ ISMRMRD


@pytest.mark.parametrize("pattern, readout", [("rows", None), ("columns", None), ("points", 10), ("points", 7)])
def test_what_prom_writes_of_a_mask_is_found_again(tmp_path, pattern, readout):
    mask = mask_of(pattern)
    made = plan(as_result(mask, "demo", mask.numel() / int(mask.sum()), pattern), Protocol(fov=(240,), calibration=2, readout=readout))
    full = numbers(3, *mask.shape) if pattern != "points" else numbers(3, *mask.shape, readout)
    rows, columns = made.steps.T.numpy()
    samples = {
        "rows": lambda: full[:, rows],
        "columns": lambda: full[:, :, rows].swapaxes(-2, -1),
        "points": lambda: full[:, rows, columns],
    }
    raw_data.write(tmp_path / "a.mrd", made, TIMES, samples[pattern]().swapaxes(0, 1))
    scan = read(tmp_path / "a.mrd")
    assert scan.pattern == pattern and torch.equal(scan.mask, mask) and scan.reference is None and scan.noise is None
    expected = full[None] if pattern != "points" else transform_back(full).transpose(3, 0, 1, 2)
    assert scan.kspace.dtype == torch.complex64 and np.allclose(scan.kspace, expected * mask.numpy(), atol=1e-5)
    voxel = (20, 24, 5) if pattern != "points" else (20, 24, 240 / readout)
    assert np.allclose(scan.voxel, voxel)


def transform_back(array):
    return np.conj(transform(np.conj(array), -1))


def test_oversampling_averages_slices_and_everything_that_is_no_image(tmp_path):
    rows, width, measured = 12, 10, [2, 4, 5, 6, 7, 8, 11]
    outside = numbers(2, 3, rows, 2 * width)  # images of twice the field of view
    kspace = transform(outside, 2, 3).astype(np.complex64)
    disturbance = numbers(*kspace.shape)
    others = ("NAVIGATION_DATA", "PHASECORR_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA")
    lines = [(numbers(3, 9), {}, [name]) for name in others]
    lines += of_rows(kspace + disturbance, measured, average=0, position=(0, 0, 3)) + of_rows(kspace - disturbance, measured, average=1)
    for _, values, _ in lines:
        values["position"] = (0, 0, 7.5 * values.get("slice", 0))
    write(tmp_path / "a.h5", lines, header((2 * width, rows, 1), width))
    scan = read(tmp_path / "a.h5")
    expected = transform(outside[..., 5:15], 3)
    full = np.conj(transform(np.conj(transform(outside, 2)[..., 5:15]), 3))
    assert expected.shape == full.shape
    mask = np.isin(np.arange(rows), measured)
    inside = transform(np.ascontiguousarray(transform(outside, 2)[..., 5:15]), 3) * mask[:, None]
    assert np.allclose(scan.kspace, inside, atol=1e-5) and np.array_equal(scan.mask, np.repeat(mask[:, None], width, 1))
    assert scan.averages == pytest.approx(2) and scan.pattern == "rows" and np.allclose(scan.voxel, (15, 20, 7.5))


def test_partial_fourier_by_the_centre_of_the_header(tmp_path):
    full = numbers(1, 2, 12, 8)
    measured = range(4, 12)  # lines of the grid; the scanner counts from the first that it measures
    lines = [
        (data, {**values, "kspace_encode_step_1": values["kspace_encode_step_1"] - 4}, ()) for data, values, _ in of_rows(full, measured)
    ]
    write(tmp_path / "a.h5", lines, header((8, 12, 1), centres=(2, 0)))
    scan = read(tmp_path / "a.h5")
    assert scan.mask[:, 0].tolist() == [row >= 4 for row in range(12)]
    assert np.allclose(scan.kspace[:, :, 4:], full[:, :, 4:]) and not scan.kspace[:, :, :4].any()


@pytest.mark.parametrize("given, found", [(None, "rows"), ("rows", "rows"), ("points", "rows"), ("columns", "columns")])
def test_the_mask_that_was_asked_for_says_along_what_the_readout_is(tmp_path, given, found):
    full = numbers(1, 2, 12, 8)
    write(tmp_path / "a.h5", of_rows(full, [5, 6, 7]), header((8, 12, 1)))
    scan = read(tmp_path / "a.h5", None, given)
    assert scan.pattern == found and scan.mask.shape == ((12, 8) if found == "rows" else (8, 12))
    kspace = scan.kspace if found == "rows" else scan.kspace.transpose(-2, -1)
    assert np.allclose(kspace[:, :, 5:8], full[:, :, 5:8])


def test_reference_lines_are_for_sensitivities_alone(tmp_path):
    full, others = numbers(2, 3, 12, 8), numbers(2, 3, 12, 8)
    lines = of_rows(full, [0, 4, 8]) + of_rows(full, [6], ["PARALLEL_CALIBRATION_AND_IMAGING"])
    lines += of_rows(others, [5, 7], ["PARALLEL_CALIBRATION"])
    write(tmp_path / "a.h5", lines, header((8, 12, 1)))
    scan = read(tmp_path / "a.h5")
    assert scan.mask[:, 0].nonzero().flatten().tolist() == [0, 4, 6, 8]
    assert scan.reference_mask[:, 0].nonzero().flatten().tolist() == [5, 6, 7]
    assert np.allclose(scan.reference[:, :, [5, 7]], others[:, :, [5, 7]]) and np.allclose(scan.reference[:, :, 6], full[:, :, 6])
    short = [(data[:, :4], values, flags) for data, values, flags in of_rows(others, [5, 7], ["PARALLEL_CALIBRATION"])]
    write(tmp_path / "a.h5", lines[:8] + short, header((8, 12, 1)))
    scan = read(tmp_path / "a.h5")
    assert scan.reference is None and "4 reference lines of another length" in scan.notes[0]
    write(tmp_path / "a.h5", lines[:8] + of_rows(others[:1], [5, 7], ["PARALLEL_CALIBRATION"]), header((8, 12, 1)))
    assert "lacks slice 1" in read(tmp_path / "a.h5").notes[0]


def test_a_noise_scan_is_scaled_to_the_bandwidth(tmp_path):
    noise, full = numbers(3, 40), numbers(1, 3, 12, 8)
    lines = [(noise, {"sample_time_us": 8.0}, ["NOISE_MEASUREMENT"])] + of_rows(full, [5, 6, 7], sample_time_us=2.0)
    write(tmp_path / "a.h5", lines, header((8, 12, 1)))
    assert np.allclose(read(tmp_path / "a.h5").noise, 2 * noise)
    name = "relativeReceiverNoiseBandwidth"
    system = f"<acquisitionSystemInformation><{name}>{{}}</{name}></acquisitionSystemInformation><encoding>"
    for told, gain in ((0.64, 1.25), (0, 1), (-1, 1), (793, 1)):
        for width in (4, 8):  # with readout oversampling, and without
            write(tmp_path / "a.h5", lines, header((8, 12, 1), width).replace("<encoding>", system.format(told)))
            assert np.allclose(read(tmp_path / "a.h5").noise, 2 * (gain if width == 4 else 1) * noise)
    write(tmp_path / "a.h5", [(noise[:2], {}, ["NOISE_MEASUREMENT"]), *lines[1:]], header((8, 12, 1)))
    scan = read(tmp_path / "a.h5")
    assert scan.noise is None and "other coils" in scan.notes[0]


def test_segments_are_one_image_where_no_line_is_in_two(tmp_path):
    full = numbers(1, 2, 12, 8)
    write(tmp_path / "a.h5", of_rows(full, [5, 6], segment=0) + of_rows(full, [7], segment=1), header((8, 12, 1)))
    assert read(tmp_path / "a.h5").mask[:, 0].sum() == 3
    write(tmp_path / "a.h5", of_rows(full, [5, 6], segment=0) + of_rows(full, [6], segment=1), header((8, 12, 1)))
    assert "line 6 was measured in the segments 0 and 1" in error(tmp_path / "a.h5")


@pytest.mark.parametrize("counter", ["contrast", "phase", "repetition", "set"])
def test_several_images_are_refused(tmp_path, counter):
    full = numbers(1, 2, 12, 8)
    write(tmp_path / "a.h5", of_rows(full, [5, 6]) + of_rows(full, [5, 6], **{counter: 1}), header((8, 12, 1)))
    assert f"has several {counter}s (0, 1, ...)" in error(tmp_path / "a.h5")


def test_what_is_not_read(tmp_path):
    path, full = tmp_path / "a.h5", numbers(2, 2, 12, 8)
    lines, xml = of_rows(full, [5, 6, 7]), header((8, 12, 1))
    nan = full.copy()
    nan[1, 0, 5, 3] = np.nan
    limits = LIMIT.format(1, 11, 6)
    for wrong, head, what in (
        (lines, xml.replace("cartesian", "spiral"), "its trajectory is spiral"),
        (lines, xml.replace(limits, ""), "does not say which number is the centre (encodingLimits, kspace_encoding_step_1)"),
        (lines, header((9, 12, 1)), "must be 9"),
        (lines, header((8, 0, 1)), "declares an encoded matrix of 8 x 0 x 1"),
        (lines, header((8, 7, 1), centres=(3, 0)), "line 7 of 7 with the centre at 3: is outside"),
        (lines, header((8, 12, 1), centres=(0, 0)), "is outside; mend the header"),
        (lines, header((8, 10**7, 1), centres=(5 * 10**6, 0)), "declares shape"),
        (lines, header((8, 12, 1), extra=USER.format("points")), "3D raw data of 2 slabs"),
        (lines, header((8, 12, 2), extra=USER.format("rows")), "has the pattern rows and 2 partitions"),
        (lines, header((8, 12, 2)), "3D raw data of 2 slabs"),
        (lines, "nothing", "no ISMRMRD header"),
        (lines[:3] + lines[4:], xml, "slices 0 and 1 were measured with different masks"),
        (of_rows(nan, [5, 6]), xml, "slice 1 has NaN or infinite values"),
        (of_rows(0 * full, [5, 6]), xml, "its samples are all 0"),
        (of_rows(full, [5, 6], ["REVERSE"]), xml, "measured backwards"),
        (of_rows(full, [5, 6], center_sample=2), xml, "asymmetric echo"),
        (of_rows(full, [5, 6], ["NOISE_MEASUREMENT"]), xml, "no lines of an image"),
        (of_rows(full, [5, 6], ["PARALLEL_CALIBRATION"]), xml, "no lines of an image"),
        (of_rows(full, [5, 6]) + of_rows(full[:, :1], [7]), xml, "(coils, samples); must be alike"),
        ([], xml, "a.h5"),
    ):
        write(path, wrong, head)
        assert what in (message := error(path)) and str(path) in message


USER = """<userParameters><userParameterString><name>pattern</name><value>{}</value></userParameterString></userParameters>"""


def test_files_that_are_none(tmp_path):
    full = numbers(1, 2, 12, 8)
    assert "no such file" in error(tmp_path / "a.h5") and "must be .h5, .hdf5, .mrd, .dat, .cfl" in error(tmp_path / "a.nii")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = full
    assert "has no ISMRMRD raw data" in error(tmp_path / "a.h5")
    (tmp_path / "a.dat").write_bytes(bytes(1000))
    assert "no protocol of Siemens raw data" in error(tmp_path / "a.dat")
    (tmp_path / "b.h5").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "is a zip archive by its content" in error(tmp_path / "b.h5")
    write(tmp_path / "c.h5", of_rows(full, [5]), header((8, 12, 1)), group="one")
    write(tmp_path / "c.h5", of_rows(full, [6]), header((8, 12, 1)), group="two", mode="a")
    assert "name one with --key: one, two" in error(tmp_path / "c.h5") and "no ISMRMRD measurement 'x'" in error(tmp_path / "c.h5", "x")
    assert read(tmp_path / "c.h5", "two").mask[:, 0].nonzero().item() == 6


def test_headers_without_data(tmp_path):
    mask = mask_of("rows")
    raw_data.write(tmp_path / "a.mrd", plan(as_result(mask, "demo", mask.numel() / int(mask.sum()), "rows"), Protocol()), TIMES)
    assert "its lines have no samples, only headers" in error(tmp_path / "a.mrd")


def test_damaged_files_are_refused_in_one_line(tmp_path):
    write(tmp_path / "good.h5", of_rows(numbers(2, 2, 12, 8), [5, 6, 7]), header((8, 12, 1)))
    content = (tmp_path / "good.h5").read_bytes()
    for length in range(0, len(content), len(content) // 20):
        (tmp_path / "a.h5").write_bytes(content[:length])
        error(tmp_path / "a.h5")
    for _ in range(40):  # a byte elsewhere may also be one of the samples
        place = int(RNG.integers(len(content)))
        (tmp_path / "a.h5").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert read(tmp_path / "a.h5").kspace.isfinite().all()
        except InputError as refused:
            assert "\n" not in str(refused)


# ------------------------------------------------------------------------------------------------------------------- lines in any order


@hypothesis.given(strategies.integers(2, 9), strategies.integers(2, 9), strategies.integers(1, 6), strategies.randoms())
@hypothesis.settings(max_examples=40)
def test_every_line_comes_to_its_place(lines, partitions, samples, random):
    """For any matrix, set of points and centre numbers, in any order, repeated or not: what is found is what a table by hand has."""
    points = list(itertools.product(range(lines), range(partitions)))
    chosen = random.sample(points, random.randint(1, len(points)))
    centre = random.randint(0, 20), random.randint(0, 20)
    full = numbers(2, lines, partitions, samples)
    expected = np.zeros_like(full)
    made = []
    for row, column in chosen:
        expected[:, row, column] = full[:, row, column]
        for sign in random.choice([(0,), (1, -1), (2, -1, -1)]):
            place = row - lines // 2 + centre[0], column - partitions // 2 + centre[1]
            made.append(Line(full[:, row, column] + np.complex64(sign), line=place[0], partition=place[1]))
    random.shuffle(made)
    scan = assembled(Path(__file__), Geometry("demo", (samples, lines, partitions), samples, centre), (line for line in made))
    assert np.allclose(scan.kspace, transform_back(expected).transpose(3, 0, 1, 2), atol=1e-5) and scan.pattern == "points"
    assert sorted(chosen) == [tuple(point) for point in scan.mask.nonzero().tolist()]


# --------------------------------------------------------------------------------------------------------------------------------- twix


@pytest.fixture
def twix(tmp_path):
    """Writes the measurement beside the project again, with the lines that a function keeps and changes."""
    path = SHARED / "twix_gre_2ch" / "gre.dat"
    if not path.is_file():
        pytest.skip(f"no raw data beside the project ({SHARED.name}/twix_gre_2ch/gre.dat)")

    def changed(change):
        [scan] = twixtools.read_twix(str(path), verbose=False)
        blocks = [block.convert_to_local() if hasattr(block, "convert_to_local") else block for block in scan["mdb"]]
        scan["mdb"] = [block for block in blocks if block.is_flag_set("ACQEND") or change(block) is not False]
        twixtools.write_twix(scan, str(tmp_path / "a.dat"))
        return tmp_path / "a.dat"

    return path, changed


def test_twix_whole_and_with_lines_left_out(twix):
    path, changed = twix
    whole = read(path)
    assert whole.mask.all() and whole.kspace.shape == (1, 2, 160, 160) and np.allclose(whole.voxel, (1.25, 1.25, 4)) and whole.averages == 1
    measured = torch.arange(160) % 3 == 2
    measured[68:92] = True
    scan = read(changed(lambda block: bool(measured[block.cLin])))
    assert torch.equal(scan.mask, measured[:, None].expand(160, 160)) and torch.equal(scan.kspace, whole.kspace * measured[:, None])


@pytest.mark.slow
def test_twix_with_reference_and_noise_scans(twix):
    path, changed = twix

    def change(block):
        if block.cLin in (60, 61):
            block.add_flag("NOISEADJSCAN")
        elif 70 <= block.cLin < 90 and block.cLin % 2:
            block.add_flag("PATREFSCAN")
        elif 70 <= block.cLin < 90:
            block.add_flag("PATREFANDIMASCAN")
        return block.cLin in (60, 61) or 70 <= block.cLin < 90 or block.cLin % 2 == 0

    whole, scan = read(path), read(changed(change))
    even = torch.arange(160) % 2 == 0
    even[60] = False
    assert torch.equal(scan.mask[:, 0], even) and scan.noise.shape == (2, 640)
    assert scan.reference_mask[:, 0].nonzero().flatten().tolist() == list(range(70, 90))
    assert torch.equal(scan.reference[:, :, 70:90], whole.kspace[:, :, 70:90])


@pytest.mark.slow
def test_twix_that_is_damaged(twix, tmp_path):
    path, _ = twix
    (tmp_path / "a.dat").write_bytes(path.read_bytes()[:600_000])
    assert "a.dat" in error(tmp_path / "a.dat")
    assert "backwards" in error(path.with_name("epi.dat"))


# --------------------------------------------------------------------------------------------------------------------------------- BART


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    array.astype("<c8").ravel(order="F").tofile(path)


@pytest.mark.parametrize("pattern", ["rows", "columns", "points"])
def test_bart_of_two_axes(tmp_path, pattern):
    mask, full = mask_of(pattern).numpy(), numbers(12, 10, 3, 2) * np.hanning(14)[1:-1, None, None, None]
    full *= np.hanning(12)[1:-1, None, None]
    array = (full * mask[..., None, None]).reshape(1, 12, 10, 3, *(1,) * 9, 2)
    write_cfl(tmp_path / "a.cfl", array)
    scan = read(tmp_path / "a.cfl")
    assert np.array_equal(scan.mask, mask) and scan.pattern == pattern and scan.voxel is None
    assert np.allclose(scan.kspace, array[0, ..., 0, 0, 0, 0, 0, 0, 0, 0, 0, :].transpose(3, 2, 0, 1))


def test_bart_of_three_axes(tmp_path):
    mask, full = mask_of("points"), numbers(6, 12, 10, 3)
    write_cfl(tmp_path / "a.cfl", full * mask.numpy()[..., None])
    scan = read(tmp_path / "a.cfl")
    expected = np.conj(transform(np.conj(full * mask.numpy()[..., None]), 0)).transpose(0, 3, 1, 2)
    assert torch.equal(scan.mask, mask) and np.allclose(scan.kspace, expected, atol=1e-5)


def test_bart_that_is_refused(tmp_path):
    path, mask = tmp_path / "a.cfl", mask_of("points").numpy()
    full = numbers(12, 10, 3, 1, 1, 2) * mask[..., None, None, None, None]
    write_cfl(path, full)
    assert "has more axes than" in error(path)
    write_cfl(path, full[:, :1, :1, 0, 0, 0])
    assert "neither slices of two axes nor one volume" in error(path)
    differing = numbers(1, 12, 10, 3, *(1,) * 9, 2) * mask[..., None, None, None, None, None, None, None, None, None, None, None]
    differing[:, 0, :, :, ..., 1] = 1
    write_cfl(path, differing)
    assert "different masks" in error(path)
    rows, columns = np.mgrid[:32, :32]
    write_cfl(path, (np.hypot(rows - 16, columns - 16) < 12)[None, ..., None] + 0.01 * numbers(1, 32, 32, 2))
    assert "is images" in error(path)
    planes = np.arange(32)[:, None, None]
    ball = np.hypot(np.hypot(rows - 16, columns - 16), planes - 16) < 12
    write_cfl(path, ball[..., None] + 0.01 * numbers(32, 32, 32, 2))
    assert "is images" in error(path)
    volume = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(ball)))[..., None] * np.ones(2)
    volume[0, 3, 4] = volume[20, 7, 9] = 0  # by chance
    write_cfl(path, volume)
    assert read(path).mask.all()
    volume[:8] = 0  # an asymmetric echo
    write_cfl(path, volume)
    assert "first axis, which must be the readout" in error(path)
    with pytest.raises(InputError, match="key 'two'"):
        read(path, "two")
    path.with_suffix(".hdr").write_text("# Dimensions\n1 33 32 2\n")
    assert "its header declares" in error(path)
    path.with_suffix(".hdr").unlink()
    assert "a.hdr" in error(path)


def test_voxels_with_phase_oversampling(tmp_path):
    """Half of the encoded field of view is reconstructed, and the samples are of all of it."""
    before, _, after = header((8, 12, 1)).rpartition("<y>180</y>")
    write(tmp_path / "a.h5", of_rows(numbers(1, 2, 12, 8), [5, 6, 7]), f"{before}<y>90</y>{after}")
    assert read(tmp_path / "a.h5").voxel == pytest.approx((15, 25, 5))
    protocol = {"sSliceArray": {"asSlice": [{"dReadoutFOV": 240, "dPhaseFOV": 180, "dThickness": 4}]}}
    protocol |= {"sKSpace": {"dPhaseOversamplingForDialog": 0.5}}
    assert twix_files._extent({"hdr": {"MeasYaps": protocol}}).tolist() == [240, 270, 4]


def test_reference_lines_of_partial_fourier_lie_around_the_centre(tmp_path):
    full, others = numbers(1, 3, 12, 8), numbers(1, 3, 12, 8)
    made = of_rows(full, [4, 8]) + of_rows(full, [6], ["PARALLEL_CALIBRATION_AND_IMAGING"])
    made += of_rows(others, [5, 7], ["PARALLEL_CALIBRATION"])
    step = "kspace_encode_step_1"
    shifted = [(data, {**counters, step: counters[step] - 4}, flags) for data, counters, flags in made]
    write(tmp_path / "a.h5", shifted, header((8, 12, 1), centres=(2, 0)))
    found = read(tmp_path / "a.h5")
    assert found.reference_mask[:, 0].nonzero().flatten().tolist() == [5, 6, 7]
    assert np.allclose(found.reference[:, :, 6], full[:, :, 6])


def test_averages_of_unequal_lines_have_the_harmonic_mean(tmp_path):
    full = numbers(1, 2, 12, 8)
    write(tmp_path / "a.h5", of_rows(full, [5, 6]) + 2 * of_rows(full, [6]), header((8, 12, 1)))
    assert read(tmp_path / "a.h5").averages == pytest.approx(1.5)


def twix_lines(**changes):
    """As :func:`prom.datasets.twix.lines` reads them: three lines, and two of a reference scan that counts from a centre of its own."""
    zero, reference = np.zeros(5, int), np.array([False] * 3 + [True] * 2)
    found = dict.fromkeys(("slice", "partition", "contrast", "phase", "repetition", "set", "segment", "cut", "centre_partition"), zero)
    found |= {"data": numbers(5, 2, 16), "line": np.array([0, 4, 8, 1, 2]), "reference": reference, "calibration": reference}
    found |= {
        "position": np.zeros((5, 3)),
        "centre_line": np.array([6, 6, 6, 2, 2]),
        "centre_sample": np.full(5, 8),
        "backwards": zero.astype(bool),
    }
    numbered = {"rows": 12, "columns": 8, "partitions": 1, "trajectory": 1, "dwell": 2000.0, "noise_dwell": 8000.0}
    found |= {name: np.array(value) for name, value in numbered.items()}
    return found | {"extent": np.array([240.0, 180.0, 5.0]), "noise": numbers(1, 2, 40)} | changes


def test_twix_references_and_noise(tmp_path, monkeypatch):
    found, path = twix_lines(), tmp_path / "a.dat"
    monkeypatch.setattr(twix_files, "lines", lambda path: found)
    path.write_bytes(bytes(10_000))
    made = assembled(path, *raw.twix_lines(path))
    assert made.mask[:, 0].nonzero().flatten().tolist() == [0, 4, 8] and made.voxel == pytest.approx((15, 30, 5))
    assert made.reference_mask[:, 0].nonzero().flatten().tolist() == [5, 6]
    assert np.allclose(made.noise, 2 / math.sqrt(0.793) * found["noise"][0])  # a dwell time four times as long, and the receiver's filter


class Block:
    """A line as twixtools has it."""

    def __init__(self, samples: int, noise: bool) -> None:
        self.data, self.noise = np.ones((2, samples), np.complex64), noise

    def is_flag_set(self, name: str) -> bool:
        return self.noise and name == "NOISEADJSCAN"


@pytest.mark.parametrize(
    ("name", "new", "expected"),
    [("gre", True, 15000), ("gre", False, 1e9 / 512 / 130), ("AdjCoilSens", True, 5000), ("AdjQuietCoilSens", True, 4000)],
)
def test_twix_noise_has_a_dwell_time_of_its_own(name, new, expected):
    """That of the header is the image's: siemens_to_ismrmrd's rule."""
    protocol = {"tProtocolName": name, "sRXSPEC": {"alDwellTime": [3900]}}
    scan = {"hdr": {"MeasYaps": protocol}, "mdb": [Block(640, False), Block(512, True)]} | ({"raidfile_hdr": ()} if new else {})
    lines, dwell = twix_files._noise([{"hdr": {}, "mdb": [Block(640, False)]}, scan])
    assert lines.shape == (1, 2, 512) and float(dwell) == pytest.approx(expected)


def test_lines_off_the_grid_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(twix_files, "lines", lambda path: twix_lines(trajectory=np.array(2)))
    with pytest.raises(InputError, match="not Cartesian"):
        raw.twix_lines(tmp_path / "a.dat")
    with ismrmrd.Dataset(tmp_path / "a.h5", "dataset", mode="w") as file:
        file.write_xml_header(header((8, 12, 1)).encode())
        for row in range(12):
            line = ismrmrd.Acquisition.from_array(numbers(2, 8), np.zeros((8, 2), np.float32), center_sample=4)
            line.idx.kspace_encode_step_1 = row
            file.append_acquisition(line)
    assert "not Cartesian" in error(tmp_path / "a.h5")


@pytest.mark.parametrize("places", [[0, 2, 4, 1, 3], [1, 3, 0, 2]])
@pytest.mark.parametrize("away", [0.0, 37.3, -1e3])
@pytest.mark.parametrize("axis", [(0, 6, 0), (3.6, 0, -4.8)])
def test_slices_that_were_measured_interleaved_lie_where_their_positions_say(tmp_path, places, away, axis):
    """Numbers count in time; sensitivities go with the image, so that those of one reconstruction can be given to the next."""
    measured, count = list(range(12)), len(places)
    kspace = numbers(count, 3, 12, 10).astype(np.complex64)
    lines = of_rows(kspace, measured)
    for _, values, _ in lines:
        values["position"] = tuple(away + places[values["slice"]] * step for step in axis)
    write(tmp_path / "a.h5", lines, header((10, 12, 1), extent=(200, 180, 4)))
    scan = read(tmp_path / "a.h5")
    lying = np.argsort(places)
    forwards = places[0] != 1 or axis[2] == 0  # of 1 3 0 2 no end is the first by the numbers: it is that of the larger coordinate
    lying = lying if forwards else lying[::-1]
    assert np.allclose(scan.kspace, kspace[lying]) and scan.voxel[2] == pytest.approx(6, rel=1e-4)
    assert "slices lie in another order than their numbers" in scan.notes[-1] and scan.notes[-1].endswith(": " + ", ".join(map(str, lying)))
    maps = torch.ones(count, 3, 12, 10) * torch.arange(1, count + 1)[:, None, None, None] + 0j
    assert torch.equal(reconstruct.reconstruct(scan, maps=maps, noise=1.0).maps, maps)
    data = raw.read_ismrmrd(tmp_path / "a.h5", "dataset")
    assert np.allclose(data.array, kspace[lying]) and "in the order of their places" in data.known_by


@pytest.mark.parametrize(
    "position", [lambda n: (0, 30 - 6.0 * n, 0), lambda n: (0, 0, 0), lambda n: (np.nan,) * 3, lambda n: (0, n % 3, 0)]
)
def test_slices_whose_positions_say_nothing_else_keep_the_order_of_their_numbers(tmp_path, position):
    """Downwards is an order too."""
    kspace = numbers(5, 3, 12, 10).astype(np.complex64)
    lines = of_rows(kspace, list(range(12)))
    for _, values, _ in lines:
        values["position"] = position(values["slice"])
    write(tmp_path / "b.h5", lines, header((10, 12, 1), extent=(200, 180, 4)))
    scan = read(tmp_path / "b.h5")
    assert np.allclose(scan.kspace, kspace) and not scan.notes
    assert np.allclose(raw.read_ismrmrd(tmp_path / "b.h5", "dataset").array, kspace)


def test_a_pattern_that_is_not_known_is_refused(tmp_path):
    write(tmp_path / "a.h5", of_rows(numbers(1, 3, 12, 10), [5, 6, 7]), header((10, 12, 1)))
    with pytest.raises(InputError, match="pattern 'colums' is not known; did you mean 'columns'"):
        read(tmp_path / "a.h5", pattern="colums")


def test_twix_slices_lie_where_their_positions_say(tmp_path, monkeypatch):
    """Measured as 0, 2, 1, 3; their distance is not their thickness, which is 5 mm."""
    each = {name: np.repeat(np.asarray(value)[:3], 4, axis=0) for name, value in twix_lines().items() if np.ndim(value) and len(value) == 5}
    number, path = np.tile(np.arange(4), 3), tmp_path / "a.dat"
    each |= {"slice": number, "position": np.array([0.0, 12, 6, 18])[number][:, None] * [0, 0.6, 0.8]}
    each["data"] = each["data"] * (1 + number)[:, None, None]
    path.write_bytes(bytes(each["data"].nbytes))
    monkeypatch.setattr(twix_files, "lines", lambda path: twix_lines(**each))
    scan = assembled(path, *raw.twix_lines(path))
    peaks = scan.kspace.abs().amax((1, 2, 3))
    assert (
        torch.allclose(peaks / peaks[0], torch.tensor([1.0, 3, 2, 4]))
        and scan.voxel[2] == pytest.approx(6)
        and "0, 2, 1, 3" in scan.notes[0]
    )


def test_twix_positions_are_read(twix):
    found = twix_files.lines(twix[0])
    assert found["position"].shape == (len(found["data"]), 3) and np.allclose(found["position"], found["position"][0])
    assert np.allclose(found["position"][0], [-2.5897, 53.9224, -53.9995], atol=1e-3)


def test_reference_lines_that_differ_between_slices_are_left_out(tmp_path):
    full = numbers(2, 3, 12, 8)
    lines = of_rows(full, [0, 4, 8])
    for number, rows in enumerate(([5, 6, 7], [5, 6])):
        lines += [
            (data, {**values, "slice": number}, flags)
            for data, values, flags in of_rows(full[number : number + 1], rows, ["PARALLEL_CALIBRATION"])
        ]
    write(tmp_path / "a.h5", lines, header((8, 12, 1)))
    scan = read(tmp_path / "a.h5")
    assert scan.reference is None and scan.notes == ("the reference scan was left out, whose lines differ between slices",)
    assert scan.mask[:, 0].nonzero().flatten().tolist() == [0, 4, 8]


def test_a_header_that_is_no_text_is_not_read(tmp_path):
    """HDF5 would follow what it takes for pointers."""
    write(tmp_path / "a.h5", of_rows(numbers(1, 2, 12, 8), [5, 6]), header((8, 12, 1)))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        text = np.frombuffer(file["dataset/xml"][0], np.uint8)
        del file["dataset/xml"]
        file.create_dataset("dataset/xml", (1,), h5py.vlen_dtype(np.uint8))[0] = text
    assert "dataset/xml is no ISMRMRD header" in error(tmp_path / "a.h5")
