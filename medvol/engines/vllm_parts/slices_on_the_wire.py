"""Slices in a request to a vLLM server: patches as this side cut them, so that no number is rounded to a byte.

A server takes processed pictures as MessagePack in base64. The layout is that of vLLM's ``MsgpackEncoder`` for a
``MultiModalKwargsItem`` in 0.33: a tensor is its type, its shape and its bytes as extension 3; a field
says how the pictures of several requests are joined.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from medvol.core.errors import EngineError, MissingExtraError
from medvol.core.served_form import SlicePatches

_RAW = 3
"""Extension type of a tensor's bytes."""


def pack_slices(patches: Sequence[SlicePatches], kind: str) -> tuple[list[str], list[str]]:
    """Slices as a request holds them.

    Args:
        patches: Of each slice.
        kind: ``float32`` or ``bfloat16``, the type that the vision tower reads.

    Returns:
        For each slice a hash, by which the server knows it again, and its content.
    """
    packed = [_pack(one, kind) for one in patches]
    return [hashlib.sha256(one).hexdigest() for one in packed], [base64.b64encode(one).decode() for one in packed]


def find_places(token_ids: Sequence[int], image_id: int, count: int) -> list[dict[str, int]]:
    """Where the slices stand in a prompt.

    Raises:
        EngineError: There are not as many runs of image tokens as slices.
    """
    places: list[dict[str, int]] = []
    for i, token in enumerate(token_ids):
        if token != image_id:
            continue
        if places and i == places[-1]["offset"] + places[-1]["length"]:
            places[-1]["length"] += 1
        else:
            places.append({"offset": i, "length": 1})
    if len(places) != count:
        raise EngineError(f"a prompt shows {count} slices and keeps places for {len(places)}; no server can read it")
    return places


def _pack(patches: SlicePatches, kind: str) -> bytes:
    try:
        import msgpack
    except ImportError as error:
        raise MissingExtraError("msgpack", "vllm-server") from error

    def tensor(of: str, array: np.ndarray[Any, Any], content: bytes) -> list[Any]:
        return [of, list(array.shape), msgpack.ExtType(_RAW, content)]

    grid = np.array(patches.grid, np.int64)
    flat = {"keep_on_cpu": False, "slices": [[0, len(patches.values), None]], "dim": 0}
    item = {
        "pixel_values": {
            "data": tensor(kind, patches.values, _as_bytes(patches, kind)),
            "field": ["flat", flat],
        },
        "image_grid_thw": {
            "data": tensor("int64", grid, grid.tobytes()),
            "field": ["batched", {"keep_on_cpu": True}],
        },
    }
    packed: bytes = msgpack.packb(item)
    return packed


def _as_bytes(patches: SlicePatches, kind: str) -> bytes:
    import torch

    values = torch.from_numpy(patches.values).to(getattr(torch, kind)).contiguous()
    return values.view(torch.uint8).numpy().tobytes()
