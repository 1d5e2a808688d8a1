"""A propagator that knows the answers, so that ranks depend on the rewards alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import box_iou, rasterise, tight_boxes

_FITS = 0.25
"""Overlap from which on a box means a target."""


class PerfectPropagator(Propagator):
    """Fills, for each box, the whole target that it fits best on the key slice.

    A box that fits none is taken at its word: what lies above and below it is filled. A box that touches none fills
    nothing.

    Args:
        targets: Masks (Z, Y, X) of what the volume shows; the first one is preferred where two fit alike.
    """

    def __init__(self, targets: Sequence[NDArray[np.bool_]]) -> None:
        self.targets = targets

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Fill what the boxes mean; see the role for the arguments."""
        mask = np.zeros(volume.shape, bool)
        if evidence.key_slice is not None:
            filled = slice(*(z_range or (0, len(mask))))
            for box in evidence.boxes:
                mask[filled] |= self._meant(box, evidence.key_slice)[filled]
        return mask

    def _meant(self, box: NDArray[np.float64], key_slice: int) -> NDArray[np.bool_]:
        """Mask (Z, Y, X) of one box."""
        fits = [_fit(box, target[key_slice]) for target in self.targets]
        best = int(np.argmax(fits))
        if fits[best] >= _FITS:
            return self.targets[best]
        shape = self.targets[best].shape
        column = rasterise(box, *shape[1:]) if fits[best] > 0 else np.zeros(shape[1:], bool)
        return np.broadcast_to(column, shape)


def _fit(box: NDArray[np.float64], shown: NDArray[np.bool_]) -> float:
    """Largest overlap of a box with a part of a target on a slice."""
    return float(box_iou(box, tight_boxes(shown, split=True)).max(initial=0))
