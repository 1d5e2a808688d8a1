"""Learning-rate schedules, as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable


def warm_up_then_cosine(warmup_steps: int, total_steps: int, final_share: float) -> Callable[[int], float]:
    """Rise linearly to 1 over the warm-up, then fall along half a cosine to ``final_share`` at the last step.

    Args:
        warmup_steps: Length of the rise; 0 starts at the peak.
        total_steps: Length of the training, warm-up included.
        final_share: Value at its end, in [0, 1].
    """

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return share
