"""Where the network of a policy computes while it answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medvol.core.containment import say
from medvol.core.errors import ConfigError
from medvol.core.roles import Policy, TrainablePolicy

if TYPE_CHECKING:
    import torch

AUTO = "auto"
"""An NVIDIA GPU where there is one. A network that is on another device than the CPU stays there."""

_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?", re.ASCII)


def require_device(device: object) -> str:
    """The name of a device, without looking whether there is one.

    Raises:
        ConfigError: It is no such name.
    """
    if not isinstance(device, str) or _DEVICE.fullmatch(device) is None:
        raise ConfigError(f"device is {device!r}; choose auto, cpu, cuda, cuda:1 (the second GPU), mps or xpu")
    return device


def bring_to(device: str, policy: Policy) -> None:
    """Let a policy compute on a device; one without a network of its own, such as a served one, stays as it is.

    Args:
        device: As ``require_device`` takes it.
        policy: Its network is loaded.

    Raises:
        ConfigError: The device cannot be used, or its memory is too small.
    """
    if not isinstance(policy, TrainablePolicy):
        return
    network = policy.load()
    if device == AUTO:
        device = _find_gpu(network)
    try:
        network.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch says it in each of these ways
        raise ConfigError(
            f"{type(policy).__name__} cannot compute on the device {device!r} ({say(error)}); choose another one, such "
            "as cpu"
        ) from error


def _find_gpu(network: torch.nn.Module) -> str:
    """Where a network goes that nobody sent anywhere."""
    import torch

    here = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    if here.type != "cpu":
        return str(here)
    return "cuda" if torch.cuda.is_available() else "cpu"
