"""Consistency reward: does the anchor propagate to the target around the key slice?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RewardError
from medvol.core.evaluation.metrics import dice
from medvol.core.evaluation.scoring import require_target, settled_score
from medvol.core.roles import Need, RewardTerm
from medvol.core.types import Case, Rollout


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
        key_slice: Centre of the window.
        delta: Half-width of the window in slices; the whole volume when None.
        both_empty: Score when neither mask has a voxel in the window.

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
    window = slice(None) if delta is None else slice(max(key_slice - delta, 0), key_slice + delta + 1)
    if not (predicted[window].any() or true[window].any()):
        return both_empty
    return dice(predicted[window], true[window])


class ConsistencyReward(RewardTerm):
    """Dice of the propagated mask around the key slice.

    An answer that could not be parsed or propagated scores 0. Where the target is absent, ``[]`` scores 1 and boxes 0,
    whatever was propagated from them; where it is present, ``[]`` scores 0.

    Args:
        delta: Half-width of the window in slices; the whole volume when None.
        both_empty: Score when neither mask has a voxel in the window (1 in the paper's code).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"evidence", "mask"})

    def __init__(self, delta: int | None = 5, both_empty: float = 0.0) -> None:
        self.delta = delta
        self.both_empty = both_empty

    @property
    def mask_delta(self) -> int | None:
        """Slices on either side of the key slice in which the mask is read."""
        return self.delta

    def __call__(self, rollout: Rollout, case: Case) -> float:
        """Score the mask.

        Raises:
            DatasetError: The case has no target mask.
            RewardError: The answer has an anchor, but nothing was propagated from it.
        """
        target = require_target(case)
        settled = settled_score(rollout.evidence, target)
        if settled is not None or rollout.evidence is None or rollout.evidence.key_slice is None:
            return settled or 0.0
        if rollout.mask is None:
            if rollout.failure is None:
                raise RewardError(f"ConsistencyReward needs the propagated mask of case {case.case_id!r}; got none")
            return 0.0
        return consistency_score(rollout.mask, target, rollout.evidence.key_slice, self.delta, self.both_empty)
