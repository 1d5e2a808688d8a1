"""What a docstring in Google's style says: its first sentence, its purpose, the meaning of each argument."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

_LONGEST = 200


def first_sentence(docstring: str | None) -> str:
    """The first sentence on one line, cut where it is very long; empty without a docstring."""
    paragraph = " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph, maxsplit=1)[0]
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 3]}..."


def unimported_docstring(module: str, name: str) -> str | None:
    """Docstring of a class, read from its module's source without running it; its packages are imported."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return ast.get_docstring(found)


def purpose(component: type) -> str:
    """The docstring up to its list of arguments."""
    text = re.split(r"\n\s*(?:Args|Attributes|Raises):", inspect.getdoc(component) or "")[0].strip()
    return text or "(no description)"


def meanings(component: type) -> dict[str, str]:
    """What the docstrings of a class and its parents say about each argument; the nearest one counts."""
    found: dict[str, str] = {}
    for parent in reversed(component.__mro__):
        section = re.search(r"\nArgs:\n(.*?)(?:\n\S|\Z)", inspect.cleandoc(parent.__doc__ or ""), re.DOTALL)
        entries = re.findall(r"^    (\w+)[^:\n]*: (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found
