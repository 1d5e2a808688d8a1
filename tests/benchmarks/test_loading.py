"""The loading benchmark runs and prints its ratios; what they are is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "loading.py"


@pytest.mark.slow
def test_quick() -> None:
    pytest.importorskip("monai")
    pytest.importorskip("torchio")
    done = subprocess.run([sys.executable, PROGRAM, "--quick"], capture_output=True, text=True, check=True)
    ratios = json.loads(done.stdout.splitlines()[-1])
    assert set(ratios) == {"warm_ratio", "cold_ratio", "memory_ratio"}
    assert all(ratio > 0 for ratio in ratios.values())
