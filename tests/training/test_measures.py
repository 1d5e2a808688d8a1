"""What the rollouts of a batch tell, by hand, and as a picture."""

import numpy as np
import pytest

from medvol.core.types import Evidence
from medvol.grounding.grammar import format_evidence
from medvol.policies.scripted import ScriptedPolicy
from medvol.rollouts.groups import Group, RewardBreakdown, ask
from medvol.testing import make_case
from medvol.training.group_notes import note_group
from medvol.training.inspector import draw_rollouts
from medvol.training.measures import measure_rollouts

BOX = np.array([[4.0, 6.0, 16.0, 20.0]])


def write(case, z) -> str:
    """Answer that names a slice; one that says absent for -1; none for None."""
    if z is None:
        return "no answer"
    _, height, width = case.volume.shape
    return format_evidence(Evidence(None if z < 0 else z, BOX if z >= 0 else np.empty((0, 4))), height, width)


@pytest.fixture
def case():
    return make_case()


def scored(case, slices, totals):
    (group,) = ask(ScriptedPolicy([write(case, z) for z in slices]), [case], n=len(slices))
    rewards = tuple(RewardBreakdown({"Term": total}, {"Term": 1.0}) for total in totals)
    return Group(group.case, group.prompt, group.rollouts, rewards)


def test_measures_by_hand(case):
    whole = '<think>x</think><answer>[{"slice": 1, "bbox_2d_list": [[0, 0, 1000, 1000]]}]</answer>'
    groups = [scored(case, [2, 2, None, -1], [1.0, 0.5, 0.0, 0.5]), scored(case, [1, 1, 1, 2], [0.5] * 4)]
    (wide,) = ask(ScriptedPolicy([whole] * 4), [case], n=4)
    groups.append(Group(wide.case, wide.prompt, wide.rollouts, groups[1].rewards))
    measures = measure_rollouts([note_group(group) for group in groups])
    assert measures["reward"] == pytest.approx((2 + 2 + 2) / 12)
    assert measures["reward_Term"] == measures["reward"]
    assert measures["spread"] == pytest.approx(np.std([1, 0.5, 0, 0.5], ddof=1) / 3)
    assert measures["zero_spread"] == pytest.approx(2 / 3)
    assert measures["parse_rate"] == pytest.approx(11 / 12)
    assert measures["absent_rate"] == pytest.approx(1 / 12)
    assert measures["whole_image"] == pytest.approx(4 / 10)
    assert measures["distinct"] == pytest.approx((3 / 4 + 2 / 4 + 1 / 4) / 3)
    assert measures["propagation_failures"] == 0
    assert measures["slice_spread"] == pytest.approx((0 + 0.5 + 0) / 3)  # of 2, 2; of 1, 1, 1, 2; of 1, 1, 1, 1
    assert measures["box_spread"] == 0


def test_the_spread_of_boxes_is_a_share_of_the_side(case):
    texts = [f'<answer>[{{"slice": 1, "bbox_2d_list": [[{x}, 100, 800, 900]]}}]</answer>' for x in (100, 300)]
    texts.append('<answer>[{"slice": 1, "bbox_2d_list": [[500, 100, 600, 500], [700, 600, 800, 900]]}]</answer>')
    (asked,) = ask(ScriptedPolicy(texts), [case], n=3)
    rewards = (RewardBreakdown({"Term": 1.0}, {"Term": 1.0}),) * 3
    measures = measure_rollouts([note_group(Group(asked.case, asked.prompt, asked.rollouts, rewards))])
    assert measures["box_spread"] == pytest.approx(0.2 / 4)  # left edges at 0.1, 0.3 and 0.5, the others equal
    assert measures["slice_spread"] == 0


def test_one_anchor_in_a_group_has_no_spread(case):
    measures = measure_rollouts([note_group(scored(case, [2, None], [1.0, 0.0]))])
    assert measures["slice_spread"] == measures["box_spread"] == 0


def test_the_inspector_draws_every_kind_of_rollout(case, tmp_path):
    from PIL import Image

    groups = [scored(case, [2, None, -1, 1], [1.0, 0.0, 0.2, 0.4]), scored(case, [2, 2], [1.0, 0.5])]
    path = draw_rollouts(tmp_path / "rollouts" / "step.png", groups)
    with Image.open(path) as picture:
        assert picture.size == (1040, 720)
        colours = {pixel for _, pixel in picture.convert("RGB").getcolors(10**6)}
    assert {(255, 209, 102), (6, 214, 160)} <= colours
