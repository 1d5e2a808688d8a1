"""Arrays on disk, one compressed piece for each axial slice, so that a few slices are read without the others.

The container is a zip archive: its directory finds a slice at once, and its checksums catch damage. The slices in it
are packed by Blosc2, which unpacks faster than a disk reads. Nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from medvol.core.whole_file import write_whole

_META = "meta.json"
_LEVEL = 5
DAMAGE = (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, RuntimeError)
"""What reading raises when an archive was cut or changed."""


def write_slices(path: Path, slices: Iterable[NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write slices (Y, X) of one shape and type, whole or not at all.

    Args:
        path: The archive.
        slices: In order; taken one at a time.
        meta: Plain values to be kept beside them.
    """
    with write_whole(path, durable=False) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        depth, shape, dtype = 0, (0, 0), np.dtype(np.uint8)
        for depth, plane in enumerate(slices, start=1):
            shape, dtype = plane.shape, plane.dtype
            archive.writestr(str(depth - 1), _pack(plane))
        content = {**meta, "shape": [depth, *shape], "dtype": dtype.str}
        archive.writestr(_META, json.dumps(content))


class SliceArchive:
    """Slices on disk, open for reading.

    Args:
        path: From ``write_slices``.

    Raises:
        OSError: There is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self.meta: dict[str, Any] = json.loads(self._archive.read(_META))
        depth, height, width = self.meta["shape"]
        self.shape: tuple[int, int, int] = (depth, height, width)
        self.dtype: np.dtype[Any] = np.dtype(self.meta["dtype"])

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def read(self, z: int) -> NDArray[Any]:
        """One slice (Y, X); negative indices count from the end."""
        depth, *shape = self.shape
        plane = np.empty(shape, self.dtype)
        blosc2.decompress2(self._archive.read(str(range(depth)[z])), dst=plane, dparams=blosc2.DParams(nthreads=1))
        return plane

    def read_all(self, dtype: np.dtype[Any] | type | None = None) -> NDArray[Any]:
        """Every slice, (Z, Y, X)."""
        whole = np.empty(self.shape, dtype or self.dtype)
        for z, plane in enumerate(whole):
            plane[:] = self.read(z)
        return whole


def _pack(plane: NDArray[Any]) -> bytes:
    settings = blosc2.CParams(
        codec=blosc2.Codec.LZ4,
        clevel=_LEVEL,
        filters=[blosc2.Filter.SHUFFLE],
        typesize=plane.dtype.itemsize,
        nthreads=1,  # data loaders fork, and each worker has its own slices to pack
    )
    packed: bytes = blosc2.compress2(np.ascontiguousarray(plane), cparams=settings)
    return packed
