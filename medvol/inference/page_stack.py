"""The part of a scan that an answer page carries: near the mask, in 8 bits, and small enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.types import Evidence, Volume
from medvol.imaging.geometry import voxel_to_world
from medvol.imaging.windows import apply_window, get_window, window_for_target, window_limits
from medvol.imaging.writing import pack_nifti
from medvol.pages.viewer import Stack

MAX_VOXELS = 4_000_000
"""Most voxels of a scan in a page: a larger one is cropped around the mask, and averaged where that is not enough."""

MARGIN_MM = 40.0
"""What is shown around mask and boxes of a scan that is cropped."""

_Three = tuple[int, int, int]


@dataclass(frozen=True)
class _Part:
    """A box of a scan, (z, y, x), and how many voxels become one along each axis."""

    start: _Three
    stop: _Three
    factor: _Three

    @property
    def shape(self) -> _Three:
        """Shape after averaging; a last block may be smaller than the others."""
        z, y, x = (math.ceil((b - a) / f) for a, b, f in zip(self.start, self.stop, self.factor, strict=True))
        return z, y, x

    @property
    def slabs(self) -> Iterator[tuple[slice, slice, slice]]:
        """What becomes one slice each, in order."""
        for first in range(self.start[0], self.stop[0], self.factor[0]):
            down = slice(first, min(first + self.factor[0], self.stop[0]))
            yield down, slice(self.start[1], self.stop[1]), slice(self.start[2], self.stop[2])


def make_stack(
    volume: Volume,
    query: str,
    mask: NDArray[np.bool_],
    evidence: Evidence,
    truth: NDArray[np.bool_] | None = None,
    max_voxels: int | None = None,
) -> tuple[Stack, tuple[str, ...]]:
    """Choose, window and average the part of a scan that is shown, with its mask and its boxes.

    Args:
        volume: The scan.
        query: The question, which chooses the intensity window.
        mask: (Z, Y, X).
        evidence: The anchor.
        truth: The true mask, which is shown too.
        max_voxels: Most voxels of the part; ``MAX_VOXELS`` when None.

    Returns:
        The part, and sentences on what it does not show as it is.
    """
    seen = mask if truth is None else mask | truth
    part = _choose_part(volume, seen, evidence, MAX_VOXELS if max_voxels is None else max_voxels)
    name = window_for_target(query)
    limits = window_limits(volume, get_window(name))
    scan = _average_scan(volume, part, limits)
    affine = _affine(volume, part)
    offset, scale = np.array(part.start)[[2, 1, 2, 1]], np.array(part.factor)[[2, 1, 2, 1]]
    placed = [
        (
            (anchor.key_slice - part.start[0]) // part.factor[0],
            tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in ((anchor.boxes - offset) / scale).tolist()),
        )
        for anchor in evidence.anchors
        if anchor.key_slice is not None
    ]
    spacing_z, spacing_y, spacing_x = (side * f for side, f in zip(volume.spacing, part.factor, strict=True))
    stack = Stack(
        scan_nii_gz=pack_nifti(scan, affine),
        mask_nii_gz=pack_nifti(_average_mask(mask, part), affine) if mask.any() else None,
        shape_zyx=part.shape,
        spacing_zyx_mm=(spacing_z, spacing_y, spacing_x),
        start_zyx=part.start,
        factor_zyx=part.factor,
        scan_shape_zyx=volume.shape,
        key=None if evidence.absent else placed[0][0],
        boxes=placed[0][1] if placed else (),
        further=tuple(placed[1:]),
        truth_nii_gz=None if truth is None or not truth.any() else pack_nifti(_average_mask(truth, part), affine),
    )
    return stack, tuple(_tell(volume, part, name, limits))


def _choose_part(volume: Volume, mask: NDArray[np.bool_], evidence: Evidence, max_voxels: int) -> _Part:
    """The whole scan where it is small enough, else what lies around mask and boxes."""
    start, stop = (0, 0, 0), volume.shape
    if math.prod(stop) > max_voxels and (not evidence.absent or mask.any()):
        start, stop = _around(volume, mask, evidence)
    factor = [1, 1, 1]
    while math.prod((part := _Part(start, stop, (factor[0], factor[1], factor[2]))).shape) > max_voxels:
        sizes = [volume.spacing[i] * factor[i] if part.shape[i] > 1 else math.inf for i in range(3)]
        factor[int(np.argmin(sizes))] += 1
    return part


def _around(volume: Volume, mask: NDArray[np.bool_], evidence: Evidence) -> tuple[_Three, _Three]:
    """First and last voxel of the box about mask and boxes with a margin, as (z, y, x)."""
    low, high = np.array(volume.shape), np.zeros(3, int)
    if not evidence.absent:
        boxes = np.concatenate([anchor.boxes for anchor in evidence.anchors])
        keys = evidence.key_slices
        x1, y1 = np.floor(boxes[:, :2].min(axis=0)).astype(int)
        x2, y2 = np.ceil(boxes[:, 2:].max(axis=0)).astype(int)
        low, high = np.array([keys[0], y1, x1]), np.array([keys[-1] + 1, y2, x2])
    if mask.any():
        sides = ndimage.find_objects(mask.astype(np.uint8))[0]
        low = np.minimum(low, [side.start for side in sides])
        high = np.maximum(high, [side.stop for side in sides])
    margin = np.ceil(MARGIN_MM / np.array(volume.spacing)).astype(int)
    z1, y1, x1 = np.maximum(low - margin, 0).tolist()
    z2, y2, x2 = np.minimum(high + margin, volume.shape).tolist()
    return (z1, y1, x1), (z2, y2, x2)


def _average_scan(volume: Volume, part: _Part, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Scan in 0 to 255, block by block."""
    scan = np.empty(part.shape, np.uint8)
    for k, slab in enumerate(part.slabs):
        shown = apply_window(np.asarray(volume.voxels[slab]), *limits)
        scan[k] = np.rint(255 * _block_means(shown, part.factor))
    return scan


def _average_mask(mask: NDArray[np.bool_], part: _Part) -> NDArray[np.uint8]:
    """Mask in 0 or 1, block by block; one that no block is half full of keeps every block."""
    share = np.empty(part.shape, np.float32)
    for k, slab in enumerate(part.slabs):
        share[k] = _block_means(mask[slab].astype(np.float32), part.factor)
    full = share >= 0.5
    return (full if full.any() else share > 0).astype(np.uint8)


def _block_means(slab: NDArray[np.float32], factor: _Three) -> NDArray[np.float32]:
    """Means of the blocks of a slab (z, Y, X) that is one block thick, as (Y, X)."""
    means: NDArray[np.float32] = slab.mean(axis=0)
    for axis in (0, 1):
        starts = np.arange(0, means.shape[axis], factor[axis + 1])
        counts = np.diff([*starts, means.shape[axis]]).reshape((-1, 1) if axis == 0 else (1, -1))
        means = (np.add.reduceat(means, starts, axis=axis) / counts).astype(np.float32)
    return means


def _affine(volume: Volume, part: _Part) -> NDArray[np.float64]:
    """Affine of the part: its first voxel is the middle of the first block."""
    factor = np.array(part.factor[::-1])
    first = np.array(part.start[::-1]) + (factor - 1) / 2
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * factor
    affine[:3, 3] = voxel_to_world(volume.affine, [first])[0]
    return affine


def _tell(volume: Volume, part: _Part, window: str, limits: tuple[float, float]) -> list[str]:
    unit = " HU" if volume.modality == "CT" else ""
    sentences = [
        f"Slices, planes and 3D show the {window.replace('_', ' ')} window, {limits[0]:.4g} to {limits[1]:.4g}{unit}, "
        "in 256 greys."
    ]
    if part.stop != volume.shape or part.start != (0, 0, 0):
        sentences.append(
            f"They are cropped to {MARGIN_MM:.0f} mm around mask and boxes. The picture shows the whole slice."
        )
    if part.factor != (1, 1, 1):
        z, y, x = part.factor
        sentences.append(
            f"They are averaged over {x} x {y} voxels in a slice and {z} slice{'s' if z > 1 else ''}, so edges are "
            "coarser than in the mask's file; every figure is of the mask as it is."
        )
    return sentences
