"""The one question of a command, when it fails: ``--json`` tells of it as a batch does, and the error goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.cli.json_document import print_document
from medvol.core.errors import CASE_ERRORS, MedvolError, OutputError, ScanError

if TYPE_CHECKING:
    from medvol.inference.jobs import Job
    from medvol.inference.summary import Outcome


@dataclass
class Asked:
    """What is known of a question by the time it fails.

    Args:
        identity: Identity of the policy and the propagator; empty where the scan was refused.
        kept: File with the policy's words; None where nothing is kept.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    kept: Path | None = None


@contextmanager
def print_failure(job: Job, wanted: bool) -> Iterator[Asked]:
    """Print the document of a question that fails, or whose scan is refused; an error about the command prints none.

    Args:
        job: The question.
        wanted: False prints nothing.
    """
    asked = Asked()
    try:
        yield asked
    except (ScanError, *CASE_ERRORS) as error:
        if wanted:
            from medvol.inference.summary import SCHEMA, Summary

            print_document(SCHEMA, Summary((_outcome(job, error, asked),), dict(asked.identity)).to_dict())
        raise


def _outcome(job: Job, error: MedvolError, asked: Asked) -> Outcome:
    from medvol.inference.outcomes import describe_failure, tell_answer
    from medvol.inference.records import read_record

    if isinstance(error, OutputError):  # mask and record are there
        path = error.paths["record"]
        return tell_answer(job, "failed", (path, read_record(path)), error)
    return describe_failure(job, error, asked.kept)
