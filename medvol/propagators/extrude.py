"""Baseline: the boxes themselves, repeated over neighbouring slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.core.ranges import require_between, require_whole
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import rasterise
from medvol.propagators.clipping import clip_range, usable_boxes


class ExtrudePropagator(Propagator):
    """Repeats the boxes of the key slice up and down; what any propagator has to beat.

    Args:
        half_depth_mm: Millimetres filled on either side of the key slice, measured between slice centres. The default
            of 25 is about half the height of a kidney tumour or a small organ.
        half_depth_slices: Slices filled on either side instead of millimetres; None uses ``half_depth_mm``.
    """

    def __init__(self, half_depth_mm: float = 25.0, half_depth_slices: int | None = None) -> None:
        require_whole(0, half_depth_slices=half_depth_slices)
        require_between("[0, inf)", half_depth_mm=half_depth_mm)
        self.half_depth_mm = half_depth_mm
        self.half_depth_slices = half_depth_slices

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Fill the boxes on the key slice and its neighbours; see the role for arguments and errors."""
        mask = np.zeros(volume.shape, bool)
        boxes = usable_boxes(volume, evidence)
        if evidence.key_slice is None or len(boxes) == 0:
            return mask
        depth, height, width = volume.shape
        reach = self._reach(volume)
        for z in clip_range(depth, z_range):
            if abs(z - evidence.key_slice) <= reach:
                mask[z] = rasterise(boxes, height, width)
        return mask

    def _reach(self, volume: Volume) -> int:
        if self.half_depth_slices is not None:
            return self.half_depth_slices
        return int(np.floor(self.half_depth_mm / volume.spacing[0] + 1e-9))
