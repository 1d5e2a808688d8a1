"""The documented way of a published model, through the command line, on folders of published form.

Each has the configuration classes, processor files, chat template and two shards of the published models. One also has
their vocabulary at full size. All have few layers and random weights. Taught one answer by heart, each segments a scan.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.cli import main
from medvol.core.types import Sampling
from medvol.policies.vision_language import VisionLanguagePolicy
from tests.policies.families.parity import Opened, ask_in_bytes, count_equal_greedy

pytest.importorskip("peft", reason="needs the extra qwen")
pytestmark = pytest.mark.slow

ANSWER = '<answer>[{"slice": 1, "bbox_2d_list": [[250, 250, 750, 750]]}]</answer>'
TAUGHT = {"full": {}, "lora": {"lora_rank": 16}}
RATES = {"full": 3e-3, "lora": 2e-2}


class Workshop:
    """A published folder and what becomes of it, in a folder of its own.

    Args:
        published: The model folder.
        template: Of its prompts.
        place: Where runs are written.
    """

    def __init__(self, published: Path, template: Any, place: Path) -> None:
        self.published = published
        self.place = place
        self.template = {"num_slices": 4, "height_px": template.height_px, "width_px": template.width_px}
        self.policy = {"model": str(published), "template": self.template, "box_units": "thousandths"}

    def run(self, verb: str, name: str, module: str, steps: int, *words: str, **settings: Any) -> Path:
        """Run an experiment on drawn cubes; gives its folder."""
        evaluation = {"max_new_tokens": 40, "surface": None, "error_budget": False}
        data = {
            part: {"class_path": "light_policy.LightDataset", "init_args": {"count": 2, "first": first}}
            for part, first in (("train", 0), ("test", 4))
        }
        settings = {
            "propagator": {"class_path": "ExtrudePropagator", "init_args": {"half_depth_slices": 1}},
            **settings,
        }
        content = {
            "model": {"class_path": module, "init_args": {**settings, "evaluation": evaluation}},
            "data": {"class_path": "CaseDataModule", "init_args": {**data, "queries_per_volume": 1}},
            "trainer": {
                "accelerator": "cpu",
                "logger": False,
                "max_steps": steps,
                "limit_val_batches": 0,
                "default_root_dir": str(self.place / name),
            },
        }
        config = self.place / f"{name}.{verb}.yaml"
        config.write_text(yaml.safe_dump(content))
        assert main([verb, "--config", str(config), *words]) == 0
        return self.place / name

    def teach(self, kind: str, steps: int) -> Path:
        """Cold-start SFT; gives the run folder."""
        policy = {"class_path": "VisionLanguagePolicy", "init_args": {**self.policy, **TAUGHT[kind]}}
        optimizer = {"learning_rate": RATES[kind], "warmup_steps": 0}
        return self.run(
            "fit",
            f"sft-{kind}",
            "SFTModule",
            steps,
            policy=policy,
            optimizer=optimizer,
            answers={"think": False, "label_rule": "largest"},
        )


@pytest.fixture(scope="module", params=["gemma3", "qwen2_5_vl", "qwen3_vl, its own vocabulary"])
def workshop(request: pytest.FixtureRequest, publish: Callable[[str], Any], tmp_path_factory: Any) -> Workshop:
    return Workshop(*publish(request.param), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def taught(workshop: Workshop) -> Path:
    """Run folder of a fit of all weights that knows the answer by heart."""
    return workshop.teach("full", 60)


@pytest.fixture(scope="module")
def adapted(workshop: Workshop) -> Path:
    """Run folder of a fit of adapters."""
    return workshop.teach("lora", 3)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The cube of the training data, as a file."""
    voxels = np.full((8, 8, 4), -100, np.int16)
    voxels[2:6, 2:6, 1:4] = 60
    nib.save(nib.Nifti1Image(voxels, np.diag([-2.0, -2.0, 5.0, 1.0])), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def segment(scan: Path, *policy: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what was written about the answer."""
    out = scan.parent / "out"
    asked = ["segment", str(scan), "cube 0", *policy, "--propagator", "ExtrudePropagator", "--modality", "CT"]
    code = main([*asked, "--propagator.half_depth_slices", "1", "--out", str(out)])
    (record,) = (path for path in out.glob("*.json") if path.name != "summary.json")
    return code, json.loads(record.read_text())


def require_plain_equal(folder: Path) -> list[str]:
    """Greedy answers of a folder are those of plain transformers; gives them."""
    policy = VisionLanguagePolicy(str(folder))
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    prompts = ask_in_bytes(policy.template)[:2]
    opened = Opened(folder, policy.template, model, processor, policy, prompts)
    assert count_equal_greedy(opened, 40) == 2
    return [row[0].text for row in policy.generate(prompts, 1, Sampling(max_new_tokens=40))]


def test_a_published_folder_is_asked_as_it_is(workshop, scan):
    """Random weights say nothing of use, and what they say is kept."""
    code, said = segment(
        scan, "--policy", str(workshop.published), f"--policy.template={json.dumps(workshop.template)}"
    )
    assert code == 1
    assert said["query"] == "cube 0"
    assert len(said["completion"]) > 20


def test_what_was_taught_segments_a_scan(taught, scan):
    code, record = segment(scan, "--policy", str(taught / "model"))
    assert code == 0
    assert record["completion"] == ANSWER
    assert record["policy"]["box_units"] == "thousandths"
    # The box is that of the cube, and one slice on either side of slice 1 holds two of its three.
    mask = np.asarray(nib.load(next(scan.parent.glob("out/*.nii.gz"))).dataobj) > 0
    assert mask.sum() == 4 * 4 * 3
    assert mask[2:6, 2:6, 0:3].all()


def test_it_is_scored_and_trained_on_by_rewards(taught, workshop):
    run = workshop.run(
        "test", "scored", "EvaluationModule", 1, "--model.policy", str(taught / "model"), policy="CentreBoxPolicy"
    )
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["policy"]["model"] == str(taught / "model")
    assert (evaluation["all"]["cases"], evaluation["all"]["metrics"]["format_rate"]["mean"]) == (2, 1.0)
    run = workshop.run(
        "fit",
        "grpo",
        "GRPOModule",
        1,
        policy=str(taught / "model"),
        start={"min_parse_rate": 0.0},
        rewards=["digit_reward.EvenReward", "FormatReward"],
        rollouts={"group_size": 4, "temperature": 3.0},
        loss={"beta": 0.1},
        optimizer={"learning_rate": 1e-4, "warmup_steps": 0},
    )
    before, after = (load_weights(folder / "model") for folder in (taught, run))
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 0.5 * len(before)
    require_plain_equal(run / "model")


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_a_checkpoint_becomes_the_folder_of_the_fit(taught, workshop):
    folder = workshop.place / "converted"
    assert main(["convert", str(taught / "checkpoints" / "last.ckpt"), str(folder)]) == 0
    before, after = (load_weights(place) for place in (taught / "model", folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert ANSWER[:20] in require_plain_equal(folder)[1]


def test_an_adapter_is_merged_or_kept_apart(adapted, workshop):
    checkpoint, merged, alone = (
        str(adapted / "checkpoints" / "last.ckpt"),
        workshop.place / "merged",
        workshop.place / "adapter",
    )
    assert main(["convert", checkpoint, str(merged)]) == 0
    assert main(["convert", checkpoint, str(alone), "--adapter"]) == 0
    assert not list(alone.glob("model*.safetensors"))
    answers = require_plain_equal(merged)
    policy = VisionLanguagePolicy(str(workshop.published), adapter=str(alone))
    prompts = ask_in_bytes(policy.template)[:2]
    assert [row[0].text for row in policy.generate(prompts, 1, Sampling(max_new_tokens=40))] == answers
    base, own = load_weights(workshop.published), load_weights(merged)
    moved = {name for name in base if not torch.equal(base[name], own[name])}
    assert moved
    assert all("layers" in name and "_proj" in name for name in moved)
