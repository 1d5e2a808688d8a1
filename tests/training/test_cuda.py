"""That a GPU gives the scores of the CPU, trains in mixed precision, and goes on exactly where a run was stopped."""

from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from medvol.core.types import Sampling
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.region import RegionPropagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.training.checkpoint import SpecCheckpoint
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import RolloutSettings, StartSettings
from tests.fixtures.callbacks import Listener, StopAt
from tests.policies.conftest import SMALL_TEMPLATE, ask, widen

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

SHAPE = (8, 48, 48)
TEMPLATE = replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)


def make_data() -> CaseDataModule:
    return CaseDataModule(
        PhantomDataset("train", 5, shape=SHAPE, cache=CacheSettings(scans=8)),
        batch_size=2,
        queries_per_volume=3,
        seed=3,
    )


def make_module(kind: str) -> TrainingModule:
    policy = TinyPolicy(template=TEMPLATE)
    if kind == "sft":
        return ScratchModule(
            policy,
            RegionPropagator(),
            perception=PerceptionSettings(steps=1),
            curriculum=CurriculumSettings(steps=1),
            occupancy=OccupancySettings(weight=1.0),
            gaze=GazeSettings(weight=0.3),
        )
    rewards = [FormatReward(), AxialReward(), SpatialReward(coordinate_step=20), ConsistencyReward()]
    return GRPOModule(
        policy,
        RegionPropagator(),
        rewards,
        rollouts=RolloutSettings(group_size=4),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=12),
    )


def make_trainer(folder, steps: int, **settings) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="gpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        enable_checkpointing=any(isinstance(own, SpecCheckpoint) for own in settings.get("callbacks", [])),
        **settings,
    )


def weights(module: TrainingModule) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}


def test_scores_are_those_of_the_cpu():
    policy = TinyPolicy(template=SMALL_TEMPLATE)
    widen(policy.load())
    prompts = ask(SMALL_TEMPLATE)
    completions = policy.generate(prompts, 4, Sampling(1.0, 40, 5))
    found = []
    for device in ("cpu", "cuda"):
        policy.load().to(device)
        found.append(torch.cat([row for rows in policy.log_probs(prompts, completions) for row in rows]).detach().cpu())
    # cuDNN may compute convolutions, so the patch embedding, in TF32; 2.1e-4 was seen on an H100.
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_mixed_precision_trains_as_full_precision_does(tmp_path):
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        listener = Listener()
        make_trainer(tmp_path / precision, 20, callbacks=[listener], precision=precision).fit(
            make_module("sft"), make_data()
        )
        losses[precision] = [row["train/answer_loss"] for row in listener.rows[1:]]
    assert losses["bf16-mixed"][-1] < losses["bf16-mixed"][0]
    np.testing.assert_allclose(losses["bf16-mixed"], losses["32-true"], rtol=0.05)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    whole = make_module(kind)
    make_trainer(tmp_path / "whole", 6, deterministic=True).fit(whole, make_data())
    stopped = make_module(kind)
    callbacks = [StopAt(5), SpecCheckpoint(every_n_train_steps=4)]
    make_trainer(tmp_path / "stopped", 6, callbacks=callbacks, deterministic=True).fit(stopped, make_data())
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    resumed = make_module(kind)
    trainer = make_trainer(tmp_path / "stopped", 6, callbacks=[SpecCheckpoint()], deterministic=True)
    trainer.fit(resumed, make_data(), ckpt_path=last, weights_only=True)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
