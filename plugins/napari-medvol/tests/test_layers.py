"""Boxes of a record as rectangles of napari and back, by numbers worked out by hand; napari is not needed."""

import numpy as np
import pytest
from napari_medvol.interface.anchors import Anchor, AnchorError, settle
from napari_medvol.interface.answers import Scan
from napari_medvol.layers import draw_boxes, place, put_on_slice, read_boxes

SHAPE = (12, 30, 40)
ANCHOR = Anchor(5, ((10.0, 6.0, 30.0, 18.0), (1.25, 2.5, 3.75, 4.0)))


def scan() -> Scan:
    affine = [[-1.5, 0, 0, 20], [0, -2, 0, -30], [0, 0, 4, 356], [0, 0, 0, 1]]
    content = {"scan": "a", "name": "a", "shape_zyx": SHAPE, "spacing_zyx_mm": [4, 2, 1.5], "affine_ras": affine}
    return Scan.read({**content, "unit": "HU", "slope": 1, "intercept": 0, "windows": []})


def test_a_half_open_box_covers_its_voxels_whole():
    """Columns 10 to 29 and rows 6 to 17: napari's voxel 10 reaches from 9.5 to 10.5."""
    (rectangle, _) = draw_boxes(ANCHOR)
    assert rectangle.tolist() == [[5, 5.5, 9.5], [5, 5.5, 29.5], [5, 17.5, 29.5], [5, 17.5, 9.5]]


def test_the_world_is_in_millimetres():
    """First corner at z = 356 + 4 * 5, y = 30 + 2 * 5.5, x = -20 + 1.5 * 9.5."""
    where = place(scan())
    corner = np.array(where["translate"]) + np.array(where["scale"]) * draw_boxes(ANCHOR)[0][0]
    assert corner.tolist() == [376.0, 41.0, -5.75]


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_boxes_come_back_whatever_corner_comes_first(start, step):
    turned = [np.roll(rectangle, start, axis=0)[::step] for rectangle in draw_boxes(ANCHOR)]
    assert read_boxes(turned, ["rectangle"] * 2, SHAPE) == ANCHOR


def test_no_box_means_not_in_this_scan():
    assert read_boxes([], [], SHAPE) == Anchor(None, ())


def test_a_box_over_the_edge_is_cut():
    (rectangle,) = draw_boxes(Anchor(0, ((-5.0, 20.0, 50.0, 44.0),)))
    assert read_boxes([rectangle], ["rectangle"], SHAPE) == Anchor(0, ((0.0, 20.0, 40.0, 30.0),))


def test_all_boxes_go_to_one_slice():
    assert read_boxes(put_on_slice(draw_boxes(ANCHOR), 7), ["rectangle"] * 2, SHAPE) == Anchor(7, ANCHOR.boxes_px)


def test_several_slices_make_an_anchor_each_where_they_may():
    both = Anchor(5, ANCHOR.boxes_px, (Anchor(2, ((0.0, 1.0, 2.0, 3.0),)),))
    drawn = draw_boxes(both)
    assert [rectangle[0, 0] for rectangle in drawn] == [5, 5, 2]
    assert read_boxes(drawn, ["rectangle"] * 3, SHAPE, several=True) == both
    assert settle(read_boxes(drawn[::-1], ["rectangle"] * 3, SHAPE, several=True), [both]).boxes_px == ((0, 1, 2, 3),)
    lower = read_boxes(put_on_slice(drawn, 0, several=True), ["rectangle"] * 3, SHAPE, several=True)
    assert lower == Anchor(5, ANCHOR.boxes_px, (Anchor(0, ((0.0, 1.0, 2.0, 3.0),)),)), "slice 2 is the nearest one"
    assert put_on_slice([], 3, several=True) == []


def turned():
    (rectangle,) = draw_boxes(Anchor(5, ((10.0, 6.0, 30.0, 18.0),)))
    middle, angle = rectangle[:, 1:].mean(axis=0), np.radians(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rectangle[:, 1:] = (rectangle[:, 1:] - middle) @ rotation + middle
    return rectangle


def on(index, box=(10.0, 6.0, 30.0, 18.0)):
    return draw_boxes(Anchor(index, (box,)))[0]


@pytest.mark.parametrize(
    ("shapes", "kind", "sentence"),
    [
        ([on(3), on(5)], "rectangle", "boxes lie on the slices 3 and 5, and an anchor has one"),
        ([on(5)], "ellipse", "shape 1 is of the kind ellipse"),
        ([turned()], "rectangle", "box 1 is turned"),
        ([on(12)], "rectangle", "box 1 lies on slice 12, and the scan has the slices 0 to 11"),
        ([on(5, (50.0, 6.0, 60.0, 18.0))], "rectangle", "box 1 has no width or no height"),
        ([on(5)[:, [1, 0, 2]]], "rectangle", "box 1 does not lie in one axial slice"),
    ],
)
def test_what_is_no_anchor_is_refused_in_words(shapes, kind, sentence):
    with pytest.raises(AnchorError, match=sentence):
        read_boxes(shapes, [kind] * len(shapes), SHAPE)


def test_the_arithmetic_of_a_viewer_is_no_correction():
    near = Anchor(5, ((10.004, 5.996, 30.0, 18.0), (1.25, 2.5, 3.75, 4.0)))
    assert settle(near, [Anchor(), ANCHOR]) is ANCHOR
    moved = Anchor(5, ((10.123456, 6.0, 30.0, 18.0), (1.25, 2.5, 3.75, 4.0)))
    assert settle(moved, [ANCHOR]).boxes_px[0] == (10.12, 6.0, 30.0, 18.0)
    assert settle(Anchor(6, ANCHOR.boxes_px), [ANCHOR]).key_slice == 6
