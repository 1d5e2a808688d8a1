"""RejectionModule: supervised fine-tuning on the best of the policy's own answers (best-of-N, RAFT).

A training step draws a group of completions for every query and scores them, as GRPO does. Then it raises the
log-probability of the best one of each group, as SFT does with a true answer. Nothing is lowered: what earned less is
left out, and only the best answers are read again for the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_share
from medvol.core.roles import Propagator, RewardTerm, TrainablePolicy
from medvol.evaluation.settings import EvaluationSettings
from medvol.rollouts.groups import Group
from medvol.training.group_notes import GroupNotes
from medvol.training.grpo import GRPOModule
from medvol.training.settings import GRPOOptimizerSettings, LossSettings, RolloutSettings, StartSettings
from medvol.training.token_table import TokenTable, make_tables


class RejectionModule(GRPOModule):
    """Trains a policy on the best of its own answers (rejection sampling).

    The loss is the mean negative log-likelihood of the best answers' tokens. Of answers that earn the same the first
    is taken. It is logged as GRPO's measures are; ``loss`` is the ratio form, which has the same gradient and the value
    -1.

    Args:
        policy: Trained; it should already answer in the grammar (cold-start SFT first).
        propagator: Turns anchors into masks, for rewards, validation and test.
        rewards: Terms that score an answer.
        reward_weights: Weight of each term by its class name; 1 where none is given.
        rollouts: How completions are drawn.
        optimizer: AdamW, with betas of 0.9 and 0.95, and its schedule; one update on a batch of rollouts.
        start: What must hold before the first update.
        evaluation: How answers are asked for in validation and test, and what is measured of them.
        least_reward: An answer is taught when it earns more than this share of the sum of all weights, in [0, 1].
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
            None takes that of the experiment (``seed_everything``); in Python it is 0.

    Raises:
        ConfigError: Several updates on the same rollouts are asked for, or a setting is out of range.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        rewards: Sequence[RewardTerm],
        reward_weights: Mapping[str, float] | None = None,
        rollouts: RolloutSettings = RolloutSettings(),
        optimizer: GRPOOptimizerSettings = GRPOOptimizerSettings(),
        start: StartSettings = StartSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
        least_reward: float = 0.0,
        reword: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            policy=policy,
            propagator=propagator,
            rewards=rewards,
            reward_weights=reward_weights,
            rollouts=rollouts,
            loss=LossSettings(kind="bnpo", beta=0.0),
            optimizer=optimizer,
            start=start,
            evaluation=evaluation,
            reword=reword,
            seed=seed,
        )
        require_share(least_reward=least_reward)
        if self.optimizer.updates_per_rollout != 1:
            raise ConfigError(
                f"optimizer.updates_per_rollout is {self.optimizer.updates_per_rollout}; RejectionModule takes one "
                "step on each batch of rollouts: set it to 1"
            )
        self.least_reward = least_reward

    def _make_tables(self, groups: Sequence[Group], notes: Sequence[GroupNotes], first: int) -> list[TokenTable]:
        """Lay out the best answer of each group of this process; those of all processes share one mean."""
        totals = torch.tensor([[rollout.total for rollout in group] for group in notes])
        best = totals.argmax(dim=1).tolist()
        enough = self.least_reward * sum(self.scorer.weights.values())
        taught = totals.amax(dim=1) > enough
        own = slice(first, first + len(groups))
        kept = [
            replace(group, rollouts=(group.rollouts[place],), rewards=(group.rewards[place],))
            for group, place in zip(groups, best[own], strict=True)
        ]
        lengths = [group[place].tokens for group, place, good in zip(notes, best, taught, strict=True) if good]
        ones = torch.ones(len(groups), 1, device=self.device)
        size = self.optimizer.volumes_per_pass
        return make_tables(kept, ones, taught[own], "bnpo", self.evaluation.max_new_tokens, size, lengths)
