"""Boxes as one line of text, as tables write them: ``10.5 20 64 80; 90 20 110 41``, in pixels of the key slice.

Several anchors of one answer have ``|`` between them, in the cell of their key slices and in that of their boxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from medvol.grounding.grammar import MAX_BOXES

BETWEEN = " | "
"""Stands between several anchors in a cell."""

_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")


def write_boxes(boxes: Iterable[Iterable[float]]) -> str:
    """Boxes (N, 4) as the text of a cell, to a thousandth of a pixel."""
    return "; ".join(" ".join(str(round(float(edge), 3)).removesuffix(".0") for edge in box) for box in boxes)


def read_boxes(text: str) -> NDArray[np.float64] | None:
    """Boxes (N, 4) of a cell; None when it does not hold boxes with an area."""
    rows = [part.replace(",", " ").split() for part in text.split(";")]
    if len(rows) > MAX_BOXES or any(len(row) != 4 or not all(map(_NUMBER.fullmatch, row)) for row in rows):
        return None
    boxes = np.array(rows, np.float64)
    return boxes if (boxes[:, :2] < boxes[:, 2:]).all() else None
