"""Making a scan: a labelled source is deformed, sampled once, and given other intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.types import Modality
from medvol.datasets.appearance import AppearanceSettings, change_appearance
from medvol.datasets.deformation import Deformation, DeformationSettings, sample_deformation
from medvol.datasets.labelled_source import LabelledSource

KEPT_SHARE = 0.3
"""Share of the volume of every target that a made scan keeps, where a few tries find such a cut."""

_TRIES = 20
_AIR_HU = -1000.0
_SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True, eq=False)
class MadeScan:
    """A made scan with the masks of its targets.

    Args:
        voxels: Intensities (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        modality: What the intensities are.
        labels: Label map (Z, Y, X), 0 where nothing is named.
        masks: Mask (Z, Y, X) of each target that was asked for; empty where the cut lost it.
    """

    voxels: NDArray[np.float32]
    spacing: tuple[float, float, float]
    modality: Modality
    labels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


def make_scan(
    source: LabelledSource,
    targets: Sequence[str],
    numbers: dict[str, int],
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    deformation: DeformationSettings,
    appearance: AppearanceSettings,
) -> MadeScan:
    """Make a scan at random.

    Args:
        source: What it is made of.
        targets: Names of targets, each with a mask in the source or, when it is mirrored, under the other side's name.
        numbers: Number of every target of the source in the label map.
        rng: Source of everything random.
        shape: (Z, Y, X).
        deformation: How strongly the body and the field of view change.
        appearance: How strongly intensities change.
    """
    place, kept = _choose_place(source, targets, rng, shape, deformation)
    names = {name: swap_sides(name) if place.mirrored else name for name in source.masks}
    labels = kept.take(source.paint({name: numbers.get(names[name], numbers[name]) for name in source.masks}))
    outside = _AIR_HU if source.modality == "CT" else float(source.voxels.min())
    voxels = kept.fill(ndimage.map_coordinates(source.voxels, place.places, order=1, mode="nearest"), outside)
    changed, modality = change_appearance(rng, appearance, voxels, kept.take(source.classify()), source.modality)
    masks = {name: _take_mask(source, kept, swap_sides(name) if place.mirrored else name) for name in targets}
    return MadeScan(changed, place.spacing, modality, labels, masks)


def swap_sides(name: str) -> str:
    """Name of what lies on the other side: ``left kidney`` of ``right kidney``; any other name as it is."""
    return " ".join(_SIDES.get(word, word) for word in name.split(" "))


class _Nearest:
    """The nearest voxel of the source to every voxel of a made scan; 0 lies outside of it."""

    def __init__(self, places: NDArray[np.float32], shape: tuple[int, ...]) -> None:
        nearest = np.floor(places + np.float32(0.5)).astype(np.int64)
        limits = np.array(shape)[:, None, None, None]
        self._inside = ((nearest >= 0) & (nearest < limits)).all(0)
        z, y, x = nearest.clip(0, limits - 1)
        self._flat = (z * shape[1] + y) * shape[2] + x
        self.shape = self._flat.shape

    def fill(self, voxels: NDArray[np.float32], outside: float) -> NDArray[np.float32]:
        """Intensities of a made scan with one value where it lies outside of its source."""
        filled: NDArray[np.float32] = np.where(self._inside, voxels, np.float32(outside))
        return filled

    def take(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Values of the nearest voxels, of a map (Z, Y, X) of the source."""
        taken: NDArray[np.uint8] = np.where(self._inside, values.reshape(-1)[self._flat], np.uint8(0))
        return taken

    def take_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same of a mask."""
        taken: NDArray[np.bool_] = mask.reshape(-1)[self._flat] & self._inside
        return taken


def _choose_place(
    source: LabelledSource,
    targets: Sequence[str],
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    settings: DeformationSettings,
) -> tuple[Deformation, _Nearest]:
    """The first of some deformations that keeps enough of every target, or the one that keeps most."""
    best: tuple[float, Deformation, _Nearest] | None = None
    voxel_mm3 = float(np.prod(source.spacing))
    for _ in range(_TRIES):
        place = sample_deformation(rng, settings, source.voxels.shape, source.spacing, shape)
        nearest = _Nearest(place.places, source.voxels.shape)
        shares = [
            nearest.take_mask(mask).sum() * place.voxel_mm3 / (mask.sum() * voxel_mm3)
            for name, mask in source.masks.items()
            if (swap_sides(name) if place.mirrored else name) in targets
        ]
        least = float(min(shares, default=1.0))
        if best is None or least > best[0]:
            best = least, place, nearest
        if least >= KEPT_SHARE:
            break
    assert best is not None, "there is at least one try"
    return best[1], best[2]


def _take_mask(source: LabelledSource, nearest: _Nearest, name: str) -> NDArray[np.bool_]:
    mask = source.masks.get(name)
    return np.zeros(nearest.shape, bool) if mask is None else nearest.take_mask(mask)
