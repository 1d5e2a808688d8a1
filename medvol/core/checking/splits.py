"""Looking at the data sets of an experiment: their sources, some or all of their cases, and what they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medvol.core.checking.reports import Finding, Report
from medvol.core.errors import DatasetError, MedvolError
from medvol.core.imaging.problems import RefusedScanError
from medvol.core.roles import CaseDataset
from medvol.core.training.leakage import Leak, shared_files, shared_patients, shared_scans
from medvol.core.types import Case

FEW = 3
"""Volumes of a split that are read when not all are."""

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

    def add(self, key: str, case: Case) -> None:
        volume = case.volume
        if key not in self.volumes:
            self.volumes.add(key)
            self.spacings.append(volume.spacing)
            self.shapes.append(volume.shape)
            self.modalities.add(volume.modality)
            low, high = np.percentile(volume.voxels, (1, 99)).tolist()
            self.intensities.append((low, high))
        if case.target is not None and case.query.target:
            voxel_ml = float(np.prod(volume.spacing)) / 1000
            self.target_ml[case.query.target].append(float(case.target.sum()) * voxel_ml)

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


def check_splits(splits: Mapping[str, CaseDataset], thorough: bool, compare: bool) -> Report:
    """Look at every split of an experiment.

    Args:
        splits: Data sets by name; ``predict`` needs no masks and may share patients with the others.
        thorough: Read every case; only the first case of the first volumes otherwise.
        compare: Also compare what scans look like; reads every volume.
    """
    findings: list[Finding] = []
    facts: dict[str, dict[str, Any]] = {}
    usable: dict[str, CaseDataset] = {}
    for split, dataset in splits.items():
        sources = [Finding(name, f"{split}: {place}", detail) for name, place, detail in dataset.find_problems()]
        findings += sources
        try:
            count = len(dataset)
        except MedvolError as error:
            findings += [] if sources else [Finding("bad_layout", split, str(error))]
            continue
        facts[split], found = _check_split(split, dataset, count, thorough)
        findings += found
        usable |= {split: dataset} if split != "predict" and count else {}
    return Report((*findings, *_find_leaks(usable, compare)), splits=facts)


def _check_split(split: str, dataset: CaseDataset, count: int, thorough: bool) -> tuple[dict[str, Any], list[Finding]]:
    keys = [dataset.volume_key(index) for index in range(count)]
    chosen = list(range(count) if thorough else _first_of_volumes(keys))
    tally, findings = _Tally(), [] if count else [Finding("no_cases", split, "the data set holds no case")]
    for index in chosen:
        try:
            case = dataset[index]
            tally.add(keys[index], case)
        except MedvolError as error:
            findings.append(_refusal(split, index, error))
            continue
        findings += _check_case(split, case, needs_target=split != "predict")
    facts = {
        "cases": count,
        "volumes": len(set(keys)),
        "patients": len({dataset.patient_id(index) for index in range(count)}),
        "read": len(chosen),
        "usable": len(chosen) - len({finding.place for finding in findings if finding.name != "no_cases"}),
    }
    dropped = {"relations_without_answer": dict(dataset.dropped)} if dataset.dropped else {}
    return {**facts, **tally.to_dict(), **dropped}, findings


def _refusal(split: str, index: int, error: MedvolError) -> Finding:
    """A case that cannot be read; a refused scan keeps its own code."""
    name = error.code if isinstance(error, RefusedScanError) else "bad_case"
    return Finding(name, f"{split}: case {index}", str(error))


def _check_case(split: str, case: Case, needs_target: bool) -> Iterator[Finding]:
    place = f"{split}: {case.case_id}"
    if not case.query.text.strip():
        yield Finding("empty_query", place, "its query is empty")
    if case.target is None:
        if needs_target:
            yield Finding("no_target", place, "it has no target mask, and this split is scored")
    elif case.target.shape != case.volume.shape:
        yield Finding("other_shape", place, f"mask {case.target.shape} and volume {case.volume.shape} differ in shape")
    elif case.query.kind != "absent" and not case.target.any():
        yield Finding("empty_target", place, f"the mask of {case.query.target or case.query.text!r} is empty")


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


def _first_of_volumes(keys: list[str]) -> Iterable[int]:
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    return list(first.values())[:FEW]
