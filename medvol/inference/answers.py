"""Which questions are answered already: by a record of the same question, with its mask beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import file_sha256
from medvol.core.errors import GeometryError, MedvolError, RecordError
from medvol.core.types import Volume
from medvol.core.visible_text import quote
from medvol.imaging.dicom.outputs import NO_DICOM, DicomOutputs
from medvol.imaging.geometry import stored_orientation
from medvol.imaging.reading import read_mask
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.changes import was_changed
from medvol.inference.jobs import Job
from medvol.inference.known_scans import KnownScan
from medvol.inference.names import digest_question, require_no_scan, scan_places
from medvol.inference.records import (
    AGREEMENT_SUFFIX,
    DICOM_SUFFIXES,
    EvidenceRecord,
    answer_paths,
    find_record,
    mask_suffix,
    suffix_beside,
)
from medvol.inference.repropagation import lacks_its_mask

log = logging.getLogger(__name__)

Answer = tuple[Path, EvidenceRecord]
"""Path of a record, and what it says."""

_WAYS_OUT = "choose another name or another --out, or add --overwrite"
_CHANGED = "or its mask was changed by hand"


@dataclass(frozen=True)
class Question:
    """A job whose scan is known, and by whom it is answered: what decides where its answer lies.

    Args:
        job: One query about one scan.
        scan_sha256: Hash of the scan's voxels and geometry, wherever it lies.
        modality: What the scan was read as.
        orientation: Which way the axes of its file run: the mask has its grid.
        suffix: Format of the mask.
        identity: Of the policy and the propagator, as plain values.
    """

    job: Job
    scan_sha256: str
    modality: str
    orientation: str
    suffix: str
    identity: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Stem of the files of the answer, see ``medvol.inference.names``."""
        job = self.job
        if job.named:
            return job.name
        digest = digest_question(
            self.scan_sha256, self.modality, self.orientation, job.series, job.query, self.identity
        )
        return f"{job.name}_{digest}"

    @property
    def paths(self) -> dict[str, Path]:
        """Where the files of the answer belong, by their kind."""
        return answer_paths(self.job.folder, self.name, self.suffix)

    def find(self, volume: Volume, dicom: DicomOutputs = NO_DICOM) -> Answer | None:
        """The answer, when it is there and whole; one whose mask is damaged is told and not taken.

        Args:
            volume: The scan.
            dicom: DICOM outputs that it must have.

        Raises:
            RecordError: The mask beside the record is that of another scan.
        """
        path = self.paths["record"]
        record = find_record(path)
        if record is None or not self._is_of(record) or not _is_whole(path, record, dicom):
            return None
        try:
            read_mask(path.with_name(record.mask_file), volume)
        except GeometryError as error:
            raise RecordError(f"{error}; move it away, or add --overwrite") from error
        except MedvolError as error:
            log.warning("%s; the question is asked again", error)
            return None
        return path, record

    def find_unread(self, shape: tuple[int, int, int], dicom: DicomOutputs = NO_DICOM) -> Answer | None:
        """The answer, when its record and its mask are still as they were written; so the scan need not be read.

        Args:
            shape: Of the scan, (Z, Y, X).
            dicom: DICOM outputs that it must have.
        """
        path = self.paths["record"]
        record = find_record(path)
        if record is None or not self._is_of(record) or not _is_whole(path, record, dicom):
            return None
        try:
            digest = file_sha256(path.with_name(record.mask_file))
        except OSError:
            return None  # reading it says why
        as_written = record.mask.get("sha256") == digest and not lacks_its_mask(shape, record)
        return (path, record) if as_written else None

    def require_free(
        self,
        volume: Volume,
        overwrite: bool = False,
        dicom: DicomOutputs = NO_DICOM,
        places: Set[Path] = frozenset(),
    ) -> Path | None:
        """Refuse to replace what is not an answer to this question, and an answer that a person has changed.

        Args:
            volume: The scan.
            overwrite: Whatever is there may be replaced, but never a scan.
            dicom: DICOM outputs that will be written.
            places: Where the scans lie that are asked about, see ``scan_places``; empty for this one alone.

        Returns:
            A file that will be replaced; None when nothing is there.

        Raises:
            RecordError: Files of that name hold something else, or were changed by hand.
        """
        require_no_scan(self.paths.values(), places or scan_places([self.job.scan]))
        for kind in ("mask", "record", *dicom.kinds):
            if self.paths[kind].is_dir():
                raise RecordError(f"{self.paths[kind]} is a folder; move it away, or choose another --out")
        there = next((path for path in self.paths.values() if path.exists()), None)
        if there is None or overwrite:
            return there
        record = find_record(self.paths["record"])
        if record is None and self.paths["record"].exists():
            raise RecordError(f"{self.paths['record']} is there already and cannot be read; correct it, or {_WAYS_OUT}")
        if record is None and not self.job.named:
            return there
        if record is None:
            raise RecordError(f"{there} is there already and belongs to no answer; {_WAYS_OUT}")
        if not self._is_of(record):
            raise RecordError(
                f"{self.paths['record']} holds another answer ({quote(record.query)} about {record.scan_path}, read as "
                f"{record.modality}, stored as {record.orientation}); {_WAYS_OUT}"
            )
        if was_changed(self.paths["record"], record, volume):
            raise RecordError(f"{self.paths['record']} {_CHANGED}; {_WAYS_OUT}")
        return there

    def require_unchanged(self, volume: Volume) -> None:
        """Refuse to replace an answer that a person has changed, or what is no answer to this question.

        Args:
            volume: The scan.

        Raises:
            RecordError: There is such a file.
        """
        path = self.paths["record"]
        if not path.exists():
            return
        record = find_record(path)
        why = ""
        if record is None:
            why = "cannot be read"
        elif not self._is_of(record):
            why = f"holds another answer ({quote(record.query)} about {record.scan_path})"
        elif was_changed(path, record, volume):
            why = _CHANGED
        if why:
            raise RecordError(f"{path} {why}; move it away, or choose another folder (model.evaluation.save_dir)")

    def _is_of(self, record: EvidenceRecord) -> bool:
        same_voxels = record.scan_sha256 == self.scan_sha256 and record.modality in (self.modality, None)
        same_grid = record.orientation in (self.orientation, None)
        return same_voxels and same_grid and _is_asked(record, self.job, self.identity)


def pose(job: Job, volume: Volume, identity: Mapping[str, Any]) -> Question:
    """Join a job with its scan.

    Args:
        job: One query about one scan.
        volume: The scan.
        identity: Of the policy and the propagator, as plain values.
    """
    orientation = stored_orientation(volume)
    return Question(job, hash_volume(volume), volume.modality, orientation, mask_suffix(volume), identity)


def pose_unread(job: Job, scan: KnownScan, identity: Mapping[str, Any]) -> Question:
    """As ``pose``, for a scan that is known without being read."""
    return Question(job, scan.sha256, scan.modality, scan.orientation, suffix_beside(job.scan), identity)


def _is_asked(record: EvidenceRecord, job: Job, identity: Mapping[str, Any]) -> bool:
    same_words = record.series == job.series and record.query == job.query
    return same_words and record.policy == identity["policy"] and record.propagator == identity["propagator"]


def _is_whole(path: Path, record: EvidenceRecord, dicom: DicomOutputs) -> bool:
    """True when nothing that was asked for is missing."""
    wanted = [path.with_name(record.mask_file)]
    if dicom:
        if record.with_patient != dicom.with_patient or not record.dicom.issuperset(dicom.kinds):
            return False  # an anonymous one is not one with the patient's data, nor the other way round
        wanted += [path.with_name(f"{path.stem}{DICOM_SUFFIXES[kind]}") for kind in dicom.kinds]
    if record.has_agreement_map:
        wanted.append(path.with_suffix(AGREEMENT_SUFFIX))
    return "overlay" not in record.not_written and all(file.is_file() and file.stat().st_size for file in wanted)
