"""Metrics of one case, on arrays.

Every metric has a stated value for empty masks, so that nothing is NaN and no case leaves a mean: two empty masks
agree perfectly; where only one is empty the target was missed (or invented) and the worst value is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import GeometryError

Mask = NDArray[np.bool_]

_SAME_MM = 1e-6
"""A distance that is the tolerance but for rounding, such as two voxels of 0.8 mm for 1.6 mm, agrees."""


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


def surface_measures(
    predicted: Mask, true: Mask, spacing_mm: tuple[float, float, float], tolerance_mm: float = 2.0
) -> tuple[float, float]:
    """Normalised surface distance and the 95th percentile of the Hausdorff distance.

    The surface of a mask is the set of its voxels that touch the outside by a face (the edge of the volume is outside).

    Args:
        predicted: Mask (Z, Y, X).
        true: Mask (Z, Y, X).
        spacing_mm: Voxel size (z, y, x).
        tolerance_mm: Surface voxels at most this far from the other surface agree.

    Returns:
        NSD in [0, 1]: share of all surface voxels of both masks that agree. HD95 in mm: the larger of the two directed
        95th percentiles. Both masks empty: 1 and 0. One empty: 0 and the diagonal of the volume, the farthest that two
        voxels can lie apart, so a missed target never improves a mean.

    Raises:
        GeometryError: The masks have different shapes.
    """
    _, size_predicted, size_true = _overlap(predicted, true)
    if not size_predicted and not size_true:
        return 1.0, 0.0
    if not size_predicted or not size_true:
        return 0.0, diagonal_mm(true.shape, spacing_mm)
    box = ndimage.find_objects((predicted | true).astype(np.uint8))[0]
    surfaces = [_surface(mask[box]) for mask in (predicted, true)]
    to_predicted, to_true = (ndimage.distance_transform_edt(~s, sampling=spacing_mm) for s in surfaces)
    distances = [to_true[surfaces[0]], to_predicted[surfaces[1]]]
    agreeing = sum(int(np.count_nonzero(d <= tolerance_mm + _SAME_MM)) for d in distances)
    nsd = agreeing / sum(d.size for d in distances)
    return nsd, max(float(np.percentile(d, 95)) for d in distances)


def diagonal_mm(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> float:
    """Diagonal of a volume of that shape (Z, Y, X) in mm."""
    return float(np.linalg.norm(np.array(shape) * np.array(spacing_mm)))


def _surface(mask: Mask) -> NDArray[Any]:
    """Voxels of the mask with a face on the outside; the box may be tight, its border counts as outside."""
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(mask, border_value=0)
    return mask & ~eroded


def _overlap(predicted: Mask, true: Mask) -> tuple[int, int, int]:
    if predicted.shape != true.shape:
        raise GeometryError(f"masks of different shapes cannot be compared: {predicted.shape} and {true.shape}")
    return tuple(int(np.count_nonzero(m)) for m in (predicted & true, predicted, true))  # type: ignore[return-value]
