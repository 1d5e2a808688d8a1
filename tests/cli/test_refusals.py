"""Every mistake a user can make: exit code 2 and one sentence that names it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvol.cli import main
from medvol.cli.run_start import end_stopped
from medvol.imaging.geometry import make_volume
from medvol.imaging.writing import write_mask

Write = Callable[..., Path]
Refused = Callable[..., str]

POLICY = "model__init_args__policy"
TRAIN = "data__init_args__train"

WRONG_SETTINGS = {
    "unknown top key": ({"modle": {"a": 1}}, ["'modle'", "did you mean 'model'"]),
    "unknown top key without content": ({"modle": {}}, ["'modle'", "did you mean 'model'"]),
    "unknown trainer key": ({"trainer__max_epoch": 3}, ["'trainer.max_epoch'", "did you mean 'max_epochs'"]),
    "unknown module key": (
        {"model__init_args__polcy": 1},
        ["'model.init_args.polcy'", "SFTModule", "did you mean 'policy'"],
    ),
    "unknown data key": ({"data__init_args__bach_size": 1}, ["'data.init_args.bach_size'", "'batch_size'"]),
    "unknown component key": (
        {POLICY: {"class_path": "ToyPolicy", "init_args": {"scal": 1}}},
        ["'model.init_args.policy.init_args.scal'", "ToyPolicy", "'scale'"],
    ),
    "component key outside init_args": (
        {POLICY: {"class_path": "ToyPolicy", "scale": 1}},
        ["'model.init_args.policy.scale'", "'model.init_args.policy.init_args'"],
    ),
    "wrong type in a component": (
        {POLICY: {"class_path": "ToyPolicy", "init_args": {"scale": "large"}}},
        ["model.init_args.policy.init_args.scale", "a number", "'large'"],
    ),
    "wrong type in a group of settings": (
        {"model__init_args__optimizer__learning_rate": "fast"},
        ["learning_rate", "a number", "'fast'"],
    ),
    "unknown key in a group of settings": (
        {"model__init_args__optimizer__learning_rat": 1},
        ["'model.init_args.optimizer.learning_rat'", "OptimizerSettings", "did you mean 'learning_rate'"],
    ),
    "number for a group of settings": ({"model__init_args__optimizer": 3}, ["model.init_args.optimizer", "got 3"]),
    "wrong type in the trainer": ({"trainer__max_steps": "three"}, ["trainer.max_steps", "a whole number", "'three'"]),
    "wrong type in the data": (
        {"data__init_args__queries_per_volume": "x"},
        ["queries_per_volume", "a whole number or null"],
    ),
    "list for a number": ({"data__init_args__batch_size": [1]}, ["data.init_args.batch_size", "[1]"]),
    "wrong choice": (
        {"model__init_args__evaluation__anchor_rule": "biggest"},
        ["anchor_rule", "'paper', 'largest'", "'biggest'"],
    ),
    "wrong flag": (
        {"model__init_args__evaluation__error_budget": "perhaps"},
        ["model.init_args.evaluation.error_budget", "true or false", "'perhaps'"],
    ),
    "wrong seed": ({"seed_everything": "x"}, ["seed_everything", "'x'"]),
    "wrong precision": ({"trainer__precision": "17-bit"}, ["trainer.precision", "'17-bit'", "bf16-mixed"]),
    "unknown policy": (
        {POLICY: "ToyPolicies"},
        ["'ToyPolicies'", "choices", "ScriptedPolicy", "did you mean 'ToyPolicy'"],
    ),
    "unknown policy, long form": ({POLICY: {"class_path": "ToyPolicies"}}, ["'ToyPolicies'", "'ToyPolicy'"]),
    "unknown propagator": ({"model__init_args__propagator": "RegionPropagater"}, ["'RegionPropagator'"]),
    "unknown data set": ({TRAIN: "PhantomDatset"}, ["data.init_args.train", "did you mean 'PhantomDataset'"]),
    "unknown module": ({"model__class_path": "SFTModul"}, ["'SFTModul'", "did you mean 'SFTModule'"]),
    "unknown data module": ({"data__class_path": "CaseDataModul"}, ["did you mean 'CaseDataModule'"]),
    "unknown callback": (
        {"trainer__callbacks": [{"class_path": "ModelCheckpont"}]},
        ["trainer.callbacks: there is no callback 'ModelCheckpont'", "did you mean 'ModelCheckpoint'?"],
    ),
    "unknown logger": ({"trainer__logger": {"class_path": "CSVLoger"}}, ["trainer.logger", "'CSVLogger'"]),
    "component of another role": ({POLICY: "ToyPropagator"}, ["'ToyPropagator'", "medvol.propagators"]),
    "policy that cannot be trained": (
        {POLICY: "ScriptedPolicy"},
        ["'ScriptedPolicy' has nothing to train", "EvaluationModule", "medvol test"],
    ),
    "module that trains nothing": (
        {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None},
        ["EvaluationModule", "SFTModule", "GRPOModule", "model.class_path"],
    ),
    "no rewards but a name": (
        {"model__class_path": "GRPOModule", "model__init_args__rewards": "ToyReward"},
        ["model.init_args.rewards must be list of RewardTerm; got 'ToyReward'", "write [ToyReward]"],
    ),
    "clipping that GRPO does itself": (
        {
            "model__class_path": "GRPOModule",
            "model__init_args__rewards": ["ToyReward"],
            "trainer__gradient_clip_val": 1.0,
        },
        ["trainer.gradient_clip_val is 1.0", "model.optimizer.max_grad_norm"],
    ),
    "batches that GRPO does not accumulate": (
        {
            "model__class_path": "GRPOModule",
            "model__init_args__rewards": ["ToyReward"],
            "trainer__accumulate_grad_batches": 2,
        },
        ["trainer.accumulate_grad_batches is 2", "data.batch_size"],
    ),
    "fewer steps than none": ({"trainer__max_steps": -5}, ["trainer.max_steps is -5", "-1 or more"]),
    "no batch to accumulate": ({"trainer__accumulate_grad_batches": 0}, ["accumulate_grad_batches is 0", "1 or more"]),
    "batches to overfit": ({"trainer__overfit_batches": 1}, ["trainer.overfit_batches is 1", "few volumes"]),
    "negative clipping": ({"trainer__gradient_clip_val": -1}, ["trainer.gradient_clip_val is -1", "0 or more"]),
    "a tuner of batches": (
        {"trainer__callbacks": [{"class_path": "lightning.pytorch.callbacks.BatchSizeFinder"}]},
        ["BatchSizeFinder", "medvol plan"],
    ),
    "a tuner of rates": (
        {"trainer__callbacks": [{"class_path": "lightning.pytorch.callbacks.LearningRateFinder"}]},
        ["LearningRateFinder", "short runs"],
    ),
    "buffers averaged": (
        {"trainer__callbacks": [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}]},
        ["trainer.callbacks has EMAWeightAveraging, which averages buffers too", "set its use_buffers to false"],
    ),
    "batches that are accumulated by a callback": (
        {"trainer__callbacks": [{"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 3}}}]},
        ["GradientAccumulationScheduler", "set trainer.accumulate_grad_batches"],
    ),
    "negative seed": ({"seed_everything": -3}, ["seed_everything is -3", "from 0 to 4294967295"]),
    "no device": ({"trainer__devices": 0}, ["trainer.devices is 0"]),
    "strategy misspelt": ({"trainer__strategy": "dpp"}, ["trainer.strategy is 'dpp'"]),
    "validation after more batches than there are": (
        {"trainer__val_check_interval": 1000},
        ["trainer.val_check_interval is 1000", "batches (3)"],
    ),
    "no time": ({"trainer__max_time": "soon"}, ["trainer.max_time is 'soon'", "DD:HH:MM:SS"]),
    "setting of the trainer at the top": ({"max_steps": 3}, ["'max_steps'", "did you mean 'trainer.max_steps'"]),
    "setting of the module at the top": ({"reword": 0.1}, ["'reword'", "did you mean 'model.reword'"]),
    "setting of the data at the top": ({"batch_size": 2}, ["'batch_size'", "did you mean 'data.batch_size'"]),
    "base class of modules": ({"model__class_path": "TrainingModule"}, ["TrainingModule", "SFTModule"]),
    "validation without a case": (
        {"data__init_args__val": {"class_path": "ToyDataset", "init_args": {"count": 0}}},
        ["the val data set holds no case", "data.init_args.val"],
    ),
    "missing module of a path": ({POLICY: "my.lib.Policy"}, ["'my.lib.Policy'", "No module named 'my'"]),
    "missing class of a path": ({POLICY: "medvol_toy.Nothing"}, ["'medvol_toy.Nothing'"]),
    "class that lacks methods": (
        {"data__init_args__train": {"class_path": "medvol_toy.HalfDataset"}},
        ["'medvol_toy.HalfDataset' is not whole", "does not define patient_id, volume_key"],
    ),
    "class path without init_args mapping": (
        {POLICY: {"class_path": "ToyPolicy", "init_args": [1]}},
        ["model.init_args.policy.init_args", "[1]"],
    ),
    "number for a component": ({POLICY: 3}, ["model.init_args.policy", "got 3"]),
    "list for a component": ({POLICY: ["ToyPolicy"]}, ["model.init_args.policy", "['ToyPolicy']"]),
    "component left out": ({POLICY: None}, ["'model.init_args.policy'", "SFTModule needs"]),
    "model left out": ({"model": None}, ["model must be given"]),
    "text for a mapping": ({"trainer": "gpu"}, ["trainer", "'gpu'"]),
    "list for a mapping": ({"trainer": [1, 2]}, ["trainer", "[1, 2]"]),
    "nested file is missing": ({POLICY: "policy.yaml"}, ["model.init_args.policy", "'policy.yaml'", "does not exist"]),
    "component's folder is missing": (
        {POLICY: {"class_path": "ToyPolicy", "init_args": {"model": "/no/such/folder"}}},
        ["/no/such/folder"],
    ),
    "share out of range": (
        {"model__init_args__optimizer__final_share": 2},
        ["optimizer.final_share is 2", "from 0 to 1"],
    ),
    "negative learning rate": ({"model__init_args__optimizer__learning_rate": -1}, ["optimizer.learning_rate is -1"]),
    "component's value out of range": (
        {"model__init_args__propagator": {"class_path": "RegionPropagator", "init_args": {"growth_mm": -3}}},
        ["growth_mm is -3.0; it must be 0 or more"],
    ),
    "data set's value out of range": (
        {"data__init_args__val": {"class_path": "PhantomDataset", "init_args": {"num_volumes": 0}}},
        ["num_volumes is 0; it must be a whole number, 1 or more"],
    ),
    "value out of range in a group of a data set's settings": (
        {
            "data__init_args__val": {
                "class_path": "PhantomDataset",
                "init_args": {"questions": {"absent_share": 1.5}},
            }
        },
        ["absent_share is 1.5; it must be 0 or more and below 1"],
    ),
    "value out of range": ({"data__init_args__batch_size": 0}, ["batch_size is 0"]),
    "train cases left out": ({TRAIN: None}, ["data.init_args.train"]),
    "patients in two splits": (
        {"data__init_args__val": {"class_path": "ToyDataset"}},
        ["train and val share 3 patient(s)", "'patient0'"],
    ),
    "device that is not there": ({"trainer__accelerator": "tpu"}, ["torch_xla"]),
    "unknown device": ({"trainer__accelerator": "abacus"}, ["abacus"]),
    "a case that cannot be read": (
        {TRAIN: {"class_path": "ToyDataset", "init_args": {"broken": True}}},
        ["the cube is lost; find it"],
    ),
    "a missing extra": (
        {"model__init_args__propagator": {"class_path": "ToyPropagator", "init_args": {"fails": True}}},
        ['pip install "medvol-r1[toy]"'],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings(changes: dict, expected: list[str], experiment: Write, refused: Refused) -> None:
    text = refused("fit", "--config", experiment(**changes))
    for part in expected:
        assert part in text


WRONG_FILES = {
    "not YAML": (b"model: [unclosed\n a: b: c", "not YAML at line"),
    "a list": (b"- 1\n- 2\n", "holds a list"),
    "a number": (b"17", "holds a number"),
    "a text": (b"hello", "holds a text"),
    "a tab": (b"model:\n\tclass_path: SFTModule\n", "at line 2: it holds a tab; indent with spaces"),
    "two documents": (b"a: 1\n---\nb: 2\n", "give one document"),
    "a key twice": (b"trainer: {max_steps: 1}\nmodel: x\ntrainer: {}\n", "'trainer' twice, at lines 1 and 3"),
    "a key twice below": (b"trainer:\n  max_steps: 1\n  max_steps: 2\n", "'max_steps' twice, at lines 2 and 3"),
    "empty": (b"", "is empty"),
    "not text": (b"\xff\xfe\x00\x01", "not UTF-8"),
    "an anchor in itself": (b"model: &a [*a]\n", "anchor"),
    "an object": (b"!!python/object/apply:os.system ['true']", "not YAML"),
    "numbers for keys": (b"1: 2\n", "other keys than words"),
}


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_files(content: bytes, expected: str, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "exp.yaml"
    path.write_bytes(content)
    text = refused("fit", "--config", path)
    assert expected in text
    assert str(path) in text


SCRIPTED = ("segment", "{scan}", "the cube", "--policy", "CentreBoxPolicy")

WRONG_LINES = {
    "unknown verb": (["fitt"], ["'fitt'", "did you mean 'fit'"]),
    "unknown option for a verb": (["--verbose"], ["'--verbose'"]),
    "config missing": (["fit", "--config", "none.yaml"], ["'none.yaml'", "does not exist"]),
    "config is a folder": (["fit", "--config", "."], ["'.'", "is a folder"]),
    "config without value": (["fit", "--config"], ["--config needs"]),
    "config misspelt": (["fit", "--confg", "{config}"], ["'--confg'", "did you mean '--config'"]),
    "nothing at all": (["fit"], ["medvol fit --config EXPERIMENT.yaml"]),
    "configuration without its option": (["fit", "{config}"], ["medvol fit --config", "exp.yaml"]),
    "test of a configuration without its option": (["test", "a.yaml"], ["'a.yaml'", "medvol test --config a.yaml"]),
    "config with an equals sign": (["fit", "config={config}"], ["medvol fit --config"]),
    "config with one dash": (["fit", "-config", "{config}"], ["'-config'", "medvol fit --config FILE"]),
    "config of no letters": (["fit", "--config", ""], ["--config needs the path of a YAML file"]),
    "predict without cases": (
        ["predict", "--config", "{config}"],
        ["medvol predict needs the predict cases; set data.init_args.predict to a data set"],
    ),
    "option shortened": (["fit", "--config", "{config}", "--trainer.max_step", "3"], ["did you mean 'max_steps'"]),
    "option of the trainer without its place": (
        ["fit", "--config", "{config}", "--max_steps", "3"],
        ["did you mean 'trainer.max_steps'"],
    ),
    "option of a checker shortened": (["check", "{config}", "--al"], ["'--al'", "did you mean '--all'"]),
    "wrong type for a checker": (["check", "{scan}", "--nan_to", "x"], ["nan_to must be a number; got 'x'"]),
    "wrong type for a converter": (
        ["convert", "a.pt", "b", "--image_size", "x"],
        ["image_size must be a whole number; got 'x'"],
    ),
    "converter without a folder": (["convert", "a.pt"], ["folder must be given: medvol convert CHECKPOINT FOLDER"]),
    "option without a value": (["check", "{scan}", "--fix"], ["--fix needs a value after it"]),
    "report of a file": (["report", "{config}"], ["exp.yaml' is a file; give the run folder"]),
    "audit of no case": (["describe", "ToyReward", "--audit", "--num_cases", "0"], ["num_cases is 0"]),
    "unknown kind of DICOM": ([*SCRIPTED, "--dicom", "seg", "pdf"], ["'pdf'", "'seg', 'sr', 'rtstruct', 'capture'"]),
    "DICOM report without what it refers to": ([*SCRIPTED, "--dicom", "sr"], ["sr needs seg", "ask for both"]),
    "DICOM without a kind": ([*SCRIPTED, "--dicom"], ["--dicom", "value"]),
    "patient in no DICOM": ([*SCRIPTED, "--with_patient"], ["none is asked for"]),
    "a word too many": (["fit", "--config", "{config}", "now"], ["'now'"]),
    "unknown option": (["fit", "--config", "{config}", "--model.polcy", "x"], ["'model.init_args.polcy'", "'policy'"]),
    "unknown setting of a component": (
        ["fit", "--config", "{config}", "--model.policy.scal", "3"],
        ["'model.init_args.policy.init_args.scal'", "'scale'"],
    ),
    "wrong type": (["fit", "--config", "{config}", "--trainer.max_steps=x"], ["trainer.max_steps", "'x'"]),
    "wrong type in a component": (
        ["fit", "--config", "{config}", "--model.policy.scale", "x"],
        ["model.init_args.policy.init_args.scale", "'x'"],
    ),
    "unknown component": (["test", "--config", "{config}", "--model.policy", "ToyPolic"], ["did you mean 'ToyPolicy'"]),
    "unknown component, joined": (["test", "--config", "{config}", "--model.policy=ToyPolic"], ["'ToyPolicy'"]),
    "option without value": (["fit", "--config", "{config}", "--trainer.max_steps"], ["trainer.max_steps"]),
    "checkpoint missing": (["test", "--config", "{config}", "--ckpt_path", "no.ckpt"], ["no.ckpt"]),
    "checkpoint is none": (["test", "--config", "{config}", "--ckpt_path", "{config}"], ["not a file of plain values"]),
    "list with an argument": (["list", "policies"], ["'policies'"]),
    "describe without a name": (["describe"], ["name"]),
    "describe unknown": (["describe", "ToyPolicie"], ["'ToyPolicie'", "did you mean 'ToyPolicy'"]),
    "report without a run": (["report"], ["runs"]),
    "report without evaluation": (["report", "."], ["evaluation.json"]),
    "report of one run twice": (["report", "{run}", "{run}"], ["different run folders"]),
    "check without a path": (["check"], ["path"]),
    "check of nothing": (["check", "nowhere"], ["'nowhere'"]),
    "check of an empty folder": (["check", "{run}"], ["no scan"]),
    "segment nothing": (["segment"], ["SCAN"]),
    "segment without a query": (["segment", "{scan}"], ['SCAN "QUERY"']),
    "a model that is not bundled": (["segment", "{scan}", "the cube", "--policy", "bundled:bast"], ["bundled:best'"]),
    "segment a missing scan": (["segment", "no.nii.gz", "the cube", "--policy", "ToyPolicy"], ["no.nii.gz"]),
    "segment no scan": (["segment", "{config}", "the cube", "--policy", "ToyPolicy"], ["exp.yaml"]),
    "segment a damaged scan": (["segment", "{damaged}", "the cube", "--policy", "ToyPolicy"], ["damaged.nii.gz"]),
    "empty query": (["segment", "{scan}", "", "--policy", "ToyPolicy"], ["query is empty"]),
    "blank query": (["segment", "{scan}", "  ", "--policy", "ToyPolicy"], ["query is empty"]),
    "blank query for a folder": (["segment", "{run}", " ", "--policy", "ToyPolicy"], ["query is empty"]),
    "folder without scans": (["segment", "{run}", "the cube", "--policy", "ToyPolicy"], ["no scan"]),
    "model folder missing": (["segment", "{scan}", "the cube", "--policy", "runs/x/model"], ["'runs/x/model'"]),
    "model folder missing, joined": (["segment", "{scan}", "the cube", "--policy=runs/x/model"], ["'runs/x/model'"]),
    "model folder without model": (["segment", "{scan}", "the cube", "--policy", "{run}"], ["config.json"]),
    "unknown policy": (["segment", "{scan}", "the cube", "--policy", "ToyPolic"], ["did you mean 'ToyPolicy'"]),
    "no policy": (
        ["segment", "{scan}", "the cube", "--policy", ""],
        ["policy must name a Policy, or hold class_path and init_args; got ''"],
    ),
    "no folder": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--out", ""],
        ["--out is ''; name a file or a folder"],
    ),
    "no number": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--nan_to", "nan"],
        ["nan_to must be a number or null; got 'nan'"],
    ),
    "axes that are none": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--assume_orientation", "XYZ"],
        ["assume_orientation is three letters such as LPS or RAS; got 'XYZ'"],
    ),
    "an oracle": (["segment", "{scan}", "the cube", "--policy", "OraclePolicy"], ["OraclePolicy", "medvol test"]),
    "unknown propagator": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--propagator", "ToyPropagatr"],
        ["did you mean 'ToyPropagator'"],
    ),
    "unknown segment option": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--overwite"],
        ["'--overwite'", "'--overwrite'"],
    ),
    "unknown segment setting": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--policy.scal", "2"],
        ["'policy.init_args.scal'", "did you mean 'scale'"],
    ),
    "segment setting out of range": (
        ["segment", "{scan}", "the cube", "--policy", "CentreBoxPolicy", "--policy.share", "7"],
        ["share is 7.0; it must be above 0 and at most 1"],
    ),
    "propagator's setting out of range": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--propagator.growth_mm", "-3"],
        ["growth_mm is -3.0; it must be 0 or more"],
    ),
    "unknown setting of the usual propagator": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--propagator.growth", "3"],
        ["'propagator.init_args.growth'", "did you mean 'growth_mm'"],
    ),
    "wrong type for the usual propagator": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--propagator.growth_mm", "wide"],
        ["propagator.init_args.growth_mm must be a number; got 'wide'"],
    ),
    "output is a file": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--propagator", "ToyPropagator", "--out", "{file}"],
        ["exp.yaml.txt'", "a file is where a folder is needed"],
    ),
    "output below a file": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--out", "{file}/answers"],
        ["exp.yaml.txt/answers'", "a file is where a folder is needed"],
    ),
    "output of a folder is a file": (
        ["segment", "{scans}", "the cube", "--policy", "ToyPolicy", "--out", "{file}"],
        ["exp.yaml.txt'", "a file is where a folder is needed"],
    ),
    "checkpoint for a model folder": (
        ["segment", "{scan}", "the cube", "--policy", "best.ckpt"],
        ["there is no model folder 'best.ckpt'", "`medvol convert best.ckpt FOLDER` makes one"],
    ),
    "convert without arguments": (
        ["convert"],
        ["checkpoint and folder must be given: medvol convert CHECKPOINT FOLDER"],
    ),
    "convert no weights": (["convert", "{file}", "weights"], ["exp.yaml.txt'", "not a file of plain values"]),
    "convert no checkpoint": (["convert", "no.ckpt", "model"], ["there is no checkpoint at no.ckpt"]),
    "convert to a folder that is there": (["convert", "no.ckpt", "{run}"], ["is there already"]),
    "weights are none": (
        [*SCRIPTED, "--propagator", "LiteMedSAMPropagator", "--propagator.checkpoint", "{file}"],
        ["exp.yaml.txt'", "not a file of plain values"],
    ),
    "weights are missing": (
        [*SCRIPTED, "--propagator", "LiteMedSAMPropagator", "--propagator.checkpoint", "no.pth"],
        ["'no.pth' does not exist"],
    ),
    "no such window": (
        [*SCRIPTED, "--propagator", "LiteMedSAMPropagator", "--propagator.window", "softtissue"],
        ["no intensity window 'softtissue'"],
    ),
    "nan for NaN": (["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--nan_to", "nan"], ["nan_to", "'nan'"]),
    "more than one query": (["segment", "{scan}", "the", "cube", "--policy", "ToyPolicy"], ["argument 'cube'"]),
    "scan and query exchanged": (["segment", "the cube", "{scan}", "--policy", "ToyPolicy"], ["the cube: there is no"]),
    "series of a single scan": (["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--series", "2"], ["'2'"]),
    "options are a list": (["segment", "{scan}", "the cube", "--config", "{list}"], ["holds a list"]),
    "jobs with a wrong key": (
        ["segment", "--jobs", "{jobs}", "--policy", "ToyPolicy"],
        ["[0]", "did you mean 'query'"],
    ),
    "jobs is a folder": (["segment", "--jobs", "{run}", "--policy", "ToyPolicy"], ["is a folder, not a JSON file"]),
    "record is a folder": (["segment", "--evidence", "{run}"], ["is a folder, not a JSON file"]),
    "record is a picture": (["segment", "--evidence", "{damaged}"], ["cannot be read as JSON"]),
    "setting before its component": (
        ["segment", "{scan}", "the cube", "--policy.scal", "2", "--policy", "ToyPolicy"],
        ["policy"],
    ),
    "wrong modality": (
        ["segment", "{scan}", "the cube", "--policy", "ToyPolicy", "--modality", "PET"],
        ["modality", "'PET'"],
    ),
    "jobs missing": (["segment", "--jobs", "no.json", "--policy", "ToyPolicy"], ["no.json"]),
    "jobs is none": (["segment", "--jobs", "{config}", "--policy", "ToyPolicy"], ["exp.yaml"]),
    "jobs with a scan": (["segment", "{scan}", "the cube", "--jobs", "no.json", "--policy", "ToyPolicy"], ["--jobs"]),
    "jobs with a series": (["segment", "--jobs", "no.json", "--series", "9"], ["leave --series out"]),
    "another scan without a record": (
        ["segment", "{scan}", "the cube", "--allow_other_scan"],
        ["--allow_other_scan", "--evidence RECORD"],
    ),
    "record with a policy": (["segment", "--evidence", "no.json", "--policy", "ToyPolicy"], ["--policy", "asks none"]),
    "record missing": (["segment", "--evidence", "no.json"], ["no.json"]),
    "record is none": (["segment", "--evidence", "{config}"], ["exp.yaml"]),
    "record of another kind": (["segment", "--evidence", "{record}"], ["schema"]),
    "record with a query": (["segment", "{scan}", "the cube", "--evidence", "no.json"], ["--evidence"]),
}


@pytest.mark.parametrize(("arguments", "expected"), WRONG_LINES.values(), ids=WRONG_LINES)
def test_wrong_lines(
    arguments: list[str], expected: list[str], experiment: Write, tmp_path: Path, monkeypatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    places = _places(tmp_path, experiment())
    text = refused(*[argument.format(**places) for argument in arguments])
    for part in expected:
        assert part in text
    assert not (tmp_path / "segmentations").exists(), "nothing is written"


def _places(folder: Path, config: Path) -> dict[str, Path]:
    run = folder / "empty"
    run.mkdir()
    scan = folder / "scan.nii.gz"
    write_mask(scan, np.zeros((3, 4, 5), bool), make_volume(np.zeros((3, 4, 5), np.float32), (5.0, 2.0, 2.0)))
    damaged = folder / "damaged.nii.gz"
    damaged.write_bytes(scan.read_bytes()[:-30])
    record = folder / "record.json"
    record.write_text(json.dumps({"schema": "something-else/1"}))
    text = config.with_name("exp.yaml.txt")
    text.write_text("hello")
    jobs, listed = folder / "jobs.json", folder / "list.yaml"
    jobs.write_text('[{"scan": "scan.nii.gz", "qury": "the cube"}]')
    listed.write_text("- policy\n")
    scans = folder / "scans"
    scans.mkdir()
    (scans / scan.name).write_bytes(scan.read_bytes())
    places = {"config": config, "run": run, "scan": scan, "damaged": damaged, "record": record, "file": text}
    return {**places, "jobs": jobs, "list": listed, "scans": scans}


def test_what_stands_in_for_data_in_a_sentence(experiment: Write, refused: Refused) -> None:
    for verb, split in (("validate", "val"), ("test", "test")):
        text = refused(verb, "--config", experiment(**{f"data__init_args__{split}": None}))
        assert text == f"medvol {verb} needs the {split} cases; set data.init_args.{split} to a data set"


def test_a_checkpoint_of_another_module(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    import torch

    torch.save({"state_dict": {"other": torch.zeros(1)}, "pytorch-lightning_version": "2.6.6"}, tmp_path / "a.ckpt")
    text = refused("test", "--config", experiment(), "--ckpt_path", tmp_path / "a.ckpt")
    assert "does not fit" in text


def test_a_folder_that_cannot_be_written(experiment: Write, tmp_path: Path, refused: Refused) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    text = refused("test", "--config", experiment(trainer__default_root_dir=str(blocked / "run")))
    assert "blocked" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fitt"], "did you mean 'fit'"),
        (["fit", "--config", "none.yaml"], "'none.yaml'"),
        (["describe", "NoSuch"], "'NoSuch'"),
        (["segment", "no.nii.gz", "x", "--policy", "CentreBoxPolicy"], "no.nii.gz"),
    ],
)
def test_the_process_says_it_too(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medvol", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert expected in done.stderr


def test_a_shell_pipe_that_closes_early(tmp_path: Path) -> None:
    command = f"{sys.executable} -m medvol list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.stdout.strip() == "modules"
    assert "Traceback" not in done.stderr


LEAVING = '''
import sys
from medvol.core.roles import Policy


class LeavingPolicy(Policy):
    """Ends the program when it is built."""

    def __init__(self, how: str = "exit") -> None:
        if how == "exit":
            sys.exit(0)
        raise {"key": KeyError, "own": type("Own", (BaseException,), {})}[how]("gone")

    def generate(self, prompts, n=1, sampling=None): ...
'''


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "SystemExit: 0"), ("key", "KeyError: 'gone'"), ("own", "Own: gone")]
)
def test_a_constructor_that_leaves(how, said, distribution, refused, experiment, tmp_path):
    distribution("leaving", {"policies": {"LeavingPolicy": "leaving:LeavingPolicy"}}, LEAVING)
    config = experiment(
        model={
            "class_path": "EvaluationModule",
            "init_args": {
                "policy": {"class_path": "LeavingPolicy", "init_args": {"how": how}},
                "propagator": "ToyPropagator",
            },
        }
    )
    assert said in refused("test", "--config", config)


def test_an_option_that_begins_like_help_is_named_whole(refused: Refused) -> None:
    assert refused("fit", "--help-me").startswith("unknown option '--help-me'; did you mean '--help'?")


def test_a_question_without_quotes_is_told(refused: Refused) -> None:
    said = refused("segment", "scan.nii.gz", "the", "left", "kidney")
    assert said.startswith("unexpected argument 'left'; put the question in quotes")


def test_a_stop_says_what_a_run_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, left in {
        "validate": "no scores",
        "test": "no scores",
        "predict": "the answers that were written",
    }.items():
        assert end_stopped(verb, 130) == 130
        said = capsys.readouterr().err
        assert said.startswith(f"medvol: interrupted; {left}")
        assert said.count("\n") == 1
    assert end_stopped("fit", 143) == 143
    assert capsys.readouterr().err == "", "a fit has told its checkpoint"


def test_a_missing_extra_begins_with_what_was_asked(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert refused("view", tmp_path) == '`medvol view` needs the extra view: pip install "medvol-r1[view]"'


def test_a_stopped_test_says_so(
    experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medvol.evaluation.module.EvaluationModule.test_step", stop)
    config = experiment(model__class_path="EvaluationModule", model__init_args__optimizer=None)
    assert main(["test", "--config", str(config)]) == 130
    assert "medvol: interrupted; no scores were written" in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluation.json").exists()
