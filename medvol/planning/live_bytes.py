"""Bytes of the tensors that are alive, counted while operations run, with the most there ever were at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REST = "masks and positions"
"""What is made outside of any part that has a name; masks are the largest of it."""

_DEVICE = torch.ops.prim.device.default


@dataclass
class Peak:
    """The moment of a phase at which most bytes were alive.

    Args:
        total: Bytes.
        parts: The same bytes by what they are for.
    """

    total: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Held:
    """A storage that is alive.

    Args:
        storage: Weak, so that its end is seen.
        part: What it is for.
        size: Bytes of it.
        times: Storages of its kind that it stands for.
    """

    storage: Any
    part: str
    size: int
    times: int

    @property
    def total(self) -> int:
        """Bytes of all that it stands for."""
        return self.size * self.times


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
        self.times = 1
        """How often what is made now is made. Above 1 no peak is looked for: it is before or after."""
        self.inherits = False
        """Whether what is made of tensors that stand for several stands for as many."""
        self._held: dict[int, _Held] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it returns."""
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked more often than all else together
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            made: Sequence[Any] = (result,)
        else:
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if self.inherits and made:
            used = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            with self.repeating(max(map(self.times_of, used), default=1)):
                for tensor in made:
                    self.count(tensor)
        else:
            for tensor in made:
                self.count(tensor)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor, unless it is counted already."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._held or not self.counts(tensor):
            return

        def forget(_: Any) -> None:
            gone = self._held.pop(place, None)
            if gone is not None:
                self._add(gone.part, -gone.total)

        held = self._held[place] = _Held(ref(storage, forget), self.part, storage.nbytes(), self.times)
        self._add(held.part, held.total)
        if self.times == 1 and self.total > self.peak.total:
            self.peak = Peak(self.total, dict(self.parts))

    def ignore(self, tensor: torch.Tensor) -> None:
        """Never count the storage of a tensor, such as that of an array, which torch has not allocated."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        held = self._held.get(place)
        if held is not None:
            self._add(held.part, -held.total)
        self._held[place] = _Held(ref(storage, lambda _: self._held.pop(place, None)), self.part, 0, 1)

    def rename(self, tensor: torch.Tensor, part: str) -> None:
        """Say what a tensor that is counted already is for."""
        held = self._find(tensor)
        if held is not None:
            self._add(held.part, -held.total)
            held.part = part
            self._add(part, held.total)

    def multiply(self, storage: torch.UntypedStorage, times: int) -> None:
        """Say for how many of its kind a storage stands that is counted already."""
        held = self._held.get(storage._cdata)
        if held is not None:
            self._add(held.part, (times - held.times) * held.size)
            held.times = times

    def times_of(self, tensor: torch.Tensor) -> int:
        """For how many of its kind a tensor stands."""
        held = self._find(tensor)
        return 1 if held is None else held.times

    def _find(self, tensor: torch.Tensor) -> _Held | None:
        return self._held.get(tensor.untyped_storage()._cdata)

    def _add(self, part: str, size: int) -> None:
        self.total += size
        self.parts[part] += size

    @contextmanager
    def repeating(self, times: int) -> Iterator[None]:
        """Count what is made in a ``with`` block so often."""
        before, self.times = self.times, times
        try:
            yield
        finally:
            self.times = before

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
