"""Short reprs: one line of at most 200 characters that prints no array, reads nothing and never raises."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvol.core.visible_text import show

LONGEST = 200
_LONGEST_VALUE = 60
_FEW = 3


class Brief:
    """Has a short repr: its class, and the settings or fields that are not at their default."""

    def __repr__(self) -> str:
        return describe_settings(self)


def describe_object(thing: object, *parts: str) -> str:
    """``Case('case-1', ...)``: the class and what is known of it; empty parts are left out."""
    return shorten(f"{type(thing).__name__}({', '.join(part for part in parts if part)})", ")")


def describe_settings(component: object, *more: str) -> str:
    """``ConsistencyReward(delta=3)``: the class and the settings that are not at their default.

    Args:
        component: It keeps each setting under its own name; where there is none, the name after an underscore counts.
        more: Further parts, such as a number of cases.
    """
    try:
        settings = [
            f"{parameter.name}={describe_value(value)}"
            for parameter in inspect.signature(type(component)).parameters.values()
            for value in kept(component, parameter.name)
            if not _same(value, parameter.default)
        ]
    except (TypeError, ValueError):  # no signature
        settings = []
    return describe_object(component, *settings, *more)


def describe_value(value: object) -> str:
    """A value in a few words; of an array its form, of a network or another object its class."""
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {'x'.join(map(str, value.shape))}>"
    if value is None or isinstance(value, bool | int | float | complex | np.generic):
        return shorten(repr(value), "", _LONGEST_VALUE)
    if isinstance(value, str | bytes):
        return shorten(repr(value[:_LONGEST_VALUE]), "'", _LONGEST_VALUE)
    if isinstance(value, Path):
        return describe_value(str(value))
    if isinstance(value, Mapping):
        return f"<{len(value)} keys>"
    if isinstance(value, list | tuple | set | frozenset):
        few = [describe_value(item) for item in list(value)[:_FEW]] + (["..."] if len(value) > _FEW else [])
        return shorten(f"[{', '.join(few)}]", "]", _LONGEST_VALUE)
    if isinstance(value, Brief):
        return shorten(repr(value), ")", _LONGEST_VALUE)
    if is_dataclass(value) and not isinstance(value, type):
        return shorten(describe_settings(value), ")", _LONGEST_VALUE)
    return f"<{type(value).__name__}>"


def shorten(text: str, end: str, longest: int = LONGEST) -> str:
    """One line without control characters; what is too long ends in ``...`` and ``end``."""
    line = show(text)
    return line if len(line) <= longest else f"{line[: longest - 3 - len(end)]}...{end}"


def kept(component: object, name: str) -> Iterable[Any]:
    """The value of a setting, when the component keeps it."""
    held = getattr(component, "__dict__", {})
    places = ((held, name), (held.get("_modules") or {}, name), (held, f"_{name}"))
    return next(([place[key]] for place, key in places if key in place), [])


def _same(value: object, default: object) -> bool:
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        value, default = list(value), list(default)
    if default is None and isinstance(value, list | tuple | dict) and not value:
        return True  # a setting that was left out and is kept as an empty one
    try:
        return value is default or bool(value == default)
    except Exception:  # of a stranger's comparison, or an array's
        return False
