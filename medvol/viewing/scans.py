"""The scans of a session: each is read when it is first looked at, and the last few stay in memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.prompts import WINDOWS
from medvol.core.types import Volume
from medvol.imaging.windows import window_limits
from medvol.terminal.progress import Work
from medvol.viewing.packing import Scale, find_scale

KEPT = 2
"""Scans in memory at once: the one that is looked at and the one before it."""

_FOR_CT = ("soft_tissue", "contrast", "lung", "bone", "brain", "wide")
_FOR_OTHERS = ("soft_tissue", "contrast", "wide")
_BY_PERCENTILES = {"soft_tissue": "usual", "contrast": "narrow", "wide": "wide"}
"""What the windows of a scan without Hounsfield units are called."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan that may be looked at, before it is read.

    Args:
        scan_id: Names it in addresses.
        name: File or case, as people see it.
        read: Reads it, and the true mask (Z, Y, X) where there is one.
        path: File, or folder of DICOM; None where a data set gives it. Only what lies in a file can be asked about
            anew, since an answer is found again by it.
        series: What one of the series of a DICOM folder was named by; None where none was named.
    """

    scan_id: str
    name: str
    read: Callable[[], tuple[Volume, NDArray[np.bool_] | None]]
    path: Path | None = None
    series: str | None = None


@dataclass(frozen=True, eq=False)
class OpenScan:
    """A scan in memory.

    Args:
        scan: What it was read from.
        volume: Its voxels.
        scale: How they are sent.
        truth: True mask (Z, Y, X); None where it is not known.
    """

    scan: Scan
    volume: Volume
    scale: Scale
    truth: NDArray[np.bool_] | None = None

    def describe(self) -> dict[str, Any]:
        """Geometry, windows and the scale of the voxels, as plain values."""
        volume = self.volume
        chosen = _FOR_CT if volume.modality == "CT" else _FOR_OTHERS
        limits = {name: window_limits(volume, WINDOWS[name]) for name in chosen}
        titles = {name: name.replace("_", " ") for name in _FOR_CT} if volume.modality == "CT" else _BY_PERCENTILES
        return {
            "scan": self.scan.scan_id,
            "name": self.scan.name,
            "modality": volume.modality,
            "unit": "HU" if volume.modality == "CT" else None,
            "shape_zyx": list(volume.shape),
            "spacing_zyx_mm": list(volume.spacing),
            "affine_ras": volume.affine.tolist(),
            "slope": self.scale.slope,
            "intercept": self.scale.intercept,
            "windows": [
                {"name": name, "title": titles[name], "low": low, "high": high} for name, (low, high) in limits.items()
            ],
        }


class Shelf:
    """Reads scans and keeps the last few; safe for threads."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenScan] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, scan: Scan) -> OpenScan:
        """A scan, read when it is not in memory.

        Raises:
            ScanError: It is refused.
        """
        with self._lock:
            if scan.scan_id not in self._open:
                while len(self._open) >= KEPT:
                    self._open.popitem(last=False)
                with Work(f"reading {scan.name}"):
                    volume, truth = scan.read()
                    self._open[scan.scan_id] = OpenScan(scan, volume, find_scale(volume), truth)
            self._open.move_to_end(scan.scan_id)
            return self._open[scan.scan_id]


def make_id(*parts: object) -> str:
    """Letters that name something in addresses: equal parts give equal letters."""
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()[:16]
