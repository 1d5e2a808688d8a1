"""A benchmark that lacks a library or a folder says so in one sentence."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("peers", "cells"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import peers

    return peers


@pytest.mark.parametrize("program", ["loading", "propagation", "grpo_step", "real_patients"])
def test_a_missing_library_is_one_sentence(peers, monkeypatch, capsys, program):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", [f"{program}.py"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BENCHMARKS / f"{program}.py"), run_name="__main__")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{program}.py: ")
    assert line.endswith('is needed here but is not installed; run: pip install "medvol-r1[bench]"')


def test_a_missing_folder_is_one_sentence(peers, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peers, "find_spec", lambda name: "there")
    monkeypatch.setattr(sys, "argv", ["real_patients.py", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BENCHMARKS / "real_patients.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "set --data to the folder of the data" in capsys.readouterr().err


def test_the_extra_holds_every_library_that_a_program_needs():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    held = {re.split(r"[<>=;\[]", line)[0].replace("-", "_") for line in extras["bench"]}
    texts = [path.read_text() for path in BENCHMARKS.glob("*.py") if path.name != "peers.py"]
    calls = [call for text in texts for call in re.findall(r"\bneed\((.*)\)|\bmissing\(([^()]*)\)", text)]
    named = {name for call in calls for name in re.findall(r'"(\w+)"', "".join(call))} | {"monai", "torchio"}
    assert named <= held
