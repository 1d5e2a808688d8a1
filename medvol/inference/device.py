"""Where the network of a policy computes while it answers."""

from __future__ import annotations

from medvol.core.containment import say
from medvol.core.devices import AUTO, find_device
from medvol.core.errors import ConfigError
from medvol.core.roles import Policy, TrainablePolicy


def bring_to(device: str, policy: Policy) -> None:
    """Let a policy compute on a device; one without a network of its own, such as a served one, stays as it is.

    Args:
        device: As ``require_device`` takes it. With ``auto``, a network that is on another device than the CPU stays.
        policy: Its network is loaded.

    Raises:
        ConfigError: The device cannot be used, or its memory is too small.
    """
    if not isinstance(policy, TrainablePolicy):
        return
    network = policy.load()
    if device == AUTO and any(tensor.device.type != "cpu" for tensor in network.parameters()):
        return
    place = find_device(device)
    try:
        network.to(place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch says it in each of these ways
        raise ConfigError(
            f"{type(policy).__name__} cannot compute on the device {place!r} ({say(error)}); choose another one, such "
            "as cpu"
        ) from error
