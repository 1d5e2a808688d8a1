"""What every reward term promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.roles import RewardTerm
from medvol.core.types import Case, Evidence, Rollout
from medvol.testing.contract import require
from medvol.testing.fixtures import make_case, make_rollout, make_target, true_anchor, write_answer

SIDES_PX = (8, 12, 20)
NOT_AN_ANSWER = ("", "I cannot tell.", "<answer>", '<answer>[{"slice": 99, "bbox_2d_list": [[0, 0, 9, 9]]}]</answer>')
_ABSENT = "<think>I see none</think><answer>[]</answer>"


def check_returns_a_float(term: RewardTerm) -> None:
    """A score is a Python float."""
    case = make_case()
    score = term(make_rollout(case), case)
    require(type(score) is float, "type of a score", "float", type(score).__name__, "return float(...)")


def check_range(term: RewardTerm) -> None:
    """Every score is a finite number in [0, 1], whatever was answered."""
    for absent in (False, True):
        case = make_case(absent=absent)
        for name, rollout in _odd_rollouts(case).items():
            score = term(rollout, case)
            require(
                math.isfinite(score) and 0.0 <= score <= 1.0,
                f"score of {name}",
                "a finite number in [0, 1]",
                score,
                "normalise or clip it, and treat divisions by 0",
            )


def check_unparsable_scores_zero(term: RewardTerm) -> None:
    """Without evidence the score is 0, without an exception; a term that reads the text only may grade other text."""
    case = make_case()
    for text in NOT_AN_ANSWER[:1] if term.needs == {"text"} else NOT_AN_ANSWER:
        score = term(make_rollout(case, text), case)
        require(
            score == 0.0, f"score of the unparsable answer {text!r}", 0.0, score, "return 0.0 when evidence is None"
        )


def check_perfect_scores_one(term: RewardTerm) -> None:
    """The true anchor with the true mask scores exactly 1 at every box size, after the grammar's rounding."""
    for side in SIDES_PX:
        case = make_case(side_px=side)
        score = term(make_rollout(case), case)
        require(
            score == 1.0,
            f"score of the true answer with a box of {side} px",
            1.0,
            score,
            "compare boxes in the grammar's own coordinates, so that its rounding costs nothing",
        )


def check_true_absence_scores_one(term: RewardTerm) -> None:
    """``[]`` for an absent target scores exactly 1."""
    case = make_case(absent=True)
    score = term(make_rollout(case, _ABSENT), case)
    require(score == 1.0, "score of [] for an absent target", 1.0, score, "return 1.0 when both sides say absent")


def check_missed_target_costs(term: RewardTerm) -> None:
    """``[]`` for a present target scores less than 1 in a term that reads the evidence."""
    case = make_case()
    score = term(make_rollout(case, _ABSENT, np.zeros(case.volume.shape, bool)), case)
    require(
        score < 1.0 or "evidence" not in term.needs,
        "score of [] for a present target",
        "less than 1",
        score,
        "return 0.0 when the answer says absent and the target is there",
    )


def check_worse_never_scores_higher(term: RewardTerm) -> None:
    """Boxes and masks that move away from the target never earn more."""
    case = make_case()
    scores = [term(rollout, case) for rollout in _worsening(case)]
    require(
        all(later <= earlier + 1e-9 for earlier, later in pairwise(scores)),
        "scores of ever worse answers",
        "no increase",
        [round(score, 4) for score in scores],
        "let the score fall with the distance from the target",
    )


def check_no_mutation(term: RewardTerm) -> None:
    """Neither the rollout nor the case is changed."""
    case = make_case()
    rollout = make_rollout(case, mask=make_target())
    before = [array.copy() for array in _arrays(rollout, case)]
    term(rollout, case)
    same = all(np.array_equal(a, b) for a, b in zip(before, _arrays(rollout, case), strict=True))
    require(same, "arrays of rollout and case", "no change", "other values", "work on a copy")


def check_deterministic(term: RewardTerm) -> None:
    """The same rollout earns the same score."""
    case = make_case()
    for name, rollout in _odd_rollouts(case).items():
        first, second = term(rollout, case), term(rollout, case)
        require(first == second, f"two scores of {name}", "the same", (first, second), "do not draw or keep state")


def check_needs_are_truthful(term: RewardTerm) -> None:
    """What is not declared in ``needs`` is not read: without it the score is the same."""
    case = make_case()
    for rollout in _worsening(case)[:3]:
        lean = replace(
            rollout,
            evidence=rollout.evidence if "evidence" in term.needs else None,
            mask=rollout.mask if "mask" in term.needs else None,
        )
        full_score, lean_score = term(rollout, case), term(lean, case)
        require(
            full_score == lean_score,
            f"score without what is not in needs ({', '.join(sorted(term.needs))})",
            full_score,
            lean_score,
            "declare everything that is read in needs",
        )


def _odd_rollouts(case: Case) -> dict[str, Rollout]:
    depth, height, width = case.volume.shape
    empty, full = np.zeros(case.volume.shape, bool), np.ones(case.volume.shape, bool)
    whole = write_answer(case, _anchor(0, [[0, 0, width, height]]))
    many = write_answer(case, _anchor(depth - 1, [[i % width, 0, i % width + 1, 1] for i in range(64)]))
    return {
        **{f"the unparsable answer {text[:20]!r}": make_rollout(case, text) for text in NOT_AN_ANSWER},
        "a very long text": make_rollout(case, "slice " * 20_000),
        "[]": make_rollout(case, _ABSENT, empty),
        "the whole slice and a full mask": make_rollout(case, whole, full),
        "the whole slice and an empty mask": make_rollout(case, whole, empty),
        "64 boxes and an empty mask": make_rollout(case, many, empty),
    }


def _worsening(case: Case) -> list[Rollout]:
    """The true answer, three that lie ever further to the side of it, and none at all."""
    truth = true_anchor(case)
    target = make_target() if case.target is None else case.target
    rollouts = []
    for shift in (0, 4, 8, 18):
        boxes = truth.boxes + np.array([shift, 0, shift, 0], np.float64)
        text = write_answer(case, Evidence(truth.key_slice, boxes, truth.rationale))
        rollouts.append(make_rollout(case, text, np.roll(target, shift, axis=2)))
    return [*rollouts, make_rollout(case, "")]


def _anchor(key_slice: int, boxes: list[list[int]]) -> Evidence:
    return Evidence(key_slice, np.array(boxes, np.float64), "odd")


def _arrays(rollout: Rollout, case: Case) -> list[NDArray[Any]]:
    boxes = None if rollout.evidence is None else rollout.evidence.boxes
    found: list[NDArray[Any] | None] = [case.volume.voxels, case.volume.affine, case.target, rollout.mask, boxes]
    return [array for array in found if array is not None]


CHECKS = (
    check_returns_a_float,
    check_range,
    check_unparsable_scores_zero,
    check_perfect_scores_one,
    check_true_absence_scores_one,
    check_missed_target_costs,
    check_worse_never_scores_higher,
    check_no_mutation,
    check_deterministic,
    check_needs_are_truthful,
)
