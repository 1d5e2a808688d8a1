"""Where settings stand: every class whose settings a configuration holds or could hold, with their key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple, cast

from medvol.cli.hints import class_in, constructor_hints, group_in
from medvol.cli.settings import FILE_SUFFIXES
from medvol.core.registry import REGISTRIES

_SPEC = {"class_path", "init_args", "dict_kwargs"}
"""What a mapping that names a component may hold."""

_DEEPEST = 12


class Place(NamedTuple):
    """Settings of one class.

    Args:
        key: Whole key of the mapping that holds them.
        component: The class.
        given: What the configuration holds there.
        stray: Keys beside ``class_path`` that do not belong there.
    """

    key: str
    component: type
    given: Any
    stray: list[str]


def find_places(settings: Mapping[str, Any], hints: Mapping[str, Any], path: str = "") -> Iterator[Place]:
    """Every place below some settings, groups that are left out included.

    Args:
        settings: What a configuration holds.
        hints: Type hints of their keys.
        path: Whole key of the settings.
    """
    for name, hint in hints.items():
        key, given, stray = f"{path}.{name}".lstrip("."), settings.get(name), list[str]()
        component, role = group_in(hint), class_in(hint)
        if role is not None and component is None:  # a component: its settings stand below init_args
            spec = given if isinstance(given, dict) else {"class_path": given}
            component = find_class(spec.get("class_path"), role)
            stray = [word for word in spec if word not in _SPEC]
            key, given = f"{key}.init_args", spec.get("init_args")
        if component is None:
            continue
        yield Place(key, component, given, stray)
        if key.count(".") < _DEEPEST:
            yield from find_places(given if isinstance(given, dict) else {}, constructor_hints(component), key)


def find_misplaced(settings: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
    """A sentence about what jsonargparse passes over: no mapping for a group, settings beside ``init_args``."""
    for key, component, given, stray in find_places(settings, hints):
        if stray:
            place = key.removesuffix(".init_args")
            return f"unknown key '{place}.{stray[0]}': settings of {component.__name__} go under {key!r}"
        if not (given is None or isinstance(given, dict) or str(given).endswith(FILE_SUFFIXES)):
            return f"{key} must hold keys and values; got {given!r}"
    return None


def find_homes(key: str, settings: Mapping[str, Any], accepted: Mapping[str, Any]) -> list[str]:
    """Whole keys of the settings that have the last part of a key as their name."""
    name = key.rpartition(".")[2]
    places = (place for place in find_places(settings, accepted) if name in constructor_hints(place.component))
    return [f"{place.key}.{name}".replace(".init_args", "") for place in places]


def find_class(name: Any, role: type | None) -> type | None:
    """The class that a registered name, the name of an imported class or a dotted path means; None when it is none."""
    with suppress(Exception):  # of a module that cannot be imported jsonargparse tells
        module, _, attribute = name.rpartition(".")
        if module:
            return cast(type, getattr(import_module(module), attribute))
        registered = (registry.get(name) for registry in REGISTRIES if name in registry)
        return next(registered, None) or next((found for found in subclasses(role) if found.__name__ == name), None)
    return None


def subclasses(role: type | None) -> Iterator[type]:
    """Every imported class below a role."""
    children: list[type] = role.__subclasses__() if role else []
    for child in children:
        yield child
        yield from subclasses(child)
