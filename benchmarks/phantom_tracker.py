"""Does MedSAM2Propagator track? A small SAM 2 is trained on phantoms and followed from true anchors on held-out ones.

No published weights are needed, so the check runs anywhere. The last line is one JSON object: mean Dice of the tracker
and of RegionPropagator over the same cases, and over organs and lesions apart. ``--quick`` takes a few steps only.

    python benchmarks/phantom_tracker.py --out runs/phantom_tracker
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from medvol.core.metrics import dice
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.grounding.anchors import label_anchor
from medvol.grounding.boxes import tight_boxes
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.region import RegionPropagator
from medvol.propagators.sam2_family.medsam2_network import Answer, Memory, TrackerNetwork
from medvol.propagators.sam2_family.medsam2_weights import save_folder
from medvol.propagators.sam2_family.square_slices import SquareSlices

SIZE = 128
WIDTH = 64
RATE = 1e-3
STAGES = ((0.15, 1, 8), (0.5, 3, 4), (1.0, 6, 3))
"""Until this share of the time: slices of a clip, clips of a step. Boxes are learned first, then tracks."""


def small_config() -> Sam2VideoConfig:
    """A Hiera of 32 to 128 channels under a tracker of 64; masks are never chosen among three."""
    backbone = Sam2HieraDetConfig(
        image_size=[SIZE, SIZE],
        hidden_size=32,
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[32, 64, 96, 128],
        num_attention_heads_per_stage=[1, 2, 3, 4],
        global_attention_blocks=[4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 96, 64, 32],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=WIDTH,
    )
    return Sam2VideoConfig(
        image_size=SIZE,
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=SIZE, hidden_size=WIDTH),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=WIDTH,
            mlp_dim=128,
            num_attention_heads=4,
            iou_head_hidden_dim=WIDTH,
            dynamic_multimask_via_stability=False,
        ),
        multimask_output_for_tracking=False,
        memory_attention_hidden_size=WIDTH,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=128,
        memory_fuser_layer_scale_init_value=0.1,
    )


@dataclass(frozen=True)
class Scan:
    """A phantom: slices on the network's square and the mask of every target."""

    pixels: NDArray[np.uint8]
    masks: list[NDArray[np.bool_]]


@dataclass(frozen=True)
class Tracks:
    """Tracks through clips of slices: (C, T, S, S) pixels, clip (B,), first boxes (B, 4) and truth (B, T, Y, X)."""

    pixels: torch.Tensor
    clip: torch.Tensor
    boxes: NDArray[np.float64]
    truth: torch.Tensor


def draw_scans(count: int, seed: int) -> list[Scan]:
    """Training phantoms; targets are single organs and lesions."""
    data = PhantomDataset("train", num_volumes=count, seed=seed, lesion_share=1.0, cache=CacheSettings(scans=1))
    found: dict[str, tuple[SquareSlices, dict[str, NDArray[np.bool_]]]] = {}
    for index in range(len(data)):
        case = data[index]
        assert case.target is not None
        _, masks = found.setdefault(case.volume.volume_id, (SquareSlices(case.volume, "soft_tissue", SIZE), {}))
        if case.query.target != "kidneys" and case.target.any():
            masks[case.query.target] = case.target
    return [
        Scan(np.stack([slices.pixels(z) for z in range(slices.shape[0])]), list(masks.values()))
        for slices, masks in found.values()
    ]


def draw_tracks(scans: list[Scan], rng: np.random.Generator, length: int, clips: int) -> Tracks:
    """Every target on the first slice of some clips, in either direction, mirrored half of the time."""
    pixels, truths = list[NDArray[np.float32]](), list[NDArray[np.bool_]]()
    while len(pixels) < clips:
        scan = scans[rng.integers(len(scans))]
        low = int(rng.integers(len(scan.pixels) - length + 1))
        order = range(low, low + length)[:: int(rng.choice([-1, 1]))]
        shown = [mask[order] for mask in scan.masks if mask[order[0]].sum() >= 9]
        if shown:
            flip = int(rng.choice([-1, 1]))
            grey = (scan.pixels[order].astype(np.float32) - 128) * rng.uniform(0.85, 1.15)
            pixels.append(np.clip(grey + 128 + rng.uniform(-12, 12), 0, 255)[..., ::flip])
            truths.append(np.stack(shown)[..., ::flip])
    truth = np.concatenate(truths)
    boxes = np.concatenate([tight_boxes(mask) for mask in truth[:, 0]])
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - 1], axis=1) * (SIZE / truth.shape[-1])
    clip = torch.repeat_interleave(torch.arange(clips), torch.tensor([len(own) for own in truths]))
    return Tracks(torch.from_numpy(np.stack(pixels)), clip, boxes, torch.from_numpy(truth.astype(np.float32)))


def follow_tracks(network: TrackerNetwork, tracks: Tracks) -> Iterator[Answer]:
    """Answers on every slice of the tracks, by the steps that the propagator takes."""
    features = network.look(tracks.pixels.flatten(0, 1))
    memories: list[Memory] = []
    length = tracks.pixels.shape[1]
    for t in range(length):
        rows = tracks.clip * length + t
        now = features.rows(rows)
        answer = network.click(now, tracks.boxes) if t == 0 else network.follow(now, memories, 16)
        memories.append(network.remember(now, answer, prompted=t == 0))
        yield answer


def tracks_loss(network: TrackerNetwork, tracks: Tracks) -> torch.Tensor:
    """Cross entropy and soft Dice on the phantom's own grid, and whether the target is there."""
    losses = []
    for t, answer in enumerate(follow_tracks(network, tracks)):
        truth = tracks.truth[:, t]
        logits = F.interpolate(answer.raw, truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        there = truth.flatten(1).any(dim=1).float()
        chance = logits.sigmoid()
        overlap = (2 * (chance * truth).sum((1, 2)) + 1) / (chance.sum((1, 2)) + truth.sum((1, 2)) + 1)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
        shape = (there * (1 - overlap + 5 * entropy)).sum() / there.sum().clamp(min=1)
        losses.append(shape + 0.3 * F.binary_cross_entropy_with_logits(answer.score[:, 0], there))
    return torch.stack(losses).mean()


def wake(model: Sam2VideoModel) -> Sam2VideoModel:
    """Start from torch's own initial weights; transformers' are meant to be overwritten and too small to learn from."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
            module.reset_parameters()
    # Boxes and slices must speak of places in the same code, which only trained weights see to.
    model.shared_image_embedding.load_state_dict(model.prompt_encoder.shared_embedding.state_dict())
    return model


def train(steps: int, scans: int, minutes: float, curve: Path) -> Sam2VideoModel:
    """Train for a number of steps or minutes of processor time, whichever ends first, and write the curve."""
    torch.manual_seed(0)
    model = wake(Sam2VideoModel(small_config()))
    network, rng = TrackerNetwork(model), np.random.default_rng(0)
    drawn = draw_scans(scans, seed=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    start, recent, done = time.process_time(), list[float](), 0.0
    with curve.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "seconds", "slices", "loss"])
        for step in range(1, steps + 1):
            done = min(1.0, max(step / steps, (time.process_time() - start) / (60 * minutes)))
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1, step / 50) * (0.02 + 0.98 * (1 + np.cos(np.pi * done)) / 2)
            optimiser.zero_grad()
            length, clips = next(stage[1:] for stage in STAGES if done <= stage[0])
            loss = tracks_loss(network, draw_tracks(drawn, rng, length, clips))
            loss.backward()
            recent.append(loss.item())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if step % 20 == 0 or step == steps or done >= 1:
                writer.writerow([step, round(time.process_time() - start, 1), length, round(float(np.mean(recent)), 4)])
                file.flush()
                recent.clear()
            if done >= 1:
                break
    model.eval()
    return model


def evaluate(folder: Path, count: int) -> dict[str, float]:
    """Mean Dice from true anchors on held-out phantoms, by the tracker and by RegionPropagator."""
    data = PhantomDataset("test", num_volumes=count, seed=99, cache=CacheSettings(scans=1))
    propagators = {
        "tracker": MedSAM2Propagator(str(folder), prompt="box", window="soft_tissue"),
        "region": RegionPropagator(),
    }
    scores: dict[str, list[float]] = {}
    for index in range(len(data)):
        case = data[index]
        if case.target is None or not case.target.any():
            continue
        anchor = label_anchor(case.target)
        for name, propagator in propagators.items():
            score = dice(propagator.propagate(case.volume, anchor), case.target)
            scores.setdefault(f"{name}_dice", []).append(score)
            scores.setdefault(f"{name}_dice {case.query.target}", []).append(score)
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(scores.items())}


def main() -> None:
    """Train, write the folder, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/phantom_tracker"))
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything runs")
    parser.add_argument("--minutes", type=float, default=25.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    steps, scans, held_out = (4, 2, 1) if options.quick else (20000, 120, 8)
    model = train(steps, scans, options.minutes, options.out / "curve.csv")
    save_folder(model, options.out / "model", {"source": "trained on phantoms"})
    figures = evaluate(options.out / "model", held_out)
    for name, value in figures.items():
        print(f"{name:32} {value:.4f}")
    print(json.dumps({name: value for name, value in figures.items() if " " not in name}))


if __name__ == "__main__":
    main()
