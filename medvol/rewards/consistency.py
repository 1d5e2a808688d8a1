"""Consistency reward: does the anchor propagate to the target around the key slice?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from medvol.core.metrics import dice
from medvol.core.ranges import require_share, require_whole
from medvol.core.roles import Aspect, Need
from medvol.rewards.anchored import Anchor, AnchoredReward


def consistency_score(
    predicted: NDArray[np.bool_],
    true: NDArray[np.bool_],
    key_slice: int,
    delta: int | None = 5,
    both_empty: float = 0.0,
) -> float:
    """Dice of two masks within ``key_slice - delta .. key_slice + delta``.

    Args:
        predicted: Mask (Z, Y, X).
        true: Mask (Z, Y, X).
        key_slice: Centre of the range that is compared.
        delta: Half-width of that range in slices; the whole volume when None.
        both_empty: Score when neither mask has a voxel in that range.

    Returns:
        A value in [0, 1].

    Raises:
        GeometryError: The masks have different shapes.
        IndexError: ``key_slice`` is outside the volume.

    Source: MedVol-R1 (arXiv 2605.26621), consistency reward R_c, whose code pays 1 when both are empty: a slice off
    the target with nothing propagated then earns the full score, so 0 is the default here.
    """
    if not 0 <= key_slice < len(true):
        raise IndexError(f"slice {key_slice} is outside a volume of {len(true)} slices")
    nearby = slice(None) if delta is None else slice(max(key_slice - delta, 0), key_slice + delta + 1)
    if not (predicted[nearby].any() or true[nearby].any()):
        return both_empty
    return dice(predicted[nearby], true[nearby])


class ConsistencyReward(AnchoredReward):
    """Dice of the propagated mask around the key slice.

    See ``AnchoredReward`` for answers without an anchor and absent targets.

    Args:
        delta: Half-width of that range in slices; the whole volume when None.
        both_empty: Score when neither mask has a voxel in that range (1 in the paper's code).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"evidence", "mask"})
    judges: ClassVar[frozenset[Aspect]] = frozenset({"mask"})

    def __init__(self, delta: int | None = 5, both_empty: float = 0.0) -> None:
        require_whole(0, delta=delta)
        require_share(both_empty=both_empty)
        self.delta = delta
        self.both_empty = both_empty

    @property
    def mask_delta(self) -> int | None:
        """Slices on either side of the key slice in which the mask is read."""
        return self.delta

    def compare(self, anchor: Anchor, target: NDArray[np.bool_]) -> float:
        """Score the mask."""
        return consistency_score(anchor.mask, target, anchor.key_slice, self.delta, self.both_empty)
