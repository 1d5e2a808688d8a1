"""PhantomDataset: drawn abdomen scans, so that everything can be tried without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.last_used import LastUsed
from medvol.core.ranges import require_share, require_whole
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Query, Volume
from medvol.datasets.labelled_case import LabelledCase
from medvol.datasets.phantom_anatomy import LABEL_NAMES, LABELS, draw_phantom
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.imaging.geometry import make_volume
from medvol.queries.instances import find_instances, whole_mask
from medvol.queries.query_bank import QueryBank
from medvol.queries.relations import Relator, find_bearers

Split = Literal["train", "val", "test"]

ORGANS = ("liver", "spleen", "left kidney", "right kidney", "pancreas", "aorta", "urinary bladder", "gallbladder")
"""Targets that every phantom shows, each one label of the label map."""

LESION_TARGETS = ("kidney lesion", "kidney without lesion", "kidney with lesion")
"""Targets of a phantom with a renal lesion."""

NODULE_TARGET = "lesion"
"""Target of a phantom with bright nodules."""

TARGETS = (*ORGANS, "kidneys", *LESION_TARGETS)
"""Everything that a phantom without nodules may be asked for."""

_LESION_SHARE = 0.6
"""The default; names of volumes tell where another share decides otherwise."""

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
    the lesion and for the kidney with and without it (their masks leave the lesion out). When it has bright nodules,
    two to four at different heights, it is asked for the ``lesion``: all of them, and the renal lesion. No slice shows
    two nodules well, so one anchor cannot answer for them.

    Args:
        split: Splits never share a volume.
        num_volumes: Volumes of this split.
        seed: Seed of the scans and the phrasings.
        shape: (Z, Y, X) of a volume; its spacing follows from the size of the body and so is anisotropic.
        lesion_share: Share of volumes with a renal tumour or cyst.
        nodule_share: Share of volumes with bright nodules.
        questions: How targets are asked for.
        cache: How many drawn volumes are kept in memory; a folder keeps none of them.
    """

    drawn = True
    label_names: ClassVar[tuple[str, ...]] = LABEL_NAMES
    """Name of each value of ``LabelledCase.labels``."""

    def __init__(
        self,
        split: Split = "train",
        num_volumes: int = 200,
        seed: int = 0,
        shape: tuple[int, int, int] = (24, 96, 96),
        lesion_share: float = _LESION_SHARE,
        nodule_share: float = 0.0,
        questions: PhrasingSettings = PhrasingSettings(),
        cache: CacheSettings = CacheSettings(scans=16),
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split is one of {', '.join(get_args(Split))}; got {split!r}")
        if len(shape) != 3 or min(shape) < _MIN_SIDE:
            raise ConfigError(f"shape is (Z, Y, X) with at least {_MIN_SIDE} voxels a side; got {tuple(shape)}")
        require_whole(1, num_volumes=num_volumes)
        require_share(lesion_share=lesion_share, nodule_share=nodule_share)
        if cache.folder is not None:
            raise ConfigError("cache.folder does not work with phantoms, which are drawn; leave it out")
        self.split = split
        self.num_volumes = num_volumes
        require_whole(0, seed=seed)
        self.seed = seed
        self.shape = (shape[0], shape[1], shape[2])
        self.lesion_share = lesion_share
        self.nodule_share = nodule_share
        self.questions = questions
        self.cache = cache
        self._scans: LastUsed[_Scan] = LastUsed(cache.scans)

    def __repr__(self) -> str:
        known = vars(self).get("_cases")  # read at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> LabelledCase:
        question = self._cases[index]
        key = self._key(question.number)
        scan = self._scans.get(key, lambda: self._draw(question.number))
        mask = scan.masks.get(question.query.target) if question.shown else None
        if mask is None:
            mask = np.zeros(self.shape, bool)
        query = question.query if mask.any() else replace(question.query, kind="absent")
        return LabelledCase(self.case_id(index), scan.volume, query, mask, key, labels=scan.labels)

    def target(self, index: int) -> str:
        """What a case asks for, without drawing its volume."""
        return self.query(index).target

    def query(self, index: int) -> Query:
        """The question of a case, without drawing its volume."""
        return self._cases[index].query

    def case_id(self, index: int) -> str:
        """Id of a case."""
        question = self._cases[index]
        return f"{self._key(question.number)}_{index % len(self):05d}_{question.query.target.replace(' ', '-')}"

    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case."""
        return self._key(self._cases[index].number)

    def patient_id(self, index: int) -> str:
        """Every volume is a patient of its own."""
        return self.volume_key(index)

    def _key(self, number: int) -> str:
        size = "x".join(map(str, self.shape))
        lesion, usual = self._lesion_side(number), self._lesion_side(number, _LESION_SHARE)
        marks = "" if lesion == usual else "-lesion" if lesion else "-no-lesion"
        marks += "-nodules" if self._nodules(number) else ""
        return f"phantom-{size}-{self.seed}-{self.split}-{number:04d}{marks}"

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, get_args(Split).index(self.split), number, purpose])

    def _lesion_side(self, number: int, share: float | None = None) -> str | None:
        rng = self._rng(number, 0)
        side = "left kidney" if rng.random() < 0.5 else "right kidney"
        return side if rng.random() < (self.lesion_share if share is None else share) else None

    def _nodules(self, number: int) -> int:
        rng = self._rng(number, 3)
        count = int(rng.integers(2, 5))
        return count if rng.random() < self.nodule_share else 0

    def _draw(self, number: int) -> _Scan:
        phantom = draw_phantom(self._rng(number, 1), self.shape, self._lesion_side(number), self._nodules(number))
        volume = make_volume(phantom.voxels, phantom.spacing, volume_id=self._key(number))
        masks = {name: phantom.labels == LABELS[name] for name in (*ORGANS, "kidney lesion")}
        masks["kidneys"] = masks["left kidney"] | masks["right kidney"]
        masks["lesion"] = masks["kidney lesion"] | (phantom.labels == LABELS["nodule"])
        return _Scan(volume, phantom.labels, masks | _relate_kidneys(masks, volume.affine))

    @cached_property
    def _cases(self) -> list[_Question]:
        bank = self.questions.load_bank(released=False)
        return [question for number in range(self.num_volumes) for question in self._ask(number, bank)]

    def _ask(self, number: int, bank: QueryBank) -> list[_Question]:
        """Questions about one volume; drawing them reads no volume."""
        rng = self._rng(number, 2)
        side = self._lesion_side(number)
        lesion = side is not None
        meanings = _relational_meanings(side) if side is not None else {}
        shown = TARGETS if lesion else tuple(t for t in TARGETS if t not in LESION_TARGETS)
        hidden = _NEVER_SHOWN if lesion else (*_NEVER_SHOWN, *LESION_TARGETS)
        if self._nodules(number):
            shown = (*shown, NODULE_TARGET)
        wanted = len(shown) * self.questions.absent_share / (1 - self.questions.absent_share)
        count = min(int(wanted + rng.random()), len(hidden))
        absent = rng.choice(hidden, count, replace=False).tolist()
        questions = []
        for target in (*shown, *absent):
            for held_out in self.questions.uses:
                queries = bank.phrasings(target, held_out, "CT")
                chosen = rng.permutation(len(queries))[: self.questions.phrasings_per_target]
                meaning = meanings.get(target, "")
                asked = [replace(queries[i], meaning=meaning) for i in chosen]
                questions += [_Question(number, query, target in shown) for query in asked]
        return questions


def _relate_kidneys(
    masks: Mapping[str, NDArray[np.bool_]], affine: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """Masks of the kidney with the lesion and of the one without; none where there is no lesion."""
    pair = [whole_mask(masks[name], affine, name) for name in ("left kidney", "right kidney")]
    kidneys = [kidney for kidney in pair if kidney is not None]
    relator = Relator()
    if len(kidneys) == 2:
        bearers = find_bearers(find_instances(masks["kidney lesion"], affine), kidneys)
        relator.relate_organs("kidney", {"lesion": bearers}, kidneys)
    return {found.target: masks[found.meaning] for found in relator.relations().found}


def _relational_meanings(side: str) -> dict[str, str]:
    """Which kidney each relation means when the lesion lies on ``side``."""
    other = {"left kidney": "right kidney", "right kidney": "left kidney"}[side]
    return {"kidney with lesion": side, "kidney without lesion": other}
