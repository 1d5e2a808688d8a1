"""The benchmark of confidence scores: its arithmetic on made rows, and a run over one volume a study."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from medvol.core.types import Evidence
from medvol.imaging.geometry import make_volume
from medvol.propagators.extrude import ExtrudePropagator

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        for name in ("cells", "changed_copies", "peers", "real_patients"):
            patch.delitem(sys.modules, name, raising=False)
        yield runpy.run_path(str(BENCHMARKS / "confidence.py"))


def test_a_score_that_knows_gains_all_and_one_that_does_not_gains_nothing(program):
    rows = [
        {"case": str(i), "patient": str(i), "present": True, "dsc": i / 9, **dict.fromkeys(program["SCORES"], 0.5)}
        for i in range(10)
    ]
    for row in rows:
        row["masks"] = row["dsc"] ** 2
        row["anchors"] = 1 - row["dsc"]
    found = program["measure"](rows)
    assert (found["masks"]["gain"]["value"], found["masks"]["rank_correlation"]["value"]) == (1, 1)
    assert found["anchors"]["rank_correlation"]["value"] == -1
    assert found["support"]["gain"]["value"] == 0
    assert found["masks"]["aurc"] == found["aurc_perfect"]
    assert found["masks"]["dsc_of_surer_half"] == pytest.approx(np.mean(np.arange(5, 10)) / 9, abs=1e-4)


def test_a_mask_comes_back_from_another_slice(program):
    """Extruded two slices to either side, slice 5 gives 3 to 7 and slice 4 gives 2 to 6, which share 3 to 6."""
    volume = make_volume(np.zeros((12, 8, 8), np.float32), (5, 1, 1))
    propagator, anchor = ExtrudePropagator(half_depth_slices=2), Evidence(5, np.array([[2.0, 2, 6, 6]]))
    mask = propagator.propagate(volume, anchor)
    assert program["come_back"](volume, mask, anchor, propagator) == pytest.approx(2 * 4 / 10)
    assert program["come_back"](volume, mask & False, Evidence(None, np.empty((0, 4))), propagator) == 1


@pytest.mark.slow
def test_quick(program, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["confidence.py", "--quick", "--out", str(tmp_path)])
    program["main"]()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["chosen"] in program["SCORES"]
    rows = json.loads((tmp_path / "quick" / "phantoms-best-test.json").read_text())["rows"]
    assert len(rows) > 10
    assert all(0 <= row[name] <= 1 for row in rows for name in program["SCORES"])


def test_a_report_without_a_study_is_refused(program, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        program["summarise"](argparse.Namespace(out=tmp_path))
    assert caught.value.code == 2
    assert "run without --report first" in capsys.readouterr().err
