"""Outlines of a mask in one slice: closed polygons that hold the centre of every pixel of the mask, and no other."""

from __future__ import annotations

from itertools import pairwise

import contourpy
import numpy as np
from numpy.typing import NDArray


def trace_outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Trace the parts of a mask as polygons.

    A polygon runs halfway between pixels of the mask and their neighbours outside, and cuts the corners. A hole is
    joined to the polygon around it by a line that is run there and back, a keyhole; it lies between two rows of pixels.

    Args:
        mask: (Y, X).

    Returns:
        One polygon (N, 2) for each part, as (x, y) in pixels; pixel (0, 0) has its centre there. The last point is not
        the first one again.
    """
    if not mask.any():
        return []
    padded = np.pad(mask, 1).astype(np.float64)
    places = [np.arange(-1, size + 1) for size in mask.shape]
    generator = contourpy.contour_generator(places[1], places[0], padded, fill_type=contourpy.FillType.OuterOffset)
    outlines = []
    for points, offsets in zip(*generator.filled(0.5, 2.0), strict=True):
        rings = [_corners(points[a : b - 1]) for a, b in pairwise(offsets)]
        outlines.append(_join(rings[0], rings[1:]))
    return outlines


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ring without the points that lie on a straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    kept: NDArray[np.float64] = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return kept


def _join(outer: NDArray[np.float64], holes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Join holes to the ring around them, the highest first.

    From the highest point of a hole a line goes to the left. What it meets first is the ring, or a hole that is
    as high or higher, and so is part of the ring by then.
    """
    starts = [hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]] for hole in holes]
    for k in sorted(range(len(holes)), key=lambda k: (starts[k][1], starts[k][0])):
        hole = np.roll(holes[k], -int(np.flatnonzero((holes[k] == starts[k]).all(axis=1))[0]), axis=0)
        place, meets = _look_left(outer, starts[k])
        outer = np.concatenate([outer[: place + 1], [meets], hole, hole[:1], [meets], outer[place + 1 :]])
    return outer


def _look_left(ring: NDArray[np.float64], start: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """The edge that a line to the left of a point meets first, by its first point, and where it meets it.

    Edges along the line need not be looked at: others begin where they end.
    """
    run, rise = (np.roll(ring, -1, axis=0) - ring).T
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (start[1] - ring[:, 1]) / rise
        x = ring[:, 0] + share * run
    place = int(np.where((share >= 0) & (share <= 1) & (x < start[0]), x, -np.inf).argmax())
    return place, np.array([x[place], start[1]])
