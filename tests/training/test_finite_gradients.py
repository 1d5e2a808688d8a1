"""A gradient with NaN or infinite values ends a fit with one sentence, and the weights stay as they were."""

import lightning.pytorch as pl
import pytest
import torch

from medvol.core.errors import PolicyError
from medvol.training.checkpoint import SpecCheckpoint
from medvol.training.data import CaseDataModule
from medvol.training.gradients import require_finite_gradients
from tests.fixtures.light_policy import LightDataset
from tests.training.test_stops import make_module


class SpoilAt(pl.Callback):
    """Puts a value into one gradient of one step, and keeps the weights as they were before it."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value
        self.before = {}

    def on_after_backward(self, trainer, module) -> None:
        if trainer.global_step == self.step:
            self.before = {name: p.detach().clone() for name, p in module.named_parameters()}
            gradient = next(p.grad for p in module.parameters() if p.grad is not None)
            gradient.view(-1)[0] = self.value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sft", "accumulating", "grpo", "grpo of two updates"])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_fit_ends(kind, value, tmp_path):
    spoil = SpoilAt(3, value)
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=7,
        limit_val_batches=0,
        callbacks=[spoil, SpecCheckpoint(every_n_train_steps=1)],
        accumulate_grad_batches=2 if kind == "accumulating" else 1,
        gradient_clip_val=None if kind.startswith("grpo") else 1.0,
    )
    module = make_module(kind)
    with pytest.raises(PolicyError, match=r"optimiser step 4 holds NaN or infinite values.*earlier checkpoint"):
        trainer.fit(module, CaseDataModule(LightDataset(14), batch_size=2, seed=3))
    assert spoil.before
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.detach(), spoil.before[name], rtol=0, atol=0)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_large_and_missing_gradients_pass():
    large, without, frozen = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    large.grad = torch.full((3,), 1e15)
    require_finite_gradients([large, without, frozen], 0)
    require_finite_gradients([], 0)
    large.grad[1] = float("nan")
    with pytest.raises(PolicyError):
        require_finite_gradients([large, without], 0)
