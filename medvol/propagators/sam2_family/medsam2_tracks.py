"""Tracks of one volume followed together: every row of a batch is one box in one direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from medvol.core.errors import MedvolError
from medvol.propagators.sam2_family.medsam2_network import Answer, Features, Memory, TrackerNetwork
from medvol.propagators.sam2_family.square_slices import SquareSlices
from medvol.propagators.sam2_family.track_repair import Masklet
from medvol.terminal.progress import counted

Rows = Callable[[int], NDArray[np.float32]]
"""Features of a slice, as ``TrackerNetwork.encode`` writes them."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrackStart:
    """One box to follow.

    Args:
        slices: The volume in the window of the box.
        rows: Features of its slices.
        key_slice: Slice of the box.
        box: (4,) pixels of the slice, half-open.
        reach: Slices to follow it through, the key slice among them.
        frames: Slices of the series that the network is told of.
    """

    slices: SquareSlices
    rows: Rows
    key_slice: int
    box: NDArray[np.float64]
    reach: range
    frames: int


class TrackError(Exception):
    """A seed could not be followed.

    Args:
        seed: Its number.
        reason: What went wrong.
    """

    def __init__(self, seed: int, reason: Exception) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.seed = seed


@dataclass(frozen=True)
class _Leg:
    """One direction of a seed."""

    number: int
    seed: TrackStart
    step: int

    @property
    def length(self) -> int:
        key, reach = self.seed.key_slice, self.seed.reach
        return reach.stop - 1 - key if self.step > 0 else key - reach.start

    def slice_at(self, steps: int) -> int:
        return self.seed.key_slice + steps * self.step


class TrackFollower:
    """Follows seeds of one volume.

    Args:
        network: The tracker.
        feed_mask: Feed the mask of the box back as a mask prompt, as upstream's RECIST script and MedVol-R1 do.
        at_once: Rows of a batch.
    """

    def __init__(self, network: TrackerNetwork, feed_mask: bool, at_once: int) -> None:
        self._network = network
        self._feed_mask = feed_mask
        self._at_once = at_once

    def follow(self, seeds: Sequence[TrackStart]) -> list[Masklet]:
        """Masks of every seed on every slice of its reach.

        Raises:
            TrackError: A slice cannot be read, or the network fails.
        """
        tracks: list[Masklet] = [{} for _ in seeds]
        with torch.inference_mode():
            slices = sum(len(seed.reach) for seed in seeds)
            for number, z, logits in counted(self.logits(seeds), "MedSAM2", slices, "slices"):
                tracks[number][z] = (logits > 0).cpu().numpy()
        return tracks

    def logits(self, seeds: Sequence[TrackStart]) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Number of the seed, slice and logits (Y, X), in the order in which they are found."""
        prompts: dict[int, Memory] = {}
        for numbers in _batches(range(len(seeds)), self._at_once):
            legs = [_Leg(number, seeds[number], 1) for number in numbers]
            features = self._features(legs, 0)
            with _blame(legs[0].number):
                answer = self._prompt(features, legs)
                memory = self._network.remember(features, answer, prompted=True)
            yield from self._shown(answer, legs, 0)
            prompts |= {number: memory.row(row) for row, number in enumerate(numbers)}
        legs = [_Leg(number, seed, step) for number, seed in enumerate(seeds) for step in (1, -1)]
        # Rows of one batch must agree in the length of the series; long legs first, so that those left are a prefix.
        legs = sorted((leg for leg in legs if leg.length > 0), key=lambda leg: (-leg.seed.frames, -leg.length))
        for frames in dict.fromkeys(leg.seed.frames for leg in legs):
            for batch in _batches([leg for leg in legs if leg.seed.frames == frames], self._at_once):
                yield from self._advance(batch, Memory.stack([prompts[leg.number] for leg in batch]), frames)

    def _advance(self, legs: Sequence[_Leg], prompt: Memory, frames: int) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Take all legs of a batch step by step to their ends."""
        memories = [prompt]
        read = self._network.model.config.num_maskmem
        for steps in range(1, legs[0].length + 1):
            active = [leg for leg in legs if leg.length >= steps]
            memories = [memory.first(len(active)) for memory in memories]
            features = self._features(active, steps)
            with _blame(active[0].number):
                answer = self._network.follow(features, memories, frames)
            yield from self._shown(answer, active, steps)
            going = sum(leg.length > steps for leg in active)
            if going:
                memories.append(self._network.remember(features.first(going), answer.first(going), prompted=False))
            if len(memories) > read:
                memories[-read] = memories[-read].forget_tokens()

    def _prompt(self, features: Features, legs: Sequence[_Leg]) -> Answer:
        """Answers on the key slices."""
        boxes = np.stack([leg.seed.slices.place_box(leg.seed.box) for leg in legs])
        answer = self._network.click(features, boxes)
        if not self._feed_mask:
            return answer
        masks = torch.cat([self._square(logits > 0) for _, _, logits in self._shown(answer, legs, 0)])
        return self._network.accept(features, masks)

    def _square(self, mask: torch.Tensor) -> torch.Tensor:
        """Mask (Y, X) to (1, 1, S, S) of 0 and 1, rounded as upstream rounds a mask prompt."""
        side = self._network.size, self._network.size
        values = mask[None, None].float()
        if values.shape[-2:] != side:
            values = F.interpolate(values, side, mode="bilinear", align_corners=False, antialias=True)
        return (values >= 0.5).float()

    def _features(self, legs: Sequence[_Leg], steps: int) -> Features:
        rows = []
        for leg in legs:
            with _blame(leg.number):
                rows.append(leg.seed.rows(leg.slice_at(steps)))
        return self._network.features(rows)

    def _shown(self, answer: Answer, legs: Sequence[_Leg], steps: int) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Logits on the volume's own grid."""
        for row, leg in enumerate(legs):
            logits = answer.logits[row : row + 1]
            if not torch.isfinite(logits).all():
                raise TrackError(leg.number, ArithmeticError(f"logits of slice {leg.slice_at(steps)} are not finite"))
            sides = leg.seed.slices.shape[1:]
            shown = F.interpolate(logits, sides, mode="bilinear", align_corners=False)[0, 0]
            yield leg.number, leg.slice_at(steps), shown


@contextmanager
def _blame(seed: int) -> Iterator[None]:
    """Name the seed in whatever fails; of a batch the first."""
    try:
        yield
    except (MedvolError, TrackError):
        raise
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise TrackError(seed, error) from error


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
