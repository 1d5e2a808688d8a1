"""DICOM segmentation objects: a mask that a picture archive can show over its scan, and the way back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.errors import ConfigError, GeometryError, MissingExtraError
from medvol.core.types import DicomSegKind, Volume
from medvol.imaging.dicom.files import DicomFiles
from medvol.imaging.dicom.parsing import quiet_parsing, quiet_values, read_dataset
from medvol.imaging.dicom.problems import BadSegmentationError, MissingLinksError
from medvol.imaging.dicom.reading import DicomOrigin
from medvol.imaging.dicom.segments import read_segments
from medvol.imaging.formats.stored_scan import MAX_BYTES
from medvol.imaging.writing import to_stored_axes

if TYPE_CHECKING:
    from pydicom import Dataset

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_LINKS = (
    *(*_UIDS, "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "ImageType"),
)
_PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_UNICODE = "ISO_IR 192"
_SERIES_NUMBER = 9001
_TEXT_LENGTH = 64


def write_dicom_seg(
    path: Path, mask: NDArray[np.bool_], volume: Volume, label: str, kind: DicomSegKind = "anonymous"
) -> Path:
    """Write a mask as a binary segmentation object, one frame for every slice of the scan, empty ones included.

    Args:
        path: The file.
        mask: (Z, Y, X) bool on the volume's grid.
        volume: Read from DICOM; its files must still be where they were.
        label: Name of the segment; what is longer than 64 characters is cut.
        kind: ``anonymous`` copies no element of the patient or the study but their UIDs; ``with_patient`` copies
            what an archive files an object by: name, number, birth date, sex, study date and number, referrer.

    Returns:
        The path.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files have no UIDs or are of a kind that cannot be referred to, or form more than one
            multi-frame file.
        GeometryError: The mask has another shape than the volume.
        MissingExtraError: highdicom is not installed.
    """
    origin = _origin(volume)
    if mask.shape != volume.shape:
        raise GeometryError(f"the mask has shape {mask.shape} (Z, Y, X), its volume {volume.shape}; they must agree")
    frames = to_stored_axes(mask, volume).transpose(2, 1, 0)
    if origin.slices[0].frame is not None:
        frames = frames[np.argsort([entry.frame or 0 for entry in origin.slices])]
    segmentation = _build(origin, _link_images(origin, kind), np.ascontiguousarray(frames), _clean(label))
    with quiet_values(), write_whole(path) as partial:
        segmentation.save_as(partial)
    return path


def require_dicom_seg(volume: Volume, kind: DicomSegKind = "anonymous") -> None:
    """Make sure that ``write_dicom_seg`` will be able to write a mask of a volume, before the mask is worked out.

    The object is built with frames of one pixel and thrown away; of the scan only headers are read again.

    Args:
        volume: The scan.
        kind: As for ``write_dicom_seg``.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files lack an element that a segmentation object needs, which is named, or form more
            than one multi-frame file.
        MissingExtraError: highdicom is not installed.
    """
    origin = _origin(volume)
    _import_highdicom()
    images = _link_images(origin, kind)
    for image in images:
        image.Rows = image.Columns = 1
    _build(origin, images, np.zeros((len(origin.slices), 1, 1), np.uint8), "segment")


def _origin(volume: Volume) -> DicomOrigin:
    origin = None if volume.source is None else volume.source.header
    if not isinstance(origin, DicomOrigin):
        raise ConfigError("a DICOM segmentation refers to the DICOM it was made from, and this scan is none")
    return origin


def read_dicom_seg(path: Path, volume: Volume, segments: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Read segments of a segmentation object on the grid of a volume.

    Args:
        path: The file.
        volume: The scan it belongs to; frames that the object leaves out are empty.
        segments: Numbers of the segments; all of them when None.

    Returns:
        Mask (Z, Y, X) bool, the union of the segments; where the object holds shares, voxels of at least half.

    Raises:
        BadSegmentationError: It is no segmentation object, lies on another grid, or lacks a segment.
        MissingExtraError: pydicom is not installed.
    """
    mask = np.zeros(volume.shape, np.bool_)
    for _, voxels in read_segments(path, volume, segments):
        mask[voxels] = True
    return mask


def read_dicom_labels(path: Path, volume: Volume) -> NDArray[np.int32]:
    """Read a segmentation object as a label map (Z, Y, X) on the grid of a volume: numbers of segments, 0 elsewhere.

    Raises:
        BadSegmentationError: As for ``read_dicom_seg``, or segments overlap.
        MissingExtraError: pydicom is not installed.
    """
    labels = np.zeros(volume.shape, np.int32)
    for number, voxels in read_segments(path, volume, None):
        before = labels[voxels]
        if ((before != 0) & (before != number)).any():
            raise BadSegmentationError(path, "its segments overlap; name one of them")
        labels[voxels] = number
    return labels


def _link_images(origin: DicomOrigin, kind: DicomSegKind) -> list[Dataset]:
    """Headers of the source files with nothing in them but what a segmentation object needs."""
    names = list(dict.fromkeys(entry.file for entry in origin.slices))
    if origin.slices[0].frame is not None and len(names) > 1:
        raise MissingLinksError(origin.path, "its frames lie in several multi-frame files; a mask can refer to one")
    wanted = (*_LINKS, *(_PATIENT if kind == "with_patient" else ()))
    images = []
    with quiet_parsing(origin.path), DicomFiles(origin.path, MAX_BYTES) as files:
        for name in names:
            with files.open(name) as stream:
                image = read_dataset(origin.path, stream, wanted)
            if missing := [uid for uid in _UIDS if not image.get(uid)]:
                raise MissingLinksError(
                    origin.path,
                    f"a slice has no {' and no '.join(missing)}, so no DICOM segmentation can refer to it; "
                    "leave dicom_seg out",
                )
            for keyword in _PATIENT:
                if keyword not in image:
                    setattr(image, keyword, None)
            if kind == "anonymous" and "SpecificCharacterSet" in image:
                del image.SpecificCharacterSet
            _tell_sizes(image, origin)
            images.append(image)
    return images


def _build(origin: DicomOrigin, images: list[Dataset], frames: NDArray[np.uint8], label: str) -> Any:
    try:
        with quiet_values():
            return _describe(images, frames, label)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise MissingLinksError(
            origin.path, f"no DICOM segmentation can refer to it ({type(error).__name__}); leave dicom_seg out"
        ) from None


def _tell_sizes(image: Dataset, origin: DicomOrigin) -> None:
    """Say how large voxels are; slices are as thick as they are apart, whatever the files say of it or do not say."""
    from pydicom import Dataset
    from pydicom.valuerep import DSfloat

    first, last = origin.slices[0], origin.slices[-1]
    assert first.position is not None
    assert last.position is not None
    assert first.spacing is not None
    assert first.orientation is not None
    apart = float(np.linalg.norm(last.position - first.position)) / (len(origin.slices) - 1)
    measures, orientation = Dataset(), Dataset()
    measures.SliceThickness = measures.SpacingBetweenSlices = DSfloat(apart, auto_format=True)
    if first.frame is None:
        image.update(measures)
        return
    measures.PixelSpacing = [DSfloat(size, auto_format=True) for size in first.spacing]
    orientation.ImageOrientationPatient = [DSfloat(part, auto_format=True) for part in first.orientation.ravel()]
    shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]


def _describe(images: list[Dataset], frames: NDArray[np.uint8], label: str) -> Any:
    highdicom = _import_highdicom()
    from pydicom.sr.codedict import codes

    release = version("medvol-r1")
    algorithm = highdicom.AlgorithmIdentificationSequence("medvol", codes.DCM.ArtificialIntelligence, release)
    segment = highdicom.seg.SegmentDescription(
        1, label, codes.SCT.Tissue, codes.SCT.Tissue, "AUTOMATIC", algorithm_identification=algorithm
    )
    segmentation = highdicom.seg.Segmentation(
        images,
        frames,
        "BINARY",
        [segment],
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medvol",
        manufacturer_model_name="medvol-r1",
        software_versions=release,
        device_serial_number=release,
        content_label="MEDVOL",
        content_description=label,
        series_description=label,
        omit_empty_frames=False,
        specific_character_set=_UNICODE,
    )
    segmentation.ContentCreatorName = None  # must be there, and names nobody
    return segmentation


def _clean(label: str) -> str:
    """A text that DICOM can hold in one element."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", label).strip()[:_TEXT_LENGTH].strip() or "segment"


def _import_highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom") from error
    return highdicom
