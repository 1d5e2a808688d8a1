"""DeformedDataset: many made scans from few labelled ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.last_used import LastUsed
from medvol.core.ranges import require_whole
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Query, Volume
from medvol.datasets.appearance import AppearanceSettings
from medvol.datasets.deformation import DeformationSettings
from medvol.datasets.labelled_case import LabelledCase
from medvol.datasets.labelled_source import LabelledSource, number_names, read_source
from medvol.datasets.made_scan import make_scan
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.imaging.geometry import make_volume
from medvol.imaging.volume_hash import hash_volume
from medvol.queries.query_bank import QueryBank


@dataclass(frozen=True)
class _Question:
    """One case before its volume is made."""

    number: int
    query: Query


@dataclass(frozen=True, eq=False)
class _Scan:
    """A made volume with the masks of its targets."""

    volume: Volume
    labels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


class DeformedDataset(CaseDataset):
    """Scans made from a few labelled ones by strong random deformation, other intensities and another field of view.

    Scan and masks are deformed as one and sampled once: the scan linearly, the masks by the nearest voxel, so a mask
    stays on its organ. Intensities keep their meaning, or go through a random curve, or are sampled anew for every
    label. Number ``i`` is made of volume ``i`` of the source, and of the first one again after the last. The same seed
    makes the same scans. They belong to the patient of their source, so a split by patient holds.

    Every target of the source is asked for with phrasings of its own in each made scan. Relations, and what a source
    does not show, are not asked for.

    Args:
        source: Labelled scans, each case with a mask.
        num_volumes: Scans that are made.
        seed: Seed of the deformations, the intensities and the phrasings.
        shape: (Z, Y, X) of a made scan; it has between half as many and all of these slices.
        targets: Asked for; all of the source when None. The others are in the label map all the same.
        deformation: How strongly the body and the field of view change.
        appearance: How strongly intensities change.
        questions: How targets are asked for.
        cache: How many made scans, and how many scans of the source, are kept in memory; a folder keeps none of them.
    """

    def __init__(
        self,
        source: CaseDataset,
        num_volumes: int = 200,
        seed: int = 0,
        shape: tuple[int, int, int] = (24, 96, 96),
        targets: list[str] | None = None,
        deformation: DeformationSettings = DeformationSettings(),
        appearance: AppearanceSettings = AppearanceSettings(),
        questions: PhrasingSettings = PhrasingSettings(),
        cache: CacheSettings = CacheSettings(scans=16),
    ) -> None:
        require_whole(1, num_volumes=num_volumes)
        require_whole(0, seed=seed)
        if len(shape) != 3 or min(shape) < 2:
            raise ConfigError(f"shape is (Z, Y, X) with at least 2 voxels a side; got {tuple(shape)}")
        repeated = [name for name in targets or [] if (targets or []).count(name) > 1]
        if repeated:
            raise ConfigError(f"targets has {repeated[0]!r} twice; name each target once")
        if questions.absent_share:
            raise ConfigError("questions.absent_share does not work with made scans; leave it out")
        if cache.folder is not None:
            raise ConfigError("cache.folder does not work with made scans; leave it out, or give it to the source")
        self.source = source
        self.num_volumes = num_volumes
        self.seed = seed
        self.shape = (shape[0], shape[1], shape[2])
        self.targets = targets
        self.deformation = deformation
        self.appearance = appearance
        self.questions = questions
        self.cache = cache
        self._scans: LastUsed[_Scan] = LastUsed(cache.scans)
        self._sources: LastUsed[LabelledSource] = LastUsed(cache.scans)

    @property
    def licence(self) -> str:  # type: ignore[override]
        """Terms of the source."""
        return self.source.licence

    def __repr__(self) -> str:
        known = vars(self).get("_cases")  # worked out at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> LabelledCase:
        question = self._cases[index]
        key = self._key(question.number)
        scan = self._scans.get(key, lambda: self._make(question.number))
        mask = scan.masks[question.query.target]
        query = question.query if mask.any() else replace(question.query, kind="absent")
        return LabelledCase(self.case_id(index), scan.volume, query, mask, self.patient_id(index), labels=scan.labels)

    def case_id(self, index: int) -> str:
        """Id of a case."""
        question = self._cases[index]
        return f"{self._key(question.number)}_{index % len(self):05d}_{question.query.target.replace(' ', '-')}"

    def volume_key(self, index: int) -> str:
        """Identity of the made scan of a case."""
        return self._key(self._cases[index].number)

    def patient_id(self, index: int) -> str:
        """Patient of the source."""
        return self.source.patient_id(self._group(self._cases[index].number)[0])

    def _key(self, number: int) -> str:
        return f"deformed-{self.seed}-{number:05d}"

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, purpose])

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Indices of the source's cases, by volume."""
        groups: dict[str, list[int]] = {}
        for index in range(len(self.source)):
            groups.setdefault(self.source.volume_key(index), []).append(index)
        if not groups:
            raise DatasetError("the source holds no case; look at its settings")
        return list(groups.values())

    def _group(self, number: int) -> list[int]:
        return self._groups[number % len(self._groups)]

    def _read(self, number: int) -> LabelledSource:
        group = self._group(number)
        return self._sources.get(
            str(group[0]), lambda: read_source((self.source[index] for index in group), self.shape)
        )

    @cached_property
    def _names(self) -> list[list[str]]:
        """Targets of each volume of the source, which are all read once for it."""
        return [sorted(self._read(number).masks) for number in range(len(self._groups))]

    def _asked(self, number: int) -> list[str]:
        names = self._names[number % len(self._groups)]
        return names if self.targets is None else [name for name in self.targets if name in names]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return number_names(name for names in self._names for name in names)

    @cached_property
    def _cases(self) -> list[_Question]:
        shown = {name for names in self._names for name in names}
        missing = [name for name in self.targets or [] if name not in shown]
        if missing:
            raise DatasetError(f"no scan of the source shows {missing[0]!r}; it shows {', '.join(sorted(shown))}")
        bank = self.questions.load_bank()
        return [question for number in range(self.num_volumes) for question in self._ask(number, bank)]

    def _ask(self, number: int, bank: QueryBank) -> list[_Question]:
        """Questions about one made scan."""
        rng = self._rng(number, 0)
        questions = []
        for target in self._asked(number):
            for held_out in self.questions.uses:
                queries = bank.phrasings(target, held_out)
                chosen = rng.permutation(len(queries))[: self.questions.phrasings_per_target]
                questions += [_Question(number, queries[i]) for i in chosen]
        return questions

    def _make(self, number: int) -> _Scan:
        source, rng = self._read(number), self._rng(number, 1)
        slices = int(rng.integers(-(-self.shape[0] // 2), self.shape[0] + 1))
        made = make_scan(
            source,
            self._asked(number),
            self._numbers,
            rng,
            (slices, *self.shape[1:]),
            self.deformation,
            self.appearance,
        )
        volume = make_volume(made.voxels, made.spacing, made.modality)
        name = f"{self._key(number)}-{hash_volume(volume)[:16]}"  # settings, scan and masks of the source decide on it
        return _Scan(replace(volume, volume_id=name), made.labels, made.masks)
