"""Data with coils: the container, the store, simulated measurements, and k-space of one's own that keeps its coils."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
import scipy.io
import sigpy
import sigpy.mri
import sigpy.mri.app
import torch
from conftest import SHARED, error, load

import prom
from prom import InputError, SliceDataset
from prom.datasets import cache, emulated
from prom.datasets.base import Part, Plan
from prom.kspace import coils
from prom.kspace.coils import combine, compress, compression, estimated, mixed, noise_level, simulated
from prom.kspace.fourier import fft2c, ifft2c
from prom.show import inspection

SMALL = {"subjects": 2, "slices": [60, 80], "size": 48}
MEASURED = {**SMALL, "coils": 4, "phase": True, "noise": 0.005}


def complex_normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def coil_data(per_slice=False, measured=True, count=6, **changes):
    """Six slices of three subjects, three coils; k-space is not that of the images, so that it is seen which of them is used."""
    maps = complex_normal(count, 3, 8, 10, seed=1) if per_slice else complex_normal(3, 8, 10, seed=1)
    kspace = complex_normal(count, 3, 8, 10, seed=2) if measured else None
    fields = {"images": complex_normal(count, 1, 8, 10), "sensitivities": maps, "kspace": kspace, "noise": 0.25}
    return SliceDataset("demo", "train", subjects=list("aabbcc")[:count], slices=[0, 1] * (count // 2), **{**fields, **changes})


# ---------------------------------------------------------------------------------------------------------------------- the container


@pytest.mark.parametrize("per_slice", [False, True])
def test_samples_are_what_was_measured_or_the_transform_of_sensitivity_times_image(per_slice):
    data = coil_data(per_slice)
    assert data.coils == 3 and data.summary().endswith("8 x 10, 3 coils")
    assert torch.equal(data.samples([4, 1]), data.kspace[[4, 1]])
    assert torch.equal(data.samples(torch.tensor([4, 1])), data.kspace[[4, 1]])
    maps = data.maps([4, 1])
    assert torch.equal(maps, data.sensitivities[[4, 1]] if per_slice else data.sensitivities[None])
    samples = replace(data, kspace=None).samples([4, 1])
    expected = sigpy.fft((maps * data.images[[4, 1]]).numpy(), axes=(-2, -1))
    assert samples.dtype == torch.complex64 and np.allclose(samples, expected, atol=1e-5)


def test_simulated_samples_have_noise_of_the_given_deviation_where_a_generator_draws_it():
    data = coil_data(measured=False)
    clean = data.samples(range(6))
    noisy = data.samples(range(6), torch.Generator().manual_seed(3))
    assert torch.equal(noisy, data.samples(range(6), torch.Generator().manual_seed(3)))
    assert (noisy - clean).abs().square().mean().sqrt() == pytest.approx(0.25, rel=0.05)
    measured = coil_data()
    assert torch.equal(measured.samples([0], torch.Generator()), measured.kspace[:1])


def test_without_coils_there_is_one_that_sees_everything():
    data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 6), ["a", "b"], [0, 0])
    assert (
        data.coils == 1 and torch.equal(data.samples([1]), fft2c(data.images[1:])) and (data.maps([0, 1]) == torch.ones(1, 1, 8, 6)).all()
    )
    with pytest.raises(InputError, match="has 2 channels; samples of coils"):
        SliceDataset("demo", "train", torch.rand(2, 2, 8, 6), ["a", "b"], [0, 0]).samples([0])


@pytest.mark.parametrize("per_slice", [False, True])
def test_selecting_takes_what_belongs_to_the_slices(per_slice):
    data = coil_data(per_slice)
    for part, indices in ((data.select([5, 0]), [5, 0]), (data.thinned(2), [0, 5]), (data.hold_out(0.3)[1], [2, 3])):
        assert torch.equal(part.kspace, data.kspace[indices]) and part.noise == 0.25
        assert torch.equal(part.maps(range(2)), data.maps(indices))


def test_scaling_takes_k_space_and_noise_along_and_cropping_leaves_coils_out():
    data = coil_data()
    scaled = data.scaled(4.0)
    assert torch.equal(scaled.kspace, 4 * data.kspace) and scaled.noise == 1.0 and torch.equal(scaled.sensitivities, data.sensitivities)
    assert torch.allclose(replace(scaled, kspace=None).samples([0]), 4 * replace(data, kspace=None).samples([0]))
    cropped = data.cropped(4)
    assert cropped.sensitivities is cropped.kspace is cropped.noise is None and cropped.coils == 1


@pytest.mark.parametrize("size, kept", [(6, np.s_[1:7, 1:7]), (5, np.s_[2:7, 2:7])])
def test_cropping_keeps_the_centre_of_k_space(size, kept):
    """By NumPy's transform: the window lies around DC, [4, 4] before and [size // 2, size // 2] after, where parity changes too."""
    images = complex_normal(1, 1, 8, 9)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images[0, 0].numpy())))[kept]
    expected = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum)))) * size**2 / 72
    cropped = SliceDataset("demo", "train", images, ["a"], [0]).cropped(size)
    assert cropped.images.shape == (1, 1, size, size) and np.allclose(cropped.images[0, 0], expected, atol=1e-5)


def test_the_fingerprint_holds_the_coils_and_without_them_is_what_it_was():
    data = coil_data()
    others = [replace(data, kspace=None), replace(data, noise=0.5), replace(data, noise=None)]
    others += [replace(data, sensitivities=2 * data.sensitivities), replace(data, kspace=2 * data.kspace)]
    others += [
        replace(data, sensitivities=data.maps([0]).expand(6, -1, -1, -1)),
        replace(data, sensitivities=None, kspace=None, noise=None),
    ]
    assert len({one.fingerprint() for one in [data, *others]}) == 1 + len(others)
    assert replace(data, sensitivities=data.sensitivities.conj().resolve_conj().conj()).fingerprint() == data.fingerprint()
    plain = SliceDataset("demo", "train", torch.arange(24.0).reshape(1, 1, 4, 6), ["a"], [0])
    assert plain.fingerprint() == "d6f16456f5671df4"


def test_coils_of_another_scan_are_put_on_complex_images():
    data = replace(coil_data(count=6), images=complex_normal(6, 1, 32, 24), sensitivities=None, kspace=None, noise=None)
    maps = simulated(5, (64, 48))
    clean, noisy = data.with_coils(7 * maps), data.with_coils(7 * maps, noise=0.2, seed=3)
    assert clean.kspace is None and clean.noise == 0 and torch.equal(clean.images, data.images)
    assert torch.allclose(clean.sensitivities.abs().square().sum(0), torch.ones(32, 24), atol=1e-5)
    expected = sigpy.fft((clean.sensitivities * data.images).numpy(), axes=(-2, -1))
    assert np.allclose(clean.samples(range(6)), expected, atol=1e-5)
    rest = noisy.kspace - clean.samples(range(6))
    assert rest.abs().square().mean().sqrt() == pytest.approx(0.2, rel=0.03) and noisy.noise == 0.2
    covariance = torch.einsum("nkhw,nlhw->kl", rest, rest.conj()) / rest[:, 0].numel()
    assert torch.allclose(covariance, 0.04 * torch.eye(5) + 0j, atol=0.04 * 0.1)  # no coil knows of the noise of another
    assert noisy.fingerprint() == data.with_coils(7 * maps, 0.2, 3).fingerprint() != data.with_coils(7 * maps, 0.2).fingerprint()
    assert noisy.source.endswith(
        "5 coils emulated: sensitivities of another scan, 64 x 48, put on these images, noise of 0.2 added to their k-space (seed 3)"
    )


def test_what_no_coil_sees_becomes_0():
    data = replace(coil_data(count=6), sensitivities=None, kspace=None, noise=None)
    maps = torch.ones(2, 8, 10) + 0j
    maps[:, :4] = 0
    seen = data.with_coils(maps)
    assert (seen.images[..., :4, :] == 0).all() and torch.equal(seen.images[..., 4:, :], data.images[..., 4:, :])


def test_coils_that_cannot_be_put_on_data_are_named(tmp_path):
    magnitudes = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0])
    with pytest.raises(InputError, match="torch.float32 images with 1 channel.s.; coils are put on complex images of one"):
        magnitudes.with_coils(torch.ones(2, 8, 8) + 0j)
    with pytest.raises(InputError, match="noise -1: must be >= 0"):
        replace(magnitudes, images=magnitudes.images + 0j).with_coils(torch.ones(2, 8, 8) + 0j, noise=-1)


def test_maps_of_a_file_are_those_of_a_data_set(tmp_path):
    maps = simulated(4, (30, 40)) * torch.linspace(0.5, 1, 30)[:, None]
    np.save(tmp_path / "maps.npy", maps.numpy())
    cfl(tmp_path / "maps.cfl", maps[None].numpy())
    plain = {"subjects": 1, "slices": [60, 80], "size": 32, "phase": True}
    with pytest.raises(InputError, match="sensitivities .*several.cfl: are of 3 slices; save those of one"):
        cfl(tmp_path / "several.cfl", torch.stack([maps] * 3).numpy())
        prom.load("mni_brain", **plain, maps=tmp_path / "several.cfl", maps_noise=0.01)
    expected = prom.load("mni_brain", **plain).with_coils(maps, noise=0.01)
    data = prom.load("mni_brain", **plain, maps=tmp_path / "maps.cfl", maps_noise=0.01)
    assert torch.equal(data.sensitivities, expected.sensitivities) and torch.equal(data.kspace, expected.kspace)
    test = prom.load("mni_brain", "test", **plain, maps=tmp_path / "maps.npy", maps_noise=0.01)
    noise = [one.kspace - replace(one, kspace=None).samples(range(2)) for one in (data, test)]
    assert not torch.allclose(*noise, atol=0.01)  # another split has noise of its own
    np.save(tmp_path / "turned.npy", maps.movedim(0, -1).numpy())
    for options, message in (
        ({"maps": tmp_path / "turned.npy"}, "more coils than rows or columns"),
        ({"maps": tmp_path / "none.npy"}, "is no file"),
        ({"maps_noise": 0.1}, "give maps="),
    ):
        with pytest.raises(InputError, match=message):
            prom.load("mni_brain", **plain, **options)


BAD = [
    ({"noise": -1.0}, "noise -1.0: must be a standard deviation"),
    ({"noise": float("nan")}, "noise nan"),
    ({"sensitivities": None}, "has k-space of coils but no sensitivities"),
    ({"images": torch.rand(6, 1, 8, 10)}, "torch.float32 images with 1 channel(s): with coils complex64 and 1"),
    ({"images": complex_normal(6, 2, 8, 10)}, "with 2 channel(s)"),
    ({"sensitivities": torch.ones(3, 8, 10)}, "torch.float32 sensitivities of shape (3, 8, 10)"),
    ({"sensitivities": complex_normal(3, 10, 8)}, "sensitivities of shape (3, 10, 8)"),
    ({"sensitivities": complex_normal(5, 3, 8, 10)}, "sensitivities of shape (5, 3, 8, 10)"),
    ({"sensitivities": complex_normal(3, 8, 10) / 0}, "sensitivities have NaN or infinite values"),
    ({"kspace": complex_normal(6, 2, 8, 10)}, "k-space of shape (6, 2, 8, 10): must be complex64 (6, 3, 8, 10)"),
    ({"kspace": torch.ones(6, 3, 8, 10)}, "torch.float32 k-space"),
    ({"kspace": complex_normal(6, 3, 8, 10) / 0}, "subject a, slice 0: k-space has NaN"),
]


@pytest.mark.parametrize("changes, message", BAD)
def test_coils_that_do_not_fit_are_named(changes, message):
    with pytest.raises(InputError) as caught:
        coil_data(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------------------- the store


def read_number(number, per_slice=False, kspace=True):
    """A subject of two slices, for a plan."""
    data = coil_data(per_slice, kspace, count=2)
    factor = number + 1
    return Part(
        Path(f"{number}.npy"),
        f"s{number}",
        (data.images * factor).numpy(),
        [0, 1],
        sensitivities=data.sensitivities.numpy() * (factor if per_slice else 1),
        kspace=(data.kspace * factor).numpy() if kspace else None,
        noise=0.1 * factor,
    )


def plan_of(folder, read):
    return Plan("demo", "train", folder, [0, 1, 2], read, [], source="made for a test")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("per_slice, kspace", [(False, True), (True, True), (False, False)])
def test_a_store_holds_the_coils_that_are_read_into_memory(tmp_path, monkeypatch, per_slice, kspace, lazy):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "IN_MEMORY", 0 if lazy else 2**29)
    plan = plan_of(tmp_path, partial(read_number, per_slice=per_slice, kspace=kspace))
    expected, stored = cache.read(plan, store=False), cache.read(plan, store=True)
    assert expected.sensitivities.shape == ((6, 3, 8, 10) if per_slice else (3, 8, 10))
    assert expected.noise == stored.noise == pytest.approx(0.1 * np.sqrt((1 + 4 + 9) / 3))
    assert torch.equal(stored.samples([5, 0]), expected.samples([5, 0])) and torch.equal(stored.maps([5, 0]), expected.maps([5, 0]))
    assert isinstance(stored.kspace, cache.StoredRows) == (lazy and kspace)
    assert stored.known_fingerprint == expected.fingerprint() == replace(stored).fingerprint()
    some = stored.select([4, 2])
    assert torch.equal(some.samples([1]), expected.samples([2])) and torch.equal(some.maps([1]), expected.maps([2]))


def odd_one(number, **changes):
    part = read_number(number)
    return replace(part, **changes) if number == 2 else part


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kspace": None}, "0.npy: kspace (coils, H, W) = (3, 8, 10), but 2.npy: none"),
        ({"sensitivities": np.ones((4, 8, 10), np.complex64)}, "but 2.npy: (coils, H, W) = (4, 8, 10)"),
        ({"sensitivities": np.ones((3, 8, 10), np.complex64)}, "have different sensitivities"),
        ({"noise": None}, "the noise of one is known"),
    ],
)
def test_subjects_whose_coils_do_not_fit_are_named(tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        cache.read(plan_of(tmp_path, partial(odd_one, **changes)), store=False)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- simulated measurements


@pytest.fixture(scope="module")
def brains():
    return prom.load("mni_brain", "test", **MEASURED)


def test_without_coils_phase_and_noise_the_virtual_brains_are_what_they_were():
    plain = prom.load("mni_brain", "test", **SMALL)
    assert plain.images.dtype == torch.float32 and plain.sensitivities is plain.kspace is plain.noise is None
    explicit = prom.load("mni_brain", "test", **SMALL, coils=1, phase=False, noise=0.0)
    assert explicit.fingerprint() == plain.fingerprint() and explicit.source == plain.source and "simulated" not in plain.source


def test_measured_brains_are_coil_images_of_known_phase_and_noise(brains):
    plain = prom.load("mni_brain", "test", **SMALL)
    assert torch.allclose(brains.images.abs(), plain.images, atol=1e-6) and torch.equal(brains.labels, plain.labels)
    maps = torch.tensor(sigpy.mri.birdcage_maps((4, 48, 48)), dtype=torch.complex64)
    assert torch.allclose(brains.sensitivities, maps, atol=1e-6)
    assert torch.allclose(brains.sensitivities.abs().square().sum(0), torch.ones(48, 48), atol=1e-6)
    noise = brains.kspace.numpy() - sigpy.fft((brains.sensitivities * brains.images).numpy(), axes=(-2, -1))
    parts = np.stack([noise.real, noise.imag]).reshape(2, -1)
    assert np.sqrt((np.abs(noise) ** 2).mean()) == pytest.approx(0.005, rel=0.02) == brains.noise
    assert np.allclose(np.cov(parts) / (0.005**2 / 2), np.eye(2), atol=0.04) and abs(noise.mean()) < 1e-4
    flat = noise.reshape(16, -1)  # of slices and coils, each independent of the others
    assert np.abs(np.corrcoef(flat) - np.eye(16)).max() < 0.1
    assert all(word in brains.source for word in ("4 simulated coils", "a simulated smooth phase", "simulated noise of 0.005"))


def test_the_phase_is_smooth_and_each_subject_has_its_own(brains):
    unit = brains.images / brains.images.abs().clamp_min(1e-12)
    bright = brains.images.abs() > 0.2
    for axis in (-2, -1):
        both = bright.narrow(axis, 1, 47) & bright.narrow(axis, 0, 47)
        turn = (unit.narrow(axis, 1, 47) * unit.narrow(axis, 0, 47).conj()).angle().abs()[both]
        assert turn.mean() > 0.01 and turn.max() < 0.5  # radians from one pixel of 5 mm to the next
    first, second = brains.select([0, 1]), brains.select([2, 3])
    assert (first.images.angle() - second.images.angle())[bright[:2] & bright[2:]].std() > 0.3


def test_a_subjects_measurement_depends_on_seed_and_number_only(brains):
    alone = prom.load("mni_brain", "test", **MEASURED | {"subjects": 1, "slices": [80]})
    assert torch.equal(alone.images[0], brains.images[1]) and torch.equal(alone.kspace[0], brains.kspace[1])
    more_coils = prom.load("mni_brain", "test", **MEASURED | {"coils": 8, "noise": 0.01})
    assert torch.equal(more_coils.images, brains.images)
    assert torch.equal(prom.load("mni_brain", "test", **MEASURED).kspace, brains.kspace)
    assert not torch.allclose(prom.load("mni_brain", "test", **MEASURED, seed=1).images.angle(), brains.images.angle())


def test_each_of_coils_phase_and_noise_can_be_had_alone():
    coils = prom.load("mni_brain", "test", **SMALL, coils=4)
    assert coils.kspace is None and coils.coils == 4 and coils.noise == 0 and (coils.images.imag == 0).all()
    assert torch.allclose(coils.samples([2]), fft2c(simulated(4, (48, 48)) * coils.images[2]), atol=1e-6)
    phase = prom.load("mni_brain", "test", **SMALL, phase=True)
    assert phase.sensitivities is phase.kspace is phase.noise is None and phase.images.imag.abs().max() > 0.1
    noise = prom.load("mni_brain", "test", **SMALL, noise=0.01)
    assert noise.coils == 1 and (noise.sensitivities == 1).all() and noise.kspace.shape == (4, 1, 48, 48)


def test_large_measurements_go_through_a_store(tmp_path, monkeypatch, brains):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path))
    monkeypatch.setattr(prom.datasets.mni_brain, "STORED", 0)
    stored = prom.load("mni_brain", "test", **MEASURED)
    assert stored.known_fingerprint == brains.fingerprint() and torch.equal(stored.kspace, brains.kspace)
    assert len(list(tmp_path.glob("mni_brain-test-*"))) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"coils": 0}, "coils 0: must be a whole number from 1 to 128"),
        ({"noise": -0.1}, "noise -0.1: must be >= 0"),
        ({"phase": "yes"}, "phase 'yes': must be true or false"),
        ({"contrasts": 4}, "contrasts 4: with coils, phase or noise must be 1"),
    ],
)
def test_bad_measurements_are_named(changes, message):
    with pytest.raises(InputError) as caught:
        prom.load("mni_brain", "test", **MEASURED | changes)
    assert message in str(caught.value)


def test_options_of_a_measurement_can_be_typed():
    typed = [prom.datasets.parse_option("mni_brain", text) for text in ("coils=8", "phase=true", "noise=0.005")]
    assert typed == [("coils", 8), ("phase", True), ("noise", 0.005)]


# ------------------------------------------------------------------------------------------------------- k-space that keeps its coils


SIGMA = 0.004


def measurement(slices=2, count=4, shape=(40, 32), seed=5):
    """Images (slices, 1, H, W) of a phantom with phase, maps, and their k-space with noise (slices, K, H, W)."""
    phantom = sigpy.shepp_logan(shape).real
    images = torch.tensor(np.stack([phantom * (1 + 0.2 * number) for number in range(slices)])[:, None], dtype=torch.complex64) * np.exp(
        0.5j
    )
    maps = simulated(count, shape)
    return images, maps, fft2c(maps * images) + SIGMA * complex_normal(slices, count, *shape, seed=seed)


def fastmri(path, kspace, width):
    """As fastMRI stores several coils: (slices, coils, rows, columns), here with readout oversampling along the rows."""
    matrix = "<matrixSize><x>{}</x><y>{}</y><z>1</z></matrixSize>"
    spaces = "".join(
        f"<{name}>{matrix.format(rows, columns)}</{name}>"
        for name, rows, columns in (("encodedSpace", kspace.shape[2], kspace.shape[3]), ("reconSpace", width, width))
    )
    header = f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>{spaces}</encoding></ismrmrdHeader>'
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"] = kspace, header.encode()


def cfl(path, kspace):
    """BART: (1, H, W, K, slices in axis 13), in Fortran's order."""
    array = kspace.transpose(2, 3, 1, 0)
    shape = [1, *array.shape[:3], *[1] * 9, array.shape[3]]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, shape))}\n")
    array.astype(np.complex64).ravel(order="F").tofile(path)


def raw(path, kspace):
    """ISMRMRD, without readout oversampling."""
    rows, width = kspace.shape[2:]
    space = f"<matrixSize><x>{width}</x><y>{rows}</y><z>1</z></matrixSize><fieldOfView_mm><x>200</x><y>200</y><z>5</z></fieldOfView_mm>"
    limits = (
        f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{rows - 1}</maximum><center>{rows // 2}</center></kspace_encoding_step_1>"
    )
    xml = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>64000000'
        f"</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace>"
        f"<encodingLimits>{limits}</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )
    with ismrmrd.Dataset(path, "dataset", mode="w") as file:
        file.write_xml_header(xml.encode())
        for number, stored in enumerate(kspace):
            for row in range(rows):
                line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(stored[:, row]), center_sample=width // 2)
                line.idx.slice, line.idx.kspace_encode_step_1 = number, row
                file.append_acquisition(line)


def save(folder, form, kspace):
    """k-space (N, K, H, W) in a file; what must be said of it to read it."""
    if form == "npy":
        np.save(folder / "scan.npy", kspace)
        return {"axes": "NKHW", "domain": "kspace"}
    if form == "mat":
        scipy.io.savemat(folder / "scan.mat", {"kspace": kspace.transpose(2, 3, 0, 1)})
        return {"axes": "HWNK"}
    if form == "images":
        np.save(folder / "scan.npy", ifft2c(torch.tensor(kspace)).numpy())
        return {"axes": "NKHW", "domain": "image"}
    {"cfl": cfl, "ismrmrd": raw}[form](folder / {"cfl": "scan.cfl", "ismrmrd": "scan.h5"}[form], kspace)
    return {}


@pytest.mark.parametrize("form", ["npy", "mat", "cfl", "ismrmrd", "images"])
def test_k_space_of_any_format_keeps_its_coils(tmp_path, form):
    _, _, kspace = measurement()
    data = load(tmp_path, coils="keep", calibration=16, **save(tmp_path, form, kspace.numpy()))
    assert torch.allclose(data.kspace, kspace, atol=1e-6) and (form == "images" or torch.equal(data.kspace, kspace))
    assert data.sensitivities.shape == kspace.shape and data.images.shape == (2, 1, 40, 32) and data.images.dtype == torch.complex64
    for number in range(2):
        maps = sigpy.mri.app.EspiritCalib(kspace[number].numpy(), calib_width=16, show_pbar=False).run()
        assert np.allclose(data.sensitivities[number], maps, atol=1e-3)
        assert torch.allclose(data.images[number, 0], combine(ifft2c(kspace[number]), data.sensitivities[number]), atol=1e-6)
    assert "coils kept: 4 coils, noise estimated" in data.source and "ESPIRiT from the central 16 x 16" in data.source


def test_estimated_sensitivities_are_the_simulated_ones_up_to_a_phase():
    images, maps, kspace = measurement(shape=(64, 64))
    found = coils.estimated(kspace[0])
    inside = (images[0, 0].abs() > 0.05) & (found.abs().sum(0) > 0)
    assert inside.sum() > 0.9 * (images[0, 0].abs() > 0.05).sum()
    overlap = (found.conj() * maps).sum(0).abs()[inside]
    assert overlap.min() > 0.95 and overlap.mean() > 0.999
    assert torch.allclose(found.abs().square().sum(0)[inside], torch.ones(()), atol=1e-4)
    assert torch.equal(found, coils.estimated(kspace[0]))
    assert torch.allclose(found, coils.estimated(kspace[0] * 1e-6), atol=1e-3)  # intensities of fastMRI


def test_sensitivities_of_a_file_are_those_of_all_slices(tmp_path):
    images, maps, kspace = measurement()
    np.save(tmp_path / "maps.npy", maps.numpy())
    (tmp_path / "scans").mkdir()
    save(tmp_path / "scans", "npy", kspace.numpy())
    options = {"axes": "NKHW", "domain": "kspace", "sensitivities": tmp_path / "maps.npy", "coils": "keep"}
    data = load(tmp_path / "scans", **options, noise=SIGMA)
    assert torch.equal(data.sensitivities, maps) and data.noise == SIGMA and torch.equal(data.kspace, kspace)
    assert (data.images - images).abs().square().mean().sqrt() == pytest.approx(SIGMA, rel=0.1)  # sum |s|^2 = 1: the noise of a sample
    residual = data.samples([0, 1]) - fft2c(data.maps([0, 1]) * data.images)
    assert residual.abs().square().mean().sqrt() == pytest.approx(SIGMA * np.sqrt(3 / 4), rel=0.1)  # three of four dimensions are noise
    assert data.source.endswith("coils kept: 4 coils, noise given as 0.004, sensitivities of a file")
    two = load(tmp_path / "scans", **options, noise=SIGMA, compress=2)
    assert two.coils == 2 and torch.allclose(two.kspace, compress(kspace, 2))
    assert torch.allclose(two.maps([1])[0], mixed(maps, compression(kspace, 2)))


def test_sensitivities_of_few_rows_are_estimated_from_all_of_them(tmp_path):
    """The usual 24 rows and columns are the most that are taken."""
    _, _, kspace = measurement(shape=(20, 32))
    data = load(tmp_path, coils="keep", **save(tmp_path, "npy", kspace.numpy()))
    assert data.sensitivities.shape[-2:] == (20, 32) and "from the central 20 x 20 samples" in data.source
    (tmp_path / "few").mkdir()
    images = np.abs(np.fft.ifft2(kspace.numpy()[0, 0]))
    np.save(tmp_path / "images.npy", np.stack([images, images + 1]).astype("f4"))
    few = emulated.by_coils(str(tmp_path / "images.npy"), "all", most=2, size=16, coils=3, maps="estimated")
    assert few.sensitivities.shape == (2, 3, 16, 16)
    (tmp_path / "images.npy").unlink()
    assert "is too small to estimate sensitivities" in error(
        tmp_path / "few", coils="keep", noise=0.1, **save(tmp_path / "few", "npy", kspace[..., 7:13, :].numpy())
    )
    for option, value in (("calibration", 12), ("crop", 0.5)):
        with pytest.raises(InputError, match=f"{option} {value}: is of coils that are kept"):
            load(tmp_path, axes="NKHW", domain="kspace", **{option: value})


def test_fastmri_of_several_coils_without_its_oversampling(tmp_path):
    images, maps, _ = measurement(shape=(64, 64))
    padded = torch.zeros(2, 4, 128, 64, dtype=torch.complex64)
    padded[:, :, 32:96] = maps * images
    fastmri(tmp_path / "file.h5", (fft2c(padded) + SIGMA * complex_normal(2, 4, 128, 64)).numpy(), 64)
    data = load(tmp_path, coils="keep", dataset_name="kspace")
    clean = fft2c(maps * images)
    assert data.kspace.shape == (2, 4, 64, 64) and "readout oversampling cut off, coils kept" in data.source
    assert (data.kspace - clean).abs().square().mean().sqrt() == pytest.approx(SIGMA, rel=0.05)


def test_one_coil_has_the_sensitivity_1_and_its_noise_is_found(tmp_path):
    smooth = torch.tensor(np.hanning(128)[:, None] * np.hanning(128)).float() ** 8
    kspace = fft2c(torch.tensor(sigpy.shepp_logan((128, 128)), dtype=torch.complex64)) * smooth + 0.02 * complex_normal(2, 128, 128)
    np.save(tmp_path / "kspace.npy", kspace.numpy())
    assert "whether it is of slices or of coils is unclear; give axes=NHW or axes=KHW" in error(tmp_path, coils="keep")
    keep = {"coils": "keep", "axes": "NHW"}
    data = load(tmp_path, **keep)
    assert data.kspace.shape == (2, 1, 128, 128) and torch.equal(data.sensitivities, torch.ones(1, 128, 128) + 0j)
    assert data.noise == pytest.approx(0.02, rel=0.05) and torch.allclose(data.images, ifft2c(kspace)[:, None], atol=1e-6)
    small = load(tmp_path, **keep, size=64, size_in="kspace")
    assert small.noise == pytest.approx(data.noise / 2) and torch.allclose(small.kspace, data.kspace[..., 32:96, 32:96] / 2)
    cut = load(tmp_path, **keep, size=64)
    assert cut.noise == data.noise and torch.allclose(cut.images, data.images[..., 32:96, 32:96], atol=1e-6)
    assert torch.allclose(cut.kspace, fft2c(cut.images), atol=1e-6)


def test_inspect_shows_the_coils_that_are_kept(tmp_path):
    _, _, kspace = measurement()
    options = save(tmp_path, "npy", kspace.numpy()) | {"coils": "keep", "calibration": 16}
    found = inspection.inspect(tmp_path, **options, compress=3)
    level = noise_level(compress(kspace, 3))
    assert found["coils"]["counts"] == [3] and found["coils"]["noise"] == pytest.approx((level, level))
    lines = inspection.report(found)
    assert f"coils kept  3; noise of a sample {level:.4g}\n" in lines
    assert "4 coils compressed to 3, noise estimated in the corners of k-space, sensitivities by ESPIRiT from the central 16 x 16" in lines
    assert inspection.inspect(tmp_path, **save(tmp_path, "npy", kspace.numpy()))["coils"] is None


def test_subjects_constant_slices_and_a_store(tmp_path, monkeypatch):
    monkeypatch.setenv("PROM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "scans").mkdir()
    for subject in range(3):
        _, _, kspace = measurement(seed=subject)
        if subject == 2:
            kspace[1] = 0
        np.save(tmp_path / "scans" / f"s{subject}.npy", kspace.numpy())
    options = {"axes": "NKHW", "domain": "kspace", "coils": "keep", "compress": 3}
    assert "slice 1 is constant" in error(tmp_path / "scans", **options)
    plain = prom.load(tmp_path / "scans", "all", **options, skip_constant=True)
    stored = prom.load(tmp_path / "scans", "all", **options, skip_constant=True, store=True)
    assert plain.subjects == ["s0.npy"] * 2 + ["s1.npy"] * 2 + ["s2.npy"] and plain.coils == 3 and len(plain.kspace) == 5
    assert plain.fingerprint() == stored.fingerprint() and plain.sensitivities.shape == (5, 3, 40, 32)
    assert prom.load(tmp_path / "scans", "test", **options, skip_constant=True).kspace.equal(plain.kspace[2:4])


def test_by_default_coils_are_combined_as_before(tmp_path):
    _, _, kspace = measurement()
    options = save(tmp_path, "npy", kspace.numpy())
    data = load(tmp_path, **options)
    assert data.images.dtype == torch.float32 and data.sensitivities is data.kspace is data.noise is None
    assert load(tmp_path, **options, coils="combine").fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"coils": "kept"}, "coils 'kept' is not known"),
        ({"coils": "combine", "compress": 2}, "compress 2: is of coils that are kept; give coils=keep"),
        ({"noise": 0.1, "coils": "combine"}, "noise 0.1: is of coils that are kept"),
        ({"compress": 9}, "coils to keep 9: must be >= 1 and <= 4"),
        ({"noise": -1.0}, "noise -1.0: must be >= 0"),
        ({"calibration": 33}, "calibration 33: must be >= 8 and <= 32"),
        ({"size": 64}, "size (64, 64): larger than (40, 32); k-space with its noise may only be cut"),
        ({"axes": "NCHW"}, "has 4 channels; coils=keep is for one"),
        ({"domain": "image", "axes": "NCHW"}, "has 4 channels"),
        ({"domain": "image", "axes": "CNHW"}, "has 2 channels"),
    ],
)
def test_what_does_not_fit_kept_coils_is_named(tmp_path, options, message):
    _, _, kspace = measurement()
    assert message in error(tmp_path, **{"coils": "keep", **save(tmp_path, "npy", kspace.numpy()), **options})


def test_magnitudes_and_images_of_no_coil_have_no_k_space_to_keep(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((2, 4, 16, 16)))
    assert "has float64 images; coils=keep needs k-space or complex" in error(tmp_path, coils="keep", axes="NKHW")
    np.save(tmp_path / "scan.npy", complex_normal(2, 16, 16).numpy())
    assert "complex64 images without an axis of coils, K" in error(tmp_path, coils="keep", axes="NHW", domain="image")


def test_without_sigpy_the_way_out_is_named(tmp_path, monkeypatch):
    _, maps, kspace = measurement()
    monkeypatch.setattr(coils, "find_spec", lambda _: None)
    options = {"coils": "keep", **save(tmp_path, "npy", kspace.numpy())}
    assert "pip install 'prom-mri[coils]', or give sensitivities=" in error(tmp_path, **options)


def test_a_real_brain_keeps_eight_coils():
    folder = SHARED / "espirit_brain_8ch"
    if not folder.is_dir():
        pytest.skip(f"no measured coils beside the project ({SHARED.name}/{folder.name})")
    data = load(folder / "full.cfl", coils="keep")
    assert data.kspace.shape == (1, 8, 230, 180) and data.noise == pytest.approx(noise_level(data.kspace))
    magnitude = ifft2c(data.kspace[0]).abs().square().sum(0).sqrt()
    seen = data.sensitivities[0].abs().sum(0) > 0
    assert 0.5 < seen.float().mean() < 0.9
    assert ((data.images[0, 0].abs() - magnitude)[seen].norm() / magnitude[seen].norm()) < 0.04


def test_a_small_centre_does_not_cut_off_the_object(tmp_path):
    """Its eigenvalues are small, so that the usual crop would leave a hundredth of this brain."""
    file = SHARED / "espirit_brain_8ch" / "full.cfl"
    if not file.is_file():
        pytest.skip(f"no measured coils beside the project ({SHARED.name}/espirit_brain_8ch)")
    kspace = np.fromfile(file, np.complex64).reshape(8, 180, 230).transpose(0, 2, 1)[:, 75:155, 58:122]
    np.save(tmp_path / "scan.npy", kspace[None])
    whole = np.square(np.abs(kspace)).sum()
    kept = {}
    for calibration in (10, 24):
        data = load(tmp_path / "scan.npy", coils="keep", domain="kspace", axes="NKHW", calibration=calibration)
        kept[calibration] = float(data.images.abs().square().sum()) / whole
        assert ("crop down to 0 in 1 of 1, which more would cut off" in data.source) == (calibration == 10)
    assert kept[10] > 0.97 and kept[24] > 0.99
    strong = fft2c(simulated(8, (80, 64)) * torch.hann_window(80).outer(torch.hann_window(64)))  # does not hide the other
    strong = (3 * np.abs(kspace).max() / strong.abs().max() * strong).numpy()
    np.save(tmp_path / "scan.npy", np.stack([strong, kspace]))
    data = load(tmp_path / "scan.npy", coils="keep", domain="kspace", axes="NKHW", calibration=10)
    assert float(data.images[1].abs().square().sum()) / whole > 0.97
    asked = load(tmp_path / "scan.npy", coils="keep", domain="kspace", axes="NKHW", calibration=10, crop=0.94)
    assert float(asked.images[1].abs().square().sum()) / whole < 0.5 and asked.source.endswith("crop 0.94")


@pytest.mark.parametrize("coils", [2, 4, 8])
@pytest.mark.parametrize("calibration", [8, 12, 16])
def test_slices_of_air_have_no_object(tmp_path, coils, calibration):
    noise = torch.randn(coils, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    maps, kspace = simulated(coils, (64, 64)), 0.05 * noise
    image = torch.hann_window(64).outer(torch.hann_window(64)).square()
    np.save(tmp_path / "scan.npy", torch.stack([fft2c(maps * image) * 10 + kspace, kspace]).numpy())
    data = load(tmp_path / "scan.npy", coils="keep", domain="kspace", axes="NKHW", calibration=calibration, skip_constant=True)
    assert len(data) == 1 or torch.equal(data.sensitivities[1] != 0, estimated(kspace, calibration) != 0)


@pytest.mark.parametrize("crop", [0.0, 0.95])
def test_noise_is_no_object_that_is_cut_off(tmp_path, crop):
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(64, 64)
    image[28:36, 28:36] = 1
    noise = torch.randn(8, 64, 64, dtype=torch.complex64, generator=generator) / 5
    np.save(tmp_path / "scan.npy", (fft2c(simulated(8, (64, 64)) * image) + noise).numpy()[None])
    data = load(tmp_path / "scan.npy", coils="keep", domain="kspace", axes="NKHW", crop=crop)
    assert "cut off" not in data.source and data.coils == 8


def test_the_noise_of_a_real_scanner_is_that_of_its_background():
    folder = SHARED / "lowfield_055T"
    files = sorted(folder.glob("Supplementary_Figure_5_*.mat")) if folder.is_dir() else []  # of the others air is brighter
    if not files:
        pytest.skip(f"no low-field k-space beside the project ({SHARED.name}/{folder.name})")
    for file in files:
        data = load(file, coils="keep", axes="HWN")
        ends = (slice(12), slice(-12, None))
        air = torch.cat([data.images[..., rows, columns].flatten() for rows in ends for columns in ends])
        assert data.coils == 1 and data.noise == pytest.approx(float(air.abs().square().median() / np.log(2)) ** 0.5, rel=0.12)


def test_emulated_coils_of_a_folder_have_the_noise_that_is_asked_for(tmp_path):
    """Of several channels the first, scaled to 1 by itself, with noise in the k-space that everything is learnt and scored from."""
    generator = np.random.default_rng(0)
    for number in range(6):
        images = generator.random((2, 2, 64, 64))
        images[:, 0] *= 0.1
        np.save(tmp_path / f"scan{number}.npy", images)
    wanted = {"axes": "NCHW", "most": 4, "size": 32, "coils": 4, "root": None}
    clean, noisy, again, test = (
        emulated.by_coils(str(tmp_path), split, noise=level, **wanted)
        for split, level in (("train", 0), *[("train", 0.05)] * 2, ("test", 0.05))
    )
    assert float(clean.images.abs().max()) == pytest.approx(1, abs=1e-6) and torch.equal(noisy.kspace, again.kspace)
    added = noisy.samples(range(4)) - clean.samples(range(4))
    assert float(added.abs().square().mean().sqrt()) == pytest.approx(0.05, rel=0.05) and "noise 0.05" in noisy.source
    others = test.samples([0]) - emulated.by_coils(str(tmp_path), "test", noise=0, **wanted).samples([0])
    assert not torch.allclose(others[0], added[0], atol=0.01)  # no noise is in both splits


def test_pixels_of_cropped_k_space_are_larger():
    data = SliceDataset("demo", "train", torch.rand(2, 1, 64, 48), ["a", "b"], [0, 0], spacing=[(1.0, 2.0), None])
    assert data.cropped(16).spacing == [(4.0, 6.0), None]


def test_given_sensitivities_are_cut_as_their_images_are(tmp_path):
    images, maps, kspace = measurement()
    np.save(tmp_path / "maps.npy", maps.numpy())
    (tmp_path / "scans").mkdir()
    save(tmp_path / "scans", "npy", kspace.numpy())
    options = {"axes": "NKHW", "domain": "kspace", "sensitivities": tmp_path / "maps.npy", "coils": "keep", "noise": SIGMA}
    small = load(tmp_path / "scans", **options, size=(24, 20))
    assert torch.equal(small.sensitivities, maps[:, 8:32, 6:26])
    assert (small.images - images[..., 8:32, 6:26]).abs().square().mean().sqrt() == pytest.approx(SIGMA, rel=0.1)
    assert "sensitivities of a file cannot be resized" in error(tmp_path / "scans", **options, size=24, size_in="kspace")


def test_maps_of_matlab_have_rows_first_and_coils_last(tmp_path):
    maps = simulated(4, (30, 40))
    scipy.io.savemat(tmp_path / "maps.mat", {"maps": maps.numpy().transpose(1, 2, 0)})
    plain = {"subjects": 1, "slices": [60], "size": 32, "phase": True}
    expected = prom.load("mni_brain", **plain).with_coils(maps)
    assert torch.equal(prom.load("mni_brain", **plain, maps=tmp_path / "maps.mat").sensitivities, expected.sensitivities)
