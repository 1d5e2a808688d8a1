"""Spatial reward: do the boxes fit?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.core.ranges import require_choice, require_coordinate_step, require_whole
from medvol.core.roles import Aspect, Need
from medvol.grounding.anchors import label_anchor
from medvol.grounding.boxes import matched_iou, tight_boxes, to_norm
from medvol.imaging.slices import shown_slices
from medvol.rewards.anchored import Anchor, AnchoredReward


def spatial_score(predicted_px: ArrayLike, true_px: ArrayLike, height: int, width: int, step: int = 1) -> float:
    """Sum of the Hungarian-matched IoU over max(N_predicted, N_true), in [0, 1]; 0 when either side is empty.

    Both sides are compared in the grammar's own coordinates, each corner rounded as ``format_evidence`` rounds it. An
    answer can only name those coordinates, so the best answer that can be written scores exactly 1 for a box of any
    size; in pixels its rounding alone would cost a box of 8 pixels up to a tenth.

    Args:
        predicted_px: (N, 4) pixels.
        true_px: (M, 4) pixels.
        height: Rows of the slice.
        width: Columns of the slice.
        step: The policy writes multiples of this (``coordinate_step`` of its prompt template).

    Source: MedVol-R1 (arXiv 2605.26621), spatial reward R_s; its code compares pixels after three different roundings.
    """
    predicted, true = (to_norm(boxes, height, width, step) for boxes in (predicted_px, true_px))
    return matched_iou(predicted, true)


TrueBoxes = Literal["predicted", "labelled"]
"""Slice whose true boxes count."""


class SpatialReward(AnchoredReward):
    """Matched IoU of the boxes with the true ones.

    See ``AnchoredReward`` for answers without an anchor and absent targets.

    Args:
        boxes_of: ``predicted`` compares with the true boxes of the slice that was chosen (0 where it shows no target);
            ``labelled`` with those of the labelled key slice whatever was chosen, as in the paper.
        split_boxes: One true box for each part of the target on the slice; one box of the whole target otherwise.
        coordinate_step: The policy writes multiples of this (as in its prompt template).
        num_slices: Slices shown, among which the labelled key slice is chosen.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"evidence"})
    judges: ClassVar[frozenset[Aspect]] = frozenset({"boxes"})

    def __init__(
        self,
        boxes_of: TrueBoxes = "predicted",
        split_boxes: bool = True,
        coordinate_step: int = 1,
        num_slices: int = 64,
    ) -> None:
        require_choice(TrueBoxes, boxes_of=boxes_of)
        require_whole(1, num_slices=num_slices)
        require_coordinate_step(coordinate_step)
        self.boxes_of = boxes_of
        self.split_boxes = split_boxes
        self.coordinate_step = coordinate_step
        self.num_slices = num_slices

    def compare(self, anchor: Anchor, target: NDArray[np.bool_]) -> float:
        """Score the boxes."""
        true = self._true_boxes(target, anchor)
        _, height, width = target.shape
        return spatial_score(anchor.boxes, true, height, width, self.coordinate_step)

    def _true_boxes(self, target: NDArray[np.bool_], anchor: Anchor) -> NDArray[np.float64]:
        if self.boxes_of == "predicted":
            return tight_boxes(target[anchor.key_slice], split=self.split_boxes)
        shown = shown_slices(anchor.volume, self.num_slices)
        return label_anchor(target, shown, rule="paper", split_boxes=self.split_boxes).boxes
