"""Intervals by patient.

Queries of one patient are not independent, so whole patients are resampled (cluster bootstrap), never single cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medvol.core.errors import ConfigError


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
) -> Interval:
    """Mean over cases with a cluster-bootstrap interval by patient.

    The interval is bias-corrected and accelerated (BCa), at a level expanded by Student's t for few patients: plain
    percentile and BCa intervals of a 95 % level hold the true mean in 89 % of studies with 10 patients and 86 % with 7,
    expanded ones in 93 % and 92 %. Where BCa is undefined the percentile interval takes its place.

    Args:
        values: One value a case, (N,), finite.
        patients: Patient of each case, length N.
        confidence: Share of studies whose interval should hold the true mean.
        resamples: Draws of as many patients as there are, with replacement.
        seed: Seed of the draws.

    Raises:
        ConfigError: There are no cases, the lengths differ, or a value is not finite.

    Source: expansion after Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 2015.
    """
    cases = np.asarray(values, np.float64)
    if not cases.size or cases.shape != (len(patients),) or not np.isfinite(cases).all():
        raise ConfigError(f"an interval needs one finite value a case; got {cases.shape} for {len(patients)} cases")
    sums, counts = _by_patient(cases, patients)
    mean = float(cases.mean())
    if len(sums) < 2:
        return Interval(mean, None, None, len(cases), len(sums))
    low, high = _cluster_bounds(sums, counts, _expanded(confidence, len(sums)), resamples, seed)
    return Interval(mean, low, high, len(cases), len(sums))


def paired_difference(
    first: ArrayLike, second: ArrayLike, patients: Sequence[str], resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of ``second - first`` over the same cases, with its interval by patient.

    Args:
        first: One value a case, (N,).
        second: One value of the same cases in the same order, (N,).
        patients: Patient of each case, length N.
        resamples: Draws.
        seed: Seed of the draws.

    Raises:
        ConfigError: The two differ in length, or a value is not finite.
    """
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if before.shape != after.shape:
        raise ConfigError(f"paired values must be of the same cases; got {before.shape} and {after.shape}")
    return bootstrap_interval(after - before, patients, resamples=resamples, seed=seed)


def _by_patient(cases: NDArray[np.float64], patients: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the cases of each patient."""
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(index, weights=cases).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _expanded(confidence: float, patients: int) -> float:
    """Level of a normal interval that is as wide as Student's, with the variance corrected for the sample size."""
    quantile = stats.t.ppf((1 + confidence) / 2, patients - 1) * np.sqrt(patients / (patients - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def _cluster_bounds(
    sums: NDArray[np.float64], counts: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """BCa bounds of sum(sums) / sum(counts) under resampling of patients; percentile bounds where BCa is undefined."""
    if np.ptp(sums / counts) == 0:
        return float(sums[0] / counts[0]), float(sums[0] / counts[0])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below by the percentile interval
        result = stats.bootstrap(
            (sums, counts),
            lambda sums, counts, axis=-1: sums.sum(axis=axis) / counts.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=256,
            confidence_level=confidence,
            rng=np.random.default_rng(seed),
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if np.isfinite([low, high]).all():
        return low, high
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(result.bootstrap_distribution, tails).tolist()
    return low, high
