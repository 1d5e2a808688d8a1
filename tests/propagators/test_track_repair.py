"""What may be done to a track: against masks drawn by hand."""

import numpy as np
import pytest
from scipy import ndimage

from medvol.propagators.sam2_family.track_repair import RepairRule, fill_gaps, keep_largest, repair_track


def disc(radius, centre=(20, 20), side=41):
    y, x = np.mgrid[:side, :side]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def track(*radii):
    return {z: disc(radius) if radius else np.zeros((41, 41), bool) for z, radius in enumerate(radii)}


def found(result):
    return [z for z, mask in sorted(result.items()) if mask.any()]


def test_nothing_is_done_unless_asked():
    before = track(0, 9, 0, 2, 15)
    after, actions = repair_track(before, 1, RepairRule())
    assert actions == []
    assert all(np.array_equal(after[z], before[z]) for z in before)


def test_a_gap_is_filled_with_the_shape_between():
    filled, actions = fill_gaps(track(10, 0, 4), 1)
    assert abs(filled[1].sum() - disc(7).sum()) <= 12
    assert actions == ["gap repair: filled slices 1 to 1"]


@pytest.mark.parametrize(("radii", "limit"), [((10, 0, 0, 10), 1), ((0, 0, 10, 10), 5), ((10, 10, 0, 0), 5)])
def test_longer_gaps_and_open_ends_stay(radii, limit):
    before = track(*radii)
    filled, actions = fill_gaps(before, limit)
    assert actions == []
    assert found(filled) == found(before)


def test_a_track_ends_where_little_is_left():
    after, actions = repair_track(track(3, 8, 10, 8, 3, 9), 2, RepairRule(min_area_share=0.25))
    assert found(after) == [1, 2, 3]
    assert actions == [
        "stop rule: ended at slice 0, 1 slices emptied",
        "stop rule: ended at slice 4, 2 slices emptied",
    ]


def test_a_track_ends_where_it_leaps():
    after, _ = repair_track(track(10, 10, 16, 16), 0, RepairRule(max_growth=2.0))
    assert found(after) == [0, 1]
    kept, actions = repair_track(track(10, 10, 13, 16), 0, RepairRule(max_growth=2.0))
    assert found(kept) == [0, 1, 2, 3]
    assert actions == []


def test_gaps_are_filled_before_the_stop_rule_looks():
    after, _ = repair_track(track(10, 0, 9), 0, RepairRule(min_area_share=0.1, max_gap_slices=1))
    assert found(after) == [0, 1, 2]


def test_the_largest_component_is_scipys():
    rng = np.random.default_rng(0)
    mask = ndimage.binary_opening(rng.random((12, 40, 40)) < 0.55)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    assert np.array_equal(keep_largest(mask), labels == 1 + int(np.argmax(sizes)))
    assert not keep_largest(np.zeros((2, 3, 4), bool)).any()
