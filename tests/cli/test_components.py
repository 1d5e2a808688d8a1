"""``medvol list``, ``describe``, ``--help`` and ``--version``."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from medvol.cli import VERBS, main
from medvol.cli.description import MODULES
from medvol.core.registry import REGISTRIES, Registry

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


def test_list_shows_every_name_with_its_distribution(
    distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    distribution("lightdist", {"rewards": {"LightReward": "lightdist:LightReward"}}, LIGHT)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for registry in REGISTRIES:
        for name in registry.names():
            assert any(line.startswith(f"  {name} ") for line in lines)
    place = lines.index("  LightReward  lightdist 0.3")
    assert lines[place + 1] == "      Pays for being there."
    place = lines.index(f"  SFTModule  medvol-r1 {version('medvol-r1')}")
    assert lines[place + 1] == "      Trains a policy to write the true anchors (SFT)."


LIGHT = '''
from medvol.core.roles import RewardTerm
class LightReward(RewardTerm):
    """Pays for being there. Nothing else."""
    def __call__(self, rollout, case): return 1.0
'''

UNTYPED = """
from medvol.core.roles import RewardTerm
class LooseReward(RewardTerm):
    def __init__(self, weight=1): ...
    def __call__(self, rollout, case): return 1.0
"""

BROKEN = {
    "brokendist": ("BrokenReward", "import no_such_library\n", "No module named 'no_such_library'"),
    "exitdist": ("ExitReward", "raise SystemExit(3)\n", "SystemExit: 3"),
    "stopdist": ("StopReward", "raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "enddist": ("EndReward", "import os\nos._exit(5)\n", "crashed (exit code 5)"),
    "looseddist": ("LooseReward", UNTYPED, "untyped or variable constructor parameters (weight)"),
    "printdist": ("PrintReward", "print('{' * 99999)\nprint('no json')\n1 / 0\n", "ZeroDivisionError"),
}


def install_broken(distribution: Callable[..., None]) -> None:
    for name, (reward, source, _) in BROKEN.items():
        distribution(name, {"rewards": {reward: f"{name}:{reward}"}}, source)


def test_list_shows_why_a_plug_in_cannot_be_used(
    distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install_broken(distribution)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (reward, _, reason) in BROKEN.items():
        place = lines.index(f"  {reward}  {name} 0.3  unavailable")
        assert reason in lines[place + 1]
    assert any(line.startswith("  FormatReward  medvol-r1") for line in lines)
    assert not any("{{{" in line or "no json" in line for line in lines)


def test_list_as_json(distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    install_broken(distribution)
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["components"]
    assert {tuple(row) for row in rows} == {("kind", "name", "distribution", "version", "target", "problem", "summary")}
    found = {(row["kind"], row["name"]): row for row in rows}
    assert {kind for kind, _ in found} == {"modules", "policies", "propagators", "rewards", "datasets", "engines"}
    assert all(found[registry.kind, name] for registry in REGISTRIES for name in registry.names())
    for name, (reward, _, reason) in BROKEN.items():
        assert reason in found["rewards", reward]["problem"]
        assert found["rewards", reward]["distribution"] == name
    assert found["rewards", "FormatReward"]["problem"] == ""


def test_list_shows_hostile_text_as_it_is_written(
    distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    source = LIGHT.replace("Pays for being there.", r"\x1b[31mred [bold]x[/bold] [/b].")
    distribution("reddist", {"rewards": {"LightReward": "reddist:LightReward"}}, source)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert r"      \x1b[31mred [bold]x[/bold] [/b]." in text.splitlines()


def test_describe_shows_settings(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "ToyPolicy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "ToyPolicy",
        "one of policies, medvol_toy 1.2",
        "medvol_toy:ToyPolicy",
        "",
        "Always gives one answer; its one weight can be trained.",
    ]
    place = lines.index("  scale: float = 1.0")
    assert lines[place + 1] == "      Start of the weight."
    place = lines.index("  model: str or null = null")
    assert lines[place + 1] == "      Folder of a saved toy, which must exist."


def test_describe_folds_in_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["describe", "LiteMedSAMPropagator"]) == 0
    piped = capsys.readouterr().out
    assert max(map(len, piped.splitlines())) > 120
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["describe", "LiteMedSAMPropagator"]) == 0
    folded = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, folded.splitlines())) <= 80
    assert folded.split() == piped.split()
    assert "  box_margin_px: float = 1.0" in folded.splitlines()


def test_describe_shows_nested_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "TinyPolicy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  template: PromptTemplate or null = null")
    assert "      num_slices: int = 64" in lines[place:]


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", name, "--json"]) == 0
    (page,) = json.loads(capsys.readouterr().out)["components"]
    assert page["kind"] == "modules"
    assert page["target"] == f"{MODULES[name]}:{name}"
    parameters = inspect.signature(getattr(import_module(MODULES[name]), name)).parameters
    assert [setting["name"] for setting in page["settings"]] == list(parameters)
    assert all(setting["meaning"] for setting in page["settings"])
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert [setting["name"] for setting in page["settings"] if setting["required"]] == required
    (example,) = yaml.safe_load(page["example"]).values()
    assert example["class_path"] == name
    assert set(required) <= set(example["init_args"])


def with_components(value: Any) -> Any:
    """A setting with components in the place of their names, as a configuration has it."""
    if isinstance(value, list):
        return [with_components(item) for item in value]
    found = [registry for registry in REGISTRIES if isinstance(value, str) and value in registry.names()]
    return found[0].get(value)() if found else value


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry in REGISTRIES for name in registry.names()]
)
def test_an_example_can_be_built(registry: Registry, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page shows as YAML is YAML, names the component, and its constructor takes the settings."""
    assert main(["describe", name, "--json"]) == 0
    (page,) = json.loads(capsys.readouterr().out)["components"]
    (value,) = yaml.safe_load(page["example"]).values()
    spec = value[0] if isinstance(value, list) else value
    assert spec["class_path"] == name
    settings = {key: with_components(setting) for key, setting in spec.get("init_args", {}).items()}
    assert type(registry.get(name)(**settings)).__name__ == name
    assert page["distribution"] == "medvol-r1"
    fields = {"name", "type", "required", "default", "meaning", "settings"}
    assert all(setting.keys() == fields for setting in page["settings"])


def test_describe_a_component_without_settings(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "ToyReward"]) == 0
    text = capsys.readouterr().out
    assert "no settings" in text
    assert text.endswith("in YAML\n  rewards:\n    - class_path: ToyReward\n")


def test_describe_a_broken_plug_in(distribution: Callable[..., None], refused: Callable[..., str]) -> None:
    distribution("brokendist2", {"rewards": {"BrokenReward": "brokendist2:BrokenReward"}}, "import no_such_library\n")
    text = refused("describe", "BrokenReward")
    assert "brokendist2 0.3" in text
    assert "no_such_library" in text


def test_describe_knows_no_such_name(refused: Callable[..., str]) -> None:
    assert "did you mean 'SFTModule'?" in refused("describe", "SFTModul")


@pytest.mark.parametrize("words", [["--model.policy", "ToyPolicy"], ["--model.policy.class_path=ToyPolicy"], []])
def test_a_class_of_a_notebook_does_not_hide_a_registered_one(words, experiment, capsys, monkeypatch):
    """jsonargparse would refuse to choose between two classes of one name."""
    import medvol_toy

    notebook = ModuleType("notebook")
    notebook.ToyPolicy = type("ToyPolicy", (medvol_toy.ToyPolicy,), {"__module__": "notebook"})
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    config = experiment(model__init_args__policy="TinyPolicy" if words else {"class_path": "ToyPolicy"})
    assert main(["fit", "--config", str(config), *words, "--print_config"]) == 0
    assert "class_path: medvol_toy.ToyPolicy" in capsys.readouterr().out
