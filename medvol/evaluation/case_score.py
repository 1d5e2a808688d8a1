"""CaseScore: what one case earned, as ``cases.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.evaluation.error_budget import ErrorBudget
from medvol.evaluation.lesions import LesionScore


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    A failed answer scores 0. When the target is present, so does an answer that says it is absent. When the target is
    absent, the answer ``[]`` scores 1 and any other answer 0, whatever was propagated from it. Of a mask that another
    system made, an empty one says that the target is absent.

    Args:
        case_id: Unique within the data set.
        patient_id: Intervals are by patient; the volume's identity when the data set names no patient.
        query: Text of the question.
        target: Name of what was asked for.
        kind: How the query points at it.
        held_out: True for a phrasing that no training query uses.
        modality: Modality of the scan.
        present: True when the scan shows the target.
        dsc: Dice of the mask.
        iou: Intersection over union of the mask, measured, not derived from the Dice.
        mask_ml: Volume of the mask.
        true_ml: Volume of the target.
        parsed: True when the answer follows the grammar; None for a mask that another system made.
        failure: Name of the failure; None when there was none.
        detail: What went wrong, in words; empty when nothing did.
        answered_absent: True when the answer says that the target is absent.
        max_anchors: Most anchors that the prompt allowed in the answer.
        key_slice: Chosen slice, of several the first that the answer names; None when there is none.
        key_slice_score: Target area there over the largest of the volume; None for a mask of another system. Where
            several anchors are allowed each is compared with its part of the target, see
            ``medvol.grounding.cover.compare_anchors``, and so are the boxes.
        box_iou: Matched IoU with the true boxes of the chosen slice, in pixels; None for a mask of another system.
        nsd: Normalised surface distance; None when not measured.
        tolerance_mm: Tolerance of the NSD: the one that the case brings, or that of the settings; None as before.
        hd95_mm: 95th percentile of the Hausdorff distance; None when not measured.
        lesions: Scores lesion by lesion; None when not measured or the target is absent.
        budget: Error budget; None when not measured or the target is absent.
        rewards: What each reward term pays, and ``total``; None when not scored.
        completion: The policy's own words.
        mask_file: The mask, below the run folder; empty when none is kept.
        mask_sha256: SHA-256 of that file.
        confidence: How far the answer could be trusted before anybody knew the target, in [0, 1]: how well the masks of
            sampled answers agree, 0 for a failure; None when no samples were drawn.
    """

    case_id: str
    patient_id: str
    query: str
    target: str
    kind: str
    held_out: bool
    modality: str
    present: bool
    dsc: float
    iou: float
    mask_ml: float
    true_ml: float
    parsed: bool | None = None
    failure: str | None = None
    detail: str = ""
    answered_absent: bool = False
    max_anchors: int = 1
    key_slice: int | None = None
    key_slice_score: float | None = None
    box_iou: float | None = None
    nsd: float | None = None
    tolerance_mm: float | None = None
    hd95_mm: float | None = None
    lesions: LesionScore | None = None
    budget: ErrorBudget | None = None
    rewards: dict[str, float] | None = None
    completion: str = ""
    mask_file: str = ""
    mask_sha256: str = ""
    confidence: float | None = None
