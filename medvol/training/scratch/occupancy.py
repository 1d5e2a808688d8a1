"""The auxiliary occupancy loss: which organ lies where and how far it reaches, read off the features of image tokens.

A small policy trained from scratch learns to see long before it learns to answer; the answers alone are a thin signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn
from torch.nn.functional import cross_entropy, rms_norm

from medvol.core.errors import ConfigError
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Case, SliceStack, require_target
from medvol.datasets.labelled_case import LabelledCase
from medvol.evaluation.ranks import share_of_ranks, sum_ranks
from medvol.policies.scratch import ScratchPolicy
from medvol.training.scratch.settings import OccupancySettings

BACKGROUND_WEIGHT = 0.3
"""Weight of class 0, which fills most of a slice."""

BINS = 51
"""Places that an edge of a box may have along a side of a slice; an answer of the tiny policy has as many."""

_LEAST_SHARE = 1 / 64
"""A region lies on a token when it fills this share of it."""


class OccupancyHead(nn.Module):
    """Predicts the label of a grid of points in every image token, and the box of the region that it is a part of.

    Args:
        policy: Its slice encoder is listened to.
        settings: Labels, and what they and the boxes weigh.
        cells: Points along each side of a token.

    Raises:
        ConfigError: The policy has no slice encoder.
    """

    def __init__(self, policy: TrainablePolicy, settings: OccupancySettings, cells: int = 6) -> None:
        super().__init__()
        if not isinstance(policy, ScratchPolicy):
            raise ConfigError(
                f"{type(policy).__name__} has no slice encoder; set occupancy.weight and perception.steps to 0, or "
                "train it with SFTModule"
            )
        self.settings = settings
        encoder = policy.slice_encoder()
        self.cells = cells
        width = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)][-1].out_features
        self.linear = nn.Linear(width, cells * cells * settings.classes)
        self.edges = nn.Linear(width, 4 * BINS) if settings.extent_weight > 0 else None
        self._heard: list[torch.Tensor] = []
        encoder.register_forward_hook(self._listen)

    def loss(self, labels: Sequence[NDArray[np.uint8]], stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Cross-entropy over all points, and over all boxes, of all slices of the last forward pass.

        It is a mean over what all processes have, of which this one gives its part.

        Args:
            labels: Label map (Z, Y, X) of each stack's volume.
            stacks: The slices that were encoded, in that order.
        """
        heard, self._heard = self._heard, []
        classes = self.settings.classes
        if not stacks:
            return self._nothing()
        features = torch.cat(heard)
        rows, columns = _token_grid(len(features), stacks)
        shown = [label[list(stack.indices)] for label, stack in zip(labels, stacks, strict=True)]
        planes = [np.where(label < classes, label, 0) for label in shown]
        truth = np.concatenate([self._sample(own, rows, columns) for own in planes])
        target = torch.from_numpy(truth.astype(np.int64)).to(features.device)
        # Normalised, as a language model reads them: features that may grow would drown what its layers add to them.
        normed = rms_norm(features.float(), features.shape[-1:])
        scores = self.linear(normed).view(-1, classes)
        weight = self._class_weights(target.bincount(minlength=classes))
        loss = cross_entropy(scores, target, weight=weight) * share_of_ranks(float(weight[target].sum()))
        if self.edges is None:
            return loss
        boxes = np.concatenate([region_boxes(own, rows, columns) for own in planes])
        return loss + self.settings.extent_weight * _edge_loss(self.edges(normed), boxes)

    def _class_weights(self, counts: torch.Tensor) -> torch.Tensor:
        """Weight of each class from how often it is seen in the batch, of which this process counts a part."""
        weight: torch.Tensor = sum_ranks(counts).clamp(min=1).float() ** -self.settings.balance
        weight[0] *= BACKGROUND_WEIGHT
        return weight

    def _nothing(self) -> torch.Tensor:
        """The loss of a process that has no slices, while others have."""
        self._class_weights(torch.zeros(self.settings.classes, dtype=torch.long, device=self.linear.weight.device))
        share_of_ranks(0.0)
        if self.edges is not None:
            share_of_ranks(0.0)
        return 0.0 * self.linear.weight.sum()

    def forget(self) -> None:
        """Drop what was heard in a pass that has no loss."""
        self._heard.clear()

    def _sample(self, planes: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
        """Labels at the points, token by token: (slices * rows * columns * cells * cells,)."""
        slices, height, width = planes.shape
        y = ((np.arange(rows * self.cells) + 0.5) / (rows * self.cells) * height).astype(int)
        x = ((np.arange(columns * self.cells) + 0.5) / (columns * self.cells) * width).astype(int)
        cut = planes[:, y[:, None], x].reshape(slices, rows, self.cells, columns, self.cells)
        return cut.transpose(0, 1, 3, 2, 4).reshape(-1)

    def _listen(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if torch.is_grad_enabled() and self.training:
            self._heard.append(output)


def region_boxes(planes: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int64]:
    """Box of the region that each image token is a part of: of the smallest one when several lie on it.

    A region is a connected part of a label on a slice.

    Args:
        planes: Labels (S, Y, X) of the slices.
        rows: Tokens along y.
        columns: Tokens along x.

    Returns:
        (slices * rows * columns, 4): x1, y1, x2, y2, each a place among ``BINS`` along its side of the slice; -1 where
        no region lies.
    """
    slices, height, width = planes.shape
    token_voxels = height * width / (rows * columns)
    scale = (BINS - 1) / np.array([width, height, width, height])
    found = np.full((slices, rows * columns, 4), -1, np.int64)
    for own, plane in zip(found, planes, strict=True):
        smallest = np.full(rows * columns, np.inf)
        for name in np.unique(plane[plane > 0]):
            parts, _ = ndimage.label(plane == name)
            for number, (y, x) in enumerate(ndimage.find_objects(parts), start=1):
                in_y, in_x = np.nonzero(parts[y, x] == number)
                tokens = (in_y + y.start) * rows // height * columns + (in_x + x.start) * columns // width
                shares = np.bincount(tokens, minlength=rows * columns) / token_voxels
                here = (shares >= _LEAST_SHARE) & (len(in_y) < smallest)
                own[here] = np.rint(np.array([x.start, y.start, x.stop, y.stop]) * scale)
                smallest[here] = len(in_y)
    return found.reshape(-1, 4)


def _edge_loss(scores: torch.Tensor, boxes: NDArray[np.int64]) -> torch.Tensor:
    """Cross-entropy of the edges of all boxes there are; a place next to the true one is nearly right."""
    truth = torch.from_numpy(boxes).to(scores.device)
    there = truth[:, 0] >= 0
    count = int(there.sum())
    away = (torch.arange(BINS, device=scores.device) - truth[there][..., None]).abs()
    loss = cross_entropy(
        scores[there].view(-1, BINS), (-away.float()).softmax(-1).view(-1, BINS), reduction="sum"
    ) / max(1, 4 * count)
    return loss * share_of_ranks(count)


def _token_grid(count: int, stacks: Sequence[SliceStack]) -> tuple[int, int]:
    """Image tokens along y and x of a slice, of so many tokens of all slices."""
    _, _, height, width = stacks[0].pixels.shape
    tokens = count // sum(len(stack.indices) for stack in stacks)
    rows = round((tokens * height / width) ** 0.5)
    return rows, tokens // rows


def rarest_slices(labels: NDArray[np.uint8], stack: SliceStack, count: int, rng: np.random.Generator) -> list[int]:
    """Draw slices, those that show a label which few slices show before others.

    A slice is drawn in proportion to one over the number of slices that show the rarest label on it.

    Args:
        labels: Label map (Z, Y, X) of the stack's volume.
        stack: The slices to choose from.
        count: Most slices.
        rng: Source of the draw.

    Returns:
        Ascending positions in the stack.
    """
    shown = [np.unique(labels[z]) for z in stack.indices]
    slices_with = np.bincount(np.concatenate(shown))
    slices_with[0] = len(shown)
    weights = np.array([1 / slices_with[names].min(initial=len(shown)) for names in shown])
    chosen = rng.choice(len(shown), min(count, len(shown)), replace=False, p=weights / weights.sum())
    return sorted(chosen.tolist())


def occupancy_labels(cases: Sequence[Case]) -> NDArray[np.uint8]:
    """Label map (Z, Y, X) of the volume that the cases share.

    Without a label map, everything that the cases ask for is label 1: what else is there is not known.
    """
    if isinstance(cases[0], LabelledCase):
        return cases[0].labels
    union = np.zeros(cases[0].volume.shape, bool)
    for case in cases:
        union |= require_target(case)
    return union.astype(np.uint8)
