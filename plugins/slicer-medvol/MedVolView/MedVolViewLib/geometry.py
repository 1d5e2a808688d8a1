"""Boxes of a record as regions of Slicer and back: pixels of a slice, and RAS millimetres.

A whole number in IJK is the middle of a voxel; a box of a record counts from the voxel's edge. The axes of a scan in
medvol run to the patient's left, to the back and to the head, which are I, J and K here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .interface.anchors import Anchor, AnchorError, Box, make_anchor
from .interface.answers import Scan, Shape

_EDGE = 0.5
_STRAIGHT = 0.999
"""Cosine of the angle from which on a region counts as turned against the scan, 2.6 degrees."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A box in space.

    Args:
        centre_ras: Its middle in millimetres, RAS.
        size_mm: Its lengths along its own axes.
        axes_ras: 3 x 3; each column is the direction of an axis, of length 1.
    """

    centre_ras: NDArray[np.float64]
    size_mm: NDArray[np.float64]
    axes_ras: Matrix


def draw_regions(anchor: Anchor, scan: Scan) -> list[Region]:
    """Boxes as regions that are one slice thick."""
    matrix = scan.affine_ras
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    regions = []
    for index, (x1, y1, x2, y2) in anchor.boxes:
        middle = np.array([(x1 + x2) / 2 - _EDGE, (y1 + y2) / 2 - _EDGE, index, 1.0])
        size = np.array([x2 - x1, y2 - y1, 1.0]) * lengths
        regions.append(Region((matrix @ middle)[:3], size, matrix[:3, :3] / lengths))
    return regions


def read_regions(regions: Iterable[Region], scan: Scan, several: bool = False) -> Anchor:
    """The anchor that regions make: their slice is that of their middle.

    A region that reaches over the edge of the slice is cut to it. How thick it is does not count.

    Args:
        regions: The boxes.
        scan: Their scan.
        several: They may lie on several slices.

    Raises:
        AnchorError: A region is turned against the scan, or they lie on several slices and may not.
    """
    to_ijk = np.linalg.inv(scan.affine_ras)
    boxes = (_read_box(number, region, to_ijk, scan.shape) for number, region in enumerate(regions, 1))
    return make_anchor(boxes, several)


def put_on_slice(region: Region, index: float, scan: Scan) -> Region:
    """The same region with its middle on another slice."""
    matrix = scan.affine_ras
    middle = np.linalg.inv(matrix) @ np.append(region.centre_ras, 1.0)
    middle[2] = index
    return Region((matrix @ middle)[:3], region.size_mm, region.axes_ras)


def height_at(point_ras: Iterable[float], scan: Scan) -> float:
    """Slice that a point (RAS, mm) lies on, as a number that need not be whole and may lie outside the scan."""
    return float((np.linalg.inv(scan.affine_ras) @ np.array([*point_ras, 1.0]))[2])


def slice_at(point_ras: Iterable[float], scan: Scan) -> int:
    """Index of the slice that a point (RAS, mm) lies on; that of the nearest one for a point outside."""
    return int(np.clip(round(height_at(point_ras, scan)), 0, scan.shape[0] - 1))


def _read_box(number: int, region: Region, to_ijk: Matrix, shape: Shape) -> tuple[float, Box]:
    spacing = np.linalg.norm(np.linalg.inv(to_ijk)[:3, :3], axis=0)
    directions = np.abs((to_ijk[:3, :3] @ region.axes_ras) * spacing[:, None])
    if (directions.max(axis=0) < _STRAIGHT).any():
        raise AnchorError(f"box {number} is turned against the scan; delete it, and draw it with `Add a box`")
    signs = np.array([(i, j, k) for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])
    corners = region.centre_ras + (signs * region.size_mm) @ region.axes_ras.T
    places = corners @ to_ijk[:3, :3].T + to_ijk[:3, 3]
    low, high = places.min(axis=0) + _EDGE, places.max(axis=0) + _EDGE
    height = float(places[:, 2].mean())
    if not 0 <= round(height) < shape[0]:
        raise AnchorError(
            f"box {number} lies on slice {round(height)}, and the scan has the slices 0 to {shape[0] - 1}"
        )
    width, length = shape[2], shape[1]
    x1, x2 = (float(np.clip(value, 0, width)) for value in (low[0], high[0]))
    y1, y2 = (float(np.clip(value, 0, length)) for value in (low[1], high[1]))
    return height, (x1, y1, x2, y2)
