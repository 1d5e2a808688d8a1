"""A network with NaN or infinite weights is refused where it is loaded, whatever file it lies in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medvol.core.errors import CheckpointError
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.propagators.sam2_family.medsam2_weights import read_upstream
from medvol.weights.model_loading import require_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_policy(tmp_path, value):
    policy = TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48))
    name, weight = list(policy.load_for_training().named_parameters())[7]
    with torch.no_grad():
        weight.view(-1)[weight.numel() // 2] = value
    policy.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"holds NaN or infinite values.*earlier checkpoint") as found:
        VisionLanguagePolicy(str(tmp_path / "model")).load()
    assert name.split(".")[-2] in str(found.value)


def test_an_upstream_checkpoint(tmp_path):
    torch.save({"model": {"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}}, tmp_path / "sam.pt")
    with pytest.raises(CheckpointError, match=r"weight 'b' in .*sam\.pt.* holds NaN"):
        read_upstream(tmp_path / "sam.pt")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_kind_of_number(kind):
    large = torch.full((4, 5), torch.finfo(kind).max, dtype=kind)
    counts, empty = torch.arange(5), torch.zeros(0, dtype=kind)
    require_finite([("large", large), ("counts", counts), ("empty", empty)], Path("a"))
    large[3, 2] = float("nan")
    with pytest.raises(CheckpointError, match="'large'"):
        require_finite([("large", large)], Path("a"))
