"""Measures of ReXGroundingCT, as its leaderboard defines them.

Source: rexrank.ai/ReXGroundingCT (Global Dice, HIT rate, instances and their thresholds); the neighbours and the least
size of a predicted instance are the defaults of its evaluation, as a public runbook of a participant states them. Two
things are not known from public text and are decided here: pairs of instances are one to one, chosen so that their Dice
sums to the most; and counts are pooled over all findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from medvol.core.errors import DatasetError

HIT_DICE = 0.1
"""Dice of a finding from which on it is hit."""

FOUND_DICE = 0.2
"""Dice of two instances from which on one is found by the other."""

MIN_VOXELS = 10
"""Smaller predicted instances do not count."""

_NEIGHBOURS = ndimage.generate_binary_structure(3, 2)
"""Voxels that share a face or an edge, 18 of them, are of one predicted instance."""


@dataclass(frozen=True)
class ReXGroundingCTScores:
    """What the leaderboard shows, each in [0, 1].

    Args:
        findings: Number of findings.
        dice: Mean Dice over findings (Global Dice); 0 for one without a mask.
        hit_rate: Share of findings of Dice 0.1 or more.
        precision: Predicted instances that pair with a true one, over all predicted ones; 0 where there are none.
        recall: True instances that pair with a predicted one, over all true ones.
        f1: Harmonic mean of the two.
        dice_by_category: Mean Dice of the findings of each category.
        missing: Cases for which there is no predicted mask; they count as empty.
    """

    findings: int
    dice: float
    hit_rate: float
    precision: float
    recall: float
    f1: float
    dice_by_category: dict[str, float]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class FindingScore:
    """One finding.

    Args:
        category: What kind of finding it is.
        dice: Of the whole masks.
        true: True instances.
        predicted: Predicted instances.
        found: Pairs of them.
    """

    category: str
    dice: float
    true: int
    predicted: int
    found: int


def score_finding(predicted: NDArray[np.bool_], entities: NDArray[np.int32], category: str = "") -> FindingScore:
    """Compare a mask with the entities of a finding.

    Args:
        predicted: Mask (Z, Y, X).
        entities: Number of the entity of each voxel (Z, Y, X), 0 for none; at least one voxel has one.
        category: Of the finding.
    """
    parts, true = _number(predicted), np.unique(entities[entities > 0])
    sizes_predicted = np.bincount(parts.ravel())[1:]
    kept = np.flatnonzero(sizes_predicted >= MIN_VOXELS)
    table = np.zeros((len(kept), len(true)))
    for row, part in enumerate(kept):
        inside = entities[parts == part + 1]
        for column, number in enumerate(true):
            both = sizes_predicted[part] + np.count_nonzero(entities == number)
            table[row, column] = 2 * np.count_nonzero(inside == number) / both
    allowed = np.where(table >= FOUND_DICE, table, 0.0)
    found = np.count_nonzero(allowed[linear_sum_assignment(allowed, maximize=True)])
    shared = 2 * np.count_nonzero(predicted & (entities > 0))
    dice = shared / (np.count_nonzero(predicted) + np.count_nonzero(entities))
    return FindingScore(category, float(dice), len(true), len(kept), int(found))


def pool_scores(scores: Iterable[FindingScore], missing: Iterable[str] = ()) -> ReXGroundingCTScores:
    """Sum findings up.

    Raises:
        DatasetError: There are none.
    """
    rows = list(scores)
    if not rows:
        raise DatasetError("there is no finding with a mask to measure; choose the split val")
    dice = np.array([row.dice for row in rows])
    true, predicted, found = (sum(getattr(row, name) for row in rows) for name in ("true", "predicted", "found"))
    by_category = {
        category: float(np.mean([row.dice for row in rows if row.category == category]))
        for category in sorted({row.category for row in rows})
    }
    return ReXGroundingCTScores(
        findings=len(rows),
        dice=float(dice.mean()),
        hit_rate=float((dice >= HIT_DICE).mean()),
        precision=found / predicted if predicted else 0.0,
        recall=found / true,
        f1=2 * found / (predicted + true),
        dice_by_category=by_category,
        missing=tuple(missing),
    )


def _number(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    parts: NDArray[np.int64] = ndimage.label(mask, _NEIGHBOURS, output=np.int64)[0]
    return parts
