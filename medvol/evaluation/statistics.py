"""Intervals and tests by patient.

Queries of one patient are not independent, so whole patients are resampled or have their sign changed, never single
cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medvol.core.errors import ConfigError

_EXACT = 14
"""Patients up to which every change of signs is tried."""

_BATCH = 256
"""Resamples, or changes of signs, that lie in memory at once."""


@dataclass(frozen=True)
class Interval:
    """A mean over cases and its interval.

    Args:
        mean: Mean over the cases.
        low: Lower end; None when there are fewer than two patients.
        high: Upper end; None when there are fewer than two patients.
        cases: Number of cases.
        patients: Number of patients.
    """

    mean: float
    low: float | None
    high: float | None
    cases: int
    patients: int


def bootstrap_interval(
    values: ArrayLike,
    patients: Sequence[str],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    limits: tuple[float, float] = (-inf, inf),
) -> Interval:
    """Mean over cases with its studentised bootstrap interval (bootstrap-t), patients being resampled.

    Of 400 simulated studies, skewed and bounded as Dice is, intervals of a 95 % level hold the true mean in 93 to 97 %
    with 7, 15 and 40 patients. Failures that are too rare to be seen in a study are in no interval of it.

    Args:
        values: One value a case, (N,), finite.
        patients: Patient of each case, length N.
        confidence: Share of studies whose interval should hold the true mean.
        resamples: Draws of as many patients as there are, with replacement.
        seed: Seed of the draws.
        limits: Least and largest value that a mean can have; the interval ends there.

    Raises:
        ConfigError: There are no cases, the lengths differ, or a value is not finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12; the variance of a mean over
    clusters of unequal size is that of a ratio (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    cases = np.asarray(values, np.float64)
    if not cases.size or cases.shape != (len(patients),) or not np.isfinite(cases).all():
        raise ConfigError(f"an interval needs one finite value a case; got {cases.shape} for {len(patients)} cases")
    sums, counts = _by_patient(cases, patients)
    mean = float(cases.mean())
    if len(sums) < 2:
        return Interval(mean, None, None, len(cases), len(sums))
    bounds = _studentised_bounds(sums, counts, confidence, resamples, seed)
    low, high = np.clip(bounds, *limits).tolist()
    return Interval(mean, low, high, len(cases), len(sums))


def bootstrap_bounds(
    table: NDArray[np.float64],
    patients: Sequence[str],
    measure: Callable[[NDArray[np.float64]], float | None],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float | None, float | None]:
    """Percentile interval of a measure that is no mean, such as a correlation, patients being resampled.

    Args:
        table: One row a case, (N, columns).
        patients: Patient of each case, length N.
        measure: Takes rows of the table; None where the measure is not defined.
        confidence: Share of the resamples that the interval holds.
        resamples: Draws of as many patients as there are, with replacement. Draws in which the measure is not defined
            are left out.
        seed: Seed of the draws.

    Returns:
        Lower and upper end; None for both with fewer than two patients, or when most draws leave the measure undefined.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        return None, None
    rows = [np.flatnonzero(owner == name) for name in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = (np.concatenate([rows[i] for i in rng.integers(0, len(names), len(names))]) for _ in range(resamples))
    found = [value for chosen in drawn if (value := measure(table[chosen])) is not None]
    if len(found) <= resamples / 2:
        return None, None
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    patients: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    limits: tuple[float, float] = (-inf, inf),
) -> Interval:
    """Mean of ``second - first`` over the same cases, with its interval by patient.

    Args:
        first: One value a case, (N,).
        second: One value of the same cases in the same order, (N,).
        patients: Patient of each case, length N.
        resamples: Draws.
        seed: Seed of the draws.
        limits: Least and largest value that a difference can have.

    Raises:
        ConfigError: The two differ in length, or a value is not finite.
    """
    return bootstrap_interval(_differences(first, second), patients, resamples=resamples, seed=seed, limits=limits)


def paired_test(
    first: ArrayLike, second: ArrayLike, patients: Sequence[str], draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of the permutation test that two means over the same cases are equal.

    Where nothing tells the two apart, the difference of a patient is as likely with the other sign. Every change of
    signs is tried for up to 14 patients, random ones for more.

    Args:
        first: One value a case, (N,).
        second: One value of the same cases in the same order, (N,).
        patients: Patient of each case, length N.
        draws: Random changes of signs.
        seed: Seed of the draws.

    Returns:
        Share of changes whose difference is at least as large, in (0, 1]; 1 for a single patient.

    Raises:
        ConfigError: The two differ in length.
    """
    sums, _ = _by_patient(_differences(first, second), patients)
    slack = 1e-12 * float(np.abs(sums).sum())
    at_least = [np.abs(signs @ sums) >= abs(sums.sum()) - slack for signs in _change_signs(len(sums), draws, seed)]
    return float(np.mean(np.concatenate(at_least)))


def adjust_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Raise the p of several tests that the chance of any false positive stays below the level (Holm 1979).

    Args:
        p_values: By name of the test.

    Returns:
        Adjusted values by the same names, in the same order, at most 1.
    """
    raised, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        raised[name] = largest
    return {name: raised[name] for name in p_values}


def _change_signs(patients: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Changes of signs (N, patients), all that there are for few patients; what was seen is the first of them."""
    if patients <= _EXACT:
        yield np.array(list(product((1.0, -1.0), repeat=patients)))
        return
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _BATCH):
        signs = rng.choice([1.0, -1.0], (min(_BATCH, draws - start), patients))
        if not start:
            signs[0] = 1.0  # so that p is never 0
        yield signs


def _differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if before.shape != after.shape:
        raise ConfigError(f"paired values must be of the same cases; got {before.shape} and {after.shape}")
    return after - before


def _by_patient(cases: NDArray[np.float64], patients: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the cases of each patient."""
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(index, weights=cases).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _studentised_bounds(
    sums: NDArray[np.float64], counts: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Bounds of sum(sums) / sum(counts) under resampling of patients.

    Where so many resamples have no spread that a bound would be infinite, as with shares of few patients, Student's
    quantile takes its place.
    """
    mean, error = (float(part[0]) for part in _mean_and_error(sums[None], counts[None]))
    if np.ptp(sums / counts) == 0:
        return mean, mean
    rng = np.random.default_rng(seed)
    ratios = []
    for start in range(0, resamples, _BATCH):
        drawn = rng.integers(0, len(sums), (min(_BATCH, resamples - start), len(sums)))
        means, errors = _mean_and_error(sums[drawn], counts[drawn])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(np.nan_to_num((means - mean) / errors, nan=0.0, posinf=inf, neginf=-inf))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    drawn_tails = np.quantile(np.concatenate(ratios), tails, method="nearest")
    low, high = np.where(np.isfinite(drawn_tails), drawn_tails, stats.t.ppf(tails, len(sums) - 1)).tolist()
    return mean - high * error, mean - low * error


def _mean_and_error(
    sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over cases and their standard errors over patients; arrays (..., patients) to (...)."""
    patients = sums.shape[-1]
    means = sums.sum(axis=-1) / counts.sum(axis=-1)
    apart = (sums - means[..., None] * counts) / counts.mean(axis=-1, keepdims=True)
    errors = np.sqrt((apart**2).sum(axis=-1) / (patients * (patients - 1)))
    return means, np.where(errors > 1e-12, errors, 0.0)
