"""Metrics against brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medvol.core.errors import GeometryError
from medvol.core.metrics import diagonal_mm, dice, iou, key_slice_score, slice_areas, surface_measures, volume_ml

SPACING = (5.0, 0.8, 1.3)
EMPTY = np.zeros((4, 5, 6), bool)
FULL = np.ones((4, 5, 6), bool)

masks = arrays(bool, (4, 5, 6))


def brute_surface(mask):
    """Voxels with a missing face neighbour, found by a loop."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                near = index.copy()
                near[axis] += step
                inside = 0 <= near[axis] < mask.shape[axis]
                if not inside or not mask[tuple(near)]:
                    found.append(tuple(index))
    return np.array(sorted(set(found)), float)


def brute_measures(a, b, spacing, tolerance):
    points = [brute_surface(m) * spacing for m in (a, b)]
    pairs = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    distances = [pairs.min(axis=1), pairs.min(axis=0)]
    nsd = sum((d <= tolerance + 1e-6).sum() for d in distances) / sum(len(d) for d in distances)
    return nsd, max(np.percentile(d, 95) for d in distances)


def ball(shape, centre, radius):
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return ((grid - centre) ** 2).sum(-1) <= radius**2


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


@settings(max_examples=60, deadline=None)
@given(masks.filter(np.any), masks.filter(np.any), st.floats(0.0, 8.0))
def test_surface_measures_equal_brute_force(a, b, tolerance):
    assert surface_measures(a, b, SPACING, tolerance) == pytest.approx(brute_measures(a, b, SPACING, tolerance))


@pytest.mark.parametrize(("spacing_mm", "slices"), [(0.8, 2), (0.7, 3), (0.1, 3), (1.1, 3)])
def test_a_distance_of_the_tolerance_agrees_however_it_is_rounded(spacing_mm, slices):
    """Two single voxels that many slices apart, and a tolerance written in decimals: 0.1 three times is not 0.3."""
    a, b = np.zeros((2, 9, 5, 5), bool)
    a[1, 2, 2] = b[1 + slices, 2, 2] = True
    tolerance = round(spacing_mm * slices, 3)
    assert surface_measures(a, b, (spacing_mm, 1.0, 1.0), tolerance)[0] == 1.0
    assert surface_measures(a, b, (spacing_mm, 1.0, 1.0), tolerance - 0.01)[0] == 0.0


def test_identical_masks_have_no_distance():
    mask = ball((9, 20, 20), (4, 10, 10), 4)
    assert surface_measures(mask, mask, SPACING, 0.0) == (1.0, 0.0)


def test_shifted_box_has_the_distance_of_its_shift():
    a, b = np.zeros((2, 12, 40, 40), bool)
    a[3:9, 10:30, 10:30] = True
    b[4:10, 10:30, 10:30] = True
    nsd, hd95 = surface_measures(a, b, (5.0, 1.0, 1.0), 4.9)
    assert hd95 == 5.0  # the end plates (more than a twentieth of the surface) lie one slice apart
    assert nsd < 1.0
    assert surface_measures(a, b, (5.0, 1.0, 1.0), 5.0) == (1.0, 5.0)


def test_concentric_balls_lie_their_difference_apart():
    small, large = (ball((61, 61, 61), (30, 30, 30), radius) for radius in (20, 25))
    nsd, hd95 = surface_measures(small, large, (1.0, 1.0, 1.0), 3.0)
    assert hd95 == pytest.approx(5.0, abs=0.8)
    assert nsd == 0.0
    assert surface_measures(small, large, (1.0, 1.0, 1.0), 7.0)[0] == 1.0


def test_missed_structure_gets_the_worst_distance():
    diagonal = diagonal_mm(FULL.shape, SPACING)
    assert diagonal == pytest.approx(np.sqrt(20**2 + 4**2 + 7.8**2))
    assert surface_measures(EMPTY, EMPTY, SPACING) == (1.0, 0.0)
    assert surface_measures(EMPTY, FULL, SPACING) == surface_measures(FULL, EMPTY, SPACING) == (0.0, diagonal)


@settings(max_examples=100, deadline=None)
@given(masks, masks.filter(np.any), st.floats(0.0, 8.0))
def test_a_missed_structure_never_improves_any_measure(predicted, true, tolerance):
    nsd, hd95 = surface_measures(predicted, true, SPACING, tolerance)
    missed_nsd, missed_hd95 = surface_measures(EMPTY, true, SPACING, tolerance)
    assert missed_nsd <= nsd
    assert missed_hd95 >= hd95
    assert dice(EMPTY, true) <= dice(predicted, true)
