"""Raw data: ISMRMRD files written with its own library from known images, and real twix and BART files; their libraries are the oracles."""

import shutil
import struct
import subprocess
import sys

import h5py
import ismrmrd
import numpy as np
import pytest
import torch
import twixtools
from conftest import SHARED, error, load

from prom.datasets import folder, formats, raw, twix

RNG = np.random.default_rng(3)
XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz>
</experimentalConditions>{encodings}</ismrmrdHeader>"""
SPACE = """<{0}><matrixSize><x>{1}</x><y>{2}</y><z>{3}</z></matrixSize>
<fieldOfView_mm><x>{4}</x><y>200</y><z>5</z></fieldOfView_mm></{0}>"""
ENCODING = """<encoding>{encoded}{recon}<encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory></encoding>"""
LIMITS = "<kspace_encoding_step_1><minimum>0</minimum><maximum>{}</maximum><center>{}</center></kspace_encoding_step_1>"


def real(name):
    if not (path := SHARED / name).is_file():
        pytest.skip(f"no raw data beside the project ({SHARED.name}/{name})")
    return path


def images(*shape):
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


def transform(array, axes):
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


def header(rows, columns, width, *, depth=1, trajectory="cartesian", centre=None, fields=(400, 200), encodings=1):
    encoded = SPACE.format("encodedSpace", columns, rows, depth, fields[0])
    recon = SPACE.format("reconSpace", width, rows, depth, fields[1])
    limits = LIMITS.format(rows - 1, rows // 2 if centre is None else centre)
    encoding = ENCODING.format(encoded=encoded, recon=recon, limits=limits, trajectory=trajectory)
    return XML.format(encodings=encoding * encodings)


def write(path, lines, xml, group="dataset"):
    """Lines of (samples (coils, n), slice, row, more header values and counters, flags)."""
    with ismrmrd.Dataset(path, group, mode="w") as file:
        file.write_xml_header(xml.encode())
        for data, number, row, more, flags in lines:
            line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data), center_sample=data.shape[-1] // 2)
            line.idx.slice, line.idx.kspace_encode_step_1 = number, row
            for name, value in more.items():
                setattr(line.idx if hasattr(line.idx, name) else line, name, value)
            for flag in flags:
                line.set_flag(flag)
            file.append_acquisition(line)


def lines_of(kspace, **more):
    """Of k-space (slices, coils, rows, columns), the slices from last to first and odd rows first, as scanners interleave them."""
    count, _, rows, _ = kspace.shape
    order = [*range(1, rows, 2), *range(0, rows, 2)]
    return [(kspace[number, :, row], number, row, more, ()) for number in reversed(range(count)) for row in order]


def widened(coils, width):
    """Images in the middle of a field of view twice as wide, with something else outside."""
    outside = images(*coils.shape[:-1], 2 * width)
    outside[..., width // 2 : width // 2 + width] = coils
    return outside


# -------------------------------------------------------------------------------------------------------------------------------- ISMRMRD


@pytest.mark.parametrize("rows, width, coils", [(12, 10, 3), (11, 8, 1)])
def test_ismrmrd_with_oversampled_readout_averages_and_noise(tmp_path, rows, width, coils):
    expected = images(2, coils, rows, width)
    kspace = transform(widened(expected, width), (2, 3)).astype(np.complex64)
    disturbance = images(*kspace.shape)
    lines = lines_of(kspace + disturbance, average=0) + lines_of(kspace - disturbance, average=1)
    noise = images(coils, 2 * width + 6)
    others = ("NOISE_MEASUREMENT", "PARALLEL_CALIBRATION", "NAVIGATION_DATA", "PHASECORR_DATA", "DUMMYSCAN_DATA")
    lines = [(noise, 0, 3, {}, [getattr(ismrmrd, f"ACQ_IS_{name}")]) for name in others] + lines
    write(tmp_path / "a.h5", lines, header(rows, 2 * width, width))
    data = load(tmp_path)
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.mrd")
    assert torch.equal(load(tmp_path / "b.mrd").images, data.images)  # as some scanners call it
    (tmp_path / "b.mrd").write_bytes(b"a stream")
    assert torch.equal(load(tmp_path).images, data.images)  # which is none of HDF5
    for damaged in (b"", bytes(5000)):  # as what a copy that broke off leaves
        (tmp_path / "b.mrd").write_bytes(damaged)
        assert "b.mrd: cannot be read as HDF5" in error(tmp_path)
    (tmp_path / "b.mrd").unlink()
    assert data.images.shape == (2, 1, rows, width) and data.images.dtype == torch.float32
    assert np.allclose(data.images[:, 0], np.linalg.norm(expected, axis=1), atol=1e-5)
    done = "recognised by its format, ISMRMRD raw data, readout oversampling cut off, coils combined by root sum of squares"
    assert data.source.endswith(done)
    content = raw.read_ismrmrd(tmp_path / "a.h5", "dataset")
    assert content.domain == "kspace" and content.axes == "NKHW" and content.array.dtype == np.complex64
    assert np.allclose(content.array, transform(expected, (2, 3)), atol=1e-5)
    assert np.array_equal(load(tmp_path, domain="kspace", axes="NKHW", dataset_name="dataset/data").images, data.images)
    assert "raw data say themselves" in error(tmp_path, axes="HWNK")


@pytest.mark.parametrize("width", [8, 9])
def test_the_field_of_view_is_the_middle_of_a_readout(width):
    """A point at the centre of the oversampled readout is one at the centre of the image, of an odd width too."""
    outside, inside = (np.arange(n) == n // 2 for n in (2 * width, width))
    assert np.allclose(raw.readout_image(transform(outside[None], (1,)), width), inside, atol=1e-6)


def test_ismrmrd_without_oversampling_and_with_sensitivities(tmp_path):
    expected, maps = images(2, 1, 8, 6), images(3, 8, 6)
    write(tmp_path / "a.h5", lines_of(transform(expected * maps, (2, 3))), header(8, 6, 6, fields=(200, 200)), group="scan")
    np.save(tmp_path / "maps.npy", maps)
    data = load(tmp_path, axes="NKHW", sensitivities=tmp_path / "maps.npy")
    assert np.allclose(data.images[:, 0], expected[:, 0], atol=1e-5)


@pytest.mark.parametrize("counter", ["contrast", "phase", "repetition", "set", "segment", "kspace_encode_step_2"])
def test_ismrmrd_of_several_images(tmp_path, counter):
    kspace = images(1, 2, 8, 6)
    write(tmp_path / "a.h5", lines_of(kspace) + lines_of(kspace, **{counter: 1}), header(8, 6, 6, fields=(200, 200)))
    name = counter if counter != "kspace_encode_step_2" else "partition"
    assert f"has several {name}s (0, 1, ...)" in error(tmp_path)
    write(tmp_path / "a.h5", lines_of(kspace, **{counter: 1}), header(8, 6, 6, fields=(200, 200)))
    assert len(load(tmp_path)) == 1


@pytest.mark.parametrize(
    "change, what",
    [
        ({"trajectory": "radial"}, "its trajectory is radial"),
        ({"depth": 4}, "3D raw data (4 partitions)"),
        ({"centre": 2}, "partial Fourier"),
        ({"fields": (300, 200)}, "readout oversampling is unclear"),
        ({"fields": (200, 200)}, "readout oversampling is unclear"),
        ({"encodings": 2}, "no ISMRMRD header of one encoding"),
    ],
)
def test_ismrmrd_headers_of_what_is_not_read(tmp_path, change, what):
    write(tmp_path / "a.h5", lines_of(images(1, 2, 8, 10)), header(8, 10, 5, **change))
    assert what in (message := error(tmp_path)) and "a.h5" in message


def test_ismrmrd_lines_that_are_not_read(tmp_path):
    kspace, xml = images(1, 2, 8, 6), header(8, 6, 6, fields=(200, 200))
    lines = lines_of(kspace)
    for wrong, what in (
        (lines[:-3], "slice 0 has 5 of 8 lines: it is undersampled"),
        ([(*line[:4], [ismrmrd.ACQ_IS_REVERSE]) for line in lines], "backwards"),
        ([(line[0], 0, line[2], {"center_sample": 1}, ()) for line in lines], "asymmetric echo"),
        ([(line[0], 0, line[2], {"discard_pre": 1}, ()) for line in lines], "asymmetric echo"),
        (lines_of(kspace[..., 1:]), "must be 6"),
        ([(*line[:4], [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]) for line in lines], "no lines of an image"),
        ([*lines[1:], (kspace[0, :1, 0], 0, 0, {}, ())], "coils, samples"),
        ([*lines, (kspace[0, :, 0], 0, 8, {}, ())], "line 8 of 8"),
        (lines + lines_of(kspace)[:5], None),
    ):
        write(tmp_path / "a.h5", wrong, xml)
        assert what is None or what in error(tmp_path)
    assert np.allclose(raw.read_ismrmrd(tmp_path / "a.h5", "dataset").array, kspace)  # a line measured twice is its mean


def test_ismrmrd_files_that_were_made_to_do_harm(tmp_path):
    path, xml = tmp_path / "a.h5", header(8, 6, 6, fields=(200, 200))
    table = np.dtype([("head", [("version", "<u2"), ("flags", "<u8")]), ("traj", h5py.vlen_dtype("<f4")), ("data", h5py.vlen_dtype("<f4"))])
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", (4,), dtype=table)
        file["dataset/xml"] = "<ismrmrdHeader/>"
    assert "a.h5" in error(path) and "a.h5" in error(path, dataset_name="dataset/data")
    write(path, lines_of(images(1, 2, 8, 6)), xml)
    with h5py.File(path, "r+") as file:
        row = file["dataset/data"][7:8]
        row["head"]["number_of_samples"] = row["head"]["active_channels"] = 65535
        file["dataset/data"][7:8] = row
    assert "line 7 holds 24 values of data" in error(path)
    write(path, lines_of(images(1, 2, 8, 6)), xml.replace("<y>8</y>", "<y>10000000</y>").replace("<center>4", "<center>5000000"))
    assert "declares shape" in error(path)
    write(path, lines_of(images(1, 2, 8, 6)), xml)
    with h5py.File(path, "r") as file:
        kind, where = file["dataset/data"].id.get_type(), file["dataset/data"].id.get_chunk_info(3).byte_offset
        where += kind.get_member_offset(kind.get_member_index(b"data"))
    content = bytearray(path.read_bytes())
    assert content[where : where + 4] == struct.pack("<I", 2 * 2 * 6)
    content[where : where + 4] = struct.pack("<I", 2**29)
    path.write_bytes(content)
    assert f"line 3 holds {2**29} values of data, its head says 24" in error(path)
    write(path, lines_of(kspace := images(1, 2, 8, 6)), xml)
    with h5py.File(path, "r+") as file:  # as h5repack leaves it
        rows = file["dataset/data"][()]
        del file["dataset/data"]
        file.create_dataset("dataset/data", data=rows, chunks=(4,), compression="gzip")
    assert np.allclose(raw.read_ismrmrd(path, "dataset").array, kspace)
    with h5py.File(path, "r+") as file:
        rows["head"]["number_of_samples"] = rows["head"]["active_channels"] = 65535
        file["dataset/data"][()] = rows
    assert "its head says otherwise" in error(path)
    write(path, lines_of(images(1, 2, 8, 6)), "no header")
    assert "no ISMRMRD header" in error(path)
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
    assert "no ISMRMRD header" in error(path)


def test_reading_ismrmrd_does_not_make_all_warnings_show(tmp_path):
    write(tmp_path / "a.h5", lines_of(images(1, 2, 8, 6)), header(8, 6, 6, fields=(200, 200)))
    code = "import sys, warnings, prom; prom.load(sys.argv[1]); assert 'ismrmrd' in sys.modules; "
    code += "assert ('default', None, Warning, None, 0) not in warnings.filters, warnings.filters"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.h5"], check=True)


@pytest.mark.parametrize("library", ["ismrmrd", "twixtools"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library):
    write(tmp_path / "a.h5", lines_of(images(1, 2, 8, 6)), header(8, 6, 6))
    (tmp_path / "b.dat").write_bytes(bytes(100) + raw.TWIX_MARK)
    monkeypatch.setattr(raw, "find_spec", lambda name: None if name == library else name)
    message = error(tmp_path / ("a.h5" if library == "ismrmrd" else "b.dat"))
    assert f"{library}, which reads it, is not installed: pip install 'prom-mri[scanner]'" in message


# ------------------------------------------------------------------------------------------------------------------------------------ twix


def test_twix_is_what_its_library_reads():
    path = real("twix_gre_2ch/gre.dat")
    mapped = twixtools.map_twix(str(path), verbose=False)[-1]["image"]
    mapped.flags["remove_os"] = True
    mapped.flags["squeeze_singletons"] = True
    expected = np.asarray(mapped[:]).squeeze().transpose(1, 0, 2)  # (lines, coils, samples)
    content = raw.read_twix(path)
    assert content.array.shape == (1, 2, 160, 160) and content.domain == "kspace" and content.axes == "NKHW"
    scale = np.abs(content.array).max() / np.abs(expected).max()
    ours, theirs = (np.abs(np.fft.ifft2(array)) for array in (content.array[0], scale * expected))
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * ours.max())
    full = np.stack([block.data for block in twixtools.read_twix(str(path), verbose=False)[-1]["mdb"]], axis=1)
    image = np.abs(transform(full, (1, 2)))[..., 80:240]  # the forward transform: the image upside down
    data = load(path)
    turned = np.roll(np.linalg.norm(image, axis=0)[::-1, ::-1], (1, 1), (0, 1))
    assert data.images.shape == (1, 1, 160, 160) and "recognised by its format, Siemens raw data, readout" in data.source
    assert np.allclose(data.images[0, 0, 1:, 1:], turned[1:, 1:], rtol=1e-3, atol=1e-4 * turned.max())


def test_twix_that_keeps_its_coils():
    path = real("twix_gre_2ch/gre.dat")
    data = load(path, coils="keep")
    full = np.stack([block.data for block in twixtools.read_twix(str(path), verbose=False)[-1]["mdb"]], axis=1)  # (coils, lines, samples)
    assert data.coils == 2 and np.isclose(np.linalg.norm(data.kspace) ** 2, np.linalg.norm(image_middle(full)) ** 2, rtol=1e-3)
    maps, kspace = data.sensitivities[0].numpy(), data.kspace[0].numpy()
    coil_images = np.conj(transform(np.conj(kspace), (-2, -1)))  # the inverse: the conjugate of the transform of the conjugate
    assert np.allclose(data.images[0, 0], (maps.conj() * coil_images).sum(0), rtol=1e-3, atol=1e-5 * np.abs(coil_images).max())
    seen = np.abs(maps).sum(0) > 0
    assert np.allclose((np.abs(maps) ** 2).sum(0)[seen], 1, atol=1e-3)
    rest = coil_images - maps * data.images[0, 0].numpy()  # two coils, one image: the noise of one sample is left
    assert np.sqrt((np.abs(rest[:, seen]) ** 2).sum(0).mean()) == pytest.approx(data.noise, rel=0.1)


def image_middle(lines):
    """The middle half of the readout in the image, where there is no oversampling."""
    return transform(lines, (-1,))[..., 80:240]


def test_twix_of_epi_and_files_that_are_none(tmp_path):
    assert "backwards" in error(real("twix_gre_2ch/epi.dat"))
    (tmp_path / "a.dat").write_text("1 2 3")
    assert "no file of a supported type" in error(tmp_path)
    (tmp_path / "a.dat").write_bytes(real("twix_gre_2ch/gre.dat").read_bytes()[:900_000])
    assert "a.dat" in error(tmp_path)


def test_twix_file_that_takes_too_long(monkeypatch):
    path = real("twix_gre_2ch/gre.dat")
    monkeypatch.setattr(twix, "SECONDS", 0.01)
    monkeypatch.setattr(twix, "SECONDS_PER_BYTE", 0)
    assert "gre.dat: cannot be read as twix (twixtools took more than 0.01 s)" in error(path)


# ------------------------------------------------------------------------------------------------------------------------------------ BART


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + " 1 1\n")
    array.astype("<c8").ravel(order="F").tofile(path)


def smooth(*shape):
    """Images whose k-space is at the centre."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = 2 + np.sin(2 * np.pi * rows / shape[0]) * np.cos(2 * np.pi * columns / shape[1])
    return wave.reshape(*wave.shape, *(1,) * (len(shape) - 2)) * (1 + RNG.random(shape[2:])) * np.ones(shape)


@pytest.mark.parametrize("domain", ["kspace", "image"])
def test_bart_in_either_domain(tmp_path, domain):
    coils = np.zeros((1, 32, 24, 3, *(1,) * 9, 2), complex)
    coils[0, :, :, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, :] = smooth(32, 24, 3, 2)
    coils[..., 0] += 1e-4 * RNG.normal(size=coils.shape[:-1])  # as every scanner has: without noise much of k-space would be 0
    coils[..., 1] += 1e-4 * RNG.normal(size=coils.shape[:-1])
    write_cfl(tmp_path / "a.cfl", transform(coils, (1, 2)) if domain == "kspace" else coils)
    data = load(tmp_path)
    done = "intensities as stored" if domain == "image" else "k-space, recognised by its energy at the centre"
    assert data.images.shape == (2, 1, 32, 24) and f"{done}, coils combined by root sum of squares" in data.source
    assert np.allclose(data.images[:, 0], np.linalg.norm(coils, axis=3).squeeze().transpose(2, 0, 1), rtol=1e-4)
    assert raw.read_cfl(tmp_path / "a.cfl").domain == domain
    if domain == "image":
        assert "it is images" in error(tmp_path, domain="kspace")
    assert {path.name for path in folder.plan(tmp_path, "all").files} == {"a.cfl", "a.hdr"}


def test_bart_axes(tmp_path):
    write_cfl(tmp_path / "a.cfl", smooth(32, 24, 4))
    assert "(32, 24, 4)" in (message := error(tmp_path)) and "axes=" in message
    assert load(tmp_path, axes="HWN").images.shape == (4, 1, 32, 24)
    write_cfl(tmp_path / "a.cfl", smooth(32, 24, 1, 1, 4))
    assert "(32, 24, 1, 1, 4)" in error(tmp_path)
    assert load(tmp_path, axes="HW11C").images.shape == (1, 4, 32, 24)


def test_bart_that_is_unclear_or_damaged(tmp_path):
    write_cfl(tmp_path / "a.cfl", images(32, 24))
    assert "whether it is k-space or images is unclear" in error(tmp_path)
    for header_text in ("", "# Dimensions", "# Dimensions\n32 x", "# Dimensions\n32 25\n", "# Dimensions\n32 -24\n"):
        (tmp_path / "a.hdr").write_text(header_text)
        assert "a.hdr" in (message := error(tmp_path)) or "a.cfl: holds" in message
    (tmp_path / "a.hdr").unlink()
    assert "a.hdr" in error(tmp_path)


def test_bart_of_a_real_head():
    path = real("espirit_brain_8ch/full.cfl")
    kspace = np.fromfile(path, np.complex64).reshape(8, 180, 230).transpose(0, 2, 1)
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    data = load(path)
    assert data.images.shape == (1, 1, 230, 180)
    assert np.allclose(data.images[0, 0], np.linalg.norm(expected, axis=0), rtol=1e-4, atol=1e-4)


def test_axes_of_bart_that_do_not_fit_are_named(tmp_path):
    write_cfl(tmp_path / "a.cfl", smooth(32, 24, 1, 2))
    said = error(tmp_path, axes="HWK", domain="kspace")
    assert "axes 'HWK' for an array of shape (32, 24, 1, 2); name every axis" in said and "damaged" not in said


@pytest.mark.parametrize("axes", ["HW1K1N", "HW1K111111111N", "HW1K1C1N", "HW1K"])
def test_sensitivities_of_bart_beside_images_with_an_axis_of_slices(tmp_path, axes):
    maps = smooth(32, 24, 1, 4)
    write_cfl(tmp_path / "maps.cfl", maps)
    found = formats.read_sensitivities(tmp_path / "maps.cfl", axes)
    assert np.allclose(found.numpy(), maps[:, :, 0].transpose(2, 0, 1))
