"""Arrays of M3D-Seg: an image as ``.npy``, sparse masks as ``.npz`` whose shape stands in their name; never pickled."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medvol.core.errors import DatasetError
from medvol.datasets.layout import LabelledScan
from medvol.datasets.nifti_table import TargetRow
from medvol.imaging.formats.npz import DAMAGED, require_declared
from medvol.imaging.geometry import lps_affine, make_volume
from medvol.imaging.volume_hash import hash_voxels, remember_hash

MAX_BYTES = 3 * 1024**3
"""Budget for one image or one file of masks, as it is held."""

_SPACING = (1.0, 1.0, 1.0)
_NAME = re.compile(r"mask_\(\s*(\d{1,6}),\s*(\d{1,6}),\s*(\d{1,6}),\s*(\d{1,6})\s*\)\.npz")


class NpyScan(LabelledScan):
    """A case of M3D-Seg on a grid of 1 mm whose axes are taken to point somewhere.

    Args:
        row: A target of the case.
        orientation: Where the three axes point, such as ``LPS``.
    """

    def __init__(self, row: TargetRow, orientation: str) -> None:
        self._to_lps = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(orientation), nib.orientations.axcodes2ornt("LPS")
        )
        voxels = self._reorient(_read_image(row.image))
        if not np.isfinite(voxels).all():
            raise DatasetError(f"{row.image}: it holds NaN or infinite voxels; unpack the case again")
        voxels = voxels.astype(np.float32)
        identity = hash_voxels(voxels, lps_affine(_SPACING))
        self.volume = remember_hash(make_volume(voxels, _SPACING, "other", identity), identity)
        self._masks: dict[Path, sparse.csr_matrix] = {}

    def read(self, path: Path, labels: tuple[int, ...]) -> NDArray[np.bool_]:
        """See ``LabelledScan``; label ``k`` is mask ``k - 1`` of the file."""
        if path not in self._masks:
            self._masks[path] = read_masks(path)
        _, *shape = mask_shape(path)
        chosen = self._masks[path][[label - 1 for label in labels]]
        mask = np.asarray(chosen.sum(axis=0, dtype=np.int32)).reshape(shape) > 0
        found = self._reorient(mask)
        if found.shape != self.volume.shape:
            raise DatasetError(f"{path}: masks of shape {found.shape} (Z, Y, X), the image has {self.volume.shape}")
        return np.ascontiguousarray(found)

    def values(self, path: Path) -> list[int]:
        """See ``LabelledScan``."""
        return [label for label, count in enumerate(count_voxels(path), start=1) if count]

    def _reorient(self, array: NDArray[Any]) -> NDArray[Any]:
        """Stored (I, J, K) to (Z, Y, X) in LPS."""
        turned: NDArray[Any] = nib.orientations.apply_orientation(array, self._to_lps).transpose(2, 1, 0)
        return turned


def mask_shape(path: Path) -> tuple[int, int, int, int]:
    """Shape (C, H, W, D) in the name of a file of masks, written with spaces or without.

    Raises:
        DatasetError: The name holds none.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or "0" in match.groups():
        raise DatasetError(f"{path}: its name says no shape; it should be like mask_(3, 512, 512, 69).npz")
    masks, height, width, depth = map(int, match.groups())
    return masks, height, width, depth


def count_voxels(path: Path) -> list[int]:
    """Number of voxels of each mask of a file."""
    return [int(count) for count in np.diff(read_masks(path).indptr)]


def read_masks(path: Path) -> sparse.csr_matrix:
    """Sparse masks (C, H * W * D) of a case; nothing in the file is executed.

    Raises:
        DatasetError: It is damaged, over the budget, or not what its name says.
    """
    masks, *shape = mask_shape(path)
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            if declared > MAX_BYTES:
                raise DatasetError(f"{path}: it unpacks to {declared:,} bytes; the budget is {MAX_BYTES:,}")
            for entry in archive.infolist():
                require_declared(archive, entry)
        matrix = sparse.load_npz(path)
        matrix.check_format(full_check=True)
    except (*DAMAGED, KeyError, AttributeError) as error:
        raise DatasetError(f"{path}: it is no sparse matrix ({_first_line(error)}); unpack the case again") from error
    if matrix.format != "csr" or matrix.shape != (masks, math.prod(shape)):
        raise DatasetError(
            f"{path}: it holds a {matrix.format} matrix of shape {matrix.shape}, its name says "
            f"{(masks, math.prod(shape))} in csr; unpack the case again"
        )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix.astype(np.bool_)


def _read_image(path: Path) -> NDArray[Any]:
    """Image (H, W, D).

    Raises:
        DatasetError: It is damaged, over the budget, or has another shape.
    """
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            raise ValueError("it is an archive of several")
    except DAMAGED as error:
        raise DatasetError(f"{path}: it is no array ({_first_line(error)}); unpack the case again") from error
    if stored.ndim != 4 or stored.shape[0] != 1 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: it holds {stored.dtype} {stored.shape}; expected numbers of shape (1, H, W, D)")
    if stored.size * 4 > MAX_BYTES:
        raise DatasetError(f"{path}: it holds {stored.size:,} voxels; the budget is {MAX_BYTES // 4:,}")
    return np.asarray(stored[0])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
