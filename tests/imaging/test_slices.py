"""Which slices are shown, and how a slice is resized and drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.prompts import DEFAULT_WINDOWS
from medvol.imaging.geometry import make_volume
from medvol.imaging.slices import choose_slices, draw_slices, resize_slice

WINDOWS = ("soft_tissue", "lung", "bone")


@given(st.integers(1, 2000), st.integers(2, 128))
def test_slices_are_spread_uniformly(depth, count):
    chosen = choose_slices(depth, count)
    assert len(chosen) == min(depth, count)
    assert chosen[0] == 0
    assert chosen[-1] == depth - 1
    gaps = np.diff(chosen)
    assert (gaps >= 1).all()
    assert gaps.max(initial=1) - gaps.min(initial=depth) <= 1
    if depth > count:
        exact = [i * (depth - 1) / (count - 1) for i in range(count)]
        assert np.abs(np.subtract(chosen, exact)).max() <= 0.5 + 1e-9


def test_slices_of_small_volumes():
    assert choose_slices(3, 64) == (0, 1, 2)
    assert choose_slices(1, 64) == (0,)
    assert choose_slices(10, 1) == (0,)
    assert choose_slices(9, 5) == (0, 2, 4, 6, 8)
    assert choose_slices(10, 4) == (0, 3, 6, 9)
    assert choose_slices(4, 3) == (0, 2, 3), "halves are rounded up"


def triangle_weights(size, resized):
    """Rows of weights of a linear filter as wide as two new pixels, from its definition."""
    scale = max(1.0, size / resized)
    centres = (np.arange(resized) + 0.5) * size / resized
    apart = np.abs(np.arange(size)[None] + 0.5 - centres[:, None]) / scale
    weights = np.clip(1 - apart, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("old", "new"), [((24, 36), (12, 9)), ((97, 131), (32, 40)), ((30, 20), (45, 60)), ((64, 64), (64, 32))]
)
def test_resizing_is_a_triangle_filter(old, new):
    pixels = np.random.default_rng(0).normal(0, 300, old).astype(np.float32)
    expected = triangle_weights(old[0], new[0]) @ pixels @ triangle_weights(old[1], new[1]).T
    resized = resize_slice(pixels, *new)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=0.05)


@given(st.integers(16, 90), st.integers(16, 90), st.integers(4, 90), st.integers(4, 90))
def test_resizing_keeps_the_mean(height, width, new_height, new_width):
    """A smooth slice keeps its mean within 2 % of its range, a constant one exactly; nothing overshoots."""
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    pixels = (1000 * np.sin(3 * rows + 1) * np.cos(2 * columns)).astype(np.float32)
    resized = resize_slice(pixels, new_height, new_width)
    assert resized.shape == (new_height, new_width)
    assert abs(resized.mean() - pixels.mean()) < 0.02 * np.ptp(pixels)
    assert pixels.min() - 0.1 <= resized.min() <= resized.max() <= pixels.max() + 0.1
    assert (resize_slice(np.full((height, width), -1024, np.float32), new_height, new_width) == -1024).all()


def test_thin_structures_do_not_vanish_or_alias():
    """Lines one pixel wide, every fourth: sampling points would show all or nothing of them."""
    pixels = np.zeros((64, 64), np.float32)
    pixels[:, ::4] = 400
    inner = resize_slice(pixels, 16, 16)[:, 2:-2]
    np.testing.assert_allclose(inner, 100, atol=1)


def test_a_slice_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    np.testing.assert_array_equal(resize_slice(pixels, 8, 9), pixels)
    assert resize_slice(pixels.astype(np.float64), 8, 9).dtype == np.float32


def test_three_windows_are_three_channels():
    voxels = np.random.default_rng(0).uniform(-1500, 1500, (5, 6, 7)).astype(np.float32)
    stack = draw_slices(make_volume(voxels, (1, 1, 1)), (1, 4), WINDOWS, 6, 7)
    assert stack.indices == (1, 4)
    assert stack.volume_shape == (5, 6, 7)
    assert stack.pixels.shape == (2, 3, 6, 7)
    assert stack.pixels.dtype == np.float32
    for channel, (low, high) in enumerate([(-160, 240), (-1350, 150), (-450, 1050)]):
        expected = np.clip((voxels[[1, 4]] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(stack.pixels[:, channel], expected, atol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_slice_looks_the_same_whatever_is_drawn_beside_it(modality):
    """Windows come from the volume; a dark slice stays dark."""
    voxels = np.random.default_rng(0).uniform(0, 1000, (6, 12, 12)).astype(np.float32)
    voxels[2] *= 0.1
    volume = make_volume(voxels, (1, 1, 1), modality)
    alone = draw_slices(volume, (2,), DEFAULT_WINDOWS, 8, 8).pixels[0]
    among = draw_slices(volume, range(6), DEFAULT_WINDOWS, 8, 8).pixels
    np.testing.assert_array_equal(alone, among[2])
    assert alone[0].mean() < among[3, 0].mean() - 0.2
