"""TinyPolicy: small, the same on every build, and made for coordinates."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from medvol.core.errors import CheckpointError
from medvol.policies.scratch import ScratchPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_tokenizer import NUMBERS

ANSWER = (
    '<think>the liver spans slices 1 to 7</think><answer>[{"slice": 3, "bbox_2d_list": [[20, 40, 58, 1000]]}]</answer>'
)


def test_it_can_be_trained_from_scratch():
    assert isinstance(TinyPolicy(), ScratchPolicy)


def test_the_tiny_model_is_tiny_and_the_same_on_every_build():
    first, second = TinyPolicy(), TinyPolicy()
    count = sum(parameter.numel() for parameter in first.load().parameters())
    assert 2.5e6 < count < 4e6
    state = torch.get_rng_state()
    assert first.identity()["sha256"] == second.identity()["sha256"]
    assert torch.equal(torch.get_rng_state(), state)
    assert TinyPolicy(seed=1).identity()["sha256"] != first.identity()["sha256"]


def test_an_answer_is_short_and_reads_back():
    policy = TinyPolicy()
    completion = policy.encode(ANSWER)
    assert len(completion.token_ids) <= 32
    text = policy.load().tokenizer.decode(completion.token_ids, skip_special_tokens=True)
    assert text.replace("<think> ", "<think>") == ANSWER


def test_numbers_start_as_an_order():
    network = TinyPolicy().load()
    ids = network.tokenizer.convert_tokens_to_ids([str(n) for n in NUMBERS if n % 20 == 0])
    rows = network.model.get_input_embeddings().weight[ids].detach()
    rows = rows - rows.mean(0)
    near = np.mean([float(torch.dot(a, b)) for a, b in pairwise(rows)])
    far = np.mean([float(torch.dot(rows[i], rows[(i + 25) % 50])) for i in range(25)])
    assert near > far


def test_a_tiny_policy_fetches_nothing():
    with pytest.raises(CheckpointError, match="leave model out for random weights"):
        TinyPolicy(model="Qwen/Qwen3-VL-4B-Instruct").load()
