"""Low-field k-space: tiny files of its layout against SciPy and SigPy, and the real ones where they are."""

import numpy as np
import pytest
import scipy.io
import sigpy
import torch
from conftest import SHARED

import prom
from prom import InputError
from prom.datasets import lowfield
from prom.kspace.coils import noise_level

SIZES = {"FSE": (32, 28), "FLAIR": (32, 28), "GRE": (32, 40)}


def write(path, contrast="FSE", seed=0, array="kspace"):
    """Four slices of white k-space with more at the centre, as MATLAB's doubles; returned as (slices, H, W)."""
    rng = np.random.default_rng(seed)
    shape = (*SIZES[contrast], 4)
    kspace = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    kspace[shape[0] // 2, shape[1] // 2] += 1000
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {array: kspace})
    return kspace.transpose(2, 0, 1)


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        prom.load("lowfield", *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_noise_and_subjects_of_files_laid_out_as_the_archive(tmp_path):
    whole = write(tmp_path / "Figure 7A" / "0.055T" / "0.055T_FSE_kspace_postEMI.mat")
    long = write(tmp_path / "Figure 7A" / "0.055T" / "0.055T_GRE_kspace_postEMI.mat", "GRE", seed=1)
    write(tmp_path / "Supplementary Figure 6B" / "0.055T" / "0.055T_FSE_kspace_postEMI.mat", seed=2)
    write(tmp_path / "Figure_9A_0.055T_0.055T_FSE_kspace_postEMI.mat")  # nobody known
    write(tmp_path / "Supplementary_Figure_5_Human_0.055T_Human_FISP_FA50_kspace.mat")
    assert lowfield.survey(tmp_path)["found"] == {"train": {"subjects": 1, "volumes": 1}, "test": {"subjects": 1, "volumes": 2}}
    assert len(lowfield.survey(tmp_path)["missing"]) == 18 - 3

    data = prom.load("lowfield", "test", tmp_path)
    assert data.subjects == ["Figure7A"] * 4 and data.slices == [0, 1, 2, 3] and data.coils == 1
    assert np.allclose(data.images[:, 0], sigpy.ifft(whole, axes=(-2, -1)), atol=1e-3)
    assert np.allclose(data.kspace[:, 0], whole, rtol=1e-6) and data.noise == pytest.approx(np.sqrt(2), rel=0.15)

    both = prom.load("lowfield", "test", tmp_path, contrast="FSE,GRE", size=(16, 20))
    assert both.shape == (16, 20) and both.slices == list(range(8))
    assert np.allclose(both.kspace[4:, 0], long[:, 8:24, 10:30] * np.sqrt(16 * 20 / (32 * 40)), rtol=1e-5)
    cut = [noise_level(torch.tensor(one)[:, None]) ** 2 * 320 / one[0].size for one in (whole, long)]
    assert both.noise == pytest.approx(np.sqrt(np.mean(cut)), rel=1e-5)
    assert lowfield.plan("train", tmp_path).sides == {"train": ["SupplementaryFigure6B"], "test": ["Figure7A"]}

    assert "GRE_kspace_postEMI.mat has 32 x 40; give a size" in refused("test", tmp_path, contrast="FSE,GRE")
    assert "Figure7A has no file of FLAIR" in refused("test", tmp_path, contrast="FLAIR")
    assert "contrast 'T1' is not known" in refused("test", tmp_path, contrast="T1")
    assert "names one twice" in refused("test", tmp_path, contrast="FSE,FSE")
    assert "split 'validation' is not known" in refused("validation", tmp_path)
    assert "github.com/bispmri" in refused("train", tmp_path / "Figure 7A")
    write(tmp_path / "Figure_7A_0.055T_0.055T_FSE_kspace_postEMI.mat")
    assert "are both FSE of Figure7A; remove one" in refused("test", tmp_path)


def test_an_array_of_another_name_and_a_larger_size_are_refused(tmp_path):
    write(tmp_path / "Figure_6A_0.055T_0.055T_FSE_kspace_postEMI.mat", array="image")
    assert "kspace" in refused("train", tmp_path)
    write(tmp_path / "Figure_7B_0.055T_0.055T_FSE_kspace_postEMI.mat")
    assert "may only be cut" in refused("test", tmp_path, size=64)


def test_no_patient_is_on_two_sides():
    assert not set(lowfield.SPLITS["train"]) & set(lowfield.SPLITS["test"])


def test_the_real_scanner():
    root = SHARED / lowfield.FOLDER
    if not root.is_dir():
        pytest.skip(f"no low-field k-space beside the project ({SHARED.name}/{lowfield.FOLDER})")
    data = prom.load("lowfield", "test", root, contrast="GRE")
    assert data.shape == (128, 196) and set(data.subjects) == {"Figure7B"} and len(data) == 4
    assert lowfield.survey(root)["found"]["train"] == {"subjects": 4, "volumes": 12}
    outside = data.images[..., :12, :12].abs().square().median().sqrt() / np.sqrt(np.log(2))
    assert data.noise == pytest.approx(float(outside), rel=0.2)  # of GRE, air is no brighter than the receiver's noise
    real = prom.kspace.fourier.fft2c(data.images.abs() + 0j)  # what is Hermitian has no phase of its own
    assert (real - data.kspace).norm() > 0.3 * real.norm()
