"""``medvol list``, ``describe``, ``--help`` and ``--version``."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from medvol.cli import VERBS, main
from medvol.core.registry import REGISTRIES

HEAVY = ("torch", "transformers", "lightning", "SimpleITK", "matplotlib")
EVERYTHING = [name for registry in REGISTRIES for name in registry.names()]


@pytest.mark.parametrize(
    "lines",
    [[["--help"]], [["--version"]], [["list"]], [["describe", name] for name in EVERYTHING]],
    ids=["--help", "--version", "list", "describe"],
)
def test_light_verbs_start_without_heavy_libraries(lines: list[list[str]]) -> None:
    """In a process of their own; every built-in component can be described without torch."""
    script = (
        "import sys\n"
        "from medvol.cli import main\n"
        f"codes = [main(line) for line in {lines!r}]\n"
        f"print(sum(codes), [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0 []"
    assert done.stdout


def test_no_verb_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: medvol VERB")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"medvol {version('medvol-r1')}\n"


@pytest.mark.parametrize("spelling", ["--help", "-h", "help"])
def test_help_names_every_verb(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([spelling]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb} " in text


@pytest.mark.parametrize("verb", ["segment", "list", "describe", "check", "report", "fit"])
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "medvol" in capsys.readouterr().out


def test_list_shows_every_name_with_its_distribution(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for registry in REGISTRIES:
        for name in registry.names():
            assert name in text
    assert any("ToyPolicy" in line and "medvol_toy 1.2" in line for line in text.splitlines())


def test_list_shows_why_a_plug_in_cannot_be_used(
    distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    distribution("brokendist", {"rewards": {"BrokenReward": "brokendist:BrokenReward"}}, "import no_such_library\n")
    distribution("exitdist", {"rewards": {"ExitReward": "exitdist:ExitReward"}}, "raise SystemExit(3)\n")
    distribution("untypeddist", {"rewards": {"LooseReward": "untypeddist:LooseReward"}}, UNTYPED)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "BrokenReward" in line]
    assert "unavailable" in lines[0]
    assert "brokendist 0.3" in lines[1]
    assert "No module named 'no_such_library'" in lines[1]
    assert "SystemExit: 3" in text
    assert "untyped or variable constructor parameters (weight)" in text
    assert "FormatReward" in text


UNTYPED = """
from medvol.core.roles import RewardTerm
class LooseReward(RewardTerm):
    def __init__(self, weight=1): ...
    def __call__(self, rollout, case): return 1.0
"""


def test_describe_shows_settings(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["describe", "ToyPolicy"]) == 0
    text = capsys.readouterr().out
    assert "medvol_toy 1.2, medvol_toy:ToyPolicy" in text
    assert "Always gives one answer; its one weight can be trained." in text
    rows = [line.split() for line in text.splitlines()]
    assert ["scale", "float", "1.0", "Start", "of", "the", "weight."] in rows
    assert [
        "model",
        "str",
        "or",
        "null",
        "None",
        "Folder",
        "of",
        "a",
        "saved",
        "toy,",
        "which",
        "must",
        "exist.",
    ] in rows


def test_describe_a_component_without_settings(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "ToyReward"]) == 0
    assert "no settings" in capsys.readouterr().out


def test_describe_a_broken_plug_in(distribution: Callable[..., None], refused: Callable[..., str]) -> None:
    distribution("brokendist2", {"rewards": {"BrokenReward": "brokendist2:BrokenReward"}}, "import no_such_library\n")
    text = refused("describe", "BrokenReward")
    assert "brokendist2 0.3" in text
    assert "no_such_library" in text
