"""The program for a GPU runs on a CPU with a small model: all peers agree, and all rows are measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAM = BENCHMARKS / "gpu_step.py"
RATIOS = ("step_ratio_trl", "train_ratio_prefixgrouper", "train_ratio_lean", "propagation_ratio")


@pytest.fixture
def program(monkeypatch):
    """The program's own modules, which have names that others may have, too."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    own = ("agreement", "gpu_step", "grouped_training", "grpo_turns", "large_layout", "meter", "peers", "propagation")
    own += ("step_rows",)
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gpu_step

    yield gpu_step
    for name in own:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_quick():
    for library in ("trl", "datasets", "peft", "prefix_grouper", "sam2"):
        pytest.importorskip(library, reason="the extra bench is not installed")
    command = [sys.executable, PROGRAM, "--quick", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(found[name] > 0 for name in RATIOS), found["reasons"]
    assert found["device"] == "cpu"
    assert found["peak_ratio_trl"] is None
    assert found["reasons"] == {"peak_ratio_trl": "memory is counted on a GPU only"}
    said = found["rows"]["agreement"]
    assert said["trl"]["largest"] < 1e-4
    assert said["prefix_grouper"]["largest"] < 1e-4
    assert said["other_slices_mean"] > 100 * said["trl"]["mean"], "the comparison would not notice another prompt"
    steps = found["rows"]["steps of 12 tokens"]
    assert {"1 at a time", "8 at a time, checkpointing"} <= steps["ways"].keys()
    for who in ("ours", "trl"):
        parts = steps["ways"][steps["fastest"]][who]
        assert all(parts[name] > 0 for name in ("vision", "prefill", "decode", "log-probs", "backward", "optimiser"))
        measured = sum(value for name, value in parts.items() if name not in ("seconds", "peak_gib"))
        assert measured == pytest.approx(parts["seconds"], abs=0.01)
    assert found["rows"]["propagation"]["max_logit_difference"] < 1e-4


def test_the_layout_is_that_of_the_published_model(program):
    pytest.importorskip("peft", reason="the extra qwen is not installed")
    from large_layout import QWEN3_VL_4B, make_tokenizer
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={**QWEN3_VL_4B.text, "tie_word_embeddings": True},
        vision_config={**QWEN3_VL_4B.vision},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_437_815_808  # the safetensors index says so
    assert len(make_tokenizer(QWEN3_VL_4B)) == 151_936


def test_no_gpu_is_one_sentence(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_step.py"])
    monkeypatch.setattr(program.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no CUDA device" in line
    assert "--quick" in line


def test_missing_peers_and_a_spent_budget_are_reasons(program):
    figures = program.Figures(minutes=0.0)
    figures.miss(("propagation_ratio",), "sam2 is needed here but is not installed")
    figures.measure(
        "steps of 64 tokens", ("step_ratio_trl",), lambda: pytest.fail("it started after the time was over")
    )
    found = json.loads(figures.to_json())
    assert found["propagation_ratio"] is None
    assert found["step_ratio_trl"] is None
    assert found["reasons"]["propagation_ratio"] == "sam2 is needed here but is not installed"
    assert "0 minutes were over" in found["reasons"]["step_ratio_trl"]


def test_too_little_memory_is_a_reason_whatever_it_was_wrapped_in(program):
    def work():
        try:
            raise program.torch.OutOfMemoryError("CUDA out of memory")
        except program.torch.OutOfMemoryError as error:
            raise RuntimeError("the policy failed") from error

    figures = program.Figures(minutes=1.0)
    figures.measure("steps of 256 tokens", ("step_ratio_trl",), work)
    assert json.loads(figures.to_json())["reasons"]["step_ratio_trl"] == "steps of 256 tokens: it does not fit"


def test_of_two_lengths_the_worse_ratio_counts(program):
    figures = program.Figures(minutes=1.0)
    for row, step, peak in (("short", 6.0, 0.4), ("long", 5.0, 0.3)):
        figures.keep(row, {"step_ratio_trl": step, "peak_ratio_trl": peak})
    found = json.loads(figures.to_json())
    assert (found["step_ratio_trl"], found["peak_ratio_trl"]) == (5.0, 0.4)


@pytest.fixture
def bench(program, tmp_path):
    pytest.importorskip("peft", reason="the extra qwen is not installed")
    from large_layout import SMALL

    return program.Bench(SMALL, "cpu", tmp_path, 1)


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_tried_with_checkpointing(bench, monkeypatch):
    from large_layout import LayoutPolicy
    from step_rows import our_steps

    score = LayoutPolicy.log_probs

    def log_probs(policy, *arguments):
        if not policy.gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(policy, *arguments)

    monkeypatch.setattr(LayoutPolicy, "log_probs", log_probs)
    before = {name: tensor.clone() for name, tensor in bench.base.state_dict().items()}
    with our_steps(bench, 4) as (steps, policy):
        assert policy.gradient_checkpointing
        adapters = [parameter.detach().clone() for parameter in policy.trainable_parameters()]
        steps.take()
        assert len(steps.meter.steps) == 2
        assert any(not torch.equal(a, b) for a, b in zip(adapters, policy.trainable_parameters(), strict=True))
    torch.testing.assert_close(dict(bench.base.state_dict()), before, rtol=0, atol=0)


@pytest.mark.slow
def test_of_the_ways_of_trl_that_fit_the_fastest_counts(bench, monkeypatch):
    import step_rows
    from meter import Step

    seconds = {"1 at a time": 40.0, "8 at a time, checkpointing": None, "2 at a time": 30.0}

    def run_trl(bench, length, policy, arrangement, ours):
        taken = seconds[str(arrangement)]
        ours.take()
        if taken is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        ours.take()
        return [Step({"rest": taken}, 3 * 2**30)]

    monkeypatch.setattr(step_rows, "run_trl", run_trl)
    found = step_rows.compare_steps(bench, 4, lambda: True)
    assert found["fastest"] == "2 at a time"
    assert found["ways"].keys() == {"1 at a time", "2 at a time"}
    ours = found["ways"]["2 at a time"]["ours"]["seconds"]
    assert found["step_ratio_trl"] == pytest.approx(30 / ours, rel=0.1)


@pytest.mark.slow
def test_other_weights_are_noticed(bench):
    pytest.importorskip("prefix_grouper", reason="the extra bench is not installed")
    from agreement import compare_scores

    built = []

    def build():
        policy = bench.policy()
        if built:
            with torch.no_grad():
                for parameter in policy.trainable_parameters():
                    parameter.mul_(1.1)
        built.append(policy)
        return policy

    found = compare_scores(build, bench.base, ["prefix_grouper"], bench.case, bench.folder)
    assert len(built) == 2
    assert found["prefix_grouper"]["agrees"] is False
