"""Report, contours and picture as DICOM: for the standard's judges, for other readers, and against the record."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from dicom_judges import KINDS, dciodvfy, dicom_validator, find_program
from matplotlib.path import Path as Polygon
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import CTImageStorage, generate_uid

from medvol.core.errors import ConfigError, GeometryError, OutputError, ScanError
from medvol.core.types import Evidence, Volume
from medvol.imaging.dicom.contours import write_contours
from medvol.imaging.dicom.outputs import DicomOutputs, ask_for
from medvol.imaging.geometry import make_volume, voxel_to_world
from medvol.imaging.reading import read_mask, read_volume
from medvol.inference import dicom_writers
from medvol.inference.novelty import AnswerWarning
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

highdicom = pytest.importorskip("highdicom")

BOX = '<think>here</think><answer>[{"slice": 2, "bbox_2d_list": [[200, 250, 800, 750]]}]</answer>'
AXIAL, TURNED, SAGITTAL, OBLIQUE = (
    (1, 0, 0, 0, 1, 0),
    (-1, 0, 0, 0, -1, 0),
    (0, 1, 0, 0, 0, -1),
    (0.8, 0.6, 0, -0.48, 0.64, 0.6),
)


def answer_about(volume: Volume, words: str = BOX):
    return Segmenter(ScriptedPolicy([words]), ExtrudePropagator()).segment(volume, "the liver\\肝臓")


@pytest.fixture(scope="module")
def written(make_series, tmp_path_factory):
    """An answer with all outputs, anonymous and with the patient: paths by kind."""
    folder = tmp_path_factory.mktemp("outputs")
    volume = read_volume(make_series().write(folder / "scan"))
    answer = answer_about(volume)
    return {named: answer.save(folder / "answers", f"patient {named}", tuple(KINDS), named) for named in (False, True)}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_as_dicom3tools_knows_it(written, kind: str, named: bool):
    assert dciodvfy(written[named][kind], kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_as_dicom_validator_knows_it(written, kind: str):
    assert [dicom_validator(written[named][kind], kind) for named in (False, True)] == [0, 0]


def test_the_judges_find_what_is_wrong(written, tmp_path: Path):
    """One element that must be there is taken out of each object."""
    needed = {"sr": "CompletionFlag", "rtstruct": "StructureSetLabel", "capture": "ConversionType"}
    for kind, keyword in needed.items():
        spoilt = dcmread(written[False][kind])
        del spoilt[keyword]
        spoilt.save_as(tmp_path / "spoilt.dcm")
        assert dciodvfy(tmp_path / "spoilt.dcm", kind)
        assert dicom_validator(tmp_path / "spoilt.dcm", kind) > 0


def items_of(report, kind: str) -> Iterator:
    """The items of a report that have one type of value, with pydicom alone."""
    waiting = list(report.ContentSequence)
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence") or []
        if item.ValueType == kind:
            yield item


def texts(report) -> list[str]:
    return ["".join(item.TextValue) for item in items_of(report, "TEXT")]


def measured(report) -> dict[str, tuple[float, str, str]]:
    """Value and unit of every measurement of a report, by the meaning of its name."""
    found = {}
    for item in items_of(report, "NUM"):
        [value] = item.MeasuredValueSequence
        [unit] = value.MeasurementUnitsCodeSequence
        name = item.ConceptNameCodeSequence[0].CodeMeaning
        found[name] = float(value.NumericValue), unit.CodeValue, unit.CodingSchemeDesignator
    return found


def test_a_report_says_what_the_record_says(written):
    paths = written[False]
    mask = json.loads(paths["record"].read_text())["mask"]
    report = highdicom.sr.srread(paths["sr"])
    assert measured(dcmread(paths["sr"])) == {
        "Volume": (mask["volume_ml"], "cm3", "UCUM"),
        "Long axis": (mask["longest_diameter_mm"], "mm", "UCUM"),
        "Short axis": (mask["perpendicular_diameter_mm"], "mm", "UCUM"),
        "Attenuation Coefficient": (mask["mean_intensity"], "[hnsf'U]", "UCUM"),
    }
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    segmentation = dcmread(paths["seg"])
    segment = segmentation.SegmentSequence[0]
    [group] = report.content.get_volumetric_roi_measurement_groups()
    assert group.tracking_identifier == segment.TrackingID == "the liver 肝臓"
    assert group.tracking_uid == segment.TrackingUID
    assert group.finding_type.value == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
    references = [item.ReferencedSOPSequence[0] for item in items_of(report, "IMAGE")]
    [reference] = [item for item in references if "ReferencedSegmentNumber" in item]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (segmentation.SOPInstanceUID, 1)
    values = {measurement.name.meaning: measurement.value for measurement in group.get_measurements()}
    assert values["Volume"] == mask["volume_ml"]


def test_a_report_is_read_by_dcmqi(written, tmp_path: Path):
    program, out = find_program("tid1500reader"), tmp_path / "report.json"
    arguments = [program, "--inputDICOM", written[False]["sr"], "--outputMetadata", out]
    subprocess.run(arguments, capture_output=True, check=True)
    [group] = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    assert group["segmentationSOPInstanceUID"] == dcmread(written[False]["seg"]).SOPInstanceUID
    values = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
    mask = json.loads(written[False]["record"].read_text())["mask"]
    assert (values["Volume"], values["Long axis"]) == (mask["volume_ml"], mask["longest_diameter_mm"])


def test_a_report_of_nothing_and_of_an_answer_with_a_warning(make_series, tmp_path: Path):
    volume = read_volume(make_series(modality="MR").write(tmp_path / "scan"))
    answer = answer_about(volume, "<answer>[]</answer>")
    warning = AnswerWarning("unlike", "unlike", "the scan is unlike what the policy was trained on")
    warned = replace(answer, confidence=replace(answer.confidence, warnings=(warning,)))
    paths = warned.save(tmp_path / "out", dicom=["seg", "sr", "rtstruct"])
    report = dcmread(paths["sr"])
    assert measured(report) == {"Volume": (0.0, "cm3", "UCUM")}
    assert warning.detail in texts(report)
    assert dciodvfy(paths["sr"], "sr") == dciodvfy(paths["rtstruct"], "rtstruct") == []
    assert "ContourSequence" not in dcmread(paths["rtstruct"]).ROIContourSequence[0]


def test_a_capture_is_the_picture(written):
    for paths in written.values():
        stored, picture = dcmread(paths["capture"]), Image.open(BytesIO(paths["overlay"].read_bytes()))
        assert np.array_equal(pixel_array(stored), np.asarray(picture.convert("RGB")))
        assert list(stored.PatientOrientation) == ["L", "P"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_they_say_of_the_patient(written, kind: str):
    bare, named = (dcmread(written[which][kind]) for which in (False, True))
    keywords = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID", "AccessionNumber")
    assert all(bare[keyword].is_empty for keyword in keywords)
    expected = ["Doe^Jane", "4711", "19700101", "F", "20240101", "1", "A1"]
    assert [str(named[keyword].value) for keyword in keywords] == expected
    assert bare.StudyInstanceUID == named.StudyInstanceUID
    assert bare.SeriesDescription == "the liver 肝臓"


def test_names_in_other_letters(make_series, tmp_path: Path):
    """A name in a script that the scan's own character set has, and the outputs' as well."""
    series = make_series().each(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    paths = answer_about(read_volume(series.write(tmp_path / "scan"))).save(tmp_path, "a", tuple(KINDS), True)
    assert [str(dcmread(paths[kind]).PatientName) for kind in KINDS] == ["Müller^Jörg"] * 4


# Contours


def make_shapes() -> dict[str, np.ndarray]:
    """Twenty masks (5, 24, 28)."""
    z, y, x = np.indices((5, 24, 28))
    radius = np.hypot(y - 12, x - 14)
    rng = np.random.default_rng(0)
    one = np.zeros(z.shape, bool)
    one[2, 7, 9] = True
    return {
        "ball": np.sqrt((3 * (z - 2)) ** 2 + (y - 12) ** 2 + (x - 14) ** 2) < 9,
        "block": (abs(y - 10) < 5) & (abs(x - 12) < 8),
        "one voxel": one,
        "one row": (y == 11) & (x > 3) & (z > 1),
        "ring": (radius < 10) & (radius > 5),
        "island in a hole": ((radius < 11) & (radius > 7)) | (radius < 3),
        "three rings": (radius.astype(int) // 2) % 2 == 0,
        "two parts": (abs(y - 6) < 3) | (abs(y - 18) < 2) & (x > 12),
        "parts that touch at a corner": ((y < 10) & (x < 10)) | ((y >= 10) & (x >= 10)),
        "hole that touches the outside": (radius < 9) & ~((y == 3 + x - 14 + 9) & (x > 9)),
        "everything": z >= 0,
        "all but one pixel": (y != 8) | (x != 8),
        "along the border": (y < 2) | (x > 25) | (y > 21),
        "checkers": ((y + x) % 2 == 0) & (z == 3),
        "holes in rows": (y % 3 != 1) | (x % 4 != 2),
        "comb": (y > 18) | (x % 3 == 0),
        "C": (radius < 10) & (radius > 6) & ((x < 16) | (abs(y - 12) > 3)),
        "sparse noise": rng.random(z.shape) < 0.2,
        "noise": rng.random(z.shape) < 0.5,
        "dense noise": rng.random(z.shape) < 0.85,
    }


SHAPES = make_shapes()
GRIDS = [(AXIAL, (1.5, 2.0)), (TURNED, (0.7, 0.7)), (SAGITTAL, (0.5, 3.1)), (OBLIQUE, (0.9, 2.3))]


def rasterise(path: Path, sources: dict) -> set[tuple[float, ...]]:
    """Positions (LPS mm) of the pixels of the source images whose centres lie in contours, by matplotlib."""
    structures = dcmread(path)
    slices: dict[str, np.ndarray] = {}
    for contour in structures.ROIContourSequence[0].get("ContourSequence") or []:
        [reference] = contour.ContourImageSequence
        source = sources[reference.ReferencedSOPInstanceUID]
        row, column = np.array(source.ImageOrientationPatient, float).reshape(2, 3)
        points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(source.ImagePositionPatient, float)
        assert len(points) == contour.NumberOfContourPoints
        assert np.abs(points @ np.cross(row, column)).max() < 1e-3, "on the plane of its image"
        high, wide = map(float, source.PixelSpacing)
        polygon = np.stack([points @ row / wide, points @ column / high], axis=1)
        (x0, y0), (x1, y1) = np.ceil(polygon.min(axis=0)).astype(int), np.floor(polygon.max(axis=0)).astype(int) + 1
        y, x = np.mgrid[y0:y1, x0:x1]
        inside = Polygon(polygon, closed=False).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
        filled = slices.setdefault(source.SOPInstanceUID, np.zeros((source.Rows, source.Columns), bool))
        filled[y0:y1, x0:x1] ^= inside.reshape(x.shape)
    return {place for uid, filled in slices.items() for place in places_of(filled, sources[uid])}


def places_of(filled: np.ndarray, source) -> list[tuple[float, ...]]:
    row, column = np.array(source.ImageOrientationPatient, float).reshape(2, 3)
    high, wide = map(float, source.PixelSpacing)
    y, x = np.nonzero(filled)
    world = np.array(source.ImagePositionPatient, float) + np.outer(x * wide, row) + np.outer(y * high, column)
    return list(map(tuple, (world.round(2) + 0.0).tolist()))


def places(mask: np.ndarray, volume: Volume) -> set[tuple[float, ...]]:
    world = voxel_to_world(volume.affine, np.argwhere(mask)[:, ::-1]) * [-1, -1, 1]
    return set(map(tuple, (world.round(2) + 0.0).tolist()))


@pytest.fixture(scope="module")
def grids(make_series, tmp_path_factory) -> list[tuple[dict, Volume]]:
    """Series on four grids, 24 x 28 pixels and 5 slices: their slices by UID, and the volume."""
    found = []
    for k, (orientation, spacing) in enumerate(GRIDS):
        series = make_series(count=5, orientation=orientation, shape=(24, 28)).each(PixelSpacing=list(spacing))
        volume = read_volume(series.write(tmp_path_factory.mktemp(f"grid{k}")))
        found.append(({dataset.SOPInstanceUID: dataset for dataset in series.slices}, volume))
    return found


@pytest.mark.parametrize("grid", range(len(GRIDS)))
@pytest.mark.parametrize("shape", SHAPES)
def test_contours_give_the_mask_again(grids, tmp_path: Path, shape: str, grid: int):
    """Twenty shapes on four grids: axial, turned, sagittal and oblique, all but one anisotropic."""
    sources, volume = grids[grid]
    mask = SHAPES[shape]
    if mask.shape != volume.shape:  # sagittal slices lie along x
        mask = np.ascontiguousarray(mask.transpose(1, 2, 0))
    assert mask.shape == volume.shape
    path = write_contours(tmp_path / "contours.dcm", mask, volume, shape)
    found, expected = rasterise(path, sources), places(mask, volume)
    assert len(expected) == mask.sum()
    assert 2 * len(found & expected) / (len(found) + len(expected)) >= 0.98
    assert found == expected


def test_a_contour_of_more_than_64_kb(make_series, tmp_path: Path):
    """One polygon with a thousand keyholes: DICOM's explicit encodings have no room for it."""
    series = make_series(count=2, shape=(96, 96))
    volume = read_volume(series.write(tmp_path / "scan"))
    _, y, x = np.indices(volume.shape)
    mask = (y % 3 != 1) | (x % 3 != 1)
    mask[1] = False
    path = write_contours(tmp_path / "contours.dcm", mask, volume, "sieve")
    [contour] = dcmread(path).ROIContourSequence[0].ContourSequence
    assert len("\\".join(map(str, contour.ContourData))) > 65536
    sources = {dataset.SOPInstanceUID: dataset for dataset in series.slices}
    assert rasterise(path, sources) == places(mask, volume)


def test_contours_of_a_multi_frame_file(make_series, tmp_path: Path):
    series = make_series().each(
        KVP=120, AcquisitionDate="20240101", AcquisitionTime="120000", ContentDate="20240101",
        ContentTime="120000", PatientPosition="HFS", Laterality="",
    )  # fmt: skip
    files = [dcmread(path) for path in sorted(series.write(tmp_path / "scan").iterdir(), reverse=True)]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(files, "1.2.3.4", 9, "1.2.3.5", 1)
    enhanced.save_as(tmp_path / "enhanced.dcm")
    answer = answer_about(read_volume(tmp_path / "enhanced.dcm"))
    paths = answer.save(tmp_path / "out", "a", tuple(KINDS))
    found: set[tuple[float, ...]] = set()
    frames = dcmread(tmp_path / "enhanced.dcm").PerFrameFunctionalGroupsSequence
    for contour in dcmread(paths["rtstruct"]).ROIContourSequence[0].ContourSequence:
        [reference] = contour.ContourImageSequence
        position = frames[reference.ReferencedFrameNumber - 1].PlanePositionSequence[0].ImagePositionPatient
        assert {float(z) for z in contour.ContourData[2::3]} == {float(position[2])}
        found.add(tuple(position))
    assert len(found) == answer.mask.any(axis=(1, 2)).sum()
    for kind in ("seg", "sr", "rtstruct", "capture"):
        assert dciodvfy(paths[kind], kind) == []


# What is asked for


def test_what_can_be_asked_for():
    assert DicomOutputs(("capture", "sr", "seg", "seg")).kinds == ("seg", "sr", "capture")
    assert not ask_for(None)
    for kinds, named, words in ((["pdf"], False, "'pdf'"), (["sr"], False, "needs seg"), ([], True, "none is asked")):
        with pytest.raises(ConfigError, match=words):
            ask_for(kinds, named)


def test_refused_before_anything_is_written(make_series, tmp_path: Path):
    answer = answer_about(make_volume(np.zeros((6, 8, 10), np.float32), (1, 1, 1)))
    with pytest.raises(ConfigError, match="this scan is none"):
        answer.save(tmp_path / "out", dicom=["rtstruct"])
    with pytest.raises(ConfigError, match="needs seg"):
        answer.save(tmp_path / "out", dicom=["sr"])
    assert not (tmp_path / "out").exists()
    volume = read_volume(make_series().write(tmp_path / "scan"))
    with pytest.raises(GeometryError, match="must agree"):
        write_contours(tmp_path / "a.dcm", np.zeros((2, 2, 2), bool), volume, "q")
    unlinked = read_volume(make_series().each(FrameOfReferenceUID="").write(tmp_path / "unlinked"))
    with pytest.raises(ScanError, match="has no FrameOfReferenceUID"):
        write_contours(tmp_path / "a.dcm", np.zeros(unlinked.shape, bool), unlinked, "q")
    assert not (tmp_path / "a.dcm").exists()


def test_outputs_do_not_refer_to_files_that_were_not_read(make_series, tmp_path: Path):
    """After the reading a folder is moved away, and another series takes its place."""
    volume = read_volume(make_series().write(tmp_path / "scan"))
    mask = np.ones(volume.shape, bool)
    (tmp_path / "scan").rename(tmp_path / "moved")
    with pytest.raises(ScanError, match="no longer there; put them back"):
        write_contours(tmp_path / "a.dcm", mask, volume, "q")
    other = make_series().write(tmp_path / "scan")
    with pytest.raises(ScanError, match="no longer those that were read"):
        write_contours(tmp_path / "a.dcm", mask, volume, "q")
    next(other.iterdir()).unlink()
    with pytest.raises(ScanError, match="no longer th"):
        write_contours(tmp_path / "a.dcm", mask, volume, "q")
    assert not (tmp_path / "a.dcm").exists()


def test_what_is_made_of_a_file_that_fails_is_not_written(make_series, tmp_path: Path, monkeypatch):
    """A report without its segmentation object would refer to nothing; the rest is written."""

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    answer = answer_about(read_volume(make_series().write(tmp_path / "scan")))
    before = answer.save(tmp_path / "out", dicom=["seg", "sr", "rtstruct"])
    monkeypatch.setattr(dicom_writers, "write_dicom_seg", fail)
    with pytest.raises(OutputError) as error:
        answer.save(tmp_path / "out", dicom=["seg", "sr", "rtstruct"])
    record = json.loads(before["record"].read_text())
    assert record["dicom"] == {"files": {"rtstruct": "segmentation.rtstruct.dcm"}, "with_patient": False}
    assert record["not_written"]["seg"] == "No space left on device"
    assert "segmentation.seg.dcm, which was not written" in record["not_written"]["sr"]
    assert set(error.value.paths) == {"mask", "record", "overlay", "rtstruct"}
    assert not before["seg"].exists()
    assert not before["sr"].exists()


def test_an_answer_that_is_replaced_leaves_no_output_of_the_former(make_series, tmp_path: Path):
    answer = answer_about(read_volume(make_series().write(tmp_path / "scan")))
    answer.save(tmp_path / "out", dicom=tuple(KINDS))
    answer.save(tmp_path / "out", dicom=["capture"])
    assert [path.name for path in (tmp_path / "out").glob("*.dcm")] == ["segmentation.capture.dcm"]
    record = tmp_path / "out" / "segmentation.json"
    content = json.loads(record.read_text())
    content["dicom"]["files"] = {"mask": "x", "record": "y", "../seg": "z"}
    record.write_text(json.dumps(content))
    answer.save(tmp_path / "out")
    assert (tmp_path / "out" / "segmentation.nii.gz").is_file()


def test_a_scan_is_read_beside_its_outputs(make_series, tmp_path: Path):
    """Outputs in the scan's own folder are no part of it."""
    folder = make_series().write(tmp_path / "scan")
    volume = read_volume(folder)
    answer = answer_about(volume)
    paths = answer.save(folder, "a", tuple(KINDS))
    for path in (paths["mask"], paths["overlay"], paths["record"]):
        os.unlink(path)
    again = read_volume(folder)
    assert np.array_equal(again.voxels, volume.voxels)
    assert np.array_equal(read_mask(paths["seg"], again), answer.mask)


@pytest.mark.real
@pytest.mark.slow
def test_of_a_real_series(shared_data, tmp_path: Path):
    """The spleen of 20 slices of 512 x 512, which get the UIDs that their publishers took away."""
    folder, series = shared_data / "totalseg_ct_dicom", tmp_path / "series"
    study, series_uid, frame = generate_uid(), generate_uid(), generate_uid()
    sources = {}
    series.mkdir()
    for path in (folder / "dicom").iterdir():
        source = dcmread(path)
        source.SOPClassUID, source.SOPInstanceUID = CTImageStorage, generate_uid()
        source.StudyInstanceUID, source.SeriesInstanceUID, source.FrameOfReferenceUID = study, series_uid, frame
        source.save_as(series / path.name)
        sources[source.SOPInstanceUID] = source
    volume = read_volume(series)
    labels = json.loads((folder / "labels.json").read_text())
    [spleen] = [int(number) for number, name in labels.items() if name == "spleen"]
    mask = read_mask(folder / "label.nii.gz", volume, [spleen])
    anchor = Evidence(10, np.array([[300.0, 200.0, 400.0, 300.0]]))
    paths = replace(answer_about(volume), mask=mask, evidence=anchor).save(tmp_path, "spleen", tuple(KINDS), True)
    for kind in KINDS:
        assert dciodvfy(paths[kind], kind) == []
        assert dicom_validator(paths[kind], kind) == 0
    assert rasterise(paths["rtstruct"], sources) == places(mask, volume)
    volume_ml = mask.sum() * np.prod(volume.spacing) / 1000
    assert measured(dcmread(paths["sr"]))["Volume"][0] == pytest.approx(volume_ml, abs=1e-3)
