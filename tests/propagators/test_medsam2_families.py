"""The same class runs every tracker of transformers with these parts; each is held to the library's own session."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agreement import keep_memories_whole, require_agreement
from transformers import Sam2VideoInferenceSession, Sam3TrackerVideoInferenceSession

from medvol.core.types import Evidence
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2_family.medsam2_network import TrackerNetwork
from medvol.propagators.sam2_family.medsam2_tracks import TrackFollower
from medvol.propagators.sam2_family.medsam2_weights import save_folder
from medvol.propagators.sam2_family.square_slices import SquareSlices
from medvol.propagators.sam2_family.track_plan import TrackPlan, wanted_tracks

SOFT = "soft_tissue"
EVIDENCE = Evidence(3, np.array([[12.0, 10, 50, 44]]))


@pytest.fixture(scope="module")
def sam3_folder(tmp_path_factory):
    """A SAM 3 tracker with a ViT of two blocks at 112 pixels, random."""
    from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel, Sam3VisionConfig, Sam3ViTConfig
    from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import (
        Sam3TrackerVideoMaskDecoderConfig,
        Sam3TrackerVideoPromptEncoderConfig,
    )

    torch.manual_seed(0)
    backbone = Sam3ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
        window_size=4,
        global_attn_indexes=[1],
        pretrain_image_size=112,
    )
    sides = [[32, 32], [16, 16], [8, 8]]
    config = Sam3TrackerVideoConfig(
        image_size=112,
        vision_config=Sam3VisionConfig(backbone_config=backbone, backbone_feature_sizes=sides),
        prompt_encoder_config=Sam3TrackerVideoPromptEncoderConfig(image_size=112),
        mask_decoder_config=Sam3TrackerVideoMaskDecoderConfig(),
        memory_attention_rope_feat_sizes=[8, 8],
    )
    model = Sam3TrackerVideoModel(config)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1.0)
        for name, parameter in model.named_parameters():
            if "cross_attn" in name or "mask_decoder" in name:
                parameter.mul_(2)
    folder = tmp_path_factory.mktemp("sam3") / "model"
    save_folder(model, folder, {"source": "random"})
    return str(folder)


def library_logits(session_class, network: TrackerNetwork, slices: SquareSlices, reverse: bool):
    """Logits (Y, X) of the box on every slice of one direction, by the library's session."""
    grey = torch.from_numpy(np.stack([slices.pixels(z) for z in range(slices.shape[0])]).astype(np.float32)) / 255
    video = (grey[:, None] - network._mean) / network._std
    session = session_class(video, slices.shape[1], slices.shape[2], dtype=torch.float32)
    corners = torch.from_numpy(slices.place_box(EVIDENCE.boxes[0])).float().reshape(1, 1, 2, 2)
    labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
    session.add_point_inputs(
        session.obj_id_to_idx(1), EVIDENCE.key_slice, {"point_coords": corners, "point_labels": labels}
    )
    session.obj_with_new_inputs = [1]
    network.model(session, frame_idx=EVIDENCE.key_slice)
    found = network.model.propagate_in_video_iterator(session, EVIDENCE.key_slice, reverse=reverse)
    return {
        output.frame_idx: F.interpolate(output.pred_masks, slices.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        for output in found
    }


@pytest.mark.parametrize(
    ("weights", "session"),
    [("random_folder", Sam2VideoInferenceSession), ("sam3_folder", Sam3TrackerVideoInferenceSession)],
)
def test_box_tracks_are_those_of_the_library(weights, session, noisy_volume, request, monkeypatch):
    propagator = MedSAM2Propagator(request.getfixturevalue(weights), prompt="box", window=SOFT)
    keep_memories_whole(monkeypatch)
    network = propagator._network
    anchor = TrackPlan(SOFT, True, 0).anchor(noisy_volume, EVIDENCE, None)
    seeds = propagator._seeds(noisy_volume, wanted_tracks([anchor]))
    found = {z: logits for _, z, logits in TrackFollower(network, False, 1).logits(seeds)}
    slices = SquareSlices(noisy_volume, SOFT, network.size)
    expected = library_logits(session, network, slices, False) | library_logits(session, network, slices, True)
    assert sorted(found) == list(range(9))
    require_agreement(found, expected)


def test_a_sam3_tracker_takes_masks_too(sam3_folder, noisy_volume):
    mask = MedSAM2Propagator(sam3_folder, window=SOFT).propagate(noisy_volume, EVIDENCE)
    assert mask.any(axis=(1, 2)).all()
