"""SAM 2 by its own package: a second implementation, with which MedSAM2Propagator is compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import file_sha256
from medvol.core.devices import AUTO, find_device, require_device
from medvol.core.errors import CheckpointError, MissingExtraError
from medvol.core.ranges import require_choice
from medvol.core.roles import Propagator
from medvol.core.specs import identify_component
from medvol.core.types import Evidence, Volume
from medvol.imaging.windows import window_for_target
from medvol.propagators.clipping import blamed
from medvol.propagators.sam2_family.track_plan import (
    BoxPrompt,
    SeriesLength,
    TrackKey,
    TrackPlan,
    unite_tracks,
    wanted_tracks,
)
from medvol.propagators.sam2_family.track_repair import Masklet, RepairRule
from medvol.propagators.window_choice import require_window
from medvol.terminal.progress import counted

if TYPE_CHECKING:
    from medvol.propagators.sam2_family.medsam2_weights import WeightsSource
    from medvol.propagators.sam2_family.sam2_network import SAM2Predictor


class SAM2Propagator(Propagator):
    """Follows every box with the ``sam2`` package, upstream's way: one state a box, features computed for each.

    Slow, and here for comparison; the settings mean what they mean for ``MedSAM2Propagator``.

    Args:
        checkpoint: Name of published weights, or an upstream ``.pt`` file; a converted folder belongs to
            ``MedSAM2Propagator``.
        download: Fetch published weights that are not on this machine; False never touches the network.
        config: Configuration in the package; None finds the one that the weights belong to.
        overrides: More settings of the configuration, in Hydra's own form.
        image_size: Side of the square, in pixels; None takes the preset's own, or 512.
        prompt: ``mask`` feeds the mask of the box back as a mask prompt; ``box`` keeps the box.
        window: Name of an intensity window, or ``auto``.
        target: Kind of target (``lung nodule``); chooses the window in place of ``window``.
        series: Length of the series that the network is told: that of the ``volume``, or of the ``range`` asked for.
        device: Where torch computes: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``; ``auto`` takes an NVIDIA GPU
            where there is one.
        largest_component: Keep the largest 3D component of every track only.
    """

    def __init__(
        self,
        checkpoint: str = "MedSAM2_latest",
        download: bool = False,
        config: str | None = None,
        overrides: tuple[str, ...] = (),
        image_size: int | None = None,
        prompt: BoxPrompt = "mask",
        window: str = "auto",
        target: str | None = None,
        series: SeriesLength = "volume",
        device: str = AUTO,
        largest_component: bool = False,
    ) -> None:
        require_window(window)
        require_choice(BoxPrompt, prompt=prompt)
        require_choice(SeriesLength, series=series)
        self.checkpoint = checkpoint
        self.download = download
        self.config = config
        self.overrides = overrides
        self.image_size = image_size
        self.prompt = prompt
        self.window = window
        self.target = target
        self.series = series
        self.device = require_device(device)
        self.largest_component = largest_component

    def require_ready(self) -> None:
        """Find the package and the weights; published ones are fetched now where ``download`` says so."""
        if find_spec("sam2") is None:
            raise MissingExtraError("sam2", "sam2")
        _ = self._source

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Follow every box through the volume; see the role for arguments and errors.

        Raises:
            MissingExtraError: ``sam2`` is not installed.
            CheckpointError: The weights cannot be found or used.
        """
        window = self.window if self.target is None else window_for_target(self.target)
        anchor = TrackPlan(window, self.series == "volume", 0).anchor(volume, evidence, z_range)
        with blamed(volume, evidence):
            tracks = {key: self._track(volume, key, reach) for key, reach in wanted_tracks([anchor]).items()}
        return unite_tracks(volume, anchor, tracks, RepairRule(), self.largest_component)

    def identity(self) -> Mapping[str, Any]:
        """Name, settings that change the mask, and SHA-256 of the weights."""
        places = ("checkpoint", "download", "device", "image_size")
        digest = file_sha256(self._source.weights_file)
        weights = {"image_size": self._source.image_size, "weights_sha256": digest}
        return {**identify_component(self, places), **weights}

    def _track(self, volume: Volume, key: TrackKey, reach: range) -> Masklet:
        """Follow one box in a state of its own, first up and then down."""
        from medvol.propagators.sam2_family.sam2_network import Frames, follow_box
        from medvol.propagators.sam2_family.square_slices import SquareSlices, corner_pixels

        slices = SquareSlices(volume, key.window, self._predictor.size)
        frames = Frames(slices, key.first, key.frames)
        box, frame = corner_pixels(np.array(key.box)), key.key_slice - key.first
        ends = reach.stop - 1 - key.first, reach.start - key.first
        found = follow_box(self._predictor, frames, frame, box, self.prompt == "mask", ends)
        told = counted(found, "SAM 2", len(reach), "slices")
        return {index + key.first: (logits > 0).cpu().numpy() for index, logits in told}

    @cached_property
    def _source(self) -> WeightsSource:
        from medvol.propagators.sam2_family.medsam2_weights import find_weights

        source = find_weights(self.checkpoint, self.image_size, self.download)
        if source.path.is_dir():
            raise CheckpointError(f"{self.checkpoint!r} is a folder; SAM2Propagator reads upstream .pt files")
        return source

    @cached_property
    def _predictor(self) -> SAM2Predictor:
        from medvol.propagators.sam2_family.sam2_network import SAM2Predictor, package_config

        config = self.config or package_config(self._source.path)
        return SAM2Predictor(
            config, self._source.image_size, self.overrides, self._source.path, find_device(self.device)
        )
