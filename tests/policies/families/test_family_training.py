"""Every family keeps the contract of a policy and is trained by SFT and by GRPO."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from digit_reward import DigitReward

from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.testing import check_policy
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.settings import (
    GRPOOptimizerSettings,
    LossSettings,
    OptimizerSettings,
    RolloutSettings,
    StartSettings,
)
from medvol.training.sft import SFTModule


def open_policy(published: tuple, **settings) -> VisionLanguagePolicy:
    return VisionLanguagePolicy(str(published[0]), template=published[1], box_units="thousandths", **settings)


def fit(module: pl.LightningModule, folder: Path) -> None:
    train = PhantomDataset("train", 1, shape=(8, 48, 48))
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(module, CaseDataModule(train, batch_size=1, queries_per_volume=2, seed=3))


def weights(policy: VisionLanguagePolicy) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in policy.load().named_parameters()}


def test_contract(published):
    check_policy(open_policy(published))


def test_a_step_of_sft_moves_everything(published, tmp_path):
    policy = open_policy(published, gradient_checkpointing=True)
    before = weights(policy)
    settings = {
        "optimizer": OptimizerSettings(learning_rate=1e-3, warmup_steps=0),
        "evaluation": EvaluationSettings(max_new_tokens=8),
    }
    fit(SFTModule(policy, ExtrudePropagator(), **settings), tmp_path)
    still = [name for name, tensor in weights(policy).items() if torch.equal(tensor, before[name])]
    assert len(still) < 0.2 * len(before), still


def test_a_step_of_grpo_leaves_a_frozen_tower_alone(published, tmp_path):
    policy = open_policy(published, freeze_vision=True)
    before = weights(policy)
    module = GRPOModule(
        policy,
        ExtrudePropagator(),
        [DigitReward()],
        rollouts=RolloutSettings(group_size=6),
        loss=LossSettings(beta=0.1),
        optimizer=GRPOOptimizerSettings(learning_rate=1e-3),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=8),
    )
    fit(module, tmp_path)
    parts = policy.load().vision_parts
    seen = [name for name in before if name.removeprefix("model.").startswith(parts)]
    after = weights(policy)
    assert seen
    assert all(torch.equal(after[name], before[name]) for name in seen)
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_adapters_lie_on_the_language_model_alone(published):
    pytest.importorskip("peft", reason="needs the extra qwen")
    policy = open_policy(published, lora_rank=2)
    network = policy.load()
    adapted = [name for name, parameter in network.model.named_parameters() if parameter.requires_grad]
    kinds = getattr(network.model.config.text_config, "layer_types", None) or ["full_attention"] * 3
    assert len(adapted) == sum((3 if kind == "linear_attention" else 7) * 2 for kind in kinds)
    assert all(name.startswith(network.language_part) for name in adapted)
