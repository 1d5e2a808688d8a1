"""Scores of answers whose worth can be worked out by hand."""

import dataclasses

import numpy as np
import pytest

from medvol.core.errors import DatasetError, MissingExtraError, PolicyError
from medvol.core.types import Case, Completion, Query, Rollout, Volume
from medvol.evaluation.scoring import score_groups, score_mask
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.summary import UNBOUNDED, mean_scores
from medvol.evaluation.surfaces import diagonal_mm
from medvol.rollouts.failures import POLICY_FAILED, PROPAGATION_FAILED
from medvol.rollouts.groups import Group

TRUE_BOX = (15, 10, 35, 20)
SURFACE = EvaluationSettings(surface="surfels")


def scores_of(score):
    return score.key_slice_score, score.box_iou, score.dsc, score.iou


def test_perfect_answer(make_case, write_answer, box_propagator, score_answer):
    score = score_answer(make_case(), write_answer(6, TRUE_BOX), box_propagator(), SURFACE)
    assert scores_of(score) == (1.0, 1.0, 1.0, 1.0)
    assert (score.nsd, score.hd95_mm) == (1.0, 0.0)
    assert (score.parsed, score.failure, score.key_slice, score.present) == (True, None, 6, True)
    assert score.mask_ml == score.true_ml == pytest.approx(5 * 10 * 20 * 4 / 1000)


def test_half_a_box_one_slice_off(make_case, write_answer, box_propagator, score_answer):
    without = EvaluationSettings(surface=None)
    score = score_answer(make_case(), write_answer(7, (15, 10, 25, 20)), box_propagator(), without)
    overlap, predicted, true = 4 * 100, 5 * 100, 5 * 200
    assert score.key_slice_score == 1.0
    assert score.box_iou == pytest.approx(0.5)
    assert score.dsc == pytest.approx(2 * overlap / (predicted + true))
    assert score.iou == pytest.approx(overlap / (predicted + true - overlap))
    assert score.nsd is None


def test_slice_that_does_not_show_the_target(make_case, write_answer, box_propagator, score_answer):
    score = score_answer(make_case(), write_answer(0, TRUE_BOX), box_propagator(reach=0))
    assert scores_of(score) == (0.0, 0.0, 0.0, 0.0)
    assert score.failure is None


@pytest.mark.parametrize("present", [True, False])
def test_unparsable_answer_scores_0_everywhere(make_case, box_propagator, present, score_answer):
    score = score_answer(make_case(present=present), "the spleen, I think", box_propagator(), SURFACE)
    assert scores_of(score) == (0.0, 0.0, 0.0, 0.0)
    assert (score.parsed, score.failure, score.nsd) == (False, "no_answer", 0.0)
    assert score.hd95_mm == diagonal_mm((12, 40, 50), (4.0, 1.0, 1.0))
    assert score.completion == "the spleen, I think"
    assert "no <answer> block" in score.detail


@pytest.mark.parametrize(
    ("present", "says_absent", "expected"), [(False, True, 1.0), (False, False, 0.0), (True, True, 0.0)]
)
def test_absent_answers(make_case, write_answer, box_propagator, present, says_absent, expected, score_answer):
    text = write_answer() if says_absent else write_answer(6, TRUE_BOX)
    score = score_answer(make_case(present=present), text, box_propagator(), SURFACE)
    assert scores_of(score) == (expected,) * 4
    assert score.answered_absent is says_absent
    assert score.nsd == expected
    assert (score.hd95_mm == 0.0) is (expected == 1.0)


def test_false_alarm_scores_0_even_when_nothing_was_propagated(make_case, write_answer, box_propagator, score_answer):
    case = make_case(present=False)
    score = score_answer(case, write_answer(6, (1, 1, 1.2, 1.2)), box_propagator(), SURFACE)
    assert score.mask_ml == 0.0
    assert scores_of(score) == (0.0, 0.0, 0.0, 0.0)


def test_failed_propagation_is_named_logged_and_scored_0(make_case, write_answer, box_propagator, caplog, score_answer):
    score = score_answer(make_case(), write_answer(6, TRUE_BOX), box_propagator(fails_at=6))
    assert (score.parsed, score.failure, score.key_slice) == (True, PROPAGATION_FAILED, 6)
    assert "volume-1: slice 6 cannot be propagated" in score.detail
    assert "volume-1: slice 6 cannot be propagated" in caplog.text
    assert scores_of(score) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(3), OSError("gone")])
def test_any_error_of_a_propagator_is_a_failed_case(error, make_case, write_answer, box_propagator, score_answer):
    class Broken(box_propagator):
        def propagate(self, volume, evidence, z_range=None):
            raise error

    score = score_answer(make_case(), write_answer(6, TRUE_BOX), Broken(), truth=None)
    assert (score.failure, score.dsc, score.parsed) == (PROPAGATION_FAILED, 0, True)
    assert f"the propagator Broken of the module {__name__} failed: {type(error).__name__}" in score.detail


def test_a_propagator_that_lacks_an_extra_stops_the_run(make_case, write_answer, box_propagator, score_answer):
    class Missing(box_propagator):
        def propagate(self, volume, evidence, z_range=None):
            raise MissingExtraError("sam2", "sam2")

    with pytest.raises(MissingExtraError):
        score_answer(make_case(), write_answer(6, TRUE_BOX), Missing())


def test_a_policy_that_failed_is_a_failed_case(make_case, box_propagator, caplog):
    error = PolicyError("the policy X of acme 1.0 failed")
    failed = Rollout("a", Completion(""), failure=POLICY_FAILED, detail=str(error), error=error)
    (score,) = score_groups([Group(make_case(), None, (failed,))], box_propagator(), SURFACE)
    assert (score.failure, score.parsed, score.dsc, score.completion) == (POLICY_FAILED, False, 0, "")
    assert score.detail == "the policy X of acme 1.0 failed"
    assert score.detail in caplog.text


def test_two_parts_need_two_boxes_unless_they_are_not_split(make_case, write_answer, box_propagator, score_answer):
    case = make_case()
    target = case.target.copy()
    target[4:9, 10:20, 22:28] = False
    case = dataclasses.replace(case, target=target)
    both = write_answer(6, (15, 10, 22, 20), (28, 10, 35, 20))
    whole = write_answer(6, TRUE_BOX)
    split, single = (EvaluationSettings(split_boxes=value) for value in (True, False))
    assert score_answer(case, both, box_propagator(), split).box_iou == pytest.approx(1.0)
    assert score_answer(case, whole, box_propagator(), single).box_iou == pytest.approx(1.0)
    assert score_answer(case, whole, box_propagator(), split).box_iou == pytest.approx(70 / 200 / 2)


def test_patient_falls_back_to_the_volume(make_case, write_answer, box_propagator, score_answer):
    answer = write_answer(6, TRUE_BOX)
    assert score_answer(make_case(), answer, box_propagator()).patient_id == "volume-1"
    assert score_answer(make_case(patient="p7"), answer, box_propagator()).patient_id == "p7"


def test_case_without_a_mask_cannot_be_scored(make_case, write_answer, box_propagator, score_answer):
    case = dataclasses.replace(make_case("k"), target=None)
    with pytest.raises(DatasetError, match="case 'k' has no target mask"):
        score_answer(case, write_answer(), box_propagator())


@pytest.mark.parametrize(("own", "nsd"), [(None, 1.0), (4.01, 1.0), (3.99, 0.5)])
def test_a_case_may_bring_its_own_surface_tolerance(make_case, write_answer, box_propagator, own, nsd, score_answer):
    """The propagated box lies one slice of 4 mm off: of both, one end lies 4 mm apart, all but their corners."""
    case = dataclasses.replace(make_case(), surface_tolerance_mm=own)
    setting = EvaluationSettings(surface="surfels", tolerance_mm=4.5)
    score = score_answer(case, write_answer(7, TRUE_BOX), box_propagator(), setting)
    assert (score.nsd == 1.0) == (nsd == 1.0)
    assert score.tolerance_mm == (own or 4.5)
    unmeasured = score_answer(case, write_answer(), box_propagator(), EvaluationSettings(surface=None))
    assert unmeasured.tolerance_mm is None


@pytest.mark.parametrize("kind", ["surfels", "voxels"])
def test_an_empty_mask_in_place_of_another_never_improves_a_mean(kind):
    """150 studies of three random masks each, of every density; one mask is emptied, then one is missing."""
    settings = EvaluationSettings(surface=kind, lesions="all")
    volume = Volume(np.zeros((3, 5, 6), np.float32), np.diag([1.0, 2.0, 4.0, 1.0]))
    empty = np.zeros(volume.shape, bool)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        true, predicted = rng.random((2, 3, *volume.shape)) < rng.uniform(0.02, 0.9, (2, 3, 1, 1, 1))
        true[:, 0, 0, 0] = True
        cases = [Case(str(i), volume, Query("q", "lesion"), mask) for i, mask in enumerate(true)]
        before = [score_mask(mask, case, settings) for mask, case in zip(predicted, cases, strict=True)]
        for instead in (empty, None):
            after = mean_scores([score_mask(instead, cases[0], settings), *before[1:]])
            for name, mean in mean_scores(before).items():
                assert after[name] >= mean if name in UNBOUNDED else after[name] <= mean, (seed, name)
