"""The two classifiers fitted to a key slice."""

import numpy as np
import pytest

from medvol.propagators.litemedsam_parts.appearance import LIMIT, FeatureDiscriminant, IntensityRatio


def disc(size, centre, radius):
    y, x = np.mgrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_discriminant_finds_the_target_where_it_moved():
    rng = np.random.default_rng(0)
    key, moved = disc(32, (14, 14), 6), disc(32, (18, 17), 6)
    direction = rng.normal(size=16).astype(np.float32)

    def features(mask):
        noise = rng.normal(0, 0.5, (16, 32, 32)).astype(np.float32)
        return noise + direction[:, None, None] * mask.astype(np.float32)

    fitted = FeatureDiscriminant(features(key), key.astype(np.float32), np.ones((32, 32), bool))
    odds = fitted.log_odds(features(moved))
    assert ((odds > 0) == moved).mean() > 0.99
    assert np.abs(odds).max() <= LIMIT


def test_discriminant_is_fishers_direction_of_two_gaussians():
    # Closed form: with equal spherical covariance s and the ridge r * s, the weights are (m1 - m0) / (s * (1 + r)).
    rng = np.random.default_rng(1)
    target = np.zeros((64, 64), bool)
    target[:, :32] = True
    features = rng.normal(0, 2.0, (3, 64, 64)).astype(np.float32)
    features[0] += 3.0 * target
    fitted = FeatureDiscriminant(features, target.astype(np.float32), np.ones((64, 64), bool))
    middle, unit = np.zeros((3, 1, 1), np.float32), np.zeros((3, 1, 1), np.float32)
    middle[0], unit[0] = 1.5, 2.0
    assert fitted.log_odds(middle)[0, 0] == pytest.approx(0.0, abs=0.05)
    assert fitted.log_odds(middle + unit)[0, 0] == pytest.approx(2.0 * 3.0 / (4.0 * 1.5), rel=0.1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_discriminant_of_one_class_says_nothing(share):
    features = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    fitted = FeatureDiscriminant(features, np.full((8, 8), share, np.float32), np.ones((8, 8), bool))
    assert not fitted.log_odds(features).any()


def test_intensity_separates_bright_from_dark():
    pixels, target = np.full((40, 40), 0.2, np.float32), disc(40, (20, 20), 8)
    pixels[target] = 0.7
    ratio = IntensityRatio(pixels, target, np.ones((40, 40), bool))
    assert ratio.log_odds(np.float32([0.7]))[0] > 2
    assert ratio.log_odds(np.float32([0.2]))[0] < -2


def test_intensity_says_nothing_where_it_cannot_tell():
    pixels = np.random.default_rng(0).uniform(0, 1, (200, 200)).astype(np.float32)
    ratio = IntensityRatio(pixels, disc(200, (100, 100), 80), np.ones((200, 200), bool))
    assert np.abs(ratio.log_odds(np.linspace(0, 1, 50, dtype=np.float32))).max() < 0.1


def test_target_that_fills_the_slice_has_no_surroundings():
    everywhere = np.ones((20, 20), bool)
    assert not IntensityRatio(np.ones((20, 20), np.float32), everywhere, everywhere).log_odds(np.float32([0.5])).any()
