"""Corrections: what readers kept becomes a table, and SFT teaches their boxes."""

import json
import os
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.cli import main
from medvol.core.errors import DatasetError, RecordError
from medvol.core.prompts import PromptTemplate
from medvol.core.types import Evidence, SliceStack
from medvol.datasets.nifti import NiftiDataset
from medvol.grounding.anchors import join_anchors
from medvol.grounding.box_text import read_boxes, write_boxes
from medvol.grounding.grammar import parse_evidence
from medvol.imaging.reading import read_mask, read_volume
from medvol.inference.batch import run_jobs
from medvol.inference.jobs import Job
from medvol.inference.records import read_record
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.settings import AnswerSettings
from medvol.training.true_answers import write_answer
from medvol.viewing.corrections import collect, write_corrections
from medvol.viewing.desk import Desk
from medvol.viewing.opening import open_target
from medvol.viewing.packing import unpack_mask
from tests.viewing.conftest import BOX, answer_folder, make_desk, write_scan

MOVED = Evidence(5, np.array([[12.5, 4.0, 20.0, 10.0]]))


def entry_of(desk: Desk, query: str):
    return next(entry for entry in desk.entries.values() if entry.record.query == query)


def keep(desk: Desk, query: str, verdict, evidence: Evidence | None = None) -> None:
    entry = entry_of(desk, query)
    head = desk.readings.head(entry)
    desk.save(entry, verdict, evidence or head.record.evidence, "", head.sha256)


@pytest.fixture
def read_folder(answers: Path) -> Path:
    """A corrected, an accepted and an unread answer."""
    desk = make_desk(answers)
    keep(desk, "the block", "corrected", MOVED)
    keep(desk, "the tail", "accepted")
    return answers


def test_a_table_holds_what_was_accepted_and_corrected(read_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_folder / "corrections.csv"
    assert main(["view", str(read_folder), "--export", str(table)]) == 0
    assert "left out: 1 not read yet" in capsys.readouterr().out
    dataset = NiftiDataset(root=str(read_folder), table=str(table))
    first, second = dataset[0], dataset[1]
    assert (first.query.text, second.query.text, second.query.kind) == ("the block", "the tail", "absent")
    assert first.anchor is not None
    assert first.anchor.key_slice == 5
    np.testing.assert_array_equal(first.anchor.boxes, MOVED.boxes)
    record = next((read_folder / "readings").glob("*corrected*.json"))
    expected = read_mask(record.with_suffix(".nii.gz"), first.volume)
    np.testing.assert_array_equal(first.target, expected)
    assert second.anchor is None
    assert second.target is not None
    assert not second.target.any()
    assert dataset.find_problems() == []
    assert first.case_id.startswith("case0a_corrected_")
    assert main(["view", str(read_folder), "--export", str(table)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_nothing_read_writes_nothing(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(answers), "--export", str(answers / "c.csv")]) == 2
    assert "3 not read yet" in capsys.readouterr().err
    assert not (answers / "c.csv").exists()


def test_rejected_answers_and_later_readings_count_as_the_last_says(read_folder: Path) -> None:
    desk = make_desk(read_folder)
    keep(desk, "the block", "rejected")
    found = collect(desk.entries.values(), desk.readings, read_folder)
    assert [row["query"] for row in found.rows] == ["the tail"]
    assert found.left_out == {"rejected": 1, "not read yet": 1}


def test_a_file_name_that_is_no_utf_8_is_named_and_nothing_is_written(read_folder: Path) -> None:
    desk = make_desk(read_folder)
    found = collect(desk.entries.values(), desk.readings, read_folder)
    found.rows[1]["image"] = os.fsdecode(b"ct_\xe4.nii.gz")
    with pytest.raises(RecordError, match=r"cannot hold the image 'ct_\\udce4\.nii\.gz', .* rename the file"):
        write_corrections(read_folder / "c.csv", found)
    assert not (read_folder / "c.csv").exists()


def test_readings_that_do_not_know_one_another_are_told(read_folder: Path) -> None:
    desk, other = make_desk(read_folder), make_desk(read_folder, out=read_folder.parent / "elsewhere")
    keep(other, "the block", "accepted")
    for path in (read_folder.parent / "elsewhere").iterdir():
        if path.is_file():
            path.rename(read_folder / "readings" / path.name)
    with pytest.raises(RecordError, match="do not know one another"):
        collect(desk.entries.values(), desk.readings, read_folder)


def test_sft_teaches_the_readers_boxes_where_their_slice_is_shown(read_folder: Path) -> None:
    desk = make_desk(read_folder)
    write_corrections(read_folder / "c.csv", collect(desk.entries.values(), desk.readings, read_folder))
    case = NiftiDataset(root=str(read_folder), table=str(read_folder / "c.csv"))[0]
    rng = np.random.default_rng(0)

    def taught(*shown: int) -> Evidence:
        stack = SliceStack(shown, np.zeros((len(shown), 3, 4, 4), np.float32), case.volume.shape)
        answer = write_answer(case, stack, AnswerSettings(), True, PromptTemplate(), rng)
        return parse_evidence(answer.text, case.volume.shape)

    shown = taught(3, 5, 7)
    assert shown.key_slice == 5
    np.testing.assert_allclose(shown.boxes, MOVED.boxes, atol=0.03)  # a thousandth of the slice's side
    hidden = taught(4, 6)
    assert hidden.key_slice == 6
    assert not np.allclose(hidden.boxes, MOVED.boxes, atol=0.3)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("3,,mask.nii.gz", "boxes is empty"),
        (",1 2 3 4,mask.nii.gz", "key_slice is empty"),
        ("3,1 2 3 4,", "mask is empty"),
        ("-3,1 2 3 4,mask.nii.gz", "key_slice is '-3'"),
        ("3,1 2 3,mask.nii.gz", "boxes is '1 2 3'"),
        ("3,3 2 1 4,mask.nii.gz", "boxes is '3 2 1 4'"),
        ("3,nan 2 inf 4,mask.nii.gz", "boxes is 'nan 2 inf 4'"),
        ("12,1 2 3 4,mask.nii.gz", "key_slice is 12"),
        ("3|12,1 2 3 4|1 2 3 4,mask.nii.gz", "key_slice is 12"),
        ("3|5,1 2 3 4,mask.nii.gz", "holds 1 list of boxes for 2 key slices"),
        ("3|3,1 2 3 4|1 2 3 4,mask.nii.gz", r"key_slice is '3\|3'"),
        ("3|,1 2 3 4|1 2 3 4,mask.nii.gz", r"key_slice is '3\|'"),
        ("3|5,1 2 3 4|,mask.nii.gz", r"boxes is '1 2 3 4\|'"),
        ("3,1 2 41 4,mask.nii.gz", "leave slices of 40 x 30"),
    ],
)
def test_a_bad_anchor_in_a_table_is_named(answers: Path, row: str, problem: str) -> None:
    root = answers.parent / "scans"
    (answers / "case0a.nii.gz").rename(root / "mask.nii.gz")
    (root / "t.csv").write_text(f"image,query,key_slice,boxes,mask\nscan0.nii.gz,the block,{row}\n")
    with pytest.raises(DatasetError, match=problem) as refused:
        _ = NiftiDataset(root=str(root), table=str(root / "t.csv"))[0]
    assert "row 2" in str(refused.value)


def test_boxes_survive_their_text() -> None:
    boxes = np.array([[0.0, 1.125, 512.0, 1000.125], [3, 4, 5, 6]])
    text = write_boxes(boxes.tolist())
    assert text == "0 1.125 512 1000.125; 3 4 5 6"
    np.testing.assert_array_equal(read_boxes(text), boxes)


def test_a_volume_is_read_as_the_record_says(read_folder: Path) -> None:
    assert read_volume(read_folder.parent / "scans" / "scan0.nii.gz").modality == "other", "what a guess would be"
    desk = make_desk(read_folder)
    assert desk.shelf.get(entry_of(desk, "the block").scan).volume.modality == "CT"


def test_a_scan_is_read_with_the_settings_of_its_record(answers: Path) -> None:
    for path in answers.glob("*.json"):
        content = json.loads(path.read_text())
        content["scan"]["read_with"] = {"nan_to": -1024, "assume_orientation": "LPS"}
        path.write_text(json.dumps(content))
    desk = make_desk(answers)
    source = desk.shelf.get(entry_of(desk, "the block").scan).volume.source
    assert source is not None
    assert source.read_with == {"modality": "CT", "nan_to": -1024, "assume_orientation": "LPS"}


def test_several_anchors_survive_the_table(answers: Path) -> None:
    desk = make_desk(answers)
    keep(desk, "the block", "corrected", join_anchors([MOVED, Evidence(8, np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]))]))
    corrections = collect(desk.entries.values(), desk.readings, answers)
    assert corrections.rows[0]["key_slice"] == "5 | 8"
    assert corrections.rows[0]["boxes"] == "12.5 4 20 10 | 1 2 3 4; 5 6 7 8"
    write_corrections(answers / "c.csv", corrections)
    case = NiftiDataset(root=str(answers), table=str(answers / "c.csv"))[0]
    assert case.anchor is not None
    assert [anchor.key_slice for anchor in case.anchor.anchors] == [5, 8]
    assert case.anchor.anchors[1].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_answers_are_opened_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = answer_folder(tmp_path / "made")
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace(f"{tmp_path}/", ""))
    monkeypatch.chdir(folder)
    opened = open_target(Path("."), read_volume)
    assert not opened.problems
    assert {entry.scan.path for entry in opened.entries} == {
        Path("../scans/scan0.nii.gz"),
        Path("../scans/scan1.nii.gz"),
    }
    assert opened.entries[0].scan.read()[0].shape == (12, 30, 40)
    (folder.parent / "scans" / "scan0.nii.gz").unlink()
    with pytest.raises(RecordError, match=r"case0a.json names the scan 'made/scans/scan0.nii.gz', which is not there"):
        open_target(Path("case0a.json"), read_volume).entries[0].scan.read()


def test_boxes_that_were_changed_again_in_the_file_have_no_mask(answers: Path) -> None:
    """A record that says ``edited`` passed the former mask for that of the new boxes."""
    record = answers / "case0a.json"
    for boxes in ([[4.0, 4.0, 12.0, 10.0]], [[20.0, 12.0, 36.0, 26.0]]):
        content = json.loads(record.read_text())
        content["evidence"]["boxes_px"] = boxes
        record.write_text(json.dumps(content))
        out = ["--out", str(answers), "--overwrite", "--propagator", "ExtrudePropagator"]
        assert main(["segment", "--evidence", str(record), *out]) == 0
        record = answers / "case0a_edited.json"
        content = json.loads(record.read_text())
        assert content["edited"] is True
    content["evidence"]["boxes_px"] = [[4.0, 4.0, 12.0, 10.0]]
    record.write_text(json.dumps(content))
    desk = make_desk(record)
    (entry,) = desk.entries.values()
    shown = unpack_mask(desk.open(entry)["current"]["mask"], (12, 30, 40))
    rows, columns = (np.flatnonzero(shown.any((0, axis))) for axis in (2, 1))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 9, 4, 11)
    desk.save(entry, "accepted", entry.record.evidence, "", entry.sha256)
    reading = next((answers / "readings").glob("*accepted*.json"))
    changed = json.loads(reading.read_text())
    changed["evidence"]["boxes_px"] = [[20.0, 12.0, 36.0, 26.0]]
    reading.write_text(json.dumps(changed))
    found = collect(desk.entries.values(), desk.readings, answers)
    assert found.left_out == {"whose slice or boxes were changed in the file, after the mask was made": 1}


def test_a_table_leads_to_the_scan_that_was_asked_about_over_links(tmp_path: Path, monkeypatch) -> None:
    """A folder of answers is often a link to a larger disk, and ``..`` leads elsewhere behind it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "disk" / "big" / "answers").mkdir(parents=True)
    (tmp_path / "project" / "answers").symlink_to(tmp_path / "disk" / "big" / "answers")
    asked = write_scan(tmp_path / "project" / "ct.nii.gz")
    write_scan(tmp_path / "disk" / "big" / "ct.nii.gz", 5.0)
    monkeypatch.chdir(tmp_path / "project")
    policy = ScriptedPolicy([BOX])
    Segmenter(policy, ExtrudePropagator(1)).segment("ct.nii.gz", "the block").save("answers", "x")
    desk = make_desk(Path("answers"))
    keep(desk, "the block", "accepted")
    write_corrections(Path("answers/c.csv"), collect(desk.entries.values(), desk.readings, Path("answers")))
    case = NiftiDataset(root="answers", table="answers/c.csv")[0]
    np.testing.assert_array_equal(case.volume.voxels, read_volume(asked).voxels)
    assert case.target is not None
    assert case.target.any()


def test_scans_that_a_table_cannot_name_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path / "ct.nii")
    image = nib.load(scan)
    voxels = np.array(image.dataobj)
    voxels[1, 1, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), scan)
    answer = Segmenter(ScriptedPolicy([BOX]), ExtrudePropagator(1)).segment(read_volume(scan, nan_to=-1000.0), "it")
    answer.save(tmp_path / "answers", "x")
    desk = make_desk(tmp_path / "answers")
    keep(desk, "it", "accepted")
    found = collect(desk.entries.values(), desk.readings, tmp_path / "answers")
    assert found.left_out == {"about a scan that is read with --nan_to, which a table cannot say": 1}
    scan.unlink()
    found = collect(make_desk(tmp_path / "answers").entries.values(), desk.readings, tmp_path / "answers")
    assert found.left_out == {f"about a scan that is not there, such as {scan}": 1}


def test_readings_of_an_answer_that_was_written_again_are_told(
    read_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_folder / "case0a.json"
    record.write_text(record.read_text().replace('"the block"', '"the Block"'))
    assert main(["view", str(read_folder), "--export", str(read_folder / "c.csv")]) == 0
    said = capsys.readouterr().out
    assert "case0a_corrected" in said
    assert "the answer that this reading is about was written again since" in said
    desk = make_desk(read_folder)
    assert len(desk.readings.strays(desk.entries.values())) == 1


def test_a_correction_of_a_failure_that_was_answered_later_is_told(tmp_path: Path) -> None:
    """The policy fails, a person draws the box, and a second run of the batch succeeds under the same name."""
    scan = write_scan(tmp_path / "ct.nii.gz")
    for said in ("no idea", BOX):
        run_jobs(
            [Job(scan, "the block", tmp_path / "answers", "ct", named=True)],
            Segmenter(ScriptedPolicy([said]), ExtrudePropagator(1)),
            tmp_path / "answers",
            read=partial(read_volume, modality="CT"),
        )
        desk = make_desk(tmp_path / "answers")
        if said != BOX:
            keep(desk, "the block", "corrected", MOVED)
            assert desk.readings.strays(desk.entries.values()) == []
    (lost,) = desk.readings.strays(desk.entries.values())
    assert read_record(tmp_path / "answers" / "readings" / lost).reading.parent == "ct.failed.json"


def test_the_policy_does_not_answer_over_a_record_that_a_person_changed(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "ct.nii.gz")
    desk = make_desk(scan, policy=ScriptedPolicy([BOX]), out=tmp_path / "kept")
    (place,) = desk.scans.values()
    desk.ask(place, "the block")
    (path,) = (tmp_path / "kept").glob("*.json")
    path.write_text(path.read_text().replace('"key_slice": 3', '"key_slice": 4'))
    path.with_name(read_record(path).mask_file).unlink()
    changed = path.read_bytes()
    with pytest.raises(RecordError, match="changed by hand"):
        desk.ask(place, "the block")
    assert path.read_bytes() == changed


def test_an_answer_without_a_mask_may_be_corrected_to_absent(tmp_path: Path) -> None:
    """The policy stammers about a target that the scan does not show; a person says that it is not there."""
    scan, out = write_scan(tmp_path / "ct.nii.gz"), tmp_path / "answers"
    segmenter = Segmenter(ScriptedPolicy(["no idea"]), ExtrudePropagator(1))
    run_jobs([Job(scan, "the tail", out, "ct")], segmenter, out, read=partial(read_volume, modality="CT"))
    desk = make_desk(out)
    with pytest.raises(RecordError, match="correct it without a box where the target is not in this scan"):
        keep(desk, "the tail", "accepted")
    keep(desk, "the tail", "corrected")
    write_corrections(out / "c.csv", collect(desk.entries.values(), desk.readings, out))
    (case,) = NiftiDataset(root=str(out), table=str(out / "c.csv"))
    assert (case.query.kind, case.query.text) == ("absent", "the tail")
    assert case.target is not None
    assert not case.target.any()
    with pytest.raises(RecordError, match="nothing was corrected"):
        keep(desk, "the tail", "corrected")
