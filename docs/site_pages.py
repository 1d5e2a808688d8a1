"""Pages that ``mkdocs build`` makes from the source: API reference, tutorial, changelog and guide for contributors.

The reference is made from ``medvol.__all__``, so that it cannot fall behind the package.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import medvol

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "Types": ("core.types", "core.looks", "core.prompts", "datasets.labelled_case", "policies.vlm.slice_features"),
    "Roles": ("core.roles", "core.served_form", "core.weights_converter", "policies.scratch", "policies.vlm.network"),
    "Registries": ("core.registry",),
    "Scans": ("imaging",),
    "Evidence": ("grounding",),
    "Answers": ("inference",),
    "Training": ("training",),
    "Evaluation": ("evaluation", "auditing", "checking"),
    "Settings": (
        "datasets.settings",
        "datasets.appearance",
        "datasets.deformation",
        "grounding.regions",
        "policies.endpoint_parts.settings",
    ),
    "Errors": ("core.errors",),
}
"""Sections of the reference, by the modules that the names come from."""

OTHER = "Other"
"""Section of names whose module no section has."""


def group_names() -> dict[str, list[str]]:
    """Public names by section, in the order of ``GROUPS``; every name is in one of them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, home in medvol._HOME.items():
        if name != "testing":
            found[_section(home.removeprefix("medvol."))].append(name)
    return {title: found[title] for title in (*GROUPS, OTHER) if found[title]}


def _section(module: str) -> str:
    starts = {start: title for title, starts in GROUPS.items() for start in starts}
    fitting = [start for start in starts if f"{module}.".startswith(f"{start}.")]
    return starts[max(fitting, key=len)] if fitting else OTHER


def make_reference() -> dict[str, str]:
    """Text of each page of the reference, by its address."""
    groups = group_names()
    pages = {
        f"api/{title.lower()}.md": f"# {title}\n\n" + "\n\n".join(f"::: medvol.{name}" for name in names) + "\n"
        for title, names in groups.items()
    }
    rows = [f"| [{title}]({title.lower()}.md) | {', '.join(map(_code, names))} |" for title, names in groups.items()]
    rows.append(f"| [Contract checks](testing.md) | {', '.join(map(_code, medvol.testing.__all__))} |")
    pages["api/index.md"] = (
        "# API\n\nThese are all public names of `medvol`. They load at first use, so `import medvol` is fast.\n\n"
        "| page | names |\n|---|---|\n" + "\n".join(rows) + "\n"
    )
    checks = "\n\n".join(f"::: medvol.testing.{name}" for name in medvol.testing.__all__)
    pages["api/testing.md"] = f"# Contract checks\n\nThe public names of `medvol.testing`.\n\n{checks}\n"
    return pages


def _code(name: str) -> str:
    return f"`{name}`"


def make_tutorial() -> str:
    """The notebook as a page: its texts and its code."""
    cells = json.loads((ROOT / "examples" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell in cells
        for text in ["".join(cell["source"])]
    ]
    note = (
        "This page is the notebook `examples/tutorial.ipynb`. Open it in Jupyter to run it.\n\n"
        "![What the notebook shows: the evidence, its mask, and the mask of the corrected box](images/evidence.png)"
    )
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"


def read_root_page(name: str) -> str:
    """A page of the repository's root, with its links to ``docs/`` brought to the site."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text(encoding="utf-8"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made; called by mkdocs."""
    made = {
        **make_reference(),
        "tutorial.md": make_tutorial(),
        "changelog.md": read_root_page("CHANGELOG.md"),
        "contributing.md": read_root_page("CONTRIBUTING.md"),
    }
    for address, text in made.items():
        files.append(File.generated(config, address, content=text))
    return files
