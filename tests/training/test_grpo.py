"""GRPO: that it learns what is rewarded, what an update is made of, what stops it, and that resuming is exact."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from medvol.core.errors import ConfigError, RewardError
from medvol.core.prompts import PromptSize
from medvol.core.roles import RewardTerm
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.training.checkpoint import SpecCheckpoint, load_policy
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.progress import _planned_steps
from medvol.training.settings import (
    AdvantageSettings,
    GRPOOptimizerSettings,
    LossSettings,
    OptimizerSettings,
    RolloutSettings,
    StartSettings,
)
from tests.fixtures.callbacks import Listener, StopAt
from tests.fixtures.digit_reward import DigitReward

SHAPE = (8, 48, 48)
TEMPLATE = replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)


class NotANumber(RewardTerm):
    """Always NaN."""

    needs: ClassVar = frozenset({"text"})

    def __call__(self, rollout, case):
        return float("nan")


def make_module(rewards=None, policy=None, **settings) -> GRPOModule:
    """A module for the tests; settings of a group are keys and values on top of those that all tests share."""
    policy = policy or TinyPolicy(template=TEMPLATE)
    return GRPOModule(
        policy,
        ExtrudePropagator(),
        rewards or [DigitReward()],
        settings.pop("reward_weights", None),
        rollouts=RolloutSettings(**{"group_size": 4, **settings.pop("rollouts", {})}),
        advantages=AdvantageSettings(**settings.pop("advantages", {})),
        loss=LossSettings(**{"beta": 0.0, **settings.pop("loss", {})}),
        optimizer=GRPOOptimizerSettings(**{"learning_rate": 3e-3, **settings.pop("optimizer", {})}),
        start=StartSettings(**{"min_parse_rate": 0.0, **settings.pop("start", {})}),
        evaluation=EvaluationSettings(max_new_tokens=8),
        **{"reword": 0.5, **settings},
    )


def make_data(volumes: int = 4) -> CaseDataModule:
    train = PhantomDataset("train", volumes, shape=SHAPE, cache=CacheSettings(scans=8))
    return CaseDataModule(train, batch_size=2, queries_per_volume=2, seed=3)


def make_trainer(folder, steps: int, **settings) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=settings.pop("logger", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        deterministic=True,
        enable_checkpointing=bool(settings.get("callbacks")),
        **settings,
    )


def fit(folder, steps: int, **settings) -> GRPOModule:
    module = make_module(**settings)
    make_trainer(folder, steps).fit(module, make_data())
    return module


def digest(module: GRPOModule) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def weights(module: GRPOModule) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in module.state_dict().values()])


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_it_learns_what_is_rewarded(tmp_path, loss):
    listener = Listener()
    module = make_module(rollouts={"group_size": 8}, loss={"kind": loss})
    make_trainer(tmp_path, 12, callbacks=[listener]).fit(module, make_data())
    earned = [row["train/reward"] for row in listener.rows]
    assert len(earned) == 12
    assert sum(earned[-3:]) / 3 > sum(earned[:3]) / 3 + 0.2
    assert (tmp_path / "model" / "model.safetensors").is_file()


class Same(RewardTerm):
    """Pays every answer alike."""

    needs: ClassVar = frozenset({"text"})

    def __call__(self, rollout, case):
        return 0.1


def test_answers_that_earn_the_same_teach_nothing(tmp_path):
    """AdamW's first step is as long for what rounding leaves of equal rewards as for a true gradient."""
    listener = Listener()
    module = make_module([Same()], rollouts={"group_size": 8})
    make_trainer(tmp_path, 1, callbacks=[listener]).fit(module, make_data())
    (row,) = listener.rows
    assert (row["train/zero_spread"], row["train/grad_norm"]) == (1.0, 0.0)
    assert torch.equal(weights(module), weights_of_start())


def test_the_log_holds_what_a_run_is_judged_by(tmp_path):
    listener = Listener()
    rewards = [FormatReward(), DigitReward()]
    module = make_module(
        rewards, reward_weights={"DigitReward": 0.5}, loss={"beta": 0.1}, optimizer={"updates_per_rollout": 2}
    )
    make_trainer(tmp_path, 4, callbacks=[listener]).fit(module, make_data())
    assert len(listener.rows) == 2
    first = listener.rows[0]
    names = {name.removeprefix("train/") for name in first}
    assert names >= {"reward", "reward_FormatReward", "spread_DigitReward", "zero_spread", "parse_rate", "length"}
    assert names >= {"entropy", "kl", "clip_fraction", "ratio", "whole_image", "grad_norm", "sampling_gap"}
    assert first["train/reward"] == pytest.approx(
        first["train/reward_FormatReward"] + 0.5 * first["train/reward_DigitReward"], rel=1e-5
    )
    assert first["train/sampling_gap"] < 1e-4
    assert first["train/ratio"] != 1.0  # the second update on the same rollouts is logged
    assert first["train/kl"] > 0


def test_passes_change_nothing_but_memory(tmp_path):
    one, many = (
        weights(fit(tmp_path / str(size), 2, optimizer={"volumes_per_pass": size}, loss={"kind": "dapo", "beta": 0.05}))
        for size in (1, None)
    )
    fresh = weights_of_start()
    assert (many - fresh).abs().max() > 1e-3
    # AdamW's first steps divide by the gradient's own size, so rounding is magnified where a gradient is nearly 0
    assert ((one - many).abs() < 1e-4).float().mean() > 0.99


def weights_of_start() -> torch.Tensor:
    module = make_module()
    module.configure_model()
    return weights(module)


def test_groups_without_spread_can_be_skipped_without_a_difference(tmp_path):
    class Lucky(RewardTerm):
        """Scores by content in one case of two, and always 1 in the other."""

        needs: ClassVar = frozenset({"text"})

        def __call__(self, rollout, case):
            return DigitReward()(rollout, case) if "kidney" in case.query.target else 1.0

    skipped, kept = (
        fit(tmp_path / str(skip), 2, rewards=[Lucky()], advantages={"skip_zero_spread": skip}) for skip in (True, False)
    )
    assert ((weights(skipped) - weights(kept)).abs() < 1e-4).float().mean() > 0.99


def test_a_batch_without_spread_changes_nothing_and_still_counts(tmp_path):
    class Same(RewardTerm):
        """Always pays the same."""

        needs: ClassVar = frozenset({"text"})

        def __call__(self, rollout, case):
            return 0.5

    listener = Listener()
    module = make_module([Same()], advantages={"skip_zero_spread": True})
    trainer = make_trainer(tmp_path, 3, callbacks=[listener])
    trainer.fit(module, make_data())
    assert trainer.global_step == 3
    assert [row["train/zero_spread"] for row in listener.rows] == [1.0] * 3
    assert torch.equal(weights(module), weights_of_start())


def test_a_run_without_cold_start_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"only 0% of the first 16 answers .* train the policy with SFTModule"):
        fit(tmp_path, 1, start={"min_parse_rate": 0.5})
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (PromptSize(500, 384, 380, 8192), {}, "keeps 384 places for image tokens and its slices give 380"),
        (PromptSize(500, 384, 384, 505), {}, "has 500 tokens, 384 of them for slices, and at most 497 fit"),
        (PromptSize(500, 384, 384, 8192), {"start": {"max_prompt_tokens": 400}}, "at most 400 fit"),
    ],
)
def test_prompts_that_cannot_be_read_whole_are_refused(tmp_path, monkeypatch, size, settings, message):
    monkeypatch.setattr(TinyPolicy, "measure_prompt", lambda self, prompt: size)
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, 1, **settings)


def test_the_size_of_a_prompt_by_hand():
    policy = TinyPolicy(template=TEMPLATE)
    case = PhantomDataset("train", 1, shape=SHAPE)[0]
    from medvol.grounding.prompts import build_prompt

    prompt = build_prompt(case.volume, "the liver", TEMPLATE)
    network = policy.load()
    size = policy.measure_prompt(prompt)
    encode = network.tokenizer.encode
    tags = len(encode("<|im_start|>user\n")) + 8 * (1 + 2) + len(encode("\n"))
    query = len(encode("the liver<|im_end|>\n<|im_start|>assistant\n"))
    assert (size.image_tokens, size.image_features, size.limit) == (8 * 4, 8 * 4, 8192)
    assert size.tokens == 32 + tags + query


def test_a_score_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(RewardError, match="the reward NotANumber of the module"):
        fit(tmp_path, 1, rewards=[NotANumber()])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (SpatialReward(), "coordinate_step of SpatialReward is 1, and that of the policy's prompt is 20"),
        (SpatialReward(coordinate_step=20, split_boxes=False), "split_boxes of SpatialReward is False, .* is True"),
        (SpatialReward("labelled", coordinate_step=20), "num_slices of SpatialReward is 64, and that of the policy's"),
    ],
    ids=["step", "boxes", "slices"],
)
def test_a_reward_that_pays_no_answer_in_full_is_refused(tmp_path, reward, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, 1, rewards=[reward])


def test_boxes_are_compared_in_steps_of_the_prompt(tmp_path):
    assert fit(tmp_path, 1, rewards=[SpatialReward(coordinate_step=20)]).global_step == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollouts": {"group_size": 1}}, "rollouts.group_size is 1; it must be a whole number, 2 or more"),
        ({"rollouts": {"temperature": 0.0}}, "rollouts.temperature is 0.0"),
        ({"rollouts": {"temperature": float("inf")}}, "rollouts.temperature is inf"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"optimizer": {"updates_per_rollout": 0}}, "optimizer.updates_per_rollout is 0"),
        ({"optimizer": {"learning_rate": -1.0}}, "optimizer.learning_rate is -1.0"),
        ({"start": {"min_parse_rate": 1.5}}, "start.min_parse_rate is 1.5; it is a share"),
        ({"loss": {"ratio_cap": 1.2}}, "loss.ratio_cap is 1.2; it must be above 1"),
        ({"reword": -0.5}, "reword is -0.5"),
        ({"policy": ScriptedPolicy()}, "ScriptedPolicy has nothing to train"),
        ({"reward_weights": {"Digits": 1.0}}, "reward_weights names 'Digits'"),
    ],
)
def test_settings_without_meaning(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_module(**settings)


def test_the_optimizer_of_sft_is_not_taken_for_that_of_grpo():
    with pytest.raises(ConfigError, match=r"takes GRPOOptimizerSettings as its optimizer; got OptimizerSettings\("):
        GRPOModule(TinyPolicy(), ExtrudePropagator(), [DigitReward()], optimizer=OptimizerSettings(1e-4))


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path, updates):
    settings = {"loss": {"beta": 0.05}, "optimizer": {"updates_per_rollout": updates, "warmup_steps": 2}}
    whole = make_module(**settings)
    make_trainer(tmp_path / "whole", 8).fit(whole, make_data(5))
    stopped = make_module(**settings)
    callbacks = [StopAt(5), SpecCheckpoint(every_n_train_steps=4)]
    make_trainer(tmp_path / "stopped", 8, callbacks=callbacks).fit(stopped, make_data(5))
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == (5 if updates == 1 else 6)
    assert whole.global_step == 8, "also where three updates on a batch would go beyond it"
    resumed = make_module(**settings)
    trainer = make_trainer(tmp_path / "stopped", 8, callbacks=[SpecCheckpoint()])
    trainer.fit(resumed, make_data(5), ckpt_path=last, weights_only=True)
    assert trainer.global_step == 8
    assert digest(resumed) == digest(whole)
    assert load_policy(last).identity()["sha256"] == whole.policy.identity()["sha256"]


def test_the_schedule_and_the_display_end_with_the_last_update(tmp_path):
    """One epoch of two batches, four updates on each; ``max_steps`` lies far behind."""
    module = make_module(optimizer={"updates_per_rollout": 4, "warmup_steps": 0, "final_share": 0.1})
    trainer = make_trainer(tmp_path, 1000)
    trainer.fit_loop.max_epochs = 1
    trainer.fit(module, make_data(4))
    assert trainer.global_step == _planned_steps(trainer, module) == 8
    assert module.lr_schedulers().get_last_lr()[0] == pytest.approx(0.1 * 3e-3)


class Answering(TinyPolicy):
    """Writes anchors drawn at random in place of its own answers."""

    def generate(self, prompts, n=1, sampling=None):
        rng = np.random.default_rng(sampling.seed)

        def write() -> str:
            x, y = rng.integers(0, 30, 2) * 20
            box = [int(x), int(y), int(x) + 400, int(y) + 400]
            return f'<answer>[{{"slice": {rng.integers(1, 7)}, "bbox_2d_list": [{box}]}}]</answer>'

        return [[self.encode(write()) for _ in range(n)] for _ in prompts]


@pytest.mark.parametrize("origin", ["random", "trained on phantoms"])
def test_a_step_with_medsam2_in_the_reward(tmp_path, random_folder, origin):
    """The wiring of the paper's propagator, on a small SAM 2 of RANDOM weights (no meaning) and on a trained one."""
    trained = Path(__file__).parents[1] / "propagators" / "phantom_tracker"
    listener = Listener()
    module = GRPOModule(
        Answering(template=TEMPLATE),
        MedSAM2Propagator(checkpoint=random_folder if origin == "random" else str(trained)),
        [ConsistencyReward(delta=2), AxialReward()],
        rollouts=RolloutSettings(group_size=4),
        optimizer=GRPOOptimizerSettings(learning_rate=1e-3),
        loss=LossSettings(beta=0.0),
    )
    make_trainer(tmp_path, 1, callbacks=[listener]).fit(module, make_data())
    (row,) = listener.rows
    assert row["train/parse_rate"] == 1.0
    assert row["train/propagation_failures"] == 0.0
    assert 0 < row["train/reward_ConsistencyReward"] < 1
    assert row["train/spread_ConsistencyReward"] > 0
    assert not torch.equal(weights(module), weights_of_start())
