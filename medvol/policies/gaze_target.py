"""Gaze: what a policy that is trained from scratch should look at while it writes a piece of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Gaze:
    """What a policy should look at while it writes a piece of an answer.

    Args:
        start: First character of the piece in the answer's text.
        stop: Character behind its last.
        position: Of the slice among those shown.
        mask: (Y, X) bool, True where to look; at least one pixel.
    """

    start: int
    stop: int
    position: int
    mask: NDArray[np.bool_]
