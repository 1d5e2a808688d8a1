"""Looks: the passes of a policy that looks at a scan more than once, each with what it showed and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

AXES = ("z", "y", "x")
"""Names of the ranges of a region."""

MAX_LOOKS = 8
"""Most looks of one answer that a record tells of."""


@dataclass(frozen=True)
class Region:
    """A block of a volume's voxels, as half-open ranges of indices, each with at least one voxel.

    Args:
        z: First slice, and the one after the last.
        y: First row, and the one after the last.
        x: First column, and the one after the last.
    """

    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]

    @property
    def plane(self) -> tuple[slice, slice]:
        """Its rows and columns in a slice (Y, X)."""
        return slice(*self.y), slice(*self.x)


def whole_region(shape: tuple[int, int, int]) -> Region:
    """The region that is all of a volume of a shape (Z, Y, X)."""
    depth, height, width = shape
    return Region((0, depth), (0, height), (0, width))


@dataclass(frozen=True)
class Look:
    """One pass of a policy that looks more than once.

    Args:
        region: What was shown of the volume.
        answer: The policy's own words. Slices have their index in the whole scan; boxes are over the width and height
            of the region.
        failure: Why they could not be read, see ``medvol.grounding.grammar.FAILURES``; None when they could.
    """

    region: Region
    answer: str
    failure: str | None = None


def last_region(looks: Sequence[Look]) -> Region | None:
    """What the last of several looks showed; None where there was one look, or none is told of."""
    return looks[-1].region if len(looks) > 1 else None
