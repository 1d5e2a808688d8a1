"""Telling a label map from a scan by its values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MOST_LABELS = 1000
_ALIKE = 0.9


def label_values(voxels: NDArray[np.float32]) -> dict[int, int] | None:
    """Voxels of each label; None for a scan.

    A label map holds at most a thousand whole numbers from 0 up, and nine in ten neighbours inside it are equal.
    """
    sample = voxels.ravel()[:: max(1, voxels.size // 100_000)]
    if (sample != np.rint(sample)).any() or sample.min() < 0 or len(np.unique(sample)) > _MOST_LABELS:
        return None
    values, counts = np.unique(voxels, return_counts=True)
    if (values != np.rint(values)).any() or values[0] < 0 or len(values) > _MOST_LABELS:
        return None
    first, second = voxels[..., :-1], voxels[..., 1:]
    inside = (first > 0) & (second > 0)
    if inside.any() and (first == second)[inside].mean() < _ALIKE:
        return None
    return {int(v): int(c) for v, c in zip(values, counts, strict=True)}
