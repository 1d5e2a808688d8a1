"""The error budget: how much slice choice, boxes and propagation each lose.

Three masks of one case are compared with its true mask: propagated from (a) the true slice and its true boxes,
(b) the true boxes of the slice that was chosen, (c) the answer itself. With perfect propagation a = 1, so

    1 - c  =  (1 - a)  +  (a - b)  +  (b - c)
              propagation  slice     boxes

A share can be negative: a propagator may do better from another slice than from the labelled one. Where an answer may
have several anchors, (a) has as many as the target needs, and (b) the true boxes of every slice that was chosen.

What a better policy could reach is another question: the best anchor may lie on another slice than the true one, with
boxes that are not tight. ``medvol.evaluation.headroom`` searches for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError
from medvol.core.metrics import dice
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.evaluation.headroom import Reached, search_anchor
from medvol.grounding.anchors import join_anchors
from medvol.grounding.boxes import tight_boxes
from medvol.rollouts.masks import follow_anchors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorBudget:
    """Dice of one case, or means over cases, from ever more of the answer.

    Args:
        true_anchor: (a) from the true slice and its true boxes.
        true_boxes: (b) from the true boxes of the chosen slices; 0 when the answer failed, says that the target is
            absent, or chose no slice that shows it.
        predicted: (c) from the answer as it is; 0 when it failed.
        best_slice: The best of all these and of the true boxes on any other slice; None when it was not searched for.
        best_anchor: The best that a search over the edges of boxes found from there; None as before.
        best_boxes: Its boxes, each as slice, x1, y1, x2, y2 in pixels; None as before, and of a mean.
    """

    true_anchor: float
    true_boxes: float
    predicted: float
    best_slice: float | None = None
    best_anchor: float | None = None
    best_boxes: list[list[float]] | None = None

    @property
    def propagation_loss(self) -> float:
        """What even the true anchor loses."""
        return 1.0 - self.true_anchor

    @property
    def slice_loss(self) -> float:
        """What the choice of the slice loses."""
        return self.true_anchor - self.true_boxes

    @property
    def box_loss(self) -> float:
        """What the boxes lose."""
        return self.true_boxes - self.predicted

    @property
    def headroom(self) -> float | None:
        """What the best anchor found reaches beyond the answer; None when it was not searched for."""
        return None if self.best_anchor is None else self.best_anchor - self.predicted


def measure_budget(
    volume: Volume,
    target: NDArray[np.bool_],
    truth: Evidence,
    answer: Evidence | None,
    predicted_dice: float,
    propagator: Propagator,
    split_boxes: bool = True,
    propagations: int = 0,
) -> ErrorBudget:
    """Error budget of one case whose target is present.

    Args:
        volume: The scan.
        target: True mask (Z, Y, X), not empty.
        truth: True anchor; an absent one, where no slice shown holds the target, earns 0.
        answer: What was answered; None when the answer failed.
        predicted_dice: Dice of the answer as it was scored.
        propagator: The propagator that gave it.
        split_boxes: One true box for each part of the target on the slice.
        propagations: Most anchors that the search for the best one propagates; 0 searches for none.

    Returns:
        The budget; a propagator that fails on a true anchor earns 0 there, and the failure is logged.
    """
    corrected = true_boxes_at(target, answer, split_boxes)
    anchors = [truth] if corrected is None else [truth, corrected]
    earned = {0: 0.0, 1: 0.0}
    for places, outcome in follow_anchors(volume, anchors, propagator):
        if isinstance(outcome, PropagationError):
            log.warning("error budget: %s", outcome)
            continue
        for place in places:
            earned[place] = dice(outcome, target)
    budget = ErrorBudget(earned[0], earned[1], predicted_dice)
    if not propagations:
        return budget
    known = [Reached(anchor, earned[place]) for place, anchor in enumerate(anchors)]
    known += [] if answer is None else [Reached(answer, predicted_dice)]
    found = search_anchor(volume, target, known, propagator, propagations, split_boxes)
    return replace(
        budget,
        best_slice=found.best_slice.dsc,
        best_anchor=found.best_anchor.dsc,
        best_boxes=_list_boxes(found.best_anchor.anchor),
    )


def _list_boxes(evidence: Evidence) -> list[list[float]]:
    return [[float(one.key_slice or 0), *map(float, box)] for one in evidence.anchors for box in one.boxes]


def true_boxes_at(target: NDArray[np.bool_], answer: Evidence | None, split_boxes: bool = True) -> Evidence | None:
    """The answer's slices with their true boxes, without those that show no target; None where none is left."""
    if answer is None:
        return None
    keys = [anchor.key_slice for anchor in answer.anchors if anchor.key_slice is not None]
    found = [(key, tight_boxes(target[key], split=split_boxes)) for key in keys]
    anchors = [Evidence(key, boxes) for key, boxes in found if len(boxes)]
    return join_anchors(anchors) if anchors else None


def mean_budget(budgets: Iterable[ErrorBudget]) -> ErrorBudget | None:
    """Mean of each part over cases; the losses still add up. None without cases.

    The best slice and anchor have a mean when they were searched for in all cases.
    """
    rows: Sequence[ErrorBudget] = list(budgets)
    if not rows:
        return None
    a, b, c = np.mean([[row.true_anchor, row.true_boxes, row.predicted] for row in rows], axis=0).tolist()
    best_slice, best_anchor = (_mean_of([getattr(row, name) for row in rows]) for name in ("best_slice", "best_anchor"))
    return ErrorBudget(a, b, c, best_slice, best_anchor)


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
