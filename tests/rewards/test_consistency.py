"""Consistency reward: closed forms."""

import numpy as np
import pytest

from medvol.core.errors import GeometryError, RewardError
from medvol.core.types import Rollout
from medvol.rewards.consistency import ConsistencyReward, consistency_score
from medvol.rollouts.failures import PROPAGATION_FAILED

SHAPE = (20, 8, 8)


def column(*spans):
    mask = np.zeros(SHAPE, bool)
    for low, high in spans:
        mask[low:high, 2:6, 2:6] = True
    return mask


def test_dice_counts_only_the_window():
    true, predicted = column((4, 16)), column((8, 16))
    assert consistency_score(predicted, true, 10, delta=2) == 1.0
    assert consistency_score(predicted, true, 10, delta=5) == pytest.approx(2 * 8 / (8 + 11))
    assert consistency_score(predicted, true, 10, delta=None) == pytest.approx(2 * 8 / (8 + 12))


def test_window_is_cut_at_the_ends_of_the_volume():
    true, predicted = column((0, 3)), column((0, 2))
    assert consistency_score(predicted, true, 0, delta=5) == pytest.approx(2 * 2 / (2 + 3))
    assert consistency_score(column((18, 20)), column((18, 20)), 19, delta=5) == 1.0


def test_nothing_on_both_sides_earns_nothing_unless_asked():
    true, nothing = column((0, 3)), column()
    assert consistency_score(nothing, true, 15) == 0.0
    assert consistency_score(nothing, true, 15, both_empty=1.0) == 1.0
    assert consistency_score(nothing, true, 2) == 0.0


def test_masks_must_be_on_one_grid():
    with pytest.raises(GeometryError, match="different shapes"):
        consistency_score(column((0, 3))[:, :4], column((0, 3)), 1)


def test_slice_outside_the_volume():
    with pytest.raises(IndexError, match="outside a volume of 20"):
        consistency_score(column(), column(), 20)


def test_settings(make_case, make_rollout, write_answer):
    case = make_case(column((4, 16)))
    rollout = make_rollout(write_answer(SHAPE, 10, [(2, 2, 6, 6)]), case, column((8, 16)))
    assert ConsistencyReward()(rollout, case) == pytest.approx(2 * 8 / 19)
    assert ConsistencyReward(delta=2)(rollout, case) == 1.0
    assert ConsistencyReward(delta=None)(rollout, case) == pytest.approx(2 * 8 / 20)
    off_target = make_rollout(write_answer(SHAPE, 0, [(2, 2, 6, 6)]), case, column())
    assert ConsistencyReward(delta=2)(off_target, case) == 0.0
    assert ConsistencyReward(delta=2, both_empty=1.0)(off_target, case) == 1.0


def test_failed_propagation_scores_0_and_a_forgotten_one_is_an_error(make_case, make_rollout, write_answer):
    case = make_case(column((4, 16)))
    bare = make_rollout(write_answer(SHAPE, 10, [(2, 2, 6, 6)]), case)
    failed = Rollout(bare.case_id, bare.completion, bare.evidence, PROPAGATION_FAILED)
    assert ConsistencyReward()(failed, case) == 0.0
    with pytest.raises(RewardError, match="needs the propagated mask of case 'case'"):
        ConsistencyReward()(bare, case)


def test_a_growing_mask_within_the_target_never_scores_lower():
    true = column((4, 16))
    scores = [consistency_score(column((10, 10 + length)), true, 10, None) for length in range(7)]
    assert np.all(np.diff(scores) > 0)
