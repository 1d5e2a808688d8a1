"""What a vision tower that does not learn saw: kept with a drawing of slices, for as long as the drawing is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from medvol.core.types import SliceStack


@dataclass(frozen=True, eq=False)
class SliceFeatures:
    """Features of the slices of some drawings, as transformers' vision-language models take them.

    Args:
        pooler_output: One (tokens, C) tensor a slice.
        deepstack_features: For each layer that gets features of its own, one tensor a slice; none in Qwen2.5-VL.
    """

    pooler_output: tuple[torch.Tensor, ...]
    deepstack_features: tuple[tuple[torch.Tensor, ...], ...]


class FeatureStore:
    """Features of drawings that were encoded before; those of a drawing that is gone are gone with it."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[SliceStack, SliceFeatures] = WeakKeyDictionary()

    def look_up(self, stacks: Sequence[SliceStack], encode: Callable[[Sequence[SliceStack]], Any]) -> SliceFeatures:
        """Features of all slices of all stacks in order; the stacks that are new are encoded together.

        Args:
            stacks: Drawings of slices.
            encode: Runs the vision tower; its answer has the fields of ``SliceFeatures``.
        """
        new = list(dict.fromkeys(stack for stack in stacks if stack not in self._kept))
        if new:
            seen = encode(new)
            deep = getattr(seen, "deepstack_features", None) or ()
            first = 0
            for stack in new:
                own = slice(first, first := first + len(stack.indices))
                self._kept[stack] = SliceFeatures(
                    tuple(seen.pooler_output[own]), tuple(tuple(layer[own]) for layer in deep)
                )
        found = [self._kept[stack] for stack in stacks]
        return SliceFeatures(
            tuple(slice_ for own in found for slice_ in own.pooler_output),
            tuple(
                tuple(slice_ for layer in layers for slice_ in layer)
                for layers in zip(*(own.deepstack_features for own in found), strict=True)
            ),
        )
