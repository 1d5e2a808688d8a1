"""Segmentation objects, read back by highdicom and by pydicom alone; and read onto the grid of a scan."""

import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from dicom_judges import dicom_validator, find_program
from pydicom import dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import generate_uid

from medvol.core.errors import ConfigError, GeometryError, ScanError
from medvol.imaging.dicom.outputs import DicomOutputs
from medvol.imaging.dicom.segmentation import read_dicom_seg, require_dicom, write_dicom_seg
from medvol.imaging.geometry import make_volume, voxel_to_world
from medvol.imaging.reading import read_mask, read_volume

highdicom = pytest.importorskip("highdicom")

SIGNS = list(product((1, -1), repeat=2))
DIRECTIONS = [(r, 0, 0, 0, c, 0) for r, c in SIGNS] + [(0, r, 0, c, 0, 0) for r, c in SIGNS]
"""The eight ways in which rows and columns of an axial slice can run."""
OBLIQUE = [(0.8, 0.6, 0, -0.48, 0.64, 0.6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "scan"


def some_mask(shape: tuple[int, ...]) -> np.ndarray:
    """No symmetry, and two empty slices."""
    mask = np.random.default_rng(0).random(shape) < 0.3
    mask[0] = mask[4] = False
    return mask


def places(mask: np.ndarray, volume) -> set[tuple[float, ...]]:
    """LPS positions of the voxels of a mask."""
    world = voxel_to_world(volume.affine, np.argwhere(mask)[:, ::-1]) * [-1, -1, 1]
    return set(map(tuple, world.round(2).tolist()))


@pytest.mark.parametrize("orientation", DIRECTIONS + OBLIQUE, ids=str)
def test_equal_for_highdicom_and_pydicom(make_series, folder, tmp_path, orientation):
    series = make_series(orientation=orientation)
    volume = read_volume(series.write(folder))
    mask = some_mask(volume.shape)
    path = write_dicom_seg(tmp_path / "mask.dcm", mask, volume, "the liver")

    # pydicom alone: every frame has the geometry of the instance it refers to, and its voxels lie where they should.
    stored = dcmread(path)
    sources = {dataset.SOPInstanceUID: dataset for dataset in series.slices}
    shared = stored.SharedFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == list(orientation)
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [1.5, 2.0]
    assert stored.NumberOfFrames == len(series.slices)
    assert stored.FrameOfReferenceUID == series.frame
    found = set()
    pixels = pixel_array(stored)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for frame, group in zip(pixels, stored.PerFrameFunctionalGroupsSequence, strict=True):
        [reference] = group.DerivationImageSequence[0].SourceImageSequence
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        source = sources.pop(reference.ReferencedSOPInstanceUID)
        assert np.abs(position - np.array(source.ImagePositionPatient, float)).max() < 1e-9
        for j, i in np.argwhere(frame):
            found.add(tuple((position + i * 2.0 * row + j * 1.5 * column).round(2).tolist()))
    assert not sources
    assert found == places(mask, volume)

    # highdicom: the same voxels through its own geometry.
    read = highdicom.seg.segread(path).get_volume()
    assert read.array.sum() == mask.sum()
    world = read.map_indices_to_reference(np.argwhere(read.array[..., 0] if read.array.ndim == 4 else read.array))
    assert set(map(tuple, world.round(2).tolist())) == places(mask, volume)

    # medvol: the same mask.
    assert np.array_equal(read_dicom_seg(path, volume), mask)
    assert np.array_equal(read_mask(path, volume), mask)


def test_an_empty_mask(make_series, folder, tmp_path):
    volume = read_volume(make_series().write(folder))
    path = write_dicom_seg(tmp_path / "mask.dcm", np.zeros(volume.shape, bool), volume, "the spleen")
    assert dcmread(path).NumberOfFrames == 6
    assert not read_dicom_seg(path, volume).any()


def test_of_an_archive_and_of_frames(make_series, folder, tmp_path):
    """A multi-frame file whose frames run from head to feet."""
    series = make_series().each(
        KVP=120, AcquisitionDate="20240101", AcquisitionTime="120000", ContentDate="20240101",
        ContentTime="120000", PatientPosition="HFS", Laterality="",
    )  # fmt: skip
    files = [dcmread(path) for path in sorted(series.write(folder).iterdir(), reverse=True)]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files, generate_uid(), series_number=9, sop_instance_uid=generate_uid(), instance_number=1
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    mask = some_mask(volume.shape)
    path = write_dicom_seg(tmp_path / "mask.dcm", mask, volume, "the liver")
    assert np.array_equal(read_dicom_seg(path, volume), mask)
    assert np.array_equal(read_dicom_seg(path, read_volume(folder)), mask)


def test_what_it_says_of_the_patient(make_series, folder, tmp_path):
    volume = read_volume(make_series().each(InstitutionName="Clinic", PatientComments="secret").write(folder))
    mask = some_mask(volume.shape)
    bare = dcmread(write_dicom_seg(tmp_path / "a.dcm", mask, volume, "q" * 90))
    assert [bare.PatientName, bare.PatientID, bare.AccessionNumber, bare.StudyDate] == ["", "", "", ""]
    assert bare.StudyInstanceUID == volume.source.header.slices[0].study
    assert bare.SegmentSequence[0].SegmentLabel == "q" * 64
    named = dcmread(write_dicom_seg(tmp_path / "b.dcm", mask, volume, "back\\slash 肝臓", True))
    assert [named.PatientName, named.PatientID, named.AccessionNumber] == ["Doe^Jane", "4711", "A1"]
    assert named.SegmentSequence[0].SegmentLabel == "back slash 肝臓"
    assert "InstitutionName" not in named
    assert "PatientComments" not in named


def test_refused(make_series, folder, tmp_path):
    series = make_series()
    volume = read_volume(series.write(folder))
    with pytest.raises(GeometryError, match="must agree"):
        write_dicom_seg(tmp_path / "a.dcm", np.zeros((2, 2, 2), bool), volume, "q")
    bare = make_volume(np.zeros((2, 3, 4), np.float32), (1, 1, 1))
    with pytest.raises(ConfigError, match="this scan is none"):
        write_dicom_seg(tmp_path / "a.dcm", np.zeros((2, 3, 4), bool), bare, "q")
    unlinked = read_volume(make_series().each(SeriesInstanceUID="").write(tmp_path / "unlinked"))
    with pytest.raises(ScanError, match="has no SeriesInstanceUID"):
        write_dicom_seg(tmp_path / "a.dcm", np.zeros(unlinked.shape, bool), unlinked, "q")
    odd = read_volume(make_series().each(SOPClassUID="1.2.3.4").write(tmp_path / "odd"))
    with pytest.raises(ScanError, match="can refer to it"):
        write_dicom_seg(tmp_path / "a.dcm", np.zeros(odd.shape, bool), odd, "q")
    assert not (tmp_path / "a.dcm").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_dicom_seg(tmp_path / "file" / "a.dcm", np.zeros(volume.shape, bool), volume, "q")
    path = write_dicom_seg(tmp_path / "a.dcm", some_mask(volume.shape), volume, "q")
    with pytest.raises(ScanError, match=r"segments \[1\], not \[2\]"):
        read_mask(path, volume, [2])
    with pytest.raises(ScanError, match="grid of the scan"):
        read_mask(path, read_volume(make_series(step=2.0, frame=series.frame).write(tmp_path / "other")))
    with pytest.raises(ScanError, match="no segmentation"):
        read_dicom_seg(folder / "IM000", volume)
    with pytest.raises(ScanError, match="no such file"):
        read_mask(folder / "none.dcm", volume)


def test_an_object_that_may_be_of_another_patient_is_told(make_series, folder, tmp_path, caplog):
    """Two series on one grid by chance; some programs write a frame of reference of their own all the same."""
    volume = read_volume(make_series().write(folder))
    mask = some_mask(volume.shape)
    path = write_dicom_seg(tmp_path / "a.dcm", mask, volume, "q")
    namesake = read_volume(make_series().write(tmp_path / "namesake"))
    np.testing.assert_array_equal(read_mask(path, volume), mask)
    assert "another frame of reference" not in caplog.text
    np.testing.assert_array_equal(read_mask(path, namesake), mask)
    assert f"{path} has another frame of reference than its scan" in caplog.text


ELEMENTS_OF_A_MASK = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


@pytest.mark.parametrize("keyword", ELEMENTS_OF_A_MASK)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_what_a_mask_refers_to_is_asked_for_before_the_work(make_series, folder, tmp_path, keyword, value):
    """Absent or empty, in every slice or in one: named before, and with the same words after."""
    series = make_series()
    series.write(folder)
    for path in sorted(folder.iterdir()):
        dataset = dcmread(path)
        del dataset[keyword]
        if value is not None:
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    volume = read_volume(folder)
    with pytest.raises(ScanError, match=f"has no {keyword}") as before:
        require_dicom(volume, DicomOutputs(("seg",)))
    with pytest.raises(ScanError) as after:
        write_dicom_seg(tmp_path / "mask.dcm", some_mask(volume.shape), volume, "q")
    assert str(before.value) == str(after.value)


def test_a_mask_that_can_be_written_is_not_refused_before(make_series, folder):
    volume = read_volume(make_series().write(folder))
    assert require_dicom(volume, DicomOutputs(("seg",), True)) is None
    with pytest.raises(ConfigError, match="this scan is none"):
        require_dicom(make_volume(np.zeros((2, 3, 4), np.float32), (1, 1, 1)), DicomOutputs(("seg",)))


def test_two_segments(make_series, folder, tmp_path):
    """Two segments made by highdicom, some frames left out; and two that overlap."""
    series = make_series()
    volume = read_volume(series.write(folder))
    files = [dcmread(path) for path in sorted(folder.iterdir())]
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, volume.shape).astype(np.uint8)
    labels[2] = 0
    codes = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    described = [highdicom.seg.SegmentDescription(n, f"s{n}", codes, codes, "MANUAL") for n in (1, 2)]
    for overlapping in (False, True):
        stacked = np.stack([labels == 1, (labels == 2) | (overlapping & (labels == 1))], axis=-1)
        highdicom.seg.Segmentation(
            files, stacked, "BINARY", described, generate_uid(), 7, generate_uid(), 1, "m", "m", "1", "1"
        ).save_as(tmp_path / "labels.dcm")
        assert np.array_equal(read_mask(tmp_path / "labels.dcm", volume, [1]), labels == 1)
        assert np.array_equal(read_mask(tmp_path / "labels.dcm", volume), labels > 0)
        assert np.array_equal(read_mask(tmp_path / "labels.dcm", volume, [2]), stacked[..., 1])


@pytest.mark.real
def test_a_segmentation_made_elsewhere(shared_data):
    """The liver of dcmqi, as object and as NRRD."""
    folder = shared_data / "dcmqi_ct_seg"
    volume = read_volume(folder)
    mask = read_mask(folder / "liver.dcm", volume)
    assert mask.sum() == 107098
    assert np.array_equal(mask, read_mask(folder / "liver_seg.nrrd", volume))


@pytest.mark.real
def test_over_a_real_scan(shared_data, tmp_path):
    folder = shared_data / "dcmqi_ct_seg"
    volume = read_volume(folder)
    mask = read_mask(folder / "liver_seg.nrrd", volume)
    path = write_dicom_seg(tmp_path / "liver.dcm", mask, volume, "the liver")
    theirs, ours = dcmread(folder / "liver.dcm"), dcmread(path)
    where = [
        {
            tuple(round(float(x), 2) for x in group.PlanePositionSequence[0].ImagePositionPatient): frame.tobytes()
            for group, frame in zip(seg.PerFrameFunctionalGroupsSequence, pixel_array(seg), strict=True)
        }
        for seg in (theirs, ours)
    ]
    assert where[0] == where[1]


@pytest.mark.parametrize("orientation", DIRECTIONS, ids=str)
def test_equal_for_dcmqi(make_series, folder, tmp_path, orientation):
    program = find_program("segimage2itkimage")
    volume = read_volume(make_series(orientation=orientation).write(folder))
    mask = some_mask(volume.shape)
    path = write_dicom_seg(tmp_path / "mask.dcm", mask, volume, "the liver")
    arguments = ["--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd"]
    subprocess.run([program, *arguments], capture_output=True, check=True)
    [written] = tmp_path.glob("*.nrrd")
    assert np.array_equal(read_mask(written, volume), mask)


def test_dicom_validator_finds_what_is_wrong(make_series, folder, tmp_path):
    volume = read_volume(make_series().write(folder))
    path = write_dicom_seg(tmp_path / "mask.dcm", some_mask(volume.shape), volume, "the liver")
    spoilt = dcmread(path)
    del spoilt.ContentLabel
    del spoilt.SegmentSequence[0].SegmentLabel
    del spoilt.PerFrameFunctionalGroupsSequence[0].FrameContentSequence
    spoilt.SegmentationType = "BINARI"
    spoilt.RepetitionTime = 3
    spoilt.save_as(path)
    assert dicom_validator(path, "seg") == 5
