"""The policy that a model folder was written by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvol.core.bundled import model_folder
from medvol.core.defaults import FOLDER_POLICY
from medvol.core.errors import CheckpointError
from medvol.core.model_folder import ADAPTER_CONFIG, CONFIG
from medvol.core.registry import POLICIES
from medvol.core.roles import TrainablePolicy
from medvol.core.sidecar import SIDECAR, read_sidecar
from medvol.core.specs import SCHEMA, find_component


def find_policy(model: str | Path) -> dict[str, Any]:
    """Spec of the policy that opens a model folder, for ``rebuild``; nothing is loaded.

    The folder may come from anywhere: only a registered policy, or one that is imported already, is taken. It has to be
    one with weights, as others may send scans to a server, and its settings may name no further component.

    Args:
        model: The folder, or the name of a bundled model, which the spec keeps.

    Raises:
        CheckpointError: It is no model folder, a file is not as medvol wrote it, or its policy is not installed.
    """
    folder = model_folder(model)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{str(folder)!r} holds an adapter alone; name its base model too: {FOLDER_POLICY} with model BASE and "
            f"adapter {folder}"
        )
    sidecar = read_sidecar(folder)
    if sidecar is None and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{str(folder)!r} is not a model folder: it has neither {SIDECAR} nor {CONFIG}")
    published = {"schema": SCHEMA, "component": f"{POLICIES.kind}/{FOLDER_POLICY}", "settings": {}}
    spec = (sidecar or {}).get("policy", published)
    place = str(folder / SIDECAR)
    if not issubclass(find_component(spec), TrainablePolicy):
        raise CheckpointError(f"{place!r} names {spec['component']!r}, which is no policy with weights")
    if any(map(_holds_component, spec["settings"].values())):
        raise CheckpointError(f"{place!r} has settings that name a further component; a model folder names one alone")
    return {**spec, "settings": {**spec["settings"], "model": str(model)}}


def _holds_component(setting: Any) -> bool:
    """Whether a component would be built for a setting."""
    if isinstance(setting, Mapping):
        return "component" in setting or any(map(_holds_component, setting.values()))
    return isinstance(setting, list) and any(map(_holds_component, setting))
