"""Regions: where a second look goes, and the exact way back to the scan."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.core.errors import ConfigError
from medvol.core.looks import Region, whole_region
from medvol.core.types import Evidence, Volume
from medvol.grounding.grammar import FAILURES, find_evidence, format_evidence, parse_evidence
from medvol.grounding.regions import RegionSettings, move_in, move_out, read_look, region_around
from medvol.imaging.crops import crop_volume
from medvol.imaging.geometry import voxel_to_world

ROTATION = np.array([[0.9, -0.3, 0.1], [0.3, 0.95, 0.2], [-0.2, 0.1, 0.97]])
"""An oblique scan: no axis lies along one of the world."""


@st.composite
def looks(draw):
    """A scan of any size and spacing, an answer anywhere in it, and margins."""
    shape = tuple(draw(st.tuples(st.integers(1, 40), st.integers(2, 70), st.integers(2, 70))))
    spacing = draw(st.tuples(*[st.floats(0.3, 8.0)] * 3))
    anchors = []
    for key in draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=3, unique=True)):
        x1, y1 = draw(st.integers(0, shape[2] - 1)), draw(st.integers(0, shape[1] - 1))
        x2, y2 = draw(st.integers(x1 + 1, shape[2])), draw(st.integers(y1 + 1, shape[1]))
        anchors.append(Evidence(key, np.array([[x1, y1, x2, y2]], np.float64)))
    answer = replace(anchors[0], further=tuple(anchors[1:]))
    margins = RegionSettings(draw(st.floats(0, 60)), draw(st.floats(0, 60)))
    return shape, spacing, answer, margins


@settings(max_examples=150, deadline=None)
@given(looks())
def test_region_lies_in_the_scan_and_keeps_its_distance(case):
    shape, spacing, answer, margins = case
    region = region_around(answer, shape, spacing, margins)
    for axis, (first, stop), size in zip("zyx", (region.z, region.y, region.x), shape, strict=True):
        assert 0 <= first < stop <= size
        near, step = (margins.range_mm, spacing[0]) if axis == "z" else (margins.margin_mm, spacing["zyx".index(axis)])
        for anchor in answer.anchors:
            low, high = {
                "z": (anchor.key_slice, anchor.key_slice + 1),
                "y": (anchor.boxes[0, 1], anchor.boxes[0, 3]),
                "x": (anchor.boxes[0, 0], anchor.boxes[0, 2]),
            }[axis]
            assert first == 0 or (low - first) * step >= near - 1e-4
            assert stop == size or (stop - high) * step >= near - 1e-4


@settings(max_examples=150, deadline=None)
@given(looks())
def test_there_and_back_is_exact(case):
    shape, spacing, answer, margins = case
    region = region_around(answer, shape, spacing, margins)
    inside = move_in(answer, region)
    back = move_out(inside, region)
    for before, after in zip(answer.anchors, back.anchors, strict=True):
        assert before.key_slice == after.key_slice
        assert np.array_equal(before.boxes, after.boxes)


@settings(max_examples=100, deadline=None)
@given(looks(), st.integers(0, 2**31))
def test_what_is_written_of_a_region_lies_at_the_same_place_of_the_world(case, seed):
    """Voxels of the crop lie where they lay, and so does a box, up to half a thousandth of the region."""
    shape, spacing, answer, margins = case
    region = region_around(answer, shape, spacing, margins)
    affine = np.eye(4)
    affine[:3, :3] = ROTATION @ np.diag([-spacing[2], -spacing[1], spacing[0]])
    affine[:3, 3] = (12.5, -70.25, 300.0)
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    volume = Volume(voxels, affine, "CT", "oblique")
    crop = crop_volume(volume, region)
    rows, columns = region.plane
    assert np.array_equal(crop.voxels, voxels[:, rows, columns])
    assert np.allclose(crop.spacing, volume.spacing)
    corner = voxel_to_world(volume.affine, [[region.x[0], region.y[0], 0]])
    assert np.allclose(voxel_to_world(crop.affine, [[0, 0, 0]]), corner, atol=1e-9)

    inside = move_in(answer, region)
    text = format_evidence(inside, crop.shape[1], crop.shape[2])
    _, told = read_look(text, region, shape, max_anchors=3)
    for before, after in zip(answer.anchors, told.anchors, strict=True):
        assert before.key_slice == after.key_slice
        # an edge is rounded by half a thousandth; one that would leave no box is one thousandth further
        most = 1.5e-3 * max(crop.shape[1:]) + 1e-9
        assert np.abs(before.boxes - after.boxes).max() <= most


def test_region_has_the_proportions_of_the_slice():
    """The longer side decides: 20 px and 10 mm on either side of 40 px with 2 mm a pixel are half of a row."""
    box = Evidence(5, np.array([[30, 48, 40, 52]], np.float64))
    region = region_around(box, (10, 100, 40), (5.0, 1.0, 2.0), RegionSettings(margin_mm=10, range_mm=10))
    assert region == Region((3, 8), (25, 75), (20, 40))


@pytest.mark.parametrize("text", ["", "<answer>[]", '<answer>[{"slice": 99, "bbox_2d_list": [[1, 2, 3, 4]]}]</answer>'])
def test_what_cannot_be_read_in_the_region_cannot_be_read_in_the_scan(text):
    region = Region((2, 5), (10, 30), (0, 20))
    look, evidence = read_look(text, region, (12, 40, 40))
    assert evidence is None
    assert look.failure in FAILURES
    assert find_evidence(text, (12, 40, 40)) is None


def test_absent_stays_absent():
    region = Region((2, 5), (10, 30), (0, 20))
    look, evidence = read_look("<think>nothing</think><answer>[]</answer>", region, (12, 40, 40))
    assert evidence.absent
    assert evidence.rationale == "nothing"
    assert look.failure is None


def test_whole_region_changes_nothing():
    text = '<answer>[{"slice": 3, "bbox_2d_list": [[100, 200, 300, 400]]}]</answer>'
    _, told = read_look(text, whole_region((12, 40, 50)), (12, 40, 50))
    assert np.array_equal(told.boxes, parse_evidence(text, (12, 40, 50)).boxes)


def test_a_box_outside_the_region_cannot_move_in():
    region = Region((0, 5), (10, 30), (10, 30))
    assert move_in(Evidence(2, np.array([[0, 0, 9, 9]], np.float64)), region) is None
    cut = move_in(Evidence(2, np.array([[0, 12, 15, 50]], np.float64)), region)
    assert cut.boxes.tolist() == [[0, 2, 5, 20]]


@pytest.mark.parametrize("name", ["margin_mm", "range_mm"])
def test_margins_are_distances(name):
    with pytest.raises(ConfigError, match=f"region.{name} is -1; it must be 0 or more"):
        RegionSettings(**{name: -1})
