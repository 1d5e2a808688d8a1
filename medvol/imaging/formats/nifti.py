"""Reading NIfTI behind a gate.

nibabel gives the header's meaning; the bytes are read here, to their end and no further than declared, because
neither nibabel nor SimpleITK alone refuses every damaged file.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medvol.core.notices import tell_once
from medvol.imaging.formats.problems import (
    BadDimensionsError,
    BadHeaderError,
    BadMagicError,
    BadSpacingError,
    ColourScanError,
    ConflictingAffinesError,
    CorruptStreamError,
    NoOrientationError,
    ShortHeaderError,
    TooLargeError,
    TruncatedScanError,
    UnknownDatatypeError,
)
from medvol.imaging.formats.stored_scan import StoredScan, check_affine, check_budget, check_dimensions, check_spacing
from medvol.imaging.formats.voxel_stream import InflatedStream, check_possible, is_gzipped, pieces_of, read_voxel_bytes
from medvol.imaging.geometry import corner_distance_mm, place_tolerance_mm

AFFINE_TOLERANCE_SHARE = 1.5e-3
"""How far apart qform and sform may place a corner voxel: ``place_tolerance_mm`` and this share of the grid's diagonal.
A quaternion in float32 near a half turn, as every LPS scan has, is off by up to 1e-3 of the diagonal."""

_COLOUR = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex"}
_NIFTI2 = 540
_LAYOUTS = {348: (nib.Nifti1Header, b"n+1\x00"), _NIFTI2: (nib.Nifti2Header, b"n+2\x00")}
_UNITS = {1: "metres", 3: "micrometres"}
_MAX_OFFSET = 64 * 1024**2
_BUFFER = 2**20


def read_nifti(path: Path, assume_orientation: str | None, max_bytes: int) -> StoredScan:
    """Read a NIfTI file, gzipped or not.

    Args:
        path: The file.
        assume_orientation: Three letters such as ``LPS`` that say which way the stored axes point; only used when the
            header does not say.
        max_bytes: Budget for the voxels as stored.

    Raises:
        ScanError: One of ``medvol.imaging.formats.problems``.
    """
    with _open_stream(path) as stream:
        header = _read_header(path, stream)
        shape = check_dimensions(path, _sizes(path, header))
        dtype = _voxel_type(path, header)
        check_budget(path, shape, dtype, max_bytes)
        with np.errstate(over="ignore", invalid="ignore"):
            affine = _choose_affine(path, header, shape, assume_orientation)
        voxels = _read_voxels(path, stream, header, shape, dtype)
    return StoredScan(voxels, affine, header)


def read_nifti_header(path: Path) -> Any:
    """Read the header of a NIfTI file, and no byte behind it."""
    with _open_stream(path) as stream:
        return _read_header(path, stream)


def read_first_slices(path: Path, count: int) -> NDArray[Any]:
    """Read the first stored slices of a NIfTI file, and nothing behind them.

    Args:
        path: The file.
        count: How many, where it has as many.

    Returns:
        Voxels (I, J, count), scaled as the header says.

    Raises:
        ScanError: One of ``medvol.imaging.formats.problems``.
    """
    with _open_stream(path) as stream:
        header = _read_header(path, stream)
        i, j, k = check_dimensions(path, _sizes(path, header))
        return _read_voxels(path, stream, header, (i, j, min(k, count)), _voxel_type(path, header), whole=False)


def read_nifti_array(path: Path, max_bytes: int) -> NDArray[Any]:
    """Read a NIfTI file of four axes or fewer whose header places no voxels, such as masks stacked along an axis.

    Args:
        path: The file.
        max_bytes: Budget for the voxels as stored.

    Returns:
        The array in the axis order of the file, scaled as the header says.

    Raises:
        ScanError: One of ``medvol.imaging.formats.problems``.
    """
    with _open_stream(path) as stream:
        header = _read_header(path, stream)
        shape, dtype = tuple(_sizes(path, header)), _voxel_type(path, header)
        if len(shape) > 4 or min(shape) < 1:
            raise BadDimensionsError(path, f"its header declares axes of {shape}; four or fewer are read")
        size = math.prod(shape) * dtype.itemsize
        if size > max_bytes:
            raise TooLargeError(path, f"its header declares {size:,} bytes; the budget is {max_bytes:,}")
        return _read_voxels(path, stream, header, shape, dtype)


def _read_voxels(
    path: Path, stream: BinaryIO, header: Any, shape: tuple[int, ...], dtype: np.dtype[Any], whole: bool = True
) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    check_possible(path, size, path.stat().st_size, is_gzipped(path))
    _skip_to_voxels(path, stream, header)
    data = read_voxel_bytes(path, pieces_of(stream) if whole else [stream.read(size)], size)
    _tell_misnamed(path)
    return _scale(path, data.view(dtype).reshape(shape, order="F"), header)


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    file: Any = path.open("rb")
    opened: Any = io.BufferedReader(InflatedStream(file), _BUFFER) if is_gzipped(path) else file
    with opened as stream:
        try:
            yield stream
        except zlib.error as error:
            raise CorruptStreamError(path, f"its compressed data are damaged ({error}); copy the file again") from error


def _tell_misnamed(path: Path) -> None:
    zipped = is_gzipped(path)
    if zipped != path.name.lower().endswith(".gz"):
        tell_once(f"{path} is {'' if zipped else 'not '}gzipped, whatever its name says")


def _read_header(path: Path, stream: BinaryIO) -> Any:
    start = stream.read(4)
    if len(start) < 4:
        raise ShortHeaderError(path, f"it ends after {len(start)} bytes, inside the header; copy the file again")
    for order in ("<", ">"):
        size = int(np.frombuffer(start, f"{order}i4")[0])
        if size in _LAYOUTS:
            break
    else:
        raise BadMagicError(path, "it is not NIfTI: the first four bytes are not a header's size")
    kind, magic = _LAYOUTS[size]
    block = start + stream.read(size - 4)
    if len(block) < size:
        raise ShortHeaderError(path, f"it ends after {len(block)} bytes, inside the header of {size}")
    header: Any = kind(block, endianness=order, check=False)  # type: ignore[no-untyped-call]
    found = header["magic"].tobytes()
    if found != magic:
        raise BadMagicError(
            path, f"its magic is {found!r}, not {magic!r}; a pair of .hdr and .img is not read, convert it"
        )
    if size == _NIFTI2 and bytes(header["eol_check"]) not in (b"\r\n\x1a\n", bytes(4)):
        raise BadMagicError(path, "its line ends were converted on the way; copy it again in binary mode")
    return header


def _sizes(path: Path, header: Any) -> list[int]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise BadDimensionsError(path, f"its header declares {count} axes; export the scan again")
    return [int(size) for size in header["dim"][1 : count + 1]]


def _voxel_type(path: Path, header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _COLOUR:
        raise ColourScanError(path, f"its voxels are {_COLOUR[code]}; save one grey value a voxel")
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise UnknownDatatypeError(path, f"voxel type {code} is not one that NIfTI defines") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnknownDatatypeError(path, f"voxels of type {dtype} are not read; save them as int16 or float32")
    return dtype


def _skip_to_voxels(path: Path, stream: BinaryIO, header: Any) -> None:
    offset, first = float(header["vox_offset"]), len(header.binaryblock) + 4
    if not (first <= offset <= _MAX_OFFSET and offset.is_integer()):
        raise BadHeaderError(path, f"its voxels are said to start at byte {offset:g}; export the scan again")
    skip = int(offset) - len(header.binaryblock)
    if len(stream.read(skip)) < skip:
        raise TruncatedScanError(path, "it ends before its first voxel; copy the file again")


def _choose_affine(
    path: Path, header: Any, shape: tuple[int, int, int], assume_orientation: str | None
) -> NDArray[np.float64]:
    spacing = [float(size) for size in header["pixdim"][1:4]]
    check_spacing(path, spacing)
    unit = int(header["xyzt_units"]) & 7
    if unit in _UNITS:
        raise BadSpacingError(path, f"its lengths are in {_UNITS[unit]}, not mm; write them in mm")
    forms = {name: _form(path, header, name) for name in ("sform", "qform") if int(header[f"{name}_code"]) > 0}
    for affine in forms.values():
        check_affine(path, affine)
    if forms:
        _check_agreement(path, forms, spacing, shape)
        return next(iter(forms.values()))
    if assume_orientation is None:
        raise NoOrientationError(
            path,
            "its header does not say which way the axes point; if you know, set assume_orientation, for example LPS",
        )
    return affine_from_codes(path, assume_orientation, spacing)


def _check_agreement(
    path: Path, forms: dict[str, NDArray[np.float64]], spacing: list[float], shape: tuple[int, int, int]
) -> None:
    """Every part of the header that places voxels says the same; readers differ in which one they believe."""
    nearest = min(place_tolerance_mm(affine) for affine in forms.values())
    tolerance = nearest + AFFINE_TOLERANCE_SHARE * float(np.linalg.norm(np.multiply(spacing, shape)))
    apart = corner_distance_mm(forms["sform"], forms["qform"], shape) if len(forms) == 2 else 0.0
    if not apart <= tolerance:
        raise ConflictingAffinesError(
            path, f"its qform and sform place voxels up to {apart:.3g} mm apart; set the code of the wrong one to 0"
        )
    for name, affine in forms.items():
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if not (np.abs(sizes - spacing) * shape <= tolerance).all():
            raise ConflictingAffinesError(
                path, f"its {name} has voxels of {sizes.round(4)} mm, its pixdim says {spacing}; write the true size"
            )


def _form(path: Path, header: Any, name: str) -> NDArray[np.float64]:
    if not 0 < int(header[f"{name}_code"]) <= 5:
        raise BadHeaderError(path, f"its {name}_code is {int(header[f'{name}_code'])}; codes go from 0 to 5")
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # the standard reads a missing handedness so
    try:
        affine: NDArray[np.float64] = header.get_sform() if name == "sform" else header.get_qform()
    except (HeaderDataError, ValueError) as error:
        raise BadHeaderError(path, f"its {name} cannot be read: {error}") from error
    return affine


def affine_from_codes(path: Path, codes: str, spacing: list[float]) -> NDArray[np.float64]:
    """Affine of axes that point where three letters such as ``LPS`` say, its origin at 0.

    Raises:
        NoOrientationError: The letters do not say it.
    """
    require_axes(path, codes)
    letters = tuple(codes.upper())
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for i, (axis, sign) in enumerate(nib.orientations.axcodes2ornt(letters)):
        affine[int(axis), i] = sign * spacing[i]
    return affine


def require_axes(path: Path, codes: Any) -> None:
    """Refuse what is not three letters that name each axis of the body once, such as ``LPS``.

    Raises:
        NoOrientationError: It is not.
    """
    letters = codes.upper() if isinstance(codes, str) else ""
    if len(letters) != 3 or any(sum(letter in group for letter in letters) != 1 for group in ("LR", "AP", "SI")):
        raise NoOrientationError(path, f"assume_orientation is three letters such as LPS or RAS; got {codes!r}")


def _scale(path: Path, voxels: NDArray[Any], header: Any) -> NDArray[Any]:
    """Apply slope and intercept; integer voxels without them keep their type."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope) or slope == 0:
        return voxels
    if not np.isfinite([slope, intercept]).all():
        raise BadHeaderError(path, f"its intensities are scaled by {slope} and shifted by {intercept}")
    if (slope, intercept) == (1.0, 0.0):
        return voxels
    exact = voxels.dtype.itemsize > 2 and voxels.dtype != np.float32  # large labels stay what they are
    scaled: NDArray[Any] = voxels.astype(np.float64 if exact else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled *= slope
        scaled += intercept
    return scaled
