"""Intervals by patient: coverage, closed cases, determinism."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from medvol.core.errors import ConfigError
from medvol.evaluation.statistics import adjust_holm, bootstrap_interval, paired_difference, paired_test


def draw_study(rng, patients=40):
    """Patients who differ from one another, 1 to 6 cases each; bounded and skewed as a Dice is."""
    counts = rng.integers(1, 7, patients)
    level = rng.beta(4, 2, patients)
    owner = np.repeat(np.arange(patients), counts)
    return np.clip(level[owner] + rng.normal(0, 0.05, len(owner)), 0, 1), [f"p{i}" for i in owner]


def draw_failing_study(rng, patients=40):
    """The same, and a fifth of the answers are failures."""
    values, owners = draw_study(rng, patients)
    values[rng.random(len(values)) < 0.2] = 0.0
    return values, owners


@pytest.mark.parametrize("draw", [draw_study, draw_failing_study])
@pytest.mark.parametrize("patients", [7, 15, 40])
def test_intervals_cover_the_true_mean(patients, draw):
    true_mean = draw(np.random.default_rng(0), 300_000)[0].mean()
    rng = np.random.default_rng(patients)
    hits = 0
    for study in range(400):
        interval = bootstrap_interval(*draw(rng, patients), resamples=1000, seed=study, limits=(0.0, 1.0))
        hits += interval.low <= true_mean <= interval.high
    assert 0.93 <= hits / 400 <= 0.97


@pytest.mark.parametrize("patients", [7, 15, 40])
def test_one_in_twenty_comparisons_of_equal_systems_is_significant(patients):
    """Two systems whose answers scatter alike around one level: 3 to 7 % of 1,000 studies at a level of 5 %."""
    rng = np.random.default_rng(patients)
    found = 0
    for study in range(1000):
        values, owners = draw_study(rng, patients)
        first, second = (values + rng.normal(0, 0.1, len(values)) for _ in range(2))
        found += paired_test(first, second, owners, draws=1000, seed=study) <= 0.05
    assert 0.03 <= found / 1000 <= 0.07


def test_the_paired_test_tries_every_change_of_signs():
    """Sums of three patients are 1, 2 and 3: of 8 changes only all plus and all minus are as far from 0."""
    assert paired_test([0, 0, 0, 0], [1, 2, 1.5, 1.5], ["a", "b", "c", "c"]) == 2 / 8
    assert paired_test([0, 0, 0], [1, 2, -3], ["a", "b", "c"]) == 1.0
    assert paired_test([0.2, 0.2], [0.4, 0.4], ["a", "a"]) == 1.0


@pytest.mark.parametrize("patients", [14, 15])
def test_the_paired_test_agrees_with_scipy(patients):
    """All changes for 14 patients, 10,000 of them for 15, one case a patient."""
    values = np.random.default_rng(1).normal(0.3, 0.7, patients)
    owners = [f"p{i}" for i in range(patients)]
    expected = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=2**15).pvalue
    assert paired_test(np.zeros(patients), values, owners) == pytest.approx(
        expected, abs=0.0 if patients < 15 else 0.01
    )


def test_changes_of_signs_do_not_fill_the_memory():
    """All at once, 2,000 changes of 2,000 patients take 64 MB while they are drawn; p is that of one piece, counted."""
    values = np.random.default_rng(1).normal(0.01, 0.7, 2000)
    tracemalloc.start()
    p = paired_test(np.zeros(2000), values, [f"p{i}" for i in range(2000)], draws=2000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * 10**6
    signs = np.random.default_rng(0).choice([1.0, -1.0], (2000, 2000))
    order = [int(name[1:]) for name in sorted(f"p{i}" for i in range(2000))]
    sums = [abs(float(row @ values[order])) for row in signs[1:]]
    assert p == (1 + sum(total >= abs(values.sum()) for total in sums)) / 2000


def test_holm_raises_the_smallest_most_and_keeps_the_order():
    """Holm's own steps: 3 x 0.01, then 2 x 0.02, then at least as much as the one before."""
    assert adjust_holm({"b": 0.02, "a": 0.01, "c": 0.03}) == pytest.approx({"b": 0.04, "a": 0.03, "c": 0.04})
    assert adjust_holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert adjust_holm({}) == {}


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
    interval = bootstrap_interval(values, [str(i) for i in range(len(values))], limits=(0.0, 1.0))
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
