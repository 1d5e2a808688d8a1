"""The slice-to-slice rule on a source whose answers are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.propagators.litemedsam_parts.tracking import Grid, Track, TrackRule

RULE = TrackRule(
    feature_weight=0.0,
    intensity_weight=0.0,
    decoder_weight=0.0,
    box_margin_px=0.0,
    depth_ratio=1.0,
    min_area_share=0.02,
    min_overlap=0.1,
    max_gap_slices=0,
)


def disc(radius, centre=(32, 32), size=64):
    y, x = np.mgrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


class Discs:
    """Slices that show one disc each; the decoder answers with the disc, the features are the disc itself."""

    def __init__(self, radii, noise=0.0):
        self._masks = [disc(r) if r > 0 else np.zeros((64, 64), bool) for r in radii]
        self._noise = noise
        self.decoded = []

    def pixels(self, z):
        rng = np.random.default_rng(z)
        shown = 0.3 + 0.4 * self._masks[z] + self._noise * rng.normal(size=(64, 64))
        return np.clip(shown, 0, 1).astype(np.float32)

    def features(self, z):
        return self.pixels(z).reshape(16, 4, 16, 4).mean(axis=(1, 3))[None]

    def decode(self, z, box):
        self.decoded.append((z, tuple(box)))
        return np.where(self._masks[z], np.float32(6), np.float32(-6))


def grid(height=64, width=64, spacing=(1.0, 1.0, 1.0), size=64):
    return Grid.of((9, height, width), spacing, size)


def areas(masks):
    return {z: int(mask.sum()) for z, mask in masks.items()}


@pytest.mark.parametrize("radius", [16, 24])
def test_shape_alone_closes_like_an_ellipsoid(radius):
    # Closed form: with depth_ratio 1 and no other evidence a disc continues as a ball. Slices are 4 grid pixels apart:
    # masks are whole pixels, so a slower closing than half a pixel a slice would not be seen.
    box = np.array([32.0 - radius, 32 - radius, 33 + radius, 33 + radius])
    track = Track(Discs([radius] * 30), grid(spacing=(4.0, 1.0, 1.0)), 0, box, RULE)
    found = areas(track.follow(range(1, 30)))
    assert 4 * max(found) == pytest.approx(radius, abs=4)
    for z in range(radius // 4):
        assert np.sqrt(found[z] / np.pi) == pytest.approx(np.sqrt(radius**2 - (4 * z) ** 2), abs=1.5)


def test_depth_ratio_stretches_the_ellipsoid():
    depths = []
    for ratio in (1.0, 2.0):
        rule = TrackRule(**{**vars(RULE), "depth_ratio": ratio})
        track = Track(Discs([24] * 60), grid(spacing=(4.0, 1.0, 1.0)), 0, np.array([8.0, 8, 57, 57]), rule)
        depths.append(max(track.follow(range(1, 60))))
    assert depths[1] / depths[0] == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("kind", ["feature_weight", "intensity_weight", "decoder_weight"])
def test_every_kind_of_evidence_holds_a_cylinder_open(kind):
    rule = TrackRule(**{**vars(RULE), kind: 1.0})
    truth = [14] * 40
    found = Track(Discs(truth, noise=0.02), grid(), 0, np.array([18.0, 18, 47, 47]), rule).follow(range(1, 40))
    closed = Track(Discs(truth, noise=0.02), grid(), 0, np.array([18.0, 18, 47, 47]), RULE).follow(range(1, 40))
    assert max(found) > max(closed) + 5


def test_track_ends_where_the_scan_stops_showing_the_target():
    rule = TrackRule(**{**vars(RULE), "intensity_weight": 1.0, "decoder_weight": 0.3, "depth_ratio": 2.0})
    found = Track(Discs([14] * 10 + [0] * 10), grid(), 4, np.array([18.0, 18, 47, 47]), rule).follow(range(5, 20))
    assert max(found) in (9, 10)


def test_missed_slice_is_bridged_only_when_allowed():
    radii = [14] * 5 + [0] + [14] * 6
    for allowed, reached in ((0, 4), (1, 11)):
        rule = TrackRule(
            **{
                **vars(RULE),
                "intensity_weight": 2.0,
                "decoder_weight": 0.5,
                "depth_ratio": 3.0,
                "max_gap_slices": allowed,
            }
        )
        found = Track(Discs(radii), grid(), 2, np.array([18.0, 18, 47, 47]), rule).follow(range(3, 12))
        assert max(found) == reached
        if allowed:
            assert found[5].sum() == pytest.approx(found[4].sum(), rel=0.1)


@pytest.mark.parametrize("margin", [0.0, 2.5])
def test_decoder_is_asked_with_the_tight_box_and_its_margin(margin):
    # The disc of radius 14 around (32, 32) covers the pixels 18 to 46, half-open 18 to 47.
    source = Discs([14] * 6)
    rule = TrackRule(**{**vars(RULE), "decoder_weight": 0.3, "box_margin_px": margin})
    Track(source, grid(), 0, np.array([18.0, 18, 47, 47]), rule).follow(range(1, 3))
    asked = np.array([18 - margin, 18 - margin, 47 + margin, 47 + margin])
    z, box = source.decoded[0]
    assert z == 0
    assert np.array_equal(box, asked)
    z, box = source.decoded[1]
    assert z == 1
    assert np.abs(np.array(box) - asked).max() <= 1


def test_margin_stays_in_the_grid():
    source = Discs([14] * 2)
    Track(source, grid(), 0, np.array([1.0, 3, 64, 61]), TrackRule(**{**vars(RULE), "box_margin_px": 2.0}))
    assert source.decoded == [(0, (0.0, 1.0, 64.0, 63.0))]


def test_nothing_on_the_key_slice_gives_no_masks():
    assert Track(Discs([0] * 4), grid(), 1, np.array([1.0, 1, 9, 9]), RULE).follow(range(2, 4)) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_grid_fits_every_slice(height, width):
    places = grid(height, width, size=64)
    assert max(places.rows, places.columns) == 64
    assert min(places.rows, places.columns) >= 1
    whole = places.place_box(np.array([0.0, 0, width, height]))
    assert np.allclose(whole, [0, 0, places.columns, places.rows])
    placed = places.place(np.ones((height, width), np.float32))
    assert np.allclose(placed[places.shown], 1)
    assert not placed[~places.shown].any()
    assert places.take(np.where(places.shown, np.float32(1), np.float32(-1))).all()


def test_slice_distance_in_grid_pixels():
    # 128 columns of 0.5 mm on 64 grid pixels: one grid pixel is 1 mm, so slices 3 mm apart are 3 px apart.
    assert grid(64, 128, spacing=(3.0, 0.5, 0.5)).step_px == pytest.approx(3.0)
