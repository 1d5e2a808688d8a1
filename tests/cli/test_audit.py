"""``medvol describe --audit``: exit code, JSON, experiments, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medvol.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOUR = ("FormatReward", "AxialReward", "SpatialReward", "ConsistencyReward")


def violations(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[tuple[str, str]]:
    """Term and answer of each violated rank; the exit code says whether there are any."""
    code = main(["describe", *arguments, "--audit", "--json"])
    ranks = json.loads(capsys.readouterr().out)["ranks"]
    found = {(rank["term"], rank["answer"]) for rank in ranks if rank["state"] == "violated"}
    assert code == bool(found)
    return found


def test_the_default_rewards_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", *FOUR, "--audit"]) == 0
    assert "0 of 860 ranks are violated" in capsys.readouterr().out


WINDOW = ("AxialReward", "slice of a smaller part")
LABELLED = {("SpatialReward", "slice off the target"), ("SpatialReward", "slice with half the area, boxes kept")}
BOTH_EMPTY = {
    ("ConsistencyReward", "slice off the target"),
    ("ConsistencyReward", "slice off the target, nothing propagated"),
    ("SpatialReward", "slice off the target, nothing propagated"),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper_ctorg", {WINDOW, *LABELLED, *BOTH_EMPTY}),
        ("paper_abdomenct1k", {WINDOW, *LABELLED, *BOTH_EMPTY}),
        ("paper_kits23", {WINDOW, *LABELLED, ("sum", "box of one row")}),
    ],
)
def test_what_the_papers_rewards_pay_for(
    name: str, expected: set[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert violations(capsys, str(EXAMPLES / f"{name}.yaml")) == expected


def test_cases_and_propagator_can_be_given(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = violations(
        capsys, "ToyReward", "AxialReward", "--cases", "ToyDataset", "--cases.count=1", "--propagator", "ToyPropagator"
    )
    assert {term for term, _ in found} <= {"ToyReward", "sum"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ToyPolicy"], "ToyPolicy"),
        (["{config}"], "model.rewards"),
        (["none.yaml"], "does not exist"),
        (["AxialReward", "--propagator", "ToyPropagatr"], "did you mean 'ToyPropagator'"),
        (
            ["AxialReward", "--cases", "ToyDataset", "--num_cases", "0"],
            "num_cases is 0; it must be a whole number, 1 or more",
        ),
        (["AxialReward", "--num_cases", "1"], "--num_cases is about the data set of --cases"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    arguments: list[str], expected: str, refused: Callable[..., str], experiment: Callable[..., Path]
) -> None:
    config = str(experiment())
    assert expected in refused("describe", "--audit", *(word.format(config=config) for word in arguments))


@pytest.mark.parametrize(
    "option",
    [("--num_cases", "2"), ("--max_anchors", "3"), ("--cases", "ToyDataset"), ("--propagator", "ToyPropagator")],
    ids=str,
)
def test_options_of_the_audit_are_refused_without_it(option: tuple[str, str], refused: Callable[..., str], toy) -> None:
    assert f"{option[0]} is about the audit of rewards; add --audit" in refused("describe", "FormatReward", *option)


def test_rewards_may_lie_in_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "rewards.yaml").write_text("[FormatReward, AxialReward]")
    (tmp_path / "parts" / "model.yaml").write_text("{class_path: GRPOModule, init_args: {rewards: rewards.yaml}}")
    (tmp_path / "exp.yaml").write_text("model: parts/model.yaml")
    main(["describe", str(tmp_path / "exp.yaml"), "--audit"])
    assert "AxialReward" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["{class_path: GRPOModule, init_args: }", "GRPOModule", "{init_args: [3]}", "null"])
def test_a_model_without_settings_has_no_rewards(tmp_path: Path, refused: Callable[..., str], model: str) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(f"model: {model}")
    assert "has no model.rewards" in refused("describe", "--audit", path)


def test_a_setting_of_a_reward_is_checked(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("model: {rewards: [{class_path: AxialReward, init_args: {dela: 3}}]}")
    text = refused("describe", "--audit", path)
    assert "'dela'" in text
    assert "'delta'" in text


def test_answers_of_several_anchors_are_audited(capsys: pytest.CaptureFixture[str]) -> None:
    assert violations(capsys, *FOUR, "--max_anchors", "4") == set()
    assert main(["describe", "AxialReward", "--audit", "--max_anchors", "3"]) == 0
    assert "one part on many slices" in capsys.readouterr().out
    assert main(["describe", "AxialReward", "--audit", "--max_anchors", "0"]) == 2
    assert "max_anchors" in capsys.readouterr().err
