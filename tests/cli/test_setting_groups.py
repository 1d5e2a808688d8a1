"""Groups of settings in YAML and on the command line: one changes, the others keep the defaults of the module."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

import medvol
from medvol.cli import main
from medvol.cli.experiment import ExperimentCLI
from medvol.cli.remarks import calm

Write = Callable[..., Path]

GRPO = {"model__class_path": "GRPOModule", "model__init_args__rewards": ["ToyReward"]}
SCRATCH = {"model__class_path": "ScratchModule", "model__init_args__policy": "TinyPolicy"}
CHANGES = {"GRPOModule": GRPO, "ScratchModule": SCRATCH}
GROUPS = {
    "EvaluationModule": {"evaluation"},
    "SFTModule": {"answers", "optimizer", "evaluation"},
    "ScratchModule": {"answers", "perception", "curriculum", "occupancy", "gaze", "optimizer", "evaluation"},
    "GRPOModule": {"rollouts", "advantages", "loss", "optimizer", "start", "evaluation"},
}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Settings of the module as ``--print_config`` shows them."""
    capsys.readouterr()
    assert main(["fit", *map(str, arguments), "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]


def built(*arguments: str | Path) -> Any:
    """The module that the settings build."""
    with calm(), ExitStack() as screen:
        return ExperimentCLI(None, [str(argument) for argument in arguments], screen).model


def test_modules_have_their_own_defaults(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    sft = printed(capsys, "--config", experiment(model__init_args__optimizer=None))
    grpo = printed(capsys, "--config", experiment(model__init_args__optimizer=None, **GRPO))
    assert sft["optimizer"] == asdict(medvol.OptimizerSettings()) == {
        "learning_rate": 2e-5, "weight_decay": 0.01, "warmup_steps": 40, "final_share": 0.02, "moments": "device",
    }  # fmt: skip
    assert grpo["optimizer"] == asdict(medvol.GRPOOptimizerSettings())
    assert {key: grpo["optimizer"][key] for key in sft["optimizer"]} == {
        "learning_rate": 1e-6, "weight_decay": 0.0, "warmup_steps": 0, "final_share": 0.1, "moments": "device",
    }  # fmt: skip
    assert grpo["loss"]["beta"] == 0.01


@pytest.mark.parametrize("key", ["--model.loss.beta", "--model.init_args.loss.beta"])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("written", [{}, {"model__init_args__loss": {"kind": "bnpo", "epsilon_high": 0.3}}])
def test_one_setting_of_the_loss(written: dict, joined: bool, key: str, experiment: Write) -> None:
    option = [f"{key}=0.04"] if joined else [key, "0.04"]
    module = built("--config", experiment(**GRPO, **written), *option)
    expected = {"kind": "bnpo", "epsilon_high": 0.3} if written else {}
    assert module.loss == medvol.LossSettings(beta=0.04, **expected)
    assert module.optimizer == medvol.GRPOOptimizerSettings(learning_rate=0.1)


@pytest.mark.parametrize("module", [{}, SCRATCH, GRPO], ids=["SFT", "Scratch", "GRPO"])
@pytest.mark.parametrize("written", [None, {"learning_rate": 0.5}, {"weight_decay": 0.25}])
def test_one_setting_of_the_optimizer(module: dict, written: dict | None, experiment: Write) -> None:
    config = experiment(**{**module, "model__init_args__optimizer": written})
    found = built("--config", config, "--model.optimizer.warmup_steps", "7").optimizer
    kind = medvol.GRPOOptimizerSettings if module is GRPO else medvol.OptimizerSettings
    assert found == kind(warmup_steps=7, **(written or {}))
    assert type(found) is kind


def test_several_groups_on_the_command_line(experiment: Write) -> None:
    module = built(
        "--config",
        experiment(**SCRATCH),
        "--model.evaluation.tolerance_mm=3",
        "--model.curriculum.steps=5",
        "--model.curriculum.rows=2",
        "--model.gaze.weight=0.3",
    )
    assert module.evaluation == medvol.EvaluationSettings(tolerance_mm=3.0)
    assert module.curriculum == medvol.CurriculumSettings(5, rows=2)
    assert module.gaze == medvol.GazeSettings(0.3)
    assert module.perception == medvol.PerceptionSettings()
    assert module.optimizer == medvol.OptimizerSettings(learning_rate=0.1)


def test_a_second_file_changes_only_what_it_names(experiment: Write, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("model: {init_args: {optimizer: {final_share: 0.5}, evaluation: {surface: voxels}}}\n")
    module = built("--config", experiment(), "--config", more)
    assert module.optimizer == medvol.OptimizerSettings(learning_rate=0.1, final_share=0.5)
    assert module.evaluation == medvol.EvaluationSettings(surface="voxels")


@pytest.mark.parametrize("name", GROUPS)
def test_every_setting_of_every_group_is_shown(
    name: str, experiment: Write, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    kind = {"model__class_path": name, "model__init_args__optimizer": None}
    shown = printed(capsys, "--config", experiment(**{**CHANGES.get(name, {}), **kind}))
    groups = {key: value for key, value in shown.items() if isinstance(value, dict) and "class_path" not in value}
    assert set(groups) == GROUPS[name]
    assert main(["describe", name, "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)["components"]
    for setting in described["settings"]:
        if setting["name"] in groups:
            inner = {one["name"]: one["default"] for one in setting["settings"]}
            assert inner == groups[setting["name"]] == setting["default"]
            assert all(one["meaning"] for one in setting["settings"]), setting["name"]


def test_help_says_what_a_nested_setting_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "GRPOModule"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "beta: float = 0.01 Weight of the divergence from the policy that training started from" in text
    assert "learning_rate: float = 1.0e-06 Peak of the schedule." in text
    assert "max_grad_norm: float = 1.0 Gradients are scaled down to this norm." in text
