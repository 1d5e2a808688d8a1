"""GRPO with an engine: it learns what it would in one process, and an engine with other weights is found out."""

from dataclasses import replace

import fake_vllm
import lightning.pytorch as pl
import pytest
import torch
from trl import GRPOConfig

from medvol.core.errors import ConfigError, EngineError
from medvol.core.roles import Policy, RolloutEngine
from medvol.core.types import Completion
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.engines.in_process import InProcessEngine
from medvol.engines.vllm import VLLMEngine
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.losses import policy_loss, sampler_weights, token_weights
from medvol.training.settings import GRPOOptimizerSettings, LossSettings, RolloutSettings, StartSettings
from tests.fixtures.callbacks import Listener, StopAt
from tests.fixtures.digit_reward import DigitReward

SHAPE = (8, 48, 48)
TEMPLATE = replace(TINY_TEMPLATE, num_slices=4, height_px=48, width_px=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    TinyPolicy(template=TEMPLATE).save(folder)
    return str(folder)


def make_module(folder, engine, lora_rank=0, rate=3e-3, **loss) -> GRPOModule:
    return GRPOModule(
        QwenVLPolicy(folder, lora_rank=lora_rank),
        ExtrudePropagator(),
        [DigitReward()],
        rollouts=RolloutSettings(group_size=3),
        engine=engine,
        loss=LossSettings(**{"beta": 0.0, **loss}),
        optimizer=GRPOOptimizerSettings(learning_rate=rate),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=4),
    )


def fit(place, module, steps, callbacks=(), **settings) -> list[dict[str, float]]:
    listener = Listener()
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=place,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        deterministic=True,
        enable_checkpointing=bool(callbacks),
        callbacks=[listener, *callbacks],
    )
    train = PhantomDataset("train", 2, shape=SHAPE, cache=CacheSettings(scans=8))
    data = CaseDataModule(train, batch_size=1, queries_per_volume=2, seed=3)
    trainer.fit(module, data, weights_only=True, **settings)
    return listener.rows


def weights(module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in module.state_dict().values()])


class Recorded(VLLMEngine):
    """Keeps what it answered."""

    def sample(self, prompts, n, sampling):
        answers = super().sample(prompts, n, sampling)
        vars(self).setdefault("kept", []).append(answers)
        return answers


class Replayed(RolloutEngine):
    """Gives recorded answers, without log-probabilities, as if the policy had sampled them itself."""

    in_process = True

    def __init__(self, answers=()) -> None:
        self.answers = list(answers)

    def start(self, policy):
        answers = self.answers

        class Speaker(Policy):
            template = policy.template

            def generate(self, prompts, n=1, sampling=None):
                return [[Completion(one.text, one.token_ids) for one in group] for group in answers.pop(0)]

        return Speaker()


@pytest.mark.slow
def test_a_run_with_vllm_learns_what_a_run_in_one_process_does(tmp_path, monkeypatch, folder):
    """Eight steps with sampling forced to be equal: weights differ by rounding only, at a cap that never binds."""
    fake_vllm.install(monkeypatch)
    engine = Recorded()
    served = make_module(folder, engine, sampler_cap=1e9)
    rows = fit(tmp_path / "served", served, 8)
    alone = make_module(folder, Replayed(engine.kept))
    own = fit(tmp_path / "alone", alone, 8)
    fresh = QwenVLPolicy(folder).load().state_dict()
    moved = weights(alone) - torch.cat([tensor.flatten() for tensor in fresh.values()])
    assert moved.abs().max() > 5e-3
    # AdamW's first steps divide by the gradient's own size, so rounding is magnified where a gradient is nearly 0
    assert ((weights(served) - weights(alone)).abs() < 1e-4).float().mean() > 0.99
    assert [row["train/loss"] for row in rows] == pytest.approx([row["train/loss"] for row in own], abs=1e-4)
    assert [row["train/reward"] for row in rows] == [row["train/reward"] for row in own]
    assert served._watch.confirmed
    assert "train/sampler_gap" not in own[0]
    for row in rows:
        assert 0 < row["train/sampler_gap"] <= row["train/sampling_gap"] < 1e-3
        assert row["train/sampler_ratio"] == pytest.approx(1, abs=1e-3)
        assert row["train/sampler_capped"] == 0
    assert (tmp_path / "served" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(("faulty", "lora_rank"), [("deaf", 0), ("half", 0), ("deaf", 4)])
def test_an_engine_that_does_not_take_the_weights_is_found_out(tmp_path, monkeypatch, folder, faulty, lora_rank):
    fake_vllm.install(monkeypatch, faulty=faulty)
    # one update changes log-probabilities by less than max_sampler_gap: only the comparison with old weights can tell
    module = make_module(folder, VLLMEngine(), lora_rank=lora_rank, rate=1e-6 if not lora_rank else 1e-5)
    with pytest.raises(
        EngineError, match=r"does not answer with the weights that are trained: .* since the first step"
    ):
        fit(tmp_path, module, 6)
    assert module.global_step < 5
    assert not (tmp_path / "model").exists()


def test_a_change_too_small_to_see_is_looked_at_again(tmp_path, monkeypatch, folder):
    fake_vllm.install(monkeypatch, faulty="deaf")
    module = make_module(folder, VLLMEngine(), rate=1e-9)
    fit(tmp_path, module, 3)
    assert not module._watch.confirmed


def test_an_engine_of_another_model_is_found_out(tmp_path, monkeypatch, folder):
    other = TinyPolicy(template=TEMPLATE, seed=9)
    other.save(tmp_path / "other")
    fake_vllm.install(monkeypatch, faulty="deaf")
    make = fake_vllm.FakeModel.__init__
    monkeypatch.setattr(
        fake_vllm.FakeModel, "__init__", lambda self, folder, faulty: make(self, str(tmp_path / "other"), faulty)
    )
    with pytest.raises(
        EngineError, match=r"differ from the policy's by .* nats a token, and start.max_sampler_gap is 0"
    ):
        fit(tmp_path / "run", make_module(folder, VLLMEngine()), 1)


@pytest.mark.slow
def test_a_resumed_run_brings_its_weights_before_it_asks(tmp_path, monkeypatch, folder):
    llm = fake_vllm.install(monkeypatch)
    whole = make_module(folder, VLLMEngine(), sampler_cap=None)
    fit(tmp_path / "whole", whole, 4, [SpecCheckpoint()])
    stopped = make_module(folder, VLLMEngine(), sampler_cap=None)
    fit(tmp_path / "part", stopped, 4, [StopAt(2), SpecCheckpoint()])
    resumed = make_module(folder, VLLMEngine(), sampler_cap=None)
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    fit(tmp_path / "part", resumed, 4, [SpecCheckpoint()], ckpt_path=last)
    assert llm.last.calls[:3] == ["reload_weights", "reset_prefix_cache", "generate"]
    assert llm.last.fake.reloads == 2
    assert torch.equal(weights(resumed), weights(whole))


def test_the_policy_itself_answers_by_default(folder):
    module = make_module(folder, None)
    assert isinstance(module.engine, InProcessEngine)
    assert module.engine.start(module.policy) is module.policy


def make_rows(seed: int = 0, shape=(5, 7)):
    torch.manual_seed(seed)
    mask = (torch.arange(shape[1]) < torch.randint(1, shape[1] + 1, (shape[0], 1))).float()
    trainer, sampler = -torch.rand(shape), -torch.rand(shape)
    return trainer, sampler, mask


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_of_tokens_by_hand(level):
    trainer, sampler, mask = make_rows()
    found = sampler_weights(trainer, sampler, mask, 1.3, level)
    for i, row in enumerate(mask):
        ratios = [(trainer[i, t] - sampler[i, t]).exp().item() for t in range(int(row.sum()))]
        if level == "sequence":
            product = 1.0
            for ratio in ratios:
                product *= ratio
            assert found[i].tolist() == pytest.approx([min(product, 1.3)], rel=1e-5)
        else:
            assert found[i, : len(ratios)].tolist() == pytest.approx([min(ratio, 1.3) for ratio in ratios], rel=1e-5)
    assert found.max() == torch.tensor(1.3)
    assert (found < 1.2).any()


def test_weighted_gradients_are_those_of_the_sampled_distribution():
    """Over all answers of a small vocabulary: an off-policy sampler, weighted, gives the policy's own gradient."""
    torch.manual_seed(1)
    logits = torch.randn(6, requires_grad=True)
    sampler = torch.log_softmax(torch.randn(6), dim=0)
    gains = torch.randn(6)
    policy = torch.log_softmax(logits, dim=0)
    (wanted,) = torch.autograd.grad((policy.exp() * gains).sum(), logits, retain_graph=True)
    new, mask = policy[:, None], torch.ones(6, 1)
    correction = sampler_weights(new.detach(), sampler[:, None], mask, 1e9, "token")
    chances = sampler.exp()[:, None]
    terms = policy_loss(
        new, new.detach(), gains, mask, chances, LossSettings(beta=0.0, epsilon_low=1e9), None, correction
    )
    (found,) = torch.autograd.grad(terms.loss, logits)
    assert torch.allclose(found, -wanted, atol=1e-6)


def test_the_divergence_is_not_weighted():
    trainer, sampler, mask = make_rows()
    sizes = token_weights(mask, "grpo", 7)
    settings, none = LossSettings(beta=0.3), torch.zeros(5)
    correction = sampler_weights(trainer, sampler, mask, 3.0, "token")
    plain, weighted = (
        policy_loss(trainer, trainer, none, mask, sizes, settings, sampler, by).loss for by in (None, correction)
    )
    assert torch.equal(plain, weighted)


def test_the_cap_is_that_of_trl():
    assert LossSettings().sampler_cap == GRPOConfig.vllm_importance_sampling_clip_max
    with pytest.raises(ConfigError, match=r"loss\.sampler_cap is 0\.5; it must be at least 1, or null"):
        LossSettings(sampler_cap=0.5)
