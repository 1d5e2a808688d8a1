"""Where the frozen copy of a policy lies: on the device while it scores, and on the host else, if that is asked for."""

import numpy as np
import pytest
import torch

from medvol.core.types import Completion
from medvol.planning.prompt_tokens import make_prompts
from medvol.planning.step import Step
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vlm import precision

STEP = Step("GRPO", slices=2, scan_shape=(4, 30, 30))


@pytest.fixture
def moves(monkeypatch):
    """Devices that a network was brought to, with whether it is the policy's own; nothing is moved."""
    made = []
    monkeypatch.setattr(precision, "move_apart", lambda network, other, device: made.append((network, other, device)))
    return made


@pytest.mark.parametrize(("offload", "count"), [(False, 1), (True, 2)])
def test_the_copy_goes_back_to_the_host(moves, offload, count):
    policy = TinyPolicy()
    policy.offload_reference = offload
    prompts = make_prompts(policy.load(), STEP)
    policy.reference_log_probs(prompts, [[policy.encode("a")]])
    assert len(moves) == count
    assert all(network is policy.load_reference() and other is policy.load() for network, other, _ in moves)
    assert [str(device) for _, _, device in moves] == ["cpu"] * count


def test_it_goes_back_after_an_error(moves):
    policy = TinyPolicy()
    policy.offload_reference = True
    prompts = make_prompts(policy.load(), STEP)
    with pytest.raises(IndexError):
        policy.reference_log_probs(prompts, [[Completion("", np.array([10**9]))]])
    assert len(moves) == 2


def test_what_is_shared_stays_and_parameters_are_the_same_objects():
    """Tensors that say that they lie on a GPU, which there may be none of."""
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second.bias = first.bias
    before = [id(parameter) for parameter in first.parameters()]
    precision.move_apart(first, second, torch.device("cpu"))
    assert [id(parameter) for parameter in first.parameters()] == before
    asked = []

    class Asked(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        @property
        def data(self):
            asked.append(self)
            return self

        @data.setter
        def data(self, value):
            pass

        def to(self, device):
            assert device == torch.device("cpu")
            return self

    own, shared = torch.zeros(2).as_subclass(Asked), torch.zeros(2).as_subclass(Asked)

    class Holder:
        def __init__(self, *tensors):
            self.tensors = tensors

        def parameters(self):
            return self.tensors

        def buffers(self):
            return ()

    precision.move_apart(Holder(own, shared), Holder(shared), torch.device("cpu"))
    assert len(asked) == 1
    assert asked[0] is own
