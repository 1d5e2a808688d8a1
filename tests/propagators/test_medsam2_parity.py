"""MedSAM2Propagator is held to upstream's own package: same weights, same prompts, same logits and masks."""

import numpy as np
import pytest
import torch

from medvol.core.types import Evidence, Volume
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2 import SAM2Propagator

TOLERANCE = 1e-4
WINDOW = "soft_tissue"


def upstream(weights, **settings):
    return SAM2Propagator(weights.checkpoint, window=WINDOW, **weights.package, **settings)


def ours(weights, **settings):
    return MedSAM2Propagator(weights.folder, window=WINDOW, **settings)


def logits_of(propagator, volume, evidence):
    """Logits (Y, X) of the only box on every slice, by either implementation."""
    from medvol.propagators.sam2_network import Frames, follow_box
    from medvol.propagators.square_slices import SquareSlices, corner_pixels
    from medvol.propagators.track_plan import TrackPlan, wanted_tracks

    if isinstance(propagator, SAM2Propagator):
        frames = Frames(SquareSlices(volume, WINDOW, propagator._predictor.size), 0, volume.shape[0])
        box, ends = corner_pixels(evidence.boxes[0]), (volume.shape[0] - 1, 0)
        fed = propagator.prompt == "mask"
        return dict(follow_box(propagator._predictor, frames, evidence.key_slice, box, fed, ends))
    from medvol.propagators.medsam2_tracks import TrackFollower

    wanted = wanted_tracks([TrackPlan(WINDOW, True, 0).anchor(volume, evidence, None)])
    follower = TrackFollower(propagator._network, propagator.prompt == "mask", 1)
    return {z: logits for _, z, logits in follower.logits(propagator._seeds(volume, wanted))}


@pytest.mark.parametrize("prompt", ["mask", "box"])
@pytest.mark.parametrize("series", ["volume", "window"])
def test_masks_of_eight_prompts_are_upstreams(small_weights, noisy_volume, eight_prompts, prompt, series):
    reference, propagator = (make(small_weights, prompt=prompt, series=series) for make in (upstream, ours))
    together = propagator.propagate_many(noisy_volume, eight_prompts)
    for evidence, mask in zip(eight_prompts, together, strict=True):
        expected = reference.propagate(noisy_volume, evidence)
        assert 0 < expected.mean() < 1
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_logits_of_both_directions_are_upstreams(small_weights, noisy_volume, eight_prompts, prompt):
    reference, propagator = upstream(small_weights, prompt=prompt), ours(small_weights, prompt=prompt)
    for evidence in (e for e in eight_prompts if len(e.boxes) == 1):
        expected, found = (logits_of(p, noisy_volume, evidence) for p in (reference, propagator))
        assert sorted(found) == sorted(expected) == list(range(9))
        assert max(float((found[z] - expected[z]).abs().max()) for z in found) < TOLERANCE


def test_a_range_with_the_key_slice_outside_is_upstreams(small_weights, noisy_volume):
    evidence = Evidence(2, np.array([[10.0, 10, 50, 40]]))
    for series in ("volume", "window"):
        expected = upstream(small_weights, series=series).propagate(noisy_volume, evidence, (4, 7))
        assert expected[4:7].any()
        assert np.array_equal(ours(small_weights, series=series).propagate(noisy_volume, evidence, (4, 7)), expected)


def test_more_slices_than_the_network_remembers(small_weights):
    """Twenty slices: memories fall out of the seven, pointers out of the sixteen."""
    rng = np.random.default_rng(3)
    voxels = rng.normal(40, 90, (20, 40, 40)).astype(np.float32)
    volume = Volume(voxels, np.eye(4), "CT", "long")
    for key in (0, 19):
        evidence = Evidence(key, np.array([[5.0, 5, 30, 30]]))
        expected, found = (logits_of(p, volume, evidence) for p in (upstream(small_weights), ours(small_weights)))
        assert max(float((found[z] - expected[z]).abs().max()) for z in range(20)) < TOLERANCE


def test_tracks_of_a_batch_equal_tracks_alone(small_weights, noisy_volume, eight_prompts):
    from medvol.propagators.medsam2_tracks import TrackFollower
    from medvol.propagators.track_plan import TrackPlan, wanted_tracks

    propagator = ours(small_weights)
    plan = TrackPlan(WINDOW, True, 0)
    seeds = propagator._seeds(noisy_volume, wanted_tracks([plan.anchor(noisy_volume, e, None) for e in eight_prompts]))
    alone, together = (
        {(number, z): logits for number, z, logits in TrackFollower(propagator._network, True, rows).logits(seeds)}
        for rows in (1, 32)
    )
    assert alone.keys() == together.keys()
    assert max(float((alone[k] - together[k]).abs().max()) for k in alone) < TOLERANCE
    assert all(torch.equal(alone[k] > 0, together[k] > 0) for k in alone)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_parity_of_the_t512_configuration(t512_weights, prompt):
    voxels = np.random.default_rng(0).normal(40, 90, (3, 70, 90)).astype(np.float32)
    volume, evidence = Volume(voxels, np.eye(4), "CT", "t512"), Evidence(1, np.array([[20.0, 15, 60, 50]]))
    reference = SAM2Propagator(t512_weights.checkpoint, window=WINDOW, prompt=prompt)
    expected = logits_of(reference, volume, evidence)
    for weights in (t512_weights.checkpoint, t512_weights.folder):
        found = logits_of(MedSAM2Propagator(weights, window=WINDOW, prompt=prompt), volume, evidence)
        assert max(float((found[z] - expected[z]).abs().max()) for z in range(3)) < TOLERANCE
        assert all(torch.equal(found[z] > 0, expected[z] > 0) for z in range(3))
