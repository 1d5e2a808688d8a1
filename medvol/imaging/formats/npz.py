"""Archives of arrays (``.npz``): the header of an array is judged before its values are read."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib

import numpy as np

DAMAGED = (
    *(OSError, ValueError, RuntimeError, MemoryError, EOFError, TypeError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What Python and NumPy raise for an archive that is cut, locked, or holds something else."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def require_declared(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array that declares more or fewer values than follow; NumPy makes room for what it declares.

    Args:
        archive: The archive.
        entry: One of its arrays.

    Raises:
        ValueError: It does, or it is no array.
    """
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} is an array of version {version}")
        shape, _, dtype = _HEADERS[version](stream)
        held, declared = entry.file_size - stream.tell(), math.prod(shape) * dtype.itemsize
    if declared != held:
        raise ValueError(f"{entry.filename} declares {declared:,} bytes of values and holds {held:,}")
