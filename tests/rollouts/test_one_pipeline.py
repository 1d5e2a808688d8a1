"""Whoever asks about a case gets the same: segment, predict, test, and a rollout of GRPO at temperature 0."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from medvol.core.errors import PolicyError, PropagationError
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Case, Query
from medvol.evaluation.module import EvaluationModule
from medvol.imaging.reading import read_volume
from medvol.inference import segmentation
from medvol.inference.batch import run_jobs
from medvol.inference.jobs import find_jobs
from medvol.inference.records import plain_values
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.training.grpo import GRPOModule
from medvol.training.settings import RolloutSettings

BOX = '<think>bright</think><answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'
SCRIPT = {
    "the block": BOX,
    "the block again": BOX.replace("bright", "as before"),
    "the upper block": BOX.replace("3", "5"),
    "the tail": "<think>none</think><answer>[]</answer>",
    "nonsense": "I cannot tell",
    "the cliff": BOX.replace("3", "7"),
    "the ghost": BOX,
}
ANCHORS = {"the block": 3, "the block again": 3, "the upper block": 5, "the tail": None}
"""Key slice of each answer that gives a mask."""


class Script(ScriptedPolicy, TrainablePolicy):
    """Answers from the script, and fails on the ghost; GRPO may draw from it, and nothing trains it."""

    def generate(self, prompts, n=1, sampling=None):
        if any(prompt.query == "the ghost" for prompt in prompts):
            raise SystemExit("no ghosts")
        return super().generate(prompts, n, sampling)

    def load(self):
        return torch.nn.Linear(1, 1)

    def _refuse(self, *args, **settings):
        raise NotImplementedError

    encode = log_probs = reference_log_probs = trainable_parameters = write_weights = _refuse


class Recording(ExtrudePropagator):
    """Extrudes, fails on slice 7, and keeps the anchors of every call and the mask of every anchor."""

    def __init__(self) -> None:
        super().__init__(half_depth_slices=1)
        self.calls: list[list[int | None]] = []
        self.masks: dict[tuple[Any, ...], str] = {}

    def propagate(self, volume, evidence, z_range=None):
        if evidence.key_slice == 7:
            raise PropagationError("slice 7 is a cliff")
        mask = super().propagate(volume, evidence, z_range)
        self.masks[evidence.key_slice, evidence.boxes.tobytes(), z_range] = hashlib.sha256(mask.tobytes()).hexdigest()
        return mask

    def propagate_many(self, volume, evidences, z_ranges=None):
        self.calls.append([evidence.key_slice for evidence in evidences])
        return super().propagate_many(volume, evidences, z_ranges)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    monkeypatch.setattr(segmentation, "render_overlay", lambda segmentation: b"picture")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = np.full((40, 30, 12), -100.0, np.float32)
    voxels[10:30, 12:24, 6:10] = 80.0
    path = tmp_path / "scans" / "case.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.5, -2.0, 4.0, 1.0])), path)
    return path


def make_cases(scan: Path, queries) -> list[Case]:
    volume = read_volume(scan)
    target = volume.voxels > 0
    return [
        Case(query, volume, Query(query, kind="absent" if absent else "free"), target & (not absent), "p")
        for query in queries
        for absent in [query == "the tail"]
    ]


def run(stage: str, policy, propagator, cases, folder: Path) -> None:
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader([cases], batch_size=1, collate_fn=list)
    getattr(trainer, stage)(EvaluationModule(policy, propagator), loader)


def segment(scan, policy, propagator, queries, folder: Path) -> dict[str, dict[str, Any]]:
    run_jobs(find_jobs(scan.parent, queries, folder), Segmenter(policy, propagator), folder)
    return read_answers(folder)


def predict(scan, policy, propagator, queries, folder: Path) -> dict[str, dict[str, Any]]:
    run("predict", policy, propagator, make_cases(scan, queries), folder)
    return read_answers(folder / "predictions")


def read_answers(folder: Path) -> dict[str, dict[str, Any]]:
    """What is on the disk about each query: record and mask, or failure and what was said."""
    answers = {}
    for row in json.loads((folder / "summary.json").read_text())["cases"]:
        if row["status"] == "done":
            content = json.loads(Path(row["record"]).read_text())
            mask = np.asarray(nib.load(folder / content["mask"].pop("file")).dataobj).astype(bool)
            answers[row["query"]] = {**content, "overlay": None, "bits": hashlib.sha256(mask.tobytes()).hexdigest()}
        else:
            detail, _, kept = row["detail"].partition("; what was said is in ")
            said = json.loads(Path(kept).read_text()) if kept else None
            answers[row["query"]] = {"error": row["error"], "detail": detail, "said": said}
    return answers


def evaluate(scan, policy, propagator, queries, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of ``cases.json`` by query, and of ``evaluation.json``."""
    run("test", policy, propagator, make_cases(scan, queries), folder)
    cases = {row["query"]: row for row in json.loads((folder / "cases.json").read_text())}
    return cases, json.loads((folder / "evaluation.json").read_text())


def draw(scan, policy, propagator, queries):
    """Rollouts of GRPO at temperature 0."""
    drawn = RolloutSettings(group_size=2)
    object.__setattr__(drawn, "temperature", 0.0)  # training refuses it
    module = GRPOModule(policy, propagator, [VolumeDiceReward()], rollouts=drawn)
    cases = make_cases(scan, queries)
    module._session.sync(policy)
    groups = module._draw(cases, *module._choose(cases, np.random.default_rng(0)))
    return {group.case.query.text: group for group in groups}


def test_the_same_case_is_answered_the_same_whoever_asks(scan, tmp_path):
    policy, queries = Script([BOX], SCRIPT), list(SCRIPT)
    propagators = [Recording() for _ in range(4)]
    segmented = segment(scan, policy, propagators[0], queries, tmp_path / "segment")
    predicted = predict(scan, policy, propagators[1], queries, tmp_path / "predict")
    cases, evaluation = evaluate(scan, policy, propagators[2], queries, tmp_path / "test")
    groups = draw(scan, policy, propagators[3], queries[:-1])

    assert segmented == predicted
    assert list(cases) == queries
    assert segmented.keys() == set(queries)
    identity = plain_values({"policy": policy.identity(), "propagator": propagators[0].identity()})
    assert {name: evaluation[name] for name in identity} == identity
    for query, key_slice in ANCHORS.items():
        record, case, group = segmented[query], cases[query], groups[query]
        assert {name: record[name] for name in identity} == identity
        assert record["sampling"] == {"temperature": 0.0, "max_new_tokens": 256, "seed": 0}
        assert evaluation["settings"]["max_new_tokens"] == 256
        assert record["confidence"]["unknown"]
        assert record["evidence"]["key_slice"] == case["key_slice"] == key_slice
        assert record["completion"] == case["completion"] == SCRIPT[query]
        assert case["failure"] is None
        assert record["mask"]["volume_ml"] == pytest.approx(case["mask_ml"])
        for rollout in group.rollouts:
            assert rollout.completion.text == record["completion"]
            assert rollout.evidence.key_slice == key_slice
            np.testing.assert_allclose(rollout.evidence.boxes, np.reshape(record["evidence"]["boxes_px"], (-1, 4)))
            assert (rollout.failure, rollout.mask, rollout.error) == (None, None, None)
    assert segmented["the block"]["bits"] == segmented["the block again"]["bits"]
    assert segmented["the block"]["evidence"]["rationale"] == "bright"
    assert segmented["the block again"]["evidence"]["rationale"] == "as before"

    for propagator in propagators:
        assert propagator.calls[0] == [3, 5, None, 7]
        assert propagator.calls[1:] == [[3], [5], [None], [7]]
        assert propagator.masks == propagators[0].masks
    assert len(propagators[0].masks) == 3


def test_the_same_failures_are_named_the_same_whoever_asks(scan, tmp_path):
    policy = Script([BOX], SCRIPT)
    queries = ["nonsense", "the cliff", "the ghost", "the block"]
    segmented = segment(scan, policy, Recording(), queries, tmp_path / "segment")
    predicted = predict(scan, policy, Recording(), queries, tmp_path / "predict")
    cases, _ = evaluate(scan, policy, Recording(), queries, tmp_path / "test")
    groups = draw(scan, policy, Recording(), queries[:2])

    assert segmented == predicted
    names = {"nonsense": "no_answer", "the cliff": "propagation_failed", "the ghost": "policy_failed"}
    errors = {"nonsense": "EvidenceParseError", "the cliff": "PropagationError", "the ghost": "PolicyError"}
    assert {query: cases[query]["failure"] for query in names} == names
    assert {query: segmented[query]["error"] for query in names} == errors
    for query in ("nonsense", "the cliff"):
        said, case, group = segmented[query]["said"], cases[query], groups[query]
        assert said["completion"] == case["completion"] == SCRIPT[query]
        assert {rollout.failure for rollout in group.rollouts} == {names[query]}
        assert {rollout.detail for rollout in group.rollouts} == {case["detail"]}
        assert [reward.total for reward in group.rewards] == [0.0, 0.0]
        assert case["dsc"] == 0.0
    assert segmented["nonsense"]["said"]["failure"] == "no_answer"
    assert "I cannot tell" in segmented["nonsense"]["detail"]
    assert segmented["the cliff"]["detail"] == cases["the cliff"]["detail"]
    assert "slice 7 is a cliff" in segmented["the cliff"]["detail"]
    assert segmented["the ghost"]["said"] is None
    assert segmented["the ghost"]["detail"] == cases["the ghost"]["detail"]
    with pytest.raises(PolicyError) as refusal:
        draw(scan, policy, Recording(), ["the block", "the ghost"])
    assert str(refusal.value) == cases["the ghost"]["detail"]
    with pytest.raises(PropagationError) as failure:
        Segmenter(policy, Recording()).segment(scan, "the cliff")
    assert str(failure.value) == cases["the cliff"]["detail"]
    with pytest.raises(PolicyError):
        Segmenter(policy, Recording()).segment_many(scan, ["the block", "the ghost"])


def test_a_network_is_asked_the_same_whoever_asks(scan, tmp_path):
    template = replace(TINY_TEMPLATE, num_slices=4, height_px=48, width_px=48)
    queries = ["the block", "the tail"]
    policy = TinyPolicy(template=template)
    segmented = segment(scan, policy, Recording(), queries, tmp_path / "segment")
    assert segmented == predict(scan, policy, Recording(), queries, tmp_path / "predict")
    cases, evaluation = evaluate(scan, policy, Recording(), queries, tmp_path / "test")
    groups = draw(scan, policy, Recording(), queries)
    assert evaluation["policy"] == plain_values(policy.identity())
    for query in queries:
        said = segmented[query].get("said") or segmented[query]
        assert said["completion"] == cases[query]["completion"]
        assert {completion.text for completion in groups[query].completions} == {said["completion"]}


def test_answers_with_equal_anchors_are_followed_once_and_share_no_memory(scan):
    propagator = Recording()
    first, second, third = Segmenter(Script([BOX], SCRIPT), propagator).segment_many(
        scan, ["the block", "the block again", "the upper block"]
    )
    assert propagator.calls == [[3, 5]]
    np.testing.assert_array_equal(first.mask, second.mask)
    first.mask[:] = True
    assert not second.mask.all()
    assert second.mask.any()
    assert third.evidence.key_slice == 5
    assert [answer.query for answer in (first, second, third)] == ["the block", "the block again", "the upper block"]
