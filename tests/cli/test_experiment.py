"""``medvol fit|validate|test|predict`` with toy components: names, files, folders, signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from medvol.cli import main
from medvol.core.errors import MedvolError

Write = Callable[..., Path]


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments), "--print_config"]) == 0
    return capsys.readouterr().out


def policy_of(text: str) -> dict:
    return yaml.safe_load(text)["model"]["init_args"]["policy"]


def test_fit_writes_one_run_folder(experiment: Write, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(experiment())]) == 0
    run = tmp_path / "run"
    assert {"fit.yaml", "checkpoints", "metrics"} <= {path.name for path in run.iterdir()}
    assert list(run.glob("events.out.tfevents*")), "TensorBoard curves"
    assert (run / "metrics" / "version_0" / "metrics.csv").read_text().startswith("epoch,")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3


@pytest.mark.parametrize("when", [{}, {"trainer__val_check_interval": 3}])
def test_the_best_checkpoint_becomes_a_model_folder(
    when: dict, experiment: Write, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two validations score the same, so the first is the best and the second the last."""
    config = str(experiment(trainer__max_steps=6, **when))
    by_steps = ["--trainer.check_val_every_n_epoch", "null"] if when else []
    assert main(["fit", "--config", config, *by_steps]) == 0
    run = tmp_path / "run"
    best, last = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (3, 6)
    capsys.readouterr()
    convert = ("convert", run / "checkpoints" / "best.ckpt", run / "best_model")
    assert main([*map(str, convert)]) == 0
    assert capsys.readouterr().out == f"model {run / 'best_model'}\n"
    weights = [float((run / name / "weight.txt").read_text()) for name in ("best_model", "model")]
    assert weights == [content["state_dict"]["network.weight"].item() for content in (best, last)]
    assert weights[0] != weights[1]
    assert "is there already" in refused(*convert)


def test_a_model_folder_takes_the_place_of_a_policys_name(
    experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    assert (
        main(
            [
                "fit",
                "--config",
                str(experiment(model__init_args__policy={"class_path": "ToyPolicy", "init_args": {"scale": 3.0}})),
            ]
        )
        == 0
    )
    folder = tmp_path / "run" / "model"
    config = experiment(
        "next.yaml", model__init_args__policy=str(folder), trainer__default_root_dir=str(tmp_path / "next")
    )
    found = policy_of(printed_config(capsys, "fit", "--config", config))
    assert found["class_path"].rpartition(".")[2] == "ToyPolicy"
    assert (found["init_args"]["model"], found["init_args"]["scale"]) == (str(folder), 3.0)
    assert main(["fit", "--config", str(config)]) == 0
    (folder / "weight.txt").write_text("0.0")
    assert "weight.txt' is not as medvol wrote it" in refused("test", "--config", config)


def test_fit_then_test_then_report(experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(experiment())
    assert main(["fit", "--config", config]) == 0
    assert main(["validate", "--config", config]) == 0
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["test", "--config", config, "--ckpt_path", last]) == 0
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    # The answer's box is the cube's own, and depth 1 fills slices 1 to 3: the mask is perfect.
    assert evaluation["all"]["cases"] == 2
    assert (tmp_path / "run" / "metrics" / "version_0" / "metrics.csv").is_file(), "a test keeps the fit's table"
    # Scores of one moment are no curve: as its first point they would take the place of the fit's own.
    assert len([*tmp_path.glob("run/metrics/*"), *tmp_path.glob("run/events.out.tfevents*")]) == 2
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "DSC" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run"), "--markdown"]) == 0
    assert "| DSC |" in capsys.readouterr().out


def test_scores_of_a_perfect_answer(experiment: Write, tmp_path: Path) -> None:
    assert main(["test", "--config", str(experiment())]) == 0
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["all"]["metrics"]["dsc"]["mean"] == pytest.approx(1.0)
    assert evaluation["all"]["metrics"]["format_rate"]["mean"] == 1.0


def test_predict(experiment: Write, tmp_path: Path) -> None:
    config = experiment(
        data__init_args__predict="ToyDataset", model__init_args__evaluation__save_dir=str(tmp_path / "answers")
    )
    assert main(["predict", "--config", str(config)]) == 0
    summary = json.loads((tmp_path / "answers" / "summary.json").read_text())
    assert summary["counts"] == {"done": 3, "skipped": 0, "failed": 0, "not run": 0}


def test_run_folder_is_named_after_the_configuration(
    experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = experiment("cubes.yaml", trainer__default_root_dir=None)
    assert main(["test", "--config", str(config)]) == 0
    assert (tmp_path / "runs" / "cubes" / "evaluation.json").is_file()


@pytest.mark.parametrize(
    "policy",
    [
        "ToyPolicy",
        {"class_path": "ToyPolicy", "init_args": {"scale": 2.0}},
        {"class_path": "medvol_toy.ToyPolicy"},
        {"class_path": "medvol.policies.ToyPolicy"},
        "medvol_toy.ToyPolicy",
        "medvol.policies.ToyPolicy",
    ],
    ids=str,
)
def test_forms_of_a_component_in_a_file(policy: object, experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(model__init_args__policy=policy)
    found = policy_of(printed_config(capsys, "fit", "--config", config))
    assert found["class_path"].rpartition(".")[2] == "ToyPolicy"
    expected = policy.get("init_args", {}).get("scale", 1.0) if isinstance(policy, dict) else 1.0
    assert found["init_args"]["scale"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.policy", "ToyPolicy"],
        ["--model.policy=ToyPolicy"],
        ["--model.init_args.policy", "ToyPolicy"],
        ["--model.policy", "medvol_toy.ToyPolicy"],
        ["--model.policy.class_path", "ToyPolicy"],
        ["--model.policy", '{"class_path": "ToyPolicy"}'],
    ],
    ids=" ".join,
)
def test_forms_of_a_component_on_the_command_line(
    arguments: list[str], experiment: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment(model__init_args__policy="TinyPolicy")
    found = policy_of(printed_config(capsys, "fit", "--config", config, *arguments))
    assert found["class_path"].rpartition(".")[2] == "ToyPolicy"


@pytest.mark.parametrize(
    "key", ["--model.policy.scale", "--model.policy.init_args.scale", "--model.init_args.policy.init_args.scale"]
)
def test_a_setting_of_a_component_on_the_command_line(
    key: str, experiment: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    found = policy_of(printed_config(capsys, "fit", "--config", experiment(), key, "3.5"))
    assert found["init_args"]["scale"] == 3.5


@pytest.mark.parametrize("spelling", [["-c", "{}"], ["--config", "{}"], ["--config={}"]], ids=" ".join)
def test_spellings_of_config(spelling: list[str], experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(experiment())
    text = printed_config(capsys, "fit", *[part.format(config) for part in spelling])
    assert policy_of(text)["class_path"].endswith("ToyPolicy")


def test_nested_files_count_from_their_own_folder(
    experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "policy.yaml").write_text("class_path: ToyPolicy\ninit_args: {scale: 4.0}\n")
    (tmp_path / "data.yaml").write_text("class_path: CaseDataModule\ninit_args: {train: ToyDataset}\n")
    config = experiment(model__init_args__policy="parts/policy.yaml", data="data.yaml")
    assert policy_of(printed_config(capsys, "fit", "--config", config))["init_args"]["scale"] == 4.0
    (tmp_path / "parts" / "policy.yaml").write_text("class_path: ToyPolicy\ninit_args: {scal: 4.0}\n")
    assert "'model.init_args.policy.init_args.scal'" in refused("fit", "--config", config)
    (tmp_path / "parts" / "policy.yaml").write_text("a: [")
    text = refused("fit", "--config", config)
    assert text.startswith("model.init_args.policy: Invalid content in sub-config file parts/policy.yaml: ")


def test_a_second_file_changes_only_what_it_names(
    experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("model: {init_args: {policy: {init_args: {scale: 7.0}}}}\ntrainer: {max_steps: 9}\n")
    text = printed_config(capsys, "fit", "--config", experiment(), "--config", more)
    settings = yaml.safe_load(text)
    assert settings["trainer"]["max_steps"] == 9
    assert settings["trainer"]["accelerator"] == "cpu"
    assert settings["model"]["init_args"]["optimizer"]["learning_rate"] == 0.1
    assert policy_of(text)["class_path"].endswith("ToyPolicy")
    assert policy_of(text)["init_args"]["scale"] == 7.0


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_printed_config_is_a_config(
    verb: str, experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed_config(capsys, verb, "--config", experiment(), "--model.policy.scale", "1e-6")
    (tmp_path / "printed.yaml").write_text(first)
    second = printed_config(capsys, verb, "--config", tmp_path / "printed.yaml")
    assert first == second
    assert policy_of(first)["init_args"]["scale"] == 1e-6


def test_saved_config_repeats_the_run(experiment: Write, tmp_path: Path) -> None:
    assert main(["test", "--config", str(experiment())]) == 0
    before = (tmp_path / "run" / "cases.json").read_bytes()
    (tmp_path / "run" / "cases.json").unlink()
    assert main(["test", "--config", str(tmp_path / "run" / "test.yaml")]) == 0
    assert (tmp_path / "run" / "cases.json").read_bytes() == before


def test_a_broken_plug_in_hurts_only_whoever_asks(
    experiment: Write, distribution: Callable[..., None], refused: Callable[..., str]
) -> None:
    distribution("brokendist", {"policies": {"BrokenPolicy": "brokendist:BrokenPolicy"}}, "import no_such_library\n")
    config = experiment()
    assert main(["test", "--config", str(config)]) == 0
    text = refused("test", "--config", config, "--model.policy", "BrokenPolicy")
    assert "brokendist 0.3" in text
    assert "No module named 'no_such_library'" in text


def test_loggers_and_checkpoints_of_the_experiment_are_respected(experiment: Write, tmp_path: Path) -> None:
    config = experiment(
        trainer__logger=False,
        trainer__callbacks=[{"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path / "mine")}}],
    )
    assert main(["fit", "--config", str(config)]) == 0
    assert not (tmp_path / "run" / "metrics").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert list((tmp_path / "mine").glob("*.ckpt"))


def test_debug_shows_the_error_itself(experiment: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["test", "--config", str(experiment()), "--model.policy", "NoPolicy"]
    with pytest.raises(MedvolError, match="NoPolicy"):
        main([*arguments, "--debug"])
    monkeypatch.setenv("MEDVOL_DEBUG", "1")
    with pytest.raises(MedvolError, match="NoPolicy"):
        main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_a_checkpoint(
    number: signal.Signals, code: int, experiment: Write, tmp_path: Path, toy: Path
) -> None:
    config = experiment(
        trainer__max_steps=100,
        data__init_args__train={"class_path": "ToyDataset", "init_args": {"count": 8}},
        data__init_args__val__init_args__first_patient=20,
        data__init_args__test__init_args__first_patient=30,
        trainer__callbacks=[{"class_path": "medvol_toy.KillAfter", "init_args": {"number": int(number)}}],
    )
    done = subprocess.run(
        [sys.executable, "-m", "medvol", "fit", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(toy)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # A suite that runs in the background was started with SIGINT ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=True)["global_step"]
    assert step == 3, "the step it was interrupted at, long before the first validation"
    resumed = experiment(
        data__init_args__train={"class_path": "ToyDataset", "init_args": {"count": 8}}, trainer__max_steps=8
    )
    assert main(["fit", "--config", str(resumed), "--ckpt_path", str(last)]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 8
