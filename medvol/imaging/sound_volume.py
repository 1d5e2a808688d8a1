"""Volumes that a program made: each keeps what a Volume promises, or is refused before anything is computed on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np

from medvol.core.errors import GeometryError, ScanError
from medvol.core.types import Modality, Volume
from medvol.imaging.formats.stored_scan import check_affine, is_finite
from medvol.imaging.geometry import LPS, axis_codes


def require_sound_volume(volume: Volume) -> None:
    """Refuse what cannot be a scan in LPS orientation: an answer about it would be wrong and look like any other.

    The voxels of a volume that was read from a file are not looked at again.

    Raises:
        GeometryError: The modality is none, the affine is none, runs another way or is sheared, or the voxels are no
            finite numbers (Z, Y, X).
    """
    kinds = get_args(Modality)
    if volume.modality not in kinds:
        raise GeometryError(f"the volume's modality is {volume.modality!r}; it is one of {', '.join(map(repr, kinds))}")
    if volume.source is None and type(volume) is Volume:
        _require_voxels(volume.voxels)
    _require_affine(volume.affine)


def _require_voxels(voxels: Any) -> None:
    if not isinstance(voxels, np.ndarray):
        raise GeometryError(
            f"the volume's voxels are of the type {type(voxels).__name__}; give a numpy array (Z, Y, X)"
        )
    if voxels.ndim != 3 or not voxels.size:
        raise GeometryError(f"the volume's voxels have the shape {voxels.shape}; give three axes (Z, Y, X), none empty")
    if voxels.dtype.kind not in "iuf":
        raise GeometryError(f"the volume's voxels are of the type {voxels.dtype}; give float32")
    if wrong := int(voxels.size - np.count_nonzero(is_finite(voxels))):
        raise GeometryError(
            f"{wrong:,} of {voxels.size:,} voxels of the volume are NaN or infinite; put a number such as -1024 there"
        )


def _require_affine(affine: Any) -> None:
    whole = isinstance(affine, np.ndarray) and affine.shape == (4, 4) and affine.dtype.kind in "iuf"
    if not whole or not np.isfinite(affine).all() or affine[3].tolist() != [0, 0, 0, 1]:
        raise GeometryError(
            "the volume's affine is no 4 x 4 array of numbers whose last row is 0, 0, 0, 1; give that from voxel "
            "(x, y, z) to mm (RAS+)"
        )
    try:
        check_affine(Path("the volume"), affine)
    except ScanError as error:
        raise GeometryError(str(error)) from error
    codes = axis_codes(affine)
    if codes != "".join(LPS):
        raise GeometryError(
            f"the volume's affine says that its axes (x, y, z) run {codes}, and those of a Volume run LPS, to the "
            "patient's left, back and head; read the file with medvol.read_volume, or turn array and affine"
        )
