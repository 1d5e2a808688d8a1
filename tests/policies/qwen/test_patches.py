"""Patches and slice attention against transformers' own."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from medvol.core.errors import ConfigError
from medvol.policies.qwen.patches import to_patches
from medvol.policies.vlm.slice_attention import attend_within_slices


@pytest.mark.parametrize(("patch", "temporal", "height", "width"), [(14, 2, 84, 56), (16, 2, 64, 96), (12, 1, 48, 48)])
def test_patches_equal_the_image_processors(patch, temporal, height, width):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(
        patch_size=patch,
        temporal_patch_size=temporal,
        merge_size=2,
        do_resize=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    expected = processor([Image.fromarray(image) for image in images], return_tensors="np")
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    found = to_patches(pixels, patch, 2, temporal)
    assert expected["image_grid_thw"].tolist() == [[1, height // patch, width // patch]] * 3
    np.testing.assert_allclose(found.numpy(), expected["pixel_values"], atol=1e-5)


def test_slices_that_cannot_be_cut_evenly_are_refused():
    with pytest.raises(ConfigError, match="multiples of 28"):
        to_patches(torch.zeros(1, 3, 84, 60), 14, 2, 2)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 2]])
def test_slices_attend_to_themselves_only(lengths):
    q, k, v = torch.randn(3, 1, 2, sum(lengths), 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    bounds = torch.tensor([0, *np.cumsum(lengths)])
    found, _ = attend_within_slices(torch.nn.Identity(), q, k, v, None, 0.3, bounds)
    parts = zip(*(t.split(lengths, dim=2) for t in (q, k, v)), strict=True)
    expected = torch.cat([scaled_dot_product_attention(a, b, c, scale=0.3) for a, b, c in parts], dim=2)
    torch.testing.assert_close(found, expected.transpose(1, 2))
