"""Training a policy of bfloat16: what is trained is kept in float32 and moves, what is saved is bfloat16 again."""

import json
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file

from medvol.cli import main
from medvol.core.errors import ConfigError
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.module import EvaluationModule
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint, load_policy
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule
from medvol.training.settings import (
    AnswerSettings,
    GRPOOptimizerSettings,
    LossSettings,
    OptimizerSettings,
    RolloutSettings,
    StartSettings,
)
from medvol.training.sft import SFTModule
from tests.fixtures.callbacks import Listener, StopAt
from tests.fixtures.light_policy import LightDataset, LightPolicy
from tests.training.test_grpo import DigitReward

SHAPE = (8, 48, 48)
RATE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model in bfloat16, as published models are."""
    made = tmp_path_factory.mktemp("published")
    TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)).save(made / "wide")
    QwenVLPolicy(str(made / "wide"), dtype="bfloat16").save(made / "model")
    return str(made / "model")


def make_module(kind: str, folder: str, **policy: object) -> TrainingModule:
    made = QwenVLPolicy(folder, dtype="bfloat16", **policy)
    evaluation = EvaluationSettings(max_new_tokens=8)
    if kind == "sft":
        optimizer = OptimizerSettings(learning_rate=RATE, warmup_steps=0, final_share=1.0)
        return SFTModule(made, ExtrudePropagator(), AnswerSettings(think=False), optimizer, evaluation)
    return GRPOModule(
        made,
        ExtrudePropagator(),
        [DigitReward()],
        rollouts=RolloutSettings(group_size=4),
        loss=LossSettings(beta=0.02),
        optimizer=GRPOOptimizerSettings(learning_rate=RATE, final_share=1.0),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=evaluation,
    )


def make_trainer(path: Path, steps: int, **settings: object) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        enable_checkpointing=bool(settings.get("callbacks")),
        **settings,
    )


def make_data() -> CaseDataModule:
    return CaseDataModule(PhantomDataset("train", 2, shape=SHAPE), queries_per_volume=4, seed=3)


def kinds(tensors: dict[str, torch.Tensor]) -> set[torch.dtype]:
    return {tensor.dtype for tensor in tensors.values()}


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_all_weights_of_a_bfloat16_policy_are_trained(
    kind: str, folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="medvol")
    module = make_module(kind, folder)
    before = {name: weight.float() for name, weight in QwenVLPolicy(folder).load().named_parameters()}
    listener = Listener()
    make_trainer(tmp_path, 6, callbacks=[listener]).fit(module, make_data())
    trained = dict(module.network.named_parameters())
    assert kinds(trained) == {torch.float32}
    moved = sum(int((trained[name] != old).sum()) for name, old in before.items())
    assert moved > 0.95 * sum(old.numel() for old in before.values()), "what is left are words that nobody read"
    assert caplog.text.count("weights move (") == 1
    if kind == "grpo":
        assert listener.rows[0]["train/kl"] < 1e-3, "at the first step the policy is its reference, but for rounding"
        assert listener.rows[0]["train/sampling_gap"] < 0.1


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_adapters_are_float32_and_what_is_frozen_stays(kind: str, folder: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra qwen")
    module = make_module(kind, folder, lora_rank=4)
    make_trainer(tmp_path, 3).fit(module, make_data())
    state = dict(module.network.named_parameters())
    adapters = {name: weight for name, weight in state.items() if ".lora_" in name}
    assert kinds(adapters) == {torch.float32}
    assert kinds({name: weight for name, weight in state.items() if name not in adapters}) == {torch.bfloat16}
    second = [weight for name, weight in adapters.items() if ".lora_B" in name]
    assert sum(int((weight != 0).sum()) for weight in second) > 0.95 * sum(weight.numel() for weight in second)


def test_what_is_saved_is_bfloat16_and_says_so(folder: str, tmp_path: Path) -> None:
    module = make_module("sft", folder, gradient_checkpointing=True)
    make_trainer(tmp_path, 2, callbacks=[SpecCheckpoint()]).fit(module, make_data())
    saved = tmp_path / "model"
    assert kinds(load_file(saved / "model.safetensors")) == {torch.bfloat16}
    assert json.loads((saved / "config.json").read_text())["dtype"] == "bfloat16"
    opened = QwenVLPolicy(str(saved), dtype="bfloat16")
    assert opened.identity()["sha256"] == module.policy.identity()["sha256"]
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert kinds(state) == {torch.float32}
    again = load_policy(checkpoint).load()
    assert all(torch.equal(weight, state[f"network.{name}"]) for name, weight in again.named_parameters())
    assert main(["convert", str(checkpoint), str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_resumed_run_is_the_run_that_was_not_stopped(kind: str, folder: str, tmp_path: Path) -> None:
    whole = make_module(kind, folder)
    make_trainer(tmp_path / "whole", 4).fit(whole, make_data())
    callbacks = [StopAt(2), SpecCheckpoint()]
    make_trainer(tmp_path / "stopped", 4, callbacks=callbacks).fit(make_module(kind, folder), make_data())
    resumed = make_module(kind, folder)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    trainer = make_trainer(tmp_path / "stopped", 4, callbacks=[SpecCheckpoint()])
    trainer.fit(resumed, make_data(), ckpt_path=last, weights_only=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_mixed_precision_of_the_trainer_trains_float32(kind: str, folder: str, tmp_path: Path) -> None:
    """What was written without gradient first must not keep the gradient away later."""
    module = make_module(kind, folder)
    module.policy.dtype = "float32"
    before = [weight.detach().clone() for weight in module.policy.load().parameters()]
    make_trainer(tmp_path, 3, precision="bf16-mixed").fit(module, make_data())
    after = list(module.network.parameters())
    assert {weight.dtype for weight in after} == {torch.float32}
    moved = sum(int((new != old).sum()) for new, old in zip(after, before, strict=True))
    assert moved > 0.9 * sum(old.numel() for old in before)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_trainer_that_rounds_all_weights_is_refused(precision: str, folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"trainer.precision is {precision}, which keeps trained weights"):
        make_trainer(tmp_path, 1, precision=precision).fit(make_module("sft", folder), make_data())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
def test_a_precision_that_would_change_the_scans_is_refused(precision: str, tmp_path: Path) -> None:
    module = EvaluationModule(CentreBoxPolicy(), ExtrudePropagator())
    with pytest.raises(ConfigError, match=f"trainer.precision is {precision}, which would turn the voxels"):
        make_trainer(tmp_path, 1, precision=precision).test(module, CaseDataModule(test=PhantomDataset("test", 1)))
    with pytest.raises(ConfigError, match=f"trainer.precision is {precision}"):
        make_trainer(tmp_path, 1, precision=precision).fit(make_module("sft", str(tmp_path)), make_data())


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_precision_that_scales_gradients_is_refused(kind: str, folder: str, tmp_path: Path) -> None:
    scaled = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match=r"trainer\.precision is 16-mixed, which scales gradients"):
        make_trainer(tmp_path, 1, plugins=[scaled]).fit(make_module(kind, folder), make_data())


def test_a_plug_in_whose_weights_do_not_move_is_stopped(tmp_path: Path) -> None:
    class Narrow(LightPolicy):
        def load(self):
            return super().load().bfloat16()

        def log_probs(self, prompts, completions, temperature=1.0):
            wide = self.load().weight[0].float()
            return [[torch.nn.functional.logsigmoid(wide.sum() * torch.ones(3)) for _ in row] for row in completions]

    optimizer = OptimizerSettings(learning_rate=RATE, warmup_steps=0)
    module = SFTModule(Narrow(), ExtrudePropagator(), optimizer=optimizer)
    with pytest.raises(ConfigError, match=r"only 0\.0% of the trained weights moved .* of bfloat16"):
        make_trainer(tmp_path, 3).fit(module, CaseDataModule(LightDataset(2)))
