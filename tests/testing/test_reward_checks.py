"""Rewards that break their contract are caught, each by the check that is about it."""

import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch

from medvol.core.metrics import dice
from medvol.core.roles import RewardTerm
from medvol.grounding.boxes import matched_iou, tight_boxes
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.testing import reward_checks as checks


class Doubled(AxialReward):
    """Leaves [0, 1]."""

    def __call__(self, rollout, case):
        return 2 * super().__call__(rollout, case)


class NotANumber(ConsistencyReward):
    """NaN where there is nothing."""

    def __call__(self, rollout, case):
        return float("nan") if rollout.evidence is None else super().__call__(rollout, case)


class PixelIoU(RewardTerm):
    """Compares pixels, so rounding costs a small target."""

    needs: ClassVar = frozenset({"evidence"})

    def __call__(self, rollout, case):
        if rollout.evidence is None or rollout.evidence.key_slice is None:
            return float(rollout.evidence is not None and not case.target.any())
        return matched_iou(rollout.evidence.boxes, tight_boxes(case.target[rollout.evidence.key_slice]))


class Consoling(AxialReward):
    """Pays a little for nothing."""

    def __call__(self, rollout, case):
        return 0.1 if rollout.evidence is None else super().__call__(rollout, case)


class Credulous(FormatReward):
    """Any text will do."""

    def __call__(self, rollout, case):
        return 1.0


class PresentOnly(AxialReward):
    """Knows no absent targets."""

    def __call__(self, rollout, case):
        return super().__call__(rollout, case) if case.target.any() else 0.0


class Shy(AxialReward):
    """Likes silence."""

    def __call__(self, rollout, case):
        return 1.0 if rollout.evidence is not None and rollout.evidence.absent else super().__call__(rollout, case)


class Trusting(RewardTerm):
    """Pays for boxes about an absent target when nothing was propagated from them."""

    needs: ClassVar = frozenset({"evidence", "mask"})

    def __call__(self, rollout, case):
        return 0.0 if rollout.evidence is None else dice(rollout.mask, case.target)


class ShortSighted(ConsistencyReward):
    """Has less propagated than it reads."""

    mask_delta = 1


class Backwards(AxialReward):
    """Likes slices that show little."""

    def __call__(self, rollout, case):
        score = super().__call__(rollout, case)
        return score if score in (0.0, 1.0) else 1 - score


class Marking(ConsistencyReward):
    """Says whether, where a number belongs."""

    def __call__(self, rollout, case):
        return super().__call__(rollout, case) > 0.5


class Emptying(ConsistencyReward):
    """Empties the target through a tensor on the same memory."""

    def __call__(self, rollout, case):
        score = super().__call__(rollout, case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.from_numpy(case.target).zero_()
        return score


class Scribbling(ConsistencyReward):
    """Clears the mask that it has scored."""

    def __call__(self, rollout, case):
        score = super().__call__(rollout, case)
        if rollout.mask is not None:
            rollout.mask[:] = False
        return score


class Moody(AxialReward):
    """Draws a number."""

    rng = np.random.default_rng(0)

    def __call__(self, rollout, case):
        return super().__call__(rollout, case) * self.rng.random()


class Greedy(AxialReward):
    """Needs everything there is."""

    needs: ClassVar = {"everything"}


class Misspelt(AxialReward):
    """Judges something that does not exist."""

    judges: ClassVar = frozenset({"box"})


class Halved(ConsistencyReward):
    """Reads the mask in so many slices and a half."""

    mask_delta = 2.5


class Sly(RewardTerm):
    """Reads the mask without saying so."""

    needs: ClassVar = frozenset({"evidence"})

    def __call__(self, rollout, case):
        return dice(rollout.mask, case.target)


class Secretive(RewardTerm):
    """Scores the mask where there is one, without saying so."""

    needs: ClassVar = frozenset({"evidence"})

    def __call__(self, rollout, case):
        return 0.0 if rollout.mask is None else dice(rollout.mask, case.target)


class Wasteful(AxialReward):
    """Has the mask propagated for nothing."""

    needs: ClassVar = frozenset({"evidence", "mask"})


BROKEN = [
    (checks.check_range, Doubled()),
    (checks.check_range, NotANumber()),
    (checks.check_range, Marking()),
    (checks.check_perfect_answer, PixelIoU()),
    (checks.check_unparsable_answer, Consoling()),
    (checks.check_unparsable_answer, Credulous()),
    (checks.check_absent_target, PresentOnly()),
    (checks.check_absent_target, Shy()),
    (checks.check_absent_target, Trusting()),
    (checks.check_worse_is_not_better, Backwards()),
    (checks.check_no_mutation, Scribbling()),
    (checks.check_no_mutation, Emptying()),
    (checks.check_deterministic, Moody()),
    (checks.check_needs_are_known, Greedy()),
    (checks.check_judges_are_known, Misspelt()),
    (checks.check_needs_are_complete, Sly()),
    (checks.check_needs_are_complete, Secretive()),
    (checks.check_mask_is_used, Wasteful()),
    (checks.check_mask_delta, ShortSighted()),
    (checks.check_mask_delta, Halved()),
]


@pytest.mark.parametrize(("check", "term"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_caught(assert_caught, check, term):
    assert_caught(check, term)


def test_every_check_catches_something():
    assert {check for check, _ in BROKEN} == set(checks.REWARD_CHECKS)
