"""A scan without units looks the same, and is followed the same, whatever its scale and its offset."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.checking.fingerprint import find_matches, make_thumbnail
from medvol.core.prompts import WINDOWS
from medvol.core.types import Evidence
from medvol.imaging.cache.slice_cache import SliceCache
from medvol.imaging.formats.problems import UnknownDatatypeError
from medvol.imaging.geometry import make_volume
from medvol.imaging.reading import read_volume
from medvol.imaging.slices import draw_slices
from medvol.imaging.windows import apply_window, get_window, window_limits
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.region import RegionPropagator

SPACING = (3.0, 1.5, 1.5)
EXPONENTS = st.integers(-40, 40)  # 2**-40 is 9e-13, and a product with a power of two is exact
FACTORS = st.floats(1e-12, 1e12)
BOX = np.array([[16.0, 12, 34, 30]])


def scan(factor=1.0, offset=0.0, modality="MR"):
    """An organ of 600 in a body of 250, with noise, and nothing around the body."""
    z, y, x = np.mgrid[:9, :40, :48]
    body = ((y - 20) / 18) ** 2 + ((x - 24) / 22) ** 2 < 1
    organ = ((z - 4) / 4) ** 2 + ((y - 20) / 8) ** 2 + ((x - 25) / 8) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 12, z.shape)
    voxels = np.where(organ, 600, np.where(body, 250, 0)) + np.where(body, noise, 0)
    return make_volume((voxels.astype(np.float32) * factor + offset).astype(np.float32), SPACING, modality)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(volume):
    return draw_slices(volume, (0, 4, 8), tuple(WINDOWS), 32, 32).pixels


@pytest.mark.parametrize("modality", ["MR", "other"])
@given(exponent=EXPONENTS)
@settings(max_examples=30)
def test_pictures_do_not_depend_on_the_scale(modality, exponent):
    np.testing.assert_array_equal(picture(scan(2.0**exponent, 0, modality)), picture(scan(1, 0, modality)))


@given(factor=FACTORS, negative=st.booleans())
@settings(max_examples=30)
def test_nor_on_any_other_factor_or_offset(factor, negative):
    offset = -300.0 * factor if negative else 100.0 * factor
    np.testing.assert_allclose(picture(scan(factor)), picture(scan(1)), atol=1e-5)
    np.testing.assert_allclose(picture(scan(factor, offset)), picture(scan(1)), atol=1e-5)


@pytest.mark.parametrize("propagator", [RegionPropagator(), ExtrudePropagator(half_depth_mm=6)], ids=repr)
@given(exponent=EXPONENTS)
@settings(max_examples=20)
def test_masks_do_not_depend_on_the_scale(propagator, exponent):
    masks = [propagator.propagate(scan(f), Evidence(4, BOX)) for f in (1, 2.0**exponent)]
    assert masks[0].sum() > 500
    np.testing.assert_array_equal(*masks)


@given(factor=FACTORS)
@settings(max_examples=20)
def test_region_finds_the_organ_at_any_scale_and_offset(factor):
    z, y, x = np.mgrid[:9, :40, :48]
    organ = ((z - 4) / 4) ** 2 + ((y - 20) / 8) ** 2 + ((x - 25) / 8) ** 2 < 1
    found = RegionPropagator().propagate(scan(factor, -200 * factor), Evidence(4, BOX))
    assert 2 * (found & organ).sum() / (found.sum() + organ.sum()) > 0.9


@given(exponent=EXPONENTS)
@settings(max_examples=30)
def test_thumbnails_do_not_depend_on_the_scale(exponent):
    np.testing.assert_array_equal(make_thumbnail(scan(2.0**exponent)).cells, make_thumbnail(scan(1)).cells)


@given(factor=FACTORS)
@settings(max_examples=20)
def test_a_copy_at_another_scale_and_offset_is_found(factor):
    looks = [make_thumbnail(scan(1)), make_thumbnail(scan(factor, 50 * factor))]
    assert [(m.first, m.second) for m in find_matches(looks)] == [(0, 1)]
    assert abs(find_matches(looks)[0].correlation - 1) < 1e-4


def test_hounsfield_units_keep_their_meaning():
    """A CT of 1.2e-9 HU is water everywhere: (0 + 160) / 400 in the soft-tissue window."""
    shown = draw_slices(scan(1e-12, 0, "CT"), (4,), ("soft_tissue",) * 3, 40, 48).pixels
    np.testing.assert_allclose(shown, 0.4, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.0, -7.0, 2.0**31, -(2.0**31), 1e-45, -1e-45, 1e-40, 1e-12, 9e29, -9e29])
@pytest.mark.parametrize("modality", ["MR", "other"])
def test_a_constant_scan_is_black(value, modality):
    volume = make_volume(np.full((9, 40, 48), value, np.float32), SPACING, modality)
    np.testing.assert_allclose(picture(volume), 0, atol=1e-6)
    assert not make_thumbnail(volume).cells.any()
    assert RegionPropagator().propagate(volume, Evidence(4, BOX)).dtype == bool


def dot(bright, background):
    voxels = np.full((9, 40, 48), background * bright, np.float32)
    voxels[4, 20, 25] = bright
    return make_volume(voxels, SPACING, "MR")


@pytest.mark.parametrize("bright", [1e-44, 1e-40, 1.2e-9, 1.0, 2.0**31, 9e29])
@pytest.mark.parametrize("background", [0.0, -1.0])
@pytest.mark.parametrize("name", WINDOWS)
def test_one_bright_voxel_is_white_on_black(bright, background, name):
    """Its percentiles are all one value; the window then spans what there is."""
    one, other = dot(bright, background), dot(1.0, background)
    shown = apply_window(one.voxels, *window_limits(one, get_window(name)))
    np.testing.assert_array_equal(shown, (one.voxels == np.float32(bright)).astype(np.float32))
    np.testing.assert_array_equal(make_thumbnail(one).cells, make_thumbnail(other).cells)
    masks = [RegionPropagator().propagate(volume, Evidence(4, BOX)) for volume in (one, other)]
    np.testing.assert_array_equal(*masks)


def test_one_bright_voxel_in_a_large_scan():
    """The sample of percentiles leaves it out; the ends are those of all voxels."""
    voxels = np.zeros((9, 1000, 1000), np.float32)
    voxels[4, 333, 777] = 1.2e-9
    volume = make_volume(voxels, SPACING, "MR")
    assert window_limits(volume, get_window("soft_tissue")) == (0.0, float(np.float32(1.2e-9)))


@given(
    st.lists(
        st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1e-45, 2.0**31, 2.0**31 - 128]),
        min_size=8,
        max_size=8,
    )
)
@settings(max_examples=200)
def test_any_intensities_give_pictures_in_0_to_1(values):
    voxels = np.resize(np.array(values, np.float32), (9, 12, 16))
    volume = make_volume(voxels, SPACING, "MR")
    shown = picture(volume)
    assert shown.min() >= 0
    assert shown.max() <= 1
    cells = make_thumbnail(volume).cells
    assert np.isfinite(cells).all()
    RegionPropagator().propagate(volume, Evidence(2, np.array([[2.0, 2, 12, 10]])))


@pytest.mark.parametrize("voxels", [scan(1.2e-12).voxels, dot(1.2e-9, 0.0).voxels], ids=["tiny", "one bright voxel"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_kept_scan_looks_the_same(voxels, kind, tmp_path):
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0).astype(kind), np.diag([-1.5, -1.5, 3, 1])), tmp_path / "s.nii")
    cache, direct = SliceCache(tmp_path / "cache"), read_volume(tmp_path / "s.nii")
    for _ in range(2):
        kept = cache.read_volume(tmp_path / "s.nii")
        np.testing.assert_array_equal(picture(kept), picture(direct))
        assert "voxels" not in vars(kept), "windows of a kept scan read no more than its slices"
    assert picture(direct).max() > 0.2


def test_values_that_float32_cannot_hold_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 1e-60), np.diag([-1.5, -1.5, 3, 1])), tmp_path / "s.nii")
    with pytest.raises(UnknownDatatypeError, match="1e-60, is 0 in float32"):
        read_volume(tmp_path / "s.nii")
