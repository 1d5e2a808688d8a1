"""Evidence records: a JSON file beside every mask that a person can read, check and edit.

What counts when an edited record is read is ``evidence.key_slice`` and ``evidence.boxes_px``; the same place in the
stored file's axes, in the grammar's integers and in world millimetres is written beside it for other programs. An
answer with several anchors has the others under ``evidence.further``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medvol.core.errors import RecordError
from medvol.core.json_file import read_json
from medvol.core.looks import Look
from medvol.core.types import Evidence, Volume
from medvol.imaging.dicom.outputs import KINDS
from medvol.imaging.file_names import METAIMAGE, NRRD, ends_in
from medvol.imaging.geometry import axis_codes
from medvol.inference.readings import Reading, take_reading
from medvol.inference.record_fields import RecordFields

SCHEMA = "medvol-evidence/1"
"""Version of the record's layout."""

DICOM_SUFFIXES: dict[str, str] = {kind: f".{kind}.dcm" for kind in KINDS}
"""Endings of the DICOM outputs beside a record."""

PAGE_SUFFIX = ".html"
"""Ending of the page that shows an answer."""

AGREEMENT_SUFFIX = ".agreement.nii.gz"
"""Ending of the map of the agreement of sampled answers."""

FAILED_SUFFIX = ".failed.json"
"""Ending of the file that keeps the words of an answer without a mask."""

_REMEDY = "correct it, or segment the scan again"

_GIVEN: dict[str, type | tuple[type, ...]] = {"assume_orientation": str, "nan_to": (int, float)}
"""Settings of the reader that are given again, besides the modality, and what they are."""


@dataclass(frozen=True, eq=False)
class EvidenceRecord:
    """A record read back.

    Args:
        query: Text of the question.
        evidence: The anchors, boxes in pixels of the LPS volume's slice.
        completion: The policy's own words.
        scan_path: Scan it was written for; None for a volume made in memory.
        scan_sha256: Hash of that scan's voxels and geometry, see ``hash_volume``.
        series: What its DICOM series was named by; None when none was named.
        mask_file: Name of the mask beside the record.
        mask: What the mask measures, see ``measure_mask``.
        not_written: Why files that were asked for are not there, by their kind.
        policy: Identity of the policy.
        propagator: Identity of the propagator.
        sampling: How the completion was drawn.
        edited: True when the anchor is no longer what the completion says.
        confidence: What was known about how far it can be trusted; empty where the anchor came from a record.
        dicom: Kinds of the DICOM outputs beside it.
        with_patient: True when they say who the patient is.
        modality: What the scan was read as; None where the record does not say.
        read_with: What the reader was given besides the scan, such as a modality; None where the record does not say.
        orientation: Which way the axes of the scan's file run, such as ``RAS``; None where the record does not say.
        reading: What a person made of an answer; None for a policy's own.
        looks: Every look of a policy that looks more than once; empty for other policies.
        described: What it says under ``evidence``, as it stands there: the places of the anchor that are written for
            other programs too, and that are not read.
    """

    query: str
    evidence: Evidence
    completion: str
    scan_path: str | None
    scan_sha256: str
    mask_file: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    propagator: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    edited: bool = False
    series: str | None = None
    mask: Mapping[str, Any] = field(default_factory=dict)
    not_written: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    dicom: frozenset[str] = frozenset()
    with_patient: bool = False
    modality: str | None = None
    read_with: Mapping[str, Any] | None = None
    orientation: str | None = None
    reading: Reading | None = None
    looks: tuple[Look, ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reader_settings(self) -> dict[str, Any]:
        """What the reader of scans has to be given, to read the scan as it was read for the answer."""
        given = {name: value for name, value in (self.read_with or {}).items() if name in _GIVEN}
        return {**given, **({} if self.modality is None else {"modality": self.modality})}

    @property
    def has_agreement_map(self) -> bool:
        """True when a map of the agreement was written beside it, under its name with ``AGREEMENT_SUFFIX``."""
        agreement = self.confidence.get("agreement")
        return isinstance(agreement, dict) and "masks" in agreement and "agreement" not in self.not_written


def answer_paths(folder: Path, name: str, suffix: str) -> dict[str, Path]:
    """Where the files of an answer lie, by their kind; ``suffix`` is the mask's, see ``mask_suffix``."""
    endings: dict[str, str] = {
        "mask": suffix,
        "record": ".json",
        "overlay": ".png",
        "page": PAGE_SUFFIX,
        "agreement": AGREEMENT_SUFFIX,
        **DICOM_SUFFIXES,
    }
    return {kind: folder / f"{name}{ending}" for kind, ending in endings.items()}


def read_record(path: str | Path) -> EvidenceRecord:
    """Read a record that a person may have edited; every field is checked.

    Raises:
        RecordError: The file is missing or not JSON, or a field is missing, of the wrong type or out of range; the
            message names the field, the value received and what to do.
    """
    path = Path(path)
    fields = RecordFields(path, read_json(path, "`medvol segment` writes one beside every mask", _REMEDY))
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise RecordError(f"{path}: schema is {schema!r}; this version of medvol reads {SCHEMA!r}")
    says_dicom = fields.content.get("dicom") is not None
    return EvidenceRecord(
        query=fields.text("query"),
        evidence=fields.evidence("evidence"),
        completion=fields.text("completion", may_be_empty=True),
        **scan_fields(fields),
        mask_file=fields.file_name("mask.file"),
        mask=fields.mapping("mask"),
        not_written=fields.mapping("not_written"),
        policy=fields.mapping("policy"),
        propagator=fields.mapping("propagator"),
        sampling=fields.mapping("sampling"),
        edited=fields.flag("edited"),
        confidence=fields.mapping("confidence") if fields.content.get("confidence") is not None else {},
        dicom=frozenset(fields.mapping("dicom.files")).intersection(KINDS) if says_dicom else frozenset(),
        with_patient=fields.flag("dicom.with_patient") if says_dicom else False,
        reading=_read_reading(fields),
        looks=fields.looks() if "looks" in fields.content else (),
        described=fields.mapping("evidence"),
    )


def scan_fields(fields: RecordFields) -> dict[str, Any]:
    """What ``EvidenceRecord`` keeps of a scan, under its own names: which it is, and how it was read.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    told = fields.mapping("scan")
    return {
        "scan_path": fields.optional_text("scan.path"),
        "scan_sha256": fields.text("scan.sha256"),
        "series": fields.optional_text("scan.series") if "series" in told else None,
        "modality": fields.optional_text("scan.modality") if "modality" in told else None,
        "read_with": _read_settings(fields) if "read_with" in told else None,
        "orientation": _read_orientation(fields) if "affine_stored" in told else None,
    }


def _read_orientation(fields: RecordFields) -> str:
    """Which way the axes of the scan's file run, in three letters.

    Raises:
        RecordError: What it says of them is no affine.
    """
    given = fields.get("scan.affine_stored")
    try:
        affine = np.array(given, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError
        return axis_codes(affine)
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise RecordError(f"{fields.path}: scan.affine_stored is {given!r:.80}; {_REMEDY}") from error


def _read_settings(fields: RecordFields) -> Mapping[str, Any]:
    settings = fields.mapping("scan.read_with")
    for name, kind in _GIVEN.items():
        if name in settings and (not isinstance(settings[name], kind) or isinstance(settings[name], bool)):
            raise RecordError(f"{fields.path}: scan.read_with.{name} is {settings[name]!r}; {_REMEDY}")
    return settings


def _read_reading(fields: RecordFields) -> Reading | None:
    if fields.content.get("reading") is None:
        return None
    return take_reading(fields.mapping("reading"), f"{fields.path}: reading")


def find_record(path: Path) -> EvidenceRecord | None:
    """A record, or None where there is none that can be read."""
    try:
        return read_record(path)
    except (RecordError, OSError):
        return None


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON: tuples become lists, anything that JSON lacks becomes text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain


def mask_suffix(volume: Volume) -> str:
    """Format of the mask: the scan's own where it is NRRD or MetaImage, else NIfTI."""
    return suffix_beside(None if volume.source is None else volume.source.path)


def suffix_beside(scan: Path | None) -> str:
    """Format of the mask of the scan that lies there; None for a volume made in memory."""
    if scan is not None and ends_in(scan, NRRD):
        return ".nrrd"
    return ".mha" if scan is not None and ends_in(scan, METAIMAGE) else ".nii.gz"
