"""DICOM segmentation objects: a mask that a picture archive can show over its scan, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.types import Volume
from medvol.imaging.dicom.links import (
    UNICODE,
    building,
    clean_label,
    equipment,
    import_highdicom,
    link_images,
    require_origin,
    stored_frames,
)
from medvol.imaging.dicom.outputs import DicomOutputs
from medvol.imaging.dicom.parsing import quiet_values
from medvol.imaging.dicom.segments import read_segments

if TYPE_CHECKING:
    from pydicom import Dataset

_SERIES_NUMBER = 9001


def write_dicom_seg(
    path: Path, mask: NDArray[np.bool_], volume: Volume, label: str, with_patient: bool = False
) -> Path:
    """Write a mask as a binary segmentation object, one frame for every slice of the scan, empty ones included.

    Args:
        path: The file.
        mask: (Z, Y, X) bool on the volume's grid.
        volume: Read from DICOM; its files must still be where they were.
        label: Name of the segment; what is longer than 64 characters is cut.
        with_patient: Copy what an archive files it by, see ``DicomOutputs``.

    Returns:
        The path.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files have no UIDs or are of a kind that cannot be referred to, or form more than one
            multi-frame file.
        GeometryError: The mask has another shape than the volume.
        MissingExtraError: highdicom is not installed.
    """
    origin = require_origin(volume)
    frames = stored_frames(mask, volume)
    if origin.slices[0].frame is not None:
        frames = frames[np.argsort([entry.frame or 0 for entry in origin.slices])]
    images = link_images(origin, with_patient)
    with building(origin):
        segmentation = _describe(images, frames, clean_label(label))
    with quiet_values(), write_whole(path) as partial:
        segmentation.save_as(partial)
    return path


def require_dicom(volume: Volume, outputs: DicomOutputs) -> None:
    """Make sure that the outputs that are asked for can be written of a volume, before a mask is worked out.

    A segmentation object needs most; one is built with frames of one pixel and thrown away. Of the scan only headers
    are read again.

    Args:
        volume: The scan.
        outputs: What is asked for.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files lack an element that an output needs, which is named, or form more than one
            multi-frame file.
        MissingExtraError: highdicom is not installed.
    """
    if not outputs:
        return
    origin = require_origin(volume)
    import_highdicom()
    images = link_images(origin, outputs.with_patient)
    for image in images:
        image.Rows = image.Columns = 1
    with building(origin):
        _describe(images, np.zeros((len(origin.slices), 1, 1), np.uint8), "segment")


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


def read_segment_voxels(path: Path, volume: Volume) -> dict[int, NDArray[np.intp]]:
    """Read all segments of a segmentation object, which may overlap, on the grid of a volume.

    Returns:
        By the number of a segment, the flat indices of its voxels (Z, Y, X); a segment without voxels is left out.

    Raises:
        BadSegmentationError: As for ``read_dicom_seg``.
        MissingExtraError: pydicom is not installed.
    """
    found: dict[int, list[NDArray[np.intp]]] = {}
    for number, voxels in read_segments(path, volume, None):
        if len(voxels[0]):
            found.setdefault(number, []).append(np.ravel_multi_index(voxels, volume.shape))
    return {number: np.concatenate(found[number]) for number in sorted(found)}


def _describe(images: list[Dataset], frames: NDArray[np.uint8], label: str) -> Any:
    highdicom = import_highdicom()
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        "medvol", codes.DCM.ArtificialIntelligence, version("medvol-r1")
    )
    segment = highdicom.seg.SegmentDescription(
        1,
        label,
        codes.SCT.Tissue,
        codes.SCT.Tissue,
        "AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=highdicom.UID(),
        tracking_id=label,
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
        **equipment(),
        content_label="MEDVOL",
        content_description=label,
        series_description=label,
        omit_empty_frames=False,
        specific_character_set=UNICODE,
    )
    segmentation.ContentCreatorName = None  # must be there, and names nobody
    return segmentation
