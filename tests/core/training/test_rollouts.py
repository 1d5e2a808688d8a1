"""Rollouts: what is propagated, how often, and where."""

from dataclasses import replace

import numpy as np
import pytest

from medvol.core.errors import PropagationError
from medvol.core.grounding.grammar import format_evidence
from medvol.core.roles import Propagator
from medvol.core.training.inspector import draw_rollouts
from medvol.core.training.measures import measure_rollouts
from medvol.core.training.rollouts import Group, draw_groups, follow_groups
from medvol.core.types import Evidence, RewardBreakdown, Sampling
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.testing import make_case

BOX = np.array([[4.0, 6.0, 16.0, 20.0]])


class Counting(Propagator):
    """Extrudes, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list = []

    def propagate(self, volume, evidence, z_range=None):
        self.asked.append((evidence.key_slice, evidence.boxes.tolist(), z_range))
        if evidence.key_slice == 8:
            raise PropagationError("slice 8 is out of order")
        return ExtrudePropagator(half_depth_slices=100).propagate(volume, evidence, z_range)


def write(case, slices) -> list[str]:
    _, height, width = case.volume.shape
    return [
        "no answer"
        if z is None
        else format_evidence(Evidence(None if z < 0 else z, BOX if z >= 0 else np.empty((0, 4))), height, width)
        for z in slices
    ]


def draw(case, slices):
    policy = ScriptedPolicy(write(case, slices))
    return draw_groups(policy, [case], [case.query.text], len(slices), Sampling(1.0))


@pytest.fixture
def case():
    return make_case()


def test_equal_anchors_are_followed_once_within_their_own_window(case):
    depth = case.volume.shape[0]
    groups = draw(case, [2, 2, 1, None, -1, 2])
    groups = [*groups, *draw(replace(case, case_id="other"), [1, 2])]
    counting = Counting()
    followed = follow_groups(groups, counting, 1)
    asked = sorted((z, window) for z, _, window in counting.asked if z is not None)
    assert asked == [(1, (0, 3)), (2, (1, min(depth, 4)))]
    masks = [rollout.mask for group in followed for rollout in group.rollouts]
    assert masks[0] is masks[1] is masks[5] is masks[7]
    assert masks[3] is None
    assert not masks[4].any()
    filled = np.flatnonzero(masks[0].any(axis=(1, 2)))
    assert (filled[0], filled[-1]) == (1, min(depth - 1, 3))
    assert followed[0].rollouts[3].failure == "no_answer"


def test_without_a_window_the_whole_volume_is_followed(case):
    counting = Counting()
    follow_groups(draw(case, [2]), counting, None)
    assert counting.asked[0][2] is None


def test_one_failed_propagation_fails_alone(case, caplog):
    (group,) = follow_groups(draw(case, [8, 1]), Counting(), 2)
    assert group.rollouts[0].failure == "propagation_failed"
    assert "out of order" in group.rollouts[0].detail
    assert group.rollouts[0].evidence is not None
    assert group.rollouts[1].mask.any()
    assert case.case_id in caplog.text


def scored(case, slices, totals):
    (group,) = draw(case, slices)
    rewards = tuple(RewardBreakdown({"Term": total}, {"Term": 1.0}) for total in totals)
    return Group(group.case, group.prompt, group.rollouts, rewards)


def test_measures_by_hand(case):
    whole = '<think>x</think><answer>[{"slice": 1, "bbox_2d_list": [[0, 0, 1000, 1000]]}]</answer>'
    groups = [scored(case, [2, 2, None, -1], [1.0, 0.5, 0.0, 0.5]), scored(case, [1, 1, 1, 2], [0.5] * 4)]
    policy = ScriptedPolicy([whole] * 4)
    (wide,) = draw_groups(policy, [case], ["?"], 4, Sampling(1.0))
    groups.append(Group(wide.case, wide.prompt, wide.rollouts, groups[1].rewards))
    measures = measure_rollouts(groups)
    assert measures["reward"] == pytest.approx((2 + 2 + 2) / 12)
    assert measures["reward_Term"] == measures["reward"]
    assert measures["spread"] == pytest.approx(np.std([1, 0.5, 0, 0.5], ddof=1) / 3)
    assert measures["zero_spread"] == pytest.approx(2 / 3)
    assert measures["parse_rate"] == pytest.approx(11 / 12)
    assert measures["absent_rate"] == pytest.approx(1 / 12)
    assert measures["whole_image"] == pytest.approx(4 / 10)
    assert measures["distinct"] == pytest.approx((3 / 4 + 2 / 4 + 1 / 4) / 3)
    assert measures["propagation_failures"] == 0


def test_the_inspector_draws_every_kind_of_rollout(case, tmp_path):
    from PIL import Image

    groups = [scored(case, [2, None, -1, 1], [1.0, 0.0, 0.2, 0.4]), scored(case, [2, 2], [1.0, 0.5])]
    path = draw_rollouts(tmp_path / "rollouts" / "step.png", groups)
    with Image.open(path) as picture:
        assert picture.size == (1040, 720)
        colours = {pixel for _, pixel in picture.convert("RGB").getcolors(10**6)}
    assert {(255, 209, 102), (6, 214, 160)} <= colours
