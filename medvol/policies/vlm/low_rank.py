"""Low-rank adapters on the language model of a network, through peft (extra ``qwen``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from medvol.core.errors import MissingExtraError
from medvol.policies.vlm.four_bits import whole_weight

ADAPTED = r".*(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Linear layers that get an adapter: all of the language model's. The vision tower is left as it is."""

_SEED = 0
"""Of the adapters' weights; the global random state is left alone."""


def add_adapters(model: nn.Module, rank: int) -> None:
    """Freeze a model and put an adapter beside each of its language layers; the model answers as before.

    Args:
        model: Changed in place.
        rank: Rank of the adapters; their output is doubled (alpha is twice the rank).

    Raises:
        MissingExtraError: peft is not installed.
    """
    config = adapter_config(rank)
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        inject_adapter_in_model(config, model)


def adapter_config(rank: int) -> Any:
    """The adapters of a rank, as peft describes them.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("peft", "qwen") from error
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED)


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
