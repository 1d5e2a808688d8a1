"""An engine in an experiment: named in YAML, listed, and refused in one sentence where it cannot work."""

import json

import pytest
from fake_vllm_server import FakeServer

from medvol.cli import main
from medvol.core.prompts import PromptTemplate
from medvol.policies.tiny import TinyPolicy

TEMPLATE = {"num_slices": 4, "height_px": 48, "width_px": 48, "slice_tag": "{index}", "instruction": ""}


@pytest.fixture
def grpo(experiment, tmp_path):
    """Write a GRPO experiment with an engine."""

    def write(engine, **policy):
        return experiment(
            model={
                "class_path": "GRPOModule",
                "init_args": {
                    "policy": {"class_path": "TinyPolicy", "init_args": {"template": TEMPLATE, **policy}},
                    "propagator": "ToyPropagator",
                    "rewards": ["FormatReward"],
                    "rollouts": {"group_size": 2},
                    "start": {"min_parse_rate": 0.0},
                    "optimizer": {"learning_rate": 1e-5},
                    "evaluation": {"max_new_tokens": 3},
                    "engine": engine,
                },
            },
            trainer__max_steps=2,
            data__init_args__val=None,
        )

    return write


def test_vllm_that_is_absent_stops_the_run_at_once(grpo, refused, tmp_path):
    assert refused("fit", "--config", grpo("VLLMEngine")) == (
        'vllm is needed here but is not installed; run: pip install "medvol-r1[vllm]"'
    )
    assert not (tmp_path / "run" / "model").exists()


def test_a_server_that_is_down_stops_the_run_at_once(grpo, refused, tmp_path):
    engine = {"class_path": "VLLMServerEngine", "init_args": {"url": "http://127.0.0.1:9", "folder": str(tmp_path)}}
    assert "the vLLM server http://127.0.0.1:9 cannot be reached" in refused("fit", "--config", grpo(engine))


@pytest.mark.slow
def test_a_fit_with_a_server(grpo, tmp_path, capfd):
    TinyPolicy(template=PromptTemplate(**TEMPLATE), seed=9).save(tmp_path / "other")
    folder = tmp_path / "tiny"
    settings = grpo("InProcessEngine")
    assert main(["fit", "--config", str(settings), "--trainer.max_steps", "1"]) == 0
    (tmp_path / "run" / "model").rename(folder)
    with FakeServer(str(folder)) as server:
        shared = str(tmp_path / "shared")
        engine = {"class_path": "VLLMServerEngine", "init_args": {"url": server.url, "folder": shared}}
        assert main(["fit", "--config", str(grpo(engine)), "--trainer.default_root_dir", str(tmp_path / "served")]) == 0
    assert server.paths.count("/collective_rpc") == 2
    with FakeServer(str(tmp_path / "other"), faulty="deaf") as server:
        engine = {"class_path": "VLLMServerEngine", "init_args": {"url": server.url, "folder": shared}}
        capfd.readouterr()
        assert main(["fit", "--config", str(grpo(engine)), "--trainer.default_root_dir", str(tmp_path / "wrong")]) == 2
    assert "nats a token, and start.max_sampler_gap is 0.01" in capfd.readouterr().err


def test_engines_are_listed_and_described(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["components"]
    named = {row["name"] for row in rows if row["kind"] == "engines"}
    assert {"InProcessEngine", "VLLMEngine", "VLLMServerEngine"} <= named
    assert main(["describe", "VLLMServerEngine"]) == 0
    said = capsys.readouterr().out
    assert "engine:\n    class_path: VLLMServerEngine" in said
    assert "url: http://127.0.0.1:8000" in said
