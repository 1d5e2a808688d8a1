"""Gaze labels: where a policy should look while it writes the numbers of a true answer.

A policy that starts from random weights needs tens of thousands of answers to find out that a coordinate is read off
the image, and till then it places organs by habit. Told where to look, it looks there after a few thousand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Evidence
from medvol.policies.gaze_target import Gaze

_ANSWER = "<answer>"
_NUMBER = re.compile(r"\b\d+\b")


def answer_gazes(
    text: str, evidence: Evidence, target: NDArray[np.bool_], shown: Sequence[int], spanned: Sequence[int] = ()
) -> list[Gaze]:
    """Where to look for each number of a true answer.

    The key slice is looked for at the target on it, a box at what it holds of the target, the ends of a span at the
    target on those slices.

    Args:
        text: The answer as ``format_evidence`` wrote it.
        evidence: What it says.
        target: (Z, Y, X) bool.
        shown: Index in the volume of each slice shown.
        spanned: First and last slice of the target when the think block ends with them.

    Returns:
        One gaze a number; none for an absent target.
    """
    if evidence.absent:
        return []
    opening = text.index(_ANSWER)
    thought = list(_NUMBER.finditer(text, 0, opening))[-len(spanned) :] if spanned else []
    written = list(_NUMBER.finditer(text, opening))
    places = [(z, target[z]) for z in spanned]
    for anchor in evidence.anchors:
        assert anchor.key_slice is not None
        key = anchor.key_slice
        places.append((key, target[key]))
        for box in anchor.boxes:
            places += [(key, _inside(box, target[key]))] * 4
    position = {z: i for i, z in enumerate(shown)}
    return [
        Gaze(match.start(), match.end(), position[z], mask)
        for match, (z, mask) in zip([*thought, *written], places, strict=True)
    ]


def _inside(box: NDArray[np.float64], plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a box holds of the target, or all of the target when it holds none."""
    x1, y1, x2, y2 = (round(float(edge)) for edge in box)
    held = np.zeros_like(plane)
    held[y1:y2, x1:x2] = plane[y1:y2, x1:x2]
    return held if held.any() else plane
