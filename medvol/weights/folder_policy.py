"""The policy that a model folder was written by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medvol.core.bundled import model_folder
from medvol.core.defaults import FOLDER_POLICY
from medvol.core.errors import CheckpointError
from medvol.core.model_folder import ADAPTER_CONFIG, CONFIG
from medvol.core.registry import POLICIES
from medvol.core.sidecar import SIDECAR, read_sidecar
from medvol.core.specs import SCHEMA, find_component


def find_policy(model: str | Path) -> dict[str, Any]:
    """Spec of the policy that opens a model folder, for ``rebuild``; nothing is loaded.

    The folder may come from anywhere: only a registered policy, or one that is imported already, is taken.

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
    if getattr(find_component(spec), "component_kind", "") != POLICIES.kind:
        raise CheckpointError(f"{str(folder / SIDECAR)!r} names {spec['component']!r}, which is no policy")
    return {**spec, "settings": {**spec["settings"], "model": str(model)}}
