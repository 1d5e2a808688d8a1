"""Naming what the parts of a network make, while it runs without weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from medvol.planning.live_bytes import LiveBytes
from medvol.planning.shadow import Device, forms_of
from medvol.policies.vlm.network import VLMNetwork


def watch_cache(cache: Any, live: LiveBytes) -> None:
    """Count the keys and values that a cache keeps as such."""
    kind = type(cache)

    def update(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept = kind.update(self, *args, **kwargs)
        for tensor in kept:
            live.rename(tensor, "key and value cache")
        return kept

    cache.__class__ = type(kind.__name__, (kind,), {"update": update})


@contextmanager
def watched(network: VLMNetwork, live: LiveBytes, device: Device) -> Iterator[None]:
    """Name what the vision tower, the language model and the head make; on a CPU pixels lie in an array of NumPy."""
    see, look, prepare = network.see, network.look, network.prepare
    score, run = network.token_log_probs, network.run

    def named(part: str, act: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with live.naming(part):
                return act(*args, **kwargs)

        return call

    def prepare_for_real(pixels: torch.Tensor) -> Any:
        if device == "cpu":
            live.ignore(pixels)
        with unset_fake_temporarily():
            return prepare(pixels)

    def look_at_forms(images: Any) -> Any:
        if not getattr(network, "skips_blanks", False):
            images.update(forms_of(dict(images)))  # in place: nothing else holds the real ones
        return look(images)

    parts: dict[str, Any] = {
        "look": look_at_forms,
        "prepare": prepare_for_real,
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
