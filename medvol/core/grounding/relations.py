"""Sides and relations between masks: left and right from the affine, which kidney bears a lesion, is larger, higher."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import GeometryError

RELATIONS = (
    "kidney with lesion",
    "kidney without lesion",
    "larger kidney",
    "smaller kidney",
    "higher kidney",
    "lower kidney",
)
"""Targets that a relation tells apart; each is asked for only where it has one answer."""

_TOUCH_VOXELS = 2
_CLEARLY_LARGER = 1.15
_CLEARLY_HIGHER_MM = 5.0


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


def ranked_kidneys(
    left: NDArray[np.bool_], right: NDArray[np.bool_], affine: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """Find the larger and the smaller kidney, the higher and the lower one.

    Args:
        left: (Z, Y, X) bool, the left kidney.
        right: (Z, Y, X) bool, the right kidney.
        affine: Voxel (x, y, z, 1) to world mm (RAS+), shape (4, 4).

    Returns:
        Masks of ``larger kidney`` and ``smaller kidney`` when one has at least 15 % more volume, of ``higher kidney``
        and ``lower kidney`` when their centres are at least 5 mm apart along the body; empty when a kidney is not in
        the scan or is cut by its first or last slice.
    """
    if not all(mask.any() and not mask[[0, -1]].any() for mask in (left, right)):
        return {}
    ranked: dict[str, NDArray[np.bool_]] = {}
    small, large = sorted((left, right), key=np.count_nonzero)
    if large.sum() >= _CLEARLY_LARGER * small.sum():
        ranked |= {"larger kidney": large, "smaller kidney": small}
    low, high = sorted((left, right), key=lambda mask: _centre_mm(mask, affine)[2])
    if _centre_mm(high, affine)[2] - _centre_mm(low, affine)[2] >= _CLEARLY_HIGHER_MM:
        ranked |= {"higher kidney": high, "lower kidney": low}
    return ranked


def _centre_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """World position (x, y, z) in mm of a mask's centre."""
    z, y, x = np.nonzero(mask)
    if not len(x):
        raise GeometryError("the side of an empty mask cannot be told; give a mask with at least one voxel")
    first, second, third = (affine[:3] @ [x.mean(), y.mean(), z.mean(), 1.0]).tolist()
    return first, second, third
