"""A step without weights against the same step with them, and against arithmetic."""

import pytest
import torch
from small_families import FAMILIES, MAKERS
from torch.profiler import ProfilerActivity, profile

from medvol.core.errors import ConfigError
from medvol.planning.prompt_tokens import make_prompts
from medvol.planning.step import Step
from medvol.planning.trace import LEARNING, REFERRING, WRITING, trace
from medvol.policies import known_layouts
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy

GRPO = Step("GRPO", batch=2, queries=2, answers=4, answer_tokens=12, scan_shape=(40, 64, 64), reference=True)


@pytest.fixture(scope="module")
def traced():
    return trace(TinyPolicy(), GRPO, "cpu")


def parts_of(found, name):
    return next(phase.peak for phase in found.phases if phase.name == name)


def measure_learning(step):
    """Peak of the forward and backward pass of a real policy by torch's own allocator, its weights included."""
    policy = TinyPolicy()
    network = policy.load_for_training().train()
    prompts = [prompt for _ in range(step.volumes) for prompt in make_prompts(network, step)]
    answer = policy.encode("a")
    answer = type(answer)("", answer.token_ids[:1].repeat(step.answer_tokens))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        scores = policy.log_probs(prompts, [[answer] * step.answers for _ in prompts])
        torch.cat([row for group in scores for row in group]).sum().backward()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak + sum(parameter.nbytes for parameter in network.parameters())


def test_the_peak_of_learning_is_that_of_the_allocator(traced):
    peak = parts_of(traced, LEARNING)
    planned = peak.total - peak.parts["optimiser"] - peak.parts["reference"]
    assert planned == pytest.approx(measure_learning(GRPO), rel=0.02)


def test_weights_moments_and_copies_are_counted_exactly(traced):
    size = sum(parameter.nbytes for parameter in TinyPolicy().load().parameters())
    peak = parts_of(traced, LEARNING)
    assert peak.parts["trained weights"] == pytest.approx(size, abs=1024)
    assert peak.parts["optimiser"] == 2 * size
    assert peak.parts["reference"] == pytest.approx(size, abs=1024)
    assert traced.trained == size // 4
    assert max(phase.peak.total for phase in traced.phases) == traced.peak.peak.total


def test_tokens_are_those_of_a_prompt(traced):
    policy = TinyPolicy()
    (prompt, _) = make_prompts(policy.load(), GRPO)
    size = policy.measure_prompt(prompt)
    assert (traced.tokens.total, traced.tokens.image) == (size.tokens, size.image_tokens)


def test_a_frozen_tower_keeps_no_activations():
    found = trace(TinyPolicy(freeze_vision=True), GRPO, "cpu")
    whole = trace(TinyPolicy(), GRPO, "cpu")
    assert parts_of(found, LEARNING).parts["vision"] < 0.1 * parts_of(whole, LEARNING).parts["vision"]
    assert parts_of(found, REFERRING).parts["frozen weights"] > 0


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "qwen3_5"])
def test_every_family_can_be_planned(name, tmp_path):
    family = MAKERS[name]()
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    from medvol.policies.vision_language import VisionLanguagePolicy

    policy = VisionLanguagePolicy(str(tmp_path), family.template, box_units="thousandths")
    found = trace(policy, Step("SFT", scan_shape=(40, 64, 64)), "cuda")
    size = policy.measure_prompt(make_prompts(policy.load(), Step("SFT", scan_shape=(40, 64, 64)))[0])
    assert (found.tokens.total, found.tokens.image) == (size.tokens, size.image_tokens)
    total = sum(parameter.nbytes for parameter in policy.load().parameters())
    peak = parts_of(found, LEARNING)
    assert peak.parts["trained weights"] + peak.parts.get("frozen weights", 0) == pytest.approx(total, rel=0.01)


def test_the_published_layout(monkeypatch):
    """Qwen3-VL-4B: 4.44 billion weights, and 4,096 image tokens of 64 slices of 256 px. Traced with 2 of its layers."""
    monkeypatch.setitem(known_layouts._TEXT, "num_hidden_layers", 2)
    policy = QwenVLPolicy("Qwen/Qwen3-VL-4B-Instruct", dtype="bfloat16", lora_rank=8, gradient_checkpointing=True)
    step = Step("GRPO", answers=2, answer_tokens=64, reference=True)
    found = trace(policy, step, "cuda")
    assert found.tokens.image == 4096
    layer = 2560 * (2 * 4096 + 2 * 1024) + 3 * 2560 * 9728 + 2 * 2560 + 2 * 128
    weights = parts_of(found, LEARNING).parts["frozen weights"]
    assert 4.43e9 < weights / 2 + 34 * layer < 4.45e9
    adapted = 8 * (3 * (2560 + 9728) + 2 * (2560 + 4096) + 2 * (2560 + 1024))
    assert found.trained == 2 * adapted
    assert "reference" not in parts_of(found, LEARNING).parts
    assert parts_of(found, WRITING).parts["weights to write"] > 0


def test_checkpointing_and_four_bits_save(monkeypatch):
    monkeypatch.setitem(known_layouts._TEXT, "num_hidden_layers", 2)
    make = QwenVLPolicy("Qwen/Qwen3-VL-4B-Instruct", dtype="bfloat16", lora_rank=8).unloaded
    step = Step("SFT", slices=8)
    plain, small = (trace(make(**changes), step, "cuda") for changes in ({}, {"gradient_checkpointing": True}))
    assert small.peak.peak.total < plain.peak.peak.total
    rounded = parts_of(trace(make(quantised=True), step, "cuda"), LEARNING).parts["frozen weights"]
    layers = 2 * (2560 * (2 * 4096 + 2 * 1024) + 3 * 2560 * 9728)
    saved = parts_of(plain, LEARNING).parts["frozen weights"] - rounded
    assert saved == pytest.approx(layers * (2 - 0.5 - 1 / 64 - 4 / 64 / 256), rel=1e-3)


def test_what_cannot_be_planned_is_said(monkeypatch):
    policy = TinyPolicy()
    monkeypatch.setattr(type(policy), "log_probs", lambda *args: torch.zeros(3).sum().item() / torch.tensor([]).item())
    with pytest.raises(ConfigError, match="cannot be planned"):
        trace(policy, Step("SFT"), "cpu")
