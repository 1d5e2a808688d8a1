"""What goes over the wire comes back: masks to the bit, whole numbers exactly, other intensities to half a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medvol.core.errors import RecordError
from medvol.core.types import Volume
from medvol.imaging.geometry import make_volume
from medvol.viewing.packing import find_scale, pack_mask, pack_slab, unpack_mask


def volume_of(voxels: np.ndarray) -> Volume:
    return Volume(np.asarray(voxels, np.float32), np.eye(4))


def received(volume: Volume, first: int, count: int) -> np.ndarray:
    """Intensities as a client works them out."""
    scale = find_scale(volume)
    slab = np.frombuffer(pack_slab(volume, scale, first, count), "<i2").reshape(-1, *volume.shape[1:])
    return slab * scale.slope + scale.intercept


@settings(max_examples=60)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_masks_come_back_to_the_bit(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)


@settings(max_examples=60)
@given(hnp.arrays(np.int16, (3, 4, 5), elements=st.integers(-32768, 32767)))
def test_whole_numbers_of_16_bits_are_exact(voxels: np.ndarray) -> None:
    np.testing.assert_array_equal(received(volume_of(voxels), 1, 2), voxels[1:3])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1e-3, 2e-3), (0.0, 1e6), (-3e8, 5e8), (1e-30, 3e-30)])
def test_other_intensities_are_half_a_step_off_at_most(low: float, high: float) -> None:
    voxels = np.random.default_rng(0).uniform(low, high, (4, 9, 8)).astype(np.float32)
    step = (float(voxels.max()) - float(voxels.min())) / 65535
    off = np.abs(received(volume_of(voxels), 0, 4) - voxels.astype(np.float64))
    assert off.max() <= step * 0.51 + 1e-7 * max(abs(low), abs(high))


def test_a_constant_scan_comes_back() -> None:
    np.testing.assert_allclose(received(volume_of(np.full((2, 3, 4), 0.25)), 0, 2), 0.25, atol=1e-9)


def test_a_slab_ends_with_the_scan() -> None:
    volume = volume_of(np.zeros((5, 2, 3)))
    assert len(pack_slab(volume, find_scale(volume), 3, 10)) == 2 * 2 * 3 * 2


def test_a_mask_that_does_not_fit_is_refused() -> None:
    packed = pack_mask(np.ones((2, 3, 4), bool))
    with pytest.raises(RecordError, match="does not fit"):
        unpack_mask(packed, (2, 3, 3))


def test_one_fraction_anywhere_makes_a_scan_no_whole_numbers() -> None:
    """Every second column was looked at, where a scan is large."""
    voxels = np.zeros((4, 1024, 1030), np.float32)
    voxels[0, 0, 0], voxels[2, 3, 777] = 1.0, 0.4
    scale = find_scale(make_volume(voxels, (1.0, 1.0, 1.0)))
    assert (scale.slope, scale.intercept) != (1.0, 0.0)
