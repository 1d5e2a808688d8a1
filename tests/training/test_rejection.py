"""Rejection sampling: that only the best answers are taught, with the gradient of SFT, and that it learns."""

from dataclasses import replace
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch

from medvol.core.errors import ConfigError
from medvol.core.roles import RewardTerm
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.data import CaseDataModule
from medvol.training.group_notes import note_group
from medvol.training.rejection import RejectionModule
from medvol.training.settings import GRPOOptimizerSettings, RolloutSettings, StartSettings
from tests.fixtures.callbacks import Listener
from tests.fixtures.digit_reward import DigitReward

SHAPE = (8, 48, 48)
TEMPLATE = replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)


class Nothing(RewardTerm):
    """Pays for no answer."""

    needs: ClassVar = frozenset({"text"})

    def __call__(self, rollout, case):
        return 0.0


def make_module(rewards=(), group_size=4, rate=3e-3, most=1e9, **settings) -> RejectionModule:
    return RejectionModule(
        TinyPolicy(template=TEMPLATE),
        ExtrudePropagator(),
        [*rewards] or [DigitReward()],
        rollouts=RolloutSettings(group_size=group_size),
        optimizer=GRPOOptimizerSettings(learning_rate=rate, max_grad_norm=most),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=8),
        **settings,
    )


def fit(module, folder, steps, *callbacks) -> RejectionModule:
    train = PhantomDataset("train", 4, shape=SHAPE, cache=CacheSettings(scans=8))
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        deterministic=True,
        callbacks=[*callbacks],
    )
    trainer.fit(module, CaseDataModule(train, batch_size=2, queries_per_volume=2, seed=3))
    return module


class Groups:
    """Keeps the scored groups of the steps of a module."""

    def __init__(self, module):
        self.module, self.groups, self.make = module, [], module._make_tables
        module._make_tables = self

    def __call__(self, groups, notes, first):
        self.groups += groups
        return self.make(groups, notes, first)


def best_of(groups):
    """The first of the best completions of each group."""
    places = [max(range(len(g.rewards)), key=lambda i, g=g: (g.rewards[i].total, -i)) for g in groups]
    return [group.completions[place] for group, place in zip(groups, places, strict=True)]


def test_the_gradient_is_that_of_sft_on_the_best_answers(tmp_path):
    module = make_module(rate=0.0)
    kept = Groups(module)
    fit(module, tmp_path, 1)
    found = {name: p.grad.clone() for name, p in module.network.named_parameters() if p.grad is not None}
    module.zero_grad()
    best = best_of(kept.groups)
    scores = module.policy.log_probs([group.prompt for group in kept.groups], [[answer] for answer in best])
    (-torch.cat([rows[0] for rows in scores]).mean()).backward()
    assert len(kept.groups) == 4
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 0
    for name, parameter in module.network.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_it_learns_what_is_rewarded(tmp_path):
    listener = Listener()
    fit(make_module(group_size=8), tmp_path, 12, listener)
    earned = [row["train/reward"] for row in listener.rows]
    assert sum(earned[-3:]) / 3 > sum(earned[:3]) / 3 + 0.15
    assert all(row["train/loss"] == pytest.approx(-1.0, abs=1e-4) for row in listener.rows)
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("settings", [{"rewards": [Nothing()]}, {"least_reward": 1.0}], ids=["nothing", "too little"])
def test_answers_that_earn_too_little_teach_nothing(settings, tmp_path):
    module = make_module(**settings)
    before = {name: value.clone() for name, value in module.policy.load().state_dict().items()}
    fit(module, tmp_path, 2)
    after = module.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_threshold_is_a_share_of_all_weights(tmp_path):
    module = make_module(reward_weights={"DigitReward": 4.0}, least_reward=0.5, rate=0.0)
    kept = Groups(module)
    tables = []
    module._make_tables = lambda groups, notes, first: tables.extend(kept(groups, notes, first)) or tables
    fit(module, tmp_path, 1)
    enough = [max(reward.total for reward in group.rewards) > 2.0 for group in kept.groups]
    assert sum(len(table.groups) for table in tables) == sum(enough)


def test_two_processes_have_the_parts_of_one_mean(tmp_path):
    module = make_module(least_reward=0.05, rate=0.0)
    kept = Groups(module)
    fit(module, tmp_path, 1)
    notes = [note_group(group) for group in kept.groups]
    (whole,) = kept.make(kept.groups, notes, 0)
    parts = [table for first in (0, 2) for table in kept.make(kept.groups[first : first + 2], notes, first)]
    assert sum(len(table.groups) for table in parts) == len(whole.groups)
    assert sum(float(table.weights.sum()) for table in parts) == pytest.approx(1.0)
    assert float(whole.weights.sum()) == pytest.approx(1.0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.updates_per_rollout is 2; RejectionModule takes one step"):
        RejectionModule(
            TinyPolicy(template=TEMPLATE),
            ExtrudePropagator(),
            [DigitReward()],
            optimizer=GRPOOptimizerSettings(updates_per_rollout=2),
        )
    with pytest.raises(ConfigError, match=r"least_reward is 1\.5"):
        make_module(least_reward=1.5)
