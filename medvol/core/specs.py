"""Component specs: how a component is named and set up, in plain values.

A spec is ``{"class_path": "package.module.Class", "init_args": {...}}``, the form of the YAML files. Checkpoints hold
specs and tensors, never objects, so they load without pickle and rebuild what was made from YAML or in Python alike.
A component keeps each constructor parameter under the parameter's own name, or that name after an underscore.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, InvalidComponentError, MedvolError
from medvol.core.grounding.prompts import PromptTemplate
from medvol.core.registry import REGISTRIES, owner_of
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm

COMPONENTS = (Policy, Propagator, RewardTerm, CaseDataset)
"""What a spec may name, besides dataclasses of settings and the modules that ``rebuild`` is asked for."""


def describe_component(component: object) -> dict[str, Any]:
    """Write a component as a spec.

    Raises:
        InvalidComponentError: A constructor parameter was not kept, or its value is not plain.
    """
    cls = type(component)
    arguments = {name: _plain(_kept(component, name), cls, name) for name in inspect.signature(cls).parameters}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def identify_component(component: object, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Class name, distribution with its version, and settings of a component: the start of every identity.

    Args:
        component: Its settings are read as ``describe_component`` reads them.
        leave_out: Settings that do not change what it answers, such as where its weights lie.

    Raises:
        InvalidComponentError: As for ``describe_component``.
    """
    settings = describe_component(component)["init_args"]
    kept = {name: value for name, value in settings.items() if name not in leave_out}
    return {"name": type(component).__name__, "distribution": owner_of(component), **kept}


def rebuild(spec: Any, *allowed: type) -> Any:
    """Build the component that a spec describes.

    A spec comes from a file, so its class is judged by name first: only what an installed distribution publishes, what
    medvol itself holds, and what is imported already is looked up. Nothing else is imported.

    Args:
        spec: From ``describe_component``.
        allowed: Classes it may be, or inherit from, besides the four roles.

    Raises:
        CheckpointError: The class is gone, is not a component, or does not take these settings.
    """
    path, settings = _read_spec(spec)
    cls = _find_class(path)
    if not (inspect.isclass(cls) and (issubclass(cls, (*COMPONENTS, PromptTemplate, *allowed)) or _is_settings(cls))):
        raise CheckpointError(f"the checkpoint names {path!r}, which is not a component; it is not called")
    arguments = {key: _build_value(value, allowed) for key, value in settings.items()}

    def refuse(error: BaseException) -> CheckpointError:  # a constructor may fail in any way at what it never met
        return CheckpointError(f"{path} does not take the settings in the checkpoint: {say(error)}")

    with contained(refuse, MedvolError):
        return cls(**arguments)


def _is_settings(cls: type) -> bool:
    """True for a group of settings: a frozen dataclass of a module of that name; it checks its values and no more."""
    parameters = vars(cls).get("__dataclass_params__")
    return bool(parameters and parameters.frozen) and cls.__module__.rpartition(".")[2] == "settings"


def _read_spec(spec: Any) -> tuple[str, Mapping[str, Any]]:
    path = spec.get("class_path") if isinstance(spec, Mapping) else None
    settings = spec.get("init_args", {}) if isinstance(spec, Mapping) else None
    if not (isinstance(path, str) and isinstance(settings, Mapping) and all(isinstance(key, str) for key in settings)):
        raise CheckpointError(
            f"the checkpoint describes a component as {str(spec)[:80]!r}; it needs a class_path and init_args"
        )
    return path, settings


def _find_class(path: str) -> Any:
    """The class of a path; imports what medvol or an installed distribution publishes, and nothing else."""
    module, _, name = path.rpartition(".")
    if module not in sys.modules:
        if not (_is_ours(module) or _is_published(f"{module}:{name}")):
            raise CheckpointError(
                f"the checkpoint names {path!r}, which no installed distribution publishes and which is not imported; "
                f"import {module or path} first if you trust it"
            )

        def refuse(error: BaseException) -> CheckpointError:
            return CheckpointError(f"the checkpoint names {path!r}, which cannot be imported: {say(error)}")

        with contained(refuse):
            import_module(module)
    try:
        return vars(sys.modules[module])[name]  # not getattr: some modules import when they are asked for a name
    except KeyError as error:
        raise CheckpointError(f"the checkpoint names {path!r}, and there is no such class") from error


def _is_published(target: str) -> bool:
    return any(row.target == target for registry in REGISTRIES for row in registry.describe())


def _is_ours(module: str) -> bool:
    """True for a module of medvol that only defines things."""
    first, *rest = module.split(".")
    return first == "medvol" and all(part.isidentifier() and not part.startswith("__") for part in rest)


def _kept(component: object, name: str) -> Any:
    state = vars(component)
    modules = state.get("_modules", {})
    for place, key in ((state, f"_{name}"), (state, name), (modules, name)):
        if key in place:
            return place[key]
    raise InvalidComponentError(
        f"{type(component).__name__} does not keep its setting {name!r}; store it as self.{name} in the constructor"
    )


def _plain(value: Any, owner: type, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, owner, name) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, owner, name) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        settings = {field.name: _plain(getattr(value, field.name), owner, name) for field in fields(value)}
        return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}", "init_args": settings}
    if isinstance(value, COMPONENTS):
        return describe_component(value)
    raise InvalidComponentError(
        f"{owner.__name__} keeps a {type(value).__name__} under {name!r}; settings are numbers, text, lists, mappings "
        "and components"
    )


def _build_value(value: Any, allowed: tuple[type, ...]) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"class_path", "init_args"}:
            return rebuild(value, *allowed)
        return {key: _build_value(item, allowed) for key, item in value.items()}
    if isinstance(value, list):
        return [_build_value(item, allowed) for item in value]
    return value
