"""The bytes of the voxels: all that the header declares, and not one more."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvol.imaging.formats.problems import OverlongScanError, TruncatedScanError

_PIECE = 2**22
_INPUT = 2**15
"""Compressed bytes taken at a time; what follows a member is copied, and a small piece keeps that cheap."""
_MAX_IDLE = 1000
_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032
"""No deflate stream inflates further than this; zlib's own documentation."""


def read_voxel_bytes(path: Path, pieces: Iterable[bytes], size: int) -> NDArray[np.uint8]:
    """Collect exactly ``size`` bytes; memory is touched only as far as there are bytes to put into it.

    Args:
        path: File to name in an error.
        pieces: The bytes, in order.
        size: Number of bytes that the header declares.

    Returns:
        The bytes, (size,).

    Raises:
        TruncatedScanError: There are fewer.
        OverlongScanError: There are more; told at the first piece too many.
    """
    data = np.empty(size, np.uint8)
    filled = 0
    for piece in pieces:
        if filled + len(piece) > size:
            raise OverlongScanError(path, f"it holds more than the {size:,} bytes of voxels that its header declares")
        data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled < size:
        raise TruncatedScanError(path, f"it holds {filled:,} of {size:,} bytes of voxels; copy the file again")
    return data


def check_possible(path: Path, size: int, stored: int, compressed: bool) -> None:
    """Refuse a declared size that the file cannot hold, before memory is asked for.

    Args:
        path: File to name in an error.
        size: Number of bytes that the header declares.
        stored: Number of bytes in the file.
        compressed: Whether they are compressed.

    Raises:
        TruncatedScanError: The file cannot hold that much.
    """
    most = stored * (_DEFLATE_RATIO if compressed else 1)
    if size > most:
        raise TruncatedScanError(
            path, f"it can hold at most {most:,} of {size:,} bytes of voxels that its header declares; copy it again"
        )


def pieces_of(stream: BinaryIO) -> Iterator[bytes]:
    """Read a stream to its end, piece by piece."""
    while piece := stream.read(_PIECE):
        yield piece


def inflate(stream: BinaryIO) -> Iterator[bytes]:
    """Decompress a zlib stream, or gzip of one member or several, piece by piece.

    Zeros that fill up the last block of a tape or a disk may follow; other bytes after the end are damage.

    Raises:
        zlib.error: The stream is damaged, does not end, or has a thousand members without a byte in them.
    """
    inflater, rest, idle = zlib.decompressobj(wbits=47), b"", 0
    while rest := rest or stream.read(_INPUT):
        if inflater.eof:
            rest = rest.lstrip(b"\0")
            if not rest:
                continue
            if rest[0] != _GZIP[0]:
                raise zlib.error("bytes follow the end of the stream")
            inflater = zlib.decompressobj(wbits=31)
        piece = inflater.decompress(rest, _PIECE)
        rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        idle = 0 if piece else idle + inflater.eof
        if idle > _MAX_IDLE:
            raise zlib.error("it consists of members without a byte in them")
        yield piece
    if not inflater.eof:
        raise zlib.error("the stream does not end")


def is_gzipped(path: Path) -> bool:
    """True for a file that starts as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


class InflatedStream(io.RawIOBase):
    """A compressed stream as the bytes in it, read from front to back; ``zlib.error`` where it is damaged."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._pieces, self._left = stream, inflate(stream), b""

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the next piece goes; 0 at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        """Close the file under it too."""
        self._stream.close()
        super().close()
