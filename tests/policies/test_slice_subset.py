"""Slices left of a drawing."""

import numpy as np

from medvol.core.types import SliceStack
from medvol.policies.slice_subset import drawn_indices, keep_slices


def test_dropping_slices_keeps_their_place_in_the_drawing():
    pixels = np.arange(3 * 3 * 4 * 4, dtype=np.float32).reshape(3, 3, 4, 4)
    stack = SliceStack((0, 4, 8), pixels, (9, 4, 4))
    kept = keep_slices(stack, [0, 2])
    assert kept.indices == (0, 8)
    assert drawn_indices(stack) == drawn_indices(kept) == (0, 4, 8)
    assert keep_slices(kept, [1]).drawn == (0, 4, 8)
    assert keep_slices(kept, [1]).indices == (8,)
    np.testing.assert_array_equal(kept.pixels, pixels[[0, 2]])
    assert kept.volume_shape == (9, 4, 4)
