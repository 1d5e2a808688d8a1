"""Model folders of the Qwen-VL family, read into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medvol.core.prompts import PromptTemplate
from medvol.policies.qwen.network import QwenVLNetwork
from medvol.policies.vlm.folder import choose_template, load_model
from medvol.weights.model_loading import refuse_damage

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Model types of transformers that are run."""

_SIDE_PX = 256
"""Sides of a slice where no template says, rounded down to whole tokens."""


def load_network(folder: Path, template: PromptTemplate | None, dtype: Literal["float32", "bfloat16"]) -> QwenVLNetwork:
    """Load a model folder; all of its weights, and no others.

    Raises:
        CheckpointError: It cannot be loaded, or is not a Qwen-VL model.
        ConfigError: A template was given though the folder has its own.
    """
    model, tokenizer = load_model(folder, FAMILIES, QwenVLNetwork.image_token, dtype)
    with refuse_damage(folder):
        chosen = choose_template(folder, template)
        if chosen is None:
            vision = model.config.vision_config
            side = vision.patch_size * vision.spatial_merge_size
            chosen = PromptTemplate(height_px=_SIDE_PX // side * side, width_px=_SIDE_PX // side * side)
        return QwenVLNetwork(model, tokenizer, chosen)
