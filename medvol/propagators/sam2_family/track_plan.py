"""From anchors to tracks and back: which boxes are followed how far, and what their masks make together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Evidence, Volume
from medvol.propagators.clipping import clip_range, describe_anchor, usable_boxes
from medvol.propagators.sam2_family.track_repair import Masklet, RepairRule, keep_largest, repair_track
from medvol.propagators.window_choice import choose_window

BoxPrompt = Literal["mask", "box"]
"""What the network is given of a box: its mask, fed back as a mask prompt, or the box itself."""

SeriesLength = Literal["volume", "range"]
"""Whose length the network is told: that of the whole volume, or of the slices that a track may pass."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackKey:
    """What makes two boxes one track.

    Args:
        key_slice: Slice of the box.
        box: (x1, y1, x2, y2) in pixels of the slice, half-open.
        window: Name of the intensity window.
        first: First slice of the series that the network is told of.
        frames: Slices of that series.
    """

    key_slice: int
    box: tuple[float, ...]
    window: str
    first: int
    frames: int


@dataclass(frozen=True)
class PlannedAnchor:
    """What one anchor asks for.

    Args:
        evidence: The anchor.
        allowed: Slices it may fill.
        reach: Slices its tracks pass, the key slice among them; empty when there is nothing to follow.
        keys: Its tracks.
    """

    evidence: Evidence
    allowed: range
    reach: range
    keys: tuple[TrackKey, ...]


@dataclass(frozen=True)
class TrackPlan:
    """How anchors become tracks.

    Args:
        window: Name of an intensity window, or ``auto``.
        whole_series: Tell the network the length of the volume; else that of the slices the track passes.
        margin: Slices followed beyond the range on either side.
    """

    window: str
    whole_series: bool
    margin: int

    def anchor(self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None) -> PlannedAnchor:
        """Plan one anchor.

        Raises:
            PropagationError: It does not lie in the volume, or a coordinate is not finite.
        """
        boxes = usable_boxes(volume, evidence)
        depth = volume.shape[0]
        allowed = clip_range(depth, z_range)
        if evidence.key_slice is None or len(boxes) == 0 or len(allowed) == 0:
            return PlannedAnchor(evidence, allowed, range(0), ())
        near = range(max(0, allowed.start - self.margin), min(depth, allowed.stop + self.margin))
        reach = _hull(near, range(evidence.key_slice, evidence.key_slice + 1))
        window = choose_window(self.window, volume, evidence.key_slice, boxes)
        series = range(depth) if self.whole_series else reach
        keys = tuple(
            TrackKey(evidence.key_slice, tuple(box.tolist()), window, series.start, len(series)) for box in boxes
        )
        return PlannedAnchor(evidence, allowed, reach, keys)


def wanted_tracks(anchors: Iterable[PlannedAnchor]) -> dict[TrackKey, range]:
    """Every track once, with all slices that any anchor needs of it."""
    wanted: dict[TrackKey, range] = {}
    for anchor in anchors:
        for key in anchor.keys:
            wanted[key] = _hull(wanted[key], anchor.reach) if key in wanted else anchor.reach
    return wanted


def unite_tracks(
    volume: Volume,
    anchor: PlannedAnchor,
    tracks: Mapping[TrackKey, Masklet],
    rule: RepairRule,
    largest_component: bool,
) -> NDArray[np.bool_]:
    """Mask (Z, Y, X) of an anchor: its tracks, each repaired and cut to the range, united; repairs are logged."""
    mask = np.zeros(volume.shape, bool)
    for key in anchor.keys:
        own = {z: found for z, found in tracks[key].items() if z in anchor.reach}
        repaired, actions = repair_track(own, key.key_slice, rule)
        for action in actions:
            _LOG.warning("%s: %s", describe_anchor(volume, anchor.evidence), action)
        single = np.zeros(volume.shape, bool) if largest_component else mask
        for z in anchor.allowed:
            single[z] |= repaired[z]
        if largest_component:
            mask |= keep_largest(single)
    return mask


def _hull(first: range, second: range) -> range:
    """Smallest range that holds both."""
    return range(min(first.start, second.start), max(first.stop, second.stop))
