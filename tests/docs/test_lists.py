"""Lists and blocks of every page, as the site shows them: Python-Markdown asks for more than GitHub does.

A list needs an empty line before it, and what belongs to one of its items is indented by four spaces.
"""

import re
from pathlib import Path

import markdown
import pytest
import yaml

from medvol.cli import VERBS
from tests.docs.blocks import PAGES, REPOSITORY

_LEFT = re.compile(r"^\s*(?:[-*+] |\d+\. |```)")
"""Start of a line that should have become an item or a block."""


class _Settings(yaml.SafeLoader):
    """Reads ``mkdocs.yml``, whose tags name Python objects; they are not needed here."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def left_over(text: str) -> list[str]:
    """Lines of a rendered page that still have the marker of an item or of a block."""
    listed = yaml.load((REPOSITORY / "mkdocs.yml").read_text(), _Settings)["markdown_extensions"]
    extensions, options = [], {}
    for entry in listed:
        name, settings = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        extensions.append(name)
        options[name] = settings
    html = markdown.markdown(text, extensions=extensions, extension_configs=options)
    html = re.sub(r"<pre\b.*?</pre>", "", html, flags=re.DOTALL)
    shown = re.sub(r"<[^>]+>", "", re.sub(r"<(?:p|li|td)>", "\n\n", html))
    return [line.strip() for line in shown.splitlines() if _LEFT.match(line)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Text:\n- one\n- two\n", ["- one", "- two"]),
        ("Text:\n\n- one\n- two\n", []),
        ("1. one\n\n   ```bash\n   ls\n   ```\n2. two\n", ["2. two"]),
        ("1. one\n\n    ```bash\n    ls\n    ```\n\n2. two\n", []),
        ("```text\n- one\n```\n", []),
        ("a - b, and -3\n", []),
    ],
)
def test_what_is_left_is_found(text: str, found: list[str]) -> None:
    assert left_over(text) == found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_list_is_a_list(page: Path) -> None:
    assert left_over(page.read_text()) == []


def test_the_reference_has_every_verb() -> None:
    table = (REPOSITORY / "docs" / "reference.md").read_text().split("## Verbs\n")[1].split("\n\n")[0]
    first = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {word for cell in first for word in re.findall(r"`(\w+)", cell)} == set(VERBS)
