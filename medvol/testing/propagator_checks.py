"""What every propagator promises."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.grounding.anchors import label_anchor
from medvol.grounding.boxes import rasterise
from medvol.guarding.promises import form_of
from medvol.testing.component_checks import require, require_untouched
from medvol.testing.fixtures import make_target, make_volume

_SIZE_PX = 16


def check_mask_form(propagator: Propagator) -> None:
    """The mask is a bool array on the volume's grid."""
    volume, evidence = _question()
    _require_form(propagator.propagate(volume, evidence), volume)


def check_mask_is_its_own(propagator: Propagator) -> None:
    """The mask is no view of the volume, and neither the next call nor whoever writes to it changes another one."""
    volume, evidence = _question()
    mask = propagator.propagate(volume, evidence)
    _require_form(mask, volume)
    require(mask.flags.writeable, "a mask that can be written to", "a read-only one", "return an array of its own")
    shared = np.shares_memory(mask, volume.voxels)
    require(not shared, "a mask in memory of its own", "a view of volume.voxels", "return an array of its own")
    before = mask.copy()
    following = propagator.propagate(volume, _shifted(evidence))
    apart = np.array_equal(before, mask) and not np.shares_memory(mask, following)
    require(apart, "the first mask as it was after the next call", "an array used again", "return a new one each time")
    mask[:] = ~mask
    same = np.array_equal(before, propagator.propagate(volume, evidence))
    require(same, "the same mask after the first one was written to", "another one", "return a copy of what is kept")


def check_absent_is_empty(propagator: Propagator) -> None:
    """Absent evidence gives an empty mask."""
    volume, _ = _question()
    mask = propagator.propagate(volume, Evidence(None, np.empty((0, 4))))
    _require_form(mask, volume)
    require(not mask.any(), "an empty mask for absent evidence", f"{mask.sum()} voxels", "test evidence.absent first")


def check_overlaps_boxes(propagator: Propagator) -> None:
    """A clear target is found on the key slice, inside its box for the most part."""
    volume, evidence = _question()
    assert evidence.key_slice is not None
    found = propagator.propagate(volume, evidence)[evidence.key_slice]
    inside = int((found & rasterise(evidence.boxes, *found.shape)).sum())
    require(
        inside > 0 and inside >= 0.5 * found.sum(),
        "a mask on the key slice, at least half of it in the box",
        f"{inside} of {found.sum()} pixels in the box {evidence.boxes.tolist()}",
        "boxes are x1, y1, x2, y2 in pixels of the slice voxels[key_slice], whose axes are (Y, X)",
    )


def check_z_range(propagator: Propagator) -> None:
    """Nothing is filled outside a half-open range of slices, with the key slice in it or not, in the volume or not."""
    volume, evidence = _question()
    key, depth = evidence.key_slice, volume.shape[0]
    assert key is not None
    within = ((key - 1, key + 1), (key + 1, key + 3), (0, depth))
    for z_range in (*within, (-key, key + 1), (key, depth + key), (-key, -1), (depth, depth + key)):
        mask = propagator.propagate(volume, evidence, z_range)
        _require_form(mask, volume)
        outside = [z for z in np.flatnonzero(mask.any(axis=(1, 2))).tolist() if not z_range[0] <= z < z_range[1]]
        require(not outside, f"nothing outside z_range {z_range}", f"slices {outside}", "the upper end is excluded")


def check_deterministic(propagator: Propagator) -> None:
    """The same anchor always gives the same mask, another one in between or not."""
    volume, evidence = _question()
    first = propagator.propagate(volume, evidence)
    propagator.propagate(*_question(shape=(5, 37, 61), seed=1))
    same = np.array_equal(first, propagator.propagate(volume, evidence))
    require(same, "the same mask again", "another one", "seed every draw, and key every cache by volume_id")


def check_many_equals_single(propagator: Propagator) -> None:
    """Several anchors at once give what each gives alone."""
    volume, evidence = _question()
    anchors = [evidence, Evidence(None, np.empty((0, 4))), _shifted(evidence), evidence]
    together = propagator.propagate_many(volume, anchors)
    _require_count(together, len(anchors))
    shared = any(np.may_share_memory(one, other) for one, other in combinations(together, 2))
    require(not shared, "each mask in memory of its own", "one array for several anchors", "return a new one each")
    for i, (mask, anchor) in enumerate(zip(together, anchors, strict=True)):
        alone = propagator.propagate(volume, anchor)
        require(np.array_equal(mask, alone), f"mask {i} as alone", "another one", "keep anchors apart")


def check_ranges_of_many(propagator: Propagator) -> None:
    """Several anchors at once keep to their own ranges: each gives what it gives alone in its range."""
    volume, evidence = _question()
    key = evidence.key_slice
    assert key is not None
    anchors = [evidence, Evidence(key - 1, evidence.boxes), evidence]
    ranges = [(key - 1, key + 2), None, (key + 1, key + 3)]
    together = propagator.propagate_many(volume, anchors, z_ranges=ranges)
    _require_count(together, len(anchors))
    for i, (mask, anchor, own) in enumerate(zip(together, anchors, ranges, strict=True)):
        same = np.array_equal(mask, propagator.propagate(volume, anchor, own))
        require(same, f"mask {i} as alone in {own}", "another one", "pair each anchor with its own range")


def check_volumes_are_kept_apart(propagator: Propagator) -> None:
    """What is kept of one volume is not used for another one, even when neither has an identity."""
    questions = _question(), _question(seed=1, size_px=28)
    named = [propagator.propagate(volume, evidence) for volume, evidence in questions]
    for (volume, evidence), mask in zip(questions, named, strict=True):
        again = propagator.propagate(replace(volume, volume_id=""), evidence)
        differ = int((again != mask).sum())
        require(differ == 0, "the same mask without a volume_id", f"{differ} other voxels", "keep nothing under ''")


def check_single_slice(propagator: Propagator) -> None:
    """A volume of one slice is accepted."""
    volume, evidence = _question(shape=(1, 48, 56))
    _require_form(propagator.propagate(volume, evidence), volume)


def check_odd_sizes(propagator: Propagator) -> None:
    """Slices of odd sides, and far from square, are accepted."""
    for shape in ((5, 37, 61), (4, 90, 25)):
        volume, evidence = _question(shape=shape)
        _require_form(propagator.propagate(volume, evidence), volume)


def check_boxes_at_the_border(propagator: Propagator) -> None:
    """Boxes that touch the border, fill the slice or reach beyond it are accepted."""
    volume, _ = _question()
    depth, height, width = volume.shape
    for key, box in (
        (0, (0, 0, 9, 9)),
        (depth - 1, (width - 9, height - 9, width, height)),
        (depth // 2, (0, 0, width, height)),
        (depth // 2, (-4, -4, width + 4, height + 4)),
    ):
        mask = propagator.propagate(volume, Evidence(key, np.array([box], np.float64)))
        _require_form(mask, volume)


def check_several_boxes(propagator: Propagator) -> None:
    """Two boxes give a mask that reaches into both: the union."""
    first, second = make_target(size_px=_SIZE_PX), np.roll(make_target(size_px=_SIZE_PX), -24, axis=2)
    volume = make_volume(size_px=_SIZE_PX)
    voxels = np.maximum(volume.voxels, np.roll(volume.voxels, -24, axis=2))
    volume = Volume(voxels, volume.affine, volume.modality, f"{volume.volume_id}-twice")
    evidence = label_anchor(first | second, rule="largest")
    mask = propagator.propagate(volume, evidence)
    for x1, y1, x2, y2 in evidence.boxes.astype(int).tolist():
        inside = int(mask[evidence.key_slice, y1:y2, x1:x2].sum())
        require(inside > 0, f"voxels in the box {(x1, y1, x2, y2)}", "none", "unite the tracks of all boxes")


def check_anisotropic_spacing(propagator: Propagator) -> None:
    """Voxels far from cubic are accepted."""
    for spacing in ((7.0, 0.5, 1.1), (0.6, 2.0, 2.0)):
        volume, evidence = _question(spacing=spacing)
        _require_form(propagator.propagate(volume, evidence), volume)


def check_unusable_anchor(propagator: Propagator) -> None:
    """A key slice outside the volume, or a box that is not a number, is a PropagationError."""
    volume, evidence = _question()
    unusable = {
        "a key slice behind the last": Evidence(volume.shape[0], evidence.boxes),
        "a box of NaN": Evidence(evidence.key_slice, np.full((1, 4), np.nan)),
    }
    for name, anchor in unusable.items():
        outcome = "a mask"
        try:
            propagator.propagate(volume, anchor)
        except PropagationError:
            continue
        except (ValueError, IndexError, RuntimeError) as error:
            outcome = f"{type(error).__name__}: {error}"
        require(False, f"a PropagationError for {name}", outcome, "check the anchor before it is used")


def check_no_mutation(propagator: Propagator) -> None:
    """Neither the volume nor the anchors are changed, and no array of theirs is written to."""
    volume, evidence = _question()
    require_untouched(lambda: propagator.propagate(volume, evidence), volume=volume, evidence=evidence)
    anchors = [evidence, Evidence(evidence.key_slice, evidence.boxes + 1)]
    require_untouched(lambda: propagator.propagate_many(volume, anchors), volume=volume, evidences=anchors)


def check_frozen(propagator: Propagator) -> None:
    """No network of the propagator asks for gradients."""
    propagator.propagate(*_question())
    torch = sys.modules.get("torch")
    if torch is None:
        return
    modules = [value for value in vars(propagator).values() if isinstance(value, torch.nn.Module)]
    trainable = sum(parameter.requires_grad for module in modules for parameter in module.parameters())
    require(trainable == 0, "no parameter that asks for gradients", trainable, "call requires_grad_(False)")


def _question(
    shape: tuple[int, int, int] = (9, 48, 56),
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    seed: int = 0,
    size_px: int = _SIZE_PX,
) -> tuple[Volume, Evidence]:
    """A volume with a bright target, and the target's anchor."""
    volume = make_volume(shape, spacing, size_px, seed=seed)
    return volume, label_anchor(make_target(shape, size_px), rule="largest")


def _shifted(evidence: Evidence) -> Evidence:
    """Another anchor that hits the target."""
    assert evidence.key_slice is not None
    return Evidence(evidence.key_slice - 1, evidence.boxes + 1)


def _require_form(mask: NDArray[np.bool_], volume: Volume) -> None:
    fine = isinstance(mask, np.ndarray) and mask.shape == volume.shape and mask.dtype == np.bool_
    require(fine, f"a bool mask of shape {volume.shape}", form_of(mask), "keep (Z, Y, X) and compare or cast")


def _require_count(masks: object, count: int) -> None:
    fine = isinstance(masks, list | tuple) and len(masks) == count
    require(fine, f"a list of {count} masks", form_of(masks), "return one mask an anchor")


PROPAGATOR_CHECKS: tuple[Callable[[Propagator], None], ...] = (
    check_mask_form,
    check_mask_is_its_own,
    check_absent_is_empty,
    check_overlaps_boxes,
    check_z_range,
    check_deterministic,
    check_many_equals_single,
    check_ranges_of_many,
    check_volumes_are_kept_apart,
    check_single_slice,
    check_odd_sizes,
    check_boxes_at_the_border,
    check_several_boxes,
    check_anisotropic_spacing,
    check_unusable_anchor,
    check_no_mutation,
    check_frozen,
)
