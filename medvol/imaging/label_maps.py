"""Which files of a folder are label maps beside their scans, so that nobody asks a label map where the spleen is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ScanError
from medvol.imaging.file_names import METAIMAGE, NIFTI, NRRD, ends_in, is_archive
from medvol.imaging.formats.metaimage import read_metaimage
from medvol.imaging.formats.nifti import read_first_slices, read_nifti_header
from medvol.imaging.formats.nrrd import read_nrrd
from medvol.imaging.formats.stored_scan import MAX_BYTES
from medvol.imaging.label_values import count_values, label_values
from medvol.imaging.reading import read_oriented
from medvol.imaging.scan_files import stamp_scan

_WORDS = {
    *("label", "labels", "labelmap", "mask", "masks", "seg", "segs", "segmentation", "segmentations", "gt"),
    *("groundtruth", "annotation", "annotations", "roi", "rois", "contour", "contours", "aseg", "dseg", "probseg"),
    *("parcellation", "parc", "aparc", "agreement"),
}
_FIRST_SLICES = 3
_FEW = 12
_MOST_PIXELS = 2**24

_Grid = tuple[float, ...]


def find_label_maps(files: Sequence[Path], beside_dicom: bool) -> list[Path]:
    """Files that are label maps of scans beside them.

    A label map holds few whole numbers, or many in even areas, and either its name says what it is (``_label``,
    ``mask``, ``seg`` and the like) or another file, which is no label map, has its very grid. Where nothing but label
    maps lies, none is found: then each of them may be meant as a scan.

    Args:
        files: Scans and label maps of one folder.
        beside_dicom: Whether DICOM lies there too; then every label map is one of its scan.

    Returns:
        Some of ``files``, in their order.
    """
    if len(files) < 2 and not beside_dicom:
        return []
    grids = {file: _grid(file) for file in files}
    like = {file: _may_be_map(file, grids, beside_dicom) and looks_like_labels(file) for file in files}
    scans = [file for file in files if not like[file]]
    if not scans and not beside_dicom:
        scans = [file for file in files if not is_named_label(file)]
        return [file for file in files if is_named_label(file)] if scans else []
    scan_grids = {grids[file] for file in scans}
    return [
        file for file in files if like[file] and (beside_dicom or is_named_label(file) or grids[file] in scan_grids)
    ]


def is_named_label(path: Path) -> bool:
    """True when one word of a file's name is that of a label map."""
    return not _WORDS.isdisjoint(re.findall(r"[a-z]+", path.name.lower()))


def looks_like_labels(path: Path) -> bool:
    """True for a file that holds labels by its values; False for a scan, and for what is refused in its turn."""
    return _looks_like_labels(path, is_named_label(path), stamp_scan(path).text)


def _may_be_map(file: Path, grids: dict[Path, _Grid | None], beside_dicom: bool) -> bool:
    if is_archive(file):
        return False
    shared = grids[file] is not None and list(grids.values()).count(grids[file]) > 1
    return beside_dicom or shared or is_named_label(file)


@lru_cache(maxsize=4096)
def _looks_like_labels(path: Path, named: bool, stamp: str) -> bool:
    try:
        first = _first_slices(path)
        if first is not None and first.any() and not _is_even(first, named):
            return False  # most scans show in their first slices, long before the file is read
        voxels, _, _ = read_oriented(path)
    except ScanError:
        return False
    return _is_even(np.ascontiguousarray(voxels, np.float32), named)


def _is_even(voxels: NDArray[np.float32], named: bool) -> bool:
    """Labels, of which there is one; or shares from 0 to 1 or nothing at all, in a file that is named so."""
    low, high = float(voxels.min()), float(voxels.max())
    if low < 0 or not (named or high > 0):
        return False
    return (named and high <= 1) or _are_few(voxels) or label_values(voxels) is not None


def _are_few(voxels: NDArray[np.float32]) -> bool:
    """A dozen whole numbers, however mixed: how many readers marked a voxel, say."""
    counts = count_values(voxels) if float(voxels.max()) < _MOST_PIXELS else None
    return counts is not None and len(counts) <= _FEW


def _first_slices(path: Path) -> NDArray[np.float32] | None:
    """Some slices of a NIfTI file, (3, X, Y); None for other files, and where a voxel is no number.

    Raises:
        ScanError: The file is refused.
    """
    if not ends_in(path, NIFTI):
        return None
    block = np.asarray(read_first_slices(path, _FIRST_SLICES), np.float32)
    return np.ascontiguousarray(block.transpose(2, 0, 1)) if np.isfinite(block).all() else None


def _grid(path: Path) -> _Grid | None:
    """Size and place of the voxels as the header tells them; None when there is none to compare."""
    try:
        if ends_in(path, NIFTI):
            header = read_nifti_header(path)
            shape, affine = header.get_data_shape(), header.get_best_affine()
        elif ends_in(path, (*NRRD, *METAIMAGE)):
            read = read_nrrd if ends_in(path, NRRD) else read_metaimage
            stored = read(path, MAX_BYTES, header_only=True)
            shape, affine = stored.voxels.shape, stored.affine
        else:
            return None
    except Exception:  # whatever a library raises; the gate tells it in words
        return None
    return (*map(float, shape), *(np.round(affine, 2) + 0.0).ravel().tolist())
