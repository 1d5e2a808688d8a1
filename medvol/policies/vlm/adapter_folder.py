"""A folder that holds an adapter alone, in the form of peft; it belongs to one base model."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medvol.core.errors import CheckpointError
from medvol.core.json_file import parse_json
from medvol.core.model_folder import ADAPTER_CONFIG
from medvol.core.sidecar import read_sidecar
from medvol.policies.vlm.folder import hash_tensors
from medvol.policies.vlm.four_bits import has_four_bits
from medvol.policies.vlm.low_rank import adapter_config
from medvol.policies.vlm.network import VLMNetwork
from medvol.weights.model_loading import refuse_damage, require_finite

WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_MAX_BYTES = 1_000_000

_BASE = "medvol_base"
"""Entry of the weights' file that says beside which weights they were trained."""

_COMPARED = torch.bfloat16
"""Type in which weights are compared: a model that is loaded in a wider one has the same numbers in it."""


def write_adapter(network: VLMNetwork, folder: Path, base: str) -> None:
    """Write the adapters of a network as peft does.

    Args:
        network: Has adapters.
        folder: Empty.
        base: Name of the base model, which peft looks for.
    """
    write_layers(network, folder, base, {_BASE: _name_weights(network)})


def write_layers(network: VLMNetwork, folder: Path, base: str, notes: Mapping[str, str]) -> None:
    """``write_adapter``, with other notes in the file of the weights than a hash of those beneath, which takes long."""
    state = {
        f"{_PREFIX}{name.replace('.default.', '.')}": tensor.detach().cpu().contiguous()
        for name, tensor in network.model.state_dict().items()
        if ".lora_" in name
    }
    save_file(state, folder / WEIGHTS, {"format": "pt", **notes})
    config = adapter_config(network)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(folder)


def read_scale(folder: Path) -> float:
    """Factor of an adapter's product, from its configuration.

    Raises:
        CheckpointError: The folder holds no adapter, it is damaged, or it is of a kind that is not folded here.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{str(folder)!r} holds no adapter; give a folder with {ADAPTER_CONFIG} and {WEIGHTS}")
    read_sidecar(folder)  # where medvol wrote it, its files are as it wrote them
    if (folder / ADAPTER_CONFIG).stat().st_size > _MAX_BYTES:
        raise CheckpointError(
            f"{str(folder / ADAPTER_CONFIG)!r} is larger than {_MAX_BYTES} bytes; give another folder"
        )
    try:
        config = parse_json((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        scale = float(config["lora_alpha"]) / int(config["r"])
        others = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
        plain = config["peft_type"] == "LORA" and isfinite(scale) and not any(config.get(key) for key in others)
    except (ValueError, KeyError, TypeError, ArithmeticError, OSError) as error:
        raise CheckpointError(f"{str(folder / ADAPTER_CONFIG)!r} cannot be read as an adapter's ({error})") from error
    if not plain:
        raise CheckpointError(
            f"{str(folder)!r} holds an adapter of another kind than plain LoRA; fold it with peft first"
        )
    return scale


@torch.no_grad()
def fold_adapter(network: VLMNetwork, folder: Path) -> None:
    """Add an adapter to the weights of its base model.

    Args:
        network: Of the base model; changed in place.
        folder: From ``write_adapter``, or from peft.

    Raises:
        CheckpointError: It belongs to another network, or is damaged.
    """
    scale = read_scale(folder)
    with refuse_damage(folder):
        state = load_file(folder / WEIGHTS)
        with safe_open(folder / WEIGHTS, "pt") as file:
            kind, _, digest = ((file.metadata() or {}).get(_BASE) or "").partition(" ")
    layers = sorted(name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN))
    if not layers or {*state} != {f"{layer}{end}" for layer in layers for end in (_DOWN, _UP)}:
        raise CheckpointError(f"{str(folder / WEIGHTS)!r} holds other tensors than pairs of LoRA; give another folder")
    if digest and kind == _kind(network) and f"{kind} {digest}" != _name_weights(network):
        raise CheckpointError(f"the adapter {str(folder)!r} was trained beside other weights than those of this model")
    require_finite(state.items(), folder)
    own = dict(network.model.named_parameters())
    for layer in layers:
        weight, down, up = own.get(f"{layer.removeprefix(_PREFIX)}.weight"), state[layer + _DOWN], state[layer + _UP]
        if weight is None or weight.shape != (up.shape[0], down.shape[-1]) or up.shape[-1] != down.shape[0]:
            raise CheckpointError(f"the adapter {str(folder)!r} does not fit its base model at {layer[:200]}")
        weight.copy_(weight.float() + scale * (up.float() @ down.float()).to(weight.device))


def _name_weights(network: VLMNetwork) -> str:
    """Type in which they are compared and hash of the weights beneath the adapters."""
    beneath = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in network.model.state_dict().items()
        if ".lora_" not in name
    }
    return f"{_kind(network)} {hash_tensors(beneath, _COMPARED)}"


def _kind(network: VLMNetwork) -> str:
    """Kind of the weights that an adapter lies beside: those in 4 bits are like no others."""
    return f"{_COMPARED}{'-nf4' if has_four_bits(network.model) else ''}"
