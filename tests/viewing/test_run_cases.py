"""The cases of a run: what was answered to each, and the truth beside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import DatasetError
from medvol.core.metrics import dice
from medvol.core.types import Completion, Rollout
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.archive import read_evaluation, write_evaluation
from medvol.evaluation.scoring import score_rollout
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.anchors import label_anchor
from medvol.grounding.grammar import format_evidence, parse_evidence
from medvol.imaging.reading import read_volume
from medvol.propagators.extrude import ExtrudePropagator
from medvol.viewing.desk import Desk
from medvol.viewing.packing import unpack_mask
from medvol.viewing.reading_folder import ReadingFolder
from medvol.viewing.run_cases import open_run
from tests.viewing.conftest import Api

PROPAGATOR = ExtrudePropagator(half_depth_slices=1)


@pytest.fixture(scope="module")
def phantoms() -> PhantomDataset:
    return PhantomDataset(split="test", num_volumes=1, shape=(12, 32, 40))


@pytest.fixture
def run(tmp_path: Path, phantoms: PhantomDataset) -> Path:
    """A run of three cases: a true anchor, an answer that cannot be read, and a wrong absence."""
    scores = []
    for number in range(3):
        case = phantoms[number]
        _, height, width = case.volume.shape
        said = [format_evidence(label_anchor(case.target), height, width), "no idea", "<answer>[]</answer>"][number]
        try:
            evidence, failure, detail = parse_evidence(said, case.volume.shape), None, ""
            mask = PROPAGATOR.propagate(case.volume, evidence)
        except ValueError as error:
            evidence, failure, detail, mask = None, "no_answer", str(error), None
        rollout = Rollout(case.case_id, Completion(said), evidence, failure, mask, detail)
        scores.append(score_rollout(rollout, case, EvaluationSettings(surface=None)))
    write_evaluation(tmp_path, scores, {"propagator": {"name": "ExtrudePropagator"}})
    return tmp_path


def test_cases_of_a_run_come_with_the_truth(run: Path, phantoms: PhantomDataset) -> None:
    opened = open_run(read_evaluation(run), phantoms)
    made = Api(Desk(opened.entries, opened.scans, PROPAGATOR, ReadingFolder(opened.readings), read_volume))
    rows = made.get("api/answers").json()["answers"]
    assert len(rows) == 3
    assert made.get("api/session").json()["scans"] == [], "a synthetic scan lies in no file"
    first = made.post(f"api/answers/{rows[0]['id']}/open").json()["result"]
    case = phantoms[0]
    np.testing.assert_array_equal(unpack_mask(first["truth"], case.volume.shape), case.target)
    mask = unpack_mask(first["current"]["mask"], case.volume.shape)
    np.testing.assert_array_equal(mask, PROPAGATOR.propagate(case.volume, label_anchor_as_written(case)))
    assert first["current"]["dice"] == round(dice(mask, case.target), 4)
    assert rows[1]["failure"]
    second = made.post(f"api/answers/{rows[1]['id']}/open").json()["result"]
    assert second["current"]["boxes_px"] == []
    body = {
        "verdict": "corrected",
        "anchor": {key: first["current"][key] for key in ("key_slice", "boxes_px")},
        "remark": "",
        "parent_sha256": second["current"]["sha256"],
    }
    saved = made.post(f"api/answers/{rows[1]['id']}/readings", body)
    assert saved.status_code == 200, saved.text
    assert made.get("api/answers").json()["answers"][1]["verdict"] == "corrected"
    made.close()


def label_anchor_as_written(case):
    _, height, width = case.volume.shape
    return parse_evidence(format_evidence(label_anchor(case.target), height, width), case.volume.shape)


def test_a_run_of_other_data_is_told(run: Path) -> None:
    other = PhantomDataset(split="val", num_volumes=1, shape=(12, 32, 40))
    opened = open_run(read_evaluation(run), other)
    with pytest.raises(DatasetError, match="have changed since the test"):
        opened.entries[0].scan.read()


def test_a_case_of_another_truth_is_told(run: Path, phantoms: PhantomDataset) -> None:
    """The first true mask lacks its last slice; the second case is as it was."""
    cases = [phantoms[number] for number in range(3)]
    target = cases[0].target.copy()
    target[np.flatnonzero(target.any(axis=(1, 2)))[-1]] = False
    cases[0] = replace(cases[0], target=target)
    opened = open_run(read_evaluation(run), cases)
    with pytest.raises(
        DatasetError, match="is not the one that was scored: score and data differ in true volume in ml"
    ):
        opened.entries[0].scan.read()
    assert opened.entries[1].scan.read()[1] is cases[1].target


def test_a_reading_does_not_count_for_another_data_set_with_the_same_ids(run: Path, phantoms: PhantomDataset) -> None:
    """Two releases call a case alike, and a policy says the same of both; their true volumes differ."""
    archive = read_evaluation(run)
    readings = ReadingFolder(run / "readings")
    desk = Desk(open_run(archive, phantoms).entries, [], PROPAGATOR, readings, read_volume)
    entry = list(desk.entries.values())[2]
    desk.save(entry, "accepted", parse_evidence("<answer>[]</answer>", (12, 32, 40)), "", entry.sha256)
    assert readings.head(entry).record.reading is not None
    others = [replace(score, true_ml=score.true_ml + 1) for score in archive.scores]
    other = open_run(replace(archive, scores=others), phantoms).entries[2]
    assert readings.head(other).record.reading is None
    assert readings.head(open_run(archive, phantoms).entries[2]).record.reading is not None, "that of its own case does"


def test_an_anchor_that_could_not_be_followed_is_no_answer(tmp_path: Path, phantoms: PhantomDataset) -> None:
    case = phantoms[0]
    _, height, width = case.volume.shape
    said = format_evidence(label_anchor(case.target), height, width)
    rollout = Rollout(case.case_id, Completion(said), None, "propagation_failed", None, "no seed in the box")
    write_evaluation(tmp_path, [score_rollout(rollout, case, EvaluationSettings(surface=None))], {})
    opened = open_run(read_evaluation(tmp_path), phantoms)
    made = Api(Desk(opened.entries, opened.scans, PROPAGATOR, ReadingFolder(opened.readings), read_volume))
    answer = made.post(f"api/answers/{opened.entries[0].entry_id}/open").json()["result"]
    assert answer["failure"] == "no seed in the box"
    assert answer["current"]["boxes_px"] == [], "as of a failure of `medvol segment`"
    anchor = label_anchor_as_written(case)
    drawn = {"anchor": {"key_slice": anchor.key_slice, "boxes_px": anchor.boxes.tolist()}}
    found = made.post(f"api/answers/{answer['id']}/mask", drawn).json()["result"]
    np.testing.assert_array_equal(
        unpack_mask(found["mask"], case.volume.shape), PROPAGATOR.propagate(case.volume, anchor)
    )
    made.close()
