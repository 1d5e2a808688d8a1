"""Axial reward: does the key slice show much of the target?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.metrics import slice_areas
from medvol.core.ranges import require_choice, require_whole
from medvol.core.roles import Aspect, Need
from medvol.rewards.anchored import Anchor, AnchoredReward


def axial_score(areas: NDArray[np.int64], key_slice: int, delta: int | None = None) -> float:
    """Target area at the chosen slice over the largest area that could have been chosen.

    Args:
        areas: Target area of every slice, (Z,), >= 0.
        key_slice: Chosen index in the volume (not a position in the prompt).
        delta: Look for the largest area in ``key_slice - delta .. key_slice + delta`` only; in the volume when None.

    Returns:
        A value in [0, 1]; 0 when no slice in reach shows the target.

    Raises:
        IndexError: ``key_slice`` is outside the volume.

    Source: MedVol-R1 (arXiv 2605.26621), axial reward R_a, whose window lies around the *chosen* slice. A local maximum
    is a weak yardstick: three quarters of the way to the end of a structure of 160 slices it still pays 0.83 where the
    whole volume pays 0.44, so the whole volume is the default of ``AxialReward``.
    """
    if not 0 <= key_slice < len(areas):
        raise IndexError(f"slice {key_slice} is outside a volume of {len(areas)} slices")
    reach = areas if delta is None else areas[max(key_slice - delta, 0) : key_slice + delta + 1]
    largest = int(reach.max())
    return int(areas[key_slice]) / largest if largest else 0.0


Yardstick = Literal["volume", "local"]
"""Where the largest area is looked for."""


class AxialReward(AnchoredReward):
    """Target area at the key slice over the largest area.

    See ``AnchoredReward`` for answers without an anchor and absent targets.

    Args:
        normalise: ``volume`` divides by the largest area of the volume; ``local`` by the largest within ``delta``
            slices of the chosen one, as in the paper.
        delta: Half-width of that range in slices.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"evidence"})
    judges: ClassVar[frozenset[Aspect]] = frozenset({"slice"})

    def __init__(self, normalise: Yardstick = "volume", delta: int = 5) -> None:
        require_choice(Yardstick, normalise=normalise)
        require_whole(0, delta=delta)
        self.normalise = normalise
        self.delta = delta

    def compare(self, anchor: Anchor, target: NDArray[np.bool_]) -> float:
        """Score the key slice."""
        delta = self.delta if self.normalise == "local" else None
        return axial_score(slice_areas(target), anchor.key_slice, delta)
