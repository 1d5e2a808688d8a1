"""Links: what a DICOM object that is made of a scan says of the files it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError, GeometryError, MissingExtraError
from medvol.core.types import Volume
from medvol.imaging.dicom.files import DicomFiles
from medvol.imaging.dicom.parsing import quiet_parsing, quiet_values, read_dataset
from medvol.imaging.dicom.problems import MissingLinksError
from medvol.imaging.dicom.reading import DicomOrigin
from medvol.imaging.formats.stored_scan import MAX_BYTES
from medvol.imaging.writing import to_stored_axes

if TYPE_CHECKING:
    from pydicom import Dataset

UNICODE = "ISO_IR 192"

PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""What an archive files an object by."""

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_LINKS = (
    *(*_UIDS, "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "ImageType"),
)
_TEXT_LENGTH = 64
_GONE = "its files are no longer there; put them back, or read the scan where it lies now"


def require_origin(volume: Volume) -> DicomOrigin:
    """Where the DICOM of a volume lies.

    Raises:
        ConfigError: It was not read from DICOM.
    """
    origin = None if volume.source is None else volume.source.header
    if not isinstance(origin, DicomOrigin):
        raise ConfigError("DICOM outputs refer to the DICOM that they were made from, and this scan is none")
    return origin


def link_images(origin: DicomOrigin, with_patient: bool = False) -> list[Dataset]:
    """Headers of the source files with nothing in them but what an object that refers to them needs.

    Args:
        origin: Where they lie.
        with_patient: Keep what an archive files an object by; it is empty otherwise.

    Returns:
        One header a file, in the order of the slices.

    Raises:
        MissingLinksError: A file has no UID of some kind, they are more than one multi-frame file, or they are no
            longer the files that were read.
    """
    if not origin.path.exists():
        raise MissingLinksError(origin.path, _GONE)
    read = {entry.file: entry.instance for entry in origin.slices}
    names = list(read)
    if origin.slices[0].frame is not None and len(names) > 1:
        raise MissingLinksError(origin.path, "its frames lie in several multi-frame files; a mask can refer to one")
    wanted = (*_LINKS, *(PATIENT if with_patient else ()))
    images = []
    with quiet_parsing(origin.path), DicomFiles(origin.path, MAX_BYTES) as files:
        for name in names:
            try:
                with files.open(name) as stream:
                    image = read_dataset(origin.path, stream, wanted)
            except FileNotFoundError as error:
                raise MissingLinksError(origin.path, _GONE) from error
            if missing := [uid for uid in _UIDS if not image.get(uid)]:
                raise MissingLinksError(
                    origin.path,
                    f"a slice has no {' and no '.join(missing)}, so no DICOM output can refer to it; leave dicom out",
                )
            if str(image.SOPInstanceUID).strip() != read[name]:
                raise MissingLinksError(
                    origin.path, "its files are no longer those that were read; segment the scan that lies there now"
                )
            for keyword in PATIENT:
                if keyword not in image:
                    setattr(image, keyword, None)
            if not with_patient and "SpecificCharacterSet" in image:
                del image.SpecificCharacterSet
            _tell_sizes(image, origin)
            images.append(image)
    return images


def stored_frames(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.uint8]:
    """A mask (Z, Y, X) on the grid of its files: (slices, rows, columns), slices in the order of the origin's.

    Raises:
        GeometryError: It has another shape than the volume.
    """
    if mask.shape != volume.shape:
        raise GeometryError(f"the mask has shape {mask.shape} (Z, Y, X), its volume {volume.shape}; they must agree")
    return np.ascontiguousarray(to_stored_axes(mask, volume).transpose(2, 1, 0))


@contextmanager
def building(origin: DicomOrigin) -> Iterator[None]:
    """Turn what pydicom and highdicom say of elements that they cannot use into one sentence without values.

    Raises:
        MissingLinksError: An object cannot be built.
    """
    try:
        with quiet_values():
            yield
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise MissingLinksError(
            origin.path, f"no DICOM output can refer to it ({type(error).__name__}); leave dicom out"
        ) from None


def equipment() -> dict[str, str]:
    """Who made an object, by keyword of highdicom."""
    release = version("medvol-r1")
    return {
        "manufacturer": "medvol",
        "manufacturer_model_name": "medvol-r1",
        "software_versions": release,
        "device_serial_number": release,
    }


def clean_label(label: str) -> str:
    """A text that DICOM can hold in one element."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", label).strip()[:_TEXT_LENGTH].strip() or "segment"


def import_highdicom() -> Any:
    """The library that builds DICOM objects.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom") from error
    return highdicom


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
