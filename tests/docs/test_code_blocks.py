"""Every code block of README and documentation: Python runs, commands are parsed, settings are looked up.

A block that cannot be run has the line ``<!-- not run: REASON -->`` before it.
"""

import csv
import dataclasses
import inspect
import json
import re
import shutil
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonargparse
import pytest
import yaml
from lightning.pytorch import Trainer

import medvol
from medvol.cli import VERBS, main
from medvol.core.registry import REGISTRIES
from tests.docs.blocks import REPOSITORY, Block, all_blocks, read_blocks

LANGUAGES = {"bash", "python", "yaml", "toml", "json", "csv", "text"}
"""Those that a block may have; ``text`` is shown and never typed."""

FOREIGN = {"cd", "cp", "docker", "git", "hf", "pre-commit", "pytest", "source", "transformers", "vllm"}
"""Programs of others, whose arguments are not known here."""

ELSEWHERE = {
    "from medvol.testing import parametrize_with_checks": "the class is the reader's; tests/testing runs the decorator",
    "class AyaVisionNetwork(medvol.VLMNetwork):": "a model that is not installed; tests/policies/families runs seven",
    "import medvol\n\n\nclass AyaVisionNetwork": "a model that is not installed; tests/policies/families runs seven",
}
"""Blocks of Python that are not run, by their first lines, on pages that cannot mark them."""


class Parsed(Exception):
    """A command was understood; it goes no further."""


@pytest.fixture(scope="module")
def workspace(reader_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, for blocks that write next to nothing."""
    return shutil.copytree(reader_files, tmp_path_factory.mktemp("blocks") / "workspace")


@pytest.fixture
def stop_when_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every verb stop once its arguments are parsed."""
    parse, depth = jsonargparse.ArgumentParser.parse_args, [0]

    def parse_and_stop(self: jsonargparse.ArgumentParser, *arguments: Any, **options: Any) -> Any:
        depth[0] += 1
        try:
            found = parse(self, *arguments, **options)
        finally:
            depth[0] -= 1
        if depth[0]:
            return found
        raise Parsed

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse_and_stop)


def parametrise(*languages: str) -> pytest.MarkDecorator:
    """A test for each block of these languages that is not marked."""
    return pytest.mark.parametrize("block", [block for block in all_blocks(*languages) if not block.reason], ids=str)


def require_command(words: list[str]) -> None:
    """Refuse a command that does not exist, or whose arguments are wrong."""
    program, *arguments = words
    if program == "medvol":
        require_medvol(arguments)
    elif program == "pip":
        require_extras(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), f"the Makefile has no such target: {arguments}"
    elif program == "python" and arguments[:2] != ["-m", "venv"]:
        assert (REPOSITORY / arguments[0]).is_file(), f"there is no program {arguments[0]}"
    else:
        assert program in {*FOREIGN, "python"}, f"{program!r} is unknown; mark the block, or add the program to FOREIGN"


def require_medvol(arguments: list[str]) -> None:
    """Parse a command of medvol."""
    if arguments[0].startswith("-"):
        assert main(arguments) == 0
        return
    assert arguments[0] in VERBS, f"there is no verb {arguments[0]!r}"
    if VERBS[arguments[0]].module == "experiment":
        require_experiment(arguments[1:])
        return
    with pytest.raises(Parsed):
        main(arguments)
    if arguments[0] == "describe":
        names = [name for name in arguments[1:] if not name.startswith("-") and not name.endswith(".yaml")]
        assert all(name.isupper() or find_class(name) for name in names)


def require_experiment(arguments: list[str]) -> None:
    """Look up what an experiment is given; a whole parse takes seconds, and tests/examples runs each of them."""
    options = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    settings = yaml.safe_load(Path(options["--config"]).read_text())
    require_settings(settings)
    for option in arguments:
        if option.startswith("--") and option not in {"--config", "--ckpt_path", "--overwrite"}:
            require_option(settings, option.removeprefix("--").partition("=")[0].split("."))


def require_option(settings: dict[str, Any], path: list[str]) -> None:
    """Refuse ``--model.policy.model`` and the like where the classes of the experiment have no such setting."""
    first, *rest = path
    if first == "trainer":
        assert rest[0] in inspect.signature(Trainer).parameters, path
        return
    component = settings[first]
    for name in rest:
        cls = find_class(component["class_path"] if isinstance(component, dict) else component)
        if cls is None:
            return
        hint = get_type_hints(cls.__init__).get(name)
        assert hint is not None, f"{cls.__name__} has no setting {name!r}: {path}"
        component = component.get("init_args", {}).get(name) if isinstance(component, dict) else None
        if component is None or next(groups_of(hint), None):
            return


def require_extras(arguments: list[str]) -> None:
    """Refuse extras that the package does not have."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for asked in re.findall(r"medvol-r1\[([\w,]+)\]", " ".join(arguments)):
        assert set(asked.split(",")) <= set(extras), f"there is no such extra: {asked}"


def find_class(name: str) -> type | None:
    """A component, or a public class; None for a path into another package."""
    if name.startswith("bundled:"):
        return medvol.POLICIES["TinyPolicy"]
    for registry in REGISTRIES:
        if name in registry.names():
            found: type = registry.get(name)
            return found
    assert "." in name or name in medvol.__all__, f"there is no component {name!r}"
    return None if "." in name else getattr(medvol, name)


def require_settings(value: Any, place: str = "") -> None:
    """Refuse components and settings that do not exist, at any depth."""
    if isinstance(value, list):
        for item in value:
            require_settings(item, place)
    elif isinstance(value, dict):
        if "class_path" in value:
            require_arguments(find_class(value["class_path"]), value.get("init_args", {}))
        for key, item in value.items():
            if key in {"policy", "propagator"} and isinstance(item, str) and "/" not in item:
                find_class(item)
            require_settings(item, key)


def require_arguments(cls: type | None, settings: dict[str, Any]) -> None:
    """Refuse settings that a class does not have, those of its groups included."""
    if cls is None:
        return
    hints = get_type_hints(cls.__init__)
    known = inspect.signature(cls).parameters
    for name, value in settings.items():
        assert name in known, f"{cls.__name__} has no setting {name!r}"
        group = next((kind for kind in groups_of(hints.get(name))), None)
        if group is not None and isinstance(value, dict):
            fields = {field.name for field in dataclasses.fields(group)}
            assert set(value) <= fields, f"{group.__name__} has no {set(value) - fields}"


def groups_of(hint: Any) -> Iterator[type]:
    """Dataclasses that an annotation allows."""
    if dataclasses.is_dataclass(hint):
        yield hint  # type: ignore[misc]
    for part in get_args(hint):
        yield from groups_of(part)


def test_blocks_are_found() -> None:
    first = "<!-- not run: no scan -->\n```bash\nmedvol check x  # why\nA=1 make demo && cd y\n```"
    page = f"a\n\n{first}\n\n- b\n\n  ```python\n  x = 1\n  ```\n"
    first, second = read_blocks(page, "page.md")
    assert (first.reason, first.line, second.reason, second.code) == ("no scan", 4, "", "x = 1\n")
    assert first.commands() == [["medvol", "check", "x"], ["make", "demo"], ["cd", "y"]]
    assert len(all_blocks("bash")) >= 20


def test_every_block_says_its_language() -> None:
    found = [str(block) for block in all_blocks("", *LANGUAGES) if block.language not in LANGUAGES]
    assert found == []


@pytest.mark.parametrize(
    "words",
    [
        ["medvol", "segmnt"],
        ["medvol", "fit", "--config", "examples/quickstart.yaml", "--model.policy.wisdom", "1"],
        ["medvol", "segment", "--oot", "x"],
        ["pip", "install", "medvol-r1[none]"],
        ["make", "tea"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_found(
    words: list[str], workspace: Path, stop_when_parsed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        require_command(words)


def test_wrong_settings_are_found() -> None:
    for text in ("policy: NoPolicy", "{class_path: SFTModule, init_args: {optimizer: {rate: 1}}}"):
        with pytest.raises(AssertionError):
            require_settings(yaml.safe_load(text))


@parametrise("bash")
def test_commands(block: Block, workspace: Path, stop_when_parsed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    commands = block.commands()
    assert commands
    for words in commands:
        require_command(words)


@parametrise("yaml")
def test_settings(block: Block) -> None:
    settings = yaml.safe_load(block.code)
    assert isinstance(settings, dict)
    require_settings(settings)


@parametrise("toml", "json", "csv")
def test_files(block: Block) -> None:
    if block.language == "csv":
        assert len(set(map(len, csv.reader(block.code.splitlines())))) == 1
    else:
        assert (tomllib.loads if block.language == "toml" else json.loads)(block.code)


def runnable_pages() -> dict[str, list[Block]]:
    """Blocks of Python by their page; those of one page go on from one another."""
    pages: dict[str, list[Block]] = {}
    for block in all_blocks("python"):
        if not block.reason and not any(block.code.startswith(start) for start in ELSEWHERE):
            pages.setdefault(block.page, []).append(block)
    return pages


@pytest.mark.parametrize("page", runnable_pages())
def test_python_runs(page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.chdir(workspace)
    for block in runnable_pages()[page]:
        exec(compile("\n" * block.line + block.code, block.page, "exec"), vars(program))
