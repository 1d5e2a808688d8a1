"""Segments of a segmentation object, frame by frame, on the grid of a scan: whichever program wrote them.

Every frame is placed by its own position, so neither a slice thickness nor a distance of slices is needed, and frames
may come in any order, leave empty slices out, or overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.notices import tell_once
from medvol.core.types import Volume
from medvol.imaging.dicom.files import starts_as_dicom
from medvol.imaging.dicom.parsing import quiet_parsing, read_dataset
from medvol.imaging.dicom.pixels import check_decodable, decode_frame
from medvol.imaging.dicom.problems import BadSegmentationError
from medvol.imaging.dicom.reading import DicomOrigin
from medvol.imaging.dicom.slices import DicomSlice, describe_frames
from medvol.imaging.formats.itk_geometry import RAS
from medvol.imaging.formats.problems import MissingScanError

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TOLERANCE_MM = 0.15
"""How far a pixel may lie from its voxel: slices may lie 0.1 mm beside an even grid, and positions are rounded."""
_TOLERANCE_VOXELS = 0.25
_HEAD = 4096


def read_segments(
    path: Path, volume: Volume, segments: Sequence[int] | None
) -> Iterator[tuple[int, tuple[NDArray[np.intp], ...]]]:
    """Voxels of each segment in each frame.

    Args:
        path: The file.
        volume: The scan it belongs to.
        segments: Numbers of the segments; all of them when None.

    Returns:
        Number of a segment, and indices (z, y, x) of voxels that belong to it: those of at least half where the
        object holds shares. A segment comes up once for every frame that it has.

    Raises:
        BadSegmentationError: It is no segmentation object, lies on another grid, or lacks a segment.
    """
    if not path.is_file():
        raise MissingScanError(path, "there is no such file; check the path")
    with quiet_parsing(path), path.open("rb") as stream:
        if not starts_as_dicom(stream.read(_HEAD)):
            raise BadSegmentationError(path, "it is no DICOM; give a segmentation object")
        dataset = read_dataset(path, stream)
        stored = _describe(path, dataset)
    _tell_other_frame(path, stored, volume)
    wanted = set(stored.numbers if segments is None else segments)
    if not wanted <= stored.numbers:
        raise BadSegmentationError(path, f"it has the segments {sorted(stored.numbers)}, not {sorted(wanted)}")
    to_voxels = np.asarray(np.linalg.inv(RAS @ volume.affine), np.float64)
    for frame, number in zip(stored.frames, stored.frame_numbers, strict=True):
        if number is None or number in wanted:
            with quiet_parsing(path):
                values = _decode(path, volume, dataset, frame)
            inside = values > 0 if number is None else values >= stored.least
            places = _place(path, volume, to_voxels, frame, inside)
            if number is not None:
                yield number, places
            else:
                found = values[inside]
                shown = set(np.unique(found).tolist())
                _require_described(path, shown, stored.numbers)
                for one in sorted(wanted & shown):
                    yield one, tuple(axis[found == one] for axis in places)


@dataclass(frozen=True)
class _Stored:
    """What the header says.

    Args:
        numbers: Of the segments.
        frames: Where each frame lies.
        frame_numbers: Segment of each frame; None when its values are the numbers.
        least: Value from which on a pixel belongs to the segment.
    """

    numbers: set[int]
    frames: list[DicomSlice]
    frame_numbers: list[int | None]
    least: float


def _describe(path: Path, dataset: Dataset) -> _Stored:
    if dataset.get("Modality") != "SEG" or dataset.get("SOPClassUID") not in _CLASSES:
        raise BadSegmentationError(path, "it is DICOM, but no segmentation of voxels; give a mask")
    frames = describe_frames(path, "", dataset)
    check_decodable(path, dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        raise BadSegmentationError(path, "it does not describe its frames one by one; export it again")
    kind = str(dataset.get("SegmentationType") or "BINARY")
    numbers = {int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or []}
    if kind == "LABELMAP":
        return _Stored(numbers - {0}, frames, [None] * len(frames), 1)
    whole = int(dataset.get("MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 1
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    named = [_number(path, group, shared, numbers) for group in groups]
    _require_described(path, set(named), numbers)
    return _Stored(numbers, frames, [*named], whole / 2 if kind == "FRACTIONAL" else 1)


def _tell_other_frame(path: Path, stored: _Stored, volume: Volume) -> None:
    """Warn of an object that may be of another patient, whose grid is the same by chance; some programs write such."""
    origin = None if volume.source is None else volume.source.header
    own = origin.slices[0].frame_of_reference if isinstance(origin, DicomOrigin) else ""
    if own and any(frame.frame_of_reference not in ("", own) for frame in stored.frames):
        tell_once(f"{path} has another frame of reference than its scan: see that it is not of another patient")


def _require_described(path: Path, shown: set[int], described: set[int]) -> None:
    """Refuse frames whose segment the object does not describe: what they show would be lost."""
    if not shown <= described:
        raise BadSegmentationError(
            path,
            f"its frames show the segments {sorted(shown - described)}, which it does not describe; export it again",
        )


def _number(path: Path, group: Dataset, shared: Dataset | None, numbers: set[int]) -> int:
    """Segment of a frame: what the frame says, or all frames together, or the only one."""
    for place in (group, shared):
        for item in (place.get("SegmentIdentificationSequence") if place is not None else None) or []:
            return int(item.ReferencedSegmentNumber)
    if len(numbers) == 1:
        return next(iter(numbers))
    raise BadSegmentationError(path, "a frame does not say which segment it shows; export it again")


def _decode(path: Path, volume: Volume, dataset: Dataset, frame: DicomSlice) -> NDArray[Any]:
    """Stored values (rows, columns). Frames of single bits follow one another without regard to bytes."""
    if not 0 < min(frame.rows, frame.columns) <= max(frame.rows, frame.columns) <= max(volume.shape):
        raise BadSegmentationError(path, "it is not on the grid of the scan; resample it")
    if dataset.get("BitsAllocated") != 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return decode_frame(path, dataset, frame)
    size = frame.rows * frame.columns
    first = size * (frame.frame or 0)
    data = np.frombuffer(dataset.PixelData, np.uint8)[first // 8 : (first + size + 7) // 8]
    bits = np.unpackbits(data, bitorder="little")[first % 8 : first % 8 + size]
    return bits.reshape(frame.rows, frame.columns)


def _place(
    path: Path, volume: Volume, to_voxels: NDArray[np.float64], frame: DicomSlice, inside: NDArray[np.bool_]
) -> tuple[NDArray[Any], ...]:
    """Indices (z, y, x) of the pixels of a frame that are inside."""
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return rows, rows, rows
    if frame.position is None or frame.orientation is None or frame.spacing is None:
        raise BadSegmentationError(path, "a frame does not say where it lies; export it with its geometry")
    row_mm, column_mm = frame.spacing
    across, down = frame.orientation
    exact = to_voxels[:3] @ np.array([[*across * column_mm, 0], [*down * row_mm, 0], [*frame.position, 1]]).T
    whole = np.rint(exact)
    farthest = np.array([[0, 0, 1], [frame.columns, 0, 1], [0, frame.rows, 1], [frame.columns, frame.rows, 1]]).T
    off = np.abs((exact - whole) @ farthest).max(axis=1)
    unit = (np.abs(whole[:, :2]).sum(axis=0) == 1).all() and (np.abs(whole[:, :2]).sum(axis=1) <= 1).all()
    size = np.array(volume.shape[::-1])
    voxels = (whole @ np.stack([columns, rows, np.ones_like(rows)])).astype(np.intp)
    close = (off <= _TOLERANCE_VOXELS).all() and (off * np.array(volume.spacing[::-1]) <= _TOLERANCE_MM).all()
    if not (unit and close and (voxels >= 0).all() and (voxels < size[:, None]).all()):
        raise BadSegmentationError(path, "it is not on the grid of the scan; resample it")
    x, y, z = voxels
    return z, y, x
