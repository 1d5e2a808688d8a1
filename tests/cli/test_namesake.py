"""Another distribution with this package's import name is found before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medvol
from medvol.cli import main
from tests.fixtures.distributions import write_distribution


@pytest.fixture
def namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site"
    write_distribution(place, "MedVol", "", {}, version="0.0.17")
    monkeypatch.syspath_prepend(place)
    return place


@pytest.mark.parametrize("arguments", [["--version"], ["list"], ["fit", "--config", "none.yaml"]])
def test_no_verb_runs_beside_it(arguments: list[str], namesake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("medvol: another package, MedVol 0.0.17, is installed here")
    assert "pip uninstall medvol" in said
    assert said.count("\n") == 1


def test_it_is_found_although_its_own_files_took_the_place_of_ours(namesake: Path) -> None:
    theirs = namesake / "medvol"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("class MedVol:\n    pass\n")
    for room in Path(medvol.__file__).parent.iterdir():
        if room.is_dir() and room.name != "__pycache__":
            (theirs / room.name).symlink_to(room)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", "import sys; from medvol.cli import main; sys.exit(main(['list']))"],
        env={**os.environ, "PYTHONPATH": str(namesake)},
        cwd=namesake,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "pip uninstall medvol" in ended.stderr
