"""Scan, boxes and mask as layers of napari, and boxes back from a layer.

Layers lie in napari's world in millimetres (z, y, x): z grows to the head, y to the back, x to the patient's left. A
whole number in napari is the middle of a voxel; a box of a record counts from the voxel's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medvol.interface.anchors import Anchor, AnchorError, Box, choose_to_move, make_anchor
from napari_medvol.interface.answers import Scan, Shape

_EDGE = 0.5
_STRAIGHT_PX = 0.05
"""A corner farther than this from its box's edges belongs to a box that is turned."""
_CORNERS = ((1, 0), (1, 2), (3, 2), (3, 0))
"""Places of y and x in a box (x1, y1, x2, y2), around it."""


def place(scan: Scan) -> dict[str, Any]:
    """Scale and place of a layer on the grid of a scan, as ``viewer.add_image`` and others take them.

    A scan that lies obliquely is shown along its own axes, from its own first voxel.
    """
    x, y, z = (float(value) for value in scan.affine_ras[:3, 3])
    return {"scale": scan.spacing_mm, "translate": (z, -y, -x)}


def draw_boxes(anchor: Anchor) -> list[NDArray[np.float64]]:
    """Rectangles (4 corners, (z, y, x)) of a Shapes layer."""
    return [
        np.array([(index, box[y] - _EDGE, box[x] - _EDGE) for y, x in _CORNERS], np.float64)
        for index, box in anchor.boxes
    ]


def read_boxes(shapes: Sequence[NDArray[Any]], kinds: Sequence[str], shape: Shape, several: bool = False) -> Anchor:
    """The anchor that a Shapes layer shows.

    Args:
        shapes: ``layer.data``.
        kinds: ``layer.shape_type``.
        shape: Of the scan (Z, Y, X); a box that reaches over the edge of the slice is cut to it.
        several: Boxes may lie on several slices.

    Raises:
        AnchorError: A shape is no rectangle along the axes of a slice, or they lie on several slices and may not.
    """
    boxes = (
        _read_box(number, np.asarray(corners, np.float64), kind, shape)
        for number, (corners, kind) in enumerate(zip(shapes, kinds, strict=True), 1)
    )
    return make_anchor(boxes, several)


def put_on_slice(shapes: Sequence[NDArray[Any]], index: int, several: bool = False) -> list[NDArray[np.float64]]:
    """The same shapes on another slice; where they may lie on several, those of the nearest one."""
    moved = [np.array(corners, np.float64) for corners in shapes]
    for place in choose_to_move([float(corners[:, 0].mean()) for corners in moved], index, several):
        moved[place][:, 0] = index
    return moved


def _read_box(number: int, corners: NDArray[np.float64], kind: str, shape: Shape) -> tuple[float, Box]:
    if kind != "rectangle" or corners.shape != (4, 3):
        raise AnchorError(f"shape {number} is of the kind {kind}, and evidence is rectangles; draw a rectangle instead")
    low, high = corners.min(axis=0), corners.max(axis=0)
    if high[0] - low[0] > _STRAIGHT_PX:
        raise AnchorError(f"box {number} does not lie in one axial slice; draw boxes while the axial slices are shown")
    off = np.minimum(np.abs(corners - low), np.abs(corners - high))[:, 1:]
    if off.max() > _STRAIGHT_PX:
        raise AnchorError(f"box {number} is turned; draw it again along the edges of the picture")
    height = float(corners[:, 0].mean())
    if not 0 <= round(height) < shape[0]:
        raise AnchorError(
            f"box {number} lies on slice {round(height)}, and the scan has the slices 0 to {shape[0] - 1}"
        )
    y1, x1 = (float(np.clip(low[axis] + _EDGE, 0, shape[axis])) for axis in (1, 2))
    y2, x2 = (float(np.clip(high[axis] + _EDGE, 0, shape[axis])) for axis in (1, 2))
    return height, (x1, y1, x2, y2)
