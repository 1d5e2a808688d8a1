"""Region growing on solids whose masks are known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.core.errors import ConfigError
from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import tight_boxes
from medvol.propagators.region import RegionPropagator

SHAPE = (25, 64, 72)
SPACING = (2.0, 1.5, 1.5)


def ellipsoid(centre, radii_mm):
    """Mask of an ellipsoid, voxel centres tested in mm."""
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    centre_mm = np.array(centre) * SPACING
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre_mm, radii_mm, strict=True)) <= 1


def scan(*solids, background=-90.0, noise=0.0, modality="CT", gain=1.0, shift=0.0):
    """Volume with solids given as (mask, HU)."""
    voxels = np.full(SHAPE, background, np.float32)
    for mask, hu in solids:
        voxels[mask] = hu
    voxels += np.random.default_rng(0).normal(0, noise, SHAPE).astype(np.float32) if noise else np.float32(0)
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    return Volume((voxels * gain + shift).astype(np.float32), affine, modality, "solid")


def anchor(mask, z):
    return Evidence(z, tight_boxes(mask[z], split=True))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def dice_when_shrunk(radii_mm, rim_mm):
    """Closed form: Dice of an ellipsoid and the same one with every radius shorter by ``rim_mm``."""
    ratio = float(np.prod([(r - rim_mm) / r for r in radii_mm]))
    return 2 * ratio / (1 + ratio)


@pytest.mark.parametrize("radii_mm", [(16, 15, 15), (18, 27, 15), (10, 18, 24)])
@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_solid_is_found_to_half_a_pixel(radii_mm, noise):
    mask = ellipsoid((12, 30, 36), radii_mm)
    found = RegionPropagator().propagate(scan((mask, 60.0), noise=noise), anchor(mask, 12))
    assert dice(found, mask) >= dice_when_shrunk(radii_mm, 0.5 * SPACING[1])


def test_key_slice_away_from_the_middle():
    mask = ellipsoid((12, 30, 36), (18, 24, 24))
    found = RegionPropagator().propagate(scan((mask, 60.0), noise=10.0), anchor(mask, 7))
    assert dice(found, mask) >= dice_when_shrunk((18, 24, 24), 0.75 * SPACING[1])


def test_touching_neighbour_of_other_intensity_is_left_out():
    mask, neighbour = ellipsoid((12, 30, 24), (16, 18, 18)), ellipsoid((12, 30, 49), (16, 18, 18))
    found = RegionPropagator().propagate(scan((neighbour, 150.0), (mask, 50.0), noise=10.0), anchor(mask, 12))
    assert (found & neighbour & ~mask).sum() <= 0.02 * mask.sum()
    assert dice(found, mask) > 0.9


def test_two_boxes_are_two_tracks():
    left, right = ellipsoid((12, 30, 18), (16, 15, 12)), ellipsoid((12, 30, 54), (16, 15, 12))
    volume, both = scan((left | right, 40.0), noise=10.0), anchor(left | right, 12)
    assert both.boxes.shape == (2, 4)
    propagator = RegionPropagator()
    united = propagator.propagate(volume, both)
    alone = [propagator.propagate(volume, anchor(mask, 12)) for mask in (left, right)]
    assert np.array_equal(united, alone[0] | alone[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 24), st.integers(0, 25), st.integers(0, 25))
def test_range_is_the_whole_answer_cut(key_slice, start, stop):
    mask = ellipsoid((12, 30, 36), (30, 24, 24))
    volume, evidence, propagator = scan((mask, 60.0), noise=15.0), anchor(mask, key_slice), RegionPropagator()
    expected = propagator.propagate(volume, evidence)
    expected[:start] = False
    expected[stop:] = False
    assert np.array_equal(propagator.propagate(volume, evidence, (start, stop)), expected)


@pytest.mark.parametrize("key_slice", [0, 24])
def test_track_starts_at_either_end_of_the_volume(key_slice):
    mask = ellipsoid((key_slice, 30, 36), (24, 24, 24))
    found = RegionPropagator().propagate(scan((mask, 60.0), noise=10.0), anchor(mask, key_slice))
    assert dice(found, mask) > 0.9


def test_one_slice_volume():
    mask = ellipsoid((12, 30, 36), (16, 18, 18))[12:13]
    voxels = np.where(mask, np.float32(60), np.float32(-90))
    found = RegionPropagator().propagate(Volume(voxels, np.eye(4), "CT", "one"), Evidence(0, tight_boxes(mask[0])))
    assert dice(found, mask) > 0.95


def test_scan_without_hounsfield_units_ignores_gain_and_offset():
    mask = ellipsoid((12, 30, 36), (16, 18, 18))
    propagator = RegionPropagator()
    found = [
        propagator.propagate(
            scan((mask, 120.0), background=0.0, noise=4.0, modality="MR", gain=gain, shift=shift), anchor(mask, 12)
        )
        for gain, shift in [(1.0, 0.0), (7.0, 300.0)]
    ]
    assert dice(found[0], mask) > 0.9
    assert dice(found[0], found[1]) > 0.999


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(None, np.empty((0, 4))),
        Evidence(12, np.empty((0, 4))),
        Evidence(12, np.array([[100.0, 0, 120, 9]])),
        Evidence(12, np.array([[5.0, 5, 5.5, 9]])),
    ],
)
def test_nothing_to_follow_gives_an_empty_mask(evidence):
    assert not RegionPropagator().propagate(scan(), evidence).any()


def test_many_equals_one_at_a_time():
    mask = ellipsoid((12, 30, 36), (20, 18, 18))
    volume, propagator = scan((mask, 60.0), noise=15.0), RegionPropagator()
    evidences = [anchor(mask, z) for z in (8, 12, 12, 15)]
    for many, evidence in zip(propagator.propagate_many(volume, evidences), evidences, strict=True):
        assert np.array_equal(many, propagator.propagate(volume, evidence))


def test_identity_lists_every_setting():
    assert RegionPropagator(growth_mm=6.0).identity()["growth_mm"] == 6.0
    settings = RegionPropagator.__init__.__annotations__.keys() - {"return"}
    assert set(RegionPropagator().identity()) == {"name", "distribution", *settings}


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing_mm": -1.0},
        {"smoothing_mm": float("inf")},
        {"growth_mm": float("nan")},
        {"growth_mm": float("inf")},
        {"soft_above_hu": float("nan")},
        {"min_area_px": 0},
        {"min_overlap": 1.5},
        {"half_width_hu": (32.0, 20.0)},
        {"half_width_hu": (0.0, 20.0)},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is "):
        RegionPropagator(**wrong)
