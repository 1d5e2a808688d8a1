"""Volumes, prompts and random weights of the SAM 2 family that the propagators' tests share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_sam2 import SMALL_SIZE, small_config

from medvol.core.types import Evidence, Volume
from medvol.propagators.sam2_family.medsam2_conversion import convert_state, video_config
from medvol.propagators.sam2_family.medsam2_weights import build_model, save_folder

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"
SMALL_OVERRIDES = (
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,1,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
)
"""What makes upstream's package build the network of ``small_config``."""


@pytest.fixture(scope="session")
def noisy_volume():
    """Nine slices far from square, with structure at several scales."""
    rng = np.random.default_rng(7)
    z, y, x = np.mgrid[:9, :60, :76]
    shapes = 80 * np.sin(x / 7 + z / 3) + 60 * np.cos(y / 5 - z / 4)
    voxels = (40 + shapes + rng.normal(0, 25, shapes.shape)).astype(np.float32)
    return Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0]), "CT", "noisy")


@pytest.fixture(scope="session")
def eight_prompts():
    """First and last slice, border and whole slice, one box and several."""
    boxes = [
        (0, [(5, 6, 30, 40)]),
        (8, [(20, 10, 70, 50)]),
        (4, [(0, 0, 12, 60), (40, 20, 76, 60)]),
        (3, [(30, 5, 60, 25)]),
        (5, [(0, 0, 76, 60)]),
        (4, [(10.5, 8.25, 33.75, 30.5)]),
        (1, [(50, 2, 75, 20), (5, 30, 25, 58), (30, 30, 45, 45)]),
        (7, [(2, 40, 20, 59)]),
    ]
    return [Evidence(key, np.array(corners, np.float64)) for key, corners in boxes]


def lively_predictor(size=SMALL_SIZE, overrides=SMALL_OVERRIDES, seed=0):
    """A predictor whose random weights were turned up where fresh ones say nothing."""
    from medvol.propagators.sam2_family.sam2_network import SAM2Predictor

    torch.manual_seed(seed)
    predictor = SAM2Predictor(TINY, size, overrides)
    with torch.no_grad():
        for name, parameter in predictor.model.named_parameters():
            if parameter.abs().max() == 0 or name.endswith("gamma"):
                parameter.normal_(0, 0.3)
            elif ("cross_attn_image" in name or "obj_ptr" in name or "maskmem" in name) and parameter.ndim > 1:
                parameter.mul_(3)
            elif "mask_downs" in name or "output_hypernetworks" in name or "mask_decoder.conv_s" in name:
                parameter.mul_(1.5)
        # Fresh weights say of every slice that the target is absent.
        predictor.model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(0.5)
    return predictor


def write_weights(predictor, config, place):
    """Upstream's file and the converted folder of the same weights."""
    state = predictor.model.state_dict()
    checkpoint, folder = place / "weights.pt", place / "converted"
    torch.save({"model": state}, checkpoint)
    save_folder(build_model(config, convert_state(state)), folder, {"source": "random"})
    return SimpleNamespace(checkpoint=str(checkpoint), folder=str(folder), state=state)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory):
    """Random weights of a small tracker, with the settings that make the package read them."""
    pytest.importorskip("sam2", reason="the extra sam2 is not installed")
    weights = write_weights(lively_predictor(seed=1), small_config(), tmp_path_factory.mktemp("small"))
    weights.package = {"config": TINY, "overrides": SMALL_OVERRIDES, "image_size": SMALL_SIZE}
    return weights


@pytest.fixture
def t512_weights(tmp_path):
    """Random weights of the configuration of MedSAM2."""
    pytest.importorskip("sam2", reason="the extra sam2 is not installed")
    return write_weights(lively_predictor(512, (), seed=1), video_config("tiny", 512), tmp_path)
