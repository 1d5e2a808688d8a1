"""Every example runs: scripts, experiments, jobs."""

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import releases
import torch
import yaml

import medvol
from medvol.cli import main
from medvol.policies.tiny_network import TINY_TEMPLATE
from tests.policies.conftest import SMALL_TEMPLATE as SMALL
from tests.policies.conftest import build_qwen2_5

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TRACKER = REPOSITORY / "tests" / "propagators" / "phantom_tracker"
"""A small SAM 2, trained on phantoms for a short time."""
EXPERIMENTS = sorted(EXAMPLES.glob("*.yaml"))

SCRIPT_ARGUMENTS = {
    "compose_in_python.py": ["--steps", "2"],
    "trl_reward.py": ["--steps", "1"],
    "write_phantom.py": ["scans/phantom.nii.gz"],
}
RELEASES = {
    "abdomenct1k": releases.write_abdomenct1k,
    "ctorg": lambda root: releases.write_ctorg(root, (0, 21, 22, 23, 24)),
    "decathlon": releases.write_decathlon,
    "kits23": releases.write_kits23,
    "m3dseg": releases.write_m3dseg,
    "rexgroundingct": releases.write_rexgroundingct,
    "totalsegmentator": releases.write_totalsegmentator,
}
"""Makers of a small copy of each published data set that an example reads."""
PAPER = {"paper_abdomenct1k": "abdomenct1k", "paper_ctorg": "ctorg", "paper_kits23": "kits23", "paper_sft": "ctorg"}
"""Experiments of the paper, each with the release that it reads."""
OWN = "own_data"
"""The file to copy; ``tests/docs`` gives it a reader's scans and runs it."""
FEW = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
ONE_PATIENT = {
    "real_ct": "STS_008",
    "real_ct_baselines": "STS_008",
    "real_targets": "deeplesion_000002_03_01_035-047",
}
"""Of each experiment on real scans, the patient that is tested here: the one whose first scan has fewest slices."""


def run(arguments: list, cwd: Path) -> str:
    """Run Python; return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def command(*arguments: object) -> None:
    """Run the command line in this process, with the paths of a clone."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(REPOSITORY)
        code = main(list(map(str, arguments)))
    assert code == 0, said.getvalue()


def mark_experiments() -> list:
    """Those on real scans need the folder beside the repository."""
    real = [pytest.mark.real, pytest.mark.slow]
    return [
        pytest.param(path, marks=real if "shared/data" in path.read_text() else [pytest.mark.slow], id=path.name)
        for path in EXPERIMENTS
        if path.stem not in {*RELEASES, *PAPER, OWN}
    ]


def test_there_are_examples():
    assert {"compose_in_python.py", "custom_reward.py", "write_phantom.py"} <= {path.name for path in SCRIPTS}
    assert {"demo_grpo.yaml", "demo_sft.yaml", "quickstart.yaml", "real_ct.yaml"} <= {path.name for path in EXPERIMENTS}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_run_anywhere(script, tmp_path):
    assert run([script, *SCRIPT_ARGUMENTS.get(script.name, [])], tmp_path).strip()


def in_release(name, root: Path) -> list[str]:
    """Make a small copy of a release; options that read it, with enough patients to validate on and small targets."""
    RELEASES[name](root)
    settings = {"root": root, "questions.min_voxels": 20, "patients.val_share": 0.25}
    settings |= {} if name in ("m3dseg", "rexgroundingct") else {"index": root.parent / "index"}
    settings |= {"ct_rate": root} if name == "rexgroundingct" else {}
    splits = ("train", "test") if name == "rexgroundingct" else ("train", "val", "test")
    return [f"--data.{split}.{key}={value}" for split in splits for key, value in settings.items()]


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASES)
def test_releases_are_trained_on(name, tmp_path):
    path = EXAMPLES / f"{name}.yaml"
    options = in_release(name, tmp_path / "release")
    out = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.val_check_interval=2", *FEW]
    command("fit", "--config", path, *(out if "--data.val.root" in str(options) else [out[0], *FEW]), *options)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_experiments_run_on_small_weights(name, tmp_path):
    """Their rewards, weights and loss, on the tiny model, a small SAM 2 and a CPU."""
    path = EXAMPLES / f"{name}.yaml"
    folder = tmp_path / "release"
    RELEASES[PAPER[name]](folder)
    splits = [
        split for split in ("train", "val", "test") if split in yaml.safe_load(path.read_text())["data"]["init_args"]
    ]
    data = {
        "root": folder,
        "questions.min_voxels": 20,
        "patients.val_share": 0.25,
        "index": tmp_path / "index",
    }
    small = {
        "model.policy.model": tmp_path / "start",
        "model.policy.dtype": "float32",
        "model.propagator.checkpoint": TRACKER,
        "model.propagator.device": "cpu",
        "model.evaluation.max_new_tokens": 24,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": tmp_path / "run",
        **({} if name == "paper_sft" else {"model.start.min_parse_rate": 0}),
        **{f"data.{split}.{key}": value for split in splits for key, value in data.items()},
    }
    # Rewards are for the prompts of the paper's model: 64 slices, and boxes in thousandths.
    template = replace(TINY_TEMPLATE, num_slices=64, coordinate_step=1)
    medvol.POLICIES.get("TinyPolicy")(template=template).save(tmp_path / "start")
    options = [f"--{key}={value}" for key, value in small.items()]
    command("fit", "--config", path, *options, *FEW[:2])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "weights", "group"),
    [
        ("paper_ctorg", {"Format": 0.25, "Axial": 0.25, "Spatial": 0.25, "Consistency": 0.25}, 4),
        ("paper_kits23", {"Format": 0.30, "Axial": 0.35, "Spatial": 0.35}, 3),
        ("paper_abdomenct1k", {"Format": 0.25, "Axial": 0.25, "Spatial": 0.25, "Consistency": 0.25}, 4),
    ],
)
def test_the_papers_rewards_sum_to_one(name, weights, group):
    settings = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["model"]["init_args"]
    assert settings["reward_weights"] == {f"{term}Reward": weight for term, weight in weights.items()}
    assert sum(weights.values()) == pytest.approx(1)
    assert (settings["rollouts"]["group_size"], settings["loss"]["beta"]) == (group, 0.01)


def write_published(folder: Path, family: str) -> Path:
    """Folder of a small model of a family, with two frames a patch as published ones have."""
    network = build_qwen2_5() if family == "qwen2_5_vl" else medvol.POLICIES.get("TinyPolicy")(template=SMALL).load()
    model = network.model
    if family == "qwen3_vl":
        config = deepcopy(model.config)
        config.vision_config.temporal_patch_size = 2
        network.processor.image_processor.temporal_patch_size = 2
        for part in (config, config.vision_config, config.text_config):
            part._attn_implementation = "sdpa"
        model = type(model)(config)
    model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_trl_trains_a_folder_of_a_published_form(family: str, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", family)
    printed = run([EXAMPLES / "trl_reward.py", "--steps", "1", "--model", folder], tmp_path)
    assert "step 1: reward" in printed


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tiny", "qwen2_5_vl", "qwen3_vl"])
def test_trl_is_asked_what_medvol_asks(family: str, tmp_path: Path) -> None:
    """Token for token, and patch for patch, so that a policy trained here answers there."""
    example = runpy.run_path(str(EXAMPLES / "trl_reward.py"))
    if family == "tiny":
        network = medvol.POLICIES.get("TinyPolicy")().load()
    else:
        network = medvol.POLICIES.get("QwenVLPolicy")(str(write_published(tmp_path / "model", family))).load()
    cases = medvol.DATASETS.get("PhantomDataset")(split="train", num_volumes=1)
    row = example["ask"](cases, network.template)[0]
    pictures = iter(row["images"])
    (message,) = row["prompt"]
    content = [
        part if part["type"] == "text" else {"type": "image", "image": next(pictures)} for part in message["content"]
    ]
    theirs = network.processor.apply_chat_template(
        [[{"role": "user", "content": content}]], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    prompt = medvol.build_prompt(cases[0].volume, cases[0].query.text, network.template)
    patches = network.prepare(torch.from_numpy(prompt.slices.pixels))["pixel_values"]
    torch.testing.assert_close(torch.as_tensor(theirs["pixel_values"]), patches, rtol=0, atol=2 / 255 + 1e-6)
    assert theirs["input_ids"][0] == [*network.prefix(prompt.slices).ids.tolist(), *network.encode_query(prompt.query)]


def fresh_start(folder: Path) -> list[str]:
    """A policy that has learned nothing, in place of the one that an experiment goes on from."""
    medvol.POLICIES.get("TinyPolicy")().save(folder)
    return [f"--model.policy.model={folder}", "--model.start.min_parse_rate=0"]


@pytest.mark.parametrize("path", mark_experiments())
def test_experiments_run(path, tmp_path, request):
    data = yaml.safe_load(path.read_text())["data"]["init_args"]
    if "shared/data" in path.read_text():
        request.getfixturevalue("shared_data")
    if "train" in data:
        by_reward = any(name in path.read_text() for name in ("GRPOModule", "RejectionModule"))
        start = fresh_start(tmp_path / "start") if by_reward else []
        out = f"--trainer.default_root_dir={tmp_path}"
        command("fit", "--config", path, out, *FEW, *start)
        assert (tmp_path / "model" / "model.safetensors").is_file()
    if "test" in data:
        trained = [f"--model.policy.model={tmp_path / 'model'}"] if "train" in data else []
        out = tmp_path / "test"
        one = [f"--data.test.patients.only=[{ONE_PATIENT[path.stem]}]"] if path.stem in ONE_PATIENT else []
        command("test", "--config", path, f"--trainer.default_root_dir={out}", *FEW, *trained, *one)
        assert json.loads((out / "evaluation.json").read_text())
        assert json.loads((out / "cases.json").read_text())


def test_phantom_is_a_scan_in_hounsfield_units(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["write_phantom.py", str(tmp_path / "phantom.nii.gz")])
    runpy.run_path(str(EXAMPLES / "write_phantom.py"), run_name="__main__")
    volume = medvol.read_volume(tmp_path / "phantom.nii.gz")
    drawn = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)[0].volume
    assert volume.modality == "CT"
    assert volume.affine == pytest.approx(drawn.affine, abs=1e-4)
    assert (volume.voxels == drawn.voxels).all()


def test_custom_reward_ranks_the_answers(tmp_path):
    lines = run([EXAMPLES / "custom_reward.py"], tmp_path).splitlines()[1:]
    truth, half, nothing, failed = (float(line[18:].split()[0]) for line in lines)
    assert truth > half > nothing == failed == 0


def test_jobs_are_answered(tmp_path):
    """From the folders that ``make demo`` makes, by the policy that comes with medvol."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    scan = medvol.DATASETS.get("PhantomDataset")(split="val", num_volumes=1)[0].volume
    medvol.write_volume(tmp_path / "runs" / "demo" / "first" / "scan.nii.gz", scan)
    command("segment", "--jobs", tmp_path / "examples" / "jobs.json", "--out", tmp_path / "answers")
    assert len(list((tmp_path / "answers").glob("*.nii.gz"))) == 3
    assert json.loads((tmp_path / "answers" / "summary.json").read_text())["counts"]["done"] == 3
