"""Reading MetaImage behind a gate: ``.mha``, and ``.mhd`` with the voxels in files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from medvol.imaging.formats.detached import VoxelBytes, find_files, read_voxels
from medvol.imaging.formats.header_fields import collect_fields, declared, is_millimetres, read_count, read_head
from medvol.imaging.formats.itk_geometry import read_geometry
from medvol.imaging.formats.problems import (
    BadHeaderError,
    BadMagicError,
    BadSpacingError,
    ColourScanError,
    NoOrientationError,
    ShortHeaderError,
)
from medvol.imaging.formats.stored_scan import StoredScan

_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
_ORIGINS = ("Offset", "Position", "Origin")
_SPACINGS = ("ElementSpacing", "ElementSize")
_ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_INTENSITIES = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
"""Fields that change intensities, and the value with which they do not."""
_KNOWN = (
    *("BinaryData", "CompressedData", "DimSize", "DistanceUnits", "ElementDataFile", "ElementNumberOfChannels"),
    *("ElementType", "HeaderSize", "NDims", *_MATRICES, *_ORIGINS, *_SPACINGS, *_ORDERS, *_INTENSITIES),
)
_BY_SMALL = {name.lower(): name for name in _KNOWN}
_START = re.compile(rb"\s*(ObjectType|NDims|Comment)\s*[=:]")
_END = re.compile(rb"(?m)^[ \t]*ElementDataFile[ \t]*[=:][^\n]*(\n|\Z)")
_LOCAL = ("LOCAL", "Local", "local")


def read_metaimage(path: Path, max_bytes: int, header_only: bool = False) -> StoredScan:
    """Read .mha or .mhd.

    Args:
        path: The file.
        max_bytes: Budget for the voxels.
        header_only: Leave the voxels on the disk; those of the result are zeros that take no memory.

    Raises:
        ScanError: One of ``medvol.imaging.formats.problems``.
    """
    head = read_head(path)
    if not _START.match(head):
        raise BadMagicError(path, f"it starts with {head[:8]!r}, not MetaImage")
    end = _END.search(head)
    if end is None:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    fields = collect_fields(path, _pairs(path, head[: end.end()].decode("latin-1")))
    _check_intensities(path, fields)
    _check_places(path, fields)
    sizes, dtype = declared(path, fields, ("NDims", "DimSize", "ElementType"), max_bytes)
    _check_numbers(path, fields, len(sizes))
    orders = {_flag(path, fields, key) for key in _ORDERS if key in fields}
    if len(orders) == 2:
        raise BadHeaderError(path, f"its {' and '.join(_ORDERS)} say two things; save the scan again")
    source = _find_voxels(path, fields, sizes, head[end.end() :], end.end())
    beside = tuple(file for file in source.files if file != path)
    affine, geometry = read_geometry(path, sizes, "MetaImageIO")
    if header_only:
        return StoredScan(np.broadcast_to(np.zeros((), dtype), sizes), affine, geometry, beside)
    voxels = read_voxels(path, source, sizes, dtype.newbyteorder(">" if orders == {True} else "<"))
    return StoredScan(voxels, affine, geometry, beside)


def _pairs(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        key, found, value = (part.strip() for part in re.match(r"([^=:]*)([=:]?)(.*)", line, re.DOTALL).groups())  # type: ignore[union-attr]
        known = _BY_SMALL.get(key.lower(), key)
        if not found and key.lower() in _BY_SMALL:
            raise BadHeaderError(path, f"its {known} has no value; save the scan again")
        if found and key != known:
            raise BadHeaderError(path, f"its field {key!r} is passed over by other readers; spell it {known!r}")
        if found and key != "Comment":
            yield key, value


def _check_intensities(path: Path, fields: Mapping[str, str]) -> None:
    """One grey value a voxel, written as bytes, that means itself."""
    if not _flag(path, fields, "BinaryData", absent="True"):
        raise BadHeaderError(path, "its voxels are written as text; save it with BinaryData = True")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise ColourScanError(path, f"it has {fields['ElementNumberOfChannels']} values a voxel; save one grey value")
    for key, plain in _INTENSITIES.items():
        if key in fields and _numbers(fields[key]) != [plain]:
            raise BadHeaderError(path, f"its header says {key} {fields[key][:40]!r}, which is not read; save it again")


def _check_places(path: Path, fields: Mapping[str, str]) -> None:
    """The header says where the axes point, and the size of a voxel in mm."""
    if not fields.keys() & set(_MATRICES):
        raise NoOrientationError(path, "its header does not say which way the axes point; save it with TransformMatrix")
    if not fields.keys() & set(_SPACINGS):
        raise BadSpacingError(path, "its header gives no ElementSpacing; write the true voxel size")
    unit = fields.get("DistanceUnits", "?")
    if unit != "?" and not is_millimetres(unit):
        raise BadSpacingError(path, f"its lengths are in {unit[:40]}; write them in mm")


def _check_numbers(path: Path, fields: Mapping[str, str], axes: int) -> None:
    """As many numbers as there are axes; ITK takes 0 for what it cannot read."""
    counts = {**dict.fromkeys(_MATRICES, axes * axes), **dict.fromkeys((*_ORIGINS, *_SPACINGS), axes)}
    for key, count in counts.items():
        if key in fields and len(_numbers(fields[key])) != count:
            raise BadHeaderError(path, f"its {key} is {fields[key][:40]!r}, not {count} numbers with blanks between")


def _find_voxels(
    path: Path, fields: Mapping[str, str], sizes: tuple[int, ...], listed: bytes, start: int
) -> VoxelBytes:
    compressed, skipped = _flag(path, fields, "CompressedData"), read_count(path, fields, "HeaderSize")
    name = fields["ElementDataFile"]
    local = name in _LOCAL
    if skipped and (compressed or (local and skipped > 0)):
        place = "the header's own file" if local else "compressed voxels"
        raise BadHeaderError(path, f"its HeaderSize is {skipped} before {place}, which is not read; save it with 0")
    if local:
        return VoxelBytes((path,), start, compressed, skipped)
    names = listed.decode("latin-1").split("\n") if re.match(r"LIST\b", name) else []
    return VoxelBytes(tuple(find_files(path, name, names, sizes)), 0, compressed, skipped)


def _flag(path: Path, fields: Mapping[str, str], key: str, absent: str = "False") -> bool:
    value = fields.get(key, absent)
    if value.lower() not in ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"):
        raise BadHeaderError(path, f"its {key} is {value[:40]!r}, neither True nor False; save the scan again")
    if value.lower() in ("yes", "y"):
        raise BadHeaderError(path, f"its {key} is {value!r}, which ITK takes for False; write True or False")
    return value.lower() in ("true", "t", "1")


def _numbers(text: str) -> list[float]:
    """Numbers with blanks between; none when one of them is something else."""
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []
