"""Mean intensity and diameters, against closed forms and against every pair of points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvol.inference.measurements import mean_intensity, measure_diameters, measure_mask, show_mm


def brute_force(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[int, float, list[float]]:
    """Slice, longest distance between the middles of two outer pixel edges, and the widths of all that are as long."""
    best, widths = (-1, 0.0), []
    for z, plane in enumerate(mask):
        labels, count = ndimage.label(plane, np.ones((3, 3)))
        for number in range(1, count + 1):
            part = np.pad(labels == number, 1)
            points = np.array(
                [
                    ((y + dy / 2) * spacing[1], (x + dx / 2) * spacing[2])
                    for y, x in np.argwhere(part)
                    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
                    if not part[y + dy, x + dx]
                ]
            )
            apart = points[:, None] - points[None]
            lengths = np.linalg.norm(apart, axis=-1)
            if lengths.max() > best[1] + 1e-9:
                best, widths = (z, lengths.max()), []
            if z == best[0] and np.isclose(lengths.max(), best[1], rtol=0, atol=1e-9):
                for i, j in np.argwhere(lengths > lengths.max() - 1e-9):
                    across = np.array([-apart[i, j][1], apart[i, j][0]]) / lengths[i, j]
                    widths.append(np.ptp(points @ across))
    return *best, widths


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([0.04, 0.2, 0.5, 0.9]), st.tuples(*[st.floats(0.3, 4)] * 3))
def test_diameters_are_those_of_every_pair(seed, share, spacing):
    mask = np.random.default_rng(seed).random((3, 6, 7)) < share
    found = measure_diameters(mask, spacing)
    z, longest, widths = brute_force(mask, spacing)
    if found is None:
        assert not mask.any()
        return
    assert found.longest_mm == pytest.approx(longest, abs=1e-9)
    assert found.slice_z == z
    assert min(abs(found.perpendicular_mm - width) for width in widths) < 1e-9


def test_an_ellipse_has_its_axes():
    """Axes of 60 and 25 mm at 30 degrees; the outline lies within half a pixel of the true one."""
    y, x = np.indices((300, 300)) * 0.5
    across, along = x - 75, y - 75
    turned = (
        np.cos(np.pi / 6) * across + np.sin(np.pi / 6) * along,
        np.cos(np.pi / 6) * along - np.sin(np.pi / 6) * across,
    )
    ellipse = (turned[0] / 30) ** 2 + (turned[1] / 12.5) ** 2 <= 1
    found = measure_diameters(np.stack([np.zeros_like(ellipse), ellipse]), (5.0, 0.5, 0.5))
    assert found.slice_z == 1
    assert found.longest_mm == pytest.approx(60, abs=0.5)
    assert found.perpendicular_mm == pytest.approx(25, abs=0.5)


def test_a_ball_is_measured_where_it_is_widest():
    z, y, x = np.indices((24, 48, 40))
    ball = (2 * (z - 9)) ** 2 + (y - 30) ** 2 + (x - 14) ** 2 <= 36
    found = measure_diameters(ball, (2.0, 1.0, 1.0))
    assert found.slice_z == 9
    assert found.longest_mm == pytest.approx(12, abs=1.01)


def test_a_pixel_and_a_bar():
    mask = np.zeros((1, 5, 9), bool)
    mask[0, 2, 2] = True
    assert measure_diameters(mask, (1.0, 2.0, 3.0)).longest_mm == 3.0
    assert measure_diameters(mask, (1.0, 2.0, 3.0)).perpendicular_mm == 2.0
    mask[0, 2, 1:8] = True
    assert (measure_diameters(mask, (1.0, 2.0, 3.0)).longest_mm, measure_diameters(mask, (1.0, 2.0, 3.0)).slice_z) == (
        21,
        0,
    )


def test_two_lesions_of_one_slice_are_not_one():
    mask = np.zeros((2, 20, 40), bool)
    mask[0, 2:6, 2:6] = mask[0, 2:6, 30:34] = True
    mask[1, 5:7, 5:20] = True
    found = measure_diameters(mask, (1.0, 1.0, 1.0))
    assert (found.slice_z, found.longest_mm) == (1, pytest.approx(np.hypot(15, 1)))


def test_nothing_measures_nothing():
    empty = np.zeros((2, 3, 4), bool)
    assert measure_diameters(empty, (1.0, 1.0, 1.0)) is None
    assert mean_intensity(np.ones(empty.shape, np.float32), empty) is None
    values = measure_mask(np.ones(empty.shape, np.float32), empty, (1.0, 1.0, 1.0), "HU")
    assert values["voxels"] == values["volume_ml"] == 0
    assert values["mean_intensity"] is values["longest_diameter_mm"] is values["diameter_slice"] is None


def test_a_single_voxel_is_measured_at_every_scale():
    """A voxel of a CT, and one of a micro-CT: no volume and no diameter is rounded to nothing."""
    mask = np.zeros((2, 3, 4), bool)
    mask[1, 1, 1] = True
    voxels = np.ones(mask.shape, np.float32)
    values = measure_mask(voxels, mask, (1.0, 0.7, 0.7))
    assert (values["volume_ml"], values["longest_diameter_mm"]) == (0.00049, 0.7)
    values = measure_mask(voxels, mask, (0.0004, 0.0003, 0.0003))
    assert (values["volume_ml"], values["longest_diameter_mm"]) == (3.6e-14, 0.0003)
    assert [show_mm(length) for length in (0.0003, 0.7, 3.16, 154.94)] == ["0.0003", "0.7", "3.2", "154.9"]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_mean_keeps_its_digits_at_every_scale(scale):
    voxels = (np.arange(24, dtype=np.float64).reshape(2, 3, 4) * scale).astype(np.float32)
    mask = voxels >= voxels[1, 1, 0]
    values = measure_mask(voxels, mask, (1.0, 1.0, 1.0))
    assert values["mean_intensity"] == pytest.approx(sum(range(16, 24)) / 8 * scale, rel=1e-5)
    assert values["volume_ml"] == 0.008
    assert values["intensity_unit"] is None
