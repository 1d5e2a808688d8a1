"""Component specs: how a component is named and set up, in plain values.

A spec is ``{"schema": 1, "component": "policies/TinyPolicy", "distribution": "medvol-r1 0.1.0", "settings": {...}}``.
It names a component as it is registered, and a module of medvol by its public name (``medvol/SFTModule``), so it
outlives a move of the file that holds the class. Only what is neither, as in a notebook, goes by its path
(``my_module.Mine``), and is then found where it is imported already. Settings that are dataclasses are mappings of
their fields; the constructor's annotations say which class they are.

Checkpoints and model folders hold specs and tensors, never objects, so they load without pickle and rebuild what was
made from YAML or in Python alike. A component keeps each constructor parameter under the parameter's own name; where
there is none, the name after an underscore counts.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import MemberDescriptorType, SimpleNamespace, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, InvalidComponentError, MedvolError
from medvol.core.publishers import find_publisher, name_publisher, owner_of
from medvol.core.registry import REGISTRIES
from medvol.core.reprs import Brief

SCHEMA = 1
"""Version of the layout of a spec."""

_NOT_FINITE = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
"""Numbers that JSON does not have, as YAML writes them."""

_KEYS = {"schema", "component", "distribution", "settings"}
_PUBLIC = "medvol"
"""Takes the place of the role in the name of a public class of medvol."""


class Component(Brief, ABC):
    """What is named in YAML, described, and built again from plain values: the base of all roles."""

    component_kind: ClassVar[str] = ""
    """Role, as a plural (``policies``)."""

    def identity(self) -> Mapping[str, Any]:
        """What it is, as written to evidence records: name, distribution and its version, settings.

        A component with weights adds their content hash, and leaves out settings that do not change its answers.
        """
        return identify_component(self)

    def require_ready(self) -> None:
        """Refuse to work without what it needs: weights, an extra; asked before a run or a batch begins.

        Cheap and asked often: files are looked for, and fetched where the settings say so; nothing is loaded.

        Raises:
            CheckpointError: Weights are missing.
            MissingExtraError: Something is not installed.
        """


def describe_component(component: object) -> dict[str, Any]:
    """Write a component, or a module of medvol, as a spec.

    Raises:
        InvalidComponentError: A constructor parameter was not kept, or its value is not plain.
    """
    cls = type(component)
    settings = {name: _plain(_kept(component, name), cls, name) for name in inspect.signature(cls).parameters}
    point = find_publisher(cls)
    published = {"distribution": name_publisher(point)} if point else {}
    return {"schema": SCHEMA, "component": _name(cls), **published, "settings": settings}


def short_name(spec: Mapping[str, Any]) -> str:
    """What names the component of a spec in YAML and on the command line: its registered name, else its path."""
    return str(spec["component"]).rpartition("/")[2]


def identify_component(component: object, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Class name, distribution with its version, and settings of a component: the start of every identity.

    Args:
        component: Its settings are read as ``describe_component`` reads them.
        leave_out: Settings that do not change what it answers, such as where its weights lie.

    Raises:
        InvalidComponentError: As for ``describe_component``.
    """
    settings = describe_component(component)["settings"]
    kept = {name: value for name, value in settings.items() if name not in leave_out}
    return {"name": type(component).__name__, "distribution": owner_of(component), **kept}


def rebuild(spec: Any, *allowed: type) -> Any:
    """Build the component that a spec describes.

    Args:
        spec: From ``describe_component``.
        allowed: Classes it may be, or inherit from, besides the roles.

    Raises:
        CheckpointError: The class is gone, is not a component, or does not take these settings.
    """
    cls = find_component(spec, *allowed)
    settings = spec["settings"]

    def refuse(error: BaseException) -> CheckpointError:  # a constructor may fail in any way at what it never met
        return CheckpointError(f"{cls.__name__} does not take the settings that were saved for it: {say(error)}")

    with contained(refuse, MedvolError):
        return cls(**{name: _build(value, _hint(cls, name), allowed) for name, value in settings.items()})


def find_component(spec: Any, *allowed: type) -> type[Any]:
    """The class that a spec names.

    A spec comes from a file, so its class is judged by name first: nothing is imported but what an installed
    distribution publishes, and nothing else is looked up but what is imported already.

    Args:
        spec: From ``describe_component``.
        allowed: Classes it may be, or inherit from, besides the roles.

    Raises:
        CheckpointError: It is no spec, the class is gone, or it is not a component.
        MedvolError: The registered component cannot be imported or used.
    """
    name, distribution = _read_spec(spec)
    kind, published, short = name.partition("/")
    cls = _find_published(kind, short, distribution) if published else _find_imported(name)
    if not (inspect.isclass(cls) and issubclass(cls, (Component, *allowed))):
        raise CheckpointError(f"the saved settings name {name!r}, which is not a component; it is not called")
    return cls


def _read_spec(spec: Any) -> tuple[str, str]:
    """Name and distribution of a spec of the right form."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("component"), str):
        raise CheckpointError(f"a component was saved as {str(spec)[:80]!r}, which does not name one; save it again")
    if type(spec.get("schema")) is not int or spec["schema"] != SCHEMA:
        raise CheckpointError(
            f"{spec['component'][:80]!r} was saved with schema {str(spec.get('schema'))[:20]!r}, and this medvol reads "
            f"schema {SCHEMA}; use the version of medvol that saved it"
        )
    settings = spec.get("settings")
    if not (isinstance(settings, Mapping) and all(isinstance(key, str) and key.isidentifier() for key in settings)):
        raise CheckpointError(f"the settings of {spec['component'][:80]!r} are {str(settings)[:80]!r}; save it again")
    return spec["component"], str(spec.get("distribution", ""))[:80]


def _find_published(kind: str, name: str, distribution: str) -> Any:
    """A registered component, or a public class of medvol."""
    if kind == _PUBLIC:
        public = import_module(_PUBLIC)
        if name in public.__all__:
            return getattr(public, name)
    registry = next((registry for registry in REGISTRIES if registry.kind == kind), None)
    if registry is not None and name in registry:
        return registry.get(name, distribution.rpartition(" ")[0])
    remedy = f"install {distribution!r}, which published it" if distribution else "install what publishes it"
    raise CheckpointError(f"{f'{kind}/{name}'[:80]!r} was saved and is not installed here; {remedy}")


def _find_imported(path: str) -> Any:
    """The class of a path whose module is imported already."""
    module, _, name = path.rpartition(".")
    if module not in sys.modules:
        raise CheckpointError(
            f"the saved settings name {path[:80]!r}, which no installed distribution publishes and which is not "
            f"imported; import {(module or path)[:80]} first if you trust it"
        )
    try:
        return vars(sys.modules[module])[name]  # not getattr: some modules import when they are asked for a name
    except KeyError as error:
        raise CheckpointError(f"the saved settings name {path[:80]!r}, and there is no such class") from error


def _name(cls: type[Any]) -> str:
    """``policies/TinyPolicy``, ``medvol/SFTModule``, or a path."""
    kind = getattr(cls, "component_kind", "")
    registered = next((registry.name_of(cls) for registry in REGISTRIES if registry.kind == kind), None)
    if registered:
        return f"{kind}/{registered}"
    public = import_module(_PUBLIC)
    if cls.__name__ in public.__all__ and getattr(public, cls.__name__) is cls:
        return f"{_PUBLIC}/{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _kept(component: object, name: str) -> Any:
    state = vars(component)
    modules = state.get("_modules", {})
    for place, key in ((state, name), (modules, name), (state, f"_{name}")):  # what is loaded later is often _name
        if key in place:
            return place[key]
    for key in (name, f"_{name}"):
        slot = inspect.getattr_static(type(component), key, None)
        if isinstance(slot, MemberDescriptorType):  # as of a dataclass with slots
            with suppress(AttributeError):  # it was never set
                return slot.__get__(component)
    raise InvalidComponentError(
        f"{type(component).__name__} does not keep its setting {name!r}; store it as self.{name} in the constructor"
    )


def _plain(value: Any, owner: type, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float):
        return float(value) if isfinite(value) else _NOT_FINITE[str(float(value))]
    for kind in (bool, int, str):  # a subclass of one is no plain value, which a checkpoint alone can hold
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, owner, name) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, owner, name) for item in value]
    if isinstance(value, Component):
        return describe_component(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), owner, name) for field in fields(value)}
    raise InvalidComponentError(
        f"{owner.__name__} keeps a {type(value).__name__} under {name!r}; settings are numbers, text, lists, mappings, "
        "dataclasses and components"
    )


def _build(value: Any, hint: Any, allowed: tuple[type, ...]) -> Any:
    """A setting from plain values; its annotation tells what these do not have: dataclasses, tuples, sets, paths."""
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    inner = next((args[-1] if args[-1] is not ... else args[0] for args in map(get_args, hints) if args), None)
    if isinstance(value, Mapping):
        if {"component", "settings"} <= set(value) <= _KEYS:
            return rebuild(value, *allowed)
        for kind in hints:
            if inspect.isclass(kind) and is_dataclass(kind) and set(value) <= {field.name for field in fields(kind)}:
                of = get_type_hints(kind)
                return kind(**{name: _build(item, of[name], allowed) for name, item in value.items()})
        of_keys = next((args[0] for args in map(get_args, hints) if len(args) == 2), None)
        return {_build_key(key, of_keys): _build(item, inner, allowed) for key, item in value.items()}
    if isinstance(value, list):
        items = [_build(item, inner, allowed) for item in value]
        kinds = [get_origin(kind) or kind for kind in hints]
        return next((kind(items) for kind in (tuple, set, frozenset) if kind in kinds and list not in kinds), items)
    return _build_scalar(value, hints)


def _build_scalar(value: Any, hints: Sequence[Any]) -> Any:
    """A value that plain values have no type of its own for: a path, a member of an enumeration, infinity."""
    if float in hints and value in _NOT_FINITE.values():
        return float(value.replace(".", ""))
    for kind in hints:
        if inspect.isclass(kind) and issubclass(kind, Enum) and value is not None:
            return kind(value)
    if isinstance(value, str) and Path in hints and str not in hints:
        return Path(value)
    return value


def _build_key(key: str, kind: Any) -> Any:
    """A key of a mapping, which plain values have as text."""
    return kind(key) if kind in (int, float) else _build_scalar(key, (kind,))


def _hint(cls: type[Any], name: str) -> Any:
    """Type of a constructor parameter; None where its annotation names what is imported for type checkers only."""
    constructor: Any = inspect.unwrap(cls.__init__)
    written = {name: getattr(constructor, "__annotations__", {}).get(name)}
    try:
        return get_type_hints(SimpleNamespace(__annotations__=written), getattr(constructor, "__globals__", {}))[name]
    except NameError:
        return None
