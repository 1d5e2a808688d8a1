"""A 2D box becomes a 3D mask in one pass of nnInteractive."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol import CheckpointError, ConfigError, Evidence, MedvolError, PropagationError, Propagator, Volume

Mask = NDArray[np.bool_]


class NnInteractivePropagator(Propagator):
    """Gives every box to nnInteractive as a 2D box prompt of its own and unites the 3D masks.

    Args:
        model: Folder of a trained nnInteractive model.
        fold: Fold of the model; None takes the only one.
        checkpoint_name: File in the fold.
        device: Where torch computes (``cuda``, ``cpu``).
        autozoom: Let nnInteractive look at a larger part of the scan when a mask reaches the border of what it saw.
    """

    def __init__(
        self,
        model: str = "nnInteractive_v1.0",
        fold: int | None = None,
        checkpoint_name: str = "checkpoint_final.pth",
        device: str = "cuda",
        autozoom: bool = True,
    ) -> None:
        self.model = model
        self.fold = fold
        self.checkpoint_name = checkpoint_name
        self.device = device
        self.autozoom = autozoom

    def propagate(self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None) -> Mask:
        """Segment every box in 3D; see the role for arguments and errors."""
        return self.propagate_many(volume, [evidence], [z_range])[0]

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[Mask]:
        """Segment several anchors; the scan is given to the session once, and equal boxes are asked once."""
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        prompts = [self._prompts(volume, evidence) for evidence in evidences]
        known: dict[Prompt, Mask] = {}
        ready = False
        for evidence, boxes in zip(evidences, prompts, strict=True):
            for box in boxes:
                if box in known:
                    continue
                try:
                    known[box] = self._segment(volume, box, fresh=not ready)
                except MedvolError:
                    raise
                except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
                    raise PropagationError(
                        f"volume {volume.volume_id!r}, slice {evidence.key_slice}, boxes {evidence.boxes.tolist()}: "
                        f"{type(error).__name__}: {error}"
                    ) from error
                ready = True
        return [_unite(volume, [known[b] for b in boxes], own) for boxes, own in zip(prompts, ranges, strict=True)]

    def identity(self) -> Mapping[str, Any]:
        """Name, settings that change the mask, and SHA-256 of the weights."""
        places = {"model", "checkpoint_name", "device"}
        settings = {key: value for key, value in super().identity().items() if key not in places}
        with self._weights.open("rb") as file:
            return {**settings, "weights_sha256": hashlib.file_digest(file, "sha256").hexdigest()}

    def _prompts(self, volume: Volume, evidence: Evidence) -> list[Prompt]:
        """Boxes as half-open voxel ranges (z, y, x), each at least one voxel wide, within the scan."""
        if evidence.key_slice is None:
            return []
        depth, height, width = volume.shape
        if not 0 <= evidence.key_slice < depth or not np.isfinite(evidence.boxes).all():
            raise PropagationError(
                f"volume {volume.volume_id!r}, slice {evidence.key_slice}, boxes {evidence.boxes.tolist()}: the scan "
                f"has the slices 0 to {depth - 1}, and boxes are finite numbers"
            )
        limits = np.array([width, height, width, height])
        clipped = np.clip(np.asarray(evidence.boxes, np.float64).reshape(-1, 4), 0, limits)
        usable = clipped[(clipped[:, 2:] - clipped[:, :2] >= 1).all(axis=1)]
        key = (evidence.key_slice, evidence.key_slice + 1)
        return [(key, (int(y1), int(np.ceil(y2))), (int(x1), int(np.ceil(x2)))) for x1, y1, x2, y2 in usable.tolist()]

    def _segment(self, volume: Volume, box: Prompt, fresh: bool) -> Mask:
        """Mask (Z, Y, X) of one box; ``fresh`` when the session holds another scan."""
        if not np.isfinite(volume.voxels).all():
            raise ValueError("the scan holds values that are not finite; read it with a value for them")
        answer = np.zeros(volume.shape, np.uint8)
        with redirect_stdout(io.StringIO()):  # the session reports every step on standard output
            if fresh:
                self._session.set_image(volume.voxels[None])
            else:
                self._session.reset_interactions()
            self._session.set_target_buffer(answer)
            self._session.add_bbox_interaction([list(side) for side in box], include_interaction=True)
        return answer > 0

    @property
    def _weights(self) -> Path:
        fold = f"fold_{'*' if self.fold is None else self.fold}"
        found = sorted(Path(self.model).expanduser().glob(f"{fold}/{self.checkpoint_name}"))
        if not found:
            raise CheckpointError(f"no {fold}/{self.checkpoint_name} in {self.model!r}; give a folder of nnInteractive")
        return found[0]

    @cached_property
    def _session(self) -> Any:
        """The session with its weights.

        Raises:
            CheckpointError: The folder holds no model.
            ConfigError: The device cannot be used.
        """
        folder = str(self._weights.parent.parent)
        import torch
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

        try:
            session = nnInteractiveInferenceSession(
                device=torch.device(self.device),
                do_autozoom=self.autozoom,
                torch_n_threads=torch.get_num_threads(),
                enable_undo=False,
            )
            session.initialize_from_trained_model_folder(folder, self.fold, self.checkpoint_name)
        except RuntimeError as error:
            raise ConfigError(f"nnInteractive cannot run on {self.device!r}: {error}") from error
        return session


Prompt = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open voxel ranges along z, y and x."""


def _unite(volume: Volume, masks: Sequence[Mask], z_range: tuple[int, int] | None) -> Mask:
    """Union of masks, cut to a half-open range of slices."""
    united = np.zeros(volume.shape, bool)
    low, high = (0, volume.shape[0]) if z_range is None else (max(0, z_range[0]), max(0, z_range[1]))
    for mask in masks:
        united[low:high] |= mask[low:high]
    return united
