"""The ``sam2`` package's own video predictor on tensors: no folder of pictures, no CUDA, no network.

Each track gets a state of its own, as upstream's scripts do, and the prompt is given again for the second direction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvol.core.errors import CheckpointError, ConfigError, MissingExtraError
from medvol.propagators.sam2_family.square_slices import SquareSlices

_OBJECT = 1
_STRIDE = 16
_MEAN = torch.tensor((0.485, 0.456, 0.406)).reshape(3, 1, 1)
_STD = torch.tensor((0.229, 0.224, 0.225)).reshape(3, 1, 1)
_PER_OBJECT = (
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
)


class Images(Protocol):
    """A series of normalised slices."""

    def __len__(self) -> int:
        """Number of slices."""

    def __getitem__(self, frame: int) -> Tensor:
        """(3, S, S)."""


class Frames:
    """Part of a volume as a series of normalised slices, made when they are asked for.

    Args:
        slices: The volume in one window.
        first: Slice of the first frame.
        count: Number of frames.
    """

    def __init__(self, slices: SquareSlices, first: int, count: int) -> None:
        self._slices, self._first, self._count = slices, first, count

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the volume's own slices."""
        return self._slices.shape[1:]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, frame: int) -> Tensor:
        grey = torch.from_numpy(self._slices.pixels(self._first + frame).astype(np.float32)) / 255
        return (grey - _MEAN) / _STD


class SAM2Predictor:
    """A frozen predictor of the package.

    Args:
        config: Name of a configuration in the package.
        image_size: Side of the square that it reads, in pixels.
        overrides: More settings, in Hydra's own form.
        weights: Upstream checkpoint; None leaves the weights random.
        device: Where torch computes.

    Raises:
        MissingExtraError: The package is not installed.
        CheckpointError: The weights do not fit the configuration.
        ConfigError: The configuration or the device cannot be used.
    """

    def __init__(
        self,
        config: str,
        image_size: int,
        overrides: Sequence[str] = (),
        weights: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.size, self.device = image_size, device
        self.model = _build(config, [*_size_overrides(image_size), *overrides]).eval().requires_grad_(False)
        if weights is not None:
            self._load(weights)
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device!r} cannot be used: {error}") from error

    def state(self, images: Images, height: int, width: int) -> dict[str, Any]:
        """State of a series of slices whose masks are wanted as (height, width)."""
        device = torch.device(self.device)
        return {
            "images": images,
            "num_frames": len(images),
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": device,
            "storage_device": device,
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            **{name: {} for name in _PER_OBJECT},
        }

    def follow(
        self, state: dict[str, Any], frame: int, box: NDArray[np.float64], feed_mask: bool, last: int
    ) -> Iterator[tuple[int, Tensor]]:
        """Prompt one box and follow it to the frame ``last``, on either side.

        Args:
            state: From ``state``; what it tracked before is forgotten.
            frame: Prompted frame.
            box: (4,) first and last pixel, on the grid of the masks.
            feed_mask: Feed the mask of the box back as a mask prompt.
            last: Frame to stop at.

        Yields:
            Frame and logits (height, width), the prompted frame first.
        """
        self.model.reset_state(state)
        _, _, logits = self.model.add_new_points_or_box(state, frame, _OBJECT, box=box.astype(np.float32))
        if feed_mask:
            self.model.add_new_mask(state, frame, _OBJECT, mask=logits[0, 0] > 0)
        # Upstream yields nothing in reverse from the first frame, and the prompted frame in either direction.
        reverse = last < frame
        for index, _, masks in self.model.propagate_in_video(state, frame, abs(last - frame), reverse):
            yield index, masks[0, 0]

    def _load(self, weights: Path) -> None:
        from medvol.propagators.sam2_family.medsam2_weights import read_upstream

        try:
            self.model.load_state_dict(dict(read_upstream(weights)), strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"the weights {str(weights)!r} do not fit the configuration: {error}") from error


def follow_box(
    predictor: SAM2Predictor,
    frames: Frames,
    frame: int,
    box: NDArray[np.float64],
    feed_mask: bool,
    ends: tuple[int, int],
) -> Iterator[tuple[int, Tensor]]:
    """Follow one box to both ends in one state, prompting it again for the second direction as upstream does."""
    state = predictor.state(frames, *frames.shape)
    yield from predictor.follow(state, frame, box, feed_mask, ends[0])
    if ends[1] < frame:
        yield from predictor.follow(state, frame, box, feed_mask, ends[1])


def package_config(weights: Path) -> str:
    """Name of the package's configuration for an upstream checkpoint of SAM 2.1 or MedSAM2."""
    from medvol.propagators.sam2_family.medsam2_conversion import guess_size
    from medvol.propagators.sam2_family.medsam2_weights import read_upstream

    short = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
    return f"configs/sam2.1/sam2.1_hiera_{short[guess_size(read_upstream(weights))]}.yaml"


def _build(config: str, overrides: Sequence[str]) -> Any:
    """Build the predictor as upstream's own builder does for CT, without its compiled hole filling."""
    try:
        from hydra.errors import HydraException
        from sam2.build_sam import build_sam2_video_predictor
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sam2", "sam2") from error
    try:
        return build_sam2_video_predictor(
            config, None, device="cpu", hydra_overrides_extra=[*overrides], apply_postprocessing=False
        )
    except HydraException as error:
        raise ConfigError(f"the configuration {config!r} of sam2 cannot be used: {error}") from error


def _size_overrides(image_size: int) -> list[str]:
    side = image_size // _STRIDE
    attention = "++model.memory_attention.layer"
    decoder = "++model.sam_mask_decoder_extra_args.dynamic_multimask"
    return [
        f"++model.image_size={image_size}",
        f"{attention}.self_attention.feat_sizes=[{side},{side}]",
        f"{attention}.cross_attention.feat_sizes=[{side},{side}]",
        f"{decoder}_via_stability=true",
        f"{decoder}_stability_delta=0.05",
        f"{decoder}_stability_thresh=0.98",
        "++model.binarize_mask_from_pts_for_mem_enc=true",
    ]
