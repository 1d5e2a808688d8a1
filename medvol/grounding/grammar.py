"""The answer grammar: one module parses and formats.

    <think>...</think><answer>[{"slice": N, "bbox_2d_list": [[x1, y1, x2, y2], ...]}]</answer>

Coordinates are integers 0..1000 over the slice's width and height (MedVol-R1, arXiv 2605.26621). Two extensions:
``<answer>[]</answer>`` says that the target is absent, and where the prompt allows several anchors the list holds
several objects, each with another slice. The think block may be left out; the cold-start answers of the paper have
none.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from medvol.core.errors import ConfigError, EvidenceParseError, GeometryError
from medvol.core.ranges import require_coordinate_step
from medvol.core.types import Evidence
from medvol.grounding.boxes import NORM, to_norm, to_px

MAX_CHARACTERS = 8192
"""Longest completion that is looked at; a full answer with 64 boxes has about 2,000."""
MAX_BOXES = 64
"""Most boxes on one slice."""
MOST_BOXES = 128
"""Most boxes in one answer: a true one has at most 16 anchors of 8 boxes each."""

FAILURES = {
    "too_long": "the completion is longer than any answer",
    "no_answer": "there is no <answer> block",
    "many_answers": "there is more than one <answer> block, or one is not closed",
    "bad_think": "the think block is repeated or not closed",
    "stray_text": "there is text outside the think and answer blocks",
    "too_deep": "the answer is nested deeper than the grammar",
    "bad_json": "the answer is not strict JSON",
    "not_one_object": "the answer is not a list with exactly one object",
    "bad_anchor_list": (
        f"the answer is not a list of one to max_anchors objects, with at most {MOST_BOXES} boxes in all"
    ),
    "repeated_slice": "two objects name the same slice, whose boxes belong into one list",
    "bad_keys": "the object's keys are not exactly slice and bbox_2d_list",
    "bad_slice": "the slice is not an index of the volume",
    "bad_box_list": f"bbox_2d_list is not a list of one to {MAX_BOXES} boxes",
    "bad_box": "a box is not four integers 0..1000 with x1 < x2 and y1 < y2",
}
"""Every way in which a completion can fail to be an answer, with its meaning."""

_MAX_DEPTH = 4
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LAYOUT = re.compile(r"\s*+(?:<think>(?P<think>.*?)</think>\s*+)?+<answer>(?P<answer>.*?)</answer>\s*+", re.DOTALL)


def format_evidence(evidence: Evidence, height: int, width: int, step: int = 1) -> str:
    """Write an anchor as the policy should answer it, the inverse of ``parse_evidence``.

    Args:
        evidence: The anchors; the rationale becomes the think block, which is left out when it is empty.
        height: Rows of the volume's slices.
        width: Columns of the volume's slices.
        step: Coordinates are multiples of this, which divides 1000.

    Raises:
        GeometryError: A key slice is no index, or a box holds what is no number.
        ConfigError: The rationale holds a tag of the grammar, or the step does not divide 1000.
    """
    require_coordinate_step(step)
    _require_writable(evidence)
    think = f"<think>{evidence.rationale}</think>" if evidence.rationale else ""
    if evidence.key_slice is None:
        return f"{think}<answer>[]</answer>"
    objects = [
        {"slice": anchor.key_slice, "bbox_2d_list": to_norm(anchor.boxes, height, width, step).tolist()}
        for anchor in evidence.anchors
    ]
    return f"{think}<answer>{json.dumps(objects, default=int)}</answer>"


def _require_writable(evidence: Evidence) -> None:
    """Refuse what would give an answer that cannot be read."""
    tag = next((tag for tag in _TAGS if tag in evidence.rationale), None)
    if tag is not None:
        raise ConfigError(f"the rationale {evidence.rationale[:80]!r} holds {tag}; leave it out")
    for anchor in evidence.anchors:
        key = anchor.key_slice
        if key is not None and (not isinstance(key, int | np.integer) or key < 0):
            raise GeometryError(f"the key slice is {key!r}; it is the index of a slice, 0 or more")
        if not np.isfinite(anchor.boxes).all():
            raise GeometryError(f"the boxes of slice {key} hold what is no number: {anchor.boxes.tolist()!r:.80}")


def parse_evidence(text: str, volume_shape: tuple[int, int, int], max_anchors: int = 1) -> Evidence:
    """Read the anchors of a completion; strict, so that a reward teaches the format.

    Args:
        text: Any text at all.
        volume_shape: (Z, Y, X) of the volume that was asked about.
        max_anchors: Most anchors that the prompt allowed.

    Returns:
        The anchors in the order in which they were written, boxes in pixels of the volume's slice.

    Raises:
        EvidenceParseError: The text is not an answer; ``failure`` is one of ``FAILURES``. Nothing else is raised.
    """
    think, answer = _split_blocks(text)
    value = _load_json(answer)
    if value == []:
        return Evidence(None, np.empty((0, 4), np.float64), think)
    listed = isinstance(value, list) and len(value) <= max_anchors and all(isinstance(item, dict) for item in value)
    if not listed:
        _fail("not_one_object" if max_anchors == 1 else "bad_anchor_list", answer)
    first, *further = (_read_anchor(item, volume_shape) for item in value)
    if len({first.key_slice, *(anchor.key_slice for anchor in further)}) != len(value):
        _fail("repeated_slice", answer)
    if sum(len(item["bbox_2d_list"]) for item in value) > MOST_BOXES:
        _fail("bad_anchor_list", answer)
    return replace(first, rationale=think, further=tuple(further))


def find_evidence(text: str, volume_shape: tuple[int, int, int], max_anchors: int = 1) -> Evidence | None:
    """As ``parse_evidence``; None for a text that is not an answer."""
    try:
        return parse_evidence(text, volume_shape, max_anchors)
    except EvidenceParseError:
        return None


def _read_anchor(item: dict[str, Any], volume_shape: tuple[int, int, int]) -> Evidence:
    if set(item) != {"slice", "bbox_2d_list"}:
        _fail("bad_keys", ", ".join(map(str, item)))
    key_slice = item["slice"]
    if type(key_slice) is not int or not 0 <= key_slice < volume_shape[0]:
        _fail("bad_slice", f"{key_slice!r}, the volume has slices 0..{volume_shape[0] - 1}")
    boxes = item["bbox_2d_list"]
    if not isinstance(boxes, list) or not 1 <= len(boxes) <= MAX_BOXES:
        _fail("bad_box_list", repr(boxes))
    for box in boxes:
        if not _is_box(box):
            _fail("bad_box", repr(box))
    return Evidence(key_slice, to_px(boxes, volume_shape[1], volume_shape[2]))


def _split_blocks(text: str) -> tuple[str, str]:
    """Text of the think block ("" when left out) and of the answer block."""
    if len(text) > MAX_CHARACTERS:
        _fail("too_long", f"{len(text)} characters, at most {MAX_CHARACTERS} are read")
    if "<answer>" not in text:
        _fail("no_answer", text)
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        _fail("many_answers", text)
    if (text.count("<think>"), text.count("</think>")) not in ((0, 0), (1, 1)):
        _fail("bad_think", text)
    match = _LAYOUT.fullmatch(text)
    if match is None:
        _fail("stray_text", text)
    return (match["think"] or "").strip(), match["answer"].strip()


def _load_json(answer: str) -> Any:
    """Strict JSON: no NaN, no repeated keys, no deep nesting, no number too long to be an index."""
    depth = 0
    for character in answer:
        depth += (character in "[{") - (character in "]}")
        if depth > _MAX_DEPTH:
            _fail("too_deep", answer)
    try:
        return json.loads(answer, object_pairs_hook=_unique_keys, parse_constant=_refuse, parse_int=_short_int)
    except RecursionError:  # brackets inside strings hide the depth from the count above
        _fail("too_deep", answer)
    except ValueError as error:
        raise EvidenceParseError("bad_json", f"{FAILURES['bad_json']} ({error}): {_head(answer)}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _short_int(digits: str) -> int:
    if len(digits) > 9:
        raise ValueError("a number has more than nine digits")
    return int(digits)


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or any(type(v) is not int or not 0 <= v <= NORM for v in box):
        return False
    x1, y1, x2, y2 = box
    return bool(x1 < x2 and y1 < y2)


def _fail(failure: str, received: str) -> NoReturn:
    raise EvidenceParseError(failure, f"{FAILURES[failure]}: {_head(received) or 'nothing was said'}")


def _head(text: str, length: int = 160) -> str:
    """Start of a text as one line that can be written anywhere: half a character pair is escaped."""
    line = " ".join(text[:length].split()).encode("utf-8", "backslashreplace").decode()
    return line if len(text) <= length else f"{line}..."
