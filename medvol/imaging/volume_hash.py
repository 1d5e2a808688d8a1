"""What a volume holds, as one hash: its identity when it is read, and what evidence records know a scan by."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Volume

_PLACE = "_sha256"


def hash_voxels(voxels: NDArray[Any], affine: NDArray[np.float64]) -> str:
    """SHA-256 of shape, geometry and voxels; what the file is called, how it is packed and its type do not count.

    Args:
        voxels: Intensities (Z, Y, X), hashed as float32.
        affine: Voxel to world mm, shape (4, 4).
    """
    digest = hashlib.sha256()
    for array in (np.array(voxels.shape, np.int64), affine):
        digest.update(np.ascontiguousarray(array).data)
    for plane in voxels:
        digest.update(np.ascontiguousarray(plane + np.float32(0), np.float32).data)  # -0 is 0
    return digest.hexdigest()


def hash_volume(volume: Volume) -> str:
    """``hash_voxels`` of a volume; hashed once, since a volume does not change, and not at all where the reader did."""
    if _PLACE not in vars(volume):
        remember_hash(volume, hash_voxels(volume.voxels, volume.affine))
    return str(vars(volume)[_PLACE])


def remember_hash(volume: Volume, sha256: str) -> Volume:
    """Keep the hash with a volume whose voxels were hashed already; copies with other voxels do not inherit it."""
    vars(volume)[_PLACE] = sha256
    return volume
