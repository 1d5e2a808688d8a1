"""What the command line makes of folders: scans by name, DICOM by content; and data sets of DICOM."""

import json
import os
import shutil
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from medvol.checking.leakage import shared_files
from medvol.cli import main
from medvol.core.errors import ScanError
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.settings import CacheSettings
from medvol.imaging.cache.cached_volume import CachedVolume
from medvol.imaging.cache.slice_archive import SliceArchive
from medvol.imaging.cache.slice_cache import SliceCache
from medvol.imaging.dicom.segmentation import write_dicom_seg
from medvol.imaging.folders import find_all_scans, find_scans, is_batch
from medvol.imaging.reading import read_label_map, read_mask, read_volume
from medvol.imaging.writing import write_mask
from medvol.inference import batch, dicom_writers, segmentation
from medvol.inference.jobs import find_jobs
from medvol.policies.scripted import ScriptedPolicy

pytest.importorskip("highdicom")

BOX = '<think>here</think><answer>[{"slice": 2, "bbox_2d_list": [[200, 250, 800, 750]]}]</answer>'


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Pictures have their own tests."""
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: b"picture")


def file_of(out: Path, start: str, ending: str = "json") -> Path:
    """The one file whose name starts so; twelve digits follow."""
    (path,) = out.glob(f"{start}_{'[0-9a-f]' * 12}.{ending}")
    return path


def segment(*arguments: object) -> int:
    choice = ["--policy", "ScriptedPolicy", "--policy.answers", json.dumps([BOX]), "--propagator", "ExtrudePropagator"]
    return main(["segment", *map(str, arguments), *choice])


def pack(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    return archive


def test_what_a_folder_holds(make_series, tmp_path):
    study = generate_uid()
    one = tmp_path / "one"
    make_series(study=study).write(one / "series 3")
    make_series(study=study, number=4, count=5).write(one / "series 4")
    assert find_scans(one) == [one]
    assert find_scans(one / "series 3") == [one / "series 3"]
    assert not is_batch(one)
    several = tmp_path / "several"
    for name in ("a", "b"):
        make_series().write(several / name)
    (several / "notes").mkdir()
    assert find_scans(several) == [several / "a", several / "b"]
    assert is_batch(several)
    unnamed = tmp_path / "unnamed"
    for name in ("a", "b"):
        make_series().each(StudyInstanceUID="").write(unnamed / name)
    assert find_scans(unnamed) == [unnamed / "a", unnamed / "b"]
    mixed = tmp_path / "mixed"
    make_series().write(mixed / "dicom")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), mixed / "x.nii.gz")
    pack(several / "a", mixed / "a.zip")
    (mixed / "torn.zip").write_bytes((mixed / "a.zip").read_bytes()[:200])
    with zipfile.ZipFile(mixed / "other.zip", "w") as file:
        file.writestr("readme", "no scan" * 99)
    assert find_scans(mixed) == [mixed / "a.zip", mixed / "torn.zip", mixed / "x.nii.gz"]
    (tmp_path / "empty").mkdir()
    assert find_scans(tmp_path / "empty") == []


def test_scans_at_every_depth(make_series, tmp_path):
    """DICOM and files in one tree; what is read with an upper folder is not named twice."""
    study = generate_uid()
    for name in ("a/1", "a/2"):
        make_series(study=study).write(tmp_path / "dicom" / name)
    make_series().write(tmp_path / "dicom" / "b")
    make_series().write(tmp_path / "mixed" / "deep" / "c")
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    for name in ("x.nii.gz", "mixed/y_label.nii", "dicom/a/z.nii"):
        nib.save(image, tmp_path / name)
    pack(tmp_path / "dicom" / "b", tmp_path / "mixed" / "deep" / "d.zip")
    found = {str(path.relative_to(tmp_path)) for path in find_all_scans(tmp_path)}
    files = {"x.nii.gz", "mixed/y_label.nii", "dicom/a/z.nii", "mixed/deep/d.zip"}
    assert found == {*files, "dicom/a", "dicom/b", "mixed/deep/c"}
    assert find_all_scans(tmp_path / "dicom" / "b") == [tmp_path / "dicom" / "b"]


def test_answers_among_studies_are_no_scans(make_series, tmp_path, capsys, monkeypatch):
    """As a folder of answers below the studies, and beside them; named itself, it is refused for what it holds."""
    studies = tmp_path / "studies"
    for name in ("s0", "s1"):
        make_series().write(studies / name)
    answers, expected = studies / "answers", [studies / "s0", studies / "s1"]
    kinds = ("--dicom", "seg", "sr", "rtstruct", "capture")
    picture = BytesIO()
    Image.new("RGB", (9, 7)).save(picture, "PNG")
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: picture.getvalue())
    assert segment(studies / "s0", "the liver", "--out", answers, *kinds) == 0
    for path in answers.iterdir():
        if path.suffix != ".dcm":
            path.unlink()  # the mask is a scan of its own to `check`
    assert len(list(answers.iterdir())) == 4
    assert find_scans(studies) == find_all_scans(studies) == expected
    assert main(["check", str(studies)]) == 0
    pack(answers, studies / "answers.zip")
    for path in answers.iterdir():
        (studies / path.name).write_bytes(path.read_bytes())
    assert find_scans(studies) == find_all_scans(studies) == expected
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), studies / "x.nii.gz")
    assert find_all_scans(studies) == [*expected, studies / "x.nii.gz"]
    assert find_scans(answers) == find_all_scans(answers) == [answers]
    next(answers.glob("*.capture.dcm")).unlink()  # an image, if of no scan
    capsys.readouterr()
    assert main(["check", str(answers)]) != 0
    assert "MV705" in capsys.readouterr().out


def test_a_study_that_lost_its_places_is_a_scan_and_refused(make_series, tmp_path):
    make_series().write(tmp_path / "a")
    make_series().each(ImagePositionPatient=None).write(tmp_path / "b")
    assert find_scans(tmp_path) == find_all_scans(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_one_study_is_one_scan(make_series, tmp_path, capsys):
    folder = make_series().write(tmp_path / "1.2.840.5")
    out = tmp_path / "out"
    assert segment(folder, "the liver", "--out", out, "--dicom", "seg") == 0
    assert set(out.iterdir()) == {
        file_of(out, "1.2.840.5_the-liver", end) for end in ("nii.gz", "json", "png", "seg.dcm")
    }
    mask = nib.load(file_of(out, "1.2.840.5_the-liver", "nii.gz"))
    volume = read_volume(folder)
    assert np.array_equal(mask.affine, volume.source.affine)
    # Columns 2 to 8 of ten, rows 2 to 6 of eight.
    assert np.argwhere(np.asarray(mask.dataobj))[:, :2].min(axis=0).tolist() == [2, 2]
    assert np.argwhere(np.asarray(mask.dataobj))[:, :2].max(axis=0).tolist() == [7, 5]
    capsys.readouterr()
    assert segment(folder, "the liver", "--out", out, "--dicom", "seg") == 0
    assert "answered before" in capsys.readouterr().out
    file_of(out, "1.2.840.5_the-liver", "seg.dcm").unlink()
    assert segment(folder, "the liver", "--out", out, "--dicom", "seg") == 0
    assert file_of(out, "1.2.840.5_the-liver", "seg.dcm").is_file()
    later = file_of(out, "1.2.840.5_the-liver").stat().st_mtime + 10
    os.utime(folder / "IM003", (later, later))
    capsys.readouterr()
    assert segment(folder, "the liver", "--out", out) == 0
    assert "answered before" in capsys.readouterr().out, "a slice that was only touched is the same"
    changed = pydicom.dcmread(folder / "IM003")
    pixels = changed.pixel_array.copy()
    pixels[0, 0] += 1
    changed.PixelData = pixels.tobytes()
    changed.save_as(folder / "IM003")
    assert segment(folder, "the liver", "--out", out) == 0
    assert "answered before" not in capsys.readouterr().out


def test_a_series_is_part_of_the_answer(make_series, tmp_path, capsys):
    study = generate_uid()
    for number, count in ((3, 6), (4, 5)):
        make_series(study=study, number=number, count=count).write(tmp_path / "scan" / str(number))
    out = tmp_path / "out"
    for series in ("3", "4"):
        assert segment(tmp_path / "scan", "the liver", "--out", out, "--series", series) == 0
        record = json.loads(file_of(out, f"scan_{series}_the-liver").read_text())
        assert record["scan"]["series"] == series
        assert record["scan"]["shape_zyx"][0] == {"3": 6, "4": 5}[series]
    (tmp_path / "settings.yaml").write_text("series: 4\n")
    assert segment(tmp_path / "scan", "the spleen", "--out", out, "--config", tmp_path / "settings.yaml") == 0
    assert file_of(out, "scan_4_the-spleen").is_file()
    record = file_of(out, "scan_4_the-liver")
    evidence = ["segment", "--evidence", str(record), "--out", str(out), "--propagator", "ExtrudePropagator"]
    assert main(evidence) == 0
    first, again = (nib.load(out / f"{record.stem}{end}.nii.gz") for end in ("", "_edited"))
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(again.dataobj))
    # A record of an earlier release names no series.
    content = json.loads(record.read_text())
    del content["scan"]["series"]
    record.write_text(json.dumps(content))
    assert main([*evidence, "--series", "4", "--overwrite"]) == 0


def test_studies_in_a_batch(make_series, tmp_path):
    for name in ("a", "b"):
        make_series().write(tmp_path / "scans" / name)
    make_series(count=1).write(tmp_path / "scans" / "c")
    out = tmp_path / "out"
    assert segment(tmp_path / "scans", "the liver", "--out", out, "--dicom", "seg", "--with_patient") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == {"done": 2, "skipped": 0, "failed": 1, "not run": 0}
    assert [case["error"] for case in summary["cases"]] == ["", "", "TooFewSlicesError"]
    assert set(out.glob("*.dcm")) == {file_of(out, f"{name}_the-liver", "seg.dcm") for name in "ab"}
    assert segment(tmp_path / "scans", "the liver", "--out", out, "--dicom", "seg", "--with_patient") == 1
    assert json.loads((out / "summary.json").read_text())["counts"]["skipped"] == 2


def test_an_archive(make_series, tmp_path):
    archive = pack(make_series().write(tmp_path / "scan"), tmp_path / "study.zip")
    assert segment(archive, "the liver", "--out", tmp_path / "out", "--dicom", "seg") == 0
    assert file_of(tmp_path / "out", "study_the-liver", "seg.dcm").is_file()
    [job] = find_jobs(tmp_path, ["q"], tmp_path / "out")
    assert job.scan == archive


def test_a_segmentation_needs_dicom(tmp_path, capsys):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    assert segment(tmp_path / "ct.nii.gz", "q", "--out", tmp_path / "out", "--dicom", "seg") == 2
    assert "this scan is none" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
    assert segment(tmp_path / "ct.nii.gz", "q", "--out", tmp_path / "out", "--series", "3") == 2
    assert "leave it out" in capsys.readouterr().err


class Unloaded(ScriptedPolicy):
    """A policy that must not be loaded."""

    def identity(self):
        raise AssertionError("the model is loaded")


@pytest.mark.parametrize("uid", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_series_that_can_have_no_segmentation_is_refused_before_the_work(
    make_series, tmp_path, capsys, monkeypatch, uid
):
    folder = make_series().each(**{uid: ""}).write(tmp_path / "scan")
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedPolicy, "identity", Unloaded.identity)
        assert segment(folder, "the liver", "--out", tmp_path / "out", "--dicom", "seg") == 2
    error = capsys.readouterr().err
    assert uid in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert segment(folder, "the liver", "--out", tmp_path / "out") == 0


def test_in_a_batch_only_the_scans_that_can_have_no_segmentation_fail(make_series, tmp_path):
    make_series().write(tmp_path / "scans" / "a")
    make_series().each(FrameOfReferenceUID="").write(tmp_path / "scans" / "b")
    out = tmp_path / "out"
    assert segment(tmp_path / "scans", "the liver", "--out", out, "--dicom", "seg") == 1
    cases = json.loads((out / "summary.json").read_text())["cases"]
    assert [case["status"] for case in cases] == ["done", "failed"]
    assert "FrameOfReferenceUID" in cases[1]["detail"]
    assert file_of(out, "a_the-liver", "seg.dcm").is_file()


@pytest.mark.parametrize("many", [False, True])
def test_a_segmentation_that_fails_costs_neither_mask_nor_record(make_series, tmp_path, capsys, monkeypatch, many):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_writers, "write_dicom_seg", fail)
    for name in ("a", "b") if many else ("a",):
        make_series().write(tmp_path / "scans" / name)
    out, scan = tmp_path / "out", tmp_path / "scans" / ("" if many else "a")
    assert segment(scan, "the liver", "--out", out, "--dicom", "seg") == 1
    captured = capsys.readouterr()
    said = (out / "summary.json").read_text() if many else captured.err
    assert "seg: No space left on device" in said
    record = file_of(out, "a_the-liver")
    assert json.loads(record.read_text())["not_written"] == {"seg": "No space left on device"}
    assert all(file_of(out, "a_the-liver", end).is_file() for end in ("nii.gz", "png"))
    assert not list(out.glob("*.dcm"))
    assert (str(record) in captured.out) is not many


@pytest.mark.parametrize("many", [False, True])
def test_a_segmentation_of_the_other_kind_is_no_answer(make_series, tmp_path, many):
    for name in ("a", "b") if many else ("a",):
        make_series().write(tmp_path / "scans" / name)
    out, scan = tmp_path / "out", tmp_path / "scans" / ("" if many else "a")

    def patient(*options):
        assert segment(scan, "the liver", "--out", out, *options) == 0
        return str(pydicom.dcmread(file_of(out, "a_the-liver", "seg.dcm")).PatientID)

    assert patient("--dicom", "seg", "--with_patient") == "4711"
    assert patient() == "4711", "what is answered stays"
    assert patient("--dicom", "seg") != "4711"
    assert patient("--dicom", "seg", "--with_patient") == "4711"


def test_an_answer_that_is_replaced_leaves_no_segmentation_of_the_former(make_series, tmp_path):
    make_series().write(tmp_path / "a")
    out = tmp_path / "out"
    assert segment(tmp_path / "a", "the liver", "--out", out, "--dicom", "seg") == 0
    assert segment(tmp_path / "a", "the liver", "--out", out, "--overwrite") == 0
    assert not list(out.glob("*.dcm"))


def test_a_folder_in_the_place_of_an_output_is_refused_before_the_policy_is_asked(make_series, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the policy is asked")

    make_series().write(tmp_path / "scan")
    jobs, out = tmp_path / "jobs.json", tmp_path / "out"
    jobs.write_text(json.dumps([{"scan": "scan", "query": "the liver", "name": "mine"}]))
    (out / "mine.sr.dcm").mkdir(parents=True)
    monkeypatch.setattr(ScriptedPolicy, "generate", refuse)
    assert segment("--jobs", jobs, "--out", out, "--dicom", "seg", "sr") == 1
    [case] = json.loads((out / "summary.json").read_text())["cases"]
    assert case["error"] == "RecordError"
    assert "mine.sr.dcm is a folder" in case["detail"]


def test_dicom_of_a_corrected_record(make_series, tmp_path):
    """What a reader corrected becomes DICOM without the policy."""
    folder, out = make_series().write(tmp_path / "scan"), tmp_path / "out"
    assert segment(folder, "the liver", "--out", out) == 0
    record = file_of(out, "scan_the-liver")
    arguments = ["--evidence", str(record), "--out", str(out), "--propagator", "ExtrudePropagator"]
    assert main(["segment", *arguments, "--dicom", "seg", "rtstruct"]) == 0
    mask = nib.load(out / f"{record.stem}_edited.nii.gz")
    again = read_mask(out / f"{record.stem}_edited.seg.dcm", read_volume(folder))
    assert again.sum() == np.asarray(mask.dataobj).sum() > 0
    assert (out / f"{record.stem}_edited.rtstruct.dcm").is_file()


def test_a_missing_writer_is_said_before_the_work(make_series, tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        make_series().write(tmp_path / "scans" / name)
    monkeypatch.setattr(ScriptedPolicy, "identity", Unloaded.identity)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setattr(batch, "find_spec", lambda name: None)
    for scan in (tmp_path / "scans", tmp_path / "scans" / "a"):
        assert segment(scan, "the liver", "--out", tmp_path / "out", "--dicom", "seg") == 2
        assert 'pip install "medvol-r1[dicom]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_check(make_series, tmp_path, capsys):
    folder = make_series().write(tmp_path / "scan")
    assert main(["check", str(folder)]) == 0
    assert "CT, 6 x 8 x 10 voxels (Z, Y, X), 3 x 1.5 x 2 mm, stored as LPS" in capsys.readouterr().out
    (folder / "IM003").unlink()
    assert main(["check", str(folder)]) == 2
    assert "1 slice(s) are missing" in capsys.readouterr().err
    make_series().write(tmp_path / "several" / "a")
    shutil.move(folder, tmp_path / "several" / "b")
    assert main(["check", str(tmp_path / "several")]) == 1
    text = capsys.readouterr().out
    assert "1 of 2 scans can be used" in text
    assert "MV715  b " in text


def test_check_of_a_label_map_beside_dicom(make_series, tmp_path, capsys):
    """The folder is the scan of the map that has its name."""
    folder = make_series().write(tmp_path / "p1")
    volume = read_volume(folder)
    write_mask(tmp_path / "p1_label.nii.gz", volume.voxels > 0, volume)
    assert main(["check", str(tmp_path)]) == 0
    assert "2 of 2 scans can be used" in capsys.readouterr().out
    nib.save(nib.Nifti1Image(np.ones((4, 8, 10), np.uint8), np.eye(4)), tmp_path / "p1_label.nii.gz")
    assert main(["check", str(tmp_path), "--json"]) == 1
    found = {finding["name"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "other_shape" in found


def test_a_label_map_alone_is_no_dicom(make_series, tmp_path):
    folder = make_series().write(tmp_path / "scan")
    for path in (folder, tmp_path / "map.dcm"):
        with pytest.raises(ScanError, match="on the grid of its scan only"):
            read_label_map(path)


def test_dicom_in_two_splits(make_series, tmp_path):
    """The same instances under other names in another folder."""
    series = make_series()
    for name, rename in (("a", "{:03d}".format), ("b", "other-{}".format)):
        folder = series.write(tmp_path / name, rename)
        volume = read_volume(folder)
        write_mask(tmp_path / f"{name}.nii.gz", volume.voxels > 0, volume)
        row = f"{name},{name}.nii.gz,1,liver,patient {name}\n"
        (tmp_path / f"{name}.csv").write_text("image,mask,label,target,patient\n" + row)
    splits = {name: NiftiDataset(str(tmp_path), str(tmp_path / f"{name}.csv")) for name in ("a", "b")}
    [leak] = shared_files(splits)
    assert leak.names == (str(tmp_path / "a"), str(tmp_path / "b"))
    (tmp_path / "b" / "other-3").unlink()
    assert shared_files(splits) == []


def test_dicom_in_the_cache(make_series, tmp_path):
    """Equal to reading the files; no name of a file or an element is kept; a changed slice is noticed."""
    series = make_series()
    folder = series.write(tmp_path / "scan", "Doe^Jane {}".format)
    cache = SliceCache(tmp_path / "cache")
    for path in (folder, pack(folder, tmp_path / "scan.zip")):
        plain = read_volume(path)
        for _ in range(2):
            kept = cache.read_volume(path)
            assert type(kept) is CachedVolume
            assert np.array_equal(kept.voxels, plain.voxels)
            assert np.array_equal(kept.affine, plain.affine)
            assert np.array_equal(kept.source.affine, plain.source.affine)
            assert (kept.volume_id, kept.modality) == (plain.volume_id, "CT")
            mask = kept.voxels > -500
            masks = [write_mask(tmp_path / "m.nii.gz", mask, volume).read_bytes() for volume in (kept, plain)]
            assert masks[0] == masks[1]
    for path in cache.folder.rglob("*"):
        data = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        assert not any(word in data for word in (b"Doe", b"Jane", b"4711"))
    # Whole Hounsfield units are packed as int16.
    [entry, _] = cache.folder.glob("*.slices")
    assert SliceArchive(entry).dtype == np.int16
    series.slices[2].RescaleIntercept = -4000
    series.write(folder, "Doe^Jane {}".format)
    assert cache.read_volume(folder).volume_id == read_volume(folder).volume_id != plain.volume_id


def test_a_data_set_of_dicom(make_series, tmp_path):
    """A table row names a folder of DICOM, and a segmentation object as its mask."""
    volume = read_volume(make_series().write(tmp_path / "p01" / "ct"))
    mask = np.zeros(volume.shape, bool)
    mask[2:4, 3:5, 2:7] = True
    write_dicom_seg(tmp_path / "p01" / "liver.dcm", mask, volume, "liver")
    (tmp_path / "table.csv").write_text("image,mask,label,target,patient\np01/ct,p01/liver.dcm,1,liver,p01\n")
    for cache in (None, str(tmp_path / "cache")):
        data = NiftiDataset(str(tmp_path), str(tmp_path / "table.csv"), cache=CacheSettings(folder=cache))
        assert data[0].volume.modality == "CT"
        assert np.array_equal(data[0].target, mask)
