"""Which page is written, when, and what becomes of an answer when it cannot be."""

import json
import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import medvol
from medvol.core.errors import OutputError
from medvol.core.looks import Look, Region, whole_region
from medvol.core.types import Completion, Evidence, Volume
from medvol.imaging.geometry import make_volume
from medvol.inference import answer_page
from medvol.inference.batch import run_jobs
from medvol.inference.batch_page import BatchPage, show_earlier, write_answer_page
from medvol.inference.jobs import Job
from medvol.inference.page_facts import correction, measured_facts, without_folders
from medvol.inference.records import read_record
from medvol.inference.segmentation import Segmentation
from medvol.inference.segmenter import Segmenter
from medvol.pages.document import in_base64


def records(page: Path) -> list[dict]:
    """The evidence records of a page, in its order."""
    found = re.findall(r'<details class="record">.*?<code>(.*?)</code>', page.read_text(encoding="utf-8"), re.DOTALL)
    return [json.loads(unescape(text)) for text in found]


def headings(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [unescape(title) for title in re.findall(r'<h[12] id="question-\d+" dir="auto">(.*?)</h', text)]


def badges(page: Path) -> list[str]:
    """Status of every answer, from its own header."""
    return re.findall(r'<article class="answer (\w+)"', page.read_text(encoding="utf-8"))


def make_jobs(scan: Path, out: Path, *queries: str) -> list[Job]:
    return [Job(scan, query, out, query.replace(" ", "-")) for query in queries]


def test_a_page_beside_the_answer(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    paths = segmenter.segment(scan, "the block").save(tmp_path / "out", "block", html=True)
    assert list(paths) == ["mask", "record", "overlay", "page"]
    (shown,) = records(paths["page"])
    record = json.loads(paths["record"].read_text())
    assert shown.pop("scan") == {**record.pop("scan"), "path": "case.nii.gz"}
    assert shown == record
    assert str(tmp_path) not in paths["page"].read_text()


def test_an_answer_that_is_written_again_without_a_page_loses_the_old_one(
    scan: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    answer = segmenter.segment(scan, "the block")
    answer.save(tmp_path / "out", "block", html=True)
    assert "page" not in answer.save(tmp_path / "out", "block")
    assert not (tmp_path / "out" / "block.html").exists()


def test_mask_and_record_outlive_a_page_that_fails(
    scan: Path, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*values: object) -> str:
        raise ValueError("no template")

    monkeypatch.setattr("medvol.pages.answers.render_document", fail)
    with pytest.raises(OutputError, match="page: ValueError: no template") as error:
        segmenter.segment(scan, "the block").save(tmp_path / "out", "block", html=True)
    assert set(error.value.paths) == {"mask", "record", "overlay"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"block.nii.gz", "block.json", "block.png"}
    assert json.loads((tmp_path / "out" / "block.json").read_text())["not_written"] == {
        "page": "ValueError: no template"
    }


def test_a_picture_that_fails_leaves_the_rest_of_the_page(
    scan: Path, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(picture: object) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(answer_page, "render_key_slice", fail)
    page = write_answer_page([segmenter.segment(scan, "the block")], tmp_path / "page.html")
    text = page.read_text()
    assert "Its picture could not be made: RuntimeError: no fonts." in text
    assert len(records(page)) == 1


def test_a_file_that_is_there_is_not_replaced(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    answer = segmenter.segment(scan, "the block")
    target = tmp_path / "page.html"
    target.write_text("mine")
    with pytest.raises(medvol.RecordError, match="is there already"):
        write_answer_page([answer], target)
    assert target.read_text() == "mine"
    write_answer_page([answer], target, overwrite=True)
    assert headings(target) == ["the block"]
    (tmp_path / "answer.json").write_text("mine")
    with pytest.raises(medvol.ConfigError, match=r"does not end in \.html or \.htm"):
        write_answer_page([answer], tmp_path / "answer.json", overwrite=True)
    assert (tmp_path / "answer.json").read_text() == "mine"
    (tmp_path / "answer.json").unlink()
    with pytest.raises(OSError, match="directory"):
        write_answer_page([answer], tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["scans", "page.html"] or len(list(tmp_path.iterdir())) == 2


def test_a_batch_has_one_page_in_the_order_of_its_jobs(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lost = Job(scan.with_name("lost.nii.gz"), "the block", out, "lost")
    jobs = [lost, *make_jobs(scan, out, "nonsense", "the block", "the tail")]
    summary = run_jobs(jobs, segmenter, out, html=True)
    assert [outcome.status for outcome in summary.outcomes] == ["failed", "failed", "done", "done"]
    page = out / "answers.html"
    assert badges(page) == ["failed", "failed", "found", "absent"]
    assert headings(page) == ["the block", "nonsense", "the block", "the tail"]
    text = page.read_text()
    assert "I cannot tell" in text  # what the policy said where it is no answer
    assert str(tmp_path) not in text
    assert not list(out.glob("*_*.html"))


def test_answers_of_an_earlier_run_are_on_the_page_too(
    scan: Path, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rerun asks nothing, and its page is the same but for the question that is new."""
    first, second = tmp_path / "first", tmp_path / "second"
    jobs = make_jobs(scan, first, "the block", "the tail")
    run_jobs(jobs, segmenter, first, html=True)
    before = (first / "answers.html").read_bytes()
    monkeypatch.setattr(Segmenter, "ask", lambda *arguments: pytest.fail("asked again"))
    summary = run_jobs(jobs, segmenter, first, html=True)
    assert [outcome.status for outcome in summary.outcomes] == ["skipped", "skipped"]
    assert (first / "answers.html").read_bytes() == before
    assert not second.exists()


def test_an_earlier_mask_that_is_damaged_is_made_again(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = make_jobs(scan, out, "the block", "the tail")
    run_jobs(jobs, segmenter, out)
    mask = next(out.glob("the-block*.nii.gz"))
    before = mask.read_bytes()
    mask.write_bytes(b"no mask")
    summary = run_jobs(jobs, segmenter, out, html=True)
    assert [outcome.status for outcome in summary.outcomes] == ["done", "skipped"]
    assert mask.read_bytes() == before
    assert badges(out / "answers.html") == ["found", "absent"]


def test_a_batch_whose_page_cannot_be_written_says_so(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = make_jobs(scan, out, "the block")
    summary = run_jobs(jobs, segmenter, out, html=True, progress=lambda outcome: (out / "answers.html").mkdir())
    assert summary.outcomes[0].status == "done"
    assert summary.exit_code == 1
    assert "answers.html" in summary.problem
    assert (out / "summary.json").is_file()


def describe(volume: Volume, modality: str) -> list[str]:
    mask = np.zeros(volume.shape, bool)
    mask[1:3, 2:4, 2:5] = True
    evidence = Evidence(1, np.array([[2.0, 2.0, 5.0, 4.0]]))
    answer = Segmentation(volume, "the block", mask, evidence, Completion("")).show("block")
    assert answer.record.count('"modality"') == 1
    assert modality in answer.record
    return [f"{fact.label}: {fact.value}" for fact in answer.facts]


@pytest.mark.parametrize(("modality", "mean"), [("CT", ["Mean density: 7 HU"]), ("MR", []), ("other", [])])
def test_only_a_ct_has_a_mean_in_hounsfield_units(modality: str, mean: list[str]) -> None:
    """2 x 2 x 3 voxels of 5 x 1 x 1 mm. On the outline of 2 x 3 pixels the farthest points are (0, -0.5) and (1, 2.5),
    so sqrt(10) mm apart; (1.5, 0) and (-0.5, 2) are the farthest across, (3 * 2 + 2) / sqrt(10) mm."""
    volume = make_volume(np.full((4, 6, 8), 7.0, np.float32), (5.0, 1.0, 1.0), modality)
    assert describe(volume, modality) == [
        "Key slice: 1", "Volume: 0.06 ml", "Longest diameter: 3.2 mm", "Diameter across it: 2.5 mm", *mean,
    ]  # fmt: skip


def test_a_mask_of_one_voxel_is_not_empty() -> None:
    """0.7 x 0.7 x 1.0 mm are 0.49 mm3."""
    volume = make_volume(np.full((4, 6, 8), 7.0, np.float32), (1.0, 0.7, 0.7), "CT")
    mask = np.zeros(volume.shape, bool)
    mask[2, 2, 3] = True
    answer = Segmentation(volume, "the dot", mask, Evidence(2, np.array([[3.0, 2.0, 4.0, 3.0]])), Completion(""))
    assert answer.show("dot").verdict == "Found on key slice 2; the mask has 0.00049 ml."
    empty = Segmentation(volume, "the dot", np.zeros_like(mask), answer.evidence, Completion(""))
    assert empty.show("dot").verdict == "Found on key slice 2; the mask is empty."


def test_values_that_a_person_broke_are_not_shown_as_figures() -> None:
    record = {
        "mask": {"voxels": 3, "volume_ml": "a lot", "longest_diameter_mm": None, "intensity_unit": "HU"},
        "evidence": {"key_slice": 1, "boxes_px": [[0, 0, 1, 1]]},
    }
    assert [fact.value for fact in measured_facts(record, 4, 1)][1:] == ["not told"] * 4
    facts = measured_facts({**record, "mask": {"voxels": "three"}}, 4, 1)
    assert facts[1].note == "not told on 1 slice"


def test_of_paths_the_last_name_is_left() -> None:
    record = {
        "scan": {"path": "/home/jane/ward 3/ct.nii.gz"},
        "policy": {"name": "P", "model": "C:\\Users\\jane\\model", "answers": ["/a/b is\nno path", "~/x/y"]},
        "propagator": {"name": "R", "weights": "/srv/w.pt", "mode": "a/b"},
    }
    plain = without_folders(record)
    assert plain["scan"]["path"] == "ct.nii.gz"
    assert plain["policy"] == {"name": "P", "model": "model", "answers": ["/a/b is\nno path", "y"]}
    assert plain["propagator"] == {"name": "R", "weights": "w.pt", "mode": "a/b"}
    assert record["scan"]["path"].startswith("/home")


def test_the_command_names_the_propagator_and_what_is_not_its_default(scan: Path, segmenter: Segmenter) -> None:
    record = json.loads(segmenter.segment(scan, "the block").show("block").record)
    options = ["--propagator", "ExtrudePropagator", "--propagator.half_depth_slices", "1"]
    command = ["medvol", "segment", "case.nii.gz", "--evidence", "block.json", *options, "--out", "."]
    how = correction(record, "block.json", (12, 30, 40))
    assert shlex.split(how.command) == command
    assert (how.last_slice, how.height_px, how.width_px) == (11, 30, 40)
    record["propagator"] = {"name": "RegionPropagator"}
    assert "--propagator" not in correction(record, "block.json", (12, 30, 40)).command
    record["propagator"] = {"name": "OfSomebody", "depth": 3}
    assert "--propagator OfSomebody --out" in correction(record, "block.json", (12, 30, 40)).command


def test_an_error_in_place_of_an_answer(tmp_path: Path) -> None:
    error = medvol.PropagationError("the anchor left the scan")
    page = write_answer_page([("the spleen", error)], tmp_path / "page.html")
    assert badges(page) == ["failed"]
    assert "the anchor left the scan" in page.read_text()


def test_every_page_frames_what_a_second_look_showed(scan: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    """As the page of a notebook does; the picture without the frame is another one."""
    answer = segmenter.segment(scan, "the block")
    depth, height, width = answer.volume.shape
    part = Region((0, depth), (0, height // 2), (0, width // 2))
    looks = (Look(whole_region(answer.volume.shape), "first"), Look(part, "second"))
    twice = replace(answer, completion=replace(answer.completion, looks=looks))
    paths = twice.save(tmp_path, "block", html=True)
    batch = BatchPage()
    batch.show_written(make_jobs(scan, tmp_path, "the block")[0], twice, paths["record"])
    (written,) = batch._shown.values()
    earlier = show_earlier(answer.volume, (paths["record"], read_record(paths["record"])))
    framed = twice.show("block").picture
    assert framed is not None
    assert framed != answer.show("block").picture
    assert written.picture == earlier.picture == framed
    assert in_base64(framed) in paths["page"].read_text()
