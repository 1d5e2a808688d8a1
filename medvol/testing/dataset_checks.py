"""What every case data set promises."""

from __future__ import annotations

import pickle
from itertools import groupby

import numpy as np

from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.testing.contract import require

LOOKED_AT = 6
"""Cases that are read in a check, spread over the data set."""


def check_length(dataset: CaseDataset) -> None:
    """There is at least one case, and the length stays the same."""
    lengths = len(dataset), len(dataset)
    require(lengths[0] == lengths[1] > 0, "length", "the same positive number", lengths, "give it at least one case")


def check_index_bounds(dataset: CaseDataset) -> None:
    """An index past either end raises ``IndexError``."""
    for index in (len(dataset), -len(dataset) - 1):
        for name, look_up in (
            ("dataset[i]", dataset.__getitem__),
            ("volume_key", dataset.volume_key),
            ("patient_id", dataset.patient_id),
        ):
            got = "no error"
            try:
                look_up(index)
            except IndexError:
                continue
            except Exception as error:
                got = type(error).__name__
            require(False, f"{name} at {index} of {len(dataset)}", "IndexError", got, "raise it")


def check_negative_index(dataset: CaseDataset) -> None:
    """A negative index counts from the end."""
    last, also = dataset[len(dataset) - 1], dataset[-1]
    require(last.case_id == also.case_id, "dataset[-1]", last.case_id, also.case_id, "count from the end")


def check_target(dataset: CaseDataset) -> None:
    """A target mask is boolean and on the volume's grid."""
    for case in _some(dataset):
        mask = case.target
        require(
            mask is None or (mask.dtype == np.bool_ and mask.shape == case.volume.shape),
            f"target of {case.case_id}",
            f"bool of shape {case.volume.shape}, or None",
            "" if mask is None else f"{mask.dtype} of shape {mask.shape}",
            "return mask > 0 on the volume's grid",
        )


def check_absent_targets_say_so(dataset: CaseDataset) -> None:
    """A query is of the kind ``absent`` exactly when its target mask is empty."""
    for case in _some(dataset):
        if case.target is not None:
            agrees = (case.query.kind == "absent") == (not case.target.any())
            got = f"kind {case.query.kind!r} with {int(case.target.sum())} voxels"
            require(agrees, f"query of {case.case_id}", "absent exactly for an empty mask", got, "set Query.kind")


def check_volume(dataset: CaseDataset) -> None:
    """Voxels are finite float32 with three axes."""
    for case in _some(dataset):
        voxels = case.volume.voxels
        good = voxels.dtype == np.float32 and voxels.ndim == 3 and bool(np.isfinite(voxels).all())
        got = f"{voxels.dtype} of shape {voxels.shape}"
        require(good, f"volume of {case.case_id}", "finite float32 (Z, Y, X)", got, "use medvol.read_volume")


def check_affine(dataset: CaseDataset) -> None:
    """An affine is finite and can be inverted, and x runs to the left, y to the back, z to the head."""
    for case in _some(dataset):
        affine = case.volume.affine
        good = affine.shape == (4, 4) and bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine)) > 1e-9
        require(good, f"affine of {case.case_id}", "an invertible 4x4", affine.tolist(), "keep the scan's geometry")
        lps = affine[0, 0] < 0 and affine[1, 1] < 0 and affine[2, 2] > 0
        require(lps, f"orientation of {case.case_id}", "LPS", np.diag(affine).tolist(), "use medvol.read_volume")


def check_query(dataset: CaseDataset) -> None:
    """A query has text."""
    for case in _some(dataset):
        text = case.query.text
        require(bool(text.strip()), f"query of {case.case_id}", "a text", repr(text), "write one in the query bank")


def check_case_ids_are_unique(dataset: CaseDataset) -> None:
    """No two cases share an id."""
    ids = [case.case_id for case in _some(dataset)]
    require(len(set(ids)) == len(ids), "ids of cases", "all different", ids, "put the index into the id")


def check_patient_id(dataset: CaseDataset) -> None:
    """``patient_id`` says what the case says."""
    for index in _places(dataset):
        told, held = dataset.patient_id(index), dataset[index].patient_id
        require(told == held, f"patient_id({index})", repr(held), repr(told), "take both from one place")


def check_volume_key(dataset: CaseDataset) -> None:
    """Cases have one volume exactly when they have one key."""
    seen: dict[str, str] = {}
    for index in _places(dataset):
        key, volume_id = dataset.volume_key(index), dataset[index].volume.volume_id
        require(bool(volume_id), f"volume_id of case {index}", "a text", repr(volume_id), "identify the volume")
        known = seen.setdefault(key, volume_id)
        require(known == volume_id, f"volume of the key {key!r}", known, volume_id, "use one key a volume")
    require(
        len(set(seen.values())) == len(seen), "volumes of different keys", "different", seen, "use one key a volume"
    )


def check_neighbours_share_the_volume(dataset: CaseDataset) -> None:
    """Cases of one volume lie next to one another."""
    keys = [key for key, _ in groupby(dataset.volume_key(index) for index in range(len(dataset)))]
    apart = sorted({key for key in keys if keys.count(key) > 1})[:3]
    require(not apart, "cases of one volume", "side by side", f"apart for {apart}", "sort the cases by volume")


def check_same_case_twice(dataset: CaseDataset) -> None:
    """The same index always gives the same case."""
    for index in _places(dataset):
        require(
            _same(dataset[index], dataset[index]), f"case {index} read twice", "the same", "another", "draw nothing"
        )


def check_picklable(dataset: CaseDataset) -> None:
    """The data set can be sent to a worker process and reads the same there."""
    index = len(dataset) - 1
    case = dataset[index]
    copy = pickle.loads(pickle.dumps(dataset))
    require(
        _same(copy[index], case), f"case {index} of a pickled copy", "the same", "another", "draw by index and seed"
    )


def _places(dataset: CaseDataset) -> list[int]:
    return sorted(set(np.linspace(0, len(dataset) - 1, LOOKED_AT).astype(int).tolist()))


def _some(dataset: CaseDataset) -> list[Case]:
    return [dataset[index] for index in _places(dataset)]


def _same(first: Case, second: Case) -> bool:
    if first.target is None or second.target is None:
        same_target = first.target is second.target
    else:
        same_target = np.array_equal(first.target, second.target)
    arrays = ((first.volume.voxels, second.volume.voxels), (first.volume.affine, second.volume.affine))
    plain = (first.case_id, first.query, first.patient_id) == (second.case_id, second.query, second.patient_id)
    return plain and same_target and all(np.array_equal(a, b) for a, b in arrays)


CHECKS = (
    check_length,
    check_index_bounds,
    check_negative_index,
    check_target,
    check_absent_targets_say_so,
    check_volume,
    check_affine,
    check_query,
    check_case_ids_are_unique,
    check_patient_id,
    check_volume_key,
    check_neighbours_share_the_volume,
    check_same_case_twice,
    check_picklable,
)
