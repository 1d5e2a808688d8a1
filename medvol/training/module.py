"""TrainingModule: what every way of training a policy shares."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from medvol.core.errors import ConfigError
from medvol.core.model_folder import require_replaceable
from medvol.core.prompts import Prompt
from medvol.core.ranges import require_share, require_whole
from medvol.core.roles import Propagator, TrainablePolicy
from medvol.core.types import Completion, SliceStack
from medvol.evaluation.module import Batch, EvaluationModule
from medvol.evaluation.ranks import gather_ranks
from medvol.evaluation.settings import EvaluationSettings
from medvol.terminal.progress import say
from medvol.training.accumulation import count_accumulated, within_accumulation
from medvol.training.export import copy_policy, export_model
from medvol.training.gathering import TRAINING_DATA, Gatherer
from medvol.training.gradients import (
    clip_gradients,
    keep_gradients_apart,
    require_finite_gradients,
    scale_gradients,
    sum_gradients,
)
from medvol.training.moments import make_adamw, require_same_moments
from medvol.training.movement import Movement, MovementWatch, require_wide
from medvol.training.refused_callbacks import require_sound_callbacks
from medvol.training.schedule import count_steps, warm_up_then_cosine
from medvol.training.settings import OptimizerSettings
from medvol.training.strategies import require_proven, sharded_layers, whole_layers
from medvol.training.zero import ZeroStrategy

log = logging.getLogger(__name__)


class TrainingModule(EvaluationModule, ABC):
    """Trains the policy that it evaluates, and exports it at the end.

    Args:
        policy: Trained.
        propagator: Turns anchors into masks.
        optimizer: AdamW and its schedule.
        evaluation: How answers are asked for, and what is measured of them.
        reword: Probability that words of a training query are dropped and a carrier phrase is put before it.
        seed: Seed of the draws; None is 0.

    Raises:
        ConfigError: The policy has nothing to train, or a setting is out of range.
    """

    policy: TrainablePolicy

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        optimizer: OptimizerSettings,
        evaluation: EvaluationSettings,
        reword: float,
        seed: int | None,
    ) -> None:
        super().__init__(policy=policy, propagator=propagator, evaluation=evaluation)
        if not isinstance(policy, TrainablePolicy):
            raise ConfigError(
                f"{type(policy).__name__} has nothing to train; give {type(self).__name__} a TrainablePolicy, such as "
                "QwenVLPolicy, or score this one with EvaluationModule and `medvol test`"
            )
        require_share(reword=reword)
        require_whole(0, seed=seed)
        self.optimizer = optimizer
        self.reword = reword
        self.seed = 0 if seed is None else seed
        self.gatherer = Gatherer(type(self).__name__, reword > 0)

    @property
    def updates_per_batch(self) -> int:
        """Optimiser steps on each batch."""
        return 1

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        """Train on a batch."""

    def optimise(self, parameters: Iterable[torch.nn.Parameter], betas: tuple[float, float]) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine over the optimiser steps of the fit."""
        own = self.optimizer
        optimizer = make_adamw(parameters, own, betas)
        MovementWatch(optimizer, self._tell_movement)
        steps = count_steps(self.trainer, self.updates_per_batch)
        shape = warm_up_then_cosine(own.warmup_steps, steps, own.final_share)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """See that nothing is missing; in a fit, keep what is trained in float32 from the beginning.

        Raises:
            ConfigError: The trainer's precision would undo that, its strategy is none that training here knows, or it
                has a callback that cannot be used here.
        """
        if stage == "fit":
            callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
            # Lightning keeps the setting under a private name alone.
            require_sound_callbacks((type(own), getattr(own, "_use_buffers", False)) for own in callbacks)
            require_wide(self.trainer.precision)
        super().setup(stage)
        if stage == "fit":
            require_proven(self.trainer.strategy, self.optimizer.moments)
            self.policy.load_for_training()

    def configure_model(self) -> None:
        """Load the network, in a fit as it is trained: callbacks that average weights copy it before ``setup``."""
        super().configure_model()
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self.policy.load_for_training()

    def on_fit_start(self) -> None:
        """Look where the model will be written, go on from what the policy knew before, and enter training mode.

        A network that was read from a folder is in evaluation mode, in which no layer is ever computed again.
        """
        if not self.is_trial:
            require_replaceable(self._model_folder)
        self.gatherer.start(self.policy)
        self.train()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        with whole_layers(self.network):
            super().validation_step(batch, batch_idx)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Note what is about to be learned from."""
        keep_gradients_apart(self.trainer.strategy.model)
        for cases in batch:
            self.gatherer.meet(cases)

    def place_of(self, batch_idx: int) -> tuple[int, ...]:
        """Optimiser steps before a batch, and its number among the batches of its step, which the first one lacks.

        Together with the seed they decide the draws, so a resumed run repeats them.
        """
        place = batch_idx % self.trainer.accumulate_grad_batches if batch_idx else 0
        return (self.global_step, place) if place else (self.global_step,)

    def on_after_backward(self) -> None:
        """Add up the gradients of all processes when an optimiser step comes next; a module may do so itself."""
        if self.automatic_optimization and not within_accumulation(self.trainer):
            sum_gradients(self.parameters())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at what the weights are about to take: a mean over the batches of the step, however many there are."""
        scale_gradients(self.parameters(), self.trainer.accumulate_grad_batches / count_accumulated(self.trainer))
        require_finite_gradients(self.parameters(), self.global_step)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip as the trainer is set to; over sharded and whole parameters together.

        An optimiser whose states are shared out has parts in place of parameters.
        """
        apart = sharded_layers(self.network) or isinstance(self.trainer.strategy, ZeroStrategy)
        if apart and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            clip_gradients(self.parameters(), float(gradient_clip_val))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def idle_passes(self, own: int) -> int:
        """Passes through the network that keep this process in step with one that has more of them.

        Only sharded layers need that: all processes have to run them together.
        """
        return max(gather_ranks(own)) - own if sharded_layers(self.network) else 0

    def idle_question(self) -> tuple[list[Prompt], list[list[Completion]]]:
        """Something small to read that nothing is learned from."""
        template = self.policy.template
        height, width = template.height_px, template.width_px
        blank = SliceStack((0,), np.zeros((1, 3, height, width), np.float32), (1, height, width))
        return [Prompt(blank, "", template)], [[self.policy.encode("")]]

    def idle_loss(self) -> torch.Tensor:
        """The loss of a process that has nothing to learn while others have: a gradient of 0."""
        if not sharded_layers(self.network):
            return torch.zeros((), device=self.device, requires_grad=True)
        ((scores,),) = self.policy.log_probs(*self.idle_question())
        return 0.0 * scores.sum()

    def on_fit_end(self) -> None:
        """Export the trained policy to ``model`` in the run folder, with its training data; not after a trial run."""
        data = self.gatherer.finish(self.trainer, self.validated)
        self.gatherer.data = data
        weights = self.trainer.strategy.lightning_module_state_dict() if sharded_layers(self.network) else None
        if self.trainer.is_global_zero and not self.is_trial:
            export_model(
                self.policy if weights is None else copy_policy(self.policy, weights), self._model_folder, data
            )

    def _tell_movement(self, movement: Movement) -> None:
        """Say once, at the first step, how many weights moved."""
        if self.trainer.is_global_zero:
            log.info("first step: %s", movement)
            say(f"first step: {movement}")

    @property
    def _model_folder(self) -> Path:
        return Path(self.trainer.default_root_dir) / "model"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the policy was trained on up to now."""
        checkpoint[TRAINING_DATA] = self.gatherer.finish(self.trainer, self.validated).to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network before its weights are restored, and take up what it was trained on.

        Raises:
            ConfigError: The optimiser of the checkpoint keeps other moments.
        """
        require_same_moments(self.optimizer, checkpoint)
        self.configure_model()
        self.policy.load_for_training()
        self.policy.training_data = self.gatherer.restore(checkpoint)
        stages = () if self.policy.training_data is None else self.policy.training_data.stages
        self.validated = dict(stages[-1].scores) if stages else {}
