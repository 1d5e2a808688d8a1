"""LabelledSource: a scan with the masks of all that is named in it, read once to make other scans of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.core.notices import tell_once
from medvol.core.types import Case, Modality
from medvol.datasets.appearance import TISSUES, find_tissues
from medvol.datasets.phantom_anatomy import LABELS

_SPINE = "spine"
_MOST_NAMES = 255 - TISSUES


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """A scan with the masks of all that is named in it.

    Args:
        volume_id: Identity of its voxels.
        voxels: Intensities (Z, Y, X).
        spacing: Voxel size (z, y, x) in mm.
        modality: What the intensities are.
        masks: Mask (Z, Y, X) of each target by its name, the largest first; none is empty.
    """

    volume_id: str
    voxels: NDArray[np.float32]
    spacing: tuple[float, float, float]
    modality: Modality
    masks: dict[str, NDArray[np.bool_]]

    def paint(self, numbers: dict[str, int]) -> NDArray[np.uint8]:
        """Label map (Z, Y, X) with these numbers, 0 where nothing is named; a smaller target covers a larger one."""
        labels = np.zeros(self.voxels.shape, np.uint8)
        for name, mask in self.masks.items():
            labels[mask] = numbers[name]
        return labels

    def classify(self) -> NDArray[np.uint8]:
        """Class (Z, Y, X) of every voxel: a number for each target, and below those the tissue of what has no name."""
        named = self.paint({name: i + TISSUES for i, name in enumerate(self.masks)})
        return np.where(named > 0, named, find_tissues(self.voxels, self.modality))


def read_source(cases: Iterable[Case], shape: tuple[int, int, int]) -> LabelledSource:
    """Collect what the cases of one volume know of it.

    Targets that the scan does not show and those of relations are passed over: after a deformation, the larger kidney
    may be the other one.

    Args:
        cases: All of one volume.
        shape: (Z, Y, X) of the scans that will be made. Of a source with more than twice as many slices, two for each
            of them are kept; one with at least twice as many pixels along a side is averaged over blocks of pixels.

    Raises:
        DatasetError: A case has no mask or no target name, or more is named than a label map holds.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    ambiguous: set[str] = set()
    volume = None
    for case in cases:
        volume = case.volume
        if case.target is None or not case.query.target:
            raise DatasetError(
                f"case {case.case_id} of the source has no mask or no target name; scans are made of cases with both"
            )
        if case.target.any() and not case.query.meaning:
            known = masks.setdefault(case.query.target, case.target)
            if known is not case.target and not np.array_equal(known, case.target):
                ambiguous.add(case.query.target)
    if volume is not None and ambiguous:
        masks = {name: mask for name, mask in masks.items() if name not in ambiguous}
        names = ", ".join(map(repr, sorted(ambiguous)))
        tell_once(f"{volume.volume_id}: several masks are called {names}, and a made scan is not asked for them")
    if volume is None or not masks:
        raise DatasetError("a volume of the source has no target with a mask; leave it out")
    if len(masks) > _MOST_NAMES:
        raise DatasetError(f"a volume of the source has {len(masks)} targets; at most {_MOST_NAMES} can be told apart")
    step = max(1, volume.shape[0] // (2 * shape[0]))
    block = [max(1, count // wanted) for count, wanted in zip(volume.shape[1:], shape[1:], strict=True)]
    masks = {name: _pick(mask[step // 2 :: step], *block) for name, mask in masks.items()}
    sizes = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    lost = [name for name, size in sizes.items() if not size]
    if lost:
        names, wanted = ", ".join(map(repr, lost)), " x ".join(map(str, shape))
        tell_once(f"{volume.volume_id}: {names} vanishes in a made scan of {wanted} voxels and is not asked for")
    spacing = volume.spacing
    return LabelledSource(
        volume.volume_id,
        _average(volume.voxels[step // 2 :: step], *block),
        (spacing[0] * step, spacing[1] * block[0], spacing[2] * block[1]),
        volume.modality,
        {name: masks[name] for name in sorted(masks, key=lambda name: -sizes[name]) if sizes[name]},
    )


def number_names(names: Iterable[str]) -> dict[str, int]:
    """Number of each name in label maps: that of a phantom's label map where it has the name, and the next ones.

    So a policy can learn to see from phantoms and made scans together. All vertebrae are the spine of the phantom.
    """
    known = {name: LABELS.get(_SPINE if name.startswith("vertebra") else name, 0) for name in sorted(set(names))}
    free = iter(range(len(LABELS), 256))
    return {name: number or next(free, 0) for name, number in known.items()}


def _average(voxels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean of every block of pixels; what fills no block is left out."""
    depth, height, width = voxels.shape[0], voxels.shape[1] // rows, voxels.shape[2] // columns
    blocks = voxels[:, : height * rows, : width * columns].reshape(depth, height, rows, width, columns)
    mean: NDArray[np.float32] = blocks.mean((2, 4), dtype=np.float32)
    return mean


def _pick(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixel in the middle of every block."""
    height, width = mask.shape[1] // rows * rows, mask.shape[2] // columns * columns
    return np.ascontiguousarray(mask[:, rows // 2 : height : rows, columns // 2 : width : columns])
