"""Pages that ``mkdocs build`` makes from the source: the API reference, the changelog and the guide for contributors.

The reference is made from ``medvol.__all__``, so that it cannot fall behind the package. Nothing of medvol is imported
but the list of its names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import medvol

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "Types": ("core.types", "core.prompts", "datasets.labelled_case", "policies.vlm.slice_features"),
    "Roles": ("core.roles", "core.weights_converter", "policies.scratch", "policies.vlm.network"),
    "Registries": ("core.registry",),
    "Scans": ("imaging",),
    "Evidence": ("grounding",),
    "Answers": ("inference",),
    "Training": ("training",),
    "Evaluation": ("evaluation", "auditing", "checking"),
    "Settings": ("datasets.settings", "policies.endpoint_parts.settings"),
    "Errors": ("core.errors",),
}
"""Sections of the reference, by the modules that the names come from."""

OTHER = "Other"
"""Section of names whose module no section has."""


def group_names() -> dict[str, list[str]]:
    """Public names by section, in the order of ``GROUPS``; every name is in one of them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in medvol.__all__:
        home = medvol._HOME.get(name)
        if home is not None and name != "testing":
            found[_section(home.removeprefix("medvol."))].append(name)
    return {title: found[title] for title in (*GROUPS, OTHER) if found[title]}


def _section(module: str) -> str:
    fitting = {start: title for title, starts in GROUPS.items() for start in starts if f"{module}.".startswith(f"{start}.")}
    return fitting[max(fitting, key=len)] if fitting else OTHER


def make_reference() -> dict[str, str]:
    """Text of each page of the reference, by its address."""
    pages = {f"api/{title.lower()}.md": _page(title, names) for title, names in group_names().items()}
    lines = [f"| [{title}]({title.lower()}.md) | {', '.join(f'`{name}`' for name in names)} |" for title, names in group_names().items()]
    lines.append("| [Contract checks](testing.md) | `medvol.testing` |")
    intro = "# API\n\nThese are all public names of `medvol`. They load at first use, so `import medvol` is fast.\n\n"
    pages["api/index.md"] = f"{intro}| page | names |\n|---|---|\n" + "\n".join(lines) + "\n"
    pages["api/testing.md"] = "# Contract checks\n\n::: medvol.testing\n    options:\n      show_root_heading: false\n"
    return pages


def _page(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(f"::: medvol.{name}" for name in names) + "\n"


def read_root_page(name: str) -> str:
    """A page of the repository's root, with its links to ``docs/`` brought to the site."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text(encoding="utf-8"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made; called by mkdocs."""
    made = make_reference() | {"changelog.md": read_root_page("CHANGELOG.md"), "contributing.md": read_root_page("CONTRIBUTING.md")}
    for address, text in made.items():
        files.append(File.generated(config, address, content=text))
    return files
