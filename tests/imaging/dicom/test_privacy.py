"""No patient identifier of a DICOM scan leaves it, whatever medvol writes."""

import gzip
import json
import logging
import shutil
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from medvol.cli import main

pytest.importorskip("highdicom")

PLANTED = {
    "PatientName": "Zyxwvut^Quirina",
    "PatientID": "MRN90210X",
    "PatientBirthDate": "19430712",
    "OtherPatientNames": "Maidenname^Quirina",
    "PatientAddress": "Hiddenlane 17",
    "PatientTelephoneNumbers": "0555-123987",
    "PatientComments": "neighbour of the mayor",
    "AccessionNumber": "ACC77281",
    "StudyID": "STU5521",
    "StudyDescription": "Abdomen of Quirina",
    "SeriesDescription": "Thorax Zyxwvut 1.0",
    "ReferringPhysicianName": "Referrer^Rosalind",
    "OperatorsName": "Operator^Oswin",
    "InstitutionName": "Saint Elsewhere",
    "RequestAttributesSequence": None,
    "ImageComments": "call the daughter",
    "PatientAge": "081Y",
    "DeviceSerialNumber": "SN-445566",
}
WORDS = [
    *("Zyxwvut", "Quirina", "MRN90210X", "19430712", "Maidenname", "Hiddenlane", "0555-123987", "mayor", "ACC77281"),
    *("STU5521", "Referrer", "Rosalind", "Oswin", "Elsewhere", "daughter", "081Y", "SN-445566", "PRIVATE-9"),
]
BOX = '<think>here</think><answer>[{"slice": 2, "bbox_2d_list": [[200, 200, 800, 800]]}]</answer>'


@pytest.fixture
def scan(make_series, tmp_path: Path) -> Path:
    """A study of two series with identifiers in every slice, in the names of its files too."""
    study = generate_uid()
    for number, count in ((3, 6), (4, 5)):
        series = make_series(count=count, study=study, number=number)
        series.each(**{keyword: value for keyword, value in PLANTED.items() if value is not None})
        for dataset in series.slices:
            block = dataset.private_block(0x0009, "MAKER", create=True)
            block.add_new(1, "LO", "PRIVATE-9")
        series.write(tmp_path / "scan" / f"Zyxwvut {number}", "MRN90210X-{}.dcm".format)
    return tmp_path / "scan"


def everything_in(folder: Path) -> bytes:
    """Names and bytes of all files, unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            data = path.read_bytes()
            parts += [data, gzip.decompress(data) if path.suffix == ".gz" else b""]
    return b"\n".join(parts)


def check_clean(data: bytes) -> None:
    assert len(PLANTED) >= 15
    for word in WORDS:
        for spelling in (word, word.upper(), word.lower()):
            assert spelling.encode() not in data
            assert spelling.encode("utf-16-le") not in data


def file_of(out: Path, start: str, ending: str = "json") -> Path:
    """The one file whose name starts so; twelve digits follow."""
    (path,) = out.glob(f"{start}_{'[0-9a-f]' * 12}.{ending}")
    return path


def segment(scan: Path, out: Path, *more: str) -> int:
    choice = ["--policy", "ScriptedPolicy", "--policy.answers", json.dumps([BOX]), "--propagator", "RegionPropagator"]
    return main(["segment", str(scan), "the liver", *choice, "--out", str(out), *more])


def test_nothing_leaves(scan, tmp_path, capfd, caplog):
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        assert segment(scan, out, "--dicom", "seg", "sr", "rtstruct", "capture") == 0
    endings = ("nii.gz", "json", "png", "seg.dcm", "sr.dcm", "rtstruct.dcm", "capture.dcm")
    assert set(out.iterdir()) == {file_of(out, "scan_the-liver", end) for end in endings}
    record = json.loads(file_of(out, "scan_the-liver").read_text())
    assert record["scan"]["shape_zyx"] == [6, 8, 10]
    captured = capfd.readouterr()
    assert "the liver: slice 2, 1 box" in captured.out
    check_clean(everything_in(out))
    check_clean((captured.out + captured.err + caplog.text).encode())


def test_nothing_leaves_in_a_batch_that_fails(scan, tmp_path, capfd, caplog):
    """A damaged file, a choice that must be made, and a slice that is missing are told without a name."""
    out = tmp_path / "out"
    jobs = tmp_path / "jobs.json"
    damaged = scan / "Zyxwvut 4" / "MRN90210X-2.dcm"
    cases = [{"scan": "scan", "query": "the liver", "series": series} for series in ("3", 4, "17")]
    jobs.write_text(json.dumps(cases))
    data = bytearray(damaged.read_bytes())
    damaged.unlink()
    arguments = ["--policy", "ScriptedPolicy", "--policy.answers", json.dumps([BOX]), "--out", str(out)]
    with caplog.at_level(logging.DEBUG):
        assert main(["segment", "--jobs", str(jobs), *arguments, "--dicom", "seg"]) == 1
        summary = json.loads((out / "summary.json").read_text())
        assert [case["status"] for case in summary["cases"]] == ["done", "failed", "failed"]
        assert [case["error"] for case in summary["cases"]] == ["", "MissingSlicesError", "NoSuchSeriesError"]
        damaged.write_bytes(bytes(data[:700]))
        assert segment(scan, out, "--series", "4") == 2
    captured = capfd.readouterr()
    check_clean(everything_in(out))
    check_clean((captured.out + captured.err + caplog.text).encode())


def test_nothing_leaves_in_a_check(scan, tmp_path, capfd, caplog):
    """Of a study and of an archive, sound ones and damaged ones."""
    missing = scan / "Zyxwvut 3" / "MRN90210X-2.dcm"
    shutil.make_archive(str(tmp_path / "packed"), "zip", scan)
    with caplog.at_level(logging.DEBUG):
        assert main(["check", str(scan), "--json"]) == 0
        assert main(["check", str(tmp_path)]) == 0
        missing.unlink()
        shutil.make_archive(str(tmp_path / "torn"), "zip", scan / "Zyxwvut 3")
        shutil.rmtree(scan / "Zyxwvut 4")
        assert main(["check", str(scan)]) == 2
        missing.write_bytes(b"x" * 128 + b"DICM" + b"MRN90210X" * 60)
        assert main(["check", str(scan), "--json"]) == 2
        assert main(["check", str(tmp_path), "--fix", str(tmp_path.parent / f"{tmp_path.name}-mended")]) == 1
    captured = capfd.readouterr()
    assert "missing_slices" in captured.out
    check_clean((captured.out + captured.err + caplog.text).encode())


def test_a_memory_of_the_volume_tells_nothing(scan):
    from medvol.imaging.reading import read_volume

    volume = read_volume(scan, series="3")
    check_clean(repr(volume).replace(str(scan), "").encode())
    check_clean(repr(volume.source.header.slices).encode())


def test_what_an_archive_files_it_by_leaves_only_when_asked(scan, tmp_path):
    from pydicom import dcmread

    out = tmp_path / "out"
    assert segment(scan, out, "--dicom", "seg", "--with_patient") == 0
    stored = dcmread(file_of(out, "scan_the-liver", "seg.dcm"))
    assert str(stored.PatientName) == PLANTED["PatientName"]
    assert stored.PatientID == PLANTED["PatientID"]
    file_of(out, "scan_the-liver", "seg.dcm").unlink()
    check_clean(everything_in(out))
