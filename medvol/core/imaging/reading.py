"""Reading scans and masks: every file passes one gate, and comes out in LPS orientation."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError, DatasetError, GeometryError
from medvol.core.imaging.geometry import corner_distance_mm, orientation_to_lps, reorient_affine
from medvol.core.imaging.itk import read_metaimage, read_nrrd
from medvol.core.imaging.nifti import read_nifti
from medvol.core.imaging.problems import (
    EmptyFileError,
    MissingScanError,
    UnknownDatatypeError,
    UnknownFormatError,
    UnreadableScanError,
)
from medvol.core.imaging.stored import MAX_BYTES, StoredScan, fill_non_finite, is_finite
from medvol.core.types import Modality, Source, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
METAIMAGE_SUFFIXES = (".mha", ".mhd")
SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *METAIMAGE_SUFFIXES)
"""File names that are read."""

GRID_TOLERANCE_MM = 0.1
"""How far apart a mask's grid may place a corner voxel of the scan."""

_AIR_HU = (-1100.0, -700.0)
_DENSE_HU = 700.0
_AIR_SHARE = 1e-3


def read_volume(
    path: str | Path,
    *,
    modality: Modality | None = None,
    assume_orientation: str | None = None,
    nan_to: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> Volume:
    """Read a scan: NIfTI, NRRD or MetaImage.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``.
        modality: What the intensities are; guessed when None: ``CT`` when they look like Hounsfield units, else
            ``other``.
        assume_orientation: Three letters such as ``LPS``, for a NIfTI header that does not say which way the axes
            point.
        nan_to: Value that takes the place of NaN and infinite voxels; they are refused when None.
        max_bytes: Budget for the voxels, four bytes each or as stored when that is more; judged from the header before
            anything is read.

    Returns:
        The volume in LPS orientation; axes are permuted and flipped, never resampled.

    Raises:
        ScanError: The file is refused; the class in ``medvol.core.imaging.problems`` names the reason.
        ConfigError: ``nan_to`` is not a number that a voxel can hold.
    """
    path = Path(path)
    if nan_to is not None and not is_finite(nan_to):
        raise ConfigError(f"nan_to takes the place of NaN voxels and cannot be {nan_to}; give a number such as -1024")
    stored = _read_stored(path, assume_orientation, max_bytes)
    voxels, affine, source = _to_lps(path, stored)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as infinite
        single = np.ascontiguousarray(voxels, np.float32)
    filled = fill_non_finite(path, single, nan_to)
    return Volume(filled, affine, modality or guess_modality(filled), _identify(filled, affine), source)


def read_labels(
    path: str | Path, volume: Volume, *, assume_orientation: str | None = None, max_bytes: int = MAX_BYTES
) -> NDArray[np.int32]:
    """Read an integer label map on the grid of a volume.

    Args:
        path: The label map.
        volume: The scan it belongs to.
        assume_orientation: As for ``read_volume``.
        max_bytes: As for ``read_volume``.

    Returns:
        Labels (Z, Y, X).

    Raises:
        ScanError: The file is refused.
        UnknownDatatypeError: A value is not a whole number of 32 bits.
        GeometryError: It lies on another grid.
    """
    path = Path(path)
    labels, affine = read_label_map(path, assume_orientation=assume_orientation, max_bytes=max_bytes)
    if labels.shape != volume.shape:
        raise GeometryError(f"{path} has shape {labels.shape} (Z, Y, X), its scan {volume.shape}; they must agree")
    apart = corner_distance_mm(affine, volume.affine, volume.shape[::-1])
    if apart > GRID_TOLERANCE_MM:
        raise GeometryError(f"{path} lies up to {apart:.2f} mm beside its scan's grid; resample it to the scan")
    return labels


def read_label_map(
    path: str | Path, *, assume_orientation: str | None = None, max_bytes: int = MAX_BYTES
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Read an integer label map without its scan.

    Args:
        path: The label map.
        assume_orientation: As for ``read_volume``.
        max_bytes: As for ``read_volume``.

    Returns:
        Labels (Z, Y, X) in LPS, and the affine of voxel (x, y, z, 1) to world mm.

    Raises:
        ScanError: The file is refused.
        UnknownDatatypeError: A value is not a whole number of 32 bits.
    """
    path = Path(path)
    voxels, affine, _ = _to_lps(path, _read_stored(path, assume_orientation, max_bytes))
    labels = np.ascontiguousarray(voxels)
    whole = labels.dtype.kind != "f" or bool((labels == np.rint(labels)).all())
    if not (whole and labels.min() >= -(2**31) and labels.max() < 2**31):
        raise UnknownDatatypeError(path, "a label map holds whole numbers of 32 bits, this one does not; save it so")
    return labels.astype(np.int32), affine


def read_mask(path: str | Path, volume: Volume, labels: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Read a mask on the grid of a volume.

    Args:
        path: A mask or a label map.
        volume: The scan it belongs to.
        labels: Labels that belong to the mask; every positive one when None.

    Returns:
        Mask (Z, Y, X) bool.

    Raises:
        ScanError: The file is refused.
        GeometryError: It lies on another grid.
        DatasetError: A label is 0 or negative.
    """
    if labels is not None and any(label < 1 for label in labels):
        raise DatasetError(f"labels {list(labels)} of {path} must be positive; 0 is the background")
    values = read_labels(path, volume)
    mask: NDArray[np.bool_] = values > 0 if labels is None else np.isin(values, list(labels))
    return mask


def guess_modality(voxels: NDArray[np.float32]) -> Modality:
    """``CT`` when intensities look like Hounsfield units: air or lung, twice as much of it as bone and metal.

    Nothing but padding may lie below air. Anything else is ``other``: an MR scan with negative values, be they from
    interpolation, phase or a difference, has as many bright voxels as dark ones and is not taken for a CT. A CT that
    was cropped until no air is left is not recognised; its modality must be given.
    """
    sample = voxels.ravel()[:: max(1, voxels.size // 1_000_000)]
    air = float(((sample >= _AIR_HU[0]) & (sample <= _AIR_HU[1])).mean())
    dense = float((sample > _DENSE_HU).mean())
    beyond = float(((sample < _AIR_HU[0]) & (sample > sample.min())).mean())
    return "CT" if air >= _AIR_SHARE and air > 2 * dense and beyond < 0.01 and sample.max() < 40_000 else "other"


def is_scan(path: Path) -> bool:
    """True for a file name that ``read_volume`` takes."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _read_stored(path: Path, assume_orientation: str | None, max_bytes: int) -> StoredScan:
    name = path.name.lower()
    try:
        _check_file(path)
        if name.endswith(NIFTI_SUFFIXES):
            return read_nifti(path, assume_orientation, max_bytes)
        return read_nrrd(path, max_bytes) if name.endswith(NRRD_SUFFIXES) else read_metaimage(path, max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingScanError(path, "there is no such file; check the path") from error
    except OSError as error:
        raise UnreadableScanError(path, f"the system does not read it ({error.strerror}); check the file") from error


def _check_file(path: Path) -> None:
    """A regular file with a name that is read and something in it."""
    if "\0" in str(path):
        raise MissingScanError(path, "no file can have a name with a NUL in it; check the path")
    state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        raise UnknownFormatError(path, "it is a folder; name one scan in it")
    if not path.name.lower().endswith(SUFFIXES):
        raise UnknownFormatError(path, f"its name ends in none of {', '.join(SUFFIXES)}; convert the scan to NIfTI")
    if not stat.S_ISREG(state.st_mode):
        raise UnknownFormatError(path, "it is a device or a pipe, not a file; copy the scan into a file")
    if state.st_size == 0:
        raise EmptyFileError(path, "it has no bytes; copy the file again")


def _to_lps(path: Path, stored: StoredScan) -> tuple[NDArray[np.generic], NDArray[np.float64], Source]:
    """Voxels (Z, Y, X) in LPS, their affine, and the way back."""
    i, j, k = stored.voxels.shape
    orientation = orientation_to_lps(stored.affine)
    voxels = nib.orientations.apply_orientation(stored.voxels, orientation).transpose(2, 1, 0)
    affine = reorient_affine(stored.affine, orientation, (i, j, k))
    return voxels, affine, Source(path, stored.affine, (i, j, k), orientation, stored.header)


def _identify(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (np.array(voxels.shape), affine, voxels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
