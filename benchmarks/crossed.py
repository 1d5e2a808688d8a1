"""Intervals of a mean whose values share volumes, phrasings and seeds at the same time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def crossed_interval(
    values: ArrayLike, *clusters: Sequence[Hashable], confidence: float = 0.95
) -> tuple[float, float | None, float | None]:
    """Mean with an interval that holds for other clusters of every kind: other volumes, other phrasings, other seeds.

    The variance is the sum of those that each kind of cluster shows alone, which counts what is left over once a kind,
    and so is a little too large rather than too small. Its degrees of freedom follow Satterthwaite, so that three seeds
    that disagree widen the interval as much as three values must. A percentile bootstrap over all kinds at once
    (Owen 2007) was tried; with three seeds it held the true mean in far fewer than 95 % of simulated studies. What no
    interval can make up for is three seeds whose effect is strongly skewed: it then held the mean in 83 %.

    Args:
        values: One a measurement, (N,).
        clusters: For each kind the cluster of each measurement, length N.
        confidence: Share of studies whose interval should hold the true mean.

    Returns:
        Mean, lower and upper end; None for both ends where a kind has a single cluster.

    Source: Cameron, Gelbach and Miller, Robust inference with multiway clustering, 2011, without the subtraction of
    intersections; Satterthwaite, An approximate distribution of estimates of variance components, 1946.
    """
    known = np.asarray(values, np.float64)
    mean = float(known.mean())
    parts = [_variance(known - mean, kind) for kind in clusters]
    if not all(count > 1 for _, count in parts):
        return mean, None, None
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return mean, mean, mean
    freedom = variance**2 / sum(part**2 / (count - 1) for part, count in parts)
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return mean, mean - reach, mean + reach


def _variance(apart: NDArray[np.float64], clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Variance of the mean when whole clusters of one kind vary, and how many clusters there are."""
    places: dict[Hashable, int] = {}
    index = [places.setdefault(cluster, len(places)) for cluster in clusters]
    count = len(places)
    sums = np.bincount(index, weights=apart)
    return (float((sums**2).sum()) * count / (count - 1) / len(apart) ** 2 if count > 1 else 0.0), count
