"""DICOM as scanners and archives write it: names, patients, series, magnitude and phase, frames, compression; pydicom is the oracle."""

import base64
import math
import struct
import zlib

import numpy as np
import pydicom
import pytest
import torch
from conftest import error, load
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

import prom
from prom import InputError
from prom.datasets import dicom, folder
from prom.show import inspection

RNG = np.random.default_rng(2)
SIEMENS_PHASE = {"RescaleSlope": 2, "RescaleIntercept": -4096}


def pixels(*shape, high=900, dtype=np.uint16):
    return RNG.integers(0, high, shape or (8, 6)).astype(dtype)


def write(path, array, instance=1, patient="P1", kind=MRImageStorage, **more):
    """A DICOM file, with any more attributes; returns the array as float32."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.SeriesNumber, data.InstanceNumber, data.SeriesInstanceUID = patient, 1, instance, "1.2.3"
    data.Rows, data.Columns = array.shape[-2:]
    if array.ndim == 3:
        data.NumberOfFrames = len(array)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * array.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsAllocated - 1, int(array.dtype.kind == "i")
    data.PixelData = array.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return torch.from_numpy(array.astype(np.float32))


# ------------------------------------------------------------------------------------------------------------------------------ by content


@pytest.mark.parametrize("ending", [".IMA", ".ima", ".img", ".MRDCM", ".0001", "", ".v2", ".bak"])
def test_recognised_by_content_beside_other_names(tmp_path, ending):
    expected = [write(tmp_path / f"P1.MR.HEAD.0004.{i}{ending if i else '.dcm'}", pixels(), i) for i in range(3)]
    (tmp_path / "notes.txt").write_text("no image")
    data = load(tmp_path)
    assert torch.equal(data.images[:, 0], torch.stack(expected)) and set(data.subjects) == {"P1"}
    assert torch.equal(load(tmp_path / f"P1.MR.HEAD.0004.1{ending}").images[0, 0], expected[1])


def test_what_is_no_image_is_left_out_and_counted(tmp_path):
    expected = write(tmp_path / "a.dcm", pixels())
    for number, kind in enumerate(("88.11", "88.67", "11.1", "7")):
        write(tmp_path / f"other{number}", pixels(4, 4), kind=f"1.2.840.10008.5.1.4.1.1.{kind}")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    data = load(tmp_path)
    assert torch.equal(data.images[0, 0], expected) and len(data) == 1
    for what in ("1 DICOMDIR", "2 structured report", "1 presentation state", "1 secondary capture"):
        assert what in data.source
    (tmp_path / "a.dcm").unlink()
    assert "1 secondary capture" in (message := error(tmp_path)) and "no file of a supported type among 5" in message
    write(tmp_path / "a.dcm", pixels(), kind=SecondaryCaptureImageStorage)
    assert "2 secondary capture" in error(tmp_path)


# -------------------------------------------------------------------------------------------------------------------------------- patients


@pytest.mark.parametrize("patient", ["", "Anonymous", "XXXX", "000000"])
def test_anonymised_patients_are_studies(tmp_path, patient):
    for case in range(6):
        for i in range(2):
            write(tmp_path / f"{case}_{i}.dcm", pixels(), i, patient, StudyInstanceUID=f"1.2.{case}", SeriesInstanceUID=f"1.2.{case}.1")
    data = load(tmp_path)
    assert sorted(set(data.subjects)) == [f"1.2.{case}" for case in range(6)] and "subjects by StudyInstanceUID" in data.source
    assert len(load(tmp_path, "test")) == 2 * 1 and "1.2.1" in load(tmp_path, "test").subjects


@pytest.mark.parametrize("patient", ["", "Anonymous"])
def test_anonymised_patients_without_studies_are_sub_folders(tmp_path, patient):
    for case in range(6):
        for i in range(2):
            write(tmp_path / f"case{case}" / f"{i}.dcm", pixels(), i, patient, SeriesInstanceUID=f"1.2.{case}", StudyInstanceUID="1.2")
    data = load(tmp_path)
    assert sorted(set(data.subjects)) == [f"case{case}" for case in range(6)] and "subjects by sub-folder" in data.source


@pytest.mark.parametrize("place", ["{}_{}.dcm", "visit{}/{}.dcm", "case{}/{}.dcm"])
@pytest.mark.parametrize("study", ["1.2.{}", "1.2"])
def test_one_patientid_for_several_patients_or_for_several_studies_of_one_is_asked(tmp_path, place, study):
    """A PatientID that is the same everywhere is that of one patient, or that of a project: either guess may be wrong."""
    for case in range(6):
        for i in range(2):
            uids = {"SeriesInstanceUID": f"1.3.{case}", "StudyInstanceUID": study.format(case)}
            write(tmp_path / place.format(case, i), pixels(), i, "20231", **uids)
    assert set(load(tmp_path, patient="id").subjects) == {"20231"}
    if study == "1.2" and "/" not in place:
        assert set(load(tmp_path).subjects) == {"20231"}
        return
    assert "PatientID '20231'" in (message := error(tmp_path)) and all(f"patient={how}" in message for how in ("id", "study", "1"))
    by = {"study": {study.format(case) for case in range(6)}}
    if "/" in place:
        by["1"] = by["folder"] = {place.format(case, 0).split("/")[0] for case in range(6)}
    for how, expected in by.items():
        assert set(load(tmp_path, patient=how).subjects) == expected


def test_visits_without_a_patientid_are_asked(tmp_path):
    for case in range(3):
        for visit in range(2):
            uids = {"StudyInstanceUID": f"1.2.{case}.{visit}", "SeriesInstanceUID": f"1.2.{case}.{visit}.1"}
            write(tmp_path / f"pat{case}" / f"visit{visit}" / "0.dcm", pixels(), 0, "", **uids)
    assert "pat0 has DICOM files of 2 studies without a PatientID" in error(tmp_path)
    assert set(load(tmp_path, patient="1").subjects) == {"pat0", "pat1", "pat2"}
    assert len(set(load(tmp_path, patient="folder").subjects)) == 6
    one = tmp_path / "pat1"
    assert set(load(one).subjects) == {"1.2.1.0", "1.2.1.1"}  # the StudyInstanceUIDs differ and nothing says that the patient does not
    for visit in range(2):
        write(one / f"visit{visit}" / "0.dcm", pixels(), 0, "", StudyInstanceUID="1.2", SeriesInstanceUID=f"1.2.{visit}")
    assert "sub-folders of sessions" in error(one)


def test_series_in_folders_of_their_own_without_any_identity_are_asked(tmp_path):
    for number, name in enumerate(("T1", "T2")):
        write(tmp_path / f"S{number}" / "a.dcm", pixels(), 0, "", SeriesDescription=name, SeriesInstanceUID=f"1.2.{number}")
    assert "their series differ" in error(tmp_path)
    assert set(load(tmp_path, patient="1", series="T1").subjects) == {"S0"}


@pytest.mark.parametrize("how", ["id", "study", "file", "name", "folder", "2", "0", "x"])
def test_a_choice_that_does_not_fit_is_refused(tmp_path, how):
    write(tmp_path / "a.dcm", pixels(), 0, "", StudyInstanceUID="")
    words = {"id": "has no PatientID", "study": "has no StudyInstanceUID"}
    with pytest.raises(InputError, match=words.get(how, f"patient.*{how}")):
        load(tmp_path, patient=how)


def test_anonymised_patients_with_a_folder_for_each_series_and_in_splits(tmp_path):
    for split in ("train", "test"):
        for case in range(2):
            for number, name in enumerate(("T1", "T2")):
                place = tmp_path / split / f"case{case}" / name / "a.dcm"
                uid = f"1.2.{split == 'train':d}.{case}.{number}"
                write(place, pixels(), 0, "", SeriesDescription=name, SeriesNumber=number, SeriesInstanceUID=uid)
    assert sorted(load(tmp_path, "train", series="T2").subjects) == ["train/case0", "train/case1"]
    assert len(load(tmp_path, "all", series="t1")) == 4


def test_a_patient_with_a_folder_for_each_series_stays_one(tmp_path):
    """A split through a patient would have the same head in training and test."""
    for number, name in enumerate(("T1", "T2")):
        write(tmp_path / name / "a.dcm", pixels(), 0, "P1", SeriesDescription=name, SeriesNumber=number, SeriesInstanceUID=f"1.2.{number}")
    assert "'P1' has 2 DICOM series" in error(tmp_path)
    data = load(tmp_path, series="T1")
    assert data.subjects == ["P1"] and "subjects by" not in data.source


def test_known_patients_with_several_studies_stay_patients(tmp_path):
    for patient in ("P1", "P2"):
        for study in range(2):
            write(tmp_path / f"{patient}_{study}.dcm", pixels(), study, patient, StudyInstanceUID=f"1.2.{patient[1]}.{study}")
    data = load(tmp_path)
    assert list(data.subjects) == ["P1", "P1", "P2", "P2"] and "subjects by" not in data.source


# ---------------------------------------------------------------------------------------------------------------------------------- series


def three_series(root):
    expected = {}
    for patient in range(3):
        for number, (name, size) in enumerate((("localizer", 10), ("T1", 8), ("T2 tse", 8)), 1):
            uid = f"1.2.{patient}.{number}"
            more = {"SeriesNumber": number, "SeriesInstanceUID": uid, "SeriesDescription": name}
            place = root / f"P{patient}" / f"S{number}"
            stack = [write(place / f"{i}.IMA", pixels(size, size), i, f"P{patient}", **more) for i in range(2)]
            expected.setdefault(number, []).extend(stack)
            expected[uid] = stack
    return {key: torch.stack(stack) for key, stack in expected.items()}


def test_series_by_description_number_or_uid(tmp_path):
    expected = three_series(tmp_path)
    message = error(tmp_path)
    for part in ("1 'localizer' 10 x 10 (2 files)", "2 'T1' 8 x 8 (2 files)", "3 'T2 tse' 8 x 8 (2 files)", "series="):
        assert part in message
    for series, key in (("t2 TSE", 3), ("T1", 2), (2, 2), ("2", 2), ("localizer", 1)):
        data = load(tmp_path, series=series)
        assert torch.equal(data.images[:, 0], expected[key]) and list(data.subjects) == ["P0", "P0", "P1", "P1", "P2", "P2"]
    data = load(tmp_path, series="1.2.1.3")
    assert torch.equal(data.images[:, 0], expected["1.2.1.3"]) and "left out: 2 subjects" in data.source
    assert "has no DICOM series 'FLAIR'" in (message := error(tmp_path, series="FLAIR")) and "'T2 tse' 8 x 8 (6 files)" in message
    assert "series 'T'" in error(tmp_path, series="T")


def test_series_that_fit_but_differ_in_size(tmp_path):
    for number, size in ((1, 8), (2, 10)):
        write(tmp_path / f"{number}", pixels(size, size), SeriesNumber=number, SeriesInstanceUID=f"1.{number}", SeriesDescription="T1")
    message = error(tmp_path, series="T1")
    assert "2 DICOM series 'T1'" in message and "1 'T1' 8 x 8 (1 file), 2 'T1' 10 x 10 (1 file)" in message
    assert load(tmp_path, series="2").shape == (10, 10)


def test_series_without_description_are_told_apart_by_their_times(tmp_path):
    for number, echo in ((1, 10), (2, 10), (3, 80)):
        write(tmp_path / f"{number}", pixels(), SeriesNumber=number, SeriesInstanceUID=f"1.{number}", EchoTime=echo)
    assert "3 DICOM series" in error(tmp_path)
    (tmp_path / "3").unlink()
    assert len(load(tmp_path)) == 2  # alike in all that the headers say


@pytest.mark.parametrize(
    ("matrix", "field", "spacing", "told"),
    [
        ([0, 5, 4, 0], None, None, True),
        ([4, 0, 0, 6], None, None, True),
        ([0, 6, 8, 0], None, None, False),
        (None, None, None, False),
        # lines over a share of the readout's 6 pixels: over 133 % 8 pixels of the same size, over 67 % 8 of half of it
        ([0, 6, 4, 0], 100 * 8 / 6, None, True),
        ([0, 6, 8, 0], 100 * 8 / 6, None, False),
        ([0, 6, 4, 0], 100 * 4 / 6, [0.5, 1.0], True),
        ([4, 0, 0, 12], 150, None, True),  # columns over 12 pixels, of which 6 are stored
        ([0, 6, 8, 0], 100 * 8 / 6, [1.0], False),  # a damaged spacing says nothing
        ([0, 6, 4, 0], 100 * 4 / 6, [1.0, 1.0], False),  # stored are 133 %, which has 8 lines' worth
    ],
)
def test_what_the_scanner_interpolated_is_told(tmp_path, matrix, field, spacing, told):
    """Of 8 x 6 pixels, whose k-space is empty beyond what was measured."""
    tags = {"AcquisitionMatrix": matrix, "PercentPhaseFieldOfView": field, "PixelSpacing": spacing}
    write(tmp_path / "a.dcm", pixels(), **{tag: value for tag, value in tags.items() if value is not None})
    _, notes = dicom.organise(tmp_path, [tmp_path / "a.dcm"])
    assert [line.split()[0] for line in inspection.report(inspection.inspect(tmp_path)).splitlines() if "measured to" in line] == [
        "note"
    ] * told
    assert [("4 x 5" in note or "4 x 6" in note) and "measured to 8 x 6" in note for note in notes] == [True] * told


def test_what_goes_by_the_names_of_files_is_refused(tmp_path):
    write(tmp_path / "a.dcm", pixels())
    for option in ({"labels": "only"}, {"contrast": "flair"}, {"channels": "flair,t1"}):
        assert f"{next(iter(option))} " in error(tmp_path, **option) and "those of DICOM say nothing" in error(tmp_path, **option)


def test_series_of_no_dicom(tmp_path):
    np.save(tmp_path / "a.npy", pixels())
    assert "series 'T1'" in error(tmp_path, series="T1") and "part 'complex'" in error(tmp_path, part="complex")
    assert "did you mean 'magnitude'" in error(tmp_path, part="magnitud")


def test_mosaic(tmp_path):
    write(tmp_path / "a.IMA", pixels(24, 24), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    assert "a.IMA: is a mosaic" in (message := error(tmp_path)) and "dcm2niix" in message
    write(tmp_path / "b.IMA", pixels(), SeriesNumber=2, SeriesInstanceUID="1.3", SeriesDescription="T1")
    assert "mosaic 24 x 24" in error(tmp_path) and len(load(tmp_path, series="T1")) == 1


# --------------------------------------------------------------------------------------------------------------------- magnitude and phase


def image_type(part):
    return ["ORIGINAL", "PRIMARY", part, "ND"]


@pytest.mark.parametrize("same_series", [True, False])
def test_magnitude_and_phase(tmp_path, same_series):
    magnitude, phase = pixels(3, 8, 6), pixels(3, 8, 6, high=4096)
    for i in range(3):
        place = [0, 0, 4.0 * i]
        write(tmp_path / f"m{i}", magnitude[i], i, ImageType=image_type("M"), ImagePositionPatient=place)
        series = {} if same_series else {"SeriesNumber": 2, "SeriesInstanceUID": "1.2.4"}
        more = {**series, **SIEMENS_PHASE, "ImagePositionPatient": place, "BitsStored": 12, "HighBit": 11}
        write(tmp_path / f"p{i}", phase[i], i + 3, ImageType=image_type("P"), **more)
    message = error(tmp_path)
    assert "magnitude, phase" in message and "part='magnitude' or part='complex'" in message
    data = load(tmp_path, part="magnitude")
    assert np.array_equal(data.images[:, 0], magnitude) and "3 DICOM files of other parts" in data.source
    expected = magnitude * np.exp(1j * math.pi / 4096 * (2 * phase.astype(float) - 4096))
    data = load(tmp_path, part="complex")
    assert data.images.dtype == torch.complex64 and np.allclose(data.images[:, 0], expected, rtol=1e-5, atol=1e-3)
    assert {path.name for path in folder.plan(tmp_path, "all", part="complex").files} == {f"{kind}{i}" for kind in "mp" for i in range(3)}


def test_magnitude_and_phase_paired_by_number_only_where_the_numbers_agree(tmp_path):
    for i in range(2):
        write(tmp_path / f"m{i}", pixels(), i, ImageType=image_type("M"))
        write(tmp_path / f"p{i}", pixels(), i, ImageType=image_type("P"), SeriesNumber=2, SeriesInstanceUID="1.2.4", **SIEMENS_PHASE)
    assert len(load(tmp_path, part="complex")) == 2
    write(tmp_path / "p1", pixels(), 7, ImageType=image_type("P"), SeriesNumber=2, SeriesInstanceUID="1.2.4", **SIEMENS_PHASE)
    assert "belong together" in error(tmp_path, part="complex")
    (tmp_path / "p1").unlink()
    assert "2 magnitude and 1 phase" in error(tmp_path, part="complex")


@pytest.mark.parametrize(
    "stored, more, radians",
    [
        (pixels(high=4096), SIEMENS_PHASE, lambda v: (2 * v - 4096) * math.pi / 4096),
        (np.linspace(0, 4095, 48).reshape(8, 6).astype(np.uint16), {}, lambda v: (v - 2048) * math.pi / 2048),
        (pixels(high=4096), {"RescaleSlope": math.pi / 2047.5, "RescaleIntercept": -math.pi}, lambda v: v * math.pi / 2047.5 - math.pi),
        (pixels(high=4096), {"RescaleSlope": 1.534, "RescaleIntercept": -3141}, lambda v: (v * 1.534 - 3141) / 1000),
        (pixels(high=900), {}, None),
        (pixels(high=6000) + 5000, SIEMENS_PHASE, None),
        (pixels(high=9000).astype(np.int16) - 4500, {"PixelRepresentation": 1}, None),
    ],
)
def test_phase_is_read_where_its_unit_is_certain(tmp_path, stored, more, radians):
    magnitude = write(tmp_path / "m", pixels(), ImageType=image_type("M")).numpy()
    more = {name: f"{value:.10g}" if "Rescale" in name else value for name, value in more.items()}
    write(tmp_path / "p", stored, ImageType=image_type("P"), **more)
    if radians is None:
        assert "radians is unclear" in error(tmp_path, part="complex")
    else:
        expected = magnitude * np.exp(1j * radians(stored.astype(float)))
        assert np.allclose(load(tmp_path, part="complex").images[0, 0], expected, rtol=1e-4, atol=1e-2)


def test_real_and_imaginary_and_what_cannot_be_joined(tmp_path):
    real, imaginary = pixels(dtype=np.int16) - 400, pixels(dtype=np.int16) - 400
    write(tmp_path / "r", real, ImageType=image_type("R"))
    assert np.array_equal(load(tmp_path).images[0, 0], real)
    write(tmp_path / "i", imaginary, ImageType=image_type("I"))
    assert "part='complex'" in error(tmp_path) and "part" in error(tmp_path, part="magnitude")
    assert np.array_equal(load(tmp_path, part="complex").images[0, 0], real + 1j * imaginary)
    (tmp_path / "r").unlink()
    assert "unsuitable parts (imaginary)" in error(tmp_path)
    write(tmp_path / "i", imaginary, ImageType=image_type("P"))
    assert "phase" in error(tmp_path) and "phase" in error(tmp_path, part="complex")
    write(tmp_path / "i", imaginary, ImageType=image_type("M"))
    assert "part='complex' needs" in error(tmp_path, part="complex")
    write(tmp_path / "i", imaginary, ImageType=["ORIGINAL", "PRIMARY", "M_FFE", "P"])
    assert "magnitude or phase" in error(tmp_path)


# --------------------------------------------------------------------------------------------------------------------------------- frames


def frame(position=None, stack=None, place=None, echo=None, part=None):
    group = Dataset()

    def sequence(name, **values):
        item = Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(group, name, [item])

    if position is not None:
        sequence("PlanePositionSequence", ImagePositionPatient=[0, 0, position])
    sequence("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    sequence("FrameContentSequence", **{"StackID": stack} if stack else {}, **{"InStackPositionNumber": place} if place else {})
    if echo is not None:
        sequence("MREchoSequence", EffectiveEchoTime=echo)
    if part is not None:
        sequence("MRImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY"], ComplexImageComponent=part)
    sequence("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=-4096, RescaleType="US")
    return group


def write_frames(path, array, groups, **more):
    return write(path, array, kind=EnhancedMRImageStorage, PerFrameFunctionalGroupsSequence=groups, **more)


@pytest.mark.parametrize("where", ["position", "place"])
def test_frames_come_by_position(tmp_path, where):
    array, order = pixels(4, 8, 6), (3, 1, 4, 2)
    write_frames(tmp_path / "IM_0001", array, [frame(**{where: at}) for at in order])
    assert np.array_equal(load(tmp_path).images[:, 0], 2 * array[[1, 3, 0, 2]].astype(np.float32) - 4096)


def test_stacks_go_by_position_and_are_even(tmp_path):
    """Of a volume, and of a grid: not in the order of their numbers, in which slices are often measured interleaved."""
    array = pixels(6, 10, 8)
    for instance, place in enumerate((0, 2, 4, 1, 3, 5), 1):
        for patient in ("P1", "P2"):
            head = {"ImagePositionPatient": [0, 0, place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            write(tmp_path / "files" / f"{patient}_{instance}", array[place], instance, patient, **head)
    expected = torch.from_numpy(array.astype(np.float32))
    assert all(torch.equal(volume[0], expected) for volume in prom.load(tmp_path / "files", "all", grid=True).images)
    for place in (7, 5.01):
        gap = [0, 1, 2, 3, 4, place]
        write_frames(tmp_path / f"{place}" / "a", array, [frame(at) for at in gap])
        asked = {"grid": {"grid": True}, "volume": {"volume": True, "readout": 1}}
        for options in asked.values():
            if place == 7:
                with pytest.raises(InputError, match="1 to 3 mm apart"):
                    prom.load(tmp_path / f"{place}", "all", **options)
            else:
                assert prom.load(tmp_path / f"{place}", "all", **options).images.numel() == array.size


@pytest.mark.parametrize(
    "groups, what",
    [
        ([frame(1, "1"), frame(2, "2")], "stacks"),
        ([frame(1, echo=5), frame(2, echo=10)], "echoes"),
        ([frame(1), frame(1)], "one position"),
        ([frame(1), frame()], "one position"),
        ([frame(1, part="MAGNITUDE"), frame(1, part="PHASE")], "part='magnitude' or part='complex'"),
        ([frame(1, part="MAGNITUDE"), frame(2, part="PHASE")], "part='magnitude' or part='complex'"),
        ([frame(1, part="MIXED"), frame(2, part="MIXED")], "magnitude or phase"),
    ],
)
def test_frames_that_are_no_stack(tmp_path, groups, what):
    write_frames(tmp_path / "a.dcm", pixels(2, 8, 6), groups)
    assert what in (message := error(tmp_path)) and "a.dcm" in message


@pytest.mark.parametrize("stated", [{}, {"ComplexImageComponent": "MIXED"}])
def test_magnitude_and_phase_frames(tmp_path, stated):
    array = pixels(4, 8, 6, high=4096)
    write_frames(tmp_path / "a", array, [frame(at, part=part) for part in ("PHASE", "MAGNITUDE") for at in (2, 1)], **stated)
    scaled = 2 * array.astype(float) - 4096
    assert np.array_equal(load(tmp_path, part="magnitude").images[:, 0], scaled[[3, 2]])
    expected = scaled[[3, 2]] * np.exp(1j * np.pi / 4096 * scaled[[1, 0]])
    assert np.allclose(load(tmp_path, part="complex").images[:, 0], expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "PALETTE COLOR"])
def test_values_that_are_not_intensities(tmp_path, photometric):
    write(tmp_path / "a.dcm", pixels(), PhotometricInterpretation=photometric)
    assert photometric in error(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------------- compression


def jpeg_lossless(array):
    """JPEG lossless, first-order prediction, of (H, W) uint16 (ITU T.81, annex H); no library here writes it."""
    values = array.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 2**15
    differences = (values - predicted + 2**15) % 2**16 - 2**15
    bits = ""
    for difference in differences.ravel():
        size = 16 if difference == -(2**15) else int(abs(difference)).bit_length()
        bits += f"{size:05b}"  # 17 categories, each with a code of 5 bits
        if 0 < size < 16:
            bits += f"{difference if difference > 0 else difference + 2**size - 1:0{size}b}"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    table = b"\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    frame = struct.pack(">BHHB3B", 16, *array.shape, 1, 1, 0x11, 0)
    segments = ((0xC3, frame), (0xC4, table), (0xDA, b"\x01\x01\0\x01\0\0"))
    return b"\xff\xd8" + b"".join(struct.pack(">BBH", 255, kind, len(body) + 2) + body for kind, body in segments) + scan + b"\xff\xd9"


def compress(path, syntax):
    data = pydicom.dcmread(path)
    if syntax == RLELossless:
        data.compress(syntax)
    elif syntax == JPEG2000Lossless:
        data.compress(syntax, encoding_plugin="pylibjpeg")
    elif syntax == DeflatedExplicitVRLittleEndian:
        data.file_meta.TransferSyntaxUID = syntax
    else:  # nothing here can write it
        data.PixelData = encapsulate([b"\xff\xd8" + bytes(100) + b"\xff\xd9"])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_compressed_pixels_are_the_same(tmp_path, syntax):
    expected = write(tmp_path / "a", pixels(32, 32, high=4096), BitsStored=12, HighBit=11)
    compress(tmp_path / "a", syntax)
    assert pydicom.dcmread(tmp_path / "a").file_meta.TransferSyntaxUID == syntax
    assert torch.equal(load(tmp_path).images[0, 0], expected)


@pytest.mark.parametrize("high", [2, 4096, 65536])
def test_jpeg_lossless_pixels_are_the_same(tmp_path, high):
    expected = write(tmp_path / "a", pixels(32, 24, high=high))
    data = pydicom.dcmread(tmp_path / "a")
    data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate([jpeg_lossless(data.pixel_array)]), JPEGLosslessSV1
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a")
    assert torch.equal(load(tmp_path).images[0, 0], expected)


# A codestream of HTJ2K (ITU T.814), written bit by bit for this test since no library here writes it: 8 x 8 numbers of 12 bits, all
# significant, without wavelets, lossless, in code-blocks of 2 rows.
HTJ2K_FRAME = (
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABCwEB/1AACAACAAAABf9SAA0BAAABAAAEBEABH/9cAAQgYP+QAAoAAAAAAJsAAf+TwAXQgPVv"
    "4L2fXMAzduhPNbhEk11NRmPyyVv8AACEAMYhADG6AMAFviXo4eqHF3PStz7bY5XDbZdUWM+c8wAAYwNaGQDTOgDABbxVQC6CApwQYpE/kOGloHyEsumvuQAAMYAhDGAL"
    "mgDABdCAeAeb/GmPDVQ0hzPBglTtCJdKPHaWrf8AAIQAxiEANroA/9k="
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000(tmp_path, syntax):
    rows, columns = np.mgrid[:8, :8]
    expected = write(tmp_path / "a", ((500 * rows + 61 * columns + 5) % 4096).astype(np.uint16), BitsStored=12, HighBit=11)
    data = pydicom.dcmread(tmp_path / "a")
    data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate([base64.b64decode(HTJ2K_FRAME)]), syntax
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a")
    assert torch.equal(load(tmp_path).images[0, 0], expected)


@pytest.mark.parametrize(
    "name", ["MR_small_jpeg_ls_lossless", "MR_small_jp2klossless", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit"]
)
def test_real_image_in_every_compression(name):
    plain, other = (pydicom.data.get_testdata_file(f"{file}.dcm", download=False) for file in ("MR_small", name))
    if plain is None or other is None:
        pytest.skip("this pydicom comes without its test files")
    assert np.array_equal(load(other).images[0, 0], pydicom.dcmread(plain).pixel_array)


@pytest.mark.parametrize(
    "syntax, name",
    [
        (JPEGLosslessSV1, "JPEG Lossless"),
        (JPEGLSLossless, "JPEG-LS"),
        (JPEG2000Lossless, "JPEG 2000"),
        (HTJ2K, "High-Throughput JPEG 2000"),
    ],
)
def test_a_missing_decoder_is_no_damage(tmp_path, syntax, name, monkeypatch):
    write(tmp_path / "a.dcm", pixels(32, 32))
    compress(tmp_path / "a.dcm", syntax)
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(syntax)), "is_available", False)
    message = error(tmp_path)
    assert name in message and "no decoder is installed; pip install 'prom-mri[dicom]'" in message and "damaged" not in message


def test_damaged_and_unsupported_compressed_pixels(tmp_path):
    write(tmp_path / "a.dcm", pixels(32, 32))
    compress(tmp_path / "a.dcm", JPEGLosslessSV1)
    assert "a.dcm: cannot be read as DICOM" in error(tmp_path)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    data.save_as(tmp_path / "a.dcm")
    assert "MPEG2" in (message := error(tmp_path)) and "not supported" in message


def test_deflated_file_that_expands_without_end(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    write(path, np.zeros((512, 512), np.uint16))
    compress(path, DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(dicom, "INFLATED", 2**18)
    assert "expands to more than" in error(tmp_path)
    content = path.read_bytes()
    begin = 144 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
    assert zlib.decompress(content[begin:], -15)  # what the limit counts


def test_compressed_pixels_larger_than_declared_are_not_decoded(tmp_path):
    write(tmp_path / "a.dcm", pixels(32, 32, high=4096))
    compress(tmp_path / "a.dcm", JPEG2000Lossless)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    content = data.PixelData
    at = content.index(b"\xff\x4f\xff\x51") + 8
    data.PixelData = content[:at] + struct.pack(">2I", 60000, 50000) + content[at + 8 :]
    data.save_as(tmp_path / "a.dcm")
    assert "compressed pixels are 50000 x 60000, but it declares 32 x 32" in error(tmp_path)
    jpeg = b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xc3\0\x0b\x0c" + struct.pack(">2H", 40000, 30000) + b"\x01\x01\x11\0" + b"\xff\xd9"
    data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate([jpeg]), JPEGLosslessSV1
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm")
    assert "compressed pixels are 40000 x 30000" in error(tmp_path)


def test_sagittal_stacks_go_by_position_too(tmp_path):
    """Along the normal of the slices, which points to -x here."""
    array = pixels(6, 10, 8)
    across = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    for instance, place in enumerate((0, 2, 4, 1, 3, 5), 1):
        write(tmp_path / f"{instance}", array[place], instance, ImagePositionPatient=[place, 0, 0], **across)
    assert torch.equal(prom.load(tmp_path, "all", grid=True).images[0, 0], torch.from_numpy(array[::-1].astype(np.float32)))


def test_ge_says_in_a_tag_of_its_own_what_is_phase(tmp_path):
    arrays = []
    for number in range(2):
        arrays.append(write(tmp_path / f"{number}", pixels(), 1 + number, Manufacturer="GE MEDICAL SYSTEMS"))
        data = pydicom.dcmread(tmp_path / f"{number}")
        data.add_new((0x0043, 0x102F), "SS", number)
        data.save_as(tmp_path / f"{number}")
    assert "magnitude, phase" in error(tmp_path)
    assert torch.equal(load(tmp_path, part="magnitude").images[0, 0], arrays[0])
