"""Slices as the networks of the SAM 2 family read them."""

import numpy as np
import pytest
import torch

from medvol.core.types import Volume
from medvol.propagators.sam2_family.square_slices import SquareSlices, corner_pixels


def test_grey_levels_follow_hounsfield_units_and_not_the_slice():
    """-160 HU is black and 240 HU white on every slice, whatever else the slice shows."""
    voxels = np.zeros((2, 32, 32), np.float32)
    voxels[0] = 40.0
    voxels[1] = 3000.0
    voxels[1, :16] = 40.0
    slices = SquareSlices(Volume(voxels, np.eye(4), "CT"), "soft_tissue", 32)
    assert set(np.unique(slices.pixels(0))) == {127}
    assert set(np.unique(slices.pixels(1))) == {127, 255}


def test_resizing_is_bicubic():
    """Against torch's antialiased bicubic, which takes the same kernel; two passes round to grey levels."""
    y, x = np.mgrid[:90, :70]
    voxels = (40 + 150 * np.sin(x / 4) * np.cos(y / 6))[None].astype(np.float32)
    found = SquareSlices(Volume(voxels, np.eye(4), "CT"), "soft_tissue", 64).pixels(0)
    levels = torch.from_numpy(((voxels + 160) / 400 * 255).astype(np.uint8).astype(np.float32))[None]
    expected = torch.nn.functional.interpolate(levels, (64, 64), mode="bicubic", antialias=True)[0, 0].clamp(0, 255)
    assert np.abs(found.astype(float) - expected.numpy()).max() <= 1.5


def test_boxes_name_their_first_and_last_pixel():
    slices = SquareSlices(Volume(np.zeros((1, 50, 100), np.float32), np.eye(4), "CT"), "soft_tissue", 200)
    assert slices.place_box(np.array([10.0, 5, 31, 26])).tolist() == [20, 20, 60, 100]
    assert corner_pixels(np.array([3.0, 4, 3.5, 5])).tolist() == [3, 4, 3, 4]


def test_values_that_are_not_finite_are_named():
    voxels = np.zeros((3, 8, 8), np.float32)
    voxels[2, 1, 1] = np.nan
    slices = SquareSlices(Volume(voxels, np.eye(4), "CT"), "soft_tissue", 32)
    assert slices.pixels(1).shape == (32, 32)
    with pytest.raises(ValueError, match="slice 2 holds values that are not finite"):
        slices.pixels(2)
