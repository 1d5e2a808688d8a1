"""The program for a GPU runs on a CPU with a small model: all peers agree, and all rows are measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    import torch
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
