"""Error budgets that can be worked out by hand."""

import numpy as np
import pytest

from medvol.core.types import Evidence
from medvol.evaluation.error_budget import ErrorBudget, mean_budget, true_boxes_at
from medvol.grounding.anchors import join_anchors, label_anchor

TRUE_BOX = (15, 10, 35, 20)


@pytest.fixture
def budget_of(score_answer):
    return lambda case, text, propagator: score_answer(case, text, propagator, truth=label_anchor(case.target)).budget


def test_every_share_of_a_half_right_answer(make_case, write_answer, box_propagator, budget_of):
    # the target fills slices 4..8; a reach of 1 slice keeps 3 of 5 from slice 6, 2 of them from slice 4
    budget = budget_of(make_case(), write_answer(4, (15, 10, 25, 20)), box_propagator(reach=1))
    assert budget.true_anchor == pytest.approx(2 * 3 / (3 + 5))
    assert budget.true_boxes == pytest.approx(2 * 2 / (3 + 5))
    assert budget.predicted == pytest.approx(2 * 2 * 100 / (3 * 100 + 5 * 200))
    assert budget.propagation_loss + budget.slice_loss + budget.box_loss == pytest.approx(1 - budget.predicted)


@pytest.mark.parametrize("text", ["nothing that parses", "absent", "off target"])
def test_answer_without_a_usable_slice_loses_it_all_to_the_slice(
    make_case, write_answer, box_propagator, text, budget_of
):
    answers = {"absent": write_answer(), "off target": write_answer(0, TRUE_BOX)}
    budget = budget_of(make_case(), answers.get(text, text), box_propagator())
    assert budget == ErrorBudget(1.0, 0.0, budget.predicted)
    assert budget.slice_loss == 1.0


def test_failed_propagation_of_the_answer_has_no_true_boxes(make_case, write_answer, box_propagator, budget_of):
    budget = budget_of(make_case(), write_answer(5, TRUE_BOX), box_propagator(fails_at=5))
    assert budget == ErrorBudget(1.0, 0.0, 0.0)


def test_failed_propagation_of_the_true_anchor_counts_as_0(make_case, write_answer, box_propagator, caplog, budget_of):
    budget = budget_of(make_case(), write_answer(5, TRUE_BOX), box_propagator(fails_at=6))
    assert budget.true_anchor == 0.0
    assert "slice 6 cannot be propagated" in caplog.text


def test_absent_targets_have_no_budget(make_case, write_answer, box_propagator, budget_of):
    assert budget_of(make_case(present=False), write_answer(), box_propagator()) is None


def test_true_boxes_are_those_of_the_chosen_slice():
    target = np.zeros((3, 20, 20), bool)
    target[0, 2:8, 3:9] = True
    target[2, 4:10, 5:17] = True
    answer = Evidence(2, np.array([[0.0, 0.0, 1.0, 1.0]]))
    assert true_boxes_at(target, answer).boxes.tolist() == [[5, 4, 17, 10]]
    assert true_boxes_at(target, Evidence(1, answer.boxes)) is None


def test_means_still_add_up():
    rng = np.random.default_rng(0)
    rows = [ErrorBudget(*rng.random(3)) for _ in range(7)]
    mean = mean_budget(rows)
    assert mean.slice_loss == pytest.approx(np.mean([row.slice_loss for row in rows]))
    assert mean.propagation_loss + mean.slice_loss + mean.box_loss == pytest.approx(1 - mean.predicted)
    assert mean_budget([]) is None


def test_true_boxes_of_several_chosen_slices():
    target = np.zeros((4, 20, 20), bool)
    target[0, 2:8, 3:9] = True
    target[2, 4:10, 5:17] = True
    wrong = np.array([[0.0, 0.0, 1.0, 1.0]])
    found = true_boxes_at(target, join_anchors([Evidence(z, wrong) for z in (2, 1, 0)]))
    assert [(anchor.key_slice, anchor.boxes.tolist()) for anchor in found.anchors] == [
        (2, [[5, 4, 17, 10]]),
        (0, [[3, 2, 9, 8]]),
    ]
    assert true_boxes_at(target, join_anchors([Evidence(z, wrong) for z in (1, 3)])) is None
