"""Volumetric reasoning segmentation: a query about a 3D scan, evidence a person can check, a 3D mask.

Public names load at first use, so ``import medvol`` imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOME = {
    "Case": "medvol.core.types",
    "CaseDataModule": "medvol.core.training.data",
    "CaseDataset": "medvol.core.roles",
    "Completion": "medvol.core.types",
    "DATASETS": "medvol.core.registry",
    "EvaluationModule": "medvol.core.evaluation.module",
    "Evidence": "medvol.core.types",
    "MedvolError": "medvol.core.errors",
    "POLICIES": "medvol.core.registry",
    "PROPAGATORS": "medvol.core.registry",
    "Policy": "medvol.core.roles",
    "Prompt": "medvol.core.types",
    "PromptTemplate": "medvol.core.grounding.prompts",
    "Propagator": "medvol.core.roles",
    "Query": "medvol.core.types",
    "REWARDS": "medvol.core.registry",
    "RewardTerm": "medvol.core.roles",
    "Rollout": "medvol.core.types",
    "SFTModule": "medvol.core.training.sft",
    "Segmentation": "medvol.core.types",
    "Segmenter": "medvol.core.inference.segmenter",
    "TrainablePolicy": "medvol.core.roles",
    "Volume": "medvol.core.types",
    "build_prompt": "medvol.core.grounding.prompts",
    "format_evidence": "medvol.core.grounding.grammar",
    "parse_evidence": "medvol.core.grounding.grammar",
    "read_mask": "medvol.core.imaging.reading",
    "read_volume": "medvol.core.imaging.reading",
    "testing": "medvol.testing",
    "write_mask": "medvol.core.imaging.writing",
}

__version__ = version("medvol-r1")
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medvol' has no attribute {name!r}")
    module = import_module(_HOME[name])
    value = module if name == "testing" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
