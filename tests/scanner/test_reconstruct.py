"""From a file to an image: equal to the reconstruction from the mask itself, written as every format, refused in one line."""

from __future__ import annotations

import itertools
import json

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from conftest import SHARED
from PIL import Image

from prom import InputError, load, load_mask
from prom.baselines import as_result
from prom.datasets import formats
from prom.datasets.base import SliceDataset
from prom.datasets.cache import StoredRows
from prom.kspace.coils import combine, estimated, mixed, root_sum_of_squares, simulated, whitening
from prom.kspace.encoding import Coils
from prom.kspace.fourier import fft2c, ifft2c
from prom.masks.centre import reach, whole_centre
from prom.reconstruction.from_noise import power_law, sparse_strength
from prom.reconstruction.phase import PhaseConstrained, smooth_phase
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse
from prom.scanner import raw_data, reconstruct, virtual
from prom.scanner.image_files import side_by_side, write
from prom.scanner.plan import plan
from prom.scanner.protocol import Protocol
from prom.scanner.raw_scan import RawScan, read
from prom.scanner.sequence import make

TIMES = raw_data.Times(0.01, 0.004, 12, 1e-5, 3.0)
SHAPE = (48, 40)
NOISE = 0.01


def complex_normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def brain(shape=SHAPE):
    """Ellipses with a smooth phase."""
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    y = y[:, None]
    image = sum(
        a * ((y / b) ** 2 + ((x - d) / c) ** 2 < 1) for a, b, c, d in ((1, 0.8, 0.7, 0), (-0.5, 0.5, 0.3, 0.2), (0.4, 0.2, 0.2, -0.3))
    )
    return torch.polar(torch.as_tensor(image).float(), 0.4 * y + 0.3 * x * torch.ones_like(y))


def lines(pattern, shape=SHAPE, centre=16, every=3):
    """A mask of every third line, or of a third of the points, with a centre that is whole."""
    if pattern == "points":
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 1 / every
        mask[tuple(slice(n // 2 - centre // 2, n // 2 + centre // 2) for n in shape)] = True
        return mask
    n = shape[pattern == "columns"]
    chosen = torch.arange(n) % every == 1
    chosen[n // 2 - centre // 2 : n // 2 + centre // 2] = True
    return (chosen if pattern == "columns" else chosen[:, None]).expand(shape).contiguous()


def measured(shape=SHAPE, coils=4):
    return Coils(simulated(coils, shape)).forward(brain(shape)) + NOISE * complex_normal(coils, *shape)


def as_file(path, mask, kspace, pattern):
    """Fully sampled k-space (K, H, W), of points (K, readout, H, W) before its transform, written as a scan of this mask."""
    result = as_result(mask, "demo", mask.numel() / int(mask.sum()), pattern)
    made = plan(result, Protocol(readout=kspace.shape[1] if pattern == "points" else None))
    rows, columns = made.steps.T
    samples = {
        "rows": lambda: kspace[:, rows],
        "columns": lambda: kspace[:, :, rows].transpose(-2, -1),
        "points": lambda: kspace[:, :, rows, columns].transpose(-2, -1),
    }[pattern]()
    raw_data.write(path, made, TIMES, samples.transpose(0, 1).numpy())
    return result


# ---------------------------------------------------------------------------------------------- the file's image is that of the mask


@pytest.mark.parametrize("pattern", ["rows", "columns"])
def test_from_a_file_it_is_the_reconstruction_from_the_mask(tmp_path, pattern):
    mask, kspace = lines(pattern), measured()
    as_file(tmp_path / "a.h5", mask, kspace, pattern)
    scan = read(tmp_path / "a.h5")
    found = reconstruct.reconstruct(scan)
    # To the last bit in the same steps, as a stack of one, in memory too: SENSE ends before its solution, where other bits show.
    maps = estimated(kspace * mask, min(whole_centre(mask))).contiguous()
    power = maps.abs().double().square().sum(dim=0)
    strength = float(power[power > 0].mean().sqrt())  # of the sensitivities, 1 but for rounding
    penalty = (found.noise * strength) ** 2 / power_law(kspace[None] * mask, mask, found.noise)
    expected = Sense(penalty)(kspace[None], mask, Coils(maps[None]))[0][0]
    assert torch.equal(scan.mask, mask)
    assert torch.allclose(found.maps[0], maps, atol=1e-4) and torch.allclose(found.image[0], expected, atol=1e-4)
    zero_filled = reconstruct.reconstruct(scan, "zero-filled")
    assert torch.allclose(zero_filled.image[0].real, root_sum_of_squares(ifft2c(kspace * mask)), atol=1e-5)
    assert not zero_filled.image.imag.any() and "root sum of squares" in zero_filled.how["reconstruction"] and zero_filled.maps is None
    sparse = reconstruct.reconstruct(scan, "tv", maps=maps)
    strength = sparse_strength(kspace * mask, mask, found.noise)
    assert torch.allclose(sparse.image[0], Sparse("tv", strength)(kspace, mask, Coils(maps))[0] * Coils(maps).seen, atol=1e-3)


@pytest.mark.parametrize(
    "kind, pattern, oversampling", [("gre", "columns", 1), ("tse", "rows", 2), ("gre", "points", 1), ("gre", "points", 3)]
)
def test_a_virtual_scan_comes_back(tmp_path, kind, pattern, oversampling):
    """From a mask to a sequence, to what its own gradients measure of coil images, to a file with a noise scan: the mask's image."""
    shape, readout = (32, 28), 6 if pattern == "points" else None
    mask, maps = lines(pattern, shape), simulated(4, shape)
    images = maps * brain(shape)
    images = torch.stack([(1 + number) / 6 * images for number in range(6)], dim=1) if readout else images
    settings = Protocol(kind=kind, readout=readout, echoes=1 if kind == "tse" else None, oversampling=oversampling)
    made = make(as_result(mask, "demo", mask.numel() / int(mask.sum()), pattern), settings)
    virtual.write(tmp_path / "a.h5", made, virtual.scan(made, images, NOISE), NOISE, noise_samples=4000)
    scan = read(tmp_path / "a.h5")
    found = reconstruct.reconstruct(scan, maps=maps)
    assert torch.equal(scan.mask, mask) and scan.pattern == pattern and found.noise == pytest.approx(NOISE, rel=0.05)
    clean = virtual.scan(made, images)
    virtual.write(tmp_path / "b.h5", made, clean)
    scan = read(tmp_path / "b.h5")
    found = reconstruct.reconstruct(scan, maps=maps, noise=NOISE).image
    kspace = fft2c(images.movedim(1, 0) if readout else images[None])
    expected = Sense(NOISE**2 / power_law(kspace * mask, mask, NOISE))(kspace, mask, Coils(maps.expand(kspace.shape)))[0]
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_points_slice_by_slice_along_the_readout(tmp_path):
    mask, volume = lines("points", (32, 28)), torch.stack([brain((32, 28)) * scale for scale in (0.5, 1.0, 0.8)])
    slices = fft2c(simulated(4, (32, 28)) * volume[:, None]) + NOISE * complex_normal(3, 4, 32, 28)
    readout = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(slices, dim=0), dim=0, norm="ortho"), dim=0)
    as_file(tmp_path / "a.h5", mask, readout.transpose(0, 1), "points")
    scan = read(tmp_path / "a.h5")
    found = reconstruct.reconstruct(scan, noise=NOISE)
    assert torch.equal(scan.mask, mask) and torch.allclose(scan.kspace, slices * mask, atol=1e-4)
    penalty = NOISE**2 / power_law(slices * mask, mask, NOISE)
    for number in range(3):
        maps = estimated(slices[number] * mask, 16)
        expected = Sense(penalty)(slices[number], mask, Coils(maps))[0]
        assert torch.allclose(found.image[number], expected, atol=1e-3) and found.how["noise"] == "given"


@pytest.mark.skipif(not (SHARED / "espirit_brain_8ch").is_dir(), reason="no measured brain beside the project")
def test_a_measured_brain(tmp_path):
    """Half of the columns of eight coils: 36 dB of the image of all, far above zero-filling; the cfl says the same as ISMRMRD."""
    stored = np.fromfile(SHARED / "espirit_brain_8ch" / "full.cfl", np.complex64).reshape(8, 180, 230).transpose(0, 2, 1)
    kspace = torch.from_numpy(stored.copy())
    mask = lines("columns", (230, 180), centre=24, every=2)
    as_file(tmp_path / "a.h5", mask, kspace, "columns")
    found = reconstruct.reconstruct(read(tmp_path / "a.h5"))
    whole = combine(ifft2c(kspace), found.maps[0]).abs()  # the centre is that of all

    def psnr(image):
        return float(20 * torch.log10(whole.max() / (image.abs() - whole).square().mean().sqrt()))

    assert psnr(found.image[0]) > 36 and psnr(root_sum_of_squares(ifft2c(kspace * mask))) < 32
    (tmp_path / "b.hdr").write_text("# Dimensions\n1 230 180 8\n")
    (kspace * mask).permute(1, 2, 0).numpy().ravel(order="F").tofile(tmp_path / "b.cfl")
    scan = read(tmp_path / "b.cfl")
    assert torch.equal(scan.mask, mask) and scan.pattern == "columns" and torch.equal(scan.kspace[0], kspace * mask)


# ------------------------------------------------------------------------------------------------------- noise, sensitivities, numbers


def scan_of(kspace, mask, pattern="rows", **more):
    return RawScan((kspace if kspace.ndim == 4 else kspace[None]) * mask, mask, pattern, "demo", **more)


def test_a_noise_scan_whitens_the_coils_and_makes_the_image_better():
    """One coil's noise is ten times that of the others, and shared: with the noise scan the error falls to less than half."""
    mixing = torch.eye(4, dtype=torch.complex64)
    mixing[0, 0], mixing[1, 0], mixing[2, 0] = 10, 4, -3j
    clean, mask = Coils(simulated(4, SHAPE)).forward(brain()), lines("rows")
    noise = mixing @ (NOISE * complex_normal(4, 20_000, seed=5))
    kspace = clean + torch.einsum("jk,khw->jhw", mixing, NOISE * complex_normal(4, *SHAPE))
    found = reconstruct.reconstruct(scan_of(kspace, mask, noise=noise), maps=simulated(4, SHAPE))
    without = reconstruct.reconstruct(scan_of(kspace, mask), maps=simulated(4, SHAPE))
    error, before = (float((one.image[0] - brain()).abs().square().mean().sqrt()) for one in (found, without))
    assert error < before / 2 and "whitened" in found.how["noise scan"] and found.how["noise"] == "of the noise scan"
    matrix = whitening(noise)
    maps, level = mixed(simulated(4, SHAPE), matrix), float(noise.abs().square().mean().sqrt())
    assert found.noise == pytest.approx(level) and torch.allclose(found.maps[0], maps, atol=1e-6)
    strength = float(maps.abs().square().sum(0).mean().sqrt())
    penalty = (level * strength) ** 2 / power_law(mixed(kspace * mask, matrix)[None], mask, level)
    assert torch.allclose(found.image[0], Sense(penalty)(mixed(kspace, matrix), mask, Coils(maps))[0], atol=1e-4)
    averaged = reconstruct.reconstruct(scan_of(kspace, mask, noise=noise, averages=4.0), maps=simulated(4, SHAPE))
    assert averaged.noise == pytest.approx(level / 2)
    short = reconstruct.reconstruct(scan_of(kspace, mask, noise=noise[:, :10]), maps=simulated(4, SHAPE))
    assert "left out: noise scan of 10 samples" in short.how["noise scan"] and torch.equal(short.image, without.image)


def test_the_scale_of_given_sensitivities_divides_the_image():
    scan = scan_of(measured(), lines("rows"))
    one, five = (reconstruct.reconstruct(scan, maps=factor * simulated(4, SHAPE)).image for factor in (1, 5))
    assert torch.allclose(one, 5 * five, atol=1e-4)
    sparse = [reconstruct.reconstruct(scan, "wavelet", maps=factor * simulated(4, SHAPE)).image for factor in (1, 5)]
    assert (sparse[0] - 5 * sparse[1]).abs().max() < 0.1 * sparse[0].abs().max()


def test_wrong_sensitivities_leave_more_than_noise():
    scan, maps = scan_of(measured(), lines("rows")), simulated(4, SHAPE)
    right, wrong = (reconstruct.reconstruct(scan, maps=own, noise=NOISE).how["misfit"] for own in (maps, maps.roll(9, -1)))
    assert float(right.split()[0]) < 1.5 and float(wrong.split()[0]) > 2 * float(right.split()[0])


def test_units_do_not_matter():
    scan, tiny = (scan_of(factor * measured(), lines("rows")) for factor in (1.0, 1e-6))
    for name in ("sense", "wavelet", "zero-filled"):
        one, other = (reconstruct.reconstruct(each, name).image for each in (scan, tiny))
        assert torch.allclose(one, 1e6 * other, atol=5e-3)


def test_sensitivities_come_from_reference_lines_where_there_are_some():
    kspace, mask, reference = measured(), lines("rows", centre=4), lines("rows", centre=20, every=50)
    with pytest.raises(InputError, match=r"the fully measured centre has \d x \d samples, and 8 x 8 are needed; .*--maps.*zero-filled"):
        reconstruct.reconstruct(scan_of(kspace, mask))
    scan = scan_of(kspace, mask, reference=kspace[None] * reference, reference_mask=reference)
    found = reconstruct.reconstruct(scan)
    assert "reference lines, the central 20 x 20" in found.how["sensitivities"] and found.image.shape == (1, *SHAPE)
    assert torch.allclose(found.maps[0], estimated(kspace, 20), atol=1e-4)


def test_virtual_coils():
    """Of eight coils that see four things, four virtual ones have it all; given sensitivities go through the same matrix."""
    mixing = complex_normal(8, 4, seed=3)
    maps = torch.einsum("jk,khw->jhw", mixing, simulated(4, SHAPE))
    scan = scan_of(Coils(maps).forward(brain()), lines("rows"))
    whole, few = (reconstruct.reconstruct(scan, maps=maps, noise=NOISE, compress=compress) for compress in (None, 4))
    assert few.maps.shape == (1, 4, *SHAPE) and few.how["coils"] == "8 compressed to 4"
    assert (whole.image - few.image).abs().max() < 0.02 * whole.image.abs().max()
    estimated_maps = reconstruct.reconstruct(scan, noise=NOISE, compress=2).maps
    assert estimated_maps.shape == (1, 2, *SHAPE)


def test_sensitivities_that_explain_nothing_are_refused():
    noise = complex_normal(8, *SHAPE)
    with pytest.raises(InputError, match=r"explain \d+% of them, too little"):
        reconstruct.reconstruct(scan_of(noise, lines("rows", centre=8)), noise=0.01)


def test_one_coil_and_partial_fourier():
    """The phase that is smooth makes of three quarters of k-space a sharper image."""
    whole = fft2c(brain()) + 1e-4 * complex_normal(*SHAPE)
    mask = (torch.arange(SHAPE[0]) < 36)[:, None].expand(SHAPE).contiguous()
    scan = scan_of(whole[None], mask)
    for name in ("zero-filled", "sense"):
        free, smooth = (reconstruct.reconstruct(scan, name, phase=phase).image[0] for phase in ("free", "smooth"))
        before, error = ((one.abs() - brain().abs()).square().mean() for one in (free, smooth))
        assert error < 0.7 * before, name
    assert reconstruct.one_sided(mask) == "rows" and reconstruct.one_sided(mask.T) == "columns"
    for n in (32, 48, 64):
        for left_out in (slice(n - n // 8, n), slice(0, n // 8)):
            part = torch.ones(n, n, dtype=torch.bool)
            part[left_out] = False
            assert reconstruct.one_sided(part) == "rows", (n, left_out)
    for offsets in ([-23, -11, -1, 0, 1, 4, 16, 29], range(-3, 4)):  # equispaced lines, and a low pass: no side was left out
        places = 32 + torch.tensor(list(offsets))
        assert reconstruct.one_sided(torch.zeros(64, 64).index_fill(1, places, 1).bool()) is None
    assert reconstruct.one_sided(torch.ones(7, 7, dtype=torch.bool)) is None
    assert reconstruct.one_sided(lines("rows")) is None and reconstruct.one_sided(torch.ones(9, 8, dtype=torch.bool)) is None


def test_a_centre_that_was_not_measured_has_no_phase():
    mask = (torch.arange(SHAPE[0]) % 3 != SHAPE[0] // 2 % 3)[:, None].expand(SHAPE).contiguous()
    upper = (torch.arange(SHAPE[0]) < SHAPE[0] // 2)[:, None].expand(SHAPE).contiguous()
    lower = (torch.arange(SHAPE[0]) >= SHAPE[0] // 2)[:, None].expand(SHAPE).contiguous()
    last = (torch.arange(SHAPE[0]) <= SHAPE[0] // 2)[:, None].expand(SHAPE).contiguous()
    for (name, more), chosen in itertools.product((("zero-filled", {}), ("sense", {"noise": 1e-3})), (mask, upper, lower, last)):
        with pytest.raises(InputError, match="phase smooth: is that of the centre of k-space, which was not measured"):
            reconstruct.reconstruct(scan_of(fft2c(brain())[None], chosen), name, phase="smooth", **more)


def test_the_phase_of_several_coils_may_be_known_without_dc():
    """SENSE fills in what lies between measured lines; reference lines or sensitivities say how."""
    whole = measured()
    mask = (torch.arange(SHAPE[0]) % 2 == 1)[:, None].expand(SHAPE).contiguous()
    centre = ((torch.arange(SHAPE[0]) - SHAPE[0] // 2).abs() < 12)[:, None].expand(SHAPE).contiguous()
    scan = RawScan((whole * mask)[None], mask, "rows", "raw", reference=(whole * centre)[None], reference_mask=centre)
    free, smooth = (reconstruct.reconstruct(scan, phase=phase, noise=NOISE).image[0] for phase in ("free", "smooth"))
    before, after = (float((one.abs() - brain().abs()).square().mean()) for one in (free, smooth))
    assert not mask[SHAPE[0] // 2].any() and after < 1.5 * before
    for how in ({"name": "zero-filled"}, {"compress": 1, "noise": NOISE}):
        with pytest.raises(InputError, match="phase smooth: is that of the centre of k-space, which was not measured"):
            reconstruct.reconstruct(scan, **how, phase="smooth")


def test_reference_lines_of_a_slice_may_not_be_empty():
    mask = lines("columns")
    kspace = torch.stack([measured(), measured()])
    reference = kspace.clone()
    reference[1] = 0
    scan = RawScan(kspace * mask, mask, "columns", "raw", reference=reference, reference_mask=mask)
    with pytest.raises(InputError, match="reference lines, the central .* of slice 1 are 0, though not all"):
        reconstruct.reconstruct(scan)
    with pytest.raises(InputError, match="nothing above the noise, 1e.12"):
        reconstruct.reconstruct(scan_of(kspace[0] * mask, mask), "wavelet", noise=1e12)


def test_numbers_chosen_on_training_data():
    images = torch.stack([brain(), brain().flip(0)])[:, None]
    train = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], noise=0.05)
    scan, maps = scan_of(measured(), lines("rows")), simulated(4, SHAPE)
    found = reconstruct.reconstruct(scan, maps=maps, train=train)
    assert torch.allclose(found.image[0], Sense.of(train)(measured(), lines("rows"), Coils(maps))[0], atol=1e-5)
    assert found.how["reconstruction"] == "sense, numbers chosen on demo"
    smooth = reconstruct.reconstruct(scan, maps=maps, train=train, phase="smooth")
    assert not torch.allclose(smooth.image, found.image, atol=1e-3)
    low = smooth_phase(found.image[0], [min(sides) for sides in reach(scan.mask)])
    expected = PhaseConstrained(Sense.of(train).penalty / 2, low)(scan.kspace[0], scan.mask, Coils(maps))[0]
    assert torch.allclose(smooth.image[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "given, what",
    [
        ({"name": "sens"}, "did you mean 'sense'"),
        ({"phase": "soft"}, "phase 'soft' is not known"),
        ({"name": "tv", "phase": "smooth"}, "is for zero-filled and sense, not for tv"),
        ({"noise": 0.0}, "noise 0.0: must be > 0"),
        ({"noise": "a"}, "noise a: must be"),
        ({"name": "zero-filled", "noise": 1.0}, "noise 1: is not used by zero-filled"),
        ({"calibration": 0}, "calibration 0: must be >= 8"),
        ({"calibration": -3}, "calibration -3: must be >= 8"),
        ({"name": "gridding"}, "reconstruction gridding: is not for slices of a grid"),
        ({"name": "view-sharing"}, "reconstruction view-sharing: is not for slices of a grid"),
        ({"maps": simulated(3, SHAPE)}, r"must be \(4, 48, 40\)"),
        ({"name": "zero-filled", "maps": simulated(4, SHAPE)}, "uses neither sensitivities nor training data"),
        ({"train": SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0])}, r"has slices of \(8, 8\), the raw data \(48, 40\)"),
    ],
)
def test_what_does_not_fit_is_refused(given, what):
    with pytest.raises(InputError, match=what):
        reconstruct.reconstruct(scan_of(measured(), lines("rows")), **given)


def test_sensitivities_of_files(tmp_path):
    maps = simulated(3, (12, 10))
    np.save(tmp_path / "a.npy", maps)
    assert torch.equal(reconstruct.read_maps(tmp_path / "a.npy"), maps)
    np.save(tmp_path / "b.npy", torch.stack([maps, maps]))
    assert reconstruct.read_maps(tmp_path / "b.npy").shape == (2, 3, 12, 10)
    with pytest.raises(InputError, match="no such file"):
        reconstruct.read_maps(tmp_path / "c.npy")
    with pytest.raises(InputError, match="must be a file of type"):
        reconstruct.read_maps(tmp_path / "c.txt")
    np.save(tmp_path / "d.npy", torch.full((3, 12, 10), torch.nan))
    with pytest.raises(InputError, match="NaN"):
        reconstruct.read_maps(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", torch.zeros(3, 12, 10))
    with pytest.raises(InputError, match="are all 0"):
        reconstruct.read_maps(tmp_path / "d.npy")
    np.save(tmp_path / "e.npy", torch.ones(12, 10))
    with pytest.raises(InputError, match="must be KHW or NKHW"):
        reconstruct.read_maps(tmp_path / "e.npy")


# -------------------------------------------------------------------------------------------------------------------------- image files


def test_image_files(tmp_path):
    image, voxel = complex_normal(3, 6, 5), (2.0, 1.5, 4.0)
    for name in ("a.nii", "a.nii.gz"):
        words = write(tmp_path / name, image, voxel)
        volume = nibabel.load(tmp_path / name)
        assert np.allclose(volume.get_fdata(), image.abs().permute(1, 2, 0)) and volume.get_data_dtype() == np.float32
        assert np.allclose(volume.header.get_zooms(), voxel) and volume.header.get_xyzt_units()[0] == "mm"
        assert int(volume.header["sform_code"]) == int(volume.header["qform_code"]) == 0 and "orientation unknown" in words
    write(tmp_path / "b.nii", image)
    assert nibabel.load(tmp_path / "b.nii").header.get_xyzt_units()[0] == "unknown"
    write(tmp_path / "a.npy", image)
    assert np.array_equal(np.load(tmp_path / "a.npy"), image)
    write(tmp_path / "a.h5", image, voxel, {"raw": "x"}, mask=torch.eye(5, dtype=torch.bool))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["image"], image) and file["mask"].dtype == bool and json.loads(file.attrs["record"]) == {"raw": "x"}
        assert file.attrs["voxel"].tolist() == list(voxel)
    write(tmp_path / "a.png", image)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (12, 10) and picture.max() == 255 and not picture[6:, 5:].any()
    assert np.array_equal(picture[:6, 5:], (255 * image[1].abs() / image.abs().max()).round())
    assert side_by_side(np.zeros((1, 4, 4))).max() == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match="image format '.gz' is not known"):
        write(tmp_path / "a.gz", image)
    with pytest.raises(InputError, match="folder"):
        write(tmp_path / "none" / "a.nii", image)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# ------------------------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def prom(command_line, tmp_path):
    """``prom`` in this process, in a folder with a scan of rows and its mask."""
    as_file(tmp_path / "raw.h5", lines("rows"), measured(), "rows").save(tmp_path / "asked.h5")
    (tmp_path / "mine").mkdir()
    for number in range(2):
        np.save(tmp_path / "mine" / f"{number}.npy", np.random.default_rng(number).random((2, 16, 12)))
    return lambda line: command_line(*line.split())


def test_the_command(prom, tmp_path):
    code, text, errors = prom("reconstruct raw.h5 --output image.nii.gz --mask asked.h5")
    assert code == 0 and errors == ""
    assert "raw.h5: ISMRMRD raw data, 1 slice of 48 x 40 (rows x columns), 4 coils" in text
    assert "measured: 26 of 48 rows (x1.85), fully the central 16 x 40" in text
    assert "compared with asked.h5: what was asked for, all 26 rows" in text and "wrote image.nii.gz: magnitude, voxels" in text
    assert "misfit: " in text and "note: the outermost samples hold signal too" in text
    found = torch.from_numpy(nibabel.load(tmp_path / "image.nii.gz").get_fdata()[..., 0])
    assert (found - brain().abs()).square().mean().sqrt() < 0.07
    code, text, _ = prom("reconstruct raw.h5 -o image.h5 --json --reconstruction wavelet")
    record = json.loads(text)
    assert code == 0 and record["measured"] == 26 and record["true_acceleration"] == pytest.approx(48 / 26)
    with h5py.File(tmp_path / "image.h5") as file:
        stored = json.loads(file.attrs["record"])
        assert file["image"].dtype == np.complex64 and file["maps"].shape == (1, 4, 48, 40) and np.array_equal(file["mask"], lines("rows"))
        assert {name: record[name] for name in stored} == stored and stored["how"]["reconstruction"].startswith("wavelet")


def test_a_mask_that_was_not_measured_is_said_and_recorded(prom, tmp_path):
    result = load_mask(tmp_path / "asked.h5")
    np.save(tmp_path / "moved.npy", result.mask.roll(1, 0).numpy())
    code, text, errors = prom("reconstruct raw.h5 -o image.npy --mask moved.npy --json")
    record = json.loads(text)
    assert code == 0 and record["equal"] is False and "exactly the mask asked for, shifted by (-1, 0)" in record["comparison"]
    assert errors.count("\n") == 1 and "was not measured with the mask of moved.npy" in errors and np.load(tmp_path / "image.npy").any()
    np.save(tmp_path / "other.npy", np.eye(40, 48))
    code, _, errors = prom("reconstruct raw.h5 -o other.nii --mask other.npy")
    assert code == 2 and "does not fit the raw data" in errors and errors.count("\n") == 1 and not (tmp_path / "other.nii").exists()


def test_partial_fourier_is_hinted_at(prom, tmp_path):
    mask = lines("columns") & (torch.arange(40) < 30)
    as_file(tmp_path / "half.mrd", mask, measured(), "columns")
    code, text, _ = prom("reconstruct half.mrd -o image.png")
    assert code == 0 and "the columns reach less far on one side (partial Fourier); --phase smooth uses that" in text
    code, text, _ = prom("reconstruct half.mrd -o image.png --phase smooth")
    assert code == 0 and "partial Fourier" not in text and "smooth phase from the centre of" in text


@pytest.mark.parametrize(
    "line, what",
    [
        ("raw.h5 -o image.docx", "image format '.docx' is not known"),
        ("raw.h5 -o no/image.nii", "folder no does not exist"),
        ("raw.h5 -o image.nii --reconstruction sens", "did you mean 'sense'"),
        ("raw.h5 -o image.nii --phase hard", "phase 'hard' is not known"),
        ("raw.h5 -o image.nii --noise 0", "must be > 0"),
        ("raw.h5 -o image.nii --calibration 4", "must be >= 8"),
        ("raw.h5 -o image.nii --calibration 16 --maps maps.npy", "sensitivities are given, --maps maps.npy"),
        ("raw.h5 -o image.nii --calibration 16 --reconstruction zero-filled", "zero-filled needs none; leave it out"),
        ("raw.h5 -o image.nii --set coils=keep", "give --train"),
        ("raw.h5 -o image.nii --mask none.h5", "no such file"),
        ("raw.h5 -o image.nii --calibration 16 --compress 1", "--compress 1 leaves one coil"),
        ("raw.h5 -o image.nii --maps none.npy", "no such file"),
        ("raw.h5 -o image.nii --maps raw.h5", "sensitivities raw.h5: is raw data, and has no maps; save the maps alone"),
        ("raw.h5 -o image.nii --key other", "has no ISMRMRD measurement 'other'"),
        ("raw.h5 -o image.nii --train mine", "has slices of (16, 12), the raw data (48, 40)"),
        ("raw.h5 -o raw.h5", "would overwrite a file that is read"),
        ("raw.h5 -o ./asked.h5 --mask asked.h5", "would overwrite a file that is read"),
        ("raw.h5 -o image.nii --compress 5", "must be >= 1 and <= 4"),
        ("asked.h5 -o image.nii", "has no ISMRMRD raw data"),
        ("none.h5 -o image.nii", "no such file"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(prom, tmp_path, line, what):
    before = sorted(tmp_path.iterdir())
    code, text, errors = prom(f"reconstruct {line}")
    assert code == 2 and text == "" and what in errors and errors.count("\n") == 1 and errors.startswith("prom: ")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_damaged_files_leave_an_image_or_one_line(prom, tmp_path):
    """Bytes changed, cut out or doubled anywhere in ISMRMRD and BART files: exit code 0 or 2, no image after an error, nothing else."""
    generator = np.random.default_rng(0)
    (tmp_path / "good.hdr").write_text("# Dimensions\n1 48 40 4\n")
    (measured() * lines("rows")).permute(1, 2, 0).numpy().ravel(order="F").tofile(tmp_path / "good.cfl")
    for name in ("raw.h5", "good.cfl", "good.hdr"):
        content = (tmp_path / name).read_bytes()
        ending = name.partition(".")[2]
        for _ in range(40):
            place, length = int(generator.integers(len(content))), int(generator.integers(1, 9))
            other = [generator.bytes(length), b"", content[place : place + length] * 2][int(generator.integers(3))]
            for copied in ("good.cfl", "good.hdr"):
                (tmp_path / copied.replace("good", "bad")).write_bytes((tmp_path / copied).read_bytes())
            (tmp_path / f"bad.{ending}").write_bytes(content[:place] + other + content[place + length :])
            code, _, errors = prom(f"reconstruct bad.{'h5' if ending == 'h5' else 'cfl'} -o image.npy --reconstruction zero-filled")
            made = tmp_path / "image.npy"
            assert code in (0, 2) and made.exists() == (code == 0) and (errors.count("\n") == 1 or code == 0), errors
            assert code == 2 or np.isfinite(np.load(made)).all()
            made.unlink(missing_ok=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".prom")]


def test_a_file_of_the_ismrmrd_library_with_oversampling_and_noise(prom, tmp_path):
    """What a converter writes: readout oversampling, a noise scan, lines for sensitivities alone, slices interleaved."""
    maps, mask, reference = simulated(4, SHAPE), lines("rows", centre=2), lines("rows", centre=20, every=50)
    clean = torch.stack([fft2c(maps * brain()), fft2c(0.5 * maps * brain())])
    kspace = clean + NOISE * complex_normal(2, 4, *SHAPE)
    wide = torch.nn.functional.pad(torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(kspace, dim=-1), norm="ortho"), dim=-1), (20, 20))
    wide = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(wide, dim=-1), norm="ortho"), dim=-1).numpy()
    space = "<{0}><matrixSize><x>{1}</x><y>48</y><z>1</z></matrixSize><fieldOfView_mm><x>{2}</x><y>240</y><z>4</z></fieldOfView_mm></{0}>"
    limits = "<kspace_encoding_step_1><minimum>0</minimum><maximum>47</maximum><center>24</center></kspace_encoding_step_1>"
    with ismrmrd.Dataset(tmp_path / "scan.h5", "dataset", mode="w") as file:
        file.write_xml_header(
            (
                '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>'
                "<H1resonanceFrequency_Hz>1</H1resonanceFrequency_Hz></experimentalConditions><encoding>"
                f"{space.format('encodedSpace', 80, 400)}{space.format('reconSpace', 40, 200)}<encodingLimits>{limits}</encodingLimits>"
                "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
            ).encode()
        )
        noise = ismrmrd.Acquisition.from_array(NOISE * complex_normal(4, 512, seed=9).numpy(), sample_time_us=5.0)
        noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(noise)
        for row in range(48):
            for number in (1, 0):
                if mask[row, 0] or reference[row, 0]:
                    line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(wide[number, :, row]), center_sample=40, sample_time_us=5.0)
                    line.idx.kspace_encode_step_1, line.idx.slice = row, number
                    line.position[:] = (0, 0, 6 * number)
                    if reference[row, 0]:
                        both = mask[row, 0]
                        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING if both else ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
                    file.append_acquisition(line)
    code, text, errors = prom("reconstruct scan.h5 -o scan.nii.gz")
    assert code == 0 and errors == "" and "512 samples, which whitened the coils" in text and "reference lines, the central 20 x 20" in text
    volume = nibabel.load(tmp_path / "scan.nii.gz")
    assert volume.shape == (48, 40, 2) and np.allclose(volume.header.get_zooms(), (5, 5, 6))
    images = volume.get_fdata()
    assert np.sqrt(((images[..., 0] - brain().abs().numpy()) ** 2).mean()) < 0.08
    assert np.sqrt(((2 * images[..., 1] - brain().abs().numpy()) ** 2).mean()) < 0.12


def test_sensitivities_of_matlab_have_rows_first(tmp_path):
    maps = simulated(3, (12, 10))
    scipy.io.savemat(tmp_path / "a.mat", {"maps": maps.numpy().transpose(1, 2, 0)})
    assert torch.equal(reconstruct.read_maps(tmp_path / "a.mat"), maps)
    two = torch.stack([maps, 2 * maps])
    scipy.io.savemat(tmp_path / "b.mat", {"maps": two.numpy().transpose(2, 3, 1, 0)})
    assert torch.equal(reconstruct.read_maps(tmp_path / "b.mat"), two)


def test_options_of_the_command_are_followed(prom, tmp_path):
    np.save(tmp_path / "maps.npy", simulated(4, SHAPE))

    def told(more):
        code, text, complaint = prom(f"reconstruct raw.h5 -o image.h5 --json {more}")
        assert code == 0, complaint
        return json.loads(text)

    assert told("--maps maps.npy")["how"]["sensitivities"] == "given"
    assert told("--noise 0.5")["noise"] == 0.5
    assert "the central 12 x 12" in told("--calibration 12")["how"]["sensitivities"]


@pytest.mark.parametrize("name", ["sense", "wavelet", "tv"])
@pytest.mark.parametrize("trained", [False, True])
def test_the_size_of_sensitivities_does_not_matter(tmp_path, name, trained):
    """Maps of another program may have any; the image has the inverse."""
    mask, maps = lines("columns"), simulated(4, SHAPE)
    as_file(tmp_path / "a.h5", mask, measured(), "columns")
    scan = read(tmp_path / "a.h5")
    images = torch.stack([brain(), brain().flip(0)])[:, None]
    train = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], sensitivities=maps, noise=NOISE) if trained else None
    if trained and name == "sense":  # the same physics in other units; others double their strength from one that is for maps of size 1
        images, other_maps = images / 7, 7 * maps
        other = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], sensitivities=other_maps, noise=NOISE)
        one, two = (
            factor * reconstruct.reconstruct(scan, name, maps=factor * maps, train=data).image for factor, data in ((1, train), (7, other))
        )
        assert (two - one).abs().max() < 1e-3 * one.abs().max()
    expected, *others = (
        factor * reconstruct.reconstruct(scan, name, maps=factor * maps, train=train).image for factor in (1.0, 1e-3, 7.0, 1e4)
    )
    for other in others:
        assert (other - expected).abs().max() < 1e-3 * expected.abs().max()


def test_maps_in_formats_that_hold_more_say_so(tmp_path):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["image"], file["maps"] = np.zeros((1, 48, 40)), np.ones((1, 4, 48, 40), np.complex64)
    with pytest.raises(InputError, match=r"has several arrays \(image, maps\); save the maps alone, as .npy"):
        reconstruct.read_maps(tmp_path / "out.h5")
    with h5py.File(tmp_path / "named.h5", "w") as file:
        file["maps"], file["reconstruction_rss"] = np.ones((4, 48, 40), np.complex64), np.zeros((4, 48, 40))
    with pytest.raises(InputError, match="has several arrays"):
        reconstruct.read_maps(tmp_path / "named.h5")
    np.savez(tmp_path / "named.npz", images=np.ones((4, 48, 40)), sensitivities=np.ones((4, 48, 40), np.complex64))
    with pytest.raises(InputError, match=r"has several arrays \(images, sensitivities\)"):
        reconstruct.read_maps(tmp_path / "named.npz")
    with h5py.File(tmp_path / "told.h5", "w") as file:  # as programs write numbers and text beside maps
        file["maps"], file["version"], file["voxel"] = np.ones((4, 48, 40), np.complex64), np.ones((1, 1)), np.ones((1, 3))
        file["by"] = np.array([[b"a", b"b"], [b"c", b"d"]])
    assert reconstruct.read_maps(tmp_path / "told.h5").shape == (4, 48, 40)
    np.savez(tmp_path / "told.npz", maps=np.ones((4, 48, 40), np.complex64), version=np.array(1), images=np.ones((1, 1)))
    assert reconstruct.read_maps(tmp_path / "told.npz").shape == (4, 48, 40)
    with h5py.File(tmp_path / "fastmri.h5", "w") as file:
        file["kspace"], file["mask"] = np.ones((3, 4, 48, 40), np.complex64), np.ones(40)
    with pytest.raises(InputError, match="has k-space, kspace, and no maps"):
        reconstruct.read_maps(tmp_path / "fastmri.h5")
    maps = (simulated(4, (12, 10))[..., None] * torch.linspace(1, 2, 9)).contiguous()  # coils, partitions, lines, readout: in memory
    (tmp_path / "maps.hdr").write_text("# Dimensions\n9 10 12 4\n")
    maps.numpy().tofile(tmp_path / "maps.cfl")
    assert torch.equal(reconstruct.read_maps(tmp_path / "maps.cfl"), maps.permute(3, 0, 2, 1))
    (tmp_path / "maps.hdr").write_text("# Dimensions\n9 10 1 6 2\n")
    maps.flatten()[: 9 * 10 * 12].numpy().tofile(tmp_path / "maps.cfl")
    with pytest.raises(InputError, match="has 2 sets of maps; save one of them"):
        reconstruct.read_maps(tmp_path / "maps.cfl")
    kspace = np.ones((4, 48, 40), np.complex64)
    scipy.io.savemat(tmp_path / "scan.mat", {"kspace": kspace.transpose(1, 2, 0)})
    np.save(tmp_path / "kspace.npy", kspace)
    np.save(tmp_path / "kspace_maps.npy", kspace)
    with pytest.raises(InputError, match="has k-space, kspace, and no maps"):
        reconstruct.read_maps(tmp_path / "scan.mat")
    for name in (
        "kspace",
        "k_space",
        "scan-kspace",
        "kspace1",
        "T1map_kspace",
        "KSP_cc",
        "k-space",
        "kspaceData",
        "fullkspace",
        "kspace_sense",
        "T1maps_kspace",
        "T1_map_kspace",
    ):
        np.save(tmp_path / f"{name}.npy", kspace)
        with pytest.raises(InputError, match=f"{name}.npy: is called k-space; if it has maps, call it {name}_maps"):
            reconstruct.read_maps(tmp_path / f"{name}.npy")
        np.savez(tmp_path / "named.npz", **{name: kspace})
        with pytest.raises(InputError, match=f"has k-space, {name}, and no maps"):
            reconstruct.read_maps(tmp_path / "named.npz")
    names = (
        "kspace_maps",
        "kspace_map",
        "map_of_kspace",
        "smaps_of_kspace",
        "kspace-sens",
        "coilmaps_kspace",
        "kspace_sensemap",
        "skspx",
        "kspaceMaps",
        "espirit_kspace_1_maps",
    )
    for name in (*names, "maskspan", "workspace", "brain_mask_space-T1w"):
        np.save(tmp_path / f"{name}.npy", kspace)
        assert reconstruct.read_maps(tmp_path / f"{name}.npy").shape == (4, 48, 40)
    np.savez(tmp_path / "kspace.npz", csm=kspace)
    assert reconstruct.read_maps(tmp_path / "kspace.npz").shape == (4, 48, 40)
    np.savez(tmp_path / "named.npz", images=np.ones((4, 48, 40)), sensitivities=kspace)
    np.savez(tmp_path / "named_coils.npz", maps=kspace, labels=np.array(["a", "b", "c", "d"]))
    assert reconstruct.read_maps(tmp_path / "named_coils.npz").shape == (4, 48, 40)
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        file["maps"] = kspace
        file["csm"] = file["maps"]
    assert reconstruct.read_maps(tmp_path / "twice.h5").shape == (4, 48, 40)
    np.save(tmp_path / "images.npy", np.ones((2, 48, 40)))
    for name, message in (("named.npz", "has several arrays"), ("named.h5", "has several arrays"), ("kspace.npy", "is called k-space")):
        with pytest.raises(InputError, match=message):
            load(tmp_path / "images.npy", maps=tmp_path / name)
    with pytest.raises(InputError, match=r"has several arrays \(images, sensitivities\); save the maps alone, as .npy \(H, W, K\)$"):
        formats.read_sensitivities(tmp_path / "named.npz", "HWNK")
    as_file(tmp_path / "raw.mrd", lines("columns"), measured(), "columns")
    with pytest.raises(InputError, match="raw.mrd: is raw data, and has no maps; save the maps alone"):
        load(tmp_path / "images.npy", maps=tmp_path / "raw.mrd")
    scipy.io.savemat(tmp_path / "several.mat", {"maps": kspace.transpose(1, 2, 0), "other": kspace.transpose(1, 2, 0)})
    np.save(tmp_path / "flat.npy", kspace[0])
    for name, message in (("several.mat", r"save the maps alone, as .npy \(K, H, W\)$"), ("flat.npy", "must be 'KHW' .K coils.")):
        with pytest.raises(InputError, match=message):
            load(tmp_path / "images.npy", maps=tmp_path / name)
    np.savez(tmp_path / "two.npz", image=np.zeros((48, 40)), maps=np.ones((4, 48, 40)))
    with pytest.raises(
        InputError, match=r"two.npz: has several arrays \(image, maps\); save the maps alone, as .npy \(K, H, W\) or \(N, K, H, W\)$"
    ):
        reconstruct.read_maps(tmp_path / "two.npz")


def test_the_maps_of_training_data_may_lie_on_disk(tmp_path):
    maps = torch.stack([simulated(4, SHAPE), simulated(4, SHAPE).flip(-1)])
    maps.numpy().tofile(tmp_path / "maps.bin")
    stored = StoredRows(tmp_path / "maps.bin", "complex64", list(maps.shape))
    assert reconstruct._size(stored) == pytest.approx(reconstruct._size(maps), rel=1e-9)
    assert reconstruct._size(3 * maps[0]) == pytest.approx(3 * reconstruct._size(maps[0]), rel=1e-6)
