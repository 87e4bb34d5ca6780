"""Trajectories out of files, as candidates; and for mri-nufft, whose own transform is the reference."""

from __future__ import annotations

import warnings

import h5py
import ismrmrd
import numpy as np
import pytest
import torch

import prom
from prom.datasets.trajectory_files import read
from prom.errors import InputError
from prom.kspace.trajectories import Trajectory, from_array, kooshball, spirals, spokes
from prom.masks import MaskResult
from prom.scanner.writing import write_scan


def points(seed: int = 0, axes: int = 2) -> np.ndarray:
    """Readouts of no kind, that reach the ends of a 12 x 16 or 8 x 12 x 16 image."""
    sides = np.array([8, 12, 16])[-axes:]
    array = (np.random.default_rng(seed).random((7, 9, axes)) - 0.5) * sides
    array[0, 0] = -sides / 2
    return array.astype(np.float32)


@pytest.mark.parametrize("axes", [2, 3])
def test_arrays_in_both_units(tmp_path, axes):
    sides = (8, 12, 16)[-axes:]
    np.save(tmp_path / "cycles.npy", points(axes=axes))
    np.save(tmp_path / "shares.npy", points(axes=axes) / np.array(sides))
    for name, unit in (("cycles", "cycles"), ("shares", "mri-nufft")):
        made = read(tmp_path / f"{name}.npy", unit, sides)
        assert made.kind == "readouts" and made.turns is None and made.full == np.prod(sides[:-1])
        np.testing.assert_allclose(made.points, points(axes=axes), atol=1e-6)
    assert read(tmp_path / "cycles.npy", "cycles", sides, full=5).full == 5


@pytest.mark.parametrize(
    ("candidates", "image"), [(spokes(9, 12), (12, 12)), (spirals(9, 12, arms=4), (12, 12)), (kooshball(9, 8), (8, 8, 8))]
)
def test_arrays_for_mri_nufft_are_of_the_same_transform(candidates, image):
    """The order of axes and the unit: mri-nufft's operator on prom's image is prom's own, at the readouts of a mask."""
    mrinufft = pytest.importorskip("mrinufft")
    mask = torch.zeros(candidates.points.shape[:2], dtype=torch.bool)
    mask[[1, 5, 6]] = True
    array = candidates.to_mri_nufft(mask, image)
    assert array.shape == (3, *candidates.points.shape[1:]) and array.dtype == np.float32 and np.abs(array).max() <= 0.5 + 1e-6
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(image, generator=generator).to(torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mrinufft.get_operator("finufft")(array.reshape(-1, len(image)), shape=image).op(values.numpy())
    ours = candidates.encoding(image).forward(values).reshape(mask.shape)[mask]
    scale = np.vdot(theirs, ours.numpy()) / np.vdot(theirs, theirs)
    assert abs(scale.imag) < 1e-4 * abs(scale)
    np.testing.assert_allclose(scale * theirs.ravel(), ours, atol=1e-3 * float(ours.abs().max()))
    assert (from_array(array, "mri-nufft", image).points - candidates.points[[1, 5, 6]]).abs().max() < 1e-5


def test_chosen():
    candidates = spokes(6, 8)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[[0, 4]] = True
    assert torch.equal(candidates.chosen(mask), candidates.points[[0, 4]])
    assert torch.equal(kooshball(6, 8).chosen(mask[None]), kooshball(6, 8).points[[0, 4]])
    for wrong, message in (
        (mask[:5], "does not fit candidates"),
        (mask.expand(3, 6, 8), "take one of its frames"),
        (mask.float(), "must be bool"),
    ):
        with pytest.raises(InputError, match=message):
            candidates.chosen(wrong)
    mask[2, 3] = True
    with pytest.raises(InputError, match="measured in part"):
        candidates.chosen(mask)
    with pytest.raises(InputError, match="has 3 axes, and the trajectory has 2"):
        candidates.to_mri_nufft(torch.ones_like(mask), (8, 8, 8))


def test_spirals_have_even_steps():
    """Along the arm; the last sample is at the edge."""
    for arm in spirals(3, 64, arms=8).points.double():
        steps = arm.diff(dim=0).norm(dim=-1)
        assert float(steps[20:].max() / steps[20:].min()) < 1.001
        assert float(arm[-1].norm()) == pytest.approx(32, abs=1e-4) and float(arm[0].norm()) == 0


def result(trajectory: Trajectory) -> MaskResult:
    theta = torch.ones(len(trajectory))
    mask = theta.bool()[:, None].expand(trajectory.points.shape[:2]).contiguous()
    mask = mask[None].contiguous() if trajectory.points.shape[-1] == 3 else mask
    return MaskResult(mask, mask.float(), theta, trajectory.kind, 1.0, {"name": "all"}, 0, trajectory=trajectory)


@pytest.mark.parametrize(
    ("candidates", "image"), [(spokes(9, 12), (12, 12)), (spirals(9, 12, arms=4), (12, 12)), (kooshball(9, 8), (8, 8, 8))]
)
def test_what_prom_writes_as_raw_data_is_read(tmp_path, candidates, image):
    write_scan(result(candidates), tmp_path / "scan.mrd")
    assert torch.equal(read(tmp_path / "scan.mrd", "cycles", image).points, candidates.points)


def raw_data(path, trajectories: list[np.ndarray], **head: int) -> None:
    """Acquisitions with these trajectories, (samples, axes) and x first, in one channel; the first is of noise."""
    with ismrmrd.Dataset(path, mode="w") as file:
        file.write_xml_header(b"<ismrmrdHeader/>")
        for number, one in enumerate([trajectories[0], *trajectories]):
            acquisition = ismrmrd.Acquisition()
            acquisition.resize(len(one), 1, one.shape[-1])
            acquisition.traj[:] = one
            acquisition.data[:] = 1
            for name, value in head.items():
                setattr(acquisition, name, value)
            if number == 0:
                acquisition.traj[:] = 5
                acquisition.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
            file.append_acquisition(acquisition)


def test_raw_data_of_others(tmp_path):
    """x first; noise is left out, what comes again is one candidate, and so is a third axis of zeros."""
    array = points()
    flat = np.pad(array[..., ::-1], [(0, 0), (0, 0), (0, 1)])
    raw_data(tmp_path / "scan.h5", [*flat, *flat[:3]])
    assert torch.equal(read(tmp_path / "scan.h5", "cycles", (12, 16)).points, torch.from_numpy(array))
    raw_data(tmp_path / "shares.h5", list(array[..., ::-1] / np.array([16, 12])))
    assert (read(tmp_path / "shares.h5", "mri-nufft", (12, 16)).points - torch.from_numpy(array)).abs().max() < 1e-6
    raw_data(tmp_path / "volume.h5", list(points(axes=3)[..., ::-1]))
    assert torch.equal(read(tmp_path / "volume.h5", "cycles", (8, 12, 16)).points, torch.from_numpy(points(axes=3)))


def broken(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[2, 3, 1] = value
    return array


def turned_circle(radius: float) -> np.ndarray:
    """Spokes of which none ends on an axis."""
    angles = 0.3 + np.arange(7) * 2.4
    return np.linspace(-radius, radius, 9)[None, :, None] * np.stack([np.sin(angles), np.cos(angles)], axis=-1)[:, None]


HOSTILE_ARRAYS = [
    (points()[0], "cycles", "trajectory own.npy of shape (9, 2): must be (readouts, samples, 2 or 3)"),
    (points()[..., :1], "cycles", "of shape (7, 9, 1)"),
    (points()[:0], "cycles", "of shape (0, 9, 2)"),
    (points().astype(complex), "cycles", "of type complex128: must be real numbers"),
    (points() > 0, "cycles", "of type bool: must be real numbers"),
    (broken(points(), np.nan), "cycles", "has 1 numbers that are not finite"),
    (broken(points(), np.inf), "mri-nufft", "has 1 numbers that are not finite"),
    (points() * 1.1, "cycles", "goes to 8.8 cycles per field of view (unit cycles), and images of (12, 16) have half their size at most"),
    (points(), "mri-nufft", "(unit mri-nufft), and images of (12, 16) have half their size at most; name the other unit, or take larger"),
    (
        points() / np.array([12, 16]),
        "cycles",
        "goes to 0.5 cycles per field of view only; if that is a share of the image's size, name the unit",
    ),
    (
        points() / np.array([12, 16]) * 2 * np.pi,
        "cycles",
        "goes to pi cycles per field of view; if these are radians, divide them by 2 pi and name the unit mri-nufft",
    ),
    (turned_circle(np.pi), "cycles", "goes to pi cycles per field of view; if these are radians"),
    (points() / np.array([12, 16]) * 2 * np.pi, "mri-nufft", "at most; if these are radians, divide them by 2 pi"),
    (points() / 8, "mri-nufft", "have half their size at most; take larger images"),
    (points(axes=3), "cycles", "image of (12, 16): has 2 axes, and the trajectory has 3"),
    (points(), "1/m", "unit '1/m' is not known (known: cycles, mri-nufft)"),
]


@pytest.mark.parametrize(("array", "unit", "message"), HOSTILE_ARRAYS, ids=[message[:40] for *_, message in HOSTILE_ARRAYS])
def test_arrays_that_do_not_fit(tmp_path, monkeypatch, array, unit, message):
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", array)
    with pytest.raises(InputError) as caught:
        read("own.npy", unit, (12, 16))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("archive.npz", points())
    (tmp_path / "archive.npz").rename("zip.npy")
    np.save("objects.npy", np.array([[[{}, 1]]], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "text.h5").write_text("1 2 3")
    with h5py.File("other.h5", "w") as file:
        file["data"] = points()
    raw_data(tmp_path / "none.h5", [np.zeros((9, 0), np.float32)])
    raw_data(tmp_path / "one.h5", [np.zeros((9, 1), np.float32)])
    raw_data(tmp_path / "unequal.h5", [points()[0], points()[1, :5]])
    raw_data(tmp_path / "cut.h5", list(points()), discard_pre=2)
    raw_data(tmp_path / "empty.h5", list(points()), flags=1 << (ismrmrd.ACQ_IS_NAVIGATION_DATA - 1))
    for name, message in (
        ("missing.npy", "no such file"),
        ("own.txt", "format of trajectories '.txt' is not known"),
        ("zip.npy", "is no array as numpy.save writes it"),
        ("objects.npy", "is no array as numpy.save writes it"),
        ("text.npy", "is no array as numpy.save writes it"),
        ("text.h5", "is no HDF5 file, or damaged"),
        ("other.h5", "has 0 groups of ISMRMRD raw data"),
        ("none.h5", "with a trajectory of 0 axes"),
        ("one.h5", "with a trajectory of 1 axes"),
        ("unequal.h5", "has 5 samples with a trajectory of 2 axes and 10 numbers, the first 9 of 2"),
        ("cut.h5", "has samples to discard, 2 and 0"),
        ("empty.h5", "has no acquisitions of an image"),
    ):
        with pytest.raises(InputError) as caught:
            read(name, "cycles", (12, 16))
        assert message in str(caught.value) and "\n" not in str(caught.value), name


@pytest.fixture
def run(command_line, tmp_path):
    """The command line beside k-space of a few images of 12 x 16 in two coils, and readouts for them."""
    generator = np.random.default_rng(0)
    smooth = np.exp(-((np.mgrid[:12, :16] - np.array([6, 8])[:, None, None]) ** 2).sum(axis=0) / 20)
    images = generator.random((3, 1, 12, 16)) * smooth * np.array([1, 1j])[:, None, None]
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    np.save("kspace.npy", kspace.astype(np.complex64))
    np.save("own.npy", points())
    return command_line


SETTINGS = ("axes=NKHW", "domain=kspace", "coils=keep", "noise=0.05", "calibration=12")
DATA = ("kspace.npy", "-a", "4", "--split", "all", *(word for setting in SETTINGS for word in ("--set", setting)))


def test_masks_choose_among_readouts_of_ones_own(run):
    given = ("--pattern", "readouts", "--trajectory", "own.npy", "--unit", "cycles")
    code, out, err = run("baseline", "random_readouts", *DATA, *given, "--output", "mask.h5")
    assert code == 0, err
    found = prom.load_mask("mask.h5")
    assert found.pattern == "readouts" and int(found.mask[:, 0].sum()) == 3  # floor(12 lines / 4)
    assert torch.equal(found.trajectory.points, torch.from_numpy(points()))
    code, out, err = run(
        "optimize", *DATA, *given, "--iterations", "2", "--members", "1", "--reconstruction", "sense", "--output", "mask.h5"
    )
    assert code == 0, err
    assert int(prom.load_mask("mask.h5").mask[:, 0].sum()) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--pattern readouts", "pattern readouts: needs candidates of your own; give --trajectory FILE and --unit"),
        ("--pattern readouts --trajectory own.npy", "--trajectory own.npy: needs --unit as well; units are cycles and mri-nufft"),
        ("--pattern readouts --unit cycles", "--unit cycles: needs --trajectory as well"),
        ("--pattern spokes --trajectory own.npy --unit cycles", "--trajectory own.npy: is not for pattern spokes; use pattern readouts"),
        ("--pattern readouts --trajectory own.npy --unit mm", "unit 'mm' is not known"),
        ("--pattern readouts --trajectory own.npy --unit mri-nufft", "name the other unit"),
        ("--pattern readouts --trajectory own.npy --unit cycles --candidates 5", "--candidates 5: is for spokes, spirals and kooshball"),
        ("--pattern columns --candidates 5", "--candidates 5: is for spokes, spirals and kooshball"),
    ],
)
def test_options_that_do_not_fit(run, tmp_path, given, message):
    for command in (["optimize"], ["baseline", "random_readouts"]):
        code, out, err = run(*command, *DATA, *given.split(), "--output", "mask.h5")
        assert code == 2 and out == "" and err.count("\n") == 1 and message in err, err
        assert not (tmp_path / "mask.h5").exists()
