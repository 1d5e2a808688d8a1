"""What became of a question: an answer that was written or was there already, or a failure with what was said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from medvol.core.errors import MedvolError, OutputError, PolicyError, explain_os_error
from medvol.core.inference.answers import Answer, Question
from medvol.core.inference.failures import save_failure
from medvol.core.inference.jobs import Job
from medvol.core.inference.records import read_record, save_segmentation
from medvol.core.inference.summary import Outcome, Status, measured
from medvol.core.types import Completion, DicomSegKind, Segmentation

log = logging.getLogger(__name__)


def write_answer(
    question: Question,
    completion: Completion | PolicyError,
    follow: Callable[[], Segmentation],
    dicom_seg: DicomSegKind | None = None,
    hold: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Outcome:
    """Follow an answer to its mask and write it; whatever is raised becomes the outcome.

    Args:
        question: What was asked.
        completion: What was said, or the error that kept the policy from saying anything.
        follow: Follows the completion.
        dicom_seg: Write a DICOM segmentation object too.
        hold: Keeps stops away while files are written that belong together.
    """
    job = question.job
    try:
        segmentation = follow()
        with hold():
            paths = save_segmentation(segmentation, job.folder, question.name, dicom_seg)
        return tell_answer(job, "done", (paths["record"], read_record(paths["record"])))
    except OutputError as error:
        log.warning("%s, %r: %s", job.scan, job.query, error)
        path = error.paths["record"]
        return tell_answer(job, "failed", (path, read_record(path)), error)
    except Exception as error:  # a plug-in may fail in any way; the others go on and the summary names it
        return tell_failure(job, error, save_failure(question, completion, error))


def tell_answer(job: Job, status: Status, answer: Answer, error: Exception | None = None) -> Outcome:
    """The outcome of a job whose answer lies on the disk."""
    path, record = answer
    said = {} if error is None else {"error": type(error).__name__, "detail": str(error)}
    return tell(job, status, name=path.stem, record=str(path), **said, **measured(record))


def tell_failure(job: Job, error: Exception, kept: Path | None = None) -> Outcome:
    """The outcome of a job without an answer; ``kept`` is where its words lie."""
    detail = explain_os_error(error) if isinstance(error, OSError) else str(error)
    log.warning("%s, %r: %s", job.scan, job.query, detail, exc_info=not isinstance(error, MedvolError | OSError))
    said = f"; what was said is in {kept}" if kept is not None else ""
    return tell(job, "failed", error=type(error).__name__, detail=f"{detail}{said}")


def tell(job: Job, status: Status, name: str = "", **known: Any) -> Outcome:
    """The outcome of a job."""
    return Outcome(name or job.name, str(job.scan), job.query, status, series=job.series, **known)
