"""The reward audit: what holds, what a term cannot see, and rewards that can be hacked."""

import weakref
from dataclasses import replace
from io import StringIO
from typing import ClassVar

import numpy as np
import pytest
from rich.console import Console

from medvol import audit_rewards
from medvol.auditing.alterations import EXPLOITS, PERTURBATIONS
from medvol.auditing.perfect_propagator import PerfectPropagator
from medvol.auditing.ranks import HONEST, TRUTH
from medvol.auditing.several_anchors import SEVERAL_EXPLOITS, SEVERAL_PERTURBATIONS
from medvol.core.errors import ConfigError, DatasetError, InvalidComponentError, RewardError
from medvol.core.roles import CaseDataset, Propagator, RewardTerm
from medvol.core.types import Case, Evidence, require_target
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.testing import make_case
from medvol.testing.fixtures import make_organ_cases

FOUR = [FormatReward(), AxialReward(), SpatialReward(), ConsistencyReward()]
QUARTERS = dict.fromkeys(("FormatReward", "AxialReward", "SpatialReward", "ConsistencyReward"), 0.25)


class CountingReward(RewardTerm):
    """A tenth for each box: says nothing about what it judges."""

    needs: ClassVar = frozenset({"evidence"})

    def __call__(self, rollout, case):
        return 0.0 if rollout.evidence is None else min(1.0, len(rollout.evidence.boxes) / 10)


class ShyReward(SpatialReward):
    """Likes silence."""

    def __call__(self, rollout, case):
        return 1.0 if rollout.evidence is not None and rollout.evidence.absent else super().__call__(rollout, case)


class NothingPropagator(Propagator):
    """Never finds anything."""

    def propagate(self, volume, evidence, z_range=None):
        return np.zeros(volume.shape, bool)


@pytest.fixture(scope="module")
def default():
    return audit_rewards(FOUR, QUARTERS)


def violated(audit, term):
    return {rank.answer for rank in audit.violations if rank.term == term}


def test_the_default_rewards_hold_alone_and_in_sum(default):
    assert not default.violations
    answers = {rank.answer for rank in default.ranks}
    assert answers == {HONEST, *(alteration.name for alteration in (*PERTURBATIONS, *EXPLOITS))}


@pytest.mark.parametrize("term", [FormatReward(strict=True), VolumeDiceReward(), ConsistencyReward(delta=None)])
def test_the_other_defaults_hold(term):
    assert not audit_rewards([term]).violations


def test_scores_are_those_of_the_arithmetic(default):
    """A square of 8 pixels, the slice beside it with one of 6: area 36/64, a quarter of 6 aside IoU 4.5/7.5."""
    ranks = {(rank.answer, rank.term): rank for rank in default.ranks if rank.case_id == "case-8px"}
    assert ranks[HONEST, "AxialReward"].score == 36 / 64
    assert ranks[HONEST, "SpatialReward"].score == pytest.approx(0.6, abs=0.01)
    assert ranks[HONEST, "sum"].score == pytest.approx((1 + 36 / 64 + 0.6 + 1) / 4, abs=0.003)
    repeated = ranks["one box, many times", "sum"]
    assert repeated.score == pytest.approx((1 + 1 + 1 / 60 + 1) / 4)
    assert (repeated.against, repeated.bar) == (HONEST, ranks[HONEST, "sum"].score)
    assert ranks["boxes doubled", "sum"].score == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)
    assert ranks["boxes doubled", "sum"].against == TRUTH


@pytest.mark.parametrize(
    ("answer", "blind"),
    [
        ("slice with half the area", {"FormatReward", "SpatialReward", "ConsistencyReward"}),
        ("boxes doubled", {"FormatReward", "AxialReward", "ConsistencyReward"}),
        ("nothing propagated", {"FormatReward", "AxialReward", "SpatialReward"}),
        ("no reasoning", {"AxialReward", "SpatialReward", "ConsistencyReward"}),
        ("whole image", {"FormatReward", "AxialReward"}),
        ("wrong side", {"FormatReward", "AxialReward"}),
        ("another target", {"FormatReward", "AxialReward"}),
        ("slice outside the volume", {"FormatReward"}),
        ("empty", set()),
    ],
)
def test_what_a_term_cannot_see_is_said_and_the_sum_sees_it(default, answer, blind):
    states = {rank.term: rank.state for term in default.judged if (rank := default.worst(answer, term))}
    assert {term for term, state in states.items() if state == "cannot see"} == blind
    assert states["sum"] == "below"


OFF_TARGET = {"slice off the target", "slice off the target, nothing propagated"}


@pytest.mark.parametrize(
    ("term", "answers"),
    [
        (ConsistencyReward(both_empty=1.0), OFF_TARGET),
        (AxialReward("local", 5), {"slice of a smaller part"}),
        (AxialReward("local", 2), {"slice of a smaller part"}),
        (
            AxialReward("local", 0),
            {
                "slice of a smaller part",
                "slice at the end",
                "slice with half the area",
                "slice with half the area, boxes kept",
            },
        ),
        (SpatialReward("labelled"), {"slice off the target", "slice with half the area, boxes kept"}),
        (ShyReward(), {"says that it is absent"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RewardTerm) else "",
)
def test_a_reward_that_can_be_hacked_is_found_out(term, answers):
    audit = audit_rewards([term])
    assert violated(audit, type(term).__name__) == answers
    assert all(rank.score >= rank.bar for rank in audit.violations)


def test_a_plug_in_that_counts_boxes_is_found_out():
    """It reacts to boxes, so it is held to them; a tenth for the truth, two for the box doubled, all for sixty."""
    audit = audit_rewards([CountingReward()], cases=[make_case()])
    assert audit.judged == {"CountingReward": frozenset({"boxes"})}
    assert {"boxes doubled", "one box, many times", "grid of boxes", "wrong side"} <= violated(audit, "CountingReward")
    doubled, many = (audit.worst(name, "CountingReward") for name in ("boxes doubled", "one box, many times"))
    assert (doubled.score, doubled.bar, many.score) == (0.2, 0.1, 1.0)


def test_a_target_of_equal_slices_leaves_no_room_for_a_worse_one():
    target = np.zeros((5, 20, 24), bool)
    target[1:4, 5:12, 3:10] = True
    audit = audit_rewards([AxialReward()], cases=[replace(make_case(shape=target.shape), target=target)])
    assert not audit.violations
    assert audit.worst("slice with half the area", "AxialReward") is None
    assert audit.worst("slice off the target", "AxialReward").score == 0


def test_a_sum_is_violated_when_a_hack_outweighs_the_rest():
    weights = {**dict.fromkeys(QUARTERS, 0.05), "CountingReward": 0.8}
    assert "one box, many times" in violated(audit_rewards([*FOUR, CountingReward()], weights), "sum")


@pytest.mark.parametrize("term", [*FOUR, VolumeDiceReward()], ids=lambda term: type(term).__name__)
def test_what_a_term_judges_is_found_when_it_does_not_say(term):
    """A plug-in that says nothing is held to the same as the built-in terms, which do."""
    silent = type(f"Silent{type(term).__name__}", (type(term),), {"judges": None})
    assert audit_rewards([silent()]).judged == {silent.__name__: type(term).judges}


def test_terms_are_audited_in_their_own_coordinates_and_boxes():
    pair = [case for case in make_organ_cases() if case.query.target == "organs"]
    audit = audit_rewards([SpatialReward(split_boxes=False, coordinate_step=20)], cases=pair)
    assert not audit.violations
    assert audit.worst("boxes doubled", "SpatialReward").bar == 1.0


def test_a_propagator_that_finds_nothing_is_seen():
    audit = audit_rewards([VolumeDiceReward()], cases=[make_case()], propagator=NothingPropagator())
    assert "wrong side" in violated(audit, "VolumeDiceReward")
    assert audit.worst("nothing propagated", "VolumeDiceReward").bar == 0.0


def test_the_perfect_propagator_gives_targets_boxes_or_nothing():
    cases = {case.query.target: case for case in make_organ_cases()}
    left = cases["left organ"]
    targets = [require_target(cases[name]) for name in ("left organ", "right organ")]

    def follow(box):
        return PerfectPropagator(targets).propagate(left.volume, Evidence(8, np.array([box], float)))

    assert (follow([40, 18, 53, 31]) == targets[0]).all()
    assert (follow([11, 18, 24, 31]) == targets[1]).all()
    assert (follow([0, 0, 64, 48])).all()
    assert not follow([0, 0, 4, 4]).any()


def test_without_a_case_there_is_nothing_to_audit():
    with pytest.raises(ConfigError, match="no case to audit"):
        audit_rewards(FOUR, cases=[])


def test_a_term_that_leaves_its_range_is_named():
    class WildReward(AxialReward):
        def __call__(self, rollout, case):
            return 2.0

    with pytest.raises(RewardError, match="WildReward"):
        audit_rewards([WildReward()])


def test_a_term_that_changes_the_target_is_named():
    class EmptyingReward(AxialReward):
        def __call__(self, rollout, case):
            score = super().__call__(rollout, case)
            case.target[:] = False
            return score

    with pytest.raises(RewardError, match=r"EmptyingReward of .* read-only"):
        audit_rewards([EmptyingReward(), FormatReward()])

    class SneakingReward(AxialReward):
        def __call__(self, rollout, case):
            score = super().__call__(rollout, case)
            case.target.setflags(write=True)
            case.target[:] = False
            return score

    with pytest.raises(InvalidComponentError, match=r"the reward SneakingReward of .* changed .*case\.target"):
        audit_rewards([FormatReward(), SneakingReward()])


def test_the_audit_is_printed_with_every_mark_and_goes_into_json():
    console = Console(width=140, file=StringIO())
    audit = audit_rewards([FormatReward(), ConsistencyReward(both_empty=1.0)])
    console.print(audit)
    text = console.file.getvalue()
    assert "1.00 !" in text
    assert "1.00 ~" in text
    assert "ConsistencyReward judges mask" in text
    assert f"{len(audit.violations)} of {len(audit.ranks)} ranks are violated" in text
    assert len(audit.to_dict()["ranks"]) == len(audit.ranks)


@pytest.mark.parametrize("most", [2, 4, 12])
def test_several_anchors_are_audited_too(most):
    audit = audit_rewards([*FOUR, VolumeDiceReward()], max_anchors=most)
    assert not audit.violations
    several = {alteration.name for alteration in (*SEVERAL_PERTURBATIONS, *SEVERAL_EXPLOITS)}
    answers = {rank.answer for rank in audit.ranks}
    little = {"one part on many slices", "one box cut over many slices"} if most == 2 else set()
    assert several - little <= answers
    for name in ("one part on many slices", "anchors on nothing", "one anchor, many times"):
        for term in ("AxialReward", "SpatialReward", "ConsistencyReward", "VolumeDiceReward"):
            assert name in little or audit.worst(name, term).score <= 1 / 3


class KindReward(AxialReward):
    """Pays for the best anchor alone, so that further ones cost nothing."""

    def __call__(self, rollout, case):
        if rollout.evidence is None:
            return 0.0
        return max(
            super(KindReward, self).__call__(replace(rollout, evidence=anchor, max_anchors=1), case)
            for anchor in rollout.evidence.anchors
        )


def test_a_reward_that_pays_for_the_best_anchor_is_found_out():
    assert not audit_rewards([KindReward()]).violations
    assert {"one part on many slices", "a needless anchor on nothing", "one anchor too few"} <= violated(
        audit_rewards([KindReward()], max_anchors=4), "KindReward"
    )


def test_one_anchor_at_least():
    with pytest.raises(ConfigError, match="max_anchors"):
        audit_rewards([AxialReward()], max_anchors=0)


class Shelf(CaseDataset):
    """Two volumes with two questions each, of which one after the other is held."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken
        self.held: list[weakref.ref] = []
        self.most = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Case:
        if index == self.broken:
            raise KeyError("scan_7")
        case = make_case(8 if index % 2 else 12)
        case = replace(case, volume=replace(case.volume, volume_id=self.volume_key(index)))
        self.held.append(weakref.ref(case))
        self.most = max(self.most, sum(one() is not None for one in self.held))
        return case

    def volume_key(self, index: int) -> str:
        return f"volume{index % 2}"

    def patient_id(self, index: int) -> str:
        return f"patient{index % 2}"


def test_a_data_set_is_read_volume_by_volume():
    shelf = Shelf()
    audit = audit_rewards(FOUR, QUARTERS, cases=shelf)
    assert not audit.violations
    assert len(shelf.held) == 4
    assert shelf.most <= 3  # those of a volume, and the last one of the volume before
    assert audit.ranks  # of all cases


def test_a_data_set_that_fails_is_named():
    with pytest.raises(DatasetError, match=r"the data set Shelf of .* failed on case 1: KeyError"):
        audit_rewards(FOUR, cases=Shelf(broken=1))
