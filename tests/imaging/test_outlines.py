"""Outlines of masks: exact under both rules by which programs fill polygons, and of the right area."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from medvol.imaging.outlines import trace_outlines


def fill_even_odd(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie in an odd number of polygons, by matplotlib."""
    y, x = np.indices(shape)
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    filled = np.zeros(shape, bool)
    for polygon in polygons:
        filled ^= Polygon(polygon, closed=False).contains_points(centres).reshape(shape)
    return filled


def fill_winding(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels that a polygon winds around, by counting edges that cross the line to their right."""
    y, x = np.indices(shape)
    filled = np.zeros(shape, bool)
    for polygon in polygons:
        turns = np.zeros(shape, int)
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            side = (x - x1) * (y2 - y1) - (x2 - x1) * (y - y1)
            turns += ((y1 <= y) & (y2 > y) & (side < 0)).astype(int) - ((y2 <= y) & (y1 > y) & (side > 0))
        filled |= turns != 0
    return filled


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_are_filled_again(seed: int):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 20, 2))
    mask = rng.random(shape) < rng.random()
    polygons = trace_outlines(mask)
    assert np.array_equal(fill_even_odd(polygons, shape), mask)
    assert np.array_equal(fill_winding(polygons, shape), mask)


def test_nothing_has_no_outline():
    assert trace_outlines(np.zeros((3, 4), bool)) == []


def test_a_pixel_is_a_diamond():
    mask = np.zeros((3, 5), bool)
    mask[1, 3] = True
    (polygon,) = trace_outlines(mask)
    assert set(map(tuple, polygon.tolist())) == {(2.5, 1), (3, 0.5), (3.5, 1), (3, 1.5)}


def test_a_block_lacks_its_corners_and_a_hole_is_a_keyhole():
    """A cut corner is an eighth of a pixel: four of the block outside, and four of the mask in the hole."""
    mask = np.zeros((12, 14), bool)
    mask[1:11, 2:12] = True
    (block,) = trace_outlines(mask)
    assert len(block) == 8
    assert area(block) == 100 - 4 / 8
    mask[4:7, 5:9] = False
    (ring,) = trace_outlines(mask)
    assert area(ring) == 100 - 4 / 8 - (12 - 4 / 8)
    steps = np.roll(ring, -1, axis=0) - ring
    bridges = [(tuple(point), tuple(point + step)) for point, step in zip(ring, steps, strict=True)]
    assert sum((end, start) in bridges for start, end in bridges) == 2, "one line, there and back"
