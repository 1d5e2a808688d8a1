"""Which adapter runs a model folder: the one that is registered for the ``model_type`` of its ``config.json``."""

from __future__ import annotations

from importlib.util import find_spec
from inspect import isclass

from medvol.core.containment import contained, say
from medvol.core.entry_points import find_points
from medvol.core.errors import CheckpointError, ComponentImportError, InvalidComponentError, MissingExtraError
from medvol.core.publishers import name_publisher
from medvol.policies.vlm.network import VLMNetwork

GROUP = "medvol.families"
"""Entry points whose names are model types of transformers, and whose values are networks."""


def family_names() -> list[str]:
    """Model types that are run."""
    return sorted({point.name for point in find_points(GROUP)})


def find_family(model_type: object, folder: str, only: tuple[str, ...] | None = None) -> type[VLMNetwork]:
    """The network of a family.

    Args:
        model_type: As ``config.json`` has it.
        folder: Where that is, for the message.
        only: Families that the policy runs; None for all.

    Raises:
        CheckpointError: No such family is registered, or the policy runs others.
        ComponentImportError: Its adapter fails to import.
        InvalidComponentError: Its adapter is no ``VLMNetwork``.
        MissingExtraError: Its processor wants a library that is not installed.
    """
    known = sorted(set(family_names()) & set(only)) if only else family_names()
    points = {(name_publisher(p), p.value): p for p in find_points(GROUP) if p.name in known}
    chosen = [point for point in points.values() if point.name == model_type]
    if not chosen:
        runs = model_type in family_names()
        remedy = "take VisionLanguagePolicy" if runs else f"an adapter named in the entry points {GROUP} adds a family"
        raise CheckpointError(f"{folder!r} is a {model_type!r} model; this policy runs {', '.join(known)}; {remedy}")
    if len(chosen) > 1:
        owners = " and ".join(map(name_publisher, chosen))
        raise CheckpointError(f"{folder!r} is a {model_type!r} model, which is claimed by {owners}; remove one of them")
    (point,) = chosen

    def refuse(error: BaseException) -> ComponentImportError:
        return ComponentImportError(
            f"{GROUP}: {point.name!r} from {name_publisher(point)} failed to import: {say(error)}"
        )

    with contained(refuse):
        network: type[VLMNetwork] = point.load()
    if not (isclass(network) and issubclass(network, VLMNetwork)):
        raise InvalidComponentError(
            f"{GROUP}: {point.name!r} from {name_publisher(point)} must be a class that inherits VLMNetwork"
        )
    if network.extra is not None and find_spec(network.extra[0]) is None:
        raise MissingExtraError(*network.extra)
    return network
