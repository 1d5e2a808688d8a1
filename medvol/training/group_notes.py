"""GroupNotes: what the rollouts of a query say about a run, small enough to be told to the other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medvol.core.types import Rollout
from medvol.rollouts.groups import Group

_WHOLE = 0.9
"""A box that covers this share of a slice is called a whole-image box."""


@dataclass(frozen=True)
class RolloutNote:
    """What one rollout says about a run.

    Args:
        total: Weighted sum of its scores.
        scores: Score of each term.
        text: What was written.
        tokens: Length of it.
        parsed: True when it follows the answer grammar.
        absent: True when it is ``[]``.
        failure: Name of what went wrong; None when nothing did.
        detail: More about that.
        whole: For each box, whether it covers nearly the whole slice.
        key_slice: First slice that it names; None when it names none.
        edges: Edges x1, y1, x2, y2 of the smallest box around all boxes on that slice, as shares of the slice's sides;
            empty when it names none.
    """

    total: float
    scores: Mapping[str, float]
    text: str
    tokens: int
    parsed: bool
    absent: bool
    failure: str | None
    detail: str
    whole: tuple[bool, ...]
    key_slice: int | None = None
    edges: tuple[float, ...] = ()


GroupNotes = tuple[RolloutNote, ...]
"""Those of the completions of one query."""


def note_group(group: Group) -> GroupNotes:
    """Note what a scored group says."""
    _, height, width = group.case.volume.shape
    return tuple(
        RolloutNote(
            reward.total,
            dict(reward.scores),
            rollout.completion.text,
            len(rollout.completion.token_ids),
            rollout.evidence is not None,
            rollout.evidence is not None and rollout.evidence.absent,
            rollout.failure,
            str(rollout.detail),
            _cover(rollout, height * width),
            None if rollout.evidence is None else rollout.evidence.key_slice,
            _frame(rollout, height, width),
        )
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True)
    )


def _cover(rollout: Rollout, size: int) -> tuple[bool, ...]:
    anchors = () if rollout.evidence is None else rollout.evidence.anchors
    boxes = np.concatenate([np.empty((0, 4)), *(anchor.boxes for anchor in anchors)])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return tuple(bool(area >= _WHOLE * size) for area in areas)


def _frame(rollout: Rollout, height: int, width: int) -> tuple[float, ...]:
    if rollout.evidence is None or not len(rollout.evidence.boxes):
        return ()
    boxes = rollout.evidence.boxes / np.array([width, height, width, height])
    return (*map(float, boxes[:, :2].min(axis=0)), *map(float, boxes[:, 2:].max(axis=0)))
