"""RewardScorer: weighted terms over rollouts, which are followed to their masks as far as the terms read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between
from medvol.core.roles import Propagator, RewardTerm
from medvol.core.types import Case, Rollout, Volume
from medvol.guarding.claims import read_claims
from medvol.guarding.guard import score_terms
from medvol.rollouts.failures import warn_of_failures
from medvol.rollouts.groups import Group, RewardBreakdown
from medvol.rollouts.masks import follow


class RewardScorer:
    """Scores rollouts with weighted terms.

    Weights are not normalised; with the paper's, which sum to 1, the sum of the scores lies in [0, 1].

    Args:
        rewards: The terms. A term is called by its class; further ones of a class get a number, as in
            ``ConsistencyReward2``.
        weights: Weight of each term by its name; 1 where none is given. A term of weight 0 is scored for the log when
            nothing more has to be propagated for it.

    Raises:
        ConfigError: No weight is above 0, a weight is below 0 or no number, there is no term of a name, or something
            else than rewards is given.
        InvalidComponentError: What a term says that it reads or judges is not what a reward may say.
    """

    def __init__(self, rewards: Iterable[RewardTerm], weights: Mapping[str, float] | None = None) -> None:
        self.terms = _name_terms(_list_terms(rewards))
        self.weights = _weigh(self.terms, weights)
        self.claims = {name: read_claims(term) for name, term in self.terms.items()}
        """What each term says that it reads and judges."""
        reading = [said.mask_delta for name, said in self.claims.items() if self.weights[name] and "mask" in said.needs]
        self.needs_mask = bool(reading)
        """True when a weighted term reads the propagated mask."""
        self.delta = None if None in reading else max((d for d in reading if d is not None), default=0)
        """Slices on either side of the key slice that weighted terms read of the mask; None for the whole volume."""
        self._scored = {name: term for name, term in self.terms.items() if self.weights[name] > 0 or self._covers(name)}

    def score(self, rollout: Rollout, case: Case) -> RewardBreakdown:
        """Score one rollout.

        Args:
            rollout: Followed to its mask, within ``delta``, when ``needs_mask``.
            case: Its question, with the target mask.

        Returns:
            A score in [0, 1] for each term, and the weights; ``total`` is the weighted sum.

        Raises:
            RewardError: A term failed, or its score is no number in [0, 1]; the message names the term and who
                publishes it.
            InvalidComponentError: A term changed the rollout or the case.
        """
        scores = score_terms(self._scored, rollout, case)
        return RewardBreakdown(scores, {name: self.weights[name] for name in scores})

    def follow(
        self, volume: Volume, rollouts: Sequence[Rollout], propagator: Propagator | None
    ) -> Iterator[tuple[int, Rollout]]:
        """Follow rollouts about one volume as far as weighted terms read their masks; not at all where none does.

        Yields:
            Every rollout with its place, as ``medvol.rollouts.masks.follow`` does.
        """
        if propagator is None or not self.needs_mask:
            yield from enumerate(rollouts)
        else:
            yield from follow(volume, rollouts, propagator, self.delta)

    def score_groups(self, groups: Sequence[Group], propagator: Propagator) -> list[Group]:
        """Follow and score the rollouts of one volume.

        Args:
            groups: Groups of one volume, read but not followed.
            propagator: Turns their anchors into masks.

        Returns:
            The groups with rewards, without masks and errors: nothing that is large outlives its score.

        Raises:
            RewardError: See ``score``.
            InvalidComponentError: See ``score``; or the propagator changed what it was given.
        """
        asked = [(group.case, rollout) for group in groups for rollout in group.rollouts]
        scored: dict[int, tuple[Rollout, RewardBreakdown]] = {}
        for place, rollout in self.follow(groups[0].case.volume, [rollout for _, rollout in asked], propagator):
            scored[place] = replace(rollout, mask=None), self.score(rollout, asked[place][0])
        warn_of_failures(rollout for rollout, _ in scored.values())
        rows = iter([scored[place] for place in range(len(asked))])
        return [_close(group, list(islice(rows, len(group.rollouts)))) for group in groups]

    def _covers(self, name: str) -> bool:
        """True when what is propagated for the weighted terms is all that a term reads."""
        said = self.claims[name]
        if "mask" not in said.needs:
            return True
        within = said.mask_delta is not None and self.delta is not None and said.mask_delta <= self.delta
        return self.needs_mask and (self.delta is None or within)


def _close(group: Group, scored: Sequence[tuple[Rollout, RewardBreakdown]]) -> Group:
    rollouts = tuple(replace(rollout, error=None) for rollout, _ in scored)
    return replace(group, rollouts=rollouts, rewards=tuple(reward for _, reward in scored))


def _list_terms(rewards: Any) -> list[RewardTerm]:
    """The rewards, read once; refuses what is no list of them, such as their names, which a program may give."""
    listed = isinstance(rewards, Iterable) and not isinstance(rewards, str)
    terms = list(rewards) if listed else [rewards]
    wrong = [one for one in terms if not (listed and isinstance(one, RewardTerm))]
    if wrong:
        raise ConfigError(f"{wrong[0]!r:.80} is no list of rewards, or no reward in one; give RewardTerms as objects")
    return terms


def _name_terms(rewards: Sequence[RewardTerm]) -> dict[str, RewardTerm]:
    seen: Counter[str] = Counter()
    terms = {}
    for term in rewards:
        kind = type(term).__name__
        seen[kind] += 1
        name = kind if seen[kind] == 1 else f"{kind}{seen[kind]}"
        if name in terms:
            raise ConfigError(f"two rewards would have the name {name!r}; leave one out, or rename its class")
        terms[name] = term
    return terms


def _weigh(terms: Mapping[str, RewardTerm], given: Any) -> dict[str, float]:
    """Weight of each term."""
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"reward_weights is {given!r:.80}; it is a mapping of the names of rewards to numbers")
    for name, weight in (given or {}).items():
        if name not in terms:
            raise ConfigError(f"reward_weights names {name!r}; the rewards are {', '.join(terms)}")
        require_between("[0, inf)", **{f"the weight of {name}": weight})
    weights = {name: float((given or {}).get(name, 1.0)) for name in terms}
    if not any(weights.values()):
        raise ConfigError("no reward has a weight above 0, so nothing could be learned; give at least one")
    return weights
