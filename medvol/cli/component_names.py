"""Names of components in settings: what they name is imported, and two classes of one name are told apart.

jsonargparse finds a class by its bare name once it is imported, and does not choose between two of them, as when one
was written again in a notebook: the registered one is then named by its whole path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from medvol.core.errors import MedvolError
from medvol.core.registry import REGISTRIES


def import_named(value: Any) -> Any:
    """Import every component that is named somewhere in a value, and give the value back with clear names."""
    paths = {word: path for word in set(_words(value)) if (path := _import_component(word))}
    return _replace(value, paths) if paths else value


def clear_arguments(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """Arguments with clear names of components in the place of values.

    Args:
        arguments: Of a command line.
        flags: Options that no value follows.
    """
    cleared = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        option, joined, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        takes_value = joined or (previous.startswith("--") and "=" not in previous and previous not in flags)
        cleared.append(f"{option}{joined}{import_named(value)}" if takes_value else argument)
    return cleared


def _import_component(word: str) -> str:
    """Import what is registered under this name; whether it is usable shows when it is asked for.

    Returns:
        Its whole path where another class of its role has the same name; empty otherwise.
    """
    for registry in REGISTRIES:
        if word in registry.names():
            try:
                found = registry.get(word)
            except MedvolError:
                continue
            role = next(parent for parent in found.__mro__ if parent.__name__ == registry.role)
            if any(other is not found for other in _find_subclasses(role) if other.__name__ == word):
                return f"{found.__module__}.{found.__qualname__}"
    return ""


def _find_subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _find_subclasses(child)


def _words(value: Any) -> Iterator[str]:
    """Strings that may name a component."""
    if isinstance(value, str) and value.isidentifier() and value[0].isupper():
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _words(child)
    elif isinstance(value, list):
        for child in value:
            yield from _words(child)


def _replace(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(child, paths) for key, child in value.items()}
    if isinstance(value, list):
        return [_replace(child, paths) for child in value]
    return paths.get(value, value) if isinstance(value, str) else value
