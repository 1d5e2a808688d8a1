"""The propagator that made a recorded mask, as the command line names it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from medvol.core.defaults import PROPAGATOR
from medvol.core.errors import MedvolError
from medvol.core.registry import PROPAGATORS
from medvol.inference.records import plain_values


def propagator_name(identity: Any) -> str:
    """Name of a recorded propagator; empty where the record, which a person may have edited, does not tell it.

    Args:
        identity: What stands under ``propagator``.
    """
    name = identity.get("name") if isinstance(identity, Mapping) else None
    return name if isinstance(name, str) else ""


def propagator_options(identity: Any) -> list[str]:
    """Options of ``medvol segment`` that name a recorded propagator, and its settings that are not its own defaults.

    Args:
        identity: What stands under ``propagator``.

    Returns:
        Words of the command line; none for the propagator that is used where none is named.
    """
    name = propagator_name(identity)
    if not name:
        return []
    known = _defaults(name)
    changed = {key: value for key, value in identity.items() if key in known and value != known[key]}
    options = [] if name == PROPAGATOR and not changed else ["--propagator", name]
    for key, value in changed.items():
        options += [f"--propagator.{key}", value if isinstance(value, str) else json.dumps(value)]
    return options


def _defaults(name: str) -> dict[str, Any]:
    """Settings of a registered propagator as plain values; empty for one that is not installed here."""
    try:
        parameters = inspect.signature(PROPAGATORS.get(name)).parameters.values()
    except MedvolError:
        return {}
    return plain_values({p.name: None if p.default is p.empty else p.default for p in parameters})
