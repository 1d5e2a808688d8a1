"""What fit, validate, test and predict print: their own words, and nothing that only Lightning's authors need."""

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from medvol.cli import main
from medvol.terminal import displays
from medvol.terminal.displays import Lines
from medvol.terminal.progress import Work, show_progress
from medvol.training.progress import describe_figures

Write = Callable[..., Path]

CHOOSE = displays._choose
"""As the command line has it; these tests replace it."""

NOISE = ("Epoch", "v_num", "FLOPs", "across ranks", "Tip", "lit", "GPU", "TPU", "Seed set", "Trainer", "Test metric")


def test_a_fit_says_what_it_leaves_and_what_comes_next(
    experiment: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = experiment(trainer__enable_progress_bar=None, trainer__enable_model_summary=None)
    assert main(["fit", "--config", str(config)]) == 0
    told = capfd.readouterr()
    run = tmp_path / "run"
    assert told.out.splitlines() == [
        f"model  {run}/model",
        f"last   {run}/checkpoints/last.ckpt",
        f"best   {run}/checkpoints/best.ckpt",
        f"next   medvol test --config {run}/fit.yaml --model.policy {run}/model",
        f'       medvol segment SCAN "QUERY" --policy {run}/model',
    ]
    # A toy has one weight and one bias; its box is the cube's own, so its answer is right.
    assert told.err.splitlines() == [
        f"fit {run}: 3 steps, 2 parameters, all of them trained, on cpu",
        "first step: weights move (all 1 with a gradient that were checked changed)",
        "step 3 of 3: val format rate 1, val DSC 1",
    ]
    command = told.out.splitlines()[3].split()[2:]
    assert main(command) == 0
    told = capfd.readouterr()
    assert told.out.splitlines()[0].startswith("mean [95 % interval by patient]")
    assert told.out.splitlines()[-1].startswith("means and intervals:"), "the report ends the test"
    assert told.err == ""
    assert main(["validate", *command[1:]]) == 0
    told = capfd.readouterr()
    assert "DSC" in told.out
    assert "1.000" in told.out
    assert not [word for word in NOISE if word in told.out + told.err]


def test_a_fit_without_a_display_is_silent_on_stderr(experiment: Write, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(experiment(data__init_args__val=None))]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    assert not [word for word in NOISE if word in told.out]


def test_saved_settings_name_the_version_and_can_be_used(experiment: Write, tmp_path: Path) -> None:
    from importlib.metadata import version

    assert main(["fit", "--config", str(experiment())]) == 0
    saved = tmp_path / "run" / "fit.yaml"
    assert saved.read_text().splitlines()[0] == f"# medvol {version('medvol-r1')}"
    assert yaml.safe_load(saved.read_text())["trainer"]["max_steps"] == 3
    assert main(["check", str(saved)]) == 0
    assert not list((tmp_path / "run").rglob("hparams.yaml"))


def test_a_fit_that_trains_nothing_says_so(experiment: Write, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(experiment(trainer__max_epochs=0))]) == 0
    assert "no step was trained: max_steps, max_epochs or max_time ends at once" in capfd.readouterr().err


def test_a_fit_that_goes_on_from_its_end_says_so(experiment: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """A time limit counts all starts: the same command in the next job would train nothing, without a word."""
    limited = {"trainer__max_steps": -1, "trainer__max_epochs": -1, "trainer__max_time": "00:00:00:01"}
    config = str(experiment(**limited))
    assert main(["fit", "--config", config]) == 0
    assert "no step" not in capfd.readouterr().err
    assert main(["fit", "--config", config, "--ckpt_path", "last"]) == 0
    assert re.search(
        r"no step was trained: the run had come to its end at step \d+ \(.*max_time", capfd.readouterr().err
    )


def test_lines_of_a_fit_tell_steps_loss_and_validation(
    experiment: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With an interval of nothing every change is a line, whatever the clock says."""
    screen = io.StringIO()
    monkeypatch.setattr("medvol.cli.show_progress", lambda display: show_progress(Lines(screen, 0.0, watched=False)))
    config = experiment(trainer__enable_progress_bar=None, trainer__max_steps=6)
    assert main(["fit", "--config", str(config)]) == 0
    lines = screen.getvalue().splitlines()
    assert lines[0].startswith("fit: preparing")
    # The loss is the weight squared, 1 before the first step.
    assert any(line.startswith("fit: 1 of 6 steps, loss 1, ") for line in lines)
    assert any("; validation: 1 of 1 volumes" in line for line in lines)
    assert "step 3 of 6: val format rate 1, val DSC 1" in lines
    assert any("writing the model" in line for line in lines)
    assert "steps, " not in capfd.readouterr().out


def test_figures_in_words() -> None:
    figures = {"train/loss": 2.9512, "train/reward": 0.41234, "val/dsc": 0.61, "val/format_rate": 1.0, "own": 3}
    assert describe_figures(figures) == "loss 2.95, reward 0.412, val DSC 0.61, val format rate 1, own 3"


def test_a_stopped_fit_says_how_it_goes_on(
    experiment: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import signal

    killer = {"class_path": "medvol_toy.KillAfter", "init_args": {"number": int(signal.SIGINT), "step": 2}}
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["fit", "--config", str(experiment(trainer__callbacks=[killer]))]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    run = tmp_path / "run"
    last = f"{run}/checkpoints/last.ckpt"
    stopped = f"stopped at step 2; the checkpoint is {last}; go on with: "
    assert f"medvol: {stopped}medvol fit --config {run}/fit.yaml --ckpt_path {last}" in capfd.readouterr().err


def test_work_of_a_run_is_hidden_with_the_display_of_the_trainer(
    experiment: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component's bar goes with the trainer's."""
    screen = io.StringIO()
    monkeypatch.setattr("medvol.cli.show_progress", lambda display: show_progress(Lines(screen, 0.0, watched=False)))

    def propagate(self: object, volume: object, evidence: object, z_range: object = None) -> object:
        import numpy as np

        with Work("following") as work:
            work.advance()
        return np.zeros((4, 8, 8), bool)

    config = experiment()
    import medvol_toy

    monkeypatch.setattr(medvol_toy.ToyPropagator, "propagate", propagate)
    assert main(["test", "--config", str(config)]) == 0
    assert screen.getvalue() == ""
    assert main(["test", "--config", str(config), "--trainer.enable_progress_bar", "true"]) == 0
    assert "; following: 1" in screen.getvalue()


def segment_one_of_two(scan: Path, out: Path) -> int:
    scan.with_name("bad.nii.gz").write_bytes(b"no scan")
    toy = ["--policy", "ToyPolicy", "--propagator", "ToyPropagator"]
    return main(["segment", str(scan.parent), "the cube", *toy, "--out", str(out)])


def test_a_reader_that_goes_changes_no_exit_code(
    scan: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as broken:
        monkeypatch.setattr("sys.stdout", broken)
        assert main(["list"]) == 0
        assert segment_one_of_two(scan, tmp_path / "out") == 1
    assert (tmp_path / "out" / "summary.json").is_file()


def test_closed_streams_cost_no_answer(scan: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr("medvol.terminal.displays._choose", CHOOSE)
    assert segment_one_of_two(scan, tmp_path / "out") == 1
    for nowhere in (sys.stdout, sys.stderr):
        nowhere.close()
    assert len(list((tmp_path / "out").glob("ct_the-cube_*.nii.gz"))) == 1
