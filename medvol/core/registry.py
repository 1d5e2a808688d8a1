"""Names of components, read from package metadata.

A component is found through the entry-point group of its role; the entry-point name is the class name. The built-in
components use the same groups in this project's own ``pyproject.toml``: there is no private list. ``names`` and
``describe`` read metadata only; ``get``, or ``REWARDS["FormatReward"]``, imports the one component that is asked for,
so a broken plug-in hurts only whoever asks for it. Whether a component can be imported is found out apart from this
process, by ``medvol.guarding.probing``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from medvol.core.containment import contained, say
from medvol.core.docstrings import first_sentence
from medvol.core.entry_points import find_points
from medvol.core.errors import (
    ComponentImportError,
    DuplicateComponentError,
    InvalidComponentError,
    MissingExtraError,
    UnknownComponentError,
)
from medvol.core.publishers import find_publisher, name_publisher
from medvol.core.reprs import shorten
from medvol.core.suggestions import suggest

REGISTERED_HERE = "(registered here)"
"""Takes the place of the distribution of what ``register`` added."""


@dataclass(frozen=True)
class Registration:
    """One registered component, as far as metadata tells.

    Args:
        kind: Role, as a plural (``policies``).
        name: Class name.
        distribution: Distribution that publishes it; ``(registered here)`` for one added by ``register``.
        version: Version of the distribution.
        target: ``module:Class``.
        problem: Why it cannot be used; empty when nothing is known to be wrong.
        summary: First sentence of its docstring; empty when it was not imported.
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    problem: str = ""
    summary: str = ""


class Registry:
    """The components of one role.

    Args:
        kind: Plural noun of the role, last part of the entry-point group (``policies``).
        role: Name of the role's abstract class, which says with ``component_kind`` that it is this role's.
    """

    def __init__(self, kind: str, role: str) -> None:
        self.kind = kind
        self.role = role
        self._local: dict[str, type[Any]] = {}

    @property
    def group(self) -> str:
        """Entry-point group."""
        return f"medvol.{self.kind}"

    def names(self) -> list[str]:
        """Sorted names of all registered components; imports none of them."""
        return sorted({point.name for point in find_points(self.group)} | set(self._local))

    def get(self, name: str, distribution: str = "") -> type[Any]:
        """Import one component and check it.

        Args:
            name: Class name.
            distribution: Name of the distribution whose component it is, where several have one of that name.

        Raises:
            UnknownComponentError: Nothing of that name; the message lists the choices and the nearest one.
            DuplicateComponentError: Several distributions claim the name.
            ComponentImportError: Its module fails to import, whatever it raises.
            InvalidComponentError: It does not inherit from the role, or its constructor is not fully typed.
        """
        if not isinstance(name, str):
            raise UnknownComponentError(f"medvol.{self.kind}: {name!r} is no name; give one as text")
        if name in self._local:
            return self._local[name]
        points = self._points(name)
        if not points:
            raise UnknownComponentError(self._unknown(name))
        if len(points) > 1 and distribution:
            points = [point for point in points if point.dist is not None and point.dist.name == distribution] or points
        if len(points) > 1:
            owners = " and ".join(name_publisher(point) for point in points)
            raise DuplicateComponentError(
                f"{self.group}: {name!r} is claimed by {owners}; write the full class path to choose one"
            )
        return self._load(points[0])

    def __getitem__(self, name: str) -> type[Any]:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return shorten(f"<Registry {self.kind}: {', '.join(self.names()) or 'nothing'}>", ">")

    def describe(self) -> list[Registration]:
        """What metadata tell of every component; ``medvol.guarding.probing`` finds out whether each can be used."""
        rows = [self._describe(point) for point in sorted(find_points(self.group), key=lambda p: p.name)]
        for name, component in sorted(self._local.items()):
            target, summary = f"{component.__module__}:{component.__qualname__}", first_sentence(component.__doc__)
            rows.append(Registration(self.kind, name, REGISTERED_HERE, "", target, summary=summary))
        return rows

    def register(self, name: str, component: type[Any]) -> None:
        """Add a component for this process (notebooks, scripts).

        Raises:
            DuplicateComponentError: The name is taken.
            InvalidComponentError: It does not inherit from the role, or its constructor is not fully typed.
        """
        if name in self.names():
            raise DuplicateComponentError(f"{self.group}: {name!r} is already registered; choose another name")
        self._check(name, component, "registered here")
        self._local[name] = component

    @contextmanager
    def registered(self, name: str, component: type[Any]) -> Iterator[None]:
        """Register a component for the length of a ``with`` block."""
        self.register(name, component)
        try:
            yield
        finally:
            del self._local[name]

    def name_of(self, component: type[Any]) -> str | None:
        """Name under which a class is registered; imports nothing."""
        here = next((name for name, local in self._local.items() if local is component), None)
        return here or (component.__name__ if find_publisher(component, self.group) else None)

    def _points(self, name: str) -> list[EntryPoint]:
        """Entry points of that name; one distribution listed twice on the path counts once."""
        points = [point for point in find_points(self.group) if point.name == name]
        if len(points) < 2:
            return points
        return list({(name_publisher(point), point.value): point for point in points}.values())

    def _load(self, point: EntryPoint) -> type[Any]:
        def refuse(error: BaseException) -> ComponentImportError:
            place = f"{self.group}: {point.name!r} from {name_publisher(point)} ({point.value})"
            return ComponentImportError(f"{place} failed to import: {say(error)}")

        with contained(refuse, MissingExtraError):
            component = point.load()
        return self._check(point.name, component, name_publisher(point))

    def _check(self, name: str, component: object, owner: str) -> type[Any]:
        if not (inspect.isclass(component) and getattr(component, "component_kind", None) == self.kind):
            raise InvalidComponentError(
                f"{self.group}: {name!r} from {owner} must be a class that inherits {self.role}"
            )
        if component.__name__ != name:
            raise InvalidComponentError(
                f"{self.group}: {name!r} from {owner} is the class {component.__name__}; register it under its own name"
            )
        if inspect.isabstract(component):
            missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
            raise InvalidComponentError(
                f"{self.group}: {name!r} from {owner} lacks what its role asks for: {missing}; write it"
            )
        untyped = untyped_parameters(component)
        if untyped:
            raise InvalidComponentError(
                f"{self.group}: {name!r} from {owner} has untyped or variable constructor parameters "
                f"({', '.join(untyped)}); annotate each one so that it can be set from YAML"
            )
        return component

    def _describe(self, point: EntryPoint) -> Registration:
        owner = point.dist
        problem = "claimed by several distributions" if len(self._points(point.name)) > 1 else ""
        return Registration(
            self.kind, point.name, owner.name if owner else "?", owner.version if owner else "", point.value, problem
        )

    def _unknown(self, name: str) -> str:
        elsewhere = [other.group for other in REGISTRIES if other is not self and name in other.names()]
        place = f" (it is one of {elsewhere[0]})" if elsewhere else ""
        hint = suggest(name, self.names())
        return f"{self.group}: no {name!r}{place}; choices: {', '.join(self.names())}{hint}"


def untyped_parameters(component: type) -> list[str]:
    """Names of constructor parameters that YAML cannot set: those without annotation, ``*args`` and ``**kwargs``."""
    parameters = inspect.signature(component).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.annotation is inspect.Parameter.empty or p.kind in variable]


def lazy_components(registry: Registry) -> Callable[[str], type[Any]]:
    """A module ``__getattr__`` that makes ``medvol.policies.X`` mean the registered component ``X``."""

    def __getattr__(name: str) -> type[Any]:
        if name.startswith("__") or not name[:1].isupper():
            raise AttributeError(name)
        try:
            return registry.get(name)
        except (LookupError, ImportError, DuplicateComponentError, InvalidComponentError) as error:
            raise AttributeError(str(error)) from error

    return __getattr__


POLICIES = Registry("policies", "Policy")
PROPAGATORS = Registry("propagators", "Propagator")
REWARDS = Registry("rewards", "RewardTerm")
DATASETS = Registry("datasets", "CaseDataset")
ENGINES = Registry("engines", "RolloutEngine")
REGISTRIES = (POLICIES, PROPAGATORS, REWARDS, DATASETS, ENGINES)
