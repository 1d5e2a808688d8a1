"""Models that take the place of a policy's name in YAML: ``policy: runs/quickstart/model``, ``policy: box:base``."""

from __future__ import annotations

from typing import Any

from medvol.core.box import is_model
from medvol.weights.folder_policy import find_policy

_KEY = "policy"


def name_policies(value: Any) -> Any:
    """Write every folder under a key ``policy`` as the policy that wrote it, with the settings that open it.

    Args:
        value: What a YAML text holds; the rest of it is given back as it is.

    Raises:
        CheckpointError: A folder is no model folder, or its policy is not installed.
    """
    if isinstance(value, list):
        return [name_policies(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _name(item) if key == _KEY else name_policies(item) for key, item in value.items()}


def _name(value: Any) -> Any:
    if not (isinstance(value, str) and is_model(value)):
        return name_policies(value)
    spec = find_policy(value)
    return {"class_path": spec["component"].rpartition("/")[2], "init_args": spec["settings"]}
