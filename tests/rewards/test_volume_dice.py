"""Volume Dice reward: closed forms, and what the window of the consistency reward cannot see."""

import numpy as np
import pytest

from medvol.core.errors import GeometryError, RewardError
from medvol.core.types import Rollout
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.rollouts.failures import PROPAGATION_FAILED

SHAPE = (40, 8, 8)
ANCHOR = (20, [(2, 2, 6, 6)])


def column(low, high):
    mask = np.zeros(SHAPE, bool)
    mask[low:high, 2:6, 2:6] = True
    return mask


@pytest.fixture
def follow(make_case, make_rollout, write_answer):
    """Score of a term for a mask about a target on slices 10 to 29."""

    def score(term, mask):
        case = make_case(column(10, 30))
        return term(make_rollout(write_answer(SHAPE, *ANCHOR), case, mask), case)

    return score


@pytest.mark.parametrize(("low", "high"), [(10, 30), (15, 26), (0, 40), (20, 21), (30, 40), (5, 5)])
def test_dice_of_columns(follow, low, high):
    overlap = max(0, min(high, 30) - max(low, 10))
    assert follow(VolumeDiceReward(), column(low, high)) == pytest.approx(2 * overlap / (20 + high - low))


def test_it_sees_what_happens_far_from_the_key_slice(follow):
    leaking = column(10, 40)
    assert follow(ConsistencyReward(5), leaking) == 1.0
    assert follow(VolumeDiceReward(), leaking) == pytest.approx(2 * 20 / 50)


def test_dice_counted_voxel_by_voxel(follow):
    rng = np.random.default_rng(0)
    mask = rng.random(SHAPE) < 0.3
    pairs = list(zip(mask.ravel().tolist(), column(10, 30).ravel().tolist(), strict=True))
    both, either = sum(a and b for a, b in pairs), sum(a + b for a, b in pairs)
    assert follow(VolumeDiceReward(), mask) == pytest.approx(2 * both / either)


def test_the_whole_volume_is_needed():
    assert VolumeDiceReward().mask_delta is None
    assert ConsistencyReward(7).mask_delta == 7
    assert ConsistencyReward(None).mask_delta is None


def test_a_failed_propagation_scores_0_and_a_forgotten_one_is_an_error(make_case, make_rollout, write_answer):
    case = make_case(column(10, 30))
    bare = make_rollout(write_answer(SHAPE, *ANCHOR), case)
    assert VolumeDiceReward()(Rollout(bare.case_id, bare.completion, bare.evidence, PROPAGATION_FAILED), case) == 0.0
    with pytest.raises(RewardError, match="VolumeDiceReward needs the propagated mask of case 'case'"):
        VolumeDiceReward()(bare, case)


def test_masks_must_be_on_one_grid(follow):
    with pytest.raises(GeometryError, match="different shapes"):
        follow(VolumeDiceReward(), column(10, 30)[:, :4])
