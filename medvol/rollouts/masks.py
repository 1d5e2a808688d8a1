"""Masks: anchors of one volume are followed together, equal ones once, and one that fails harms no other.

The mask of an answer with several anchors is the union of theirs; it fails when one of them does. Propagators only see
single anchors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Rollout, Volume
from medvol.grounding.anchors import anchor_key
from medvol.guarding.guard import propagate_many
from medvol.rollouts.failures import PROPAGATION_FAILED

HELD_MIB = 256
"""Masks that lie in memory at once where they are read one after another; a mask of a large CT takes 50 MiB."""

Mask = NDArray[np.bool_]
ZRange = tuple[int, int] | None


def follow(
    volume: Volume,
    rollouts: Sequence[Rollout],
    propagator: Propagator,
    delta: int | None = None,
    held_mib: float | None = None,
) -> Iterator[tuple[int, Rollout]]:
    """Propagate the anchors of rollouts about one volume.

    Args:
        volume: The scan.
        rollouts: Answers to any queries about it.
        propagator: Turns anchors into masks.
        delta: Slices on either side of the key slice that are wanted; the whole volume when None. Of an answer with
            several key slices also those between them.
        held_mib: Most memory for masks at once, at least that of one; all anchors are followed together when None.

    Yields:
        Every rollout with its place among ``rollouts``, once. Those without an anchor come first, as they are; then
        those with a mask, or with the failure of its propagation. Rollouts with equal anchors come together and share
        a mask; whoever lets go of it before the next one keeps the memory small.

    Raises:
        InvalidComponentError: The propagator changed what it was given.
    """
    anchors: dict[int, Evidence] = {}
    for place, rollout in enumerate(rollouts):
        if rollout.evidence is None or rollout.failure is not None:
            yield place, rollout
        else:
            anchors[place] = rollout.evidence
    places = list(anchors)
    ranges = [_range_around(evidence, delta, volume.shape[0]) for evidence in anchors.values()]
    for equal, outcome in follow_anchors(volume, [*anchors.values()], propagator, ranges, held_mib):
        for place in (places[i] for i in equal):
            yield place, _add(rollouts[place], outcome)


def follow_anchors(
    volume: Volume,
    evidences: Sequence[Evidence],
    propagator: Propagator,
    z_ranges: Sequence[ZRange] | None = None,
    held_mib: float | None = None,
) -> Iterator[tuple[list[int], Mask | PropagationError]]:
    """Propagate anchors of one volume; arguments and errors as of ``follow``.

    Args:
        volume: The scan.
        evidences: Answers, each with one anchor or several.
        propagator: Turns anchors into masks.
        z_ranges: Half-open range of slices that is wanted of each; the whole volume for all when None.
        held_mib: See ``follow``.

    Yields:
        For answers that are equal, in equal ranges, their places among ``evidences``, and their mask (Z, Y, X) or what
        kept it from being made.
    """
    equal: dict[tuple[object, ...], list[int]] = {}
    ranges = [None] * len(evidences) if z_ranges is None else z_ranges
    for place, (evidence, own) in enumerate(zip(evidences, ranges, strict=True)):
        equal.setdefault((*anchor_key(evidence), own), []).append(place)
    places = [*equal.values()]
    most = max((len(evidence.anchors) for evidence in evidences), default=1)
    at_once = len(places) if held_mib is None else int(held_mib * 2**20 / prod(volume.shape) / most)
    step = max(1, at_once)
    for start in range(0, len(places), step):
        part = places[start : start + step]
        firsts = [same[0] for same in part]
        outcomes = _follow_each(volume, [evidences[i] for i in firsts], propagator, [ranges[i] for i in firsts])
        for same in part:
            yield same, outcomes.pop(0)


def _follow_each(
    volume: Volume, evidences: list[Evidence], propagator: Propagator, ranges: list[ZRange]
) -> list[Mask | PropagationError]:
    """Follow each anchor of the answers once, and unite those of an answer."""
    known = {}
    for evidence, own in zip(evidences, ranges, strict=True):
        known.update({(anchor_key(anchor), own): (anchor, own) for anchor in evidence.anchors})
    anchors, wanted = map(list, zip(*known.values(), strict=True))
    outcomes = dict(zip(known, _follow_anchors_each(volume, anchors, propagator, wanted), strict=True))
    return [
        _unite([outcomes[anchor_key(anchor), own] for anchor in evidence.anchors])
        for evidence, own in zip(evidences, ranges, strict=True)
    ]


def _follow_anchors_each(
    volume: Volume, anchors: list[Evidence], propagator: Propagator, ranges: list[ZRange]
) -> list[Mask | PropagationError]:
    """All anchors together; where that fails each alone, so that one harms no other."""
    try:
        return [*propagate_many(propagator, volume, anchors, ranges)]
    except PropagationError as error:
        if len(anchors) == 1:
            return [error]
    pairs = zip(anchors, ranges, strict=True)
    return [_follow_anchors_each(volume, [anchor], propagator, [own])[0] for anchor, own in pairs]


def _unite(outcomes: list[Mask | PropagationError]) -> Mask | PropagationError:
    """The union of the masks of an answer; the first failure where there is one."""
    first, *further = outcomes
    if not further or isinstance(first, PropagationError):
        return first
    union = first.copy()
    for outcome in further:
        if isinstance(outcome, PropagationError):
            return outcome
        union |= outcome
    return union


def _range_around(evidence: Evidence, delta: int | None, depth: int) -> ZRange:
    keys = evidence.key_slices
    if delta is None or not keys:
        return None
    return max(0, keys[0] - delta), min(depth, keys[-1] + delta + 1)


def _add(rollout: Rollout, outcome: Mask | PropagationError) -> Rollout:
    if isinstance(outcome, PropagationError):
        return replace(rollout, failure=PROPAGATION_FAILED, detail=str(outcome), error=outcome)
    return replace(rollout, mask=outcome)
