"""Surface measures against surface-distance, MONAI, brute force and closed forms."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, stats
from surface_distance import lookup_tables
from surface_distance import metrics as peer

from medvol.core.errors import GeometryError
from medvol.core.metrics import dice
from medvol.evaluation.surfaces import diagonal_mm, surface_measures, surfel_areas

SPACING = (5.0, 0.8, 1.3)
EMPTY = np.zeros((4, 5, 6), bool)
FULL = np.ones((4, 5, 6), bool)
KINDS = pytest.mark.parametrize("kind", ["surfels", "voxels"])

masks = arrays(bool, (4, 5, 6))


@pytest.fixture
def surface_distance(monkeypatch):
    """The package on NumPy 2 and a SciPy without the modules that it calls: a code of eight bits has to fit a byte."""
    filters = types.SimpleNamespace(correlate=lambda *given, **options: ndimage.correlate(*given, **options))
    morphology = types.SimpleNamespace(distance_transform_edt=ndimage.distance_transform_edt)
    monkeypatch.setattr(peer, "ndimage", types.SimpleNamespace(filters=filters, morphology=morphology))

    def measure(predicted, true, spacing, tolerance):
        distances = peer.compute_surface_distances(true, predicted, spacing)
        nsd = peer.compute_surface_dice_at_tolerance(distances, tolerance)
        return nsd, peer.compute_robust_hausdorff(distances, 95)

    return measure


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return (((grid - centre) * spacing) ** 2).sum(-1) <= radius**2


def draw_shapes(count):
    """Pairs of blobs, moved against one another and with specks and holes; every second one on even voxels."""
    rng = np.random.default_rng(0)
    for i in range(count):
        spacing = (1.0, 1.0, 1.0) if i % 2 else tuple(rng.uniform(0.5, 5, 3))
        field = ndimage.gaussian_filter(rng.normal(size=(16, 20, 24)), rng.uniform(1, 2.5))
        true = field > np.quantile(field, rng.uniform(0.6, 0.95))
        moved = np.roll(true, rng.integers(-2, 3), rng.integers(0, 3))
        yield moved ^ (rng.random(true.shape) < 0.003), true, spacing, rng.uniform(0.3, 4)


def test_surfels_are_those_of_surface_distance_on_200_shapes(surface_distance):
    for predicted, true, spacing, tolerance in draw_shapes(200):
        expected = surface_distance(predicted, true, spacing, tolerance)
        assert surface_measures(predicted, true, spacing, tolerance) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_surfels_are_those_of_monai_on_200_shapes():
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed (extra bench)")
    for predicted, true, spacing, tolerance in draw_shapes(200):
        both = [torch.from_numpy(mask)[None, None] for mask in (predicted, true)]
        options = {"include_background": True, "spacing": spacing, "use_subvoxels": True}
        expected = float(monai.compute_surface_dice(*both, [tolerance], **options))
        assert surface_measures(predicted, true, spacing, tolerance)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("spacing", [(1, 1, 1), SPACING, (0.7, 0.7, 3.0)])
def test_the_area_of_every_cube_is_that_of_surface_distance(spacing):
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    bits = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    ours = surfel_areas(spacing)
    for code in range(256):
        inside = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1) if bits[z, y, x] & code]
        assert ours[sum(1 << (4 * x + 2 * y + z) for z, y, x in inside)] == pytest.approx(theirs[code])


def test_a_cube_and_its_opposite_have_one_area():
    areas = surfel_areas(SPACING)
    assert areas[0] == areas[255] == 0.0
    few = [code for code in range(256) if bin(code).count("1") != 4]
    assert areas[few] == pytest.approx(areas[255 - np.array(few)])


def areas_of(mask, spacing):
    """Area of the surface of a mask, counted cube by cube in a loop."""
    padded, areas, total = np.pad(mask, 1), surfel_areas(spacing), 0.0
    for place in np.ndindex(*(side - 1 for side in padded.shape)):
        corners = padded[tuple(slice(first, first + 2) for first in place)]
        total += areas[sum(1 << (4 * x + 2 * y + z) for z, y, x in np.argwhere(corners))]
    return total


def test_the_area_of_a_box_has_bevelled_edges_and_corners():
    """Faces lie half a voxel outside the centres; edges are bevelled by half a voxel, corners become triangles."""
    n, mask = 6, np.zeros((10, 10, 10), bool)
    mask[2:8, 2:8, 2:8] = True
    faces, edges, corners = 6 * (n - 1) ** 2, 12 * (n - 1) * np.sqrt(0.5), 8 * np.sqrt(3) / 8
    assert areas_of(mask, (1, 1, 1)) == pytest.approx(faces + edges + corners)


def test_the_area_of_a_ball_is_above_that_of_a_sphere_by_less_than_a_tenth():
    radius, spacing = 12.0, (1.0, 0.8, 0.8)
    mask = ball((30, 36, 36), (15, 18, 18), radius, spacing)
    assert 1.0 < areas_of(mask, spacing) / (4 * np.pi * radius**2) < 1.1


def test_concentric_balls_lie_their_difference_apart():
    small, large = (ball((61, 61, 61), (30, 30, 30), radius) for radius in (20, 25))
    nsd, hd95 = surface_measures(small, large, (1.0, 1.0, 1.0), 3.0)
    assert hd95 == pytest.approx(5.0, abs=0.6)
    assert nsd == 0.0
    assert surface_measures(small, large, (1.0, 1.0, 1.0), 6.0)[0] == 1.0


@KINDS
def test_shifted_box_has_the_distance_of_its_shift(kind):
    a, b = np.zeros((2, 12, 40, 40), bool)
    a[3:9, 10:30, 10:30] = True
    b[4:10, 10:30, 10:30] = True
    nsd, hd95 = surface_measures(a, b, (5.0, 1.0, 1.0), 4.9, kind)
    assert hd95 == 5.0  # the end plates (more than a twentieth of the surface) lie one slice apart
    assert nsd < 1.0
    assert surface_measures(a, b, (5.0, 1.0, 1.0), 5.0, kind) == (1.0, 5.0)


def test_surfels_weigh_the_end_plates_of_a_moved_box_by_their_area():
    """Of each box one end lies 5 mm off, rim and all, and of the other end what is within the other box."""
    a, b = np.zeros((2, 12, 40, 40), bool)
    a[3:9, 10:30, 10:30] = b[4:10, 10:30, 10:30] = True
    plate = 19 * 19 + 4 * 19 * np.hypot(2.5, 0.5) + 4 * np.linalg.norm([2.5 * 0.5, 2.5 * 0.5, 0.25]) / 2
    sides = 5 * (4 * 19 * 5 + 4 * 5 * np.sqrt(0.5))
    nsd = surface_measures(a, b, (5.0, 1.0, 1.0), 0.0)[0]
    assert nsd == pytest.approx(1 - (plate + 19 * 19) / (sides + 2 * plate), abs=1e-9)


def brute_surface(mask):
    """Voxels with a missing face neighbour, found by a loop."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                near = index.copy()
                near[axis] += step
                inside = 0 <= near[axis] < mask.shape[axis]
                if not inside or not mask[tuple(near)]:
                    found.append(tuple(index))
    return np.array(sorted(set(found)), float)


def brute_measures(a, b, spacing, tolerance):
    points = [brute_surface(m) * spacing for m in (a, b)]
    pairs = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    distances = [pairs.min(axis=1), pairs.min(axis=0)]
    nsd = sum((d <= tolerance + 1e-6).sum() for d in distances) / sum(len(d) for d in distances)
    return nsd, max(np.percentile(d, 95) for d in distances)


@settings(max_examples=25, deadline=None)
@given(masks.filter(np.any), masks.filter(np.any), st.floats(0.0, 8.0))
def test_voxels_equal_brute_force(a, b, tolerance):
    expected = brute_measures(a, b, SPACING, tolerance)
    assert surface_measures(a, b, SPACING, tolerance, "voxels") == pytest.approx(expected)


@KINDS
@pytest.mark.parametrize(("spacing_mm", "slices"), [(0.8, 2), (0.7, 3), (0.1, 3), (1.1, 3)])
def test_a_distance_of_the_tolerance_agrees_however_it_is_rounded(spacing_mm, slices, kind):
    """Two plates that many slices apart, and a tolerance written in decimals: 0.1 three times is not 0.3."""
    a, b = np.zeros((2, 9, 5, 5), bool)
    a[1] = b[1 + slices] = True
    tolerance = round(spacing_mm * slices, 3)
    assert surface_measures(a, b, (spacing_mm, 1.0, 1.0), tolerance, kind)[0] == 1.0
    assert surface_measures(a, b, (spacing_mm, 1.0, 1.0), tolerance - 0.01, kind)[0] < 1.0


@KINDS
def test_identical_masks_have_no_distance(kind):
    mask = ball((9, 20, 20), (4, 10, 10), 4)
    assert surface_measures(mask, mask, SPACING, 0.0, kind) == (1.0, 0.0)


@KINDS
def test_a_missed_structure_gets_the_worst_distance(kind):
    diagonal = diagonal_mm(FULL.shape, SPACING)
    assert diagonal == pytest.approx(np.sqrt(20**2 + 4**2 + 7.8**2))
    assert surface_measures(EMPTY, EMPTY, SPACING, kind=kind) == (1.0, 0.0)
    assert surface_measures(EMPTY, FULL, SPACING, kind=kind) == (0.0, diagonal)
    assert surface_measures(FULL, EMPTY, SPACING, kind=kind) == (0.0, diagonal)


@KINDS
@settings(max_examples=150, deadline=None)
@given(masks, masks.filter(np.any), st.floats(0.0, 8.0))
def test_a_missed_structure_never_improves_any_measure(kind, predicted, true, tolerance):
    nsd, hd95 = surface_measures(predicted, true, SPACING, tolerance, kind)
    missed_nsd, missed_hd95 = surface_measures(EMPTY, true, SPACING, tolerance, kind)
    assert missed_nsd <= nsd
    assert missed_hd95 >= hd95
    assert dice(EMPTY, true) <= dice(predicted, true)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(GeometryError, match="different shapes"):
        surface_measures(EMPTY, EMPTY[1:], SPACING)


def test_surfels_and_voxels_differ_where_the_field_says_so():
    """Perturbed balls of 1 mm at the tolerance of KiTS23's masses: voxels agree less by about a tenth."""
    rng, gaps = np.random.default_rng(1), []
    for _ in range(6):
        centre = rng.uniform(14, 16, 3)
        true, predicted = ball((30, 30, 30), centre, 8), ball((30, 30, 30), centre + rng.uniform(-1.5, 1.5, 3), 8)
        nsd = [surface_measures(predicted, true, (1, 1, 1), 1.1329, kind)[0] for kind in ("voxels", "surfels")]
        gaps.append(nsd[0] - nsd[1])
    assert -0.3 < stats.tmean(gaps) < -0.02
