"""``medvol plan``: an experiment in, what a step needs out."""

import json
import re
from argparse import Namespace
from pathlib import Path

import jsonschema
import pytest
import yaml

from medvol.cli import main
from medvol.cli.plan import count_steps, read_bytes, say_bytes
from medvol.cli.planned_experiment import read_experiment
from medvol.core.errors import ConfigError
from medvol.policies import known_layouts

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "medvol-plan-1.json").read_text())

UNCHANGED = Namespace(model=None, device=None, devices=None, answer_tokens=None, queries=None)
"""Options of a plan that takes all from its file."""


@pytest.fixture
def small_grpo(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        """
model:
  class_path: GRPOModule
  init_args:
    policy: TinyPolicy
    propagator: RegionPropagator
    rewards: [FormatReward]
    rollouts: {group_size: 2}
    evaluation: {max_new_tokens: 8}
data:
  class_path: CaseDataModule
  init_args:
    train: {class_path: PhantomDataset, init_args: {num_volumes: 5, shape: [24, 32, 32]}}
    batch_size: 2
    queries_per_volume: 2
trainer: {max_epochs: 3, accelerator: cpu}
"""
    )
    return path


def test_a_plan_as_json(small_grpo, capsys):
    assert main(["plan", str(small_grpo), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    jsonschema.validate(plan, SCHEMA, jsonschema.Draft202012Validator)
    assert plan["prompt"]["image"] == 24 * 16
    assert plan["step"]["draws"] == 2 * 2 * 2
    assert plan["step"]["scan_shape"] == [24, 32, 32]
    assert plan["run"] == {"volumes_per_epoch": 5, "batches_per_epoch": 3, "optimiser_steps": 9}
    phases = plan["memory"]["phases"]
    assert [phase["name"] for phase in phases] == [
        "drawing answers",
        "scoring under the reference",
        "learning",
        "optimiser step",
        "writing the model",
    ]
    assert all(sum(phase["parts"].values()) == phase["total_bytes"] for phase in phases)
    assert plan["memory"]["fits"] is None


def test_rejection_sampling_is_planned_as_what_it_is(small_grpo, capsys):
    small_grpo.write_text(small_grpo.read_text().replace("GRPOModule", "RejectionModule"))
    assert main(["plan", str(small_grpo), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    jsonschema.validate(plan, SCHEMA, jsonschema.Draft202012Validator)
    assert (plan["method"], plan["step"]["draws"], plan["assumptions"]) == ("rejection sampling", 8, [])
    assert plan["step"]["row_tokens"] == plan["prompt"]["prefix"] + 2 * (plan["prompt"]["query"] + 8)


@pytest.mark.slow
def test_a_batch_is_no_larger_than_the_data(small_grpo, capsys):
    small_grpo.write_text(small_grpo.read_text().replace("batch_size: 2", "batch_size: 1000000"))
    assert main(["plan", str(small_grpo), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["step"]["batch"], plan["run"]["batches_per_epoch"]) == (5, 1)
    assert "data.batch_size is 1000000, and a batch holds the 5 volumes of the data" in plan["assumptions"]


def test_what_does_not_fit_says_what_to_change(small_grpo, capsys):
    assert main(["plan", str(small_grpo), "--memory", "90MB"]) == 1
    text = capsys.readouterr().out
    assert "does not fit into 90% of 90.0 MB" in text
    assert re.search(r"model\.optimizer\.volumes_per_pass: 1 +[\d.]+ MB", text)


@pytest.mark.slow
def test_a_paper_experiment_starts_from_an_earlier_stage(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(known_layouts._TEXT, "num_hidden_layers", 2)
    assert main(["plan", "examples/paper_ctorg.yaml", "--json", "--answer_tokens", "64"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"] == "Qwen/Qwen3-VL-4B-Instruct"
    assert plan["prompt"]["image"] == 4096
    assert plan["device"] == "cuda"
    assert any("runs/paper_sft/model does not exist yet" in sentence for sentence in plan["assumptions"])
    assert any("cannot be read here" in sentence for sentence in plan["assumptions"])


@pytest.mark.parametrize(
    ("trainer", "updates", "steps"),
    [
        ("{max_epochs: 3}", 4, 36),
        ("{max_epochs: 3, max_steps: 1000}", 4, 36),
        ("{max_epochs: 3, max_steps: 10}", 4, 10),
        ("{max_steps: 10}", 1, 10),
        ("{max_epochs: 3, limit_train_batches: 1}", 4, 12),
        ("{max_epochs: 3, limit_train_batches: 7}", 1, 9),
        ("{max_epochs: 3, limit_train_batches: 0.7}", 1, 6),
        ("{max_epochs: 3, limit_train_batches: 1.0}", 1, 9),
        ("{}", 1, None),
    ],
)
def test_steps_end_where_the_first_limit_is_met(small_grpo, trainer, updates, steps):
    """Five volumes in batches of two are three batches an epoch."""
    text = small_grpo.read_text().replace("{max_epochs: 3, accelerator: cpu}", trainer)
    small_grpo.write_text(text.replace("rollouts:", f"optimizer: {{updates_per_rollout: {updates}}}\n    rollouts:"))
    assert count_steps(read_experiment(str(small_grpo), UNCHANGED))["optimiser_steps"] == steps


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{class_path: GRPOModule, init_args: }", "model"),
        ("GRPOModule", "policy"),
        ("{class_path: SFTModule, init_args: {policy: TinyPolicy, propagator: RegionPropagator}}", "accumulate_grad"),
    ],
)
def test_empty_and_odd_settings_are_refused_in_a_sentence(small_grpo, model, said, capsys):
    data = small_grpo.read_text().partition("data:")[2].replace("cpu}", "cpu, accumulate_grad_batches: abc}")
    small_grpo.write_text(f"model: {model}\ndata:{data}")
    options = [] if "SFT" in model else ["--model", "some/folder"]
    assert main(["plan", str(small_grpo), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "much"], "--memory is 'much'"),
        (["--devices", "0"], "--devices is 0"),
        (["--devices", "3"], "data.batch_size is 2, and 3 devices share each batch"),
        (["--answer_tokens", "8192"], "an answer of up to 8,192 are more than the 8,192 that the model takes"),
        (["--device", "gpu"], "device must be one of cpu, cuda; got 'gpu'"),
        (["--model", "no/such/folder"], "no/such/folder"),
    ],
)
def test_what_is_refused(small_grpo, arguments, message, capsys):
    assert main(["plan", str(small_grpo), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "devices"), [("{devices: 4, num_nodes: 2}", 8), ("{devices: [0, 1]}", 2), ("{num_nodes: 2}", 2)]
)
def test_devices_of_all_machines_share_a_batch(small_grpo, trainer, devices):
    text = small_grpo.read_text().replace("{max_epochs: 3, accelerator: cpu}", trainer)
    small_grpo.write_text(text.replace("batch_size: 2", "batch_size: 8"))
    assert read_experiment(str(small_grpo), UNCHANGED).step.devices == devices


@pytest.mark.parametrize("wrong", ["limit_train_batches: many", "max_steps: [1]", "num_nodes: 0.5"])
def test_lengths_of_a_run_are_numbers(small_grpo, wrong, capsys):
    small_grpo.write_text(small_grpo.read_text().replace("max_epochs: 3", wrong))
    assert main(["plan", str(small_grpo)]) == 2
    assert f"trainer.{wrong.partition(':')[0]} is " in capsys.readouterr().err


def test_the_help_names_the_devices(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    shown = capsys.readouterr().out
    assert "'cpu', 'cuda'" in shown
    assert "lambda" not in shown


def test_other_files_beside_an_experiment_do_not_count(small_grpo, capsys):
    (small_grpo.parent / "labels.yaml").write_text("[1, 2]")
    (small_grpo.parent / "broken.yaml").write_text("a: [")
    assert main(["plan", str(small_grpo), "--model", "runs/a/model"]) == 2
    assert "there is no model folder 'runs/a/model'" in capsys.readouterr().err


def test_a_model_in_a_file_of_its_own_is_planned(small_grpo, capsys):
    settings = yaml.safe_load(small_grpo.read_text())
    (small_grpo.parent / "model.yaml").write_text(yaml.safe_dump(settings["model"]))
    small_grpo.write_text(yaml.safe_dump({**settings, "model": "model.yaml"}))
    assert main(["plan", str(small_grpo), "--model", "nowhere/model"]) == 2
    assert "there is no model folder 'nowhere/model'" in capsys.readouterr().err
    assert main(["plan", str(small_grpo)]) == 0


def test_an_evaluation_has_no_training_step(small_grpo, capsys):
    small_grpo.write_text(
        small_grpo.read_text()
        .replace("GRPOModule", "EvaluationModule")
        .replace("    rewards: [FormatReward]\n    rollouts: {group_size: 2}\n", "")
    )
    assert main(["plan", str(small_grpo)]) == 2
    assert "EvaluationModule trains nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("24GB", 24 * 10**9), ("80 GiB", 80 * 2**30), ("1.5gb", 15 * 10**8)])
def test_sizes(text, size):
    assert read_bytes(text) == size


def test_sizes_in_words():
    assert (say_bytes(0), say_bytes(1_234_000_000), say_bytes(5_600_000)) == ("-", "1.2 GB", "5.6 MB")
    with pytest.raises(ConfigError):
        read_bytes("0GB")
