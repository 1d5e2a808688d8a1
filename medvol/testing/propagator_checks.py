"""What every propagator promises."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.grounding.boxes import rasterise
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.testing.contract import require
from medvol.testing.fixtures import make_case, make_volume, true_anchor
from medvol.testing.identity import require_identity

SHAPES = ((1, 40, 40), (2, 33, 47), (5, 64, 20))
"""One slice; odd and not square; much higher than wide."""


def check_mask_on_the_grid(propagator: Propagator) -> None:
    """A mask is a boolean array of the volume's shape."""
    volume, anchor = _volume_and_anchor()
    _require_mask(propagator.propagate(volume, anchor), volume, "mask")


def check_odd_shapes(propagator: Propagator) -> None:
    """Volumes of one slice, of odd sizes and of sizes that are not square are accepted."""
    for shape in SHAPES:
        case = make_case(shape)
        mask = propagator.propagate(case.volume, true_anchor(case))
        _require_mask(mask, case.volume, f"mask of a volume of shape {shape}")


def check_spacing(propagator: Propagator) -> None:
    """Voxels that are no cubes are accepted."""
    for spacing in ((10.0, 0.4, 0.4), (0.5, 2.0, 1.0)):
        case = make_case(spacing=spacing)
        mask = propagator.propagate(case.volume, true_anchor(case))
        _require_mask(mask, case.volume, f"mask of a volume with spacing {spacing}")


def check_absent_gives_an_empty_mask(propagator: Propagator) -> None:
    """An absent anchor gives an empty mask."""
    volume, _ = _volume_and_anchor()
    mask = propagator.propagate(volume, Evidence(None, np.empty((0, 4), np.float64)))
    _require_mask(mask, volume, "mask of an absent anchor")
    require(not mask.any(), "mask of an absent anchor", "no voxel", f"{int(mask.sum())} voxels", "return zeros for it")


def check_key_slice_overlaps_boxes(propagator: Propagator) -> None:
    """On the key slice the mask lies in the boxes, at least in part."""
    volume, anchor = _volume_and_anchor()
    mask = propagator.propagate(volume, anchor)
    boxes = rasterise(anchor.boxes, *volume.shape[1:])
    require(
        bool((mask[anchor.key_slice] & boxes).any()),
        "overlap of mask and boxes on the key slice",
        "at least one pixel for a bright block in its own box",
        "none",
        "check the axes (Z, Y, X) and the boxes (x1, y1, x2, y2)",
    )


def check_boxes_at_the_border(propagator: Propagator) -> None:
    """Boxes that touch the border, and one over the whole slice, are accepted."""
    volume, anchor = _volume_and_anchor()
    _, height, width = volume.shape
    for box in (
        [0, 0, width, height],
        [0, 0, 5, 5],
        [width - 5, height - 5, width, height],
        [0, height - 1, 1, height],
    ):
        mask = propagator.propagate(volume, Evidence(anchor.key_slice, np.array([box], np.float64)))
        _require_mask(mask, volume, f"mask of the box {box}")


def check_z_range(propagator: Propagator) -> None:
    """Outside ``z_range`` nothing is filled, whether the key slice lies in it or not."""
    volume, anchor = _volume_and_anchor()
    for low, high in ((2, 4), (0, 2), (3, 3)):
        mask = propagator.propagate(volume, anchor, (low, high))
        _require_mask(mask, volume, f"mask with z_range {(low, high)}")
        outside = np.ones(len(mask), bool)
        outside[low:high] = False
        filled = np.flatnonzero(mask.any(axis=(1, 2)) & outside).tolist()
        require(not filled, f"slices outside z_range {(low, high)}", "no voxel", f"voxels on {filled}", "clear them")


def check_deterministic(propagator: Propagator) -> None:
    """The same anchor gives the same mask."""
    volume, anchor = _volume_and_anchor()
    first, second = propagator.propagate(volume, anchor), propagator.propagate(volume, anchor)
    differ = int((first != second).sum())
    require(differ == 0, "two masks of one anchor", "the same", f"{differ} other voxels", "do not draw or keep state")


def check_many_equals_one_at_a_time(propagator: Propagator) -> None:
    """``propagate_many`` gives what ``propagate`` gives for each anchor alone."""
    volume, anchor = _volume_and_anchor()
    others = [Evidence(anchor.key_slice, anchor.boxes + 2.0), Evidence(None, np.empty((0, 4), np.float64)), anchor]
    together = propagator.propagate_many(volume, [anchor, *others])
    alone = [propagator.propagate(volume, evidence) for evidence in (anchor, *others)]
    differ = [i for i, pair in enumerate(zip(together, alone, strict=True)) if not np.array_equal(*pair)]
    require(not differ, "masks of propagate_many", "those of propagate", f"others at {differ}", "share no state")


def check_volumes_do_not_mix(propagator: Propagator) -> None:
    """What is kept of one volume is not used for another, even when neither has an identity."""
    small, large = make_case(side_px=8), make_case(side_px=20)
    pairs = [(case.volume, true_anchor(case)) for case in (small, large)]
    named = [propagator.propagate(volume, anchor) for volume, anchor in pairs]
    unnamed = [propagator.propagate(replace(volume, volume_id=""), anchor) for volume, anchor in pairs]
    same = all(np.array_equal(a, b) for a, b in zip(named, unnamed, strict=True))
    require(
        same,
        "masks of two volumes without volume_id",
        "the same as with one",
        "other masks",
        "do not keep what belongs to an empty volume_id",
    )


def check_no_mutation(propagator: Propagator) -> None:
    """Neither the volume nor the anchor is changed."""
    volume, anchor = _volume_and_anchor()
    voxels, boxes = volume.voxels.copy(), anchor.boxes.copy()
    propagator.propagate(volume, anchor)
    same = np.array_equal(voxels, volume.voxels) and np.array_equal(boxes, anchor.boxes)
    require(same, "volume and boxes", "no change", "other values", "work on a copy")


def check_frozen(propagator: Propagator) -> None:
    """No parameter asks for a gradient, also after the weights were loaded."""
    propagator.propagate(*_volume_and_anchor())
    torch = sys.modules.get("torch")
    if torch is None:
        return
    modules = [value for value in vars(propagator).values() if isinstance(value, torch.nn.Module)]
    trainable = [name for module in modules for name, value in module.named_parameters() if value.requires_grad]
    require(not trainable, "parameters", "none that requires a gradient", trainable[:3], "call requires_grad_(False)")


def check_identity(propagator: Propagator) -> None:
    """The identity is plain, has a name and stays the same."""
    require_identity(propagator)


def _volume_and_anchor() -> tuple[Volume, Evidence]:
    return make_volume(), true_anchor(make_case())


def _require_mask(mask: NDArray[Any], volume: Volume, what: str) -> None:
    kind = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
    require(
        isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == volume.shape,
        what,
        f"bool of shape {volume.shape}",
        kind,
        "return the mask on the volume's own grid, mask > threshold",
    )


CHECKS = (
    check_mask_on_the_grid,
    check_odd_shapes,
    check_spacing,
    check_absent_gives_an_empty_mask,
    check_key_slice_overlaps_boxes,
    check_boxes_at_the_border,
    check_z_range,
    check_deterministic,
    check_many_equals_one_at_a_time,
    check_volumes_do_not_mix,
    check_no_mutation,
    check_frozen,
    check_identity,
)
