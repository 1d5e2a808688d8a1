"""Boxes: against pixel counting, permutations and the rounding of the coordinate map."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medvol.grounding.boxes import box_iou, matched_iou, rasterise, tight_boxes, to_norm, to_px

SIZE = 24


def pixel_boxes(size=SIZE, min_side=1):
    span = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted).filter(lambda s: s[1] - s[0] >= min_side)
    return st.tuples(span, span).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def count_iou(a, b):
    masks = []
    for x1, y1, x2, y2 in (a, b):
        masks.append({(x, y) for x in range(x1, x2) for y in range(y1, y2)})
    union = masks[0] | masks[1]
    return len(masks[0] & masks[1]) / len(union) if union else 0.0


@given(pixel_boxes(min_side=0), pixel_boxes(min_side=0))
def test_iou_is_what_counting_pixels_gives(a, b):
    assert box_iou([a], [b])[0, 0] == pytest.approx(count_iou(a, b), abs=1e-12)


def test_iou_of_every_pair():
    iou = box_iou([[0, 0, 2, 2], [0, 0, 4, 4]], [[0, 0, 2, 2], [2, 2, 4, 4], [5, 5, 6, 6]])
    np.testing.assert_allclose(iou, [[1, 0, 0], [0.25, 0.25, 0]])


@given(st.lists(pixel_boxes(), min_size=1, max_size=4), st.lists(pixel_boxes(), min_size=1, max_size=4))
def test_matching_is_the_best_of_all_permutations(predicted, true):
    few, many = sorted((predicted, true), key=len)
    best = max(sum(count_iou(a, b) for a, b in zip(few, order, strict=False)) for order in permutations(many))
    assert matched_iou(predicted, true) == pytest.approx(best / len(many), abs=1e-9)


def test_matching_punishes_surplus_and_missed_boxes():
    box = [0, 0, 4, 4]
    assert matched_iou([box, [10, 10, 12, 12]], [box]) == 0.5
    assert matched_iou([box], [box, [10, 10, 12, 12]]) == 0.5
    assert matched_iou(np.empty((0, 4)), [box]) == 0.0
    assert matched_iou([box], np.empty((0, 4))) == 0.0


@given(pixel_boxes(), st.integers(24, 900), st.integers(24, 900), st.sampled_from([1, 2, 4, 5, 8, 10, 20, 25]))
def test_coordinates_come_back_within_half_a_unit(box, height, width, step):
    scaled = np.array(box, np.float64) / SIZE * [width, height, width, height]
    norm = to_norm(scaled, height, width, step)
    assert norm.dtype == np.int64
    assert (norm % step == 0).all()
    assert norm.min() >= 0
    assert norm.max() <= 1000
    back = to_px(norm, height, width)[0] * 1000 / np.array([width, height, width, height])
    assert np.abs(back - np.array(box) * 1000 / SIZE).max() <= step / 2 + 1e-6


@given(
    st.tuples(*[st.floats(-50, 250)] * 4), st.integers(2, 2000), st.integers(2, 2000), st.sampled_from([1, 5, 20, 100])
)
def test_every_box_with_an_area_can_be_written(box, height, width, step):
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    assume(x1 < x2 and y1 < y2)
    left, top, right, bottom = to_norm([x1, y1, x2, y2], height, width, step)[0]
    assert 0 <= left < right <= 1000
    assert 0 <= top < bottom <= 1000


def whole_pixel_boxes(size):
    """Every span of whole pixels of a slice, as a square box."""
    low, high = np.triu_indices(size + 1, k=1)
    return np.stack([low, low, high, high], axis=1)


@pytest.mark.parametrize("size", [*range(4, 65), 96, 100, 255, 256, 511, 512, 999, 1000])
def test_every_box_of_whole_pixels_survives_the_coordinate_map(size):
    boxes = whole_pixel_boxes(size)
    norm = to_norm(boxes, size, size)
    assert np.abs(norm - boxes * 1000 / size).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(np.rint(to_px(norm, size, size)), boxes)


@pytest.mark.parametrize("step", [1, 4, 8, 20, 25, 50, 100])
@pytest.mark.parametrize("size", [4, 17, 96, 512])
def test_boxes_longer_than_the_step_move_by_half_of_it_at_most(size, step):
    boxes = whole_pixel_boxes(size)[::7]
    exact = boxes * 1000 / size
    long = exact[:, 2] - exact[:, 0] > step
    norm = to_norm(boxes[long], size, size, step)
    assert (norm % step == 0).all()
    assert np.abs(norm - exact[long]).max() <= step / 2 + 1e-9


@given(st.lists(pixel_boxes(), min_size=0, max_size=4))
def test_rasterise_covers_the_pixels_of_whole_boxes(boxes):
    expected = np.zeros((SIZE, SIZE), bool)
    for x1, y1, x2, y2 in boxes:
        expected[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(rasterise(boxes, SIZE, SIZE), expected)


@given(st.tuples(*[st.floats(-3, SIZE + 3).filter(lambda v: v % 1 != 0.5)] * 4))
def test_rasterise_takes_pixels_whose_centre_is_inside(box):
    x1, y1, x2, y2 = box
    centres = np.arange(SIZE) + 0.5
    expected = ((centres > y1) & (centres < y2))[:, None] & ((centres > x1) & (centres < x2))
    np.testing.assert_array_equal(rasterise([box], SIZE, SIZE), expected)


def flood(mask):
    """Boxes and areas of 8-connected components by flood fill."""
    left, found = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        front, part = [left.pop()], []
        while front:
            y, x = front.pop()
            part.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        ys, xs = zip(*part, strict=True)
        found.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1, len(part)))
    return found


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.5))
def test_split_boxes_are_the_clear_components(seed, share):
    mask = np.random.default_rng(seed).random((12, 14)) < share
    found = flood(mask)
    if not found:
        assert tight_boxes(mask, split=True).shape == (0, 4)
        return
    largest = max(part[4] for part in found)
    floor = min(max(5, 0.1 * largest), largest)
    clear = sorted(part[:4] for part in found if part[4] >= floor)
    boxes = [tuple(box) for box in tight_boxes(mask, split=True, max_boxes=100).astype(int).tolist()]
    assert boxes == clear


def test_one_box_of_everything():
    mask = np.zeros((10, 12), bool)
    mask[2, 3] = mask[7, 9] = True
    np.testing.assert_array_equal(tight_boxes(mask), [[3, 2, 10, 8]])
    assert tight_boxes(np.zeros((4, 4), bool)).shape == (0, 4)


def test_keeps_the_largest_boxes_from_left_to_right():
    mask = np.zeros((20, 60), bool)
    for i, side in enumerate((3, 6, 5, 4)):
        mask[2 : 2 + side, 10 * i : 10 * i + side] = True
    boxes = tight_boxes(mask, split=True, max_boxes=2)
    np.testing.assert_array_equal(boxes, [[10, 2, 16, 8], [20, 2, 25, 7]])
