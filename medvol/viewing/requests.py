"""What clients send: JSON bodies and numbers in addresses, checked before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.core.errors import RecordError
from medvol.core.json_file import parse_json
from medvol.core.types import Evidence
from medvol.inference.readings import VERDICTS, Verdict
from medvol.inference.record_fields import RecordFields

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY = 1_000_000
MAX_REMARK = 10_000
MAX_QUERY = 4_000
_REQUEST = Path("the request")


class Body:
    """A JSON object that a client sent.

    Args:
        content: The object.
        allowed: Its keys; others are refused, so that a misspelt one does not pass for nothing.

    Raises:
        RecordError: It is no object, or has another key.
    """

    def __init__(self, content: Any, *allowed: str) -> None:
        if not isinstance(content, dict):
            raise RecordError("the request holds no JSON object; send one")
        for key in content:
            if key not in allowed:
                raise RecordError(f"the request has an unknown key {key[:80]!r}; it has {', '.join(allowed)}")
        self._fields = RecordFields(_REQUEST, content)

    def text(self, name: str, most: int, may_be_empty: bool = False) -> str:
        """A text of at most so many letters."""
        text = self._fields.text(name, may_be_empty)
        if len(text) > most:
            raise RecordError(f"the request: {name} has {len(text)} letters; at most {most} are kept")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RecordError(f"the request: {name} holds half of a letter; send text in UTF-8") from None
        return text

    def flag(self, name: str) -> bool:
        """``true`` or ``false``; ``false`` where it is left out."""
        return name in self._fields.content and self._fields.flag(name)

    def verdict(self) -> Verdict:
        """What the reader made of the answer."""
        verdict = self._fields.text("verdict")
        if verdict not in VERDICTS:
            raise RecordError(f"the request: verdict is {verdict[:80]!r}; it is one of {', '.join(VERDICTS)}")
        return verdict

    def revision(self, default: int | None = None) -> int:
        """Number of the draft that the client had; ``default`` where it is left out and may be."""
        may_be_left_out = default is not None and "revision" not in self._fields.content
        value = default if may_be_left_out else self._fields.get("revision")
        if type(value) is not int or value < 0:
            raise RecordError(f"the request: revision is {value!r:.80}; it is the number that the draft had, or 0")
        return value

    def anchor(self) -> Evidence:
        """``{"key_slice": 41, "boxes_px": [[x1, y1, x2, y2]]}``, or ``null`` and no box for an absent target.

        ``further`` lists further such anchors, each on another slice.
        """
        given = self._fields.mapping("anchor")
        for key in given:
            if key not in ("key_slice", "boxes_px", "further"):
                raise RecordError(
                    f"the request: anchor has an unknown key {key[:80]!r}; it has key_slice, boxes_px and further"
                )
        return RecordFields(_REQUEST, {"anchor": {**given, "rationale": ""}}).evidence("anchor")


def write_anchor(evidence: Evidence) -> dict[str, Any]:
    """Anchors as plain values, as ``Body.anchor`` reads them."""
    first, *further = (
        {"key_slice": anchor.key_slice, "boxes_px": anchor.boxes.tolist()} for anchor in evidence.anchors
    )
    return {**first, "further": further} if further else first


async def read_body(request: Request, *allowed: str) -> Body:
    """The body of a request.

    Raises:
        RecordError: It is too long, no JSON, or not what is asked for.
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY:
            raise RecordError(f"the request has more than {MAX_BODY:,} bytes; no more is read")
    try:
        return Body(parse_json(content.decode() or "{}"), *allowed)
    except ValueError as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"the request is not JSON ({error}); send JSON in UTF-8") from error


def read_number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number of the address.

    Raises:
        RecordError: It is none, or out of its range.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RecordError(f"{name} is {text[:80]!r}; it is a whole number of {least} to {most}")
    return int(text)
