"""Several processes through the command line: what they write and learn is what one process writes and learns."""

import csv
import json
from pathlib import Path

import pytest
import torch
from device_runs import FAULTY, TINY, Run, medvol, phantoms, write

from medvol.cli import main
from medvol.training.checkpoint import load_policy

SFT = {
    "class_path": "ScratchModule",
    "init_args": {
        "policy": TINY,
        "propagator": "ExtrudePropagator",
        "optimizer": {"learning_rate": 2e-5, "warmup_steps": 1},
        "answers": {"jitter": 0.1},
        "perception": {"steps": 1, "slices": 4},
        "curriculum": {"steps": 1},
        "occupancy": {"weight": 1.0, "balance": 0.35, "extent_weight": 0.2},
        "gaze": {"weight": 0.1},
        "reword": 0.5,
        "evaluation": {"max_new_tokens": 8},
    },
}

PLAIN = ("policy", "propagator", "optimizer", "answers", "reword", "evaluation")
"""Settings of it that SFT of any policy has."""

GRPO = {
    "class_path": "GRPOModule",
    "init_args": {
        "policy": TINY,
        "propagator": "ExtrudePropagator",
        "rewards": ["FormatReward", "AxialReward"],
        "rollouts": {"group_size": 3},
        "advantages": {"scale": "batch"},
        "loss": {"beta": 0.1, "kind": "dapo"},
        "optimizer": {"learning_rate": 2e-5, "updates_per_rollout": 2, "volumes_per_pass": 1},
        "start": {"min_parse_rate": 0.0},
        "reword": 0.5,
        "evaluation": {"max_new_tokens": 8},
    },
}


@pytest.fixture
def site(tmp_path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "faulty.py").write_text(FAULTY)
    return folder


@pytest.fixture
def evaluation(tmp_path, site, monkeypatch):
    """Run a verb that scores or answers cubes, on so many processes, into a folder of that name."""

    def run(verb: str, devices: int, count: int = 4, broken: int = -1, rank: int = -1) -> tuple[Run, Path]:
        cubes = {"class_path": "faulty.Cubes", "init_args": {"count": count, "broken": broken}}
        policy = {"class_path": "faulty.Stumbling", "init_args": {"rank": rank}}
        settings = {"policy": policy, "propagator": "ExtrudePropagator"}
        path = write(
            tmp_path / "evaluation.yaml",
            {"class_path": "EvaluationModule", "init_args": settings},
            {"val": cubes, "test": cubes, "predict": cubes, "allow_shared_patients": True},
        )
        folder = tmp_path / f"{verb}-{devices}"
        command = [verb, "--config", path, f"--trainer.default_root_dir={folder}"]
        if devices > 1:
            return medvol(*command, devices=devices, site=site), folder
        monkeypatch.syspath_prepend(str(site))
        return Run(main([str(word) for word in command]), []), folder

    return run


def test_three_processes_write_what_one_writes(evaluation):
    """Four cases on three processes: two of them have nothing in the second round."""
    (alone, one), (together, three) = (evaluation("test", devices) for devices in (1, 3))
    assert (alone.code, together.code) == (0, 0), together.lines
    assert (one / "cases.json").read_bytes() == (three / "cases.json").read_bytes()
    assert (one / "evaluation.json").read_bytes() == (three / "evaluation.json").read_bytes()
    assert len(json.loads((three / "cases.json").read_text())) == 4


@pytest.mark.slow
def test_two_processes_answer_every_case_once(evaluation):
    done, folder = evaluation("predict", 2, count=3)
    assert done.code == 0, done.lines
    summary = json.loads((folder / "predictions" / "summary.json").read_text())
    assert [row["query"] for row in summary["cases"]] == ["cube 0", "cube 1", "cube 2"]
    assert summary["counts"]["done"] == len(list((folder / "predictions").glob("*.nii.gz"))) == 3


@pytest.mark.parametrize("broken", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_case_that_one_process_cannot_read_ends_all_with_one_sentence(evaluation, broken):
    done, folder = evaluation("test", 2, broken=broken)
    assert done.code == 2
    assert done.lines == [f"medvol: cube {broken} is lost; find it"]
    assert not (folder / "evaluation.json").exists()


def test_what_every_process_refuses_is_said_once(evaluation):
    done, _ = evaluation("test", 2, count=0)
    assert (done.code, done.lines) == (2, ["medvol: the test data set holds no case; look at data.init_args.test"])


def rows(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("metrics/*/metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def require_alike(one: Path, other: Path) -> None:
    """Logged figures and checkpoints of two runs that should have learned the same.

    AdamW divides a gradient by its size: of a weight whose gradient is rounding, such as a bias that nothing depends
    on, the step is rounding too, of the size of the learning rate; so that is small here, and gradients are compared.
    """
    for own, their in zip(rows(one), rows(other), strict=True):
        assert own.keys() == their.keys()
        for name in own:
            assert (own[name] == "") == (their[name] == "")
            if own[name]:
                assert float(own[name]) == pytest.approx(float(their[name]), rel=1e-5, abs=1e-5), name
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (one, other))
        assert ours["global_step"] == theirs["global_step"]
        assert ours["medvol_training_data"] == theirs["medvol_training_data"]
        for key, value in ours["state_dict"].items():
            torch.testing.assert_close(theirs["state_dict"][key], value, atol=1e-5, rtol=0)
        states, others = (found["optimizer_states"][0]["state"] for found in (ours, theirs))
        assert states.keys() == others.keys()
        for place, state in states.items():
            torch.testing.assert_close(others[place]["exp_avg"], state["exp_avg"], atol=2e-6, rtol=1e-3)


@pytest.fixture
def fit(tmp_path, site):
    """Fit a module for four steps or so, and go on from a checkpoint where one is given."""

    def run(module: dict, name: str, devices: int, start: Path | None = None, code: int = 0, **trainer: object) -> Path:
        data = {"train": phantoms("train", 5), "val": phantoms("val", 1), "batch_size": 3, "queries_per_volume": 2}
        path = write(tmp_path / f"{name}.yaml", module, data, max_steps=4, val_check_interval=1, **trainer)
        options = [f"--trainer.default_root_dir={tmp_path / name}", *([f"--ckpt_path={start}"] if start else [])]
        done = medvol("fit", "--config", path, *options, devices=devices, site=site)
        assert done.code == code, done.lines
        return tmp_path / name

    return run


@pytest.mark.slow
def test_sft_on_three_processes_learns_what_one_learns(fit):
    """Batches of three and two volumes: in every second step a process has none."""
    one, three = (fit(SFT, name, devices) for name, devices in (("one", 1), ("three", 3)))
    require_alike(one, three)
    assert sorted(path.name for path in (three / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    policy = load_policy(three / "checkpoints" / "best.ckpt")
    assert policy.training_data.stages[-1].train.volumes == 5
    cards = [(folder / "model" / "README.md").read_text().splitlines() for folder in (one, three)]
    assert len(cards[0]) == len(cards[1])


@pytest.mark.slow
def test_grpo_on_two_processes_learns_what_one_learns_and_goes_on_with_another_number(fit):
    one, two = (fit(GRPO, name, devices) for name, devices in (("one", 1), ("two", 2)))
    require_alike(one, two)
    middle = two / "checkpoints" / "best.ckpt"  # of the first of two equal validations
    assert torch.load(middle, weights_only=True)["global_step"] == 2
    resumed = fit(GRPO, "resumed", 3, middle)
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, resumed))
    assert (ours["global_step"], theirs["global_step"]) == (4, 4)
    for key, value in ours["state_dict"].items():
        torch.testing.assert_close(theirs["state_dict"][key], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_sharded_layers_learn_what_whole_ones_learn_and_go_on_in_one_process(fit):
    """GRPO with a reference; the second batch has two volumes for three processes."""
    one, three = fit(GRPO, "one", 1), fit(GRPO, "three", 3, strategy="fsdp2")
    require_alike(one, three)
    resumed = fit(GRPO, "resumed", 1, three / "checkpoints" / "best.ckpt")
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, resumed))
    for key, value in ours["state_dict"].items():
        torch.testing.assert_close(theirs["state_dict"][key], value, atol=1e-5, rtol=0)
    assert (three / "model" / "model.safetensors").stat().st_size == (
        one / "model" / "model.safetensors"
    ).stat().st_size


@pytest.mark.slow
def test_sharded_layers_learn_true_answers(fit):
    """SFT with fsdp2, gradients clipped over all layers; the second batch has one volume for each of two processes."""
    settings = {name: value for name, value in SFT["init_args"].items() if name in PLAIN}
    module = {"class_path": "SFTModule", "init_args": settings}
    one, two = (
        fit(module, "one", 1, gradient_clip_val=0.5),
        fit(module, "two", 2, strategy="fsdp2", gradient_clip_val=0.5),
    )
    require_alike(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_deepspeed_learns_what_one_process_learns_and_goes_on(fit, kind, monkeypatch):
    """Optimiser states shared between two processes; clipped, and with a part of a batch for one of them only."""
    pytest.importorskip("deepspeed", reason="needs the extra deepspeed")
    settings = {name: value for name, value in SFT["init_args"].items() if name in PLAIN}
    module = {"class_path": "SFTModule", "init_args": settings} if kind == "sft" else GRPO
    more = {"gradient_clip_val": 0.5} if kind == "sft" else {}
    one, two = fit(module, "one", 1, **more), fit(module, "two", 2, strategy="deepspeed_stage_1", **more)
    require_alike(one, two)
    middle = two / "checkpoints" / "best.ckpt"
    alone = fit(module, "alone", 1, middle, **more)
    both = fit(module, "both", 2, one / "checkpoints" / "best.ckpt", strategy="deepspeed_stage_1", **more)
    for resumed in (alone, both):
        ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, resumed))
        for key, value in ours["state_dict"].items():
            torch.testing.assert_close(theirs["state_dict"][key], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_end_of_a_step(fit):
    stop = {"class_path": "faulty.StopOne", "init_args": {"rank": 1, "step": 2}}
    stopped = fit(SFT, "stopped", 2, code=143, callbacks=[stop])
    assert torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert not (stopped / "model").exists()
    whole, resumed = fit(SFT, "whole", 1), fit(SFT, "stopped", 2, stopped / "checkpoints" / "last.ckpt")
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, resumed))
    for key, value in ours["state_dict"].items():
        torch.testing.assert_close(theirs["state_dict"][key], value, atol=1e-5, rtol=0)
