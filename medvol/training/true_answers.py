"""True answers: what SFT teaches a policy to write about a case among the slices shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvol.core.metrics import slice_areas
from medvol.core.notices import tell_once
from medvol.core.prompts import PromptTemplate
from medvol.core.types import Case, Evidence, SliceStack, require_target
from medvol.grounding.anchors import given_anchor, label_anchor
from medvol.grounding.grammar import format_evidence
from medvol.training.settings import AnswerSettings

_CLEAR = 0.1
"""A slice shows a target clearly when it holds this share of the largest area."""


@dataclass(frozen=True, eq=False)
class TrueAnswer:
    """An answer worked out from a mask.

    Args:
        text: As the policy should write it.
        evidence: What it says.
        span: First and last slice that its think block names; empty when it names none.
    """

    text: str
    evidence: Evidence
    span: tuple[int, ...] = ()


def write_answer(
    case: Case,
    slices: SliceStack,
    settings: AnswerSettings,
    split_boxes: bool,
    template: PromptTemplate,
    rng: np.random.Generator,
) -> TrueAnswer:
    """Write the true answer to a case among the slices shown.

    A reader's own key slices and boxes are taught where these slices are shown and the template allows as many; else
    the anchors come from the mask.

    Args:
        case: The question with its target mask.
        slices: What is shown.
        settings: How it is written.
        split_boxes: One box for each part of the target on the slice; one box of the whole target otherwise.
        template: Says the step of coordinates, and how many anchors an answer may have.
        rng: Source of the jitter.

    Raises:
        DatasetError: The case has no target mask.
    """
    target = require_target(case)
    span: tuple[int, ...] = ()
    rationale = ""
    if settings.think:
        clear = clear_slices(case, slices.indices)
        name = case.query.meaning or case.query.target or "target"
        span = (clear[0], clear[-1]) if clear else ()
        rationale = f"the {name} spans slices {clear[0]} to {clear[-1]}" if clear else f"the {name} is not in the scan"
    given = _taught_anchor(case, slices, template.max_anchors)
    if given is not None:
        evidence = given_anchor(given, target.shape, split_boxes, settings.jitter, rng, rationale)
    else:
        rule, jitter, most = settings.label_rule, settings.jitter, template.max_anchors
        evidence = label_anchor(target, slices.indices, rule, split_boxes, jitter, rng, rationale, most)
    _, height, width = target.shape
    return TrueAnswer(format_evidence(evidence, height, width, template.coordinate_step), evidence, span)


def _taught_anchor(case: Case, slices: SliceStack, max_anchors: int) -> Evidence | None:
    """What a reader gave, where it can be taught; it is told once where it cannot."""
    if case.anchor is None:
        return None
    anchors = case.anchor.anchors
    hidden = next((anchor.key_slice for anchor in anchors if anchor.key_slice not in slices.indices), None)
    reason = ""
    if hidden is not None:
        reason = f"key slice {hidden} is not among the slices shown"
    elif len(anchors) > max_anchors:
        reason = f"{len(anchors)} anchors are more than the {max_anchors} of the prompt (max_anchors)"
    if reason:
        tell_once(f"{case.case_id}: its reader's {reason}; the boxes come from its mask")
        return None
    return case.anchor


def clear_slices(case: Case, shown: Sequence[int]) -> list[int]:
    """Those of the slices shown that hold a tenth of the target's largest area."""
    areas = slice_areas(require_target(case))
    return [z for z in shown if areas[z] > 0 and areas[z] >= _CLEAR * areas.max()]


def is_taught(case: Case, slices: SliceStack) -> bool:
    """False for a target that the scan holds and no slice shown does: ``[]`` would be taught, which is not true."""
    areas = slice_areas(require_target(case))
    taught = not areas.any() or bool(areas[list(slices.indices)].any())
    if not taught:
        tell_once(f"{case.case_id}: its target lies on none of the {len(slices.indices)} slices shown; it is left out")
    return taught
