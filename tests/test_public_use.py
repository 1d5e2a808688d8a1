"""Examples, documentation and plug-ins need public names only: their imports and their dotted names are read."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import medvol
import medvol.testing
from medvol.core.registry import REGISTRIES
from medvol.grounding.grammar import FAILURES

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = sorted([*REPOSITORY.glob("examples/*.py"), *REPOSITORY.glob("plugins/**/*.py")])
PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("plugins/*/*.md")])
CONFIGURATIONS = sorted(REPOSITORY.glob("examples/*.yaml"))

NO_NAMES = {"medvol.json", "medvol.families", *(f"medvol.{registry.kind}" for registry in REGISTRIES)}
"""A file of a model folder, and entry-point groups."""


def is_public(name: str) -> bool:
    """Whether a dotted name begins with a public one: ``medvol.Case``, ``medvol.testing.check_reward``."""
    if name in {"medvol", "medvol.testing", *NO_NAMES}:
        return True
    _, first, *rest = name.split(".")
    return rest[0] in medvol.testing.__all__ if first == "testing" else first in medvol.__all__


def names_in_code(source: str) -> Iterator[str]:
    """Every name of medvol that a program imports, or reads from what it imported."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def names_in_text(text: str) -> Iterator[str]:
    """Every dotted name of medvol in prose, YAML or a command, and those in blocks of Python."""
    for block in re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield from names_in_code(textwrap.dedent(block))
    yield from re.findall(r"(?<![\w./-])medvol(?:\.\w+)+", text)


def private(names: Iterator[str]) -> list[str]:
    return sorted({name for name in names if re.match(r"medvol\b", name) and not is_public(name)})


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_uses_public_names(path: Path) -> None:
    assert private(names_in_code(path.read_text())) == []


@pytest.mark.parametrize("path", [*PAGES, *CONFIGURATIONS], ids=lambda path: path.name)
def test_a_page_names_public_names(path: Path) -> None:
    assert private(names_in_text(path.read_text())) == []


def test_a_private_name_is_found() -> None:
    program = "import medvol.core.types\nfrom medvol.cli import main\nmedvol.Nothing\nmedvol.testing.hidden()"
    found = ["medvol.Nothing", "medvol.cli.main", "medvol.core.types", "medvol.testing.hidden"]
    assert private(names_in_code(program)) == found
    page = "See `medvol.guarding.guard`, medvol.Case.\n\n   ```python\n   from medvol.core import roles\n   ```\n"
    assert private(names_in_text(page)) == ["medvol.core", "medvol.core.roles", "medvol.guarding.guard"]
    assert len(PROGRAMS) >= 7
    assert len(PAGES) >= 12


def test_the_reference_has_every_failure_of_an_answer() -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", text, re.MULTILINE))
    assert {name: rows.get(name) for name in FAILURES} == FAILURES
