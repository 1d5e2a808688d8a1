"""Anchors: a key slice and boxes, as records hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        further: Anchors on other slices, of an answer that has several; none of them has further ones.
    """

    key_slice: int | None = None
    boxes_px: tuple[Box, ...] = ()
    further: tuple[Anchor, ...] = ()

    @property
    def boxes(self) -> tuple[tuple[int, Box], ...]:
        """Every box with the slice that it lies on."""
        own = () if self.key_slice is None else tuple((self.key_slice, box) for box in self.boxes_px)
        return own + tuple(placed for anchor in self.further for placed in anchor.boxes)

    @staticmethod
    def read(content: dict[str, Any]) -> Anchor:
        """An anchor from JSON.

        Raises:
            ValueError, TypeError, KeyError: It is none.
        """
        key = content["key_slice"]
        boxes = tuple(_box(values) for values in content["boxes_px"])
        further = tuple(Anchor.read(item) for item in content.get("further", ()))
        if (key is None) != (not boxes):
            raise ValueError("an anchor has a key slice and boxes, or neither")
        if further and (key is None or any(anchor.key_slice is None or anchor.further for anchor in further)):
            raise ValueError("further anchors have a key slice and boxes each, and so has the first one")
        return Anchor(None if key is None else int(key), boxes, further)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the interface takes them."""
        own = {"key_slice": self.key_slice, "boxes_px": [list(box) for box in self.boxes_px]}
        return {**own, "further": [anchor.to_json() for anchor in self.further]} if self.further else own


def make_anchor(drawn: Iterable[tuple[float, Box]], several: bool = False) -> Anchor:
    """Put boxes together that were drawn one by one.

    Args:
        drawn: For each box the slice that it lies on, which need not be a whole number, and its edges in pixels.
        several: They may lie on several slices, which make an anchor each.

    Raises:
        AnchorError: They do not lie on one slice and have to, or one of them is empty.
    """
    slices: dict[int, list[Box]] = {}
    for number, (height, box) in enumerate(drawn, 1):
        if box[2] - box[0] <= _SAME_PX or box[3] - box[1] <= _SAME_PX:
            raise AnchorError(f"box {number} has no width or no height; draw it again, or delete it")
        slices.setdefault(round(height), []).append(box)
    if len(slices) > 1 and not several:
        named = " and ".join(str(index) for index in sorted(slices))
        raise AnchorError(
            f"boxes lie on the slices {named}, and an anchor has one; put all on one slice, or delete some"
        )
    return _join(Anchor(index, tuple(boxes)) for index, boxes in slices.items())


def choose_to_move(heights: Sequence[float], index: int, several: bool) -> list[int]:
    """Which boxes go to another slice when the reader says so: all of them; of several anchors the nearest one.

    Args:
        heights: Slice of each box.
        index: Where they go.
        several: The answer may have boxes on several slices.

    Returns:
        Places of the boxes in ``heights``.
    """
    slices = [round(height) for height in heights]
    nearest = min(slices, key=lambda height: abs(height - index), default=index)
    return [place for place, height in enumerate(slices) if height == nearest or not several]


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
    rounded = [Anchor(one.key_slice, tuple(map(_round, one.boxes_px))) for one in (anchor, *anchor.further)]
    return _join(rounded)


def _join(anchors: Iterable[Anchor]) -> Anchor:
    """Anchors of one slice each as one answer."""
    known = list(anchors)
    return Anchor(known[0].key_slice, known[0].boxes_px, tuple(known[1:])) if known else Anchor()


def _equal(one: Anchor, other: Anchor) -> bool:
    mine, theirs = (sorted(anchor.boxes, key=lambda placed: placed[0]) for anchor in (one, other))
    if [key for key, _ in mine] != [key for key, _ in theirs]:
        return False
    pairs = ((a, b) for (_, box), (_, known) in zip(mine, theirs) for a, b in zip(box, known))  # noqa: B905
    return all(abs(a - b) <= _SAME_PX for a, b in pairs)


def _round(box: Box) -> Box:
    return _box(round(value, _DIGITS) for value in box)


def _box(values: Iterable[Any]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2
