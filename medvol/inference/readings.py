"""Readings: what a person made of an answer, and which answer that was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from medvol.core.errors import RecordError
from medvol.core.ranges import require_choice

Verdict = Literal["accepted", "corrected", "rejected"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Reading:
    """A person's verdict on an answer; it stands in a record of its own beside the mask that it is about.

    Args:
        verdict: ``accepted`` and ``rejected`` leave the anchor as it was, ``corrected`` holds another one.
        remark: The reader's own words; may be empty.
        reader: Who read it, as they call themselves; may be empty.
        time: When, in UTC, such as ``2026-11-28T12:00:00Z``.
        parent: Name of the record that was read; empty where the reader answered first.
        parent_sha256: SHA-256 of that record's bytes, or of the question where there is no record.
    """

    verdict: Verdict
    remark: str = ""
    reader: str = ""
    time: str = ""
    parent: str = ""
    parent_sha256: str = ""

    def __post_init__(self) -> None:
        require_choice(Verdict, "reading", verdict=self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


def take_reading(values: Mapping[str, Any], where: str) -> Reading:
    """Check the reading that a record holds.

    Args:
        values: What stands in the record.
        where: File and field, as errors name them.

    Raises:
        RecordError: A key is missing or unknown, or a value is no text or no verdict.
    """
    names = tuple(Reading.__dataclass_fields__)
    for name in (*names, *values):
        if name not in values or name not in names:
            raise RecordError(f"{where} holds {', '.join(map(repr, values))}; a reading holds {', '.join(names)}")
        if not isinstance(values[name], str):
            raise RecordError(f"{where}.{name} is {values[name]!r}; it must be a text")
    if values["verdict"] not in VERDICTS:
        raise RecordError(f"{where}.verdict is {values['verdict']!r}; it must be one of {', '.join(VERDICTS)}")
    return Reading(**values)
