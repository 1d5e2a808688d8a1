"""Looking at one case of a data set: its query, its target, and whether its scan is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medvol.checking.findings import Finding
from medvol.core.errors import GeometryError
from medvol.core.types import Case, Volume
from medvol.imaging.label_values import FULL_SHARE, label_values
from medvol.queries.sides import check_side_positions

_LARGE_SHARE = 0.5
_SMALL_VOXELS = 10


def check_case(place: str, case: Case, needs_target: bool) -> Iterator[Finding]:
    """Look at a case that was read.

    Args:
        place: What findings call it.
        case: The case.
        needs_target: False where cases are only answered.
    """
    if not case.query.text.strip():
        yield Finding("empty_query", place, "its query is empty")
    if case.target is None:
        if needs_target:
            yield Finding("no_target", place, "it has no target mask, and this split is scored")
    elif case.target.shape != case.volume.shape:
        yield Finding("other_shape", place, f"mask {case.target.shape} and volume {case.volume.shape} differ in shape")
    else:
        yield from _check_size(place, case)


def _check_size(place: str, case: Case) -> Iterator[Finding]:
    assert case.target is not None, "the caller has looked"
    voxels, name = int(np.count_nonzero(case.target)), case.query.target or case.query.text
    share = voxels / case.target.size
    if case.query.kind == "absent":
        if voxels:
            yield Finding("empty_target", place, f"{name!r} is said to be absent, and its mask has {voxels:,} voxels")
    elif not voxels:
        yield Finding("empty_target", place, f"the mask of {name!r} is empty")
    elif share >= FULL_SHARE:
        yield Finding("full_target", place, f"{name!r} fills {share:.0%} of the scan")
    elif share > _LARGE_SHARE:
        yield Finding("large_target", place, f"{name!r} takes {share:.0%} of the scan")
    elif voxels < _SMALL_VOXELS:
        yield Finding("small_target", place, f"{name!r} has {voxels} voxel{'s' if voxels > 1 else ''}")


def check_volume(place: str, volume: Volume) -> Iterator[Finding]:
    """Look at the scan of a case, whether it is one."""
    values = label_values(volume.voxels)
    if values is None:
        return
    if len(values) == 1:
        yield Finding("constant", place, f"every voxel is {next(iter(values))}")
    else:
        yield Finding("labels_as_scan", place, f"its scan holds {len(values)} whole numbers, as a label map does")


class SideCheck:
    """Compares where targets called left and right lie, scan by scan."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], dict[str, tuple[str, float]]] = {}

    def add(self, place: str, key: str, case: Case) -> Iterator[Finding]:
        """Look at a case beside those of its scan that were added before.

        Args:
            place: What findings call it.
            key: Volume key of the case.
            case: The case.
        """
        side, _, organ = case.query.target.partition(" ")
        if side not in ("left", "right") or case.target is None or not case.target.any():
            return
        sides = self._seen.setdefault((key, organ), {})
        if side in sides:
            return
        z, y, x = (float(np.mean(index)) for index in np.nonzero(case.target))
        sides[side] = place, float(case.volume.affine[0] @ [x, y, z, 1.0])
        if len(sides) == 2:
            try:
                check_side_positions(sides["left"][1], sides["right"][1])
            except GeometryError as error:
                yield Finding("swapped_sides", place, f"{organ}: {error}")
