"""What goes over the wire: voxels as 16-bit numbers in slabs, masks as the bits of their bounding box."""

from __future__ import annotations

import gzip
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RecordError
from medvol.core.types import Volume

_LEAST, _MOST = -32768, 32767


@dataclass(frozen=True)
class Scale:
    """Intensities as 16-bit numbers: intensity = slope * stored + intercept.

    Args:
        slope: Above 0; 1 where the scan holds whole numbers of 16 bits, which are then sent as they are.
        intercept: Intensity of a stored 0.
    """

    slope: float
    intercept: float


def find_scale(volume: Volume) -> Scale:
    """The scale of a scan: exact for whole numbers of 16 bits, as in every CT, and 65,536 even steps for the rest."""
    low, high = volume.percentiles((0.0, 100.0))
    if low >= _LEAST and high <= _MOST and all(bool((plane == np.rint(plane)).all()) for plane in volume.voxels):
        return Scale(1.0, 0.0)
    slope = (high - low) / (_MOST - _LEAST) or 1.0
    return Scale(slope, low - slope * _LEAST)


def pack_slab(volume: Volume, scale: Scale, first: int, count: int) -> bytes:
    """Slices as 16-bit little-endian numbers, (count, Y, X) in C order.

    Args:
        volume: The scan.
        scale: From ``find_scale``.
        first: Index of the first slice.
        count: Slices; fewer are sent where the scan ends.
    """
    slab = volume.voxels[first : first + count]
    if scale.slope != 1.0 or scale.intercept != 0.0:
        slab = ((slab.astype(np.float64) - scale.intercept) / scale.slope).astype(np.float32)
    packed: bytes = np.rint(slab).clip(_LEAST, _MOST).astype("<i2").tobytes()
    return packed


def pack_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (Z, Y, X) as plain values: where its bounding box begins, its shape, and its bits.

    The bits are in C order, the first voxel in the lowest bit of the first byte, gzip-compressed, in base64; an empty
    mask has the shape [0, 0, 0].
    """
    box = bounding_box(mask)
    part = mask[box]
    if not part.size:
        return {"origin_zyx": [0, 0, 0], "shape_zyx": [0, 0, 0], "bits": ""}
    bits = gzip.compress(np.packbits(part, bitorder="little").tobytes(), 1, mtime=0)
    origin = [side.start for side in box]
    return {"origin_zyx": origin, "shape_zyx": list(part.shape), "bits": b64encode(bits).decode("ascii")}


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box (Z, Y, X) that holds a mask; an empty one for an empty mask."""
    z = _extent(mask, (1, 2))
    return z, _extent(mask[z], (0, 2)), _extent(mask[z], (0, 1))


def _extent(mask: NDArray[np.bool_], axes: tuple[int, int]) -> slice:
    places = np.flatnonzero(mask.any(axis=axes))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def unpack_mask(packed: Mapping[str, Any], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """The mask (Z, Y, X) that ``pack_mask`` packed.

    Raises:
        RecordError: It does not fit into a scan of this shape.
    """
    mask = np.zeros(shape, np.bool_)
    origin, own = packed["origin_zyx"], packed["shape_zyx"]
    if any(a < 0 or b < 0 or a + b > c for a, b, c in zip(origin, own, shape, strict=True)):
        raise RecordError(f"a mask at {origin} of shape {own} does not fit into a scan of shape {list(shape)}")
    count = own[0] * own[1] * own[2]
    if count:
        bits = np.frombuffer(gzip.decompress(b64decode(packed["bits"])), np.uint8)
        part = np.unpackbits(bits, count=count, bitorder="little").reshape(own).astype(np.bool_)
        mask[tuple(slice(a, a + b) for a, b in zip(origin, own, strict=True))] = part
    return mask
