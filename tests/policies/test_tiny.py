"""TinyPolicy: small, the same on every build, and made for coordinates."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.prompts import PromptTemplate
from medvol.core.types import Completion
from medvol.grounding.prompts import build_prompt
from medvol.policies.scratch import ScratchPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_tokenizer import NUMBERS
from medvol.testing import make_case

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


def test_a_prompt_of_another_layout_is_refused() -> None:
    """Its slices do not fit, or its instruction is not read."""
    policy, volume = TinyPolicy(seed=0), make_case(8).volume
    prompt = build_prompt(volume, "the organ", PromptTemplate())
    with pytest.raises(ConfigError, match="has another layout than this policy reads"):
        policy.generate([prompt])
    with pytest.raises(ConfigError, match="has another layout than this policy reads"):
        policy.log_probs([prompt], [[policy.encode("<answer>[]</answer>")]])


def test_what_has_no_tokens_has_no_log_probability() -> None:
    """It shifted the scores of its neighbours."""
    policy, volume = TinyPolicy(seed=0), make_case(8).volume
    prompt, full = build_prompt(volume, "the organ", policy.template), policy.encode("<answer>[]</answer>")
    for wrong in (Completion("x"), Completion("x", np.array([-1, -1]))):
        with pytest.raises(ConfigError, match="the tokens of the completion 'x' are not known"):
            policy.log_probs([prompt], [[wrong, full]])
    with pytest.raises(ConfigError, match="at temperature 0; it must be above 0"):
        policy.log_probs([prompt], [[full]], 0)
