"""The occupancy loss against a loop over points, and which slices the perception stage looks at."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import ConfigError
from medvol.core.types import SliceStack
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.training.scratch.occupancy import BACKGROUND_WEIGHT, BINS, OccupancyHead, rarest_slices, region_boxes
from medvol.training.scratch.settings import OccupancySettings

SHAPE = (8, 48, 48)


def stack_of(indices, side=96, depth=8) -> SliceStack:
    return SliceStack(tuple(indices), np.zeros((len(indices), 3, side, side), np.float32), (depth, side, side))


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_the_loss_is_a_weighted_mean_over_points(balance):
    policy = TinyPolicy()
    head = OccupancyHead(policy, OccupancySettings(classes=3, balance=balance), cells=2)
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)  # 3 is beyond the classes: background
    stack = SliceStack((1, 5), np.random.default_rng(1).random((2, 3, 96, 96), np.float32), SHAPE)
    features = policy.encode_slices([stack]).detach()
    loss = head.loss([labels], [stack])
    scores = (
        head.linear(features / features.square().mean(1, keepdim=True).sqrt())
        .detach()
        .numpy()
        .reshape(2, 4, 4, 2, 2, 3)
    )  # slice, token y, x, cell y, x, class
    points = []
    for s, z in enumerate(stack.indices):
        for row in range(8):
            for column in range(8):
                truth = labels[z, 6 * row + 3, 6 * column + 3]
                logits = scores[s, row // 2, column // 2, row % 2, column % 2].astype(float)
                points.append((0 if truth == 3 else truth, logits))
    count = [sum(truth == label for truth, _ in points) for label in range(3)]
    weight = [number**-balance for number in count]
    weight[0] *= BACKGROUND_WEIGHT
    losses = [math.log(np.exp(logits).sum()) - logits[truth] for truth, logits in points]
    weights = [weight[truth] for truth, _ in points]
    assert float(loss.detach()) == pytest.approx(np.dot(weights, losses) / sum(weights), rel=1e-5)


def test_a_slice_is_drawn_in_proportion_to_its_rarest_label():
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[:4, 0, 0] = 1
    labels[3, 1, 1] = 2
    rng = np.random.default_rng(0)
    drawn = np.bincount([rarest_slices(labels, stack_of(range(6), 4, 6), 1, rng)[0] for _ in range(4000)], minlength=6)
    weights = np.array([1 / 4, 1 / 4, 1 / 4, 1, 1 / 6, 1 / 6])
    expected = 4000 * weights / weights.sum()
    assert (np.abs(drawn - expected) < 4 * np.sqrt(expected)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 8))
def test_slices_are_drawn_once_and_in_order(seed, count, shown):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (8, 3, 3)).astype(np.uint8)
    stack = stack_of(sorted(rng.choice(8, shown, replace=False).tolist()), 3)
    chosen = rarest_slices(labels, stack, count, rng)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, shown)
    assert set(chosen) <= set(range(shown))


def test_a_policy_that_sees_no_slices_has_no_perception():
    with pytest.raises(ConfigError, match=r"set occupancy\.weight and perception\.steps to 0"):
        OccupancyHead(ScriptedPolicy(["x"]), OccupancySettings(classes=3))


def test_the_loss_has_a_gradient_to_the_features():
    policy = TinyPolicy()
    head = OccupancyHead(policy, OccupancySettings(classes=3))
    policy.encode_slices([stack_of([0, 1])])
    head.loss([np.zeros(SHAPE, np.uint8)], [stack_of([0, 1])]).backward()
    gradients = [p.grad for p in policy.load().model.model.visual.parameters() if p.grad is not None]
    assert any(torch.any(g != 0) for g in gradients)


def regions_of(plane):
    """Sets of places of every connected part, by flooding from each place not yet reached."""
    height, width = plane.shape
    left = {(y, x) for y in range(height) for x in range(width) if plane[y, x]}
    while left:
        edge = [left.pop()]
        part = set(edge)
        while edge:
            y, x = edge.pop()
            near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            near = {place for place in near if plane[place] == plane[y, x]}
            left -= near
            part |= near
            edge += near
        yield part


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_token_gets_the_box_of_the_smallest_region_on_it(seed, filled):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(1, 4, (3, 12, 16)) * (rng.random((3, 12, 16)) < filled)).astype(np.uint8)
    found = region_boxes(labels[[0, 2]], 2, 2).reshape(2, 2, 2, 4)
    for own, z in zip(found, (0, 2), strict=True):
        for row in range(2):
            for column in range(2):
                inside = {(y, x) for y in range(6 * row, 6 * row + 6) for x in range(8 * column, 8 * column + 8)}
                here = [part for part in regions_of(labels[z]) if len(part & inside) >= 48 / 64]
                if not here:
                    assert (own[row, column] == -1).all()
                    continue
                least = min(map(len, here))
                boxes = []
                for part in here:
                    ys, xs = zip(*part, strict=True)
                    edges = np.array([min(xs) / 16, min(ys) / 12, (max(xs) + 1) / 16, (max(ys) + 1) / 12])
                    if len(part) == least:
                        boxes.append(np.rint(edges * (BINS - 1)).tolist())
                assert own[row, column].tolist() in boxes


def test_boxes_add_their_weighted_loss_and_uniform_guesses_cost_the_logarithm_of_the_bins():
    policy = TinyPolicy()
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 10:30, 20:40] = 1
    losses = []
    for weight in (0.0, 0.5):
        head = OccupancyHead(policy, OccupancySettings(classes=2, extent_weight=weight))
        torch.nn.init.zeros_(head.linear.weight)
        torch.nn.init.zeros_(head.linear.bias)
        if head.edges is not None:
            torch.nn.init.zeros_(head.edges.weight)
            torch.nn.init.zeros_(head.edges.bias)
        policy.encode_slices([stack_of([0, 3])])
        losses.append(float(head.loss([labels], [stack_of([0, 3])]).detach()))
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert losses[1] - losses[0] == pytest.approx(0.5 * math.log(BINS), rel=1e-5)
