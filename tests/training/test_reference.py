"""The reference of a divergence: a run that goes on has the one that it began with, or does not go on."""

import shutil
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest

from medvol.core.errors import ConfigError
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.settings import GRPOOptimizerSettings, LossSettings, RolloutSettings, StartSettings
from tests.fixtures.callbacks import Listener
from tests.fixtures.digit_reward import DigitReward

TEMPLATE = replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)


def fit(folder: Path, steps: int, beta: float = 0.02, **settings: object) -> list[float]:
    """Fit on from where the run stands; returns the divergence of each step."""
    kind = QwenVLPolicy if settings else TinyPolicy
    module = GRPOModule(
        kind(str(folder / "base"), **settings),
        ExtrudePropagator(),
        [DigitReward()],
        rollouts=RolloutSettings(group_size=4),
        loss=LossSettings(beta=beta),
        optimizer=GRPOOptimizerSettings(learning_rate=1e-5),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=8),
    )
    listener, last = Listener(), folder / "run" / "checkpoints" / "last.ckpt"
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder / "run",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[listener, SpecCheckpoint()],
    )
    data = CaseDataModule(PhantomDataset("train", 2, shape=(8, 48, 48)), queries_per_volume=2)
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return [row["train/kl"] for row in listener.rows]


def save_base(folder: Path, seed: int) -> None:
    shutil.rmtree(folder / "base", ignore_errors=True)
    TinyPolicy(template=TEMPLATE, seed=seed).save(folder / "base")


def test_a_run_does_not_go_on_with_another_reference(tmp_path: Path) -> None:
    save_base(tmp_path, 0)
    assert max(fit(tmp_path, 1)) < 1e-3
    save_base(tmp_path, 7)
    with pytest.raises(ConfigError, match=r"other weights than this run began with, and its loss measures a diverg"):
        fit(tmp_path, 2)
    save_base(tmp_path, 0)
    assert max(fit(tmp_path, 2)) < 1e-3, "the same weights in a new folder are the same reference"


def test_a_reference_that_is_not_used_is_not_asked_for(tmp_path: Path) -> None:
    save_base(tmp_path, 0)
    fit(tmp_path, 1, beta=0.0)
    save_base(tmp_path, 7)
    assert len(fit(tmp_path, 2, beta=0.0)) == 1


def test_adapters_have_their_reference_in_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra qwen")
    save_base(tmp_path, 0)
    fit(tmp_path, 1, lora_rank=2, dtype="float32")
    save_base(tmp_path, 7)
    (divergence,) = fit(tmp_path, 2, lora_rank=2, dtype="float32")
    assert divergence < 1e-3
