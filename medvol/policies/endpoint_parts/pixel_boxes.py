"""Boxes that a model writes in pixels of the slices it was shown, brought to the grammar's units."""

from __future__ import annotations

import json
import re

from medvol.grounding.boxes import to_norm

_NUMBER = r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")
_OPEN = "<answer>"


def to_grammar(text: str, height_px: int, width_px: int) -> str:
    """Rewrite the boxes of an answer, clipped to the slice, and leave all else as it is.

    Args:
        text: Any text; a box without an area stays, and the parser refuses it.
        height_px: Rows of a slice as it was shown.
        width_px: Columns of a slice as it was shown.
    """

    def rewrite(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(float, match.groups())
        if not (x1 < x2 and y1 < y2):
            return match[0]
        return json.dumps(to_norm([x1, y1, x2, y2], height_px, width_px)[0].tolist())

    before, opened, answer = text.partition(_OPEN)
    return f"{before}{opened}{_BOX.sub(rewrite, answer)}"
