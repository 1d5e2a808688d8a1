"""No answer takes the place of another: names differ where the question does, and what is there stays."""

import csv
import hashlib
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core import settled_files
from medvol.core.errors import ConfigError, OutputError, RecordError
from medvol.core.roles import Propagator
from medvol.imaging.dicom.outputs import DicomOutputs
from medvol.imaging.reading import read_volume
from medvol.imaging.writing import write_mask
from medvol.inference import records, segmentation
from medvol.inference.batch import run_jobs
from medvol.inference.jobs import Job, answer_stem, case_name, find_jobs, read_jobs
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.terminal.stops import Terminated
from medvol.viewing.entries import open_failure

BOX = '<answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: b"picture")


def segmenter(depth: int = 1, *answers: str) -> Segmenter:
    return Segmenter(ScriptedPolicy(list(answers) or [BOX]), ExtrudePropagator(half_depth_slices=depth))


def run(out: Path, *jobs: Job, by: Segmenter | None = None, **options):
    return run_jobs(jobs, by or segmenter(), out, **options)


def job(scan: Path, query: str, out: Path, name: str = "", series: str | None = None) -> Job:
    stem = name or answer_stem(case_name(scan, series), query)
    return Job(scan, query, out, stem, series, named=bool(name))


def statuses(summary) -> list[str]:
    return [outcome.status for outcome in summary.outcomes]


def contents(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*_*")}


QUERIES = [
    *("T1+", "T1-", "T1 +", "t1+", "T1", "+", "-", "?", "the spleen", "The Spleen", "the spleen?", "the  spleen"),
    *("x" * 48 + "a", "x" * 48 + "b", "脾" * 60, "脾" * 61, "ǆ", "ǅ", "é", "e\u0301"),
]


def test_every_question_keeps_its_own_answer(write_block, tmp_path: Path):
    """One after the other into one folder, as separate commands; then all of them are known."""
    scan, out = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out"
    jobs = [job(scan, query, out) for query in QUERIES]
    kept: dict[str, str] = {}
    for asked in jobs:
        assert statuses(run(out, asked)) == ["done"]
        now = contents(out)
        assert kept.items() <= now.items()
        assert len(now) == len(kept) + 3
        kept = now
    assert len({name.casefold() for name in kept}) == len(kept)
    assert statuses(run(out, *jobs)) == ["skipped"] * len(jobs)
    assert contents(out) == kept


@pytest.mark.parametrize("together", [True, False])
def test_scans_of_one_name_keep_their_answers(write_block, tmp_path: Path, together):
    out = tmp_path / "out"
    scans = [write_block(tmp_path / patient / "imaging.nii.gz", offset=i) for i, patient in enumerate("abc")]
    jobs = [job(scan, "the block", out) for scan in scans]
    for group in [jobs] if together else [[asked] for asked in jobs]:
        assert set(statuses(run(out, *group))) == {"done"}
    found = [records.read_record(path) for path in out.glob("*.json") if path.name != "summary.json"]
    assert {record.scan_path for record in found} == set(map(str, scans))
    assert statuses(run(out, *jobs)) == ["skipped"] * 3


def test_a_scan_that_was_replaced_leaves_the_former_answer(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    run(out, job(scan, "the block", out))
    before = contents(out)
    write_block(scan, offset=7)
    assert statuses(run(out, job(scan, "the block", out), read_all=True)) == ["done"]
    assert before.items() <= contents(out).items()


def test_the_same_scan_elsewhere_is_known(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "a" / "scan.nii.gz")
    run(out, job(scan, "the block", out))
    (tmp_path / "b").mkdir()
    copied = shutil.copy(scan, tmp_path / "b")
    moved = Path(shutil.move(scan, tmp_path / "scan.nii.gz"))
    assert statuses(run(out, job(Path(copied), "the block", out), job(moved, "the block", out))) == ["skipped"] * 2


def test_a_record_that_somebody_broke_while_editing_is_kept(write_block, tmp_path: Path):
    scan, out = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out"
    asked = job(scan, "the spleen", out)
    run(out, asked)
    [record] = out.glob("*_*.json")
    record.write_text(record.read_text().replace('"key_slice": 3', '"key_slice": 4 5'))
    kept = contents(out)
    summary = run(out, asked)
    assert statuses(summary) == ["failed"]
    assert "cannot be read; correct it" in summary.outcomes[0].detail
    assert contents(out) == kept
    assert statuses(run(out, asked, overwrite=True)) == ["done"]


def test_another_policy_or_propagator_answers_beside(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    run(out, job(scan, "the block", out))
    before = contents(out)
    for other in (segmenter(2), segmenter(1, BOX, BOX)):
        assert statuses(run(out, job(scan, "the block", out), by=other)) == ["done"]
    assert before.items() <= contents(out).items()
    assert len(contents(out)) == 9


def test_another_modality_is_another_question(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    for modality in ("CT", "MR"):
        read = lambda path, modality=modality: read_volume(path, modality=modality)  # noqa: E731
        assert statuses(run(out, job(scan, "the block", out), read=read, read_all=True)) == ["done"]
    assert len(contents(out)) == 6


@pytest.mark.parametrize("given", [{"modality": "MR"}, {"nan_to": 0.0}], ids=["modality", "nan_to"])
def test_an_answer_about_a_scan_that_was_read_otherwise_is_looked_at(write_block, tmp_path: Path, monkeypatch, given):
    """Asked with a setting of the reader by mistake, then without it; a third time the scan is not read again."""
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    asked = job(scan, "the block", out)
    run(out, asked, read=lambda path: read_volume(path, **given), read_all=True)
    read = []

    def read_plainly(path):
        read.append(path)
        return read_volume(path)

    monkeypatch.setattr(settled_files, "_SETTLED_NS", -1)
    same = "modality" not in given  # no voxel was filled, so the scan is the same
    (outcome,) = run(out, asked, read=read_plainly).outcomes
    assert (outcome.status, len(read)) == ("skipped" if same else "done", 1)
    found = records.read_record(outcome.record)
    assert found.modality == read_volume(scan).modality
    assert found.read_with == (given if same else {})
    assert statuses(run(out, asked, read=read_plainly)) == ["skipped"]
    assert len(read) == 1


def test_an_answer_of_a_given_name_is_kept_from_another_modality(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    asked = job(scan, "the block", out, "mine")
    assert statuses(run(out, asked, read=lambda path: read_volume(path, modality="MR"), read_all=True)) == ["done"]
    (outcome,) = run(out, asked).outcomes
    assert (outcome.status, outcome.error) == ("failed", "RecordError")
    assert "read as MR" in outcome.detail
    assert statuses(run(out, asked, overwrite=True)) == ["done"]
    assert statuses(run(out, asked)) == ["skipped"]


def test_a_given_name_is_not_taken_from_another_question(write_block, tmp_path: Path):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    first, other = job(scan, "the block", out, "mine"), job(scan, "the rest", out, "mine")
    assert statuses(run(out, first)) == ["done"]
    before = {path.name: path.read_bytes() for path in out.glob("mine*")}
    assert set(before) == {"mine.nii.gz", "mine.json", "mine.png"}
    for asked, by in ((other, segmenter()), (first, segmenter(2))):
        (outcome,) = run(out, asked, by=by).outcomes
        assert (outcome.status, outcome.error) == ("failed", "RecordError")
        assert "--overwrite" in outcome.detail
        assert {path.name: path.read_bytes() for path in out.glob("mine*")} == before
    assert statuses(run(out, first)) == ["skipped"]
    assert statuses(run(out, other, overwrite=True)) == ["done"]
    assert records.read_record(out / "mine.json").query == "the rest"


@pytest.mark.parametrize("ending", [".nii.gz", ".json", ".png", ".seg.dcm", ".rtstruct.dcm"])
def test_a_given_name_does_not_replace_somebodys_file(write_block, tmp_path: Path, ending):
    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    out.mkdir()
    (out / f"mine{ending}").write_text("precious")
    assert statuses(run(out, job(scan, "the block", out, "mine"))) == ["failed"]
    assert (out / f"mine{ending}").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_given_name_does_not_replace_the_scan(write_block, tmp_path: Path, overwrite):
    scan = write_block(tmp_path / "scan.nii.gz")
    content = scan.read_bytes()
    assert statuses(run(tmp_path, job(scan, "the block", tmp_path, "scan"), overwrite=overwrite)) == ["failed"]
    assert scan.read_bytes() == content


def test_what_was_said_is_kept_until_the_question_is_answered(write_block, tmp_path: Path):
    class Same(ScriptedPolicy):
        """Answers differently under one identity."""

        def identity(self):
            return {"name": "Same"}

    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    asked = job(scan, "the block", out)
    for _ in range(2):
        summary = run(out, asked, by=Segmenter(Same(["I see\x1b nothing"]), ExtrudePropagator()))
        assert (statuses(summary), summary.outcomes[0].record) == (["failed"], "")
        (kept,) = out.glob("*.failed.json")
        assert str(kept) in summary.outcomes[0].detail
    content = json.loads(kept.read_text())
    assert (content["completion"], content["failure"]) == ("I see\x1b nothing", "no_answer")
    assert not list(out.glob("*.nii.gz"))
    assert statuses(run(out, asked, by=Segmenter(Same([BOX]), ExtrudePropagator()))) == ["done"]
    assert not kept.exists()


def test_an_answer_without_its_picture_is_told_and_done_again(write_block, tmp_path: Path, monkeypatch):
    def fail(segmentation):
        raise OSError(28, "No space left on device")

    out, scan = tmp_path / "out", write_block(tmp_path / "scan.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "render_overlay", fail)
        summary = run(out, job(scan, "the block", out))
    (outcome,) = summary.outcomes
    assert (outcome.status, outcome.error, summary.exit_code) == ("failed", OutputError.__name__, 1)
    assert "No space left" in outcome.detail
    assert records.read_record(Path(outcome.record)).query == "the block"
    assert outcome.voxels == 720
    assert statuses(run(out, job(scan, "the block", out))) == ["done"]


def test_no_scan_that_can_have_dicom_outputs_is_refused_at_once(write_block, tmp_path: Path):
    class Unloaded(ScriptedPolicy):
        def identity(self):
            raise AssertionError("the model is loaded")

    scan = write_block(tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match=r"none of the scans is.*scan\.nii\.gz"):
        run(
            tmp_path,
            job(scan, "q", tmp_path),
            by=Segmenter(Unloaded([BOX]), ExtrudePropagator()),
            dicom=DicomOutputs(("seg",)),
        )


@pytest.mark.parametrize("query", ["\ud800", "the \udce9 spleen", "  "])
def test_a_query_that_is_no_text_fails_alone(write_block, tmp_path: Path, query):
    write_block(tmp_path / "scan.nii.gz")
    path, out = tmp_path / "jobs.json", tmp_path / "out"
    path.write_text(json.dumps([{"scan": "scan.nii.gz", "queries": ["the block", query, "the rest"]}]))
    jobs = read_jobs(path, out) if query.strip() else [job(tmp_path / "scan.nii.gz", q, out) for q in ("a", query, "b")]
    summary = run(out, *jobs)
    assert statuses(summary) == ["done", "failed", "done"]
    assert summary.outcomes[1].error == "QueryError"
    assert json.loads((out / "summary.json").read_text())["cases"][1]["query"] == summary.outcomes[1].query


class Reader:
    """Counts what it reads."""

    def __init__(self) -> None:
        self.read: list[Path] = []

    def __call__(self, path: Path):
        self.read.append(path)
        return read_volume(path)


def rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once."""
    monkeypatch.setattr(settled_files, "_SETTLED_NS", -1)


def test_a_scan_that_stays_as_it_is_is_read_once(write_block, tmp_path: Path, monkeypatch):
    scan, out, reader = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out", Reader()
    jobs = [job(scan, "the block", out), job(scan, "the rest", tmp_path / "other", "mine")]
    for known in (1, 2):  # a file that has just been written may change unseen
        assert statuses(run(out, *jobs, read=reader)) == ["done" if known == 1 else "skipped"] * 2
        assert len(reader.read) == known
    rest(monkeypatch)
    for _ in range(3):
        assert statuses(run(out, *jobs, read=reader)) == ["skipped"] * 2
        assert len(reader.read) == 3
    for content in ("", "{", '{"medvol": 3}', (out / ".scans-read").read_text().replace('"shape": [', '"shape": ["')):
        (out / ".scans-read").write_text(content)
        assert statuses(run(out, *jobs, read=reader)) == ["skipped"] * 2
    assert len(reader.read) == 7


def two_projects(folder: Path, write) -> tuple[Path, Path]:
    return write(folder / "p1" / "ct.nii.gz"), write(folder / "p2" / "ct.nii.gz", offset=10)


def by_working_folder(folder, write, monkeypatch):
    """Two projects with one relative path."""
    two_projects(folder, write)
    yield monkeypatch.chdir(folder / "p1") or Path("ct.nii.gz")
    yield monkeypatch.chdir(folder / "p2") or Path("ct.nii.gz")


def by_folder(folder, write, monkeypatch):
    """Another folder of the same name, whose files are older."""
    older = write(folder / "new" / "ct.nii.gz", offset=10)
    yield write(folder / "cohort" / "ct.nii.gz")
    (folder / "cohort").rename(folder / "former")
    older.parent.rename(folder / "cohort")
    yield folder / "cohort" / "ct.nii.gz"


def by_link(folder, write, monkeypatch):
    """A link that leads to another file, which is older."""
    older, link = two_projects(folder, write)[1], folder / "ct.nii.gz"
    link.symlink_to(folder / "p1" / "ct.nii.gz")
    yield link
    link.unlink()
    link.symlink_to(older)
    yield link


@pytest.mark.parametrize("way", [by_working_folder, by_folder, by_link])
def test_another_scan_in_the_same_place_gets_its_own_answer(write_block, tmp_path: Path, monkeypatch, way):
    rest(monkeypatch)
    out, masks = tmp_path / "out", []
    for scan in way(tmp_path, write_block, monkeypatch):
        (outcome,) = run(out, job(scan, "the block", out)).outcomes
        assert outcome.status == "done"
        masks.append(records.read_record(outcome.record).mask)
    assert masks[0]["mean_intensity"] != masks[1]["mean_intensity"]


def test_slices_that_were_taken_away_count(write_block, tmp_path: Path, monkeypatch):
    """A folder as a scan: its own time does not say what was done to its files."""
    rest(monkeypatch)
    source, out, folder = write_block(tmp_path / "source.nii.gz"), tmp_path / "out", tmp_path / "series"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.dcm").write_text(str(k))

    def read(path):
        volume = read_volume(source)
        return replace(volume, voxels=volume.voxels + len(list(path.iterdir())))

    assert statuses(run(out, job(folder, "q", out), read=read)) == ["done"]
    assert statuses(run(out, job(folder, "q", out), read=read)) == ["skipped"]
    (folder / "3.dcm").unlink()
    assert statuses(run(out, job(folder, "q", out), read=read)) == ["done"]


def edit_record(record: Path) -> None:
    record.write_text(record.read_text().replace('"key_slice": 3', '"key_slice": 4', 1))


def redraw_mask(record: Path) -> None:
    volume = read_volume(records.read_record(record).scan_path)
    write_mask(record.with_suffix(".nii.gz"), volume.voxels > 0, volume)


@pytest.mark.parametrize("name", ["", "mine"])
@pytest.mark.parametrize("change", [edit_record, redraw_mask])
def test_what_a_person_changed_is_not_replaced(write_block, tmp_path: Path, monkeypatch, caplog, change, name):
    """Asked again with samples, the answer is another one; a change by hand would be lost."""
    rest(monkeypatch)
    scan, out = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out"
    asked, more = (
        job(scan, "the block", out, name),
        Segmenter(ScriptedPolicy([BOX]), ExtrudePropagator(half_depth_slices=1), 2),
    )
    (outcome,) = run(out, asked).outcomes
    change(Path(outcome.record))
    kept = contents(out) | {"json": Path(outcome.record).read_text()}
    assert statuses(run(out, asked)) == ["skipped"]
    assert (f"medvol segment --evidence {outcome.record}" in caplog.text) == (change is edit_record)
    (again,) = run(out, asked, by=more).outcomes
    assert (again.status, again.error) == ("failed", "RecordError")
    assert "changed by hand" in again.detail
    assert contents(out) | {"json": Path(outcome.record).read_text()} == kept
    assert statuses(run(out, asked, by=more, overwrite=True)) == ["done"]


def test_a_damaged_mask_is_no_answer(write_block, tmp_path: Path, monkeypatch, caplog):
    rest(monkeypatch)
    scan, out = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out"
    (outcome,) = run(out, job(scan, "the block", out)).outcomes
    mask = Path(outcome.mask)
    whole = mask.read_bytes()
    mask.write_bytes(whole[:100])
    assert statuses(run(out, job(scan, "the block", out))) == ["done"]
    assert "the question is asked again" in caplog.text
    assert mask.read_bytes() == whole


@pytest.mark.parametrize("name", ["caf\udce9", "a\x1b[31m", "a\nb", "[b]x[b]", "a\u202eb", "..x"])
def test_a_scan_of_any_name_is_answered(write_block, tmp_path: Path, name):
    plain = write_block(tmp_path / "plain.nii.gz")
    (tmp_path / "scans").mkdir()
    scan = tmp_path / "scans" / f"{name}.nii.gz"
    plain.rename(scan)
    out = tmp_path / "out"
    jobs = find_jobs(tmp_path / "scans", ["the block"], out) if not name.startswith(".") else [job(scan, "q", out)]
    (outcome,) = run(out, *jobs).outcomes
    assert outcome.status == "done"
    assert Path(outcome.record).name.isprintable()
    assert records.read_record(Path(outcome.record)).scan_path == str(scan)
    assert json.loads((out / "summary.json").read_text())["cases"][0]["scan"] == str(scan)
    assert (out / "answers.csv").read_bytes().decode()
    assert statuses(run(out, *jobs)) == ["skipped"]


STOPS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


@pytest.mark.parametrize(("number", "kind"), STOPS, ids=["int", "term"])
@pytest.mark.parametrize("where", ["load", "read", "ask", "follow", "write", "swallowed", "progress"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_acts_between_cases(write_block, tmp_path: Path, monkeypatch, where, number, kind):
    """Whatever the second case is at: it is finished or left whole, the third is not run, and the summary says so."""
    scans = [write_block(tmp_path / "scans" / f"{name}.nii.gz", offset=i) for i, name in enumerate("abc")]
    out, calls = tmp_path / "out", dict.fromkeys(("load", "read", "ask", "follow", "write", "progress"), 0)

    class Swallows:
        def __del__(self):
            signal.raise_signal(number)

    def reach(place: str) -> None:
        calls[place] += 1
        if place == where and (calls[place] == 2 or place == "load"):
            signal.raise_signal(number)
        if where == "swallowed" and place == "follow" and calls[place] == 2:
            Swallows()

    class Stopping(ScriptedPolicy):
        def identity(self):
            reach("load") if not calls["load"] else None
            return super().identity()

        def generate(self, prompts, n=1, sampling=None):
            reach("ask")
            return super().generate(prompts, n, sampling)

    class Following(Propagator):
        def propagate(self, volume, evidence, z_range=None):
            reach("follow")
            return np.zeros(volume.shape, bool)

    def read(path):
        reach("read")
        return read_volume(path)

    def picture(segmentation):
        reach("write")
        return b"picture"

    monkeypatch.setattr(segmentation, "render_overlay", picture)
    by = Segmenter(Stopping([BOX]), Following())
    jobs = [job(scan, "the block", out) for scan in scans]
    with pytest.raises(KeyboardInterrupt) as caught:
        run_jobs(jobs, by, out, read=read, progress=lambda outcome: reach("progress"))
    assert type(caught.value) is kind
    counts = json.loads((out / "summary.json").read_text())["counts"]
    done = {"load": 0, "read": 1}.get(where, 2)
    assert counts == {"done": done, "skipped": 0, "failed": 0, "not run": 3 - done}
    assert len((out / "answers.csv").read_text().splitlines()) == 4
    assert not list(out.glob(".partial*"))
    assert len(list(out.glob("*_*"))) == 3 * done
    assert statuses(run_jobs(jobs, by, out, read=read)) == ["skipped"] * done + ["done"] * (3 - done)


def test_a_summary_that_cannot_be_written_is_still_told(write_block, tmp_path: Path):
    scan, out = write_block(tmp_path / "scan.nii.gz"), tmp_path / "out"
    summary = run(out, job(scan, "the block", out), progress=lambda outcome: (out / "summary.json").mkdir())
    assert statuses(summary) == ["done"]
    assert "summary.json" in summary.problem
    assert summary.exit_code == 1
    assert replace(summary, problem="").exit_code == 0


def test_the_same_anatomy_in_another_storage_order_has_a_mask_of_its_own(write_block, tmp_path: Path):
    out, first = tmp_path / "out", write_block(tmp_path / "a" / "ct.nii.gz")
    image = nib.load(first)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SLP"))
    (tmp_path / "b").mkdir()
    nib.save(turned, tmp_path / "b" / "ct.nii.gz")
    jobs = [job(tmp_path / name / "ct.nii.gz", "the block", out) for name in "ab"]
    summary = run(out, *jobs)
    assert statuses(summary) == ["done", "done"]
    for asked, outcome in zip(jobs, summary.outcomes, strict=True):
        scan, mask = nib.load(asked.scan), nib.load(outcome.mask)
        assert scan.shape == mask.shape
        np.testing.assert_allclose(scan.affine, mask.affine)
    assert statuses(run(out, *jobs)) == ["skipped", "skipped"]
    assert statuses(run(out, *jobs, read_all=True)) == ["skipped", "skipped"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".mhd"])
def test_an_answer_never_replaces_the_scan_of_another_question(suffix, write_block, tmp_path: Path):
    first, second = write_block(tmp_path / "a.nii.gz"), write_block(tmp_path / "b_spleen.nii.gz")
    if suffix == ".mhd":  # whose voxels lie in a file of the name that the picture would have
        image = sitk.ReadImage(str(second))
        sitk.WriteImage(image, str(tmp_path / "c.mhd"))
        (tmp_path / "c.raw").rename(tmp_path / "b_spleen.png")
        header = (tmp_path / "c.mhd").read_text().replace("c.raw", "b_spleen.png")
        (tmp_path / "c.mhd").write_text(header)
        second.unlink()
        second = tmp_path / "c.mhd"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    jobs = [job(first, "the block", tmp_path, "b_spleen"), job(second, "the block", tmp_path, "d")]
    for overwrite in (True, False):
        summary = run(tmp_path, *jobs, overwrite=overwrite)
        assert statuses(summary) == ["failed", "done" if overwrite else "skipped"]
        assert summary.outcomes[0].detail.startswith("the answer would replace a scan, ")
        assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("name", ["summary.json", "answers.csv", "answers.html"])
def test_a_batch_replaces_no_file_of_somebody_else(write_block, tmp_path: Path, name):
    out, asked = tmp_path / "out", job(write_block(tmp_path / "ct.nii.gz"), "the block", tmp_path / "out")
    out.mkdir()
    (out / name).write_text("my own notes")
    with pytest.raises(RecordError, match=f"{name} is there already and was not written by medvol"):
        run(out, asked, html=True)
    assert [path.name for path in out.iterdir()] == [name]
    (out / name).unlink()
    for _ in range(2):
        run(out, asked, html=True)


def test_a_failed_answer_keeps_how_its_scan_was_read(write_block, tmp_path: Path):
    asked = job(write_block(tmp_path / "ct.nii.gz"), "the block", tmp_path / "out")
    run(tmp_path / "out", asked, by=segmenter(1, "I cannot tell"), read=lambda path: read_volume(path, modality="MR"))
    (path,) = (tmp_path / "out").glob("*.failed.json")
    entry = open_failure(path, read_volume)
    assert entry.record.modality == "MR"
    assert entry.record.read_with == {"modality": "MR"}
    volume, _ = entry.scan.read()
    assert volume.modality == "MR"


def test_a_table_of_answers_holds_no_formula(write_block, tmp_path: Path):
    out, query = tmp_path / "out", '=HYPERLINK("http://x")'
    run(out, job(write_block(tmp_path / "ct.nii.gz"), query, out, "x"))
    (row,) = csv.DictReader((out / "answers.csv").read_text(encoding="utf-8").splitlines())
    assert row["query"] == f"'{query}"
    assert json.loads((out / "summary.json").read_text())["cases"][0]["query"] == query
