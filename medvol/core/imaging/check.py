"""Looking at one scan: what it is, or why it is refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medvol.core.imaging.geometry import axis_codes
from medvol.core.imaging.problems import RefusedScanError
from medvol.core.imaging.reading import read_volume


@dataclass(frozen=True)
class ScanReport:
    """What a look at a scan found.

    Args:
        path: The file.
        problem: Stable code of the refusal; empty when the scan can be used.
        detail: The refusal's sentence; empty when the scan can be used.
        shape: (Z, Y, X) in LPS.
        spacing_mm: Voxel size (z, y, x).
        orientation: The stored axes in three letters.
        modality: What the intensities were taken for.
        intensities: Smallest and largest.
    """

    path: str
    problem: str = ""
    detail: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    modality: str = ""
    intensities: tuple[float, float] | None = None

    @property
    def usable(self) -> bool:
        """True when the scan passed the gate."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check_scan(path: str | Path) -> ScanReport:
    """Read a scan as ``read_volume`` does and report on it; a refusal is part of the report, not an error."""
    try:
        volume = read_volume(path)
    except RefusedScanError as error:
        return ScanReport(str(path), error.code, error.detail)
    affine = volume.source.affine if volume.source is not None else volume.affine
    return ScanReport(
        str(path),
        shape=volume.shape,
        spacing_mm=volume.spacing,
        orientation=axis_codes(affine),
        modality=volume.modality,
        intensities=(float(volume.voxels.min()), float(volume.voxels.max())),
    )
