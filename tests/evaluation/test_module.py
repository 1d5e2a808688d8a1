"""The module under a Lightning trainer: what it logs, writes, registers and restores."""

import dataclasses
import errno
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from medvol.core.errors import ConfigError, DatasetError, PolicyError, RecordError
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Completion
from medvol.evaluation.case_pass import CasePass
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.module import EvaluationModule
from medvol.evaluation.scoring import score_mask
from medvol.evaluation.settings import EvaluationSettings
from medvol.inference.records import read_record

TRUE_BOX = (15, 10, 35, 20)


def run(stage, module, groups, folder, **options):
    """Run one verb of the trainer over groups of cases, one group a batch."""
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, **options,
    )  # fmt: skip
    loader = DataLoader(groups, batch_size=1, collate_fn=list)
    result = getattr(trainer, stage)(module, loader, **({} if stage == "predict" else {"verbose": False}))
    return result if stage == "predict" else result[0]


@pytest.fixture
def study(make_case, write_answer, written_policy):
    """Five queries about one volume and one about another: right, half right, missed, unparsable, absent, right."""
    cases = [
        make_case("right", patient="p1", kind="explicit"),
        make_case("half", patient="p1", kind="explicit", held_out=True),
        make_case("missed", patient="p1"),
        make_case("garbled", patient="p1"),
        make_case("nowhere", present=False, patient="p1", kind="absent", target="spleen"),
    ]
    other = make_case("other", patient="p2")
    other = dataclasses.replace(other, volume=dataclasses.replace(other.volume, volume_id="volume-2", modality="MR"))
    answers = {
        "right": write_answer(6, TRUE_BOX),
        "half": write_answer(6, (15, 10, 25, 20)),
        "missed": write_answer(),
        "garbled": "<answer>[{</answer>",
        "nowhere": write_answer(),
        "other": write_answer(6, TRUE_BOX),
    }
    return [cases, [other]], written_policy(answers)


def test_test_logs_means_with_failures_as_0(study, box_propagator, tmp_path, capsys):
    groups, policy = study
    logged = run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    half = 2 * 100 / (100 + 200)
    assert logged["test/format_rate"] == pytest.approx(5 / 6)
    assert logged["test/dsc"] == pytest.approx((1 + half + 0 + 0 + 1) / 5)
    assert logged["test/key_slice_score"] == pytest.approx(3 / 5)
    assert logged["test/box_iou"] == pytest.approx(2.5 / 5)
    assert logged["test/absent_accuracy"] == 1.0
    assert "failures count as 0" in capsys.readouterr().out


def test_test_writes_cases_and_summary(study, box_propagator, tmp_path):
    groups, policy = study
    run(
        "test",
        EvaluationModule(policy, box_propagator(), EvaluationSettings(error_budget=True, surface="surfels")),
        groups,
        tmp_path,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.json", "evaluation.json", "masks"]
    cases = json.loads((tmp_path / "cases.json").read_text())
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert [case["case_id"] for case in cases] == ["right", "half", "missed", "garbled", "nowhere", "other"]
    assert summary["policy"] == {"name": "WrittenPolicy", "answers": 6}
    assert {key: summary["propagator"][key] for key in ("name", "reach")} == {"name": "BoxPropagator", "reach": 2}
    assert summary["failures"] == {"bad_json": 1}
    overall = summary["all"]
    assert (overall["cases"], overall["patients"], overall["present"], overall["failures"]) == (6, 2, 5, 1)
    dsc = overall["metrics"]["dsc"]
    assert dsc["low"] <= dsc["mean"] <= dsc["high"]
    assert set(summary["groups"]) == {"phrasing", "kind", "target", "modality"}
    assert summary["groups"]["phrasing"]["held-out"]["cases"] == 1
    assert summary["groups"]["modality"]["MR"]["metrics"]["dsc"]["mean"] == pytest.approx(1.0)
    assert summary["error_budget"]["cases"] == 5
    # of the target's slices 4..8 only 4 and 7 are shown; from 7 the propagator reaches 5..9
    assert summary["error_budget"]["true_anchor"] == pytest.approx(2 * 4 / (5 + 5))
    assert summary["error_budget"]["true_boxes"] == pytest.approx(3 / 5)
    assert "dsc" not in summary["groups"]["kind"]["absent"]["metrics"]


def test_a_test_keeps_masks_until_there_is_no_room_and_replaces_those_before(study, box_propagator, tmp_path, caplog):
    groups, policy = study
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    (tmp_path / "masks" / "former.nii.gz").write_bytes(b"")
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    cases = {case["case_id"]: case for case in json.loads((tmp_path / "cases.json").read_text())}
    kept = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert kept == ["half.nii.gz", "other.nii.gz", "right.nii.gz"]  # empty masks need no file
    assert cases["half"]["mask_file"] == "masks/half.nii.gz"
    assert cases["missed"]["mask_file"] == cases["garbled"]["mask_file"] == ""
    mask = np.asarray(nib.load(tmp_path / "masks" / "half.nii.gz").dataobj).T > 0
    assert mask.sum() == 500
    one = (tmp_path / "masks" / "half.nii.gz").stat().st_size
    few = EvaluationSettings(masks_gib=1.5 * one / 2**30)
    run("test", EvaluationModule(policy, box_propagator(), few), groups, tmp_path)
    assert len(list((tmp_path / "masks").iterdir())) == 1
    assert "2 masks are not kept" in caplog.text


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("test", "masks/mine.nii.gz"),
        ("test", "cases.json"),
        ("test", "evaluation.json"),
        ("predict", "predictions/summary.json"),
        ("predict", "predictions/answers.csv"),
    ],
)
def test_nothing_of_somebody_else_is_replaced(stage, name, study, box_propagator, tmp_path):
    groups, policy = study
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("[]")
    said = "was not written by medvol; .*save_dir" if stage == "predict" else "belongs to no evaluation of medvol"
    with pytest.raises(RecordError, match=said):
        run(stage, EvaluationModule(policy, box_propagator()), groups, tmp_path)
    assert contents(tmp_path) == {name: b"[]"}
    assert policy.calls == []
    run(stage, EvaluationModule(policy, box_propagator()), groups, tmp_path, fast_dev_run=True)  # it writes nothing
    (tmp_path / name).unlink()
    for _ in range(2):
        run(stage, EvaluationModule(policy, box_propagator()), groups, tmp_path)


def test_a_folder_of_a_run_that_comes_to_nothing_was_never_made(tmp_path):
    with KeptMasks(tmp_path / "a" / "b" / "c", 1.0):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_test_that_ends_before_its_scores_are_written_leaves_the_former_ones(
    study, box_propagator, tmp_path, monkeypatch
):
    groups, policy = study
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    before = contents(tmp_path)
    assert {"cases.json", "evaluation.json", "masks/half.nii.gz"} <= before.keys()

    def fill_the_disk(*arguments):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("medvol.evaluation.archive.summarise", fill_the_disk)
    with pytest.raises(OSError, match="no room"):
        run("test", EvaluationModule(policy, box_propagator(1)), groups, tmp_path)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.json", "evaluation.json", "masks"]
    monkeypatch.undo()
    run("test", EvaluationModule(policy, box_propagator(1)), groups, tmp_path)  # the folder is free again
    assert contents(tmp_path)["masks/half.nii.gz"] != before["masks/half.nii.gz"]


DIE = """
import os, pathlib, signal
from medvol.core.atomic_files import write_together
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.run_files import SUMMARY_FILE

masks = KeptMasks(pathlib.Path({folder!r}), 1.0)
masks.start()
masks._staged.mkdir()
(masks._staged / "lost.nii.gz").write_bytes(b"half")
if {late}:
    writer = write_together(masks.run, SUMMARY_FILE)
    masks.hand_over(writer.__enter__())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("late", [False, True])
def test_a_test_after_one_that_was_killed_leaves_nothing_of_it(late, study, box_propagator, tmp_path):
    groups, policy = study
    subprocess.run([sys.executable, "-c", DIE.format(folder=str(tmp_path), late=late)], check=False)
    assert list(tmp_path.rglob("lost.nii.gz"))
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.json", "evaluation.json", "masks"]
    assert not list(tmp_path.rglob("lost.nii.gz"))


def test_a_second_test_in_the_folder_is_refused_and_takes_nothing_from_the_first(study, box_propagator, tmp_path):
    groups, policy = study
    (case,) = groups[1]
    with KeptMasks(tmp_path, 1.0) as first:
        first.keep(score_mask(case.target, case, EvaluationSettings()), case, case.target)
        before = contents(tmp_path)
        with pytest.raises(ConfigError, match="another test or evaluation writes in"):
            run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
        assert contents(tmp_path) == before
        assert len(before) == 1
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)


def test_masks_that_other_processes_left_out_are_told_too(study, box_propagator, tmp_path, monkeypatch, caplog):
    groups, policy = study
    monkeypatch.setattr("medvol.evaluation.module.gather_ranks", lambda own: [own, 4])
    run("test", EvaluationModule(policy, box_propagator(), EvaluationSettings(masks_gib=0.0)), groups, tmp_path)
    assert "7 masks are not kept" in caplog.text  # right, half and other here


def test_samples_give_every_case_a_confidence_and_change_nothing_else(study, box_propagator, tmp_path, write_answer):
    """Four samples: one query has two that hold the whole target and two that hold half of it, the others agree."""
    groups, policy = study
    run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path / "plain")
    asked = len(policy.calls)
    split = [write_answer(6, TRUE_BOX), write_answer(6, (15, 10, 25, 20))] * 2
    plain, generate = type(policy).generate, []

    def sample(self, prompts, n=1, sampling=None):
        generate.append((n, None if sampling is None else sampling.temperature))
        rows = plain(self, prompts, n, sampling)
        texts = [prompt.query for prompt in prompts]
        return [
            [Completion(one) for one in split] if n > 1 and q == "right" else r
            for q, r in zip(texts, rows, strict=True)
        ]

    policy.generate = sample.__get__(policy)
    settings = EvaluationSettings(samples=4)
    run("test", EvaluationModule(policy, box_propagator(), settings), groups, tmp_path / "sampled")
    assert generate == [(1, 0.0), (4, 1.0)] * 2
    assert len(policy.calls) == 3 * asked
    before, after = (json.loads((tmp_path / name / "cases.json").read_text()) for name in ("plain", "sampled"))
    assert {case["confidence"] for case in before} == {None}
    half = 2 * 100 / (100 + 200)
    known = {case["case_id"]: case.pop("confidence") for case in after}
    assert known == pytest.approx(
        {"right": (2 + 4 * half) / 6, "half": 1, "missed": 1, "garbled": 0, "nowhere": 1, "other": 1}
    )
    assert [{key: value for key, value in case.items() if key != "confidence"} for case in before] == after
    assert json.loads((tmp_path / "sampled" / "evaluation.json").read_text())["settings"]["samples"] == 4


def test_validation_logs_but_writes_nothing_and_measures_no_budget(study, box_propagator, tmp_path):
    groups, policy = study
    propagator = box_propagator()
    calls = []
    propagate = propagator.propagate
    propagator.propagate = lambda *args: calls.append(args) or propagate(*args)
    logged = run(
        "validate", EvaluationModule(policy, propagator, EvaluationSettings(error_budget=True)), groups, tmp_path
    )
    assert {"val/format_rate", "val/key_slice_score", "val/box_iou", "val/dsc"} <= set(logged)
    assert len(calls) == 4  # every anchor of a volume once: two answers say [] about the first
    assert not list(tmp_path.iterdir())


def test_queries_of_one_volume_are_answered_in_one_call_from_one_drawing(study, box_propagator, tmp_path):
    groups, policy = study
    run("validate", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    assert [len(prompts) for prompts in policy.calls] == [5, 1]
    assert len({id(prompt.slices) for prompt in policy.calls[0]}) == 1
    assert all(prompt.truth is None for prompt in policy.calls[0])


def test_oracle_gets_the_true_anchor_of_the_slices_shown(study, box_propagator, written_policy, tmp_path):
    groups, _ = study
    policy = written_policy(needs_truth=True)
    logged = run("test", EvaluationModule(policy, box_propagator(4)), groups, tmp_path)
    prompt = policy.calls[0][0]
    assert prompt.truth.key_slice in prompt.slices.indices
    assert (logged["test/box_iou"], logged["test/absent_accuracy"]) == (pytest.approx(1.0), 1.0)


def test_case_without_a_mask_is_refused_in_one_sentence(study, box_propagator, tmp_path):
    groups, policy = study
    groups[0][2] = dataclasses.replace(groups[0][2], target=None)
    with pytest.raises(DatasetError, match="case 'missed' has no target mask"):
        run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Using .DistributedSampler.")  # the copies that it warns of are counted once
def test_two_processes_write_what_one_writes(study, box_propagator, tmp_path):
    groups, policy = study
    third = [dataclasses.replace(case, case_id=f"third-{case.case_id}") for case in groups[0][:2]]
    groups.append(third)  # an odd number of groups: the sampler hands one to both processes
    for name, options in {"one": {}, "two": {"devices": 2, "strategy": "ddp_fork"}}.items():
        run("test", EvaluationModule(policy, box_propagator()), groups, tmp_path / name, **options)
    one, two = (json.loads((tmp_path / name / "cases.json").read_text()) for name in ("one", "two"))
    assert len(one) == 8
    assert sorted(one, key=lambda case: case["case_id"]) == sorted(two, key=lambda case: case["case_id"])


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_cases_that_share_an_id_are_refused_before_the_second_is_asked(stage, study, box_propagator, tmp_path):
    groups, policy = study
    groups[1][0] = dataclasses.replace(groups[1][0], case_id="right")
    with pytest.raises(DatasetError, match="several cases have the id 'right'"):
        run(stage, EvaluationModule(policy, box_propagator()), groups, tmp_path)
    assert [len(prompts) for prompts in policy.calls] == [5]


def take(groups, rank, monkeypatch):
    """What one of two processes works on, of groups that torch's sampler deals."""
    monkeypatch.setattr("medvol.evaluation.case_pass.count_ranks", lambda: 2)
    monkeypatch.setattr("medvol.evaluation.case_pass.own_rank", lambda: rank)
    sampler = DistributedSampler(groups, num_replicas=2, rank=rank, shuffle=False)
    loader = DataLoader(groups, batch_size=1, sampler=sampler, collate_fn=list)
    cases = CasePass(loader)
    found = [group for batch in loader for group in cases.take(batch)]
    for number, (case,) in enumerate(found):
        cases.add(number, case, f"{case.case_id} of {rank}")
    return cases, [case.case_id for (case,) in found]


def test_groups_that_a_sampler_deals_out_twice_are_worked_on_once(make_case, monkeypatch):
    groups = [[make_case(name)] for name in "abc"]
    first, own = take(groups, 0, monkeypatch)
    second, others = take(groups, 1, monkeypatch)
    assert (own, others) == (["a", "c"], ["b"])
    monkeypatch.setattr("medvol.evaluation.case_pass.gather_ranks", lambda rows: [rows, second._rows])
    assert first.gather() == ["a of 0", "b of 1", "c of 0"]


def test_two_processes_that_meet_cases_of_one_id_lose_none_in_silence(make_case, monkeypatch):
    groups = [[make_case(name)] for name in "aab"]
    first, _ = take(groups, 0, monkeypatch)
    second, _ = take(groups, 1, monkeypatch)
    monkeypatch.setattr("medvol.evaluation.case_pass.gather_ranks", lambda rows: [rows, second._rows])
    with pytest.raises(DatasetError, match="several cases have the id 'a'"):
        first.gather()


def test_predict_needs_no_masks_and_writes_what_segment_writes(study, box_propagator, tmp_path):
    groups, policy = study
    bare = [[dataclasses.replace(case, target=None) for case in cases] for cases in groups]
    module = EvaluationModule(policy, box_propagator(), EvaluationSettings(max_new_tokens=77))
    assert run("predict", module, bare, tmp_path) == [["right", "half", "missed", "nowhere"], ["other"]]
    folder = tmp_path / "predictions"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["counts"] == {"done": 5, "skipped": 0, "failed": 1, "not run": 0}
    assert [row["query"] for row in summary["cases"]] == ["right", "half", "missed", "garbled", "nowhere", "other"]
    assert module.failed
    for row in (row for row in summary["cases"] if row["status"] == "done"):
        record = read_record(row["record"])
        assert (record.query, record.policy["name"]) == (row["query"], "WrittenPolicy")
        assert record.sampling == {"temperature": 0.0, "max_new_tokens": 77, "seed": 0}
        assert "trained on" in record.confidence["unknown"][-1]
        mask = np.asarray(nib.load(folder / record.mask_file).dataobj).T > 0
        assert mask.sum() == {"right": 1000, "half": 500, "other": 1000}.get(row["query"], 0)
        assert (folder / record.mask_file.replace(".nii.gz", ".png")).is_file()


def test_a_failed_prediction_leaves_what_was_said(study, box_propagator, tmp_path):
    groups, policy = study
    run("predict", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    (kept,) = (tmp_path / "predictions").glob("*.failed.json")
    content = json.loads(kept.read_text())
    assert (content["query"], content["failure"]) == ("garbled", "bad_json")
    assert kept.name.startswith("garbled_")
    assert content["completion"] == "<answer>[{</answer>"
    cases = json.loads((tmp_path / "predictions" / "summary.json").read_text())["cases"]
    (row,) = (row for row in cases if row["status"] == "failed")
    assert row["error"] == "EvidenceParseError"
    assert str(kept) in row["detail"]


def lie_as_scans(groups):
    """Let the volumes lie as scans are read, towards the patient's left and back."""
    for group in groups:
        lps = dataclasses.replace(group[0].volume, affine=np.diag([-1.0, -1.0, 4.0, 1.0]))
        group[:] = [dataclasses.replace(case, volume=lps) for case in group]


def edit_boxes(record, mask):
    content = json.loads(record.read_text())
    content["evidence"]["boxes_px"] = [[2, 2, 9, 9]]
    record.write_text(json.dumps(content))


def edit_words(record, mask):
    content = json.loads(record.read_text())
    content["evidence"]["rationale"] = "corrected by a reader"
    record.write_text(json.dumps(content))


def edit_query(record, mask):
    record.write_text(record.read_text().replace('"query": "right"', '"query": "the other"'))


def damage(record, mask):
    record.write_text(record.read_text()[:-20])


def draw(record, mask):
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj).copy()
    voxels[15, 10, 4] = 0
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), mask)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit_boxes, "or its mask was changed by hand"),
        (edit_words, "or its mask was changed by hand"),
        (draw, "or its mask was changed by hand"),
        (edit_query, "holds another answer"),
        (damage, "cannot be read"),
    ],
)
def test_an_answer_that_a_person_changed_is_not_replaced(change, said, study, box_propagator, tmp_path):
    groups, policy = study
    lie_as_scans(groups)
    folder = tmp_path / "predictions"
    run("predict", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    (record,) = (path for path in folder.glob("right_*.json"))
    mask = record.with_suffix(".nii.gz")
    change(record, mask)
    kept = record.read_bytes(), mask.read_bytes()
    policy.calls.clear()
    module = EvaluationModule(policy, box_propagator())
    answered = run("predict", module, groups, tmp_path)
    assert answered == [["half", "missed", "nowhere"], ["other"]]  # what nobody changed is replaced
    assert (record.read_bytes(), mask.read_bytes()) == kept
    assert [prompt.query for prompt in policy.calls[0]] == ["half", "missed", "garbled", "nowhere"]
    row = json.loads((folder / "summary.json").read_text())["cases"][0]
    assert (row["status"], row["error"], module.failed) == ("failed", "RecordError", True)
    assert row["detail"].startswith(f"{record} {said}")
    assert "model.evaluation.save_dir" in row["detail"]


def test_a_trial_of_predict_writes_nothing(study, box_propagator, tmp_path, capsys):
    groups, policy = study
    lie_as_scans(groups)
    run("predict", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")}
    capsys.readouterr()
    module = EvaluationModule(policy, box_propagator())
    assert run("predict", module, groups, tmp_path, fast_dev_run=True) == [["right", "half", "missed", "nowhere"]]
    assert module.failed  # garbled
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")} == before
    assert "nothing is written" in capsys.readouterr().out


NAMES = ["../p1/a", "..%2Fp1/a", "a/b", "a-b", "a b", "A/B", "肝" * 200, "肝" * 200 + "x", "", ".", "a\n"]


def test_predictions_of_many_names_are_many_files(make_case, write_answer, box_propagator, written_policy, tmp_path):
    cases = [make_case(name, text="it") for name in NAMES]
    policy = written_policy({"it": write_answer(6, TRUE_BOX)})
    run(
        "predict",
        EvaluationModule(policy, box_propagator(), EvaluationSettings(save_dir=str(tmp_path))),
        [cases],
        tmp_path,
    )
    names = [path.name for path in tmp_path.iterdir()]
    assert len({name.casefold() for name in names if name.endswith(".nii.gz")}) == len(NAMES)
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*.nii.gz"))
    assert max(len(name.encode()) for name in names) < 200


def test_another_policy_does_not_replace_a_prediction(study, box_propagator, tmp_path):
    groups, policy = study
    for reach in (2, 1):
        run("predict", EvaluationModule(policy, box_propagator(reach)), groups[1:], tmp_path)
    assert len(list((tmp_path / "predictions").glob("*.nii.gz"))) == 2


def test_a_policy_that_fails_on_one_volume_leaves_the_others(study, box_propagator, tmp_path):
    groups, policy = study
    del policy.answers["half"]
    run("predict", EvaluationModule(policy, box_propagator()), groups, tmp_path)
    cases = json.loads((tmp_path / "predictions" / "summary.json").read_text())["cases"]
    failed = {row["query"]: row["error"] for row in cases if row["status"] == "failed"}
    assert failed == {"half": "PolicyError", "garbled": "EvidenceParseError"}
    assert sum(row["status"] == "done" for row in cases) == 4


class SmallPolicy(TrainablePolicy):
    """One weight; answers that the target is absent."""

    def __init__(self):
        self.built = []

    def load(self):
        if not self.built:
            self.built.append(torch.nn.Linear(1, 1, bias=False))
        return self.built[0]

    def generate(self, prompts, n=1, sampling=None):
        self.load()
        return [[Completion("<think>no</think><answer>[]</answer>")] * n for _ in prompts]

    def encode(self, text):
        raise NotImplementedError

    def log_probs(self, prompts, completions):
        return [[self.load().weight.sum().expand(1)] for _ in prompts]

    reference_log_probs = log_probs

    def trainable_parameters(self):
        return self.load().parameters()

    def write_weights(self, folder):
        raise NotImplementedError


class Fitted(EvaluationModule):
    """Drives the only weight down and notes the mode that it is trained in."""

    def training_step(self, batch, batch_idx):
        self.modes = [*getattr(self, "modes", []), self.network.training]
        return self.policy.log_probs([None], [[None]])[0][0].sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_network_is_built_late_registered_trained_and_stored(study, box_propagator, tmp_path):
    groups, _ = study
    policy = SmallPolicy()
    module = Fitted(policy, box_propagator())
    assert not policy.built
    loader = DataLoader(groups, batch_size=1, collate_fn=list)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=2, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    assert module.network is policy.load()
    assert module.modes == [True] * 4
    assert trainer.callback_metrics["val/dsc"] == 0.0
    assert trainer.callback_metrics["val/absent_accuracy"] == 1.0
    assert not list(tmp_path.iterdir())

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Fitted(SmallPolicy(), box_propagator())
    again.configure_model()
    again.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(again.policy.load().weight, policy.load().weight)
    assert list(again.state_dict()) == ["network.weight"]


class Failing:
    """Makes a policy fail on some queries, or on all."""

    def __init__(self, policy, *queries):
        self.policy, self.queries = policy, queries

    def __call__(self, prompts, n=1, sampling=None):
        if not self.queries or any(prompt.query in self.queries for prompt in prompts):
            raise SystemExit("no more")
        return type(self.policy).generate(self.policy, prompts, n, sampling)


def test_a_policy_that_fails_on_one_case_fails_that_case_alone(study, box_propagator, tmp_path):
    groups, policy = study
    policy.generate = Failing(policy, groups[0][0].query.text)
    run("test", EvaluationModule(policy, box_propagator(), EvaluationSettings(error_budget=True)), groups, tmp_path)
    cases = {case["case_id"]: case for case in json.loads((tmp_path / "cases.json").read_text())}
    failed = [case_id for case_id, case in cases.items() if case["failure"] == "policy_failed"]
    assert [case["case_id"] for case in cases.values()] == ["right", "half", "missed", "garbled", "nowhere", "other"]
    same = [case.case_id for group in groups for case in group if case.query.text == groups[0][0].query.text]
    assert failed == same
    assert all(cases[case_id]["dsc"] == 0 and not cases[case_id]["parsed"] for case_id in failed)
    assert all("SystemExit: no more" in cases[case_id]["detail"] for case_id in failed)
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert summary["failures"]["policy_failed"] == len(failed)


@pytest.mark.parametrize("stage", ["test", "validate", "predict"])
def test_a_policy_that_fails_on_every_case_stops_the_run(stage, study, box_propagator, tmp_path):
    groups, policy = study
    policy.generate = Failing(policy)
    with pytest.raises(PolicyError, match="failed on each of 6 queries"):
        run(stage, EvaluationModule(policy, box_propagator()), groups, tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == ({"summary.json", "answers.csv"} if stage == "predict" else set())
