"""``medvol list`` and ``medvol describe``: what is registered, and how it is set up; torch stays out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from medvol.cli.audit import ACCEPTED, add_options, audit
from medvol.cli.diagnosis import constructor_hints, describe_hint
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_refusal
from medvol.core.errors import UnknownComponentError
from medvol.core.registry import REGISTRIES
from medvol.core.suggestions import suggest
from medvol.core.terminal import Console


def run(verb: str, arguments: Sequence[str]) -> int:
    """List the registered components, or describe some; 1 when an audit finds something.

    Raises:
        UnknownComponentError: Nothing of that name is registered.
        ComponentImportError: It cannot be imported.
        ConfigError: Something else than rewards is audited, or a setting of the audit is at fault.
    """
    if verb == "list":
        parser = ComponentParser(prog="medvol list", description="List everything that a name in YAML can mean.")
        parser.parse_args(list(arguments))
        list_components(Console())
        return 0
    parser = ComponentParser(prog="medvol describe", description="Show what components do and how they are set.")
    parser.add_argument("name", nargs="+", type=str, help="as `medvol list` shows it; with --audit also a YAML file")
    add_options(parser)
    try:
        options = parser.parse_args(list(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, arguments, ACCEPTED) from refusal
    if options.audit:
        return audit(options.name, parser.instantiate(options), Console())
    for name in options.name:
        describe_component(name, Console())
    return 0


def list_components(console: Console) -> None:
    """Print every registered component; one that cannot be used is shown with the reason."""
    for registry in REGISTRIES:
        table = _table()
        rows = registry.describe(check=True)
        for row in rows:
            state = Text("unavailable", style="red") if row.problem else Text("")
            table.add_row(Text(f"  {row.name}"), Text(f"{row.distribution} {row.version}".strip()), state)
        console.print(Text(registry.kind, style="bold"))
        console.print(table)
        for row in rows:
            if row.problem:
                console.print(Text(f"  {row.name}: {row.problem}"), soft_wrap=True)
    console.print(Text("medvol describe NAME tells about one of them"))


def describe_component(name: str, console: Console) -> None:
    """Print purpose, origin and settings of a component.

    Raises:
        UnknownComponentError: Nothing of that name is registered.
        ComponentImportError: It cannot be imported.
    """
    found = [registry for registry in REGISTRIES if name in registry.names()]
    if not found:
        names = [known for registry in REGISTRIES for known in registry.names()]
        raise UnknownComponentError(
            f"no component is named {name!r}{suggest(name, names)}; `medvol list` shows them all"
        )
    for registry in found:
        component = registry.get(name)
        origin = next(row for row in registry.describe() if row.name == name)
        console.print(Text(name, style="bold"), Text(f"one of {registry.group}"))
        console.print(Text(f"{origin.distribution} {origin.version}".strip() + f", {origin.target}"), soft_wrap=True)
        console.print(Text(f"\n{_purpose(component)}\n"), soft_wrap=True)
        console.print(_settings(component))


def _settings(component: type) -> Table | Text:
    """Table of the constructor's parameters."""
    parameters = inspect.signature(component).parameters.values()
    if not parameters:
        return Text("no settings")
    hints = constructor_hints(component)
    meanings = _meanings(component)
    table = _table("setting", "type", "default", "meaning")
    for parameter in parameters:
        kind = describe_hint(hints[parameter.name]) if parameter.name in hints else str(parameter.annotation)
        default = "(required)" if parameter.default is parameter.empty else repr(parameter.default)
        table.add_row(*map(Text, (parameter.name, kind, default, meanings.get(parameter.name, ""))))
    return table


def _table(*heads: str) -> Table:
    table = Table(*(heads or ("", "", "")), box=None, show_header=bool(heads), header_style="bold", pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _purpose(component: type) -> str:
    """The docstring up to its list of arguments."""
    return re.split(r"\n\s*(?:Args|Attributes|Raises):", inspect.getdoc(component) or "(no description)")[0].strip()


def _meanings(component: type) -> dict[str, str]:
    """What the docstrings of a class and its parents say about each argument; the nearest one counts."""
    meanings: dict[str, str] = {}
    for parent in reversed(component.__mro__):
        section = re.search(r"\nArgs:\n(.*?)(?:\n\S|\Z)", inspect.cleandoc(parent.__doc__ or ""), re.DOTALL)
        entries = re.findall(r"^    (\w+)[^:\n]*: (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
        meanings |= {name: " ".join(text.split()) for name, text in entries}
    return meanings
