"""``medvol completion``: a script with which a shell completes verbs, options and names of components.

What there is to complete is read off the parser of each verb, so nothing is written down twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

import shtab
from jsonargparse import ArgumentParser, capture_parser

from medvol.cli import VERBS
from medvol.cli.description import MODULES
from medvol.cli.hints import class_in, members
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_refusal
from medvol.core.registry import POLICIES, REGISTRIES

Shell = Literal["bash", "zsh", "fish"]

_NAMES = {"describe": "name"}
"""Verbs that take the name of any component, and the argument that is one."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Print the script of one shell.

    Raises:
        ConfigError: There is no script for that shell.
    """
    parser = ComponentParser(prog=f"medvol {verb}", description="Print a script that completes commands in a shell.")
    parser.add_argument("shell", type=Shell, help=", ".join(get_args(Shell)))
    try:
        options = parser.parse_args(list(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, {}, {"shell": Shell, "help": str}) from refusal
    print(shtab.complete(command_line(), options.shell))
    return 0


def command_line() -> argparse.ArgumentParser:
    """All verbs with their options, as plain as shells can complete them."""
    whole = argparse.ArgumentParser(prog="medvol")
    whole.add_argument("--version", action="store_true", help="the version")
    verbs = whole.add_subparsers()
    for name, verb in VERBS.items():
        part = verbs.add_parser(name, help=verb.summary, add_help=False)
        for action in _find_parser(name)._actions:
            if action.help != argparse.SUPPRESS:
                _add(part, action, name)
    return whole


def _find_parser(verb: str) -> ArgumentParser:
    """The parser that a verb makes; it is stopped before it parses."""
    parser = capture_parser(import_module(f"medvol.cli.{VERBS[verb].module}").run, verb, ["--help"])
    inner = parser._subcommands_action  # Lightning's parser has the verb as a command of its own
    found: ArgumentParser = parser if inner is None else inner.choices[verb]
    return found


def _add(part: argparse.ArgumentParser, action: argparse.Action, verb: str) -> None:
    """Add an argument with what its values can be completed to."""
    flag = action.nargs == 0
    values: dict[str, Any] = {} if flag else {"nargs": action.nargs if action.nargs in ("?", "*", "+") else None}
    kind = "store_true" if flag else "store"
    names = action.option_strings or [action.dest]
    added = part.add_argument(*names, action=kind, help=_plain(action.help), **values)
    if flag:
        return
    hint = getattr(action, "_typehint", action.type)
    choices = _choices(hint) if _NAMES.get(verb) != action.dest else [*MODULES, *_components()]
    if class_in(hint) is not None and choices == POLICIES.names():
        added.complete = _policy_or_folder(choices)  # type: ignore[attr-defined]
    elif choices:
        added.choices = choices
    else:
        added.complete = shtab.FILE  # type: ignore[attr-defined]


def _components() -> list[str]:
    return [name for registry in REGISTRIES for name in registry.names()]


def _choices(hint: Any) -> list[str]:
    """What a value can be: the members of a literal, true and false, the components of a role."""
    found = [member for member in members(hint) if member is not type(None)]
    literals = [str(word) for member in found if get_origin(member) is Literal for word in get_args(member)]
    if literals or found == [bool]:
        return literals or ["true", "false"]
    kind = getattr(class_in(hint), "component_kind", None)
    return next((registry.names() for registry in REGISTRIES if registry.kind == kind), [])


def _policy_or_folder(names: Sequence[str]) -> dict[str, Any]:
    """A policy is named, or given as the folder of a model."""
    words = " ".join(names)
    return {
        "bash": "_medvol_policy",
        "zsh": "_medvol_policy",
        "fish": "(_medvol_policy)",
        "preamble": {
            "bash": f'_medvol_policy() {{\n  compgen -W "{words}" -- "$1"\n  compgen -d -- "$1"\n}}\n',
            "zsh": f"_medvol_policy() {{\n  compadd -- {words}\n  _files -/\n}}\n",
            "fish": f"function _medvol_policy\n  printf '%s\\n' {words}\n  __fish_complete_directories\nend\n",
        },
    }


def _plain(text: str | None) -> str:
    """A help without the signs that argparse and shells would read as more."""
    return (text or "").replace("%", "%%").replace("`", "'")
