"""The scan of a record is found from any folder."""

import json
from pathlib import Path

import pytest

from medvol.cli import main
from medvol.core.errors import RecordError
from medvol.inference.recorded_scan import place_scan, require_scan
from tests.viewing.conftest import answer_folder


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A folder as a demo leaves it, made from the folder above; returns the path of a record."""
    folder = tmp_path / "work" / "demo"
    (folder / "answers").mkdir(parents=True)
    (folder / "scan.nii.gz").touch()
    return folder / "answers" / "a.json"


@pytest.mark.parametrize("start", ["work", "work/demo", "work/demo/answers", "."])
def test_a_relative_path_is_found_from_any_folder(
    start: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / start)
    assert place_scan("demo/scan.nii.gz", demo).samefile(demo.parents[1] / "scan.nii.gz")
    near = demo.relative_to(Path.cwd())
    found = place_scan("demo/scan.nii.gz", near)
    assert found.samefile(demo.parents[1] / "scan.nii.gz")
    assert not found.is_absolute(), "no absolute path comes where the user gave none"


def test_what_lies_in_the_working_folder_comes_first(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "scan.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    assert place_scan("demo/scan.nii.gz", demo) == Path("demo/scan.nii.gz")


@pytest.mark.parametrize("scan", ["demo/other.nii.gz", "/nowhere/other.nii.gz"])
def test_a_scan_that_is_gone_is_told_with_the_record(scan: str, demo: Path) -> None:
    with pytest.raises(RecordError) as caught:
        require_scan(scan, demo)
    said = str(caught.value)
    assert said.startswith(f"{demo} names the scan '{scan}', which is not there")
    assert (f"in {str(demo.parent)!r} or above" in said) is (not scan.startswith("/"))


def test_evidence_is_propagated_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = answer_folder(tmp_path / "made")
    record = answers / "case0a.json"
    content = json.loads(record.read_text())
    content["scan"]["path"] = "made/scans/scan0.nii.gz"
    record.write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    arguments = ["segment", "--evidence", str(record), "--propagator", "ExtrudePropagator", "--out"]
    assert main([*arguments, "out"]) == 0, capsys.readouterr().err
    (tmp_path / "made" / "scans" / "scan0.nii.gz").unlink()
    assert main([*arguments, "again"]) == 2
    assert f"{record} names the scan 'made/scans/scan0.nii.gz', which is not there" in capsys.readouterr().err
    assert not Path("again").exists()
