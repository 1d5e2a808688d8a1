"""Upstream names of SAM 2.1 parameters to those of transformers, and the configuration a state dictionary asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from medvol.core.errors import CheckpointError

State = Mapping[str, torch.Tensor]

BACKBONES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 96, "blocks_per_stage": [1, 2, 7, 2], "global_attention_blocks": [5, 7, 9]},
    "small": {"hidden_size": 96, "blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base_plus": {
        "hidden_size": 112,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
"""What the four Hiera sizes of SAM 2.1 set away from the defaults; MedSAM2 is ``tiny``."""

_FIRST_STAGE_STRIDE = 4
_CORNERS = "sam_prompt_encoder.point_embeddings."
_PLACES = "prompt_encoder.shared_embedding.positional_embedding"
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"\.norm(\d)\.", r".layer_norm\1."),
        (r"(attn|attn_image|to_image|to_token)\.out_proj\.", r"\1.o_proj."),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (r"(memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
        (r"(memory_fuser\.layers\.\d+)\.gamma$", r"\1.scale"),
    )
)
_PERCEPTRON = re.compile(
    r"^(.*(?:mlp|output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|object_pointer_proj))"
    r"\.layers\.(\d+)\.(weight|bias)$"
)
_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.(weight|bias)$")


def convert_state(state: State) -> dict[str, torch.Tensor]:
    """Rename the parameters of upstream's ``SAM2Base`` to those of ``Sam2VideoModel``; values are not changed.

    Source: the two implementations' own parameter names; a test holds the result to the ``sam2`` package.
    """
    plain = {_rename(name): tensor for name, tensor in state.items() if not name.startswith(_CORNERS)}
    last_layer = _last_layers(plain)
    converted = {_name_perceptron(name, last_layer): tensor for name, tensor in plain.items()}
    corners = [state[name] for i in range(4) if (name := f"{_CORNERS}{i}.weight") in state]
    if corners:
        converted["prompt_encoder.point_embed.weight"] = torch.cat(corners)
    if _PLACES in converted:
        converted["shared_image_embedding.positional_embedding"] = converted[_PLACES].clone()
    return converted


def video_config(size: str, image_size: int) -> Sam2VideoConfig:
    """Configuration of a Hiera size at an image size; ``video_config("tiny", 512)`` is MedSAM2.

    Args:
        size: A key of ``BACKBONES``.
        image_size: Side of the square that slices are resized to, a multiple of 32.
    """
    settings = BACKBONES[size]
    width, heads = settings["hidden_size"], settings.get("num_attention_heads", 1)
    widths = [width * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        image_size=[image_size, image_size],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        **settings,
    )
    return assemble_config(backbone, image_size)


def assemble_config(backbone: Sam2HieraDetConfig, image_size: int) -> Sam2VideoConfig:
    """Configuration of a tracker of SAM 2.1 around any Hiera backbone."""
    sides = [image_size // (_FIRST_STAGE_STRIDE * 2**level) for level in range(3)]
    widths: list[int] = list(backbone.embed_dim_per_stage or ())
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[side, side] for side in sides],
    )
    return Sam2VideoConfig(
        image_size=image_size,
        memory_attention_rope_feat_sizes=[sides[-1], sides[-1]],
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=image_size),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(),
    )


def guess_size(state: State) -> str:
    """Name of the Hiera size that an upstream state dictionary was saved from.

    Raises:
        CheckpointError: It is none of SAM 2.1.
    """
    stem = state.get("image_encoder.trunk.patch_embed.proj.weight")
    if stem is None or "obj_ptr_tpos_proj.weight" not in state:
        raise CheckpointError(
            f"these {len(state)} tensors are not those of SAM 2.1 or MedSAM2 (SAM 2.0 has other parts); "
            "give a checkpoint of either"
        )
    numbers = {int(match[1]) for name in state if (match := re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", name))}
    for size, settings in BACKBONES.items():
        if settings["hidden_size"] == stem.shape[0] and sum(settings["blocks_per_stage"]) == len(numbers):
            return size
    raise CheckpointError(
        f"a Hiera of width {stem.shape[0]} with {len(numbers)} blocks is none of {', '.join(BACKBONES)}; "
        "give a folder with its own config.json"
    )


def _rename(name: str) -> str:
    if match := _DOWNSAMPLER.match(name):
        stage, part = divmod(int(match[1]), 3)
        # Each stage is a convolution, a norm and an activation; the last entry is the one convolution after them.
        place = f"layers.{stage}.{('conv', 'layer_norm')[part]}"
        return f"memory_encoder.mask_downsampler.{place}.{match[2]}"
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _last_layers(names: Mapping[str, object]) -> dict[str, int]:
    """Highest layer number of every perceptron, and of the mask downsampler."""
    last: dict[str, int] = {}
    for name in names:
        if match := _PERCEPTRON.match(name) or re.match(r"^(memory_encoder\.mask_downsampler)\.layers\.(\d+)\.", name):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    return last


def _name_perceptron(name: str, last: Mapping[str, int]) -> str:
    """Name first and last layers by what they do."""
    downsampler = "memory_encoder.mask_downsampler"
    final = f"{downsampler}.layers.{last.get(downsampler)}.conv."
    if name.startswith(final):
        return f"{downsampler}.final_conv.{name.removeprefix(final)}"
    match = _PERCEPTRON.match(name)
    if match is None:
        return name
    number, end = int(match[2]), last[match[1]]
    place = "proj_in" if number == 0 else "proj_out" if number == end else f"layers.{number - 1}"
    return f"{match[1]}.{place}.{match[3]}"
