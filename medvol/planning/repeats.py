"""Equal layers of a language model, of which three are run for all: the first, one for those between, and the last.

Bytes that are alive grow by the same amount from each of the equal layers to the next, in the forward and in the
backward pass. So the most that is alive in any of them is alive in the first or in the last, and these two are run as
they are. The layer between them stands for all others: what it makes is counted as often, and no peak is looked for
in it. That the amounts are equal is checked while the layers run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import nn

from medvol.planning.live_bytes import LiveBytes
from medvol.policies.vlm.network import VLMNetwork

_LEAST = 5
"""Equal layers that are worth it."""


class UnlikeLayersError(Exception):
    """Layers of one form keep different amounts, so none of them can stand for the others."""


@dataclass(frozen=True, eq=False)
class Repeat:
    """Three of the equal layers that are left.

    Args:
        layers: The first, the one that stands for all between, and the last.
        times: How many it stands for.
        place: Index of it among all layers that are left.
    """

    layers: tuple[nn.Module, nn.Module, nn.Module]
    times: int
    place: int

    def times_of(self) -> dict[int, int]:
        """How many parameters each of its own stands for, by ``id``; of any other it is 1."""
        return {id(parameter): self.times for parameter in self.layers[1].parameters()}


def shorten(network: VLMNetwork) -> Repeat | None:
    """Leave three of the longest run of equal layers; None where the run is too short.

    Args:
        network: Without weights. Its language model is changed in place.
    """
    layers, config = getattr(network.language, "layers", None), network.language.config
    if not isinstance(layers, nn.ModuleList):
        return None
    kinds = list(getattr(config, "layer_types", None) or [""] * len(layers))
    first, last = _longest_run([(kind, _form(layer)) for kind, layer in zip(kinds, layers, strict=True)], network)
    times = last - first - 1
    if times + 2 < _LEAST:
        return None
    del layers[first + 2 : last]
    for index, layer in enumerate(layers):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = index  # type: ignore[assignment]
    for known in {id(known): known for known in (config, network.model.config.get_text_config())}.values():
        known.num_hidden_layers = len(layers)
        if getattr(known, "layer_types", None):
            known.layer_types = kinds[: first + 2] + kinds[last:]
    return Repeat((layers[first], layers[first + 1], layers[first + 2]), times, first + 1)


def _longest_run(forms: Sequence[Any], network: VLMNetwork) -> tuple[int, int]:
    """First and last index; not among them are layers at the ends, nor those that get features of slices."""
    vision = getattr(network.model.config, "vision_config", None)
    start = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or ())
    best = (start, start)
    for index in range(start, len(forms) - 1):
        start = start if forms[index] == forms[start] else index
        best = max(best, (start, index), key=lambda run: run[1] - run[0])
    return best


def _form(layer: nn.Module) -> tuple[Any, ...]:
    return type(layer), tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in layer.named_parameters())


@dataclass
class _Pass:
    """What was alive before each of the three layers in a pass, and after the last.

    Args:
        alive: Bytes.
        handed: What the first layer gave to the next.
    """

    alive: list[int] = field(default_factory=list)
    handed: Callable[[], Any] = lambda: None

    def note(self, total: int, times: int) -> None:
        """Note what is alive, and see that the layers are alike.

        Raises:
            UnlikeLayersError: They are not.
        """
        self.alive.append(total)
        if len(self.alive) == 3:
            before, between, behind = self.alive
            if (between - before) * times != behind - between:
                raise UnlikeLayersError


class _Watch:
    """Counts what the middle layer makes as often as it stands for, forward and backward."""

    def __init__(self, repeat: Repeat, live: LiveBytes) -> None:
        self.repeat, self.live = repeat, live
        self.forward = _Pass()
        self.depth = 0
        self.before: list[int] = []

    def enter(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a layer; within a backward pass it runs again, and belongs to that."""
        self.before.append(self.live.times)
        self.depth += 1
        if self.depth > 1 or torch._C._current_autograd_node() is not None:
            return
        states = args[0] if args else kwargs["hidden_states"]
        if number == 0:
            self.forward, self.backward = _Pass(), _Pass()
        if number == 1:
            self.forward.handed = ref(states.untyped_storage())
            self._follow(states, self.backward, times=1, hand_on=True)
        if number == 2:
            self.live.multiply(states.untyped_storage(), 1)
            kept = self.forward.handed()
            if kept is not None:  # each layer keeps what it was given
                self.live.multiply(kept, self.repeat.times)
            self._follow(states, self.backward, times=self.repeat.times)
        self.forward.note(self.live.total, self.repeat.times)
        if number == 1:
            self.live.times = self.repeat.times

    def leave(self, number: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """After a layer, also where it was left by an error."""
        self.depth -= 1
        self.live.times = self.before.pop()
        if number == 2 and self.depth == 0 and torch._C._current_autograd_node() is None:
            states = output[0] if isinstance(output, tuple) else output
            if isinstance(states, torch.Tensor):
                self._follow(states, self.backward, times=1)

    def _follow(self, states: torch.Tensor, noted: _Pass, times: int, hand_on: bool = False) -> None:
        """When the gradient of states is known, go on to the layer that made them."""
        if not states.requires_grad:
            return

        def arrive(gradient: torch.Tensor) -> None:
            if hand_on:
                self.live.multiply(gradient.untyped_storage(), 1)
            self.live.times = times
            noted.note(self.live.total, self.repeat.times)

        states.register_hook(arrive)


@contextmanager
def counted_often(repeat: Repeat, live: LiveBytes) -> Iterator[None]:
    """Count the layers in a ``with`` block for all that they stand for."""
    watch = _Watch(repeat, live)
    with ExitStack() as hooks:
        for number, layer in enumerate(repeat.layers):
            hooks.enter_context(layer.register_forward_pre_hook(partial(watch.enter, number), with_kwargs=True))
            hooks.enter_context(layer.register_forward_hook(partial(watch.leave, number), always_call=True))
        yield
