"""What the roles do by themselves."""

from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import pytest

from medvol.core.errors import InvalidComponentError
from medvol.core.registry import POLICIES, PROPAGATORS
from medvol.core.roles import Propagator
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
    [({}, [None, None]), ({"z_ranges": None}, [None, None]), ({"z_ranges": [(0, 2), None]}, [(0, 2), None])],
)
def test_each_anchor_is_asked_in_its_range(arguments, ranges):
    propagator = Told()
    assert len(propagator.propagate_many(make_volume(), ANCHORS, **arguments)) == 2
    assert propagator.asked == [(1, ranges[0]), (2, ranges[1])]


def test_ranges_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="shorter than argument"):
        Told().propagate_many(make_volume(), ANCHORS, [(0, 2)])


@pytest.mark.parametrize(
    ("component", "settings"),
    [
        (POLICIES.get("CentreBoxPolicy")(share=0.25), {"share": 0.25, "num_slices": 64}),
        (POLICIES.get("OraclePolicy")(), {"num_slices": 64, "coordinate_step": 1, "max_anchors": 1}),
        (PROPAGATORS.get("ExtrudePropagator")(3.0), {"half_depth_mm": 3.0, "half_depth_slices": None}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_identity_names_who_publishes_it_and_how_it_is_set(component, settings):
    said = {"name": type(component).__name__, "distribution": f"medvol-r1 {version('medvol-r1')}", **settings}
    assert component.identity() == said


class Notebook(Told):
    """Of no distribution, with a setting that it keeps or forgets."""

    def __init__(self, depth: int = 1, keep: bool = True) -> None:
        super().__init__()
        self.keep = keep
        if keep:
            self._depth = depth


def test_an_identity_without_a_distribution_names_the_module():
    assert Notebook(4).identity() == {
        "name": "Notebook",
        "distribution": f"the module {__name__}",
        "depth": 4,
        "keep": True,
    }


def test_a_setting_that_is_not_kept_is_named():
    """Else two different settings would pass for one, and a rerun would skip what it should answer."""
    with pytest.raises(InvalidComponentError, match="Notebook does not keep its setting 'depth'"):
        Notebook(keep=False).identity()


@dataclass(slots=True)
class Slotted(Told):
    """Keeps its settings in slots, which have no ``__dict__``; one of them is never set."""

    depth: int = 1
    later: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        self.asked = []


def test_settings_in_slots_are_kept():
    known = Slotted(4).identity()
    assert (known["name"], known["depth"]) == ("Slotted", 4)


class HalfSlotted(Told):
    __slots__ = ("depth",)

    def __init__(self, depth: int = 1) -> None:
        super().__init__()


def test_a_slot_that_is_never_set_is_no_setting():
    with pytest.raises(InvalidComponentError, match="HalfSlotted does not keep its setting 'depth'"):
        HalfSlotted().identity()
