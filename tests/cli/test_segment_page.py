"""``medvol segment --html``: one page an answer or a batch, and the command that it gives to correct an answer."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.cli import main

TOY = ("--policy", "ToyPolicy", "--propagator", "ToyPropagator")


def segment(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def test_an_answer_and_its_page(scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out, "--html") == 0
    assert {path.suffix for path in out.iterdir()} == {".gz", ".json", ".png", ".html"}
    (page,) = out.glob("ct_the-cube_*.html")
    assert str(page) in capsys.readouterr().out
    page.unlink()
    before = next(out.glob("*.json")).stat().st_mtime_ns
    assert segment(scan, "the cube", *TOY, "--out", out, "--html") == 0  # answered before; the page is made again
    assert page.is_file()
    assert str(page) in capsys.readouterr().out
    assert next(out.glob("*.json")).stat().st_mtime_ns == before


def test_a_page_older_than_its_answer_is_made_again(scan: Path, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = (scan, "the cube", *TOY, "--out", out, "--html")
    assert segment(*asked) == 0
    (page,), (record,) = out.glob("*.html"), out.glob("*.json")
    whole, made = page.read_text(), page.stat().st_mtime_ns
    assert segment(*asked) == 0
    assert page.stat().st_mtime_ns == made, "one that is as new stays"
    page.write_text("")
    assert segment(*asked) == 0
    assert page.read_text() == whole
    os.utime(record, ns=(made + 10**12, made + 10**12))
    page.write_text("an older one")
    assert segment(*asked) == 0
    assert page.read_text() == whole


@pytest.mark.parametrize("change", [{}, {"shape_zyx": "flat", "spacing_zyx_mm": [1]}], ids=["taken out", "broken"])
def test_the_page_takes_the_geometry_from_the_scan(scan: Path, toy: Path, tmp_path: Path, change: dict) -> None:
    """A person took out of the record what nothing else reads."""
    out = tmp_path / "out"
    asked = (scan, "the cube", *TOY, "--out", out, "--html")
    assert segment(*asked) == 0
    (page,), (record,) = out.glob("*.html"), out.glob("*.json")
    told = re.search(r"\d+ x \d+ x \d+ voxels", page.read_text()).group()
    content = json.loads(record.read_text())
    for key in ("shape_zyx", "spacing_zyx_mm"):
        del content["scan"][key]
    record.write_text(json.dumps({**content, "scan": {**content["scan"], **change}}))
    page.unlink()
    assert segment(*asked) == 0
    assert told in page.read_text()


def test_the_command_of_the_page_gives_the_mask_of_the_edited_record(
    scan: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--propagator.depth", 0, "--out", out, "--html") == 0
    (page,) = out.glob("*.html")
    text = page.read_text(encoding="utf-8")
    program, *arguments = shlex.split(unescape(re.search(r"<code>(medvol .*?)</code>", text)[1]))
    record = json.loads(unescape(re.search(r'class="record">.*?<code>(.*?)</code>', text, re.DOTALL)[1]))
    record["evidence"].update(key_slice=1, boxes_px=[[0, 0, 4, 8]])
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(scan, place)
    (place / f"{page.stem}.json").write_text(json.dumps(record))
    monkeypatch.chdir(place)
    assert program == "medvol"
    assert main(arguments) == 0
    mask = np.asarray(nib.load(place / f"{page.stem}_edited.nii.gz").dataobj)
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [1]
    assert int(mask.sum()) == 4 * 8


def test_a_page_that_is_there_is_refused_like_other_outputs(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    (record,) = out.glob("*.json")
    (out / f"{record.stem}_edited.html").write_text("mine")
    arguments = ("segment", "--evidence", record, "--propagator", "ToyPropagator", "--out", out, "--html")
    assert "_edited.html is there already" in refused(*arguments)
    assert main([*map(str, arguments), "--overwrite"]) == 0
    assert "the cube" in (out / f"{record.stem}_edited.html").read_text()


def test_a_batch_and_its_page(scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "out"
    jobs.write_text(json.dumps([{"scan": "scans/ct.nii.gz", "queries": ["the cube", "<b>cube</b>"]}]))
    assert segment("--jobs", jobs, *TOY, "--out", out, "--html") == 0
    assert [path.name for path in out.glob("*.html")] == ["answers.html"]
    assert "answers.html" in capsys.readouterr().out
    text = (out / "answers.html").read_text(encoding="utf-8")
    assert "2 answers" in text
    assert "&lt;b&gt;cube&lt;/b&gt;" in text
    assert os.fspath(tmp_path) not in text


def test_without_the_option_there_is_no_page(scan: Path, toy: Path, tmp_path: Path) -> None:
    assert segment(scan, "the cube", *TOY, "--out", tmp_path / "out") == 0
    assert not list((tmp_path / "out").glob("*.html"))
