"""Groups of settings: YAML and the command line set a part of one and leave the rest, and parents' settings stay."""

import inspect
import json
import pickle
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from medvol.cli import main
from medvol.cli.experiment_data import build_data
from medvol.core.docstrings import meanings
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.registry import DATASETS
from medvol.core.specs import describe_component, rebuild
from medvol.datasets.appearance import AppearanceSettings
from medvol.datasets.deformation import DeformationSettings
from medvol.datasets.m3dseg import M3DSegDataset
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.release import ReleaseDataset
from medvol.datasets.scans import ScanDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, PhrasingSettings, QuestionSettings
from medvol.datasets.splits import Split

BUILT_IN = [row.name for row in DATASETS.describe() if row.distribution == "medvol-r1"]
GROUPS = (
    AppearanceSettings,
    CacheSettings,
    DeformationSettings,
    PatientSettings,
    PhrasingSettings,
    QuestionSettings,
)
MODEL = {
    "class_path": "EvaluationModule",
    "init_args": {"policy": "CentreBoxPolicy", "propagator": "RegionPropagator"},
}


def write(folder: Path, **test: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(
        yaml.safe_dump({"model": MODEL, "data": {"class_path": "CaseDataModule", "init_args": {"test": test}}})
    )
    return path


def built(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str | Path) -> Any:
    """The test cases of the configuration that ``--print_config`` shows, which is one itself."""
    assert main(["test", *map(str, arguments), "--print_config"]) == 0
    (folder / "printed.yaml").write_text(capsys.readouterr().out)
    return build_data(folder / "printed.yaml").splits["test"]


def test_a_file_sets_a_part_of_a_group(tmp_path: Path) -> None:
    settings = {
        "root": "scans",
        "patients": {"only": ["A"]},
        "questions": {"phrasing": "both"},
        "cache": {"folder": "kept"},
    }
    data = build_data(write(tmp_path, class_path="NiftiDataset", init_args=settings)).splits["test"]
    assert isinstance(data, NiftiDataset)
    assert data.patients == PatientSettings(val_share=0.2, only=["A"])
    assert data.questions == QuestionSettings(phrasing="both")
    assert data.cache == CacheSettings(folder="kept")


def test_each_data_set_keeps_its_own_defaults(tmp_path: Path) -> None:
    data = build_data(write(tmp_path, class_path="PhantomDataset", init_args={"cache": {"gib": 9}})).splits["test"]
    assert isinstance(data, PhantomDataset)
    assert data.cache == CacheSettings(scans=16, gib=9)
    assert data.questions == PhrasingSettings()
    data = build_data(write(tmp_path, class_path="KiTS23Dataset", init_args={"root": "kits"})).splits["test"]
    assert isinstance(data, ReleaseDataset)
    assert data.patients == PatientSettings(val_share=0.0, test_share=0.2)


@pytest.mark.parametrize("key", ["data.test.questions", "data.init_args.test.init_args.questions"])
def test_the_command_line_sets_a_part_of_a_group(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"root": "scans", "questions": {"phrasing": "both"}, "patients": {"exclude": ["B"]}}
    path = write(tmp_path, class_path="NiftiDataset", init_args=settings)
    data = built(capsys, tmp_path, "--config", path, f"--{key}.relations=true", f"--{key}.targets=[liver]")
    assert data.questions == QuestionSettings(phrasing="both", targets=["liver"], relations=True)
    assert data.patients == PatientSettings(val_share=0.2, exclude=["B"])


def test_the_command_line_sets_a_part_of_a_group_that_no_file_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, class_path="PhantomDataset", init_args={"num_volumes": 3})
    options = ("--data.test.cache.gib=7", "--data.test.questions.absent_share=0.5")
    data = built(capsys, tmp_path, "--config", path, *options)
    assert data.cache == CacheSettings(scans=16, gib=7)
    assert data.questions == PhrasingSettings(absent_share=0.5)
    assert data.num_volumes == 3


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_setting_is_shown_and_documented_once(name: str) -> None:
    component = DATASETS.get(name)
    parameters = set(inspect.signature(component).parameters)
    assert len(parameters) <= 10
    assert parameters <= set(meanings(component))
    for parent in component.__mro__[1:]:
        if parent in (ScanDataset, ReleaseDataset):
            inherited = set(inspect.signature(parent).parameters)
            assert inherited <= parameters, f"{name} hides settings of {parent.__name__}"
            assert not (own_meanings(component) & own_meanings(parent)) - {"root"}


def own_meanings(component: type) -> set[str]:
    """Settings that the class's own docstring speaks of."""
    return set(re.findall(r"^    (\w+): ", inspect.cleandoc(component.__doc__ or ""), re.MULTILINE))


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_of_a_group_is_documented(group: type) -> None:
    assert {field.name for field in fields(group)} == set(meanings(group))


@pytest.mark.parametrize("name", BUILT_IN)
def test_groups_travel_in_specs_and_to_workers(name: str) -> None:
    component = DATASETS.get(name)
    hints = get_type_hints(component.__init__)
    groups = {key: hint for key, hint in hints.items() if inspect.isclass(hint) and is_dataclass(hint)}
    changed = {key: group(**CHANGES[key]) for key, group in groups.items()}
    built = component(**NEEDED.get(name, {"root": "."}), **changed)
    again = rebuild(describe_component(built))
    for key, value in changed.items():
        assert getattr(again, key) == value == getattr(pickle.loads(pickle.dumps(built)), key)


NEEDED: dict[str, dict[str, Any]] = {
    "PhantomDataset": {},
    "DeformedDataset": {"source": PhantomDataset()},
    "JoinedDataset": {"parts": [PhantomDataset()]},
    "SecondLookDataset": {"dataset": PhantomDataset()},
}
"""Settings without a default; all others need a root."""

CHANGES: dict[str, dict[str, Any]] = {
    "patients": {"val_share": 0.3, "only": ["A"]},
    "questions": {"phrasing": "both", "phrasings_per_target": 3},
    "cache": {"scans": 2, "gib": 1.5},
    "deformation": {"bend": 0.1, "field": (0.5, 1.0)},
    "appearance": {"sampled": 0.5},
    "region": {"margin_mm": 12.0},
}


def test_the_repr_tells_what_is_not_at_its_default() -> None:
    data = NiftiDataset("scans", questions=QuestionSettings(relations=True))
    assert repr(data) == "NiftiDataset(root='scans', questions=QuestionSettings(relations=True))"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": QuestionSettings(relations=True)}, "no relation is asked; leave relations out"),
        ({"cache": CacheSettings(folder="kept")}, "cache.folder does not work with M3D-Seg"),
    ],
)
def test_what_arrays_have_lost_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        M3DSegDataset(".", **settings)


def test_a_split_file_splits_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "table.csv").write_text(
        "image,target,patient,case\n" + "".join(f"a.nii.gz,liver,P{i},c{i}\n" for i in range(4))
    )
    (tmp_path / "split.json").write_text('{"train": ["c0", "c2"], "test": ["c3"]}')
    parts = {}
    for part in ("train", "test"):
        patients = PatientSettings(split_file=str(tmp_path / "split.json"))
        data = NiftiDataset(str(tmp_path), str(tmp_path / "table.csv"), split=part, patients=patients)
        parts[part] = {data.patient_id(index) for index in range(len(data))}
    assert parts == {"train": {"P0", "P2"}, "test": {"P3"}}


def deal(folder: Path, split: dict[str, list[str]], patients: dict[str, str]) -> dict[str, set[str]]:
    """Cases of each part by a split file, of a table with a scan for each case; ``patients`` says whose they are."""
    for case in patients:
        (folder / f"{case}.nii.gz").touch()
    rows = "".join(f"{case}.nii.gz,{target},{patient}\n" for case, patient in patients.items() for target in TARGETS)
    (folder / "table.csv").write_text(f"image,target,patient\n{rows}")
    (folder / "split.json").write_text(json.dumps(split))
    settings = PatientSettings(split_file=str(folder / "split.json"))
    parts = {}
    for part in get_args(Split):
        if part in split:
            data = NiftiDataset(str(folder), str(folder / "table.csv"), split=part, patients=settings)
            parts[part] = {data.scan_file(index).name.removesuffix(".nii.gz") for index in range(len(data))}
    return parts


TARGETS = ("liver", "spleen")
OWN = {case: case for case in ("p.01", "p.02", "q1", "q2")}


def test_names_with_dots_are_whole_names(tmp_path: Path) -> None:
    split = {"train": ["p.01", "q1.nii.gz"], "val": ["p.02", "any/q2"]}
    assert deal(tmp_path, split, OWN) == {"train": {"p.01", "q1"}, "val": {"p.02", "q2"}}


@pytest.mark.parametrize(
    ("split", "patients", "message"),
    [
        ({"train": ["q1"], "val": ["q2_typo"]}, OWN, "val names 'q2_typo', which is no case; cases are like 'p.01'"),
        ({"train": ["q1"], "val": ["q2", "q1"]}, OWN, "'q1' is in train and again in val"),
        ({"train": ["q1"], "valid": ["q2"]}, OWN, "'valid' names cases and is no part; call it train, val or test"),
        ({"train": ["q1"], "val": "q2"}, OWN, "val is 'q2'; write a list of names"),
        ({"train": ["q1", "q1"], "val": ["q2"]}, OWN, "'q1' is in train and again in train"),
        ({"train": ["q1"], "val": ["q2"]}, {"q1": "Q", "q2": "Q"}, "scans of patient 'Q' are in train and in val"),
    ],
)
def test_a_split_that_loses_or_repeats_cases_is_refused(tmp_path, split, patients, message) -> None:
    with pytest.raises(DatasetError, match=message):
        deal(tmp_path, split, patients)


def test_scans_in_no_part_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two scans, four targets; p.02 follows its patient's other scan."""
    split = {"train": ["p.01"], "val": ["q1"]}
    assert deal(tmp_path, split, {**OWN, "p.02": "p.01", "q3": "q3"}) == {"train": {"p.01", "p.02"}, "val": {"q1"}}
    assert caplog.messages == [f"{tmp_path}/split.json: 2 of 5 scans are in no part and left out, such as q2"]
