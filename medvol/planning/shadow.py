"""Running a network without its weights: tensors of numbers have a form and no content, those of integers are real.

Integers decide what is computed: token ids, positions, masks, sizes of slices. Numbers only decide what comes out. So
integers, and the pixels of blank slices, are worked with for real, and all that meets a weight goes through torch's
fake tensors, which know their form alone. The
policy's own code runs, with its packing, its checkpointing and its low-rank adapters, and takes no time or memory.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from medvol.planning.live_bytes import LiveBytes
from medvol.policies.vlm.packed_attention import attend_as_on_gpu

Device = Literal["cpu", "cuda"]
"""Where a step would run. Fused attention keeps the same on both: queries, keys, values, result and its norm."""


class _RealIntegers(TorchDispatchMode):
    """Runs for real what has no fake tensor in it and makes no numbers from nothing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, for real or not."""
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((*args, *kwargs.values())))
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if func in _INDEXED:
                args = (args[0], [place for index in args[1] for place in _as_places(index)], *args[2:])
            return func(*args, **kwargs)
        if tensors:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        made = func(*args, **kwargs)
        if any(leaf.is_floating_point() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)):
            return made
        with unset_fake_temporarily():
            return func(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Tensors among the values that an operation takes, and in lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


_INDEXED = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


def _as_places(index: Any) -> Sequence[Any]:
    """A real mask as the places that it marks, whose number is known; any other index as it is."""
    if not isinstance(index, torch.Tensor) or isinstance(index, FakeTensor) or index.dtype != torch.bool:
        return (index,)
    with unset_fake_temporarily():
        return index.nonzero().unbind(1)


@contextmanager
def shadow(device: Device) -> Iterator[LiveBytes]:
    """Run what is in the ``with`` block without numbers, and count the bytes that it would have alive.

    Args:
        device: Where the step would run. On a CPU, integers lie in the same memory and are counted.
    """
    live = LiveBytes(lambda tensor: device == "cpu" or tensor.is_floating_point() or isinstance(tensor, FakeTensor))
    with ExitStack() as modes:
        modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        modes.enter_context(_RealIntegers())  # type: ignore[no-untyped-call]
        modes.enter_context(live)
        if device == "cuda":
            modes.enter_context(attend_as_on_gpu())
        yield live


def take_form(network: nn.Module, kept: Container[int] = ()) -> None:
    """Give a network without weights, or with them, tensors that have their form and no content; tied ones stay tied.

    Args:
        network: Changed in place, within ``shadow``; buffers of integers are left as they are, but for those on no
            device.
        kept: ``id`` of parameters that have their form already.
    """
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in kept:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape).to(parameter.dtype)
                    made[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and (buffer.is_floating_point() or buffer.is_meta):
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def forms_of(values: Any) -> Any:
    """Tensors of the same form without content, for those of numbers in a nested value."""
    return tree_map(
        lambda leaf: (
            torch.empty(leaf.shape, dtype=leaf.dtype)
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            else leaf
        ),
        values,
    )
