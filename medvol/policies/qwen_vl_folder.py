"""Model folders: weights in safetensors, configuration, tokenizer and the prompt template that belongs to them."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel

from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.grounding.prompts import PromptTemplate
from medvol.core.json_file import parse_json
from medvol.core.model_folder import SIDECAR, judge_folder, write_sidecar
from medvol.core.model_loading import refuse_damage, require_all_tensors, require_size
from medvol.core.progress_bars import hide_progress_bars
from medvol.core.training_data import TrainingData, write_training_data
from medvol.core.whole_file import write_whole_folder
from medvol.policies.low_rank import folded_weights
from medvol.policies.qwen_vl_network import IMAGE, QwenVLNetwork, token_id

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Model types of transformers that QwenVLPolicy runs."""
_PUBLISHED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""Files of a published model that are fetched."""


def load_network(model: str, template: PromptTemplate | None, dtype: Literal["float32", "bfloat16"]) -> QwenVLNetwork:
    """Load a model folder, or a model of the hub when no such folder exists; all of its weights, and no others.

    Raises:
        CheckpointError: It cannot be loaded, or is not a Qwen-VL model.
        ConfigError: A template was given though the folder has its own.
    """
    folder = Path(model) if Path(model).is_dir() else _fetch(model)
    family = judge_folder(folder).get("model_type")
    if family not in FAMILIES:
        raise CheckpointError(f"{model!r} is a {family} model; QwenVLPolicy runs {', '.join(FAMILIES)}")
    with refuse_damage(model):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            require_size(AutoModelForImageTextToText.from_config(config), folder)
        with hide_progress_bars():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                output_loading_info=True,
            )
        network, report = loaded
        require_all_tensors(report, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _require_known_tokens(tokenizer, network, folder)
        return QwenVLNetwork(network, tokenizer, _choose_template(folder / SIDECAR, template, config))


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
        if training_data is not None:
            write_training_data(partial, training_data)
        write_sidecar(partial, {"medvol": version("medvol-r1"), "template": network.template.to_dict()})


def hash_weights(model: PreTrainedModel) -> str:
    """sha256 over the names and bytes of all parameters and buffers, adapters folded in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(folded_weights(model).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fetch(model: str) -> Path:
    """Folder of a model of the hub."""
    place = Path(model)
    if place.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        hint = f"; `medvol convert {model} FOLDER` makes one" if place.suffix == ".ckpt" else ""
        raise CheckpointError(f"there is no model folder {model!r}; give one with config.json, or a hub name{hint}")
    try:
        return Path(snapshot_download(model, allow_patterns=list(_PUBLISHED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the model {model!r} is no folder and cannot be fetched: {reason}") from error


def _require_known_tokens(tokenizer: Any, network: Any, folder: Path) -> None:
    """Refuse a tokenizer that belongs to another network."""
    rows, place = network.get_input_embeddings().weight.shape[0], token_id(tokenizer, IMAGE)
    if len(tokenizer) > rows or place != network.config.image_token_id:
        raise CheckpointError(
            f"the tokenizer of {str(folder)!r} has {len(tokenizer)} tokens and {IMAGE} at {place}; its network knows "
            f"{rows} and expects {IMAGE} at {network.config.image_token_id}: use the tokenizer that belongs to it"
        )


def _choose_template(sidecar: Path, template: PromptTemplate | None, config: Any) -> PromptTemplate:
    if sidecar.is_file():
        try:
            stored = PromptTemplate.from_dict(parse_json(sidecar.read_text(encoding="utf-8"))["template"])
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
