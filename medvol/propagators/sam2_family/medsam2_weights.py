"""Weights of the SAM 2 family: upstream checkpoints, folders of transformers, the hub, and how one becomes another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import PreTrainedModel, Sam2VideoConfig, Sam2VideoModel, Sam3TrackerVideoConfig, Sam3TrackerVideoModel

from medvol.core.atomic_files import file_sha256, write_whole_folder
from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.model_folder import judge_folder
from medvol.core.sidecar import write_sidecar
from medvol.core.suggestions import suggest
from medvol.propagators.sam2_family.medsam2_conversion import State, convert_state, guess_size, video_config
from medvol.propagators.sam2_family.medsam2_presets import PRESETS, show_licence
from medvol.weights.model_loading import (
    refuse_damage,
    require_all_tensors,
    require_finite,
    require_same_kinds,
    require_size,
)
from medvol.weights.progress_bars import hide_progress_bars
from medvol.weights.tensor_file import read_tensors

FAMILIES: dict[str, tuple[Any, Any]] = {
    "sam2_video": (Sam2VideoConfig, Sam2VideoModel),
    "sam3_tracker_video": (Sam3TrackerVideoConfig, Sam3TrackerVideoModel),
}
"""Model types of transformers that track alike: configuration and network."""

DEFAULT_IMAGE_SIZE = 512
"""Side of the square that a bare upstream checkpoint is run at: MedSAM2's."""

_SIZE_STEP = 32
_LARGEST_SIZE = 4096
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class WeightsSource:
    """Where weights lie on this machine.

    Args:
        path: Upstream checkpoint, or folder with ``config.json`` and ``model.safetensors``.
        image_size: Side in pixels that a checkpoint is run at; a folder says so itself.
        preset: Name of the preset, empty for a path.
    """

    path: Path
    image_size: int
    preset: str = ""

    @property
    def weights_file(self) -> Path:
        """The file with the tensors."""
        return self.path / _WEIGHTS if self.path.is_dir() else self.path


def find_weights(checkpoint: str, image_size: int | None = None, download: bool = False) -> WeightsSource:
    """Find weights by preset, path or hub name; a preset's licence is shown once.

    Args:
        checkpoint: Name in ``PRESETS``, an upstream ``.pt``, a converted folder, or ``owner/name`` on the hub.
        image_size: Side in pixels for an upstream checkpoint; None takes the preset's, or 512.
        download: Fetch what is not on this machine; False never touches the network.

    Raises:
        CheckpointError: Nothing is there, or it may not be fetched.
        ConfigError: The image size is out of range.
    """
    path = Path(checkpoint).expanduser()
    if image_size is not None and not (image_size % _SIZE_STEP == 0 and 0 < image_size <= _LARGEST_SIZE):
        raise ConfigError(f"image_size is a multiple of {_SIZE_STEP} up to {_LARGEST_SIZE}; got {image_size}")
    if checkpoint in PRESETS:
        preset = PRESETS[checkpoint]
        show_licence(checkpoint)
        found = _fetch(preset.repository, preset.file, download, checkpoint)
        return WeightsSource(found, image_size or preset.image_size, checkpoint)
    if path.is_file() or (path / "config.json").is_file():
        return WeightsSource(path, image_size or DEFAULT_IMAGE_SIZE)
    if checkpoint.count("/") == 1 and not checkpoint.startswith((".", "~", "/")) and not path.exists():
        return WeightsSource(_fetch(checkpoint, None, download, checkpoint), image_size or DEFAULT_IMAGE_SIZE)
    raise CheckpointError(
        f"there are no weights {checkpoint!r}; give an upstream .pt file, a folder with config.json, a hub name, or "
        f"one of {', '.join(PRESETS)}{suggest(checkpoint, PRESETS)}"
    )


def load_model(source: WeightsSource) -> PreTrainedModel:
    """Build the network and load its weights, all of them and no others; frozen, in evaluation mode, float32.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or belongs to another network.
    """
    if source.path.is_dir():
        model = _load_folder(source.path)
    else:
        state = read_upstream(source.path)
        with refuse_damage(source.path):
            model = build_model(video_config(guess_size(state), source.image_size), convert_state(state))
    frozen: PreTrainedModel = model.float().eval().requires_grad_(False)
    return frozen


def read_upstream(path: Path) -> State:
    """Tensors of an upstream checkpoint, ``{"model": state}`` or the state itself; nothing in it is run.

    Raises:
        CheckpointError: It is no file of tensors.
    """
    content = read_tensors(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"checkpoint {str(path)!r} holds no state dictionary; give upstream's own file")
    require_finite(state.items(), path)
    return state


def build_model(config: Any, state: State) -> PreTrainedModel:
    """Network of a configuration with exactly these weights.

    Raises:
        CheckpointError: A tensor is missing, left over, or of another shape.
    """
    with torch.device("cpu"):
        model: PreTrainedModel = FAMILIES[config.model_type][1](config)
    try:
        require_same_kinds(model, state)
        model.load_state_dict(dict(state), strict=True)
    except (RuntimeError, CheckpointError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"these weights belong to another network: {reason}") from error
    return model


def save_folder(model: PreTrainedModel, folder: Path, provenance: dict[str, Any]) -> str:
    """Write ``config.json``, ``model.safetensors`` and ``medvol.json`` under a temporary name, then rename it.

    Args:
        model: The network.
        folder: Must not exist.
        provenance: Written to ``medvol.json``, with the SHA-256 of the other files added.

    Returns:
        SHA-256 of ``model.safetensors``.

    Raises:
        ConfigError: The folder is there already.
    """
    if folder.exists():
        raise ConfigError(f"{str(folder)!r} is there already; choose another folder")
    with write_whole_folder(folder) as partial:
        with hide_progress_bars():
            model.save_pretrained(partial)
        digest = file_sha256(partial / _WEIGHTS)
        write_sidecar(partial, provenance)
    return digest


def convert_weights(checkpoint: str, folder: str, image_size: int | None = None, download: bool = False) -> str:
    """Turn an upstream checkpoint into a folder that loads without pickle and says where it came from.

    Returns:
        SHA-256 of the folder's weights.

    Raises:
        CheckpointError: The checkpoint cannot be found or read.
        ConfigError: The folder is there already.
    """
    if Path(folder).exists():
        raise ConfigError(f"{folder!r} is there already; choose another folder")
    source = find_weights(checkpoint, image_size, download)
    facts: dict[str, Any] = {"source": checkpoint, "source_sha256": file_sha256(source.weights_file)}
    if source.preset:
        facts |= {"preset": source.preset, "licence": PRESETS[source.preset].licence}
    return save_folder(load_model(source), Path(folder), facts)


def _load_folder(folder: Path) -> PreTrainedModel:
    family = judge_folder(folder).get("model_type")
    if family not in FAMILIES:
        raise CheckpointError(f"{str(folder)!r} holds a {family} model; {', '.join(FAMILIES)} can be run")
    with refuse_damage(folder), hide_progress_bars():
        kind, network = FAMILIES[family]
        config = kind.from_pretrained(folder)
        with torch.device("meta"):
            require_size(network(config), folder)
        model, report = network.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
        require_all_tensors(report, folder)
    require_finite(model.named_parameters(), folder)
    loaded: PreTrainedModel = model
    return loaded


def _fetch(repository: str, file: str | None, download: bool, name: str) -> Path:
    """Path of a repository's file, or of its folder, from the hub's cache or the hub."""

    def refuse(error: BaseException) -> CheckpointError:
        remedy = f"check the name and the network ({say(error)})" if download else "set download to true to fetch them"
        return CheckpointError(
            f"weights {name!r} are not on this machine ({repository} on the hub); {remedy}, or give a path"
        )

    with contained(refuse):
        if file is not None:
            return Path(hf_hub_download(repository, file, local_files_only=not download))
        patterns = ["config.json", _WEIGHTS]
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=not download))
