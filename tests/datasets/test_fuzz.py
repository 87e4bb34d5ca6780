"""Damaged files of every kind: each is read, or refused in one line; nothing else happens.

``PROM_FUZZ`` says how many inputs in all (10,000); the seed is fixed, so that a failure comes again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import prom
from prom import InputError, cli
from prom.datasets import REGISTRY, brain_tumour
from prom.evaluation import segmentation

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("PROM_FUZZ", "10000"))
SECONDS = 20  # for one input; the slowest seed takes .1 s
MEMORY = 2**20  # KiB that all inputs together may add to the peak


@dataclass(frozen=True)
class Seed:
    """A good input: what writes it below a folder, which of its files is damaged, and what reads it."""

    write: Callable[[Path], Path]  # returns the file to damage
    read: Callable[[Path], object]
    command: tuple[str, ...] | None = None  # the arguments of prom that read it, FOLDER and FILE being replaced


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32) + 0.1


def one_file(name: str, write: Callable[[Path], None]) -> Seed:
    def make(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return Seed(make, lambda folder: prom.load(folder, "all"), ("baseline", "energy", "FOLDER", "--split", "all", "-a", "4", "-o", "OUT"))


def nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(images(12, 10, 4), np.eye(4)), path)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images(4, 12, 10), chunks=(1, 12, 10), compression="gzip")
        file["other/numbers"] = np.arange(5)


def tiff(path: Path) -> None:
    pages = [Image.fromarray(page) for page in images(3, 12, 10)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def dicom(path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=["fuzz"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.PatientID, data.InstanceNumber = MRImageStorage, meta.MediaStorageSOPInstanceUID, "p1", 1
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 12, 10, 16, 12, 11
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.PixelData = (images(12, 10) * 1000).astype(np.uint16).tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def matlab_73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["data/images"] = images(4, 10, 12)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b"\0" * 8 + b"\x00\x02IM")


def acdc(folder: Path) -> Path:
    patient = folder / "database" / "training" / "patient001"
    patient.mkdir(parents=True)
    (patient / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
    nibabel.save(nibabel.Nifti1Image(images(12, 10, 5), np.eye(4)), patient / "patient001_frame01.nii.gz")
    nibabel.save(nibabel.Nifti1Image((images(12, 10, 5) * 3).astype(np.uint8), np.eye(4)), patient / "patient001_frame01_gt.nii.gz")
    return patient


def brain(folder: Path) -> Path:
    entries = []
    for number in (1, 2):
        for kind, shape in (("image", (8, 8, 3, 4)), ("label", (8, 8, 3))):
            path = folder / f"{kind}sTr" / f"BRATS_00{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            array = images(*shape) if kind == "image" else (images(*shape) * 3).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        entries.append({"image": f"./imagesTr/BRATS_00{number}.nii.gz", "label": f"./labelsTr/BRATS_00{number}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    return folder


def knee(folder: Path) -> Path:
    (folder / "singlecoil_train").mkdir()
    (folder / "singlecoil_val").mkdir()
    kspace = np.fft.fftshift(np.fft.fft2(images(1, 320, 320))).astype(np.complex64)
    with h5py.File(folder / "singlecoil_train" / "file1000001.h5", "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = "<ismrmrdHeader><encoding><reconSpace/></encoding></ismrmrdHeader>"
        file.attrs["patient_id"] = "p1"
    (folder / "knee.csv").write_text("file,slice,study_level,x,y,width,height,label\nfile1000001,0,No,90,173,35,10,Meniscus Tear\n")
    return folder


def mask(folder: Path) -> Path:
    data = prom.SliceDataset("demo", "train", prom.undersample(torch.rand(2, 1, 12, 10), 1), ["a", "b"], [0, 0])
    prom.baselines.as_result(prom.baselines.energy(data, 4), "energy", 4).save(folder / "mask.h5")
    return folder / "mask.h5"


def network(folder: Path) -> Path:
    """A small one and a copy of it, beside slices to segment."""
    regions, story = {"a": (1,)}, {"channels": [2, 4], "in_channels": 1}
    segmenter = segmentation.Segmenter(segmentation._unet(regions, story), regions, story)
    segmenter.save(folder / "net.pt")
    segmenter.save(folder / "whole.pt")
    np.savez(folder / "a.npz", images=images(3, 12, 10), labels=np.ones((3, 12, 10), np.uint8))
    return folder / "net.pt"


def read_network(folder: Path) -> None:
    """Its weights have checksums: it is read as it was, or not at all."""
    found, whole = (segmentation.load(folder / name) for name in ("net.pt", "whole.pt"))
    assert (found.regions, found.metadata) == (whole.regions, whole.metadata)
    weights = whole.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in found.network.state_dict().items())


def registered(name: str, write: Callable[[Path], Path], damaged: str) -> Seed:
    return Seed(
        lambda folder: next(write(folder).glob(damaged)),
        lambda folder: (REGISTRY[name].survey(folder), prom.load(name, "train", folder)),
        ("baseline", "energy", name, "--root", "FOLDER", "-a", "4", "-o", "OUT"),
    )


SEEDS = {
    "nii": one_file("a.nii", nifti),
    "nii.gz": one_file("a.nii.gz", nifti),
    "npy": one_file("a.npy", lambda path: np.save(path, images(3, 12, 10))),
    "npz": one_file("a.npz", lambda path: np.savez_compressed(path, images=images(3, 12, 10), labels=np.ones((3, 12, 10), np.uint8))),
    "hdf5": one_file("a.h5", hdf5),
    "mat": one_file("a.mat", lambda path: scipy.io.savemat(path, {"data": {"images": images(12, 10, 3)}}, do_compression=True)),
    "mat 7.3": one_file("a.mat", matlab_73),
    "png": one_file("a.png", lambda path: Image.fromarray((images(12, 10) * 200).astype(np.uint8)).save(path)),
    "tiff": one_file("a.tif", tiff),
    "dicom": one_file("a.dcm", dicom),
    "acdc image": registered("acdc", acdc, "*_frame01.nii.gz"),
    "acdc labels": registered("acdc", acdc, "*_gt.nii.gz"),
    "brain list": registered("brain_tumour", brain, "dataset.json"),
    "brain image": registered("brain_tumour", brain, "imagesTr/*2.nii.gz"),
    "knee file": registered("fastmri_knee", knee, "singlecoil_train/*.h5"),
    "knee csv": registered("fastmri_knee", knee, "knee.csv"),
    "mask": Seed(mask, lambda folder: prom.load_mask(folder / "mask.h5"), ("export", "FILE", "-o", "OUT")),
    "network": Seed(network, read_network, ("segment", "evaluate", "FILE", "FOLDER", "--split", "all")),
}
NUMBERS = [0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]


def unpacked(path: Path) -> tuple[bytes, Callable[[bytes], bytes]]:
    """What is inside a compressed file, and what packs it again."""
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        return gzip.decompress(content), lambda inner: gzip.compress(inner, 1)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            inner = archive.read("images.npy")

        def pack(inner: bytes) -> bytes:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("images.npy", inner)
            return buffer.getvalue()

        return inner, pack
    return content, bytes


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """One to three random changes, more often near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        reach = len(changed) if generator.random() < 0.5 else min(len(changed), 400)
        at, run = int(generator.integers(0, max(reach, 1))), int(generator.integers(1, 9))
        match generator.integers(0, 7):
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + run]
            case 2:
                changed[at:at] = generator.bytes(run)
            case 3:
                changed[at : at + run] = generator.bytes(run)
            case 4:
                changed[at : at + 1] = bytes([(changed[at : at + 1] or b"\0")[0] ^ (1 << int(generator.integers(0, 8)))])
            case 5:
                changed[at : at + run] = bytes([int(generator.choice([0, 255, 45, 57]))]) * run
            case 6:
                size = int(generator.choice([2, 4, 8]))
                number = int(generator.choice(np.array(NUMBERS, dtype=object))) & (2 ** (8 * size) - 1)
                changed[at : at + size] = number.to_bytes(size, generator.choice(["little", "big"]))
    return bytes(changed)


def too_slow(*_: object) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


@pytest.fixture(autouse=True)
def limits():
    """A hang is a failure, and so is memory that a header merely declared."""
    previous = signal.signal(signal.SIGALRM, too_slow)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path, capsys, monkeypatch):
    for setting, small in {"SLICES": range(3), "SIZE": 16}.items():  # of fifty slices most of the time would go into resizing
        monkeypatch.setattr(brain_tumour, setting, small)
    seed = SEEDS[name]
    good = tmp_path / "good"
    good.mkdir()
    path = seed.write(good)
    seed.read(good)  # undamaged, it is read
    content, pack = unpacked(path)
    generator = np.random.default_rng([len(SEEDS), *name.encode()])
    refused = 0
    # A damaged mat file starts a process, which takes a third of a second, so there are fewer of these.
    for number in range(INPUTS // 400 if name.startswith("mat") else -(-INPUTS // (len(SEEDS) - 2))):
        outside = pack is bytes or number % 3 == 0
        path.write_bytes(damage(pack(content), generator) if outside else pack(damage(content, generator)))
        signal.alarm(SECONDS)
        try:
            if number % 20:
                seed.read(good)
            else:
                refused += by_command(seed, good, path, tmp_path / f"out{number}", capsys, monkeypatch)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            refused += 1
        except BaseException as error:
            shutil.copy(path, kept := tmp_path / f"failing-{path.name}")
            raise AssertionError(f"input {number} of {name!r}, kept as {kept}: {type(error).__name__}: {error}") from error
        finally:
            signal.alarm(0)
    assert refused > 0  # the damage is real


def by_command(seed: Seed, folder: Path, file: Path, out: Path, capsys, monkeypatch) -> bool:
    """Through the command line: whether it was refused."""
    names = {"FOLDER": str(folder), "FILE": str(file), "OUT": str(out.with_suffix(".npy" if seed.command[0] == "export" else ".h5"))}
    monkeypatch.setattr(sys, "argv", ["prom", *(names.get(word, word) for word in seed.command)])
    capsys.readouterr()
    try:
        cli.main()
    except SystemExit as exit:
        message = capsys.readouterr().err
        assert exit.code == 2 and message.splitlines()[-1].startswith("prom: ") and "Traceback" not in message
        assert not Path(names["OUT"]).exists()
        return True
    return False
