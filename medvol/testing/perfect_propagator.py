"""A propagator that knows the answers, so that ranks tell about rewards and not about a propagator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvol.core.grounding.boxes import box_iou, rasterise, tight_boxes
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume


class PerfectPropagator(Propagator):
    """Fills, for each box, the target that it fits best on the key slice, as far as it lies above and below the box.

    Where a box touches none, it fills nothing.

    Args:
        targets: Masks (Z, Y, X) of what the volume shows; the first one is preferred where two fit alike.
    """

    def __init__(self, targets: Sequence[NDArray[np.bool_]]) -> None:
        self.targets = targets

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Fill the targets; see the role for the arguments."""
        mask = np.zeros(volume.shape, bool)
        if evidence.key_slice is None:
            return mask
        filled = slice(*(z_range or (0, len(mask))))
        for box in evidence.boxes:
            fits = [_fit(box, target[evidence.key_slice]) for target in self.targets]
            if max(fits, default=0) > 0:
                target = self.targets[int(np.argmax(fits))]
                mask[filled] |= target[filled] & rasterise(box, *volume.shape[1:])
        return mask


def _fit(box: NDArray[np.float64], shown: NDArray[np.bool_]) -> float:
    """Largest overlap of a box with a part of a target on a slice."""
    return float(box_iou(box, tight_boxes(shown, split=True)).max(initial=0))
