"""What medvol did not write stays, whatever it is called and wherever an empty name leads."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from medvol.cli import main
from medvol.core.errors import ConfigError
from medvol.evaluation.settings import EvaluationSettings
from medvol.training.former_run import FormerRun
from medvol.training.run_folder import RunFolder

Write = Callable[..., Path]
Refused = Callable[..., str]

EVALUATES = {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: dict[str, str]) -> dict[str, bytes]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return content(folder)


MINE = {
    "masks/mine.nii.gz": "ground truth",
    "cases.json": '[{"case_id": "mine"}]',
    "evaluation.json": '{"schema": "mine"}',
    "predictions/of_another_program.nii.gz": "masks",
    "predictions/summary.json": '{"mine": 1}',
    "model/notes.txt": "no model",
    "fit.yaml": "# medvol fit --config fit.yaml\nseed_everything: 5\n",
    "test.yaml": "# a comment\nseed_everything: 5\n",
    "metrics/mine.csv": "1",
    "hparams.yaml": "mine: 1\n",
}
WRITTEN = {
    "masks/case.nii.gz": "mask",
    "cases.json": "[]",
    "evaluation.json": '{\n "schema": "medvol-evaluation/1"',
    "predictions/case.nii.gz": "mask",
    "predictions/summary.json": '{\n "schema": "medvol-summary/1"',
    "model/config.json": "{}",
    "fit.yaml": "# medvol 0.1.0\nseed_everything: 5\n",
    "metrics/version_0/metrics.csv": "1",
}


def test_only_what_medvol_wrote_belongs_to_a_run(tmp_path: Path) -> None:
    write(tmp_path, MINE)
    folder = RunFolder(tmp_path)
    assert folder.find() == []
    folder.require_free()
    write(tmp_path, {**WRITTEN, "predictions/readings/case.json": "a person's", "model/notes.txt": "beside it"})
    found = {str(path.relative_to(tmp_path)) for path in folder.find()}
    predictions = {f"predictions/{name}" for name in ("case.nii.gz", "of_another_program.nii.gz", "summary.json")}
    assert found == {
        *("cases.json", "evaluation.json", "fit.yaml", "masks", "metrics/version_0", "model"),
        *predictions,
    }
    with pytest.raises(ConfigError, match="holds a run already"):
        folder.require_free()


def test_a_fit_deletes_no_masks_of_the_users(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    run, config = tmp_path / "run", experiment(trainer__max_steps=1)
    own = {name: text for name, text in MINE.items() if not name.startswith(("model", "fit.yaml"))}
    before = write(run, own)
    (run / "model").mkdir()
    assert "is no model folder" in refused("fit", "--config", config, "--overwrite")
    (run / "model").rmdir()
    (run / "fit.yaml").write_text(MINE["fit.yaml"])
    for option in ((), ("--overwrite",)):
        assert f"{run / 'fit.yaml'} is there already and was not written by medvol" in refused(
            "fit", "--config", run / "fit.yaml", "--config", config, *option
        )
    (run / "fit.yaml").unlink()
    assert content(run) == before
    assert main(["fit", "--config", str(config), "--overwrite"]) == 0
    assert content(run).items() >= before.items()
    assert (run / "fit.yaml").read_text().startswith("# medvol ")
    assert main(["fit", "--config", str(run / "fit.yaml"), "--overwrite"]) == 0, "its own may be given and replaced"
    assert content(run).items() >= before.items()


def test_a_test_replaces_no_masks_and_no_configuration_of_the_users(
    experiment: Write, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = experiment(**EVALUATES)
    for name in ("", "\0"):
        said = refused("test", "--config", config, "--trainer.default_root_dir", name)
        assert said == f"trainer.default_root_dir is {name!r}; name a file or a folder"
    settings = yaml.safe_load(config.read_text()) | {"seed_everything": 3}
    settings["trainer"]["default_root_dir"] = "mine"
    before = write(tmp_path / "mine", {"test.yaml": f"# by hand\n{yaml.safe_dump(settings)}", "masks/a.nii.gz": "true"})
    said = refused("test", "--config", "mine/test.yaml")
    assert said == (
        "mine/test.yaml is there already and was not written by medvol; move it away, or choose another run folder "
        "(--trainer.default_root_dir FOLDER)"
    )
    assert content(tmp_path / "mine") == before
    (tmp_path / "mine" / "test.yaml").rename(tmp_path / "hand.yaml")
    assert "mine/masks is there already and belongs to no evaluation" in refused("test", "--config", "hand.yaml")
    assert list(content(tmp_path / "mine")) == ["masks/a.nii.gz"]
    (tmp_path / "mine" / "masks").rename(tmp_path / "masks")
    for given in ("hand.yaml", "mine/test.yaml"):
        assert main(["test", "--config", given]) == 0
        assert json.loads((tmp_path / "mine" / "evaluation.json").read_text())["seed"] == 3


def test_masks_of_a_run_that_are_read_as_data_are_not_deleted(
    experiment: Write, tmp_path: Path, refused: Refused
) -> None:
    run = tmp_path / "run"
    before = write(run, {**WRITTEN, "table.csv": "image,target,mask\n"})
    table = {"class_path": "NiftiDataset", "init_args": {"root": str(run), "table": str(run / "table.csv")}}
    config = experiment(data__init_args__train=table)
    said = refused("fit", "--config", config, "--overwrite")
    assert said.startswith(f"--overwrite would delete masks in {str(run)!r}, which data.init_args.train.")
    assert content(run) == before


def test_a_run_whose_folders_are_links_to_another_disk(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is no second disk")
    import tempfile

    with tempfile.TemporaryDirectory(dir=other) as disk:
        run = tmp_path / "run"
        run.mkdir()
        for name in ("checkpoints", "metrics", "rollouts"):
            (Path(disk) / name).mkdir()
            (run / name).symlink_to(Path(disk) / name)
        files = {"checkpoints/last.ckpt": "1", "rollouts/step-1.png": "2", "metrics/version_0/metrics.csv": "3"}
        before = {**write(run, {**WRITTEN, **files}), **{name: text.encode() for name, text in files.items()}}

        def now() -> dict[str, bytes]:
            return {name: (run / name).read_bytes() for name in before if (run / name).exists()}

        former = FormerRun(run, RunFolder(run).find())
        former.set_aside()
        assert now() == {}
        RunFolder(run).recover()
        assert now() == before
        former.set_aside()
        former.drop()
        RunFolder(run).recover()
        assert now() == {}
        assert not [path for path in (*run.rglob("*"), *Path(disk).rglob("*")) if path.name.startswith(".former")]


EMPTY = {
    "check": (["check", ""], "PATH"),
    "check --fix": (["check", "here.txt", "--fix", ""], "--fix"),
    "convert": (["convert", "", "model"], "CHECKPOINT"),
    "convert to": (["convert", "last.ckpt", ""], "FOLDER"),
    "demo": (["demo", ""], "FOLDER"),
    "evaluate": (["evaluate", "--predictions", "masks", "--data", ""], "--data"),
    "new": (["new", "plugin", "medvol-acme", "--folder", ""], "--folder"),
    "plan": (["plan", ""], "EXPERIMENT"),
    "push": (["push", "", "owner/name"], "FOLDER"),
    "report": (["report", "run", ""], "RUNS"),
    "report --html": (["report", "run", "--html", ""], "--html"),
    "rescore": (["rescore", ""], "RUN"),
    "segment": (["segment", "", "the spleen"], "SCAN"),
    "segment --jobs": (["segment", "--jobs", ""], "--jobs"),
    "view": (["view", ""], "TARGET"),
    "view --export": (["view", "run", "--export", ""], "--export"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_path_is_not_the_working_folder(
    case: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").touch()
    arguments, name = EMPTY[case]
    assert refused(*arguments) == f"{name} is ''; name a file or a folder"
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


def test_an_empty_folder_of_predictions() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.save_dir is ''; name a file or a folder"):
        EvaluationSettings(save_dir="")
