"""Ctrl-C and SIGTERM while a single scan is answered: nothing half-written, and the exit code says which."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvol.cli import main
from medvol.imaging.geometry import make_volume
from medvol.imaging.writing import write_mask
from medvol.inference import segmentation
from medvol.rollouts import groups

STOPS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])


@STOPS
@pytest.mark.parametrize("where", ["ask", "write"])
def test_one_query(
    where: str, number: int, code: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stopping(work: Callable[..., object]) -> Callable[..., object]:
        def stop(*arguments: object, **options: object) -> object:
            signal.raise_signal(number)
            return work(*arguments, **options)

        return stop

    target, name = {"ask": (groups, "build_prompts"), "write": (segmentation, "render_overlay")}[where]
    monkeypatch.setattr(target, name, stopping(getattr(target, name)))
    scan = tmp_path / "ct.nii.gz"
    write_mask(scan, np.zeros((4, 8, 8), bool), make_volume(np.zeros((4, 8, 8), np.float32), (5.0, 2.0, 2.0)))
    out = tmp_path / "out"
    arguments = ["segment", str(scan), "q", "--policy", "ToyPolicy", "--propagator", "ToyPropagator", "--out", str(out)]
    assert main(arguments) == code
    assert capsys.readouterr().err == "medvol: interrupted\n"
    written = sorted(path.suffix for path in out.iterdir()) if out.exists() else []
    assert written == ([".gz", ".json", ".png"] if where == "write" else [])
