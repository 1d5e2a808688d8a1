"""A few scans for validation, and copies of them that were changed at random: more questions from as few patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.training.volume_augmentation import VolumeAugmentation


class ChangedCopies(CaseDataset):
    """The cases of another data set, then every one again in each changed copy of its volume; all in memory.

    Args:
        source: Cases, each of a volume of its own; none of their queries names a side.
        transforms: See ``VolumeAugmentation``.
        copies: Of every volume.
        seed: Of the changes.
    """

    def __init__(
        self, source: CaseDataset, transforms: Sequence[Mapping[str, Any]], copies: int, seed: int = 0
    ) -> None:
        self.source = source
        self.copies = copies
        self.seed = seed
        self._augmentation = VolumeAugmentation(transforms, sides_may_swap=True)
        self._made: dict[int, Case] = {}

    def __len__(self) -> int:
        return len(self.source) * (1 + self.copies)

    def __getitem__(self, index: int) -> Case:
        copy, place = divmod(index, len(self.source))
        if copy == 0:
            return self.source[place]
        if index not in self._made:
            case = self.source[place]
            changed = self._augmentation.apply([case], (self.seed, copy, place))[0]
            self._made[index] = replace(changed, case_id=f"{case.case_id}_changed{copy}")
        return self._made[index]

    def volume_key(self, index: int) -> str:
        """Of the copy."""
        copy, place = divmod(index, len(self.source))
        key = self.source.volume_key(place)
        return f"{key} changed {copy}" if copy else key

    def patient_id(self, index: int) -> str:
        """Of the source, so that splits by patient hold."""
        return self.source.patient_id(index % len(self.source))
