"""Volumetric reasoning segmentation: a query about a 3D scan, evidence a person can check, a 3D mask.

Public names load at first use, so ``import medvol`` imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvol import testing as testing
    from medvol.core.errors import CheckpointError as CheckpointError
    from medvol.core.errors import ComponentImportError as ComponentImportError
    from medvol.core.errors import ConfigError as ConfigError
    from medvol.core.errors import DatasetError as DatasetError
    from medvol.core.errors import DuplicateComponentError as DuplicateComponentError
    from medvol.core.errors import EvidenceParseError as EvidenceParseError
    from medvol.core.errors import GeometryError as GeometryError
    from medvol.core.errors import InvalidComponentError as InvalidComponentError
    from medvol.core.errors import MedvolError as MedvolError
    from medvol.core.errors import MissingExtraError as MissingExtraError
    from medvol.core.errors import PropagationError as PropagationError
    from medvol.core.errors import QueryError as QueryError
    from medvol.core.errors import RecordError as RecordError
    from medvol.core.errors import RewardError as RewardError
    from medvol.core.errors import ScanError as ScanError
    from medvol.core.errors import UnknownComponentError as UnknownComponentError
    from medvol.core.errors import UntrustedAnswerError as UntrustedAnswerError
    from medvol.core.evaluation.module import EvaluationModule as EvaluationModule
    from medvol.core.evaluation.scoring import follow_completion as follow_completion
    from medvol.core.grounding.anchors import label_anchor as label_anchor
    from medvol.core.grounding.grammar import format_evidence as format_evidence
    from medvol.core.grounding.grammar import parse_evidence as parse_evidence
    from medvol.core.grounding.prompts import PromptTemplate as PromptTemplate
    from medvol.core.grounding.prompts import build_prompt as build_prompt
    from medvol.core.imaging.folders import find_scans as find_scans
    from medvol.core.imaging.reading import read_mask as read_mask
    from medvol.core.imaging.reading import read_volume as read_volume
    from medvol.core.imaging.slice_cache import SliceCache as SliceCache
    from medvol.core.imaging.writing import write_mask as write_mask
    from medvol.core.inference.segmenter import Segmenter as Segmenter
    from medvol.core.registry import DATASETS as DATASETS
    from medvol.core.registry import POLICIES as POLICIES
    from medvol.core.registry import PROPAGATORS as PROPAGATORS
    from medvol.core.registry import REWARDS as REWARDS
    from medvol.core.roles import CaseDataset as CaseDataset
    from medvol.core.roles import Policy as Policy
    from medvol.core.roles import Propagator as Propagator
    from medvol.core.roles import RewardTerm as RewardTerm
    from medvol.core.roles import TrainablePolicy as TrainablePolicy
    from medvol.core.training.checkpoint import SpecCheckpoint as SpecCheckpoint
    from medvol.core.training.data import CaseDataModule as CaseDataModule
    from medvol.core.training.grpo import GRPOModule as GRPOModule
    from medvol.core.training.score import score as score
    from medvol.core.training.sft import SFTModule as SFTModule
    from medvol.core.training.trl_reward import as_trl_reward as as_trl_reward
    from medvol.core.types import Case as Case
    from medvol.core.types import Completion as Completion
    from medvol.core.types import Evidence as Evidence
    from medvol.core.types import Prompt as Prompt
    from medvol.core.types import Query as Query
    from medvol.core.types import Rollout as Rollout
    from medvol.core.types import Sampling as Sampling
    from medvol.core.types import Segmentation as Segmentation
    from medvol.core.types import Volume as Volume

_HOME = {
    "Case": "medvol.core.types",
    "CaseDataModule": "medvol.core.training.data",
    "CaseDataset": "medvol.core.roles",
    "CheckpointError": "medvol.core.errors",
    "Completion": "medvol.core.types",
    "ComponentImportError": "medvol.core.errors",
    "ConfigError": "medvol.core.errors",
    "DATASETS": "medvol.core.registry",
    "DatasetError": "medvol.core.errors",
    "DuplicateComponentError": "medvol.core.errors",
    "EvaluationModule": "medvol.core.evaluation.module",
    "Evidence": "medvol.core.types",
    "EvidenceParseError": "medvol.core.errors",
    "GRPOModule": "medvol.core.training.grpo",
    "GeometryError": "medvol.core.errors",
    "InvalidComponentError": "medvol.core.errors",
    "MedvolError": "medvol.core.errors",
    "MissingExtraError": "medvol.core.errors",
    "POLICIES": "medvol.core.registry",
    "PROPAGATORS": "medvol.core.registry",
    "Policy": "medvol.core.roles",
    "Prompt": "medvol.core.types",
    "PromptTemplate": "medvol.core.grounding.prompts",
    "PropagationError": "medvol.core.errors",
    "Propagator": "medvol.core.roles",
    "Query": "medvol.core.types",
    "QueryError": "medvol.core.errors",
    "REWARDS": "medvol.core.registry",
    "RecordError": "medvol.core.errors",
    "RewardError": "medvol.core.errors",
    "RewardTerm": "medvol.core.roles",
    "Rollout": "medvol.core.types",
    "SFTModule": "medvol.core.training.sft",
    "Sampling": "medvol.core.types",
    "ScanError": "medvol.core.errors",
    "Segmentation": "medvol.core.types",
    "Segmenter": "medvol.core.inference.segmenter",
    "SliceCache": "medvol.core.imaging.slice_cache",
    "SpecCheckpoint": "medvol.core.training.checkpoint",
    "TrainablePolicy": "medvol.core.roles",
    "UnknownComponentError": "medvol.core.errors",
    "UntrustedAnswerError": "medvol.core.errors",
    "Volume": "medvol.core.types",
    "as_trl_reward": "medvol.core.training.trl_reward",
    "build_prompt": "medvol.core.grounding.prompts",
    "find_scans": "medvol.core.imaging.folders",
    "follow_completion": "medvol.core.evaluation.scoring",
    "format_evidence": "medvol.core.grounding.grammar",
    "label_anchor": "medvol.core.grounding.anchors",
    "parse_evidence": "medvol.core.grounding.grammar",
    "read_mask": "medvol.core.imaging.reading",
    "read_volume": "medvol.core.imaging.reading",
    "score": "medvol.core.training.score",
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
