"""SecondLookDataset: the cases of another data set, and what a second look shows of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np

from medvol.core.errors import ConfigError
from medvol.core.last_used import LastUsed
from medvol.core.looks import Region
from medvol.core.ranges import require_between, require_whole
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Evidence, Volume, require_target
from medvol.grounding.anchors import label_anchor
from medvol.grounding.regions import RegionSettings, move_in, region_around
from medvol.imaging.crops import crop_volume

_KEPT_VIEWS = 16
_SMALLEST, _LARGEST = 0.05, 0.4
"""Sides of the box that a first look is taken to have seen where nothing is, as shares of the slice's sides."""


@dataclass(frozen=True)
class _Entry:
    """One case: a question of the data set, about the whole scan or about a view.

    Args:
        index: Of the question.
        first: Of the question that the view is around; None for the whole scan.
        view: Number of the view.
    """

    index: int
    first: int | None = None
    view: int = 0


class SecondLookDataset(CaseDataset):
    """Teaches the second look of ``SecondLookPolicy``: its cases are those of another data set, and views of them.

    A view is the region that a second look would show after a first answer about a case, as a scan of its own. The
    first answer is worked out from the true mask: any slice that shows the target well, with boxes that are loose and
    off by a few mm, as a policy's are. Where the target is absent, it is a box anywhere, so that a policy learns to say
    after a second look that nothing is there. The true mask of a view is that of the region, and so rewards and scores
    are of the region too.

    Args:
        dataset: Where the cases come from; each has a true mask.
        whole: Keep the whole scans beside the views, so that both looks are trained.
        views: Views of each case, on average; 0.25 gives about every fourth case one.
        companions: Further questions about the same scan that are asked about each view, chosen at random; they share
            its slices, so they cost little. What they ask for may lie outside the view, and is then absent.
        region: How much a view shows around the first answer.
        jitter: Every edge of the first answer's boxes is moved by up to this share of the box's side.
        shift_mm: The first answer's boxes and its key slice are moved by up to this distance along each axis.
        seed: Seed of the first answers and of the companions.

    Raises:
        ConfigError: A number is out of its range, there would be no case, or the data set shows views already.
    """

    def __init__(
        self,
        dataset: CaseDataset,
        whole: bool = True,
        views: float = 1.0,
        companions: int = 0,
        region: RegionSettings = RegionSettings(),
        jitter: float = 0.2,
        shift_mm: float = 5.0,
        seed: int = 0,
    ) -> None:
        require_whole(0, "SecondLookDataset", companions=companions, seed=seed)
        require_between("[0, inf)", "SecondLookDataset", views=views, shift_mm=shift_mm)
        require_between("[0, 0.5)", "SecondLookDataset", jitter=jitter)
        if not (whole or views):
            raise ConfigError("SecondLookDataset would hold no case; set whole to true, or views above 0")
        if isinstance(dataset, SecondLookDataset):
            raise ConfigError("SecondLookDataset shows views of scans, and not of views; give it the data set below")
        self.dataset = dataset
        self.whole = whole
        self.views = views
        self.companions = companions
        self.region = region
        self.jitter = jitter
        self.shift_mm = shift_mm
        self.seed = seed
        self.drawn = dataset.drawn
        self.licence = dataset.licence
        self._crops: LastUsed[tuple[Region, Volume]] = LastUsed(_KEPT_VIEWS)

    def __repr__(self) -> str:
        known = vars(self).get("_entries")  # listed at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Case:
        entry = self._entries[index]
        case = self.dataset[entry.index]
        if entry.first is None:
            return case
        key = self._key(entry)
        region, crop = self._crops.get(key, lambda: self._look(entry))
        return _crop_case(case, region, crop, f"{case.case_id}@{key}")

    def volume_key(self, index: int) -> str:
        """Identity of the scan or the view of a case."""
        entry = self._entries[index]
        return self._key(entry) if entry.first is None else f"{self._key(entry)}-{self._digest}"

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        return self.dataset.patient_id(self._entries[index].index)

    def case_id(self, index: int) -> str:
        """Id of a case, with its view; empty where that of the whole scan is not known."""
        entry = self._entries[index]
        whole = self.dataset.case_id(entry.index)
        return whole if entry.first is None or not whole else f"{whole}@{self._key(entry)}"

    def scan_file(self, index: int) -> Path | None:
        """File of the whole scan."""
        return self.dataset.scan_file(self._entries[index].index)

    def case_source(self, index: int) -> str:
        """Where a case is written down."""
        return self.dataset.case_source(self._entries[index].index)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Those of the data set below."""
        return self.dataset.dropped

    def find_problems(self) -> Iterable[tuple[str, str, str]]:
        """Those of the data set below."""
        return self.dataset.find_problems()

    @property
    def split(self) -> str:
        """Split of the data set below; empty where it has none."""
        split = getattr(self.dataset, "split", "")
        return split if isinstance(split, str) else ""

    def _key(self, entry: _Entry) -> str:
        key = self.dataset.volume_key(entry.index)
        return key if entry.first is None else f"{key}@look-{entry.first}-{entry.view}"

    @cached_property
    def _digest(self) -> str:
        """Digits of the settings that decide where a view lies: other settings show another volume."""
        settings = [asdict(self.region), self.jitter, self.shift_mm, self.seed]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]

    @cached_property
    def _entries(self) -> list[_Entry]:
        numbers = range(len(self.dataset))
        entries: list[_Entry] = []
        for _, group in groupby(numbers, self.dataset.volume_key):
            own = list(group)
            entries += [_Entry(index) for index in own if self.whole]
            for first in own:
                count = int(self.views + np.random.default_rng([self.seed, first]).random())
                entries += [entry for view in range(count) for entry in self._view(first, view, own)]
        return entries

    def _view(self, first: int, view: int, own: list[int]) -> list[_Entry]:
        """Entries of a view: the question it is around, and its companions."""
        others = [index for index in own if index != first]
        rng = np.random.default_rng([self.seed, first, view, 0])
        asked = rng.choice(others, min(self.companions, len(others)), replace=False).tolist() if others else []
        return [_Entry(index, first, view) for index in (first, *asked)]

    def _look(self, entry: _Entry) -> tuple[Region, Volume]:
        """Where a second look goes after a first answer, and what it shows."""
        assert entry.first is not None, "the whole scan is no view"
        case = self.dataset[entry.first]
        rng = np.random.default_rng([self.seed, entry.first, entry.view, 1])
        first = self._first_answer(case, rng)
        region = region_around(first, case.volume.shape, case.volume.spacing, self.region)
        place = "-".join(map(str, chain.from_iterable(astuple(region))))  # settings and true mask decide on it
        return region, crop_volume(case.volume, region, f"{case.volume.volume_id}@{self._key(entry)}-{place}")

    def _first_answer(self, case: Case, rng: np.random.Generator) -> Evidence:
        """What a policy could have said at first."""
        target, shape = require_target(case), case.volume.shape
        size = np.array([shape[2], shape[1]])
        if not target.any():
            low = rng.uniform(0, 1 - _LARGEST, 2)
            high = low + rng.uniform(_SMALLEST, _LARGEST, 2)
            return Evidence(int(rng.integers(shape[0])), np.concatenate([low * size, high * size])[None])
        true = label_anchor(target, rule="any", split_boxes=False, jitter=self.jitter, rng=rng)
        assert true.key_slice is not None, "the target is present"
        x, y, z = rng.uniform(-self.shift_mm, self.shift_mm, 3) / np.array(case.volume.spacing)[::-1]
        boxes = np.clip(true.boxes + np.array([x, y, x, y]), 0, np.tile(size, 2))
        return Evidence(int(np.clip(round(true.key_slice + z), 0, shape[0] - 1)), boxes)


def _crop_case(case: Case, region: Region, crop: Volume, case_id: str) -> Case:
    """A case about a view: everything that lies on the scan's grid is cut to it; what it does not show is absent."""
    maps: dict[str, Any] = {}
    rows, columns = region.plane
    for field in fields(case):
        value = getattr(case, field.name)
        if isinstance(value, np.ndarray) and value.shape == case.volume.shape:
            maps[field.name] = np.ascontiguousarray(value[:, rows, columns])
    shown = bool(require_target(case)[slice(*region.z), rows, columns].any())
    if shown:
        anchor = None if case.anchor is None else move_in(case.anchor, region)
        return replace(case, case_id=case_id, volume=crop, anchor=anchor, **maps)
    maps["target"] = np.zeros(crop.shape, bool)
    return replace(case, case_id=case_id, volume=crop, query=replace(case.query, kind="absent"), anchor=None, **maps)
