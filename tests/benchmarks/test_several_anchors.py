"""The benchmark of several anchors: the rows of true anchors run, and the committed table is that of its cells."""

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("cells", "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(BENCHMARKS / "several_anchors.py"))


def test_the_committed_table_is_that_of_the_committed_cells(program: dict) -> None:
    kept = json.loads((BENCHMARKS / "results" / "several_anchors.json").read_text())
    cells = sys.modules["cells"].read_cells(BENCHMARKS / "results" / "several_anchors")
    assert json.loads(json.dumps(program["summarise"](cells))) == kept
    assert kept["rows"]["true_four"]["seen"]["low"] > kept["rows"]["true_one"]["seen"]["high"]


@pytest.mark.slow
def test_several_true_anchors_reach_more_than_one(
    program: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--rows", "true_one", "true_four"]
    monkeypatch.setattr(sys, "argv", ["several_anchors.py", "--quick", *rows, "--out", str(tmp_path)])
    program["main"]()
    cells = sys.modules["cells"].read_cells(tmp_path / "quick" / "test")
    found = sys.modules["cells"].mean_interval
    one, four = (found([cells[row][0]], "seen")["mean"] for row in ("true_one", "true_four"))
    assert four > one + 0.1
    assert "| up to four true anchors | 1 | 0 | 1.000 |" in capsys.readouterr().out
