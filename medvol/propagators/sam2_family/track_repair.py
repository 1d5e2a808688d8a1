"""What may be done to a track after it was followed: end it, fill its gaps, keep its largest part.

Nothing here acts unless it is asked for, and whatever acts says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.ranges import require_least, require_share, require_whole

Bits = NDArray[np.bool_]
Masklet = dict[int, Bits]
"""Mask (Y, X) of every slice that was followed, the key slice included."""


@dataclass(frozen=True)
class RepairRule:
    """What is done; the defaults do nothing.

    Args:
        min_area_share: Stop rule: a track ends at the first slice with less than this share of the key slice's area.
        max_growth: Stop rule: a track ends at the first slice with more than this multiple of the area before; 0 never.
        max_gap_slices: Gap repair: runs of at most so many empty slices between found ones are filled.
    """

    min_area_share: float = 0.0
    max_growth: float = 0.0
    max_gap_slices: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_share("repair", min_area_share=self.min_area_share)
        require_whole(0, "repair", max_gap_slices=self.max_gap_slices)
        require_least(0, "repair", max_growth=self.max_growth)


def repair_track(track: Masklet, key_slice: int, rule: RepairRule) -> tuple[Masklet, list[str]]:
    """Fill gaps, then end the track in both directions.

    Returns:
        The new track, and one sentence for everything that was changed.
    """
    filled, actions = fill_gaps(track, rule.max_gap_slices)
    ended = dict(filled)
    for step in (-1, 1):
        found = _first_beyond(filled, key_slice, step, rule)
        if found is not None:
            beyond = [z for z in filled if (z - found) * step >= 0 and filled[z].any()]
            ended |= {z: np.zeros_like(filled[z]) for z in beyond}
            actions.append(f"stop rule: ended at slice {found}, {len(beyond)} slices emptied")
    return ended, actions


def fill_gaps(track: Masklet, max_gap_slices: int) -> tuple[Masklet, list[str]]:
    """Fill short runs of empty slices with the shape between their neighbours (linear in the signed distance)."""
    found = sorted(z for z, mask in track.items() if mask.any())
    filled, actions = dict(track), list[str]()
    for before, after in pairwise(found):
        missed = after - before - 1
        if not 0 < missed <= max_gap_slices:
            continue
        low, high = _signed_distance(track[before]), _signed_distance(track[after])
        for z in range(before + 1, after):
            share = (z - before) / (after - before)
            filled[z] = (1 - share) * low + share * high > 0
        actions.append(f"gap repair: filled slices {before + 1} to {after - 1}")
    return filled, actions


def keep_largest(mask: Bits) -> Bits:
    """Largest 3D component (26 neighbours) of a mask (Z, Y, X); an empty mask stays empty."""
    if not mask.any():
        return mask
    import cc3d

    largest: Bits = cc3d.largest_k(mask, k=1, connectivity=26).astype(bool)
    return largest


def _first_beyond(track: Masklet, key_slice: int, step: int, rule: RepairRule) -> int | None:
    """First slice away from the key slice at which the rule ends the track."""
    if key_slice not in track or (rule.min_area_share <= 0 and rule.max_growth <= 0):
        return None
    key_area = before = int(track[key_slice].sum())
    z = key_slice + step
    while z in track:
        area = int(track[z].sum())
        grown = rule.max_growth > 0 and before > 0 and area > rule.max_growth * before
        if area < rule.min_area_share * key_area or grown:
            return z
        before, z = area, z + step
    return None


def _signed_distance(mask: Bits) -> NDArray[np.float64]:
    """Distance to the outline in pixels, positive inside."""
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    distance: NDArray[np.float64] = np.where(mask, inside - 0.5, 0.5 - outside)
    return distance
