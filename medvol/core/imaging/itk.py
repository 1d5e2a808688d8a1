"""Reading and writing NRRD and MetaImage through SimpleITK, behind a gate.

SimpleITK fills what a truncated file lacks with zeros, so the header and the length of the data are checked first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvol.core.imaging.problems import (
    BadHeaderError,
    BadMagicError,
    ColourScanError,
    CorruptStreamError,
    OverlongScanError,
    ShortHeaderError,
    TruncatedScanError,
    UnknownDatatypeError,
)
from medvol.core.imaging.stored import StoredScan, check_affine, check_budget, check_dimensions, check_spacing

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between ITK's world (LPS) and NIfTI's (RAS); its own inverse."""

_SIZES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64", "uint64_t", "double"), 8),
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_MAX_HEADER = 1024**2


def read_nrrd(path: Path, max_bytes: int) -> StoredScan:
    """Read .nrrd or .nhdr.

    Raises:
        ScanError: One of ``medvol.core.imaging.problems``.
    """
    head = _read_head(path)
    if not head.startswith(b"NRRD000"):
        raise BadMagicError(path, f"it starts with {head[:8]!r}, not NRRD")
    text, found, _ = head.partition(b"\n\n")
    fields = _fields(text, ":")
    data_file = fields.get("data file", fields.get("datafile"))
    if not found and data_file is None:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise BadHeaderError(path, f"its encoding is {encoding!r}; save it raw or gzipped")
    if "space directions" not in fields:
        raise BadHeaderError(path, "it has no space directions, so its geometry is unknown; save it with geometry")
    size = _declared_bytes(path, fields, "sizes", "type", max_bytes)
    source, offset = (path, len(text) + 2) if data_file is None else (path.parent / data_file, 0)
    _check_length(path, source, offset, size, encoding != "raw")
    return _read(path)


def read_metaimage(path: Path, max_bytes: int) -> StoredScan:
    """Read .mha or .mhd.

    Raises:
        ScanError: One of ``medvol.core.imaging.problems``.
    """
    head = _read_head(path)
    key = b"ElementDataFile"
    if b"NDims" not in head:
        raise BadMagicError(path, "it is not MetaImage: its header names no NDims")
    position = head.find(key)
    end = head.find(b"\n", position)
    if position < 0 or end < 0:
        raise ShortHeaderError(path, "it ends inside its header; copy the file again")
    fields = _fields(head[:end], "=")
    if int(fields.get("ElementNumberOfChannels", "1") or 1) != 1:
        raise ColourScanError(path, f"it has {fields['ElementNumberOfChannels']} values a voxel; save one grey value")
    size = _declared_bytes(path, fields, "DimSize", "ElementType", max_bytes)
    name = fields["ElementDataFile"]
    source, offset = (path, end + 1) if name == "LOCAL" else (path.parent / name, 0)
    _check_length(path, source, offset, size, fields.get("CompressedData", "False").lower() == "true")
    return _read(path)


def write_itk(path: Path, voxels: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write (I, J, K) voxels with an affine in NIfTI's world, compressed."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    world = RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((world[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(world[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def copy_geometry(path: Path, voxels: NDArray[np.uint8], reference: Path) -> None:
    """Write (I, J, K) voxels with the very geometry of a file that ITK reads."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(reference))
    reader.ReadImageInformation()
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(reader.GetSpacing()[:3])
    image.SetOrigin(reader.GetOrigin()[:3])
    direction = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_HEADER)


def _fields(text: bytes, separator: str) -> dict[str, str]:
    lines = (line for line in text.decode("latin-1").splitlines() if separator in line and not line.startswith("#"))
    pairs = (line.split(separator, 1) for line in lines)
    return {key.strip(): value.lstrip("=").strip() for key, value in pairs}


def _declared_bytes(path: Path, fields: dict[str, str], sizes_key: str, type_key: str, max_bytes: int) -> int:
    try:
        sizes = [int(size) for size in fields[sizes_key].split()]
    except (KeyError, ValueError) as error:
        raise BadHeaderError(path, f"its header gives no usable {sizes_key}: {error}") from error
    kinds = fields.get("kinds", "")
    if len(sizes) > 3 and any(kind in kinds for kind in ("vector", "RGB", "color", "complex")):
        raise ColourScanError(path, f"its voxels are vectors ({kinds}); save one grey value a voxel")
    check_dimensions(path, sizes)
    kind = fields.get(type_key, "")
    if kind not in _SIZES:
        raise UnknownDatatypeError(path, f"voxels of type {kind!r} are not read; save them as short or float")
    declared = int(np.prod(sizes, dtype=np.int64)) * _SIZES[kind]
    check_budget(path, declared, max_bytes)
    return declared


def _check_length(path: Path, source: Path, offset: int, size: int, compressed: bool) -> None:
    """Count the bytes of voxels without keeping them."""
    if not source.is_file():
        raise TruncatedScanError(
            path, f"its voxels should lie in {source.name}, which is not there; copy that file too"
        )
    count = 0
    try:
        for piece in _inflate(source, offset) if compressed else _pieces(source, offset):
            count += len(piece)
            if count > size:
                raise OverlongScanError(
                    path, f"it holds more than the {size:,} bytes of voxels that its header declares"
                )
    except zlib.error as error:
        raise CorruptStreamError(path, f"its compressed data are damaged ({error}); copy the file again") from error
    if count < size:
        raise TruncatedScanError(path, f"it holds {count:,} of {size:,} bytes of voxels; copy the file again")


def _pieces(source: Path, offset: int) -> Iterator[bytes]:
    with source.open("rb") as file:
        file.seek(offset)
        while piece := file.read(2**22):
            yield piece


def _inflate(source: Path, offset: int) -> Iterator[bytes]:
    """Decompress a zlib or gzip stream piece by piece; a stream that does not end is damaged."""
    inflater = zlib.decompressobj(wbits=47)
    for piece in _pieces(source, offset):
        while piece:
            yield inflater.decompress(piece, 2**22)
            piece = inflater.unconsumed_tail
        if inflater.eof:
            return
    raise zlib.error("the stream does not end")


def _read(path: Path) -> StoredScan:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        raise BadHeaderError(path, f"SimpleITK does not read it: {reason}") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ColourScanError(
            path, f"it has {image.GetNumberOfComponentsPerPixel()} values a voxel; save one grey value"
        )
    voxels = sitk.GetArrayFromImage(image)
    voxels = voxels.reshape(voxels.shape[-3:]).transpose(2, 1, 0)
    spacing = list(image.GetSpacing()[:3])
    check_spacing(path, spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:3, :3] * spacing
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = RAS @ affine
    check_affine(path, affine)
    return StoredScan(voxels, affine)
