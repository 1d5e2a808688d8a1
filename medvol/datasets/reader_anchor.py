"""Anchors that a reader gave, as a table writes them."""

from __future__ import annotations

import re

from medvol.core.errors import DatasetError
from medvol.core.types import Evidence
from medvol.grounding.box_text import write_boxes

_INDEX = re.compile(r"[0-9]{1,6}")


def read_key_slice(text: str) -> int | None:
    """Index of a slice; None when it is none."""
    return int(text) if _INDEX.fullmatch(text) else None


def require_within(anchor: Evidence | None, shape: tuple[int, int, int]) -> None:
    """Refuse a reader's anchor that leaves its scan.

    Args:
        anchor: Key slice and boxes, or None.
        shape: Of the scan (Z, Y, X).

    Raises:
        DatasetError: The slice is not one of the scan's, or a box leaves it.
    """
    if anchor is None or anchor.key_slice is None:
        return
    depth, height, width = shape
    if anchor.key_slice >= depth:
        raise DatasetError(f"key_slice is {anchor.key_slice}, and the scan has the slices 0 to {depth - 1}; mend it")
    if (anchor.boxes[:, 2] > width).any() or (anchor.boxes[:, 3] > height).any():
        raise DatasetError(f"boxes {write_boxes(anchor.boxes)!r} leave slices of {width} x {height} pixels; mend them")
