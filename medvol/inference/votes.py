"""Votes: the masks of sampled answers, laid on one another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medvol.core.metrics import Mask
from medvol.core.roles import Propagator
from medvol.core.types import Rollout
from medvol.rollouts.groups import Group
from medvol.rollouts.samples import follow_samples

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Votes:
    """How sampled answers to one question vote.

    Args:
        shares: (Z, Y, X) float32 in [0, 1]: share of the samples whose mask holds a voxel.
        samples: Number of samples; one without a mask counts, and votes for nothing.
        empty: Those whose mask is empty, as where the answer says that the target is absent.
        agreement: Mean Dice over all pairs of samples, in [0, 1]. Two empty masks agree fully; a sample without a mask
            agrees with none.
    """

    shares: NDArray[np.float32]
    samples: int
    empty: int
    agreement: float

    def support(self, mask: Mask) -> float:
        """Share of the samples that a mask has on its side, in [0, 1].

        Args:
            mask: (Z, Y, X). It is the mean of ``shares`` over its voxels; of an empty one the share of empty samples.
        """
        return float(self.shares[mask].mean(dtype=np.float64)) if mask.any() else self.empty / self.samples


def take_votes(group: Group, propagator: Propagator) -> Votes:
    """Follow the samples of an answer, two or more of them, and count.

    Raises:
        InvalidComponentError: The propagator changed what it was given.
    """
    return count_votes(follow_samples(group, propagator), group.case.volume.shape)


def count_votes(rollouts: Iterable[Rollout], shape: tuple[int, int, int]) -> Votes:
    """Count the votes of rollouts, two or more of them.

    Args:
        rollouts: Followed to their masks; they are held one at a time.
        shape: (Z, Y, X) of the masks.
    """
    counts, samples, empty = np.zeros(shape, np.uint16), 0, 0
    kept: list[_Crop] = []
    last: Mask | None = None
    for rollout in rollouts:
        samples += 1
        if rollout.mask is None:
            continue
        if rollout.mask is not last:
            last = rollout.mask
            kept.append(_Crop(last))
        kept[-1].votes += 1
        empty += kept[-1].size == 0
        counts[kept[-1].box] += kept[-1].voxels
    shares: NDArray[np.float32] = counts.astype(np.float32) / np.float32(samples)
    return Votes(shares, samples, empty, _mean_dice(kept, samples))


class _Crop:
    """A mask cut to its voxels, and how many samples have it."""

    def __init__(self, mask: Mask) -> None:
        self.box: _Box = _find_box(mask)
        self.voxels = mask[self.box].copy()
        self.size = int(np.count_nonzero(self.voxels))
        self.votes = 0

    def dice(self, other: _Crop) -> float:
        """Dice of the two masks; 1 when both are empty."""
        total = self.size + other.size
        starts = [max(a.start, b.start) for a, b in zip(self.box, other.box, strict=True)]
        stops = [min(a.stop, b.stop) for a, b in zip(self.box, other.box, strict=True)]
        if not total or any(start >= stop for start, stop in zip(starts, stops, strict=True)):
            return float(not total)
        parts = [
            crop.voxels[tuple(slice(a - s.start, b - s.start) for a, b, s in zip(starts, stops, crop.box, strict=True))]
            for crop in (self, other)
        ]
        return 2.0 * int(np.count_nonzero(parts[0] & parts[1])) / total


def _find_box(mask: Mask) -> _Box:
    """Half-open range of the mask's voxels on every axis; empty for an empty mask."""
    sides = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    z, y, x = (slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, 0) for side in sides)
    return z, y, x


def _mean_dice(kept: list[_Crop], samples: int) -> float:
    alike = sum(crop.votes * (crop.votes - 1) / 2 for crop in kept)
    apart = sum(first.votes * second.votes * first.dice(second) for first, second in combinations(kept, 2))
    return (alike + apart) / (samples * (samples - 1) / 2)
