"""Boxes of a record as regions of Slicer and back: numbers worked out by hand, and VTK's own matrices."""

import numpy as np
import pytest
from MedVolViewLib.geometry import Region, draw_regions, put_on_slice, read_regions, slice_at
from MedVolViewLib.interface.anchors import Anchor, AnchorError
from MedVolViewLib.interface.answers import Scan

SHAPE = (12, 30, 40)
ANCHOR = Anchor(5, ((10.0, 6.0, 30.0, 18.0), (1.25, 2.5, 3.75, 4.0)))
STRAIGHT = np.array([[-1.5, 0, 0, 20], [0, -2, 0, -30], [0, 0, 4, 356], [0, 0, 0, 1]])
"""Columns run to the left and rows to the back, so both run against RAS."""


def rotation(degrees, axis):
    angle, turned = np.radians(degrees), np.eye(4)
    first, second = [other for other in range(3) if other != axis]
    turned[first, first] = turned[second, second] = np.cos(angle)
    turned[first, second], turned[second, first] = -np.sin(angle), np.sin(angle)
    return turned


OBLIQUE = rotation(12, 0) @ rotation(-8, 2) @ STRAIGHT


def scan(affine=STRAIGHT):
    content = {"scan": "a", "name": "a", "shape_zyx": SHAPE, "spacing_zyx_mm": [4, 2, 1.5], "affine_ras": affine}
    return Scan.read({**content, "unit": None, "slope": 1, "intercept": 0, "windows": []})


def test_a_region_has_the_millimetres_of_its_box():
    """Columns 10 to 30 from edge to edge: their middle is voxel 19.5, at x = 20 - 1.5 * 19.5 = -9.25."""
    first = draw_regions(ANCHOR, scan())[0]
    assert first.centre_ras.tolist() == [-9.25, -(30 + 2 * 11.5), 376.0]
    assert first.size_mm.tolist() == [30.0, 24.0, 4.0]
    assert first.axes_ras.tolist() == [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_boxes_come_back(affine):
    found = read_regions(draw_regions(ANCHOR, scan(affine)), scan(affine))
    assert found.key_slice == 5
    np.testing.assert_allclose(found.boxes_px, ANCHOR.boxes_px, atol=1e-9)


def test_a_region_that_slicer_draws_along_ras_is_a_box_too():
    """Slicer's own regions have the axes of RAS, which run against those of the scan."""
    region = Region(np.array([-9.25, -53.0, 376.0]), np.array([30.0, 24.0, 50.0]), np.eye(3))
    found = read_regions([region], scan())
    assert found.key_slice == 5
    np.testing.assert_allclose(found.boxes_px, [(10, 6, 30, 18)], atol=1e-9)


def test_a_region_over_the_edge_is_cut():
    region = draw_regions(Anchor(0, ((-5.0, 20.0, 50.0, 44.0),)), scan())
    np.testing.assert_allclose(read_regions(region, scan()).boxes_px, [(0, 20, 40, 30)], atol=1e-9)


def test_a_turned_region_is_refused():
    with pytest.raises(AnchorError, match="box 1 is turned against the scan"):
        read_regions(draw_regions(ANCHOR, scan(OBLIQUE)), scan())


def test_regions_on_two_slices_are_refused():
    regions = [draw_regions(Anchor(index, ANCHOR.boxes_px[:1]), scan())[0] for index in (3, 5)]
    with pytest.raises(AnchorError, match="slices 3 and 5"):
        read_regions(regions, scan())
    moved = [put_on_slice(region, 7, scan()) for region in regions]
    assert read_regions(moved, scan()).key_slice == 7


def test_a_region_outside_is_refused():
    with pytest.raises(AnchorError, match="slice 14, and the scan has the slices 0 to 11"):
        read_regions(draw_regions(Anchor(14, ANCHOR.boxes_px), scan()), scan())


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_a_point_lies_on_a_slice(affine):
    point = (scan(affine).affine_ras @ [3, 4, 8.4, 1])[:3]
    assert slice_at(point, scan(affine)) == 8
    assert slice_at((0.0, 0.0, 1e6), scan()) == 11
