"""The public names, pinned: a change here is a change of the interface."""

import ast
from pathlib import Path

import pytest

import medvol

PUBLIC = [
    "AdvantageSettings",
    "AnswerSettings",
    "AppearanceSettings",
    "CacheSettings",
    "Case",
    "CaseDataModule",
    "CaseDataset",
    "CheckpointError",
    "Completion",
    "ComponentImportError",
    "ConfigError",
    "CurriculumSettings",
    "DATASETS",
    "DatasetError",
    "DeformationSettings",
    "DuplicateComponentError",
    "ENGINES",
    "EngineError",
    "EvaluationModule",
    "EvaluationSettings",
    "Evidence",
    "EvidenceParseError",
    "GRPOModule",
    "GRPOOptimizerSettings",
    "GazeSettings",
    "GeometryError",
    "InvalidComponentError",
    "LabelledCase",
    "Look",
    "LossSettings",
    "MedvolError",
    "MissingExtraError",
    "OccupancySettings",
    "OptimizerSettings",
    "POLICIES",
    "PROBLEMS",
    "PROPAGATORS",
    "PatientSettings",
    "PerceptionSettings",
    "PhrasingSettings",
    "Policy",
    "Prompt",
    "PromptTemplate",
    "PropagationError",
    "Propagator",
    "Query",
    "QueryError",
    "QuestionSettings",
    "REWARDS",
    "RecordError",
    "Region",
    "RegionSettings",
    "RejectionModule",
    "RequestSettings",
    "RewardAudit",
    "RewardError",
    "RewardTerm",
    "Rollout",
    "RolloutEngine",
    "RolloutSettings",
    "SFTModule",
    "Sampling",
    "ScanError",
    "ScratchModule",
    "ScratchPolicy",
    "Segmentation",
    "Segmenter",
    "ServedForm",
    "SliceCache",
    "SliceFeatures",
    "SpecCheckpoint",
    "StartSettings",
    "TrainablePolicy",
    "UnknownComponentError",
    "UntrustedAnswerError",
    "VLMNetwork",
    "Volume",
    "WeightsConverter",
    "__version__",
    "as_trl_reward",
    "audit_rewards",
    "build_prompt",
    "find_scans",
    "format_evidence",
    "label_anchor",
    "parse_evidence",
    "read_mask",
    "read_volume",
    "score",
    "testing",
    "write_answer_page",
    "write_mask",
    "write_volume",
]


def test_all_is_pinned_and_sorted() -> None:
    assert medvol.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    assert dir(medvol) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(medvol, name) is not None


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'medvol' has no attribute 'Segmentor'"):
        medvol.Segmentor  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING name what the lazy table names, from the same modules."""
    tree = ast.parse(Path(medvol.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}" if node.module == "medvol" else node.module
        for node in imports
        for alias in node.names
    }
    assert seen == medvol._HOME
