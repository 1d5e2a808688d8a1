"""Slices in order, and the one grid that they lie on: everything that could misplace a voxel is refused by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.imaging.dicom.problems import (
    BadRescaleError,
    DuplicateInstancesError,
    GantryTiltError,
    InconsistentSpacingError,
    LocalizerError,
    MissingGeometryError,
    MissingSlicesError,
    MixedOrientationError,
    MixedSizesError,
    SeveralAcquisitionsError,
    TooFewSlicesError,
)
from medvol.imaging.dicom.slices import DicomSlice
from medvol.imaging.formats.itk_geometry import RAS
from medvol.imaging.formats.problems import ColourScanError

POSITION_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place on an even grid: positions are often rounded to a tenth of a millimetre."""

_POSITION_TOLERANCE_SHARE = 0.2
_SAME_PLACE_MM = 1e-3
_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
_TILT_TOLERANCE = np.sin(np.radians(0.06))


def stack_slices(path: Path, slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], NDArray[np.float64]]:
    """Sort the slices of a series and place them.

    Args:
        path: Folder or archive to name in an error.
        slices: In any order.

    Returns:
        The slices along their normal, and the affine from (column, row, slice) to world mm (RAS+).

    Raises:
        ScanError: They are not the slices of one volume; ``medvol.imaging.dicom.problems`` names the reason.
    """
    slices = _without_localizers(path, slices)
    rows, normal = _common_plane(path, slices)
    positions = np.stack([entry.position for entry in slices if entry.position is not None])
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = [slices[i] for i in order], positions[order]
    row_mm, column_mm = _spacing(path, ordered)
    _check_places(path, ordered, positions @ normal)
    _check_even(path, positions, normal)
    step = _upright(path, (positions[-1] - positions[0]) / (len(slices) - 1), normal, len(slices))
    _check_rescale(path, ordered)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([rows[0] * column_mm, rows[1] * row_mm, step], axis=1)
    affine[:3, 3] = positions[0]
    return ordered, RAS @ affine


def is_axial(entry: DicomSlice) -> bool:
    """True when a slice lies across the body, within 45 degrees."""
    if entry.orientation is None:
        return False
    return bool(abs(np.cross(entry.orientation[0], entry.orientation[1])[2]) > np.sqrt(0.5))


def _without_localizers(path: Path, slices: Sequence[DicomSlice]) -> list[DicomSlice]:
    kept = [entry for entry in slices if not entry.localizer]
    if not kept:
        raise LocalizerError(path, f"the series is a scout view of {len(slices)} image(s); choose the series of slices")
    if len(kept) < 2:
        raise TooFewSlicesError(path, "the series has one slice; a volume needs two, give the folder with all of them")
    if not all(entry.grey for entry in kept):
        raise ColourScanError(path, "its pixels are coloured; choose a series with one grey value a pixel")
    return kept


def _common_plane(path: Path, slices: Sequence[DicomSlice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of rows and columns that all slices share, (2, 3), and their normal."""
    if any(entry.position is None or entry.orientation is None for entry in slices):
        raise MissingGeometryError(path, "a slice does not say where it lies; export the series with its geometry")
    orientations = np.stack([entry.orientation for entry in slices if entry.orientation is not None])
    squares = orientations @ orientations.transpose(0, 2, 1)
    if np.abs(squares - np.eye(2)).max() > _DIRECTION_TOLERANCE:
        raise MissingGeometryError(path, "the axes of a slice are no unit vectors at a right angle; export it anew")
    # Of the vectors, not of their angle: its cosine hardly changes near 0 degrees.
    if np.abs(orientations - orientations[0]).max() > _DIRECTION_TOLERANCE:
        raise MixedOrientationError(path, "its slices are not parallel; give the slices of one orientation")
    if len({entry.frame_of_reference for entry in slices}) > 1:
        raise MixedOrientationError(
            path, "its slices lie in several frames of reference, so their places cannot be compared; give one of them"
        )
    shared: NDArray[np.float64] = orientations[0]
    return shared, np.cross(shared[0], shared[1])


def _spacing(path: Path, slices: Sequence[DicomSlice]) -> tuple[float, float]:
    """Distance of rows and of columns in mm, when all slices agree in it and in their size."""
    shapes = {(entry.rows, entry.columns) for entry in slices}
    if len(shapes) > 1 or min(min(shapes)) < 1:
        sizes = ", ".join(f"{columns} x {rows}" for rows, columns in sorted(shapes))
        raise MixedSizesError(path, f"its slices have the sizes {sizes} pixels; give the slices of one size")
    if not all(entry.spacing is not None and min(entry.spacing) > 0 for entry in slices):
        raise MissingGeometryError(path, "a slice does not say how large its pixels are; export the series again")
    spacings = np.array([entry.spacing for entry in slices])
    if (np.ptp(spacings, axis=0) > _SPACING_TOLERANCE * spacings[0]).any():
        first, other = spacings[0], spacings[np.abs(spacings - spacings[0]).sum(axis=1).argmax()]
        pair = " and ".join(f"{row:.4g} x {column:.4g}" for row, column in (first, other))
        raise MixedSizesError(path, f"its pixels have the sizes {pair} mm; give the slices of one size")
    return float(spacings[0, 0]), float(spacings[0, 1])


def _check_places(path: Path, slices: Sequence[DicomSlice], heights: NDArray[np.float64]) -> None:
    """No two slices at one place."""
    same = np.diff(heights) <= _SAME_PLACE_MM
    if not same.any():
        return
    where = f"{int(same.sum())} place(s) hold two slices, the first at {heights[np.argmax(same)]:.2f} mm"
    if len({(entry.instance, entry.frame) for entry in slices}) < len(slices):
        raise DuplicateInstancesError(path, f"{where}, copies of one another; remove the copies")
    raise SeveralAcquisitionsError(
        path, f"{where}, which differ: several acquisitions, echoes or phases; give one of them"
    )


def _check_even(path: Path, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Every slice on its place of an even grid."""
    count = len(positions)
    step = (positions[-1] - positions[0]) / (count - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(count)[:, None] * step, axis=1).max()
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if off <= min(POSITION_TOLERANCE_MM, _POSITION_TOLERANCE_SHARE * usual):
        return
    widths = np.rint(gaps / usual)
    if (widths > 1).any() and (np.abs(gaps - widths * usual) <= _POSITION_TOLERANCE_SHARE * usual).all():
        place = float((positions @ normal)[int(np.argmax(widths > 1))])
        raise MissingSlicesError(
            path, f"{int((widths - 1).sum())} slice(s) are missing, the first after {place:.2f} mm; export them all"
        )
    raise InconsistentSpacingError(
        path, f"its slices are {gaps.min():.3f} to {gaps.max():.3f} mm apart; give an evenly spaced series"
    )


def _upright(path: Path, step: NDArray[np.float64], normal: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The step from slice to slice along the normal; what it strays by no more than rounded positions do is dropped."""
    along: NDArray[np.float64] = (step @ normal) * normal
    aside = float(np.linalg.norm(step - along))
    if aside <= _TILT_TOLERANCE * np.linalg.norm(step) or aside * (count - 1) <= POSITION_TOLERANCE_MM:
        return along
    angle = np.degrees(np.arcsin(min(1.0, aside / float(np.linalg.norm(step)))))
    raise GantryTiltError(
        path, f"its slices are stacked {angle:.1f} degrees askew (gantry tilt); resample it, as dcm2niix does"
    )


def _check_rescale(path: Path, slices: Sequence[DicomSlice]) -> None:
    if any(entry.slope == 0 for entry in slices):
        raise BadRescaleError(path, "the rescale slope of a slice is 0; export the series again")
    if any(math.isnan(value) for entry in slices for value in (entry.slope or 1.0, entry.intercept or 0.0)):
        raise BadRescaleError(path, "the rescale slope or intercept of a slice is no number; export the series again")
    if len({(entry.slope is None, entry.intercept is None) for entry in slices}) > 1:
        raise BadRescaleError(path, "some slices have a rescale slope and intercept, others have none; export it again")
    if len(units := {entry.unit for entry in slices}) > 1:
        raise BadRescaleError(path, f"its slices have values of several types, {sorted(units)}; export one of them")
    if slices[0].modality == "CT" and any(entry.slope is None or entry.intercept is None for entry in slices):
        raise BadRescaleError(
            path, "a CT slice has no rescale slope and intercept, so no Hounsfield units; export it anew"
        )
