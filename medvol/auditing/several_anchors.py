"""Alterations where an answer may hold several anchors: too few, too many, the same again, or on nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from medvol.auditing.alterations import Alteration, Scene, read_truth
from medvol.core.roles import Aspect
from medvol.core.types import Evidence

_MOST_SLICES = 10
_LEAST_SLICES = 3
"""A part that is shown on fewer slices leaves no room for an answer that spends an anchor on each."""

_PLACES = frozenset[Aspect]({"slice", "boxes"})
_GROUNDING = frozenset[Aspect]({"slice", "boxes", "mask"})


def _one_too_few(scene: Scene) -> str | None:
    truth = read_truth(scene).anchors
    return scene.write(truth[1:]) if len(truth) > 1 else None


def _with_surplus(scene: Scene, surplus: Sequence[Evidence]) -> str | None:
    """The truth and as many further anchors as there is room for, at least one."""
    truth = read_truth(scene).anchors
    taken = {anchor.key_slice for anchor in truth}
    free = [anchor for anchor in surplus if anchor.key_slice not in taken][: scene.max_anchors - len(truth)]
    return scene.write([*truth, *free]) if free else None


def _spread(scene: Scene) -> list[Evidence]:
    """The first part on each slice that shows it, with its true boxes there, from the middle outwards."""
    part = scene.parts[0]
    slices = sorted(np.flatnonzero(part.areas).tolist(), key=lambda z: abs(z - part.key))
    return [Evidence(z, part.boxes(z)) for z in slices]


def _on_slices(scene: Scene) -> str | None:
    anchors = _spread(scene)[: min(_MOST_SLICES, scene.max_anchors)]
    return scene.write(anchors) if len(anchors) >= _LEAST_SLICES else None


def _pieces(scene: Scene) -> str | None:
    """The first true box cut into strips, one a slice."""
    anchors = _spread(scene)[: min(_MOST_SLICES, scene.max_anchors)]
    if len(anchors) < _LEAST_SLICES:
        return None
    x1, y1, x2, y2 = anchors[0].boxes[0].tolist()
    edges = np.linspace(x1, x2, len(anchors) + 1)
    strips = [np.array([[edges[i], y1, edges[i + 1], y2]]) for i in range(len(anchors))]
    return scene.write([Evidence(anchor.key_slice, strip) for anchor, strip in zip(anchors, strips, strict=True)])


def _empty_slices(scene: Scene) -> list[Evidence]:
    """Slices without the target, the farthest first, with the first part's boxes."""
    shown = np.flatnonzero(scene.areas)
    empty = sorted(np.flatnonzero(scene.areas == 0).tolist(), key=lambda z: -np.abs(shown - z).min())
    part = scene.parts[0]
    return [Evidence(z, part.boxes(part.key)) for z in empty]


def _on_nothing(scene: Scene) -> str | None:
    anchors = _empty_slices(scene)[: scene.max_anchors]
    return scene.write(anchors) if anchors else None


def _whole_images(scene: Scene) -> str | None:
    _, height, width = scene.case.volume.shape
    middles = _spread(scene)[: scene.max_anchors]
    whole = np.array([[0.0, 0.0, width, height]])
    return scene.write([Evidence(anchor.key_slice, whole) for anchor in middles]) if len(middles) > 1 else None


def _repeated(scene: Scene) -> str:
    """The first anchor of the truth as often as is allowed."""
    text = scene.write(read_truth(scene).anchors[:1])
    before, _, answer = text.partition("<answer>")
    item = json.loads(answer.removesuffix("</answer>"))[0]
    return f"{before}<answer>{json.dumps([item] * scene.max_anchors)}</answer>"


SEVERAL_PERTURBATIONS = (
    Alteration("one anchor too few", _GROUNDING, _one_too_few),
    Alteration("a needless anchor on a true slice", _PLACES, lambda scene: _with_surplus(scene, _spread(scene))),
    Alteration("a needless anchor on nothing", _PLACES, lambda scene: _with_surplus(scene, _empty_slices(scene))),
)
"""Each ranks below the truth."""

SEVERAL_EXPLOITS = (
    Alteration("one part on many slices", _PLACES, _on_slices),
    Alteration("one box cut over many slices", _PLACES, _pieces),
    Alteration("one anchor, many times", _GROUNDING, _repeated),
    Alteration("anchors on nothing", _GROUNDING, _on_nothing),
    Alteration("anchors on nothing, nothing propagated", _GROUNDING, _on_nothing, mask=False),
    Alteration("whole image on many slices", frozenset[Aspect]({"boxes"}), _whole_images),
)
"""Each ranks below an honest, mediocre answer."""
