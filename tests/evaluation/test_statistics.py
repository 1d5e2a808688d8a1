"""Intervals by patient: coverage, closed cases, determinism."""

import numpy as np
import pytest
from scipy import stats

from medvol.core.errors import ConfigError
from medvol.evaluation.statistics import bootstrap_interval, paired_difference


def draw_study(rng, patients=40):
    """Patients who differ from one another, 1 to 6 cases each; bounded and skewed as a Dice is."""
    counts = rng.integers(1, 7, patients)
    level = rng.beta(4, 2, patients)
    owner = np.repeat(np.arange(patients), counts)
    return np.clip(level[owner] + rng.normal(0, 0.05, len(owner)), 0, 1), [f"p{i}" for i in owner]


@pytest.mark.parametrize("patients", [10, 20, 40])
def test_intervals_cover_the_true_mean(patients):
    true_mean = draw_study(np.random.default_rng(0), 300_000)[0].mean()
    rng = np.random.default_rng(patients)
    hits = 0
    for study in range(400):
        interval = bootstrap_interval(*draw_study(rng, patients), resamples=1000, seed=study)
        hits += interval.low <= true_mean <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_resampling_cases_instead_of_patients_would_not_cover():
    rng = np.random.default_rng(2)
    values, patients = draw_study(rng)
    by_patient = bootstrap_interval(values, patients)
    by_case = bootstrap_interval(values, [str(i) for i in range(len(values))])
    assert by_patient.high - by_patient.low > 1.3 * (by_case.high - by_case.low)


def test_one_case_a_patient_agrees_with_the_t_interval():
    values = np.random.default_rng(3).normal(0.5, 0.1, 200)
    interval = bootstrap_interval(values, [str(i) for i in range(200)], resamples=5000)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.002)
    assert (interval.cases, interval.patients) == (200, 200)


def test_same_seed_same_interval_and_order_of_cases_does_not_matter():
    values, patients = draw_study(np.random.default_rng(4))
    order = np.random.default_rng(5).permutation(len(values))
    first = bootstrap_interval(values, patients, seed=7)
    again = bootstrap_interval(values[order], [patients[i] for i in order], seed=7)
    assert (first.low, first.high) == pytest.approx((again.low, again.high), abs=1e-12)
    assert first == bootstrap_interval(values, patients, seed=7)
    assert first != bootstrap_interval(values, patients, seed=8)


def test_one_patient_has_no_interval():
    interval = bootstrap_interval([0.2, 0.4], ["a", "a"])
    assert (interval.mean, interval.low, interval.high) == (pytest.approx(0.3), None, None)


def test_patients_that_are_all_alike_have_an_interval_of_no_width():
    interval = bootstrap_interval([1.0, 1.0, 1.0], ["a", "b", "b"])
    assert (interval.low, interval.high) == (1.0, 1.0)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0] * 9 + [1.0], [0.0, 0.0, 1.0, 1.0, 0.5]])
def test_small_and_extreme_studies_have_finite_ordered_bounds(values):
    interval = bootstrap_interval(values, [str(i) for i in range(len(values))])
    assert np.isfinite([interval.low, interval.high]).all()
    assert 0.0 <= interval.low <= interval.high <= 1.0


def test_paired_difference_is_second_minus_first():
    values, patients = draw_study(np.random.default_rng(6))
    interval = paired_difference(values, values + 0.1, patients)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(7)
    before, patients = draw_study(rng)
    after = before + 0.05 + rng.normal(0, 0.02, len(before))
    paired = paired_difference(before, after, patients)
    alone = bootstrap_interval(after, patients)
    assert paired.low > 0.04
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("values", "patients"), [([], []), ([0.1, 0.2], ["a"]), ([0.1, float("nan")], ["a", "b"]), ([[0.1]], ["a"])]
)
def test_unusable_values_are_refused(values, patients):
    with pytest.raises(ConfigError, match="one finite value a case"):
        bootstrap_interval(values, patients)


def test_pairs_must_be_of_the_same_cases():
    with pytest.raises(ConfigError, match="same cases"):
        paired_difference([0.1], [0.1, 0.2], ["a"])
