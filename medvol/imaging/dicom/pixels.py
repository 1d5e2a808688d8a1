"""The pixels of a frame: decoded when a decoder is installed and the encoded image is as large as the header says.

A decoder takes memory by what the encoded image declares, so that is read before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.imaging.dicom.parsing import import_pydicom
from medvol.imaging.dicom.problems import BadInstanceError, UndecodablePixelsError
from medvol.imaging.dicom.slices import DicomSlice

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the segments of a JPEG file that hold its size; 0xF7 is that of JPEG-LS."""
_MOST_BYTES_A_PIXEL = 16


def check_decodable(path: Path, dataset: Dataset) -> None:
    """Refuse a file without pixels, in an encoding that nothing reads, or whose values mean something else.

    Raises:
        BadInstanceError: It has no pixels, their bits do not lie at the lower end, or a table turns them into others.
        UndecodablePixelsError: No installed decoder reads them.
    """
    pydicom = import_pydicom()
    syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset:
        raise BadInstanceError(path, "a slice has no pixels; export the series again")
    bits, high = (dataset.get(keyword) for keyword in ("BitsStored", "HighBit"))
    if bits is not None and high is not None and high != bits - 1:
        raise BadInstanceError(
            path,
            f"the highest of the {bits} bits of a pixel is bit {high}, not bit {bits - 1}; export the series again",
        )
    if dataset.get("ModalityLUTSequence"):
        raise BadInstanceError(
            path, "a table (Modality LUT) turns its pixels into intensities, which is not read; export it with a slope"
        )
    try:
        usable = not syntax.is_encapsulated or pydicom.pixels.get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        usable = False
    if not usable:
        raise UndecodablePixelsError(
            path, f"no installed decoder reads {syntax.name}; install python-gdcm, or save the series uncompressed"
        )


def decode_frame(path: Path, dataset: Dataset, entry: DicomSlice) -> NDArray[Any]:
    """Stored values (rows, columns) of one frame.

    Raises:
        BadInstanceError: They are damaged, or not as many as the header says.
    """
    pydicom = import_pydicom()
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_encoded(path, _encoded_frame(pydicom, dataset, entry.frame), entry)
    try:
        pixels = np.asarray(pydicom.pixels.pixel_array(dataset, raw=True, index=entry.frame))
    except RuntimeError as error:  # what decoders raise on a damaged stream
        raise BadInstanceError(path, "the pixels of a slice are damaged; copy the series again") from error
    if pixels.shape != (entry.rows, entry.columns):
        raise BadInstanceError(path, f"a slice has {pixels.shape} pixels, not ({entry.rows}, {entry.columns})")
    return pixels


def _encoded_frame(pydicom: Any, dataset: Dataset, frame: int | None) -> bytes:
    frames = int(dataset.get("NumberOfFrames") or 1)
    offsets = {}
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = {"extended_offsets": (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)}
    data: bytes = pydicom.encaps.get_frame(dataset.PixelData, frame or 0, number_of_frames=frames, **offsets)
    return data


def _check_encoded(path: Path, data: bytes, entry: DicomSlice) -> None:
    if len(data) > 1024 + _MOST_BYTES_A_PIXEL * entry.rows * entry.columns:
        raise BadInstanceError(path, "the compressed image of a slice is longer than its pixels; copy the series again")
    start = data.find(_JPEG_2000, 0, 2**16)
    sizes = _jpeg_2000_size(data, start) if start >= 0 else _jpeg_size(data)
    if sizes is not None and sizes != (entry.rows, entry.columns):
        raise BadInstanceError(
            path,
            f"the compressed image of a slice has {sizes[0]} x {sizes[1]} pixels, its header says "
            f"{entry.rows} x {entry.columns}; export the series again",
        )


def _jpeg_2000_size(data: bytes, start: int) -> tuple[int, int]:
    columns, rows = np.frombuffer(data, ">u4", 2, start + 8).tolist()
    return rows, columns


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG or JPEG-LS image; None when it is another one, or has no end."""
    place = 2
    while data.startswith(_JPEG) and place + 9 <= len(data) and data[place] == 0xFF:
        if data[place + 1] in _SIZE_MARKERS:
            rows, columns = np.frombuffer(data, ">u2", 2, place + 5).tolist()
            return rows, columns
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
