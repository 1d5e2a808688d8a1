"""Resampling a sheared grid to a straight one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.imaging.formats.stored_scan import MAX_BYTES, check_budget
from medvol.imaging.geometry import voxel_to_world


def straighten(
    path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], nearest: bool
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Resample a scan whose axes are not at right angles.

    Args:
        path: File to name in an error.
        voxels: (I, J, K).
        affine: Voxel (i, j, k) to world mm; axes of any angle, none of no length.
        nearest: Take the nearest voxel, for labels; interpolate linearly otherwise.

    Returns:
        Voxels on the straight grid whose axes are nearest to the old ones, of the old voxel size, large enough for
        every old voxel, and their affine. What lies outside the old grid takes its smallest value.

    Raises:
        TooLargeError: The straight grid is larger than a scan may be.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)
    axes = left @ right
    origin = affine[:3, 3]
    corners = (voxel_to_world(affine, list(product(*((0, n - 1) for n in voxels.shape)))) - origin) @ axes / sizes
    low = np.floor(corners.min(axis=0) + 1e-6)
    i, j, k = (np.ceil(corners.max(axis=0) - 1e-6) - low + 1).astype(int).tolist()
    check_budget(path, (i, j, k), voxels.dtype, MAX_BYTES)
    straight = np.eye(4)
    straight[:3, :3] = axes * sizes
    straight[:3, 3] = origin + axes @ (low * sizes)
    back = np.linalg.inv(affine) @ straight
    resampled = ndimage.affine_transform(
        voxels if nearest else voxels.astype(np.float32),
        back[:3, :3],
        back[:3, 3],
        output_shape=(i, j, k),
        order=0 if nearest else 1,
        mode="constant",
        cval=float(voxels.min()),
    )
    return resampled, straight
