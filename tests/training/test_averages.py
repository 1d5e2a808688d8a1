"""Callbacks of Lightning that average weights over steps. Whether a resumed fit keeps them is in ``test_stops``."""

from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, WeightAveraging
from safetensors.torch import load_file

from medvol.core.errors import ConfigError
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint, load_policy
from medvol.training.data import CaseDataModule
from medvol.training.settings import AnswerSettings, OptimizerSettings
from medvol.training.sft import SFTModule
from tests.fixtures.light_policy import LightDataset, LightPolicy
from tests.training.test_grpo import make_data, make_module, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")  # nothing is sharded

LAYER = "model.language_model.layers.0.mlp.gate_proj.weight"


class Track(Callback):
    """Works the average of a layer out beside the callback: 0.99 of it and 0.01 of the weights after each step."""

    average: torch.Tensor | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, module: SFTModule, *args: object) -> None:
        own = module.network.get_parameter(f"model.{LAYER}").detach().double()
        self.average = own.clone() if self.average is None else 0.99 * self.average + 0.01 * own


def fit(folder: Path, module: SFTModule, data: CaseDataModule, *callbacks: Callback) -> None:
    pl.Trainer(
        max_steps=5,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        callbacks=[*callbacks],
    ).fit(module, data)


def test_an_average_of_a_bfloat16_policy_is_kept_in_float32(tmp_path: Path) -> None:
    """In bfloat16, a hundredth of a step of 1e-4 is rounded away: the average stays where it began."""
    template = replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)
    TinyPolicy(template=template).save(tmp_path / "wide")
    policy = QwenVLPolicy(str(tmp_path / "wide"), dtype="bfloat16")
    optimizer = OptimizerSettings(learning_rate=1e-4, warmup_steps=0, final_share=1.0)
    evaluation = EvaluationSettings(max_new_tokens=8)
    module = SFTModule(policy, ExtrudePropagator(), AnswerSettings(think=False), optimizer, evaluation)
    data = CaseDataModule(PhantomDataset("train", 2, shape=(8, 48, 48)), queries_per_volume=2)
    track, average = Track(), EMAWeightAveraging(decay=0.99, use_buffers=False)
    fit(tmp_path / "run", module, data, track, average)
    kept = dict(average._average_model.module.network.named_parameters())[f"model.{LAYER}"]
    assert kept.dtype == torch.float32
    assert track.average is not None
    assert torch.allclose(kept.double(), track.average, rtol=0, atol=1e-7)
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")[LAYER]
    assert torch.equal(saved, kept.bfloat16()), "what is exported is the average"


class Weights(Callback):
    """Copies all weights after each step."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self.after.append({name: weight.detach().clone() for name, weight in pl_module.network.named_parameters()})


def test_the_model_is_the_mean_of_the_weights_after_each_step(tmp_path: Path) -> None:
    seen = Weights()
    callbacks = [seen, WeightAveraging(use_buffers=False), SpecCheckpoint()]
    make_trainer(tmp_path, 3, callbacks=callbacks).fit(make_module(), make_data(2))
    assert len(seen.after) == 3
    mean = {name: torch.stack([step[name] for step in seen.after]).mean(0) for name in seen.after[0]}
    assert max(float((mean[name] - seen.after[-1][name]).abs().max()) for name in mean) > 1e-4, "it is not the last one"
    for policy in (TinyPolicy(str(tmp_path / "model")), load_policy(tmp_path / "checkpoints" / "last.ckpt")):
        found = {name: weight.detach() for name, weight in policy.load().named_parameters()}
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("average", [WeightAveraging, EMAWeightAveraging])
def test_constants_of_the_network_are_not_averaged(average: type[WeightAveraging], tmp_path: Path) -> None:
    """Those that are whole numbers or truth values would be rounded to others, or stop the fit."""
    module, data = SFTModule(LightPolicy(), ExtrudePropagator()), CaseDataModule(LightDataset(2))
    with pytest.raises(ConfigError, match=r"averages buffers.*; set its use_buffers to false"):
        make_trainer(tmp_path, 2, callbacks=[average()]).fit(module, data)
    assert not list(tmp_path.iterdir())
