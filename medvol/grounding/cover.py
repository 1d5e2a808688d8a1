"""The cover: how a target with parts at different heights is dealt among the anchors of an answer.

A slice shows a part clearly when it holds at least half of the part's largest area. The true answer has as few anchors
as greedy choice finds: again and again the slice that shows most of the remaining parts clearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from medvol.core.types import Evidence

Mask = NDArray[np.bool_]

CLEAR_SHARE = 0.5
"""A slice shows a part clearly when it holds this share of the part's largest area."""

_LEAST_VOXELS = 5
_LEAST_SHARE = 0.01
"""Parts with fewer voxels, or with less than this share of the largest one's, need no anchor."""


@dataclass(frozen=True, eq=False)
class CoveredPart:
    """What one anchor of the true answer answers for.

    Args:
        mask: (Z, Y, X) bool, one or several connected parts of the target.
        slices: Indices of slices that may be its key slice: those that show all of its parts clearly, or, when it is
            a single part, any.
    """

    mask: Mask
    slices: tuple[int, ...]


def cover_target(mask: Mask, shown: Sequence[int], max_anchors: int) -> list[CoveredPart]:
    """Deal a target among as few anchors as greedy choice finds.

    Parts (26 neighbours) that no slice shown holds, and specks, get no anchor; nor do those that are left when there
    are ``max_anchors`` of them.

    Args:
        mask: (Z, Y, X) bool.
        shown: Indices of the slices that may be key slices.
        max_anchors: Most anchors; with 1 the whole target is one part.

    Returns:
        The parts, from feet to head; none when no slice shown holds the target.
    """
    slices = np.array([z for z in shown if mask[z].any()], np.int64)
    if not len(slices):
        return []
    if max_anchors == 1:
        return [CoveredPart(mask, tuple(slices.tolist()))]
    labels, box, areas = _measure_parts(mask, slices)
    groups = _choose_groups(areas, max_anchors)
    if len(groups) == 1 and len(groups[0]) == len(areas):
        return [CoveredPart(mask, _candidates(slices, areas, groups[0]))]
    covered = []
    for group in sorted(groups, key=lambda own: _key(areas, own)):
        part = np.zeros_like(mask)
        part[box] = np.isin(labels, np.array(group) + 1)
        covered.append(CoveredPart(part, _candidates(slices, areas, group)))
    return covered


def compare_anchors(
    evidence: Evidence, target: Mask, max_anchors: int, compare: Callable[[Evidence, Mask], float]
) -> float:
    """Score an answer by comparing its anchors with a target that is present: the one rule for several anchors.

    The true answer has M anchors, each for a part of the target, see ``cover_target``. The N anchors of the answer and
    these parts are paired so that the scores of the pairs sum to the most; the sum is divided by the larger of N and
    M. So a perfect answer scores 1, the order of the anchors does not matter, and every anchor that is missing,
    surplus or spent twice on one part lowers the score. Where one anchor is allowed it is compared with the whole
    target.

    Args:
        evidence: What was answered; not an absent one.
        target: (Z, Y, X) bool, not empty.
        max_anchors: Most anchors that the answer could have.
        compare: Score in [0, 1] of one anchor for one part.
    """
    if max_anchors == 1:
        return compare(evidence, target)
    parts = [part.mask for part in cover_target(target, range(len(target)), max_anchors)]
    scores = np.array([[compare(anchor, part) for part in parts] for anchor in evidence.anchors])
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(scores[rows, columns].sum() / max(scores.shape))


def _measure_parts(
    mask: Mask, slices: NDArray[np.int64]
) -> tuple[NDArray[np.int32], tuple[slice, ...], NDArray[np.int64]]:
    """Numbered parts of the target, cropped; the crop; and the area (parts, slices) of each part on each slice."""
    box = _bounding_box(mask)
    labels, count = ndimage.label(mask[box], np.ones((3, 3, 3)), output=np.int32)
    first = box[0].start
    planes = [np.bincount(labels[z - first].ravel(), minlength=count + 1)[1:] for z in slices.tolist()]
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    floor = min(max(_LEAST_VOXELS, _LEAST_SHARE * voxels.max()), voxels.max())
    areas = np.stack(planes, axis=1)
    areas[voxels < floor] = 0
    if not areas.any():  # only specks are shown
        areas = np.stack(planes, axis=1)
    return labels, box, areas


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """What a mask that is not empty covers; the slices first, so that the rest of a large scan is read once."""
    z = _span(mask.any(axis=(1, 2)))
    return z, _span(mask[z].any(axis=(0, 2))), _span(mask[z].any(axis=(0, 1)))


def _span(filled: ArrayLike) -> slice:
    places = np.flatnonzero(filled)
    return slice(int(places[0]), int(places[-1]) + 1)


def _choose_groups(areas: NDArray[np.int64], most: int) -> list[list[int]]:
    """Parts by the anchor that answers for them; each group is shown clearly where its area is largest."""
    left = set(np.flatnonzero(areas.any(axis=1)).tolist())
    groups: dict[int, list[int]] = {}
    clear = _clear(areas)
    while left and len(groups) < most:
        group = _best_group(areas, clear, sorted(left))
        left -= set(group)
        groups.setdefault(_key(areas, group), []).extend(group)
    return list(groups.values())


def _best_group(areas: NDArray[np.int64], clear: Mask, left: Sequence[int]) -> list[int]:
    """The remaining parts that one slice shows clearly; of equally many those that it shows best."""
    share = areas[left] / areas[left].max(axis=1, keepdims=True)
    seen = clear[left]
    best = max(range(areas.shape[1]), key=lambda i: (int(seen[:, i].sum()), float(share[seen[:, i], i].sum()), -i))
    group = [part for part, shows in zip(left, seen[:, best], strict=True) if shows]
    while not clear[group, (key := _key(areas, group))].all():
        kept = [part for part in group if clear[part, key]]
        group = kept or [max(group, key=lambda part: int(areas[part].max()))]
    return group


def _key(areas: NDArray[np.int64], group: Sequence[int]) -> int:
    """Position of the slice on which parts have the largest area together."""
    return int(areas[list(group)].sum(axis=0).argmax())


def _clear(areas: NDArray[np.int64]) -> Mask:
    clear: Mask = (areas > 0) & (areas >= CLEAR_SHARE * areas.max(axis=1, keepdims=True))
    return clear


def _candidates(slices: NDArray[np.int64], areas: NDArray[np.int64], group: Sequence[int]) -> tuple[int, ...]:
    if len(group) == 1:
        return tuple(slices.tolist())
    return tuple(slices[_clear(areas)[list(group)].all(axis=0)].tolist())
