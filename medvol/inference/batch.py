"""Running a batch: the model is loaded once, a bad case does not stop the others, a rerun skips what is done."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medvol.core.errors import ConfigError, MissingExtraError, explain_os_error
from medvol.core.types import Volume
from medvol.grounding.prompts import require_query
from medvol.guarding.guard import require_ready
from medvol.imaging.dicom.outputs import NO_DICOM, DicomOutputs
from medvol.imaging.dicom.segmentation import require_dicom
from medvol.imaging.file_names import is_scan
from medvol.imaging.reading import read_volume
from medvol.imaging.scan_files import stamp_scan
from medvol.inference.answers import Answer, Question, pose, pose_unread
from medvol.inference.batch_page import BatchPage
from medvol.inference.jobs import Job
from medvol.inference.known_scans import KnownScan, KnownScans
from medvol.inference.names import scan_places
from medvol.inference.outcomes import tell, tell_answer, tell_failure, write_answers
from medvol.inference.records import plain_values
from medvol.inference.repropagation import lacks_its_mask
from medvol.inference.segmenter import Segmenter
from medvol.inference.summary import Outcome, Summary
from medvol.terminal.stops import Stops, hear_stops

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """How the jobs of a batch are answered.

    Args:
        segmenter: Answers them.
        identity: Identity of its policy and its propagator, as plain values.
        known: Scans that earlier runs read; None when every scan is read before its answer counts as there.
        stops: Where a stop is heard.
        overwrite: Answer again what is done.
        read: Reads a scan.
        dicom: DICOM outputs to write beside every mask.
        page: Shows every answer; None when no page is asked for.
        places: Where the scans of all jobs lie; no answer is written there.
    """

    segmenter: Segmenter
    identity: dict[str, Any]
    known: KnownScans | None
    stops: Stops
    overwrite: bool
    read: Callable[..., Volume]
    dicom: DicomOutputs
    page: BatchPage | None
    places: frozenset[Path]

    def accept(self, answer: Answer | None) -> Answer | None:
        """An earlier answer that tells all that is asked now."""
        return answer if answer is not None and self.segmenter.accepts(answer[1]) else None


def run_jobs(
    jobs: Sequence[Job],
    segmenter: Segmenter,
    out: str | Path,
    overwrite: bool = False,
    read: Callable[..., Volume] = read_volume,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    dicom: DicomOutputs = NO_DICOM,
    read_all: bool = False,
    html: bool = False,
) -> Summary:
    """Answer all jobs; those of one scan share one reading of it and one drawing of its slices.

    A job is skipped when its record is there and holds the same scan, query, policy and propagator, so a record that a
    person edited is kept; what a person changed is only replaced with ``overwrite``. A scan is the same when its voxels
    and geometry are; it is read to see that, unless no file of it was changed since an earlier run read it. A stop
    (Ctrl-C, SIGTERM) acts between two answers; the summary is written then too.

    Args:
        jobs: What to do.
        segmenter: Loaded before the first job, so that a missing model stops everything at once.
        out: Folder of ``summary.json`` and ``answers.csv``.
        overwrite: Answer again what is done.
        read: Reads a scan; called with its path, and with ``series`` when a job names one.
        progress: Called after every job.
        dicom: DICOM outputs to write beside every mask.
        read_all: Read every scan, also one that was answered and did not change; for a ``read`` with settings.
        html: Write ``answers.html``, which shows every answer, those of earlier runs too; it reads every scan.

    Raises:
        CheckpointError: The segmenter lacks weights.
        ConfigError: DICOM outputs are asked for, and no scan is DICOM.
        MissingExtraError: They are asked for, and what writes them is not installed.
        RecordError: A file in the place of the summary or the page was written by no batch.
        KeyboardInterrupt: After a stop, when the summary has been written.
    """
    _require_possible(jobs, dicom, Path(out), html)
    require_ready(segmenter.propagator, segmenter.policy)
    with hear_stops() as stops:
        identity, places = plain_values(segmenter.identity()), scan_places(job.scan for job in jobs)
        Path(out).mkdir(parents=True, exist_ok=True)
        known = None if read_all else KnownScans(Path(out))
        page = BatchPage() if html else None
        batch = Batch(segmenter, identity, known, stops, overwrite, read, dicom, page, places)
        _announce(jobs, batch)
        outcomes: dict[Job, Outcome] = {}
        try:
            for group in _by_scan(jobs):
                stops.check()
                for job, outcome in _run_scan(group, batch):
                    outcomes[job] = outcome
                    progress(outcome)
                    stops.check()
        finally:
            with stops.hold():
                if known is not None:
                    known.write()
                told = [outcomes.get(job) or tell(job, "not run") for job in jobs]
                summary = _sum_up(Path(out), jobs, told, batch)
        stops.check()
    return summary


def _require_possible(jobs: Sequence[Job], dicom: DicomOutputs, out: Path, html: bool) -> None:
    """Refuse what cannot be written, before a model is loaded: over files of others, or DICOM that no job can have."""
    Summary.require_free(out)
    if html:
        BatchPage.require_free(out)
    if not dicom:
        return
    if find_spec("highdicom") is None:
        raise MissingExtraError("highdicom", "dicom")
    if all(is_scan(job.scan) for job in jobs):
        raise ConfigError(f"--dicom needs DICOM, and none of the scans is, such as {jobs[0].scan}; leave it out")


def _announce(jobs: Sequence[Job], batch: Batch) -> None:
    """Say before the work what will be replaced."""
    if batch.overwrite:
        groups = [(group, _find_known(group[0], batch)) for group in _by_scan(jobs)]
        count = sum(_find_unread(job, scan, batch, NO_DICOM) is not None for group, scan in groups for job in group)
        if count:
            log.warning("%d of %d questions are answered already; their answers will be replaced", count, len(jobs))


def _sum_up(out: Path, jobs: Sequence[Job], outcomes: Sequence[Outcome], batch: Batch) -> Summary:
    """Write the summary and the page; when they cannot be written the summary is still there to be shown."""
    summary, written = Summary(tuple(outcomes), batch.identity), "summary"
    try:
        summary.write(out)
        if batch.page is not None:
            written = "page"
            batch.page.write(out, jobs, outcomes)
    except OSError as error:
        log.warning("the %s of the batch is not written: %s", written, explain_os_error(error))
        return Summary(summary.outcomes, batch.identity, explain_os_error(error))
    return summary


def _by_scan(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[tuple[Path, str | None], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.scan, job.series), []).append(job)
    return list(groups.values())


def _run_scan(jobs: Sequence[Job], batch: Batch) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs of one scan; whatever one of them raises becomes its outcome."""
    waiting = []
    needed = batch.overwrite or batch.page is not None  # a page shows the scan
    scan = None if needed else _find_known(jobs[0], batch)
    for job in jobs:
        try:
            require_query(job.query)
            answer = batch.accept(_find_unread(job, scan, batch, batch.dicom))
        except Exception as error:
            yield job, tell_failure(job, error)
            continue
        if answer is None:
            waiting.append(job)
        else:
            yield job, tell_answer(job, "skipped", answer)
    if waiting:
        yield from _run_read(waiting, batch)


def _find_known(job: Job, batch: Batch) -> KnownScan | None:
    """The scan of a job, when it is known without being read; looked up once for all jobs about it."""
    return None if batch.known is None else batch.known.find(job.scan, job.series)


def _find_unread(job: Job, scan: KnownScan | None, batch: Batch, dicom: DicomOutputs) -> Answer | None:
    """The answer to a job whose scan is known, and whose files are as they were written."""
    return None if scan is None else pose_unread(job, scan, batch.identity).find_unread(scan.shape, dicom)


def _run_read(jobs: Sequence[Job], batch: Batch) -> Iterator[tuple[Job, Outcome]]:
    """Read the scan, ask what is not answered, follow the answers."""
    scan, series = jobs[0].scan, jobs[0].series
    try:
        volume = _read(scan, series, batch)
        questions = [pose(job, volume, batch.identity) for job in jobs]
    except Exception as error:
        yield from ((job, tell_failure(job, error)) for job in jobs)
        return
    batch.stops.check()
    asked = []
    for question in questions:
        try:
            answer = None if batch.overwrite else batch.accept(question.find(volume, batch.dicom))
            replaced = None
            if answer is None:
                replaced = question.require_free(volume, batch.overwrite, batch.dicom, batch.places)
            require_dicom(volume, batch.dicom)
        except Exception as error:
            yield question.job, tell_failure(question.job, error)
            continue
        if answer is not None:
            if lacks_its_mask(volume.shape, answer[1]):
                log.warning(
                    "%s: slice or boxes were changed since the mask was made; medvol segment --evidence %s",
                    answer[0],
                    shlex.quote(str(answer[0])),
                )
            if batch.page is not None:
                batch.page.show_earlier(question.job, volume, answer)
            yield question.job, tell_answer(question.job, "skipped", answer)
            continue
        if replaced is not None and question.job.named:
            log.warning("%s is there already; the new answer replaces it", replaced)
        asked.append(question)
    yield from _ask(asked, volume, batch)


def _read(scan: Path, series: str | None, batch: Batch) -> Volume:
    """Read a scan, and remember it where that is of use to the next run."""
    if batch.known is None:
        return batch.read(scan) if series is None else batch.read(scan, series=series)
    stamp = stamp_scan(scan) if scan.exists() else None  # reading says what is wrong with one that is not there
    volume = batch.read(scan) if series is None else batch.read(scan, series=series)
    if stamp is not None:
        batch.known.add(scan, series, stamp, volume)
    return volume


def _ask(questions: Sequence[Question], volume: Volume, batch: Batch) -> Iterator[tuple[Job, Outcome]]:
    if not questions:
        return
    try:
        groups = batch.segmenter.ask(volume, [question.job.query for question in questions])
    except Exception as error:
        yield from ((question.job, tell_failure(question.job, error)) for question in questions)
        return
    answers = batch.segmenter.follow(groups)
    for place, outcome in write_answers(questions, groups, answers, batch.dicom, batch.stops.hold, batch.page):
        yield questions[place].job, outcome
