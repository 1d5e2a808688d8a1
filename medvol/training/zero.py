"""Shared optimiser states: ``trainer.strategy: deepspeed_stage_1`` keeps a part of AdamW's moments on each device.

DeepSpeed (extra ``deepspeed``) shares the trained weights out among the devices for the optimiser step (ZeRO, stage 1):
each device holds moments for its part alone, updates that, and gets the others' parts. Weights and gradients are whole
everywhere, as in ``ddp``, and gradients are summed and clipped as there. Checkpoints are whole too, in one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import nn
from torch.optim import Optimizer

from medvol.core.errors import ConfigError, MissingExtraError

NAME = "deepspeed_stage_1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroStrategy(DDPStrategy):
    """DDP whose optimiser states are shared out by DeepSpeed in a fit."""

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimiser, and share its states out.

        Raises:
            MissingExtraError: DeepSpeed is not installed.
            ConfigError: Gradients are to be clipped by value.
        """
        if trainer.gradient_clip_algorithm == "value":
            raise ConfigError(
                f"trainer.gradient_clip_algorithm is value, and {NAME} clips gradients by their norm; leave it out"
            )
        super().setup_optimizers(trainer)
        (optimizer,) = self.optimizers
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._groups = [len(group["params"]) for group in optimizer.param_groups]
        self._zero = share_out(optimizer, self._parameters, self.root_device)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Step as a precision does it, on the parts."""
        return super().optimizer_step(_Step(self._zero), closure, model, **kwargs)  # type: ignore[arg-type]

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole states, as AdamW of one process keeps them; every process has to call it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        (inner,) = self.optimizers
        own = inner.state.get(inner.param_groups[0]["params"][0], {})  # nothing before the first step
        rows: dict[int, dict[str, Any]] = {}
        for place, parameter in enumerate(self._parameters if own else ()):
            whole = {name: safe_get_full_optimizer_state(parameter, name).cpu().clone() for name in _MOMENTS}
            rows[place] = {"step": torch.as_tensor(own["step"]).cpu().clone(), **whole}
        places, groups = iter(range(len(self._parameters))), []
        for count, group in zip(self._groups, inner.param_groups, strict=True):
            groups.append({**group, "params": [next(places) for _ in range(count)]})
        return {"state": rows, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the own part of whole states."""
        from deepspeed.utils import safe_set_full_optimizer_state

        (inner,), (state,) = self.optimizers, checkpoint["optimizer_states"]
        rows = state["state"]
        for group, saved in zip(inner.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
            for part in group["params"] if rows else ():
                moments = {name: torch.zeros_like(part) for name in _MOMENTS}
                inner.state[part] = {"step": rows[min(rows)]["step"].clone(), **moments}
        if rows:
            self._zero._lazy_init_hp_params_optimizer_state()  # parts of the moments belong to their parameters now
        for place, row in rows.items():
            for name in _MOMENTS:
                safe_set_full_optimizer_state(self._parameters[place], row[name].to(self.root_device), name)


class _Step:
    """Stands for the optimiser while it steps.

    Args:
        zero: DeepSpeed's optimiser.
    """

    def __init__(self, zero: Any) -> None:
        self.zero = zero

    def step(self, closure: Callable[[], Any]) -> Any:
        """Work out the gradients, give each device its part of them, step, and bring the weights together."""
        result = closure()
        self.zero.reduce_gradients()
        self.zero.step()
        self.zero.zero_grad()
        return result


def share_out(optimizer: Optimizer, parameters: list[nn.Parameter], device: torch.device) -> Any:
    """Let DeepSpeed share the states of an optimiser out.

    Args:
        optimizer: Works on this device's part from now on.
        parameters: What it trains, in float32.
        device: Of this process.

    Returns:
        DeepSpeed's optimiser.

    Raises:
        MissingExtraError: DeepSpeed is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError as error:
        raise MissingExtraError("deepspeed", "deepspeed") from error
    deepspeed.init_distributed("nccl" if device.type == "cuda" else "gloo", auto_mpi_discovery=False)
    _, zero, _, _ = deepspeed.initialize(
        model=nn.ParameterList(parameters),
        optimizer=optimizer,
        model_parameters=parameters,
        config=configure(),
        dist_init_required=False,
    )
    return zero


def configure() -> dict[str, Any]:
    """DeepSpeed's configuration: stage 1, and nothing that the modules do themselves."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # wanted, and only used for timings: a batch is a list of cases
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": 0.0,  # done before, over whole gradients
    }


StrategyRegistry.register(
    NAME, ZeroStrategy, description="DDP with optimiser states shared by DeepSpeed", override=True
)
