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

from medvol.core.atomic_files import write_whole
from medvol.core.json_file import parse_json
from medvol.imaging.formats.stored_scan import MAX_BYTES

_META = "meta.json"
_LEVEL = 5
_MAX_META = 16 * 1024**2
DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
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
        try:
            self.meta = _read_meta(self._archive)
            self.dtype = _numeric(self.meta["dtype"])
            self.shape = _judge_shape(self.meta["shape"], self.dtype, self._archive)
        except BaseException:
            self._archive.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def read(self, z: int) -> NDArray[Any]:
        """One slice (Y, X); negative indices count from the end."""
        depth, *shape = self.shape
        packed = self._archive.read(str(range(depth)[z]))
        plane = np.empty(shape, self.dtype)
        if blosc2.get_cbuffer_sizes(packed)[0] != plane.nbytes:
            raise ValueError(f"slice {z} is not {plane.nbytes} bytes large")
        blosc2.decompress2(packed, dst=plane, dparams=blosc2.DParams(nthreads=1))
        return plane

    def read_all(self, dtype: np.dtype[Any] | type | None = None) -> NDArray[Any]:
        """Every slice, (Z, Y, X)."""
        whole = np.empty(self.shape, dtype or self.dtype)
        for z, plane in enumerate(whole):
            plane[:] = self.read(z)
        return whole


def _read_meta(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The plain values of an archive; nothing in it is compressed by zip, so nothing grows when it is read."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("a member is compressed by zip")
    if archive.getinfo(_META).file_size > _MAX_META:
        raise ValueError(f"{_META} has more than {_MAX_META} bytes")
    meta = parse_json(archive.read(_META).decode("utf-8"))
    if not isinstance(meta, dict):
        raise TypeError(f"{_META} holds no keys and values")
    return meta


def _numeric(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(name))
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ValueError(f"{name!r} is no type of voxels")
    return dtype


def _judge_shape(values: Any, dtype: np.dtype[Any], archive: zipfile.ZipFile) -> tuple[int, int, int]:
    """Shape (Z, Y, X), held to the number of slices and to the size of the largest scan that is read."""
    depth, height, width = (int(value) for value in values)
    if min(depth, height, width) < 1 or depth != len(archive.infolist()) - 1:
        raise ValueError(f"a shape of {values} does not fit {len(archive.infolist()) - 1} slices")
    if depth * height * width * dtype.itemsize > 2 * MAX_BYTES:
        raise ValueError(f"a shape of {values} is larger than any scan")
    packed = archive.read("0")
    if blosc2.get_cbuffer_sizes(packed)[0] != height * width * dtype.itemsize:
        raise ValueError(f"a shape of {values} does not fit its first slice")
    return depth, height, width


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
