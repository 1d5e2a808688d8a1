"""Headroom: the best Dice of a case that a search over anchors finds, whatever the policy knows.

First the true boxes of the slices that show the target are propagated. Then the edges of the best of these are moved:
each edge outwards and inwards, the best move is kept, and the moves are halved where none helps, down to one pixel.
What is left of the propagations goes to the next best slices, in the same way. All moves of a step are propagated
together, so that a propagator shares its features. The search is greedy: a better anchor than the one it returns may
exist, but it has tried none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError
from medvol.core.metrics import dice, slice_areas
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.grounding.anchors import anchor_key, join_anchors
from medvol.grounding.boxes import tight_boxes
from medvol.rollouts.masks import HELD_MIB, follow_anchors

_SLICE_SHARE = 0.5
"""Share of the propagations that slices may take; the rest is for edges."""

_FIRST_MOVE = 8
"""The first move of an edge is the side of the largest box divided by this."""


@dataclass(frozen=True, eq=False)
class Reached:
    """An anchor and what it reaches.

    Args:
        anchor: The anchor.
        dsc: Dice of its mask.
    """

    anchor: Evidence
    dsc: float


@dataclass(frozen=True)
class Headroom:
    """What a search over anchors found.

    Args:
        best_slice: The best of the anchors that were known before and of the true boxes on any slice that was tried.
        best_anchor: The best after the search over edges; at least as good.
        propagations: How many anchors were propagated.
    """

    best_slice: Reached
    best_anchor: Reached
    propagations: int


def search_anchor(
    volume: Volume,
    target: NDArray[np.bool_],
    known: Sequence[Reached],
    propagator: Propagator,
    propagations: int,
    split_boxes: bool = True,
) -> Headroom:
    """Search the best anchor of a case.

    Args:
        volume: The scan.
        target: True mask (Z, Y, X), not empty.
        known: Anchors that were propagated already, with their Dice; the search returns nothing worse.
        propagator: Turns anchors into masks.
        propagations: Most anchors that are propagated. At most half of them are slices: evenly spaced ones among those
            that show the target, where there are more.
        split_boxes: One true box for each part of the target on a slice.
    """
    trial = _Trial(volume, target, propagator, propagations)
    starts = [*known, *trial.take(_on_slices(target, int(propagations * _SLICE_SHARE), split_boxes))]
    starts = sorted((one for one in starts if not one.anchor.absent), key=lambda one: -one.dsc)
    if not starts:
        raise ValueError("a search needs a target that is present, and at least 2 propagations or a known anchor")
    best = starts[0]
    for start in starts:
        climbed = _climb(start, trial)
        best = climbed if climbed.dsc > best.dsc else best
    return Headroom(starts[0], best, trial.spent)


def _climb(start: Reached, trial: _Trial) -> Reached:
    """Move edges for as long as that helps and propagations are left."""
    best, step = start, _first_move(start.anchor)
    while step and trial.left:
        found = max(trial.take(_moved(best.anchor, step, trial.size)), key=lambda one: one.dsc, default=best)
        if found.dsc > best.dsc:
            best = found
        else:
            step //= 2
    return best


class _Trial:
    """Propagates anchors, each once, until so many were propagated."""

    def __init__(self, volume: Volume, target: NDArray[np.bool_], propagator: Propagator, most: int) -> None:
        self.volume = volume
        self.target = target
        self.size = (target.shape[1], target.shape[2])
        self.propagator = propagator
        self.most = most
        self._known: dict[object, float] = {}

    @property
    def spent(self) -> int:
        """Anchors that were propagated."""
        return len(self._known)

    @property
    def left(self) -> int:
        """Anchors that may still be propagated."""
        return self.most - self.spent

    def take(self, anchors: Iterator[Evidence]) -> list[Reached]:
        """What anchors reach; those that are one too many are left out, and a propagation that fails reaches 0."""
        wanted = [(anchor_key(anchor), anchor) for anchor in anchors]
        fresh = {key: anchor for key, anchor in wanted if key not in self._known}
        chosen = dict(islice(fresh.items(), self.left))
        keys = [*chosen]
        for places, outcome in follow_anchors(self.volume, [*chosen.values()], self.propagator, held_mib=HELD_MIB):
            self._known[keys[places[0]]] = 0.0 if isinstance(outcome, PropagationError) else dice(outcome, self.target)
        return [Reached(anchor, self._known[key]) for key, anchor in wanted if key in self._known]


def _on_slices(target: NDArray[np.bool_], most: int, split_boxes: bool) -> Iterator[Evidence]:
    """True boxes of the slices that show the target, evenly spaced ones where they are too many."""
    shown = np.flatnonzero(slice_areas(target))
    if len(shown) > most:
        shown = shown[np.linspace(0, len(shown) - 1, most).round().astype(int)] if most else shown[:0]
    for z in shown.tolist():
        yield Evidence(z, tight_boxes(target[z], split=split_boxes))


def _first_move(anchor: Evidence) -> int:
    """Pixels of the first move: a power of 2, at least 1."""
    sides = np.concatenate([one.boxes[:, 2:] - one.boxes[:, :2] for one in anchor.anchors])
    longest = max(1.0, float(sides.max()) / _FIRST_MOVE)
    return 1 << int(np.log2(longest))


def _moved(anchor: Evidence, step: int, size: tuple[int, int]) -> Iterator[Evidence]:
    """The anchor with one edge of one box moved, each both ways; boxes keep an area and stay on the slice."""
    limits = np.array([size[1], size[0], size[1], size[0]], np.float64)
    for place, one in enumerate(anchor.anchors):
        for row, edge in np.ndindex(one.boxes.shape):
            for move in (-step, step):
                boxes = one.boxes.copy()
                boxes[row, edge] = np.clip(boxes[row, edge] + move, 0, limits[edge])
                if (boxes[row, 2:] > boxes[row, :2]).all():
                    parts = [*anchor.anchors]
                    parts[place] = replace(one, boxes=boxes)
                    yield join_anchors(parts)
