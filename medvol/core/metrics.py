"""Metrics of one case, on arrays.

Every metric has a stated value for empty masks, so that nothing is NaN and no case leaves a mean: two empty masks
agree perfectly; where only one is empty the target was missed (or invented) and the worst value is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import GeometryError

Mask = NDArray[np.bool_]


def dice(predicted: Mask, true: Mask) -> float:
    """Dice similarity, in [0, 1]; 1 when both masks are empty, 0 when one is.

    Raises:
        GeometryError: The masks have different shapes.
    """
    overlap, size_predicted, size_true = _overlap(predicted, true)
    total = size_predicted + size_true
    return 2.0 * overlap / total if total else 1.0


def iou(predicted: Mask, true: Mask) -> float:
    """Intersection over union, in [0, 1]; 1 when both masks are empty, 0 when one is.

    Raises:
        GeometryError: The masks have different shapes.
    """
    overlap, size_predicted, size_true = _overlap(predicted, true)
    union = size_predicted + size_true - overlap
    return overlap / union if union else 1.0


def slice_areas(mask: Mask) -> NDArray[np.int64]:
    """Pixels of the mask in every axial slice, (Z, Y, X) to (Z,)."""
    areas: NDArray[np.int64] = np.count_nonzero(mask, axis=(1, 2))
    return areas


def key_slice_score(areas: NDArray[np.int64], key_slice: int) -> float:
    """Target area at the chosen slice over the largest area of the volume.

    Args:
        areas: Target area of every slice, (Z,), >= 0.
        key_slice: Chosen index in the volume.

    Returns:
        A value in [0, 1]; 0 when the volume shows no target.

    Raises:
        IndexError: ``key_slice`` is outside the volume.
    """
    if not 0 <= key_slice < len(areas):
        raise IndexError(f"slice {key_slice} is outside a volume of {len(areas)} slices")
    largest = int(areas.max())
    return int(areas[key_slice]) / largest if largest else 0.0


def volume_ml(mask: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Volume of a mask in millilitres, from the voxel size (z, y, x) in mm."""
    return float(np.count_nonzero(mask) * np.prod(spacing_mm) / 1000.0)


def _overlap(predicted: Mask, true: Mask) -> tuple[int, int, int]:
    if predicted.shape != true.shape:
        raise GeometryError(f"masks of different shapes cannot be compared: {predicted.shape} and {true.shape}")
    return tuple(int(np.count_nonzero(m)) for m in (predicted & true, predicted, true))  # type: ignore[return-value]
