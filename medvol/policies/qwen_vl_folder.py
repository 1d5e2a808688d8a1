"""Model folders: weights in safetensors, configuration, tokenizer and the prompt template that belongs to them."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel

from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.grounding.prompts import PromptTemplate
from medvol.core.progress_bars import hide_progress_bars
from medvol.core.training_data import TrainingData, write_training_data
from medvol.core.whole_file import write_whole_folder
from medvol.policies.low_rank import folded_weights
from medvol.policies.qwen_vl_network import QwenVLNetwork

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Model types of transformers that QwenVLPolicy runs."""
_SIDECAR = "medvol.json"


def load_network(model: str, template: PromptTemplate | None, dtype: Literal["float32", "bfloat16"]) -> QwenVLNetwork:
    """Load a model folder, or a model of the hub when no such folder exists.

    Raises:
        CheckpointError: It cannot be loaded, or is not a Qwen-VL model.
        ConfigError: A template was given though the folder has its own.
    """
    folder = Path(model)
    local = folder.is_dir()
    if not local and (folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1):
        hint = f"; `medvol convert {model} FOLDER` makes one" if folder.suffix == ".ckpt" else ""
        raise CheckpointError(f"there is no model folder {model!r}; give one with config.json, or a hub name{hint}")
    if local and not (folder / "config.json").is_file():
        raise CheckpointError(f"{model!r} is not a model folder: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=local)
        if config.model_type not in FAMILIES:
            raise CheckpointError(f"{model!r} is a {config.model_type} model; QwenVLPolicy runs {', '.join(FAMILIES)}")
        with hide_progress_bars() if local else nullcontext():
            network = AutoModelForImageTextToText.from_pretrained(
                model,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=local,
                attn_implementation="sdpa",
            )
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=local)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the model {model!r} cannot be loaded: {reason}") from error
    return QwenVLNetwork(network, tokenizer, _choose_template(folder / _SIDECAR, template, config))


def save_network(network: QwenVLNetwork, folder: Path, training_data: TrainingData | None = None) -> None:
    """Write a model folder under a temporary name, then rename it; adapters are folded into the weights.

    Args:
        network: Holds the weights.
        folder: Where to write.
        training_data: What the weights were trained on; nothing is written of it when None.

    Raises:
        CheckpointError: There is something of that name that is no model folder.
    """
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{str(folder)!r} is there already and is no model folder; choose another folder")
    with write_whole_folder(folder) as partial:
        with hide_progress_bars():
            network.model.save_pretrained(partial, state_dict=folded_weights(network.model))
        network.tokenizer.save_pretrained(partial)
        sidecar = {"medvol": version("medvol-r1"), "template": network.template.to_dict()}
        (partial / _SIDECAR).write_text(json.dumps(sidecar, indent=2) + "\n")
        if training_data is not None:
            write_training_data(partial, training_data)


def hash_weights(model: PreTrainedModel) -> str:
    """sha256 over the names and bytes of all parameters and buffers, adapters folded in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(folded_weights(model).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _choose_template(sidecar: Path, template: PromptTemplate | None, config: Any) -> PromptTemplate:
    if sidecar.is_file():
        try:
            stored = PromptTemplate.from_dict(json.loads(sidecar.read_text())["template"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{sidecar} does not hold a prompt template: {error}") from error
        if template is not None and template != stored:
            raise ConfigError(f"the model was trained with the template in {sidecar}; leave template out")
        return stored
    if template is not None:
        return template
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    fitting = 256 // side * side
    return PromptTemplate(height_px=fitting, width_px=fitting)
