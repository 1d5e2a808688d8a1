"""Axial reward: closed forms."""

import numpy as np
import pytest

from medvol.rewards.axial import AxialReward, axial_score

AREAS = np.array([0, 10, 40, 100, 80, 20, 0, 0, 5])


def test_share_of_the_largest_area_of_the_volume():
    assert [axial_score(AREAS, z) for z in range(9)] == [0, 0.1, 0.4, 1, 0.8, 0.2, 0, 0, 0.05]


def test_share_of_the_largest_area_around_the_chosen_slice():
    assert [axial_score(AREAS, z, delta=1) for z in range(9)] == [0, 0.25, 0.4, 1, 0.8, 0.25, 0, 0, 1]
    assert axial_score(AREAS, 7, delta=0) == 0.0


def test_local_maximum_is_a_weak_yardstick_for_a_tall_target():
    z = np.arange(-80, 81)
    areas = np.round(10_000 * (1 - (z / 80.0) ** 2)).astype(int)
    chosen = 80 + 60
    assert axial_score(areas, chosen) == pytest.approx(1 - 0.75**2, abs=0.001)
    assert axial_score(areas, chosen, delta=5) == pytest.approx((1 - 0.75**2) / (1 - (55 / 80) ** 2), abs=0.001)


@pytest.mark.parametrize("key_slice", [-1, 9])
def test_slice_outside_the_volume(key_slice):
    with pytest.raises(IndexError, match="outside a volume of 9"):
        axial_score(AREAS, key_slice)


def test_settings_choose_the_yardstick(make_case, make_rollout, write_answer):
    target = np.zeros((9, 10, 10), bool)
    for z, area in enumerate(AREAS):
        target[z].flat[:area] = True
    case = make_case(target)
    rollout = make_rollout(write_answer(target.shape, 1, [(0, 0, 5, 5)]), case)
    assert AxialReward()(rollout, case) == 0.1
    assert AxialReward("local", 1)(rollout, case) == 0.25
    assert AxialReward("local")(rollout, case) == 0.1


def test_better_slices_never_score_lower():
    order = np.argsort(AREAS, kind="stable")
    assert np.all(np.diff([axial_score(AREAS, int(z)) for z in order]) >= 0)
