"""MedSAM2Propagator is held to upstream's own package: same weights, same prompts, same logits and masks."""

import numpy as np
import pytest
import torch
from agreement import ROUNDED, TOLERANCE, keep_memories_whole, require_agreement

from medvol.core.types import Evidence, Volume
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2 import SAM2Propagator
from medvol.propagators.sam2_family.medsam2_tracks import TrackFollower
from medvol.propagators.sam2_family.square_slices import SquareSlices, corner_pixels
from medvol.propagators.sam2_family.track_plan import TrackPlan, wanted_tracks

WINDOW = "soft_tissue"


def upstream(weights, **settings):
    return SAM2Propagator(weights.checkpoint, window=WINDOW, **weights.package, **settings)


def ours(weights, **settings):
    return MedSAM2Propagator(weights.folder, window=WINDOW, **settings)


def upstream_logits(reference, volume, evidences):
    """Logits (Y, X) by anchor, box and slice, each box in a state of its own, both directions."""
    from medvol.propagators.sam2_family.sam2_network import Frames, follow_box

    frames = Frames(SquareSlices(volume, WINDOW, reference._predictor.size), 0, volume.shape[0])
    ends, fed = (volume.shape[0] - 1, 0), reference.prompt == "mask"
    return {
        (number, row, z): logits
        for number, evidence in enumerate(evidences)
        for row, box in enumerate(evidence.boxes)
        for z, logits in follow_box(reference._predictor, frames, evidence.key_slice, corner_pixels(box), fed, ends)
    }


def our_logits(propagator, volume, evidences, rows=1):
    """The same of all anchors together, in batches of so many rows."""
    plan = TrackPlan(WINDOW, True, 0)
    wanted = wanted_tracks([plan.anchor(volume, evidence, None) for evidence in evidences])
    names = [(number, row) for number, evidence in enumerate(evidences) for row in range(len(evidence.boxes))]
    follower = TrackFollower(propagator._network, propagator.prompt == "mask", rows)
    return {(*names[number], z): logits for number, z, logits in follower.logits(propagator._seeds(volume, wanted))}


@pytest.mark.parametrize("tolerance", [TOLERANCE, ROUNDED])
@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_logits_of_eight_prompts_are_upstreams(
    small_weights, noisy_volume, eight_prompts, prompt, tolerance, monkeypatch
):
    """First, last and middle slices, both directions, several boxes, and the mask fed back or not."""
    if tolerance == TOLERANCE:
        keep_memories_whole(monkeypatch)
    expected = upstream_logits(upstream(small_weights, prompt=prompt), noisy_volume, eight_prompts)
    propagator = ours(small_weights, prompt=prompt)
    require_agreement(our_logits(propagator, noisy_volume, eight_prompts), expected, tolerance)
    masks = propagator.propagate_many(noisy_volume, eight_prompts)
    united = np.zeros((len(masks), *noisy_volume.shape), bool)
    for (number, _, z), logits in expected.items():
        united[number, z] |= (logits > 0).numpy()
    assert ((united.mean(axis=(1, 2, 3)) > 0) & (united.mean(axis=(1, 2, 3)) < 1)).all()
    assert (np.stack(masks) != united).sum() <= 5


def test_a_range_with_the_key_slice_outside_is_upstreams(small_weights, noisy_volume):
    evidence = Evidence(2, np.array([[10.0, 10, 50, 40]]))
    for series in ("volume", "range"):
        expected = upstream(small_weights, series=series).propagate(noisy_volume, evidence, (4, 7))
        found = ours(small_weights, series=series).propagate(noisy_volume, evidence, (4, 7))
        assert expected[4:7].any()
        assert (found != expected).sum() <= 1


def test_more_slices_than_the_network_remembers(small_weights, monkeypatch):
    """Twenty slices: memories fall out of the seven, pointers out of the sixteen."""
    keep_memories_whole(monkeypatch)
    voxels = np.random.default_rng(3).normal(40, 90, (20, 40, 40)).astype(np.float32)
    volume = Volume(voxels, np.eye(4), "CT", "long")
    anchors = [Evidence(key, np.array([[5.0, 5, 30, 30]])) for key in (0, 19)]
    expected = upstream_logits(upstream(small_weights), volume, anchors)
    require_agreement(our_logits(ours(small_weights), volume, anchors), expected)


def test_tracks_of_a_batch_equal_tracks_alone(small_weights, noisy_volume, eight_prompts, monkeypatch):
    keep_memories_whole(monkeypatch)
    propagator = ours(small_weights)
    alone, together = (our_logits(propagator, noisy_volume, eight_prompts, rows) for rows in (1, 32))
    require_agreement(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_parity_of_the_t512_configuration(t512_weights, noisy_volume, eight_prompts, prompt, monkeypatch):
    """Eight prompts again, on three slices; upstream's encoder answers a slice that it has seen from memory."""
    keep_memories_whole(monkeypatch)
    volume = Volume(noisy_volume.voxels[:3], noisy_volume.affine, "CT", "t512")
    anchors = [Evidence(evidence.key_slice % 3, evidence.boxes) for evidence in eight_prompts]
    reference = SAM2Propagator(t512_weights.checkpoint, window=WINDOW, prompt=prompt)
    encode, seen = reference._predictor.model.forward_image, {}

    def look(images):
        name = images.numpy().tobytes()
        if name not in seen:
            seen[name] = encode(images)
        return {part: list(maps) if isinstance(maps, list) else maps for part, maps in seen[name].items()}

    monkeypatch.setattr(reference._predictor.model, "forward_image", look)
    with torch.inference_mode():
        expected = upstream_logits(reference, volume, anchors)
        found = our_logits(ours(t512_weights, prompt=prompt), volume, anchors)
    assert len(seen) == 3
    require_agreement(found, expected)
