"""Spatial reward: closed forms, matching against brute force, rounding."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.grounding.boxes import box_iou, matched_iou, to_norm, to_px
from medvol.rewards.spatial import SpatialReward, spatial_score


def boxes_strategy(most):
    box = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 39)] * 2)
    lists = st.lists(box.map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])), min_size=1, max_size=most)
    return lists.map(lambda rows: np.array(rows, float))


@settings(max_examples=150, deadline=None)
@given(boxes_strategy(4), boxes_strategy(4))
def test_matching_is_the_best_of_all_assignments(predicted, true):
    iou = box_iou(predicted, true)
    if len(predicted) > len(true):
        iou = iou.T
    best = max(sum(iou[i, j] for i, j in enumerate(p)) for p in permutations(range(iou.shape[1]), iou.shape[0]))
    # a slice of 100 x 100 pixels: every pixel corner is one of the grammar's coordinates
    assert spatial_score(predicted, true, 100, 100) == pytest.approx(best / max(iou.shape))


def test_half_a_box_scores_its_overlap():
    assert spatial_score([[10, 10, 20, 20]], [[10, 10, 30, 20]], 100, 100) == pytest.approx(0.5)


def test_missed_and_surplus_boxes_share_the_score():
    two = [[0, 0, 10, 10], [50, 50, 70, 70]]
    assert spatial_score(two[:1], two, 100, 100) == 0.5
    assert spatial_score(two, two[1:], 100, 100) == 0.5
    assert spatial_score([two[0]] * 4, two[:1], 100, 100) == 0.25
    assert spatial_score(np.empty((0, 4)), two, 100, 100) == 0.0
    assert spatial_score(two, np.empty((0, 4)), 100, 100) == 0.0


def test_whole_image_boxes_earn_only_their_share():
    assert spatial_score([[0, 0, 100, 100]], [[40, 40, 50, 50]], 100, 100) == pytest.approx(0.01)


def test_pixels_would_cost_small_boxes_what_the_grammar_does_not():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 500, (2000, 2))
    true = np.concatenate([low, low + 8], axis=1).astype(float)
    written = to_px(to_norm(true, 512, 512), 512, 512)
    in_pixels = [matched_iou(a[None], b[None]) for a, b in zip(written, true, strict=True)]
    in_grammar = [spatial_score(a[None], b[None], 512, 512) for a, b in zip(written, true, strict=True)]
    assert min(in_pixels) < 0.93
    assert set(in_grammar) == {1.0}


@given(st.integers(0, 8))
def test_shrinking_a_box_never_scores_higher(steps):
    true = [[20, 20, 60, 50]]
    scores = [spatial_score([[20, 20, 60 - 4 * i, 50]], true, 100, 100) for i in range(steps + 1)]
    assert np.all(np.diff(scores) < 0) or steps == 0


@pytest.fixture
def tapered(make_case):
    """A target whose box shrinks from slice to slice."""
    target = np.zeros((5, 100, 100), bool)
    for z in range(4):
        target[z, 10 : 50 - 5 * z, 10 : 50 - 5 * z] = True
    return make_case(target)


def test_boxes_of_the_predicted_slice_or_of_the_labelled_one(tapered, make_rollout, write_answer):
    # slices 0..3 show the target, so the labelled one, the upper median, is 2
    rollout = make_rollout(write_answer(tapered.volume.shape, 1, [(10, 10, 45, 45)]), tapered)
    assert SpatialReward()(rollout, tapered) == 1.0
    assert SpatialReward("labelled")(rollout, tapered) == pytest.approx(30**2 / 35**2)


def test_slice_without_the_target_scores_0_by_its_own_boxes(tapered, make_rollout, write_answer):
    rollout = make_rollout(write_answer(tapered.volume.shape, 4, [(10, 10, 40, 40)]), tapered)
    assert SpatialReward()(rollout, tapered) == 0.0
    assert SpatialReward("labelled")(rollout, tapered) == 1.0


def test_labelled_slice_is_one_of_those_shown(tapered, make_rollout, write_answer):
    # of 5 slices two are shown, 0 and 4, and only 0 shows the target
    rollout = make_rollout(write_answer(tapered.volume.shape, 1, [(10, 10, 50, 50)]), tapered)
    assert SpatialReward("labelled", num_slices=2)(rollout, tapered) == 1.0


def test_labelled_slice_of_a_second_look_is_one_that_it_shows(tapered, make_rollout, write_answer):
    # slices 0 and 1 alone are shown, so the labelled one, the upper median, is 1
    looked = replace(tapered, volume=replace(tapered.volume, shown=(0, 2)))
    rollout = make_rollout(write_answer(looked.volume.shape, 2, [(10, 10, 45, 45)]), looked)
    assert SpatialReward("labelled")(rollout, looked) == 1.0


def test_parts_are_split_unless_told_otherwise(make_case, make_rollout, write_answer):
    target = np.zeros((1, 100, 100), bool)
    target[0, 10:20, 10:20] = target[0, 10:20, 40:50] = True
    case = make_case(target)
    whole = make_rollout(write_answer(target.shape, 0, [(10, 10, 50, 20)]), case)
    assert SpatialReward()(whole, case) == pytest.approx(0.25 / 2)
    assert SpatialReward(split_boxes=False)(whole, case) == 1.0
