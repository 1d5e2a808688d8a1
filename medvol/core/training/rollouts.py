"""Rollouts: completions of a group drawn, parsed and followed to their masks, each piece of work done once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError
from medvol.core.evaluation.scoring import PROPAGATION_FAILED, follow_completion
from medvol.core.grounding.anchors import anchor_key
from medvol.core.grounding.prompts import build_prompts
from medvol.core.guard import ask_policy, propagate, propagate_many, read_template
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Completion, Evidence, Prompt, RewardBreakdown, Rollout, Sampling

log = logging.getLogger(__name__)

Outcome = NDArray[np.bool_] | PropagationError
"""What an anchor gave."""


@dataclass(frozen=True, eq=False)
class Group:
    """All rollouts of one query.

    Args:
        case: The question.
        prompt: What the policy was asked; the query may be reworded.
        rollouts: G of them; their masks are dropped once they are scored.
        rewards: What each of them earns.
    """

    case: Case
    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    rewards: tuple[RewardBreakdown, ...] = ()

    @property
    def completions(self) -> list[Completion]:
        """What the policy wrote."""
        return [rollout.completion for rollout in self.rollouts]


def draw_groups(
    policy: Policy, cases: Sequence[Case], queries: Sequence[str], size: int, sampling: Sampling
) -> list[Group]:
    """Draw completions for all queries about one volume, from one drawing of its slices.

    Args:
        policy: Writes them.
        cases: Cases that share one volume.
        queries: Text to ask each of them with.
        size: Completions of each.
        sampling: How they are drawn.

    Returns:
        A group a case; the completions are parsed, and nothing is propagated yet.

    Raises:
        PolicyError: The policy failed: what it cannot do, it cannot learn from.
    """
    prompts = build_prompts(cases[0].volume, list(queries), read_template(policy))
    written = ask_policy(policy, prompts, size, sampling)
    return [
        Group(case, prompt, tuple(follow_completion(case, completion) for completion in completions))
        for case, prompt, completions in zip(cases, prompts, written, strict=True)
    ]


def follow_groups(groups: Sequence[Group], propagator: Propagator, delta: int | None) -> list[Group]:
    """Propagate every anchor of one volume; equal anchors once, whichever query they answer.

    Args:
        groups: Groups of one volume.
        propagator: Turns anchors into masks.
        delta: Slices on either side of the key slice that are wanted; the whole volume when None.

    Returns:
        The groups with masks; a failed propagation is named in its rollout.
    """
    followed = iter(follow_rollouts(groups[0].case, [r for group in groups for r in group.rollouts], propagator, delta))
    return [replace(group, rollouts=tuple(islice(followed, len(group.rollouts)))) for group in groups]


def follow_rollouts(
    case: Case, rollouts: Sequence[Rollout], propagator: Propagator, delta: int | None
) -> list[Rollout]:
    """Propagate the anchors of parsed completions about one volume; equal anchors once.

    Args:
        case: A case of that volume.
        rollouts: Answers to any of its queries.
        propagator: Turns anchors into masks.
        delta: Slices on either side of the key slice that are wanted; the whole volume when None.

    Returns:
        The rollouts with masks, in order; a failed propagation is named in its rollout.
    """
    anchors: dict[tuple[int | None, bytes], Evidence] = {}
    for rollout in rollouts:
        if rollout.evidence is not None:
            anchors.setdefault(anchor_key(rollout.evidence), rollout.evidence)
    ranges = [_window(evidence, delta, case.volume.shape[0]) for evidence in anchors.values()]
    outcomes: list[Outcome]
    try:
        outcomes = [*propagate_many(propagator, case.volume, list(anchors.values()), ranges)]
    except PropagationError:
        outcomes = [
            _try_propagating(propagator, case, evidence, own)
            for evidence, own in zip(anchors.values(), ranges, strict=True)
        ]
    found = dict(zip(anchors, outcomes, strict=True))
    return [_add_outcome(rollout, found) for rollout in rollouts]


def _window(evidence: Evidence, delta: int | None, depth: int) -> tuple[int, int] | None:
    if delta is None or evidence.key_slice is None:
        return None
    return max(0, evidence.key_slice - delta), min(depth, evidence.key_slice + delta + 1)


def _try_propagating(
    propagator: Propagator, case: Case, evidence: Evidence, z_range: tuple[int, int] | None
) -> Outcome:
    try:
        return propagate(propagator, case.volume, evidence, z_range)
    except PropagationError as error:
        log.warning("volume of case %s: %s", case.case_id, error)
        return error


def _add_outcome(rollout: Rollout, found: dict[tuple[int | None, bytes], Outcome]) -> Rollout:
    if rollout.evidence is None:
        return rollout
    outcome = found[anchor_key(rollout.evidence)]
    case_id, completion, evidence = rollout.case_id, rollout.completion, rollout.evidence
    if isinstance(outcome, PropagationError):
        return Rollout(case_id, completion, evidence, failure=PROPAGATION_FAILED, detail=str(outcome))
    return Rollout(case_id, completion, evidence, mask=outcome)
