"""The median of several answers to one question: one anchor in the middle of what they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medvol.core.types import Evidence
from medvol.grounding.boxes import box_iou


def median_anchor(answers: Sequence[Evidence | None]) -> Evidence | None:
    """Median of answers of one anchor each.

    Each answer has one vote, also one that says ``[]`` and one that could not be read. What has more votes than either
    of the others decides; a tie goes to an anchor before ``[]``, and to ``[]`` before a failure. The key slice is the
    lower median of the slices that were named. The number of boxes is the one named most often, and the smaller one of
    two. Each of their edges is the median of that edge over the answers with as many boxes; several boxes are paired
    with those of the answer whose slice is nearest to the median, so that their IoU sums to the most.

    Args:
        answers: At least one, without further anchors; None for one that could not be read.

    Returns:
        The anchor, one that says ``[]``, or None where failures have the most votes. It has no rationale.
    """
    read = [answer for answer in answers if answer is not None]
    named = [(answer.key_slice, answer.boxes) for answer in read if answer.key_slice is not None]
    absent = len(read) - len(named)
    if len(answers) - len(read) > max(len(named), absent):
        return None
    if absent > len(named):
        return Evidence(None, np.empty((0, 4)))
    key_slice = sorted(index for index, _ in named)[(len(named) - 1) // 2]
    counts = Counter(len(boxes) for _, boxes in named)
    most = min(counts, key=lambda count: (-counts[count], count))
    alike = [(abs(index - key_slice), boxes) for index, boxes in named if len(boxes) == most]
    pattern = min(alike, key=lambda item: item[0])[1]
    paired = np.stack([_pair(pattern, boxes) for _, boxes in alike])
    return Evidence(key_slice, np.median(paired, axis=0))


def _pair(pattern: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes in the order of the boxes of another answer that they belong to."""
    if len(boxes) == 1:
        return boxes
    _, order = linear_sum_assignment(box_iou(pattern, boxes), maximize=True)
    ordered: NDArray[np.float64] = boxes[order]
    return ordered
