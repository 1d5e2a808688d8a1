"""Boxes and ranges before anything is followed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import CheckpointError, ConfigError, PropagationError
from medvol.core.types import Evidence, Volume
from medvol.propagators.clipping import blamed, clip_range, slices_towards, usable_boxes

coordinates = st.floats(-50, 90, allow_nan=False)


@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=6))
def test_usable_boxes_lie_in_the_slice_and_have_an_area(boxes):
    volume = Volume(np.zeros((3, 40, 60), np.float32), np.eye(4))
    usable = usable_boxes(volume, Evidence(1, np.array(boxes, np.float64).reshape(-1, 4)))
    assert (usable >= 0).all()
    assert (usable[:, 2] <= 60).all()
    assert (usable[:, 3] <= 40).all()
    assert (usable[:, 2:] - usable[:, :2] >= 1).all()


def test_ranges_are_cut_to_the_volume():
    assert clip_range(10, None) == range(10)
    assert clip_range(10, (-3, 4)) == range(4)
    assert clip_range(10, (8, 99)) == range(8, 10)
    assert len(clip_range(10, (6, 2))) == 0


def test_slices_towards_either_end():
    assert list(slices_towards(4, range(2, 7), 1)) == [5, 6]
    assert list(slices_towards(4, range(2, 7), -1)) == [3, 2]
    assert list(slices_towards(0, range(10), -1)) == []
    assert list(slices_towards(9, range(2, 5), -1)) == [8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), ValueError("odd"), ZeroDivisionError("0")])
def test_what_a_network_raises_names_the_anchor(error):
    volume = Volume(np.zeros((3, 40, 60), np.float32), np.eye(4), volume_id="scan")
    words = rf"volume 'scan', slice 1, .*{type(error).__name__}: {error}"
    with pytest.raises(PropagationError, match=words), blamed(volume, Evidence(1, np.empty((0, 4)))):
        raise error


@pytest.mark.parametrize("error", [ConfigError("the disk is full"), CheckpointError("no weights")])
def test_what_holds_for_every_anchor_passes(error):
    """Else a full disk would let every answer fail and score 0."""
    volume = Volume(np.zeros((3, 40, 60), np.float32), np.eye(4))
    with pytest.raises(type(error), match=str(error)) as raised, blamed(volume, Evidence(1, np.empty((0, 4)))):
        raise error
    assert raised.value is error
