"""Batches: a bad case does not stop the others, a rerun does only what is left."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from medvol.core import settled_files
from medvol.core.errors import CheckpointError
from medvol.core.roles import Propagator
from medvol.imaging.reading import read_volume
from medvol.inference import segmentation
from medvol.inference.batch import run_jobs
from medvol.inference.jobs import find_jobs
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

BOX = '<answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'
ABSENT = "<answer>[]</answer>"


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Pictures have their own tests."""
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: b"picture")


class CountingPolicy(ScriptedPolicy):
    """Counts how often it is asked; once ``stop_after`` is used up it is interrupted, as by Ctrl-C."""

    stop_after: int | None = None
    asked = 0

    def generate(self, prompts, n=1, sampling=None):
        if self.stop_after is not None and self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        return super().generate(prompts, n, sampling)


def make_segmenter(**answers: str) -> Segmenter:
    return Segmenter(CountingPolicy([BOX], {"nonsense": "no idea", "the tail": ABSENT, **answers}), ExtrudePropagator())


@pytest.fixture
def scans(write_block, tmp_path: Path) -> Path:
    for name in "abc":
        write_block(tmp_path / "scans" / f"{name}.nii.gz", offset=ord(name))
    return tmp_path / "scans"


def read_summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def file_of(out: Path, start: str, ending: str = "json") -> Path:
    """The one file whose name starts so; twelve digits follow."""
    (path,) = out.glob(f"{start}_{'[0-9a-f]' * 12}.{ending}")
    return path


def test_one_bad_case_does_not_stop_the_others(scans, tmp_path: Path):
    (scans / "b.nii.gz").write_bytes(b"not a scan")
    out = tmp_path / "out"
    summary = run_jobs(find_jobs(scans, ["the block", "nonsense"], out), make_segmenter(), out)
    assert [outcome.status for outcome in summary.outcomes] == ["done", "failed", "failed", "failed", "done", "failed"]
    assert summary.outcomes[1].error == "EvidenceParseError"
    assert "no idea" in summary.outcomes[1].detail
    assert "b.nii.gz" in summary.outcomes[2].detail
    assert summary.exit_code == 1
    assert read_summary(out)["counts"] == {"done": 2, "skipped": 0, "failed": 4, "not run": 0}
    expected = [
        *(file_of(out, f"{case}_the-block", ending) for case in "ac" for ending in ("json", "nii.gz", "png")),
        *(file_of(out, f"{case}_nonsense", "failed.json") for case in "ac"),
        *(out / "summary.json", out / "answers.csv"),
    ]
    assert sorted(out.iterdir()) == sorted([*expected, out / ".scans-read"])


def test_scan_is_read_and_drawn_once_for_all_its_queries(scans, tmp_path: Path):
    read = []
    segmenter = make_segmenter()
    jobs = find_jobs(scans, ["the block", "the tail", "the rest"], tmp_path / "out")
    interleaved = sorted(jobs, key=lambda job: job.query)
    summary = run_jobs(
        interleaved, segmenter, tmp_path / "out", read=lambda path: read.append(path) or read_volume(path)
    )
    assert len(read) == 3
    assert segmenter.policy.asked == 3
    assert [outcome.query for outcome in summary.outcomes] == [job.query for job in interleaved]
    assert summary.exit_code == 0


def test_rerun_skips_what_is_done(scans, tmp_path: Path):
    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block"], out)
    run_jobs(jobs, make_segmenter(), out)
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("[abc]_*")}
    segmenter = make_segmenter()
    summary = run_jobs(jobs, segmenter, out)
    assert [outcome.status for outcome in summary.outcomes] == ["skipped"] * 3
    assert summary.exit_code == 0
    assert segmenter.policy.asked == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("[abc]_*")} == written
    assert [o.status for o in run_jobs(jobs, segmenter, out, overwrite=True).outcomes] == ["done"] * 3


@pytest.mark.parametrize("change", ["policy", "propagator", "scan", "older scan", "mask", "record"])
def test_rerun_answers_again_what_changed(write_block, scans, tmp_path: Path, change):
    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block"], out)
    run_jobs(jobs, make_segmenter(), out)
    segmenter = make_segmenter()
    if change == "policy":
        segmenter = make_segmenter(another="answer")
    elif change == "propagator":
        segmenter = Segmenter(segmenter.policy, ExtrudePropagator(half_depth_slices=2))
    elif change.endswith("scan"):
        os.utime(file_of(out, "b_the-block"), (0, 0))  # the record was written before the scan came here
        write_block(scans / "b.nii.gz", offset=5)
        if change == "older scan":  # as a copy that keeps the time of its original
            os.utime(scans / "b.nii.gz", (0, 0))
    else:
        file_of(out, "b_the-block", "nii.gz" if change == "mask" else "json").unlink()
    before = {path: path.read_bytes() for path in out.glob("*.nii.gz")}
    statuses = [outcome.status for outcome in run_jobs(jobs, segmenter, out).outcomes]
    assert all(path.read_bytes() == content for path, content in before.items()), "no other answer is replaced"
    assert statuses == (["done"] * 3 if change in ("policy", "propagator") else ["skipped", "done", "skipped"])


@pytest.mark.parametrize("edited", [False, True])
def test_a_scan_that_was_only_touched_is_the_same_scan(scans, tmp_path: Path, monkeypatch, edited):
    """It is read to know; its answer, and what a person made of it, stay."""
    monkeypatch.setattr(settled_files, "_SETTLED_NS", -1)
    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block", "the tail"], out)
    run_jobs(jobs, make_segmenter(), out)
    record = file_of(out, "b_the-block")
    if edited:
        record.write_text(record.read_text().replace('"edited": false', '"edited": true'))
    os.utime(scans / "b.nii.gz")
    content, read = record.read_bytes(), []
    segmenter = make_segmenter()
    summary = run_jobs(jobs, segmenter, out, read=lambda path: read.append(path.name) or read_volume(path))
    assert [outcome.status for outcome in summary.outcomes] == ["skipped"] * 6
    assert (read, segmenter.policy.asked) == (["b.nii.gz"], 0)
    assert record.read_bytes() == content


def test_an_output_that_is_a_file_stops_before_the_first_case(scans, tmp_path: Path):
    out = tmp_path / "out"
    out.write_text("in the way")
    segmenter = make_segmenter()
    with pytest.raises(FileExistsError):
        run_jobs(find_jobs(scans, ["the block"], out), segmenter, out)
    assert segmenter.policy.asked == 0


def test_edited_record_is_kept(scans, tmp_path: Path):
    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block"], out)
    run_jobs(jobs, make_segmenter(), out)
    path = file_of(out, "a_the-block")
    content = json.loads(path.read_text())
    content["evidence"]["boxes_px"] = [[1, 1, 5, 5]]
    path.write_text(json.dumps(content))
    assert run_jobs(jobs, make_segmenter(), out).outcomes[0].status == "skipped"
    assert json.loads(path.read_text()) == content


def test_interrupt_leaves_finished_cases_and_a_summary(scans, tmp_path: Path):
    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block"], out)
    segmenter = make_segmenter()
    segmenter.policy.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, segmenter, out)
    assert read_summary(out)["counts"] == {"done": 2, "skipped": 0, "failed": 0, "not run": 1}
    assert [path.name for path in out.glob(".*")] == [".scans-read"]
    with (out / "answers.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done", "not run"]
    summary = run_jobs(jobs, make_segmenter(), out)
    assert [outcome.status for outcome in summary.outcomes] == ["skipped", "skipped", "done"]


def test_component_that_breaks_is_named_and_the_batch_goes_on(scans, tmp_path: Path):
    class Breaks(Propagator):
        def propagate(self, volume, evidence, z_range=None):
            if volume.voxels.max() == 80 + ord("b"):
                raise ZeroDivisionError("division by zero")
            return np.zeros(volume.shape, bool)

    out = tmp_path / "out"
    summary = run_jobs(find_jobs(scans, ["the block"], out), Segmenter(ScriptedPolicy([BOX]), Breaks()), out)
    assert [outcome.status for outcome in summary.outcomes] == ["done", "failed", "done"]
    assert summary.outcomes[1].error == "PropagationError"
    assert "the propagator Breaks of the module" in summary.outcomes[1].detail
    assert "ZeroDivisionError: division by zero" in summary.outcomes[1].detail


def test_a_query_that_the_policy_fails_on_harms_no_other(scans, tmp_path: Path):
    class Picky(ScriptedPolicy):
        def generate(self, prompts, n=1, sampling=None):
            if any(prompt.query == "the ghost" for prompt in prompts):
                raise SystemExit("no ghosts")
            return super().generate(prompts, n, sampling)

    out = tmp_path / "out"
    jobs = find_jobs(scans, ["the block", "the ghost"], out)
    summary = run_jobs(jobs, Segmenter(Picky([BOX]), ExtrudePropagator()), out)
    assert [o.status for o in summary.outcomes if o.query == "the block"] == ["done"] * 3
    assert {(o.status, o.error) for o in summary.outcomes if o.query == "the ghost"} == {("failed", "PolicyError")}


def test_a_propagator_that_clears_the_volume_changes_no_record(scans, tmp_path: Path):
    class Clears(ExtrudePropagator):
        def propagate(self, volume, evidence, z_range=None):
            volume.voxels[:] = 0
            return super().propagate(volume, evidence, z_range)

    out = tmp_path / "out"
    summary = run_jobs(find_jobs(scans, ["the block"], out), Segmenter(ScriptedPolicy([BOX]), Clears()), out)
    assert {(o.status, o.error) for o in summary.outcomes} == {("failed", "PropagationError")}
    assert all("read-only" in o.detail for o in summary.outcomes)


def test_missing_model_stops_before_the_first_case(scans, tmp_path: Path):
    class Missing(ScriptedPolicy):
        def identity(self):
            raise CheckpointError("runs/none holds no model")

    out = tmp_path / "out"
    with pytest.raises(CheckpointError):
        run_jobs(find_jobs(scans, ["the block"], out), Segmenter(Missing(), ExtrudePropagator()), out)
    assert not out.exists()


def test_progress_hears_of_every_job(scans, tmp_path: Path):
    heard = []
    summary = run_jobs(
        find_jobs(scans, ["the block", "nonsense"], tmp_path / "out"),
        make_segmenter(),
        tmp_path / "out",
        progress=heard.append,
    )
    assert sorted(heard, key=repr) == sorted(summary.outcomes, key=repr)


def test_table_shows_counts_and_failures_as_they_are(scans, tmp_path: Path):
    out = tmp_path / "out"
    jobs = [replace(job, query="[bold]nonsense[/]") for job in find_jobs(scans, ["nonsense"], out)]
    summary = run_jobs(jobs, make_segmenter(**{"[bold]nonsense[/]": "[red]x"}), out)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary.table())
    text = console.export_text()
    assert "0 done, 0 skipped, 3 failed, 0 not run" in text
    assert "[bold]nonsense[/]" in text
    assert "EvidenceParseError: no_answer" in text


def test_two_hundred_cases_ten_of_them_bad(tmp_path: Path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for i in range(200):
        voxels = np.full((8, 8, 4), -100, np.int16)
        voxels[0] = -1000
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), scans / f"{i:03d}.nii")
    for i in range(0, 200, 20):
        path = scans / f"{i:03d}.nii"
        path.write_bytes(path.read_bytes()[:-7])
    jobs = find_jobs(scans, ["the block"], out)
    summary = run_jobs(jobs, make_segmenter(), out)
    assert (len(summary.of("done")), len(summary.of("failed")), summary.exit_code) == (190, 10, 1)
    assert {Path(outcome.scan).stem for outcome in summary.of("failed")} == {f"{i:03d}" for i in range(0, 200, 20)}
    assert {outcome.error for outcome in summary.of("failed")} == {"TruncatedScanError"}
    assert len(list(out.glob("*.nii.gz"))) == 190
    segmenter = make_segmenter()
    again = run_jobs(jobs, segmenter, out)
    assert (len(again.of("skipped")), len(again.of("failed")), segmenter.policy.asked) == (190, 10, 0)
    sound = (scans / "001.nii").read_bytes()
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    for i in range(0, 200, 20):
        (scans / f"{i:03d}.nii").write_bytes(sound)
    mended = run_jobs(jobs, segmenter, out)
    assert (len(mended.of("skipped")), len(mended.of("done")), mended.exit_code) == (190, 10, 0)
    assert segmenter.policy.asked == 10
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz") if path.name in written} == written
