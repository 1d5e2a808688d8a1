"""Some slices of a drawing, each at its place in the full one: what a policy learns from before it sees them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medvol.core.types import SliceStack


@dataclass(frozen=True, eq=False, repr=False)
class SliceSubset(SliceStack):
    """Slices that are left of a drawing; each keeps its position in the prompt.

    Args:
        indices: Index in the volume of each slice that is left, ascending, length S.
        pixels: (S, 3, H, W) float32 in [0, 1].
        volume_shape: (Z, Y, X) of the volume the slices were taken from.
        drawn: Indices of the full drawing.
    """

    drawn: tuple[int, ...]


def keep_slices(stack: SliceStack, positions: Sequence[int]) -> SliceSubset:
    """Drop all slices of a stack but those at the given positions (ascending)."""
    kept = tuple(stack.indices[i] for i in positions)
    return SliceSubset(kept, stack.pixels[list(positions)], stack.volume_shape, drawn_indices(stack))


def drawn_indices(stack: SliceStack) -> tuple[int, ...]:
    """Indices of the full drawing that a stack is, or that it is left of."""
    return stack.drawn if isinstance(stack, SliceSubset) else stack.indices
