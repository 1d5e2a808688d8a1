"""The desk of a session: opens answers, follows moved boxes to masks, keeps readings. Nothing of it knows of HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.devices import AUTO, require_device
from medvol.core.errors import ConfigError, MedvolError, PropagationError, RecordError
from medvol.core.last_used import LastUsed
from medvol.core.metrics import dice
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Evidence
from medvol.grounding.anchors import anchor_key
from medvol.grounding.prompts import require_query
from medvol.guarding.guard import identify, require_ready
from medvol.imaging.windows import window_for_target
from medvol.inference.answers import pose
from medvol.inference.failures import save_failure
from medvol.inference.jobs import Job, answer_stem, case_name
from medvol.inference.measurements import measure_mask
from medvol.inference.readings import Reading, Verdict
from medvol.inference.records import plain_values
from medvol.inference.repropagation import rebuild_segmentation, require_inside, require_same_scan, same_anchor
from medvol.inference.segmentation import save_segmentation
from medvol.inference.segmenter import Segmenter
from medvol.rollouts.masks import follow_anchors
from medvol.terminal.progress import Work
from medvol.viewing.entries import Entry, Reader, open_answer, open_failure, question_about, question_entry
from medvol.viewing.packing import bounding_box, pack_mask, unpack_mask
from medvol.viewing.reading_folder import Head, ReadingFolder
from medvol.viewing.requests import write_anchor
from medvol.viewing.scans import OpenScan, Scan, Shelf
from medvol.viewing.stored_masks import find_mask

_MASKS = 8
"""Masks of anchors that were followed last, packed; saving one of them follows nothing again."""

Mask = NDArray[np.bool_]


class Desk:
    """What a session works with; every method may be called from any thread, but jobs come one after another.

    Args:
        entries: The answers to be read, in order.
        scans: Scans that can be asked about, whether or not there is an answer yet.
        propagator: Turns anchors into masks; one object for the whole session, so that what it keeps stays warm.
        readings: Where readings are kept.
        policy: Answers new questions; None where nobody does.
        read: Reads scans of answers that are made in the session.
        reader: Who reads, as they call themselves.
        problems: What could not be opened, in sentences.
        device: Where the policy computes, see ``Segmenter``.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        scans: Sequence[Scan],
        propagator: Propagator,
        readings: ReadingFolder,
        read: Reader,
        policy: Policy | None = None,
        reader: str = "",
        problems: Sequence[str] = (),
        device: str = AUTO,
    ) -> None:
        self.entries = {entry.entry_id: entry for entry in entries}
        self.scans = {scan.scan_id: scan for scan in (*scans, *(entry.scan for entry in entries))}
        self.propagator = propagator
        self.readings = readings
        self.policy = policy
        self.reader = reader
        self.problems = list(problems)
        self.device = require_device(device)
        self.shelf = Shelf()
        self._read = read
        self._masks: LastUsed[dict[str, Any]] = LastUsed(_MASKS)
        self._lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """The session: who answers, who propagates, where readings go, and which scans can be asked about."""
        askable: dict[tuple[Path, str | None], Scan] = {}
        for scan in self.scans.values():
            if scan.path is not None:
                askable.setdefault((scan.path.resolve(), scan.series), scan)
        return {
            "propagator": type(self.propagator).__name__,
            "policy": None if self.policy is None else type(self.policy).__name__,
            "readings": str(self.readings.path),
            "reader": self.reader,
            "problems": self.problems,
            "scans": [{"scan": scan.scan_id, "name": scan.name} for scan in askable.values()],
        }

    def list_entries(self) -> list[dict[str, Any]]:
        """The work list: every answer with where it stands."""
        entries = list(self.entries.values())
        heads = self.readings.heads(entries)
        return [
            {**entry.describe(), "anchor": write_anchor(head.record.evidence), **self._standing(entry, head)}
            for entry, head in zip(entries, heads, strict=True)
        ]

    def open(self, entry: Entry) -> dict[str, Any]:
        """Everything about an answer: its scan, the policy's anchor and mask, the last reading, the draft, the truth.

        Raises:
            ScanError: The scan is refused.
            RecordError: The answer was given about another scan, or its anchor does not lie in the scan.
        """
        opened = self.shelf.get(entry.scan)
        entry = entry.settled(opened.volume)
        require_same_scan(opened.volume, entry.record)
        require_inside(opened.volume, entry.record.evidence)
        head = self.readings.head(entry)
        original = self._state(opened, entry.record.evidence, entry)
        current = original if head.sha256 == entry.sha256 else self._state(opened, head.record.evidence, head)
        made_by = dict(entry.record.propagator)
        return {
            **entry.describe(),
            **self._standing(entry, head),
            "scan": opened.describe(),
            "window": window_for_target(entry.record.query) if opened.volume.modality == "CT" else "soft_tissue",
            "original": {**write_anchor(entry.record.evidence), **original},
            "current": {**write_anchor(head.record.evidence), **current, "sha256": head.sha256},
            "draft": self.readings.read_draft(entry),
            "truth": None if opened.truth is None else pack_mask(opened.truth),
            "same_propagator": not made_by or made_by == plain_values(identify(self.propagator)),
        }

    def propagate(self, entry: Entry, evidence: Evidence) -> dict[str, Any]:
        """The mask of an anchor, with what it measures; it is what ``save`` keeps.

        Raises:
            RecordError: The anchor does not lie in the scan.
            PropagationError: The propagator failed.
        """
        opened = self.shelf.get(entry.scan)
        require_inside(opened.volume, evidence)
        entry = entry.settled(opened.volume)
        return self._state(opened, evidence, self.readings.head(entry), entry)

    def save(
        self, entry: Entry, verdict: Verdict, evidence: Evidence, remark: str, parent_sha256: str, revision: int = 0
    ) -> Head:
        """Keep a reading: a record of its own with its mask and its picture.

        Args:
            entry: The answer.
            verdict: ``accepted`` and ``rejected`` go with the anchor as it was read, ``corrected`` with another one.
            evidence: The anchor as the reader leaves it.
            remark: The reader's own words.
            parent_sha256: Digest of the record that the reader had before them.
            revision: Of the draft that the reader had before them; 0 where there was none.

        Raises:
            ConflictError: Somebody else has saved a reading or a draft meanwhile.
            RecordError: Verdict and anchor do not go together, or the anchor does not lie in the scan.
        """
        opened = self.shelf.get(entry.scan)
        entry = entry.settled(opened.volume)
        require_same_scan(opened.volume, entry.record)
        require_inside(opened.volume, evidence)
        head = self.readings.require_head(entry, parent_sha256)
        moved = not same_anchor(evidence, head.record.evidence)
        unanswered = bool(entry.failure) and head.sha256 == entry.sha256
        if verdict == "corrected" and not (moved or unanswered or not same_anchor(evidence, entry.record.evidence)):
            raise RecordError("nothing was corrected: slice and boxes are those of the answer; accept or reject it")
        if verdict != "corrected" and moved:
            raise RecordError(f"slice or boxes were changed, and an answer is {verdict} as it is; undo, or correct it")
        if unanswered and verdict == "accepted":
            raise RecordError(
                "the answer gave no mask, so it cannot be accepted; draw boxes, reject it, or correct it without a box "
                "where the target is not in this scan"
            )
        mask, made_by = find_mask(opened.volume, evidence, head, entry) or (
            unpack_mask(self._followed(opened, evidence)["mask"], opened.volume.shape),
            dict(identify(self.propagator)),
        )
        said = replace(evidence, rationale=head.record.evidence.rationale)
        record = replace(head.record, evidence=said, query=entry.record.query, edited=entry.record.edited)
        reading = Reading(verdict, remark, self.reader, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        segmentation = replace(rebuild_segmentation(opened.volume, record, mask, made_by), reading=reading)
        return self.readings.save(entry, segmentation, parent_sha256, revision)

    def keep_draft(
        self, entry: Entry, evidence: Evidence, remark: str, parent_sha256: str, revision: int
    ) -> dict[str, Any]:
        """Keep what is not finished, see ``ReadingFolder.write_draft``; raises too where the anchor leaves the scan."""
        require_inside(self.shelf.get(entry.scan).volume, evidence)
        content = {"parent_sha256": parent_sha256, **write_anchor(evidence), "remark": remark, **entry.asked()}
        return self.readings.write_draft(entry, content, revision)

    def begin(self, scan: Scan, query: str) -> Entry:
        """A question that the reader answers: an entry without boxes.

        Raises:
            QueryError: The query is empty.
        """
        require_query(query)
        _file_of(scan)
        return self._add(scan, question_entry(scan, question_about(self.shelf.get(scan).volume, query.strip())))

    def ask(self, scan: Scan, query: str) -> Entry:
        """Let the policy answer, and write its answer as ``medvol segment`` does.

        Raises:
            ConfigError: There is no policy.
            PolicyError: It failed.
        """
        require_query(query)
        if self.policy is None:
            raise ConfigError("nobody answers: start `medvol view` with --policy, or draw the boxes yourself")
        volume, query = self.shelf.get(scan).volume, query.strip()
        path = _file_of(scan)
        segmenter = Segmenter(self.policy, self.propagator, device=self.device)
        series = None if volume.source is None else volume.source.series or None
        job = Job(path, query, self.readings.path, answer_stem(case_name(path, series), query), series)
        question = pose(job, volume, plain_values(segmenter.identity()))
        found = question.find(volume)
        if found is not None:
            return self._add(scan, open_answer(found[0], self._read))
        question.require_free(volume)
        groups = segmenter.ask(volume, [query])
        ((_, answer),) = segmenter.follow(groups)
        with Work("writing the answer"):  # a step, so that nothing is written of a question that was cancelled
            if not isinstance(answer, MedvolError):
                record = save_segmentation(answer, job.folder, question.name)["record"]
                return self._add(scan, open_answer(record, self._read))
            kept = save_failure(question, groups[0], answer)
        if kept is None:
            raise answer
        return self._add(scan, open_failure(kept, self._read))

    def _add(self, scan: Scan, entry: Entry) -> Entry:
        """Take on an answer about a scan of the session; clients know the voxels by the id of that scan."""
        with self._lock:
            return self.entries.setdefault(entry.entry_id, replace(entry, scan=scan))

    def _standing(self, entry: Entry, head: Head) -> dict[str, Any]:
        """Where an answer stands: the last verdict, and whether something is not finished, or cannot be read."""
        reading = head.record.reading
        return {
            "verdict": None if reading is None else reading.verdict,
            "remark": "" if reading is None else reading.remark,
            "reader": "" if reading is None else reading.reader,
            "time": "" if reading is None else reading.time,
            "others": list(head.others),
            "damage": head.damage,
            "unfinished": self.readings.has_draft(entry),
        }

    def _state(self, opened: OpenScan, evidence: Evidence, *places: Entry | Head) -> dict[str, Any]:
        """The mask of an anchor with what it measures: the stored one, or else followed now."""
        stored = find_mask(opened.volume, evidence, *places)
        return self._followed(opened, evidence) if stored is None else _measure(opened, stored[0])

    def _followed(self, opened: OpenScan, evidence: Evidence) -> dict[str, Any]:
        if evidence.absent:
            return _measure(opened, np.zeros(opened.volume.shape, bool))
        key = repr((opened.scan.scan_id, anchor_key(evidence)))

        def follow() -> dict[str, Any]:
            with Work("propagating"):
                require_ready(self.propagator)
                ((_, outcome),) = follow_anchors(opened.volume, [evidence], self.propagator)
            if isinstance(outcome, PropagationError):
                raise outcome
            return _measure(opened, outcome)

        return self._masks.get(key, follow)


def _file_of(scan: Scan) -> Path:
    """Where a scan lies, so that an answer about it is found again."""
    if scan.path is None:
        raise RecordError(f"{scan.name} lies in no file, so an answer could not be found again; ask about a file")
    return scan.path


def _measure(opened: OpenScan, mask: Mask) -> dict[str, Any]:
    volume, box = opened.volume, bounding_box(mask)
    measures = measure_mask(volume.voxels[box], mask[box], volume.spacing, "HU" if volume.modality == "CT" else None)
    if measures["diameter_slice"] is not None:
        measures["diameter_slice"] += box[0].start
    return {
        "mask": pack_mask(mask),
        "measures": measures,
        "dice": None if opened.truth is None else round(dice(mask, opened.truth), 4),
    }
