"""Whether what is trained moves: a step smaller than the rounding of a weight is lost, and nothing else says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from medvol.core.errors import ConfigError

LEAST_SHARE = 0.5
"""A run stops when fewer of its weights move: in float32 nearly all do, in bfloat16 at a rate of 1e-6 one in sixty."""

_PEAK_SHARE = 0.5
"""A run is judged at this share of its peak learning rate, so neither early in a warm-up nor late in a decay."""

_LOOKED_AT = 10_000
"""Values of a parameter that are looked at, evenly spread, so that no copy of a large network is made."""

_FELT = 1e-7
"""Ten times AdamW's epsilon: a larger gradient moves a weight by about the learning rate at the first step."""


@dataclass(frozen=True)
class Movement:
    """What one optimiser step did to the trained weights that are looked at.

    Args:
        moved: Those that changed.
        felt: Those that got a gradient; the others, such as of words that were not read, may stay where they are.
        rate: Learning rate of the step.
        kind: Type in which they are kept (``float32``).
    """

    moved: int
    felt: int
    rate: float
    kind: str

    @property
    def share(self) -> float:
        """Share of those with a gradient that moved."""
        return self.moved / self.felt

    def __str__(self) -> str:
        how = "weights move" if self.share >= LEAST_SHARE else "few weights move"
        count = f"all {self.felt:,}" if self.moved == self.felt else f"{self.moved:,} of {self.felt:,}"
        return f"{how} ({count} with a gradient that were checked changed)"

    def require_most(self) -> None:
        """Refuse a run in which hardly anything moves.

        Raises:
            ConfigError: Fewer than ``LEAST_SHARE`` of the weights with a gradient moved.
        """
        if self.share < LEAST_SHARE:
            raise ConfigError(
                f"only {self.share:.1%} of the trained weights moved at a learning rate of {self.rate:.2g}; they are "
                f"of {self.kind}, which rounds such steps away: keep what is trained in float32 (trainer.precision "
                "32-true or bf16-mixed), or raise optimizer.learning_rate"
            )


class MovementWatch:
    """Looks at an optimiser's first steps until one can be judged, then leaves it alone.

    Args:
        optimizer: Watched from now on.
        tell: Called with the first step that had a learning rate and a gradient, before it is judged.

    The step that raises is the first at which the rate is near its peak.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, tell: Callable[[Movement], None]) -> None:
        self._tell: Callable[[Movement], None] | None = tell
        self._before: list[torch.Tensor] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._remember),
            optimizer.register_step_post_hook(self._compare),
        ]

    def _remember(self, optimizer: torch.optim.Optimizer, *step: Any) -> None:
        self._before = [_look(parameter).clone() for parameter in _parameters(optimizer)]

    def _compare(self, optimizer: torch.optim.Optimizer, *step: Any) -> None:
        movement = _measure(optimizer, self._before)
        self._before = []
        if movement is None:
            return
        if self._tell is not None:
            self._tell(movement)
            self._tell = None
        peak = max(float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups)
        near_peak = movement.rate >= _PEAK_SHARE * peak
        if near_peak:
            movement.require_most()
        if near_peak or movement.share >= LEAST_SHARE:
            for hook in self._hooks:
                hook.remove()


def require_wide(precision: Any) -> None:
    """Refuse a precision that rounds all weights, the trained ones too, or one that scales gradients.

    Args:
        precision: Of the trainer, or as its settings have it.

    Raises:
        ConfigError: It is a narrow one for weights and computing alike, or float16 with a scaler.
    """
    if precision in ("16-true", "bf16-true"):
        raise ConfigError(
            f"trainer.precision is {precision}, which keeps trained weights in a type that rounds small steps "
            "away; choose 32-true or bf16-mixed (QwenVLPolicy has dtype: bfloat16 for what is not trained)"
        )
    if precision in ("16-mixed", "16", 16):
        raise ConfigError(
            f"trainer.precision is {precision}, which scales gradients until they overflow, and training here clips "
            "and checks them as they are; choose bf16-mixed or 32-true"
        )


def _measure(optimizer: torch.optim.Optimizer, before: list[torch.Tensor]) -> Movement | None:
    """What a step did; None when it had no learning rate, or no gradient."""
    rate = max(float(group["lr"]) for group in optimizer.param_groups)
    parameters = _parameters(optimizer)
    learning = [(p, old) for p, old in zip(parameters, before, strict=True) if p.grad is not None]
    felt = [(_look(p.grad).float().abs() > _FELT, _look(p) != old) for p, old in learning if p.grad is not None]
    count = sum(int(gradient.sum()) for gradient, _ in felt)
    if rate <= 0 or count == 0:
        return None
    return Movement(
        moved=sum(int((gradient & changed).sum()) for gradient, changed in felt),
        felt=count,
        rate=rate,
        kind=", ".join(sorted({str(parameter.dtype).removeprefix("torch.") for parameter, _ in learning})),
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _look(tensor: torch.Tensor) -> torch.Tensor:
    """Values of a parameter, evenly spread, at most ``_LOOKED_AT``; of a sharded one those of this device."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    flat = own.detach().flatten()
    return flat[:: -(-max(1, flat.numel()) // _LOOKED_AT)]
