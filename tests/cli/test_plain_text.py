"""Names and words of strangers: printed as they are, obeyed by nothing, in the way of nothing."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvol.cli import main
from medvol.imaging.geometry import make_volume
from medvol.imaging.writing import write_mask
from medvol.inference import segmentation

TOY = ("--policy", "ToyPolicy", "--propagator", "ToyPropagator")
HOSTILE = "[/b] [red]x \x1b[31m\x1b]0;t\x07 \u202e \r z"


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures have their own tests."""
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: b"picture")


def write_scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_mask(path, np.zeros((4, 8, 8), bool), make_volume(np.zeros((4, 8, 8), np.float32), (5.0, 2.0, 2.0)))


def assert_plain(text: str) -> None:
    assert not set(text) & set("\x1b\x07\r\u202e")
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["p [b]", "p\x1b[31m\n\u202eq", "caf\udce9"])
def test_every_verb_takes_a_path_of_any_letters(
    name: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_scan(tmp_path / "plain.nii.gz")
    folder = tmp_path / name
    folder.mkdir()
    scan = scan.rename(folder / f"{name}.nii.gz")
    out = tmp_path / f"out {name}"
    assert main(["segment", str(scan), HOSTILE, *TOY, "--out", str(out)]) == 0
    assert main(["segment", str(scan), HOSTILE, *TOY, "--out", str(out)]) == 0
    (record,) = out.glob("*.json")
    assert main(["segment", "--evidence", str(record), "--propagator", "ToyPropagator", "--out", str(out)]) == 0
    assert main(["segment", str(folder), HOSTILE, *TOY, "--out", str(out / "many")]) == 0
    assert main(["check", str(folder)]) in (0, 1)
    assert main(["check", str(scan)]) in (0, 1)
    assert main(["report", str(folder)]) == 2
    assert main(["convert", str(folder / "no.ckpt"), str(out / "model")]) == 2
    captured = capsys.readouterr()
    assert_plain(captured.out + captured.err)
    assert "[/b] [red]x \\x1b[31m" in captured.out
    assert json.loads(record.read_text())["scan"]["path"] == str(scan)


def test_hostile_words_in_files_are_shown(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / "a.nii.gz")
    missing = (f"no {HOSTILE}.nii.gz", "a\0.nii.gz", "\ud800.nii", "\ud800.dcm")
    jobs = [
        {"scan": "a.nii.gz", "queries": [HOSTILE, "\ud800"]},
        *({"scan": scan, "query": HOSTILE} for scan in missing),
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    (tmp_path / "unknown.json").write_text(json.dumps([{"scan": "a", HOSTILE: 1}]))
    (tmp_path / "record.json").write_text(json.dumps({"schema": HOSTILE}))
    assert main(["segment", "--jobs", "jobs.json", *TOY, "--out", "out"]) == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]["done"] == 1
    assert_plain((tmp_path / "out" / "answers.csv").read_bytes().decode().replace("\r\n", "\n"))
    assert main(["segment", "--jobs", "unknown.json", *TOY]) == 2
    assert main(["segment", "--evidence", "record.json"]) == 2
    assert main([HOSTILE]) == 2
    assert main(["describe", HOSTILE]) == 2
    captured = capsys.readouterr()
    assert_plain(captured.out + captured.err)
    assert "\\x1b[31m" in captured.out
    assert "\\x1b[31m" in captured.err


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_a_console_that_lacks_letters(
    encoding: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "肝脏"
    scan = write_scan(folder / "患者.nii.gz")
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    out = tmp_path / "出"
    for arguments in (
        ["segment", str(scan), "脾臓はどこ", *TOY, "--out", str(out)],
        ["segment", str(folder), "脾臓はどこ", *TOY, "--out", str(out / "many")],
        ["check", str(folder)],
        ["list"],
        ["describe", "ToyPolicy"],
        ["--help"],
    ):
        assert main(arguments) in (0, 1), arguments
    assert main(["segment", str(folder / "無.nii.gz"), "脾", *TOY]) == 2
    texts = [stream.buffer.getvalue() for stream in streams.values() if stream.flush() is None]
    assert len(list(out.glob("*.png"))) == len(list((out / "many").glob("*.png"))) == 1
    assert ("患者" if encoding == "utf-8" else "\\u60a3\\u8005").encode(encoding) in texts[0]
    assert b"Traceback" not in texts[1]


def test_a_plug_in_that_fails_with_escapes(
    distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"raise ImportError({HOSTILE!r})"
    distribution("medvol_hostile", {"policies": {"HostilePolicy": "medvol_hostile:HostilePolicy"}}, source)
    assert main(["list"]) == 0
    assert main(["describe", "HostilePolicy"]) == 2
    captured = capsys.readouterr()
    assert_plain(captured.out + captured.err)
    assert "\\x1b[31m" in captured.out
