"""Where an anchor lies in the file that was read, and in the world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Volume
from medvol.imaging.geometry import voxel_to_world


def stored_slice(volume: Volume, key_slice: int) -> tuple[int, int]:
    """Axis of the stored file that the slices lie along, and the index of a slice there.

    Args:
        volume: The scan.
        key_slice: Index in the LPS volume.
    """
    if volume.source is None:
        return 2, key_slice
    orientation = volume.source.orientation
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, key_slice if orientation[axis, 1] > 0 else volume.source.shape[axis] - 1 - key_slice


def box_corners_mm(volume: Volume, key_slice: int, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of boxes in world mm (RAS+), (N, 4, 3), clockwise from the first.

    Boxes run along the outer edges of their pixels, half a pixel beyond the centres, which voxel indices mean.
    """
    x1, y1, x2, y2 = boxes.T - 0.5
    z = np.full(len(boxes), float(key_slice))
    corners = np.stack([np.stack([x, y, z], axis=-1) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], axis=1)
    return voxel_to_world(volume.affine, corners).reshape(-1, 4, 3)
