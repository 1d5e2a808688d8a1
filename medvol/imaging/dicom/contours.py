"""Contours (RTSTRUCT): the outline of a mask on every slice, for planning systems of radiotherapy."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.types import Volume
from medvol.imaging.dicom.links import (
    PATIENT,
    UNICODE,
    building,
    clean_label,
    link_images,
    require_origin,
    stored_frames,
)
from medvol.imaging.dicom.parsing import quiet_values
from medvol.imaging.dicom.slices import DicomSlice
from medvol.imaging.outlines import trace_outlines

if TYPE_CHECKING:
    from pydicom import Dataset

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_SERIES_NUMBER = 9003
_COLOUR = [6, 214, 160]
_DECIMALS = 4
"""Of a coordinate in mm."""


def write_contours(path: Path, mask: NDArray[np.bool_], volume: Volume, label: str, with_patient: bool = False) -> Path:
    """Write a mask as a structure set with one structure: closed polygons on every slice that it lies on.

    A polygon holds the centres of the mask's pixels and no others, see ``trace_outlines``; holes are keyholes.

    Args:
        path: The file.
        mask: (Z, Y, X) bool on the volume's grid; an empty one gives a structure without contours.
        volume: Read from DICOM; its files must still be where they were.
        label: Name of the structure; what is longer than 64 characters is cut.
        with_patient: Copy what an archive files it by, see ``DicomOutputs``.

    Returns:
        The path.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files cannot be referred to.
        GeometryError: The mask has another shape than the volume.
    """
    origin = require_origin(volume)
    frames = stored_frames(mask, volume).astype(np.bool_)
    images = link_images(origin, with_patient)
    with building(origin):
        structures = _describe(images[0], clean_label(label))
        classes = {str(image.SOPInstanceUID): str(image.SOPClassUID) for image in images}
        references = [_refer(entry, classes) for entry in origin.slices]
        frame_of_reference = structures.ReferencedFrameOfReferenceSequence[0]
        series = frame_of_reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
        series.ContourImageSequence = references
        contours = [
            _contour(polygon, entry, reference)
            for frame, entry, reference in zip(frames, origin.slices, references, strict=True)
            for polygon in trace_outlines(frame)
        ]
        if contours:
            structures.ROIContourSequence[0].ContourSequence = contours
    with quiet_values(), write_whole(path) as partial:
        structures.save_as(partial, enforce_file_format=True)
    return path


def _describe(image: Dataset, label: str) -> Any:
    """A structure set with one structure, without contours and images.

    Its encoding is the implicit one: the explicit one has no room for a contour of more than 64 kB.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

    now, release = datetime.now(), version("medvol-r1")
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.SpecificCharacterSet = UNICODE
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword in PATIENT:
        value = image.get(keyword)
        setattr(made, keyword, None if value is None else str(value))
    made.StudyInstanceUID, made.SeriesInstanceUID = image.StudyInstanceUID, generate_uid()
    made.Modality, made.SeriesNumber, made.SeriesDescription = "RTSTRUCT", _SERIES_NUMBER, label
    made.OperatorsName, made.InstanceNumber = None, 1
    made.Manufacturer, made.ManufacturerModelName = "medvol", "medvol-r1"
    made.SoftwareVersions, made.DeviceSerialNumber = release, release
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = image.FrameOfReferenceUID, None
    made.StructureSetLabel = "MEDVOL"
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    made.ReferencedFrameOfReferenceSequence = [_describe_frame(image)]
    roi = {"ROINumber": 1, "ROIName": label, "ROIGenerationAlgorithm": "AUTOMATIC"}
    made.StructureSetROISequence = [_of(ReferencedFrameOfReferenceUID=image.FrameOfReferenceUID, **roi)]
    made.ROIContourSequence = [_of(ReferencedROINumber=1, ROIDisplayColor=_COLOUR)]
    made.RTROIObservationsSequence = [
        _of(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="", ROIInterpreter=None)
    ]
    return made


def _describe_frame(image: Dataset) -> Dataset:
    """The coordinate system of the contours, and the study and the series that it comes from."""
    study = _of(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=image.StudyInstanceUID,
        RTReferencedSeriesSequence=[_of(SeriesInstanceUID=image.SeriesInstanceUID)],
    )
    return _of(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _refer(entry: DicomSlice, classes: dict[str, str]) -> Dataset:
    frame = {} if entry.frame is None else {"ReferencedFrameNumber": entry.frame + 1}
    return _of(ReferencedSOPClassUID=classes[entry.instance], ReferencedSOPInstanceUID=entry.instance, **frame)


def _contour(polygon: NDArray[np.float64], entry: DicomSlice, reference: Dataset) -> Dataset:
    """A polygon (N, 2) of columns and rows, in mm of the patient."""
    assert entry.position is not None
    assert entry.spacing is not None
    assert entry.orientation is not None
    points = entry.position + (polygon * entry.spacing[::-1]) @ entry.orientation
    return _of(
        ContourImageSequence=[reference],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.10g}" for value in (points.round(_DECIMALS) + 0.0).ravel().tolist()],
    )


def _of(**elements: Any) -> Dataset:
    """A data set of elements."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made
