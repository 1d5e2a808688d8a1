"""What a check finds: problems, fingerprints, and both together as a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from medvol.checking.catalogue import PROBLEMS, Problem


@dataclass(frozen=True)
class Finding:
    """A problem at a place.

    Args:
        name: Name of the problem in the catalogue.
        place: File, row or split.
        detail: What was found there, and what to do about it.
    """

    name: str
    place: str
    detail: str

    @property
    def problem(self) -> Problem:
        """Its entry in the catalogue."""
        return PROBLEMS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        problem = self.problem
        return {
            "code": problem.code,
            "name": self.name,
            "severity": "warning" if problem.warning else "error",
            "place": self.place,
            "detail": self.detail,
            "meaning": problem.meaning,
            "fix": problem.fix,
            "mended_by_fix": problem.mended,
        }


@dataclass(frozen=True)
class Fingerprint:
    """What a file holds.

    Args:
        place: The file.
        kind: ``scan`` or ``labels``.
        shape: (Z, Y, X) in LPS.
        spacing_mm: Voxel size (z, y, x).
        orientation: The stored axes in three letters.
        modality: What the intensities of a scan were taken for; empty for labels.
        percentiles: 0, 1, 50, 99 and 100 % of a scan's intensities; empty for labels.
        label_ml: Volume of every label; empty for a scan.
        sha256: Hash of the file.
    """

    place: str
    kind: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    modality: str = ""
    percentiles: tuple[float, ...] = ()
    label_ml: dict[str, float] = field(default_factory=dict)
    sha256: str = ""

    def describe(self) -> str:
        """In one line."""
        shape = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{size:.3g}" for size in self.spacing_mm)
        place = f"{shape} voxels (Z, Y, X), {spacing} mm, stored as {self.orientation}"
        if self.kind == "scan":
            low, high = self.percentiles[0], self.percentiles[-1]
            return f"{self.modality}, {place}, intensities {low:g} to {high:g}"
        labels = ", ".join(f"{name}: {millilitres(size)}" for name, size in self.label_ml.items())
        return f"labels, {place}: {labels or 'none'}"


def millilitres(size: float) -> str:
    """A volume to three digits or to the millilitre: ``1980 ml``, not ``1.98e+03 ml``."""
    return f"{size:.3g} ml" if size < 999 else f"{size:.0f} ml"


@dataclass(frozen=True)
class CheckReport:
    """Everything that a check found.

    Args:
        findings: Problems, in the order they were met.
        fingerprints: Of the files that can be read.
        splits: For each split of an experiment, counts and the range of what its scans are.
        mended: Path of the mended copy of each file that has one.
    """

    findings: tuple[Finding, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    mended: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Problems that are more than a warning and have no mended copy."""
        return tuple(f for f in self.findings if not f.problem.warning and f.place not in self.mended)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "usable": not self.errors,
            "findings": [finding.to_dict() for finding in self.findings],
            "fingerprints": [asdict(fingerprint) for fingerprint in self.fingerprints],
            "splits": self.splits,
            "mended": self.mended,
        }
