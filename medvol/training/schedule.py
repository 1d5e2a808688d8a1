"""How many optimiser steps a fit takes, and learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning.pytorch import Trainer


def count_steps(trainer: Trainer, updates_per_batch: int) -> float:
    """Optimiser steps of a whole fit; infinite when it has no end.

    Args:
        trainer: Knows the batches; its own estimate has one step for a batch, or for those that it accumulates.
        updates_per_batch: Steps that a module takes on each batch.
    """
    steps = float(trainer.estimated_stepping_batches) * updates_per_batch
    return min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps


def count_updates(trainer: Trainer, updates_per_batch: int) -> int:
    """Optimiser steps on the batch that comes next: the last one of a fit has fewer where ``max_steps`` comes first."""
    if trainer.max_steps < 0:
        return updates_per_batch
    return min(updates_per_batch, trainer.max_steps - trainer.global_step)


def warm_up_then_cosine(warmup_steps: int, total_steps: float, final_share: float) -> Callable[[int], float]:
    """Rise linearly to 1 over the warm-up, then fall along half a cosine towards ``final_share``.

    Args:
        warmup_steps: Length of the rise; 0 starts at the peak.
        total_steps: Length of the training, warm-up included; infinite stays at the peak.
        final_share: Value at its end, in [0, 1]; the step after the last one would have it.
    """

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return share
