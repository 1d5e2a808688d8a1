"""What the roles do by themselves."""

import numpy as np
import pytest

from medvol.core.errors import PropagationError
from medvol.core.roles import Propagator, one_range_each
from medvol.core.types import Evidence
from medvol.testing import make_volume

ANCHORS = [Evidence(1, np.array([[0.0, 0, 4, 4]])), Evidence(2, np.array([[0.0, 0, 4, 4]]))]


class Told(Propagator):
    """Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def propagate(self, volume, evidence, z_range=None):
        self.asked.append((evidence.key_slice, z_range))
        return np.zeros(volume.shape, bool)


@pytest.mark.parametrize(
    ("arguments", "ranges"),
    [({}, [None, None]), ({"z_range": (0, 3)}, [(0, 3), (0, 3)]), ({"z_ranges": [(0, 2), None]}, [(0, 2), None])],
)
def test_each_anchor_is_asked_in_its_range(arguments, ranges):
    propagator = Told()
    assert len(propagator.propagate_many(make_volume(), ANCHORS, **arguments)) == 2
    assert propagator.asked == [(1, ranges[0]), (2, ranges[1])]


@pytest.mark.parametrize(("z_range", "z_ranges"), [(None, [(0, 2)]), ((0, 2), [(0, 2), (0, 2)])])
def test_ranges_that_do_not_pair_are_refused(z_range, z_ranges):
    with pytest.raises(PropagationError, match="for 2 anchors; give one range an anchor, or one for all"):
        one_range_each(ANCHORS, z_range, z_ranges)
