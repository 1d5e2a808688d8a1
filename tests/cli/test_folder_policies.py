"""A model folder in place of a policy's name, in YAML and on the command line alike."""

from pathlib import Path

import pytest
import yaml

from medvol.cli import main
from medvol.cli.folder_policies import expand_folders


@pytest.fixture
def folder(toy: Path, tmp_path: Path) -> Path:
    """Folder of a toy with a weight of 3."""
    import medvol_toy

    medvol_toy.ToyPolicy(scale=3.0).save(tmp_path / "model")
    return tmp_path / "model"


def print_policy(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """The policy that an experiment would be run with."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["policy"]


@pytest.mark.parametrize("option", ["--model.policy", "--model.init_args.policy", "--model.policy="])
@pytest.mark.parametrize(
    "former", ["TinyPolicy", {"class_path": "ToyPolicy", "init_args": {"answer": "no", "scale": 2.0}}], ids=str
)
def test_a_folder_replaces_the_policy_of_a_file_and_its_settings(option, former, folder, experiment, capsys) -> None:
    config = experiment(model__init_args__policy=former)
    in_a_file = print_policy(capsys, "fit", "--config", experiment("f.yaml", model__init_args__policy=str(folder)))
    words = [f"{option}{folder}"] if option.endswith("=") else [option, folder]
    assert print_policy(capsys, "fit", "--config", config, *words) == in_a_file
    assert (in_a_file["init_args"]["model"], in_a_file["init_args"]["scale"]) == (str(folder), 3.0)
    assert in_a_file["init_args"]["answer"].startswith("<think>a cube")


def test_settings_behind_a_folder_change_it(folder, experiment, capsys) -> None:
    policy = print_policy(
        capsys, "fit", "--config", experiment(), "--model.policy", folder, "--model.policy.scale", "7"
    )
    assert (policy["init_args"]["model"], policy["init_args"]["scale"]) == (str(folder), 7.0)


def test_a_run_takes_it(folder, experiment, tmp_path) -> None:
    assert main(["test", "--config", str(experiment()), "--model.policy", str(folder)]) == 0
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_a_folder_in_a_file_counts_from_the_working_folder(folder, experiment, tmp_path, monkeypatch, capsys) -> None:
    config = experiment(model__init_args__policy="model", trainer__max_steps=1)
    (tmp_path / "configs").mkdir()
    config = config.rename(tmp_path / "configs" / "exp.yaml")
    monkeypatch.chdir(tmp_path)
    policy = print_policy(capsys, "fit", "--config", "configs/exp.yaml")
    assert policy["init_args"]["model"] == "model"
    main(["check", "configs/exp.yaml"])
    assert "refused_setting" not in capsys.readouterr().out
    assert main(["fit", "--config", "configs/exp.yaml"]) == 0
    (tmp_path / "model").rename(tmp_path / "configs" / "model")
    assert main(["fit", "--config", "configs/exp.yaml", "--overwrite"]) == 2
    assert (tmp_path / "run" / "model").is_dir()


def test_a_folder_that_is_none_is_refused(experiment, tmp_path, refused) -> None:
    (tmp_path / "empty").mkdir()
    place = str(tmp_path / "gone")
    assert f"there is no model folder {place!r}" in refused("fit", "--config", experiment(), "--model.policy", place)
    in_a_file = experiment("f.yaml", model__init_args__policy=place)
    assert f"there is no model folder {place!r}" in refused("fit", "--config", in_a_file)
    message = refused("fit", "--config", experiment(), "--model.policy", tmp_path / "empty")
    assert "neither medvol.json nor config.json" in message
    message = refused("fit", "--config", experiment(), "--model.policy=runs/last.ckpt")
    assert "`medvol convert runs/last.ckpt FOLDER` makes one" in message
    message = refused("fit", "--config", experiment(), "--model.policy=my runs/last.ckpt")
    assert "`medvol convert 'my runs/last.ckpt' FOLDER` makes one" in message


def test_what_is_no_folder_stays(tmp_path) -> None:
    part = tmp_path / "part.yaml"
    part.write_text("class_path: TinyPolicy")
    words = ["--model.policy", str(part), "--policy", '{"model": "a/b"}', "--policy=" + "x" * 5000, "--other", "a/b"]
    assert expand_folders(words) == [*words[:4], "--policy", "x" * 5000, *words[5:]]
