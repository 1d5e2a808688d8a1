"""Intensity windows: fixed in Hounsfield units, percentiles of the whole volume elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import ConfigError
from medvol.core.prompts import DEFAULT_WINDOWS, WINDOWS
from medvol.imaging.geometry import make_volume
from medvol.imaging.windows import apply_window, get_window, window_limits


def volume(voxels, modality):
    return make_volume(np.asarray(voxels, np.float32), (1, 1, 1), modality)


@pytest.mark.parametrize(
    ("name", "centre", "width"),
    [("soft_tissue", 40, 400), ("paper", 40, 400), ("lung", -600, 1500), ("bone", 300, 1500), ("brain", 40, 80)],
)
def test_presets_are_those_of_the_field(name, centre, width):
    voxels = np.random.default_rng(0).normal(0, 500, (3, 4, 5))
    assert window_limits(volume(voxels, "CT"), get_window(name)) == (centre - width / 2, centre + width / 2)


def test_every_preset_is_usable():
    assert len(DEFAULT_WINDOWS) == 3
    assert set(DEFAULT_WINDOWS) <= set(WINDOWS)
    for window in WINDOWS.values():
        assert window.low_hu < window.high_hu
        assert 0 <= window.percentiles[0] < window.percentiles[1] <= 100


def test_an_unknown_window_names_the_others():
    with pytest.raises(ConfigError, match=r"'liver'; choose one of soft_tissue, contrast"):
        get_window("liver")


@pytest.mark.parametrize("modality", ["MR", "other"])
@pytest.mark.parametrize("name", WINDOWS)
def test_without_hounsfield_units_percentiles_decide(modality, name):
    """Voxels 0..999 in any order: the q-th percentile is 9.99 q."""
    voxels = np.random.default_rng(1).permutation(1000).reshape(10, 10, 10)
    low, high = window_limits(volume(voxels, modality), get_window(name))
    np.testing.assert_allclose([low, high], np.multiply(get_window(name).percentiles, 9.99), rtol=1e-6)


def test_percentiles_of_a_large_volume_are_those_of_a_part_of_it():
    voxels = np.random.default_rng(2).permutation(160**3).reshape(160, 160, 160)
    low, high = window_limits(volume(voxels, "MR"), get_window("soft_tissue"))
    np.testing.assert_allclose([low, high], [0.01 * 160**3, 0.99 * 160**3], atol=0.001 * 160**3)


@pytest.mark.parametrize("name", WINDOWS)
def test_percentile_windows_do_not_depend_on_the_scale_of_the_scanner(name):
    voxels = np.random.default_rng(3).gamma(2, 100, (6, 7, 8)).astype(np.float32)
    shown = [
        apply_window(scan.voxels, *window_limits(scan, get_window(name)))
        for scan in (volume(voxels, "MR"), volume(voxels * 8, "MR"))
    ]
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-5)


def test_a_window_maps_linearly_and_clips():
    shown = apply_window(np.array([-1000, -160, -60, 40, 240, 3000], np.float32), -160, 240)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, [0, 0, 0.25, 0.5, 1, 1], atol=1e-7)


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=8),
    st.sampled_from(sorted(WINDOWS)),
    st.sampled_from(["CT", "MR"]),
)
def test_any_volume_is_shown_between_black_and_white(values, name, modality):
    """Constant and huge values too: nothing becomes NaN, and no arithmetic warns."""
    scan = volume(np.reshape(values, (1, 1, -1)), modality)
    low, high = window_limits(scan, get_window(name))
    assert np.float32(low) < np.float32(high)
    shown = apply_window(scan.voxels, low, high)
    assert ((shown >= 0) & (shown <= 1)).all()
    ascending = np.argsort(scan.voxels.ravel())
    assert (np.diff(shown.ravel()[ascending]) >= 0).all()
