"""Bytes of the tensors that are alive, counted while operations run, with the most there ever were at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REST = "masks and positions"
"""What is made outside of any part that has a name; masks are the largest of it."""


@dataclass
class Peak:
    """The moment of a phase at which most bytes were alive.

    Args:
        total: Bytes.
        parts: The same bytes by what they are for.
    """

    total: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)


class LiveBytes(TorchDispatchMode):
    """Counts the storages of all tensors that operations return, until nobody holds them any more.

    Workspace that a kernel takes and gives back within an operation is not seen.

    Args:
        counts: Says whether a tensor lies on the device that is counted.
    """

    def __init__(self, counts: Callable[[torch.Tensor], bool] = lambda tensor: True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts
        self.parts: Counter[str] = Counter()
        self.total = 0
        self.peak = Peak()
        self.part = REST
        self._known: dict[int, tuple[Any, list[str], int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor, unless it is counted already."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._known or not self.counts(tensor):
            return
        size, part = storage.nbytes(), [self.part]

        def forget(_: Any) -> None:
            if self._known.pop(place, None) is not None:
                self.total -= size
                self.parts[part[0]] -= size

        self._known[place] = (ref(storage, forget), part, size)
        self.total += size
        self.parts[part[0]] += size
        if self.total > self.peak.total:
            self.peak = Peak(self.total, dict(self.parts))

    def ignore(self, tensor: torch.Tensor) -> None:
        """Never count the storage of a tensor, such as that of an array, which torch has not allocated."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        _, part, size = self._known.get(place, (None, [self.part], 0))
        self.total -= size
        self.parts[part[0]] -= size
        self._known[place] = (ref(storage, lambda _: self._known.pop(place, None)), [self.part], 0)

    def rename(self, tensor: torch.Tensor, part: str) -> None:
        """Say what a tensor that is counted already is for."""
        known = self._known.get(tensor.untyped_storage()._cdata)
        if known is not None:
            _, name, size = known
            self.parts[name[0]] -= size
            self.parts[part] += size
            name[0] = part

    def begin(self) -> None:
        """Look for a new peak, from what is alive now."""
        self.peak = Peak(self.total, dict(self.parts))

    @contextmanager
    def naming(self, part: str) -> Iterator[None]:
        """Count what is made in a ``with`` block as one part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before
