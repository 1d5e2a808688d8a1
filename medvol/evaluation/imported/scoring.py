"""Scores of masks that another system made, under the failure rule of our own runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.metrics import Mask
from medvol.core.roles import CaseDataset
from medvol.core.types import Volume
from medvol.evaluation.case_ids import require_new
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.imported.matching import Answer, MaskIndex
from medvol.evaluation.imported.reading import read_labels_on
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.scoring import score_mask
from medvol.evaluation.settings import EvaluationSettings
from medvol.guarding.cases import count_cases, look_up
from medvol.imaging.label_values import select_labels


def score_masks(
    dataset: CaseDataset,
    index: MaskIndex,
    settings: EvaluationSettings,
    kept: KeptMasks,
    resample: bool = False,
    hear: Callable[[int], None] = lambda done: None,
) -> list[CaseScore]:
    """Score the mask of every question; one that has none is a failure, which counts as 0.

    Args:
        dataset: The questions, with their true masks.
        index: Masks of the other system.
        settings: What is measured.
        kept: Keeps the masks, on the grid of their scans.
        resample: See ``read_labels_on``.
        hear: Told how many are done.

    Raises:
        DatasetError: A question has no true mask, two have one id, or a mask cannot be matched or read.
        ScanError: A file is refused.
        GeometryError: A mask lies on another grid than its scan.
    """
    scores: dict[str, CaseScore] = {}
    read: dict[Path, NDArray[np.int32]] = {}
    for place in range(count_cases(dataset)):
        case = look_up(dataset, place)
        require_new(case.case_id, scores)
        answer = index.answer(place, case.case_id, case.query)
        mask = _unite(answer, case.volume, read, index, resample)
        score = score_mask(mask, case, settings, answer.missing)
        scores[case.case_id] = score if mask is None else kept.keep(score, case, mask)
        hear(place + 1)
    return list(scores.values())


def _unite(
    answer: Answer, volume: Volume, read: dict[Path, NDArray[np.int32]], index: MaskIndex, resample: bool
) -> Mask | None:
    """The union of the masks of an answer; None where one is missing. The file that was read last is kept in ``read``.

    A label map answers many questions in turn; a scan with a file for each class may have a hundred of them.
    """
    if not answer.masks:
        return None
    united = np.zeros(volume.shape, bool)
    for mask in answer.masks:
        if mask.path not in read:
            read.clear()
            read[mask.path] = _read_noted(mask.path, volume, index, resample)
        united |= select_labels(mask.path, read[mask.path], mask.labels or None)
    return united


def _read_noted(path: Path, volume: Volume, index: MaskIndex, resample: bool) -> NDArray[np.int32]:
    labels = read_labels_on(path, volume, resample)
    index.note_labels(path, np.unique(labels[labels != 0]).tolist())
    return labels
