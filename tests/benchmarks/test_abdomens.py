"""The benchmark of real abdomens: patients stay apart, and a cell holds what its questions scored."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medvol.datasets.nifti import NiftiDataset

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("cells", "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(BENCHMARKS / "abdomens.py"))


def score(patient: str, target: str, dsc: float, held_out: bool, parsed: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        patient_id=patient,
        target=target,
        dsc=dsc,
        held_out=held_out,
        parsed=parsed,
        key_slice_score=dsc / 2,
        box_iou=dsc / 4,
    )


def test_a_cell_holds_means_by_patient_and_target(program: dict) -> None:
    scores = [
        score("a", "liver", 0.8, False),
        score("a", "liver", 0.0, True, parsed=False),
        score("a", "spleen", 0.5, True),
        score("phantom-1", "liver", 0.4, False),
        score("phantom-2", "aorta", 0.8, False),
    ]
    found = program["summarise"](scores)
    assert found["a"]["liver"] == {
        "cases": 2,
        "format": 0.5,
        "key_slice": 0.2,
        "box_iou": 0.1,
        "dsc": 0.4,
        "dsc_seen": 0.8,
        "dsc_held_out": 0.0,
    }
    assert found["a"]["spleen"]["dsc"] == 0.5
    assert "dsc_seen" not in found["a"]["spleen"]
    assert found["phantoms"]["all"]["dsc"] == pytest.approx(0.6)


def test_organs_that_reach_the_goal_are_counted(program: dict) -> None:
    scores = {
        "a": {"liver": {"dsc": 0.6}, "spleen": {"dsc": 0.59}, "aorta": {"dsc": 0.9}},
        "b": {"liver": {"dsc": 1.0}},
    }
    assert program["count_reached"](scores) == [2, 3]


def test_no_patient_is_in_two_parts_and_all_are_in_the_table(program: dict) -> None:
    parts = list(program["PATIENTS"].values())
    everyone = [patient for part in parts for patient in part]
    assert len(everyone) == len(set(everyone))
    lines = program["TABLE"].read_text().splitlines()[1:]
    assert {line.split(",")[4] for line in lines} == set(everyone)


def test_cells_are_read_in_the_order_of_the_rows(program: dict, tmp_path: Path) -> None:
    for row, seed in (("made", 0), ("best", 0), ("made", 1)):
        (tmp_path / f"{row}-{seed}.json").write_text(json.dumps({"row": row, "seed": seed, "scores": {}}))
    cells = program["fill"](tmp_path, SimpleNamespace(report=True))
    assert [(cell["row"], cell["seed"]) for cell in cells] == [("best", 0), ("made", 0), ("made", 1)]


@pytest.mark.real
def test_the_table_says_what_is_in_the_files(program: dict, shared_data: Path) -> None:
    cases = NiftiDataset(str(shared_data), str(program["TABLE"]))
    found = [cases[i] for i in range(len(cases))]
    counts = {(case.patient_id, case.query.target): int(case.target.sum()) for case in found}
    assert len(cases) == len(counts) == 40
    for key, voxels in {
        ("totalseg_ct_abdomen", "left kidney"): 3676,
        ("totalseg_ct_dicom", "liver"): 366708,
        ("totalseg_ct_dicom", "spleen"): 130634,
        ("totalseg_mr_abdomen", "spleen"): 1941,
        ("dcmqi_ct_seg", "liver"): 107098,
    }.items():
        assert counts[key] == voxels


@pytest.mark.slow
@pytest.mark.real
def test_a_row_is_trained_and_tested_on_other_patients(
    program: dict,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--quick", "--rows", "truth", "made", "--data", str(shared_data), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["abdomens.py", *options])
    program["main"]()
    cells = {row: json.loads((tmp_path / f"quick/cells/test/{row}-0.json").read_text()) for row in ("truth", "made")}
    assert set(cells["made"]["scores"]) == set(program["PATIENTS"]["test"])
    assert cells["truth"]["scores"]["totalseg_mr_abdomen"]["liver"]["key_slice"] > 0.8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reached"]["made-0"][1] == 5
