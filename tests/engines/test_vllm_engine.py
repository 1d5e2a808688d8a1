"""VLLMEngine against a stand-in that really samples: what is asked, what is answered, and whose weights answer."""

import importlib.util
import inspect
import os
from dataclasses import replace
from types import SimpleNamespace

import fake_vllm
import numpy as np
import pytest
import torch
from safetensors import safe_open

from medvol.core.errors import ConfigError, EngineError, MissingExtraError
from medvol.core.types import Sampling
from medvol.engines.vllm import VLLMEngine, join_places
from medvol.grounding.prompts import build_prompts
from medvol.policies.centre import CentreBoxPolicy
from medvol.testing import checks_of, make_volume
from tests.engines.record_vllm import read_record
from tests.fixtures.light_policy import LightPolicy

SAMPLING = Sampling(temperature=0.8, max_new_tokens=4, seed=11)


def make_prompts(policy, queries=("the liver", "the left kidney")):
    return build_prompts(make_volume(), list(queries), policy.template, None)


def change(policy, by=0.05) -> None:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in policy.trainable_parameters():
            parameter.add_(by * torch.randn_like(parameter))


def largest_gap(policy, prompts, answers) -> float:
    with torch.no_grad():
        scores = policy.log_probs(prompts, answers, SAMPLING.temperature)
    return max(
        float((torch.from_numpy(one.log_probs) - row).abs().max())
        for group, rows in zip(answers, scores, strict=True)
        for one, row in zip(group, rows, strict=True)
    )


def test_answers_are_those_of_the_policy(llm, make_policy):
    policy = make_policy()
    engine = VLLMEngine()
    asked = engine.start(policy)
    engine.sync()
    prompts = make_prompts(policy)
    answers = asked.generate(prompts, 3, SAMPLING)
    assert [len(group) for group in answers] == [3, 3]
    assert largest_gap(policy, prompts, answers) < 1e-4
    assert len({one.text for group in answers for one in group}) > 3
    allowed = set(policy.served_form().allowed_ids)
    assert all(set(one.token_ids.tolist()) <= allowed for group in answers for one in group)
    again = asked.generate(prompts, 3, SAMPLING)
    assert [[one.text for one in group] for group in again] == [[one.text for one in group] for group in answers]
    other = asked.generate(prompts, 3, replace(SAMPLING, seed=12))
    assert [[one.text for one in group] for group in other] != [[one.text for one in group] for group in answers]
    engine.stop()


def test_what_a_policy_must_not_write_has_no_probability(llm, make_policy):
    policy = make_policy()
    network = policy.load()
    network.suppressed[:40] = True
    network.suppressed[network.end_id] = False
    engine = VLLMEngine()
    asked = engine.start(policy)
    engine.sync()
    prompts = make_prompts(policy)
    answers = asked.generate(prompts, 4, SAMPLING)
    written = {token for group in answers for one in group for token in one.token_ids.tolist()} - {network.end_id}
    assert min(written) >= 40
    assert largest_gap(policy, prompts, answers) < 1e-4


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4}], ids=["all weights", "adapters"])
def test_new_weights_answer_after_a_sync(llm, settings, make_policy):
    policy = make_policy(**settings)
    engine = VLLMEngine()
    asked = engine.start(policy)
    prompts = make_prompts(policy)
    for by in (0.05, 0.02):
        change(policy, by)
        engine.sync()
        assert largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING)) < 1e-3
    before = largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING))
    change(policy)
    assert largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING)) > 20 * before
    assert llm.last.calls.count("reset_prefix_cache") == 2
    assert llm.last.calls.count("reload_weights") == (0 if settings else 2)


def test_adapters_start_on_the_weights_beneath_them(llm, tmp_path, make_policy):
    policy = make_policy(lora_rank=4)
    change(policy)
    engine = VLLMEngine(folder=str(tmp_path))
    asked = engine.start(policy)
    assert llm.last.started["enable_lora"]
    assert llm.last.started["max_lora_rank"] == 8
    engine.sync()
    prompts = make_prompts(policy)
    assert largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING)) < 1e-3
    engine.sync()
    (place,) = tmp_path.iterdir()
    assert sorted(one.name for one in place.iterdir()) == ["adapter-2", "base"]
    engine.stop()
    assert not list(tmp_path.iterdir())


def test_vllm_is_started_on_what_the_policy_is(llm, make_policy):
    engine = VLLMEngine(gpu_share=0.4, max_model_len=512, max_sequences=7, eager=True)
    engine.start(make_policy())
    started = llm.last.started
    assert (started["gpu_memory_utilization"], started["max_model_len"], started["max_num_seqs"]) == (0.4, 512, 7)
    assert started["limit_mm_per_prompt"] == {"image": 4, "video": 0}
    assert started["logprobs_mode"] == "processed_logprobs"
    assert started["generation_config"] == "vllm"
    assert started["dtype"] == "float32"
    assert started["trust_remote_code"] is False
    assert started["enforce_eager"]
    assert not started.get("enable_lora", False)


def test_it_sleeps_during_the_update(llm, make_policy):
    policy = make_policy()
    engine = VLLMEngine(sleep=True)
    asked = engine.start(policy)
    for _ in range(2):
        engine.sync()
        asked.generate(make_prompts(policy), 1, SAMPLING)
        engine.rest()
    one = ["reload_weights", "reset_prefix_cache", "generate", "sleep"]
    assert llm.last.calls == [*one, "wake_up", *one]


def test_the_environment_is_as_before(llm, monkeypatch, make_policy):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "5")
    before = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    VLLMEngine().start(make_policy())
    assert {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")} == before


def test_slices_keep_their_values(make_policy):
    """An image processor that does not rescale makes of the pictures what the network reads, bit for bit."""
    policy = make_policy()
    network, (prompt,) = policy.load(), make_prompts(policy, ["the liver"])
    form = policy.served_form()
    own = network.prepare(torch.from_numpy(prompt.slices.pixels))
    theirs = network.processor.image_processor(form.pictures(prompt), do_rescale=False, return_tensors="pt")
    assert torch.equal(own["pixel_values"], theirs["pixel_values"])
    assert torch.equal(own["image_grid_thw"], theirs["image_grid_thw"])
    cut = form.patches(prompt)
    assert np.array_equal(np.concatenate([one.values for one in cut]), own["pixel_values"].numpy())
    assert [one.grid for one in cut] == [tuple(row) for row in own["image_grid_thw"].tolist()]
    assert len({float(value) for value in prompt.slices.pixels.ravel()}) > 256  # more than a byte tells apart


def test_vllm_reads_the_same_slices_and_tokens(make_policy, tmp_path):
    """Its own processor, on what it is asked, gives the network's pixel values bit for bit, where it is installed."""
    registry = pytest.importorskip("vllm.multimodal").MULTIMODAL_REGISTRY
    from vllm.config import ModelConfig
    from vllm.multimodal.processing.context import TimingContext
    from vllm.multimodal.processing.inputs import ProcessorInputs

    policy = make_policy()
    form, (prompt,) = policy.served_form(), make_prompts(policy, ["the liver"])
    given = VLLMEngine()._llm_settings(form, tmp_path, policy.template)
    names = ("dtype", "limit_mm_per_prompt", "mm_processor_kwargs", "mm_device_do_normalize")
    policy.save(tmp_path / "model")
    config = ModelConfig(model=str(tmp_path / "model"), max_model_len=512, **{name: given[name] for name in names})
    processor = registry.create_processor(config)
    ids = form.spell(prompt)
    asked = ProcessorInputs(
        join_places(ids, form.image_id), processor.info.parse_mm_data({"image": form.pictures(prompt)})
    )
    read = processor.apply(asked, TimingContext(enabled=False))
    assert read["prompt_token_ids"] == ids
    own = policy.load().prepare(torch.from_numpy(np.array(prompt.slices.pixels)))
    assert torch.equal(
        torch.cat([item["pixel_values"].data for item in read["mm_kwargs"]["image"]]), own["pixel_values"]
    )


def test_slices_that_would_be_resized_are_refused(make_policy):
    policy = make_policy()
    (prompt,) = make_prompts(policy, ["the liver"])
    policy.load().template = replace(policy.template, height_px=50)
    with pytest.raises(ConfigError, match=r"resize slices of 50 x 48 px to 48 x 48; set template.height_px"):
        policy.served_form().pictures(prompt)


def test_a_slice_is_one_token_in_the_prompt():
    assert join_places([1, 9, 9, 9, 2, 9, 9, 3], 9) == [1, 9, 2, 9, 3]
    assert join_places([9, 9], 9) == [9]


def test_weights_have_the_names_of_a_model_folder(tmp_path, make_policy):
    policy = make_policy()
    policy.save(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sent = dict(policy.served_form().weights())
    assert sent.keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in sent.items())
    assert all(name.startswith(tuple(read_record()["prefixes"])) for name in sent)


def test_narrow_weights_are_sent_narrow(make_policy):
    policy = make_policy()
    policy.load().narrow = torch.bfloat16
    form = policy.served_form()
    assert form.kind == "bfloat16"
    assert {tensor.dtype for _, tensor in form.weights()} == {torch.bfloat16}


def write_first(one, token) -> None:
    one.token_ids[0], one.logprobs[0] = token, {token: SimpleNamespace(logprob=-1.0)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda one: setattr(one, "finish_reason", "abort"), "with the reason 'abort'"),
        (lambda one: setattr(one, "logprobs", one.logprobs[:-1]), "log-probabilities that do not belong to them"),
        (lambda one: setattr(one, "logprobs", None), "log-probabilities that do not belong to them"),
        (lambda one: (one.token_ids.insert(0, 0), one.token_ids.pop(1)), "did not answer: KeyError: 0"),
        (lambda one: write_first(one, 0), "tokens that the policy may not write"),
    ],
)
def test_a_completion_that_is_none_is_refused(llm, monkeypatch, spoil, words, make_policy):
    make = fake_vllm.FakeLLM._output

    def spoilt(drawn):
        output = make(drawn)
        spoil(output)
        return output

    monkeypatch.setattr(fake_vllm.FakeLLM, "_output", staticmethod(spoilt))
    policy = make_policy()
    policy.load().suppressed[0] = True
    engine = VLLMEngine()
    asked = engine.start(policy)
    engine.sync()
    with pytest.raises(EngineError, match=words):
        asked.generate(make_prompts(policy), 1, SAMPLING)


def test_a_prompt_that_is_too_long_is_refused(llm, make_policy):
    policy = make_policy()
    engine = VLLMEngine(max_model_len=20)
    asked = engine.start(policy)
    engine.sync()
    with pytest.raises(ConfigError, match=r"tokens and its answer up to 4, and vLLM takes 20 together; raise engine\."):
        asked.generate(make_prompts(policy), 1, SAMPLING)


def test_what_it_cannot_serve_is_refused(llm, make_policy):
    with pytest.raises(ConfigError, match=r"VLLMEngine answers for Qwen-VL models.*LightPolicy has none"):
        VLLMEngine().start(LightPolicy())
    with pytest.raises(ConfigError, match="lora_rank is 600, and vLLM takes at most 512"):
        VLLMEngine().start(make_policy(lora_rank=600))
    with pytest.raises(ConfigError, match=r"engine\.gpu_share is 1\.5; it must be above 0 and below 1"):
        VLLMEngine(gpu_share=1.5)
    with pytest.raises(EngineError, match="was not started"):
        VLLMEngine().sync()
    assert not hasattr(CentreBoxPolicy(), "served_form")


def test_what_vllm_raises_is_one_sentence(llm, monkeypatch, make_policy):
    def fail(*_args, **_settings):
        raise RuntimeError("no kernel image is available")

    engine = VLLMEngine()
    policy = make_policy()
    engine.start(policy)
    monkeypatch.setattr(llm, "reset_prefix_cache", lambda self: False)
    with pytest.raises(EngineError, match="did not forget the prompts"):
        engine.sync()
    monkeypatch.setattr(llm, "collective_rpc", fail)
    with pytest.raises(EngineError, match=r"vLLM did not take the new weights: .*no kernel image"):
        engine.sync()
    monkeypatch.setattr(llm, "__init__", fail)
    with pytest.raises(EngineError, match=r"vLLM does not start: .*no kernel image"):
        VLLMEngine().start(policy)


def test_what_does_not_start_leaves_nothing(llm, monkeypatch, make_policy, tmp_path):
    def fail(*_args, **_settings):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(llm, "__init__", fail)
    engine = VLLMEngine(folder=str(tmp_path))
    with pytest.raises(EngineError, match="vLLM does not start"):
        engine.start(make_policy())
    with pytest.raises(ConfigError, match="lora_rank is 600"):
        engine.start(make_policy(lora_rank=600))
    assert not list(tmp_path.iterdir())
    with pytest.raises(EngineError, match="was not started"):
        engine.sync()


def test_another_start_is_a_new_one(llm, make_policy, tmp_path):
    policy = make_policy()
    engine = VLLMEngine(sleep=True, folder=str(tmp_path))
    for _ in range(2):
        asked = engine.start(policy)
        assert len(list(tmp_path.iterdir())) == 1
        engine.sync()
        asked.generate(make_prompts(policy), 1, SAMPLING)
        engine.rest()
    assert llm.last.calls == ["reload_weights", "reset_prefix_cache", "generate", "sleep"], "it was awake"
    engine.stop()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_error_says_what_to_install():
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[vllm\]"'):
        VLLMEngine().require_ready()


@pytest.mark.parametrize("check", checks_of(VLLMEngine()), ids=lambda check: check.__name__)
def test_contract(llm, check):
    check(VLLMEngine())


def test_the_stand_in_takes_what_vllm_takes():
    known = read_record()
    for name in ("generate", "collective_rpc", "reset_prefix_cache", "sleep", "wake_up"):
        own = list(inspect.signature(getattr(fake_vllm.FakeLLM, name)).parameters)[1:]
        assert own == known[f"LLM.{name}"], name
    fields = list(inspect.signature(fake_vllm.LoRARequest).parameters)
    assert fields == known["LoRARequest"][: len(fields)]
    assert {"token_ids", "logprobs", "finish_reason"} <= set(known["CompletionOutput"])
    with pytest.raises(TypeError, match="has no"):
        fake_vllm.SamplingParams(suppress_tokens=[1])
