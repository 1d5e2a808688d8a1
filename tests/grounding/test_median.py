"""The median of answers: worked out by hand, by brute force over votes, and what holds for any answers."""

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.types import Evidence
from medvol.grounding.median import median_anchor

ABSENT = Evidence(None, np.empty((0, 4)))


def anchor(key_slice, *boxes):
    return Evidence(key_slice, np.array(boxes, float))


def test_every_number_is_the_middle_of_those_that_were_named():
    answers = [anchor(3, [0, 10, 20, 30]), anchor(9, [4, 12, 22, 50]), anchor(4, [2, 11, 40, 31])]
    median = median_anchor(answers)
    assert median.key_slice == 4
    assert median.boxes.tolist() == [[2, 11, 22, 31]]
    assert median.rationale == ""


def test_of_two_slices_in_the_middle_the_lower_one_is_taken():
    """A slice that nobody named is not chosen; edges are numbers like others, and are averaged."""
    median = median_anchor([anchor(2, [0, 0, 4, 4]), anchor(8, [2, 2, 6, 6])])
    assert median.key_slice == 2
    assert median.boxes.tolist() == [[1, 1, 5, 5]]


def test_boxes_are_paired_whatever_their_order():
    left, right = [0, 0, 10, 10], [50, 0, 60, 10]
    answers = [anchor(1, left, right), anchor(2, [54, 0, 64, 10], [2, 0, 12, 10]), anchor(3, right, left)]
    assert median_anchor(answers).boxes.tolist() == [[50, 0, 60, 10], [0, 0, 10, 10]]  # in the order of slice 2


def test_the_number_of_boxes_is_voted_on():
    one, two = [0, 0, 10, 10], [[0, 0, 4, 4], [20, 20, 30, 30]]
    assert len(median_anchor([anchor(1, one), anchor(1, *two), anchor(1, *two)]).boxes) == 2
    assert len(median_anchor([anchor(1, one), anchor(1, *two)]).boxes) == 1
    assert median_anchor([anchor(1, one), anchor(9, *two)]).key_slice == 1


@pytest.mark.parametrize("places", range(4))
@pytest.mark.parametrize("absent", range(4))
@pytest.mark.parametrize("failed", range(4))
def test_the_most_votes_decide(places, absent, failed):
    answers = [anchor(5, [0, 0, 1, 1])] * places + [ABSENT] * absent + [None] * failed
    if not answers:
        return
    votes = Counter({"place": places, "absent": absent, "failed": failed})
    order = ("place", "absent", "failed")  # of a tie
    winner = max(order, key=lambda name: (votes[name], -order.index(name)))
    median = median_anchor(answers)
    found = "failed" if median is None else "absent" if median.absent else "place"
    assert found == winner


def boxes(count):
    edge = st.floats(0, 50, allow_nan=False)
    size = st.floats(0.5, 50)
    return st.lists(
        st.builds(lambda x, y, w, h: [x, y, x + w, y + h], edge, edge, size, size), min_size=count, max_size=count
    )


answers = st.lists(
    st.one_of(st.none(), st.just(ABSENT), st.builds(lambda z, b: anchor(z, *b), st.integers(0, 40), boxes(1))),
    min_size=1,
    max_size=12,
)


@given(answers)
def test_an_anchor_is_a_median_of_numbers_and_a_box_has_an_area(said):
    median = median_anchor(said)
    named = [answer for answer in said if answer is not None and not answer.absent]
    if median is None or median.absent:
        assert len(named) < len(said)
        return
    assert median.key_slice == statistics.median_low(answer.key_slice for answer in named)
    edges = [statistics.median(float(answer.boxes[0][side]) for answer in named) for side in range(4)]
    assert median.boxes[0] == pytest.approx(edges)
    x1, y1, x2, y2 = median.boxes[0]
    assert x1 < x2
    assert y1 < y2


@given(answers, st.randoms())
def test_order_does_not_matter_with_one_box(said, random):
    shuffled = list(said)
    random.shuffle(shuffled)
    first, second = median_anchor(said), median_anchor(shuffled)
    assert (first is None) == (second is None)
    if first is not None:
        assert first.key_slice == second.key_slice
        assert np.array_equal(first.boxes, second.boxes)


@given(st.integers(0, 40), boxes(3), st.integers(1, 5))
def test_equal_answers_are_their_own_median(key_slice, said, count):
    median = median_anchor([anchor(key_slice, *said)] * count)
    assert median.key_slice == key_slice
    assert sorted(median.boxes.tolist()) == sorted(np.array(said).tolist())
