"""What a vision tower that does not learn saw.

Features are kept with a drawing of slices for as long as the drawing is in use. Where memory is set aside for them,
they are also kept in the memory of the host, by the pixels they were made of, for as long as there is room.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
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

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return sum(tensor.nbytes for layer in (self.pooler_output, *self.deepstack_features) for tensor in layer)

    def on(self, device: torch.device | str) -> SliceFeatures:
        """The same, on a device."""
        return SliceFeatures(
            tuple(tensor.to(device) for tensor in self.pooler_output),
            tuple(tuple(tensor.to(device) for tensor in layer) for layer in self.deepstack_features),
        )


class HostFeatures:
    """Features in the memory of the host, by the pixels that they were made of; the least used go first.

    Args:
        limit: Bytes that they may take.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._kept: OrderedDict[str, tuple[SliceFeatures, torch.device]] = OrderedDict()

    def find(self, stack: SliceStack) -> SliceFeatures | None:
        """What was kept of a drawing with the same pixels, on the device where it was made."""
        key = _name(stack)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        features, device = self._kept[key]
        return features.on(device)

    def keep(self, stack: SliceStack, features: SliceFeatures) -> None:
        """Keep a copy, and let go of others until there is room; what is larger than all room is not kept."""
        if features.nbytes > self.limit:
            return
        while self.used + features.nbytes > self.limit:
            self.used -= self._kept.popitem(last=False)[1][0].nbytes
        copies = SliceFeatures(
            tuple(tensor.detach().cpu().clone() for tensor in features.pooler_output),
            tuple(tuple(tensor.detach().cpu().clone() for tensor in layer) for layer in features.deepstack_features),
        )
        self._kept[_name(stack)] = copies, features.pooler_output[0].device
        self.used += copies.nbytes


def _name(stack: SliceStack) -> str:
    """Hash of the pixels, which volume, slices, windows, size and augmentation make what they are."""
    pixels = np.ascontiguousarray(stack.pixels)
    return hashlib.sha256(f"{pixels.shape} {pixels.dtype} ".encode() + pixels.tobytes()).hexdigest()


class FeatureStore:
    """Features of drawings that were encoded before; those of a drawing that is gone are gone with it.

    Args:
        host: Keeps them beyond that; None keeps none. With it, drawings are encoded one by one, so that features do
            not depend on what else was new at the time.
    """

    def __init__(self, host: HostFeatures | None = None) -> None:
        self.host = host
        self._kept: WeakKeyDictionary[SliceStack, SliceFeatures] = WeakKeyDictionary()

    def look_up(self, stacks: Sequence[SliceStack], encode: Callable[[Sequence[SliceStack]], Any]) -> SliceFeatures:
        """Features of all slices of all stacks in order; the stacks that are new are encoded together.

        Args:
            stacks: Drawings of slices.
            encode: Runs the vision tower; its answer has the fields of ``SliceFeatures``.
        """
        new = list(dict.fromkeys(stack for stack in stacks if stack not in self._kept))
        for together in [[stack] for stack in new] if self.host is not None else [new] if new else []:
            self._encode(together, encode)
        found = [self._kept[stack] for stack in stacks]
        return SliceFeatures(
            tuple(slice_ for own in found for slice_ in own.pooler_output),
            tuple(
                tuple(slice_ for layer in layers for slice_ in layer)
                for layers in zip(*(own.deepstack_features for own in found), strict=True)
            ),
        )

    def _encode(self, stacks: Sequence[SliceStack], encode: Callable[[Sequence[SliceStack]], Any]) -> None:
        if self.host is not None:
            found = self.host.find(stacks[0])
            if found is not None:
                self._kept[stacks[0]] = found
                return
        seen = encode(stacks)
        deep = getattr(seen, "deepstack_features", None) or ()
        first = 0
        for stack in stacks:
            own = slice(first, first := first + len(stack.indices))
            features = SliceFeatures(tuple(seen.pooler_output[own]), tuple(tuple(layer[own]) for layer in deep))
            self._kept[stack] = features
            if self.host is not None:
                self.host.keep(stack, features)
