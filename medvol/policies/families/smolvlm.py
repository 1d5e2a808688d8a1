"""SmolVLM2: a slice is one image of 64 tokens, as a frame of video is, not cut into tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers import BatchFeature

from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.slice_features import SliceFeatures

_AT_ONCE = 4
"""Slices that are prepared at a time; 64 of them would take gigabytes."""


class SmolVLMNetwork(VLMNetwork):
    """A SmolVLM2 model with its processor and prompt template.

    Args:
        model: The model of transformers.
        processor: Its processor.
        template: Layout of the prompts.
    """

    extra = ("num2words", "smolvlm")
    end_token = "<end_of_utterance>"
    vision_parts = ("model.vision_model", "model.connector")
    language_part = "model.text_model"
    skips_blanks: ClassVar[bool] = True
    """The model leaves out images of zeros, so that values of pixels, and not their form alone, decide sizes."""
    image_options: ClassVar[Mapping[str, Any]] = {"do_image_splitting": False}
    """Tiles would make more than a thousand tokens of a slice."""

    def arrange(self, pixels: torch.Tensor) -> Any:
        """All slices as the images of one prompt."""
        return [list(pixels)]

    def prepare(self, pixels: torch.Tensor) -> BatchFeature:
        """Have the image processor size and scale slices, a few at a time: on its way it makes each 2,048 px large."""
        prepare = super().prepare
        parts = [prepare(part) for part in pixels.split(_AT_ONCE)]
        return BatchFeature({key: _join([part[key] for part in parts]) for key in parts[0]})

    def look(self, images: BatchFeature) -> SliceFeatures:
        """Run the vision tower; slices are padded to one size."""
        pixels, mask = images["pixel_values"], images["pixel_attention_mask"]
        seen = self.model.model.get_image_features(
            pixels.transpose(0, 1), mask.transpose(0, 1).bool(), return_dict=True
        )
        return SliceFeatures(tuple(seen.pooler_output), ())


def _join(parts: list[Any]) -> Any:
    """What the image processor gave of some slices, one behind the other: tensors, or lists, of one prompt."""
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(parts, dim=1)
    return [[value for part in parts for value in part[0]]]
