"""What became of a question: an answer that was written or was there already, or a failure with what was said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from medvol.core.errors import MedvolError, OutputError, explain_os_error
from medvol.core.visible_text import quote
from medvol.imaging.dicom.outputs import NO_DICOM, DicomOutputs
from medvol.inference.answers import Answer, Question
from medvol.inference.batch_page import BatchPage
from medvol.inference.failures import save_failure
from medvol.inference.jobs import Job
from medvol.inference.records import read_record
from medvol.inference.segmentation import Segmentation, save_segmentation
from medvol.inference.summary import Outcome, Status, measured
from medvol.rollouts.groups import Group

log = logging.getLogger(__name__)


def write_answers(
    questions: Sequence[Question],
    groups: Sequence[Group],
    answers: Iterator[tuple[int, Segmentation | MedvolError]],
    dicom: DicomOutputs = NO_DICOM,
    hold: Callable[[], AbstractContextManager[None]] = nullcontext,
    page: BatchPage | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Write answers to questions about one scan as they come; whatever is raised becomes an outcome.

    Args:
        questions: What was asked.
        groups: What was said to each.
        answers: Place of a question, and its answer or why there is none, see ``follow_answers``.
        dicom: DICOM outputs to write too.
        hold: Keeps stops away while files are written that belong together.
        page: Shows the answers too.

    Yields:
        Place of a question and what became of it, each once.
    """
    left = dict(enumerate(questions))
    try:
        for place, answer in answers:
            outcome = _write_answer(questions[place], groups[place], answer, dicom, hold, page)
            del left[place]
            yield place, outcome
    except Exception as error:  # a plug-in may fail in any way; the other scans go on and the summary names it
        yield from ((place, tell_failure(question.job, error)) for place, question in left.items())


def _write_answer(
    question: Question,
    group: Group,
    answer: Segmentation | MedvolError,
    dicom: DicomOutputs,
    hold: Callable[[], AbstractContextManager[None]],
    page: BatchPage | None,
) -> Outcome:
    job = question.job
    if isinstance(answer, MedvolError):
        if page is not None:
            page.keep_words(job, group.answer.completion.text)
        return tell_failure(job, answer, save_failure(question, group, answer))
    try:
        with hold():
            paths, failure = _save(answer, question, dicom)
        if page is not None:
            page.show_written(job, answer, paths["record"])
        status: Status = "done" if failure is None else "failed"
        return tell_answer(job, status, (paths["record"], read_record(paths["record"])), failure)
    except Exception as error:  # the disk's, or a library's
        return tell_failure(job, error)


def _save(
    answer: Segmentation, question: Question, dicom: DicomOutputs
) -> tuple[Mapping[str, Path], OutputError | None]:
    """Write an answer: the files, and what was not written beside mask and record."""
    try:
        return save_segmentation(answer, question.job.folder, question.name, dicom), None
    except OutputError as error:
        log.warning("%s, %s: %s", question.job.scan, quote(question.job.query), error)
        return error.paths, error


def tell_answer(job: Job, status: Status, answer: Answer, error: Exception | None = None) -> Outcome:
    """The outcome of a job whose answer lies on the disk."""
    path, record = answer
    said = {} if error is None else {"error": type(error).__name__, "detail": str(error)}
    files = {"record": str(path), "mask": str(path.parent / record.mask_file)}
    return tell(job, status, name=path.stem, **files, **said, **measured(record))


def tell_failure(job: Job, error: Exception, kept: Path | None = None) -> Outcome:
    """The outcome of a job without an answer, which is logged; ``kept`` is where its words lie."""
    detail = _explain(error)
    log.warning("%s, %s: %s", job.scan, quote(job.query), detail, exc_info=not isinstance(error, MedvolError | OSError))
    return describe_failure(job, error, kept)


def describe_failure(job: Job, error: Exception, kept: Path | None = None) -> Outcome:
    """The outcome of a job without an answer; ``kept`` is where its words lie."""
    said = f"; what was said is in {kept}" if kept is not None else ""
    return tell(job, "failed", error=type(error).__name__, detail=f"{_explain(error)}{said}")


def _explain(error: Exception) -> str:
    return explain_os_error(error) if isinstance(error, OSError) else str(error)


def tell(job: Job, status: Status, name: str = "", **known: Any) -> Outcome:
    """The outcome of a job."""
    return Outcome(name or job.name, str(job.scan), job.query, status, series=job.series, **known)
