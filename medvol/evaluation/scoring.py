"""Scored cases: metrics of rollouts; a failure earns 0 everywhere and is never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from medvol.core.metrics import Mask, diagonal_mm, dice, iou, key_slice_score, slice_areas, surface_measures, volume_ml
from medvol.core.roles import Propagator
from medvol.core.types import Case, Evidence, Rollout, require_target
from medvol.evaluation.error_budget import ErrorBudget, measure_budget
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.anchors import settled_score
from medvol.grounding.boxes import matched_iou, tight_boxes
from medvol.rollouts.failures import warn_of_failures
from medvol.rollouts.groups import Group
from medvol.rollouts.masks import HELD_MIB, follow


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    A failed answer scores 0. When the target is present, so does an answer that says it is absent. When the target is
    absent, the answer ``[]`` scores 1 and any other answer 0, whatever was propagated from it.

    Args:
        case_id: Unique within the data set.
        patient_id: Intervals are by patient; the volume's identity when the data set names no patient.
        query: Text of the question.
        target: Name of what was asked for.
        kind: How the query points at it.
        held_out: True for a phrasing that no training query uses.
        modality: Modality of the scan.
        present: True when the scan shows the target.
        parsed: True when the answer follows the grammar.
        failure: Name of the failure; None when there was none.
        detail: What went wrong, in words; empty when nothing did.
        answered_absent: True when the answer says that the target is absent.
        key_slice: Chosen slice; None when there is none.
        key_slice_score: Target area there over the largest of the volume.
        box_iou: Matched IoU with the true boxes of the chosen slice, in pixels.
        dsc: Dice of the mask.
        iou: Intersection over union of the mask, measured, not derived from the Dice.
        mask_ml: Volume of the mask.
        true_ml: Volume of the target.
        nsd: Normalised surface distance; None when not measured.
        hd95_mm: 95th percentile of the Hausdorff distance; None when not measured.
        budget: Error budget; None when not measured or the target is absent.
        completion: The policy's own words.
    """

    case_id: str
    patient_id: str
    query: str
    target: str
    kind: str
    held_out: bool
    modality: str
    present: bool
    parsed: bool
    failure: str | None
    detail: str
    answered_absent: bool
    key_slice: int | None
    key_slice_score: float
    box_iou: float
    dsc: float
    iou: float
    mask_ml: float
    true_ml: float
    nsd: float | None = None
    hd95_mm: float | None = None
    budget: ErrorBudget | None = None
    completion: str = ""


def score_groups(
    groups: Sequence[Group],
    propagator: Propagator,
    settings: EvaluationSettings | None = None,
    truths: Sequence[Evidence] | None = None,
) -> list[CaseScore]:
    """Follow and score the answers to all cases of one volume.

    Args:
        groups: The cases, each with a target mask, and the answer of each.
        propagator: Turns anchors into masks.
        settings: What is measured.
        truths: True anchor of each case; with them the error budget is measured.

    Raises:
        DatasetError: A case has no target mask.
    """
    settings = settings or EvaluationSettings()
    rollouts = [group.answer for group in groups]
    scores: dict[int, CaseScore] = {}
    failed = []
    for place, rollout in follow(groups[0].case.volume, rollouts, propagator, held_mib=HELD_MIB):
        case = groups[place].case
        scores[place] = score_rollout(rollout, case, settings)
        failed += [rollout] if rollout.error is not None else []
        if truths is not None:
            scores[place] = _add_budget(scores[place], rollout, case, truths[place], propagator, settings)
    warn_of_failures(failed)
    return [scores[place] for place in range(len(groups))]


def _add_budget(
    score: CaseScore,
    rollout: Rollout,
    case: Case,
    truth: Evidence,
    propagator: Propagator,
    settings: EvaluationSettings,
) -> CaseScore:
    """The score with its error budget, where the target is present."""
    target = require_target(case)
    if not score.present:
        return score
    answer = rollout.evidence if rollout.failure is None else None
    budget = measure_budget(case.volume, target, truth, answer, score.dsc, propagator, settings.split_boxes)
    return replace(score, budget=budget)


def score_rollout(rollout: Rollout, case: Case, settings: EvaluationSettings) -> CaseScore:
    """Score a rollout that was followed to its mask.

    Raises:
        DatasetError: The case has no target mask.
    """
    target = require_target(case)
    mask = np.zeros_like(target) if rollout.mask is None else rollout.mask
    marks = _mark(rollout, target, mask, settings.split_boxes)
    nsd, hd95 = _measure_surface(marks.dsc, target, mask, case, settings) if settings.surface else (None, None)
    evidence = rollout.evidence
    return CaseScore(
        case_id=case.case_id,
        patient_id=case.patient_id or case.volume.volume_id or case.case_id,
        query=case.query.text,
        target=case.query.target,
        kind=case.query.kind,
        held_out=case.query.held_out,
        modality=case.volume.modality,
        present=bool(target.any()),
        parsed=evidence is not None,
        failure=rollout.failure,
        detail=rollout.detail,
        answered_absent=evidence is not None and evidence.absent,
        key_slice=None if evidence is None else evidence.key_slice,
        key_slice_score=marks.key_slice_score,
        box_iou=marks.box_iou,
        dsc=marks.dsc,
        iou=marks.iou,
        mask_ml=volume_ml(mask, case.volume.spacing),
        true_ml=volume_ml(target, case.volume.spacing),
        nsd=nsd,
        hd95_mm=hd95,
        completion=rollout.completion.text,
    )


class _Marks(NamedTuple):
    key_slice_score: float
    box_iou: float
    dsc: float
    iou: float


def _mark(rollout: Rollout, target: Mask, mask: Mask, split_boxes: bool) -> _Marks:
    evidence = rollout.evidence
    settled = 0.0 if rollout.failure is not None else settled_score(evidence, target)
    if settled is not None or evidence is None or evidence.key_slice is None:
        return _Marks(*[settled or 0.0] * 4)
    true_boxes = tight_boxes(target[evidence.key_slice], split=split_boxes)
    return _Marks(
        key_slice_score(slice_areas(target), evidence.key_slice),
        matched_iou(evidence.boxes, true_boxes),
        dice(mask, target),
        iou(mask, target),
    )


def _measure_surface(
    dsc: float, target: Mask, mask: Mask, case: Case, settings: EvaluationSettings
) -> tuple[float, float]:
    """NSD and HD95; a false alarm or a failure on an absent target is as bad as a miss, even with an empty mask."""
    if not target.any():
        return dsc, 0.0 if dsc else diagonal_mm(target.shape, case.volume.spacing)
    own = case.surface_tolerance_mm
    return surface_measures(mask, target, case.volume.spacing, settings.tolerance_mm if own is None else own)
