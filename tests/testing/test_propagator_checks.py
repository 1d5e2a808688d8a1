"""Propagators that break their contract are caught, each by the check that is about it."""

import warnings

import numpy as np
import pytest
import torch

from medvol.propagators.extrude import ExtrudePropagator
from medvol.testing import propagator_checks as checks


class Numeric(ExtrudePropagator):
    """Returns numbers."""

    def propagate(self, volume, evidence, z_range=None):
        return super().propagate(volume, evidence, z_range).astype(np.uint8)


class Sideways(ExtrudePropagator):
    """Returns (X, Y, Z)."""

    def propagate(self, volume, evidence, z_range=None):
        return super().propagate(volume, evidence, z_range).transpose(2, 1, 0)


class Nothing(ExtrudePropagator):
    """Returns nothing."""

    def propagate(self, volume, evidence, z_range=None):
        return None


class Keeping(ExtrudePropagator):
    """Hands out the mask that it keeps."""

    kept = None

    def propagate(self, volume, evidence, z_range=None):
        self.kept = super().propagate(volume, evidence, z_range) if self.kept is None else self.kept
        return self.kept


class Refilling(ExtrudePropagator):
    """Fills one array again and again."""

    buffer = None

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        if self.buffer is None or self.buffer.shape != mask.shape:
            self.buffer = np.empty_like(mask)
        self.buffer[:] = mask
        return self.buffer


class Locking(ExtrudePropagator):
    """Hands out masks that cannot be written to."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        mask.setflags(write=False)
        return mask


class Sneaking(ExtrudePropagator):
    """Changes the volume through a tensor on the same memory."""

    def propagate(self, volume, evidence, z_range=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.from_numpy(volume.voxels)[0, 0, 0] = 7
        return super().propagate(volume, evidence, z_range)


class Emptying(ExtrudePropagator):
    """Empties the list of anchors that it is given."""

    def propagate_many(self, volume, evidences, z_ranges=None):
        masks = super().propagate_many(volume, evidences, z_ranges)
        evidences.clear()
        return masks


class Generating(ExtrudePropagator):
    """Gives masks one by one, in no list."""

    def propagate_many(self, volume, evidences, z_ranges=None):
        return (mask for mask in super().propagate_many(volume, evidences, z_ranges))


class Inventive(ExtrudePropagator):
    """Fills something even where nothing is."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        return np.ones_like(mask) if evidence.absent else mask


class Transposed(ExtrudePropagator):
    """Takes y for x."""

    def propagate(self, volume, evidence, z_range=None):
        swapped = type(evidence)(evidence.key_slice, evidence.boxes[:, [1, 0, 3, 2]])
        return super().propagate(volume, swapped, z_range)


class Inclusive(ExtrudePropagator):
    """Includes the upper end of the range."""

    def propagate(self, volume, evidence, z_range=None):
        return super().propagate(volume, evidence, z_range and (z_range[0], z_range[1] + 1))


class Wrapping(ExtrudePropagator):
    """Counts a range below the first slice from the last one."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence)
        first, last = (0, len(mask)) if z_range is None else (max(0, z_range[0]), z_range[1])
        kept = np.zeros_like(mask)
        kept[first:last] = mask[first:last]
        return kept


class Drifting(ExtrudePropagator):
    """Fills less each time."""

    calls = 0

    def propagate(self, volume, evidence, z_range=None):
        self.calls += 1
        mask = super().propagate(volume, evidence, z_range)
        return mask & (np.random.default_rng(self.calls).random(mask.shape) < 0.9)


class Mixing(ExtrudePropagator):
    """Mixes up the anchors of a volume."""

    def propagate_many(self, volume, evidences, z_ranges=None):
        return super().propagate_many(volume, evidences, z_ranges)[::-1]


class Losing(ExtrudePropagator):
    """Leaves absent anchors out."""

    def propagate_many(self, volume, evidences, z_ranges=None):
        return super().propagate_many(volume, [e for e in evidences if not e.absent], z_ranges)


class Deep(ExtrudePropagator):
    """Keeps at least three slices."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        return mask if len(mask) > 2 else np.repeat(mask, 3, axis=0)


class Even(ExtrudePropagator):
    """Halves and doubles the slices."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        half = mask[:, : mask.shape[1] // 2 * 2, : mask.shape[2] // 2 * 2]
        return np.ascontiguousarray(half)


class Cropping(ExtrudePropagator):
    """Loses the border when a box touches it."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        return mask[:, 1:-1, 1:-1] if mask[:, 0].any() else mask


class Single(ExtrudePropagator):
    """Follows the first box only."""

    def propagate(self, volume, evidence, z_range=None):
        return super().propagate(volume, type(evidence)(evidence.key_slice, evidence.boxes[:1]), z_range)


class Isotropic(ExtrudePropagator):
    """Resamples to cubic voxels and stays there."""

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        return np.repeat(mask, 2, axis=0) if volume.spacing[0] > 2 * volume.spacing[1] + 2 else mask


class Blunt(ExtrudePropagator):
    """Lets NumPy complain."""

    def propagate(self, volume, evidence, z_range=None):
        if evidence.key_slice is not None:
            volume.voxels[evidence.key_slice]
        return super().propagate(volume, evidence, z_range)


class Hoarding(ExtrudePropagator):
    """Keeps the sum of a volume, and mixes up those without identity."""

    def propagate(self, volume, evidence, z_range=None):
        self.kept = getattr(self, "kept", {})
        bright = self.kept.setdefault(volume.volume_id, volume.voxels.mean(axis=0) > 0)
        return super().propagate(volume, evidence, z_range) & bright


class Lenient(ExtrudePropagator):
    """Takes any anchor."""

    def propagate(self, volume, evidence, z_range=None):
        usable = evidence.absent or (evidence.key_slice < volume.shape[0] and np.isfinite(evidence.boxes).all())
        return super().propagate(volume, evidence, z_range) if usable else np.zeros(volume.shape, bool)


class Windowing(ExtrudePropagator):
    """Clips the volume in place."""

    def propagate(self, volume, evidence, z_range=None):
        np.clip(volume.voxels, 0, 100, out=volume.voxels)
        return super().propagate(volume, evidence, z_range)


class Unfrozen(ExtrudePropagator):
    """Has a network that could be trained."""

    def propagate(self, volume, evidence, z_range=None):
        self.network = torch.nn.Linear(2, 2)
        return super().propagate(volume, evidence, z_range)


class Widening(ExtrudePropagator):
    """Follows every anchor through the range of the first."""

    def propagate_many(self, volume, evidences, z_ranges=None):
        first = None if z_ranges is None else z_ranges[0]
        return [self.propagate(volume, evidence, first) for evidence in evidences]


BROKEN = [
    (checks.check_mask_form, Numeric()),
    (checks.check_mask_form, Sideways()),
    (checks.check_mask_form, Nothing()),
    (checks.check_mask_is_its_own, Keeping()),
    (checks.check_mask_is_its_own, Locking()),
    (checks.check_mask_is_its_own, Refilling()),
    (checks.check_absent_is_empty, Inventive()),
    (checks.check_overlaps_boxes, Transposed()),
    (checks.check_z_range, Inclusive()),
    (checks.check_z_range, Wrapping()),
    (checks.check_deterministic, Drifting()),
    (checks.check_many_equals_single, Mixing()),
    (checks.check_many_equals_single, Losing()),
    (checks.check_many_equals_single, Generating()),
    (checks.check_many_equals_single, Refilling()),
    (checks.check_ranges_of_many, Widening()),
    (checks.check_volumes_are_kept_apart, Hoarding()),
    (checks.check_single_slice, Deep()),
    (checks.check_odd_sizes, Even()),
    (checks.check_boxes_at_the_border, Cropping()),
    (checks.check_several_boxes, Single()),
    (checks.check_anisotropic_spacing, Isotropic()),
    (checks.check_unusable_anchor, Blunt()),
    (checks.check_unusable_anchor, Lenient()),
    (checks.check_no_mutation, Windowing()),
    (checks.check_no_mutation, Sneaking()),
    (checks.check_no_mutation, Emptying()),
    (checks.check_frozen, Unfrozen()),
]


@pytest.mark.parametrize(("check", "propagator"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_caught(assert_caught, check, propagator):
    assert_caught(check, propagator)


def test_every_check_catches_something():
    assert {check for check, _ in BROKEN} == set(checks.PROPAGATOR_CHECKS)
