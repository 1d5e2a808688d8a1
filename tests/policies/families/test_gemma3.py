"""What a token of Gemma 3 may see: its own slice both ways, and a window that counts positions."""

from types import SimpleNamespace

import torch

from medvol.policies.families.gemma3 import Gemma3Network

IMAGES = torch.tensor([[False, True, True, False, True, True, False, False]])
CAUSAL = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()


def see(
    visible: torch.Tensor, places: list[int], images: torch.Tensor = IMAGES, window: int = 3
) -> list[list[list[int]]]:
    """Columns that each row sees, in layers of either kind."""
    config = SimpleNamespace(text_config=SimpleNamespace(sliding_window=window))
    network = SimpleNamespace(model=SimpleNamespace(config=config), additive=lambda mask: mask)
    masks = Gemma3Network.layer_masks(network, visible, torch.tensor([places]), images)
    kinds = ("full_attention", "sliding_attention")
    return [[row.nonzero()[:, 0].tolist() for row in masks[kind][0, 0]] for kind in kinds]


def test_tokens_of_a_slice_see_one_another_and_no_later_slice():
    full, _ = see(CAUSAL, list(range(8)))
    assert full[1] == full[2] == [0, 1, 2]
    assert full[3] == [0, 1, 2, 3]
    assert full[4] == full[5] == [0, 1, 2, 3, 4, 5]


def test_a_window_reaches_three_tokens_back():
    _, near = see(CAUSAL, list(range(8)))
    assert near[7] == [5, 6, 7]
    assert near[1] == [0, 1, 2]
    assert near[5] == [3, 4, 5]


def test_a_branch_far_down_the_row_is_as_near_as_its_position():
    """The last token follows the prefix of six, as the one before it does, and does not see that one."""
    visible = CAUSAL.clone()
    visible[0, 0, 7, 6] = False
    _, near = see(visible, [0, 1, 2, 3, 4, 5, 6, 6])
    assert near[6] == [4, 5, 6]
    assert near[7] == [4, 5, 7]


def test_while_decoding_only_new_tokens_ask():
    full, near = see(CAUSAL[:, :, -1:], list(range(8)), torch.zeros(1, 8, dtype=torch.bool))
    assert full == [list(range(8))]
    assert near == [[5, 6, 7]]
