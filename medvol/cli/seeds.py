"""One seed for an experiment: that of ``seed_everything``, where a part has none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

_KEY = "seed"


def follow_seed(settings: Namespace) -> None:
    """Give model, data and policy the seed of the experiment where theirs is None.

    Args:
        settings: Of an experiment, parsed; changed in place. ``seed_everything`` is False where nothing is to be
            seeded; the parts then keep their defaults.
    """
    seed = settings.seed_everything
    if isinstance(seed, bool):
        return
    for part in _parts(settings):
        if _KEY in part and part[_KEY] is None:
            part[_KEY] = seed


def _parts(settings: Namespace) -> Iterator[Namespace]:
    """Settings of the data, the model, its policy, and the policy that this one wraps."""
    yield from _own_settings(settings.get("data"))
    node: Any = settings.get("model")
    while parts := list(_own_settings(node)):
        yield parts[0]
        node = parts[0].get("policy")


def _own_settings(node: Any) -> Iterator[Namespace]:
    if isinstance(node, Namespace) and isinstance(node.get("init_args"), Namespace):
        yield node.init_args
