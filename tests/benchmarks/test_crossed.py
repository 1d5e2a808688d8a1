"""Intervals over crossed clusters: closed forms, and their coverage in simulated studies."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
VOLUMES, PHRASINGS = 40, 12


@pytest.fixture
def crossed_interval(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "crossed", raising=False)
    import crossed

    return crossed.crossed_interval


def simulate(rng, seeds, spreads, skewed):
    """A study: each volume is asked in two phrasings by every seed; spreads of volumes, phrasings, seeds and the rest.

    Seeds are never skewed: with three of them no interval would hold.
    """
    draw = (lambda size: rng.exponential(1.0, size) - 1.0) if skewed else (lambda size: rng.normal(0.0, 1.0, size))
    own = [spreads[0] * draw(VOLUMES), spreads[1] * draw(PHRASINGS), spreads[2] * rng.normal(0.0, 1.0, seeds)]
    seed, volume, turn = (part.ravel() for part in np.indices((seeds, VOLUMES, 2)))
    phrasing = (volume + 5 * turn) % PHRASINGS
    values = own[0][volume] + own[1][phrasing] + own[2][seed] + spreads[3] * draw(len(seed))
    return values, volume, phrasing, seed


def test_one_kind_of_cluster_is_students_interval(crossed_interval):
    values = np.random.default_rng(0).normal(2, 3, 9)
    mean, low, high = crossed_interval(values, range(9))
    known = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(known)


def test_nothing_but_seeds_differs(crossed_interval):
    seeds = np.repeat([0, 1, 2], 20)
    volumes = np.tile(np.arange(20), 3)
    values = np.array([1.0, 2.0, 6.0])[seeds]
    _, low, high = crossed_interval(values, volumes, seeds)
    known = stats.t.interval(0.95, 2, 3, stats.sem([1.0, 2.0, 6.0]))
    assert (low, high) == pytest.approx(known)


def test_a_kind_with_one_cluster_gives_no_interval(crossed_interval):
    assert crossed_interval([1.0, 2.0], [0, 1], [0, 0]) == (1.5, None, None)
    assert crossed_interval([1.0, 1.0], [0, 1], [0, 1]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize(
    "spreads",
    [(1, 1, 1, 1), (1, 0.2, 2, 1), (2, 0.2, 0.1, 1), (0.2, 1, 0.1, 2)],
    ids=["all", "seeds", "volumes", "words"],
)
@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_hold_the_mean_as_often_as_they_say(crossed_interval, seeds, spreads, skewed):
    rng = np.random.default_rng(1)
    studies = [simulate(rng, seeds, spreads, skewed) for _ in range(300)]
    ends = [crossed_interval(*study)[1:] for study in studies]
    held = np.mean([low <= 0 <= high for low, high in ends])
    assert held >= (0.88 if skewed else 0.92)


def test_a_percentile_bootstrap_does_not_with_three_seeds():
    """Why the program does not use the simpler method."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(150):
        values, *kinds = simulate(rng, 3, (1, 0.2, 2, 1), False)
        weights = np.ones((300, len(values)))
        for kind in kinds:
            count = kind.max() + 1
            weights *= rng.multinomial(count, np.full(count, 1 / count), 300)[:, kind]
        total = weights.sum(axis=1)
        means = (weights @ values)[total > 0] / total[total > 0]
        low, high = np.quantile(means, [0.025, 0.975])
        held += low <= 0 <= high
    assert held / 150 < 0.85
