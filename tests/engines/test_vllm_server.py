"""VLLMServerEngine against a stand-in server that really samples, and against servers that fail."""

import base64
import json
import re
import socket
import time

import numpy as np
import pytest
import torch
from fake_vllm_server import FakeServer, decode

from medvol.core.errors import ConfigError, EngineError
from medvol.core.served_form import SlicePatches
from medvol.engines.vllm_parts.slices_on_the_wire import find_places, pack_slices
from medvol.engines.vllm_server import VLLMServerEngine
from medvol.testing import checks_of, engine_checks
from tests.engines.record_vllm import read_record
from tests.engines.test_vllm_engine import SAMPLING, change, largest_gap, make_prompts


@pytest.fixture
def server(tiny_folder):
    with FakeServer(str(tiny_folder)) as listening:
        yield listening


def connect(server, folder, **settings) -> VLLMServerEngine:
    return VLLMServerEngine(server.url, str(folder / "shared"), **settings)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4}], ids=["all weights", "adapters"])
def test_new_weights_answer_after_a_sync(server, tmp_path, make_policy, settings):
    policy = make_policy(**settings)
    engine = connect(server, tmp_path)
    engine.require_ready()
    asked = engine.start(policy)
    prompts = make_prompts(policy)
    for by in (0.05, 0.02):
        change(policy, by)
        engine.sync()
        answers = asked.generate(prompts, 2, SAMPLING)
        assert [len(group) for group in answers] == [2, 2]
        assert largest_gap(policy, prompts, answers) < 1e-3
    loading = "/v1/load_lora_adapter" if settings else "/collective_rpc"
    assert server.paths.count(loading) == server.paths.count("/reset_prefix_cache") == 2
    (last,) = (tmp_path / "shared").iterdir()
    assert re.fullmatch("medvol-[0-9a-f]{8}-2", last.name)
    assert list(server.fake.adapters) == ([last.name] if settings else [])
    engine.stop()
    assert not list((tmp_path / "shared").iterdir())
    assert not server.fake.adapters


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4}], ids=["all weights", "adapters"])
def test_two_fits_with_one_folder(server, tiny_folder, tmp_path, make_policy, settings):
    """Each has its own server, and writes its weights just before the other's are read."""
    policy, other = make_policy(**settings), make_policy(**settings)
    change(policy, 0.05)
    change(other, -0.1)
    with FakeServer(str(tiny_folder)) as listening:
        engine, second = connect(server, tmp_path), connect(listening, tmp_path)
        asked, asked_second = engine.start(policy), second.start(other)

        def meanwhile(path, body):
            if path in ("/collective_rpc", "/v1/load_lora_adapter"):
                server.answer = None
                second.sync()

        server.answer = meanwhile
        engine.sync()
        prompts = make_prompts(policy)
        assert largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING)) < 1e-3
        assert len(list((tmp_path / "shared").iterdir())) == 2
        engine.stop()
        assert len(list((tmp_path / "shared").iterdir())) == 1
        assert largest_gap(other, prompts, asked_second.generate(prompts, 2, SAMPLING)) < 1e-3
        second.sync()
        second.stop()
    assert not list((tmp_path / "shared").iterdir())


def test_adapters_of_two_fits_on_one_server(server, tmp_path, make_policy):
    policy, other = make_policy(lora_rank=4), make_policy(lora_rank=4)
    change(policy, 0.05)
    change(other, -0.1)
    engine, second = connect(server, tmp_path), connect(server, tmp_path)
    asked, asked_second = engine.start(policy), second.start(other)
    engine.sync()
    second.sync()
    prompts = make_prompts(policy)
    assert len(server.fake.adapters) == 2
    assert largest_gap(policy, prompts, asked.generate(prompts, 2, SAMPLING)) < 1e-3
    engine.stop()
    assert largest_gap(other, prompts, asked_second.generate(prompts, 2, SAMPLING)) < 1e-3


def test_all_processes_ask_for_the_weights_of_the_first(server, tmp_path, make_policy, monkeypatch):
    policy = make_policy(lora_rank=4)
    engine = connect(server, tmp_path)

    def give(names, src):
        assert src == 0
        names[0] = "medvol-of-the-first"

    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1, "barrier": None}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", give)
    asked = engine.start(policy)
    engine.sync()
    server.answer = lambda path, body: (503, "seen") if path.endswith("/generate") else None
    with pytest.raises(EngineError, match="seen"):
        asked.generate(make_prompts(policy, ["the liver"]), 1, SAMPLING)
    assert server.calls[-1][1]["model"] == "medvol-of-the-first-1"
    assert "/v1/load_lora_adapter" not in server.paths


def test_a_server_that_is_gone_does_not_keep_a_fit_from_its_end(server, tmp_path, make_policy, caplog):
    engine = connect(server, tmp_path)
    engine.start(make_policy(lora_rank=4))
    engine.sync()
    server.answer = lambda path, body: (503, "going down")
    engine.stop()
    assert re.search(r"the adapter medvol-[0-9a-f]{8}-1 may stay on the server: .*going down", caplog.text)
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.parametrize(
    ("path", "rank"),
    [
        ("/collective_rpc", 0),
        ("/reset_prefix_cache", 0),
        ("/reset_prefix_cache", 4),
        ("/v1/load_lora_adapter", 4),
        ("/v1/unload_lora_adapter", 4),
    ],
)
def test_what_a_failed_sync_left_is_removed(server, tmp_path, make_policy, path, rank):
    engine = connect(server, tmp_path)
    engine.start(make_policy(lora_rank=rank))
    engine.sync()
    engine.sync()
    server.answer = lambda asked, body: (500, "no room") if asked == path else None
    with pytest.raises(EngineError, match=f"refused {path} with status 500: no room"):
        engine.sync()
    assert len(list((tmp_path / "shared").iterdir())) == 2
    server.answer = None
    engine.stop()
    assert not list((tmp_path / "shared").iterdir())
    assert not server.fake.adapters


def test_an_adapter_that_did_not_load_is_not_asked(server, tmp_path, make_policy):
    policy = make_policy(lora_rank=4)
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    engine.sync()
    server.answer = lambda path, body: (500, "no room") if path == "/v1/load_lora_adapter" else None
    with pytest.raises(EngineError, match="no room"):
        engine.sync()
    asked.generate(make_prompts(policy, ["the liver"]), 1, SAMPLING)
    assert re.fullmatch("medvol-[0-9a-f]{8}-1", server.calls[-1][1]["model"])


def test_an_adapter_that_was_loaded_without_an_answer_is_let_go(server, tmp_path, make_policy):
    engine = connect(server, tmp_path)
    engine.start(make_policy(lora_rank=4))

    def load_and_break(path, body):
        if path != "/v1/load_lora_adapter":
            return None
        server._load(body)
        return 500, "gone"

    server.answer = load_and_break
    with pytest.raises(EngineError, match="gone"):
        engine.sync()
    assert server.fake.adapters
    engine.stop()
    assert not server.fake.adapters


def test_slices_of_one_volume_are_packed_alike(server, tmp_path, make_policy):
    policy = make_policy()
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    engine.sync()
    asked.generate(make_prompts(policy), 1, SAMPLING)
    one, two = (body["features"] for path, body in server.calls if path.endswith("/generate"))
    assert one["mm_hashes"] == two["mm_hashes"]
    assert len(one["mm_hashes"]["image"]) == 4
    seeds = [body["sampling_params"]["seed"] for path, body in server.calls if path.endswith("/generate")]
    assert sorted(seeds) == [11, 12]


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_slices_travel_whole(kind):
    values = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    (key, other), (text, _) = pack_slices([SlicePatches(values, (1, 2, 4)), SlicePatches(values + 1, (1, 2, 4))], kind)
    found = decode(text)
    assert torch.equal(found["pixel_values"], torch.from_numpy(values).to(getattr(torch, kind)))
    assert found["image_grid_thw"].tolist() == [1, 2, 4]
    assert len(key) == 64
    assert key != other


def test_slices_travel_as_vllm_packs_them():
    """Against vLLM's own coder, where the package is installed."""
    mm_serde = pytest.importorskip("vllm.entrypoints.scale_out.token_in_token_out.mm_serde")
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    _, (text,) = pack_slices([SlicePatches(values, (1, 2, 4))], "float32")
    item = mm_serde.decode_mm_kwargs_item(text)
    assert torch.equal(item["pixel_values"].data, torch.from_numpy(values))
    assert item["image_grid_thw"].data.tolist() == [1, 2, 4]
    assert item["image_grid_thw"].field.keep_on_cpu
    again = base64.b64decode(mm_serde.encode_mm_kwargs_item(item))
    assert len(again) == len(base64.b64decode(text))


def test_requests_are_those_that_vllm_reads(server, tmp_path, make_policy):
    """A whole request against vLLM's own models of it, where the package is installed; and its names of weights."""
    protocol = pytest.importorskip("vllm.entrypoints.scale_out.token_in_token_out.protocol")
    from safetensors import safe_open
    from vllm.entrypoints.scale_out.token_in_token_out.mm_features import mm_kwargs_from_features
    from vllm.lora.utils import parse_fine_tuned_lora_name
    from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration

    policy = make_policy(lora_rank=4)
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    engine.sync()
    (prompt,) = make_prompts(policy, ["the liver"])
    asked.generate([prompt], 2, SAMPLING)
    body = next(body for path, body in server.calls if path.endswith("/generate"))
    request = protocol.GenerateRequest.model_validate(body)
    (written,) = (tmp_path / "shared").iterdir()
    assert (request.model, request.sampling_params.n, request.sampling_params.seed) == (written.name, 2, 11)
    items = mm_kwargs_from_features(request.features)["image"]
    own = policy.load().prepare(torch.from_numpy(np.array(prompt.slices.pixels)))
    assert torch.equal(torch.cat([item["pixel_values"].data for item in items]), own["pixel_values"])
    mapper = Qwen3VLForConditionalGeneration.hf_to_vllm_mapper
    with safe_open(written / "adapter_model.safetensors", "pt") as file:
        places = {parse_fine_tuned_lora_name(name, mapper)[0] for name in file.keys()}  # noqa: SIM118
    assert "language_model.model.layers.0.self_attn.q_proj" in places
    assert all(place.startswith("language_model.model.layers.") for place in places)


def test_the_record_is_what_vllm_has():
    """Against the package, where it is installed."""
    pytest.importorskip("vllm.entrypoints.llm")
    from tests.engines.record_vllm import record

    known = read_record()
    assert record() == {name: value for name, value in known.items() if name != "version"}


def test_places_of_slices():
    assert find_places([1, 9, 9, 2, 9, 3], 9, 2) == [{"offset": 1, "length": 2}, {"offset": 4, "length": 1}]
    with pytest.raises(EngineError, match="shows 3 slices and keeps places for 2"):
        find_places([1, 9, 9, 2, 9, 3], 9, 3)


def test_a_server_that_is_down():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EngineError, match=r"cannot be reached \(.*\); start it, or check engine\.url"):
        VLLMServerEngine(url, "x").require_ready()


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_what_stays_on_this_machine_passes_no_proxy(server, tmp_path, monkeypatch, proxy):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    connect(server, tmp_path).require_ready()


def test_an_address_that_is_none_is_named():
    with pytest.raises(ConfigError, match=r"^http://256\.1\.1\.1 cannot be asked \(.*\); check the address"):
        VLLMServerEngine("http://256.1.1.1", "x").require_ready()


def test_a_server_that_hangs(server, tmp_path, make_policy):
    engine = connect(server, tmp_path, timeout_s=0.3)
    asked = engine.start(make_policy())
    server.answer = lambda path, body: time.sleep(1) if path == "/collective_rpc" else None
    with pytest.raises(EngineError, match=r"did not answer /collective_rpc within 0\.3 s"):
        engine.sync()
    assert asked.template == make_policy().template


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"data": []}, r"has no model, and engine\.model is ''"),
        ({"object": "list"}, "not as a vLLM server does"),
        ("<html>", "something that is not JSON: <html>"),
        ((503, "overloaded"), "refused /v1/models with status 503: overloaded"),
        ({"data": [{"id": "other", "max_model_len": 99}]}, r"has other, and engine\.model is 'tiny'; name one"),
    ],
)
def test_a_server_of_something_else(server, tmp_path, answer, words):
    server.answer = lambda path, body: answer if path == "/v1/models" else None
    with pytest.raises(EngineError, match=words):
        connect(server, tmp_path, model="tiny" if "other" in json.dumps(answer) else None).require_ready()


@pytest.mark.parametrize(
    ("part", "setting", "value", "words"),
    [
        ("model_config", "logprobs_mode", "raw_logprobs", "start it with --logprobs-mode processed_logprobs"),
        ("model_config", "multimodal_config", {"mm_device_do_normalize": True}, "with --no-mm-device-do-normalize"),
        ("lora_config", "max_lora_rank", 2, "start it with --enable-lora --max-lora-rank 4 or more"),
        ("model_config", "multimodal_config", None, r"does not tell its settings; medvol speaks with vLLM 0\.33"),
    ],
)
def test_a_server_that_answers_otherwise(server, tmp_path, make_policy, part, setting, value, words):
    server.config[part][setting] = value
    with pytest.raises(EngineError, match=words):
        connect(server, tmp_path).start(make_policy(lora_rank=4))


@pytest.mark.parametrize(
    ("path", "rank", "words"),
    [
        ("/collective_rpc", 0, "start it with VLLM_SERVER_DEV_MODE=1 in its environment"),
        ("/reset_prefix_cache", 4, "start it with VLLM_SERVER_DEV_MODE=1 in its environment"),
        ("/v1/load_lora_adapter", 4, "start it with --enable-lora, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ("/inference/v1/generate", 0, "start it with --enable-scale-out"),
    ],
)
def test_a_server_that_was_started_without_something(server, tmp_path, make_policy, path, rank, words):
    policy = make_policy(lora_rank=rank)
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    server.absent = {path}

    def step():
        engine.sync()
        asked.generate(make_prompts(policy), 1, SAMPLING)

    with pytest.raises(EngineError, match=f"does not know {path} .*{words}"):
        step()


def spoil(**changes):
    choice = {"index": 0, "token_ids": [5], "finish_reason": "stop", "logprobs": {"content": [{"logprob": -1.0}]}}
    return {"choices": [{**choice, **changes}]}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"choices": []}, "gave 0 completions of a prompt, and 1 were asked"),
        ({"error": "x"}, "no completions with tokens and log-probabilities .KeyError"),
        (spoil(token_ids=["a"]), "no completions with tokens and log-probabilities .TypeError"),
        (spoil(token_ids=[True]), "no completions with tokens and log-probabilities .TypeError"),
        (spoil(logprobs=None), "no completions with tokens and log-probabilities .TypeError"),
        (spoil(logprobs={"content": [{"logprob": 3.0}]}, finish_reason="length", token_ids=[5] * 4), "do not belong"),
        (spoil(finish_reason=None), "with the reason None"),
        (spoil(token_ids=[10**9]), "ended a completion after 1 tokens with the reason 'stop'"),
        ((400, {"error": {"message": "prompt too long"}}), "refused /inference/v1/generate with status 400"),
    ],
)
def test_completions_that_are_none(server, tmp_path, make_policy, answer, words):
    policy = make_policy()
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    engine.sync()
    server.answer = lambda path, body: answer if path.endswith("/generate") else None
    with pytest.raises(EngineError, match=words):
        asked.generate(make_prompts(policy, ["the liver"]), 1, SAMPLING)


def test_a_cache_that_is_kept_is_refused(server, tmp_path, make_policy):
    engine = connect(server, tmp_path)
    engine.start(make_policy())
    server.answer = lambda path, body: {"success": False} if path == "/reset_prefix_cache" else None
    with pytest.raises(EngineError, match="did not forget the prompts"):
        engine.sync()


def test_a_server_with_too_little_room(server, tmp_path, make_policy):
    server.limit = 30
    policy = make_policy()
    engine = connect(server, tmp_path)
    asked = engine.start(policy)
    engine.sync()
    with pytest.raises(ConfigError, match="vLLM takes 30 together; raise --max-model-len of the server"):
        asked.generate(make_prompts(policy), 1, SAMPLING)


CHECKS = checks_of(VLLMServerEngine("http://127.0.0.1:1", "x"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(checked_server, tmp_path, check):
    check(connect(checked_server, tmp_path))


@pytest.fixture
def checked_server(tmp_path):
    policy = engine_checks._make_policy()
    policy.save(tmp_path / "model")
    with FakeServer(str(tmp_path / "model")) as listening:
        yield listening


def test_settings_without_meaning():
    with pytest.raises(
        ConfigError, match=r"engine\.url is the address of a server, such as .*; got '127\.0\.0\.1:8000'"
    ):
        VLLMServerEngine("127.0.0.1:8000", "x")
    for url in ("user:secret@host:8000", "http://user:sec/ret@host:8000", "http://host:port", "http://"):
        with pytest.raises(ConfigError, match=r"engine\.url is the address of a server, such as") as caught:
            VLLMServerEngine(url, "x")
        assert "sec" not in str(caught.value)
    for url in ("http://user:secret@host:8000", "http://host:8000/?key=secret"):
        with pytest.raises(ConfigError, match=r"engine\.url holds a user, a password or a query") as caught:
            VLLMServerEngine(url, "x")
        assert "secret" not in str(caught.value)
    for seconds in (0, float("inf"), float("nan"), 1e12, 86_401):
        with pytest.raises(ConfigError, match=r"engine\.timeout_s is .*; it must be above 0 and at most 86400$"):
            VLLMServerEngine("http://127.0.0.1:8000", "x", timeout_s=seconds)
    VLLMServerEngine("http://127.0.0.1:9", "x", timeout_s=86_400)
    with pytest.raises(EngineError, match="was not started"):
        VLLMServerEngine("http://127.0.0.1:8000", "x").sync()
