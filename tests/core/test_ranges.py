"""Settings out of range are named with their value."""

import re

import numpy as np
import pytest

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_finite, require_least, require_share, require_whole
from medvol.core.types import Query
from medvol.datasets.deformation import DeformationSettings
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, QuestionSettings
from medvol.engines.vllm import VLLMEngine
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.regions import RegionSettings
from medvol.inference.readings import Reading
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.propagators.feature_cache import FeatureCacheSettings
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.spatial import SpatialReward
from medvol.training.data import CaseDataModule
from medvol.training.settings import (
    AdvantageSettings,
    AnswerSettings,
    GRPOOptimizerSettings,
    LossSettings,
    RolloutSettings,
    StartSettings,
)


def test_what_is_in_range_passes():
    require_least(2, group_size=2, queries=None, weight=2.5)
    require_share(low=0, high=1.0, middle=0.5)


@pytest.mark.parametrize("value", [1, 1.99, -5, float("nan")])
def test_below_the_least(value):
    with pytest.raises(ConfigError, match=f"^group_size is {value}; it must be 2 or more$"):
        require_least(2, seed=7, group_size=value)


@pytest.mark.parametrize("value", [1, 2.0, 2.5, True, "3", -5, float("nan"), [3]])
def test_no_whole_number_from_the_least_on(value):
    require_whole(2, group_size=np.int64(2), queries=None)
    with pytest.raises(ConfigError, match=re.escape(f"group_size is {value!r}; it must be a whole number, 2 or more")):
        require_whole(2, seed=7, group_size=value)


@pytest.mark.parametrize("value", ["3", True, [3], {}])
def test_what_is_no_number_is_in_no_range(value):
    with pytest.raises(ConfigError, match=r"^weight is "):
        require_least(0, weight=value)
    with pytest.raises(ConfigError, match=r"^weight is "):
        require_share(weight=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_outside_a_share(value):
    with pytest.raises(ConfigError, match=f"^reword is {value}; it is a share, from 0 to 1$"):
        require_share(reword=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_without_an_end(value):
    require_finite(margin=0.0, shift=-3)
    with pytest.raises(ConfigError, match=f"^region.margin is {value}; it must be a finite number$"):
        require_finite("region", margin=value)


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "sentence"),
    [
        ("[0, 0.5)", (0, 0.49), (-0.01, 0.5, "0.1", [0.1], True, float("nan")), "0 or more and below 0.5"),
        ("(0, 1]", (1e-9, 1), (0, 1.01, -1, float("nan")), "above 0 and at most 1"),
        ("(0, inf)", (1e-9, 1e300), (0, float("inf"), float("nan")), "above 0 and finite"),
        ("(0, inf]", (1e-9, float("inf")), (0, -1, float("nan"), "inf"), "above 0"),
    ],
)
def test_outside_an_interval(interval, inside, outside, sentence):
    for value in inside:
        require_between(interval, "group", setting=value)
    for value in (*outside, None):
        with pytest.raises(ConfigError) as refused:
            require_between(interval, "group", other=inside[0], setting=value)
        assert str(refused.value) == f"group.setting is {value!r}; it must be {sentence}"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EvaluationSettings(surface="surfel"), "evaluation.surface is 'surfel'; it is one of surfels, voxels"),
        (lambda: EvaluationSettings(lesions="some"), "evaluation.lesions is 'some'"),
        (lambda: EvaluationSettings(anchor_rule="any"), "evaluation.anchor_rule is 'any'"),
        (lambda: EvaluationSettings(tolerance_mm=float("inf")), "evaluation.tolerance_mm is inf"),
        (lambda: AnswerSettings(label_rule="first"), "answers.label_rule is 'first'; it is one of paper, largest, any"),
        (lambda: AnswerSettings(jitter=0.5), "answers.jitter is 0.5"),
        (lambda: AnswerSettings(jitter="a little"), "answers.jitter is 'a little'; it must be 0 or more and below 0.5"),
        (lambda: RolloutSettings(temperature="hot"), "rollouts.temperature is 'hot'; it must be above 0 and finite"),
        (lambda: QuestionSettings(absent_share="half"), "absent_share is 'half'; it must be 0 or more and below 1"),
        (lambda: CacheSettings(gib="all"), "cache.gib is 'all'; it must be above 0"),
        (lambda: PhantomDataset(num_volumes="many"), "num_volumes is 'many'; it must be a whole number, 1 or more"),
        (lambda: DeformationSettings(bend="much"), "deformation.bend is 'much'; it must be 0 or more and finite"),
        (lambda: CentreBoxPolicy("half"), "share is 'half'; it must be above 0 and at most 1"),
        (lambda: VLLMEngine(gpu_share="half"), "engine.gpu_share is 'half'; it must be above 0 and below 1"),
        (lambda: AdvantageSettings(scale="std"), "advantages.scale is 'std'"),
        (lambda: LossSettings(kind="ppo"), "loss.kind is 'ppo'"),
        (lambda: LossSettings(importance="word"), "loss.importance is 'word'"),
        (lambda: LossSettings(beta=float("inf")), "loss.beta is inf"),
        (lambda: StartSettings(max_prompt_tokens=0), "start.max_prompt_tokens is 0"),
        (lambda: GRPOOptimizerSettings(max_grad_norm=0.0), "optimizer.max_grad_norm is 0.0"),
        (lambda: RegionSettings(range_mm=float("inf")), "region.range_mm is inf"),
        (lambda: FeatureCacheSettings(mib=float("inf")), "cache.mib is inf"),
        (lambda: AxialReward(normalise="global"), "normalise is 'global'; it is one of volume, local"),
        (lambda: SpatialReward("nearest"), "boxes_of is 'nearest'; it is one of predicted, labelled"),
        (lambda: SpatialReward(coordinate_step=0), "coordinate_step is 0; it must be one of 1, 2, 4"),
        (lambda: SpatialReward(coordinate_step=60), "coordinate_step is 60; it must be one of 1, 2, 4"),
        (lambda: ConsistencyReward(delta=-1), "delta is -1; it must be a whole number, 0 or more"),
        (lambda: ConsistencyReward(delta=2.0), "delta is 2.0; it must be a whole number, 0 or more"),
        (lambda: AxialReward(delta=True), "delta is True; it must be a whole number, 0 or more"),
        (lambda: CaseDataModule(batch_size=2.5), "batch_size is 2.5; it must be a whole number, 1 or more"),
        (lambda: CaseDataModule(num_workers="2"), "num_workers is '2'; it must be a whole number, 0 or more"),
        (lambda: LossSettings(beta="high"), "loss.beta is 'high'; it must be"),
        (lambda: VLLMEngine(max_sequences=0), "engine.max_sequences is 0"),
        (lambda: PhantomDataset(seed=-1), "seed is -1; it must be a whole number, 0 or more"),
        (lambda: CaseDataModule(seed=-1), "seed is -1; it must be a whole number, 0 or more"),
        (lambda: Query("the liver", kind="abscent"), "query.kind is 'abscent'; it is one of implicit, explicit"),
        (lambda: Query("the liver", modality="ct"), "query.modality is 'ct'; it is one of CT, MR, other"),
        (lambda: NiftiDataset("scans", modality="ct"), "modality is 'ct'; it is one of CT, MR, other"),
        (lambda: NiftiDataset("scans", modalities=["CT", "mr"]), "modalities is 'mr'; it is one of CT, MR, other"),
        (lambda: Reading("right"), "reading.verdict is 'right'; it is one of accepted, corrected, rejected"),
        (
            lambda: VisionLanguagePolicy("model", lora_rank=1, feature_memory_gb=float("inf")),
            "feature_memory_gb is inf; it must be 0 or more and finite",
        ),
    ],
)
def test_settings_that_a_notebook_can_hold_and_nothing_can_use(make, sentence):
    with pytest.raises(ConfigError) as refused:
        make()
    assert str(refused.value).startswith(sentence)


def test_a_setting_of_a_group_is_named_with_its_whole_key():
    with pytest.raises(ConfigError, match=r"^loss\.beta is -1; it must be 0 or more$"):
        require_least(0, "loss", beta=-1)
    with pytest.raises(ConfigError, match=r"^optimizer\.final_share is 2; it is a share, from 0 to 1$"):
        require_share("optimizer", final_share=2)
