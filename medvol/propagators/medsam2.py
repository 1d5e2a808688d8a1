"""MedSAM2: the frozen propagator of MedVol-R1, and every other tracker of the SAM 2 family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import file_sha256
from medvol.core.devices import AUTO, find_device, require_device
from medvol.core.errors import ConfigError, PropagationError
from medvol.core.ranges import require_choice, require_whole
from medvol.core.roles import Propagator
from medvol.core.specs import identify_component
from medvol.core.types import Evidence, Volume
from medvol.core.weights_converter import WeightsConverter
from medvol.imaging.windows import window_for_target
from medvol.propagators.clipping import describe_anchor
from medvol.propagators.feature_cache import (
    EmbeddingCache,
    FeatureCacheSettings,
    Precision,
    Rounding,
    describe_encoder,
)
from medvol.propagators.sam2_family.track_plan import (
    BoxPrompt,
    PlannedAnchor,
    SeriesLength,
    TrackKey,
    TrackPlan,
    unite_tracks,
    wanted_tracks,
)
from medvol.propagators.sam2_family.track_repair import Masklet, RepairRule
from medvol.propagators.window_choice import require_window

if TYPE_CHECKING:
    from medvol.propagators.sam2_family.medsam2_network import TrackerNetwork
    from medvol.propagators.sam2_family.medsam2_tracks import TrackStart
    from medvol.propagators.sam2_family.medsam2_weights import WeightsSource

_ROWS_ON_A_GPU = 16


class MedSAM2Propagator(Propagator, WeightsConverter):
    """Follows every box with MedSAM2, one track a box, in both directions from the key slice; the tracks are united.

    Runs on transformers' ``Sam2VideoModel``. The features of a slice are computed once and shared by all anchors, the
    tracks of a group run together, each prompt is encoded once for both directions, and only the slices asked for are
    followed. Every slice is windowed for the whole volume and stretched to the network's square, as upstream does.

    Args:
        checkpoint: Name of published weights (``MedSAM2_latest``, ``SAM2.1_tiny``, ...), an upstream ``.pt`` file, a
            folder written by ``medvol convert``, or a model of the hub that transformers can read.
        download: Fetch published weights that are not on this machine; False never touches the network.
        image_size: Side of the square for an upstream file, in pixels; None takes the preset's own, or 512.
        prompt: ``mask`` feeds the mask of the box back as a mask prompt, as MedVol-R1 and upstream's RECIST script do;
            ``box`` keeps the box, as upstream's CT script does.
        window: Name of an intensity window, or ``auto``: for CT the lung or bone window when the middle of the boxes is
            below -500 or above 300 HU, otherwise soft tissue. Scans without Hounsfield units use percentiles.
        target: Kind of target (``lung nodule``); chooses the window in place of ``window``.
        series: ``volume`` tells the network how long the volume is, so a range equals a cut of the whole mask;
            ``range`` tells it the length of the range only, as MedVol-R1's reward does, which cuts a clip first.
        device: Where torch computes: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``; ``auto`` takes an NVIDIA GPU
            where there is one.
        precision: Arithmetic of the image encoder.
        cache: Features that are kept; a slice takes 5 MiB at 512 pixels, half of it in ``bfloat16``.
        cache_precision: How features are stored; ``bfloat16`` and ``float16`` are not exact.
        tracks_at_once: Rows of a batch, which bounds the memory; None takes 1 on a CPU, where larger batches are
            slower, and 16 elsewhere.
        largest_component: Keep the largest 3D component of every track only, as upstream's CT script does.
        repair: What is done to a track after it was followed; nothing by default.

    What the repair changes is logged. With ``series="volume"`` and without ``largest_component``,
    the mask inside ``z_range`` equals that of the whole volume.
    """

    def __init__(
        self,
        checkpoint: str = "MedSAM2_latest",
        download: bool = False,
        image_size: int | None = None,
        prompt: BoxPrompt = "mask",
        window: str = "auto",
        target: str | None = None,
        series: SeriesLength = "volume",
        device: str = AUTO,
        precision: Precision = "float32",
        cache: FeatureCacheSettings = FeatureCacheSettings(),
        cache_precision: Rounding = "float32",
        tracks_at_once: int | None = None,
        largest_component: bool = False,
        repair: RepairRule = RepairRule(),
    ) -> None:
        require_window(window)
        require_choice(BoxPrompt, prompt=prompt)
        require_choice(SeriesLength, series=series)
        require_choice(Precision, precision=precision)
        require_choice(Rounding, cache_precision=cache_precision)
        require_whole(1, tracks_at_once=tracks_at_once)
        if image_size is not None and (image_size < 32 or image_size % 32):
            raise ConfigError(f"image_size is {image_size}; it must be a multiple of 32")
        self.checkpoint = checkpoint
        self.download = download
        self.image_size = image_size
        self.prompt = prompt
        self.window = window
        self.target = target
        self.series = series
        self.device = require_device(device)
        self.precision = precision
        self.cache = cache
        self.cache_precision = cache_precision
        self.tracks_at_once = tracks_at_once
        self.largest_component = largest_component
        self.repair = repair

    def require_ready(self) -> None:
        """Find the weights; published ones are fetched now where ``download`` says so."""
        _ = self._source

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Follow every box through the volume; see the role for arguments and errors.

        Raises:
            CheckpointError: The weights cannot be found or used.
        """
        return self.propagate_many(volume, [evidence], [z_range])[0]

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Follow several anchors of one volume together; a box that several of them share is followed once."""
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        plan = TrackPlan(self._chosen_window, self.series == "volume", self.repair.max_gap_slices)
        anchors = [plan.anchor(volume, e, own) for e, own in zip(evidences, ranges, strict=True)]
        tracks = self._follow(volume, anchors)
        return [unite_tracks(volume, anchor, tracks, self.repair, self.largest_component) for anchor in anchors]

    def identity(self) -> Mapping[str, Any]:
        """Name, settings that change the mask, and SHA-256 of the weights."""
        left_out = ("checkpoint", "download", "device", "cache", "tracks_at_once", "image_size", "repair")
        weights = {"image_size": self._network.size, "weights_sha256": self._weights_sha256}
        return {**identify_component(self, left_out), **asdict(self.repair), **weights}

    @classmethod
    def convert_weights(cls, source: str, folder: str, image_size: int | None = None, download: bool = False) -> str:
        """Write an upstream ``.pt`` file, or published weights by name, as a folder."""
        from medvol.propagators.sam2_family.medsam2_weights import convert_weights

        return convert_weights(source, folder, image_size, download)

    @property
    def _chosen_window(self) -> str:
        return self.window if self.target is None else window_for_target(self.target)

    def _follow(self, volume: Volume, anchors: Sequence[PlannedAnchor]) -> dict[TrackKey, Masklet]:
        """Masklet of every box that was asked for."""
        wanted = wanted_tracks(anchors)
        if not wanted:
            return {}
        from medvol.propagators.sam2_family.medsam2_tracks import TrackError, TrackFollower

        keys = list(wanted)
        rows = self.tracks_at_once or (1 if find_device(self.device) == "cpu" else _ROWS_ON_A_GPU)
        follower = TrackFollower(self._network, self.prompt == "mask", rows)
        try:
            return dict(zip(keys, follower.follow(self._seeds(volume, wanted)), strict=True))
        except TrackError as error:
            blamed = next(anchor for anchor in anchors if keys[error.seed] in anchor.keys)
            raise PropagationError(f"{describe_anchor(volume, blamed.evidence)}: {error}") from error

    def _seeds(self, volume: Volume, wanted: Mapping[TrackKey, range]) -> list[TrackStart]:
        from medvol.propagators.sam2_family.medsam2_features import TrackerFeatures
        from medvol.propagators.sam2_family.medsam2_tracks import TrackStart
        from medvol.propagators.sam2_family.square_slices import SquareSlices

        encoder = describe_encoder(self._weights_sha256, self.precision, "transformers")
        views = {}
        for window in {key.window for key in wanted}:
            slices = SquareSlices(volume, window, self._network.size)
            views[window] = slices, TrackerFeatures(slices, self._network, self._embeddings, encoder)
        return [
            TrackStart(
                views[key.window][0], views[key.window][1].row, key.key_slice, np.array(key.box), reach, key.frames
            )
            for key, reach in wanted.items()
        ]

    @cached_property
    def _source(self) -> WeightsSource:
        from medvol.propagators.sam2_family.medsam2_weights import find_weights

        return find_weights(self.checkpoint, self.image_size, self.download)

    @cached_property
    def _weights_sha256(self) -> str:
        return file_sha256(self._source.weights_file)

    @cached_property
    def _network(self) -> TrackerNetwork:
        from medvol.propagators.sam2_family.medsam2_network import TrackerNetwork
        from medvol.propagators.sam2_family.medsam2_weights import load_model

        return TrackerNetwork(load_model(self._source), find_device(self.device), self.precision == "bfloat16")

    @cached_property
    def _embeddings(self) -> EmbeddingCache:
        return self.cache.open(self.cache_precision)
