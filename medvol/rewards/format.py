"""Format reward: does the answer follow the grammar?"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from medvol.core.errors import EvidenceParseError
from medvol.core.roles import Aspect, Need, RewardTerm
from medvol.core.types import Case, Rollout
from medvol.grounding.boxes import NORM
from medvol.grounding.grammar import MAX_CHARACTERS, parse_evidence

MAX_BRACKETS = 200
"""An answer that opens more brackets is not decoded; this also bounds how deep they nest."""

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_parts(text: str, max_anchors: int = 1) -> tuple[float, float, float, float]:
    """Grade the form of an answer in four parts.

    Args:
        text: A completion, of any content.
        max_anchors: Most objects that the prompt allowed in the list. With 1 the boxes of the first object count, else
            those of all; an object without a box counts as a wrong one, and so does every object beyond the number.

    Returns:
        Each in [0, 1]. Layout: 1 when the text is one think block followed by one answer block and nothing else.
        Reasoning: 1 when the think block is not empty. Structure: 1 when the answer is a JSON list or object. Boxes:
        share of boxes with four integers 0..1000, x1 < x2 and y1 < y2; 1 for ``[]``, 0 when there are none otherwise.

    Source: MedVol-R1 (arXiv 2605.26621), format reward R_f; the paper says 0 or 1, its code takes the mean of these
    four. Unlike there, a tag written twice costs the layout, and coordinates must be integers, as the grammar says.
    """
    if len(text) > MAX_CHARACTERS:
        return 0.0, 0.0, 0.0, 0.0
    thought, answer = (_between(text, *tags) for tags in (_TAGS[:2], _TAGS[2:]))
    content = _decode(text if answer is None else answer)
    structured = isinstance(content, (list, dict))
    return (
        float(_is_laid_out(text)),
        float(bool(thought and thought.strip())),
        float(structured),
        _valid_boxes(content, max_anchors),
    )


def _is_laid_out(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    think, end_think, answer, end_answer = (text.index(tag) for tag in _TAGS)
    before, between, after = text[:think], text[end_think + len(_TAGS[1]) : answer], text[end_answer + len(_TAGS[3]) :]
    return think < end_think < answer < end_answer and not (before + between + after).strip()


def _between(text: str, opening: str, closing: str) -> str | None:
    """Text between the first opening tag and the next closing one; None without both."""
    _, found, rest = text.partition(opening)
    content, closed, _ = rest.partition(closing)
    return content if found and closed else None


def _decode(text: str) -> Any:
    """The first JSON list or object in the text; None without one."""
    starts = [place for place in (text.find("["), text.find("{")) if place >= 0]
    if not starts or text.count("[") + text.count("{") > MAX_BRACKETS:
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(text, min(starts))
    except ValueError:
        return None
    return content


def _valid_boxes(content: Any, max_anchors: int) -> float:
    if content == []:
        return 1.0
    objects = content if isinstance(content, list) else [content]
    listed = [_listed_boxes(item) for item in (objects if max_anchors > 1 else objects[:1])]
    listed[max_anchors:] = [[None]] * len(listed[max_anchors:])
    return sum(_is_box(box) for boxes in listed for box in boxes) / sum(map(len, listed))


def _listed_boxes(item: Any) -> list[Any]:
    """What an object of the answer holds as boxes; a wrong one where it holds none."""
    boxes = item.get("bbox_2d_list") if isinstance(item, dict) else None
    return boxes if isinstance(boxes, list) and boxes else [None]


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or any(type(value) is not int for value in box):
        return False
    x1, y1, x2, y2 = (int(value) for value in box)
    return 0 <= x1 < x2 <= NORM and 0 <= y1 < y2 <= NORM


class FormatReward(RewardTerm):
    """Mean of the four parts of ``format_parts``.

    It reads the text only: an answer that could not be parsed is graded too, so that a policy can climb towards the
    grammar.

    Args:
        strict: 0 or 1, as in the paper's figure: 1 for an answer whose four parts are whole and which
            ``parse_evidence`` accepts for this volume.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"text"})
    judges: ClassVar[frozenset[Aspect]] = frozenset({"form"})

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def __call__(self, rollout: Rollout, case: Case) -> float:
        """Score the form of the answer."""
        grade = sum(format_parts(rollout.completion.text, rollout.max_anchors)) / 4
        if not self.strict:
            return grade
        try:
            parse_evidence(rollout.completion.text, case.volume.shape, rollout.max_anchors)
        except EvidenceParseError:
            return 0.0
        return float(grade == 1.0)
