"""Reading scans and masks: every file passes one gate, and comes out in LPS orientation."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError, DatasetError, GeometryError
from medvol.core.notices import tell_once
from medvol.core.types import Modality, Source, Volume
from medvol.imaging.dicom.problems import BadSegmentationError
from medvol.imaging.dicom.reading import DicomOrigin, read_dicom
from medvol.imaging.file_names import DICOM, DICOM_FILES, NIFTI, NRRD, SCANS, ends_in
from medvol.imaging.formats.metaimage import read_metaimage
from medvol.imaging.formats.nifti import read_nifti, require_axes
from medvol.imaging.formats.nrrd import read_nrrd
from medvol.imaging.formats.problems import (
    EmptyFileError,
    MissingScanError,
    UnknownDatatypeError,
    UnknownFormatError,
    UnreadableScanError,
)
from medvol.imaging.formats.stored_scan import MAX_BYTES, StoredScan, fill_non_finite, is_finite
from medvol.imaging.geometry import (
    corner_distance_mm,
    orientation_to_lps,
    place_tolerance_mm,
    reorient_affine,
    turn_to_lps,
)
from medvol.imaging.hounsfield import find_lost_sign, find_shift, guess_modality
from medvol.imaging.label_values import label_values, select_labels, to_labels
from medvol.imaging.volume_hash import hash_voxels, remember_hash


def read_volume(
    path: str | Path,
    *,
    modality: Modality | None = None,
    assume_orientation: str | None = None,
    nan_to: float | None = None,
    max_bytes: int = MAX_BYTES,
    series: str | int | None = None,
) -> Volume:
    """Read a scan: NIfTI, NRRD, MetaImage, or a DICOM series.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``; for DICOM a folder, which is searched
            with its subfolders, a ``.zip`` archive, or one multi-frame file (``.dcm``).
        modality: What the intensities are; when None, DICOM says it, and else it is guessed: ``CT`` when they look
            like Hounsfield units, else ``other``.
        assume_orientation: Three letters such as ``LPS``, for a NIfTI header that does not say which way the axes
            point.
        nan_to: Value that takes the place of NaN and infinite voxels; they are refused when None.
        max_bytes: Budget for the voxels, four bytes each or as stored when that is more; judged from the header before
            anything is read.
        series: UID, number or description of a DICOM series; the axial series with most slices when None.

    Returns:
        The volume in LPS orientation; axes are permuted and flipped, never resampled.

    Raises:
        ScanError: The file is refused; the class in ``medvol.imaging.formats.problems`` or
            ``medvol.imaging.dicom.problems`` names the reason.
        NoOrientationError: ``assume_orientation`` names no axes.
        ConfigError: ``modality`` is none, ``nan_to`` is not a number that a voxel can hold, ``max_bytes`` is not a
            positive number, or ``series`` is set for a file that has none.
    """
    path = Path(path)
    _require_settings(modality, nan_to, max_bytes)
    if assume_orientation is not None:
        require_axes(path, assume_orientation)  # whether or not the scan needs it
    if series is not None and not _is_dicom_path(path):
        raise ConfigError(f"{path} is one scan, and series={series!r} chooses one of a DICOM folder; leave it out")
    name = None if series is None else str(series)
    voxels, affine, source = read_oriented(path, assume_orientation, max_bytes, name)
    filled = to_intensities(path, voxels, nan_to)
    identity = hash_voxels(filled, affine)
    given = {"modality": modality, "assume_orientation": assume_orientation, "nan_to": nan_to}
    source = replace(source, read_with={key: value for key, value in given.items() if value is not None})
    volume = Volume(filled, affine, find_modality(path, filled, source, modality), identity, source)
    return remember_hash(volume, identity)


def _require_settings(modality: Any, nan_to: Any, max_bytes: Any) -> None:
    """Refuse settings that mean nothing, whether or not the scan needs them."""
    known = get_args(Modality)
    if modality is not None and modality not in known:
        raise ConfigError(f"modality is {modality!r}; it is {', '.join(map(repr, known))}, or None for a guess")
    if nan_to is not None and (not isinstance(nan_to, int | float) or not is_finite(nan_to)):
        raise ConfigError(f"nan_to takes the place of NaN voxels and cannot be {nan_to!r}; give a number such as -1024")
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ConfigError(f"max_bytes is {max_bytes!r}; it is a whole number of bytes, 1 or more")


def to_intensities(path: Path, voxels: NDArray[Any], nan_to: float | None = None) -> NDArray[np.float32]:
    """Voxels as float32, all of them finite.

    Raises:
        NonFiniteVoxelsError: Some are not, and ``nan_to`` is None.
        UnknownDatatypeError: All of them are too small for float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as infinite
        single = np.ascontiguousarray(voxels, np.float32)
    if voxels.dtype == np.float64 and not single.any() and voxels.any():
        raise UnknownDatatypeError(
            path, f"its largest value, {np.abs(voxels).max():.3g}, is 0 in float32; multiply them"
        )
    return fill_non_finite(path, single, nan_to)


def find_modality(path: Path, voxels: NDArray[Any], source: Source, given: Modality | None = None) -> Modality:
    """What the caller gives, or DICOM says, and else a guess; a CT that seems to have been changed is told once."""
    if isinstance(source.header, DicomOrigin):
        kind = source.header.kind
        if given is None and source.header.modality == "CT" and kind != "CT":
            unit = source.header.unit
            tell_once(f"{path} is a CT whose values are of the type {unit!r} and no Hounsfield units; read as {kind}")
        return given or kind
    modality = given or guess_modality(voxels)
    changed = "" if given == "MR" else find_lost_sign(voxels) or find_shift(voxels)
    if changed and label_values(voxels) is None:
        tell_once(f"{path} is read as {modality}, but {changed}")
    return modality


def read_oriented(
    path: Path, assume_orientation: str | None = None, max_bytes: int = MAX_BYTES, series: str | None = None
) -> tuple[NDArray[Any], NDArray[np.float64], Source]:
    """Read a scan as it is stored, seen in LPS orientation.

    Returns:
        Voxels (Z, Y, X) of the stored type, a view; their affine; the way back to the file's grid.

    Raises:
        ScanError: The file is refused.
    """
    return _to_lps(path, _read_stored(path, assume_orientation, max_bytes, series), series or "")


def read_labels(
    path: str | Path, volume: Volume, *, assume_orientation: str | None = None, max_bytes: int | None = None
) -> NDArray[np.int32]:
    """Read an integer label map on the grid of a volume.

    Args:
        path: The label map.
        volume: The scan it belongs to.
        assume_orientation: As for ``read_volume``.
        max_bytes: As for ``read_volume``; when None, as much as there, or what a map of this scan's grid takes.

    Returns:
        Labels (Z, Y, X).

    Raises:
        ScanError: The file is refused.
        BadSegmentationError: It is DICOM, which ``read_mask`` reads: its segments may overlap.
        UnknownDatatypeError: A value is not a whole number of 32 bits, within ``LABEL_TOLERANCE``.
        GeometryError: It lies on another grid.
    """
    path = Path(path)
    max_bytes = label_budget(volume) if max_bytes is None else max_bytes
    labels, affine = read_label_map(path, assume_orientation=assume_orientation, max_bytes=max_bytes)
    if labels.shape != volume.shape:
        raise GeometryError(f"{path} has shape {labels.shape} (Z, Y, X), its scan {volume.shape}; they must agree")
    apart = corner_distance_mm(affine, volume.affine, volume.shape[::-1])
    if apart > place_tolerance_mm(volume.affine):
        raise GeometryError(f"{path} lies up to {apart:.3g} mm beside its scan's grid; resample it to the scan")
    return labels


def label_budget(volume: Volume) -> int:
    """Bytes that a label map may have beside a scan: the usual budget, or as much as any type takes on its grid."""
    return max(MAX_BYTES, volume.voxels.size * np.dtype(np.float64).itemsize)


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
        BadSegmentationError: It is DICOM, which ``read_mask`` reads beside the scan.
        UnknownDatatypeError: A value is not a whole number of 32 bits, within ``LABEL_TOLERANCE``.
    """
    path = Path(path)
    if _is_dicom_path(path):
        raise BadSegmentationError(
            path, "a DICOM segmentation has labels on the grid of its scan only; save it as NIfTI"
        )
    voxels, affine, _ = read_oriented(path, assume_orientation, max_bytes)
    return to_labels(path, voxels), affine


def read_mask(path: str | Path, volume: Volume, labels: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Read a mask on the grid of a volume.

    Args:
        path: A mask or a label map, or a DICOM segmentation object (``.dcm``).
        volume: The scan it belongs to.
        labels: Labels, or numbers of segments, that belong to the mask; every positive one when None.

    Returns:
        Mask (Z, Y, X) bool.

    Raises:
        ScanError: The file is refused.
        GeometryError: It lies on another grid.
        DatasetError: A label is 0 or negative.
    """
    if labels is not None and any(label < 1 for label in labels):
        raise DatasetError(f"labels {list(labels)} of {path} must be positive; 0 is the background")
    if ends_in(Path(path), DICOM_FILES):
        from medvol.imaging.dicom.segmentation import read_dicom_seg

        return read_dicom_seg(Path(path), volume, labels)
    return select_labels(Path(path), read_labels(path, volume), labels)


def _is_dicom_path(path: Path) -> bool:
    return ends_in(path, DICOM) or path.is_dir()


def _read_stored(path: Path, assume_orientation: str | None, max_bytes: int, series: str | None = None) -> StoredScan:
    _check_name(path)
    try:
        state = path.stat()
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
            raise UnknownFormatError(path, "it is a device or a pipe, not a file; copy the scan into a file")
        if _is_dicom_path(path):
            return read_dicom(path, series, max_bytes)
        _check_file(path, state.st_size)
        if ends_in(path, NIFTI):
            return read_nifti(path, assume_orientation, max_bytes)
        return read_nrrd(path, max_bytes) if ends_in(path, NRRD) else read_metaimage(path, max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingScanError(path, "there is no such file; check the path") from error
    except OSError as error:
        raise UnreadableScanError(path, f"the system does not read it ({error.strerror}); check the file") from error


def _check_name(path: Path) -> None:
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise MissingScanError(path, "no file can have such a name, with a NUL or half a letter in it; check the path")


def _check_file(path: Path, size: int) -> None:
    """A file with a name that is read and something in it."""
    if not ends_in(path, SCANS):
        if _begins_as_dicom(path):
            raise UnknownFormatError(path, "it is one file of DICOM; name the folder that holds its series")
        raise UnknownFormatError(path, f"its name ends in none of {', '.join(SCANS)}; give one of them, or DICOM")
    if size == 0:
        raise EmptyFileError(path, "it has no bytes; copy the file again")


def _begins_as_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _to_lps(
    path: Path, stored: StoredScan, series: str = ""
) -> tuple[NDArray[np.generic], NDArray[np.float64], Source]:
    """Voxels (Z, Y, X) in LPS, their affine, and the way back."""
    i, j, k = stored.voxels.shape
    orientation = orientation_to_lps(stored.affine)
    voxels = turn_to_lps(stored.voxels, orientation)
    affine = reorient_affine(stored.affine, orientation, (i, j, k))
    return voxels, affine, Source(path, stored.affine, (i, j, k), orientation, stored.header, series)
