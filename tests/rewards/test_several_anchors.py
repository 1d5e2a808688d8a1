"""Answers with several anchors: closed forms, perfect answers, order, and what a surplus or missing anchor costs."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.core.types import Evidence
from medvol.grounding.anchors import join_anchors, label_anchor
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward, format_parts
from medvol.rewards.spatial import SpatialReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.testing.fixtures import make_case, make_rollout, make_scattered_case, write_evidence

CASE = make_scattered_case()
KEYS = (4, 13, 22)
TRUTH = label_anchor(CASE.target, rule="largest", max_anchors=4)
GROUNDED = [
    AxialReward(),
    AxialReward("local", 2),
    SpatialReward(),
    SpatialReward(split_boxes=False),
    SpatialReward("labelled"),
    ConsistencyReward(),
    ConsistencyReward(None),
    VolumeDiceReward(),
]
EVERY = [FormatReward(), FormatReward(strict=True), *GROUNDED]


def name(term):
    return f"{type(term).__name__}-{'-'.join(map(str, vars(term).values()))}"


def block(key):
    """The true part about a key slice."""
    mask = np.zeros_like(CASE.target)
    mask[key - 2 : key + 3] = CASE.target[key - 2 : key + 3]
    return mask


def rollout(anchors, mask=None, most=4):
    return make_rollout(CASE, write_evidence(CASE, join_anchors(anchors)), mask, max_anchors=most)


def truth_at(*keys):
    return [anchor for anchor in TRUTH.anchors if anchor.key_slice in keys]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_truth_has_an_anchor_a_block():
    assert [anchor.key_slice for anchor in TRUTH.anchors] == list(KEYS)


@pytest.mark.parametrize("term", EVERY, ids=name)
@pytest.mark.parametrize("case", [CASE, make_case(8), make_case(20)], ids=lambda case: case.case_id)
def test_a_perfect_answer_earns_exactly_one_in_any_order(term, case):
    truth = label_anchor(case.target, rule="largest", max_anchors=4)
    for order in permutations(truth.anchors):
        text = write_evidence(case, join_anchors(order))
        assert term(make_rollout(case, text, max_anchors=4), case) == 1.0


@pytest.mark.parametrize("term", GROUNDED, ids=name)
def test_missing_surplus_and_twice_spent_anchors_divide_the_score(term):
    beside = Evidence(5, label_anchor(block(4), shown=[5]).boxes)
    nothing = Evidence(9, TRUTH.boxes)
    assert term(rollout(truth_at(4), block(4)), CASE) == pytest.approx(1 / 3)
    assert term(rollout(truth_at(4, 22), block(4) | block(22)), CASE) == pytest.approx(2 / 3)
    assert term(rollout([*TRUTH.anchors, nothing]), CASE) == pytest.approx(3 / 4)
    assert term(rollout([*TRUTH.anchors, beside]), CASE) == pytest.approx(3 / 4)
    if name(term) != "SpatialReward-labelled-True-1-64":  # the paper's looks at boxes whatever slice they lie on
        assert term(rollout([*truth_at(4, 13), beside], block(4) | block(13)), CASE) <= 2 / 3 + 1e-12
        assert term(rollout([nothing], np.zeros_like(CASE.target)), CASE) == 0


def test_axial_is_the_mean_share_of_the_parts():
    """Sides 12, 16 and 14 lose 4 pixels a slice."""
    chosen = [Evidence(z, TRUTH.boxes) for z in (5, 11, 22)]
    assert AxialReward()(rollout(chosen), CASE) == pytest.approx((8**2 / 12**2 + 8**2 / 16**2 + 1) / 3)


def test_volume_dice_is_the_mean_dice_of_the_parts():
    mask = block(4) | np.roll(block(13), 4, axis=2)
    wide = block(22)
    wide[22, 40:, 50:] = True
    expected = [dice((mask | wide) & ~(CASE.target & ~block(key)), block(key)) for key in KEYS]
    assert VolumeDiceReward()(rollout(TRUTH.anchors, mask | wide), CASE) == pytest.approx(np.mean(expected))


def test_consistency_looks_about_each_key_slice():
    mask = CASE.target.copy()
    mask[13:16] = False
    near = np.s_[8:19]
    expected = (1 + dice(mask[near] & block(13)[near], block(13)[near]) + 1) / 3
    assert ConsistencyReward(5)(rollout(TRUTH.anchors, mask), CASE) == pytest.approx(expected)
    far = CASE.target.copy()
    far[27] = True
    assert ConsistencyReward(2)(rollout(TRUTH.anchors, far), CASE) == 1


def test_one_anchor_is_compared_with_the_whole_target_where_one_is_allowed():
    one = rollout(truth_at(13), CASE.target, most=1)
    areas = CASE.target.sum(axis=(1, 2))
    assert AxialReward()(one, CASE) == areas[13] / areas.max() == 1
    assert VolumeDiceReward()(one, CASE) == 1


def test_an_anchor_repeated_is_no_answer():
    text = rollout(TRUTH.anchors).completion.text
    repeated = text.replace('"slice": 13', '"slice": 4')
    read = make_rollout(CASE, repeated, max_anchors=4)
    assert read.failure == "repeated_slice"
    assert [term(read, CASE) for term in GROUNDED] == [0] * len(GROUNDED)


ITEM = '{"slice": %d, "bbox_2d_list": [[1, 2, 3, 4]]}'


@pytest.mark.parametrize(
    ("items", "most", "share"),
    [
        ([ITEM % 1, ITEM % 2], 2, 1),
        ([ITEM % 1, '{"slice": 3}'], 2, 1 / 2),
        ([ITEM % 1, ITEM % 2, ITEM % 3, ITEM % 4], 2, 1 / 2),
        ([ITEM % 1, '{"slice": 3, "bbox_2d_list": [[1, 2, 3, 4], [9, 2, 3, 4], [1, 2, 3, 4]]}'], 4, 3 / 4),
        ([ITEM % 1, ITEM % 2], 1, 1),
        (['{"slice": 3}', ITEM % 2], 1, 0),
    ],
)
def test_the_form_of_several_objects(items, most, share):
    text = f"<think>a</think><answer>[{', '.join(items)}]</answer>"
    assert format_parts(text, most) == (1, 1, 1, pytest.approx(share))


@settings(max_examples=60, deadline=None)
@given(
    slices=st.lists(st.integers(0, 27), min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 5),
    most=st.integers(1, 6),
)
def test_scores_are_bounded_and_do_not_depend_on_the_order_of_anchors(slices, seed, most):
    rng = np.random.default_rng(seed)
    anchors = []
    for z in slices:
        corner = rng.uniform(0, 30, 2)
        anchors.append(Evidence(z, np.concatenate([corner, corner + rng.uniform(2, 16, 2)])[None]))
    mask = np.roll(CASE.target, int(rng.integers(-8, 8)), axis=2)
    for term in EVERY:
        scores = {round(term(rollout(order, mask, most), CASE), 12) for order in (anchors, anchors[::-1])}
        assert len(scores) == 1
        assert 0 <= scores.pop() <= 1
