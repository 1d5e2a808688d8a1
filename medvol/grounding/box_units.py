"""Units in which a model writes boxes, where they are not the grammar's, and the way from one to the other.

The grammar has thousandths of the slice, and so has everything outside of a model. Some models were published with
another habit, such as pixels of the picture that they see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.core.errors import ConfigError
from medvol.core.prompts import INSTRUCTION, PromptTemplate
from medvol.grounding.boxes import NORM, to_norm, to_whole_px

BoxUnits = Literal["thousandths", "pixels"]

_THOUSANDTHS = "with integers from 0 to 1000 over the slice's width and height"
_PIXELS = "with x and y in pixels of the slice"
_NUMBER = r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")
_OPEN = "<answer>"


def require_units(box_units: object) -> None:
    """Refuse what names no units.

    Raises:
        ConfigError: It is neither of the two.
    """
    if box_units not in get_args(BoxUnits):
        raise ConfigError(f"box_units is thousandths or pixels; got {str(box_units)[:80]!r}")


def ask_in(units: BoxUnits, template: PromptTemplate) -> PromptTemplate:
    """A template whose instruction, where it is the default one, asks for boxes in these units."""
    if units == "thousandths" or template.instruction != INSTRUCTION:
        return template
    return replace(template, instruction=INSTRUCTION.replace(_THOUSANDTHS, _PIXELS))


def read_pixels(text: str, height_px: int, width_px: int) -> str:
    """Rewrite the boxes of an answer from pixels to thousandths, clipped to the slice, and leave all else as it is.

    Args:
        text: Any text. A box outside of the slice loses its area; the parser refuses it, as any box without an area.
        height_px: Rows of a slice as the model saw it.
        width_px: Columns of a slice as the model saw it.
    """

    def convert(box: ArrayLike) -> NDArray[np.int64]:
        left, top, _, _ = np.asarray(box, np.float64)
        if left >= width_px or top >= height_px:
            return np.full((1, 4), NORM)
        return to_norm(box, height_px, width_px)

    return _rewrite(text, convert)


def write_pixels(text: str, height_px: int, width_px: int) -> str:
    """Rewrite the boxes of an answer from thousandths to whole pixels; arguments as for ``read_pixels``."""
    return _rewrite(text, lambda boxes: to_whole_px(boxes, height_px, width_px))


def _rewrite(text: str, convert: Callable[[ArrayLike], NDArray[np.int64]]) -> str:
    def rewrite(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(float, match.groups())
        if not (x1 < x2 and y1 < y2):
            return match[0]
        return json.dumps(convert([x1, y1, x2, y2])[0].tolist())

    before, opened, answer = text.partition(_OPEN)
    return f"{before}{opened}{_BOX.sub(rewrite, answer)}"
