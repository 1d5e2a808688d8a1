"""Weighted rewards: sums by hand, what has to be propagated, and terms that leave their range."""

import math
from typing import ClassVar

import numpy as np
import pytest

from medvol.auditing.audit import audit_rewards
from medvol.core.errors import ConfigError, InvalidComponentError, RewardError
from medvol.core.roles import RewardTerm
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.rollouts.scorer import RewardScorer
from medvol.testing import make_case, make_rollout


class Fixed(RewardTerm):
    """Returns what it was made with."""

    needs: ClassVar = frozenset({"text"})

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, rollout, case):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def make_scorer(rows) -> RewardScorer:
    """A scorer of pairs of a term and its weight."""
    names = list(RewardScorer([term for term, _ in rows]).terms) if rows else []
    return RewardScorer([term for term, _ in rows], dict(zip(names, (weight for _, weight in rows), strict=True)))


def score(*rows, text=None):
    case = make_case()
    return make_scorer(rows).score(make_rollout(case, text), case)


def test_the_total_is_the_weighted_sum_and_weights_are_not_normalised():
    breakdown = score((Fixed(0.5), 0.3), (Fixed(1), 2.0), (Fixed(np.float32(0.25)), 0.4))
    assert dict(breakdown.scores) == {"Fixed": 0.5, "Fixed2": 1.0, "Fixed3": 0.25}
    assert breakdown.total == pytest.approx(0.3 * 0.5 + 2.0 + 0.4 * 0.25)


def test_terms_are_called_by_their_class():
    breakdown = score((FormatReward(), 0.25), (AxialReward(), 0.75))
    assert dict(breakdown.weights) == {"FormatReward": 0.25, "AxialReward": 0.75}
    assert breakdown.total == 1.0


@pytest.mark.parametrize(
    ("rows", "needs_mask", "delta"),
    [
        ([(FormatReward(), 1), (AxialReward("local", 9), 1)], False, 0),
        ([(ConsistencyReward(5), 1), (FormatReward(), 1)], True, 5),
        ([(ConsistencyReward(2), 1), (ConsistencyReward(7), 0.1)], True, 7),
        ([(ConsistencyReward(2), 1), (ConsistencyReward(None), 0.1)], True, None),
        ([(ConsistencyReward(2), 1), (ConsistencyReward(None), 0)], True, 2),
        ([(FormatReward(), 1), (ConsistencyReward(5), 0)], False, 0),
    ],
)
def test_what_has_to_be_propagated(rows, needs_mask, delta):
    scorer = make_scorer(rows)
    assert (scorer.needs_mask, scorer.delta) == (needs_mask, delta)


def test_a_term_of_weight_0_is_watched_where_it_costs_nothing():
    rows = [(ConsistencyReward(5), 1), (ConsistencyReward(2), 0), (ConsistencyReward(None), 0)]
    breakdown = score(*rows, (SpatialReward(), 0))
    assert list(breakdown.scores) == ["ConsistencyReward", "ConsistencyReward2", "SpatialReward"]
    assert breakdown.total == breakdown.scores["ConsistencyReward"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, None, "0.5", 1j, ValueError("no such organ")])
def test_a_term_out_of_range_is_named_with_its_publisher(value):
    with pytest.raises(RewardError, match=r"the reward Fixed of the module \S*test_scorer .* case 'case-12px'"):
        score((FormatReward(), 1), (Fixed(value), 0))


def test_a_failure_keeps_its_cause_and_a_built_in_term_names_the_distribution():
    case = make_case()
    bare = make_rollout(case)
    bare = type(bare)(bare.case_id, bare.completion, bare.evidence)
    with pytest.raises(RewardError, match=r"ConsistencyReward of medvol-r1 \S+ failed .* needs the propagated mask"):
        RewardScorer([ConsistencyReward()]).score(bare, case)


@pytest.mark.parametrize(("value", "kept"), [(1 + 1e-12, 1.0), (-1e-12, 0.0)])
def test_rounding_is_forgiven(value, kept):
    assert score((Fixed(value), 1)).scores["Fixed"] == kept


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no reward has a weight above 0"),
        ([(FormatReward(), 0)], "no reward has a weight above 0"),
        ([(FormatReward(), -1)], "the weight of FormatReward is -1"),
        ([(FormatReward(), math.nan)], "the weight of FormatReward is nan"),
        ([(FormatReward(), "high")], "the weight of FormatReward is 'high'"),
        ([(FormatReward(), None)], "the weight of FormatReward is None"),
        ([(FormatReward(), True)], "the weight of FormatReward is True"),
    ],
)
def test_settings_that_cannot_be_used(rows, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_scorer(rows)


def test_two_terms_of_one_name():
    numbered = type("FormatReward2", (FormatReward,), {})
    for rewards in ([FormatReward(), FormatReward(True), numbered()], [numbered(), FormatReward(), FormatReward()]):
        with pytest.raises(ConfigError, match="two rewards would have the name 'FormatReward2'"):
            RewardScorer(rewards)
    assert list(RewardScorer([FormatReward(), numbered()]).terms) == ["FormatReward", "FormatReward2"]


def test_a_weight_without_its_term():
    with pytest.raises(ConfigError, match="names 'AxialRewards'; the rewards are FormatReward, FormatReward2"):
        RewardScorer([FormatReward(), FormatReward(True)], {"AxialRewards": 1.0})


@pytest.mark.parametrize("given", ["FormatReward", ["FormatReward"], 5, FormatReward()])
def test_what_is_no_list_of_rewards_is_refused(given) -> None:
    with pytest.raises(ConfigError, match="give RewardTerms as objects"):
        RewardScorer(given)


def test_rewards_may_come_one_by_one() -> None:
    """A generator can be read once: its terms are scored, as those of a list are."""
    assert list(RewardScorer(term for term in (FormatReward(), AxialReward())).terms) == ["FormatReward", "AxialReward"]
    with pytest.raises(ConfigError, match="'AxialReward' is no list of rewards"):
        RewardScorer(iter(["AxialReward"]))
    ranks = [audit_rewards(terms).ranks for terms in ([AxialReward()], iter([AxialReward()]))]
    assert ranks[0] == ranks[1] != ()


@pytest.mark.parametrize("weights", [[1.0], "high", 0.5])
def test_weights_are_a_mapping(weights) -> None:
    with pytest.raises(ConfigError, match="it is a mapping of the names of rewards to numbers"):
        RewardScorer([FormatReward()], weights)


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"mask_delta": 2.0}, "has the mask_delta 2.0; it is a whole number"),
        ({"mask_delta": -1}, "has the mask_delta -1; it is a whole number"),
        ({"mask_delta": math.inf}, "has the mask_delta inf; it is a whole number"),
        ({"mask_delta": property(lambda self: 1 / 0)}, "failed: ZeroDivisionError"),
        ({"needs": None}, "has needs None; it is a frozenset out of text, evidence, mask"),
        ({"needs": "mask"}, "has needs .?mask.?; it is a frozenset out of text, evidence, mask"),
        ({"needs": frozenset({"masks"})}, "it is a frozenset out of text, evidence, mask"),
        ({"judges": frozenset({"box"})}, "it is a frozenset out of form, slice, boxes, mask"),
        ({"judges": ("boxes",)}, "it is a frozenset out of form, slice, boxes, mask"),
        ({"judges": "boxes"}, "it is a frozenset out of form, slice, boxes, mask"),
    ],
)
def test_what_a_reward_says_of_itself_is_judged(claims, sentence) -> None:
    """A typo in ``judges`` would switch its audit off; a ``mask_delta`` of 2.0 would fail in every propagation."""
    Mistaken = type("Mistaken", (ConsistencyReward,), claims)
    for use in (RewardScorer, audit_rewards):
        with pytest.raises(InvalidComponentError, match=rf"the reward Mistaken of .* {sentence}"):
            use([Mistaken()])
