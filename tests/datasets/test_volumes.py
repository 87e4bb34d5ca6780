"""Volumes cut perpendicular to their readout: NumPy's FFT over three axes and dense solves in 3D are the oracles."""

import json
from dataclasses import replace

import ismrmrd
import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from conftest import error, load
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import prom
from prom import InputError
from prom.datasets import cache, folder, mni_brain, volumes
from prom.kspace.coils import root_sum_of_squares, simulated
from prom.kspace.fourier import ifft2c
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import ZeroFilled
from prom.scanner import raw_scan
from prom.show import inspection

SHAPE = (12, 16, 10)  # N, H, W
OTHERS = [(1, 2), (0, 2), (0, 1)]  # the axes of the slices, for each readout
READOUTS = (0, 1, 2)
ALL = (-3, -2, -1)


def transform(array, axes, inverse=False):
    fft = np.fft.ifftn if inverse else np.fft.fftn
    return np.fft.fftshift(fft(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


def phantom(*coils, seed=0, noise=1e-3):
    """An ellipsoid with some texture and a smooth phase, of any number of coils before N, H, W: (*coils, N, H, W) complex64."""
    generator = np.random.default_rng(seed)
    n, h, w = np.meshgrid(*(2 * (np.arange(side) + 0.5) / side - 1 for side in SHAPE), indexing="ij")
    image = (
        ((n / 0.9) ** 2 + (h / 0.9) ** 2 + (w / 0.9) ** 2 < 1) * (1 + 0.2 * np.cos(3 * n + 2 * h - w)) * np.exp(1j * (0.4 * n - 0.3 * h))
    )
    weights = generator.uniform(0.5, 1.5, (*coils, 1, 1, 1)) * np.exp(1j * generator.uniform(0, 6, (*coils, 1, 1, 1)))
    noises = generator.normal(size=(2, *coils, *SHAPE)) * noise
    return (image * weights * (1 + 0.3 * h) + noises[0] + 1j * noises[1]).astype(np.complex64)


def sliced(volume, readout):
    """The slices (positions, ...) of a volume (..., N, H, W), one by one."""
    return np.stack([np.take(volume, position, axis=volume.ndim - 3 + readout) for position in range(SHAPE[readout])])


# ------------------------------------------------------------------------------------------------------------------- each format, as images


def write_nifti(path, volume):
    nibabel.save(nibabel.Nifti1Image(volume.transpose(1, 2, 0), np.diag([2.0, 3.0, 5.0, 1.0])), path / "a.nii")


def write_dicom(path, volume, places=None):
    for number, image in enumerate(volume):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientID, data.SeriesNumber, data.SeriesInstanceUID = "P1", 1, "1.2.3"
        data.InstanceNumber = number * 7 % len(volume)  # interleaved: the position decides
        data.ImagePositionPatient = [0, 0, 5.0 * number if places is None else places[number]]
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 3]
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = *image.shape, 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.PixelData = 15, 0, image.astype(np.uint16).tobytes()
        data.save_as(path / f"{number}.dcm", enforce_file_format=True)


WRITERS = {
    "npy": lambda path, volume: np.save(path / "a.npy", volume),
    "npz": lambda path, volume: np.savez(path / "a.npz", images=volume, labels=(volume > 500).astype(np.uint8)),
    "NIfTI": write_nifti,
    "MATLAB": lambda path, volume: scipy.io.savemat(path / "a.mat", {"images": volume.transpose(1, 2, 0)}),
    "DICOM": write_dicom,
}


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_reads_the_same_volume(tmp_path, kind, readout):
    volume = np.random.default_rng(1).integers(1, 900, SHAPE).astype(np.int16)
    volume[3, 4, 5] = 1000  # a marker: at [3, 4], [4, 5] or [3, 5] of the slice with the number of the third
    WRITERS[kind](tmp_path, volume)
    data = load(tmp_path, volume=True, readout=readout)
    assert data.images.dtype == torch.float32 and data.slices == list(range(SHAPE[readout]))
    assert np.array_equal(data.images[:, 0], sliced(volume, readout))
    place = (3, 4, 5)
    assert data.images[place[readout], 0, *(place[axis] for axis in OTHERS[readout])] == 1000
    lengths = (5.0, 2.0, 3.0)
    assert set(data.spacing) == ({tuple(lengths[axis] for axis in OTHERS[readout])} if kind in ("NIfTI", "DICOM") else set())
    if kind == "npz":
        assert np.array_equal(data.labels, sliced(volume > 500, readout))
    assert f"volume of 12 x 16 x 10 (N, H, W), {volumes.READ_OUT[readout]}" in data.source and data.number_of_subjects == 1


def test_channels_labels_and_sizes_of_a_volume(tmp_path):
    volume = np.random.default_rng(1).random((*SHAPE, 3), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(volume.transpose(1, 2, 0, 3), np.eye(4)), tmp_path / "a.nii")
    labels = (volume[..., 0] > 0.5).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels.transpose(1, 2, 0), np.eye(4)), tmp_path / "a_seg.nii")
    data = load(tmp_path, volume=True, readout=1, size=(8, 10))
    assert data.images.shape == (16, 3, 8, 10)
    assert np.array_equal(data.images, sliced(volume.transpose(3, 0, 1, 2), 1)[:, :, 2:10])
    assert np.array_equal(data.labels, sliced(labels, 1)[:, 2:10])


# ------------------------------------------------------------------------------------------------------------------ each format, as k-space

XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz>
</experimentalConditions><encoding><encodedSpace><matrixSize><x>20</x><y>12</y><z>16</z></matrixSize>
<fieldOfView_mm><x>60</x><y>60</y><z>32</z></fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>10</x><y>12</y><z>16</z></matrixSize>
<fieldOfView_mm><x>30</x><y>60</y><z>32</z></fieldOfView_mm></reconSpace><encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>11</maximum><center>6</center></kspace_encoding_step_1>
<kspace_encoding_step_2><minimum>0</minimum><maximum>15</maximum><center>8</center></kspace_encoding_step_2></encodingLimits><trajectory>cartesian</trajectory></encoding>
</ismrmrdHeader>"""


def write_ismrmrd(path, coils, left_out=0, slab=0, depth=16):
    """3D raw data of coil images (K, N, H, W) with twofold oversampling along W; lines are along N, partitions along H."""
    wide = np.zeros((*coils.shape[:-1], 20), complex)
    wide[..., 5:15] = coils
    kspace = transform(wide, ALL).astype(np.complex64)
    with ismrmrd.Dataset(path / "a.h5", "dataset", mode="w") as file:
        file.write_xml_header(XML.replace("<z>16", f"<z>{depth}").encode())
        for row, partition in list(np.ndindex(12, 16))[left_out:]:
            line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, row, partition]), center_sample=10)
            line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2, line.idx.slice = row, partition, slab * (partition % 2)
            file.append_acquisition(line)


def write_cfl(path, coils):
    kspace = transform(coils, ALL).transpose(2, 3, 1, 0)
    (path / "a.hdr").write_text("# Dimensions\n" + " ".join(map(str, kspace.shape)) + " 1 1\n")
    kspace.astype("<c8").ravel(order="F").tofile(path / "a.cfl")


RAW = {
    "ISMRMRD": (write_ismrmrd, {}, 2),
    "BART": (write_cfl, {"axes": "HWNK"}, 1),
    "npy": (lambda path, coils: np.save(path / "a.npy", transform(coils, ALL)), {"axes": "KNHW", "domain": "kspace"}, 0),
    "MATLAB": (
        lambda path, coils: scipy.io.savemat(path / "a.mat", {"kspace": transform(coils, ALL).transpose(2, 3, 1, 0)}),
        {"axes": "HWNK"},
        0,
    ),
}


def with_maps(path, options):
    """The options that keep three coils, with a file of sensitivities: estimated ones take seconds."""
    maps = (1 + 0.1 * phantom(3, seed=5)).astype(np.complex64)
    axes = options.get("axes", "NKHW")
    np.save(path / "maps.npy", maps.transpose(["KNHW".index(letter) for letter in axes]))
    return {**options, "axes": axes, "coils": "keep", "noise": 0.01, "sensitivities": path / "maps.npy"}


@pytest.mark.parametrize("readout", [None, *READOUTS])
@pytest.mark.parametrize("kind", RAW)
def test_kspace_of_every_format_is_transformed_along_the_readout(tmp_path, kind, readout):
    coils, (write, options, own) = phantom(3), RAW[kind]
    write(tmp_path, coils)
    along = own if readout is None else readout
    combined = load(tmp_path, volume=True, readout=readout, **options)
    assert np.allclose(combined.images[:, 0], np.linalg.norm(sliced(coils, along), axis=1), atol=1e-5)
    kept = load(tmp_path, volume=True, readout=readout, **with_maps(tmp_path, options))
    assert np.allclose(kept.kspace, transform(sliced(coils, along), (-2, -1)), atol=1e-5)
    assert kept.images.shape == (SHAPE[along], 1, *(SHAPE[axis] for axis in OTHERS[along])) and kept.coils == 3
    assert "its k-space transformed along the readout" in kept.source
    if kind == "ISMRMRD":
        lengths = (5.0, 2.0, 3.0)
        assert kept.spacing[0] == pytest.approx(tuple(lengths[axis] for axis in OTHERS[along]))


@pytest.mark.parametrize("readout", READOUTS)
def test_zero_filling_in_3d_is_that_of_the_slices(tmp_path, readout):
    image = phantom()
    np.save(tmp_path / "a.npy", transform(image, ALL))
    data = load(tmp_path, volume=True, readout=readout, domain="kspace")
    mask = torch.rand(data.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    in_3d = transform(transform(image, ALL) * np.expand_dims(mask.numpy(), readout), ALL, inverse=True)
    found, _ = ZeroFilled()(data.samples(range(len(data))), mask.float(), prom.kspace.encoding.Coils(data.maps([0])[0]))
    assert np.allclose(found, sliced(in_3d, readout), atol=1e-5)


@pytest.mark.parametrize("readout", READOUTS)
def test_sense_in_3d_is_that_of_the_slices(tmp_path, readout):
    """The normal equations in 3D, with sensitivities that vary along all axes, as one dense matrix."""
    shape, coils = (8, 9, 10), 3
    generator = np.random.default_rng(4)
    maps = (generator.normal(size=(coils, *shape)) + 1j * generator.normal(size=(coils, *shape))).astype(np.complex64)
    image = generator.normal(size=shape) + 0j
    image[3:6, 3:6, 3:6] += 40  # so that k-space has its energy at its centre
    maps = 1 + 0.1 * maps
    kspace = transform(maps * image, ALL).astype(np.complex64)
    np.save(tmp_path / "a.npy", kspace)
    np.save(tmp_path / "maps.npy", maps)
    how = {"axes": "KNHW", "domain": "kspace", "sensitivities": tmp_path / "maps.npy", "coils": "keep", "noise": 0.1}
    data = load(tmp_path, volume=True, readout=readout, **how)
    assert data.sensitivities.shape == (shape[readout], coils, *data.shape)
    assert np.allclose(data.images[:, 0], np.moveaxis(image, readout, 0), atol=1e-4)

    mask = generator.random(data.shape) < 0.5
    penalty = generator.uniform(0.05, 0.5, data.shape)
    in_3d = np.expand_dims(mask, readout)
    fourier = transform(np.eye(image.size).reshape(-1, *shape), ALL).reshape(image.size, -1).T
    sampled = np.broadcast_to(in_3d, shape).ravel()[:, None] * fourier
    encoding = np.concatenate([sampled * coil.ravel() for coil in maps])
    ridge = np.broadcast_to(np.expand_dims(penalty, readout), shape).ravel()
    normal = encoding.conj().T @ encoding + fourier.conj().T @ (ridge[:, None] * fourier)
    expected = np.linalg.solve(normal, encoding.conj().T @ kspace.reshape(-1)).reshape(shape)

    sense = Sense(torch.from_numpy(penalty), iterations=500, tolerance=1e-7)
    for position, slice_of_3d in enumerate(np.moveaxis(expected, readout, 0)):
        coils_there = prom.kspace.encoding.Coils(data.maps([position])[0])
        found, _ = sense(data.samples([position])[0], torch.from_numpy(mask).float(), coils_there)
        assert np.allclose(found, slice_of_3d, atol=2e-4 * np.abs(expected).max())


def test_sensitivities_that_do_not_vary_along_n(tmp_path):
    maps, image = phantom(3)[:, 6] + 0.5, phantom()
    np.save(tmp_path / "a.npy", transform(maps[:, None] * image, ALL))
    np.save(tmp_path / "maps.npy", maps)
    how = {"axes": "KNHW", "domain": "kspace", "sensitivities": tmp_path / "maps.npy"}
    np.save(tmp_path / "maps.npy", maps[:, None])
    assert np.allclose(load(tmp_path, volume=True, readout=1, **how).images[:, 0], sliced(image, 1), atol=1e-4)
    np.save(tmp_path / "maps.npy", maps)  # without N
    assert np.allclose(load(tmp_path, volume=True, readout=1, **how).images[:, 0], sliced(image, 1), atol=1e-4)
    np.save(tmp_path / "maps.npy", np.repeat(maps[:, None], 5, axis=1))
    assert "has 12 slices, but the sensitivities are of 5" in error(tmp_path, volume=True, readout=1, **how)


# ----------------------------------------------------------------------------------------------------------------- empty slices, and pieces


def test_empty_slices_are_left_out_and_counted(tmp_path):
    image = phantom(noise=0)
    image[:3] = image[-2:] = 0
    np.save(tmp_path / "a.npy", np.abs(image))
    data = load(tmp_path, volume=True)
    assert data.slices == list(range(3, 10)) and data.source.endswith("; 5 empty slice(s) left out")
    np.save(tmp_path / "a.npy", transform(image, ALL).astype(np.complex64))  # single precision: no slice is 0 to the bit
    data = load(tmp_path, volume=True, domain="kspace")
    assert data.slices == list(range(3, 10)) and data.source.endswith("; 5 empty slice(s) left out")
    assert np.allclose(data.images[:, 0], image[3:10], atol=1e-5)
    np.save(tmp_path / "a.npy", np.abs(image))
    assert "slice 0 is constant" in error(tmp_path)  # of slices that are no volume
    image[:] = 1
    np.save(tmp_path / "a.npy", np.abs(image))
    assert "nothing to learn from" in error(tmp_path, volume=True)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kind", ["npy", "BART"])
def test_pieces_of_a_large_file_make_the_same_volume(tmp_path, monkeypatch, kind, readout):
    coils, (write, options, _) = phantom(3, noise=0), RAW[kind]
    coils[:, :4] = 0
    write(tmp_path, coils)
    how = {"volume": True, "readout": readout, **with_maps(tmp_path, options)}
    whole = load(tmp_path, **how)
    monkeypatch.setattr(volumes, "SLAB", 8 * 3 * 160 * 4)
    plan = folder.plan(tmp_path, "all", **how)
    assert len(plan.items) > 2
    processes = 2 if (kind, readout) == ("npy", 2) else 1  # which take long to begin
    for data in (cache.read(plan, store=False), cache.read(plan, store=True, processes=processes)):
        assert data.slices == whole.slices and data.source == whole.source and data.number_of_subjects == 1
        for name in ("images", "kspace", "sensitivities"):
            assert torch.allclose(getattr(data, name)[:], getattr(whole, name), atol=1e-4), name
    found = inspection.inspect(tmp_path, **how)
    assert found["read"]["subjects"] == 1 and found["read"]["slices"] == len(whole)
    assert f"volumes     volume of 12 x 16 x 10 (N, H, W), {volumes.READ_OUT[readout]}" in inspection.report(found)
    del how["noise"]  # which is then estimated from all slices: pieces would have one each, and so would sensitivities
    assert len(folder.plan(tmp_path, "all", **how).items) == 1
    how.pop("sensitivities").unlink()
    assert len(folder.plan(tmp_path, "all", noise=0.01, **how).items) == 1


# -------------------------------------------------------------------------------------------------------------------------- what is refused


def test_options_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", np.abs(phantom()))
    assert error(tmp_path, volume=True, readout=3) == "readout 3: must be >= 0 and <= 2"
    assert error(tmp_path, volume=True, readout=1.5) == "readout 1.5: must be a whole number"
    assert error(tmp_path, readout=1) == "readout 1: is of volumes; give volume=true (--volume), or leave it out"
    assert error(tmp_path, volume="yes") == "volume 'yes': must be true or false"
    np.save(tmp_path / "a.npy", np.abs(phantom()[0]))
    assert "has one slice of 16 x 10, so it is no volume" in error(tmp_path, volume=True)


def test_kspace_of_2d_slices_is_no_volume(tmp_path):
    np.save(tmp_path / "a.npy", transform(phantom(), (1, 2)))
    assert "k-space is of 12 slices in 2D, as far as can be seen" in error(tmp_path, volume=True, domain="kspace")
    larger = np.repeat(np.repeat(phantom(), 2, axis=1), 2, axis=2)  # of smaller ones nobody can see it
    np.save(tmp_path / "a.npy", transform(larger, ALL))
    assert "has its energy at the centre, as k-space has; give domain=kspace" in error(tmp_path, volume=True)
    np.save(tmp_path / "a.npy", np.fft.fftn(larger))
    assert "not centred" in error(tmp_path, volume=True)


def test_bart_says_itself_what_its_axes_are(tmp_path):
    write_cfl(tmp_path, phantom(3))
    data = load(tmp_path, volume=True)
    assert torch.equal(data.images, load(tmp_path, volume=True, axes="HNWK", readout=1).images) and data.shape == (10, 12)
    assert "unclear" in error(tmp_path)


@pytest.mark.parametrize("sides", ["12 12 2", "12 12 1 2"])
def test_sensitivities_of_bart_with_or_without_slices_of_one(tmp_path, sides):
    maps = np.random.default_rng(0).random((12, 12, 2)) + 0j
    write_cfl(tmp_path, maps.transpose(2, 0, 1)[:, None] * (1 + np.random.default_rng(1).random((1, 3, 12, 12))))
    (tmp_path / "maps.hdr").write_text(f"# Dimensions\n{sides}\n")
    maps.astype("<c8").ravel(order="F").tofile(tmp_path / "maps.cfl")
    found = load(tmp_path, axes="HWNK", domain="kspace", sensitivities=tmp_path / "maps.cfl")
    assert found.images.dtype == torch.complex64 and len(found) == 3


@pytest.mark.parametrize("kind", ["ISMRMRD", "BART"])
def test_raw_volumes_are_those_that_prom_reconstruct_makes(tmp_path, kind):
    """Lines are rows of the mask and partitions its columns, for the mask that is learnt and the scan that is reconstructed."""
    RAW[kind][0](tmp_path, phantom(3))
    data = load(tmp_path, volume=True)
    scan = raw_scan.read(tmp_path / ("a.h5" if kind == "ISMRMRD" else "a.cfl"))
    images = torch.stack([root_sum_of_squares(coils) for coils in ifft2c(scan.kspace)])
    assert data.shape == tuple(scan.mask.shape) and torch.allclose(data.images[:, 0].abs(), images, atol=1e-5)
    assert kind == "BART" or data.spacing[0] == pytest.approx(scan.voxel[:2]) == (5.0, 2.0)


@pytest.mark.parametrize("axes", ["HWNK", "HNWK"])
def test_sensitivities_of_a_bart_volume_have_its_axes(tmp_path, axes):
    maps, image = simulated(2, (12, 12, 12)).numpy(), np.random.default_rng(0).random((12, 12, 12)) + 1
    write_cfl(tmp_path, transform(transform(maps * image, ALL), ALL, inverse=True))
    (tmp_path / "maps.hdr").write_text("# Dimensions\n12 12 12 2\n")
    maps.transpose(2, 3, 1, 0).astype("<c8").ravel(order="F").tofile(tmp_path / "maps.cfl")
    how = {"volume": True, "readout": 1, "axes": axes, "coils": "keep", "noise": 0.01}
    found = load(tmp_path, **how, sensitivities=tmp_path / "maps.cfl").images[:, 0].numpy()
    expected = image.transpose(1, 0, 2) if axes == "HWNK" else image.transpose(1, 2, 0)
    assert np.allclose(found, expected, atol=1e-4)
    write_ismrmrd(tmp_path, phantom(2))
    (tmp_path / "a.cfl").unlink()
    (tmp_path / "a.hdr").unlink()
    assert "of BART beside HDF5" in error(tmp_path, volume=True, axes="KNHW", coils="keep", noise=0.1, sensitivities=tmp_path / "maps.cfl")


def test_sensitivities_of_a_volume_can_be_estimated(tmp_path):
    maps, inside = simulated(2, SHAPE).numpy(), np.abs(phantom(noise=0)) > 0
    np.save(tmp_path / "a.npy", transform(maps * phantom(), ALL))
    data = load(tmp_path, volume=True, readout=0, axes="KNHW", domain="kspace", coils="keep", calibration=10, crop=0)
    assert data.sensitivities.shape == (12, 2, 16, 10) and "coils kept: 2 coils, noise estimated" in data.source
    assert np.allclose(data.sensitivities.abs().numpy()[6][:, inside[6]], np.abs(maps)[:, 6][:, inside[6]], atol=0.1)


def test_incomplete_and_damaged_kspace(tmp_path):
    kspace = transform(phantom(), ALL)
    missing = kspace.copy()
    missing[:, 1::2] = 0
    np.save(tmp_path / "a.npy", missing)
    how = {"volume": True, "domain": "kspace"}
    assert "is undersampled" in error(tmp_path, **how) and "is undersampled" in error(tmp_path, readout=2, **how)
    assert len(load(tmp_path, readout=1, empty="keep", **how)) == 16
    padded = kspace.copy()
    padded[:2] = padded[-2:] = 0
    np.save(tmp_path / "a.npy", padded)
    assert "zero-padded" in error(tmp_path, readout=2, **how)
    assert load(tmp_path, readout=2, empty="crop", **how).shape == (8, 16)
    broken = kspace.copy()
    broken[3, 4, 5] = np.nan
    np.save(tmp_path / "a.npy", broken)
    assert "NaN or infinite" in error(tmp_path, **how)
    assert load(tmp_path, nan=0.0, **how).images.isfinite().all()
    np.save(tmp_path / "a.npy", np.abs(kspace))
    assert "k-space must be complex" in error(tmp_path, **how)


def test_raw_data_of_another_kind(tmp_path):
    write_ismrmrd(tmp_path, phantom(2), left_out=1)
    assert "volume has 191 of 192 lines: it is undersampled" in error(tmp_path, volume=True)
    assert "3D raw data (16 partitions); give volume=true" in error(tmp_path)
    write_ismrmrd(tmp_path, phantom(2), slab=1)
    assert "has several slabs" in error(tmp_path, volume=True)
    write_ismrmrd(tmp_path, phantom(2), depth=1)
    assert "raw data of 2D slices, no volume" in error(tmp_path, volume=True)


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]])
def test_dicom_slices_that_make_no_volume(tmp_path, places):
    write_dicom(tmp_path, np.abs(phantom()) * 100, places)
    assert "must be evenly spaced, one at each position" in error(tmp_path, volume=True)
    assert len(load(tmp_path, skip_constant=True)) == 10


# -------------------------------------------------------------------------------------------------------------------------- virtual volumes

SMALL = {"subjects": 1, "size": 32, "slices": range(56, 96, 4), "volume": True}


def test_virtual_volumes_are_one_whatever_the_readout():
    whole = np.zeros((3, 10, 32, 32), np.complex64)
    for readout in READOUTS:
        data = mni_brain.load("train", readout=readout, phase=True, **SMALL)
        np.moveaxis(whole[readout], readout, 0)[data.slices] = data.images[:, 0]
        assert data.labels.flatten(1).any(1).all() and data.images.dtype == torch.complex64
        lengths = (4.0, 8.0, 8.0)
        assert set(data.spacing) == {tuple(lengths[axis] for axis in OTHERS[readout])}
    brain = np.logical_and.reduce([one != 0 for one in whole])
    assert brain.mean() > 0.3 and np.allclose(whole[0][brain], whole[1][brain]) and np.array_equal(whole[0][brain], whole[2][brain])
    assert np.abs(whole[0]).max() == pytest.approx(1)
    plain = mni_brain.load("train", **SMALL)
    assert plain.images.dtype == torch.float32 and np.allclose(np.abs(whole[0]), plain.images[:, 0], atol=1e-6)
    assert "volumes of 10 slices 4 mm apart, read out across the slices" in plain.source
    assert "slice(s) without brain left out" in mni_brain.load("train", readout=2, **SMALL).source
    # Beside the noise and the scale, a partition is the slice of the same number.
    slices = mni_brain.load("train", subjects=1, size=32, slices=[72])
    assert np.corrcoef(plain.images[4, 0].flatten(), slices.images[0, 0].flatten())[0, 1] > 0.99


@pytest.mark.parametrize("readout", READOUTS)
def test_virtual_volumes_with_coils_and_noise(readout):
    data = mni_brain.load("train", readout=readout, coils=4, phase=True, noise=0.02, **SMALL)
    maps = np.moveaxis(simulated(4, (10, 32, 32)).numpy(), 1 + readout, 0)[data.slices]
    assert np.array_equal(data.sensitivities, maps) and "their coils in two rings" in data.source
    noise = data.kspace - replace(data, kspace=None).samples(range(len(data)))
    assert noise.abs().square().mean().sqrt() == pytest.approx(0.02, rel=0.02) and data.noise == pytest.approx(0.02)
    one = mni_brain.load("train", readout=readout, noise=0.02, **SMALL)
    assert one.sensitivities.shape == (1, *one.shape) and (one.sensitivities == 1).all() and one.coils == 1


@pytest.mark.parametrize("slices", [[70], range(60, 66), range(0, 120, 5), [*range(60, 80, 2), 81], range(100, 60, -2)])
def test_virtual_volumes_of_other_slices(slices):
    with pytest.raises(InputError, match="1, 2, 3 or 4 mm apart"):
        mni_brain.load("train", **{**SMALL, "slices": slices})


def test_virtual_volumes_refuse_what_volumes_refuse():
    with pytest.raises(InputError, match="readout 1: is of volumes"):
        mni_brain.load("train", readout=1)
    with pytest.raises(InputError, match="must be a whole number from -40 to 200"):
        mni_brain.load("train", volume=True, slices=range(190, 210))


# ------------------------------------------------------------------------------------------------------------------------- the command line


def test_command_line(command_line, tmp_path):
    (tmp_path / "mine").mkdir()
    for number in range(3):
        np.save(tmp_path / "mine" / f"a{number}.npy", np.abs(phantom(seed=number)))
    made = command_line("optimize", "mine", "--volume", "--readout", 1, "-a", 4, "--iterations", 5, "--members", 1, "-o", "a.h5")
    assert made[0] == 0 and prom.load_mask("a.h5").mask.shape == (12, 10)
    assert command_line("baseline", "energy", "mine", "--volume", "--readout", 1, "-a", 4, "-o", "b.h5")[0] == 0
    code, out, _ = command_line("evaluate", "a.h5", "mine", "--volume", "--readout", 1, "--json")
    assert code == 0 and json.loads(out)
    code, out, _ = command_line("inspect", "mine", "--volume", "--readout", 1)
    assert code == 0 and "read out along their columns (readout 1)" in out and "(1, 12, 10)" in out
    assert command_line("evaluate", "a.h5", "mine", "--set", "volume=true", "--set", "readout=1")[0] == 0
    for command in (("optimize", "mine", "-a", 4, "-o", "a.h5"), ("evaluate", "a.h5", "mine"), ("inspect", "mine")):
        code, _, said = command_line(*command, "--volume", "--readout", 3)
        assert code == 2 and "'--readout'" in said and said.count("\n") == 1
        code, _, said = command_line(*command, "--readout", 1)
        assert code == 2 and "readout 1: is of volumes; give volume=true (--volume)" in said and said.count("\n") == 1
