"""The cover: parts at different heights are dealt among few anchors; brute force over small volumes is the judge."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvol.core.types import Evidence
from medvol.grounding.anchors import join_anchors, label_anchor
from medvol.grounding.cover import compare_anchors, cover_target

SHAPE = (10, 12, 48)


def mask_of(*spans):
    """A target with a part a span (first slice, last slice), side by side, each 4 x 4 pixels."""
    mask = np.zeros(SHAPE, bool)
    for i, (first, last) in enumerate(spans):
        mask[first : last + 1, 4:8, 8 * i : 8 * i + 4] = True
    return mask


def keys_of(evidence):
    return [anchor.key_slice for anchor in evidence.anchors]


@st.composite
def targets(draw):
    """One to five separate parts whose sides change from slice to slice."""
    mask = np.zeros(SHAPE, bool)
    for i in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, SHAPE[0] - 1))
        sides = draw(st.lists(st.integers(1, 6), min_size=1, max_size=SHAPE[0] - first))
        for z, side in enumerate([6, *sides[1:]], start=first):
            mask[z, :side, 9 * i : 9 * i + side] = True
    return mask


def clear_table(mask):
    """(parts, slices): which slice holds at least half of the largest area of a part."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    areas = np.array([[(plane == part).sum() for plane in labels] for part in range(1, count + 1)])
    return 2 * areas >= areas.max(axis=1, keepdims=True), labels


def fewest(table):
    """Size of the smallest set of slices that shows every part clearly, by trying all."""
    slices = range(table.shape[1])
    return next(
        size
        for size in range(1, len(table) + 1)
        if any(table[:, chosen].any(axis=1).all() for chosen in combinations(slices, size))
    )


def test_two_parts_never_share_a_slice():
    """Their paper slices are both slice 5; then each takes the one with its largest area, as the rewards expect."""
    mask = np.zeros((10, 12, 48), bool)
    mask[:10, :3, :3] = mask[:10, :3, 20:23] = True
    mask[0, :6, :6] = mask[9, :6, 20:26] = True
    assert keys_of(label_anchor(mask[:, :, :16])) == keys_of(label_anchor(mask[:, :, 16:])) == [5]
    anchor = label_anchor(mask, max_anchors=2)
    assert [(one.key_slice, one.boxes.tolist()) for one in anchor.anchors] == [
        (0, [[0, 0, 6, 6]]),
        (9, [[20, 0, 26, 6]]),
    ]
    assert compare_anchors(anchor, mask, 2, lambda one, part: float(part[one.key_slice].sum() == 36)) == 1.0


def test_specks_belong_to_no_part_of_a_single_anchor():
    """Four specks of one voxel on slice 7 would make it the largest; the part is on slice 3."""
    mask = np.zeros((10, 12, 48), bool)
    mask[3, :2, :3] = True
    mask[7, ::3, 40] = mask[7, ::3, 44] = True
    (part,) = cover_target(mask, range(10), 4)
    assert part.mask.sum() == 6
    assert keys_of(label_anchor(mask, rule="largest", max_anchors=4)) == [3]


@settings(max_examples=150, deadline=None)
@given(targets())
def test_the_cover_deals_every_part_once_and_spends_few_anchors(mask):
    table, labels = clear_table(mask)
    parts = cover_target(mask, range(len(mask)), 16)
    dealt = [set(np.unique(labels[part.mask])) for part in parts]
    assert sorted(number for own in dealt for number in own) == list(range(1, len(table) + 1))
    np.testing.assert_array_equal(sum(part.mask.astype(int) for part in parts), mask)
    for part, own in zip(parts, dealt, strict=True):
        assert part.slices
        largest = int(part.mask.sum(axis=(1, 2)).argmax())
        assert largest in part.slices
        for z in part.slices if len(own) > 1 else [largest]:
            assert all(table[number - 1, z] for number in own)
    least = fewest(table)
    assert least <= len(parts) <= least * (1 + np.log(len(table))) + 1


@settings(max_examples=60, deadline=None)
@given(targets())
def test_one_anchor_where_one_slice_shows_all(mask):
    table, _ = clear_table(mask)
    if fewest(table) == 1 and len(table) == 1:
        (part,) = cover_target(mask, range(len(mask)), 4)
        assert part.mask is mask


def test_parts_beside_one_another_share_an_anchor_and_others_have_their_own():
    mask = mask_of((0, 2), (1, 3), (6, 7), (9, 9))
    answer = label_anchor(mask, rule="largest", max_anchors=4)
    assert keys_of(answer) == [1, 6, 9]
    assert [len(anchor.boxes) for anchor in answer.anchors] == [2, 1, 1]
    assert answer.anchors[1].boxes.tolist() == [[16, 4, 20, 8]]


def test_the_greatest_number_of_anchors_bounds_the_cover():
    mask = mask_of((0, 0), (1, 2), (1, 2), (5, 5), (8, 8))
    mask[:, 8:] = False
    assert len(cover_target(mask, range(10), 2)) == 2
    assert keys_of(label_anchor(mask, rule="largest", max_anchors=2))[0] in (0, 1)
    assert any(len(anchor.boxes) == 2 for anchor in label_anchor(mask, rule="largest", max_anchors=2).anchors)


def test_parts_on_no_slice_shown_get_no_anchor():
    mask = mask_of((0, 1), (4, 4), (8, 9))
    assert keys_of(label_anchor(mask, shown=[0, 1, 8], rule="largest", max_anchors=4)) == [0, 8]
    assert label_anchor(mask, shown=[5, 6], max_anchors=4).absent


def test_specks_get_no_anchor():
    mask = mask_of((0, 4))
    mask[9, 11, 40:43] = True
    assert keys_of(label_anchor(mask, rule="largest", max_anchors=4)) == [0]


@pytest.mark.parametrize("rule", ["paper", "largest", "any"])
def test_one_part_is_labelled_as_where_one_anchor_is_allowed(rule):
    mask = mask_of((2, 7))
    one, several = (
        label_anchor(mask, range(0, 10, 2), rule, jitter=0.1, rng=np.random.default_rng(3), max_anchors=most)
        for most in (1, 4)
    )
    assert keys_of(one) == keys_of(several)
    np.testing.assert_array_equal(one.boxes, several.boxes)


def parts_hit(anchor, part):
    """1 where the anchor's slice shows the part."""
    return float(part[anchor.key_slice].any())


BOX = np.array([[0.0, 0, 4, 4]])
THREE = mask_of((0, 1), (4, 5), (8, 9))


@pytest.mark.parametrize(
    ("slices", "score"),
    [
        ([0, 4, 8], 1),
        ([0], 1 / 3),
        ([3], 0),
        ([0, 4], 2 / 3),
        ([0, 1, 4], 2 / 3),
        ([0, 4, 8, 3], 3 / 4),
        ([0, 1, 4, 5, 8, 9], 3 / 6),
        ([0, 1, 2, 3], 1 / 4),
    ],
)
def test_anchors_are_paired_with_parts(slices, score):
    for order in permutations(slices) if len(slices) < 4 else (slices, slices[::-1]):
        answer = join_anchors([Evidence(z, BOX) for z in order])
        assert compare_anchors(answer, THREE, 8, parts_hit) == score


@settings(max_examples=80, deadline=None)
@given(targets(), st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True), st.integers(2, 6))
def test_the_pairing_is_the_best_of_all(mask, slices, most):
    answer = join_anchors([Evidence(z, BOX) for z in slices])
    parts = [part.mask for part in cover_target(mask, range(10), most)]

    def share(anchor, part):
        return float(part[anchor.key_slice].sum() / part.sum())

    short, long = sorted([list(answer.anchors), parts], key=len)
    swapped = short is parts
    sums = [
        sum(share(*(pair[::-1] if swapped else pair)) for pair in zip(short, order, strict=True))
        for order in permutations(long, len(short))
    ]
    assert compare_anchors(answer, mask, most, share) == pytest.approx(max(sums) / len(long), abs=1e-12)
    assert compare_anchors(answer.anchors[0], mask, 1, share) == share(answer.anchors[0], mask)
