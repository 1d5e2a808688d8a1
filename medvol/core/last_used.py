"""A small cache of the values used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LastUsed(Generic[Value]):
    """Keeps the values used last, so that cases of one volume share one object.

    Args:
        size: Most values kept, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made on first use."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self.size:
            self._values.popitem(last=False)
        return self._values[key]

    def __reduce__(self) -> tuple[type[LastUsed[Value]], tuple[int]]:
        """Travel to another process empty."""
        return type(self), (self.size,)
