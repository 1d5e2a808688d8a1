"""What is asked in ``finite.py``: few volumes that repeat, few phrasings of each target, and others to test with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings

BANK = Path(__file__).with_name("finite_queries.yaml")
HEARD = 12
"""Training phrasings of every target."""

SEEDED = 3000
"""Added to the seed of training volumes; the base has seen others."""


@dataclass(frozen=True)
class Setting:
    """What is trained on.

    Args:
        volumes: Training volumes, which repeat.
        phrasings: Training phrasings of each target, drawn with the seed.
        labels: ``paper``, or ``any``: the label's slice is drawn among the visible ones, and its boxes are jittered.
    """

    volumes: int
    phrasings: int
    labels: str

    @property
    def name(self) -> str:
        """In names of files."""
        return f"{self.volumes}x{self.phrasings}" + ("" if self.labels == "paper" else f"-{self.labels}")


class Asked(CaseDataset):
    """Some questions about synthetic volumes, of which every target is asked in given phrasings.

    Args:
        cases: All questions about all volumes.
        chosen: Tells of a volume's number, a target and its phrasings which of these are asked.
    """

    drawn = True

    def __init__(
        self, cases: PhantomDataset, chosen: Callable[[int, str, Sequence[tuple[bool, str]]], set[str]]
    ) -> None:
        self.cases = cases
        groups: dict[tuple[str, str], list[int]] = {}
        for index in range(len(cases)):
            groups.setdefault((cases.volume_key(index), cases.target(index)), []).append(index)
        numbers = {key: number for number, key in enumerate(dict.fromkeys(key for key, _ in groups))}
        self.places = []
        for (key, target), places in groups.items():
            texts = sorted((cases.query(place).held_out, cases.query(place).text) for place in places)
            wanted = chosen(numbers[key], target, texts)
            self.places += [place for place in places if cases.query(place).text in wanted]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Case:
        return self.cases[self.places[index]]

    def volume_key(self, index: int) -> str:
        """Of the volume."""
        return self.cases.volume_key(self.places[index])

    def patient_id(self, index: int) -> str:
        """Every volume is a patient."""
        return self.volume_key(index)


def heard_texts(target: str, texts: Sequence[tuple[bool, str]], setting: Setting, seed: int) -> list[str]:
    """Training phrasings of a target that are used with this seed."""
    known = [text for held_out, text in texts if not held_out]
    rng = np.random.default_rng([seed, *target.encode()])
    return [known[i] for i in sorted(rng.permutation(len(known))[: setting.phrasings])]


def ask_all(split: str, volumes: int, seed: int, phrasing: str, lesions: float) -> PhantomDataset:
    """Every question about every volume, in all phrasings."""
    return PhantomDataset(
        split,  # type: ignore[arg-type]
        volumes,
        seed=seed,
        lesion_share=lesions,
        questions=PhrasingSettings(phrasing=phrasing, phrasings_per_target=99, query_bank=str(BANK)),  # type: ignore[arg-type]
        cache=CacheSettings(scans=min(volumes, 144)),
    )


def training_cases(setting: Setting, seed: int) -> Asked:
    """The volumes that repeat, each target in all phrasings of the setting."""
    cases = ask_all("train", setting.volumes, SEEDED + seed, "train", 1.0)
    return Asked(cases, lambda number, target, texts: set(heard_texts(target, texts, setting, seed)))


def other_cases(split: str, setting: Setting, seed: int, volumes: int) -> Asked:
    """Half of the targets of a volume in a heard phrasing and the others in a held-out one, by turns."""

    def choose(number: int, target: str, texts: Sequence[tuple[bool, str]]) -> set[str]:
        held_out = (number + len(target)) % 2 == 1
        own = [text for held, text in texts if held] if held_out else heard_texts(target, texts, setting, seed)
        return {own[number // 2 % len(own)]}

    return Asked(ask_all(split, volumes, 7 if split == "val" else 0, "both", 0.6), choose)
