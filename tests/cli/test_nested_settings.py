"""Settings that stand in groups: what is wrong in one is told with its whole key, and where it belongs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from medvol.cli import main

Write = Callable[..., Path]
Refused = Callable[..., str]

SOURCE = '''
"""Components whose settings stand in groups."""
from dataclasses import dataclass, field
from typing import Literal

from medvol_toy import ToyDataset, ToyPolicy

from medvol import Propagator, SFTModule, TrainablePolicy


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    Args:
        beta: Weight of the divergence.
        kind: Which loss.
    """

    beta: float = 0.04
    kind: Literal["grpo", "gspo"] = "grpo"


@dataclass(frozen=True)
class Optimizer:
    """How it is minimised.

    Args:
        rate: Length of a step.
        warmup_steps: Steps until then.
    """

    rate: float = 1e-3
    warmup_steps: int | None = None


@dataclass(frozen=True)
class Decay:
    """How it fades.

    Args:
        half_life: In steps.
        shape: Of the curve.
        levels: Of something.
    """

    half_life: float = 100.0
    shape: Literal["linear", "cosine"] = "linear"
    levels: list[int] = field(default_factory=lambda: [1, 2])


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Args:
        phrasing: In which words.
    """

    phrasing: Literal["seen", "unseen"] = "seen"


class GroupedPolicy(ToyPolicy):
    """Says what a toy says.

    Args:
        growth: Of the weight.
    """

    def __init__(
        self,
        growth: Optimizer = Optimizer(rate=0.5),
        decay: Decay | None = None,
        stages: list[Decay] | None = None,
        questions: bool | Questions = False,
    ) -> None:
        super().__init__()
        self.growth, self.decay, self.stages, self.questions = growth, decay, stages, questions


class GroupedDataset(ToyDataset):
    """Cubes.

    Args:
        questions: About them.
    """

    def __init__(self, questions: Questions = Questions()) -> None:
        super().__init__()
        self.questions = questions


class GroupedModule(SFTModule):
    """Teaches in groups."""

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        loss: Loss = Loss(kind="gspo"),
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__(policy, propagator)
        self.loss, self.optimizer = loss, optimizer
'''

LOSS = "model__init_args__loss"
TRAIN = "data__init_args__train"


@pytest.fixture
def grouped(distribution: Callable[..., None], experiment: Write) -> Write:
    """Write an experiment of components with groups."""
    groups = {
        "policies": {"GroupedPolicy": "medvol_grouped:GroupedPolicy"},
        "datasets": {"GroupedDataset": "medvol_grouped:GroupedDataset"},
    }
    distribution("medvol_grouped", groups, SOURCE)

    def write(**changes: object) -> Path:
        module = {
            "model__class_path": "medvol_grouped.GroupedModule",
            "model__init_args__policy": "GroupedPolicy",
            "model__init_args__optimizer": None,
            TRAIN: "GroupedDataset",
        }
        return experiment(**{**module, **changes})

    return write


WRONG = {
    "unknown key": ({LOSS: {"bta": 1}}, ["'model.init_args.loss.bta'", "Loss has no setting 'bta'", "mean 'beta'?"]),
    "wrong type": ({LOSS: {"beta": "x"}}, ["model.init_args.loss.beta must be a number; got 'x'"]),
    "wrong type, or null": (
        {"model__init_args__optimizer": {"warmup_steps": "x"}},
        ["model.init_args.optimizer.warmup_steps must be a whole number or null; got 'x'"],
    ),
    "wrong choice": ({LOSS: {"kind": "ppo"}}, ["model.init_args.loss.kind must be one of 'grpo', 'gspo'; got 'ppo'"]),
    "no mapping": ({LOSS: 3}, ["model.init_args.loss must hold keys and values; got 3"]),
    "a level too high": (
        {"model__init_args__beta": 1},
        ["'model.init_args.beta'", "GroupedModule has no setting 'beta'", "did you mean 'model.loss.beta'?"],
    ),
    "at the top": ({"beta": 1}, ["unknown key 'beta'", "did you mean 'model.loss.beta'?"]),
    "in another group": (
        {"model__init_args__optimizer": {"kind": "grpo"}},
        ["'model.init_args.optimizer.kind'", "Optimizer has no setting", "did you mean 'model.loss.kind'?"],
    ),
    "in a component": (
        {"model__init_args__policy": {"class_path": "GroupedPolicy", "init_args": {"growth": {"rate": "x"}}}},
        ["model.init_args.policy.init_args.growth.rate must be a number; got 'x'"],
    ),
    "unknown in a component": (
        {"model__init_args__policy": {"class_path": "GroupedPolicy", "init_args": {"growth": {"rte": 1}}}},
        ["'model.init_args.policy.init_args.growth.rte'", "Optimizer has no setting", "did you mean 'rate'?"],
    ),
    "in a group that may be null": (
        {"model__init_args__policy": {"class_path": "GroupedPolicy", "init_args": {"decay": {"half_life": "x"}}}},
        ["model.init_args.policy.init_args.decay.half_life must be a number; got 'x'"],
    ),
    "unknown in a group that may be null": (
        {"model__init_args__policy": {"class_path": "GroupedPolicy", "init_args": {"decay": {"shap": "x"}}}},
        ["'model.init_args.policy.init_args.decay.shap'", "Decay has no setting 'shap'", "did you mean 'shape'?"],
    ),
    "of a data set, a level too high": (
        {TRAIN: {"class_path": "GroupedDataset", "init_args": {"phrasing": "seen"}}},
        ["'data.init_args.train.init_args.phrasing'", "did you mean 'data.train.questions.phrasing'?"],
    ),
    "of a data set, in the data module": (
        {"data__init_args__phrasing": "seen"},
        ["'data.init_args.phrasing'", "did you mean 'data.train.questions.phrasing'?"],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG.values(), ids=WRONG)
def test_in_a_file(changes: dict, expected: list[str], grouped: Write, refused: Refused) -> None:
    text = refused("fit", "--config", grouped(**changes))
    for part in expected:
        assert part in text


ARGUMENTS = {
    "unknown key": (["--model.loss.bta", "1"], ["'model.init_args.loss.bta'", "did you mean 'beta'?"]),
    "wrong type": (["--model.loss.beta", "x"], ["model.init_args.loss.beta must be a number; got 'x'"]),
    "wrong choice": (["--model.loss.kind=ppo"], ["model.init_args.loss.kind must be one of 'grpo', 'gspo'"]),
    "a level too high": (["--model.beta", "1"], ["'model.init_args.beta'", "did you mean 'model.loss.beta'?"]),
    "at the top": (["--beta", "1"], ["'beta'", "did you mean 'model.loss.beta'?"]),
    "in a component": (
        ["--model.policy.growth.rate", "x"],
        ["model.init_args.policy.init_args.growth.rate must be a number; got 'x'"],
    ),
    "of a data set": (["--data.train.phrasing", "seen"], ["did you mean 'data.train.questions.phrasing'?"]),
}


@pytest.mark.parametrize(("arguments", "expected"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_on_the_command_line(arguments: list[str], expected: list[str], grouped: Write, refused: Refused) -> None:
    text = refused("fit", "--config", grouped(), *arguments)
    for part in expected:
        assert part in text


def test_what_could_stand_in_two_places_is_not_guessed(grouped: Write, refused: Refused) -> None:
    text = refused("fit", "--config", grouped(model__init_args__rate=1))  # of the optimiser, and of the policy
    assert "'model.init_args.rate'" in text
    assert "optimizer.rate" not in text


def test_what_is_more_than_a_group_takes_other_values(grouped: Write, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"stages": [{"half_life": 3.0}], "questions": True}
    config = grouped(model__init_args__policy={"class_path": "GroupedPolicy", "init_args": given})
    assert main(["fit", "--config", str(config), "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["policy"]["init_args"]
    assert settings["stages"][0]["half_life"] == 3.0
    assert settings["questions"] is True


def test_one_setting_of_a_group_leaves_the_others(grouped: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = grouped(model__init_args__optimizer={"warmup_steps": 7})
    assert main(["fit", "--config", str(config), "--model.loss.beta", "0.3", "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert settings["loss"] == {"beta": 0.3, "kind": "gspo"}
    assert settings["optimizer"] == {"rate": 1e-3, "warmup_steps": 7}


def test_describe_shows_groups(grouped: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "GroupedPolicy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  growth: Optimizer")
    assert lines[place + 1 : place + 6] == [
        "      Of the weight.",
        "      rate: float = 0.5",
        "          Length of a step.",
        "      warmup_steps: int or null = null",
        "          Steps until then.",
    ]
    assert "  decay: Decay or null = null" in lines
    assert "      levels: list of int = [1, 2]" in lines


def test_describe_shows_groups_as_json(grouped: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "GroupedPolicy", "--json"]) == 0
    ((growth, decay, *others),) = (page["settings"] for page in json.loads(capsys.readouterr().out)["components"])
    assert growth["default"] == {"rate": 0.5, "warmup_steps": None}
    assert [(setting["name"], setting["default"]) for setting in growth["settings"]] == [
        ("rate", 0.5),
        ("warmup_steps", None),
    ]
    assert [setting["settings"] for setting in others] == [[], []]
    assert decay["default"] is None
    assert decay["settings"][1]["type"] == "one of 'linear', 'cosine'"


def test_null_takes_a_text_of_a_component_away(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """jsonargparse writes a null that it has read as ``None`` before an inner parser reads it again."""
    policy = {"class_path": "ToyPolicy", "init_args": {"model": "a/folder", "answer": "a"}}
    file = experiment(model__init_args__policy=policy)
    assert main(["fit", "--config", str(file), "--model.policy.model", "null", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["policy"]["init_args"]
    assert printed["model"] is None
    assert printed["answer"] == "a"
