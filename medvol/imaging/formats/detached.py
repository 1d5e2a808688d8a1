"""Where the voxels of a text header lie: behind it, in a file beside it, or in a series of files."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvol.imaging.formats.problems import BadHeaderError, CorruptStreamError, TruncatedScanError
from medvol.imaging.formats.voxel_stream import check_possible, inflate, pieces_of, read_voxel_bytes

_SERIES = re.compile(r"(?P<name>.*%0?\d?d.*?)\s+(?P<numbers>-?\d{1,9}(\s+-?\d{1,9}){2,3})")
_LONGEST_LINE = 2**16
_LONGEST_NAME = 2**10
"""Letters of a file name in a header; no disk takes as many."""
_MOST_INFLATED = 2**26
"""Bytes that may be skipped in a compressed stream: all of them must be inflated first."""


@dataclass(frozen=True)
class VoxelBytes:
    """Where bytes of voxels lie.

    Args:
        files: One file, or several that follow one another, each with an equal share of the voxels.
        start: Where they start in each file.
        compressed: Whether each file is a compressed stream.
        skipped: Bytes before the voxels, after decompression; -1 for whatever comes before the last of them.
        lines_skipped: Lines before that, before decompression.
    """

    files: tuple[Path, ...]
    start: int = 0
    compressed: bool = False
    skipped: int = 0
    lines_skipped: int = 0


def find_files(path: Path, name: str, listed: Sequence[str], sizes: tuple[int, ...]) -> list[Path]:
    """Files that a header names, in their order.

    Args:
        path: The header.
        name: The header's words, read as Latin-1: a file name; ``LIST``, with the dimension of each file after it where
            that is said; or a pattern such as ``slice%03d.raw 1 20 1``: first number, last number, step.
        listed: File names in the lines after ``LIST``.
        sizes: Voxels along each axis.

    Raises:
        BadHeaderError: A file lies outside the header's folder, or there are not as many as slices.
        TruncatedScanError: A file is absent.
    """
    longest = max((name, *listed), key=len)
    if len(longest) > _LONGEST_NAME:
        raise TruncatedScanError(
            path, f"its voxels should lie in a file whose name has {len(longest):,} letters; save the scan again"
        )
    name, *listed = map(_in_utf8, (name, *listed))
    words, patterns = name.split(), name.count("%")
    series = _SERIES.fullmatch(name) if patterns == 1 else None
    if patterns > (series is not None):
        raise BadHeaderError(
            path, f"its voxels lie in {name[:80]!r}, and % stands for one number only; rename the file"
        )
    if words[:1] == ["LIST"]:
        names = [line.strip() for line in listed if line.strip()]
        dimension = int(words[1]) if len(words) == 2 and words[1].isdecimal() and len(words[1]) == 1 else len(sizes) - 1
    elif series:
        first, last, step, *rest = (int(word) for word in series["numbers"].split())
        numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        names = [_format(series["name"], number) for number in islice(numbers, math.prod(sizes[2:]) + 1)]
        dimension = rest[0] if rest else len(sizes) - 1
    else:
        return [_beside(path, name)]
    slabs = dimension == len(sizes) and names and sizes[-1] % len(names) == 0
    if not slabs and not (0 < dimension < len(sizes) and len(names) == math.prod(sizes[dimension:])):
        raise BadHeaderError(path, f"it names {len(names)} files for {sizes} voxels; they must share them evenly")
    return [_beside(path, one) for one in names]


def read_voxels(path: Path, source: VoxelBytes, sizes: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Voxels (I, J, K), exactly as many as declared.

    Raises:
        ScanError: There are fewer or more, or the stream is damaged.
    """
    size = math.prod(sizes) * dtype.itemsize
    check_possible(path, size, sum(file.stat().st_size for file in source.files), source.compressed)
    try:
        data = read_voxel_bytes(path, _pieces(path, source, size // len(source.files)), size)
    except zlib.error as error:
        raise CorruptStreamError(path, f"its compressed data are damaged ({error}); copy the file again") from error
    return data.view(dtype).reshape(sizes[:3], order="F")


def _pieces(path: Path, source: VoxelBytes, share: int) -> Iterator[bytes]:
    """Bytes of every file; where there are several, each holds its share."""
    for file in source.files:
        found = 0
        with file.open("rb") as stream:
            stream.seek(source.start)
            for piece in _after_skip(path, stream, source, share):
                found += len(piece)
                yield piece
        if len(source.files) > 1 and found != share:
            raise TruncatedScanError(path, f"{file.name} holds {found:,} bytes of voxels, not {share:,}; copy it again")


def _after_skip(path: Path, stream: BinaryIO, source: VoxelBytes, share: int) -> Iterator[bytes]:
    most = _MOST_INFLATED if source.compressed else math.inf
    if not (-1 <= source.skipped <= most) or source.lines_skipped < 0 or (source.skipped == -1 and source.compressed):
        raise BadHeaderError(path, "its header skips bytes before the voxels in a way that is not read; save it again")
    if source.skipped == -1:
        start = os.fstat(stream.fileno()).st_size - share
        if start < source.start:
            raise TruncatedScanError(path, f"it holds less than the {share:,} bytes of voxels that it declares")
        stream.seek(start)
        return pieces_of(stream)
    for _ in range(source.lines_skipped):
        if not stream.readline(_LONGEST_LINE):
            raise TruncatedScanError(path, "it ends within the lines that its header skips; copy the file again")
    if not source.compressed:
        stream.seek(source.skipped, os.SEEK_CUR)
        return pieces_of(stream)
    return _without_first(inflate(stream), source.skipped)


def _without_first(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def _in_utf8(name: str) -> str:
    """A name of Latin-1 letters as ITK writes it, in UTF-8; as it stands where it is none."""
    try:
        return name.encode("latin-1").decode()
    except UnicodeDecodeError:
        return name


def _format(name: str, number: int) -> str:
    """A name with a number in the place of ``%d`` or ``%03d``."""
    return re.sub(r"%(0?)(\d?)d", lambda found: f"{number:{found[1]}{found[2]}d}", name, count=1)


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
