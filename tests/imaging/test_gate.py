"""Every damaged file is refused by its own name, in one sentence, at once and without much memory."""

import os
import time
from pathlib import Path

import pytest
from damaged_itk import METAS, NRRDS
from damaged_nifti import CONTENTS, HEADERS, STREAMS

from medvol.checking.catalogue import PROBLEMS
from medvol.checking.findings import Finding
from medvol.checking.scans import check_scan
from medvol.core.errors import ScanError
from medvol.imaging.dicom.problems import NoDicomError
from medvol.imaging.formats import problems as p
from medvol.imaging.reading import read_volume


def all_cases():
    for name, (change, error) in HEADERS.items():
        make = lambda scans, change=change: scans.nifti(change=change)  # noqa: E731
        yield pytest.param(make, "scan.nii", error, id=f"nii: {name}")
        yield pytest.param(lambda scans, make=make: scans.zip(make(scans)), "scan.nii.gz", error, id=f"gz: {name}")
    for name, (make, error) in CONTENTS.items():
        yield pytest.param(make, "scan.nii", error, id=f"nii: {name}")
        yield pytest.param(lambda scans, make=make: scans.zip(make(scans)), "scan.nii.gz", error, id=f"gz: {name}")
    for cases, name in ((STREAMS, "scan.nii.gz"), (NRRDS, "scan.nrrd"), (METAS, "scan.mha")):
        for case, (make, error) in cases.items():
            yield pytest.param(make, name, error, id=f"{name[5:]}: {case}")
    for name in ("scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha"):
        yield pytest.param(lambda scans: b"", name, p.EmptyFileError, id=f"{name[5:]}: empty")
    yield pytest.param(lambda scans: scans.nifti(), "scan.dcm", NoDicomError, id="named scan.dcm")
    for name in ("scan.img", "scan.hdr", "scan.png", "scan", "scan.nii.bz2"):
        yield pytest.param(lambda scans: scans.nifti(), name, p.UnknownFormatError, id=f"named {name}")


CASES = list(all_cases())


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


@pytest.fixture
def growth():
    """Megabytes by which this process grew at most since the test began."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return lambda: 0.0
    before = memory("VmRSS")
    return lambda: memory("VmHWM") - before


def test_there_are_enough_cases():
    assert len(CASES) >= 45
    assert len({case.id for case in CASES}) == len(CASES)


def test_every_refusal_has_its_case():
    named = {error for error in vars(p).values() if isinstance(error, type) and issubclass(error, p.RefusedScanError)}
    tested = {case.values[2] for case in CASES} - {NoDicomError} | {
        p.MissingScanError,
        p.UnreadableScanError,
        p.RefusedScanError,
    }
    assert named == tested
    assert len({error.code for error in named}) == len(named)
    assert all(error.__doc__ and error.number and error.fix for error in named - {p.RefusedScanError})


@pytest.mark.parametrize(("make", "name", "error"), CASES)
def test_refused(make, name, error, scans, tmp_path, request):
    path = tmp_path / name
    path.write_bytes(make(scans))
    growth = request.getfixturevalue("growth")
    start = time.process_time()
    with pytest.raises(ScanError) as caught:
        read_volume(path)
    report = check_scan(path)
    assert time.process_time() - start < 2
    assert growth() < 300
    assert type(caught.value) is error
    check_sentence(caught.value, path)
    assert report.findings[0] == Finding(error.code, str(path), caught.value.detail)
    assert PROBLEMS[error.code].code.startswith("MV")
    assert not report.usable


def check_sentence(error, path):
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(error.detail) < 300
    assert len(error.detail.split()) > 3
    assert not text.endswith(".")


def test_nothing_at_the_path(tmp_path):
    names = ("gone.nii", "no/folder.nrrd", "file/scan.nii", "a\0b.nii")
    for path in (tmp_path / name for name in names):
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(p.MissingScanError) as caught:
            read_volume(path)
        check_sentence(caught.value, path)


def test_a_folder_and_a_pipe_are_no_scans(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    pipes = ("pipe.nii", "pipe.zip", "pipe.dcm")
    for name in pipes:
        os.mkfifo(tmp_path / name)
    for name, error in (("folder.nii", NoDicomError), *((name, p.UnknownFormatError) for name in pipes)):
        with pytest.raises(error) as caught:
            read_volume(tmp_path / name)
        check_sentence(caught.value, tmp_path / name)


def test_a_name_that_the_system_refuses(tmp_path):
    with pytest.raises(p.UnreadableScanError) as caught:
        read_volume(tmp_path / f"{'x' * 500}.nii")
    assert "File name too long" in str(caught.value)


def test_budget_is_judged_from_the_header_as_float32(scans, tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(scans.nifti())
    needed = 16 * 15 * 12 * 4
    assert read_volume(path, max_bytes=needed).shape == (12, 15, 16)
    with pytest.raises(p.TooLargeError, match="11,520 bytes; the budget is 11,519"):
        read_volume(path, max_bytes=needed - 1)
