"""Running a batch: the model is loaded once, a bad case does not stop the others, a rerun skips what is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from medvol.core.errors import MedvolError, RecordError
from medvol.core.imaging.dicom.segmentation import DicomSegKind
from medvol.core.imaging.folders import newest_change
from medvol.core.imaging.reading import read_volume
from medvol.core.inference.confidence import read_warnings
from medvol.core.inference.jobs import Job
from medvol.core.inference.records import DICOM_SEG_SUFFIX, hash_volume, plain_values, read_record, save_segmentation
from medvol.core.inference.segmenter import Segmenter
from medvol.core.json_file import write_json
from medvol.core.types import Completion, Volume

SCHEMA = "medvol-summary/1"
SUMMARY_FILE = "summary.json"

Status = Literal["done", "skipped", "failed", "not run"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Args:
        name: Stem of its files.
        scan: Path of the scan.
        query: The question.
        status: ``skipped`` was answered by an earlier run; ``not run`` was left when the batch was interrupted.
        record: Path of the evidence record; empty without one.
        error: Name of the error; empty when there was none.
        detail: The error's sentence.
        warnings: Why the answer may be worth nothing.
    """

    name: str
    scan: str
    query: str
    status: Status
    record: str = ""
    error: str = ""
    detail: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What became of a batch.

    Args:
        outcomes: In the order of the jobs.
        identity: Identity of the policy and the propagator.
    """

    outcomes: tuple[Outcome, ...]
    identity: dict[str, Any] = field(default_factory=dict)

    def of(self, status: Status) -> list[Outcome]:
        """Outcomes of one status."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def exit_code(self) -> int:
        """0 when every job was done or skipped, else 1."""
        return int(any(outcome.status in ("failed", "not run") for outcome in self.outcomes))

    @property
    def needs_rows(self) -> bool:
        """True when something has to be said of a case."""
        return bool(self.exit_code) or any(outcome.warnings for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        counts = {status: len(self.of(status)) for status in ("done", "skipped", "failed", "not run")}
        return {"schema": SCHEMA, "counts": counts, **self.identity, "cases": [asdict(o) for o in self.outcomes]}

    def table(self) -> Table:
        """A line for every job that failed or was not run, and for every warning; below it the counts."""
        counts = [f"{len(self.of(status))} {status}" for status in ("done", "skipped", "failed", "not run")]
        warned = [outcome for outcome in self.outcomes if outcome.warnings]
        counts += [f"{len(warned)} with warnings"] if warned else []
        table = Table(title=", ".join(counts), title_justify="left", show_header=self.needs_rows)
        for heading in ("scan", "query", "why"):
            table.add_column(heading, overflow="fold")
        for outcome in (*self.of("failed"), *self.of("not run")):
            why = f"{outcome.error}: {outcome.detail}" if outcome.error else outcome.status
            table.add_row(Text(outcome.scan), Text(outcome.query), Text(why))
        for outcome in warned:
            table.add_row(Text(outcome.scan), Text(outcome.query), Text(f"warning: {'; '.join(outcome.warnings)}"))
        return table


def run_jobs(
    jobs: Sequence[Job],
    segmenter: Segmenter,
    out: str | Path,
    overwrite: bool = False,
    read: Callable[..., Volume] = read_volume,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    dicom_seg: DicomSegKind | None = None,
) -> Summary:
    """Answer all jobs; those of one scan share one reading of it and one drawing of its slices.

    A job is skipped when its record is there and holds the same scan, query, policy and propagator, so a record that a
    person edited is kept. A scan that was changed, moved or copied after the record was written is read, and is the
    same when its voxels and geometry are. The summary is also written when the batch is interrupted.

    Args:
        jobs: What to do.
        segmenter: Loaded before the first job, so that a missing model stops everything at once.
        out: Folder of ``summary.json``.
        overwrite: Answer again what is done.
        read: Reads a scan; called with its path, and with ``series`` when a job names one.
        progress: Called after every job.
        dicom_seg: Write a DICOM segmentation object beside every mask, see ``write_dicom_seg``.
    """
    identity = plain_values(segmenter.identity())
    Path(out).mkdir(parents=True, exist_ok=True)
    outcomes: dict[Job, Outcome] = {}
    try:
        for group in _by_scan(jobs):
            for job, outcome in _run_scan(group, segmenter, identity, overwrite, read, dicom_seg):
                outcomes[job] = outcome
                progress(outcome)
    finally:
        summary = Summary(tuple(outcomes.get(job) or _outcome(job, "not run") for job in jobs), identity)
        write_json(Path(out) / SUMMARY_FILE, summary.to_dict())
    return summary


def is_done(
    job: Job,
    identity: dict[str, Any],
    dicom_seg: DicomSegKind | None = None,
    volume: Volume | None = None,
    segmenter: Segmenter | None = None,
) -> bool:
    """True when an earlier run answered a job about the same scan with the same policy and propagator.

    Args:
        job: One query about one scan.
        identity: Of the policy and the propagator now, as plain values.
        dicom_seg: Also ask for a DICOM segmentation.
        volume: The scan as it is now, compared by its hash; when None, a scan that is older than the record counts as
            the same.
        segmenter: Also ask for the samples that it draws, and for what it refuses when it is strict.
    """
    path = _record_path(job)
    if dicom_seg is not None and not path.with_name(f"{job.name}{DICOM_SEG_SUFFIX}").is_file():
        return False
    try:
        record = read_record(path)
        same_place = record.scan_path is not None and Path(record.scan_path).resolve() == job.scan.resolve()
        same_question = same_place and record.series == job.series and record.query == job.query
        same_parts = record.policy == identity["policy"] and record.propagator == identity["propagator"]
        if not (same_question and same_parts and (job.folder / record.mask_file).is_file()):
            return False  # before a volume is hashed, or the files of a series are asked for their times
        if segmenter is not None and not segmenter.accepts(record):
            return False
        if volume is not None:
            return record.scan_sha256 == hash_volume(volume)
        return path.stat().st_mtime >= newest_change(job.scan, besides=job.folder)
    except (RecordError, OSError):
        return False


def _by_scan(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[tuple[Path, str | None], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.scan, job.series), []).append(job)
    return list(groups.values())


def _run_scan(
    jobs: Sequence[Job],
    segmenter: Segmenter,
    identity: dict[str, Any],
    overwrite: bool,
    read: Callable[..., Volume],
    dicom_seg: DicomSegKind | None,
) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs of one scan; whatever one of them raises becomes its outcome."""
    waiting = []
    for job in jobs:
        if overwrite or not is_done(job, identity, dicom_seg, segmenter=segmenter):
            waiting.append(job)
        else:
            yield job, _outcome(job, "skipped", str(_record_path(job)))
    if not waiting:
        return
    try:
        scan, series = waiting[0].scan, waiting[0].series
        volume = read(scan) if series is None else read(scan, series=series)
        asked = [job for job in waiting if overwrite or not is_done(job, identity, dicom_seg, volume, segmenter)]
        completions = segmenter.ask(volume, [job.query for job in asked]) if asked else []
    except Exception as error:
        for job in waiting:
            yield job, _failure(job, error)
        return
    for job in waiting:
        if job not in asked:
            yield job, _outcome(job, "skipped", str(_record_path(job)))
    for job, completion in zip(asked, completions, strict=True):
        yield job, _answer(job, segmenter, volume, completion, dicom_seg)


def _answer(
    job: Job, segmenter: Segmenter, volume: Volume, completion: Completion, dicom_seg: DicomSegKind | None
) -> Outcome:
    try:
        segmentation = segmenter.follow(volume, job.query, completion)
        paths = save_segmentation(segmentation, job.folder, job.name, dicom_seg)
    except Exception as error:  # a plug-in may fail in any way; the batch goes on and the summary names it
        return _failure(job, error)
    warnings = () if segmentation.confidence is None else segmentation.confidence.warnings
    return replace(_outcome(job, "done", str(paths["record"])), warnings=tuple(w.detail for w in warnings))


def _failure(job: Job, error: Exception) -> Outcome:
    log.warning("%s, %r: %s", job.scan, job.query, error, exc_info=not isinstance(error, MedvolError | OSError))
    return Outcome(job.name, str(job.scan), job.query, "failed", "", type(error).__name__, str(error))


def _outcome(job: Job, status: Status, record: str = "") -> Outcome:
    return Outcome(job.name, str(job.scan), job.query, status, record, warnings=_earlier_warnings(status, record))


def _earlier_warnings(status: Status, record: str) -> tuple[str, ...]:
    """Warnings of an answer that an earlier run gave."""
    return read_warnings(read_record(record).confidence) if status == "skipped" else ()


def _record_path(job: Job) -> Path:
    return job.folder / f"{job.name}.json"
