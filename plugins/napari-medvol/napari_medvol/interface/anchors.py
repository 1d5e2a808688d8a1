"""Anchors: a key slice and boxes, as records hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]

_SAME_PX = 0.01
"""Boxes that lie closer than this are the same box: a viewer's own numbers may be a little off."""
_DIGITS = 2


class AnchorError(Exception):
    """What was drawn is no anchor; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Anchor:
    """Where something is.

    Args:
        key_slice: Index of the axial slice, from the feet; None when there is no box.
        boxes_px: Boxes (x1, y1, x2, y2) in pixels of the slice, half-open.
    """

    key_slice: int | None = None
    boxes_px: tuple[Box, ...] = ()

    @staticmethod
    def read(content: dict[str, Any]) -> Anchor:
        """An anchor from JSON.

        Raises:
            ValueError, TypeError, KeyError: It is none.
        """
        key = content["key_slice"]
        boxes = tuple(_box(values) for values in content["boxes_px"])
        if (key is None) != (not boxes):
            raise ValueError("an anchor has a key slice and boxes, or neither")
        return Anchor(None if key is None else int(key), boxes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the interface takes them."""
        return {"key_slice": self.key_slice, "boxes_px": [list(box) for box in self.boxes_px]}


def make_anchor(drawn: Iterable[tuple[float, Box]]) -> Anchor:
    """Put boxes together that were drawn one by one.

    Args:
        drawn: For each box the slice that it lies on, which need not be a whole number, and its edges in pixels.

    Raises:
        AnchorError: They do not lie on one slice, or one of them is empty.
    """
    boxes, slices = [], set()
    for number, (height, box) in enumerate(drawn, 1):
        if box[2] - box[0] <= _SAME_PX or box[3] - box[1] <= _SAME_PX:
            raise AnchorError(f"box {number} has no width or no height; draw it again, or delete it")
        boxes.append(box)
        slices.add(round(height))
    if len(slices) > 1:
        named = " and ".join(str(index) for index in sorted(slices))
        raise AnchorError(
            f"boxes lie on the slices {named}, and an anchor has one; put all on one slice, or delete some"
        )
    return Anchor(slices.pop(), tuple(boxes)) if boxes else Anchor()


def settle(anchor: Anchor, known: Iterable[Anchor]) -> Anchor:
    """An anchor without the small errors of a viewer's arithmetic.

    Args:
        anchor: As it was read from a viewer.
        known: Anchors that the viewer was given.

    Returns:
        The known one that it equals to a hundredth of a pixel; else itself, rounded to that.
    """
    for other in known:
        if _equal(anchor, other):
            return other
    rounded = (tuple(round(value, _DIGITS) for value in box) for box in anchor.boxes_px)
    return Anchor(anchor.key_slice, tuple(_box(box) for box in rounded))


def _equal(one: Anchor, other: Anchor) -> bool:
    if one.key_slice != other.key_slice or len(one.boxes_px) != len(other.boxes_px):
        return False
    pairs = ((box[i], other.boxes_px[n][i]) for n, box in enumerate(one.boxes_px) for i in range(4))
    return all(abs(a - b) <= _SAME_PX for a, b in pairs)


def _box(values: Iterable[Any]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2
