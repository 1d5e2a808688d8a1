"""A small SAM 2 that benchmarks/phantom_tracker.py trained really tracks: held-out phantoms, true anchors."""

import importlib.util
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_trained_tracker_beats_region_growing_on_held_out_phantoms(monkeypatch):
    spec = importlib.util.spec_from_file_location("tracker", REPOSITORY / "benchmarks" / "phantom_tracker.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tracker", module)
    spec.loader.exec_module(module)
    figures = module.evaluate(REPOSITORY / "tests" / "propagators" / "phantom_tracker", 3)
    assert figures["tracker_dice"] > 0.8
    assert figures["tracker_dice"] > figures["region_dice"]
