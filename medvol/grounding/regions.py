"""Regions around anchors: where a second look goes, and where its answers lie in the whole scan.

A region is cut out of the scan without resampling, and slices keep their index, so the way back adds whole numbers of
pixels to boxes and changes nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from medvol.core.errors import EvidenceParseError
from medvol.core.looks import Look, Region
from medvol.core.ranges import require_between
from medvol.core.types import Evidence
from medvol.grounding.grammar import parse_evidence


@dataclass(frozen=True)
class RegionSettings:
    """How much of a scan a second look shows around a first answer.

    Args:
        margin_mm: Least distance from a box to the side of the region, as far as the slice goes.
        range_mm: Least distance from a key slice to the first and the last slice of the region, as far as the scan
            goes.

    Raises:
        ConfigError: A distance is negative or infinite, or no number.
    """

    margin_mm: float = 30.0
    range_mm: float = 30.0

    def __post_init__(self) -> None:
        require_between("[0, inf)", "region", margin_mm=self.margin_mm, range_mm=self.range_mm)


def region_around(
    evidence: Evidence,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    settings: RegionSettings = RegionSettings(),
) -> Region:
    """The region around an answer that a second look shows.

    It has the proportions of the slice, so that nothing is stretched. At a border it is moved into the slice; where it
    does not fit, it is the whole slice.

    Args:
        evidence: Anchors, not an absent one; the region is around all of them.
        shape: Of the volume (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        settings: Margins.
    """
    keys = evidence.key_slices
    boxes = np.concatenate([anchor.boxes for anchor in evidence.anchors])
    reach = math.ceil(settings.range_mm / spacing[0] - 1e-9)
    z = max(0, keys[0] - reach), min(shape[0], keys[-1] + reach + 1)
    low = boxes[:, 1].min() - settings.margin_mm / spacing[1], boxes[:, 0].min() - settings.margin_mm / spacing[2]
    high = boxes[:, 3].max() + settings.margin_mm / spacing[1], boxes[:, 2].max() + settings.margin_mm / spacing[2]
    share = min(1.0, max((high[0] - low[0]) / shape[1], (high[1] - low[1]) / shape[2]))
    y, x = (
        _interval((low[axis] + high[axis]) / 2, share * size, size) for axis, size in enumerate((shape[1], shape[2]))
    )
    return Region(z, y, x)


def move_in(evidence: Evidence, region: Region) -> Evidence | None:
    """An answer about the whole scan, with boxes in pixels of the region, cut to it; slices keep their index.

    Returns:
        None where a box lies outside the region.
    """
    moved = _shift(evidence, -region.x[0], -region.y[0])
    most = [region.x[1] - region.x[0], region.y[1] - region.y[0]] * 2
    cut = [replace(anchor, boxes=np.clip(anchor.boxes, 0, most)) for anchor in moved.anchors]
    if not all((anchor.boxes[:, :2] < anchor.boxes[:, 2:]).all() for anchor in cut):
        return None
    return replace(cut[0], further=tuple(cut[1:]))


def move_out(evidence: Evidence, region: Region) -> Evidence:
    """An answer about a region, with boxes in pixels of the whole slice: the inverse of ``move_in``."""
    return _shift(evidence, region.x[0], region.y[0])


def read_look(
    text: str, region: Region, shape: tuple[int, int, int], max_anchors: int = 1
) -> tuple[Look, Evidence | None]:
    """Read what was answered about a region.

    Args:
        text: Any text at all.
        region: What was shown.
        shape: Of the whole volume (Z, Y, X).
        max_anchors: Most anchors that the prompt allowed.

    Returns:
        The look, and its anchors in indices and pixels of the whole volume; None where they cannot be read.
    """
    seen = shape[0], region.y[1] - region.y[0], region.x[1] - region.x[0]
    try:
        return Look(region, text), move_out(parse_evidence(text, seen, max_anchors), region)
    except EvidenceParseError as error:
        return Look(region, text, error.failure), None


def _shift(evidence: Evidence, x: int, y: int) -> Evidence:
    by = np.array([x, y, x, y], np.float64)
    first, *further = (replace(anchor, boxes=anchor.boxes + by) for anchor in evidence.anchors)
    return replace(first, further=tuple(further))


def _interval(centre: float, length: float, size: int) -> tuple[int, int]:
    """Whole voxels that hold an interval about a centre, which is moved into a side of ``size`` voxels."""
    start = min(max(centre - length / 2, 0.0), size - length)
    return max(0, math.floor(start + 1e-9)), min(size, math.ceil(start + length - 1e-9))
