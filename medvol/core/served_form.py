"""What another program has to know to answer in the place of a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvol.core.prompts import Prompt
from medvol.core.types import Completion

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class SlicePatches:
    """One slice as the vision tower takes it.

    Args:
        values: (P, C) float32, one row a patch.
        grid: Patches along time, y and x; their product is P.
    """

    values: NDArray[np.float32]
    grid: tuple[int, int, int]


class ServedForm(ABC):
    """A vision-language policy as an inference server sees it: token ids, pictures, weights."""

    end_id: int
    """Token that ends an answer."""

    image_id: int
    """Token that keeps a place for a part of a picture."""

    kind: str
    """Type that the network computes in: ``float32`` or ``bfloat16``."""

    adapter_rank: int
    """Rank of the adapters that are trained; 0 where the weights themselves are."""

    @property
    @abstractmethod
    def allowed_ids(self) -> list[int]:
        """Tokens that an answer may hold, ascending."""

    def allows(self, token_ids: Iterable[int]) -> bool:
        """True when an answer may hold all of these tokens."""
        return self._allowed.issuperset(token_ids)

    @cached_property
    def _allowed(self) -> frozenset[int]:
        return frozenset(self.allowed_ids)

    @abstractmethod
    def spell(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; a slice is a run of image tokens, one for each of its places."""

    @abstractmethod
    def pictures(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """Slices (3, H, W) as the image processor takes them; it must not rescale them.

        Raises:
            ConfigError: The processor would resize them.
        """

    @abstractmethod
    def patches(self, prompt: Prompt) -> list[SlicePatches]:
        """Slices as the image processor cuts them."""

    @abstractmethod
    def read(self, token_ids: Sequence[int], log_probs: Sequence[float]) -> Completion:
        """A completion from what was sampled, end token included."""

    @abstractmethod
    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights under the names that a model folder has for them, one at a time, in ``kind``."""

    @abstractmethod
    def write_base(self, folder: Path) -> None:
        """Write a model folder of the weights, without adapters, into an empty folder."""

    @abstractmethod
    def write_adapter(self, folder: Path) -> None:
        """Write the adapters alone, as peft does, into an empty folder."""
