"""Sees that a component leaves what it is given as it was.

Arrays are locked while it works, and looked at before and after.
The lock is NumPy's own flag, so nothing is copied. It does not hold against a torch tensor on the same memory, or a
flag that is set back; so a few values of every array are compared as well, and all voxels of a mask are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

Snapshot = dict[str, Any]
"""Place of every value, such as ``case.target``, and what was seen there."""

_A_SIDE = 10
"""Values looked at along each axis of an array."""
_DEPTH = 8


@contextmanager
def locked(given: Mapping[str, Any]) -> Iterator[None]:
    """Make all arrays of some objects, named as in the interface, read-only during the block."""
    held = [array for _, array in _leaves(given) if isinstance(array, np.ndarray) and array.flags.writeable]
    for array in held:
        array.setflags(write=False)
    try:
        yield
    finally:
        for array in sorted(held, key=_distance_to_owner):  # a view cannot be unlocked before what it looks at
            with suppress(ValueError):  # memory of a tensor stays locked: NumPy cannot tell that it may be written to
                array.setflags(write=True)


def _distance_to_owner(array: np.ndarray[Any, Any]) -> int:
    """How many arrays an array looks through at its memory."""
    base, steps = array.base, 0
    while isinstance(base, np.ndarray):
        base, steps = base.base, steps + 1
    return steps


def snapshot(given: Mapping[str, Any], whole: bool = False) -> Snapshot:
    """Look at everything that some objects hold, without reading a volume that is still on disk.

    Args:
        given: The objects by the names of the interface.
        whole: Look at every value of every array, as a test may, and not at a few.
    """
    return {place: _look(value, whole) for place, value in _leaves(given)}


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Places at which two snapshots differ; what was read or worked out in between is no change."""
    return [place for place, seen in before.items() if after.get(place) != seen]


def _leaves(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _DEPTH:
        return
    if is_dataclass(value) and not isinstance(value, type):
        held = vars(value) if hasattr(value, "__dict__") else {}
        value = {field.name: held[field.name] for field in fields(value) if field.name in held}
        yield from _children(value.items(), f"{place}." if place else "", depth)
    elif isinstance(value, Mapping):
        if place:
            yield f"{place}.keys", " ".join(map(str, value))
        yield from _children(value.items(), f"{place}." if place else "", depth)
    elif isinstance(value, list | tuple):
        yield f"{place}.length", len(value)
        yield from _children(enumerate(value), f"{place}.", depth)
    else:
        yield place, value


def _children(items: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, child in items:
        yield from _leaves(child, f"{prefix}{key}", depth + 1)


def _look(value: Any, whole: bool) -> Any:
    if value is None or isinstance(value, str | int | float | bool | bytes | Path):
        return value if value == value else "nan"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        return _look_at_array(value, whole)
    block = getattr(value, "binaryblock", None)  # of a header of nibabel
    return block if isinstance(block, bytes) else id(value)


def _look_at_array(array: np.ndarray[Any, Any], whole: bool) -> tuple[Any, ...]:
    steps = (1 if whole else max(1, -(-side // _A_SIDE)) for side in array.shape)
    few = array[tuple(slice(None, None, step) for step in steps)]
    count = int(np.count_nonzero(array)) if array.dtype == np.bool_ else 0
    return array.shape, array.dtype.str, few.tobytes() if array.dtype != object else id(array), count
