"""What makes the bundled models again: its last part runs, from a trained row to a card with scores."""

import runpy
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medvol.core.training_data import TrainingData
from medvol.policies.tiny import TinyPolicy

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_row_is_finished_halved_tested_and_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("cells", "miniature", "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    program = runpy.run_path(str(BENCHMARKS / "bundled.py"))
    start = tmp_path / "start"
    policy = TinyPolicy(seed=3)
    policy.training_data = TrainingData()
    policy.save(start)
    scope = program["main"].__globals__
    monkeypatch.setitem(scope, "model_of", lambda row, seed, options: (start, 0.0))
    monkeypatch.setattr(
        sys, "argv", ["bundled.py", "--quick", "--out", str(tmp_path / "out"), "--folder", str(tmp_path / "bundled")]
    )
    program["main"]()
    began, base, best = (
        load_file(f / "model.safetensors") for f in (start, tmp_path / "bundled/base", tmp_path / "bundled/best")
    )
    assert all((base[name] == tensor.half()).all() for name, tensor in began.items()), "the base is the row itself"
    assert any((best[name] != tensor.half()).any() for name, tensor in began.items()), "the best learned on"
    card = (tmp_path / "bundled" / "best" / "README.md").read_text()
    assert "python benchmarks/bundled.py --names best --row long_same --seed 0" in card
    assert "| score | all queries | held-out phrasings | seen phrasings |" in card
    assert "ScratchModule | 2 |" in card
