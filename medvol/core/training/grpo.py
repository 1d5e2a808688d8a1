"""GRPOModule: group-relative policy optimisation on evidence anchors.

A training step draws a group of completions for every query, follows them to masks where a reward needs that, and
raises the probability of those that earned more than their siblings. Slices are read once a volume, in sampling and in
training alike: all queries and completions of a volume are one packed row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from medvol.core.errors import ConfigError
from medvol.core.evaluation.module import Batch
from medvol.core.limits import require_least, require_share
from medvol.core.roles import Propagator, RewardTerm, TrainablePolicy
from medvol.core.training.advantages import AdvantageScale, group_advantages, zero_spread
from medvol.core.training.augmentation import reword_query
from medvol.core.training.inspector import draw_rollouts
from medvol.core.training.losses import LossKind, LossTerms, PolicyLoss, RatioLevel, policy_loss
from medvol.core.training.measures import measure_rollouts, measure_update
from medvol.core.training.module import TrainingModule
from medvol.core.training.preflight import require_good_start
from medvol.core.training.token_table import TokenTable, make_tables
from medvol.core.types import Case, Sampling, require_target
from medvol.rollouts.groups import Group, ask, require_answers
from medvol.rollouts.scorer import RewardScorer


class GRPOModule(TrainingModule):
    """Teaches a policy by what its own answers earn.

    Args:
        policy: Trained; it should already answer in the grammar (cold-start SFT first).
        propagator: Turns anchors into masks, for rewards, validation and test.
        rewards: Terms that score an answer.
        reward_weights: Weight of each term by its class name; 1 where none is given. A term of weight 0 is only logged
            when no mask is needed for it.
        group_size: Completions of each query, at least 2.
        temperature: Of sampling; log-probabilities are taken at it too.
        loss: How tokens are averaged, see ``PolicyLoss``.
        importance: Clip probability ratios by ``token``, or by ``sequence`` (GSPO).
        epsilon_low: See ``PolicyLoss``.
        epsilon_high: See ``PolicyLoss``.
        ratio_cap: See ``PolicyLoss``.
        beta: Weight of the divergence from the policy that training started from; 0 leaves the reference out.
        corrected_kl: See ``PolicyLoss``.
        advantage_scale: See ``group_advantages``.
        skip_zero_spread: Leave groups whose completions all earn the same out of the update. They have no gradient but
            that of the divergence.
        updates_per_rollout: Optimiser steps on the same rollouts.
        volumes_per_pass: Volumes that go through the network together; all of the batch when None. It changes memory
            and speed, not the gradient.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW, whose betas are 0.9 and 0.95.
        warmup_steps: Optimiser steps of linear warm-up.
        final_share: The cosine ends at this share of the peak.
        max_grad_norm: Gradients are scaled down to this norm.
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        min_parse_rate: The run stops before its first update when fewer of the first answers follow the grammar.
        max_prompt_tokens: The run stops before its first update when a prompt is longer; None allows what the model
            does.
        inspect_every: Draw a few rollouts to ``rollouts/`` in the run folder every so many optimiser steps; 0 never.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
        error_budget: See ``EvaluationModule``.
        surface: See ``EvaluationModule``.
        tolerance_mm: See ``EvaluationModule``.
        anchor_rule: See ``EvaluationModule``.
        split_boxes: See ``EvaluationModule``.
        max_new_tokens: Bound on the length of an answer, in training too.
        save_dir: See ``EvaluationModule``.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        rewards: Sequence[RewardTerm],
        reward_weights: Mapping[str, float] | None = None,
        group_size: int = 8,
        temperature: float = 1.0,
        loss: LossKind = "grpo",
        importance: RatioLevel = "token",
        epsilon_low: float = 0.2,
        epsilon_high: float = 0.2,
        ratio_cap: float | None = None,
        beta: float = 0.01,
        corrected_kl: bool = False,
        advantage_scale: AdvantageScale = "group",
        skip_zero_spread: bool = False,
        updates_per_rollout: int = 1,
        volumes_per_pass: int | None = None,
        learning_rate: float = 1e-6,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        final_share: float = 0.1,
        max_grad_norm: float = 1.0,
        reword: float = 0.0,
        min_parse_rate: float = 0.5,
        max_prompt_tokens: int | None = None,
        inspect_every: int = 0,
        seed: int = 0,
        error_budget: bool = False,
        surface: bool = False,
        tolerance_mm: float = 2.0,
        anchor_rule: Literal["paper", "largest"] = "paper",
        split_boxes: bool = True,
        max_new_tokens: int = 256,
        save_dir: str | None = None,
    ) -> None:
        super().__init__(
            policy,
            propagator,
            learning_rate,
            weight_decay,
            warmup_steps,
            final_share,
            reword,
            error_budget,
            surface,
            tolerance_mm,
            anchor_rule,
            split_boxes,
            max_new_tokens,
            save_dir,
        )
        require_least(2, group_size=group_size)
        require_least(1, updates_per_rollout=updates_per_rollout, volumes_per_pass=volumes_per_pass)
        require_least(0, max_grad_norm=max_grad_norm, inspect_every=inspect_every)
        require_share(reword=reword, min_parse_rate=min_parse_rate)
        if not temperature > 0:
            raise ConfigError(f"temperature is {temperature}; completions of a group are drawn, so it must be above 0")
        self.rewards = list(rewards)
        self.reward_weights = reward_weights
        self.group_size = group_size
        self.temperature = temperature
        self.loss: LossKind = loss
        self.importance: RatioLevel = importance
        self.epsilon_low = epsilon_low
        self.epsilon_high = epsilon_high
        self.ratio_cap = ratio_cap
        self.beta = beta
        self.corrected_kl = corrected_kl
        self.advantage_scale: AdvantageScale = advantage_scale
        self.skip_zero_spread = skip_zero_spread
        self.updates_per_rollout = updates_per_rollout
        self.volumes_per_pass = volumes_per_pass
        self.max_grad_norm = max_grad_norm
        self.reword = reword
        self.min_parse_rate = min_parse_rate
        self.max_prompt_tokens = max_prompt_tokens
        self.inspect_every = inspect_every
        self.seed = seed
        self.scorer = RewardScorer(self.rewards, reward_weights)
        self.objective = PolicyLoss(
            loss, importance, epsilon_low, epsilon_high, ratio_cap, beta, corrected_kl, max_new_tokens
        )
        self.automatic_optimization = False  # one rollout batch may be worth several updates

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, by optimiser steps."""
        steps = float(self.trainer.estimated_stepping_batches)
        if self.trainer.max_steps < 0:
            steps *= self.updates_per_rollout
        return self.optimise(self.student.trainable_parameters(), (0.9, 0.95), int(steps))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Draw and score rollouts, then update the policy on them.

        Raises:
            ConfigError: Before the first update, when the start is not good enough.
            DatasetError: A case has no target mask.
            RewardError: A term fails, or scores outside [0, 1].
        """
        rng = np.random.default_rng([self.seed, self.global_step])
        groups = [group for cases in batch for group in self._draw(cases, rng)]
        if self.global_step == 0:
            require_good_start(self.student, groups, self.min_parse_rate, self.max_prompt_tokens, self.max_new_tokens)
        self._log_all(measure_rollouts(groups), len(groups))
        self._inspect(groups)
        rewards = torch.tensor([[reward.total for reward in group.rewards] for group in groups], device=self.device)
        taught = ~zero_spread(rewards) if self.skip_zero_spread else torch.ones(len(groups), dtype=torch.bool)
        advantages = group_advantages(rewards, self.advantage_scale)
        kind, longest = self.objective.kind, self.max_new_tokens
        tables = make_tables(groups, advantages, taught, kind, longest, self.volumes_per_pass)
        references = [self._refer(table) for table in tables]
        old: list[torch.Tensor] = []
        for _ in range(self.updates_per_rollout):
            self._update(tables, old, references)

    def _draw(self, cases: Sequence[Case], rng: np.random.Generator) -> list[Group]:
        """Draw, follow and score the rollouts of one volume."""
        for case in cases:
            require_target(case)
        queries = [reword_query(case.query.text, rng, self.reword) for case in cases]
        sampling = Sampling(self.temperature, self.max_new_tokens, int(rng.integers(2**31)))
        groups = ask(self.student, cases, sampling, self.group_size, queries)
        require_answers(groups)  # what a policy cannot do, it cannot learn from
        return self.scorer.score_groups(groups, self.propagator)

    def _refer(self, table: TokenTable) -> torch.Tensor | None:
        """Log-probabilities under the reference policy."""
        if self.objective.beta == 0:
            return None
        return table.pad(self.student.reference_log_probs(table.prompts, table.completions, self.temperature))

    def _update(
        self, tables: Sequence[TokenTable], old: list[torch.Tensor], references: Sequence[torch.Tensor | None]
    ) -> None:
        """One optimiser step; the first one on a batch fills ``old``, as the policy still is what drew it."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        terms: list[LossTerms] = []
        for table, reference in zip(tables, references, strict=True):
            new = table.pad(self.student.log_probs(table.prompts, table.completions, self.temperature))
            if len(old) == len(terms):
                old.append(new.detach())
            before = old[len(terms)]
            found = policy_loss(new, before, table.advantages, table.mask, table.weights, self.objective, reference)
            self.manual_backward(found.loss)
            terms.append(found._replace(loss=found.loss.detach()))
        norm = torch.nn.utils.clip_grad_norm_(self.student.trainable_parameters(), self.max_grad_norm)
        optimizer.step()
        cast(LambdaLR, self.lr_schedulers()).step()
        self._log_all({**measure_update(tables, terms, old), "grad_norm": float(norm)}, 1)

    def _inspect(self, groups: Sequence[Group]) -> None:
        wanted = self.inspect_every and self.global_step % self.inspect_every == 0 and not self.is_trial
        if wanted and self.trainer.is_global_zero:
            folder = Path(self.trainer.default_root_dir) / "rollouts"
            draw_rollouts(folder / f"step-{self.global_step:06d}.png", groups, self.split_boxes)

    def _log_all(self, measures: Mapping[str, float], count: int) -> None:
        for name, value in measures.items():
            self.log(f"train/{name}", value, prog_bar=name in ("reward", "zero_spread"), batch_size=count)
