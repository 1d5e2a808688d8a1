"""Optimiser states shared out by DeepSpeed: its configuration by its own parser, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.training.strategies import require_proven
from medvol.training.zero import NAME, ZeroStrategy, configure, share_out


def test_the_name_in_yaml_means_ours():
    strategy = StrategyRegistry.get(NAME)
    assert type(strategy) is ZeroStrategy
    assert isinstance(strategy, DDPStrategy)
    require_proven(strategy, "device")


def test_deepspeed_reads_the_configuration_as_it_was_meant(monkeypatch):
    deepspeed = pytest.importorskip("deepspeed", reason="needs the extra deepspeed")
    monkeypatch.setenv("WORLD_SIZE", "1")
    found = deepspeed.DeepSpeedConfig(configure())
    assert found.zero_optimization_stage == 1
    assert found.gradient_clipping == 0.0  # its own default clips to a norm of 1
    assert found.gradient_accumulation_steps == 1
    assert found.zero_allow_untested_optimizer
    assert not found.float16_config.enabled
    assert not found.bfloat16_config.enabled


def test_other_stages_are_refused_with_what_to_choose():
    pytest.importorskip("deepspeed", reason="needs the extra deepspeed")
    with pytest.raises(ConfigError, match=r"DeepSpeedStrategy, whose gradients are means.* or deepspeed_stage_1"):
        require_proven(StrategyRegistry.get("deepspeed_stage_2"), "device")


def test_moments_elsewhere_are_refused():
    with pytest.raises(ConfigError, match=r"deepspeed_stage_1 and model.optimizer.moments is 8bit"):
        require_proven(ZeroStrategy(), "8bit")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[deepspeed\]"'):
        share_out(torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]), [], torch.device("cpu"))


def test_clipping_by_value_is_refused():
    with pytest.raises(ConfigError, match="gradient_clip_algorithm is value"):
        ZeroStrategy().setup_optimizers(SimpleNamespace(gradient_clip_algorithm="value"))
