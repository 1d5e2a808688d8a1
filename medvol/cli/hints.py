"""Type hints of constructors: what they say of each setting, and in which words a user is told."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {"Sequence": "list", "list": "list", "Mapping": "keys and values", "dict": "keys and values", "tuple": "list"}

_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}

_PLAIN = (bool, int, float, str, bytes, type(None), Path, object)


def constructor_hints(component: type) -> dict[str, Any]:
    """Type hints of a constructor; none when they name something that is not imported at run time."""
    try:
        source = component if is_dataclass(component) else inspect.getattr_static(component, "__init__")
        return {name: hint for name, hint in typing.get_type_hints(source).items() if name != "return"}
    except NameError:
        return {}


def members(hint: Any) -> tuple[Any, ...]:
    """What a union is made of; any other hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def class_in(hint: Any) -> type | None:
    """The class that a setting of this type names: that of a component, of each component of a list, of a group."""
    for member in members(hint):
        if inspect.isclass(member) and get_origin(member) is None:
            if member not in _PLAIN:
                return member
        elif found := next(filter(None, map(class_in, get_args(member))), None):
            return found
    return None


def group_in(hint: Any) -> type | None:
    """The class whose settings stand right below a setting of this type: a dataclass, or the trainer."""
    parts = [part for part in members(hint) if part is not type(None)]
    group = parts[0] if len(parts) == 1 and inspect.isclass(parts[0]) else None
    return group if group and (is_dataclass(group) or group.__name__ == "Trainer") else None


def follow(key: str, hints: Mapping[str, Any]) -> tuple[type | None, Mapping[str, Any]]:
    """The group that a key with dots leads into, and its type hints.

    Args:
        key: ``loss.beta``; its last part is not looked at.
        hints: Type hints of the class that has the first part.
    """
    group = None
    for part in key.split(".")[:-1]:
        group = group_in(hints.get(part))
        hints = constructor_hints(group) if group else {}
    return group, hints


def describe_hint(hint: Any) -> str:
    """A type hint in words: ``int or null``, ``one of 'paper', 'largest'``."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    parts = members(hint)
    if len(parts) > 1:
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        others = [part for part in parts if get_origin(part) is not Literal and part is not type(None)]
        names = [describe_hint(part) for part in ([Literal[tuple(words)], *others] if words else others)]
        return " or ".join([*names, "null"] if type(None) in parts else names)
    if inspect.isclass(hint) and get_origin(hint) is None:
        return str(hint.__name__)
    name = _WORDS.get(getattr(get_origin(hint), "__name__", ""), str(hint))
    inner = ", ".join("..." if argument is Ellipsis else describe_hint(argument) for argument in get_args(hint))
    return f"{name} of {inner}" if inner else name


def say_kinds(described: str) -> str:
    """What ``describe_hint`` gives, in a sentence: ``a whole number or null`` for ``int or null``."""
    return " or ".join(_KINDS.get(word, word) for word in described.split(" or "))
