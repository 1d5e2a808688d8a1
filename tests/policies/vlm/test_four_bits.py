"""Layers of 4 bits through bitsandbytes itself, where it is installed (extra ``qlora``)."""

import pytest
import torch
from small_families import make_qwen

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.prompts import Prompt
from medvol.policies.vision_language import QwenVLPolicy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("qwen")
    family = make_qwen(3)
    family.model.save_pretrained(place)
    family.processor.save_pretrained(place)
    return place, family.template


def make(folder, **settings):
    place, template = folder
    return QwenVLPolicy(str(place), template, lora_rank=4, quantised=True, **settings)


def ask(policy):
    from medvol.planning.prompt_tokens import make_prompts
    from medvol.planning.step import Step

    prompts: list[Prompt] = make_prompts(policy.load(), Step("SFT", scan_shape=(40, 64, 64)))
    return policy.log_probs(prompts, [[policy.encode("<answer>[]</answer>")]])[0][0]


def test_weights_in_four_bits_do_not_learn():
    with pytest.raises(ConfigError, match="set lora_rank"):
        QwenVLPolicy("model", quantised=True)


def test_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.nn", None)
    with pytest.raises(MissingExtraError, match=r"medvol-r1\[qlora\]"):
        make(folder).load()


def test_adapters_learn_beside_rounded_layers(folder):
    bits = pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    policy = make(folder, gradient_checkpointing=True)
    network = policy.load_for_training().train()
    rounded = [layer for layer in network.modules() if isinstance(layer, bits.nn.Linear4bit)]
    assert len(rounded) == 3 * 7
    assert all(layer.weight.dtype == torch.uint8 for layer in rounded)
    ask(policy).sum().backward()
    learned = {name.split(".lora_")[1][0] for name, p in network.named_parameters() if p.grad is not None}
    assert learned == {"A", "B"}
    assert all(p.requires_grad == (".lora_" in name) for name, p in network.named_parameters())


def test_a_saved_folder_answers_the_same(folder, tmp_path):
    """Its weights are the rounded ones with the adapters added, in the type that they had."""
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    policy = make(folder)
    network = policy.load_for_training()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.02)
    before = ask(policy).detach()
    policy.save(tmp_path / "saved")
    saved = QwenVLPolicy(str(tmp_path / "saved"))
    torch.testing.assert_close(ask(saved).detach(), before, atol=2e-5, rtol=0)
    whole, _ = folder
    assert not torch.allclose(ask(QwenVLPolicy(str(whole), policy.template)).detach(), before, atol=1e-4)


def test_a_state_dictionary_brings_its_own_scales(folder):
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    first, second = make(folder), make(folder)
    state = first.load_for_training().state_dict()
    target = second.load_for_training()
    for layer in target.modules():
        if getattr(getattr(layer, "weight", None), "quant_state", None) is not None:
            layer.weight.data.zero_()
    assert not torch.allclose(ask(first), ask(second))
    target.load_state_dict(state)
    torch.testing.assert_close(ask(first), ask(second), atol=0, rtol=0)
