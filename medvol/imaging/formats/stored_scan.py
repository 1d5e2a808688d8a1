"""A scan as it lies in a file, and the checks that every format shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.imaging.formats.problems import (
    BadDimensionsError,
    BadSpacingError,
    NonFiniteVoxelsError,
    ShearedAffineError,
    SingularAffineError,
    TimeSeriesError,
    TooLargeError,
)
from medvol.imaging.geometry import axis_codes

MAX_BYTES = 3 * 1024**3
"""Default budget for the voxels of one scan as they are held, four bytes each: 512 x 512 x 3072 voxels."""

_SHEAR = 1e-3
"""Largest cosine between two axes that passes for a right angle: 0.06 degrees."""

_LARGEST = np.float32(1e30)
_FARTHEST_MM = 1e6


@dataclass(frozen=True)
class StoredScan:
    """A scan in its own axis order.

    Args:
        voxels: (I, J, K), float32 for scans, the stored integer type where it was asked for.
        affine: Voxel (i, j, k) to world mm (RAS+).
        header: What a mask written to the same grid copies; None when its geometry is enough.
        voxel_files: Files with the voxels, where they lie beside the header.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    header: Any = None
    voxel_files: tuple[Path, ...] = ()


def check_dimensions(path: Path, sizes: list[int]) -> tuple[int, int, int]:
    """Three sizes, or more when the rest are one.

    Raises:
        BadDimensionsError: Fewer than three axes, or one without voxels.
        TimeSeriesError: More than one frame.
    """
    if any(size < 1 for size in sizes):
        raise BadDimensionsError(path, f"an axis of size {min(sizes)} in {tuple(sizes)}; export the scan again")
    if len(sizes) < 3:
        raise BadDimensionsError(path, f"{len(sizes)} axes {tuple(sizes)}; a volume has three, stack its slices first")
    frames = math.prod(sizes[3:])
    if frames > 1:
        raise TimeSeriesError(path, f"{frames} frames of size {tuple(sizes[:3])}; save the frame you need as a volume")
    return sizes[0], sizes[1], sizes[2]


def check_budget(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], max_bytes: int) -> None:
    """Judge the size from the header, before anything is read: as stored, or as float32, whichever is more.

    Raises:
        TooLargeError: It is over the budget.
    """
    declared = math.prod(shape) * max(4, dtype.itemsize)
    if declared > max_bytes:
        raise TooLargeError(
            path,
            f"its header declares {shape} voxels, {declared:,} bytes; the budget is {max_bytes:,}: crop it, or raise "
            "max_bytes, which `segment` and `view` take",
        )


def check_spacing(path: Path, spacing: list[float]) -> None:
    """Three positive voxel sizes below a kilometre.

    Raises:
        BadSpacingError: One of them is not.
    """
    if not all(0 < size < _FARTHEST_MM for size in spacing):
        raise BadSpacingError(path, f"voxel size {tuple(spacing)} mm; write the true size into the header")


def check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    """Made of numbers below a kilometre, invertible, axes at right angles.

    Raises:
        SingularAffineError: It folds space or is not made of numbers.
        ShearedAffineError: Axes are not at right angles, as in a scan with gantry tilt.
    """
    if not (np.abs(affine) < _FARTHEST_MM).all():
        raise SingularAffineError(path, "its affine is not made of numbers below a kilometre; write the true geometry")
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if (lengths <= 1e-9).any():
        raise SingularAffineError(path, "its affine has an axis of no length; write the true geometry")
    cosines = (axes / lengths).T @ (axes / lengths)
    if abs(np.linalg.det(axes / lengths)) < 1e-3:
        raise SingularAffineError(path, "two axes of its affine point the same way; write the true geometry")
    worst = float(np.abs(cosines - np.eye(3)).max())
    if worst > _SHEAR:
        angle = np.degrees(np.arcsin(min(1.0, worst)))
        raise ShearedAffineError(
            path,
            f"its axes ({axis_codes(affine)}) are {angle:.2f} degrees off a right angle; resample the scan",
        )


def is_finite(values: ArrayLike) -> NDArray[np.bool_]:
    """Where intensities are numbers of which float32 can hold a sum."""
    array = np.asarray(values)
    finite: NDArray[np.bool_] = (array > -_LARGEST) & (array < _LARGEST)
    return finite


def fill_non_finite(path: Path, voxels: NDArray[np.float32], nan_to: float | None) -> NDArray[np.float32]:
    """Replace NaN and infinite voxels, and those so large that sums of a few of them would be infinite.

    Raises:
        NonFiniteVoxelsError: There are some and ``nan_to`` is None.
    """
    bad = ~is_finite(voxels)
    count = int(bad.sum())
    if count and nan_to is None:
        raise NonFiniteVoxelsError(
            path,
            f"{count:,} of {voxels.size:,} voxels are NaN or infinite; set nan_to, for example -1024 for air in CT",
        )
    return np.where(bad, np.float32(nan_to or 0.0), voxels) if count else voxels
