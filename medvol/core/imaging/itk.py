"""Reading and writing NRRD and MetaImage, behind a gate.

SimpleITK fills what a truncated file lacks with zeros, so it only gives the meaning of the geometry here: the header is
judged first, and the voxels are read by ``payload``.
"""

from __future__ import annotations

import errno
import gzip
import os.path
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvol.core.imaging.payload import check_possible, inflate, pieces_of, read_payload
from medvol.core.imaging.problems import (
    BadHeaderError,
    BadMagicError,
    BadSpacingError,
    ColourScanError,
    ConflictingAffinesError,
    CorruptStreamError,
    NoOrientationError,
    ShortHeaderError,
    TruncatedScanError,
    UnknownDatatypeError,
)
from medvol.core.imaging.stored import StoredScan, check_affine, check_budget, check_dimensions, check_spacing

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between ITK's world (LPS) and NIfTI's (RAS); its own inverse."""

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "MET_CHAR"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t", "MET_UCHAR"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t", "MET_SHORT"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t", "MET_USHORT"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "MET_INT"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t", "MET_UINT"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t", "MET_LONG_LONG"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **dict.fromkeys(("MET_ULONG_LONG",), "u8"),
    **dict.fromkeys(("float", "MET_FLOAT"), "f4"),
    **dict.fromkeys(("double", "MET_DOUBLE"), "f8"),
}
_SPACES = re.compile(r"(left|right)-(anterior|posterior)-superior|[LR][AP]S")
_VECTORS = re.compile(r"vector|color|complex|quaternion|matrix", re.IGNORECASE)
_PLAIN = {
    "line skip": "0", "lineskip": "0", "byte skip": "0", "byteskip": "0",
    "HeaderSize": "0", "ElementToIntensityFunctionSlope": "1",
    "ElementToIntensityFunctionOffset": "0",
}  # fmt: skip
"""Fields that change what the bytes mean, and the value with which they do not."""
_MAX_HEADER = 1024**2
_MAX_DIGITS = 10


class ItkGeometry(NamedTuple):
    """Where ITK places a grid, in its own world (LPS, mm).

    Args:
        spacing: Voxel size along (i, j, k).
        origin: Centre of voxel (0, 0, 0).
        direction: Row-major 3x3 matrix; columns are the axes.
        nrrd_fields: Lines of an NRRD header that say the same, word for word; empty for other files. SimpleITK splits
            each axis into spacing and direction, which does not give back the last bit of every number.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nrrd_fields: tuple[str, ...] = ()


def read_nrrd(path: Path, max_bytes: int) -> StoredScan:
    """Read .nrrd or .nhdr.

    Raises:
        ScanError: One of ``medvol.core.imaging.problems``.
    """
    head = _read_head(path)
    if not head.startswith(b"NRRD000"):
        raise BadMagicError(path, f"it starts with {head[:8]!r}, not NRRD")
    end = re.search(rb"\r?\n\r?\n", head)
    fields = _fields(path, head[: end.start()] if end else head, ":")
    data_file = fields.get("data file", fields.get("datafile"))
    if end is None and data_file is None:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    encoding = fields.get("encoding", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise BadHeaderError(path, f"its encoding is {encoding!r}; save it raw or gzipped")
    axes = re.findall(r"none|\([^()]*\)", fields.get("space directions", ""))[:3]
    if not _SPACES.fullmatch(fields.get("space", "")) or len(axes) < 3 or "none" in axes:
        raise NoOrientationError(path, "its header does not say which way the axes point; save it with space and axes")
    if set(re.findall(r"\w+", fields.get("space units", ""))) - {"mm"}:
        raise BadSpacingError(path, f"its lengths are in {fields['space units']}; write them in mm")
    sizes, dtype = _declared(path, fields, "dimension", "sizes", "type", max_bytes)
    if dtype.itemsize > 1 and fields.get("endian") not in ("little", "big"):
        raise BadHeaderError(path, f"its endian is {fields.get('endian')!r}; save it with endian: little")
    dtype = dtype.newbyteorder(">" if fields.get("endian") == "big" else "<")
    source, offset = (path, end.end()) if data_file is None and end else (_beside(path, str(data_file)), 0)
    affine, geometry = _read_geometry(path, sizes, "NrrdImageIO")
    placed = {"space": fields["space"], "space directions": " ".join(axes), "space origin": fields.get("space origin")}
    lines = tuple(f"{key}: {value}" for key, value in placed.items() if value is not None)
    voxels = _read_voxels(path, source, offset, sizes, dtype, encoding != "raw")
    return StoredScan(voxels, affine, geometry._replace(nrrd_fields=lines))


def read_metaimage(path: Path, max_bytes: int) -> StoredScan:
    """Read .mha or .mhd.

    Raises:
        ScanError: One of ``medvol.core.imaging.problems``.
    """
    head = _read_head(path)
    if not re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head):
        raise BadMagicError(path, f"it starts with {head[:8]!r}, not MetaImage")
    end = re.search(rb"(?m)^ElementDataFile[ \t]*=.*\n", head)
    if end is None:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    fields = _fields(path, head[: end.end()], "=")
    if not _flag(path, fields, "BinaryData"):
        raise BadHeaderError(path, "its voxels are written as text; save it with BinaryData = True")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise ColourScanError(path, f"it has {fields['ElementNumberOfChannels']} values a voxel; save one grey value")
    if not fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}:
        raise NoOrientationError(path, "its header does not say which way the axes point; save it with TransformMatrix")
    if "ElementSpacing" not in fields:
        raise BadSpacingError(path, "its header gives no ElementSpacing; write the true voxel size")
    if fields.get("DistanceUnits", "mm") != "mm":
        raise BadSpacingError(path, f"its lengths are in {fields['DistanceUnits']}; write them in mm")
    sizes, dtype = _declared(path, fields, "NDims", "DimSize", "ElementType", max_bytes)
    swapped = _flag(path, fields, "BinaryDataByteOrderMSB") or _flag(path, fields, "ElementByteOrderMSB")
    compressed = _flag(path, fields, "CompressedData")
    name = fields["ElementDataFile"]
    source, offset = (path, end.end()) if name == "LOCAL" else (_beside(path, name), 0)
    affine, geometry = _read_geometry(path, sizes, "MetaImageIO")
    voxels = _read_voxels(path, source, offset, sizes, dtype.newbyteorder(">" if swapped else "<"), compressed)
    return StoredScan(voxels, affine, geometry)


def itk_geometry(affine: NDArray[np.float64]) -> ItkGeometry:
    """Geometry of an affine in NIfTI's world."""
    world = RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    direction = world[:3, :3] / spacing
    return ItkGeometry(tuple(spacing.tolist()), tuple(world[:3, 3].tolist()), tuple(direction.ravel().tolist()))


def write_itk(path: Path, voxels: NDArray[np.uint8], geometry: ItkGeometry) -> None:
    """Write (I, J, K) voxels, compressed.

    Raises:
        OSError: It cannot be written.
    """
    if geometry.nrrd_fields and path.name.lower().endswith(".nrrd"):
        path.write_bytes(_format_nrrd(voxels, geometry.nrrd_fields))
        return
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # it does not say why
        raise OSError(
            errno.EIO, "it cannot be written; is the disk full, or the folder read-only?", str(path)
        ) from error


def _format_nrrd(voxels: NDArray[np.uint8], geometry_fields: tuple[str, ...]) -> bytes:
    lines = (
        *("NRRD0004", "type: unsigned char", "dimension: 3", f"sizes: {' '.join(map(str, voxels.shape))}"),
        *geometry_fields,
        *("kinds: domain domain domain", "encoding: gzip", "", ""),
    )
    return "\n".join(lines).encode("latin-1") + gzip.compress(voxels.tobytes(order="F"), compresslevel=6, mtime=0)


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_HEADER)


def _fields(path: Path, text: bytes, separator: str) -> dict[str, str]:
    """Fields of a header; comments and the key/value pairs of NRRD (``key:=value``) are left out."""
    fields: dict[str, str] = {}
    for line in text.decode("latin-1").split("\n"):
        key, found, value = (part.strip() for part in line.partition(separator))
        if line.startswith("#") or not found or (separator == ":" and value.startswith("=")):
            continue
        if key in fields and key != "Comment":
            raise BadHeaderError(path, f"its header names {key[:40]!r} twice; save the scan again")
        fields[key] = value
    for key, plain in _PLAIN.items():
        if fields.get(key, plain).lower() != plain:
            raise BadHeaderError(path, f"its header says {key} {fields[key][:40]!r}, which is not read; save it again")
    return fields


def _flag(path: Path, fields: dict[str, str], key: str) -> bool:
    value = fields.get(key, "False")
    if value not in ("True", "False"):
        raise BadHeaderError(path, f"its {key} is {value[:40]!r}, neither True nor False; save the scan again")
    return value == "True"


def _declared(
    path: Path, fields: dict[str, str], count_key: str, sizes_key: str, type_key: str, max_bytes: int
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Sizes and voxel type, judged by the budget."""
    words = fields.get(sizes_key, "").split()
    if not words or not all(re.fullmatch(rf"-?\d{{1,{_MAX_DIGITS}}}", word) for word in words):
        raise BadHeaderError(path, f"its {sizes_key} is {fields.get(sizes_key, '')[:40]!r}; save the scan again")
    if fields.get(count_key) != str(len(words)):
        raise BadHeaderError(
            path, f"its {count_key} is {fields.get(count_key, '')[:40]!r}, but it has {len(words)} sizes"
        )
    sizes = [int(word) for word in words]
    if _VECTORS.search(fields.get("kinds", "")):
        raise ColourScanError(path, f"its voxels are vectors ({fields['kinds'][:80]}); save one grey value a voxel")
    shape = check_dimensions(path, sizes)
    kind = fields.get(type_key, "")
    if kind not in _TYPES:
        raise UnknownDatatypeError(path, f"voxels of type {kind[:40]!r} are not read; save them as short or float")
    dtype = np.dtype(_TYPES[kind])
    check_budget(path, shape, dtype, max_bytes)
    return tuple(sizes), dtype


def _beside(path: Path, name: str) -> Path:
    """File of the voxels; it lies in the header's folder or below it."""
    source = path.parent / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise BadHeaderError(
            path, f"its voxels are said to lie at {name[:80]!r}, outside its folder; put them beside it"
        )
    if not os.path.isfile(source):  # unlike Path.is_file, False for a name that no file can have
        raise TruncatedScanError(
            path, f"its voxels should lie in {name[:80]!r}, which is not there; copy that file too"
        )
    return source


def _read_geometry(path: Path, sizes: tuple[int, ...], reader_name: str) -> tuple[NDArray[np.float64], ItkGeometry]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Reason")][-1]
        raise BadHeaderError(path, f"SimpleITK does not read it: {reason}") from error
    if reader.GetNumberOfComponents() != 1 or reader.GetSize()[:3] != sizes[:3]:
        raise BadHeaderError(path, f"SimpleITK finds {reader.GetSize()} voxels in it, not {sizes}; save the scan again")
    axes = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    geometry = ItkGeometry(reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(axes.ravel().tolist()))
    check_spacing(path, list(geometry.spacing))
    affine = np.eye(4)
    affine[:3, :3] = axes * geometry.spacing
    affine[:3, 3] = geometry.origin
    affine = RAS @ affine
    check_affine(path, affine)
    lengths = np.linalg.norm(axes, axis=0)
    if np.abs(lengths - 1).max() > 1e-3:
        raise ConflictingAffinesError(
            path, f"its axes have length {lengths.round(3).tolist()} beside their voxel size; write unit vectors"
        )
    return affine, geometry


def _read_voxels(
    path: Path, source: Path, offset: int, sizes: tuple[int, ...], dtype: np.dtype[Any], compressed: bool
) -> NDArray[Any]:
    size = int(np.prod(sizes, dtype=np.int64)) * dtype.itemsize
    check_possible(path, size, source.stat().st_size, compressed)
    with source.open("rb") as stream:
        stream.seek(offset)
        try:
            data = read_payload(path, inflate(stream) if compressed else pieces_of(stream), size)
        except zlib.error as error:
            raise CorruptStreamError(path, f"its compressed data are damaged ({error}); copy the file again") from error
    return data.view(dtype).reshape(sizes[:3], order="F")
