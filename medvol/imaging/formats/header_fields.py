"""Headers made of words: the fields that NRRD and MetaImage share, in every spelling that ITK reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medvol.imaging.formats.problems import BadHeaderError, ColourScanError, UnknownDatatypeError
from medvol.imaging.formats.stored_scan import check_budget, check_dimensions

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "met_char"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t", "met_uchar"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t", "met_short"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t", "met_ushort"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "met_int", "met_long"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t", "met_uint", "met_ulong"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t", "met_long_long"), "i8"),
    **dict.fromkeys(("signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **dict.fromkeys(("met_ulong_long",), "u8"),
    **dict.fromkeys(("float", "met_float"), "f4"),
    **dict.fromkeys(("double", "met_double"), "f8"),
}
"""NumPy types by name, in small letters; ITK's MET_LONG has 32 bits on every machine."""
_VECTORS = re.compile(r"vector|color|complex|quaternion|matrix", re.IGNORECASE)
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres"}
_MAX_HEADER = 1024**2
_MAX_DIGITS = 10


def read_head(path: Path) -> bytes:
    """First bytes of a file, more than any header has."""
    with path.open("rb") as file:
        return file.read(_MAX_HEADER)


def collect_fields(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields by name.

    Raises:
        BadHeaderError: One is there twice.
    """
    fields: dict[str, str] = {}
    for key, value in pairs:
        if key in fields:
            raise BadHeaderError(path, f"its header names {key[:40]!r} twice; save the scan again")
        fields[key] = value
    return fields


def read_count(path: Path, fields: Mapping[str, str], key: str, absent: int = 0) -> int:
    """A whole number of a field.

    Raises:
        BadHeaderError: It is none.
    """
    word = fields.get(key, str(absent))
    if not re.fullmatch(rf"[+-]?\d{{1,{_MAX_DIGITS}}}", word):
        raise BadHeaderError(path, f"its {key} is {word[:40]!r}, not a whole number; save the scan again")
    return int(word)


def is_millimetres(unit: str) -> bool:
    """True for a word that means mm."""
    return unit.strip().strip('"').lower() in _MILLIMETRES


def declared(
    path: Path, fields: Mapping[str, str], keys: tuple[str, str, str], max_bytes: int
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Sizes and voxel type, judged by the budget.

    Args:
        path: The file.
        fields: Its header.
        keys: Names of the fields of the number of axes, their sizes, and the type.
        max_bytes: Budget for the voxels.

    Raises:
        ScanError: They are not those of a volume that is read.
    """
    count_key, sizes_key, type_key = keys
    words = fields.get(sizes_key, "").split()
    if not words or not all(re.fullmatch(rf"-?\d{{1,{_MAX_DIGITS}}}", word) for word in words):
        raise BadHeaderError(path, f"its {sizes_key} is {fields.get(sizes_key, '')[:40]!r}; save the scan again")
    if read_count(path, fields, count_key) != len(words):
        raise BadHeaderError(
            path, f"its {count_key} is {fields.get(count_key, '')[:40]!r}, but it has {len(words)} sizes"
        )
    sizes = [int(word) for word in words]
    if _VECTORS.search(fields.get("kinds", "")):
        raise ColourScanError(path, f"its voxels are vectors ({fields['kinds'][:80]}); save one grey value a voxel")
    shape = check_dimensions(path, sizes)
    kind = fields.get(type_key, "")
    if kind.lower() not in _TYPES:
        raise UnknownDatatypeError(path, f"voxels of type {kind[:40]!r} are not read; save them as short or float")
    dtype = np.dtype(_TYPES[kind.lower()])
    check_budget(path, shape, dtype, max_bytes)
    return tuple(sizes), dtype
