"""True anchors: key slices against brute force, boxes, jitter."""

from statistics import median_high

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import ConfigError, GeometryError
from medvol.core.types import Evidence
from medvol.grounding.anchors import choose_key_slice, label_anchor, settled_score

area_lists = st.lists(st.integers(0, 30), min_size=1, max_size=40)


def drawn_shown(areas, data):
    return sorted(data.draw(st.sets(st.integers(0, len(areas) - 1), min_size=1)))


@given(area_lists, st.data())
def test_paper_rule_is_the_upper_median_of_the_ten_largest_shown(areas, data):
    shown = drawn_shown(areas, data)
    remaining, ten = [z for z in shown if areas[z]], []
    while remaining and len(ten) < 10:
        best = next(z for z in remaining if areas[z] == max(areas[i] for i in remaining))
        ten.append(best)
        remaining.remove(best)
    assert choose_key_slice(areas, shown, "paper") == (median_high(ten) if ten else None)


@pytest.mark.parametrize(("areas", "key_slice"), [(range(20, 0, -1), 5), (range(1, 21), 15)])
def test_paper_rule_takes_ten_slices(areas, key_slice):
    """The ten largest are 0..9 or 10..19; with nine or eleven the upper median would be another."""
    assert choose_key_slice(list(areas), range(20)) == key_slice


@given(area_lists, st.data())
def test_largest_rule_is_the_first_largest_shown(areas, data):
    shown = drawn_shown(areas, data)
    largest = max(areas[z] for z in shown)
    expected = next(z for z in shown if areas[z] == largest) if largest else None
    assert choose_key_slice(areas, shown, "largest") == expected


def test_any_rule_draws_every_clear_slice_and_no_other():
    areas = [0, 100, 9, 10, 50, 0]
    rng = np.random.default_rng(0)
    assert {choose_key_slice(areas, range(6), "any", rng) for _ in range(200)} == {1, 3, 4}
    assert {choose_key_slice(areas, [0, 2, 3, 5], "any", rng) for _ in range(50)} == {2, 3}


def test_any_rule_needs_a_generator():
    with pytest.raises(ValueError, match="random generator"):
        choose_key_slice([1, 2], [0, 1], "any")


def mask_of_two():
    mask = np.zeros((6, 20, 30), bool)
    mask[2:5, 4:10, 3:9] = True
    mask[3:5, 5:15, 18:26] = True
    return mask


def test_boxes_of_the_key_slice():
    anchor = label_anchor(mask_of_two(), rule="largest", rationale="two parts")
    assert (anchor.key_slice, anchor.rationale) == (3, "two parts")
    np.testing.assert_array_equal(anchor.boxes, [[3, 4, 9, 10], [18, 5, 26, 15]])


def test_one_box_when_not_split():
    anchor = label_anchor(mask_of_two(), rule="largest", split_boxes=False)
    np.testing.assert_array_equal(anchor.boxes, [[3, 4, 26, 15]])


def test_only_shown_slices_are_chosen():
    anchor = label_anchor(mask_of_two(), shown=[0, 2, 5])
    assert anchor.key_slice == 2
    np.testing.assert_array_equal(anchor.boxes, [[3, 4, 9, 10]])


@pytest.mark.parametrize("shown", [None, [0, 1, 5]])
def test_absent_when_no_shown_slice_holds_the_target(shown):
    mask = mask_of_two() if shown else np.zeros((6, 20, 30), bool)
    anchor = label_anchor(mask, shown, rationale="none")
    assert anchor.absent
    assert anchor.boxes.shape == (0, 4)
    assert anchor.rationale == "none"


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.49))
def test_jitter_moves_edges_by_at_most_its_share(seed, jitter):
    exact = label_anchor(mask_of_two())
    moved = label_anchor(mask_of_two(), jitter=jitter, rng=np.random.default_rng(seed))
    sides = np.tile(exact.boxes[:, 2:] - exact.boxes[:, :2], 2)
    assert (np.abs(moved.boxes - exact.boxes) <= jitter * sides + 1e-9).all()
    assert (moved.boxes[:, 2:] > moved.boxes[:, :2]).all()
    assert moved.boxes.min() >= 0
    assert (moved.boxes <= [30, 20, 30, 20]).all()


def test_jitter_needs_a_generator_and_masks_three_axes():
    with pytest.raises(ValueError, match="random generator"):
        label_anchor(mask_of_two(), jitter=0.1)
    with pytest.raises(GeometryError, match=r"shape \(20, 30\)"):
        label_anchor(mask_of_two()[0])


@pytest.mark.parametrize(
    ("answer", "present", "score"),
    [("here", True, None), ("here", False, 0.0), ("nowhere", True, 0.0), ("nowhere", False, 1.0), (None, True, 0.0),
     (None, False, 0.0)],
)  # fmt: skip
def test_a_score_is_open_only_when_there_is_something_to_compare(answer, present, score):
    anchors = {"here": Evidence(1, np.array([[1.0, 1, 3, 3]])), "nowhere": Evidence(None, np.empty((0, 4)))}
    assert settled_score(anchors.get(answer), np.full((2, 4, 4), present)) == score


def test_jitter_never_turns_a_box_over():
    mask = np.zeros((3, 20, 20), bool)
    mask[1, 5:9, 4:12] = True
    for seed in range(50):
        boxes = label_anchor(mask, jitter=0.9, rng=np.random.default_rng(seed)).boxes
        assert (boxes[:, :2] <= boxes[:, 2:]).all()
    for settings in ({"jitter": 1.0, "rng": np.random.default_rng(0)}, {"jitter": 0.1}, {"rule": "bogus"}):
        with pytest.raises(ConfigError):
            label_anchor(mask, **settings)
    with pytest.raises(GeometryError, match="the mask has the slices 0 to 2"):
        label_anchor(mask, shown=[40])
