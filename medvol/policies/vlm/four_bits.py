"""Frozen layers in 4 bits (NF4), through bitsandbytes (extra ``qlora``): each is made whole again while it is used."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from medvol.core.errors import MissingExtraError

_BLOCK, _NESTED = 64, 256
"""Values of a block that share a scale, and scales that share one of their own."""


def quantise_layers(model: nn.Module, names: str) -> None:
    """Round linear layers to 4 bits; all others stay as they are.

    Args:
        model: Changed in place; a model without weights gets layers of the same form.
        names: Regular expression of their names.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    wanted = [(name, layer) for name, layer in model.named_modules() if re.fullmatch(names, name)]
    for name, layer in wanted:
        if isinstance(layer, nn.Linear):
            place, _, own = name.rpartition(".")
            rounded = Form4Bit(layer) if layer.weight.is_meta else _round(layer)
            setattr(model.get_submodule(place), own, rounded)


def has_four_bits(model: nn.Module) -> bool:
    """True when layers of a model are kept in 4 bits."""
    return any(getattr(parameter, "quant_state", None) is not None for parameter in model.parameters())


def whole_weight(layer: nn.Module) -> torch.Tensor:
    """Weight (out, in) of a layer, in the type that it had before it was rounded."""
    weight: Any = layer.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        if isinstance(layer, Form4Bit):
            return torch.empty(layer.out_features, layer.in_features, dtype=layer.dtype)
        return weight  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    whole: torch.Tensor = dequantize_4bit(weight.data, state)
    return whole


def _round(layer: nn.Linear) -> nn.Module:
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "qlora") from error

    class FourBitLinear(Linear4bit):  # type: ignore[misc]
        """A layer that also takes up its rounded weights from a state dictionary."""

        weight: Any

        def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
            start = f"{prefix}weight."
            scales = {key.removeprefix(start): state_dict.pop(key) for key in list(state_dict) if key.startswith(start)}
            if scales:
                packed, device = state_dict[f"{prefix}weight"], self.weight.device
                self.weight = Params4bit.from_prequantized(packed, scales, device=device, module=self)
            super()._load_from_state_dict(state_dict, prefix, *args)

    made = FourBitLinear(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    made.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    rounded: nn.Module = made.to(layer.weight.device)
    return rounded


class Form4Bit(nn.Linear):
    """What a layer of 4 bits keeps and makes, for a model without weights.

    Args:
        layer: Its form is taken.
    """

    def __init__(self, layer: nn.Linear) -> None:
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
        super().__init__(**sizes, bias=layer.bias is not None, device="meta")
        self.dtype = layer.weight.dtype
        count = layer.weight.numel()
        scales = -(-count // _BLOCK)
        size = -(-count // 2) + scales + 4 * -(-scales // _NESTED)
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Make the weight whole, and use it."""
        made: torch.Tensor = _WholeInPassing.apply(x.to(self.dtype), self.out_features)
        return (made if self.bias is None else made + self.bias).to(x.dtype)


class _WholeInPassing(torch.autograd.Function):
    """Multiplies with a weight that is made for it, and made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, out: int) -> torch.Tensor:
        ctx.form = (out, x.shape[-1])
        return x @ x.new_empty(ctx.form).T

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0] @ grads[0].new_empty(ctx.form), None
