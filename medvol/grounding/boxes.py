"""Boxes: the one coordinate map, tight boxes of a mask, overlap, matching.

Boxes are (x1, y1, x2, y2), half-open, in pixels of the volume's slice: a box covers columns x1..x2-1 and rows
y1..y2-1 and has the area (x2-x1)*(y2-y1). The answer grammar writes them as integers 0..1000 over the slice's width
and height. ``to_norm`` and ``to_px`` are the only places that know the number 1000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

NORM = 1000
"""Upper end of the grammar's coordinate range."""


def to_norm(boxes_px: ArrayLike, height: int, width: int, step: int = 1) -> NDArray[np.int64]:
    """Map pixel boxes to the grammar's integers.

    Args:
        boxes_px: (N, 4) pixels; clipped to the slice.
        height: Rows of the slice.
        width: Columns of the slice.
        step: Round to multiples of this, which divides 1000 (a small vocabulary writes fewer numbers).

    Returns:
        (N, 4) integers in 0..1000, with x1 < x2 and y1 < y2 for every box that has an area.
    """
    boxes = np.asarray(boxes_px, np.float64).reshape(-1, 4)
    scale = np.array([width, height, width, height], np.float64)
    steps = NORM // step
    units = np.clip(np.floor(boxes / scale * steps + 0.5), 0, steps).astype(np.int64)
    return _widen_collapsed(units, np.array([steps, steps])) * step


def to_px(boxes_norm: ArrayLike, height: int, width: int) -> NDArray[np.float64]:
    """Map the grammar's integers to pixel boxes (N, 4), the inverse of ``to_norm`` up to its rounding."""
    boxes = np.asarray(boxes_norm, np.float64).reshape(-1, 4)
    return boxes * (np.array([width, height, width, height], np.float64) / NORM)


def to_whole_px(boxes_norm: ArrayLike, height: int, width: int) -> NDArray[np.int64]:
    """Map the grammar's integers to whole pixels (N, 4), with x1 < x2 and y1 < y2 for every box that has an area."""
    whole = np.floor(to_px(boxes_norm, height, width) + 0.5).astype(np.int64)
    return _widen_collapsed(whole, np.array([width, height]))


def _widen_collapsed(edges: NDArray[np.int64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give boxes that rounding left without an area one step in place, at most up to the end (x, y) of the slice."""
    low, high = edges[:, :2], edges[:, 2:]
    collapsed = low >= high
    high[collapsed] = np.minimum(low + 1, most)[collapsed]
    low[collapsed] = high[collapsed] - 1
    return edges


def tight_boxes(
    mask: NDArray[np.bool_], split: bool = False, min_area_px: int = 5, min_share: float = 0.1, max_boxes: int = 8
) -> NDArray[np.float64]:
    """Tight boxes of a 2D mask.

    Args:
        mask: (Y, X) bool.
        split: One box for each 8-connected component; one box of the whole mask when False.
        min_area_px: Components with fewer pixels are left out (unless nothing else is there).
        min_share: Components with less than this share of the largest one's area are left out.
        max_boxes: Keep the largest components only.

    Returns:
        (N, 4) pixels, from left to right; (0, 4) for an empty mask.
    """
    if not mask.any():
        return np.empty((0, 4), np.float64)
    labels, count = ndimage.label(mask, np.ones((3, 3))) if split else (mask.astype(np.int32), 1)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    floor = min(max(min_area_px, min_share * areas.max()), areas.max())
    keep = [i for i in np.argsort(-areas, kind="stable")[:max_boxes] if areas[i] >= floor]
    slices = ndimage.find_objects(labels)
    boxes = [(slices[i][1].start, slices[i][0].start, slices[i][1].stop, slices[i][0].stop) for i in keep]
    return np.array(sorted(boxes), np.float64)


def box_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair, (N, 4) and (M, 4) to (N, M), in [0, 1]; 0 where both have no area."""
    first, second = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (a, b))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=-1)
    area_a, area_b = (np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1) for boxes in (first, second))
    union = area_a[:, None] + area_b[None] - overlap
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def matched_iou(predicted: ArrayLike, true: ArrayLike) -> float:
    """Sum of the Hungarian-matched IoU over max(N_pred, N_true), in [0, 1]; 0 when either side is empty.

    Source: MedVol-R1 (arXiv 2605.26621), spatial reward R_s; missed and surplus boxes lower it through the maximum.
    """
    iou = box_iou(predicted, true)
    if 0 in iou.shape:
        return 0.0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return float(iou[rows, columns].sum() / max(iou.shape))


def rasterise(boxes_px: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """Union of the boxes as a mask (Y, X): every pixel whose centre lies in a box."""
    mask = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in np.asarray(boxes_px, np.float64).reshape(-1, 4):
        left, top, right, bottom = (int(np.ceil(max(v - 0.5, 0))) for v in (x1, y1, x2, y2))
        mask[top:bottom, left:right] = True
    return mask
