"""The bytes of the voxels: all that the header declares, and not one more."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvol.core.imaging.problems import OverlongScanError, TruncatedScanError

_PIECE = 2**22
_DEFLATE_RATIO = 1032
"""No deflate stream inflates further than this; zlib's own documentation."""


def read_payload(path: Path, pieces: Iterable[bytes], size: int) -> NDArray[np.uint8]:
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
    """Decompress a zlib or gzip stream piece by piece; bytes after its end are damage too.

    Raises:
        zlib.error: The stream is damaged or does not end.
    """
    inflater = zlib.decompressobj(wbits=47)
    for piece in pieces_of(stream):
        rest = piece
        while rest and not inflater.eof:
            yield inflater.decompress(rest, _PIECE)
            rest = inflater.unconsumed_tail
        if inflater.unused_data or (rest and inflater.eof):
            raise zlib.error("bytes follow the end of the stream")
    if not inflater.eof:
        raise zlib.error("the stream does not end")
