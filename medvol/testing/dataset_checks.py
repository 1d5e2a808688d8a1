"""What every data set promises, looked at on its first cases and its last."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np

from medvol.checking.catalogue import PROBLEMS
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Query, Volume
from medvol.imaging.geometry import LPS, axis_codes
from medvol.testing.component_checks import require

_LOOKED_AT = 6


def check_cases(dataset: CaseDataset) -> None:
    """Every index gives a Case: a volume, a query and a target of their types."""
    for index in _indices(dataset):
        case = dataset[index]
        _require_type(case, Case, f"case {index}", "return a medvol.Case")
        for name, value, kind in (
            ("case_id", case.case_id, str),
            ("patient_id", case.patient_id, str),
            ("volume", case.volume, Volume),
            ("volume.voxels", case.volume.voxels, np.ndarray),
            ("volume.affine", case.volume.affine, np.ndarray),
            ("query", case.query, Query),
            ("query.text", case.query.text, str),
        ):
            _require_type(value, kind, f"{name} of case {index}", "fill it in")
        target = case.target
        _require_type(target, (np.ndarray, type(None)), f"target of case {index}", "give an array, or None")


def check_length(dataset: CaseDataset) -> None:
    """There is at least one case, and an index past either end is an IndexError, also where no case is read."""
    length = len(dataset)
    require(length > 0, "at least one case", length, "give the instance under test some data")
    for look_up in (dataset.__getitem__, dataset.volume_key, dataset.patient_id):
        for index in (length, -length - 1):
            try:
                look_up(index)
            except IndexError:
                continue
            what = f"an IndexError from {look_up.__name__} for the index {index} of {length} cases"
            require(False, what, "an answer", "loops stop at IndexError")


def check_negative_index(dataset: CaseDataset) -> None:
    """A negative index counts from the end."""
    for index in (-1, -len(dataset)):
        counted, named = dataset[index].case_id, dataset[len(dataset) + index].case_id
        require(counted == named, f"case {named!r} for the index {index}", repr(counted), "count from the end")


def check_target_form(dataset: CaseDataset) -> None:
    """A target is bool on the grid of its volume, or None."""
    for case in _some(dataset):
        target = case.target
        fine = target is None or (target.dtype == np.bool_ and target.shape == case.volume.shape)
        got = None if target is None else f"{target.dtype} {target.shape}"
        require(fine, f"a bool target of shape {case.volume.shape} in {case.case_id}", got, "compare with the label")


def check_absent_is_empty(dataset: CaseDataset) -> None:
    """A query of kind ``absent`` has an empty target, any other one does not."""
    for case in _some(dataset):
        if case.target is not None:
            empty, absent = not case.target.any(), case.query.kind == "absent"
            got = f"kind {case.query.kind!r} with {int(case.target.sum())} voxels in {case.case_id}"
            require(empty == absent, "the kind 'absent' for an empty target and for no other", got, "set query.kind")


def check_volume_form(dataset: CaseDataset) -> None:
    """Voxels are finite float32 (Z, Y, X)."""
    for case in _some(dataset):
        voxels = case.volume.voxels
        fine = voxels.ndim == 3 and voxels.dtype == np.float32 and bool(np.isfinite(voxels).all())
        got = f"{voxels.dtype} {voxels.shape} in {case.case_id}"
        require(fine, "finite float32 voxels (Z, Y, X)", got, "read scans with medvol.read_volume")


def check_affine(dataset: CaseDataset) -> None:
    """The affine is (4, 4), can be inverted, and says LPS."""
    for case in _some(dataset):
        affine = case.volume.affine
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        fine = affine.shape == (4, 4) and abs(np.linalg.det(affine[:3, :3])) > 1e-9 * np.prod(sizes)
        require(fine, f"a (4, 4) affine that can be inverted in {case.case_id}", affine.tolist(), "keep the scan's own")
        codes = axis_codes(affine)
        require(codes == "".join(LPS), f"axes in LPS order in {case.case_id}", codes, "reorient on reading")


def check_query(dataset: CaseDataset) -> None:
    """Every query has a text."""
    for case in _some(dataset):
        require(bool(case.query.text.strip()), f"a query in {case.case_id}", repr(case.query.text), "ask something")


def check_case_ids(dataset: CaseDataset) -> None:
    """Case ids are unique, and those named without reading a case are the cases' own."""
    names = [case.case_id for case in _some(dataset)]
    require(len(set(names)) == len(names), "unique case ids", names, "put the index into the id")
    for index, own in zip(_indices(dataset), names, strict=True):
        named = dataset.case_id(index)
        require(named in ("", own), f"case_id({index}) {own!r}, or empty", repr(named), "derive one from the other")


def check_volume_key(dataset: CaseDataset) -> None:
    """Cases hold one volume exactly when they have one volume key."""
    volumes: dict[str, str] = {}
    for index, case in zip(_indices(dataset), _some(dataset), strict=True):
        key, identity = dataset.volume_key(index), case.volume.volume_id
        same = volumes.setdefault(key, identity) == identity and bool(identity)
        require(same, f"one volume_id for the key {key!r}", (volumes[key], identity), "derive one from the other")
    distinct = len(set(volumes.values())) == len(volumes)
    require(distinct, "another volume_id for every other key", volumes, "derive one from the other")


def check_patient_id(dataset: CaseDataset) -> None:
    """The patient named without reading a case is the case's own."""
    for index, case in zip(_indices(dataset), _some(dataset), strict=True):
        named, own = dataset.patient_id(index), case.patient_id
        require(named == own, f"patient {own!r} for case {index}", repr(named), "let them agree")


def check_scan_file(dataset: CaseDataset) -> None:
    """The file of a scan, or its folder of DICOM, is there, or None is said; splits are compared by it."""
    for index in _indices(dataset):
        path = dataset.scan_file(index)
        there = path is None or path.exists()
        require(
            there,
            f"a file or a folder of DICOM, or None, for case {index}",
            repr(path),
            "return the path that the scan is read from",
        )


def check_find_problems(dataset: CaseDataset) -> None:
    """What is wrong with the sources is named as in the catalogue; nothing is, in the instance under test."""
    for name, place, detail in dataset.find_problems():
        require(name in PROBLEMS, f"a name out of {', '.join(PROBLEMS)}", repr(name), "use one of them")
        sound, mend = PROBLEMS[name].warning, "give the instance under test sound data"
        require(sound, "sources without a problem but warnings", f"{place}: {detail}", mend)


def check_volumes_are_adjacent(dataset: CaseDataset) -> None:
    """Cases of one volume lie next to one another."""
    runs = [key for key, _ in groupby(dataset.volume_key(i) for i in range(len(dataset)))]
    scattered = sorted({key for key in runs if runs.count(key) > 1}) if len(set(runs)) < len(runs) else []
    require(not scattered, "all cases of a volume in one run", scattered[:3], "sort the cases by volume")


def check_repeatable(dataset: CaseDataset) -> None:
    """The same index always gives the same case."""
    for index in _indices(dataset)[:3]:
        _require_same(dataset[index], dataset[index], f"case {index} again", "draw from a seed made of the index")


def check_picklable(dataset: CaseDataset) -> None:
    """Worker processes get a copy that gives the same cases."""
    try:
        copy = pickle.loads(pickle.dumps(dataset))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise AssertionError(
            f"expected a data set that can be sent to a worker process; got {type(error).__name__}: {error}; open "
            "files and start generators in __getitem__"
        ) from error
    _require_same(dataset[0], copy[0], "case 0 from a copy", "keep everything that it depends on in the settings")


def _indices(dataset: CaseDataset) -> list[int]:
    length = len(dataset)
    return sorted({*range(min(length, _LOOKED_AT)), length - 1})


def _some(dataset: CaseDataset) -> list[Case]:
    cases = [dataset[index] for index in _indices(dataset)]
    for index, case in zip(_indices(dataset), cases, strict=True):
        _require_type(case, Case, f"case {index}", "return a medvol.Case")
    return cases


def _require_type(value: Any, kind: type | tuple[type, ...], what: str, mend: str) -> None:
    names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
    require(isinstance(value, kind), f"{what} to be {names}", f"{type(value).__name__} {value!r:.100}", mend)


def _require_same(first: Case, second: Case, what: str, mend: str) -> None:
    same = {
        "case_id": first.case_id == second.case_id,
        "query": first.query == second.query,
        "voxels": np.array_equal(first.volume.voxels, second.volume.voxels),
        "affine": np.array_equal(first.volume.affine, second.volume.affine),
        "target": (first.target is None) == (second.target is None)
        and (first.target is None or second.target is None or np.array_equal(first.target, second.target)),
    }
    changed = [name for name, equal in same.items() if not equal]
    require(not changed, f"the same {what}", f"another {', '.join(changed)}", mend)


DATASET_CHECKS: tuple[Callable[[CaseDataset], None], ...] = (
    check_cases,
    check_length,
    check_negative_index,
    check_target_form,
    check_absent_is_empty,
    check_volume_form,
    check_affine,
    check_query,
    check_case_ids,
    check_volume_key,
    check_patient_id,
    check_scan_file,
    check_find_problems,
    check_volumes_are_adjacent,
    check_repeatable,
    check_picklable,
)
