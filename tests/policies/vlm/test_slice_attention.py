"""Slice attention against one call a slice."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from medvol.policies.vlm.slice_attention import attend_within_slices


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 2]])
def test_slices_attend_to_themselves_only(lengths):
    q, k, v = torch.randn(3, 1, 2, sum(lengths), 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    bounds = torch.tensor([0, *np.cumsum(lengths)])
    found, _ = attend_within_slices(torch.nn.Identity(), q, k, v, None, 0.3, bounds)
    parts = zip(*(t.split(lengths, dim=2) for t in (q, k, v)), strict=True)
    expected = torch.cat([scaled_dot_product_attention(a, b, c, scale=0.3) for a, b, c in parts], dim=2)
    torch.testing.assert_close(found, expected.transpose(1, 2))
