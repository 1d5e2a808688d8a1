"""Agreement: how far several answers to one question, drawn at random, name the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from medvol.core.types import Completion, Evidence, Volume
from medvol.grounding.boxes import matched_iou
from medvol.grounding.grammar import find_evidence

REACH_MM = 50.0
"""Key slices this far apart do not agree at all."""


@dataclass(frozen=True)
class Agreement:
    """Means over all pairs of the answers, each in [0, 1].

    Two answers that say ``[]`` agree fully; an answer that cannot be parsed agrees with none, and so does ``[]`` with
    an anchor. Anchors of two answers with several are paired so that the products of the pairs sum to the most, and
    the sums are divided by the larger number of anchors.

    Args:
        samples: Answers compared.
        parsed: Those that follow the grammar.
        key_slice: 1 for the same slice, falling evenly to 0 for slices ``REACH_MM`` apart.
        boxes: Matched IoU of the boxes, whichever slices they lie on.
        anchors: Of each pair the product of both.
        masks: Dice of the masks; None where the answers were not followed to masks.
        support: Share of the answers that hold a voxel of the mask that was given, averaged over it; None likewise.
    """

    samples: int
    parsed: int
    key_slice: float
    boxes: float
    anchors: float
    masks: float | None = None
    support: float | None = None


def measure_agreement(completions: Sequence[Completion], volume: Volume, max_anchors: int = 1) -> Agreement:
    """Compare answers to one question about a volume, two or more of them, each of at most so many anchors."""
    anchors = [find_evidence(completion.text, volume.shape, max_anchors) for completion in completions]
    pairs = [_compare(first, second, volume.spacing[0]) for first, second in combinations(anchors, 2)]
    slices, boxes, both = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return Agreement(len(anchors), sum(anchor is not None for anchor in anchors), slices, boxes, both)


def _compare(first: Evidence | None, second: Evidence | None, spacing_mm: float) -> tuple[float, float, float]:
    """Agreement of two answers on the slices, on the boxes, and on both."""
    if first is None or second is None:
        return 0.0, 0.0, 0.0
    found = np.array([[_compare_anchors(one, two, spacing_mm) for two in second.anchors] for one in first.anchors])
    rows, columns = linear_sum_assignment(found[..., 2], maximize=True)
    on_slice, on_boxes, both = (found[rows, columns].sum(axis=0) / max(found.shape[:2])).tolist()
    return on_slice, on_boxes, both


def _compare_anchors(first: Evidence, second: Evidence, spacing_mm: float) -> tuple[float, float, float]:
    if first.key_slice is None or second.key_slice is None:
        same = float(first.absent and second.absent)
        return same, same, same
    apart_mm = abs(first.key_slice - second.key_slice) * spacing_mm
    on_slice, on_boxes = max(0.0, 1 - apart_mm / REACH_MM), matched_iou(first.boxes, second.boxes)
    return on_slice, on_boxes, on_slice * on_boxes
