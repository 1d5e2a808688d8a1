"""Naming what the parts of a network make, while it runs without weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import DynamicCache

from medvol.planning.live_bytes import LiveBytes
from medvol.policies.vlm.network import VLMNetwork


class NamedCache(DynamicCache):
    """A cache whose keys and values are counted as such."""

    def __init__(self, live: LiveBytes, **options: Any) -> None:
        super().__init__(**options)
        self._live = live

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the keys and values of a layer."""
        kept = super().update(*args, **kwargs)
        for tensor in kept:
            self._live.rename(tensor, "key and value cache")
        return kept


@contextmanager
def watched(network: VLMNetwork, live: LiveBytes) -> Iterator[None]:
    """Name what the vision tower, the language model and the head make."""
    see, score, run = network.see, network.token_log_probs, network.run

    def named(part: str, act: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with live.naming(part):
                return act(*args, **kwargs)

        return call

    parts: dict[str, Any] = {
        "see": named("vision", see),
        "run": named("language model", run),
        "token_log_probs": named("scores of the vocabulary", score),
    }
    for name, act in parts.items():
        object.__setattr__(network, name, act)
    try:
        yield
    finally:
        for name in parts:
            object.__delattr__(network, name)
