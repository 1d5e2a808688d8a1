"""Log-probabilities in pieces: equal to those of the whole vocabulary at once, which never exists."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.scoring import chosen_log_probs

TOKENS, WIDTH, WORDS = 1000, 16, 5000


class LargestTensor(TorchDispatchMode):
    """Remembers the number of values of the largest tensor that any operation makes, backward passes included."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return made


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_pieces_are_equal_to_the_whole_and_small(temperature):
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, WORDS, bias=False)
    suppressed = torch.arange(WORDS) % 7 == 3
    network = SimpleNamespace(model=SimpleNamespace(lm_head=head), suppressed=suppressed)
    network.token_log_probs = lambda hidden, heat: VLMNetwork.token_log_probs(network, hidden, heat)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    chosen = torch.randint(0, WORDS // 7, (TOKENS,)) * 7

    scores = head(hidden).masked_fill(suppressed, float("-inf")) / temperature
    whole = torch.log_softmax(scores, dim=-1).gather(-1, chosen[:, None])[:, 0]
    expected = torch.autograd.grad(whole.square().sum(), [hidden, head.weight])

    with LargestTensor() as largest:
        pieces = chosen_log_probs(network, hidden, chosen, temperature)
        found = torch.autograd.grad(pieces.square().sum(), [hidden, head.weight])
    torch.testing.assert_close(pieces, whole)
    for own, their in zip(found, expected, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-3)
    assert largest.size <= 64 * WORDS < TOKENS * WORDS / 10
