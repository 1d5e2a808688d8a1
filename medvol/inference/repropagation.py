"""From a record back to a mask: its anchor is propagated again, edited by a person or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import PropagationError, RecordError
from medvol.core.looks import AXES, Look
from medvol.core.prompts import MAX_ANCHORS
from medvol.core.roles import Propagator
from medvol.core.types import Completion, Evidence, Volume
from medvol.grounding.grammar import find_evidence
from medvol.guarding.guard import identify
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.record_content import describe_evidence, digest_anchor
from medvol.inference.records import EvidenceRecord
from medvol.inference.segmentation import Segmentation
from medvol.rollouts.masks import follow_anchors

_SAME_PX = 0.01
"""Boxes that lie closer than this are the same; a record rounds them to a thousandth."""

_READ = ("key_slice", "boxes_px", "rationale", "further")
"""Fields of the evidence that count when a record is read."""


def repropagate(
    volume: Volume, record: EvidenceRecord, propagator: Propagator, allow_other_scan: bool = False
) -> Segmentation:
    """Propagate the anchor of a record, edited by a person or not; the policy is not asked.

    Args:
        volume: The scan.
        record: From ``read_record``; its slice and pixel boxes count.
        propagator: Turns the anchor into a mask.
        allow_other_scan: Accept a scan with other voxels or another geometry than the record was written for.

    Raises:
        RecordError: The record was written for another scan, its anchor does not lie in this one, or an edit of it is
            not read.
        PropagationError: The anchor could not be propagated.
    """
    if not allow_other_scan:
        require_same_scan(volume, record)
        require_edit_is_read(volume, record)
    require_inside(volume, record.evidence)
    require_looks_inside(volume, record.looks)
    ((_, outcome),) = follow_anchors(volume, [record.evidence], propagator)
    if isinstance(outcome, PropagationError):
        raise outcome
    return rebuild_segmentation(volume, record, outcome, identify(propagator))


def rebuild_segmentation(
    volume: Volume, record: EvidenceRecord, mask: NDArray[np.bool_], propagator: Mapping[str, Any]
) -> Segmentation:
    """The answer that a record tells of, with its mask.

    Args:
        volume: The scan.
        record: Its anchor counts; where that is no longer what the completion says, the answer is an edited one.
        mask: (Z, Y, X) bool that the anchor was propagated to.
        propagator: Identity of the propagator that did it.
    """
    provenance = {
        "policy": dict(record.policy),
        "propagator": dict(propagator),
        "sampling": dict(record.sampling),
        "edited": was_moved(volume, record),
    }
    said = Completion(record.completion, looks=record.looks)
    return Segmentation(volume, record.query, mask, record.evidence, said, provenance)


def require_same_scan(volume: Volume, record: EvidenceRecord) -> None:
    """Refuse a scan that a record was not written for.

    Raises:
        RecordError: Its voxels or its geometry are others.
    """
    if hash_volume(volume) != record.scan_sha256:
        raise RecordError(
            f"the record was written for another scan ({record.scan_path or 'made in memory'}, sha256 "
            f"{record.scan_sha256[:12]}...); give that scan, or allow another one with "
            "--allow_other_scan (in Python: allow_other_scan=True)"
        )


def require_edit_is_read(volume: Volume, record: EvidenceRecord) -> None:
    """Refuse a record in which a person changed what is written for other programs, and nothing that is read.

    Such an edit would be lost in silence: the mask would be the one before it.

    Raises:
        RecordError: Slice and boxes are those of the mask, and another field of the evidence says something else.
    """
    if not _is_as_written(volume.shape, record):
        return
    written = record.described, describe_evidence(record.evidence, volume)
    said, expected = ([content, *content.get("further", [])] for content in written)
    for anchor, own in zip(said, expected, strict=False):  # a record that was made here describes nothing
        for name, value in anchor.items():
            if name not in _READ and not _is_near(value, own.get(name)):
                raise RecordError(
                    f"the record's evidence.{name} was changed, which is written for other programs and is not read; "
                    "change evidence.key_slice and evidence.boxes_px"
                )


def was_moved(volume: Volume, record: EvidenceRecord) -> bool:
    """True when slice or boxes are no longer those of the policy's own words."""
    return record.edited or not _is_own_words(record, volume.shape)


def lacks_its_mask(shape: tuple[int, int, int], record: EvidenceRecord) -> bool:
    """True when a person changed slice or boxes in the file, and the mask beside it is still that of the old ones.

    Args:
        shape: Of the scan, (Z, Y, X).
        record: Of the answer.
    """
    return bool(record.mask_file) and _is_as_written(shape, record) is False


def keeps_its_anchor(record: EvidenceRecord) -> bool | None:
    """Whether the mask beside a record was made from its slice and boxes; None where the record does not tell."""
    made_from = record.mask.get("anchor_sha256")
    return made_from == digest_anchor(record.evidence) if isinstance(made_from, str) else None


def require_inside(volume: Volume, evidence: Evidence) -> None:
    """Refuse an anchor that does not lie in the volume.

    Raises:
        RecordError: The key slice is not one of the scan's, or a box leaves it.
    """
    depth, height, width = volume.shape
    for anchor in evidence.anchors:
        if anchor.key_slice is not None and anchor.key_slice >= depth:
            raise RecordError(f"evidence.key_slice is {anchor.key_slice}; the scan has the slices 0 to {depth - 1}")
        for box in anchor.boxes.tolist():
            if box[2] > width or box[3] > height:
                raise RecordError(f"evidence.boxes_px holds {box}; the scan's slices are {width} x {height} pixels")


def require_looks_inside(volume: Volume, looks: Sequence[Look]) -> None:
    """Refuse looks at what does not lie in the volume.

    Raises:
        RecordError: A region leaves it.
    """
    for i, look in enumerate(looks):
        for axis, size in zip(AXES, volume.shape, strict=True):
            first, stop = getattr(look.region, axis)
            if stop > size:
                raise RecordError(f"looks[{i}].region.{axis} is [{first}, {stop}]; the scan has {size} voxels there")


def _is_as_written(shape: tuple[int, int, int], record: EvidenceRecord) -> bool | None:
    """Whether nobody changed slice and boxes in the file; None where that cannot be told."""
    kept = keeps_its_anchor(record)
    return _is_own_words(record, shape) if kept is None and not record.edited else kept


def _is_own_words(record: EvidenceRecord, shape: tuple[int, int, int]) -> bool:
    """True when the anchor is what the policy's completion says."""
    written = find_evidence(record.completion, shape, MAX_ANCHORS)
    return written is not None and same_anchor(written, record.evidence)


def same_anchor(one: Evidence, other: Evidence) -> bool:
    """True for the same key slices, in any order, with boxes that differ by no more than a record rounds."""
    mine, theirs = ({anchor.key_slice: anchor.boxes for anchor in said.anchors} for said in (one, other))
    return mine.keys() == theirs.keys() and all(
        boxes.shape == theirs[key].shape and bool(np.allclose(boxes, theirs[key], rtol=0, atol=_SAME_PX))
        for key, boxes in mine.items()
    )


def _is_near(one: Any, other: Any) -> bool:
    """True for equal plain values, whose numbers may differ by what a record rounds."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_near, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(one - other) <= _SAME_PX
    return bool(one == other)
