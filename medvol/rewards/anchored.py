"""What the terms that compare an anchor with a target have in common: the rule for everything else."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RewardError
from medvol.core.roles import RewardTerm
from medvol.core.types import Case, Evidence, Rollout, Volume, require_target
from medvol.grounding.anchors import settled_score
from medvol.grounding.cover import compare_anchors

_NOTHING = np.zeros((0, 0, 0), bool)


class Anchor(NamedTuple):
    """An anchor that names a slice, about a target that is present.

    Args:
        key_slice: Chosen index in the volume.
        boxes: (N, 4) pixels.
        mask: (Z, Y, X) propagated from the answer; (0, 0, 0) for a term that does not need the mask. Where an answer
            may have several anchors, what it holds of the parts that other anchors answer for is left out.
        volume: What was asked about.
    """

    key_slice: int
    boxes: NDArray[np.float64]
    mask: NDArray[np.bool_]
    volume: Volume


class AnchoredReward(RewardTerm):
    """A term that compares an anchor with the target.

    Only an anchor about a target that is present is compared. Everything else scores by one rule, for all such terms:

    - an answer that could not be parsed scores 0;
    - ``[]`` scores 1 where the target is absent and 0 where it is present;
    - boxes about an absent target score 0, whatever was propagated from them: that a propagator found nothing does
      not make the answer right;
    - an anchor whose propagation failed scores 0 in a term that needs the mask, and is compared by the others.

    Where the prompt allows several anchors, each is compared with the part of the target that it fits, by the rule of
    ``medvol.grounding.cover.compare_anchors``: the sum over the pairs, divided by the number of anchors or of parts,
    whichever is larger.
    """

    @abstractmethod
    def compare(self, anchor: Anchor, target: NDArray[np.bool_]) -> float:
        """Score an anchor in [0, 1].

        Args:
            anchor: What was answered.
            target: True mask (Z, Y, X), not empty; the anchor's part of it where there may be several anchors.
        """

    def __call__(self, rollout: Rollout, case: Case) -> float:
        """Score a rollout by the rule above.

        Raises:
            DatasetError: The case has no target mask.
            RewardError: The term needs the mask, and nothing was propagated from the anchor.
        """
        target = require_target(case)
        settled = settled_score(rollout.evidence, target)
        if settled is not None or rollout.evidence is None or rollout.evidence.key_slice is None:
            return settled or 0.0
        mask = rollout.mask if "mask" in self.needs else _NOTHING
        if mask is None:
            if rollout.failure is None:
                raise RewardError(f"{type(self).__name__} needs the propagated mask of case {case.case_id!r}; got none")
            return 0.0

        def compare(evidence: Evidence, part: NDArray[np.bool_]) -> float:
            assert evidence.key_slice is not None
            own = mask if part is target or mask is _NOTHING else mask & ~(target & ~part)
            return self.compare(Anchor(evidence.key_slice, evidence.boxes, own, case.volume), part)

        return compare_anchors(rollout.evidence, target, rollout.max_anchors, compare)
