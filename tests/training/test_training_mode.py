"""That a fit trains in training mode, so that layers are computed again to save memory, and asks in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextAttention, Qwen3VLVisionAttention

from medvol.cli import main
from medvol.core.errors import PolicyError
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.policies.vlm.dropout import switch_off_dropout
from medvol.policies.vlm.policy import VLMPolicy
from medvol.training.grpo import GRPOModule
from medvol.training.sft import SFTModule
from tests.policies.conftest import SMALL_TEMPLATE, ask

LAYERS, BLOCKS = 4, 4
"""Of the tiny model: layers of its language model, blocks of its vision tower."""

MODULES = {
    "sft": {"class_path": "SFTModule", "init_args": {"answers": {"think": False}, "evaluation": {"max_new_tokens": 8}}},
    "grpo": {
        "class_path": "GRPOModule",
        "init_args": {
            "rewards": ["tests.training.test_grpo.DigitReward"],
            "rollouts": {"group_size": 4},
            "start": {"min_parse_rate": 0.0},
            "loss": {"beta": 0.02},
            "evaluation": {"max_new_tokens": 8},
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as any published one is: read from a folder, so in evaluation mode."""
    made = tmp_path_factory.mktemp("tiny") / "model"
    TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)).save(made)
    return made


def write_experiment(path: Path, kind: str, policy: dict, **trainer: object) -> Path:
    module = MODULES[kind]
    phantoms = {"class_path": "PhantomDataset", "init_args": {"num_volumes": 1, "shape": [8, 48, 48]}}
    experiment = {
        "model": {
            "class_path": module["class_path"],
            "init_args": {
                "policy": {"class_path": "QwenVLPolicy", "init_args": policy},
                "propagator": "ExtrudePropagator",
                **module["init_args"],
            },
        },
        "data": {"class_path": "CaseDataModule", "init_args": {"train": phantoms, "queries_per_volume": 4}},
        "trainer": {"default_root_dir": str(path / "run"), "max_steps": 1, "accelerator": "cpu", "logger": False}
        | trainer,
    }
    path.mkdir(exist_ok=True)
    (path / "exp.yaml").write_text(yaml.safe_dump(experiment))
    return path / "exp.yaml"


@contextmanager
def counted_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Calls of attention layers that could have a gradient, those of the backward pass included."""
    calls = {"language": 0, "vision": 0}
    with monkeypatch.context() as patch:
        for name, layer in (("language", Qwen3VLTextAttention), ("vision", Qwen3VLVisionAttention)):

            def forward(self, *args, name=name, plain=layer.forward, **kwargs):
                calls[name] += torch.is_grad_enabled()
                return plain(self, *args, **kwargs)

            patch.setattr(layer, "forward", forward)
        yield calls


@contextmanager
def kept_bytes(monkeypatch: pytest.MonkeyPatch, kind: str) -> Iterator[list[int]]:
    """Sizes of what a training step keeps for its backward pass."""
    kept: list[int] = []
    cls = {"sft": SFTModule, "grpo": GRPOModule}[kind]
    plain = cls.training_step

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    def training_step(self, *args):
        assert all(module.training for module in self.network.modules()), "a fit trains in training mode"
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "training_step", training_step)
        yield kept


def fit(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, **policy: object) -> tuple[dict, int, list]:
    """Calls of layers, bytes kept and gradients of one step through the command line."""
    gradients: list[torch.Tensor] = []

    def note(optimizer, *args):
        gradients.extend(p.grad.clone() for group in optimizer.param_groups for p in group["params"])

    config = write_experiment(path, kind, policy)
    handle = register_optimizer_step_post_hook(note)
    try:
        with counted_layers(monkeypatch) as calls, kept_bytes(monkeypatch, kind) as kept:
            assert main(["fit", "--config", str(config)]) == 0
    finally:
        handle.remove()
    return calls, sum(kept), gradients


@pytest.mark.parametrize("kind", ["sft", "grpo"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradient_checkpointing_computes_every_trained_layer_again(
    kind: str, lora_rank: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lora_rank:
        pytest.importorskip("peft", reason="needs the extra qwen")
    settings = {"model": str(folder), "lora_rank": lora_rank}
    calls, kept, gradients = fit(tmp_path / "plain", kind, monkeypatch, **settings)
    again, kept_less, same = fit(tmp_path / "again", kind, monkeypatch, gradient_checkpointing=True, **settings)
    seen = 0 if lora_rank and kind == "grpo" else BLOCKS  # a frozen tower reads a drawing once, here while it samples
    assert calls == {"language": LAYERS, "vision": seen}
    assert again == {"language": 2 * LAYERS, "vision": seen if lora_rank else 2 * BLOCKS}
    assert kept_less < kept / 2
    for gradient, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(other, gradient, rtol=0, atol=1e-6)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients)


def test_a_policy_answers_in_evaluation_mode_and_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, found = TinyPolicy(template=SMALL_TEMPLATE), []
    network = policy.load()
    plain = type(network).hidden_states

    def hidden_states(self, *args):
        found.append({module.training for module in self.modules()})
        return plain(self, *args)

    monkeypatch.setattr(type(network), "hidden_states", hidden_states)
    for mode in (True, False):
        network.train(mode)
        policy.generate(ask(SMALL_TEMPLATE)[:1])
        assert {module.training for module in network.modules()} == {mode}
    assert found == [{False}, {False}]


def test_the_mode_comes_back_when_an_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = TinyPolicy(template=SMALL_TEMPLATE)
    policy.load().train()

    def fail(*args):
        raise PolicyError("inside")

    monkeypatch.setattr("medvol.policies.vlm.decoding.decode", fail)
    with pytest.raises(PolicyError, match="inside"):
        policy.generate(ask(SMALL_TEMPLATE)[:1])
    assert policy.load().training


def test_no_policy_drops_anything_out_whatever_its_configuration_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = QwenVLPolicy.build_network

    def build(self: VLMPolicy):
        network = plain(self)
        for layer in network.model.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.5
            layer.mlp.down_proj = torch.nn.Sequential(layer.mlp.down_proj, torch.nn.Dropout(0.5))
        return network

    monkeypatch.setattr(QwenVLPolicy, "build_network", build)
    policy = QwenVLPolicy(str(folder))
    prompts = ask(policy.template)[:1]
    answers = [[policy.encode("<answer>[]</answer>")]]
    policy.load().train()
    [[first]], [[second]] = (policy.log_probs(prompts, answers) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_dropout_is_switched_off_in_modules_and_in_numbers() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.9))
    model[0].attention_dropout = 0.9
    switch_off_dropout(model)
    assert (model[1].p, model[0].attention_dropout) == (0.0, 0.0)
    shown = torch.ones(2, 8)
    torch.testing.assert_close(model.train()(shown), model.eval()(shown), rtol=0, atol=0)
