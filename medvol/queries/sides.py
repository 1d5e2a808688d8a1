"""Left and right of a pair of masks, from the affine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import GeometryError


def check_sides(left: NDArray[np.bool_], right: NDArray[np.bool_], affine: NDArray[np.float64]) -> None:
    """Check that a pair of masks called left and right lies on the patient's left and right.

    Args:
        left: (Z, Y, X) bool, the organ called left.
        right: (Z, Y, X) bool, the organ called right.
        affine: Voxel (x, y, z, 1) to world mm (RAS+), shape (4, 4).

    Raises:
        GeometryError: A mask is empty, or the left one does not lie to the patient's left of the right one.
    """
    check_side_positions(_centre_mm(left, affine)[0], _centre_mm(right, affine)[0])


def check_side_positions(left_mm: float, right_mm: float) -> None:
    """Check that a structure called left lies to the patient's left of the one called right.

    Args:
        left_mm: World x (RAS+) of the centre of the one called left.
        right_mm: World x of the other.

    Raises:
        GeometryError: It does not.
    """
    if not left_mm < right_mm:
        raise GeometryError(
            f"the mask called left has its centre at x = {left_mm:.1f} mm and the one called right at "
            f"{right_mm:.1f} mm (x grows to the patient's right); the names are swapped or the affine is mirrored"
        )


def _centre_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """World position (x, y, z) in mm of a mask's centre."""
    z, y, x = np.nonzero(mask)
    if not len(x):
        raise GeometryError("the side of an empty mask cannot be told; give a mask with at least one voxel")
    first, second, third = (affine[:3] @ [x.mean(), y.mean(), z.mean(), 1.0]).tolist()
    return first, second, third
