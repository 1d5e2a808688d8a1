"""The extrusion baseline, voxel by voxel."""

import numpy as np
import pytest

from medvol.core.errors import ConfigError, PropagationError
from medvol.core.types import Evidence, Volume
from medvol.propagators.extrude import ExtrudePropagator


def blank(shape=(9, 20, 30), spacing_xyz=(1.0, 1.0, 5.0)):
    return Volume(np.zeros(shape, np.float32), np.diag([*spacing_xyz, 1.0]), "CT", "blank")


def test_boxes_are_repeated_exactly():
    mask = ExtrudePropagator(half_depth_slices=2).propagate(
        blank(), Evidence(4, np.array([[3.0, 5, 10, 9], [20, 0, 22, 4]]))
    )
    expected = np.zeros((9, 20, 30), bool)
    expected[2:7, 5:9, 3:10] = True
    expected[2:7, 0:4, 20:22] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(("half_depth_mm", "slices"), [(0.0, 1), (4.9, 1), (5.0, 3), (14.9, 5), (15.0, 7), (1000.0, 9)])
def test_depth_in_mm_counts_slice_centres(half_depth_mm, slices):
    mask = ExtrudePropagator(half_depth_mm).propagate(blank(), Evidence(4, np.array([[0.0, 0, 5, 5]])))
    assert mask.any(axis=(1, 2)).sum() == slices


@pytest.mark.parametrize("key_slice", [0, 8])
def test_ends_of_the_volume(key_slice):
    mask = ExtrudePropagator(half_depth_slices=1).propagate(blank(), Evidence(key_slice, np.array([[0.0, 0, 5, 5]])))
    assert mask.any(axis=(1, 2)).sum() == 2


def test_range_is_the_whole_answer_cut():
    propagator, evidence = ExtrudePropagator(half_depth_slices=3), Evidence(4, np.array([[0.0, 0, 5, 5]]))
    whole = propagator.propagate(blank(), evidence)
    for z_range in [(0, 9), (3, 6), (6, 9), (0, 1), (5, 5), (-4, 40)]:
        kept = np.zeros(9, bool)
        kept[max(0, z_range[0]) : z_range[1]] = True
        assert np.array_equal(propagator.propagate(blank(), evidence, z_range), whole & kept[:, None, None])


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(None, np.empty((0, 4))),
        Evidence(4, np.empty((0, 4))),
        Evidence(4, np.array([[40.0, 0, 50, 5]])),
        Evidence(4, np.array([[5.0, 5, 5, 9]])),
        Evidence(4, np.array([[9.0, 9, 5, 5]])),
    ],
)
def test_nothing_to_fill_gives_an_empty_mask(evidence):
    mask = ExtrudePropagator().propagate(blank(), evidence)
    assert mask.dtype == bool
    assert mask.shape == (9, 20, 30)
    assert not mask.any()


def test_box_that_hangs_over_the_edge_is_clipped():
    mask = ExtrudePropagator(half_depth_slices=0).propagate(blank(), Evidence(4, np.array([[-5.0, -5, 3, 2]])))
    assert mask.sum() == 6


@pytest.mark.parametrize("key_slice", [-1, 9])
def test_slice_outside_the_volume_is_named(key_slice):
    with pytest.raises(PropagationError, match=rf"'blank', slice {key_slice}.*0 to 8"):
        ExtrudePropagator().propagate(blank(), Evidence(key_slice, np.array([[0.0, 0, 5, 5]])))


def test_box_that_is_not_finite_is_named():
    with pytest.raises(PropagationError, match=r"'blank'.*finite"):
        ExtrudePropagator().propagate(blank(), Evidence(4, np.array([[0.0, 0, np.nan, 5]])))


@pytest.mark.parametrize("depth", [-1.0, float("nan"), float("inf")])
def test_a_depth_that_is_none_is_refused(depth):
    with pytest.raises(ConfigError, match=f"^half_depth_mm is {depth}; it must be "):
        ExtrudePropagator(depth)
