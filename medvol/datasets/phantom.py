"""PhantomDataset: drawn abdomen scans, so that everything can be tried without data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.cache import LastUsed
from medvol.core.errors import ConfigError
from medvol.core.grounding.queries import Phrasing, QueryBank
from medvol.core.grounding.relations import kidney_relations
from medvol.core.imaging.geometry import make_volume
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Query, Volume
from medvol.datasets.labelled_case import LabelledCase
from medvol.datasets.phantom_anatomy import LABEL_NAMES, LABELS, draw_phantom

Split = Literal["train", "val", "test"]

ORGANS = ("liver", "spleen", "left kidney", "right kidney", "pancreas", "aorta", "urinary bladder", "gallbladder")
"""Targets that every phantom shows, each one label of the label map."""

LESION_TARGETS = ("kidney lesion", "kidney without lesion", "kidney with lesion")
"""Targets of a phantom with a renal lesion."""

TARGETS = (*ORGANS, "kidneys", *LESION_TARGETS)
"""Everything a phantom may be asked for."""

_NEVER_SHOWN = ("metal implant", "lung nodule", "brain tumour", "prostate", "heart")
_MIN_SIDE = 8


@dataclass(frozen=True)
class _Question:
    """One case before its volume is drawn."""

    number: int
    query: Query
    shown: bool


@dataclass(frozen=True, eq=False)
class _Scan:
    """A drawn volume with the masks of its targets."""

    volume: Volume
    labels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


class PhantomDataset(CaseDataset):
    """CT-like abdomen scans in Hounsfield units, drawn when they are asked for; the same seed draws the same scans.

    Each volume is asked for every organ of ``ORGANS``, for both kidneys together and, when it has a renal lesion, for
    the lesion and for the kidney with and without it (their masks leave the lesion out).

    Args:
        split: Splits never share a volume.
        num_volumes: Volumes of this split.
        phrasing: ``train`` asks with training phrasings, ``held_out`` with phrasings no training query uses, ``both``
            asks for each target once with each.
        seed: Seed of the scans and the phrasings.
        shape: (Z, Y, X) of a volume; its spacing follows from the size of the body and so is anisotropic.
        phrasings_per_target: Ask for each target in this many different ways.
        lesion_share: Share of volumes with a renal tumour or cyst.
        absent_share: Share of cases that ask for something the scan does not show.
        query_bank: YAML file of further phrasings, or None.
        cache_size: Drawn volumes kept in memory.
    """

    drawn = True
    label_names: ClassVar[tuple[str, ...]] = LABEL_NAMES
    """Name of each value of ``LabelledCase.labels``."""

    def __init__(
        self,
        split: Split = "train",
        num_volumes: int = 200,
        phrasing: Phrasing = "train",
        seed: int = 0,
        shape: tuple[int, int, int] = (24, 96, 96),
        phrasings_per_target: int = 1,
        lesion_share: float = 0.6,
        absent_share: float = 0.0,
        query_bank: str | None = None,
        cache_size: int = 16,
    ) -> None:
        _check_choice("split", split, get_args(Split))
        _check_choice("phrasing", phrasing, get_args(Phrasing))
        if len(shape) != 3 or min(shape) < _MIN_SIDE:
            raise ConfigError(f"shape is (Z, Y, X) with at least {_MIN_SIDE} voxels a side; got {tuple(shape)}")
        if num_volumes < 1 or phrasings_per_target < 1:
            raise ConfigError(
                f"num_volumes and phrasings_per_target are at least 1; got {num_volumes} and {phrasings_per_target}"
            )
        if not (0 <= lesion_share <= 1 and 0 <= absent_share < 1):
            raise ConfigError(
                f"lesion_share is in [0, 1] and absent_share in [0, 1); got {lesion_share} and {absent_share}"
            )
        self.split = split
        self.num_volumes = num_volumes
        self.phrasing = phrasing
        self.seed = seed
        self.shape = (shape[0], shape[1], shape[2])
        self.phrasings_per_target = phrasings_per_target
        self.lesion_share = lesion_share
        self.absent_share = absent_share
        self.query_bank = query_bank
        self.cache_size = cache_size
        self._scans: LastUsed[_Scan] = LastUsed(cache_size)

    def __repr__(self) -> str:
        known = vars(self).get("_questions")  # read at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> LabelledCase:
        question = self._questions[index]
        key = self._key(question.number)
        scan = self._scans.get(key, lambda: self._draw(question.number))
        mask = scan.masks.get(question.query.target) if question.shown else None
        if mask is None:
            mask = np.zeros(self.shape, bool)
        query = question.query if mask.any() else replace(question.query, kind="absent")
        case_id = f"{key}_{index % len(self):05d}_{query.target.replace(' ', '-')}"
        return LabelledCase(case_id, scan.volume, query, mask, key, labels=scan.labels)

    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case."""
        return self._key(self._questions[index].number)

    def patient_id(self, index: int) -> str:
        """Every volume is a patient of its own."""
        return self.volume_key(index)

    def _key(self, number: int) -> str:
        size = "x".join(map(str, self.shape))
        return f"phantom-{size}-{self.seed}-{self.split}-{number:04d}"

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, get_args(Split).index(self.split), number, purpose])

    def _lesion_side(self, number: int) -> str | None:
        rng = self._rng(number, 0)
        side = "left kidney" if rng.random() < 0.5 else "right kidney"
        return side if rng.random() < self.lesion_share else None

    def _draw(self, number: int) -> _Scan:
        phantom = draw_phantom(self._rng(number, 1), self.shape, self._lesion_side(number))
        volume = make_volume(phantom.voxels, phantom.spacing, volume_id=self._key(number))
        masks = {name: phantom.labels == LABELS[name] for name in (*ORGANS, "kidney lesion")}
        left, right = masks["left kidney"], masks["right kidney"]
        masks |= {"kidneys": left | right, **kidney_relations(left, right, masks["kidney lesion"])}
        return _Scan(volume, phantom.labels, masks)

    @cached_property
    def _questions(self) -> list[_Question]:
        bank = QueryBank.load(*([self.query_bank] if self.query_bank else []))
        return [question for number in range(self.num_volumes) for question in self._ask(number, bank)]

    def _ask(self, number: int, bank: QueryBank) -> list[_Question]:
        """Questions about one volume; drawing them reads no volume."""
        rng = self._rng(number, 2)
        side = self._lesion_side(number)
        lesion = side is not None
        meanings = _relational_meanings(side) if side is not None else {}
        shown = TARGETS if lesion else tuple(t for t in TARGETS if t not in LESION_TARGETS)
        hidden = _NEVER_SHOWN if lesion else (*_NEVER_SHOWN, *LESION_TARGETS)
        wanted = len(shown) * self.absent_share / (1 - self.absent_share)
        count = min(int(wanted + rng.random()), len(hidden))
        absent = rng.choice(hidden, count, replace=False).tolist()
        uses = {"train": (False,), "held_out": (True,), "both": (False, True)}[self.phrasing]
        questions = []
        for target in (*shown, *absent):
            for held_out in uses:
                queries = bank.phrasings(target, held_out, "CT")
                chosen = rng.permutation(len(queries))[: self.phrasings_per_target]
                meaning = meanings.get(target, "")
                asked = [replace(queries[i], meaning=meaning) for i in chosen]
                questions += [_Question(number, query, target in shown) for query in asked]
        return questions


def _relational_meanings(side: str) -> dict[str, str]:
    """Which kidney each relation means when the lesion lies on ``side``."""
    other = {"left kidney": "right kidney", "right kidney": "left kidney"}[side]
    return {"kidney with lesion": side, "kidney without lesion": other}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is one of {', '.join(choices)}; got {value!r}")
