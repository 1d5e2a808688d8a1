"""Says in a sentence what jsonargparse has against a setting.

Its message has the way to the setting, one line a step, and at its end the reason. What it leaves out is read off the
type hints of the class that the way leads to: the choices, the nearest name, the place where a setting belongs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from medvol.cli.hints import class_in, constructor_hints, describe_hint, follow, group_in, say_kinds
from medvol.cli.places import find_class, find_homes, subclasses
from medvol.cli.settings import FILE_SUFFIXES
from medvol.core import roles
from medvol.core.errors import MedvolError
from medvol.core.registry import REGISTRIES
from medvol.core.roles import Policy, TrainablePolicy
from medvol.core.suggestions import suggest

_KINDS = {"LightningModule": "module", "LightningDataModule": "data module", "Callback": "callback", "Logger": "logger"}

_STEP = re.compile(r"""Parser key "([^"]+)"|Problem with given class_path '([^']+)'""")
_UNKNOWN = re.compile(r"(?:Group '([^']+)' does not accept )?[oO]ption '([^']+)'|arguments: --([\w.-]+)")
_CLASS = re.compile(r"(?:import path string:|import path(?! string:)|class, but) (\S+)", re.IGNORECASE)
_PLAIN = re.compile(r"[\[({].*|-?\d[\d.e+-]*|True|False|None")
_GOT = re.compile(r"()Got value: (.*)|(load config) \"(.*)\"")
_GIVEN = re.compile(r"Given value type: <class '([\w.]+)'>\n *Given value: (.*)")


def explain(message: str, settings: Mapping[str, Any], accepted: Mapping[str, Any]) -> str | None:
    """Put a message of jsonargparse into a sentence.

    Args:
        message: As jsonargparse wrote it.
        settings: What the configuration files hold.
        accepted: Type hint of every top-level key.

    Returns:
        One sentence; None for a message that is about no setting.
    """
    path, owner, hints, hint, end = "", None, accepted, None, 0
    for step in _STEP.finditer(message):
        end = step.end()
        if step[1]:
            path, hint = f"{path}.{step[1]}".lstrip("."), follow(step[1], hints)[1].get(step[1].rpartition(".")[2])
            continue
        owner = find_class(step[2], None)
        if owner is None:
            why = "does not exist" if step[2].endswith(FILE_SUFFIXES) else f"cannot be imported{message[end:]}"
            return f"{path}: {step[2]!r} {' '.join(why.split()[:12])}"
        path, hints, hint = path if group_in(hint) else f"{path}.init_args", constructor_hints(owner), None
    reason = message[end:]
    if unknown := _UNKNOWN.search(reason):
        key = ".".join(filter(None, unknown.groups()))
        known = path or key.partition(".")[0] in {*accepted, *settings} or find_homes(key, settings, accepted)
        return say_unknown(key, path, owner, hints, find_homes(key, settings, accepted)) if known else None
    if owner and (missing := re.search(r"arguments are required: (\w+)", reason)):
        return f"{owner.__name__} needs '{path}.{missing[1]}'; set it in the configuration or on the command line"
    return _say_wrong(path, hint, reason) if hint is not None else None


def say_unknown(key: str, path: str, owner: type | None, hints: Mapping[str, Any], homes: list[str]) -> str:
    """Refuse a key that nothing has; name the one that is meant.

    Args:
        key: What was given, seen from the owner.
        path: Whole key of the owner.
        owner: Class that has no such setting; None at the top.
        hints: Type hints of the owner.
        homes: From ``find_homes``.
    """
    if "." in key:
        owner, hints = follow(key, hints)
    whole, name = f"{path}.{key}".lstrip("."), key.rpartition(".")[2]
    below = [home for home in homes if home.startswith(f"{path.replace('.init_args', '')}.")]
    right = next((found[0] for found in (below, homes) if len(found) == 1), None)
    right = right or next((known for known in hints if not path and known.startswith(name)), None)
    near = f"; did you mean {right!r}?" if right else suggest(name, hints)
    lacking = f": {owner.__name__} has no setting {name!r}" if owner else ""
    return f"unknown key {whole!r}{lacking}{near or '; its settings are ' + (', '.join(hints) or 'none')}"


def _say_wrong(path: str, hint: Any, reason: str) -> str:
    """Refuse a value: the name of a class, or anything else."""
    role, named = class_in(hint), _CLASS.search(reason)
    if role and named and named[1].rpartition(".")[2] != role.__name__:
        return f"{path}: {_say_class(named[1], role)}"
    if role and (named or "valid subclass" in reason or "import path" in reason):
        wanted = f"must name a {role.__name__}, or hold class_path and init_args"
    else:
        wanted = f"must be {say_kinds(describe_hint(hint))}"
    found = (_GIVEN if "Does not validate" in reason else _GOT).search(reason)
    if found is None:
        said = [line.strip(" -:") for line in reason.splitlines() if "Expected a path" not in line]
        return f"{path} {wanted}" if named else f"{path}: {next(filter(None, said), wanted)}"
    kind, value = (part for part in found.groups() if part is not None)
    shown = value if kind not in ("", "str", "load config") or (not kind and _PLAIN.fullmatch(value)) else repr(value)
    listed = not kind and shown != value and re.search("Sequence|list|Iterable", reason)
    return f"{path} {wanted}; got {shown}{f': write [{value}]' if listed else ''}"


def _say_class(name: str, role: type) -> str:
    """Why a name cannot take the place of a role, and what can."""
    registry = next((known for known in REGISTRIES if issubclass(role, getattr(roles, known.role))), None)
    try:
        component = registry.get(name) if registry and "." not in name else find_class(name, role)
    except MedvolError as error:
        return str(error)
    if inspect.isclass(component) and issubclass(component, Policy) and role is TrainablePolicy:
        return (
            f"{name!r} has nothing to train, so it is not a TrainablePolicy; train another one, such as QwenVLPolicy, "
            "or set model.class_path to EvaluationModule and score it with `medvol test`"
        )
    if component and not inspect.isabstract(component):
        return f"{name!r} is not a {role.__name__}; name one that is"
    if inspect.isclass(component) and component is not role and component.__module__.partition(".")[0] != "medvol":
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        return f"{name!r} is not whole: it does not define {missing}, which a {role.__name__} has"
    kind = _KINDS.get(role.__name__, role.__name__)
    known = {found.__name__: found.__module__ for found in subclasses(role) if not inspect.isabstract(found)}
    origin = "medvol." if kind.endswith("module") else "lightning."
    own = [key for key in known if known[key].startswith(origin) and not key.startswith("_")] or list(known)
    return f"there is no {kind} {name!r}; choices: {', '.join(sorted(own))}{suggest(name, known)}"
