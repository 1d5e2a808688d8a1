"""The attention of packed rows against softmax written out, for shapes with and without a causal prefix."""

import pytest
import torch
from torch.nn import Module

from medvol.policies.vlm.packed_attention import attend_packed


class Layer(Module):
    """What the stock attention reads from a layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True


def attend_by_definition(query, key, value, sees, scaling):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~sees, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize(("behind", "heads"), [(4, 2), (4, 4), (9, 4), (1, 1)])
def test_equals_softmax_over_what_is_seen(behind, heads):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, heads, 9, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    sees = torch.ones(9, 9, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    sees[:, :, 9 - behind :] &= torch.rand(2, 1, behind, 9) < 0.7
    sees |= torch.eye(9, dtype=torch.bool)
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, -1e300)[:, :, 9 - behind :]
    attended, weights = attend_packed(Layer(4 // heads), query, key, value, mask, scaling=0.3)
    expected = attend_by_definition(query, key, value, sees, 0.3)
    assert weights is None
    torch.testing.assert_close(attended, expected, rtol=0, atol=1e-12)
    inputs = (query, key, value)
    direction = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(attended, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_without_a_mask_it_is_causal():
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    attended, _ = attend_packed(Layer(1), query, key, value, None, scaling=0.5)
    sees = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    torch.testing.assert_close(attended, attend_by_definition(query, key, value, sees, 0.5), rtol=0, atol=1e-12)
