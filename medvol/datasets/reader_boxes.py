"""Boxes that a reader gave, as a table writes them: ``10.5 20 64 80; 90 20 110 41``, in pixels of the key slice."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.core.types import Evidence
from medvol.grounding.grammar import MAX_BOXES

_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")
_INDEX = re.compile(r"[0-9]{1,6}")


def write_boxes(boxes: Iterable[Iterable[float]]) -> str:
    """Boxes (N, 4) as the text of a cell, to a thousandth of a pixel."""
    return "; ".join(" ".join(f"{round(float(edge), 3):g}" for edge in box) for box in boxes)


def read_boxes(text: str) -> NDArray[np.float64] | None:
    """Boxes (N, 4) of a cell; None when it does not hold boxes with an area."""
    rows = [part.replace(",", " ").split() for part in text.split(";")]
    if len(rows) > MAX_BOXES or any(len(row) != 4 or not all(map(_NUMBER.fullmatch, row)) for row in rows):
        return None
    boxes = np.array(rows, np.float64)
    return boxes if (boxes[:, :2] < boxes[:, 2:]).all() else None


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
