"""Small scans, cases, prompts and rollouts to try a component on; they need no pytest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import EvidenceParseError
from medvol.core.grounding.anchors import label_anchor
from medvol.core.grounding.grammar import format_evidence, parse_evidence
from medvol.core.grounding.prompts import build_prompts
from medvol.core.imaging.geometry import lps_affine
from medvol.core.roles import Policy
from medvol.core.types import Case, Completion, Evidence, Prompt, Query, Rollout, Volume

SHAPE = (7, 48, 56)
SPACING = (3.0, 0.8, 0.8)


def make_target(shape: tuple[int, int, int] = SHAPE, side_px: int = 16) -> NDArray[np.bool_]:
    """Mask (Z, Y, X) of a block around the middle of the volume, half as wide on its first and last slice.

    Args:
        shape: (Z, Y, X).
        side_px: Width and height of the block; it is cut to half the slice where that is smaller.
    """
    depth, height, width = shape
    target = np.zeros(shape, bool)
    middle, reach = depth // 2, min(2, (depth - 1) // 2)
    for z in range(middle - reach, middle + reach + 1):
        share = 2 if reach == 2 and abs(z - middle) == reach else 1
        high, wide = (max(1, min(side_px, size // 2) // share) for size in (height, width))
        top, left = (height - high) // 2, (width - wide) // 2
        target[z, top : top + high, left : left + wide] = True
    return target


def make_volume(
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    side_px: int = 16,
    seed: int = 0,
) -> Volume:
    """CT-like volume: a block of 150 HU (see ``make_target``) in soft tissue of 20 HU, with noise of 8 HU.

    Args:
        shape: (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        side_px: Width and height of the block.
        seed: Seed of the noise.
    """
    noise = np.random.default_rng(seed).normal(0.0, 8.0, shape)
    voxels = np.where(make_target(shape, side_px), 150.0, 20.0) + noise
    volume_id = f"block-{shape}-{spacing}-{side_px}-{seed}"
    return Volume(voxels.astype(np.float32), lps_affine(spacing), "CT", volume_id)


def make_case(
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    side_px: int = 16,
    seed: int = 0,
    absent: bool = False,
) -> Case:
    """Case that asks for the block of ``make_volume``, or for something that is not there.

    Args:
        shape: (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        side_px: Width and height of the block.
        seed: Seed of the noise.
        absent: Ask for an absent target.
    """
    target = np.zeros(shape, bool) if absent else make_target(shape, side_px)
    query = Query("the gallstone", "gallstone", "absent") if absent else Query("the bright block", "block", "explicit")
    return Case(f"case-{side_px}-{seed}-{query.kind}", make_volume(shape, spacing, side_px, seed), query, target, "p1")


def true_anchor(case: Case) -> Evidence:
    """True anchor of a case with a target mask."""
    if case.target is None:
        raise ValueError("the case has no target mask")
    return label_anchor(case.target, rationale="it is the brightest part of the scan")


def write_answer(case: Case, evidence: Evidence | None = None) -> str:
    """An anchor in the answer grammar; the true one when None."""
    _, height, width = case.volume.shape
    return format_evidence(evidence or true_anchor(case), height, width)


def make_rollout(case: Case, text: str | None = None, mask: NDArray[np.bool_] | None = None) -> Rollout:
    """Rollout of an answer, without policy or propagator.

    Args:
        case: The question.
        text: The answer; the true one when None.
        mask: (Z, Y, X) bool that was propagated from it; the target when None.
    """
    completion = Completion(write_answer(case) if text is None else text)
    try:
        evidence = parse_evidence(completion.text, case.volume.shape)
    except EvidenceParseError as error:
        return Rollout(case.case_id, completion, failure=error.failure, detail=str(error))
    return Rollout(case.case_id, completion, evidence, mask=case.target if mask is None else mask)


def make_prompts(policy: Policy, queries: Sequence[str] = ("the bright block", "the dark block")) -> list[Prompt]:
    """Prompts about one volume, laid out as the policy wants them, with the truth where it needs it."""
    case = make_case()
    truths: list[Evidence | None] = [true_anchor(case) if policy.needs_truth else None] * len(queries)
    return build_prompts(case.volume, list(queries), policy.template, truths)
