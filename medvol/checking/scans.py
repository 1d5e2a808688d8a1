"""Looking at one file: what it holds, or everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.checking.findings import Finding, Fingerprint
from medvol.checking.fingerprint import Thumbnail, hash_file, make_thumbnail
from medvol.core.types import Volume
from medvol.imaging.file_names import NIFTI, ends_in
from medvol.imaging.formats.problems import NonFiniteVoxelsError, NoOrientationError, RefusedScanError
from medvol.imaging.geometry import axis_codes
from medvol.imaging.hounsfield import find_lost_sign, find_shift
from medvol.imaging.label_values import label_values, measure_rounding
from medvol.imaging.reading import read_volume


@dataclass(frozen=True, eq=False)
class FileReport:
    """What a look at one file found.

    Args:
        findings: Its problems.
        fingerprint: What it holds; None when it cannot be read at all.
        thumbnail: What a scan looks like; None for labels and for what cannot be read.
    """

    findings: tuple[Finding, ...]
    fingerprint: Fingerprint | None = None
    thumbnail: Thumbnail | None = None

    @property
    def usable(self) -> bool:
        """True when nothing but warnings was found."""
        return all(finding.problem.warning for finding in self.findings)


def check_scan(path: str | Path) -> FileReport:
    """Look at a scan or a label map; a refusal is part of the report, not an error.

    What a reader can be told to overlook (no orientation, NaN voxels) is found and overlooked, so that problems behind
    it are found too.
    """
    path = Path(path)
    findings: list[Finding] = []
    options: dict[str, Any] = {}
    volume = None
    while volume is None:
        try:
            volume = read_volume(path, **options)
        except RefusedScanError as error:
            findings.append(Finding(error.code, str(path), error.detail))
            if isinstance(error, NoOrientationError) and ends_in(path, NIFTI) and not options:
                options["assume_orientation"] = "LPS"
            elif isinstance(error, NonFiniteVoxelsError):
                options["nan_to"] = 0.0
            else:
                return FileReport(tuple(findings))
    findings += _look_at(path, volume)
    fingerprint = fingerprint_volume(path, volume)
    thumbnail = make_thumbnail(volume) if fingerprint.kind == "scan" else None
    return FileReport(tuple(findings), fingerprint, thumbnail)


def fingerprint_volume(path: Path, volume: Volume, names: dict[int, str] | None = None) -> Fingerprint:
    """Say what a file holds.

    Args:
        path: The file.
        volume: What was read from it.
        names: Names of labels; their numbers serve where there is none.
    """
    affine = volume.source.affine if volume.source is not None else volume.affine
    bare = Fingerprint(str(path), "labels", volume.shape, volume.spacing, axis_codes(affine), sha256=hash_file(path))
    values = label_values(volume.voxels)
    if values is None:
        return replace(bare, kind="scan", modality=volume.modality, percentiles=_percentiles(volume.voxels))
    voxel_ml = float(np.prod(volume.spacing)) / 1000
    known = names or {}
    sizes = {known.get(value, str(value)): count * voxel_ml for value, count in values.items() if value}
    return replace(bare, label_ml=sizes)


def moved_labels(path: Path, distance: float) -> Finding:
    """Labels that are read rounded."""
    return Finding("moved_labels", str(path), f"its labels lie up to {distance:.1g} beside whole numbers")


def _percentiles(voxels: NDArray[np.float32]) -> tuple[float, ...]:
    """Smallest, 1, 50 and 99 percent of a sample of the voxels, largest."""
    sample = voxels.ravel()[:: max(1, voxels.size // 1_000_000)]
    return float(voxels.min()), *np.percentile(sample, (1, 50, 99)).tolist(), float(voxels.max())


def _look_at(path: Path, volume: Volume) -> list[Finding]:
    """What is odd about a scan that can be read."""
    found = []
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    values = label_values(volume.voxels)
    distance = 0.0 if values is None else measure_rounding(volume.voxels).distance
    if distance:
        found.append(moved_labels(path, distance))
    if volume.modality != "MR" and values is None and not path.is_dir():
        for name, find in (("lost_sign", find_lost_sign), ("shifted_hu", find_shift)):
            if changed := find(volume.voxels):
                found.append(Finding(name, str(path), changed))
    if low == high:
        found.append(Finding("constant", str(path), f"every voxel is {low:g}"))
    elif (low, high) == (0, 255) and values is None:
        found.append(Finding("windowed", str(path), "its intensities go from 0 to 255"))
    if path.is_file() and ends_in(path, NIFTI):
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped != path.name.lower().endswith(".gz"):
            found.append(Finding("misnamed", str(path), f"it is {'' if zipped else 'not '}gzipped"))
    return found
