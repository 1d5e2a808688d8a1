"""Devices on which torch computes, by name."""

from __future__ import annotations

import re

from medvol.core.errors import ConfigError

AUTO = "auto"
"""An NVIDIA GPU where there is one, else the CPU."""

_NAME = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?", re.ASCII)


def require_device(device: object) -> str:
    """The name of a device, without looking whether there is one.

    Raises:
        ConfigError: It is no such name.
    """
    if not isinstance(device, str) or _NAME.fullmatch(device) is None:
        raise ConfigError(f"device is {device!r}; choose auto, cpu, cuda, cuda:1 (the second GPU), mps or xpu")
    return device


def find_device(device: str) -> str:
    """What torch calls a device: ``auto`` is found out, any other name stays."""
    if device != AUTO:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
