"""LLaVA-OneVision: several images of a prompt are one tile each, with a token for the end of a line behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers import BatchFeature

from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.slice_features import SliceFeatures


class LlavaOnevisionNetwork(VLMNetwork):
    """A LLaVA-OneVision model with its processor and prompt template.

    Args:
        model: The model of transformers.
        processor: Its processor.
        template: Layout of the prompts.
    """

    end_token = "<|im_end|>"
    vision_parts = ("model.vision_tower", "model.multi_modal_projector", "model.image_newline")
    inline_image = "<image>"
    """Its chat template writes all images before all text, so images are written into the text."""
    image_options: ClassVar[Mapping[str, Any]] = {"do_rescale": True}
    """A slice that is no square is padded with a colour of 0 to 255, so slices come in that range."""

    def arrange(self, pixels: torch.Tensor) -> Any:
        """All slices as the images of one prompt; a single one would be cut into tiles and comes twice."""
        return [list(255 * (pixels.repeat(2, 1, 1, 1) if len(pixels) == 1 else pixels))]

    def prepare(self, pixels: torch.Tensor) -> BatchFeature:
        """Have the image processor size and scale slices, each as one tile."""
        images = super().prepare(pixels)
        return BatchFeature({**images, **{key: images[key][: len(pixels)] for key in ("pixel_values", "image_sizes")}})

    def look(self, images: BatchFeature) -> SliceFeatures:
        """Run the vision tower over one tile a slice."""
        seen = self.model.model.get_image_features(
            images["pixel_values"],
            images["image_sizes"],
            batch_num_images=images["batch_num_images"],
            return_dict=True,
        )
        return SliceFeatures(tuple(seen.pooler_output), ())
