"""Mending a NIfTI file, where that is safe: the header is put right, the voxels stay as they are.

Voxels change only where they must: NaN takes a value that the user gives, a sheared grid is resampled, labels beside
whole numbers are rounded, and a CT with another zero gets the offset that the user gives.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from medvol.checking.straighten import straighten
from medvol.core.errors import ScanError
from medvol.imaging.formats.nifti import affine_from_codes, read_nifti, read_nifti_array
from medvol.imaging.formats.problems import NoOrientationError
from medvol.imaging.formats.stored_scan import MAX_BYTES, StoredScan, check_affine, check_spacing
from medvol.imaging.formats.voxel_stream import inflate, is_gzipped
from medvol.imaging.label_values import label_values

_CODES = range(6)


@dataclass(frozen=True)
class Mending:
    """What the user knows and a file does not say.

    Args:
        nan_to: Value that takes the place of NaN and infinite voxels; such files are not mended when None.
        assume_orientation: Three letters such as ``LPS`` for files that do not say which way their axes point; such
            files are not mended when None.
        hu_offset: What is added to the voxels of a CT that was stored with another zero, such as -1024; such files are
            not mended when None.
    """

    nan_to: float | None = None
    assume_orientation: str | None = None
    hu_offset: float | None = None


def _mend_affines(path: Path, mending: Mending) -> bool:
    """The qform and the voxel size become those of the sform."""
    return _edit_header(path, _follow_sform)


def _mend_header(path: Path, mending: Mending) -> bool:
    """Codes that mean nothing become 1, a missing intercept 0; an unreadable qform follows the sform."""

    def change(header: Any) -> bool:
        wrong = [name for name in ("sform_code", "qform_code") if int(header[name]) not in _CODES]
        for name in wrong:
            header[name] = 1
        if wrong:
            return True
        slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
        if np.isfinite(slope) and slope != 0 and not np.isfinite(intercept):
            header["scl_inter"] = 0
            return True
        return not np.isinf(slope) and _is_unreadable(header) and _follow_sform(header)

    return _edit_header(path, change)


def _mend_orientation(path: Path, mending: Mending) -> bool:
    codes = mending.assume_orientation
    if codes is None:
        return False

    def change(header: Any) -> bool:
        spacing = [float(size) for size in header["pixdim"][1:4]]
        try:
            header.set_sform(affine_from_codes(path, codes, spacing), 1)
        except NoOrientationError:
            return False
        return _follow_sform(header)

    return _edit_header(path, change)


def _mend_name(path: Path, mending: Mending) -> bool:
    _write_bytes(path, _read_bytes(path))
    return True


def _mend_voxels(path: Path, mending: Mending) -> bool:
    if mending.nan_to is None:
        return False
    scan = _load(path)
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = scan.voxels.astype(np.float32)
    voxels[~(np.abs(voxels) < 1e30)] = mending.nan_to
    return _write(path, scan.header, voxels, scan.affine)


def _mend_shear(path: Path, mending: Mending) -> bool:
    """Resample to a straight grid that covers the old one."""
    header = _header_of(_read_bytes(path))
    try:
        voxels, affine = np.squeeze(read_nifti_array(path, MAX_BYTES)), header.get_sform()
        if voxels.ndim != 3 or not np.isfinite(voxels).all():
            return False
        labels = label_values(np.ascontiguousarray(voxels, np.float32)) is not None
        straight, affine = straighten(path, voxels, affine, nearest=labels)
    except ScanError:
        return False
    return _write(path, header, straight.astype(voxels.dtype if labels else np.float32), affine)


def _mend_labels(path: Path, mending: Mending) -> bool:
    """Whole numbers, saved as such."""
    scan = _load(path)
    labels = np.rint(scan.voxels)
    kind = next(
        kind for kind in (np.uint8, np.int16, np.int32) if np.can_cast(np.min_scalar_type(int(labels.max())), kind)
    )
    return _write(path, scan.header, labels.astype(kind), scan.affine)


def _mend_offset(path: Path, mending: Mending) -> bool:
    """Hounsfield units: the offset is added to every voxel."""
    if mending.hu_offset is None:
        return False
    scan = _load(path)
    voxels = scan.voxels.astype(np.float32) + np.float32(mending.hu_offset)
    short = np.iinfo(np.int16)
    whole = bool((voxels == np.rint(voxels)).all()) and voxels.min() >= short.min and voxels.max() <= short.max
    return _write(path, scan.header, voxels.astype(np.int16) if whole else voxels, scan.affine)


MENDERS: dict[str, Callable[[Path, Mending], bool]] = {
    "misnamed": _mend_name,
    "bad_header": _mend_header,
    "bad_spacing": _mend_affines,
    "conflicting_affines": _mend_affines,
    "no_orientation": _mend_orientation,
    "sheared_affine": _mend_shear,
    "non_finite": _mend_voxels,
    "moved_labels": _mend_labels,
    "shifted_hu": _mend_offset,
}
"""Mends the first problem of its kind in a copy; False when it cannot."""


def _follow_sform(header: Any) -> bool:
    """Let everything that places voxels say what the sform says; False where that is not sound."""
    if int(header["sform_code"]) not in _CODES[1:]:
        return False
    affine = header.get_sform()
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    try:
        check_affine(Path("sform"), affine)
        check_spacing(Path("sform"), sizes.tolist())
    except ScanError:
        return False
    unit = int(header["xyzt_units"]) & 7
    if unit not in (0, 2):
        return False
    header["pixdim"][1:4] = sizes
    header.set_qform(affine, int(header["sform_code"]))
    return True


def _is_unreadable(header: Any) -> bool:
    try:
        header.get_qform()
    except (HeaderDataError, ValueError):
        return True
    return False


def _edit_header(path: Path, change: Callable[[Any], bool]) -> bool:
    """Change the header and leave every other byte as it is."""
    data = _read_bytes(path)
    header = _header_of(data)
    if header is None or not change(header):
        return False
    block = header.binaryblock
    _write_bytes(path, block + data[len(block) :])
    return True


def _header_of(data: bytes) -> Any:
    """The header that a file starts with; None where it is none."""
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        for order in ("<", ">"):
            if len(data) >= size and int(np.frombuffer(data[:4], f"{order}i4")[0]) == size:
                return kind(data[:size], endianness=order, check=False)  # type: ignore[no-untyped-call]
    return None


def _read_bytes(path: Path) -> bytes:
    """All bytes of a file, unpacked; none where the stream is damaged or larger than a scan may be."""
    if not is_gzipped(path):
        return path.read_bytes()
    data = bytearray()
    try:
        with path.open("rb") as stream:
            for piece in inflate(stream):
                data += piece
                if len(data) > MAX_BYTES:
                    return b""
    except zlib.error:
        return b""
    return bytes(data)


def _load(path: Path) -> StoredScan:
    """A file whose header is sound by now, whatever its voxels and its name are."""
    return read_nifti(path, None, MAX_BYTES)


def _write(path: Path, header: Any, voxels: Any, affine: Any) -> bool:
    """Write voxels with the geometry given and nothing else of the old header: its text may name the patient."""
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    mended = kind(voxels, affine)
    mended.header.set_xyzt_units("mm")
    mended.set_sform(affine, 1)
    mended.set_qform(affine, 1)
    _write_bytes(path, mended.to_bytes())
    return True


def _write_bytes(path: Path, data: bytes) -> None:
    """Gzipped, or not, as the name says."""
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.lower().endswith(".gz") else data)
