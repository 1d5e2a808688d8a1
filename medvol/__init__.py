"""Volumetric reasoning segmentation: a query about a 3D scan, evidence a person can check, a 3D mask.

Public names load at first use, so ``import medvol`` imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvol import testing as testing
    from medvol.auditing.audit import audit_rewards as audit_rewards
    from medvol.auditing.ranks import RewardAudit as RewardAudit
    from medvol.checking.catalogue import PROBLEMS as PROBLEMS
    from medvol.core.errors import CheckpointError as CheckpointError
    from medvol.core.errors import ComponentImportError as ComponentImportError
    from medvol.core.errors import ConfigError as ConfigError
    from medvol.core.errors import DatasetError as DatasetError
    from medvol.core.errors import DuplicateComponentError as DuplicateComponentError
    from medvol.core.errors import EngineError as EngineError
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
    from medvol.core.looks import Look as Look
    from medvol.core.looks import Region as Region
    from medvol.core.prompts import Prompt as Prompt
    from medvol.core.prompts import PromptTemplate as PromptTemplate
    from medvol.core.registry import DATASETS as DATASETS
    from medvol.core.registry import ENGINES as ENGINES
    from medvol.core.registry import POLICIES as POLICIES
    from medvol.core.registry import PROPAGATORS as PROPAGATORS
    from medvol.core.registry import REWARDS as REWARDS
    from medvol.core.roles import CaseDataset as CaseDataset
    from medvol.core.roles import Policy as Policy
    from medvol.core.roles import Propagator as Propagator
    from medvol.core.roles import RewardTerm as RewardTerm
    from medvol.core.roles import RolloutEngine as RolloutEngine
    from medvol.core.roles import TrainablePolicy as TrainablePolicy
    from medvol.core.served_form import ServedForm as ServedForm
    from medvol.core.types import Case as Case
    from medvol.core.types import Completion as Completion
    from medvol.core.types import Evidence as Evidence
    from medvol.core.types import Query as Query
    from medvol.core.types import Rollout as Rollout
    from medvol.core.types import Sampling as Sampling
    from medvol.core.types import Volume as Volume
    from medvol.core.weights_converter import WeightsConverter as WeightsConverter
    from medvol.datasets.appearance import AppearanceSettings as AppearanceSettings
    from medvol.datasets.deformation import DeformationSettings as DeformationSettings
    from medvol.datasets.labelled_case import LabelledCase as LabelledCase
    from medvol.datasets.settings import CacheSettings as CacheSettings
    from medvol.datasets.settings import PatientSettings as PatientSettings
    from medvol.datasets.settings import PhrasingSettings as PhrasingSettings
    from medvol.datasets.settings import QuestionSettings as QuestionSettings
    from medvol.evaluation.module import EvaluationModule as EvaluationModule
    from medvol.evaluation.settings import EvaluationSettings as EvaluationSettings
    from medvol.grounding.anchors import label_anchor as label_anchor
    from medvol.grounding.grammar import format_evidence as format_evidence
    from medvol.grounding.grammar import parse_evidence as parse_evidence
    from medvol.grounding.prompts import build_prompt as build_prompt
    from medvol.grounding.regions import RegionSettings as RegionSettings
    from medvol.imaging.cache.slice_cache import SliceCache as SliceCache
    from medvol.imaging.folders import find_scans as find_scans
    from medvol.imaging.reading import read_mask as read_mask
    from medvol.imaging.reading import read_volume as read_volume
    from medvol.imaging.writing import write_mask as write_mask
    from medvol.imaging.writing import write_volume as write_volume
    from medvol.inference.batch_page import write_answer_page as write_answer_page
    from medvol.inference.segmentation import Segmentation as Segmentation
    from medvol.inference.segmenter import Segmenter as Segmenter
    from medvol.policies.endpoint_parts.settings import RequestSettings as RequestSettings
    from medvol.policies.scratch import ScratchPolicy as ScratchPolicy
    from medvol.policies.vlm.network import VLMNetwork as VLMNetwork
    from medvol.policies.vlm.slice_features import SliceFeatures as SliceFeatures
    from medvol.training.checkpoint import SpecCheckpoint as SpecCheckpoint
    from medvol.training.data import CaseDataModule as CaseDataModule
    from medvol.training.grpo import GRPOModule as GRPOModule
    from medvol.training.rejection import RejectionModule as RejectionModule
    from medvol.training.score import score as score
    from medvol.training.scratch.module import ScratchModule as ScratchModule
    from medvol.training.scratch.settings import CurriculumSettings as CurriculumSettings
    from medvol.training.scratch.settings import GazeSettings as GazeSettings
    from medvol.training.scratch.settings import OccupancySettings as OccupancySettings
    from medvol.training.scratch.settings import PerceptionSettings as PerceptionSettings
    from medvol.training.settings import AdvantageSettings as AdvantageSettings
    from medvol.training.settings import AnswerSettings as AnswerSettings
    from medvol.training.settings import GRPOOptimizerSettings as GRPOOptimizerSettings
    from medvol.training.settings import LossSettings as LossSettings
    from medvol.training.settings import OptimizerSettings as OptimizerSettings
    from medvol.training.settings import RolloutSettings as RolloutSettings
    from medvol.training.settings import StartSettings as StartSettings
    from medvol.training.sft import SFTModule as SFTModule
    from medvol.training.trl_reward import as_trl_reward as as_trl_reward

_HOME = {
    "AdvantageSettings": "medvol.training.settings",
    "AnswerSettings": "medvol.training.settings",
    "AppearanceSettings": "medvol.datasets.appearance",
    "CacheSettings": "medvol.datasets.settings",
    "Case": "medvol.core.types",
    "CaseDataModule": "medvol.training.data",
    "CaseDataset": "medvol.core.roles",
    "CheckpointError": "medvol.core.errors",
    "Completion": "medvol.core.types",
    "ComponentImportError": "medvol.core.errors",
    "ConfigError": "medvol.core.errors",
    "CurriculumSettings": "medvol.training.scratch.settings",
    "DATASETS": "medvol.core.registry",
    "DatasetError": "medvol.core.errors",
    "DeformationSettings": "medvol.datasets.deformation",
    "DuplicateComponentError": "medvol.core.errors",
    "ENGINES": "medvol.core.registry",
    "EngineError": "medvol.core.errors",
    "EvaluationModule": "medvol.evaluation.module",
    "EvaluationSettings": "medvol.evaluation.settings",
    "Evidence": "medvol.core.types",
    "EvidenceParseError": "medvol.core.errors",
    "GRPOModule": "medvol.training.grpo",
    "GRPOOptimizerSettings": "medvol.training.settings",
    "GazeSettings": "medvol.training.scratch.settings",
    "GeometryError": "medvol.core.errors",
    "InvalidComponentError": "medvol.core.errors",
    "LabelledCase": "medvol.datasets.labelled_case",
    "Look": "medvol.core.looks",
    "LossSettings": "medvol.training.settings",
    "MedvolError": "medvol.core.errors",
    "MissingExtraError": "medvol.core.errors",
    "OccupancySettings": "medvol.training.scratch.settings",
    "OptimizerSettings": "medvol.training.settings",
    "POLICIES": "medvol.core.registry",
    "PROBLEMS": "medvol.checking.catalogue",
    "PROPAGATORS": "medvol.core.registry",
    "PatientSettings": "medvol.datasets.settings",
    "PerceptionSettings": "medvol.training.scratch.settings",
    "PhrasingSettings": "medvol.datasets.settings",
    "Policy": "medvol.core.roles",
    "Prompt": "medvol.core.prompts",
    "PromptTemplate": "medvol.core.prompts",
    "PropagationError": "medvol.core.errors",
    "Propagator": "medvol.core.roles",
    "Query": "medvol.core.types",
    "QueryError": "medvol.core.errors",
    "QuestionSettings": "medvol.datasets.settings",
    "REWARDS": "medvol.core.registry",
    "RecordError": "medvol.core.errors",
    "Region": "medvol.core.looks",
    "RegionSettings": "medvol.grounding.regions",
    "RejectionModule": "medvol.training.rejection",
    "RequestSettings": "medvol.policies.endpoint_parts.settings",
    "RewardAudit": "medvol.auditing.ranks",
    "RewardError": "medvol.core.errors",
    "RewardTerm": "medvol.core.roles",
    "Rollout": "medvol.core.types",
    "RolloutEngine": "medvol.core.roles",
    "RolloutSettings": "medvol.training.settings",
    "SFTModule": "medvol.training.sft",
    "Sampling": "medvol.core.types",
    "ScanError": "medvol.core.errors",
    "ScratchModule": "medvol.training.scratch.module",
    "ScratchPolicy": "medvol.policies.scratch",
    "Segmentation": "medvol.inference.segmentation",
    "Segmenter": "medvol.inference.segmenter",
    "ServedForm": "medvol.core.served_form",
    "SliceCache": "medvol.imaging.cache.slice_cache",
    "SliceFeatures": "medvol.policies.vlm.slice_features",
    "SpecCheckpoint": "medvol.training.checkpoint",
    "StartSettings": "medvol.training.settings",
    "TrainablePolicy": "medvol.core.roles",
    "UnknownComponentError": "medvol.core.errors",
    "UntrustedAnswerError": "medvol.core.errors",
    "VLMNetwork": "medvol.policies.vlm.network",
    "Volume": "medvol.core.types",
    "WeightsConverter": "medvol.core.weights_converter",
    "as_trl_reward": "medvol.training.trl_reward",
    "audit_rewards": "medvol.auditing.audit",
    "build_prompt": "medvol.grounding.prompts",
    "find_scans": "medvol.imaging.folders",
    "format_evidence": "medvol.grounding.grammar",
    "label_anchor": "medvol.grounding.anchors",
    "parse_evidence": "medvol.grounding.grammar",
    "read_mask": "medvol.imaging.reading",
    "read_volume": "medvol.imaging.reading",
    "score": "medvol.training.score",
    "testing": "medvol.testing",
    "write_answer_page": "medvol.inference.batch_page",
    "write_mask": "medvol.imaging.writing",
    "write_volume": "medvol.imaging.writing",
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
