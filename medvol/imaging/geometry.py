"""Where voxels lie: affines, orientations, distances in millimetres.

An affine maps voxel indices (i, j, k, 1), first array axis first as stored, to world millimetres in the NIfTI
convention (RAS+). Inside medvol arrays are (Z, Y, X) in LPS orientation, and the affine maps (x, y, z, 1).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.core.errors import GeometryError
from medvol.core.types import Modality, Volume

LPS = ("L", "P", "S")
"""The canonical orientation: x to the patient's left, y to the back, z to the head."""

PLACE_TOLERANCE_MM = 0.1
"""How far apart two headers may place a voxel of one grid, where a quarter of its smallest side is not less."""


def place_tolerance_mm(affine: NDArray[np.float64]) -> float:
    """How far apart two headers may place a voxel of a grid and still mean one place: below a quarter of a voxel.

    Args:
        affine: Voxel (i, j, k) to world mm.
    """
    return min(PLACE_TOLERANCE_MM, 0.25 * float(np.linalg.norm(affine[:3, :3], axis=0).min()))


def lps_affine(
    spacing: tuple[float, float, float], origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> NDArray[np.float64]:
    """Affine of an axis-aligned LPS volume.

    Args:
        spacing: Voxel size (z, y, x) in mm.
        origin: World position (RAS+, mm) of the centre of voxel (0, 0, 0).
    """
    z, y, x = spacing
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = origin
    return affine


def make_volume(
    voxels: NDArray[np.float32],
    spacing: tuple[float, float, float],
    modality: Modality = "CT",
    volume_id: str = "",
) -> Volume:
    """Make a volume from an array that is already (Z, Y, X) in LPS orientation, spacing (z, y, x) in mm."""
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise GeometryError(f"a volume has three axes (Z, Y, X) of at least one voxel, this one has {voxels.shape}")
    return Volume(np.ascontiguousarray(voxels, np.float32), lps_affine(spacing), modality, volume_id)


def voxel_to_world(affine: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Map voxel indices (N, 3), in the affine's axis order, to world mm (RAS+)."""
    indices = np.asarray(points, np.float64).reshape(-1, 3)
    world: NDArray[np.float64] = indices @ affine[:3, :3].T + affine[:3, 3]
    return world


def corner_distance_mm(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance between the places that two affines give the eight corner voxels of a grid.

    Args:
        first: One affine.
        second: The other.
        shape: Shape (I, J, K) of the grid.
    """
    corners = list(product(*((0, size - 1) for size in shape)))
    apart = voxel_to_world(first, corners) - voxel_to_world(second, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def orientation_to_lps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Permutation and flips that take the axes of an affine to LPS, as a nibabel orientation array (3, 2)."""
    target = nib.orientations.axcodes2ornt(LPS)
    orientation: NDArray[np.float64] = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), target)
    return orientation


def reorient_affine(
    affine: NDArray[np.float64], orientation: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Affine of an array after ``orientation`` was applied to it.

    Args:
        affine: Before.
        orientation: From ``orientation_to_lps``.
        shape: Shape (I, J, K) before.
    """
    reoriented: NDArray[np.float64] = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    return reoriented


def invert_orientation(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orientation array that undoes another one."""
    inverse = np.empty_like(orientation)
    for source, (target, flip) in enumerate(orientation):
        inverse[int(target)] = (source, flip)
    return inverse


def turn_to_lps(stored: NDArray[Any], orientation: NDArray[np.float64]) -> NDArray[Any]:
    """See an array (I, J, K) of a file as (Z, Y, X) in LPS.

    Args:
        stored: In the axis order of the file.
        orientation: From ``orientation_to_lps``.
    """
    turned: NDArray[Any] = nib.orientations.apply_orientation(stored, orientation)
    return turned.transpose(2, 1, 0)


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Orientation of an affine's axes in three letters, such as ``LPS``."""
    return "".join(nib.aff2axcodes(affine))


def stored_orientation(volume: Volume) -> str:
    """Which way the axes of a volume's file run, in three letters; those of the volume where it was made in memory."""
    return axis_codes(volume.affine if volume.source is None else volume.source.affine)
