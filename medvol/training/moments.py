"""AdamW, and where it keeps its two moments: beside the weights, in 8 bits, or in the memory of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim.adamw import adamw

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.training.settings import OptimizerSettings

_NAMES = ("exp_avg", "exp_avg_sq")


def make_adamw(
    parameters: Iterable[torch.nn.Parameter], settings: OptimizerSettings, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW of the kind that the settings ask for.

    Args:
        parameters: What it trains.
        settings: Rate, decay, and where the moments are kept.
        betas: Of the two moments.

    Raises:
        MissingExtraError: The moments are to have 8 bits, and bitsandbytes is not installed.
    """
    options: dict[str, Any] = {"lr": settings.learning_rate, "betas": betas, "weight_decay": settings.weight_decay}
    if settings.moments == "host":
        return HostAdamW(parameters, **options)
    if settings.moments == "8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise MissingExtraError("bitsandbytes", "qlora") from error
        rounded: torch.optim.Optimizer = AdamW8bit(list(parameters), **options)
        return rounded
    return torch.optim.AdamW(parameters, **options)


def require_same_moments(settings: OptimizerSettings, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to go on from moments of another kind. Those of the device and of the host are the same.

    Raises:
        ConfigError: Some are in 8 bits, and the others are not.
    """
    for state in checkpoint.get("optimizer_states", ()):
        rows = state["state"].values()
        if rows and (settings.moments == "8bit") == any("exp_avg" in row for row in rows):
            kept = "not in 8 bits" if settings.moments == "8bit" else "in 8 bits"
            raise ConfigError(
                f"model.optimizer.moments is {settings.moments}, and the checkpoint holds moments that are {kept}; go "
                "on with the setting that the run was started with"
            )


class HostAdamW(torch.optim.AdamW):
    """AdamW whose moments lie in the memory of the host.

    In a step, those of one parameter at a time come to its device and go back, and the arithmetic is that of AdamW. So
    the device never holds more than the moments of the largest parameter. Checkpoints are those of AdamW.

    Args:
        parameters: What it trains.
        options: As AdamW takes them.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **options: Any) -> None:
        super().__init__(parameters, foreach=False, **options)
        self.moments: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        """By parameter. They are not in ``state``, which trainers bring to the device."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what went back to the host is there
        return loss

    def _update(self, parameter: torch.Tensor, group: Mapping[str, Any]) -> None:
        kept = self.moments.setdefault(parameter, {})
        if not kept:
            kept.update({"step": torch.tensor(0.0), **{name: _on_host(parameter) for name in _NAMES}})
        first, second = (kept[name].to(parameter.device, non_blocking=True) for name in _NAMES)
        adamw(
            [parameter],
            [parameter.grad],  # type: ignore[list-item]
            [first],
            [second],
            [],
            [kept["step"]],
            foreach=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for name, moved in zip(_NAMES, (first, second), strict=True):
            if moved is not kept[name]:
                kept[name].copy_(moved, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """As AdamW's, with the moments where they are."""
        found = super().state_dict()
        rows = {place: self.moments[own] for place, own in self._places() if own in self.moments}
        return {**found, "state": {place: dict(row) for place, row in rows.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of AdamW, of this kind or another; the moments go to the host."""
        super().load_state_dict({**state_dict, "state": {}})
        rows, self.moments = state_dict["state"], {}
        for place, parameter in self._places():
            if place in rows:
                kept = {name: _on_host(parameter).copy_(rows[place][name]) for name in _NAMES}
                step = rows[place]["step"].detach().cpu().clone()
                self.moments[parameter] = {"step": step, **kept}

    def _places(self) -> Iterable[tuple[int, torch.Tensor]]:
        return enumerate(parameter for group in self.param_groups for parameter in group["params"])


def _on_host(parameter: torch.Tensor) -> torch.Tensor:
    """Zeros of a parameter's form; in memory that a GPU reads directly, where there is one."""
    pinned = parameter.is_cuda and torch.cuda.is_available()
    return torch.zeros(parameter.shape, dtype=parameter.dtype, device="cpu", pin_memory=pinned)
