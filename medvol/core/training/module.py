"""TrainingModule: what every way of training a policy shares."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from medvol.core.errors import ConfigError
from medvol.core.evaluation.module import EvaluationModule
from medvol.core.limits import require_least, require_share
from medvol.core.roles import Propagator, TrainablePolicy
from medvol.core.training.schedule import warm_up_then_cosine


class TrainingModule(EvaluationModule):
    """Trains the policy that it evaluates, and exports it at the end.

    Args:
        policy: Trained.
        propagator: Turns anchors into masks.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
        warmup_steps: Optimiser steps of linear warm-up.
        final_share: The cosine ends at this share of the peak.
        error_budget: See ``EvaluationModule``.
        surface: See ``EvaluationModule``.
        tolerance_mm: See ``EvaluationModule``.
        anchor_rule: See ``EvaluationModule``.
        split_boxes: See ``EvaluationModule``.
        max_new_tokens: See ``EvaluationModule``.
        save_dir: See ``EvaluationModule``.

    Raises:
        ConfigError: The policy has nothing to train, or a setting is out of range.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        final_share: float,
        error_budget: bool,
        surface: bool,
        tolerance_mm: float,
        anchor_rule: Literal["paper", "largest"],
        split_boxes: bool,
        max_new_tokens: int,
        save_dir: str | None,
    ) -> None:
        super().__init__(
            policy, propagator, error_budget, surface, tolerance_mm, anchor_rule, split_boxes, max_new_tokens, save_dir
        )
        if not isinstance(policy, TrainablePolicy):
            raise ConfigError(f"{type(policy).__name__} has nothing to train; fit a TrainablePolicy")
        require_least(0, learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps)
        require_share(final_share=final_share)
        self.student = policy
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.final_share = final_share

    def optimise(
        self, parameters: Iterable[torch.nn.Parameter], betas: tuple[float, float], steps: int
    ) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine over so many optimiser steps."""
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay)
        shape = warm_up_then_cosine(self.warmup_steps, steps, self.final_share)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Export the trained policy to ``model`` in the run folder; a trial run leaves no model."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            self.student.save(Path(self.trainer.default_root_dir) / "model")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network before its weights are restored."""
        self.configure_model()
