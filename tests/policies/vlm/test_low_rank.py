"""Adapters: what they leave alone, what they train, and the folder they are saved to."""

import sys

import pytest
import torch

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.types import Sampling
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy
from medvol.policies.vlm.low_rank import adapters_off, folded_weights

ANSWER = '<answer>[{"slice": 3, "bbox_2d_list": [[20, 40, 60, 1000]]}]</answer>'


@pytest.fixture
def adapted(policy, prompts, monkeypatch):
    """The same network, with adapters that change its answers, and its log-probabilities without them."""
    pytest.importorskip("peft", reason="needs the extra qwen")
    plain = policy.log_probs(prompts[:2], [[policy.encode(ANSWER)]] * 2)
    network = policy.load()
    made = QwenVLPolicy("not read", lora_rank=4)
    monkeypatch.setattr(made, "build_network", lambda: network)
    made.load()
    return made, [row[0].detach() for row in plain]


def score(policy, prompts):
    return [row[0] for row in policy.log_probs(prompts[:2], [[policy.encode(ANSWER)]] * 2)]


def move(policy):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def test_fresh_adapters_change_nothing_and_alone_are_trained(adapted, prompts):
    policy, plain = adapted
    for found, expected in zip(score(policy, prompts), plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    names = [name for name, parameter in policy.load().named_parameters() if parameter.requires_grad]
    assert names
    assert all(".lora_" in name and ".language_model." in name for name in names)
    count = sum(parameter.numel() for parameter in policy.trainable_parameters())
    text = policy.load().model.config.text_config
    hidden, inner = text.hidden_size, text.intermediate_size
    head = hidden // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    ends = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner)
    assert count == 4 * text.num_hidden_layers * ends


def test_the_reference_is_what_lies_beneath_the_adapters(adapted, prompts):
    policy, plain = adapted
    move(policy)
    assert not torch.allclose(score(policy, prompts)[0], plain[0], atol=1e-3)
    reference = policy.reference_log_probs(prompts[:2], [[policy.encode(ANSWER)]] * 2)
    for row, expected in zip(reference, plain, strict=True):
        torch.testing.assert_close(row[0], expected, atol=1e-6, rtol=0)
    sum(part.sum() for part in score(policy, prompts)).backward()
    assert all(parameter.grad is not None for parameter in policy.trainable_parameters())


def test_adapters_come_back_after_an_error(adapted, prompts):
    policy, _ = adapted
    move(policy)
    before = score(policy, prompts)[0].detach()
    with pytest.raises(RuntimeError, match="inside"), adapters_off(policy.load().model):
        raise RuntimeError("inside")
    assert torch.equal(score(policy, prompts)[0].detach(), before)


def test_a_saved_folder_is_a_plain_model(adapted, prompts, tmp_path):
    policy, _ = adapted
    move(policy)
    policy.save(tmp_path / "model")
    assert not list((tmp_path / "model").glob("adapter*"))
    loaded = QwenVLPolicy(model=str(tmp_path / "model"))
    assert not any("lora" in name for name, _ in loaded.load().named_parameters())
    for found, expected in zip(score(loaded, prompts), score(policy, prompts), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    sampling = Sampling(max_new_tokens=12)
    texts = [[row[0].text for row in p.generate(prompts[:2], 1, sampling)] for p in (loaded, policy)]
    assert texts[0] == texts[1]
    assert loaded.identity()["sha256"] == policy.identity()["sha256"]
    assert folded_weights(loaded.load().model).keys() == folded_weights(policy.load().model).keys()


def test_adapters_are_always_the_same(tmp_path):
    pytest.importorskip("peft", reason="needs the extra qwen")
    TinyPolicy().save(tmp_path / "model")
    state = torch.get_rng_state()
    first, second = (list(QwenVLPolicy(str(tmp_path / "model"), lora_rank=2).trainable_parameters()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_peft_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    TinyPolicy().save(tmp_path / "model")
    with pytest.raises(MissingExtraError, match=r"medvol-r1\[qwen\]"):
        QwenVLPolicy(str(tmp_path / "model"), lora_rank=2).load()


def test_a_negative_rank_is_refused():
    with pytest.raises(ConfigError, match="lora_rank is -1; it must be a whole number, 0 or more"):
        QwenVLPolicy("model", lora_rank=-1)
