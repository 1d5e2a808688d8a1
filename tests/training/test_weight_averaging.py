"""Lightning's averages of weights over the steps of a fit. Whether a resumed fit keeps them is in ``test_stops``."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, WeightAveraging

from medvol.core.errors import ConfigError
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint, load_policy
from medvol.training.data import CaseDataModule
from medvol.training.sft import SFTModule
from tests.fixtures.light_policy import LightDataset, LightPolicy
from tests.training.test_grpo import make_data, make_module, make_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:You're using the WeightAveraging callback:UserWarning"
)  # nothing is sharded


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
