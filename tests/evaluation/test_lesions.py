"""Scores lesion by lesion: worked out by hand, by brute force, and by panoptica."""

from itertools import permutations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from medvol.core.errors import GeometryError
from medvol.core.metrics import dice
from medvol.evaluation.lesions import LesionScore, score_lesions
from medvol.evaluation.settings import EvaluationSettings

SHAPE = (6, 24, 24)
masks = arrays(bool, (3, 5, 5))


def blocks(*places):
    """Blocks of 2 x 4 voxels on slice 2, at (y, x)."""
    mask = np.zeros(SHAPE, bool)
    for y, x in places:
        mask[2, y : y + 2, x : x + 4] = True
    return mask


def test_every_count_of_a_prediction_that_finds_two_of_three():
    """One exactly, one by half of its length (Dice 1/2, IoU 1/3), one missed, one invented."""
    score = score_lesions(blocks((0, 0), (8, 2), (20, 0)), blocks((0, 0), (8, 0), (16, 12)))
    assert (score.true, score.predicted, score.found, score.hit) == (3, 3, 2, 1.0)
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert score.dice == pytest.approx((1 + 0.5) / (2 + 1 + 1))
    assert score.panoptic == pytest.approx(1 / (1 + 2 / 2 + 2 / 2))


def test_one_large_prediction_over_two_lesions_finds_one_of_them():
    true, predicted = blocks((0, 0), (0, 6)), np.zeros(SHAPE, bool)
    predicted[2, 0:2, 0:10] = True
    score = score_lesions(predicted, true)
    assert (score.found, score.precision, score.recall) == (1, 1.0, 0.5)
    assert score.dice == pytest.approx(2 * 8 / (20 + 8) / 2)


def test_corners_join_parts_of_a_lesion():
    mask = blocks((0, 0), (2, 4))
    assert (score_lesions(mask, mask).true, score_lesions(mask, mask).panoptic) == (1, 1.0)


@pytest.mark.parametrize(("length", "found", "hit"), [(72, 1, 1.0), (73, 0, 1.0), (152, 0, 1.0), (153, 0, 0.0)])
def test_thresholds_are_reached_and_not_exceeded(length, found, hit):
    """A lesion of 8 voxels in a prediction of n: Dice 16 / (n + 8) is 0.2 at n = 72 and 0.1 at n = 152."""
    predicted = np.zeros((1, 1, 400), bool)
    true = predicted.copy()
    true[0, 0, :8] = predicted[0, 0, :length] = True
    score = score_lesions(predicted, true)
    assert (score.found, score.hit) == (found, hit)


def test_an_empty_prediction_earns_nothing():
    assert score_lesions(blocks(), blocks((0, 0), (8, 8))) == LesionScore(2, 0, 0, *[0.0] * 6)


def test_a_target_without_a_lesion_is_refused():
    with pytest.raises(GeometryError, match="a true one"):
        score_lesions(blocks((0, 0)), blocks())


def count_parts(mask):
    return int(cc3d.connected_components(np.pad(mask, 1), connectivity=26).max())


def brute_score(predicted, true):
    """Every way to give each true part a predicted one of its own."""
    sides = []
    for mask in (predicted, true):
        labels = cc3d.connected_components(np.pad(mask, 1), connectivity=26)[1:-1, 1:-1, 1:-1]
        sides.append([labels == number for number in range(1, labels.max() + 1)])
    table = np.array([[dice(p, t) for p in sides[0]] for t in sides[1]]).reshape(len(sides[1]), len(sides[0]))
    table[table < 0.2] = 0
    padded = np.pad(table, ((0, 0), (0, len(table))))
    best = max(
        (padded[range(len(table)), order] for order in permutations(range(padded.shape[1]), len(table))),
        key=lambda chosen: chosen.sum(),
    )
    found = (best > 0).sum()
    return found, best.sum() / (len(sides[0]) + len(sides[1]) - found)


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_matching_equals_brute_force(predicted, true):
    true[0, 0, 0] = True
    predicted[1], true[1] = False, False  # two thin slices fall apart into more parts
    if max(count_parts(mask) for mask in (predicted, true)) > 4:
        return
    score = score_lesions(predicted, true)
    assert (score.found, score.dice) == pytest.approx(brute_score(predicted, true))


@settings(max_examples=100, deadline=None)
@given(masks, masks)
def test_a_perfect_prediction_earns_1_and_an_empty_one_no_more_than_any(predicted, true):
    true[0, 0, 0] = True
    names = ("hit", "precision", "recall", "f1", "dice", "panoptic")
    perfect, any_one, empty = (score_lesions(mask, true) for mask in (true, predicted, np.zeros_like(true)))
    assert [getattr(perfect, name) for name in names] == [1.0] * 6
    assert all(0 <= getattr(empty, name) <= getattr(any_one, name) <= 1 for name in names)


def draw_lesions(seed):
    """A few blobs, and a prediction that moves, drops and invents some."""
    rng = np.random.default_rng(seed)
    true, predicted = np.zeros((2, 20, 48, 48), bool)
    grid = np.indices(true.shape).transpose(1, 2, 3, 0)
    for _ in range(rng.integers(2, 7)):
        centre, radius = rng.uniform(4, [16, 44, 44]), rng.uniform(2, 5)
        blob = ((grid - centre) ** 2).sum(-1) <= radius**2
        true |= blob
        if rng.random() < 0.75:
            predicted |= ((grid - centre - rng.normal(0, 0.6, 3)) ** 2).sum(-1) <= (radius * rng.uniform(0.7, 1.2)) ** 2
        if rng.random() < 0.3:
            predicted |= ((grid - rng.uniform(4, [16, 44, 44])) ** 2).sum(-1) <= 6
    return predicted, true


PANOPTICA = {
    0: (5, 0.714286, 0.833333, 0.769231, 0.275309),
    1: (3, 0.750000, 0.750000, 0.750000, 0.301313),
    2: (3, 1.000000, 0.600000, 0.750000, 0.505152),
    3: (2, 0.500000, 0.333333, 0.400000, 0.104138),
    4: (3, 0.750000, 0.600000, 0.666667, 0.417400),
    5: (3, 0.750000, 0.600000, 0.666667, 0.265103),
    6: (2, 0.666667, 0.500000, 0.571429, 0.228950),
    7: (5, 0.625000, 0.833333, 0.714286, 0.196490),
    8: (4, 0.666667, 1.000000, 0.800000, 0.507062),
    9: (2, 1.000000, 0.500000, 0.666667, 0.247475),
    10: (2, 0.400000, 0.666667, 0.500000, 0.304923),
    11: (1, 0.500000, 0.500000, 0.500000, 0.335878),
}
"""panoptica 2.1.7 on the same masks: true positives, precision, recall and F1 by bipartite matching at a Dice of 0.2,
then panoptic quality by matching above an IoU of 0.5."""


@pytest.mark.parametrize("seed", PANOPTICA)
def test_scores_are_those_of_panoptica(seed):
    score = score_lesions(*draw_lesions(seed))
    ours = score.found, score.precision, score.recall, score.f1, score.panoptic
    assert ours == pytest.approx(PANOPTICA[seed], abs=1e-6)


@pytest.mark.parametrize(
    ("target", "counted"),
    [("liver_tumor", True), ("left kidney lesions", True), ("GTV-mass_2", True), ("cystic_duct", False), ("", False)],
)
def test_a_finding_is_known_by_a_whole_word_of_its_name(target, counted):
    assert EvaluationSettings().counts_lesions(target) == counted
