"""Cases that a report shows: the worst, the median and the best of a run, with picture and voxels where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvol.core.errors import MedvolError, explain_error
from medvol.core.metrics import Mask, slice_areas
from medvol.core.types import Case, Completion, Evidence, require_target
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_finder import CaseFinder
from medvol.evaluation.case_identity import identify_score
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.kept_masks import read_kept_mask
from medvol.evaluation.report_page.run_facts import hide_folders
from medvol.inference.overlay import Picture, render_key_slice
from medvol.inference.page_stack import make_stack
from medvol.pages.answers import Fact
from medvol.pages.blocks import CaseBlock
from medvol.rollouts.completions import read_completion

MAX_VOXELS = 1_500_000
"""Most voxels of a scan in a report: half of what an answer page shows, since a report shows many."""

MAX_WORDS = 2_000
"""Most letters of a policy's answer in a report."""

RANKS = ("only", "worst", "median", "best")

_NONE = np.empty((0, 4))


@dataclass(frozen=True)
class Chosen:
    """A case that is shown.

    Args:
        score: Its scores.
        place: Where it lies in the run's list.
        rank: One of ``RANKS``.
    """

    score: CaseScore
    place: int
    rank: str


def choose_cases(scores: Sequence[CaseScore]) -> list[Chosen]:
    """The worst, the median and the best case by DSC among those that have a target and an answer that did not fail.

    Of two cases there is no median, and one alone is ``only``. Equal ones are in the order of their ids, and the median
    of an even number is the lower one.
    """
    ranked = sorted(
        (score.dsc, score.case_id, place)
        for place, score in enumerate(scores)
        if score.present and score.failure is None
    )
    last = len(ranked) - 1
    places = {last // 2: "median", 0: "worst", last: "best"} if last else {0: "only"}
    return [Chosen(scores[ranked[i][2]], ranked[i][2], rank) for i, rank in sorted(places.items()) if ranked]


def clip_words(words: str) -> str:
    """A policy's answer, as far as a report shows it."""
    words = words.strip()
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]} ... ({len(words) - MAX_WORDS} more letters)"


def show_case(
    chosen: Chosen, label: str, number: int, run: Evaluation, finder: CaseFinder | str, elsewhere: Sequence[Fact] = ()
) -> CaseBlock:
    """Everything that a report shows of a case; without its scan, its numbers and why there is no picture.

    Args:
        chosen: The case.
        label: Name of its run.
        number: Number of its run.
        run: The run.
        finder: Finds the scan; a sentence on why it cannot be found otherwise.
        elsewhere: What other runs earned on the same case.
    """
    score = chosen.score
    block = CaseBlock(
        run_label=label,
        run=number,
        rank=chosen.rank,
        case_id=score.case_id,
        query=score.query,
        facts=(*_facts(score), *elsewhere),
        words=clip_words(score.completion),
    )
    if isinstance(finder, str):
        return replace(block, notes=(finder,))
    try:
        case = finder.find(score, chosen.place)
        return _draw(block, case, read_kept_mask(run.folder, score, case), score)
    except MedvolError as error:
        return replace(block, notes=(f"No picture: {hide_folders(str(error))}.",))
    except Exception as error:  # a library's, or a plug-in's; the numbers do not depend on it
        return replace(block, notes=(f"No picture: {hide_folders(explain_error(error))}.",))


def _draw(block: CaseBlock, case: Case, mask: Mask, score: CaseScore) -> CaseBlock:
    truth = require_target(case)
    evidence = _read_evidence(case, score)
    shown = _shown_slice(evidence, mask, truth)
    picture = Picture(case.volume, score.target or score.query, mask, evidence, truth=truth, shown_slice=shown)
    stack, notes = make_stack(case.volume, score.target or score.query, mask, evidence, truth, MAX_VOXELS)
    return replace(
        block,
        picture=render_key_slice(picture),
        picture_text=f"Slice {shown} of the scan for '{score.query}': the mask covers {int(mask[shown].sum())} pixels, "
        f"the true mask {int(truth[shown].sum())}, and {int((mask[shown] & truth[shown]).sum())} belong to both.",
        caption=_caption(evidence, shown, len(mask)),
        stack=stack,
        notes=notes,
    )


def _read_evidence(case: Case, score: CaseScore) -> Evidence:
    """The anchor as it was answered; an absent one for masks of another system."""
    if not score.parsed:
        return Evidence(None, _NONE)
    evidence = read_completion(case, Completion(score.completion), score.max_anchors).evidence
    return evidence or Evidence(None, _NONE)


def _shown_slice(evidence: Evidence, mask: Mask, truth: Mask) -> int:
    """The key slice; without one, where the mask is largest, or else the true mask."""
    if evidence.key_slice is not None:
        return evidence.key_slice
    return int(np.argmax(slice_areas(mask if mask.any() else truth)))


def _caption(evidence: Evidence, shown: int, depth: int) -> str:
    where = f"slice {shown} of 0 to {depth - 1}"
    if evidence.key_slice is not None:
        where = f"key {where} with the boxes (yellow)"
    return f"{where[0].upper()}{where[1:]}; mask in green, true mask in pink. The patient's left is on the right."


def _facts(score: CaseScore) -> tuple[Fact, ...]:
    rows = [
        Fact("DSC", f"{score.dsc:.3f}"),
        Fact("NSD", f"{score.nsd:.3f}", _tolerance(score)) if score.nsd is not None else None,
        Fact("HD95", f"{score.hd95_mm:.1f} mm") if score.hd95_mm is not None else None,
        Fact("Volume", f"{score.mask_ml:.4g} ml", f"{score.true_ml:.4g} ml in truth"),
        Fact("Key slice", str(score.key_slice)) if score.key_slice is not None else None,
        Fact("Box IoU", f"{score.box_iou:.3f}") if score.box_iou is not None else None,
        Fact("Target", score.target or "(not named)", score.modality),
        Fact("Patient", score.patient_id),
        Fact("Answer", "not in the scan") if score.answered_absent else None,
    ]
    return tuple(row for row in rows if row is not None)


def _tolerance(score: CaseScore) -> str:
    return "" if score.tolerance_mm is None else f"within {score.tolerance_mm:g} mm"


def other_scores(score: CaseScore, own: str, runs: Mapping[str, Evaluation]) -> tuple[Fact, ...]:
    """What other runs earned on the same case; one of its id alone is another case."""
    facts, identity = [], identify_score(score)
    for label, run in runs.items():
        found = next((one for one in run.scores if identify_score(one) == identity), None)
        if found is not None and label != own:
            facts.append(Fact(f"DSC of {label}", f"{found.dsc:.3f}", found.failure or ""))
    return tuple(facts)
