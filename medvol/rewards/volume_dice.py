"""Volume Dice reward: does the anchor propagate to the whole target?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from medvol.core.metrics import dice
from medvol.core.roles import Aspect, Need
from medvol.rewards.anchored import Anchor, AnchoredReward


class VolumeDiceReward(AnchoredReward):
    """Dice of the propagated mask with the target, over the whole volume.

    It is what an evaluation measures, so it cannot be raised by a mask that is right around the key slice alone; the
    whole volume is propagated for it. See ``AnchoredReward`` for answers without an anchor and absent targets. A mask
    and a target that are both empty are never compared: the rule for absent targets has settled them. Where the prompt
    allows several anchors it is a mean over the parts of the target, which an evaluation's Dice of the union is not.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"evidence", "mask"})
    judges: ClassVar[frozenset[Aspect]] = frozenset({"mask"})

    def compare(self, anchor: Anchor, target: NDArray[np.bool_]) -> float:
        """Score the mask."""
        return dice(anchor.mask, target)
