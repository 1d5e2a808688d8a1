"""Telling a label map from a scan by its values, slice by slice."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

FULL_SHARE = 0.95
"""A target that takes this share of its scan is none: a mask of everything, or of all but the target."""

_MOST_LABELS = 1000
_ALIKE = 0.9


def count_values(voxels: NDArray[np.float32]) -> dict[int, int] | None:
    """Voxels of each value, ascending; None when a value is no whole number."""
    counts: Counter[int] = Counter()
    for axial in voxels:
        if (axial != np.rint(axial)).any():
            return None
        values, sizes = np.unique(axial.astype(np.int64), return_counts=True)
        counts.update(dict(zip(values.tolist(), sizes.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def label_values(voxels: NDArray[np.float32]) -> dict[int, int] | None:
    """Voxels of each label; None for a scan.

    A label map holds at most a thousand whole numbers from 0 up, and nine in ten neighbours inside it are equal.
    """
    sample = voxels.ravel()[:: max(1, voxels.size // 100_000)]
    if (sample != np.rint(sample)).any() or sample.min() < 0 or len(np.unique(sample)) > _MOST_LABELS:
        return None
    values = count_values(voxels)
    if values is None or next(iter(values)) < 0 or len(values) > _MOST_LABELS:
        return None
    pairs = [(inside, alike) for inside, alike in map(_neighbours, voxels)]
    inside, alike = (sum(column) for column in zip(*pairs, strict=True))
    return values if alike >= _ALIKE * inside else None


def _neighbours(axial: NDArray[np.float32]) -> tuple[int, int]:
    """Pairs of neighbours above 0 in the rows of a slice, and how many of them are equal."""
    first, second = axial[:, :-1], axial[:, 1:]
    inside = (first > 0) & (second > 0)
    return int(inside.sum()), int((inside & (first == second)).sum())
