"""Model folders of vision-language models, as transformers keeps them: weights, configuration and processor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)

from medvol.core.bundled import hint_at_checkpoint, model_folder
from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.json_file import parse_json
from medvol.core.model_folder import judge_folder
from medvol.core.prompts import PromptTemplate
from medvol.core.sidecar import SIDECAR
from medvol.grounding.box_units import BoxUnits, ask_in, require_units
from medvol.policies.vlm.families import find_family
from medvol.policies.vlm.low_rank import folded_weights
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.precision import narrowed
from medvol.weights.model_loading import refuse_damage, require_all_tensors, require_finite, require_size
from medvol.weights.progress_bars import hide_progress_bars

_WEIGHTS = "*.safetensors"

_PUBLISHED = ("*.json", _WEIGHTS, "*.txt", "*.jinja", "*.model")
"""Files of a published model that are fetched."""

_LEFT_OUT: ContextVar[bool] = ContextVar("weights_left_out", default=False)


@contextmanager
def leave_weights_out() -> Iterator[None]:
    """Build networks on no device in a ``with`` block: they have their form and no weights, which are not fetched."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def weights_are_left_out() -> bool:
    """True within ``leave_weights_out``."""
    return _LEFT_OUT.get()


def load_network(
    folder: Path,
    template: PromptTemplate | None,
    dtype: Literal["float32", "bfloat16"],
    only: tuple[str, ...] | None = None,
    box_units: BoxUnits | None = None,
) -> VLMNetwork:
    """Load a model folder with the adapter of its family; all of its weights, and no others.

    Args:
        folder: The model folder; no code in it is run.
        template: Layout of the prompts, for a folder that brings none.
        dtype: Type of the weights.
        only: Families that are run; None for all.
        box_units: What the model writes boxes in; None leaves it to the folder, and a published one to its family.

    Raises:
        CheckpointError: It cannot be loaded, or is a model of another family.
        ConfigError: A template was given though the folder has its own.
    """
    family = find_family(judge_folder(folder, not weights_are_left_out()).get("model_type"), str(folder), only)
    with refuse_damage(folder):
        model = _load_model(folder, dtype)
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not hasattr(processor, "image_processor"):
            raise CheckpointError(
                f"{str(folder)!r} has no processor files; copy preprocessor_config.json and its kind from the model"
            )
        _require_known_tokens(processor.tokenizer, model, folder)
        said = box_units or read_units(folder)
        units = said or family.native_units
        side = family.default_side(model.config)
        chosen = choose_template(folder, template, units) or PromptTemplate(height_px=side, width_px=side)
        network = family(model, processor, ask_in(units, chosen))
    network.box_units, network.by_habit = units, said is None
    if not network.layout.encode_layout(network.layout.block).count(network.image_id):
        raise CheckpointError(
            f"the tokenizer of {str(folder)!r} writes no image token {network.image_id}, which its network expects: "
            "use the tokenizer that belongs to it"
        )
    return network


def _load_model(folder: Path, dtype: Literal["float32", "bfloat16"]) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        kind, attention = getattr(torch, dtype), "sdpa"
        outline: PreTrainedModel = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=False, dtype=kind, attn_implementation=attention
        )
    if weights_are_left_out():
        return outline
    require_size(outline, folder)
    with hide_progress_bars():
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            dtype=kind,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=attention,
            output_loading_info=True,
        )
    model: PreTrainedModel
    model, report = loaded
    require_all_tensors(report, folder)
    require_finite(model.named_parameters(), folder)
    return model


def read_units(folder: Path) -> BoxUnits | None:
    """What the model of a folder that medvol wrote writes boxes in; None where medvol did not write it.

    Raises:
        CheckpointError: The folder's file names other units.
    """
    if not (folder / SIDECAR).is_file():
        return None
    try:
        content = parse_json((folder / SIDECAR).read_text(encoding="utf-8"))
        units: BoxUnits = content.get("policy", {}).get("settings", {}).get("box_units") or "thousandths"
        require_units(units)
    except (ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{folder / SIDECAR} does not say what boxes are written in: {error}") from error
    return units


def choose_template(folder: Path, template: PromptTemplate | None, units: BoxUnits) -> PromptTemplate | None:
    """The template that a folder brings, or the one that was given; None where neither is.

    Args:
        folder: The folder.
        template: The one that was given.
        units: What its instruction asks for boxes in.

    Raises:
        CheckpointError: The folder's file does not hold one.
        ConfigError: A template was given though the folder has its own; ``max_anchors`` alone may be another one.
    """
    sidecar = folder / SIDECAR
    if not sidecar.is_file():
        return template
    try:
        stored = PromptTemplate.from_dict(parse_json(sidecar.read_text(encoding="utf-8"))["template"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{sidecar} does not hold a prompt template: {error}") from error
    if template is None:
        return stored
    if ask_in(units, replace(template, max_anchors=stored.max_anchors)) != stored:
        raise ConfigError(
            f"the model was trained with the template in {sidecar}; leave template out, or change max_anchors alone"
        )
    return replace(stored, max_anchors=template.max_anchors)


def write_network(network: VLMNetwork, folder: Path, adapters: bool = True) -> None:
    """Write weights, configuration and processor; adapters are folded into the weights, or left out."""
    weights = narrowed(folded_weights(network.model, adapters), network.narrow)
    with hide_progress_bars():
        network.model.save_pretrained(folder, state_dict=weights)
    if network.narrow is not None:  # the library states the type of the first parameter
        network.model.config.dtype = network.narrow
        network.model.config.save_pretrained(folder)
    network.processor.save_pretrained(folder)


def hash_weights(network: VLMNetwork) -> str:
    """sha256 over the names and bytes of all parameters and buffers as they are saved, adapters folded in."""
    return hash_tensors(narrowed(folded_weights(network.model), network.narrow))


def hash_tensors(tensors: Mapping[str, torch.Tensor], kind: torch.dtype | None = None) -> str:
    """sha256 over the names and bytes of tensors; with a type, over those of the numbers rounded to it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        own = tensor.detach().to("cpu", kind if tensor.is_floating_point() else None)
        digest.update(name.encode())
        digest.update(own.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_folder(model: str) -> Path:
    """A model folder or a bundled one, or that of a model of the hub when no such folder exists.

    Raises:
        CheckpointError: There is neither.
    """
    place = model_folder(model)
    if place.is_dir():
        return place
    if place.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        hint = hint_at_checkpoint(model)
        raise CheckpointError(f"there is no model folder {model!r}; give one with config.json, or a hub name{hint}")
    wanted = [pattern for pattern in _PUBLISHED if pattern != _WEIGHTS or not weights_are_left_out()]
    refusal = f"the model {model!r} is no folder and cannot be fetched"
    with contained(lambda error: CheckpointError(f"{refusal}: {say(error)}")):
        return Path(snapshot_download(model, allow_patterns=wanted))


def _require_known_tokens(tokenizer: Any, model: Any, folder: Path) -> None:
    """Refuse a tokenizer that belongs to another network."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"the tokenizer of {str(folder)!r} has {len(tokenizer)} tokens, and its network knows {rows}: use the "
            "tokenizer that belongs to it"
        )
