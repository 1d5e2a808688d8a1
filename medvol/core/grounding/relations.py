"""Sides and relations between masks: left and right from the affine, and which kidney bears a lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import GeometryError

_TOUCH_VOXELS = 2


def check_sides(left: NDArray[np.bool_], right: NDArray[np.bool_], affine: NDArray[np.float64]) -> None:
    """Check that a pair of masks called left and right lies on the patient's left and right.

    Args:
        left: (Z, Y, X) bool, the organ called left.
        right: (Z, Y, X) bool, the organ called right.
        affine: Voxel (x, y, z, 1) to world mm (RAS+), shape (4, 4).

    Raises:
        GeometryError: A mask is empty, or the left one does not lie to the patient's left of the right one.
    """
    left_mm, right_mm = _world_x(left, affine), _world_x(right, affine)
    if not left_mm < right_mm:
        raise GeometryError(
            f"the mask called left has its centre at x = {left_mm:.1f} mm and the one called right at "
            f"{right_mm:.1f} mm (x grows to the patient's right); the names are swapped or the affine is mirrored"
        )


def kidney_relations(
    left: NDArray[np.bool_], right: NDArray[np.bool_], lesion: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Find the kidney that bears a lesion and the one that does not.

    Args:
        left: (Z, Y, X) bool, the left kidney.
        right: (Z, Y, X) bool, the right kidney.
        lesion: (Z, Y, X) bool, all renal lesions.

    Returns:
        Masks of ``kidney with lesion`` and ``kidney without lesion``; empty when the answer is not unique: a kidney is
        not in the scan, no kidney bears a lesion, or both do.
    """
    if not (left.any() and right.any() and lesion.any()):
        return {}
    around = ndimage.binary_dilation(lesion, iterations=_TOUCH_VOXELS)
    touched = bool((around & left).any()), bool((around & right).any())
    if touched == (True, False):
        return {"kidney with lesion": left, "kidney without lesion": right}
    if touched == (False, True):
        return {"kidney with lesion": right, "kidney without lesion": left}
    return {}


def _world_x(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    z, y, x = np.nonzero(mask)
    if not len(x):
        raise GeometryError("the side of an empty mask cannot be told; give a mask with at least one voxel")
    return float(affine[0] @ [x.mean(), y.mean(), z.mean(), 1.0])
