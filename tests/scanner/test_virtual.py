"""A virtual scan: from the mask to a file, to samples at the places of its own gradients, to raw data, to the image the mask makes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import ismrmrd
import numpy as np
import pypulseq
import pytest
import sigpy
import torch
from scans import CASES, case, of, random_mask, scan

from prom import InputError, fft2c, ifft2c, load, load_mask
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.masks.result import MaskResult
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import ZeroFilled
from prom.scanner import seq_files, virtual
from prom.scanner.protocol import Protocol
from prom.scanner.sequence import Scan, make, write

CLOSE = 1e-4  # of the largest sample: amplitudes have six digits in a .seq file, so places are right to about 1e-4 of a grid step


def phantom(made: Scan, coils: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth object with phase, ``(H, W)`` or ``(R, H, W)``, and sensitivities ``(K, H, W)``."""
    shape = ((made.plan.matrix[0],) if made.plan.three_dimensional else ()) + made.plan.shape
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(shape, generator=generator) + torch.rand(shape, generator=generator) * 1j
    return image, simulated(coils, made.plan.shape)


def coil_images(image: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    return (maps if image.ndim == 2 else maps[:, None]) * image


def reread(made: Scan, folder: Path) -> Scan:
    write(made, folder / "scan.seq")
    return seq_files.read(folder / "scan.seq")


def kspace_of(path: Path) -> tuple[np.ndarray, np.ndarray, list[ismrmrd.Acquisition]]:
    """From raw data alone: k-space (K, readout, lines, partitions) without oversampling, what of it is there, and the acquisitions."""
    with ismrmrd.Dataset(path, mode="r") as file:
        encoding = ismrmrd.xsd.CreateFromDocument(file.read_xml_header()).encoding[0]
        size, width = encoding.encodedSpace.matrixSize, encoding.reconSpace.matrixSize.x
        extents = encoding.encodedSpace.fieldOfView_mm.x, encoding.reconSpace.fieldOfView_mm.x
        assert extents[0] / extents[1] == pytest.approx(size.x / width)
        acquisitions = [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]
    kept = [one for one in acquisitions if not one.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    kspace = np.zeros((kept[0].active_channels, size.x, size.y, size.z), np.complex64)
    there = np.zeros((size.y, size.z), bool)
    for one in kept:
        place = one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2
        assert not there[place]
        kspace[(slice(None), slice(None), *place)], there[place] = one.data, True
    return middle(kspace, width), there, acquisitions


def middle(kspace: np.ndarray, width: int) -> np.ndarray:
    """K-space (K, readout, ...) of the middle of the field of view, by the transforms as matrices."""
    samples = kspace.shape[1]
    k, inside = (np.arange(n) - n // 2 for n in (samples, width))
    to_image = np.exp(2j * np.pi * np.outer(inside, k) / samples) / np.sqrt(samples)
    to_kspace = np.exp(-2j * np.pi * np.outer(inside, inside) / width) / np.sqrt(width)
    return np.einsum("wi,is,ks...->kw...", to_kspace, to_image, kspace).astype(np.complex64)


def as_images(kspace: np.ndarray, pattern: str) -> torch.Tensor:
    """k-space of slices, the readout of 3D transformed: (K, H, W) or (K, R, H, W)."""
    if pattern == "points":
        shifted = np.fft.ifft(np.fft.ifftshift(kspace, axes=1), axis=1, norm="ortho")
        return torch.from_numpy(np.fft.fftshift(shifted, axes=1).astype(np.complex64))
    plane = torch.from_numpy(kspace[..., 0])
    return plane if pattern == "columns" else plane.transpose(-2, -1).contiguous()


@pytest.mark.parametrize("name", CASES)
def test_the_file_says_what_the_plan_says(name, tmp_path):
    made = scan(name)
    read = reread(made, tmp_path)
    for field in ("steps", "calibration", "shot", "echo"):
        assert torch.equal(getattr(read.plan, field), getattr(made.plan, field)), field
    assert (read.plan.matrix, read.plan.pattern) == (made.plan.matrix, made.plan.pattern)
    assert read.plan.fov == pytest.approx(made.plan.fov) and read.plan.acceleration == pytest.approx(made.plan.acceleration)
    assert (read.te, read.tr, read.flip) == pytest.approx((made.te, made.tr, made.flip))
    assert read.duration == pytest.approx(made.duration) and read.sequence.system.B0 == made.sequence.system.B0
    assert torch.equal(read.plan.mask(), case(name).result.mask)


@pytest.mark.parametrize("name", CASES)
def test_from_the_mask_to_the_image(name, tmp_path):
    """Mask, file, virtual scan, raw data: the image is that of the mask, zero-filled and by SENSE, and every sample is its own."""
    made, mask = scan(name), case(name).result.mask
    image, maps = phantom(made, 4)
    samples = virtual.scan(reread(made, tmp_path), coil_images(image, maps))
    virtual.write(tmp_path / "raw.mrd", made, samples)
    kspace, there, acquisitions = kspace_of(tmp_path / "raw.mrd")
    found = as_images(kspace, made.plan.pattern)
    direct = fft2c(coil_images(image, maps)) * mask
    assert float((found - direct).abs().max() / direct.abs().max()) < CLOSE
    measured = torch.from_numpy(there).any(dim=1) if made.plan.pattern != "points" else torch.from_numpy(there)
    assert torch.equal(of(measured, made.plan.pattern, tuple(mask.shape)).mask, mask)
    # in the order of the plan, each with its counters
    for number, one in enumerate(acquisitions):
        np.testing.assert_array_equal(one.data, samples[number])
        assert [one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2] == made.plan.steps[number].tolist()
        assert one.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING) == bool(made.plan.calibration[number])
    encoding = Coils(maps)
    if made.plan.three_dimensional:
        found, direct = found.transpose(0, 1), direct.transpose(0, 1)
    for method in (ZeroFilled(), Sense(1e-3, iterations=100, tolerance=1e-7)):
        ours, theirs = (method(data, mask.float(), encoding)[0] for data in (found, direct))
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-3


def test_everything_measured_is_the_image(tmp_path):
    """Without a mask, and without coils: the inverse transform gives the image back."""
    for pattern, shape in (("columns", (18, 13)), ("rows", (11, 16)), ("points", (9, 8))):
        full = torch.ones({"columns": shape[1:], "rows": shape[:1], "points": shape}[pattern], dtype=torch.bool)
        made = make(of(full, pattern, shape), Protocol(dummies=0))
        image, _ = phantom(made, 1)
        samples = virtual.scan(made, image)
        assert samples.shape[1] == 1 and np.array_equal(samples, virtual.scan(made, image[None]))
        virtual.write(tmp_path / "raw.mrd", made, samples)
        kspace, there, _ = kspace_of(tmp_path / "raw.mrd")
        assert there.all()
        torch.testing.assert_close(ifft2c(as_images(kspace, pattern))[0], image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"kind": "tse", "echoes": 4}, {"oversampling": 2}])
def test_the_project_reads_what_is_fully_measured(settings, tmp_path):
    """Raw data of three subjects, with a scan of noise each, are a data set; raw data have lines as rows, so columns come turned."""
    made = make(of(torch.ones(24, dtype=torch.bool), "columns", (20, 24)), Protocol(dummies=0, **settings))
    images = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(images):
        samples = virtual.scan(made, coil_images(image, simulated(3, (20, 24))))
        virtual.write(tmp_path / f"subject{number}.h5", made, samples, noise=0.1, noise_samples=64)
    read = load(tmp_path, split="all")
    torch.testing.assert_close(read.images[:, 0], images.transpose(-2, -1), atol=1e-3, rtol=0)


def test_sums_against_another_library():
    """SigPy's non-uniform transform at the same places, to its own precision."""
    made = scan("gre3d, random points")
    image, _ = phantom(made, 1)
    places = made.sequence.calculate_kspace()[0].T * np.array(made.plan.fov)
    theirs = sigpy.nufft(image.numpy(), places, oversamp=2, width=8)
    ours = virtual.scan(made, image)[:, 0].ravel()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-4


def test_a_wrong_gradient_shows():
    """The samples come from the gradients, not from the plan: with an encode turned round they are other ones; nothing hides that."""
    made = make(random_mask("columns", (12, 16)), Protocol(dummies=0))
    image, _ = phantom(made, 1)
    right = virtual.scan(made, image)
    made.sequence.mod_grad_axis("y", -1)
    wrong = virtual.scan(made, image)
    mirrored = (16 - made.plan.steps[:, 0]) % 16
    expected = fft2c(image).T[mirrored].numpy()
    assert np.abs(wrong[:, 0] - expected).max() < 1e-4 and np.abs(wrong - right).max() > 0.5


def test_an_unbalanced_slice_loses_its_signal():
    """A rephaser of another area leaves half a cycle and more across the slice."""
    made = make(random_mask("columns", (12, 16)), Protocol(dummies=0))
    image, _ = phantom(made, 1)
    made.sequence.mod_grad_axis("z", 0)
    assert np.allclose(virtual.scan(made, image)[:, 0], fft2c(image).T[made.plan.steps[:, 0]], atol=1e-4)
    made = make(random_mask("columns", (12, 16)), Protocol(dummies=0))
    for key, data in made.sequence.grad_library.data.items():
        if data[0] < 0:
            made.sequence.grad_library.data[key] = (data[0] * (0 if made.sequence.grad_library.type[key] == "t" else 1), *data[1:])
    made.sequence.block_cache.clear()
    assert np.abs(virtual.scan(made, image)).max() < 0.5 * float(fft2c(image).abs().max())


def test_noise(tmp_path):
    """Of the deviation that is asked for, white, repeatable, and other than that of the scan of noise."""
    made = scan("tse2d, repulsion, rows")
    image, maps = phantom(made, 8)
    silent = virtual.scan(made, coil_images(image, maps))
    noisy = [virtual.scan(made, coil_images(image, maps), noise=0.3, seed=seed) - silent for seed in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
    values = noisy[0].ravel()
    assert np.sqrt((np.abs(values) ** 2).mean()) == pytest.approx(0.3, rel=0.05)
    for part in (values.mean(), (values**2).mean(), (values[1:] * values[:-1].conj()).mean()):
        assert abs(part) < 5 * 0.3 / np.sqrt(len(values))
    virtual.write(tmp_path / "raw.mrd", made, silent, noise=0.3, noise_samples=4096, seed=1)
    kspace, _, acquisitions = kspace_of(tmp_path / "raw.mrd")
    [alone] = [one for one in acquisitions if one.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    assert alone is acquisitions[0] and alone.data.shape == (8, 4096) and len(acquisitions) == len(made.plan.steps) + 1
    covariance = alone.data @ alone.data.conj().T / 4096
    assert np.abs(covariance - 0.09 * np.eye(8)).max() < 0.02
    assert np.abs(alone.data[0, : values.size] - values[:4096]).min() > 0
    assert [one.scan_counter for one in acquisitions] == list(range(1, len(acquisitions) + 1))
    assert np.array_equal(np.stack([one.data for one in acquisitions[1:]]), silent)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda made: virtual.scan(made, torch.ones(5, 5)), r"image of shape \(5, 5\): this sequence measures \(20, 24\)"),
        (lambda made: virtual.scan(made, torch.ones(24, 20)), "give one of this size"),
        (lambda made: virtual.scan(made, torch.ones(0, 20, 24)), "give one of this size"),
        (lambda made: virtual.scan(made, torch.ones(20, 24), noise=-1), "noise -1: must be >= 0"),
        (lambda made: virtual.scan(made, torch.ones(20, 24), noise=1, seed=0.5), "seed 0.5"),
        (lambda made: virtual.write("raw.mrd", made, np.zeros((3, 1, 20))), r"samples of shape \(3, 1, 20\)"),
        (lambda made: virtual.scan(replace(made, plan=scan("tse2d, random columns").plan), torch.ones(20, 24)), "readouts, its plan"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(scan("gre2d, random columns"))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- files that are not ours


def resigned(text: str) -> str:
    body = text.split("\n[SIGNATURE]\n")[0]
    return f"{body}\n[SIGNATURE]\nType md5\nHash {hashlib.md5(body.encode()).hexdigest()}\n"


DAMAGE = {
    "no signature": (lambda text: text.split("\n[SIGNATURE]\n")[0], "has no signature"),
    "one digit changed": (lambda text: text.replace("kSpaceCenterLine 12", "kSpaceCenterLine 11"), "has been changed since it was signed"),
    "cut off": (lambda text: text[: len(text) // 2], "has no signature"),
    "empty": (lambda text: "", "has no signature"),
    "not Pulseq": (lambda text: resigned("hello"), "is no Pulseq file"),
    "no definitions": (lambda text: resigned(text.replace("Pattern columns", "Motif columns")), "has no definition Pattern"),
    "another pattern": (lambda text: resigned(text.replace("Pattern columns", "Pattern circles")), "are none of prom's"),
    "off the grid": (lambda text: resigned(text.replace("Pattern columns", "Pattern spirals")), "has readouts off the grid"),
    "another matrix": (lambda text: resigned(text.replace("Matrix 20 24 1", "Matrix 10 24 1")), "has readouts of"),
    "fewer lines": (lambda text: resigned(text.replace("Matrix 20 24 1", "Matrix 20 4 1")), "outside its matrix"),
    "words for numbers": (lambda text: resigned(text.replace("Matrix 20 24 1", "Matrix a b c")), "do not fit each other"),
    "no events": (lambda text: resigned(text.split("[RF]")[0]), "is no Pulseq file that pypulseq reads"),
    "a huge pulse": (lambda text: resigned(text.replace("num_samples 2000", "num_samples 99999999")), "of 99999999 samples; no scanner"),
    "a huge readout": (lambda text: resigned(re.sub(r"(\[ADC\]\n1) 20 ", r"\1 99999 ", text)), "of 99999 samples; no scanner plays it"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(damage, tmp_path):
    write(scan("gre2d, random columns"), tmp_path / "scan.seq")
    change, message = DAMAGE[damage]
    (tmp_path / "scan.seq").write_text(change((tmp_path / "scan.seq").read_text()))
    with pytest.raises(InputError, match=message) as caught:
        seq_files.read(tmp_path / "scan.seq")
    assert "\n" not in str(caught.value)


def test_other_programs_sequences_are_refused(tmp_path):
    sequence = pypulseq.Sequence()
    sequence.add_block(pypulseq.make_delay(1e-3))
    sequence.write(str(tmp_path / "other.seq"))
    with pytest.raises(InputError, match="has no definition Matrix, so it is not by prom"):
        seq_files.read(tmp_path / "other.seq")
    with pytest.raises(InputError, match="cannot be read"):
        seq_files.read(tmp_path)


@pytest.mark.slow
def test_a_brain_of_real_size(tmp_path):
    """256 x 256 in 8 coils, and 3D with 32 samples of readout, from a mask's file on."""
    for result, settings in (
        (of(torch.arange(256) % 4 == 0, "columns", (256, 256)), {"kind": "tse", "echoes": 8}),
        (random_mask("points", (64, 48), 0.2), {"readout": 32, "order": "shortest"}),
    ):
        result.save(tmp_path / "mask.h5")
        loaded: MaskResult = load_mask(tmp_path / "mask.h5")
        made = make(loaded, Protocol(**settings))
        image, maps = phantom(made, 8)
        samples = virtual.scan(reread(made, tmp_path), coil_images(image, maps))
        virtual.write(tmp_path / "raw.mrd", made, samples)
        found = as_images(kspace_of(tmp_path / "raw.mrd")[0], made.plan.pattern)
        direct = fft2c(coil_images(image, maps)) * result.mask
        assert (
            float((found - direct).abs().max() / direct.abs().max()) < 10 * CLOSE
        )  # at the edge of 256 samples six digits are 6e-4 of a grid step
