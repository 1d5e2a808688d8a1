"""What a radiologist would measure in a mask: volume, mean intensity and two diameters.

A diameter is measured as for RECIST, in one axial slice and within one part of the mask. Its ends lie on the outline:
halfway between a pixel of the mask and its neighbour outside, so a single pixel is as long as it is wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from medvol.core.metrics import volume_ml

_DIGITS = 6
"""Of a measurement, whatever the scale of the scan: a voxel of a micro-CT has a volume too."""

_TOUCHING = np.ones((3, 3), np.bool_)
"""Pixels that meet at a corner belong to one part."""


@dataclass(frozen=True)
class Diameters:
    """The longest diameter of a mask in an axial slice, and its width across it.

    Args:
        slice_z: Index of the slice; the first one when several are equal.
        longest_mm: Largest distance between two points of one part's outline.
        perpendicular_mm: Extent of that part's outline at right angles to it.
    """

    slice_z: int
    longest_mm: float
    perpendicular_mm: float


def measure_mask(
    voxels: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    unit: str | None = None,
) -> dict[str, Any]:
    """All measurements as plain values for a record; what an empty mask does not have is None.

    Args:
        voxels: (Z, Y, X).
        mask: (Z, Y, X).
        spacing_mm: Voxel size (z, y, x).
        unit: Of the intensities; None where the scan has none.
    """
    mean, diameters = mean_intensity(voxels, mask), measure_diameters(mask, spacing_mm)
    return {
        "voxels": int(np.count_nonzero(mask)),
        "volume_ml": _round(volume_ml(mask, spacing_mm)),
        "mean_intensity": None if mean is None else _round(mean),
        "intensity_unit": unit,
        "longest_diameter_mm": None if diameters is None else _round(diameters.longest_mm),
        "perpendicular_diameter_mm": None if diameters is None else _round(diameters.perpendicular_mm),
        "diameter_slice": None if diameters is None else diameters.slice_z,
    }


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def show_mm(length_mm: float) -> str:
    """A length for people: to a tenth of a millimetre, and below 1 mm to two digits."""
    return f"{length_mm:.1f}" if length_mm >= 1 else f"{length_mm:.2g}"


def mean_intensity(voxels: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    """Mean of the intensities in a mask, in the scan's own unit; None when the mask is empty.

    Args:
        voxels: (Z, Y, X).
        mask: (Z, Y, X).
    """
    return float(voxels[mask].mean(dtype=np.float64)) if mask.any() else None


def measure_diameters(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Diameters | None:
    """Measure the longest diameter of a mask and its width across it; None when the mask is empty.

    Args:
        mask: (Z, Y, X).
        spacing_mm: Voxel size (z, y, x).
    """
    best: Diameters | None = None
    pixel_mm = np.array(spacing_mm[1:])
    for z in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        labels, _ = ndimage.label(mask[z], _TOUCHING)
        places = ndimage.find_objects(labels)
        diagonals = np.linalg.norm([[side.stop - side.start for side in place] for place in places] * pixel_mm, axis=1)
        for k in np.argsort(-diagonals, kind="stable").tolist():
            if best is not None and diagonals[k] <= best.longest_mm:
                break  # no part that is left can be longer than its box
            longest, perpendicular = outline_diameters(outline(labels[places[k]] == k + 1) * pixel_mm)
            if best is None or longest > best.longest_mm:
                best = Diameters(z, longest, perpendicular)
    return best


def outline(part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Outermost points (N, 2) of a part's outline as (y, x) in pixels; pixel (0, 0) has its centre there.

    Only the outermost of every row and column are given: the others lie inside their convex hull.
    """
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    left, right = part.argmax(axis=1)[rows], part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)[rows]
    top, bottom = part.argmax(axis=0)[columns], part.shape[0] - 1 - part[::-1].argmax(axis=0)[columns]
    y = np.concatenate([rows, rows, top - 0.5, bottom + 0.5])
    x = np.concatenate([left - 0.5, right + 0.5, columns, columns])
    return np.stack([y, x], axis=1).astype(np.float64)


def outline_diameters(points_mm: NDArray[np.float64]) -> tuple[float, float]:
    """Largest distance between two of the points (N, 2), and the extent of all of them at right angles to it."""
    hull = points_mm[ConvexHull(points_mm).vertices]
    distances = squareform(pdist(hull))
    i, j = np.unravel_index(distances.argmax(), distances.shape)
    longest = float(distances[i, j])
    along_y, along_x = (hull[j] - hull[i]) / longest
    return longest, float(np.ptp(hull @ np.array([-along_x, along_y])))
