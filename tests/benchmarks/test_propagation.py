"""The propagation benchmark runs, agrees with upstream and prints its figures; how fast it is, is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "propagation.py"


@pytest.mark.slow
def test_quick() -> None:
    pytest.importorskip("sam2", reason="the extra sam2 is not installed")
    done = subprocess.run([sys.executable, PROGRAM, "--quick"], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert all(figures[name] > 0 for name in ("cold_ratio", "warm_ratio"))
    assert 0 < figures["encoder_share"] < 1
    assert figures["parity_max_logit_diff"] < 1e-4
    assert figures["unequal_max_logit"] < 1e-5
