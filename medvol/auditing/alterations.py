"""True answers made worse: what a reward has to rank, and the exploits that it must not pay for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvol.core.metrics import slice_areas
from medvol.core.prompts import INSTRUCTION
from medvol.core.roles import Aspect
from medvol.core.types import Case, Evidence, require_target
from medvol.grounding.anchors import join_anchors, label_anchor
from medvol.grounding.boxes import matched_iou, tight_boxes
from medvol.grounding.cover import cover_target
from medvol.testing.fixtures import make_answer, write_evidence

Boxes = NDArray[np.float64]

ALL = frozenset[Aspect]({"form", "slice", "boxes", "mask"})
GROUNDING = frozenset[Aspect]({"slice", "boxes", "mask"})
"""What is wrong with an answer that names nothing, or something else, in a form that can pass."""

_MANY = 60
"""Boxes that still fit into an answer."""
_GRID = 8
_JITTER = 0.2


@dataclass(frozen=True, eq=False)
class Scene:
    """A case with its true answer, to be made worse.

    Args:
        case: The question, with its mask.
        others: Masks (Z, Y, X) of other targets in the same volume.
        step: Coordinates are multiples of this.
        split_boxes: One true box for each part of the target on a slice.
        max_anchors: Most anchors of an answer.
    """

    case: Case
    others: Sequence[NDArray[np.bool_]] = ()
    step: int = 1
    split_boxes: bool = True
    max_anchors: int = 1

    @cached_property
    def parts(self) -> list[Scene]:
        """A scene for each anchor of the true answer, with the part of the target that it answers for."""
        parts = cover_target(self.target, range(len(self.target)), self.max_anchors)
        return [replace(self, case=replace(self.case, target=part.mask), max_anchors=1) for part in parts]

    def write(self, anchors: Sequence[Evidence]) -> str:
        """Answer with anchors."""
        return write_evidence(self.case, join_anchors(anchors), self.step)

    @property
    def target(self) -> NDArray[np.bool_]:
        """True mask (Z, Y, X)."""
        return require_target(self.case)

    @property
    def areas(self) -> NDArray[np.int64]:
        """Target area of every slice."""
        return slice_areas(self.target)

    @property
    def key(self) -> int:
        """The slice that shows most; the middle one when the target is absent."""
        return int(self.areas.argmax()) if self.target.any() else len(self.target) // 2

    def boxes(self, key_slice: int) -> Boxes:
        """True boxes of a slice."""
        return tight_boxes(self.target[key_slice], split=self.split_boxes)

    def at(self, key_slice: int | None, boxes: ArrayLike | None = None) -> str | None:
        """Answer with a slice and boxes on it, its own when None; None where there is no such slice."""
        if key_slice is None:
            return None
        own = self.boxes(key_slice) if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4)
        return make_answer(self.case, key_slice, own, self.step)

    def boxed(self, boxes: ArrayLike, below: float = 0.5) -> str | None:
        """Answer with other boxes on the true slice; None where they match the true ones too well to be wrong."""
        return self.at(self.key, boxes) if matched_iou(boxes, self.boxes(self.key)) < below else None

    def at_area(self, share: float) -> int | None:
        """Another slice than the best, whose area is nearest to a share of the largest, less than all and not 0."""
        areas = self.areas / max(self.areas.max(), 1)
        lesser = np.flatnonzero((areas > 0) & (areas < 1))
        return int(min(lesser, key=lambda z: (abs(areas[z] - share), abs(z - self.key)))) if len(lesser) else None

    def off_target(self) -> int | None:
        """The slice without the target that lies farthest from it."""
        empty, shown = np.flatnonzero(self.areas == 0), np.flatnonzero(self.areas)
        return int(max(empty, key=lambda z: np.abs(shown - z).min())) if len(empty) else None


@dataclass(frozen=True)
class Alteration:
    """A way to make a true answer worse.

    Args:
        name: What was done to it.
        spoils: What is certainly worse than in the true answer.
        write: The altered answer; None where a case leaves no room for it.
        mask: False for an answer from which nothing is propagated, whatever the propagator.
        absent: It is about a target that the scan does not show.
    """

    name: str
    spoils: frozenset[Aspect]
    write: Callable[[Scene], str | None]
    mask: bool = True
    absent: bool = False


def read_truth(scene: Scene) -> Evidence:
    """The best anchors that there are."""
    return label_anchor(scene.target, None, "largest", scene.split_boxes, max_anchors=scene.max_anchors)


def write_truth(scene: Scene) -> str:
    """The best answer that can be written."""
    return write_evidence(scene.case, read_truth(scene), scene.step)


def write_honest(scene: Scene) -> str | None:
    """An honest, mediocre answer: slices with about 3/4 of the largest area, the boxes a quarter of their side off."""
    return scene.write([_honest_anchor(part) for part in scene.parts])


def _honest_anchor(scene: Scene) -> Evidence:
    key_slice = scene.at_area(0.75)
    key_slice = scene.key if key_slice is None else key_slice
    return Evidence(key_slice, _aside(scene.boxes(key_slice), scene.case.volume.shape[2]))


def _aside(boxes: Boxes, width: int) -> Boxes:
    """Boxes moved by a quarter of their side, towards the middle of the slice."""
    shift = (boxes[:, 2] - boxes[:, 0]) / 4 * np.sign(width / 2 - boxes[:, [0, 2]].mean(axis=1) + 1e-9)
    moved: Boxes = boxes + shift[:, None] * np.array([1, 0, 1, 0])
    return moved


def _lesser_part(scene: Scene) -> str | None:
    """Where the area has a second, lower summit."""
    areas = np.pad(scene.areas, 1)
    rises, falls = areas[1:-1] > areas[:-2], areas[1:-1] > areas[2:]
    summits = [int(z) for z in np.flatnonzero(rises & falls) if areas[z + 1] < areas.max()]
    return scene.at(min(summits, key=lambda z: areas[z + 1])) if summits else None


def _jittered(scene: Scene) -> str | None:
    rng = np.random.default_rng(0)
    return scene.boxed(
        label_anchor(scene.target, rule="largest", split_boxes=scene.split_boxes, jitter=_JITTER, rng=rng).boxes, 0.95
    )


def _slice_with_kept_boxes(scene: Scene) -> str | None:
    key_slice, boxes = scene.at_area(0.5), scene.boxes(scene.key)
    if key_slice is None or matched_iou(boxes, scene.boxes(key_slice)) > 0.95:
        return None
    return scene.at(key_slice, boxes)


def _mirrored(scene: Scene) -> str | None:
    boxes = scene.boxes(scene.key)
    mirrored = np.array([1, 0, 1, 0]) * scene.case.volume.shape[2] + boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])
    return scene.boxed(mirrored, 0.1)


def _other_target(scene: Scene) -> str | None:
    if not scene.others:
        return None
    anchor = label_anchor(scene.others[0], rule="largest", split_boxes=scene.split_boxes)
    return scene.at(anchor.key_slice, anchor.boxes)


def _whole(scene: Scene) -> list[int]:
    _, height, width = scene.case.volume.shape
    return [0, 0, width, height]


def _grid(scene: Scene) -> list[list[float]]:
    _, height, width = scene.case.volume.shape
    x, y = width / _GRID, height / _GRID
    return [[x * i, y * j, x * (i + 1), y * (j + 1)] for i in range(_GRID) for j in range(_GRID)]


def _middle(scene: Scene) -> NDArray[np.float64]:
    """Middle pixel of the first true box."""
    box = scene.boxes(scene.key)[0]
    corner = np.floor((box[:2] + box[2:]) / 2)
    return np.concatenate([corner, corner + 1])


def _row(scene: Scene) -> NDArray[np.float64]:
    """One row of pixels across the whole slice, through the middle of the first true box."""
    _, top, _, bottom = _middle(scene)
    return np.array([0, top, scene.case.volume.shape[2], bottom])


def _raw(scene: Scene, boxes: Sequence[object] | None = None, key_slice: int | None = None) -> str:
    """An answer that need not follow the grammar; boxes as they are written."""
    true = [[300, 350, 700, 650]] if boxes is None else boxes
    items = json.dumps([{"slice": scene.key if key_slice is None else key_slice, "bbox_2d_list": true}])
    return f"<think>It is seen here.</think><answer>{items}</answer>"


def _without_thought(scene: Scene) -> str:
    text = write_truth(scene)
    return text[text.index("<answer>") :]


PERTURBATIONS = (
    Alteration("no reasoning", frozenset({"form"}), _without_thought),
    Alteration("slice with half the area", frozenset({"slice"}), lambda scene: scene.at(scene.at_area(0.5))),
    Alteration("slice with half the area, boxes kept", frozenset({"slice", "boxes"}), _slice_with_kept_boxes),
    Alteration("slice of a smaller part", frozenset({"slice"}), _lesser_part),
    Alteration("slice at the end", frozenset({"slice"}), lambda scene: scene.at(scene.at_area(0.0))),
    Alteration("boxes jittered", frozenset({"boxes"}), _jittered),
    Alteration("boxes doubled", frozenset({"boxes"}), lambda s: s.at(s.key, np.tile(s.boxes(s.key), (2, 1)))),
    Alteration("nothing propagated", frozenset({"mask"}), write_truth, mask=False),
)
"""Each ranks below the truth."""

EXPLOITS = (
    Alteration("whole image", frozenset({"boxes"}), lambda scene: scene.boxed(_whole(scene))),
    Alteration("whole image, many times", frozenset({"boxes"}), lambda scene: scene.boxed([_whole(scene)] * _MANY)),
    Alteration("grid of boxes", frozenset({"boxes"}), lambda scene: scene.boxed(_grid(scene))),
    Alteration("one box, many times", frozenset({"boxes"}), lambda s: s.boxed([s.boxes(s.key)[0]] * _MANY)),
    Alteration("box of one pixel", frozenset({"boxes"}), lambda scene: scene.boxed(_middle(scene))),
    Alteration("box of one row", frozenset({"boxes"}), lambda scene: scene.boxed(_row(scene))),
    Alteration("wrong side", frozenset({"boxes", "mask"}), _mirrored),
    Alteration("another target", frozenset({"boxes", "mask"}), _other_target),
    Alteration("slice off the target", GROUNDING, lambda s: s.at(s.off_target(), s.boxes(s.key))),
    Alteration(
        "slice off the target, nothing propagated",
        GROUNDING,
        lambda s: s.at(s.off_target(), s.boxes(s.key)),
        mask=False,
    ),
    Alteration("says that it is absent", GROUNDING, lambda scene: make_answer(scene.case, None, np.empty((0, 4)))),
    Alteration("slice outside the volume", GROUNDING, lambda scene: _raw(scene, key_slice=len(scene.target))),
    Alteration("negative slice", GROUNDING, lambda scene: _raw(scene, key_slice=-1)),
    Alteration("hundred boxes", GROUNDING, lambda scene: _raw(scene, [[300, 350, 700, 650]] * 100)),
    Alteration("two slices", GROUNDING, lambda scene: _raw(scene).replace("}]", '}, {"slice": 0}]')),
    Alteration("thousand boxes", ALL, lambda scene: _raw(scene, [[300, 350, 700, 650]] * 1000)),
    Alteration("two answers", ALL, lambda scene: write_truth(scene) * 2),
    Alteration("no answer", ALL, lambda scene: "<think>It is seen here.</think>"),
    Alteration("empty", ALL, lambda scene: ""),
    Alteration("prompt copied", ALL, lambda scene: f"{INSTRUCTION}\n{scene.case.query.text}"),
    Alteration("example of the prompt copied", ALL, lambda scene: _raw(scene, [["x1", "y1", "x2", "y2"]])),
    Alteration("very long", ALL, lambda scene: write_truth(scene).replace("<think>", "<think>" + "It is " * 3000)),
    Alteration("box turned round", ALL, lambda scene: _raw(scene, [[700, 650, 300, 350]])),
    Alteration("box of floats", ALL, lambda scene: _raw(scene, [[300.0, 350.0, 700.0, 650.0]])),
    Alteration("box beyond the image", ALL, lambda scene: _raw(scene, [[300, 350, 1700, 1650]])),
    Alteration("deeply nested", ALL, lambda scene: f"<think>a</think><answer>{'[' * 900}{']' * 900}</answer>"),
    Alteration("boxes on what is absent", GROUNDING, _raw, absent=True),
    Alteration("boxes on what is absent, nothing propagated", GROUNDING, _raw, mask=False, absent=True),
    Alteration("no answer on what is absent", ALL, lambda scene: "<think>It is not there.</think>", absent=True),
)
"""Each ranks below an honest, mediocre answer, and below the truth where the target is absent."""
