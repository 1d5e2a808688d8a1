"""True evidence anchors, worked out from masks: the labels of cold-start SFT and of every ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.core.errors import ConfigError, GeometryError
from medvol.core.ranges import require_between, require_choice
from medvol.core.types import Evidence
from medvol.grounding.boxes import tight_boxes
from medvol.grounding.cover import CoveredPart, cover_target

KeySliceRule = Literal["paper", "largest", "any"]
"""``paper``: upper median of the ten largest; ``largest``: the largest; ``any``: a random visible one."""

_TOP = 10
_VISIBLE_SHARE = 0.1


def choose_key_slice(
    areas: ArrayLike, shown: Sequence[int], rule: KeySliceRule = "paper", rng: np.random.Generator | None = None
) -> int | None:
    """Choose the key slice of a target among the slices that a policy sees.

    Args:
        areas: Target area of every slice of the volume, (Z,).
        shown: Indices of the slices shown.
        rule: See ``KeySliceRule``; ``any`` draws among the slices with at least a tenth of the largest area.
        rng: Needed by ``any``.

    Returns:
        Index in the volume; None when no shown slice holds the target.

    Source: MedVol-R1, select_slices.py: the ten largest areas among the sampled slices, then the upper median of
    their indices.
    """
    area = np.asarray(areas, np.float64)
    visible = [z for z in shown if area[z] > 0]
    if not visible:
        return None
    by_area = sorted(visible, key=lambda z: (-area[z], z))
    if rule == "largest":
        return int(by_area[0])
    if rule == "paper":
        top = sorted(by_area[:_TOP])
        return int(top[len(top) // 2])
    if rng is None:
        raise ConfigError("the rule 'any' draws a slice; give it a random generator, rng")
    clear = [z for z in visible if area[z] >= _VISIBLE_SHARE * area[by_area[0]]]
    return int(rng.choice(clear))


def label_anchor(
    mask: NDArray[np.bool_],
    shown: Sequence[int] | None = None,
    rule: KeySliceRule = "paper",
    split_boxes: bool = True,
    jitter: float = 0.0,
    rng: np.random.Generator | None = None,
    rationale: str = "",
    max_anchors: int = 1,
) -> Evidence:
    """Compute the anchor of a target from its mask, or several where its parts lie at different heights.

    Args:
        mask: (Z, Y, X) bool.
        shown: Indices of the slices that a policy sees; all when None.
        rule: How the key slice is chosen.
        split_boxes: One box for each clear component on the key slice; one box of all when False.
        jitter: Move every edge by up to this share of the box's side, uniformly (imperfect labels).
        rng: Needed by ``jitter`` and by the rule ``any``.
        rationale: Text of the think block.
        max_anchors: Most anchors. With more than 1 the target is dealt among them by greedy cover, see
            ``medvol.grounding.cover``, and each part has a key slice and boxes of its own. Where the rule gives two
            parts one slice, each takes the slice with its largest area.

    Returns:
        The anchor, with further ones from feet to head; an absent one when no shown slice holds the target.

    Raises:
        GeometryError: The mask has other than three axes, or a slice that is shown is not one of it.
        ConfigError: The rule is none, the jitter is out of range, or what is drawn has no ``rng``.
    """
    if mask.ndim != 3:
        raise GeometryError(f"a mask has three axes (Z, Y, X), this one has shape {mask.shape}")
    require_choice(KeySliceRule, rule=rule)
    require_between("[0, 1)", jitter=jitter)
    if shown is not None and not all(0 <= z < mask.shape[0] for z in shown):
        raise GeometryError(f"shown holds {list(shown)!r:.80}; the mask has the slices 0 to {mask.shape[0] - 1}")
    parts = cover_target(mask, range(mask.shape[0]) if shown is None else shown, max_anchors)

    def label(part: CoveredPart, rule: KeySliceRule) -> Evidence:
        key = choose_key_slice(part.mask.sum(axis=(1, 2)), part.slices, rule, rng)
        assert key is not None, "its slices show it"
        return Evidence(key, _loosen(tight_boxes(part.mask[key], split_boxes), jitter, mask.shape[1:], rng))

    anchors = [label(part, rule) for part in parts]
    if len({anchor.key_slice for anchor in anchors}) < len(anchors):
        anchors = [label(part, "largest") for part in parts]  # which are never the same slice
    return join_anchors(sorted(anchors, key=lambda anchor: anchor.key_slice or 0), rationale)


def join_anchors(anchors: Sequence[Evidence], rationale: str = "") -> Evidence:
    """One answer of several anchors, each on another slice; an absent one without any.

    Args:
        anchors: Anchors, none of them absent.
        rationale: Text of the think block.
    """
    if not anchors:
        return Evidence(None, np.empty((0, 4), np.float64), rationale)
    first, *further = (anchor for answer in anchors for anchor in answer.anchors)
    return replace(first, rationale=rationale, further=tuple(replace(anchor, rationale="") for anchor in further))


def given_anchor(
    anchor: Evidence,
    shape: tuple[int, int, int],
    split_boxes: bool = True,
    jitter: float = 0.0,
    rng: np.random.Generator | None = None,
    rationale: str = "",
) -> Evidence:
    """Write an anchor that a reader gave as ``label_anchor`` writes one of a mask.

    Args:
        anchor: Key slices and boxes; not an absent one.
        shape: Of the volume (Z, Y, X).
        split_boxes: Keep the boxes apart; one box around all of those on a slice when False.
        jitter: As for ``label_anchor``.
        rng: Needed by ``jitter``.
        rationale: Text of the think block.
    """
    written = []
    for one in anchor.anchors:
        boxes = one.boxes
        if not split_boxes:
            boxes = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
        written.append(Evidence(one.key_slice, _loosen(boxes, jitter, shape[1:], rng)))
    return join_anchors(written, rationale)


def anchor_key(evidence: Evidence) -> tuple[tuple[int | None, bytes], ...]:
    """Equal for answers about one volume that give equal masks; rationale and order do not count."""
    anchors = sorted(evidence.anchors, key=lambda anchor: -1 if anchor.key_slice is None else anchor.key_slice)
    return tuple((anchor.key_slice, np.ascontiguousarray(anchor.boxes, np.float64).tobytes()) for anchor in anchors)


def settled_score(evidence: Evidence | None, target: NDArray[np.bool_]) -> float | None:
    """Score that an answer earns before its anchor is compared with the target.

    Returns:
        0 for an answer that could not be parsed, for ``[]`` on a present target and for boxes on an absent one; 1 for
        ``[]`` on an absent target; None when there are both an anchor and a target to compare.
    """
    if evidence is None:
        return 0.0
    present = bool(target.any())
    if present and not evidence.absent:
        return None
    return float(evidence.absent and not present)


def _loosen(
    boxes: NDArray[np.float64], share: float, shape: tuple[int, ...], rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """Move edges without letting a box leave the slice; edges that pass each other change places."""
    if share <= 0:
        return boxes
    if rng is None:
        raise ConfigError("jitter moves the edges at random; give it a random generator, rng")
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.uniform(-share, share, boxes.shape) * sides
    low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
    moved = np.concatenate([low, high], axis=1)
    return np.clip(moved, 0, [shape[1], shape[0], shape[1], shape[0]])
