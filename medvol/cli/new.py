"""``medvol new plugin``: a distribution with components of one's own, which works as it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

import medvol
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_refusal
from medvol.cli.path_options import require_path_options
from medvol.core.atomic_files import write_whole_folder
from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.registry import REGISTRIES
from medvol.core.visible_text import show
from medvol.terminal.console import Console

TEMPLATE = Path(medvol.__file__).parent / "templates" / "plugin"
"""The template of copier."""

ROLES = {"policy": "Policy", "propagator": "Propagator", "reward": "Reward", "dataset": "Dataset"}
"""Ending of the class of each role."""

Role = Literal["policy", "propagator", "reward", "dataset"]
License = Literal["Apache-2.0", "BSD-3-Clause", "MIT"]

_ACCEPTED: dict[str, Any] = {
    "what": Literal["plugin"],
    "roles": list[Role],
    "license": License,
    **dict.fromkeys(("name", "folder", "author", "help"), str),
}
"""Type hints of the options."""

_RESERVED = {"medvol", "medvol-r1", "test", "tests", "src", "sample", "con", "prn", "aux", "nul"}
_LONGEST = 40


def run(verb: str, arguments: Sequence[str]) -> int:
    """Write a plug-in into a new folder.

    Raises:
        ConfigError: The name cannot be used, the folder is there already, or an option is at fault.
        MissingExtraError: copier is not installed.
    """
    try:
        options = _parser(verb).parse_args(list(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, {}, _ACCEPTED) from refusal
    require_path_options(options, "--folder")
    roles = [role for role in ROLES if role in (options.roles or ROLES)]
    name = judge_name(options.name, roles)
    author = _judge_author(options.author or f"the authors of {name}")
    folder = Path(options.folder) / name
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{str(folder)!r} is there already; choose another name, or another --folder")
    write_plugin(folder, name, roles, options.license, author)
    _say_what_next(folder, roles)
    return 0


def judge_name(name: str, roles: Sequence[str]) -> str:
    """The normal form of a distribution's name.

    Args:
        name: As the user wrote it; ``Medvol_Acme`` means ``medvol-acme``.
        roles: What the plug-in brings.

    Raises:
        ConfigError: It is no name of a distribution, or it, its module or a class of it is taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name) or len(name) > _LONGEST:
        raise ConfigError(
            f"{name!r} cannot name a distribution; write up to {_LONGEST} letters, digits and hyphens: medvol-acme"
        )
    normal = re.sub(r"[-_.]+", "-", name).lower()
    module, prefix = module_of(normal), prefix_of(normal)
    if normal in _RESERVED or iskeyword(module) or module in sys.stdlib_module_names:
        raise ConfigError(f"{name!r} is a reserved name; choose another one, such as medvol-acme")
    if not (module.isidentifier() and prefix.isidentifier()):
        raise ConfigError(f"{name!r} gives the class {prefix}{ROLES[roles[0]]}, and a class begins with a letter")
    if _is_installed(normal, module):
        raise ConfigError(f"{name!r} is installed in this environment already; choose another name")
    taken = [f"{prefix}{ROLES[role]}" for role in roles]
    for registry in REGISTRIES:
        for known in registry.names():
            if known in taken:
                raise ConfigError(f"{name!r} gives the class {known}, which is registered already; choose another name")
    return normal


def module_of(name: str) -> str:
    """Module of a distribution, by its normal name."""
    return name.replace("-", "_")


def prefix_of(name: str) -> str:
    """How the names of its classes begin: ``AcmeLab`` for ``medvol-acme-lab``."""
    return "".join(part.capitalize() for part in name.removeprefix("medvol-").split("-"))


def write_plugin(folder: Path, name: str, roles: Sequence[str], license: License, author: str) -> None:
    """Render the template; the folder is there as a whole or not at all.

    Args:
        folder: Made.
        name: Normal name of the distribution.
        roles: Out of ``ROLES``.
        license: Its SPDX name.
        author: Named by the licence and the metadata.

    Raises:
        MissingExtraError: copier is not installed.
    """
    try:
        from copier import run_copy
    except ImportError as error:
        raise MissingExtraError("copier", "plugin", "medvol new plugin") from error
    major, minor, *_ = version("medvol-r1").split(".")
    answers = {"name": name, "roles": list(roles), "license": license, "author": author}
    with write_whole_folder(folder) as partial:
        run_copy(str(TEMPLATE), partial, {**answers, "medvol_version": f"{major}.{minor}"}, defaults=True, quiet=True)


def _parser(verb: str) -> ComponentParser:
    parser = ComponentParser(
        prog=f"medvol {verb}",
        usage=f"medvol {verb} plugin NAME [--roles ROLE ...]",
        description="Write a plug-in that works, for your own idea.",
    )
    parser.add_argument("what", type=Literal["plugin"], help="what to write: plugin")
    parser.add_argument("name", type=str, help="name of the distribution, such as medvol-acme")
    parser.add_argument("--roles", nargs="+", type=Role, help="what it brings; all by default")
    parser.add_argument("--folder", type=str, default=".", help="where its folder is made")
    parser.add_argument("--license", type=License, default="Apache-2.0", help="its licence")
    parser.add_argument("--author", type=str | None, default=None, help="who the licence and the metadata name")
    return parser


def _judge_author(author: str) -> str:
    if not author.strip() or not author.isprintable() or set('"\\') & set(author):
        raise ConfigError(f"--author is a name without quotation marks and backslashes; got {author!r}")
    return author.strip()


def _is_installed(name: str, module: str) -> bool:
    """Whether a distribution of the name, or a module that would be hidden, is in this environment."""
    try:
        distribution(name)
    except PackageNotFoundError:
        found = find_spec(module)
        return found is not None and found.origin is not None
    return True


def _say_what_next(folder: Path, roles: Sequence[str]) -> None:
    place, console = show(folder), Console()
    console.print(Text(f"{place} has {', '.join(roles)}; its README.md says what each promises"), soft_wrap=True)
    console.print(Text(f'next: pip install --editable "{place}[test]", then pytest "{place}"'), soft_wrap=True)
