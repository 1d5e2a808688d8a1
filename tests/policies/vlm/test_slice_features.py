"""Features of a frozen tower that are kept beyond a step: equal bits, a bound on memory, nothing out of date."""

import numpy as np
import pytest
import torch

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import SliceStack
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy
from medvol.policies.vlm.slice_features import FeatureStore, HostFeatures

SMALL = PromptTemplate(num_slices=4, height_px=48, width_px=48)


class Tower:
    """Features that depend on the pixels, and a count of the slices that were looked at."""

    def __init__(self):
        self.seen = []

    def __call__(self, stacks):
        self.seen += [int(stack.pixels[0, 0, 0, 0]) for stack in stacks]
        rows = [torch.from_numpy(slice_).flatten()[:8].float() for stack in stacks for slice_ in stack.pixels]

        class Seen:
            pooler_output = tuple(row[None] for row in rows)
            deepstack_features = (tuple(2 * row[None] for row in rows),)

        return Seen


def drawing(number, slices=2):
    pixels = np.full((slices, 3, 4, 4), number, np.float32)
    return SliceStack(tuple(range(slices)), pixels, (slices, 4, 4))


SIZE = 2 * 2 * 8 * 4
"""Bytes of a drawing: two slices, two layers, eight values."""


def test_a_drawing_of_an_earlier_step_is_not_looked_at_again():
    tower, store = Tower(), FeatureStore(HostFeatures(10 * SIZE))
    first = store.look_up([drawing(1), drawing(2)], tower)
    second = store.look_up([drawing(2), drawing(3), drawing(1)], tower)
    assert tower.seen == [1, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(first.pooler_output[2:], second.pooler_output[:2], strict=True))
    assert torch.equal(second.deepstack_features[0][4], 2 * second.pooler_output[4])
    plain = FeatureStore()
    plain.look_up([drawing(1)], tower)
    plain.look_up([drawing(1)], tower)
    assert tower.seen == [1, 2, 3, 1, 1]


def test_other_pixels_are_another_drawing():
    tower, store = Tower(), FeatureStore(HostFeatures(10 * SIZE))
    one, other = drawing(1), drawing(1)
    other.pixels[1, 2, 3, 3] += 1e-6
    store.look_up([one], tower)
    store.look_up([other, drawing(1, slices=1)], tower)
    assert tower.seen == [1, 1, 1]


def test_the_least_used_go_when_memory_is_full():
    tower, host = Tower(), HostFeatures(2 * SIZE + 1)
    store = FeatureStore(host)
    for number in (1, 2, 1, 3, 1, 2):
        store.look_up([drawing(number)], tower)
    assert tower.seen == [1, 2, 3, 2]
    assert host.used == 2 * SIZE
    store.look_up([drawing(9, slices=5)], tower)  # larger than all room
    assert host.used == 2 * SIZE


def test_memory_for_a_tower_that_learns_is_refused():
    with pytest.raises(ConfigError, match="feature_memory_gb is 2 and the vision tower learns"):
        QwenVLPolicy("nothing", feature_memory_gb=2)
    with pytest.raises(ConfigError, match="feature_memory_gb is -1"):
        QwenVLPolicy("nothing", feature_memory_gb=-1, freeze_vision=True)
    QwenVLPolicy("nothing", feature_memory_gb=2, lora_rank=4)


def test_a_network_reads_kept_features_as_it_read_fresh_ones():
    """The same pixels in another step: the tower does not run, and scores and gradients are equal bit by bit."""
    policy = TinyPolicy(template=SMALL)
    network = policy.load()
    network.freeze_vision(10**8)
    runs = []
    look = network.look
    object.__setattr__(network, "look", lambda images: runs.append(1) or look(images))
    rng = np.random.default_rng(0)
    pixels = rng.random((2, 4, 3, 48, 48), dtype=np.float32)
    answer = policy.encode("<answer>[]</answer>")
    scores, gradients = [], []
    for _ in range(2):  # both steps make drawings of their own
        stacks = [SliceStack((0, 1, 2, 3), own.copy(), (4, 48, 48)) for own in pixels]
        prompts = [Prompt(stack, "the liver", SMALL) for stack in stacks]
        found = policy.log_probs(prompts, [[answer]] * 2)
        network.zero_grad()
        sum(row[0].sum() for row in found).backward()
        scores.append(torch.cat([row[0].detach() for row in found]))
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert len(runs) == 2  # one drawing after the other, and only once
    assert torch.equal(*scores)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
