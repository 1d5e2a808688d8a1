"""Reading a DICOM series behind the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.imaging.dicom.files import DicomFiles
from medvol.core.imaging.dicom.problems import BadInstanceError, UndecodablePixelsError
from medvol.core.imaging.dicom.series import choose_series, no_dicom
from medvol.core.imaging.dicom.slices import DicomSlice, import_pydicom, quiet_parsing, read_dataset, read_slices
from medvol.core.imaging.dicom.stack import stack_slices
from medvol.core.imaging.stored import MAX_BYTES, StoredScan, check_affine, check_budget, check_spacing
from medvol.core.types import Modality

if TYPE_CHECKING:
    from pydicom import Dataset

_CODESTREAM = b"\xff\x4f\xff\x51"
_SIZES_AT = 8


@dataclass(frozen=True, eq=False)
class DicomOrigin:
    """Where the slices of a volume lie, so that a segmentation object can refer to them. It holds no patient data.

    Args:
        path: The folder, archive or file.
        slices: Along the third stored axis.
        modality: As the files say.
    """

    path: Path
    slices: tuple[DicomSlice, ...] = field(repr=False)
    modality: str

    @property
    def kind(self) -> Modality:
        """The modality in medvol's terms."""
        return self.modality if self.modality in get_args(Modality) else "other"  # type: ignore[return-value]


def read_dicom(path: Path, series: str | None, max_bytes: int) -> StoredScan:
    """Read one series of a folder, a zip archive or a multi-frame file.

    Intensities are rescaled slice by slice. Values of a CT are Hounsfield units whichever way they are to be displayed;
    other scans whose small values are bright (MONOCHROME1) are turned over, so that bright is large in every volume.

    Args:
        path: Folder, archive or file.
        series: See ``choose_series``.
        max_bytes: Budget for the voxels as float32, judged before pixels are read.

    Raises:
        ScanError: One of ``medvol.core.imaging.problems`` or ``medvol.core.imaging.dicom.problems``.
    """
    with DicomFiles(path, max_bytes) as files:
        slices, affine = stack_slices(path, choose_series(path, _read_headers(files), series))
        first = slices[0]
        shape = (first.columns, first.rows, len(slices))
        check_budget(path, shape, np.dtype(np.float32), max_bytes)
        check_spacing(path, np.linalg.norm(affine[:3, :3], axis=0).tolist())
        check_affine(path, affine)
        voxels = np.empty(shape[::-1], np.float32)
        for index, pixels in _read_pixels(files, slices):
            voxels[index] = _to_intensities(slices[index], pixels)
    return StoredScan(voxels.transpose(2, 1, 0), affine, DicomOrigin(path, tuple(slices), first.modality))


def read_study(path: Path) -> str | None:
    """UID of the study that the first DICOM file belongs to; empty when it has none, None when there is no DICOM.

    Raises:
        ScanError: The file is refused.
    """
    with DicomFiles(path, MAX_BYTES) as files:
        for name in files.names():
            with quiet_parsing(path), files.open(name) as stream:
                return str(read_dataset(path, stream, ["StudyInstanceUID"]).get("StudyInstanceUID") or "")
    return None


def _read_headers(files: DicomFiles) -> list[DicomSlice]:
    found: list[DicomSlice] = []
    empty = True
    for name in files.names():
        empty = False
        with files.open(name) as stream:
            found += read_slices(files.path, name, stream)
    if empty:
        raise no_dicom(files.path)
    return found


def _read_pixels(files: DicomFiles, slices: Sequence[DicomSlice]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Stored values (rows, columns) of each slice with its index; every file is read once."""
    numbered = sorted(enumerate(slices), key=lambda pair: (pair[1].file, pair[1].frame or 0))
    for name, group in groupby(numbered, key=lambda pair: pair[1].file):
        with quiet_parsing(files.path):
            dataset = read_dataset(files.path, files.load(name))
            _check_decodable(files.path, dataset)
        for index, entry in group:
            with quiet_parsing(files.path):
                pixels = _decode(files.path, dataset, entry)
            yield index, pixels


def _check_decodable(path: Path, dataset: Dataset) -> None:
    pydicom = import_pydicom()
    syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset:
        raise BadInstanceError(path, "a slice has no pixels; export the series again")
    try:
        usable = not syntax.is_encapsulated or pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        raise UndecodablePixelsError(
            path, f"no installed decoder reads {syntax.name}; install python-gdcm, or save the series uncompressed"
        )
    if syntax.is_encapsulated:
        _check_codestream(path, dataset)


def _check_codestream(path: Path, dataset: Dataset) -> None:
    """A JPEG 2000 stream as large as the header says: a decoder takes memory by the stream."""
    data = bytes(dataset.PixelData[: 2**16])
    start = data.find(_CODESTREAM)
    if start >= 0:
        sizes = np.frombuffer(data[start + _SIZES_AT : start + _SIZES_AT + 8], ">u4").tolist()
        if sizes != [dataset.Columns, dataset.Rows]:
            raise BadInstanceError(path, f"the compressed image of a slice has {sizes} pixels, its header other ones")


def _decode(path: Path, dataset: Dataset, entry: DicomSlice) -> NDArray[Any]:
    pydicom = import_pydicom()
    try:
        pixels = np.asarray(pydicom.pixels.pixel_array(dataset, raw=True, index=entry.frame))
    except RuntimeError as error:  # what decoders raise on a damaged stream
        raise BadInstanceError(path, "the pixels of a slice are damaged; copy the series again") from error
    if pixels.shape != (entry.rows, entry.columns):
        raise BadInstanceError(path, f"a slice has {pixels.shape} pixels, not ({entry.rows}, {entry.columns})")
    return pixels


def _to_intensities(entry: DicomSlice, pixels: NDArray[Any]) -> NDArray[np.float64]:
    values = pixels.astype(np.float64)
    if entry.inverted and entry.modality != "CT":
        values = sum(entry.stored_range) - values
    scaled: NDArray[np.float64] = values * (1.0 if entry.slope is None else entry.slope) + (entry.intercept or 0.0)
    return scaled
