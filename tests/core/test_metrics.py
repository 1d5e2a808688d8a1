"""Metrics against brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from medvol.core.errors import GeometryError
from medvol.core.metrics import dice, iou, key_slice_score, slice_areas, volume_ml

EMPTY = np.zeros((4, 5, 6), bool)
FULL = np.ones((4, 5, 6), bool)

masks = arrays(bool, (4, 5, 6))


@given(masks, masks)
def test_overlap_equals_set_arithmetic(a, b):
    first, second = (set(map(tuple, np.argwhere(m))) for m in (a, b))
    both, either = len(first & second), len(first | second)
    assert dice(a, b) == pytest.approx(2 * both / (len(first) + len(second)) if either else 1.0)
    assert iou(a, b) == pytest.approx(both / either if either else 1.0)


@given(masks, masks)
def test_dice_and_iou_are_tied_for_one_case(a, b):
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))


def test_empty_masks():
    assert dice(EMPTY, EMPTY) == iou(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, FULL) == dice(FULL, EMPTY) == iou(EMPTY, FULL) == iou(FULL, EMPTY) == 0.0


def test_shapes_must_agree():
    with pytest.raises(GeometryError, match="different shapes"):
        dice(EMPTY, EMPTY[:, :, :1])


def test_key_slice_score_is_the_share_of_the_largest_area():
    mask = np.zeros((4, 10, 10), bool)
    mask[1, :2, :5] = True
    mask[2, :4, :5] = True
    areas = slice_areas(mask)
    assert areas.tolist() == [0, 10, 20, 0]
    assert [key_slice_score(areas, z) for z in range(4)] == [0.0, 0.5, 1.0, 0.0]
    assert key_slice_score(slice_areas(EMPTY), 0) == 0.0


@pytest.mark.parametrize("key_slice", [-1, 4])
def test_key_slice_must_lie_in_the_volume(key_slice):
    with pytest.raises(IndexError, match="outside a volume of 4"):
        key_slice_score(slice_areas(FULL), key_slice)


def test_volume_in_ml():
    assert volume_ml(FULL, (5.0, 2.0, 1.0)) == pytest.approx(120 * 10 / 1000)
