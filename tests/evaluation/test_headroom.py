"""The search for the best anchor, against every anchor of tiny volumes."""

import json
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest

from medvol.core.errors import ConfigError, PropagationError, RecordError
from medvol.core.metrics import dice
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.evaluation.archive import read_evaluation, write_evaluation
from medvol.evaluation.headroom import Reached, search_anchor
from medvol.evaluation.report import report_runs
from medvol.evaluation.report_document import describe_runs
from medvol.evaluation.report_page.page import write_report
from medvol.evaluation.rescoring import rescore
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.anchors import join_anchors, label_anchor
from medvol.grounding.boxes import rasterise

SHAPE = (4, 7, 8)
SETTINGS = EvaluationSettings(error_budget=True, headroom=60, masks_gib=0)


class ShiftedPropagator(Propagator):
    """Fills boxes that are a pixel off, on the key slice and on the slice above; counts what it is asked."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at
        self.calls = []

    def propagate(self, volume, evidence, z_range=None):
        return self.propagate_many(volume, [evidence])[0]

    def propagate_many(self, volume, evidences, z_ranges=None):
        self.calls.append(len(evidences))
        return [self._fill(volume, evidence) for evidence in evidences]

    def _fill(self, volume, evidence):
        if evidence.key_slice == self.fails_at:
            raise PropagationError("that slice cannot be propagated")
        mask = np.zeros(volume.shape, bool)
        boxes = evidence.boxes + np.array([1, 0, 1, -1])
        mask[evidence.key_slice : evidence.key_slice + 2] = rasterise(boxes, *volume.shape[1:])
        return mask


@pytest.fixture
def scan():
    return Volume(np.zeros(SHAPE, np.float32), np.eye(4), "CT", "tiny")


@pytest.fixture(params=[0, 1, 2])
def target(request):
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2:5, 2:6] = True
    mask[2, 4:6, 2:4] = request.param > 0
    mask[3, 2:4, 3:5] = request.param > 1
    return mask


def every_anchor():
    _, height, width = SHAPE
    for z, x1, y1 in product(range(SHAPE[0]), range(width), range(height)):
        for x2, y2 in product(range(x1 + 1, width + 1), range(y1 + 1, height + 1)):
            yield Evidence(z, np.array([[x1, y1, x2, y2]], float))


def test_finds_what_all_anchors_hold_at_best(scan, target):
    propagator = ShiftedPropagator()
    best = max(dice(propagator.propagate(scan, anchor), target) for anchor in every_anchor())
    found = search_anchor(scan, target, [], propagator, 400)
    assert found.best_anchor.dsc == best
    assert dice(propagator.propagate(scan, found.best_anchor.anchor), target) == best
    assert found.best_slice.dsc < best  # tight boxes are not the best ones for this propagator


def test_best_slice_is_the_best_of_all_true_boxes(scan, target):
    propagator = ShiftedPropagator()
    tight = [label_anchor(target * (np.arange(4) == z)[:, None, None]) for z in range(4) if target[z].any()]
    best = max(dice(propagator.propagate(scan, anchor), target) for anchor in tight)
    assert search_anchor(scan, target, [], propagator, 60).best_slice.dsc == best


def test_more_propagations_are_never_worse_and_never_too_many(scan, target):
    reached = []
    for most in range(6, 80, 4):
        propagator = ShiftedPropagator()
        found = search_anchor(scan, target, [], propagator, most)
        assert sum(propagator.calls) == found.propagations <= most
        assert len(propagator.calls) < found.propagations  # together, so that features are shared
        assert found.best_slice.dsc <= found.best_anchor.dsc
        reached.append(found.best_anchor.dsc)
    assert reached == sorted(reached)


def test_what_is_known_is_never_lost(scan, target):
    known = Reached(Evidence(0, np.array([[0.0, 0.0, 1.0, 1.0]])), 0.995)
    found = search_anchor(scan, target, [known], ShiftedPropagator(), 2)
    assert found.best_anchor is known
    assert found.best_slice is known


def test_a_failed_propagation_reaches_nothing(scan, target):
    found = search_anchor(scan, target, [], ShiftedPropagator(fails_at=2), 60)
    assert found.best_anchor.anchor.key_slice != 2
    assert found.best_anchor.dsc > 0


def test_many_slices_share_half_of_the_propagations(scan):
    target = np.zeros((40, 7, 8), bool)
    target[5:35, 2:5, 2:6] = True
    tall = Volume(np.zeros(target.shape, np.float32), np.eye(4), "CT", "tall")
    propagator = ShiftedPropagator()
    search_anchor(tall, target, [], propagator, 20)
    assert propagator.calls[0] == 10


def test_several_anchors_are_searched_together(scan):
    target = np.zeros(SHAPE, bool)
    target[0:2, 1:4, 1:3] = True
    target[2:4, 3:6, 4:7] = True
    propagator = ShiftedPropagator()
    nearly = join_anchors([Evidence(0, np.array([[0.0, 1, 3, 5]])), Evidence(2, np.array([[3.0, 3, 5, 7]]))])
    masks = [propagator.propagate(scan, anchor) for anchor in nearly.anchors]
    known = Reached(nearly, dice(masks[0] | masks[1], target))
    found = search_anchor(scan, target, [known], propagator, 200)
    assert known.dsc < 1
    assert len(found.best_anchor.anchor.anchors) == 2
    assert found.best_anchor.dsc == 1.0


@pytest.mark.parametrize(("headroom", "budget"), [(1, True), (10, False), (-1, True)])
def test_settings_that_search_nothing_are_refused(headroom, budget):
    with pytest.raises(ConfigError, match=r"evaluation\.headroom is"):
        EvaluationSettings(error_budget=budget, headroom=headroom)


@pytest.fixture
def scores(make_case, write_answer, box_propagator, score_answer):
    """A half-right answer and one that failed, scored with the search."""

    def score(name, text):
        case = make_case(name)
        return score_answer(case, text, box_propagator(reach=1), SETTINGS, label_anchor(case.target))

    return [score("half", write_answer(4, (15, 10, 25, 20))), score("failed", "no answer")]


def test_a_case_keeps_its_best_anchor(scores):
    for score in scores:
        budget = score.budget
        assert budget.best_slice == pytest.approx(2 * 3 / (3 + 5))  # any slice in the middle, with its true box
        assert budget.best_anchor == budget.best_slice
        assert budget.best_boxes[0][1:] == [15, 10, 35, 20]
        assert budget.headroom == budget.best_anchor - score.dsc > 0


def test_records_reports_and_documents_hold_it(scores, tmp_path):
    write_evaluation(tmp_path / "run", scores, {"settings": SETTINGS.measures})
    assert list(read_evaluation(tmp_path / "run").scores) == scores
    summary = json.loads((tmp_path / "run" / "evaluation.json").read_text())["error_budget"]
    assert summary["headroom"] == pytest.approx(np.mean([score.budget.headroom for score in scores]))
    assert "best_boxes" not in summary
    assert describe_runs([tmp_path / "run"])["runs"][0]["error_budget"] == summary
    text = report_runs([tmp_path / "run"]).to_markdown()
    assert "| DSC from the best anchor found | 0.750 |" in text
    page = write_report(tmp_path / "report.html", [tmp_path / "run"], None).read_text()
    assert "best anchor found" in page
    assert f"{summary['headroom']:.3f} more than predicted" in page


def test_without_a_search_nothing_is_said_of_it(make_case, write_answer, box_propagator, score_answer, tmp_path):
    case = make_case()
    score = score_answer(case, write_answer(6, (15, 10, 35, 20)), box_propagator(), truth=label_anchor(case.target))
    assert score.budget.best_anchor is score.budget.headroom is score.budget.best_boxes is None
    write_evaluation(tmp_path / "run", [score], {"settings": SETTINGS.measures})
    assert "best anchor" not in report_runs([tmp_path / "run"]).to_markdown()
    assert not {"best_anchor", "headroom"} & set(
        json.loads((tmp_path / "run/evaluation.json").read_text())["error_budget"]
    )


@pytest.mark.parametrize("boxes", [[["x"]], [1.0], "all", [[None]]])
def test_damaged_boxes_are_refused(boxes, scores, tmp_path):
    write_evaluation(tmp_path, scores, {"settings": SETTINGS.measures})
    rows = json.loads((tmp_path / "cases.json").read_text())
    rows[0]["budget"]["best_boxes"] = boxes
    (tmp_path / "cases.json").write_text(json.dumps(rows))
    with pytest.raises(RecordError, match="best_boxes"):
        read_evaluation(tmp_path)


def test_rescoring_keeps_it(make_case, scores, tmp_path):
    failed = scores[1]
    write_evaluation(tmp_path, [failed], {"settings": SETTINGS.measures})
    run = read_evaluation(tmp_path)

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return make_case("failed")

        def volume_key(self, index):
            return "volume-1"

    again = rescore(run, One(), SETTINGS)
    assert asdict(again[0])["budget"] == asdict(failed)["budget"]
