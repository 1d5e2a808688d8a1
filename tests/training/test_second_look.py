"""Both looks are trained by SFT and by GRPO, as whole scans and views of them are cases alike."""

import lightning.pytorch as pl
import pytest
import torch

from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.second_look import SecondLookDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.regions import RegionSettings
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rewards.format import FormatReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.settings import RolloutSettings, StartSettings
from medvol.training.sft import SFTModule


class Recorded(TinyPolicy):
    """Notes the slices of every prompt whose answers are scored for a loss."""

    def log_probs(self, prompts, completions, temperature=1.0):
        vars(self).setdefault("scored", []).extend(prompt.slices for prompt in prompts)
        return super().log_probs(prompts, completions, temperature)


def make_module(kind, policy):
    if kind == "sft":
        return SFTModule(policy, ExtrudePropagator())
    return GRPOModule(
        policy,
        ExtrudePropagator(),
        [FormatReward(), VolumeDiceReward()],
        rollouts=RolloutSettings(group_size=2),
        evaluation=EvaluationSettings(max_new_tokens=24),
        start=StartSettings(min_parse_rate=0.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_both_looks_are_trained(kind, tmp_path):
    whole = PhantomDataset(num_volumes=1, shape=(12, 32, 40))
    cases = SecondLookDataset(whole, views=1, region=RegionSettings(20.0, 30.0))
    policy = Recorded(model="bundled:best")
    module = make_module(kind, policy)
    before = {name: value.clone() for name, value in policy.load().state_dict().items()}
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_steps=1,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(module, CaseDataModule(train=cases, batch_size=20, queries_per_volume=1))
    shown = {stack.volume_shape for stack in policy.scored}
    assert whole[0].volume.shape in shown
    assert len(shown) > 1
    assert any(len(stack.indices) < 12 for stack in policy.scored)
    after = policy.load().state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
