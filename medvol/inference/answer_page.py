"""From answers to the page that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import require_no_folder, write_whole
from medvol.core.errors import explain_error
from medvol.core.looks import Region
from medvol.core.types import Evidence, Volume
from medvol.inference.overlay import Picture, render_key_slice
from medvol.inference.page_facts import (
    confidence_sentences,
    correction,
    hide_folders,
    measured_facts,
    origins,
    scan_name,
    warning_sentences,
    without_folders,
)
from medvol.inference.page_stack import make_stack
from medvol.pages.answers import AnswerPage, Fact, PageAnswer
from medvol.pages.document import show_json
from medvol.pages.viewer import Stack


def new_page() -> AnswerPage:
    """A page without answers."""
    return AnswerPage(version("medvol-r1"))


def write_page(page: AnswerPage, path: Path) -> Path:
    """Write a page as a whole; an earlier one is replaced.

    Raises:
        OSError: It cannot be written.
    """
    require_no_folder(path)
    text = page.render()
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")
    return path


def show_answer(
    volume: Volume,
    mask: NDArray[np.bool_],
    evidence: Evidence,
    record: Mapping[str, Any],
    record_file: str,
    region: Region | None = None,
) -> PageAnswer:
    """Everything that a page shows of an answer.

    Whatever cannot be drawn is left out, and the answer says why: figures, words and record do not depend on pictures.

    Args:
        volume: The scan.
        mask: (Z, Y, X) on its grid.
        evidence: The anchor.
        record: As ``describe_segmentation`` writes it.
        record_file: Name of the record's file.
        region: What a second look showed; None where there was one look.
    """
    query, filled = str(record["query"]), int(mask.any(axis=(1, 2)).sum())
    picture, stack, notes = _draw(
        Picture(volume, query, mask, evidence, edited=bool(record.get("edited")), region=region)
    )
    missing = dict(record.get("not_written") or {})
    notes += tuple(f"Not written: {kind}, {hide_folders(str(reason))}." for kind, reason in missing.items())
    facts = () if evidence.absent else measured_facts(record, volume.shape[0], filled)
    return PageAnswer(
        query=query,
        scan=scan_name(record),
        status="absent" if evidence.absent else "found",
        verdict=_verdict(evidence, facts, filled),
        picture=picture,
        picture_text=_describe(evidence, volume, query, mask),
        caption=_caption(evidence, volume),
        stack=stack,
        facts=facts,
        origins=origins(record, volume),
        warnings=warning_sentences(record),
        confidence=confidence_sentences(record),
        notes=notes,
        words=str(record.get("completion", "")).strip(),
        record=show_json(without_folders(record)),
        correction=correction(record, record_file, volume.shape),
        corrected=bool(record.get("edited")),
    )


def show_failure(
    query: str, scan: str, reason: str, kind: str = "", words: str = "", folders: Iterable[Path] = ()
) -> PageAnswer:
    """A question without an answer, and why.

    Args:
        query: The question.
        scan: Name of the scan; empty where it is not known.
        reason: Why there is no answer.
        kind: Name of the failure; empty where nothing failed.
        words: What the policy said, where it said something.
        folders: Folders with spaces in their names that the reason may name and the page must not; of others only the
            last name is shown in any case.
    """
    failed = (Fact("Kind of failure", kind),) if kind else ()
    return PageAnswer(query, scan, "failed", hide_folders(_hide(reason, folders)), words=words.strip(), facts=failed)


def _draw(shown: Picture) -> tuple[bytes | None, Stack | None, tuple[str, ...]]:
    """Picture and voxels, and sentences on what they do not show."""
    notes: list[str] = []
    picture, stack = None, None
    try:
        picture = render_key_slice(shown)
        stack, told = make_stack(shown.volume, shown.query, shown.mask, shown.evidence)
        notes += told
    except Exception as error:  # a library's; the answer's figures and words do not depend on it
        missing = "Its picture" if picture is None else "Slices, planes and 3D"
        notes.append(f"{missing} could not be made: {hide_folders(explain_error(error))}.")
    return picture, stack, tuple(notes)


def _verdict(evidence: Evidence, facts: Sequence[Fact], filled_slices: int) -> str:
    if evidence.absent:
        return "The answer says that this is not in the scan. The mask is empty."
    values = {fact.label: fact.value for fact in facts}
    mask = f"the mask has {values['Volume']}" if filled_slices else "the mask is empty"
    found = next(fact for fact in facts if fact.label.startswith("Key slice"))
    return f"Found on {found.label.lower()} {found.value}; {mask}."


def _caption(evidence: Evidence, volume: Volume) -> str:
    depth = volume.shape[0]
    if evidence.key_slice is None:
        return f"The middle slice, {depth // 2} of 0 to {depth - 1}. The patient's left is on the right."
    keys = ", ".join(map(str, evidence.key_slices))
    return (
        f"The evidence: key slice{'s' if evidence.further else ''} {keys} with the boxes (yellow) and the "
        "outline of the mask (green). The patient's left is on the right."
    )


def _describe(evidence: Evidence, volume: Volume, query: str, mask: NDArray[np.bool_]) -> str:
    """The picture in words."""
    if evidence.key_slice is None:
        return f"Middle axial slice of the scan, without boxes: the answer to '{query}' is that it is not there."
    return " ".join(_describe_anchor(anchor, volume, query, mask) for anchor in evidence.anchors)


def _describe_anchor(anchor: Evidence, volume: Volume, query: str, mask: NDArray[np.bool_]) -> str:
    key = anchor.key_slice or 0
    boxes = "; ".join(f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}" for x1, y1, x2, y2 in anchor.boxes.tolist())
    area = int(mask[key].sum()) if key < len(mask) else 0
    return (
        f"Axial slice {key} of the scan with the boxes for '{query}', in pixels: {boxes}. The mask "
        f"covers {area} of its {volume.shape[1] * volume.shape[2]} pixels."
    )


def _hide(text: str, folders: Iterable[Path]) -> str:
    """A text without the folders that it names; what lies in them keeps its name."""
    names = {name for folder in folders for name in (str(folder), str(folder.absolute()), str(folder.resolve()))}
    for name in sorted(names - {".", "/"}, key=len, reverse=True):
        text = re.sub(rf"{re.escape(name)}[/\\]?", "", text)
    return text
