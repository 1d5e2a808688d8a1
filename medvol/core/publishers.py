"""Who publishes a component: the distribution whose entry point names its class."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

from medvol.core.entry_points import find_points, list_groups


def owner_of(component: object) -> str:
    """Distribution and version that publish a component; its module when none does, as in a notebook."""
    cls = type(component)
    point = find_publisher(cls)
    return name_publisher(point) if point else f"the module {cls.__module__}"


def find_publisher(cls: Any, group: str | None = None) -> EntryPoint | None:
    """Entry point that names a class, in one group or in any; None when none does.

    Read once: an answer asks for it, and metadata of a whole environment take milliseconds.
    """
    return _look_up(cls, group)


@cache
def _look_up(cls: type, group: str | None) -> EntryPoint | None:
    groups = [group] if group else list_groups()
    points = (point for name in groups for point in find_points(name) if point.name == cls.__name__)
    return next((point for point in points if _names(point, cls)), None)


def name_publisher(point: EntryPoint) -> str:
    """Distribution of an entry point, and its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _names(point: EntryPoint, cls: type) -> bool:
    """Whether an entry point leads to a class, by its own module or by one that hands it on; imports nothing."""
    if point.value == f"{cls.__module__}:{cls.__qualname__}":
        return True
    module = sys.modules.get(point.module)
    return module is not None and vars(module).get(point.attr) is cls
