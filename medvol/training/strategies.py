"""Sharded training: ``trainer.strategy: fsdp2`` keeps a part of the language model's layers on each device.

Every layer is gathered when it runs and let go afterwards, with FSDP2 of torch; its gradients and optimiser states are
never whole on any device. The layers hold most of a model; all else is small beside them and kept everywhere. While
completions are drawn, which takes as many steps as the longest needs, the layers stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from medvol.core.errors import ConfigError
from medvol.training.zero import NAME, ZeroStrategy


class FSDP2Strategy(ModelParallelStrategy):
    """Shards the layers in a fit; its checkpoints are those of any other strategy, whole and in one file."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: the states are put back here."""
        return True

    def setup_environment(self) -> None:
        """Let all processes share the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Shard before the optimiser is made; a test or a prediction needs whole weights on each device anyway."""
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            shard_layers(_network(self.lightning_module), self.device_mesh["data_parallel"])
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights; every process has to call it."""
        assert self.model is not None, "setup comes first"
        return {name: whole(tensor) for name, tensor in self.model.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole states, as one process keeps them; every process has to call it."""
        state = getattr(optimizer, "optimizer", optimizer).state_dict()
        rows = {place: {name: whole(value) for name, value in row.items()} for place, row in state["state"].items()}
        return {**state, "state": rows}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it whole, in every process."""
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the own part of whole weights."""
        assert self.model is not None, "setup comes first"
        own = self.model.state_dict()
        state = {name: part_of(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.model.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the own part of whole states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            rows = {
                place: {name: part_of(value, parameters[place]) for name, value in row.items()}
                for place, row in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": rows})


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Shards the layers of the language model with FSDP2")


def require_proven(strategy: Strategy, moments: str) -> None:
    """Refuse a strategy that treats gradients in another way than training here expects.

    Args:
        strategy: Of the trainer.
        moments: Where the optimiser keeps them.

    Raises:
        ConfigError: It takes means over the devices, or keeps parts of the weights by rules of its own; or moments are
            kept in a way that it does not know.
    """
    if isinstance(strategy, FSDP2Strategy | ZeroStrategy) and moments != "device":
        name = "fsdp2" if isinstance(strategy, FSDP2Strategy) else NAME
        raise ConfigError(
            f"trainer.strategy is {name} and model.optimizer.moments is {moments}; {name} shares the moments out among "
            "the devices, so leave moments out"
        )
    others = FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy
    if isinstance(strategy, others) and not isinstance(strategy, FSDP2Strategy):
        raise ConfigError(
            f"trainer.strategy is {type(strategy).__name__}, whose gradients are means over the devices, and a batch "
            "whose answers differ in length needs sums; choose ddp, fsdp2 to share the memory of the layers, or "
            f"{NAME} to share that of the optimiser"
        )


def shard_layers(network: nn.Module, mesh: Any) -> list[FSDPModule]:
    """Shard the longest stack of layers, counted in weights; gradients become sums over the devices.

    Raises:
        ConfigError: There is no stack of layers, or the network does not read a volume in one pass.
    """
    if not getattr(network, "packs", True):
        raise ConfigError(
            "trainer.strategy is fsdp2, and this model reads every completion with a prompt of its own, so devices "
            "would wait for one another; choose ddp, or a model whose layers look at all tokens"
        )
    if any(parameter.dtype == torch.uint8 for parameter in network.parameters()):
        raise ConfigError("trainer.strategy is fsdp2, which cannot share out layers of 4 bits; choose ddp")
    stacks = [stack for stack in network.modules() if isinstance(stack, nn.ModuleList) and len(stack) > 1]
    if not stacks:
        raise ConfigError("trainer.strategy is fsdp2, and the policy's network has no stack of layers; choose ddp")
    for layer in max(stacks, key=lambda stack: sum(parameter.numel() for parameter in stack.parameters())):
        fully_shard(layer, mesh=mesh)
    layers = sharded_layers(network)
    for shard in layers:
        shard.set_gradient_divide_factor(1.0)
        shard.set_force_sum_reduction_for_comms(True)
    return layers


def sharded_layers(module: nn.Module | None) -> list[FSDPModule]:
    """Layers of a network that are sharded; none where it lies whole on every device."""
    return [] if module is None else [layer for layer in module.modules() if isinstance(layer, FSDPModule)]


@contextmanager
def whole_layers(module: nn.Module | None) -> Iterator[None]:
    """Keep sharded layers whole, so that devices may run them as often as each needs; all have to enter together."""
    layers = sharded_layers(module)
    for layer in layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.reshard()
            layer.set_reshard_after_forward(True)


def whole(value: Any) -> Any:
    """A sharded tensor as a whole one on the CPU, for which every process has to ask; anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def part_of(value: Any, like: Any) -> Any:
    """The own part of a whole tensor, where ``like`` is sharded and of its shape."""
    if isinstance(like, DTensor) and isinstance(value, torch.Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def _network(module: LightningModule | None) -> nn.Module:
    network = getattr(module, "network", None)
    if not isinstance(network, nn.Module):
        raise ConfigError("trainer.strategy is fsdp2, and the policy has no network to shard; choose ddp")
    return network
