"""``medvol completion``: the scripts, tried in real shells where they are installed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medvol.cli import VERBS, main
from medvol.core.registry import POLICIES

Complete = Callable[..., list[str]]

TRY = """
source "$1"; shift
COMP_WORDS=(medvol "$@"); COMP_CWORD=$#; COMPREPLY=()
_shtab_medvol medvol "${@: -1}" medvol
printf '%s\\n' "${COMPREPLY[@]}"
"""


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here; the package of that name brings it")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of every shell."""
    folder = tmp_path_factory.mktemp("scripts")
    written = {}
    with pytest.MonkeyPatch.context() as patch:
        for shell in ("bash", "zsh", "fish"):
            text: list[str] = []
            patch.setattr("builtins.print", text.append)
            assert main(["completion", shell]) == 0
            written[shell] = folder / shell
            written[shell].write_text("".join(text))
    return written


@pytest.fixture
def complete(scripts: dict[str, Path], tmp_path: Path) -> Complete:
    """What bash offers for the last word, in a folder with a scan and a model."""
    needs("bash")
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "scan.nii.gz").touch()

    def run(*words: str) -> list[str]:
        command = ["bash", "-c", TRY, "bash", scripts["bash"], *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return run


def test_bash_completes_verbs(complete: Complete) -> None:
    assert complete("") == list(VERBS)
    assert complete("seg") == ["segment"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["segment", "sc"], ["scan.nii.gz"]),
        (["segment", "scan.nii.gz", "q", "--nan"], ["--nan_to"]),
        (["segment", "scan.nii.gz", "q", "--propagator", "Reg"], ["RegionPropagator"]),
        (["segment", "scan.nii.gz", "q", "--policy", "Tin"], ["TinyPolicy"]),
        (["segment", "scan.nii.gz", "q", "--policy", "ru"], ["runs"]),
        (["segment", "scan.nii.gz", "q", "--modality", ""], ["CT", "MR", "other"]),
        (["describe", "FormatReward", "Spa"], ["SpatialReward"]),
        (["describe", "SFT"], ["SFTModule"]),
        (["fit", "--trainer.max_st"], ["--trainer.max_steps"]),
        (["check", "scan.nii.gz", "--js"], ["--json"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["new", "plugin", "medvol-acme", "--roles", "re"], ["reward"]),
    ],
    ids=" ".join,
)
def test_bash_completes_options_and_values(complete: Complete, words: list[str], found: list[str]) -> None:
    assert complete(*words) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_script(scripts: dict[str, Path], shell: str) -> None:
    assert all(name in scripts[shell].read_text() for name in [*VERBS, *POLICIES.names()])
    needs(shell)
    assert subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True, check=True).stderr == ""


def test_fish_completes(scripts: dict[str, Path], tmp_path: Path) -> None:
    needs("fish")
    asked = f"source {scripts['fish']}; complete -C 'medvol seg'; complete -C 'medvol describe FormatR'"
    done = subprocess.run(["fish", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == ["segment", "FormatReward"]


def test_an_unknown_shell_is_refused(refused: Callable[..., str]) -> None:
    assert "one of 'bash', 'zsh', 'fish'" in refused("completion", "cmd")
