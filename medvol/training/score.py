"""Scoring an answer that somebody wrote: what each reward pays for it, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.registry import REWARDS
from medvol.core.reprs import Brief
from medvol.core.roles import Propagator, RewardTerm
from medvol.core.types import Case, Completion, Evidence, require_target
from medvol.inference.inputs import take_propagator
from medvol.rollouts.completions import read_completion
from medvol.rollouts.scorer import RewardScorer

Reward = str | RewardTerm
"""A reward term, or the name of a registered one, which gets its default settings."""


@dataclass(frozen=True, eq=False, repr=False)
class ScoredAnswer(Brief):
    """What an answer earns.

    Args:
        scores: What each reward pays, in [0, 1], by its class name.
        weights: Weight of each reward.
        evidence: The anchor that was read; None when the answer does not follow the grammar.
        failure: Name of what went wrong; None when nothing did.
        detail: The same in a sentence; empty when nothing went wrong.
        mask: (Z, Y, X) bool, propagated from the anchor, as far as the rewards read it; None when nothing was.
    """

    scores: Mapping[str, float]
    weights: Mapping[str, float]
    evidence: Evidence | None
    failure: str | None
    detail: str
    mask: NDArray[np.bool_] | None

    @property
    def total(self) -> float:
        """Weighted sum of the scores."""
        return sum(self.weights[name] * score for name, score in self.scores.items())


def score(
    case: Case,
    text: str,
    rewards: Reward | Sequence[Reward] | Mapping[Any, float],
    propagator: Propagator | str | None = None,
    max_anchors: int = 1,
) -> ScoredAnswer:
    """Score an answer to a case, as GRPO does in training.

    Args:
        case: The question, with its target mask.
        text: The answer, as a policy would write it; see ``format_evidence``.
        rewards: One or several rewards, by name or as objects, each of weight 1; or a mapping of these to weights.
        propagator: Turns the anchor into a mask, by name or as an object; needed by rewards that read the mask.
        max_anchors: Most anchors that the prompt allows in an answer.

    Raises:
        ConfigError: A reward reads the mask and there is no propagator; or an argument is of the wrong kind.
        UnknownComponentError: There is no reward of that name.
        DatasetError: The case has no target mask.
        RewardError: A reward failed, or scored NaN or outside [0, 1].
    """
    if not isinstance(case, Case):
        raise ConfigError(f"case is a {type(case).__name__}; give a Case, such as one of a data set")
    if not isinstance(text, str):
        raise ConfigError(f"the answer is a {type(text).__name__}; give its text, such as '<answer>[]</answer>'")
    require_target(case)
    scorer = _make_scorer(rewards)
    if scorer.needs_mask and propagator is None:
        reading = ", ".join(name for name, said in scorer.claims.items() if "mask" in said.needs)
        raise ConfigError(f"{reading} reads the mask, and there is no propagator to make one; give one to score")
    used = take_propagator(propagator) if scorer.needs_mask else None
    read = read_completion(case, Completion(text), max_anchors)
    ((_, rollout),) = scorer.follow(case.volume, [read], used)
    found = scorer.score(rollout, case)
    return ScoredAnswer(found.scores, found.weights, rollout.evidence, rollout.failure, rollout.detail, rollout.mask)


def _make_scorer(rewards: Any) -> RewardScorer:
    """Terms with their weights, whichever way they were given."""
    if isinstance(rewards, str | RewardTerm):
        rewards = [rewards]
    if not isinstance(rewards, Mapping | Sequence) or not rewards:
        raise ConfigError(
            f"rewards is {rewards!r}; give rewards by name or as objects, or a mapping of them to weights"
        )
    terms = [_take(reward) for reward in rewards]
    weights = list(rewards.values()) if isinstance(rewards, Mapping) else [1.0] * len(terms)
    for term, weight in zip(terms, weights, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise ConfigError(f"the weight of {type(term).__name__} is {weight!r}; weights are numbers of at least 0")
    return RewardScorer(terms, dict(zip(RewardScorer(terms).terms, weights, strict=True)))


def _take(given: Any) -> RewardTerm:
    if isinstance(given, RewardTerm):
        return given
    if not isinstance(given, str):
        what = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
        raise ConfigError(f"a reward is {what}; give the name of one, or an object of a RewardTerm")
    component: Any = REWARDS.get(given)
    try:
        term: RewardTerm = component()
    except TypeError as error:
        raise ConfigError(f"{given} needs settings ({error}); build it yourself and give it") from error
    return term
