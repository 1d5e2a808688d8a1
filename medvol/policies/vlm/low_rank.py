"""Low-rank adapters on the language model of a network, through peft (extra ``qwen``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import nn

from medvol.core.errors import MissingExtraError
from medvol.policies.vlm.four_bits import whole_weight
from medvol.policies.vlm.network import VLMNetwork

_SEED = 0
"""Of the adapters' weights; the global random state is left alone."""


def adapted_layers(network: VLMNetwork) -> str:
    """Names of the layers that get an adapter, as a regular expression.

    They are all linear layers of the language model, whatever its family calls them. The vision tower is left as it is.

    Args:
        network: Has no adapters yet.
    """
    layers = network.language.named_modules()
    names = sorted({name.rpartition(".")[2] for name, layer in layers if isinstance(layer, nn.Linear)})
    return rf".*{re.escape(network.language_part)}\..*\.({'|'.join(names)})"


def add_adapters(network: VLMNetwork, rank: int) -> None:
    """Freeze a network and put an adapter beside each of its language layers; it answers as before.

    Args:
        network: Changed in place.
        rank: Rank of the adapters; their output is doubled (alpha is twice the rank).

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("peft", "qwen") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=adapted_layers(network))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        inject_adapter_in_model(config, network.model)


def adapter_config(network: VLMNetwork) -> Any:
    """The adapters of a network, as peft describes them; a copy, to be changed at will."""
    return copy(network.model.peft_config["default"])


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Let a model answer without its adapters for the length of a ``with`` block."""
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def folded_weights(model: nn.Module, adapters: bool = True) -> dict[str, torch.Tensor]:
    """Weights of a plain model that answers as this one does with its adapters; its own weights without any.

    Sums lie in the memory of the host: a GPU may have no room for a second model.

    Args:
        model: The model.
        adapters: Add the adapters to the weights beneath them; False leaves them out.
    """
    layers: dict[str, Any] = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and ".base_layer.weight." not in name
    }
    for name, layer in layers.items():
        whole = whole_weight(layer.base_layer)
        summed = whole + layer.get_delta_weight("default") if adapters else whole
        weights[f"{name}.weight"] = summed.to("cpu", whole.dtype)
    return weights
