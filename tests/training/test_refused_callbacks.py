"""Callbacks with which a resumed fit would be another one, or a fit would learn something else than it says."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from medvol.core.errors import ConfigError
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.data import CaseDataModule
from medvol.training.sft import SFTModule
from tests.fixtures.light_policy import LightDataset, LightPolicy


class Own(GradientAccumulationScheduler):
    """What a user made of it."""


class Thawing(BaseFinetuning):
    """Lets layers learn from a later epoch on."""

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        pass

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: object) -> None:
        pass


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (
            GradientAccumulationScheduler({0: 3}),
            "GradientAccumulationScheduler, .*; leave it out and set trainer.accumu",
        ),
        (Own({0: 3}), "trainer.callbacks has Own, which is not asked again where a run goes on in the middle of an"),
        (Thawing(), "Thawing, which .*; choose by the settings of the policy what is trained"),
        (BatchSizeFinder(), "BatchSizeFinder, which tries the training out .*; ask `medvol plan` for the batch size"),
        (LearningRateFinder(), "LearningRateFinder, which tries the training out .* try rates in short runs"),
        (StochasticWeightAveraging(0.05), "StochasticWeightAveraging, which looks for weights before they are loaded"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Callback) else "",
)
def test_a_fit_with_it_does_not_begin(callback: Callback, words: str, tmp_path: Path) -> None:
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=callback)
    with pytest.raises(ConfigError, match=words):
        trainer.fit(SFTModule(LightPolicy(), ExtrudePropagator()), CaseDataModule(LightDataset(2)))
    assert not list(tmp_path.iterdir())
