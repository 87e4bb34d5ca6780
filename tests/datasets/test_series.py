"""Series in time out of files: an axis T, raw data with counters of frames, DICOM with times; without T nothing changes."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from conftest import SHARED, error, load
from scipy.io import savemat

from prom.datasets import cache, folder
from prom.kspace.coils import combine, simulated
from prom.kspace.fourier import fft2c, ifft2c
from prom.show import inspection

sys.path.insert(0, str(Path(__file__).parent))
import test_dicom
import test_raw

RNG = np.random.default_rng(5)


def pattern(*shape: int) -> np.ndarray:
    return RNG.random(shape).astype(np.float32)


def as_series(array: np.ndarray, letters: str) -> torch.Tensor:
    """(N, C, T, H, W) of an array with these axes, by NumPy alone."""
    full = array[(..., *[None] * sum(letter not in letters for letter in "NCTHW"))]
    letters += "".join(letter for letter in "NCTHW" if letter not in letters)
    return torch.from_numpy(np.ascontiguousarray(np.einsum(f"{letters}->NCTHW", full)))


@pytest.mark.parametrize("letters", ["HWNT", "NTHW", "THW", "HWT", "NCTHW", "TCHW"])
def test_an_axis_of_time_of_npy(tmp_path, letters):
    lengths = {"N": 3, "T": 4, "C": 2, "H": 12, "W": 10}
    array = pattern(*(lengths[letter] for letter in letters))
    np.save(tmp_path / "a.npy", array)
    data = load(tmp_path / "a.npy", axes=letters)
    assert data.kind == "series" and torch.equal(data.images, as_series(array, letters)) and data.slices == list(range(len(data)))


def test_every_array_format_gives_the_same_series(tmp_path):
    array = pattern(12, 10, 3, 4)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 5.0, 1.0])), tmp_path / "a.nii.gz")
    np.savez(tmp_path / "b.npz", images=array)
    savemat(tmp_path / "c.mat", {"images": array})
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["images"] = array
    test_raw.write_cfl(tmp_path / "e.cfl", fft2c(torch.from_numpy(array).permute(2, 3, 0, 1)).permute(2, 3, 0, 1).numpy())
    expected = as_series(array, "HWNT")
    for name in ("a.nii.gz", "b.npz", "c.mat", "d.h5"):
        data = load(tmp_path / name, axes="HWNT")
        assert torch.equal(data.images, expected), name
    assert load(tmp_path / "a.nii.gz", axes="HWNT").spacing == [(2.0, 3.0)] * 3
    measured = load(tmp_path / "e.cfl", axes="HWNT", domain="kspace")
    torch.testing.assert_close(measured.images, expected + 0j, atol=1e-5, rtol=1e-5)


def test_several_files_and_labels_in_npz(tmp_path):
    images, labels = pattern(2, 4, 12, 10), RNG.integers(0, 4, (2, 4, 12, 10)).astype(np.uint8)
    for number in range(2):
        np.savez(tmp_path / f"s{number}.npz", images=images + number, labels=labels)
    data = load(tmp_path, axes="NTHW")
    assert data.subjects == ["s0.npz"] * 2 + ["s1.npz"] * 2 and torch.equal(data.labels, torch.from_numpy(np.concatenate([labels, labels])))
    few = load(tmp_path, axes="NTHW", frames=3)
    assert torch.equal(few.images, data.images[:, :, :3]) and torch.equal(few.labels, data.labels[:, :3])
    stored = cache.read(folder.plan(tmp_path, "all", axes="NTHW"), store=True)
    assert stored.kind == "series" and stored.known_fingerprint == data.fingerprint()


def test_size_cuts_every_frame(tmp_path):
    array = pattern(2, 3, 12, 10)
    np.save(tmp_path / "a.npy", array)
    data = load(tmp_path / "a.npy", axes="NTHW", size=(8, 8))
    assert torch.equal(data.images[:, 0], torch.from_numpy(array[:, :, 2:10, 1:9]))


def test_a_series_with_a_constant_frame_is_left_out(tmp_path):
    array = pattern(3, 4, 12, 10)
    array[1, 2] = 7
    np.save(tmp_path / "a.npy", array)
    assert "frame 2 of series 1 is constant" in error(tmp_path / "a.npy", axes="NTHW")
    data = load(tmp_path / "a.npy", axes="NTHW", skip_constant=True)
    assert data.slices == [0, 2] and torch.equal(data.images[:, 0], torch.from_numpy(array[[0, 2]]))
    assert "1 series with a constant frame left out" in data.source


@pytest.mark.parametrize("given", [False, True])
def test_coils_are_shared_by_the_frames(tmp_path, given):
    maps = simulated(4, (32, 32))
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    disc = np.stack([(np.hypot(x, y) < 0.5 + 0.05 * t) * (1 + 0.2 * np.cos(5 * x + n)) for n in range(2) for t in range(3)])
    images = torch.from_numpy(disc.reshape(2, 3, 32, 32)).to(torch.complex64)
    kspace = fft2c(maps[:, None] * images[:, None])  # (N, K, T, H, W)
    kspace += 1e-3 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "kspace.npy", kspace.numpy())
    options = {"axes": "NKTHW", "domain": "kspace", "coils": "keep", "noise": 1e-3}
    if given:
        np.save(tmp_path / "maps.npy", maps.numpy())
        options["sensitivities"] = tmp_path / "maps.npy"
    data = load(tmp_path / "kspace.npy", **options)
    assert torch.equal(data.kspace, kspace) and data.noise == 1e-3
    assert data.sensitivities.shape == ((4, 32, 32) if given else (2, 4, 32, 32))
    own = maps.expand(2, -1, -1, -1) if given else data.sensitivities
    for n in range(2):
        for t in range(3):
            torch.testing.assert_close(data.images[n, 0, t], combine(ifft2c(kspace[n, :, t]), own[n]))
    inside = images[:, 0].abs() > 0
    ratio = (data.images[:, 0].abs() / images.abs().clamp(min=0.5))[inside[:, None].expand(-1, 3, -1, -1)]
    assert (ratio - 1).abs().median() < 0.02
    compressed = load(tmp_path / "kspace.npy", **options, compress=3)
    assert compressed.kspace.shape == (2, 3, 3, 32, 32) and compressed.coils == 3


def test_what_is_unclear_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", pattern(3, 4, 12, 10))
    path = tmp_path / "a.npy"
    assert "which of its axes is time is unclear" in error(path, time=True)
    assert "frames 3: is of series in time" in error(path, axes="NCHW", frames=3)
    assert "frames=5 asks for more" in error(path, axes="NTHW", frames=5)
    assert "give one of them" in error(path, axes="NTHW", volume=True)
    assert "time 1: must be true or false" in error(path, time=1)
    assert "name every axis" in error(path, axes="TTHW")
    np.save(tmp_path / "b.npy", pattern(3, 5, 12, 10))
    assert "4 frames" in error(tmp_path, axes="NTHW") and "frames= takes the first frames" in error(tmp_path, axes="NTHW")
    assert len(load(tmp_path, axes="NTHW", frames=4)) == 6
    assert load(path, axes="NCHW").kind == "slices"


def test_labels_of_other_files_are_refused(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        nibabel.save(
            nibabel.Nifti1Image(pattern(12, 10, 2, 3) if name == "images" else np.ones((12, 10, 2)), np.eye(4)), tmp_path / name / "p1.nii"
        )
    assert "has the labels of a series" in error(tmp_path, axes="HWNT")


# ------------------------------------------------------------------------------------------------------------------------------- raw data


def raw_series(path: Path, counters: list[dict[str, int]], slices: int = 2) -> np.ndarray:
    """A file with a frame for each of these counters: (slices, frames, coils, rows, columns)."""
    kspace = (pattern(slices, len(counters), 2, 6, 8) + 1j * pattern(slices, len(counters), 2, 6, 8)).astype(np.complex64)
    lines = []
    for number in range(slices):
        for frame, counter in enumerate(counters):
            lines += [(kspace[number, frame, :, row], number, row, counter, []) for row in range(6)]
    order = np.random.default_rng(0).permutation(len(lines))
    test_raw.write(path, [lines[i] for i in order], test_raw.header(6, 8, 8, fields=(200, 200)))
    return kspace


@pytest.mark.parametrize("name", ["phase", "repetition"])
def test_frames_of_ismrmrd(tmp_path, name):
    kspace = raw_series(tmp_path / "a.h5", [{name: 3 * frame} for frame in range(4)])
    data = load(tmp_path / "a.h5", time=True)
    assert data.kind == "series" and data.images.shape == (2, 1, 4, 6, 8)
    expected = ifft2c(torch.from_numpy(kspace)).abs().square().sum(2).sqrt()
    torch.testing.assert_close(data.images[:, 0], expected, atol=1e-5, rtol=1e-5)
    assert f"several {name}s" in error(tmp_path / "a.h5") and "give time=true" in error(tmp_path / "a.h5")


def test_frames_of_ismrmrd_that_are_not_certain(tmp_path):
    raw_series(tmp_path / "a.h5", [{"phase": 0, "repetition": 0}, {"phase": 1, "repetition": 1}])
    assert "2 phases and 2 repetitions, and which of them is time is unclear" in error(tmp_path / "a.h5", time=True)
    raw_series(tmp_path / "b.h5", [{}])
    assert "no series in time; leave out time" in error(tmp_path / "b.h5", time=True)


# ---------------------------------------------------------------------------------------------------------------------------------- DICOM


def dicom_series(root: Path, name: str, times: list[float], positions: tuple[float, ...] = (0.0, 8.0), **more) -> torch.Tensor:
    """Frames at each position, written in a shuffled order: (positions, frames, H, W)."""
    files = [(position, time) for position in range(len(positions)) for time in range(len(times))]
    frames = {}
    for number in np.random.default_rng(1).permutation(len(files)):
        position, time = files[number]
        place = {"ImagePositionPatient": [0.0, 0.0, positions[position]], "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0]}
        stamp = {name: times[time]} if name else {}
        array = test_dicom.pixels(12, 10)
        frames[files[number]] = test_dicom.write(root / f"{number}.dcm", array, int(number), **place, **stamp, **more)
    order = np.argsort(times)
    return torch.stack([torch.stack([frames[position, int(time)] for time in order]) for position in range(len(positions))])


@pytest.mark.parametrize("name", ["TriggerTime", "TemporalPositionIdentifier"])
def test_frames_of_dicom_come_by_position_and_time(tmp_path, name):
    expected = dicom_series(tmp_path, name, [30, 10, 20])
    data = load(tmp_path, time=True)
    assert data.kind == "series" and torch.equal(data.images[:, 0], expected) and data.slices == [0, 1]
    assert load(tmp_path).kind == "slices" and len(load(tmp_path)) == 6


def test_frames_of_dicom_that_are_not_certain(tmp_path):
    dicom_series(tmp_path / "none", "", [1, 2, 3])
    assert "do not order the frames" in error(tmp_path / "none", time=True)
    dicom_series(tmp_path / "equal", "TriggerTime", [1, 1, 3])
    assert "do not order the frames" in error(tmp_path / "equal", time=True)
    dicom_series(tmp_path / "alone", "TriggerTime", [1])
    assert "one frame each" in error(tmp_path / "alone", time=True)
    dicom_series(tmp_path / "missing", "TriggerTime", [1, 2, 3])
    next((tmp_path / "missing").iterdir()).unlink()
    assert "2 to 3 frames each" in error(tmp_path / "missing", time=True)


def test_two_times_must_agree(tmp_path):
    for number, (trigger, temporal) in enumerate([(10, 2), (20, 1)]):
        place = {"ImagePositionPatient": [0.0, 0, 0], "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0]}
        test_dicom.write(
            tmp_path / f"{number}.dcm", test_dicom.pixels(), number, TriggerTime=trigger, TemporalPositionIdentifier=temporal, **place
        )
    assert "order them differently" in error(tmp_path, time=True)


# -------------------------------------------------------------------------------------------------------------------------- what is shared


REAL = [
    ("rat_cine_magnitude", {"axes": "HWT"}, (1, 8, 192, 192)),
    ("lung_kb_complex", {"axes": "HWNT"}, (5, 5, 64, 64)),
    ("cardiac_complex", {"axes": "HW11T", "frames": 2}, (5, 2, 256, 192)),
]


@pytest.mark.parametrize(("name", "options", "shape"), REAL)
def test_real_series(tmp_path, name, options, shape):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} beside the project ({SHARED.name}/{name})")
    data = load(SHARED / name, **options)
    assert data.kind == "series" and data.images[:, 0].shape == shape
    change = (data.images[:, 0, 1:].abs() - data.images[:, 0, :-1].abs()).square().mean().sqrt() / data.images.abs().square().mean().sqrt()
    assert 0.01 < change < 0.7, "frames follow each other"
    found = inspection.inspect(SHARED / name, **options)
    assert f"{shape[0]} series of" in inspection.report(found) and "channels, T, H, W" in inspection.report(found) and not found["refused"]
    inspection.picture(found, tmp_path / "look.png")
    assert (tmp_path / "look.png").stat().st_size > 1000


def test_times_of_dicom_are_numbers(tmp_path):
    """104 comes after 52, though not as a word."""
    expected = dicom_series(tmp_path, "TriggerTime", [104.0, 0.0, 52.0])
    assert torch.equal(load(tmp_path, time=True).images[:, 0], expected)
