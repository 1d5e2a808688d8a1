"""Reading a DICOM series behind the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ScanError
from medvol.core.types import Modality
from medvol.imaging.dicom.archives import MAX_RATIO, SMALL
from medvol.imaging.dicom.files import DicomFiles
from medvol.imaging.dicom.parsing import quiet_parsing, read_dataset
from medvol.imaging.dicom.pixels import check_decodable, decode_frame
from medvol.imaging.dicom.series import choose_series, no_dicom
from medvol.imaging.dicom.slices import DicomSlice, read_slices
from medvol.imaging.dicom.stack import stack_slices
from medvol.imaging.formats.problems import TruncatedScanError
from medvol.imaging.formats.stored_scan import MAX_BYTES, StoredScan, check_affine, check_budget, check_spacing
from medvol.imaging.left_out import LeftOut, tell_left_out

_BYTES_A_PIXEL = 2

_HOUNSFIELD = ("", "HU", "HU_MOD", "US")
"""Rescale types of a CT in Hounsfield units: where none is given, or it is unspecified, the standard has these."""


@dataclass(frozen=True, eq=False)
class DicomOrigin:
    """Where the slices of a volume lie, so that a segmentation object can refer to them. It holds no patient data.

    Args:
        path: The folder, archive or file.
        slices: Along the third stored axis.
        modality: As the files say.
        unit: Of the intensities, as the files say; empty where they do not.
        left_out: What lies there and was not used.
    """

    path: Path
    slices: tuple[DicomSlice, ...] = field(repr=False)
    modality: str
    unit: str
    left_out: tuple[LeftOut, ...] = field(repr=False, default=())

    @property
    def kind(self) -> Modality:
        """The modality in medvol's terms; a CT whose values are not said to be Hounsfield units is none."""
        if self.modality == "CT" and self.unit not in _HOUNSFIELD:
            return "other"
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
        ScanError: One of ``medvol.imaging.formats.problems`` or ``medvol.imaging.dicom.problems``.
    """
    with DicomFiles(path, max_bytes) as files:
        found = _read_headers(files)
        tell_left_out(path, files.left_out)
        chosen, others = choose_series(path, found, series)
        tell_left_out(path, others)
        slices, affine = stack_slices(path, chosen)
        first = slices[0]
        shape = (first.columns, first.rows, len(slices))
        check_budget(path, shape, np.dtype(np.float32), max_bytes)
        check_spacing(path, np.linalg.norm(affine[:3, :3], axis=0).tolist())
        check_affine(path, affine)
        _check_stored(files, slices)
        voxels = np.empty(shape[::-1], np.float32)
        for index, pixels in _read_pixels(files, slices):
            with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
                voxels[index] = _to_intensities(slices[index], pixels)
    left_out = (*files.left_out, *others)
    return StoredScan(
        voxels.transpose(2, 1, 0), affine, DicomOrigin(path, tuple(slices), first.modality, first.unit, left_out)
    )


def read_study(path: Path) -> str | None:
    """UID of the study of the first image that may be of a scan; empty when it has none, None without such an image.

    Segmentation objects, reports and captured pictures, as medvol writes them beside its answers, are of no scan.

    Raises:
        ScanError: A file is refused.
    """
    with DicomFiles(path, MAX_BYTES) as files:
        sections = (entry for name in files.names() for entry in _read_file(files, name)[0] if entry.is_section)
        first = next(sections, None)
        return None if first is None else first.study


def holds_images(path: Path) -> bool:
    """True for DICOM with an image that may be of a scan, or that is refused, which is told when it is read."""
    try:
        return read_study(path) is not None
    except ScanError:
        return True


def _read_headers(files: DicomFiles) -> list[DicomSlice]:
    found: list[DicomSlice] = []
    empty = True
    for name in files.names():
        empty = False
        slices, other = _read_file(files, name)
        found += slices
        if not slices:
            files.leave_out(name, other)
    if empty:
        raise no_dicom(files.path)
    return found


def _read_file(files: DicomFiles, name: str) -> tuple[list[DicomSlice], str]:
    with files.open(name) as stream:
        return read_slices(files.path, name, stream)


def _read_pixels(files: DicomFiles, slices: Sequence[DicomSlice]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Stored values (rows, columns) of each slice with its index; every file is read once."""
    numbered = sorted(enumerate(slices), key=lambda pair: (pair[1].file, pair[1].frame or 0))
    for name, group in groupby(numbered, key=lambda pair: pair[1].file):
        with quiet_parsing(files.path), files.open_whole(name) as stream:
            dataset = read_dataset(files.path, stream)
            check_decodable(files.path, dataset)
        for index, entry in group:
            with quiet_parsing(files.path):
                pixels = decode_frame(files.path, dataset, entry)
            yield index, pixels


def _check_stored(files: DicomFiles, slices: Sequence[DicomSlice]) -> None:
    """Refuse pixels that the files cannot hold, before memory is asked for: no encoding of a scan packs better."""
    pixels = len(slices) * slices[0].rows * slices[0].columns * _BYTES_A_PIXEL
    stored = files.stored({entry.file for entry in slices})
    if pixels > SMALL and pixels > MAX_RATIO * stored:
        raise TruncatedScanError(
            files.path, f"its headers declare {pixels:,} bytes of pixels in {stored:,}; copy it again"
        )


def _to_intensities(entry: DicomSlice, pixels: NDArray[Any]) -> NDArray[np.float64]:
    values = pixels.astype(np.float64)
    if entry.inverted and entry.modality != "CT":
        values = sum(entry.stored_range) - values
    scaled: NDArray[np.float64] = values * (1.0 if entry.slope is None else entry.slope) + (entry.intercept or 0.0)
    return scaled
