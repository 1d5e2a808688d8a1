"""What every reward term promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RewardError
from medvol.core.roles import Aspect, RewardTerm
from medvol.core.types import Case, Completion, Rollout
from medvol.guarding.promises import form_of
from medvol.testing.component_checks import require, require_untouched
from medvol.testing.fixtures import make_answer, make_case, make_rollout, make_scattered_case, write_evidence

SIZES_PX = (8, 12, 20)
UNPARSABLE = ("", "I cannot tell", "<think>it is there</think><answer>[{</answer>", "<answer>maybe</answer>")
_TINY = 1e-9


def check_range(term: RewardTerm) -> None:
    """Scores are finite numbers in [0, 1], whatever was answered."""
    for rollout, case in _assorted():
        score = term(rollout, case)
        number = isinstance(score, float | int | np.floating | np.integer) and not isinstance(score, bool)
        fine = number and math.isfinite(score) and 0 <= score <= 1
        require(fine, "a number in [0, 1]", form_of(score), f"clip or scale the score of {rollout.completion.text!r}")


def check_perfect_answer(term: RewardTerm) -> None:
    """The best answer that can be written scores 1, for small targets too."""
    for size in SIZES_PX:
        case = make_case(size)
        score = term(make_rollout(case, coordinate_step=_step(term)), case)
        require(
            abs(score - 1) < _TINY,
            f"1 for the perfect answer about a target of {size} px",
            score,
            "compare boxes in the grammar's own coordinates, so that rounding costs nothing",
        )


def check_unparsable_answer(term: RewardTerm) -> None:
    """An answer without evidence scores 0; a term that reads the text only may give it part of the credit."""
    case = make_case()
    for text in UNPARSABLE:
        score = term(make_rollout(case, text), case)
        if term.needs <= {"text"}:
            require(score < 1, f"less than 1 for the text {text!r}", score, "keep the full score for an answer")
        else:
            require(score == 0, f"0 for the text {text!r}", score, "return 0.0 where rollout.evidence is None")


def check_absent_target(term: RewardTerm) -> None:
    """Where the target is absent, ``[]`` scores 1 and boxes 0; where it is present, ``[]`` scores 0.

    A term that reads the text only is held to the first alone.
    """
    absent, present = make_case(absent=True), make_case()
    score = term(make_rollout(absent), absent)
    require(abs(score - 1) < _TINY, "1 for [] about an absent target", score, "score an absent target on its own")
    if term.needs <= {"text"}:
        return
    nothing = make_answer(present, None, np.empty((0, 4)))
    score = term(make_rollout(present, nothing), present)
    require(score == 0, "0 for [] about a target that is there", score, "look at case.target")
    boxes = make_answer(absent, 4, np.array([[10.0, 10.0, 20.0, 20.0]]))
    for followed in (np.zeros(absent.volume.shape, bool), np.ones(absent.volume.shape, bool)):
        score = term(make_rollout(absent, boxes, followed), absent)
        mend = "settle absent targets before anything is compared, an empty mask included"
        require(score == 0, "0 for boxes about an absent target", score, mend)


def check_worse_is_not_better(term: RewardTerm) -> None:
    """Moving the boxes or the key slice away, or losing the mask, never raises the score."""
    case = make_case(20)
    for name, chain in _worse_and_worse(case, _step(term)).items():
        scores = [term(rollout, case) for rollout in chain]
        falling = all(later <= earlier + _TINY for earlier, later in pairwise(scores))
        require(falling, f"scores that never rise as {name}", scores, "let the score fall with the error")


def check_no_mutation(term: RewardTerm) -> None:
    """Neither the rollout nor the case is changed, and no array of theirs is written to."""
    for case in (make_case(), make_case(absent=True)):
        rollout = make_rollout(case)
        require_untouched(lambda rollout=rollout, case=case: term(rollout, case), rollout=rollout, case=case)  # type: ignore[misc]


def check_deterministic(term: RewardTerm) -> None:
    """The same rollout always earns the same score, in any order."""
    pairs = _assorted()
    first = [term(*pair) for pair in pairs]
    second = [term(*pair) for pair in reversed(pairs)][::-1]
    require(first == second, f"the same scores again, {first}", second, "keep no state and draw no random numbers")


def check_needs_are_known(term: RewardTerm) -> None:
    """``needs`` is a frozenset out of text, evidence and mask."""
    needs = term.needs
    known = isinstance(needs, frozenset) and bool(needs) and needs <= {"text", "evidence", "mask"}
    require(known, 'a frozenset out of "text", "evidence" and "mask"', repr(needs), "declare needs on the class")


def check_judges_are_known(term: RewardTerm) -> None:
    """``judges`` is None, or a frozenset out of form, slice, boxes and mask."""
    judges = term.judges
    known = judges is None or (isinstance(judges, frozenset) and judges <= set(get_args(Aspect)))
    words = ", ".join(get_args(Aspect))
    require(known, f"a frozenset out of {words}, or None", repr(judges), "declare judges on the class")


def check_needs_are_complete(term: RewardTerm) -> None:
    """What is not declared in ``needs`` is not read."""
    for rollout, case in _parsed():
        full = term(rollout, case)
        lean = replace(
            rollout,
            completion=rollout.completion if "text" in term.needs else Completion(""),
            evidence=rollout.evidence if "evidence" in term.needs else None,
            mask=rollout.mask if "mask" in term.needs else None,
        )
        try:
            score = term(lean, case)
        except (RewardError, AttributeError, TypeError) as error:
            raise AssertionError(
                f"expected a score from {sorted(term.needs)} alone; got {type(error).__name__}: {error}; declare in "
                "needs what is read"
            ) from error
        require(score == full, f"{full} from {sorted(term.needs)} alone", score, "declare in needs what is read")


def check_mask_is_used(term: RewardTerm) -> None:
    """A term that declares ``mask`` reads it; otherwise every answer would be propagated for nothing."""
    if "mask" not in term.needs:
        return
    case = make_case()
    rollout = make_rollout(case)
    empty = replace(rollout, mask=np.zeros(case.volume.shape, bool))
    score = term(rollout, case)
    differs = term(empty, case) != score
    require(differs, "another score for an empty mask", f"{score} for both", "take 'mask' out of needs")


def check_mask_delta(term: RewardTerm) -> None:
    """What lies outside ``mask_delta`` of the key slice is not read, since it may not have been propagated."""
    if "mask" not in term.needs or term.mask_delta is None:
        return
    whole = type(term.mask_delta) is int and term.mask_delta >= 0
    require(whole, "a mask_delta of so many slices, or None", repr(term.mask_delta), "return a whole number from 0 on")
    case = make_case()
    full = make_rollout(case)
    assert full.evidence is not None
    assert full.evidence.key_slice is not None
    assert full.mask is not None
    near = np.abs(np.arange(case.volume.shape[0]) - full.evidence.key_slice) <= term.mask_delta
    for outside in (False, True):
        altered = np.where(near[:, None, None], full.mask, outside)
        scores = term(full, case), term(replace(full, mask=altered), case)
        within = f"the same score whatever lies beyond {term.mask_delta} slices"
        require(scores[0] == scores[1], within, scores, "return None from mask_delta, or cut the mask to it")


def _step(term: RewardTerm) -> int:
    """Coordinates of a perfect answer are multiples of the term's own step, where it has one."""
    return int(getattr(term, "coordinate_step", 1))


def _parsed() -> list[tuple[Rollout, Case]]:
    """Seeded answers with evidence, right, wrong and absent."""
    rng = np.random.default_rng(0)
    pairs = []
    for case in (make_case(8), make_case(20), make_case(absent=True)):
        depth, height, width = case.volume.shape
        pairs += [(make_rollout(case), case), (make_rollout(case, make_answer(case, None, np.empty((0, 4)))), case)]
        for _ in range(8):
            corner = rng.uniform(0, 0.8, (int(rng.integers(1, 4)), 2)) * (width, height)
            boxes = np.hstack([corner, corner + rng.uniform(1, 0.2 * height, corner.shape)])
            text = make_answer(case, int(rng.integers(depth)), boxes)
            pairs.append((make_rollout(case, text, rng.random(case.volume.shape) < rng.random()), case))
    return pairs


def _assorted() -> list[tuple[Rollout, Case]]:
    cases = make_case(), make_case(absent=True)
    unparsable = ((make_rollout(case, text), case) for case in cases for text in UNPARSABLE)
    return [*_parsed(), *unparsable, *_several()]


def _several() -> list[tuple[Rollout, Case]]:
    """Answers of three anchors and of one, where several are allowed: a term may read the first one alone."""
    case = make_scattered_case()
    perfect = make_rollout(case, max_anchors=4)
    assert perfect.evidence is not None
    first = write_evidence(case, perfect.evidence.anchors[0])
    return [(perfect, case), (make_rollout(case, first, max_anchors=4), case)]


def _worse_and_worse(case: Case, step: int) -> dict[str, list[Rollout]]:
    """Chains of rollouts, each worse than the one before in one respect."""
    perfect = make_rollout(case, coordinate_step=step)
    assert case.target is not None
    assert perfect.evidence is not None
    assert perfect.evidence.key_slice is not None
    key, boxes, target = perfect.evidence.key_slice, perfect.evidence.boxes, case.target
    moved = []
    for shift in (0, 2, 5, 9, 14):
        text = make_answer(case, key, boxes - [shift, 0, shift, 0], step)
        moved.append(make_rollout(case, text, np.roll(target, -shift, axis=2)))
    along = [make_rollout(case, make_answer(case, z, boxes, step), target) for z in range(key, len(target))]
    cut = [_cut(target, rows) for rows in (0, 4, 8, 12, target.shape[1])]
    return {
        "boxes and mask move away": moved,
        "the key slice moves away": along,
        "the mask loses rows": [replace(perfect, mask=mask) for mask in cut],
    }


def _cut(target: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """A mask without the first rows of its extent."""
    first = int(np.flatnonzero(target.any(axis=(0, 2)))[0])
    mask = target.copy()
    mask[:, : first + rows] = False
    return mask


REWARD_CHECKS: tuple[Callable[[RewardTerm], None], ...] = (
    check_range,
    check_perfect_answer,
    check_unparsable_answer,
    check_absent_target,
    check_worse_is_not_better,
    check_no_mutation,
    check_deterministic,
    check_needs_are_known,
    check_judges_are_known,
    check_needs_are_complete,
    check_mask_is_used,
    check_mask_delta,
)
