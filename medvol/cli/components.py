"""``medvol list`` and ``medvol describe``: what YAML can name, and how it is set up.

The names come from metadata. Whether a component can be used is found out in another process, so that no plug-in can
stop the list; torch stays out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from rich.text import Text

from medvol.cli.audit import ACCEPTED, add_options, audit, require_audit
from medvol.cli.description import describe, module_rows
from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_refusal
from medvol.core.registry import REGISTRIES, Registration
from medvol.core.visible_text import show
from medvol.guarding.probing import probe
from medvol.terminal.console import Console

LIST_SCHEMA = "medvol-list/1"
DESCRIBE_SCHEMA = "medvol-describe/1"


def run(verb: str, arguments: Sequence[str]) -> int:
    """List the registered components, or describe some; 1 when an audit finds something.

    Raises:
        UnknownComponentError: Nothing of that name is registered.
        ComponentImportError: It cannot be imported.
        ConfigError: Something else than rewards is audited, or a setting of the audit is at fault.
    """
    if verb == "list":
        return _run_list(arguments)
    parser = ComponentParser(prog="medvol describe", description="Show what components do and how they are set.")
    parser.add_argument("name", nargs="+", type=str, help="as `medvol list` shows it; with --audit also a YAML file")
    add_options(parser)
    try:
        options = parser.parse_args(list(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, {}, ACCEPTED) from refusal
    require_audit(options)
    if options.audit:
        return audit(options.name, parser.instantiate(options), Console())
    pages = [page for name in options.name for page in describe(name)]
    if options.json:
        print_document(DESCRIBE_SCHEMA, {"components": [page.to_dict() for page in pages]})
        return 0
    console = Console()
    for number, page in enumerate(pages):
        _print(["", *page.lines(_width(console))][not number :], console)
    return 0


def _run_list(arguments: Sequence[str]) -> int:
    parser = ComponentParser(prog="medvol list", description="List all names that can be used in YAML.")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    options = parser.parse_args(list(arguments))
    rows = [*module_rows(), *probe([row for registry in REGISTRIES for row in registry.describe()])]
    if options.json:
        print_document(LIST_SCHEMA, {"components": [asdict(row) for row in rows]})
        return 0
    console = Console()
    for kind, group in groupby(rows, key=lambda row: row.kind):
        console.print(Text(kind, style="bold"))
        for row in group:
            _print(_row_lines(row), console)
    console.print(Text("medvol describe NAME explains one of them"))
    return 0


def _row_lines(row: Registration) -> Iterator[str]:
    """Name and origin; below, what it is, or why it cannot be used."""
    state = "  unavailable" if row.problem else ""
    yield f"  {row.name}  {row.distribution} {row.version}".rstrip() + state
    if row.problem or row.summary:
        yield f"      {row.problem or row.summary}"


def _width(console: Console) -> int | None:
    """Lines are folded in a terminal, and left whole for a pipe."""
    return console.width if console.is_terminal else None


def _print(lines: Sequence[str] | Iterator[str], console: Console) -> None:
    for line in lines:
        console.print(Text(show(line)), soft_wrap=True)
