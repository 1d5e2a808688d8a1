"""Errors of medvol go from one process to another as they are."""

import copy
import importlib
import pickle
import pkgutil
from pathlib import Path

import pytest

import medvol
from medvol.core.errors import EvidenceParseError, MedvolError, MissingExtraError, OutputError
from medvol.imaging.formats.problems import UnreadableScanError


def subclasses(kind: type) -> set[type]:
    return {kind} | {found for child in kind.__subclasses__() for found in subclasses(child)}


def errors() -> list[MedvolError]:
    for room in ("core", "imaging", "cli"):
        for module in pkgutil.walk_packages([str(Path(medvol.__file__).parent / room)], f"medvol.{room}."):
            if module.name.rpartition(".")[2] in ("errors", "problems", "parsing"):
                importlib.import_module(module.name)
    special = {
        EvidenceParseError: ("no_answer", "it says nothing"),
        MissingExtraError: ("pydicom", "dicom"),
        OutputError: ({"mask": Path("m.nii.gz")}, {"seg": "the disk is full"}),
    }
    made = []
    for kind in sorted(subclasses(MedvolError), key=lambda kind: kind.__qualname__):
        if not kind.__module__.startswith("medvol."):
            continue
        try:
            made.append(kind(*special.get(kind, ("a sentence",))))
        except TypeError:
            made.append(kind(Path("ct.nii"), "a detail"))
    return made


@pytest.mark.parametrize("send", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_arrives_as_it_was(send) -> None:
    found = errors()
    assert {type(error) for error in found} >= {EvidenceParseError, MissingExtraError, OutputError, UnreadableScanError}
    for error in found:
        other = send(error)
        assert type(other) is type(error)
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
