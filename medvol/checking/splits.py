"""Looking at the data sets of an experiment: their sources, their cases, and what they share."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medvol.checking.cases import SideCheck, check_case, check_volume
from medvol.checking.findings import CheckReport, Finding
from medvol.checking.leakage import Leak, shared_files, shared_patients, shared_scans
from medvol.core.errors import DatasetError, MedvolError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.guarding.cases import list_patients, list_volumes
from medvol.imaging.formats.problems import RefusedScanError

SECONDS = 120.0
"""Time for reading the cases of an experiment, where not all must be read."""

Hear = Callable[[str, int, int], None]
"""Takes a split, how many of its cases were read, and how many there are."""

_GOLDEN = 0.6180339887498949

_LEAKS = {"patient": "shared_patient", "file": "shared_file", "scan": "shared_scan"}


@dataclass
class _Tally:
    """What the cases of a split are, as they are read."""

    spacings: list[tuple[float, float, float]] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    intensities: list[tuple[float, float]] = field(default_factory=list)
    modalities: set[str] = field(default_factory=set)
    target_ml: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    volumes: set[str] = field(default_factory=set)

    def add(self, key: str, case: Case) -> bool:
        """True when the case is the first of its volume."""
        volume, fresh = case.volume, key not in self.volumes
        if fresh:
            self.volumes.add(key)
            self.spacings.append(volume.spacing)
            self.shapes.append(volume.shape)
            self.modalities.add(volume.modality)
            low, high = volume.percentiles((1, 99))
            self.intensities.append((low, high))
        if case.target is not None and case.query.target:
            voxel_ml = float(np.prod(volume.spacing)) / 1000
            self.target_ml[case.query.target].append(float(case.target.sum()) * voxel_ml)
        return fresh

    def to_dict(self) -> dict[str, Any]:
        if not self.volumes:
            return {}
        return {
            "spacing_mm": [np.min(self.spacings, axis=0).tolist(), np.max(self.spacings, axis=0).tolist()],
            "shape": [np.min(self.shapes, axis=0).tolist(), np.max(self.shapes, axis=0).tolist()],
            "intensities_1_to_99_percent": [
                min(low for low, _ in self.intensities),
                max(h for _, h in self.intensities),
            ],
            "modalities": sorted(self.modalities),
            "target_ml": {
                name: {"cases": len(sizes), "median": float(np.median(sizes))}
                for name, sizes in sorted(self.target_ml.items())
            },
        }


def check_splits(
    splits: Mapping[str, CaseDataset],
    compare: bool,
    seconds: float | None = SECONDS,
    hear: Hear = lambda split, read, count: None,
    refuse: Mapping[str, Callable[[Case], None]] | None = None,
) -> CheckReport:
    """Look at every case of every split of an experiment, as far as time allows.

    Args:
        splits: Data sets by name; ``predict`` needs no masks and may share patients with the others.
        compare: Also compare what scans look like; reads every volume.
        seconds: Time for reading cases. Where it does not suffice, scans are read that lie spread over the whole split,
            at least one; None reads all.
        hear: Called with the split, the number of cases read and their number in all, for a display of progress.
        refuse: By split, what raises a ``MedvolError`` for a case that a run would refuse; the first such case is told.
    """
    findings = [*_check_sources(splits)]
    facts: dict[str, dict[str, Any]] = {}
    usable: dict[str, CaseDataset] = {}
    found: dict[str, list[Finding]] = {}
    counts = _count(splits, findings)
    end = None if seconds is None else time.monotonic() + seconds
    for done, split in enumerate(sorted(counts, key=lambda name: counts[name])):  # what a small one leaves, a large has
        reading = _Reading(split, splits[split], _share(end, len(counts) - done), hear, (refuse or {}).get(split))
        facts[split], found[split] = reading.run()
        usable |= {split: splits[split]} if split != "predict" and counts[split] else {}
    findings += [finding for split in splits if split in found for finding in found[split]]
    ordered = {split: data for split, data in splits.items() if split in usable}
    return CheckReport((*findings, *_find_leaks(ordered, compare)), splits={s: facts[s] for s in splits if s in facts})


def _share(end: float | None, splits: int) -> float | None:
    """When a split must be done, if those that are left have equal parts of the time."""
    now = time.monotonic()
    return None if end is None else now + max(0.0, end - now) / splits


def _check_sources(splits: Mapping[str, CaseDataset]) -> Iterator[Finding]:
    """What is wrong with tables and lists; what several splits read is named once."""
    named: dict[tuple[str, str, str], list[str]] = {}
    for split, dataset in splits.items():
        try:
            for problem in dataset.find_problems():
                named.setdefault(problem, []).append(split)
        except Exception as error:
            named.setdefault(("bad_layout", "", _tell(error)), []).append(split)
    for (name, place, detail), owners in named.items():
        yield Finding(name, ": ".join(filter(None, (", ".join(owners), place))), detail)


def _count(splits: Mapping[str, CaseDataset], findings: list[Finding]) -> dict[str, int]:
    """Cases of the splits that can be opened; the others are added to the findings, where nothing explains them yet."""
    counts = {}
    for split, dataset in splits.items():
        try:
            counts[split] = len(dataset)
        except Exception as error:
            explained = any(
                split in finding.place.partition(":")[0].split(", ") and not finding.problem.warning
                for finding in findings
            )
            findings += [] if explained else [Finding("bad_layout", split, _tell(error))]
    return counts


def _tell(error: Exception) -> str:
    return str(error) if isinstance(error, MedvolError) else f"{type(error).__name__}: {error}"


@dataclass
class _Reading:
    """Reads the cases of a split, scan by scan.

    Args:
        split: Its name.
        dataset: Its cases.
        end: Time at which no further scan is begun; None reads all.
        hear: See ``check_splits``.
        refuse: See ``check_splits``; None refuses no case.
    """

    split: str
    dataset: CaseDataset
    end: float | None
    hear: Hear
    refuse: Callable[[Case], None] | None = None

    def run(self) -> tuple[dict[str, Any], list[Finding]]:
        """Counts and ranges of the split, and what was found."""
        self._count = len(self.dataset)
        self._tally, self._sides = _Tally(), SideCheck()
        scans: dict[str, list[int]] = defaultdict(list)
        for index, key in enumerate(list_volumes(self.dataset)):
            scans[key].append(index)
        found: dict[int, list[Finding]] = {}
        for key in _spread(list(scans)):
            if found and self.end is not None and time.monotonic() > self.end:
                break
            for index in scans[key]:
                found[index] = list(self._look(index, key))
            self.hear(self.split, len(found), self._count)
        findings = [finding for index in sorted(found) for finding in found[index]]
        findings += [] if self._count else [Finding("no_cases", self.split, "the data set holds no case")]
        return self._facts(found, scans), list(dict.fromkeys(findings))

    def _look(self, index: int, key: str) -> Iterator[Finding]:
        source = self.dataset.case_source(index)
        try:
            case = self.dataset[index]
            fresh = self._tally.add(key, case)
        except Exception as error:
            name = error.code if isinstance(error, RefusedScanError) else "bad_case"
            place = f"{self.split}: {source or f'case {index}'}"
            yield Finding(name, place, _tell(error).removeprefix(f"{source}: "))
            return
        place = f"{self.split}: {source or case.case_id}"
        yield from check_volume(place, case.volume) if fresh else ()
        yield from check_case(place, case, needs_target=self.split != "predict")
        yield from self._sides.add(place, key, case)
        yield from self._find_refused(place, case)

    def _find_refused(self, place: str, case: Case) -> Iterator[Finding]:
        try:
            if self.refuse is not None:
                self.refuse(case)
        except MedvolError as error:
            self.refuse = None
            yield Finding("refused_setting", place, _tell(error))

    def _facts(self, found: dict[int, list[Finding]], scans: Collection[str]) -> dict[str, Any]:
        usable = [own for own in found.values() if all(finding.problem.warning for finding in own)]
        facts = {
            "cases": self._count,
            "volumes": len(scans),
            "patients": len(set(list_patients(self.dataset))),
            "read": len(found),
            "usable": len(usable),
        }
        dropped = {"relations_without_answer": dict(self.dataset.dropped)} if self.dataset.dropped else {}
        return {**facts, **self._tally.to_dict(), **dropped}


def _spread(keys: list[str]) -> list[str]:
    """Keys in an order whose every beginning lies spread over all of them."""
    order = sorted(range(len(keys)), key=lambda place: (place * _GOLDEN) % 1)
    return [keys[place] for place in order]


def _find_leaks(splits: Mapping[str, CaseDataset], compare: bool) -> Iterator[Finding]:
    leaks = [*shared_patients(splits), *shared_files(splits)]
    known = {frozenset(leak.names) for leak in leaks}
    try:
        scans = shared_scans(splits) if compare else []
    except (MedvolError, DatasetError) as error:
        yield Finding("bad_case", "compare", str(error))
        scans = []
    for leak in (*leaks, *(leak for leak in scans if frozenset(leak.names) not in known)):
        yield Finding(_leak_name(leak), " and ".join(leak.splits), str(leak))


def _leak_name(leak: Leak) -> str:
    return _LEAKS[leak.kind] if leak.splits[0] != leak.splits[1] else "same_scan"
