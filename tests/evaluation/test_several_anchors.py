"""Scores of answers with several anchors: closed forms, the oracle, and the same again from what a run kept."""

from dataclasses import replace

import pytest
from lightning.pytorch import Trainer

from medvol.core.roles import CaseDataset
from medvol.core.types import Completion
from medvol.evaluation.archive import read_evaluation
from medvol.evaluation.module import EvaluationModule
from medvol.evaluation.rescoring import rescore
from medvol.evaluation.scoring import score_rollout
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.anchors import join_anchors, label_anchor
from medvol.policies.oracle import OraclePolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.region import RegionPropagator
from medvol.rollouts.completions import read_completion
from medvol.rollouts.masks import follow
from medvol.testing.fixtures import make_scattered_case, write_evidence
from medvol.training.data import CaseDataModule

CASE = make_scattered_case()
TRUTH = label_anchor(CASE.target, rule="largest", max_anchors=4)
SETTINGS = EvaluationSettings(lesions="all")


def score(anchors, most=4):
    read = read_completion(CASE, Completion(write_evidence(CASE, join_anchors(anchors))), most)
    ((_, rollout),) = follow(CASE.volume, [read], RegionPropagator())
    return score_rollout(rollout, CASE, SETTINGS)


def test_slices_and_boxes_are_scored_part_by_part():
    whole, two, one = score(TRUTH.anchors), score(TRUTH.anchors[1:]), score(TRUTH.anchors[:1], 1)
    assert (whole.key_slice_score, whole.max_anchors) == (1, 4)
    assert whole.box_iou == pytest.approx(1, abs=0.02)
    assert two.key_slice_score == pytest.approx(2 / 3)
    assert two.box_iou == pytest.approx(2 / 3, abs=0.02)
    areas = CASE.target.sum(axis=(1, 2))
    assert one.key_slice_score == areas[TRUTH.key_slice] / areas.max()
    assert whole.dsc > two.dsc > one.dsc
    assert (whole.lesions.recall, two.lesions.recall, one.lesions.recall) == pytest.approx((1, 2 / 3, 1 / 3))
    assert two.key_slice == TRUTH.anchors[1].key_slice


def test_too_many_anchors_are_a_failure():
    failed = score(TRUTH.anchors, 2)
    assert (failed.failure, failed.dsc, failed.key_slice_score) == ("bad_anchor_list", 0, 0)


class OneCase(CaseDataset):
    """A data set of the case."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return CASE

    def volume_key(self, index):
        return "v"

    def patient_id(self, index):
        return "p"


def run(policy, folder):
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    module = EvaluationModule(policy, RegionPropagator(), replace(SETTINGS, error_budget=True))
    trainer.test(module, CaseDataModule(test=OneCase()), verbose=False)
    return read_evaluation(folder)


def test_the_oracle_writes_all_true_anchors(tmp_path):
    scores = {}
    for most in (1, 4):
        (scores[most],) = run(OraclePolicy(max_anchors=most), tmp_path / str(most)).scores
        assert scores[most].completion.count("slice") == (3 if most == 4 else 1)
        assert scores[most].budget.true_anchor == pytest.approx(scores[most].dsc, abs=0.02)
        assert scores[most].key_slice_score > 0.5
    assert scores[4].dsc > scores[1].dsc + 0.2


def test_a_run_is_scored_again_to_the_bit(tmp_path):
    text = write_evidence(CASE, join_anchors(TRUTH.anchors[::-1]))
    found = run(ScriptedPolicy([text], max_anchors=3), tmp_path)
    assert found.scores[0].max_anchors == 3
    assert rescore(found, OneCase(), SETTINGS) == list(found.scores)
