"""Finds the one setting that is at fault, and says so in a sentence.

jsonargparse decides whether settings are accepted; when it refuses them, its message names neither the whole key nor
the choices. Here the settings are walked along the type hints of the classes they build, down to the first one that
does not fit.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from medvol.cli.settings import COMPONENT_KEYS, FILE_SUFFIXES, as_component, read_yaml
from medvol.core import roles
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.registry import REGISTRIES
from medvol.core.roles import Policy, TrainablePolicy
from medvol.core.suggestions import suggest

_WORDS = {"Sequence": "list", "list": "list", "Mapping": "keys and values", "dict": "keys and values", "tuple": "list"}

_KINDS = {"LightningModule": "module", "LightningDataModule": "data module", "Callback": "callback", "Logger": "logger"}
"""Roles of Lightning in words."""

_PLAIN = (bool, int, float, str, bytes, type(None), Path, object)


def find_fault(settings: Mapping[str, Any], accepted: Mapping[str, Any]) -> str | None:
    """Say what is wrong with settings.

    Args:
        settings: Tree of ``gather_settings``.
        accepted: Type hint of every top-level key.

    Returns:
        One sentence, or None when nothing was found.
    """
    return next(_walk_keys("", settings, accepted, ""), None)


def find_place(key: str, settings: Mapping[str, Any], accepted: Mapping[str, Any]) -> str | None:
    """The whole key of a setting that was given without its beginning: ``trainer.max_steps`` for ``max_steps``."""
    for part in ("trainer", "model", "data"):
        spec = as_component(settings.get(part))
        name = spec.get("class_path") if isinstance(spec, dict) else None
        try:
            built = accepted[part] if part == "trainer" else _find_class(str(name), accepted[part])
        except (MedvolError, LookupError):
            continue
        if key in inspect.signature(built).parameters:
            return f"{part}.{key}"
    return None


def _walk_keys(path: str, values: Mapping[str, Any], accepted: Mapping[str, Any], owner: str) -> typing.Iterator[str]:
    for key, value in values.items():
        whole = f"{path}.{key}" if path else str(key)
        if key in accepted:
            yield from _walk_value(whole, value, accepted[key])
        else:
            longer = next((name for name in accepted if not path and name.startswith(str(key))), "")
            near = f"; did you mean {longer!r}?" if longer else suggest(str(key), accepted)
            hint = near or f"; its settings are {', '.join(accepted) or 'none'}"
            yield f"unknown key {whole!r}{owner and f': {owner} has no setting {str(key)!r}'}{hint}"


def _walk_value(path: str, value: Any, hint: Any) -> typing.Iterator[str]:
    choices = _members(hint)
    listed = [member for member in choices if _is_sequence(member) and _builds(value, (get_args(member) or (str,))[0])]
    if listed and len(choices) == 1 and isinstance(value, str | dict):
        yield f"{path} must be a list; got {value!r}: write [{value}]"
        return
    members = [member for member in choices if _holds(value, member)] or [m for m in choices if _builds(value, m)]
    if len(members) != 1 or (isinstance(value, str) and str in choices):
        yield from _check_plain(path, value, hint)
        return
    member = members[0]
    arguments = get_args(member)
    if _is_mapping(member):
        for key, item in value.items():
            yield from _walk_value(f"{path}.{key}", item, arguments[1])
    elif _is_sequence(member):
        for index, item in enumerate(value):
            yield from _walk_value(f"{path}[{index}]", item, arguments[0])
    elif is_dataclass(member) or (_is_class(member) and member.__name__ == "Trainer"):
        yield from _walk_settings(path, value, member)
    else:
        yield from _walk_component(path, value, member)


def _walk_component(path: str, value: Any, role: type) -> typing.Iterator[str]:
    try:
        spec = as_component(read_yaml(Path(value)) if _is_file(value) else value)
    except ConfigError as error:
        yield f"{path}: {error}"
        return
    if not isinstance(spec, dict) or "class_path" not in spec:
        yield f"{path} must name a {role.__name__}, or hold class_path and init_args; got {value!r}"
        return
    for key in spec.keys() - set(COMPONENT_KEYS):
        yield f"unknown key '{path}.{key}': settings of {spec['class_path']} go under '{path}.init_args'"
    try:
        component = _find_class(str(spec["class_path"]), role)
    except (MedvolError, LookupError) as error:
        yield f"{path}: {error}"
        return
    if not (inspect.isclass(component) and issubclass(component, role)):
        yield f"{path}: {spec['class_path']!r} {_why_not(component, role)}"
        return
    settings = spec.get("init_args") or {}
    yield from _walk_settings(f"{path}.init_args", settings, component)


def _why_not(component: Any, role: type) -> str:
    """Why something cannot take a place, and what can."""
    if role is TrainablePolicy and inspect.isclass(component) and issubclass(component, Policy):
        return (
            "has nothing to train, so it is not a TrainablePolicy; train another one, such as QwenVLPolicy, or set "
            "model.class_path to EvaluationModule and score it with `medvol test`"
        )
    return f"is not a {role.__name__}; name one that is"


def _walk_settings(path: str, settings: Any, component: type) -> typing.Iterator[str]:
    if not isinstance(settings, dict):
        yield f"{path} must hold keys and values; got {settings!r}"
        return
    parameters = inspect.signature(component).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    hints = constructor_hints(component)
    accepted = {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    known = {key: value for key, value in settings.items() if key in accepted} if open_ended else settings
    yield from _walk_keys(path, known, accepted, component.__name__)
    missing = [
        p.name for p in parameters if p.default is p.empty and p.name in accepted and settings.get(p.name) is None
    ]
    if missing and not open_ended:
        yield f"{component.__name__} needs '{path}.{missing[0]}'; set it in the configuration or on the command line"


def _check_plain(path: str, value: Any, hint: Any) -> typing.Iterator[str]:
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except ValueError:
        return
    try:
        parser.parse_object({"value": value})
    except ArgumentError:
        yield f"{path} must be {describe_hint(hint)}; got {value!r}"


def describe_hint(hint: Any) -> str:
    """A type hint in words: ``int or null``, ``one of 'paper', 'largest'``."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    members = _join_literals(_members(hint))
    if len(members) > 1:
        names = [describe_hint(member) for member in members if member is not type(None)]
        return " or ".join([*names, "null"] if type(None) in members else names)
    if _is_class(hint) and get_origin(hint) is None:
        return str(hint.__name__)
    name = _WORDS.get(getattr(get_origin(hint), "__name__", ""), str(hint))
    inner = ", ".join("..." if argument is Ellipsis else describe_hint(argument) for argument in get_args(hint))
    return f"{name} of {inner}" if inner else name


def _join_literals(members: tuple[Any, ...]) -> tuple[Any, ...]:
    """Several lists of words as one."""
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    others = tuple(member for member in members if get_origin(member) is not Literal)
    return (Literal[tuple(words)], *others) if words else others


def _find_class(name: str, role: type) -> Any:
    """The class that a short name or a dotted path means in a slot of that role.

    Raises:
        MedvolError: No usable component of that name is registered.
        LookupError: No such class is known, or it cannot be imported.
    """
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise LookupError(f"{name!r} cannot be imported: {error}") from error
    for registry in REGISTRIES:
        if issubclass(role, getattr(roles, registry.role)):
            return registry.get(name)
    known = {found.__name__: found for found in (role, *_subclasses(role)) if not inspect.isabstract(found)}
    if name in known:
        return known[name]
    kind = _KINDS.get(role.__name__, role.__name__)
    origin = "medvol." if kind.endswith("module") else "lightning."
    known = {key: found for key, found in known.items() if not key.startswith("_")}
    own = [key for key in known if known[key].__module__.startswith(origin)] or list(known)
    raise LookupError(f"there is no {kind} {name!r}; choices: {', '.join(sorted(own))}{suggest(name, known)}")


def _subclasses(role: type) -> Iterable[type]:
    children: list[type] = role.__subclasses__()
    for subclass in children:
        yield subclass
        yield from _subclasses(subclass)


def constructor_hints(component: type) -> dict[str, Any]:
    """Type hints of a constructor; none when they name something that is not imported at run time."""
    try:
        source = component if is_dataclass(component) else inspect.getattr_static(component, "__init__")
        return dict(typing.get_type_hints(source))
    except NameError:
        return {}


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _holds(value: Any, member: Any) -> bool:
    """Whether a value is a container of what this member of a union holds."""
    if _is_mapping(member):
        return isinstance(value, dict) and "class_path" not in value and len(get_args(member)) == 2
    return _is_sequence(member) and isinstance(value, list) and len(get_args(member)) >= 1


def _builds(value: Any, member: Any) -> bool:
    """Whether a value must describe an object of this member of a union."""
    return _is_class(member) and member not in _PLAIN and value is not None


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(FILE_SUFFIXES)


def _is_class(hint: Any) -> bool:
    return inspect.isclass(hint) and get_origin(hint) is None


def _is_mapping(hint: Any) -> bool:
    return _origin_is(hint, Mapping)


def _is_sequence(hint: Any) -> bool:
    return _origin_is(hint, (Sequence, typing.Iterable)) and not _is_mapping(hint) and get_origin(hint) is not tuple


def _origin_is(hint: Any, kind: Any) -> bool:
    origin = get_origin(hint)
    return inspect.isclass(origin) and issubclass(origin, kind)
