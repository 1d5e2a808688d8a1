"""A run folder belongs to one experiment, and words for its checkpoints mean its files."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.training.former_run import FormerRun
from medvol.training.run_folder import RunFolder
from medvol.training.sft import SFTModule

Write = Callable[..., Path]
Refused = Callable[..., str]


def fit(config: Path, *options: str) -> int:
    return main(["fit", "--config", str(config), *options])


def step_of(run: Path, name: str = "last") -> int:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_fit_is_refused_with_three_ways_out(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    config, run = experiment(), tmp_path / "run"
    assert fit(config) == 0
    before = content(run)
    text = refused("fit", "--config", config)
    for way in ("--ckpt_path last", "--trainer.default_root_dir", "--overwrite", str(run), "checkpoints/last.ckpt"):
        assert way in text
    other = experiment("other.yaml", model__init_args__optimizer__learning_rate=0.2)
    assert "--overwrite" in refused("fit", "--config", other)
    assert content(run) == before, "a refusal touches nothing"
    elsewhere = tmp_path / "elsewhere"
    assert fit(config, "--trainer.default_root_dir", str(elsewhere)) == 0
    assert step_of(elsewhere) == 3


def test_overwrite_deletes_the_former_run_and_nothing_else(experiment: Write, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    assert main(["test", "--config", str(experiment())]) == 0
    (run / "rollouts").mkdir()
    (run / "rollouts" / "step-000000.png").write_bytes(b"picture")
    (run / "checkpoints" / "epoch=0.ckpt").write_bytes(b"of a ModelCheckpoint")
    kept = {"notes.txt": b"mine", "answers/a.nii.gz": b"mask", "rollouts/mine.txt": b"x", "best_model/w.txt": b"y"}
    for name, data in kept.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(data)
    unvalidated = experiment("other.yaml", trainer__limit_val_batches=0, trainer__max_steps=2)
    assert fit(unvalidated, "--overwrite") == 0
    after = content(run)
    assert {name: after[name] for name in kept} == kept
    assert step_of(run) == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt"]
    for gone in ("evaluation.json", "cases.json", "test.yaml", "rollouts/step-000000.png"):
        assert gone not in after
    assert "overwrite" not in yaml.safe_load((run / "fit.yaml").read_text()), "the saved configuration deletes nothing"


def test_overwrite_that_cannot_start_deletes_nothing(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    before = content(run)
    broken = experiment("broken.yaml", model__init_args__policy={"class_path": "ToyPolicy", "init_args": {"scal": 1}})
    refused("fit", "--config", broken, "--overwrite")
    leaking = experiment("leaking.yaml", data__init_args__val="ToyDataset")
    assert "share 3 patient" in refused("fit", "--config", leaking, "--overwrite")
    after = content(run)
    assert {name: after.get(name) for name in before} == before
    start = {"class_path": "ToyPolicy", "init_args": {"model": str(run / "model")}}
    onward = experiment("onward.yaml", model__init_args__policy=start)
    text = refused("fit", "--config", onward, "--overwrite")
    assert "model.init_args.policy.init_args.model" in text
    assert "drop one" in refused("fit", "--config", experiment(), "--overwrite", "--ckpt_path", "last")
    assert (run / "model" / "weight.txt").is_file()


def fail(error: Exception) -> Callable[..., None]:
    def step(*args: object) -> None:
        raise error

    return step


@pytest.mark.parametrize("error", [ConfigError("too bad"), RuntimeError("a fault"), KeyboardInterrupt()])
def test_overwrite_gives_the_former_run_back_when_no_step_is_taken(
    error: Exception, experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", experiment("other.yaml", trainer__max_steps=2)
    assert fit(experiment()) == 0
    before = content(run)
    with monkeypatch.context() as patch:
        patch.setattr(SFTModule, "training_step", fail(error))
        with contextlib.suppress(RuntimeError):
            assert fit(other, "--overwrite") in (2, 130)
    after = content(run)
    assert {name: after[name] for name in before} == before
    if isinstance(error, ConfigError):
        assert after == before
    assert fit(other, "--overwrite") == 0
    assert step_of(run) == 2
    assert not list(run.rglob(".former*"))


@pytest.mark.parametrize("dropping", [False, True])
def test_a_replacement_that_was_killed(
    dropping: bool, experiment: Write, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    before = content(run)
    former = FormerRun(run, RunFolder(run).find())
    former.set_aside()
    assert not list(run.glob("checkpoints/*.ckpt"))
    if dropping:  # killed after the first step, while the former run was deleted
        monkeypatch.setattr(shutil, "rmtree", fail(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            former.drop()
        monkeypatch.undo()
        assert fit(experiment(trainer__max_steps=2)) == 0
        assert step_of(run) == 2
    else:
        assert "holds a run already" in refused("fit", "--config", experiment())
        assert content(run) == before
    assert not list(run.rglob(".former*"))


def test_a_checkpoint_whose_optimiser_does_not_fit(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    last = run / "checkpoints" / "last.ckpt"
    before, checkpoint = content(run), torch.load(last, weights_only=True)
    bare, other = tmp_path / "bare.ckpt", tmp_path / "other.ckpt"
    state = checkpoint["optimizer_states"][0]
    torch.save({key: value for key, value in checkpoint.items() if key != "optimizer_states"}, bare)
    state["param_groups"][0]["params"].append(7)
    torch.save({**checkpoint, "optimizer_states": [state]}, other)
    more = experiment(trainer__max_steps=5, model__init_args__optimizer__learning_rate=0.2)
    options = ("fit", "--config", more, "--trainer.default_root_dir", str(run), "--ckpt_path")
    for path in (bare, other):
        path.replace(last.with_name(path.name))
    assert "holds weights and no state of an optimiser" in refused(*options, str(last.with_name("bare.ckpt")))
    assert "does not fit the module" in refused(*options, str(last.with_name("other.ckpt")))
    after = content(run)
    assert {name: after[name] for name in before} == before, "fit.yaml is that of what was trained"


def test_last_goes_on_and_says_what_changed(
    experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    assert main(["test", "--config", str(experiment())]) == 0
    capsys.readouterr()
    assert fit(experiment(trainer__max_steps=5), "--ckpt_path", "last") == 0
    assert f"checkpoint {run / 'checkpoints' / 'last.ckpt'}, step 3" in capsys.readouterr().out
    assert step_of(run) == 5
    assert "is not that of" not in caplog.text, "more steps are the same experiment"
    assert "evaluation.json is of the weights before" in caplog.text
    changed = experiment(
        trainer__max_steps=6, model__init_args__optimizer__learning_rate=0.2, trainer__num_sanity_val_steps=0
    )
    assert fit(changed, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")) == 0
    assert "model.init_args.optimizer.learning_rate: 0.1 before, 0.2 now" in caplog.text
    assert yaml.safe_load((run / "fit.yaml").read_text())["model"]["init_args"]["optimizer"]["learning_rate"] == 0.2


def test_last_in_the_configuration_itself(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    config = experiment(ckpt_path="last")
    assert f"there is no checkpoint {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in refused(
        "fit", "--config", config
    )
    assert not (tmp_path / "run").exists()
    assert fit(experiment("start.yaml")) == 0
    assert fit(experiment(ckpt_path="last", trainer__max_steps=5)) == 0
    assert step_of(tmp_path / "run") == 5


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("word", ["last", "best", "hpc", "registry", "registry:a:version:1"])
def test_a_word_without_a_file_is_refused(verb: str, word: str, experiment: Write, refused: Refused) -> None:
    text = refused(verb, "--config", experiment(data__init_args__predict="ToyDataset"), "--ckpt_path", word)
    assert f"--ckpt_path {word}" in text


@pytest.mark.parametrize("word", ["last", "best"])
def test_words_name_files_of_the_run(word: str, experiment: Write, tmp_path: Path, refused: Refused, capsys) -> None:
    run = tmp_path / "run"
    config = experiment(trainer__max_steps=6, data__init_args__predict="ToyDataset")
    assert fit(config) == 0
    for verb in ("validate", "test", "predict"):
        capsys.readouterr()
        assert main([verb, "--config", str(config), "--ckpt_path", word]) == 0
        step = {"best": 3, "last": 6}[word]
        assert f"checkpoint {run / 'checkpoints' / f'{word}.ckpt'}, step {step}" in capsys.readouterr().out
    (run / "checkpoints" / f"{word}.ckpt").unlink()
    other = {"best": "last", "last": "best"}[word]
    assert f"there is {run / 'checkpoints' / f'{other}.ckpt'}" in refused(
        "test", "--config", config, "--ckpt_path", word
    )
    (run / "checkpoints" / f"{word}.ckpt").write_bytes(b"garbage")
    assert "not a file of plain values" in refused("test", "--config", config, "--ckpt_path", word)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_verb_that_is_refused_leaves_the_configuration_of_the_former_one(
    verb: str, experiment: Write, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}
    config = experiment(**evaluation, data__init_args__predict="ToyDataset")
    assert main([verb, "--config", str(config)]) == 0
    before = content(tmp_path / "run")
    assert f"{verb}.yaml" in before

    def refuse(*components: object) -> None:
        raise CheckpointError("there are no weights; fetch them")

    monkeypatch.setattr("medvol.evaluation.module.require_ready", refuse)
    assert "no weights" in refused(verb, "--config", config, "--model.evaluation.tolerance_mm", "7")
    assert content(tmp_path / "run").items() >= before.items(), "a logger may have begun a file"
    monkeypatch.undo()
    assert main([verb, "--config", str(config), "--model.evaluation.tolerance_mm", "7"]) == 0
    saved = yaml.safe_load((tmp_path / "run" / f"{verb}.yaml").read_text())
    assert saved["model"]["init_args"]["evaluation"]["tolerance_mm"] == 7


def test_a_test_that_fails_leaves_configuration_and_scores_of_the_former_one(
    experiment: Write, tmp_path: Path, refused: Refused
) -> None:
    config = experiment(model__class_path="EvaluationModule", model__init_args__optimizer=None)
    assert main(["test", "--config", str(config)]) == 0
    before = content(tmp_path / "run")
    settings = {"first_patient": 20, "broken": True}
    lost = experiment("lost.yaml", data__init_args__test={"class_path": "ToyDataset", "init_args": settings})
    assert "the cube is lost" in refused("test", "--config", lost)
    assert content(tmp_path / "run").items() >= before.items(), "a logger may have begun a file"


def test_a_start_that_came_to_nothing_is_in_nobodys_way(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    broken = experiment(
        "broken.yaml", data__init_args__train={"class_path": "ToyDataset", "init_args": {"broken": True}}
    )
    assert "the cube is lost" in refused("fit", "--config", broken)
    assert fit(experiment()) == 0
    assert step_of(tmp_path / "run") == 3


def test_a_trial_run_leaves_the_folder_as_it_was(experiment: Write, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit(experiment()) == 0
    assert main(["test", "--config", str(experiment())]) == 0
    before = content(run)
    trial = "--trainer.fast_dev_run=true"
    assert fit(experiment(model__init_args__optimizer__learning_rate=0.5), trial) == 0
    assert main(["test", "--config", str(experiment()), trial]) == 0
    assert content(run) == before


def test_without_checkpoints_the_model_marks_the_folder(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    config = experiment(trainer__enable_checkpointing=False)
    assert fit(config) == 0
    assert not (tmp_path / "run" / "checkpoints").exists()
    text = refused("fit", "--config", config)
    assert "(model)" in text
    assert "--ckpt_path last" not in text, "there is none to go on from"


def test_two_fits_do_not_share_a_folder(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    pytest.importorskip("fcntl")
    with RunFolder(tmp_path / "run").claim(lambda: True):
        assert "another fit writes in" in refused("fit", "--config", experiment())
    assert fit(experiment()) == 0


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of a file there")
def test_a_full_disk_leaves_the_former_checkpoint(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    """A limit on the size of files stands for the full disk; both raise an OSError without a file name."""
    import resource

    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert fit(experiment()) == 0
    before = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        silent = experiment(trainer__max_steps=5, trainer__logger=False)
        text = refused("fit", "--config", silent, "--ckpt_path", "last")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(last.parent) in text
    assert "File too large" in text
    assert last.read_bytes() == before
    assert [path.name for path in last.parent.glob(".*")] == []


def test_a_moved_run_still_knows_its_best(experiment: Write, tmp_path: Path) -> None:
    assert fit(experiment()) == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = ("--trainer.default_root_dir", str(tmp_path / "moved"))
    assert fit(experiment(trainer__max_steps=6), *moved, "--ckpt_path", "last") == 0
    assert step_of(tmp_path / "moved", "best") == 3, "a second validation of the same score is no better one"
    assert step_of(tmp_path / "moved") == 6


REFUSALS = {
    "at_a_case": {"data__init_args__train": {"class_path": "ToyDataset", "init_args": {"broken": True}}},
    "at_the_trainer": {"trainer__precision": "bf16-true"},
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refused_fit_leaves_nothing(
    fault: str, experiment: Write, tmp_path: Path, refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "made" / "run"
    place = {"trainer__default_root_dir": str(run), "data__init_args__val": None}
    refused("fit", "--config", experiment(**REFUSALS[fault], **place))
    assert not (tmp_path / "made").exists()
    run.mkdir(parents=True)
    (run / "notes.txt").touch()
    refused("fit", "--config", experiment(**REFUSALS[fault], **place))
    assert [path.name for path in run.rglob("*")] == ["notes.txt"]
    assert fit(experiment(**place)) == 0
    assert "is not that of" not in caplog.text


def test_another_experiment_is_told_only_when_its_run_goes_on(
    experiment: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fit.yaml").write_text("# medvol 0.1.0\nseed_everything: 5\n")
    assert fit(experiment()) == 0
    assert "is not that of" not in caplog.text
    assert fit(experiment(seed_everything=7, trainer__max_steps=4), "--ckpt_path", "last") == 0
    assert "is not that of" in caplog.text
    assert "the optimiser goes on" in caplog.text


def test_every_verb_gives_back_what_a_killed_fit_set_aside(experiment: Write, tmp_path: Path, capsys) -> None:
    """``test`` and ``report`` said that the run had never been."""
    config, run = experiment(), tmp_path / "run"
    assert fit(config) == 0
    assert main(["test", "--config", str(config)]) == 0
    folder = RunFolder(run)
    before = content(run)

    def kill() -> None:
        FormerRun(run, folder.find()).set_aside()
        (run / "checkpoints").mkdir(exist_ok=True)
        assert not (run / "evaluation.json").exists()

    for arguments in (
        ["report", str(run)],
        ["convert", str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "converted")],
        ["validate", "--config", str(config), "--ckpt_path", "last"],
    ):
        kill()
        assert main(arguments) == 0, capsys.readouterr().err
        assert before.keys() <= content(run).keys()
