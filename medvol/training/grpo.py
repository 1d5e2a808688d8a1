"""GRPOModule: group-relative policy optimisation on evidence anchors.

A training step draws a group of completions for every query, follows them to masks where a reward needs that, and
raises the probability of those that earned more than their siblings. Slices are read once a volume, in sampling and in
training alike: all queries and completions of a volume are one packed row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from medvol.core.errors import ConfigError
from medvol.core.registry import ENGINES
from medvol.core.roles import Policy, Propagator, RewardTerm, RolloutEngine, TrainablePolicy
from medvol.core.types import Case, Sampling, require_target
from medvol.evaluation.module import Batch
from medvol.evaluation.ranks import gather_ranks, one_stream, own_rank
from medvol.evaluation.settings import EvaluationSettings
from medvol.guarding.guard import name_component
from medvol.rollouts.groups import Group, ask, require_answers
from medvol.rollouts.scorer import RewardScorer
from medvol.training.advantages import group_advantages, zero_spread
from medvol.training.augmentation import reword_query
from medvol.training.engine_session import EngineSession
from medvol.training.engine_watch import EngineWatch
from medvol.training.gradients import clip_gradients, require_finite_norm, sum_gradients
from medvol.training.group_notes import GroupNotes, note_group
from medvol.training.inspector import draw_rollouts
from medvol.training.losses import LossTerms, policy_loss, sampler_weights
from medvol.training.measures import measure_rollouts, measure_update, sum_update
from medvol.training.module import TrainingModule
from medvol.training.reward_settings import require_matching
from medvol.training.schedule import count_updates
from medvol.training.settings import (
    AdvantageSettings,
    GRPOOptimizerSettings,
    LossSettings,
    RolloutSettings,
    StartSettings,
)
from medvol.training.start_check import require_good_start
from medvol.training.strategies import sharded_layers, whole_layers
from medvol.training.token_table import TokenTable, make_tables

REFERENCE = "medvol_reference"
"""Key of the reference's name in a checkpoint."""


class GRPOModule(TrainingModule):
    """Trains a policy by the rewards of its own answers (GRPO).

    Args:
        policy: Trained; it should already answer in the grammar (cold-start SFT first).
        propagator: Turns anchors into masks, for rewards, validation and test.
        rewards: Terms that score an answer.
        reward_weights: Weight of each term by its class name; 1 where none is given. A term of weight 0 is only logged
            when no mask is needed for it.
        rollouts: How completions are drawn.
        engine: Where they come from; None has the policy itself answer, as ``InProcessEngine`` does.
        advantages: How much better a completion did than its siblings.
        loss: What the loss is.
        optimizer: AdamW, with betas of 0.9 and 0.95, its schedule, and the updates on a batch of rollouts.
        start: What must hold before the first update.
        evaluation: How answers are asked for in validation and test, and what is measured of them.
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
            None takes that of the experiment (``seed_everything``); in Python it is 0.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        rewards: Sequence[RewardTerm],
        reward_weights: Mapping[str, float] | None = None,
        rollouts: RolloutSettings = RolloutSettings(),
        engine: RolloutEngine | None = None,
        advantages: AdvantageSettings = AdvantageSettings(),
        loss: LossSettings = LossSettings(),
        optimizer: GRPOOptimizerSettings = GRPOOptimizerSettings(),
        start: StartSettings = StartSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
        reword: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            policy=policy, propagator=propagator, optimizer=optimizer, evaluation=evaluation, reword=reword, seed=seed
        )
        if not isinstance(optimizer, GRPOOptimizerSettings):
            raise ConfigError(f"GRPOModule takes GRPOOptimizerSettings as its optimizer; got {optimizer!r}")
        self.optimizer: GRPOOptimizerSettings = optimizer
        self.rewards = list(rewards)
        self.reward_weights = reward_weights
        self.rollouts = rollouts
        self.engine: RolloutEngine = ENGINES.get("InProcessEngine")() if engine is None else engine
        self._session = EngineSession(self.engine)
        self._watch: EngineWatch | None = None
        self.advantages = advantages
        self.loss = loss
        self.start = start
        self.scorer = RewardScorer(self.rewards, reward_weights)
        self._norm = 0.0
        self._reference: str | None = None
        self.automatic_optimization = False  # one rollout batch may be worth several updates

    @property
    def needed_components(self) -> tuple[Policy | Propagator | RewardTerm | RolloutEngine, ...]:
        """The rewards and the engine too."""
        return (*self.rewards, self.engine, *super().needed_components)

    @property
    def updates_per_batch(self) -> int:
        """As many as there are updates on a batch of rollouts."""
        return self.optimizer.updates_per_rollout

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, by optimiser steps."""
        return self.optimise(self.policy.trainable_parameters(), (0.9, 0.95))

    def on_fit_start(self) -> None:
        """Watch an engine that has weights of its own.

        Raises:
            ConfigError: The layers are sharded, so no process has the weights that the engine wants; or a reward pays
                no answer in full; or a run that goes on would have another reference.
        """
        require_matching(self.rewards, self.policy.template, self.evaluation.split_boxes)
        super().on_fit_start()
        self._reference = self._keep_reference(self._reference)
        if not self.engine.in_process:
            if sharded_layers(self.network):
                raise ConfigError(
                    f"model.engine is {type(self.engine).__name__}, which wants whole weights, and trainer.strategy "
                    "shares them out; choose ddp, or leave model.engine out"
                )
            self._watch = EngineWatch(self.policy, self.start.max_sampler_gap)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what names the reference."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[REFERENCE] = self._reference

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what names the reference."""
        super().on_load_checkpoint(checkpoint)
        self._reference = checkpoint.get(REFERENCE)

    def teardown(self, stage: str) -> None:
        """End the engine."""
        self._session.stop()

    def clear_away(self) -> None:
        """End the engine too; after an error no hook of a module does."""
        self._session.abandon()
        super().clear_away()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Draw and score rollouts, then update the policy on them.

        Raises:
            ConfigError: Before the first update, when the start is not good enough.
            DatasetError: A case has no target mask.
            RewardError: A term fails, or scores outside [0, 1].
            EngineError: The engine fails, or does not have the weights of the policy.
        """
        with one_stream(self.seed, self.global_step) as rng:
            draws = [self._choose(cases, rng) for cases in batch]
        with whole_layers(self.network):
            self._session.sync(self.policy)
            groups = [g for cases, chosen in zip(batch, draws, strict=True) for g in self._draw(cases, *chosen)]
            self._session.rest()
            parts = gather_ranks([note_group(group) for group in groups])
            notes = [group for part in parts for group in part]
            if self.global_step == 0:
                prompts = [group.prompt for group in groups]
                require_good_start(self.policy, prompts, notes, self.start, self.evaluation.max_new_tokens)
        self._log_all(measure_rollouts(notes), len(notes))
        self._inspect(groups)
        tables = self._make_tables(groups, notes, first=sum(map(len, parts[: own_rank()])))
        references = [self._refer(table) for table in tables]
        idle = self.idle_passes(len(tables))
        if self.loss.beta:
            for _ in range(idle):
                self.policy.reference_log_probs(*self.idle_question())
        old: list[torch.Tensor] = []
        corrections: list[torch.Tensor | None] = []
        for number in range(count_updates(self.trainer, self.updates_per_batch)):
            self._update(tables, old, corrections, references, idle, first=number == 0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at what the weights are about to take; its norm was measured where it was scaled down."""
        require_finite_norm(self._norm, self.global_step)

    def _keep_reference(self, former: str | None) -> str | None:
        """Name of the reference, where there is one; a run that goes on has the one that it began with.

        Raises:
            ConfigError: It would have another one.
        """
        found = self.policy.name_reference() if self.loss.beta else None
        if None not in (former, found) and former != found:
            raise ConfigError(
                f"{name_component(self.policy)} is built with other weights than this run began with, and its loss "
                f"measures a divergence from those (model.loss.beta is {self.loss.beta}); bring back the model folder "
                "that the run began with, or make a model of the checkpoint (medvol convert) and begin a new run"
            )
        return found

    def _choose(self, cases: Sequence[Case], rng: np.random.Generator) -> tuple[list[str], Sampling]:
        """Choose how the queries of one volume are worded, and the seed of the completions."""
        for case in cases:
            require_target(case)
        queries = [reword_query(case.query, rng, self.reword) for case in cases]
        seed = int(rng.integers(2**31))
        return queries, Sampling(self.rollouts.temperature, self.evaluation.max_new_tokens, seed)

    def _draw(self, cases: Sequence[Case], queries: Sequence[str], sampling: Sampling) -> list[Group]:
        """Draw, follow and score the rollouts of one volume."""
        groups = ask(self._session.asked, cases, sampling, self.rollouts.group_size, queries)
        require_answers(groups)  # what a policy cannot do, it cannot learn from
        return self.scorer.score_groups(groups, self.propagator)

    def _make_tables(self, groups: Sequence[Group], notes: Sequence[GroupNotes], first: int) -> list[TokenTable]:
        """Lay out the groups of this process, which begin at ``first`` among those of the batch."""
        rewards = torch.tensor([[rollout.total for rollout in group] for group in notes], dtype=torch.float64)
        own = slice(first, first + len(groups))
        advantages = group_advantages(rewards, self.advantages.scale)[own].to(self.device, torch.float32)
        taught = torch.ones(len(groups), dtype=torch.bool)
        if self.advantages.skip_zero_spread:
            taught = ~zero_spread(rewards)[own]
        lengths = [rollout.tokens for group in notes for rollout in group]
        longest, size = self.evaluation.max_new_tokens, self.optimizer.volumes_per_pass
        return make_tables(groups, advantages, taught, self.loss.kind, longest, size, lengths)

    def _refer(self, table: TokenTable) -> torch.Tensor | None:
        """Log-probabilities under the reference policy."""
        if self.loss.beta == 0:
            return None
        return table.pad(self.policy.reference_log_probs(table.prompts, table.completions, self.rollouts.temperature))

    def _update(
        self,
        tables: Sequence[TokenTable],
        old: list[torch.Tensor],
        corrections: list[torch.Tensor | None],
        references: Sequence[torch.Tensor | None],
        idle: int,
        first: bool,
    ) -> None:
        """One optimiser step; the first one on a batch fills both lists, as the policy still is what drew it."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        terms: list[LossTerms] = []
        for table, reference in zip(tables, references, strict=True):
            new = table.pad(self.policy.log_probs(table.prompts, table.completions, self.rollouts.temperature))
            if len(old) == len(terms):
                old.append(new.detach())
                corrections.append(self._correct(table, old[-1]))
            before, weights = old[len(terms)], corrections[len(terms)]
            found = policy_loss(new, before, table.advantages, table.mask, table.weights, self.loss, reference, weights)
            self.manual_backward(found.loss)
            terms.append(found._replace(loss=found.loss.detach()))
        for _ in range(idle):
            self.manual_backward(self.idle_loss())
        judged: dict[str, float] = {}
        if first and self._watch is not None:
            judged = self._watch.judge(tables, old, corrections, self.loss.sampler_cap, self.rollouts.temperature)
        sum_gradients(self.policy.trainable_parameters())
        self._norm = clip_gradients(self.policy.trainable_parameters(), self.optimizer.max_grad_norm)
        optimizer.step()
        cast(LambdaLR, self.lr_schedulers()).step()
        parts = gather_ranks(sum_update(tables, terms, old))
        self._log_all({**measure_update(parts), **judged, "grad_norm": self._norm}, 1)

    def _correct(self, table: TokenTable, trainer: torch.Tensor) -> torch.Tensor | None:
        """Weights for the difference between the engine and the policy; None where the policy itself sampled."""
        own = self.loss
        if self.engine.in_process or own.sampler_cap is None:
            return None
        return sampler_weights(trainer, table.sampled, table.mask, own.sampler_cap, own.sampler_level)

    def _inspect(self, groups: Sequence[Group]) -> None:
        every = self.rollouts.inspect_every
        wanted = every and self.global_step % every == 0 and not self.is_trial
        if wanted and self.trainer.is_global_zero:
            folder = Path(self.trainer.default_root_dir) / "rollouts"
            draw_rollouts(folder / f"step-{self.global_step:06d}.png", groups, self.evaluation.split_boxes)

    def _log_all(self, measures: Mapping[str, float], count: int) -> None:
        for name, value in measures.items():
            self.log(f"train/{name}", value, prog_bar=name in ("reward", "zero_spread"), batch_size=count)
