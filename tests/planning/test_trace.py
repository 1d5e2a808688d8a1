"""A step without weights against the same step with them, and against arithmetic."""

from dataclasses import replace

import pytest
import torch
import transformers
from small_families import FAMILIES, MAKERS
from torch.profiler import ProfilerActivity, profile

from medvol.core.errors import ConfigError
from medvol.core.prompts import PromptTemplate
from medvol.planning import trace as trace_module
from medvol.planning.phases import DRAWING, LEARNING, REFERRING, STEPPING, WRITING
from medvol.planning.prompt_tokens import make_prompts
from medvol.planning.repeats import shorten
from medvol.planning.shadow import shadow
from medvol.planning.step import Step
from medvol.planning.trace import trace
from medvol.policies import known_layouts
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy
from medvol.policies.vlm.folder import leave_weights_out

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


def test_of_a_group_the_best_answer_alone_is_learned_from(traced):
    step = replace(GRPO, method="rejection sampling", reference=False)
    found = trace(TinyPolicy(), step, "cpu")
    assert [phase.name for phase in found.phases] == [DRAWING, LEARNING, STEPPING, WRITING]
    drawing = parts_of(traced, DRAWING)
    assert parts_of(found, DRAWING).total == drawing.total - drawing.parts["reference"]
    learning = parts_of(found, LEARNING)
    assert learning.total - learning.parts["optimiser"] == pytest.approx(
        measure_learning(replace(step, answers=1)), rel=0.02
    )


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


STEPS = [
    ({}, GRPO, "cuda"),
    ({"gradient_checkpointing": True}, replace(GRPO, volumes_per_pass=1), "cpu"),
    ({"lora_rank": 4, "gradient_checkpointing": True}, replace(GRPO, moments="host"), "cpu"),
    ({"lora_rank": 4, "dtype": "bfloat16", "quantised": True}, replace(GRPO, devices=2, sharded=True), "cuda"),
    ({"freeze_vision": True, "dtype": "bfloat16"}, GRPO, "cuda"),
    ({"gradient_checkpointing": True}, Step("SFT", accumulation=2, scan_shape=(40, 64, 64), moments="8bit"), "cuda"),
]


@pytest.fixture
def small_layout(monkeypatch):
    """The published layout, narrow: 12 layers, of which 7 are alike and in a row."""
    monkeypatch.setitem(known_layouts._TEXT, "num_hidden_layers", 12)
    monkeypatch.setitem(known_layouts._VISION, "depth", 18)
    monkeypatch.setitem(known_layouts._VISION, "hidden_size", 64)
    monkeypatch.setitem(known_layouts._VISION, "intermediate_size", 64)
    return QwenVLPolicy("Qwen/Qwen3-VL-4B-Instruct", PromptTemplate(num_slices=2, height_px=64, width_px=64)).unloaded


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "step", "device"), STEPS)
def test_three_of_the_equal_layers_say_what_all_of_them_say(changes, step, device, small_layout, monkeypatch):
    """To the byte: every part of every phase, and the layers that are shared out."""
    runs = []
    monkeypatch.setattr(trace_module, "shadow", lambda device: runs.append(device) or shadow(device))
    fast = trace(small_layout(**changes), step, device)
    assert len(runs) == 1  # not run again with all layers
    assert fast == trace(small_layout(**changes), step, device, all_layers=True)


def test_the_size_of_moments(small_layout):
    """Two values of 4 bytes, none on a GPU when they are on the host, or one byte each and a scale for 256."""
    step = Step("SFT", scan_shape=(40, 64, 64))
    found = {
        kind: trace(small_layout(lora_rank=256), replace(step, moments=kind), "cuda")
        for kind in ("device", "host", "8bit")
    }
    sizes = {kind: parts_of(one, LEARNING).parts.get("optimiser", 0) for kind, one in found.items()}
    assert sizes["device"] == 8 * found["device"].trained
    assert sizes["host"] == 0
    assert sizes["8bit"] == 2 * (found["8bit"].trained + found["8bit"].trained // 64)  # all are multiples of 256
    stepping = {kind: parts_of(one, STEPPING).parts.get("optimiser's workspace", 0) for kind, one in found.items()}
    assert stepping["device"] == 4 * found["device"].trained
    assert stepping["host"] == 4 * 4 * 256 * 9728
    assert stepping["8bit"] == 0


def test_the_layers_that_are_left(small_layout):
    """Four that get features or come first, three of the seven that are alike, and the last."""
    with leave_weights_out():
        network = small_layout(lora_rank=4).load_for_training()
    layers = list(network.language.layers)
    repeat = shorten(network)
    assert list(network.language.layers) == [*layers[:6], *layers[10:]]
    assert repeat.layers == (layers[4], layers[5], layers[10])
    assert (repeat.times, repeat.place) == (5, 5)
    assert [layer.self_attn.layer_idx for layer in network.language.layers] == list(range(8))
    assert set(repeat.times_of()) == {id(parameter) for parameter in layers[5].parameters()}


def test_layers_that_only_look_alike_are_all_run(small_layout, monkeypatch):
    """One of them keeps more than the others: that is found out, and the figures are those of all layers."""
    kind = transformers.models.qwen3_vl.modeling_qwen3_vl.Qwen3VLTextDecoderLayer
    forward, kept = kind.forward, []

    def keep_more(self, hidden_states, *args, **kwargs):
        if self.self_attn.layer_idx == 5:
            kept.append(torch.empty(100))
        return forward(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", keep_more)
    step = Step("SFT", scan_shape=(40, 64, 64))
    found = trace(small_layout(), step, "cuda")
    monkeypatch.setattr(kind, "forward", forward)
    plain = trace(small_layout(), step, "cuda", all_layers=True)
    assert found.trained == plain.trained
    extra = 4 * 100 * len(kept[1:])
    assert 0 < found.peak.peak.total - plain.peak.peak.total <= extra


def test_what_cannot_be_planned_is_said(monkeypatch):
    policy = TinyPolicy()
    monkeypatch.setattr(type(policy), "log_probs", lambda *args: torch.zeros(3).sum().item() / torch.tensor([]).item())
    with pytest.raises(ConfigError, match="cannot be planned"):
        trace(policy, Step("SFT"), "cpu")
