"""Separate parts of a mask: each tumour of a kidney, each lung of a pair, with its place in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

VoxelIndex = tuple[int, int, int]
"""A voxel (z, y, x) of a part; with the mask it says which part is meant."""

Point = NDArray[np.float64]
"""World position (x, y, z) in mm, RAS+."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One connected part of a mask.

    Args:
        mask: (z, y, x) bool, cropped to the part.
        corner: Index (z, y, x) of the crop in the scan.
        affine: Voxel (x, y, z, 1) of the scan to world mm (RAS+), shape (4, 4).
        depth: Slices of the scan.
        name: What it is called where it matters: ``left kidney``.
        source: Whatever the maker needs to find it again.
    """

    mask: NDArray[np.bool_]
    corner: VoxelIndex
    affine: NDArray[np.float64]
    depth: int
    name: str = ""
    source: Any = None

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Voxels (N, 3) as z, y, x of the scan."""
        inside: NDArray[np.int64] = np.argwhere(self.mask) + np.array(self.corner)
        return inside

    @property
    def cut(self) -> bool:
        """True when it reaches the first or the last slice, so that its size and height are not known."""
        return self.corner[0] == 0 or self.corner[0] + self.mask.shape[0] == self.depth

    @cached_property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    @property
    def seed(self) -> VoxelIndex:
        """Its first voxel in array order."""
        place = np.unravel_index(int(self.mask.argmax()), self.mask.shape)
        z, y, x = (int(index) + first for index, first in zip(place, self.corner, strict=True))
        return z, y, x

    @cached_property
    def points_mm(self) -> Point:
        """World position (N, 3) of every voxel."""
        return self._world(self.indices)

    @cached_property
    def centre_mm(self) -> Point:
        """World position (3,) of its centre."""
        centre: Point = self._world(self.indices.mean(axis=0, keepdims=True))[0]
        return centre

    def overlap(self, other: Instance) -> int:
        """Number of voxels shared with another instance of the same scan."""
        local = other.indices - np.array(self.corner)
        local = local[((local >= 0) & (local < self.mask.shape)).all(axis=1)]
        return int(np.count_nonzero(self.mask[tuple(local.T)]))

    def _world(self, indices: NDArray[np.generic]) -> Point:
        xyz = np.asarray(indices, np.float64)[:, ::-1]
        world: Point = xyz @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world


def find_instances(mask: NDArray[np.bool_], affine: NDArray[np.float64], min_voxels: int = 1) -> list[Instance]:
    """Split a mask into its connected parts (26 neighbours), the largest first.

    Args:
        mask: (Z, Y, X) bool.
        affine: Voxel (x, y, z, 1) to world mm (RAS+), shape (4, 4).
        min_voxels: Smaller parts are left out.
    """
    whole = whole_mask(mask, affine)
    return [] if whole is None else split_instance(whole, min_voxels)


def split_instance(whole: Instance, min_voxels: int = 1) -> list[Instance]:
    """Split an instance into its connected parts; see ``find_instances``."""
    import cc3d

    parts = _label_parts(whole.mask)
    statistics = cc3d.statistics(parts)
    counts, boxes = statistics["voxel_counts"], statistics["bounding_boxes"]
    found = [
        Instance(parts[box] == number, _corner(box, whole.corner), whole.affine, whole.depth)
        for number, (count, box) in enumerate(zip(counts, boxes, strict=True))
        if number > 0 and count >= min_voxels
    ]
    return sorted(found, key=lambda part: -part.size)


def part_at(mask: NDArray[np.bool_], seed: VoxelIndex) -> NDArray[np.bool_]:
    """The connected part (26 neighbours) of a mask that holds a voxel; (Z, Y, X) bool, empty where the voxel is not."""
    if not mask[seed]:
        return np.zeros_like(mask)
    parts = _label_parts(mask)
    chosen: NDArray[np.bool_] = parts == parts[seed]
    return chosen


def _label_parts(mask: NDArray[np.bool_]) -> NDArray[np.unsignedinteger[Any]]:
    """Number the connected parts (26 neighbours) of a mask (Z, Y, X) from 1; 0 where there is none."""
    import cc3d

    padded = np.pad(mask, 1)  # cc3d fails on some arrays that are one voxel thin
    parts: NDArray[np.unsignedinteger[Any]] = cc3d.connected_components(padded, connectivity=26)
    return np.ascontiguousarray(parts[1:-1, 1:-1, 1:-1])


def whole_mask(mask: NDArray[np.bool_], affine: NDArray[np.float64], name: str = "") -> Instance | None:
    """All voxels of a mask as one instance, cropped to them; None when it is empty."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return None
    box = tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
    return Instance(mask[box].copy(), _corner(box, (0, 0, 0)), affine, mask.shape[0], name)


def _corner(box: tuple[slice, ...], offset: VoxelIndex) -> VoxelIndex:
    z, y, x = (int(side.start) + first for side, first in zip(box, offset, strict=True))
    return z, y, x
