"""The answer page: answers to questions about scans, each with its evidence, its mask and its record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from medvol.pages.document import render_document
from medvol.pages.viewer import (
    NIIVUE_VERSION,
    SCRIPTS,
    KeptVoxels,
    Stack,
    niivue_licences,
    niivue_script,
    packed_niivue,
)

MAX_SCANS_MIB = 16
"""Most voxels in one page, compressed; answers beyond it have pictures and no viewer."""

MAX_PICTURES_MIB = 16
"""Most pictures in one page; answers beyond it have figures and words."""

_MIB = 2**20

Status = Literal["found", "absent", "failed"]


@dataclass(frozen=True)
class Fact:
    """One measurement or origin of an answer.

    Args:
        label: What it is.
        value: The value with its unit.
        note: How it was measured, in a few words.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Correction:
    """How a person changes an answer.

    Args:
        record_file: Name of the record to edit.
        command: What to run with it.
        last_slice: Highest index that ``key_slice`` may have.
        width_px: Columns of a slice, the most that x may be.
        height_px: Rows of a slice, the most that y may be.
    """

    record_file: str
    command: str
    last_slice: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class PageAnswer:
    """One answer, or why there is none, as plain data.

    Args:
        query: The question.
        scan: Name of the scan, without its folder.
        status: ``found``, ``absent`` (the answer says that the target is not in the scan) or ``failed``.
        verdict: One sentence: what was found, or why there is no answer.
        picture: PNG of the key slice; None where there is none.
        picture_text: What the picture shows, for those who do not see it.
        caption: What the picture shows, in a few words.
        stack: Voxels for the viewer; None where there are none.
        facts: What was measured.
        origins: Who answered, and with what.
        warnings: Why the answer may be worth nothing.
        confidence: What else is known about how far it can be trusted.
        notes: What of the scan the page does not show as it is, and what could not be shown.
        words: The policy's own words; empty where there are none.
        record: The evidence record as text; empty where there is none.
        correction: How to change it; None where that cannot be.
        corrected: True when a person changed the anchor.
    """

    query: str
    scan: str
    status: Status
    verdict: str
    picture: bytes | None = None
    picture_text: str = ""
    caption: str = ""
    stack: Stack | None = None
    facts: tuple[Fact, ...] = ()
    origins: tuple[Fact, ...] = ()
    warnings: tuple[str, ...] = ()
    confidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    words: str = ""
    record: str = ""
    correction: Correction | None = None
    corrected: bool = False


class AnswerPage:
    """A page that is filled answer by answer and stays within its size.

    Args:
        version: Version of medvol that the page names.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.answers: list[PageAnswer] = []
        self._voxels = KeptVoxels(MAX_SCANS_MIB * _MIB)
        self._pictures_bytes = 0

    def add(self, answer: PageAnswer) -> None:
        """Add an answer as far as it fits."""
        self.answers.append(self.fit(answer))

    def fit(self, answer: PageAnswer) -> PageAnswer:
        """Make room for an answer; what no longer fits is left out, and the answer says so."""
        if answer.picture is not None and self._pictures_bytes + len(answer.picture) > MAX_PICTURES_MIB * _MIB:
            answer = _without(answer, f"its picture, since a page holds at most {MAX_PICTURES_MIB} MiB of pictures")
            answer = replace(answer, picture=None)
        if answer.stack is not None and not self._voxels.keep(answer.stack):
            answer = _without(answer, f"slices, planes and 3D, since a page holds at most {MAX_SCANS_MIB} MiB of scans")
            answer = replace(answer, stack=None)
        self._pictures_bytes += len(answer.picture or b"")
        return answer

    def render(self) -> str:
        """The page as HTML; the same answers always give the same text."""
        shows_scans = any(answer.stack is not None for answer in self.answers)
        values = {
            "answers": self.answers,
            "stacks": [answer.stack and answer.stack.to_dict() for answer in self.answers],
            "counts": [
                (status, sum(a.status == status for a in self.answers)) for status in ("found", "absent", "failed")
            ],
            "voxels": self._voxels.by_id,
            "niivue": packed_niivue() if shows_scans else None,
            "niivue_version": NIIVUE_VERSION,
            "licences": niivue_licences() if shows_scans else "",
            "version": self.version,
        }
        return render_document("answers.html", SCRIPTS, values, [niivue_script()] if shows_scans else [])


def _without(answer: PageAnswer, what: str) -> PageAnswer:
    return replace(answer, notes=(*answer.notes, f"Not shown of this answer: {what}."))
