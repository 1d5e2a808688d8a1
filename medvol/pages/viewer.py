"""The viewer: NiiVue as it was published, packed into a page once, and the scans that it shows."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from medvol.pages.document import read_asset

NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"

SCRIPTS = ("unpack.js", "slices.js", "surface.js", "planes.js")
"""What runs the viewer, in this order."""


Boxes = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Stack:
    """The part of a scan that a page carries, with a mask on the same grid.

    Args:
        scan_nii_gz: The scan as NIfTI, uint8, windowed, gzip-compressed; x to the patient's left, y to the back, z to
            the head.
        mask_nii_gz: The mask on the same grid, 0 or 1; None where there is none.
        shape_zyx: Shape of both.
        spacing_zyx_mm: Their voxel size.
        start_zyx: First voxel of the part in the scan.
        factor_zyx: Voxels of the scan that were averaged into one, along each axis.
        scan_shape_zyx: Shape of the scan.
        key: Key slice as an index of the part; None where there is none.
        boxes: Boxes x1, y1, x2, y2 on the key slice, half-open, in pixels of the part.
        further: Further key slices, each with its boxes.
        truth_nii_gz: The true mask on the same grid, 0 or 1; None where none is shown.
    """

    scan_nii_gz: bytes
    mask_nii_gz: bytes | None
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    start_zyx: tuple[int, int, int]
    factor_zyx: tuple[int, int, int]
    scan_shape_zyx: tuple[int, int, int]
    key: int | None
    boxes: Boxes
    further: tuple[tuple[int, Boxes], ...] = ()
    truth_nii_gz: bytes | None = None

    @property
    def parts(self) -> tuple[bytes, ...]:
        """Everything that it holds, packed."""
        return tuple(part for part in (self.scan_nii_gz, self.mask_nii_gz, self.truth_nii_gz) if part is not None)

    def to_dict(self) -> dict[str, Any]:
        """What the scripts of a page read; ids name the elements that hold the voxels."""
        further = [{"key": key, "boxes": [list(box) for box in boxes]} for key, boxes in self.further]
        return {
            "scan": _id(self.scan_nii_gz),
            "mask": None if self.mask_nii_gz is None else _id(self.mask_nii_gz),
            "truth": None if self.truth_nii_gz is None else _id(self.truth_nii_gz),
            "shape": list(self.shape_zyx),
            "spacing": list(self.spacing_zyx_mm),
            "start": list(self.start_zyx),
            "factor": list(self.factor_zyx),
            "scanShape": list(self.scan_shape_zyx),
            "key": self.key,
            "boxes": [list(box) for box in self.boxes],
            **({"further": further} if further else {}),
        }


@dataclass
class KeptVoxels:
    """Voxels of a page, equal ones once.

    Args:
        room: Most bytes of them.
        by_id: The voxels, packed, by the ids of their elements.
    """

    room: int
    by_id: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(map(len, self.by_id.values()))

    def keep(self, stack: Stack) -> bool:
        """Keep what a stack holds; False, and nothing is kept, when it does not fit."""
        new = {name: part for part in stack.parts if (name := _id(part)) not in self.by_id}
        if self.size + sum(map(len, new.values())) > self.room:
            return False
        self.by_id |= new
        return True


def _id(voxels: bytes) -> str:
    return f"voxels-{hashlib.sha256(voxels).hexdigest()[:16]}"


def niivue_script() -> bytes:
    """NiiVue's script to the letter."""
    return read_asset("niivue/niivue.umd.js")


@cache
def packed_niivue() -> bytes:
    """NiiVue's script, gzip-compressed: a page unpacks it when planes and 3D are asked for."""
    return gzip.compress(niivue_script(), mtime=0)


@cache
def niivue_licences() -> str:
    """Licences of NiiVue and of what it contains."""
    texts = (read_asset(f"niivue/{name}").decode().strip() for name in ("LICENSE", "THIRD_PARTY.txt"))
    return f"NiiVue {NIIVUE_VERSION}\n\n" + "\n\n".join(texts) + "\n"
