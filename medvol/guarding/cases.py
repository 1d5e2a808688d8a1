"""Asking a data set for its cases, and for the names of what they are about, through the guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medvol.core.containment import say
from medvol.core.errors import DatasetError, MedvolError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.guarding.guard import guarded
from medvol.guarding.promises import BreachError, read_case


def look_up(dataset: CaseDataset | Sequence[Case], index: int) -> Case:
    """Case of a data set, or of a list of them.

    Raises:
        DatasetError: It failed, or is no case.
    """
    with guarded(dataset, DatasetError, doing=f"failed on case {index}", passing=(MedvolError,)):
        return read_case(dataset[index], index)


def count_cases(dataset: CaseDataset | Sequence[Case]) -> int:
    """How many cases a data set has, or a list of them.

    Raises:
        DatasetError: It failed.
    """
    with guarded(dataset, DatasetError, doing="failed to count its cases", passing=(MedvolError,)):
        return len(dataset)


def list_volumes(dataset: CaseDataset) -> list[str]:
    """Volume key of every case of a data set; reads no volume.

    Raises:
        DatasetError: It failed, or a key is no text.
    """
    return _list_names(dataset, dataset.volume_key, "volume key")


def list_patients(dataset: CaseDataset) -> list[str]:
    """Patient of every case of a data set; reads no volume.

    Raises:
        DatasetError: It failed, or a patient is no text.
    """
    return _list_names(dataset, dataset.patient_id, "patient")


def find_scan_file(dataset: CaseDataset, index: int) -> Path | None:
    """File that the scan of a case is read from; None where it is not known.

    Raises:
        DatasetError: The data set failed, or gave something else.
    """
    with guarded(dataset, DatasetError, doing=f"failed on the file of case {index}", passing=(MedvolError,)):
        path: object = dataset.scan_file(index)
        if path is not None and not isinstance(path, Path):
            raise BreachError(f"gave the file {say(path)} for case {index}; it is a Path or None")
        return path


def _list_names(dataset: CaseDataset, name_of: Callable[[int], object], what: str) -> list[str]:
    with guarded(dataset, DatasetError, doing=f"failed on its {what}s", passing=(MedvolError,)):
        names = [name_of(index) for index in range(len(dataset))]
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise BreachError(f"gave the {what} {say(name)} for case {index}; it is a str")
        return [str(name) for name in names]
