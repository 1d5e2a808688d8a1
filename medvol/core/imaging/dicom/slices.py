"""What the header of a DICOM file says about each slice in it; no free text and no pixels are read."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import MedvolError, MissingExtraError
from medvol.core.imaging.dicom.problems import BadInstanceError, UndecodablePixelsError

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax that packs the whole file, header included: nothing in it can be judged before it is inflated."""

HEADER = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "ImageType", "SeriesNumber", "SeriesDescription", "AcquisitionNumber", "InstanceNumber"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelRepresentation"),
)
"""The elements that are read. The description serves to choose a series by it and is never told."""

_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
_DAMAGE = (
    *(struct.error, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(OSError, NotImplementedError, RecursionError),
)
_META_AT = 132


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One slice: a file, or one frame of a multi-frame file.

    Args:
        file: Name among the files of its folder or archive.
        frame: Index in a multi-frame file; None for a file of one slice.
        instance: SOP instance UID.
        study: Study instance UID.
        series: Series instance UID.
        frame_of_reference: UID of the coordinate system of ``position``; empty when absent.
        number: Series number as text; empty when absent.
        description: Series description; only for comparison.
        modality: Such as ``CT``.
        localizer: True for a scout view.
        acquisition: Acquisition number as text.
        rows: Of the slice.
        columns: Of the slice.
        grey: True for one grey value a pixel.
        inverted: True when small stored values are bright (MONOCHROME1).
        stored_range: Smallest and largest value that a pixel can hold.
        position: Centre of the first pixel, LPS mm, (3,); None when absent or not made of numbers.
        orientation: Direction of a row and of a column, LPS, (2, 3); None likewise.
        spacing: Distance of rows and of columns in mm; None likewise.
        slope: Of the rescaling to intensities; None when absent.
        intercept: Likewise.
    """

    file: str = field(repr=False)
    frame: int | None
    instance: str
    study: str
    series: str
    frame_of_reference: str
    number: str
    description: str = field(repr=False)
    modality: str
    localizer: bool
    acquisition: str
    rows: int
    columns: int
    grey: bool
    inverted: bool
    stored_range: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    slope: float | None
    intercept: float | None


def read_slices(path: Path, file: str, stream: BinaryIO) -> list[DicomSlice]:
    """Slices of one DICOM file; none for a file without an image, such as a report or a plan, or for a segmentation.

    Args:
        path: Folder or archive to name in an error.
        file: Name of the file in it.
        stream: The file.

    Raises:
        BadInstanceError: It cannot be parsed.
        UndecodablePixelsError: Its header is packed.
    """
    with quiet_parsing(path):
        dataset = read_dataset(path, stream, HEADER)
        if "Rows" not in dataset or dataset.get("Modality") in ("SEG", "RTDOSE"):
            return []
        frames, groups = int(dataset.get("NumberOfFrames") or 1), dataset.get("PerFrameFunctionalGroupsSequence")
        if frames < 1 or (groups and len(groups) != frames):
            raise BadInstanceError(path, f"a file in it declares {frames:,} frames, not those that it describes")
        if not groups:  # frames that are not described one by one have no places; two of them show it
            return [_describe(dataset, file, frame) for frame in ((None,) if frames == 1 else (0, 1))]
        return [_describe(dataset, file, frame) for frame in range(frames)]


def read_dataset(path: Path, stream: BinaryIO, keywords: Sequence[str] | None = None) -> Dataset:
    """Parse a DICOM file.

    Args:
        path: Folder or archive to name in an error.
        stream: The file.
        keywords: Elements to read, without pixels; everything when None.

    Raises:
        UndecodablePixelsError: Its header is packed.
    """
    pydicom = import_pydicom()
    stream.seek(_META_AT)
    meta = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DEFLATED:
        raise UndecodablePixelsError(path, "a file in it is deflated as a whole; save the series uncompressed")
    stream.seek(0)
    tags = None if keywords is None else list(keywords)
    dataset: Dataset = pydicom.dcmread(stream, stop_before_pixels=keywords is not None, specific_tags=tags)
    return dataset


@contextmanager
def quiet_parsing(path: Path) -> Iterator[None]:
    """Turn whatever pydicom raises on a damaged file into one sentence.

    Its messages quote values, which may name a patient: they are silenced, and no error is chained to it.

    Raises:
        BadInstanceError: The file cannot be parsed.
    """
    pydicom = import_pydicom()
    try:
        with quiet_values():
            yield
    except MedvolError:
        raise
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, *_DAMAGE) as error:
        raise BadInstanceError(
            path, f"a DICOM file in it cannot be parsed ({type(error).__name__}); export the series again"
        ) from None


@contextmanager
def quiet_values() -> Iterator[None]:
    """Silence the warnings and the log of pydicom, which quote values."""
    pydicom = import_pydicom()
    logger = logging.getLogger("pydicom")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def import_pydicom() -> Any:
    """The library that parses DICOM.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pydicom
        import pydicom.errors
        import pydicom.filereader
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom") from error
    return pydicom


def _describe(dataset: Dataset, file: str, frame: int | None) -> DicomSlice:
    value = _ElementReader(dataset, frame)
    orientation, spacing = value.numbers("ImageOrientationPatient", 6), value.numbers("PixelSpacing", 2)
    slope, intercept = value.numbers("RescaleSlope", 1), value.numbers("RescaleIntercept", 1)
    photometric = value.text("PhotometricInterpretation")
    bits, signed = int(dataset.get("BitsStored") or 16), bool(dataset.get("PixelRepresentation"))
    low = -(2 ** (bits - 1)) if signed else 0
    return DicomSlice(
        file=file,
        frame=frame,
        instance=value.text("SOPInstanceUID") or str(dataset.file_meta.get("MediaStorageSOPInstanceUID", "")),
        study=value.text("StudyInstanceUID"),
        series=value.text("SeriesInstanceUID"),
        frame_of_reference=value.text("FrameOfReferenceUID"),
        number=value.text("SeriesNumber"),
        description=value.text("SeriesDescription"),
        modality=value.text("Modality"),
        localizer="LOCALIZER" in (str(word).upper() for word in value.words("ImageType")),
        acquisition=value.text("AcquisitionNumber"),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        grey=int(dataset.get("SamplesPerPixel") or 1) == 1 and photometric in ("MONOCHROME1", "MONOCHROME2"),
        inverted=photometric == "MONOCHROME1",
        stored_range=(low, low + 2**bits - 1),
        position=value.numbers("ImagePositionPatient", 3),
        orientation=None if orientation is None else orientation.reshape(2, 3),
        spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        slope=None if slope is None else float(slope[0]),
        intercept=None if intercept is None else float(intercept[0]),
    )


@dataclass(frozen=True)
class _ElementReader:
    """Values of one slice: of its own functional group, the shared one, or the file."""

    dataset: Dataset
    frame: int | None

    def text(self, keyword: str) -> str:
        value = self.dataset.get(keyword)
        return "" if value is None else str(value).strip()

    def words(self, keyword: str) -> list[Any]:
        value = self.dataset.get(keyword)
        return [value] if isinstance(value, str) else list(value or ())

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64] | None:
        """Exactly ``count`` finite numbers, or None."""
        value = self._find(keyword)
        values = [value] if isinstance(value, str | int | float) else list(value or ())
        try:
            numbers = [float(item) for item in values]
        except (TypeError, ValueError):
            return None
        return np.array(numbers) if len(numbers) == count and all(map(math.isfinite, numbers)) else None

    def _find(self, keyword: str) -> Any:
        if self.frame is None:
            return self.dataset.get(keyword)
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        own = per_frame[self.frame : self.frame + 1]
        for group in (*own, *(self.dataset.get("SharedFunctionalGroupsSequence") or [])):
            for item in group.get(_GROUPS[keyword]) or []:
                if keyword in item:
                    return item.get(keyword)
        return self.dataset.get(keyword) if keyword.startswith("Rescale") else None  # a place is a frame's own
