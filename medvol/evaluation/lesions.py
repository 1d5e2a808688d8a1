"""Scores of a target that consists of several lesions: how many are found, and how well each.

The lesions of a mask are its connected parts (26 neighbours). One lesion of the prediction answers for at most one true
lesion: pairs of Dice 0.2 or more are chosen so that their Dice sums to the most. Each such pair is a lesion found.

Source: the thresholds of HIT (0.1) and of a lesion found (0.2) are those of ReXGroundingCT; panoptic quality after
Kirillov et al., CVPR 2019, with pairs of its own, of an IoU above 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from medvol.core.errors import GeometryError

Mask = NDArray[np.bool_]

HIT_DICE = 0.1
"""Dice of the whole masks from which on a target is hit."""

FOUND_DICE = 0.2
"""Dice of two lesions from which on one is found by the other."""

SAME_IOU = 0.5
"""IoU above which two lesions are the same in the panoptic quality; then no third one can be."""


@dataclass(frozen=True)
class LesionScore:
    """Lesion by lesion, for a target that is present; all are 0 for an empty prediction.

    Args:
        true: Lesions of the target.
        predicted: Lesions of the prediction.
        found: Pairs of a true and a predicted lesion of Dice 0.2 or more.
        hit: 1 when the Dice of the whole masks is at least 0.1.
        precision: Pairs over predicted lesions.
        recall: Pairs over true lesions.
        f1: Harmonic mean of the two.
        dice: Sum of the Dice of the pairs over all lesions: pairs, missed and invented ones.
        panoptic: Panoptic quality: mean IoU of the pairs above 0.5 times the F1 of these pairs.
    """

    true: int
    predicted: int
    found: int
    hit: float
    precision: float
    recall: float
    f1: float
    dice: float
    panoptic: float


def score_lesions(predicted: Mask, true: Mask) -> LesionScore:
    """Compare masks lesion by lesion.

    Args:
        predicted: Mask (Z, Y, X).
        true: Mask (Z, Y, X), not empty.

    Raises:
        GeometryError: The masks have different shapes, or the true one is empty.
    """
    if predicted.shape != true.shape or not true.any():
        raise GeometryError(f"lesions need masks of one shape and a true one; got {predicted.shape} and {true.shape}")
    parts = _split(predicted, true)
    sizes_predicted, sizes_true = (np.bincount(part.ravel())[1:] for part in parts)
    pairs, shared = _overlaps(*parts)
    both = sizes_predicted[pairs[0]] + sizes_true[pairs[1]]
    dice = 2 * shared / both
    chosen = _choose(pairs[:, dice >= FOUND_DICE], dice[dice >= FOUND_DICE])
    iou = shared / (both - shared)
    lesions, found = len(sizes_predicted) + len(sizes_true), len(chosen)
    return LesionScore(
        true=len(sizes_true),
        predicted=len(sizes_predicted),
        found=found,
        hit=float(2 * shared.sum() / (sizes_predicted.sum() + sizes_true.sum()) >= HIT_DICE),
        precision=found / len(sizes_predicted) if len(sizes_predicted) else 0.0,
        recall=found / len(sizes_true),
        f1=2 * found / lesions,
        dice=float(chosen.sum()) / (lesions - found),
        panoptic=2 * float(iou[iou > SAME_IOU].sum()) / lesions,
    )


def _split(predicted: Mask, true: Mask) -> list[NDArray[np.int64]]:
    """Both masks as numbered parts, cut to what they cover together."""
    covered = predicted | true
    spans = [np.flatnonzero(covered.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return [ndimage.label(mask[box], np.ones((3, 3, 3)), output=np.int64)[0] for mask in (predicted, true)]


def _overlaps(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of parts that share voxels, (2, N) counted from 0, and how many they share, (N,)."""
    inside = (predicted > 0) & (true > 0)
    codes, shared = np.unique(predicted[inside] * (true.max() + 1) + true[inside], return_counts=True)
    return np.stack(np.divmod(codes, true.max() + 1)) - 1, shared


def _choose(pairs: NDArray[np.int64], dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dice of pairs that have no part in common, chosen so that it sums to the most."""
    rows, columns = (np.unique(side, return_inverse=True)[1] for side in pairs)
    table = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1))
    table[rows, columns] = dice
    chosen: NDArray[np.float64] = table[linear_sum_assignment(table, maximize=True)]
    return chosen[chosen > 0]
