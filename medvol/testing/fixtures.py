"""Small volumes, cases and rollouts for tests, made in memory from a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import EvidenceParseError
from medvol.core.types import Case, Completion, Evidence, Modality, Query, Rollout, Volume
from medvol.grounding.anchors import label_anchor
from medvol.grounding.grammar import format_evidence, parse_evidence
from medvol.imaging.geometry import make_volume as volume_of

SHAPE = (9, 48, 56)
SPACING = (3.0, 1.0, 1.0)
_TARGET_HU = 120.0
_REST_HU = -60.0
_NOISE_HU = 4.0
_REACH = 3
_ORGANS_SHAPE = (32, 48, 64)
_SCATTERED_SHAPE = (28, 48, 64)


def make_target(shape: tuple[int, int, int] = SHAPE, size_px: int = 12) -> NDArray[np.bool_]:
    """A square of ``size_px`` pixels on the middle slice that loses a pixel a side on each slice away from it.

    Args:
        shape: (Z, Y, X).
        size_px: Side on the middle slice; cut to the slice.
    """
    target = np.zeros(shape, bool)
    middle = shape[0] // 2
    for z in range(max(0, middle - _REACH), min(shape[0], middle + _REACH + 1)):
        half = size_px / 2 - abs(z - middle)
        rows, columns = (_span(length, place, half) for length, place in ((shape[1], 0.4), (shape[2], 0.6)))
        target[z, rows, columns] = True
    return target


def make_volume(
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    size_px: int = 12,
    modality: Modality = "CT",
    seed: int = 0,
) -> Volume:
    """A noisy volume in which the target of ``make_target`` is bright (120 HU in -60 HU).

    Args:
        shape: (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        size_px: Side of the target on the middle slice.
        modality: What the intensities are called.
        seed: Seed of the noise.
    """
    noise = np.random.default_rng(seed).normal(0, _NOISE_HU, shape)
    voxels = np.where(make_target(shape, size_px), _TARGET_HU, _REST_HU) + noise
    name = "x".join(map(str, (*shape, *spacing, size_px, modality, seed)))
    return volume_of(voxels.astype(np.float32), spacing, modality, f"block-{name}")


def make_case(
    size_px: int = 12,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    absent: bool = False,
    seed: int = 0,
) -> Case:
    """A question about the bright target of ``make_volume``, with its mask.

    Args:
        size_px: Side of the target on the middle slice.
        shape: (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        absent: Ask for something that is not there; the true mask is then empty.
        seed: Seed of the noise.
    """
    volume = make_volume(shape, spacing, size_px, seed=seed)
    query = Query("the metal implant", "metal implant", "absent") if absent else Query("the bright mass", "mass")
    target = np.zeros(shape, bool) if absent else make_target(shape, size_px)
    return Case(f"case-{size_px}px", volume, query, target, "patient-1")


def make_organ_cases(seed: int = 0) -> list[Case]:
    """Questions about one volume with an organ on each side: each alone, both together, and what is not there.

    Each organ is a stack of squares with two lobes: a large one about slice 8 and, beyond a neck, a small one about
    slice 19 with a third of the largest area. Slices 0 to 2 and 22 to 31 show neither.

    Args:
        seed: Seed of the noise.
    """
    sides = [*range(9, 15), *range(13, 8, -1), 4, 4, 4, 6, 7, 8, 7, 6]
    left, right = np.zeros((2, *_ORGANS_SHAPE), bool)
    for organ, place in ((left, 0.72), (right, 0.28)):
        for z, side in enumerate(sides, start=3):
            organ[z, _span(_ORGANS_SHAPE[1], 0.5, side / 2), _span(_ORGANS_SHAPE[2], place, side / 2)] = True
    noise = np.random.default_rng(seed).normal(0, _NOISE_HU, _ORGANS_SHAPE)
    voxels = (np.where(left | right, _TARGET_HU, _REST_HU) + noise).astype(np.float32)
    volume = volume_of(voxels, SPACING, "CT", f"organs-{seed}")
    targets = {
        Query("the organ on the left", "left organ"): left,
        Query("both organs", "organs"): left | right,
        Query("the organ on the right", "right organ"): right,
        Query("the metal implant", "metal implant", "absent"): np.zeros(_ORGANS_SHAPE, bool),
    }
    named = ((query.target.replace(" ", "-"), query, target) for query, target in targets.items())
    return [Case(f"case-{name}", volume, query, target, "patient-2") for name, query, target in named]


def make_scattered_case(seed: int = 0) -> Case:
    """A question about three bright blocks at different heights, which no slice shows together.

    The blocks lie about the slices 4, 13 and 22 of 28, on five slices each, and lose two pixels a side on each slice
    away from the middle.

    Args:
        seed: Seed of the noise.
    """
    target = np.zeros(_SCATTERED_SHAPE, bool)
    for middle, side, place in ((4, 12, 0.25), (13, 16, 0.7), (22, 14, 0.4)):
        for z in range(middle - 2, middle + 3):
            half = side / 2 - 2 * abs(z - middle)
            rows, columns = (_span(length, place, half) for length in _SCATTERED_SHAPE[1:])
            target[z, rows, columns] = True
    noise = np.random.default_rng(seed).normal(0, _NOISE_HU, _SCATTERED_SHAPE)
    voxels = (np.where(target, _TARGET_HU, _REST_HU) + noise).astype(np.float32)
    volume = volume_of(voxels, SPACING, "CT", f"scattered-{seed}")
    return Case("case-scattered", volume, Query("the bright masses", "masses"), target, "patient-3")


def make_answer(case: Case, key_slice: int | None, boxes: NDArray[np.float64], step: int = 1) -> str:
    """Write an answer about a case, with a rationale; ``[]`` when the key slice is None."""
    return write_evidence(case, Evidence(key_slice, boxes), step)


def write_evidence(case: Case, evidence: Evidence, step: int = 1) -> str:
    """Write anchors as an answer about a case, with a rationale."""
    _, height, width = case.volume.shape
    return format_evidence(replace(evidence, rationale="it is brighter than the rest"), height, width, step)


def make_rollout(
    case: Case,
    text: str | None = None,
    mask: NDArray[np.bool_] | None = None,
    coordinate_step: int = 1,
    max_anchors: int = 1,
) -> Rollout:
    """Follow an answer to its rollout.

    Args:
        case: The question, with its mask.
        text: The answer; the perfect one when None.
        mask: What was propagated from it; the true mask when None. Left out when the text cannot be parsed.
        coordinate_step: Coordinates of the perfect answer are multiples of this.
        max_anchors: Most anchors of the answer.
    """
    target = np.zeros(case.volume.shape, bool) if case.target is None else case.target
    if text is None:
        text = write_evidence(case, label_anchor(target, rule="largest", max_anchors=max_anchors), coordinate_step)
    try:
        evidence = parse_evidence(text, case.volume.shape, max_anchors)
    except EvidenceParseError as error:
        failed = Rollout(case.case_id, Completion(text), failure=error.failure, detail=str(error))
        return replace(failed, max_anchors=max_anchors)
    followed = target if mask is None else mask
    return Rollout(
        case.case_id, Completion(text), evidence, mask=followed & (not evidence.absent), max_anchors=max_anchors
    )


def _span(length: int, place: float, half: float) -> slice:
    """Pixels of an interval about ``place`` of a side, inside it."""
    centre = round(place * length)
    return slice(max(0, int(centre - half)), max(0, min(length, int(centre + half))))
