"""The fields of a record: each is looked up by its dotted name and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RecordError
from medvol.core.looks import AXES, MAX_LOOKS, Look, Region
from medvol.core.prompts import MAX_ANCHORS
from medvol.core.suggestions import suggest
from medvol.core.types import Evidence
from medvol.grounding.grammar import MAX_BOXES

_MAX_PX = 1_000_000
_PLACE = ("key_slice", "boxes_px", "stored_slice", "slice_centre_mm", "boxes_norm", "box_corners_mm")
"""What a record says of where an anchor is; the first two are read."""


class RecordFields:
    """Checked access to what a JSON file holds; every error names the file, the field and the value.

    Args:
        path: File that was read.
        content: What it holds.

    Raises:
        RecordError: It is not an object.
    """

    def __init__(self, path: Path, content: Any) -> None:
        self.path = path
        self.content = content
        if not isinstance(content, dict):
            raise RecordError(f"{path} holds no JSON object; an evidence record starts with '{{'")

    def get(self, name: str) -> Any:
        """Value of a dotted name."""
        value = self.content
        for key in name.split("."):
            if not isinstance(value, dict) or key not in value:
                raise RecordError(f"{self.path}: the field {name} is missing; put it back, or segment the scan again")
            value = value[key]
        return value

    def text(self, name: str, may_be_empty: bool = False) -> str:
        """A text."""
        value = self.get(name)
        if not isinstance(value, str) or not (value.strip() or may_be_empty):
            self._refuse(name, value, "a text" if may_be_empty else "a text that is not empty")
        return value

    def file_name(self, name: str) -> str:
        """Name of a file beside this one."""
        value = self.text(name)
        if "/" in value or "\\" in value or "\0" in value or value in (".", "..") or PureWindowsPath(value).drive:
            self._refuse(name, value, "the name of a file beside the record, without a folder")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text or null."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self._refuse(name, value, "a text or null")
        return value

    def flag(self, name: str) -> bool:
        """``true`` or ``false``."""
        value = self.get(name)
        if not isinstance(value, bool):
            self._refuse(name, value, "true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object."""
        value = self.get(name)
        if not isinstance(value, dict):
            self._refuse(name, value, "an object")
        return value

    def evidence(self, name: str) -> Evidence:
        """Anchors: key slice and pixel boxes, both empty when the target is absent; ``further`` lists further ones."""
        given = self.mapping(name)
        self._require_known(name, given, (*_PLACE, "absent", "rationale", "further"))
        first = self._anchor(name)
        rationale = self.text(f"{name}.rationale", may_be_empty=True)
        listed = given.get("further", [])
        if not isinstance(listed, list) or len(listed) >= MAX_ANCHORS or (listed and first.absent):
            self._refuse(f"{name}.further", listed, f"a list of at most {MAX_ANCHORS - 1} anchors beside a first one")
        for i, item in enumerate(listed):
            self._require_known(f"{name}.further[{i}]", item, _PLACE)
        nested = RecordFields(self.path, {name: {f"further[{i}]": item for i, item in enumerate(listed)}})
        further = tuple(nested._anchor(f"{name}.further[{i}]") for i in range(len(listed)))
        keys = [anchor.key_slice for anchor in (first, *further)]
        if further and (None in keys or len(set(keys)) < len(keys)):
            self._refuse(f"{name}.further", keys[1:], "anchors of which each names another slice")
        return replace(first, rationale=rationale, further=further)

    def _require_known(self, name: str, given: Any, known: Sequence[str]) -> None:
        """Refuse a key that nothing reads: a misspelt one would pass for nothing."""
        for key in given if isinstance(given, dict) else ():
            if key not in known:
                raise RecordError(
                    f"{self.path}: {name} has an unknown key {key[:80]!r}; slice and boxes are read from key_slice and "
                    f"boxes_px{suggest(key, known)}"
                )

    def _anchor(self, name: str) -> Evidence:
        """One anchor, without its rationale."""
        key = self.get(f"{name}.key_slice")
        boxes = self.get(f"{name}.boxes_px")
        if key is None:
            if boxes != []:
                self._refuse(f"{name}.boxes_px", boxes, "[] where key_slice is null, which says that nothing is there")
            return Evidence(None, np.empty((0, 4), np.float64))
        if type(key) is not int or key < 0:
            self._refuse(f"{name}.key_slice", key, "the index of a slice, 0 or more, or null for an absent target")
        return Evidence(key, self._boxes(f"{name}.boxes_px", boxes))

    def looks(self) -> tuple[Look, ...]:
        """Looks of a policy that looks more than once: region, words, and why they could not be read."""
        listed = self.get("looks")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_LOOKS:
            self._refuse("looks", listed, f"a list of 1 to {MAX_LOOKS} looks")
        nested = RecordFields(self.path, {f"looks[{i}]": item for i, item in enumerate(listed)})
        return tuple(nested._look(f"looks[{i}]") for i in range(len(listed)))

    def _look(self, name: str) -> Look:
        z, y, x = (self._range(f"{name}.region.{axis}") for axis in AXES)
        answer = self.text(f"{name}.answer", may_be_empty=True)
        return Look(Region(z, y, x), answer, self.optional_text(f"{name}.failure"))

    def _range(self, name: str) -> tuple[int, int]:
        value = self.get(name)
        whole = isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)
        if not (whole and 0 <= value[0] < value[1] <= _MAX_PX):
            self._refuse(name, value, "two indices, the first voxel and the one after the last")
        return value[0], value[1]

    def _boxes(self, name: str, value: Any) -> NDArray[np.float64]:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_BOXES:
            self._refuse(name, value, f"a list of 1 to {MAX_BOXES} boxes")
        for i, box in enumerate(value):
            if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
                self._refuse(f"{name}[{i}]", box, "four numbers x1, y1, x2, y2 in pixels")
            if not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
                self._refuse(f"{name}[{i}]", box, "x1, y1, x2, y2 with 0 <= x1 < x2 and 0 <= y1 < y2")
        return np.array(value, np.float64)

    def _refuse(self, name: str, value: Any, expected: str) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
        raise RecordError(f"{self.path}: {name} is {shown}; it must be {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_PX
