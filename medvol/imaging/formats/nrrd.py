"""Reading NRRD behind a gate: ``.nrrd``, and ``.nhdr`` with the voxels in files of their own."""

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
    NoOrientationError,
    ShortHeaderError,
)
from medvol.imaging.formats.stored_scan import StoredScan

_ALIASES = {
    "spacedirections": "space directions", "spaceorigin": "space origin", "spaceunits": "space units",
    "datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip",
}  # fmt: skip
_SPACES = re.compile(r"rightanteriorsuperior|leftanteriorsuperior|leftposteriorsuperior|ras|las|lps")
_END = re.compile(rb"\r?\n\r?\n|\r\r")
_LIST = re.compile(r"(?im)^data ?file: LIST\b.*$")


def read_nrrd(path: Path, max_bytes: int, header_only: bool = False) -> StoredScan:
    """Read .nrrd or .nhdr.

    Words count in capitals or not, as for ITK.

    Args:
        path: The file.
        max_bytes: Budget for the voxels.
        header_only: Leave the voxels on the disk; those of the result are zeros that take no memory.

    Raises:
        ScanError: One of ``medvol.imaging.formats.problems``.
    """
    head = read_head(path)
    if not head.startswith(b"NRRD000"):
        raise BadMagicError(path, f"it starts with {head[:8]!r}, not NRRD")
    end = _END.search(head)
    text = re.sub(r"\r\n?", "\n", (head[: end.start()] if end else head).decode("latin-1"))
    listed = _LIST.search(text)
    names = text[listed.end() :].split("\n") if listed else []
    fields = collect_fields(path, _pairs(text[: listed.end()] if listed else text))
    if end is None and "data file" not in fields:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    compressed = _is_compressed(path, fields)
    axes = _axes(path, fields)
    sizes, dtype = declared(path, fields, ("dimension", "sizes", "type"), max_bytes)
    endian = fields.get("endian", "little" if dtype.itemsize == 1 else "").lower()
    if endian not in ("little", "big"):
        raise BadHeaderError(path, f"its endian is {fields.get('endian')!r}; save it with endian: little")
    lines_skipped, skipped = (read_count(path, fields, f"{unit} skip") for unit in ("line", "byte"))
    if "data file" in fields:
        files, start = find_files(path, fields["data file"], names, sizes), 0
    else:
        files, start = [path], end.end() if end else 0
    source = VoxelBytes(tuple(files), start, compressed, skipped, lines_skipped)
    beside = tuple(file for file in files if file != path)
    affine, geometry = read_geometry(path, sizes, "NrrdImageIO")
    placed = {"space": fields["space"], "space directions": " ".join(axes), "space origin": fields.get("space origin")}
    lines = tuple(f"{key}: {value}" for key, value in placed.items() if value is not None)
    if header_only:
        return StoredScan(np.broadcast_to(np.zeros((), dtype), sizes), affine, geometry, beside)
    voxels = read_voxels(path, source, sizes, dtype.newbyteorder(">" if endian == "big" else "<"))
    return StoredScan(voxels, affine, geometry._replace(nrrd_fields=lines), beside)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Fields in small letters; comments and the key/value pairs of NRRD (``key:=value``) are left out."""
    for line in text.split("\n"):
        key, found, value = line.partition(":")
        if line.startswith("#") or not found or value.startswith("="):
            continue
        name = key.strip().lower()
        yield _ALIASES.get(name, name), value.strip()


def _is_compressed(path: Path, fields: Mapping[str, str]) -> bool:
    encoding = fields.get("encoding", "")
    if encoding.lower() not in ("raw", "gzip", "gz"):
        raise BadHeaderError(path, f"its encoding is {encoding[:40]!r}; save it raw or gzipped")
    return encoding.lower() != "raw"


def _axes(path: Path, fields: Mapping[str, str]) -> list[str]:
    """Directions of the axes, word for word, of a header that says where they point."""
    space, axes = fields.get("space"), re.findall(r"none|\([^()]*\)", fields.get("space directions", ""))[:3]
    if space is None or len(axes) < 3 or "none" in axes:
        raise NoOrientationError(path, "its header does not say which way the axes point; save it with space and axes")
    if not _SPACES.fullmatch(re.sub("[- ]", "", space.lower())):
        raise NoOrientationError(
            path, f"its space {space[:40]!r} does not say where its axes point; save it as left-posterior-superior"
        )
    units = re.findall(r'"[^"]*"|\S+', fields.get("space units", ""))
    if not all(is_millimetres(unit) for unit in units):
        raise BadSpacingError(path, f"its lengths are in {fields['space units'][:80]}; write them in mm")
    return axes
