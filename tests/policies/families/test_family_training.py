"""Every family keeps the contract of a policy and is trained by SFT and by GRPO."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from digit_reward import DigitReward
from transformers import AutoModelForImageTextToText

from medvol.core.model_folder import judge_folder
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.policies.vlm.folder import leave_weights_out
from medvol.policies.vlm.four_bits import Form4Bit
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
    assert len(adapted) == sum((8 if kind == "linear_attention" else 7) * 2 for kind in kinds)
    assert all(name.startswith(network.language_part) for name in adapted)


ATTENTION = [f"self_attn.{name}_proj" for name in "qkvo"]
LINEAR_ATTENTION = [
    f"linear_attn.{name}" for name in ("in_proj_a", "in_proj_b", "in_proj_qkv", "in_proj_z", "out_proj")
]
FEED_FORWARD = [f"mlp.{name}_proj" for name in ("gate", "up", "down")]


def linear_layers(folder: Path) -> set[str]:
    """All linear layers of a language model of three layers; the first two of Qwen3.5 are linear attention."""
    kind = judge_folder(folder)["model_type"]
    attention = [LINEAR_ATTENTION] * 2 if kind == "qwen3_5" else [ATTENTION] * 2
    place = "model.text_model" if kind == "smolvlm" else "model.language_model"
    blocks = [[*names, *FEED_FORWARD] for names in (*attention, ATTENTION)]
    return {f"{place}.layers.{number}.{name}" for number, names in enumerate(blocks) for name in names}


def test_every_linear_layer_of_the_language_model_is_adapted(published, tmp_path):
    """A saved adapter holds them all, for peft as for medvol."""
    peft = pytest.importorskip("peft", reason="needs the extra qwen")
    policy = open_policy(published, lora_rank=2)
    expected = linear_layers(published[0])
    assert {name for name, layer in policy.load().model.named_modules() if hasattr(layer, "lora_A")} == expected
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(parameter)))
    policy.save(tmp_path / "adapter", adapter=True)
    again = open_policy(published, adapter=str(tmp_path / "adapter"))
    assert again.identity()["sha256"] == policy.identity()["sha256"]
    opened = peft.PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(published[0]), tmp_path / "adapter"
    )
    ours = {name: tensor for name, tensor in policy.load().model.state_dict().items() if ".lora_" in name}
    theirs = {name: tensor for name, tensor in opened.get_base_model().state_dict().items() if ".lora_" in name}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_every_linear_layer_of_the_language_model_is_rounded(published):
    pytest.importorskip("peft", reason="needs the extra qwen")
    with leave_weights_out():
        model = open_policy(published, lora_rank=2, quantised=True).load().model
    rounded = {name for name, layer in model.named_modules() if isinstance(layer, Form4Bit)}
    assert {name.removesuffix(".base_layer") for name in rounded} == linear_layers(published[0])
