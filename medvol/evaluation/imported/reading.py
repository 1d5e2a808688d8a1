"""Reading masks of other systems onto the grid of a scan."""

from __future__ import annotations

import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import DatasetError, GeometryError
from medvol.core.types import Volume
from medvol.evaluation.imported.layouts import SEGS
from medvol.imaging.file_names import ends_in
from medvol.imaging.formats.npz import DAMAGED, require_declared
from medvol.imaging.geometry import place_tolerance_mm, turn_to_lps, voxel_to_world
from medvol.imaging.label_values import to_labels
from medvol.imaging.reading import label_budget, read_label_map

_HEADER_BYTES = 4096
_VALUE_BYTES = 8


def read_labels_on(path: Path, volume: Volume, resample: bool = False) -> NDArray[np.int32]:
    """Read a label map on the grid of a scan.

    Args:
        path: NIfTI, NRRD or MetaImage; or ``.npz`` with ``segs`` (Z, Y, X) in the axis order of the scan's file.
        volume: The scan.
        resample: Take the nearest label of another grid, and 0 outside of it.

    Returns:
        Labels (Z, Y, X).

    Raises:
        ScanError: The file is refused.
        DatasetError: An archive holds no label map.
        GeometryError: It lies on another grid, and ``resample`` is off, it does not say where, or nothing of its
            labels lies in the scan.
    """
    if ends_in(path, ".npz"):
        return _read_archive(path, volume)
    labels, affine = read_label_map(path, max_bytes=label_budget(volume))
    corners = [_corners(affine, labels.shape), _corners(volume.affine, volume.shape)]
    apart = float(np.linalg.norm(corners[0] - corners[1], axis=1).max())
    if labels.shape == volume.shape and apart <= place_tolerance_mm(volume.affine):
        return labels
    if not resample:
        raise GeometryError(
            f"{path} lies on another grid than its scan: {labels.shape} and {volume.shape} voxels (Z, Y, X), corners "
            f"up to {apart:.3g} mm apart; pass --resample to take the nearest label of it"
        )
    placed = _resample(labels, affine, volume)
    if labels.any() and not placed.any() and _is_apart(labels, affine, volume):
        raise GeometryError(
            f"{path} has no label inside of its scan: their corners are up to {apart:.3g} mm apart; bring the mask to "
            "the grid of its scan"
        )
    return placed


def _is_apart(labels: NDArray[np.int32], affine: NDArray[np.float64], volume: Volume) -> bool:
    """Whether the box around all labels lies outside of the scan; a label that is only too small for it does not."""
    spans = [(span[0] - 0.5, span[-1] + 0.5) for span in map(np.unique, np.nonzero(labels)[::-1])]
    to_scan = np.linalg.inv(volume.affine).astype(np.float64)
    places = voxel_to_world(to_scan, voxel_to_world(affine, list(product(*spans))))
    sides = np.array(volume.shape[::-1])
    return bool((places.max(axis=0) < -0.5).any() or (places.min(axis=0) > sides - 0.5).any())


def _corners(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return voxel_to_world(affine, list(product(*((0, side - 1) for side in shape[::-1]))))


def _resample(labels: NDArray[np.int32], affine: NDArray[np.float64], volume: Volume) -> NDArray[np.int32]:
    """The nearest label; a voxel reaches half its size beyond its centre, so at the border a rim of zeros is needed."""
    to_stored = np.linalg.inv(affine) @ volume.affine
    turned = to_stored[:3, :3][::-1, ::-1], to_stored[:3, 3][::-1] + 1
    placed: NDArray[np.int32] = ndimage.affine_transform(np.pad(labels, 1), *turned, output_shape=volume.shape, order=0)
    return placed


def _read_archive(path: Path, volume: Volume) -> NDArray[np.int32]:
    loaded, source = _load(path, volume), volume.source
    expected = volume.shape if source is None else source.shape[::-1]
    if loaded.shape != expected:
        raise GeometryError(
            f"{path} has {loaded.shape} voxels (Z, Y, X) and the file of its scan {expected}; an archive does not say "
            "where it lies, so save it on the grid of its scan"
        )
    stored = to_labels(path, loaded)
    if source is None:
        return stored
    return np.ascontiguousarray(turn_to_lps(stored.transpose(2, 1, 0), source.orientation))


def _load(path: Path, volume: Volume) -> NDArray[Any]:
    """The label map of an archive, which may come from anywhere: no pickle, and no more than its scan has voxels."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{SEGS}.npy")
            if entry.file_size > volume.voxels.size * _VALUE_BYTES + _HEADER_BYTES:
                raise ValueError(
                    f"it holds {entry.file_size} bytes of labels, too many for {volume.voxels.size} voxels"
                )
            require_declared(archive, entry)
        with np.load(path, allow_pickle=False) as content:
            labels: NDArray[Any] = content[SEGS]
        if labels.dtype.kind not in "biuf":
            raise ValueError(f"its labels are of type {labels.dtype}")
    except KeyError as error:
        raise DatasetError(
            f"{path} has no label map {SEGS!r}; save it as np.savez_compressed(..., segs=map)"
        ) from error
    except DAMAGED as error:
        raise DatasetError(f"{path} cannot be read as an archive of labels ({error}); save it again") from error
    return labels
