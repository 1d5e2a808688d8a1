"""Anchors that a reader gave, as a table writes them."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.core.prompts import MAX_ANCHORS
from medvol.core.types import Evidence
from medvol.grounding.anchors import join_anchors
from medvol.grounding.box_text import BETWEEN, write_boxes

_INDEX = re.compile(r"[0-9]{1,6}")


def read_key_slices(text: str) -> list[int] | None:
    """Indices of one slice, or of several with ``|`` between them; None when it holds no different ones."""
    parts = [part.strip() for part in text.split(BETWEEN.strip())]
    if not all(map(_INDEX.fullmatch, parts)) or len(parts) > MAX_ANCHORS:
        return None
    keys = [int(part) for part in parts]
    return keys if len(set(keys)) == len(keys) else None


def read_anchor(key_slices: list[int], boxes: list[NDArray[np.float64]]) -> Evidence | None:
    """The anchors of a row; None when there are not as many lists of boxes as slices."""
    if len(key_slices) != len(boxes):
        return None
    return join_anchors([Evidence(key, own) for key, own in zip(key_slices, boxes, strict=True)])


def require_within(anchor: Evidence | None, shape: tuple[int, int, int]) -> None:
    """Refuse a reader's anchor that leaves its scan.

    Args:
        anchor: Key slices and boxes, or None.
        shape: Of the scan (Z, Y, X).

    Raises:
        DatasetError: The slice is not one of the scan's, or a box leaves it.
    """
    depth, height, width = shape
    for one in () if anchor is None else anchor.anchors:
        if one.key_slice is not None and one.key_slice >= depth:
            raise DatasetError(f"key_slice is {one.key_slice}, and the scan has the slices 0 to {depth - 1}; mend it")
        if (one.boxes[:, 2] > width).any() or (one.boxes[:, 3] > height).any():
            raise DatasetError(f"boxes {write_boxes(one.boxes)!r} leave slices of {width} x {height} pixels; mend them")
