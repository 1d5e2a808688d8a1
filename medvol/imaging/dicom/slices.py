"""What the header of a DICOM file says about each slice in it; no free text and no pixels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvol.imaging.dicom.parsing import quiet_parsing, read_dataset
from medvol.imaging.dicom.problems import BadInstanceError

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "ImageType", "SeriesNumber", "SeriesDescription", "AcquisitionNumber", "InstanceNumber"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    "RescaleType",
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelRepresentation"),
)
"""The elements that are read. The description serves to choose a series by it and is never told."""

_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
_ITEM = b"\xfe\xff\x00\xe0"
_ITEMS, _ITEMS_A_FRAME = 1000, 40
_MOST_FRAMES = 10_000
_SECTIONS = ("CT", "MR", "PT")
"""Kinds of files that always hold an image: without one they were cut short."""
_OTHER_OBJECTS = {
    "SEG": "a segmentation object",
    "SR": "a report",
    "RTSTRUCT": "contours for radiotherapy",
    "RTPLAN": "a plan for radiotherapy",
    "RTDOSE": "a dose distribution",
    "RTRECORD": "a record of radiotherapy",
    "PR": "a presentation state",
    "KO": "a selection of images",
    "REG": "a registration",
    "DOC": "a document",
    "SM": "microscopy",
    "ECG": "a curve",
}


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
        slope: Of the rescaling to intensities; None when absent, NaN when it is no number.
        intercept: Likewise.
        unit: Of the intensities, as the file says (its rescale type), such as ``HU``; empty when absent.
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
    unit: str

    @property
    def is_section(self) -> bool:
        """True for what may be of a scan: it says where it lies, or should; a captured picture does neither."""
        return self.position is not None or (self.grey and self.modality in _SECTIONS)


def read_slices(path: Path, file: str, stream: BinaryIO) -> tuple[list[DicomSlice], str]:
    """Slices of one DICOM file.

    Args:
        path: Folder or archive to name in an error.
        file: Name of the file in it.
        stream: The file.

    Returns:
        The slices; and what the file is instead when there are none, such as ``is a report``, empty when there are.

    Raises:
        BadInstanceError: It cannot be parsed.
        UndecodablePixelsError: Its header is packed.
    """
    with quiet_parsing(path):
        dataset = read_dataset(path, stream, HEADER)
        modality = dataset.get("Modality")
        if "Rows" not in dataset and modality in _SECTIONS and not stream.read(1):
            raise BadInstanceError(path, "a file in it ends before its image; copy the series again")
        if "Rows" not in dataset or modality in ("SEG", "RTDOSE"):
            return [], f"is {_OTHER_OBJECTS.get(modality, 'DICOM without an image')}"
        return describe_frames(path, file, dataset), ""


def describe_frames(path: Path, file: str, dataset: Dataset) -> list[DicomSlice]:
    """Every frame of a file: one, or as many as it describes.

    Raises:
        BadInstanceError: It describes another number than it declares, or more than any scan has.
    """
    frames = int(dataset.get("NumberOfFrames") or 1)
    _check_groups(path, dataset, min(frames, _MOST_FRAMES))
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if frames < 1 or (groups and len(groups) != frames):
        raise BadInstanceError(path, f"a file in it declares {frames:,} frames, not those that it describes")
    if not groups:  # frames that are not described one by one have no places; two of them show it
        return [_describe(dataset, file, frame) for frame in ((None,) if frames == 1 else (0, 1))]
    return [_describe(dataset, file, frame) for frame in range(frames)]


def _check_groups(path: Path, dataset: Dataset, frames: int) -> None:
    """Count the items of functional groups before they are parsed, which takes a thousand times as long."""
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        raw: Any = dataset.get_item(keyword) if keyword in dataset else None
        value = getattr(raw, "value", None)  # a sequence that does not tell its length was parsed already
        if isinstance(value, bytes) and value.count(_ITEM) > _ITEMS + _ITEMS_A_FRAME * frames:
            raise BadInstanceError(path, "the frames of a file in it are described at a length that no scan needs")


def _describe(dataset: Dataset, file: str, frame: int | None) -> DicomSlice:
    value = _ElementReader(dataset, frame)
    orientation, spacing = value.numbers("ImageOrientationPatient", 6), value.numbers("PixelSpacing", 2)
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
        slope=value.rescaling("RescaleSlope"),
        intercept=value.rescaling("RescaleIntercept"),
        unit=value.rescaled_to(),
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

    def rescaling(self, keyword: str) -> float | None:
        """A number; None when absent, and NaN when there is something that is no number."""
        if self._find(keyword) in (None, ""):
            return None
        numbers = self.numbers(keyword, 1)
        return math.nan if numbers is None else float(numbers[0])

    def rescaled_to(self) -> str:
        """What the rescaling gives, in the terms of the standard; empty when the file does not say."""
        return str(self._find("RescaleType") or "").strip().upper()

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
