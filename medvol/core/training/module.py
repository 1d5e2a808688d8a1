"""TrainingModule: what every way of training a policy shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from medvol.core.errors import ConfigError
from medvol.core.evaluation.module import Batch, EvaluationModule
from medvol.core.limits import require_least, require_share
from medvol.core.model_folder import require_replaceable
from medvol.core.roles import Propagator, TrainablePolicy
from medvol.core.training.export import export_model
from medvol.core.training.gathering import TRAINING_DATA, Gatherer
from medvol.core.training.schedule import warm_up_then_cosine


class TrainingModule(EvaluationModule, ABC):
    """Trains the policy that it evaluates, and exports it at the end.

    Args:
        policy: Trained.
        propagator: Turns anchors into masks.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
        warmup_steps: Optimiser steps of linear warm-up.
        final_share: The cosine ends at this share of the peak.
        reword: Probability that words of a training query are dropped and a carrier phrase is put before it.
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
        reword: float,
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
            raise ConfigError(
                f"{type(policy).__name__} has nothing to train; give {type(self).__name__} a TrainablePolicy, such as "
                "QwenVLPolicy, or score this one with EvaluationModule and `medvol test`"
            )
        require_least(0, learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps)
        require_share(final_share=final_share)
        self.student = policy
        self.gatherer = Gatherer(type(self).__name__, reword > 0)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.final_share = final_share

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        """Train on a batch."""

    def optimise(
        self, parameters: Iterable[torch.nn.Parameter], betas: tuple[float, float], steps: int
    ) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine over so many optimiser steps."""
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay)
        shape = warm_up_then_cosine(self.warmup_steps, steps, self.final_share)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Look where the model will be written, and go on from what the policy knew before."""
        if not self.is_trial:
            require_replaceable(self._model_folder)
        self.gatherer.start(self.student)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Note what is about to be learned from."""
        for cases in batch:
            self.gatherer.meet(cases)

    def on_fit_end(self) -> None:
        """Export the trained policy to ``model`` in the run folder, with its training data; not after a trial run."""
        data = self.gatherer.finish(self.trainer, self.validated)
        self.gatherer.data = data
        if self.trainer.is_global_zero and not self.is_trial:
            export_model(self.student, self._model_folder, data)

    @property
    def _model_folder(self) -> Path:
        return Path(self.trainer.default_root_dir) / "model"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the policy was trained on up to now."""
        checkpoint[TRAINING_DATA] = self.gatherer.finish(self.trainer, self.validated).to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network before its weights are restored, and take up what it was trained on."""
        self.configure_model()
        self.student.training_data = self.gatherer.restore(checkpoint)
        stages = () if self.student.training_data is None else self.student.training_data.stages
        self.validated = dict(stages[-1].scores) if stages else {}
