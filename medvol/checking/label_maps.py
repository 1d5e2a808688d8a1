"""Looking at a label map beside its scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.checking.findings import Finding
from medvol.checking.scans import FileReport, fingerprint_volume, moved_labels
from medvol.core.errors import GeometryError
from medvol.core.types import Volume
from medvol.imaging.file_names import stem
from medvol.imaging.formats.problems import RefusedScanError
from medvol.imaging.geometry import corner_distance_mm, place_tolerance_mm
from medvol.imaging.label_values import count_values, measure_rounding
from medvol.imaging.reading import read_oriented, to_intensities
from medvol.queries.label_names import NAMES_FILE
from medvol.queries.sides import check_sides

_LABEL_WORDS = ("labels", "label", "masks", "mask", "segmentation", "seg")
_SCAN_WORDS = ("image", "volume", "imaging", "scan", "ct", "mr")
_MOST_LABELS = 1000


@dataclass(frozen=True, eq=False)
class _Labels:
    """A label map under suspicion."""

    path: Path
    volume: Volume
    names: Mapping[int, str] | None


def find_scan(path: Path, siblings: Mapping[str, Path]) -> Path | None:
    """The scan that a label map belongs to, by its name: ``a_image`` or ``a`` for ``a_label``; None without one.

    Args:
        path: A file.
        siblings: Files of its folder by name without ending.
    """
    name = stem(path.name)
    for word in _LABEL_WORDS:
        if word in name.lower():
            start = name.lower().index(word)
            before, after = name[:start], name[start + len(word) :]
            names = [*(before + other + after for other in _SCAN_WORDS), (before + after).strip("-_.")]
            return next((siblings[one] for one in names if one in siblings), None)
    return None


def check_labels(path: Path, scan: Volume | None, names: Mapping[int, str] | None) -> FileReport:
    """Look at a label map; every problem is found, not only the first.

    Args:
        path: The label map.
        scan: The scan that it belongs to; None when that cannot be read.
        names: Names of its labels; None when nothing says them.
    """
    try:
        stored, affine, source = read_oriented(path)
        volume = Volume(to_intensities(path, stored), affine, "other", source=source)
    except RefusedScanError as error:
        return FileReport((Finding(error.code, str(path), error.detail),))
    found = [*_check_grid(path, volume, scan), *_check_values(_Labels(path, volume, names), stored)]
    return FileReport(tuple(found), fingerprint_volume(path, volume, dict(names or {})))


def _check_grid(path: Path, volume: Volume, scan: Volume | None) -> Iterator[Finding]:
    if scan is None:
        return
    if volume.shape != scan.shape:
        yield Finding("other_shape", str(path), f"it has shape {volume.shape} (Z, Y, X), its scan {scan.shape}")
        return
    apart = corner_distance_mm(volume.affine, scan.affine, scan.shape[::-1])
    if apart > place_tolerance_mm(scan.affine):
        yield Finding("other_grid", str(path), f"it lies up to {apart:.3g} mm beside its scan's grid")


def _check_values(labels: _Labels, stored: NDArray[Any]) -> Iterator[Finding]:
    place, counts, rounding = str(labels.path), count_values(stored), measure_rounding(stored)
    if counts is None:
        yield Finding("fractions", place, f"one of its values is {rounding.value:.9g}")
        return
    if rounding.distance:
        yield moved_labels(labels.path, rounding.distance)
    values = list(counts)
    if len(values) > _MOST_LABELS:
        yield Finding("many_labels", place, f"it holds {len(values)} different values")
        return
    if values[0] < 0:
        yield Finding("negative_label", place, f"it holds the label {values[0]}")
    if values == [0]:
        yield Finding("empty_labels", place, "every voxel is background")
    if labels.names is not None:
        unnamed = [value for value in values if value > 0 and value not in labels.names]
        if unnamed:
            yield Finding("unnamed_label", place, f"nothing in {NAMES_FILE} names the label {unnamed[0]}")
        yield from _check_sides(labels, labels.names)


def _check_sides(labels: _Labels, names: Mapping[int, str]) -> Iterator[Finding]:
    by_name = {name: value for value, name in names.items()}
    for name, value in by_name.items():
        other = by_name.get("right " + name.removeprefix("left ")) if name.startswith("left ") else None
        masks = [np.rint(labels.volume.voxels) == one for one in (value, other) if one is not None]
        if len(masks) < 2 or not all(mask.any() for mask in masks):
            continue
        try:
            check_sides(masks[0], masks[1], labels.volume.affine)
        except GeometryError as error:
            yield Finding("swapped_sides", str(labels.path), f"{name}: {error}")
