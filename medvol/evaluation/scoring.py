"""Scored cases: metrics of answers and masks; a failure earns 0 everywhere and is never dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from medvol.core.metrics import Mask, dice, iou, key_slice_score, slice_areas, volume_ml
from medvol.core.roles import Propagator
from medvol.core.types import Case, Evidence, Rollout, require_target
from medvol.evaluation.case_identity import name_patient
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.error_budget import measure_budget
from medvol.evaluation.lesions import LesionScore, score_lesions
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.surfaces import diagonal_mm, surface_measures
from medvol.grounding.anchors import settled_score
from medvol.grounding.boxes import matched_iou, tight_boxes
from medvol.grounding.cover import compare_anchors
from medvol.inference.votes import take_votes
from medvol.rollouts.failures import warn_of_failures
from medvol.rollouts.groups import Group
from medvol.rollouts.masks import HELD_MIB, follow

MISSING_MASK = "missing_mask"
"""Name of the failure of a case for which another system gave no mask."""

Keeper = Callable[[CaseScore, Case, Mask], CaseScore]
"""Keeps the mask of a case; returns the score, which names the file where it is kept."""


def score_groups(
    groups: Sequence[Group],
    propagator: Propagator,
    settings: EvaluationSettings | None = None,
    truths: Sequence[Evidence] | None = None,
    keep: Keeper | None = None,
) -> list[CaseScore]:
    """Follow and score the answers to all cases of one volume.

    Args:
        groups: The cases, each with a target mask, and the answer of each, which may carry samples.
        propagator: Turns anchors into masks.
        settings: What is measured.
        truths: True anchor of each case; with them the error budget is measured.
        keep: Keeps masks.

    Raises:
        DatasetError: A case has no target mask.
    """
    settings = settings or EvaluationSettings()
    rollouts = [group.answer for group in groups]
    scores: dict[int, CaseScore] = {}
    failed = []
    for place, rollout in follow(groups[0].case.volume, rollouts, propagator, held_mib=HELD_MIB):
        case = groups[place].case
        score = score_rollout(rollout, case, settings)
        failed += [rollout] if rollout.error is not None else []
        if truths is not None:
            score = _add_budget(score, rollout, case, truths[place], propagator, settings)
        if keep is not None and rollout.mask is not None:
            score = keep(score, case, rollout.mask)
        if settings.samples:
            score = replace(score, confidence=rate_confidence(groups[place], rollout, propagator))
        scores[place] = score
    warn_of_failures(failed)
    return [scores[place] for place in range(len(groups))]


def rate_confidence(group: Group, rollout: Rollout, propagator: Propagator) -> float:
    """How far an answer can be trusted, without a look at the target.

    Args:
        group: The question, whose answer carries samples.
        rollout: The answer, followed to its mask.
        propagator: Follows the samples.

    Returns:
        Mean Dice over all pairs of the samples' masks, in [0, 1]; 0 for an answer that gave no mask.
    """
    return 0.0 if rollout.mask is None else take_votes(group, propagator).agreement


def score_rollout(rollout: Rollout, case: Case, settings: EvaluationSettings) -> CaseScore:
    """Score an answer that was followed to its mask.

    Raises:
        DatasetError: The case has no target mask.
    """
    target = require_target(case)
    evidence = rollout.evidence
    mask = np.zeros_like(target) if rollout.mask is None else rollout.mask
    settled = 0.0 if rollout.failure is not None else settled_score(evidence, target)
    anchor = (settled or 0.0, settled or 0.0)
    if settled is None and evidence is not None:
        anchor = _compare_anchors(evidence, target, rollout.max_anchors, settings)
    score = _score(case, mask, settled, settings)
    return replace(
        score,
        parsed=evidence is not None,
        failure=rollout.failure,
        detail=rollout.detail,
        answered_absent=evidence is not None and evidence.absent,
        max_anchors=rollout.max_anchors,
        key_slice=None if evidence is None else evidence.key_slice,
        key_slice_score=anchor[0],
        box_iou=anchor[1],
        completion=rollout.completion.text,
    )


def _compare_anchors(
    evidence: Evidence, target: Mask, max_anchors: int, settings: EvaluationSettings
) -> tuple[float, float]:
    """Score of the key slice and IoU of the boxes, of several anchors by the rule of ``compare_anchors``."""

    def compare_slice(anchor: Evidence, part: Mask) -> float:
        assert anchor.key_slice is not None
        return key_slice_score(slice_areas(part), anchor.key_slice)

    def compare_boxes(anchor: Evidence, part: Mask) -> float:
        return matched_iou(anchor.boxes, tight_boxes(part[anchor.key_slice], split=settings.split_boxes))

    return (
        compare_anchors(evidence, target, max_anchors, compare_slice),
        compare_anchors(evidence, target, max_anchors, compare_boxes),
    )


def score_mask(mask: Mask | None, case: Case, settings: EvaluationSettings, detail: str = "") -> CaseScore:
    """Score a mask that another system made; what only an answer has (words, key slice, boxes) is None.

    Args:
        mask: (Z, Y, X) on the volume's grid; None where there is none, which is a failure.
        case: The question.
        settings: What is measured.
        detail: Why there is no mask.

    Raises:
        DatasetError: The case has no target mask.
        GeometryError: The mask has another shape.
    """
    target = require_target(case)
    if mask is None:
        score = _score(case, np.zeros_like(target), 0.0, settings)
        return replace(score, failure=MISSING_MASK, detail=detail)
    settled = None if target.any() else float(not mask.any())
    return replace(_score(case, mask, settled, settings), answered_absent=not mask.any())


def _score(case: Case, mask: Mask, settled: float | None, settings: EvaluationSettings) -> CaseScore:
    """What a mask alone decides; ``settled`` is the score that it earns without being compared."""
    target = require_target(case)
    agreement = _compare(case, mask, target, settled, settings)
    return CaseScore(
        case_id=case.case_id,
        patient_id=name_patient(case),
        query=case.query.text,
        target=case.query.target,
        kind=case.query.kind,
        held_out=case.query.held_out,
        modality=case.volume.modality,
        present=bool(target.any()),
        dsc=agreement.dsc,
        iou=agreement.iou,
        mask_ml=volume_ml(mask, case.volume.spacing),
        true_ml=volume_ml(target, case.volume.spacing),
        nsd=agreement.nsd,
        tolerance_mm=None if settings.surface is None else _tolerance_mm(case, settings),
        hd95_mm=agreement.hd95_mm,
        lesions=agreement.lesions,
    )


class _Agreement(NamedTuple):
    dsc: float
    iou: float
    nsd: float | None
    hd95_mm: float | None
    lesions: LesionScore | None


def _compare(case: Case, mask: Mask, target: Mask, settled: float | None, settings: EvaluationSettings) -> _Agreement:
    """A mask beside the true one; what is settled counts as no mask at all where the target is present."""
    compared = np.zeros_like(target) if settled is not None else mask
    lesions = score_lesions(compared, target) if target.any() and settings.counts_lesions(case.query.target) else None
    dsc = dice(mask, target) if settled is None else settled
    nsd, hd95 = (None, None) if settings.surface is None else _measure_surface(dsc, target, compared, case, settings)
    return _Agreement(dsc, iou(mask, target) if settled is None else settled, nsd, hd95, lesions)


def _measure_surface(
    dsc: float, target: Mask, mask: Mask, case: Case, settings: EvaluationSettings
) -> tuple[float, float]:
    """NSD and HD95; a false alarm or a failure on an absent target is as bad as a miss, even with an empty mask."""
    if not target.any():
        return dsc, 0.0 if dsc else diagonal_mm(target.shape, case.volume.spacing)
    tolerance = _tolerance_mm(case, settings)
    return surface_measures(mask, target, case.volume.spacing, tolerance, settings.surface or "surfels")


def _tolerance_mm(case: Case, settings: EvaluationSettings) -> float:
    own = case.surface_tolerance_mm
    return settings.tolerance_mm if own is None else own


def _add_budget(
    score: CaseScore,
    rollout: Rollout,
    case: Case,
    truth: Evidence,
    propagator: Propagator,
    settings: EvaluationSettings,
) -> CaseScore:
    """The score with its error budget, where the target is present."""
    if not score.present:
        return score
    answer = rollout.evidence if rollout.failure is None else None
    target = require_target(case)
    budget = measure_budget(
        case.volume, target, truth, answer, score.dsc, propagator, settings.split_boxes, settings.headroom
    )
    return replace(score, budget=budget)
