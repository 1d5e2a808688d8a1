"""Gradients of several batches in one step: their mean, also where an epoch ends with fewer batches."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.data import CaseDataModule
from medvol.training.settings import OptimizerSettings
from medvol.training.sft import SFTModule
from tests.fixtures.light_policy import LightDataset, LightPolicy


class Looking(SFTModule):
    """Keeps the gradient that each step takes; its weights stay where they are."""

    def __init__(self) -> None:
        still = OptimizerSettings(learning_rate=0.0, weight_decay=0.0, warmup_steps=0)
        super().__init__(LightPolicy(), ExtrudePropagator(), optimizer=still)
        self.taken: list[torch.Tensor] = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.taken.append(self.network.weight.grad.clone())


def take_gradients(folder: Path, accumulated: int) -> list[torch.Tensor]:
    module = Looking()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        accumulate_grad_batches=accumulated,
    )
    trainer.fit(module, CaseDataModule(LightDataset(5), seed=3))
    return module.taken


def test_a_step_takes_the_mean_over_its_batches(tmp_path: Path) -> None:
    alone, together = take_gradients(tmp_path / "1", 1), take_gradients(tmp_path / "3", 3)
    assert len(alone) == 10
    expected = [torch.stack(alone[a:b]).mean(dim=0) for a, b in ((0, 3), (3, 5), (5, 8), (8, 10))]
    assert len(together) == len(expected)
    for found, mean in zip(together, expected, strict=True):
        assert found.tolist() == [pytest.approx(row, rel=1e-5) for row in mean.tolist()]
