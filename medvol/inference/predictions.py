"""Predictions: the answer to a case of a data set, written as ``medvol segment`` writes its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvol.core.errors import MedvolError
from medvol.core.types import Case
from medvol.imaging.case_masks import DIGEST_LENGTH
from medvol.inference.answers import Question, pose
from medvol.inference.jobs import Job
from medvol.inference.names import cut, is_taken, readable
from medvol.inference.outcomes import tell, tell_failure, write_answers
from medvol.inference.segmentation import Segmentation
from medvol.inference.summary import Outcome
from medvol.rollouts.groups import Group

_READABLE_BYTES = 120


@dataclass(frozen=True)
class Predictions:
    """How the cases of a data set are answered into a folder.

    Args:
        ask: Asks about cases of one volume.
        follow: Follows what was said to masks, see ``follow_answers``.
        folder: Of the files.
        identity: Of the policy and the propagator, as plain values.
        writes: False for a trial, which leaves nothing behind.
    """

    ask: Callable[[Sequence[Case]], list[Group]]
    follow: Callable[[Sequence[Group]], Iterator[tuple[int, Segmentation | MedvolError]]]
    folder: Path
    identity: Mapping[str, Any]
    writes: bool = True

    def answer(self, cases: Sequence[Case]) -> list[Outcome]:
        """Answer all queries about one volume and write masks, records and pictures, or what was said without a mask.

        An answer that is there already is replaced, unless a person has changed it: then the case fails and is not
        asked.

        Returns:
            What became of each case.
        """
        questions = [pose(as_job(case, self.folder), case.volume, self.identity) for case in cases]
        outcomes: dict[int, Outcome] = {}
        for place, question in enumerate(questions):
            try:
                question.require_unchanged(cases[place].volume)
            except (MedvolError, OSError) as error:
                outcomes[place] = tell_failure(question.job, error)
        asked = [place for place in range(len(cases)) if place not in outcomes]
        answered = self._answer([cases[place] for place in asked], [questions[place] for place in asked])
        outcomes |= {asked[place]: outcome for place, outcome in answered}
        return [outcomes[place] for place in range(len(cases))]

    def _answer(self, cases: Sequence[Case], questions: Sequence[Question]) -> Iterator[tuple[int, Outcome]]:
        if not cases:
            return
        try:
            groups = self.ask(cases)
        except Exception as error:  # a plug-in may fail in any way; the other volumes go on
            yield from ((place, tell_failure(question.job, error)) for place, question in enumerate(questions))
            return
        if self.writes:
            yield from write_answers(questions, groups, self.follow(groups))
            return
        for place, answer in self.follow(groups):
            job = questions[place].job
            yield place, tell_failure(job, answer) if isinstance(answer, MedvolError) else tell(job, "done")


def as_job(case: Case, folder: Path) -> Job:
    """A case as a job, whose files are called by its id, see ``medvol.imaging.case_masks``."""
    source = case.volume.source
    scan = case.volume.volume_id if source is None or source.path is None else source.path
    series = None if source is None else source.series or None
    return Job(Path(scan), case.query.text, folder, name_files(case.case_id), series)


def name_files(case_id: str) -> str:
    """What the files of a case are called: its id, as far as a file name can hold that.

    Where it cannot, a digest of the id follows, so that two cases have two names.
    """
    name = cut(readable(case_id), _READABLE_BYTES).strip("-. ") or "case"
    if name == case_id and not is_taken(name):
        return name
    return f"{name}_{hashlib.sha256(case_id.encode(errors='surrogatepass')).hexdigest()[:DIGEST_LENGTH]}"
