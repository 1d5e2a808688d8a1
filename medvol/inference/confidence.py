"""Confidence: what is known about how far an answer can be trusted, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from medvol.core.errors import UntrustedAnswerError
from medvol.core.looks import Look
from medvol.core.metrics import Mask
from medvol.core.training_data import TrainingData
from medvol.core.types import Completion, Volume
from medvol.core.visible_text import quote
from medvol.inference.agreement import Agreement, measure_agreement
from medvol.inference.novelty import AnswerWarning, find_novelties
from medvol.inference.votes import Votes

LOW_AGREEMENT = 0.5
"""Sampled answers that agree less than this on their anchors are warned of."""


@dataclass(frozen=True)
class Confidence:
    """What is known about an answer before anybody has looked at it.

    Args:
        mean_log_prob: Mean log-probability of the answer's tokens as they were drawn; None when the policy gives none.
        agreement: How far sampled answers agree; None when none were asked for.
        warnings: Why the answer may be worth nothing.
        unknown: What could not be told, in sentences.
        training_known: True when it is known what the policy was trained on.
    """

    mean_log_prob: float | None = None
    agreement: Agreement | None = None
    warnings: tuple[AnswerWarning, ...] = ()
    unknown: tuple[str, ...] = ()
    training_known: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "mean_log_prob": None if self.mean_log_prob is None else round(self.mean_log_prob, 4),
            "agreement": None if self.agreement is None else _rounded(asdict(self.agreement)),
            "warnings": [{"code": warning.code, "detail": warning.detail} for warning in self.warnings],
            "unknown": list(self.unknown),
            "training_known": self.training_known,
        }

    def sentences(self) -> list[str]:
        """Lines for a terminal: warnings first, then what is unknown, then the figures."""
        lines = [f"warning: {warning.detail}" for warning in self.warnings]
        lines += [f"unknown: {sentence}" for sentence in self.unknown]
        figures = [] if self.mean_log_prob is None else [f"mean token log-probability {self.mean_log_prob:.3f}"]
        if self.agreement is not None:
            found = self.agreement
            masks = "" if found.masks is None else f", masks {found.masks:.2f}"
            figures.append(
                f"{found.samples} sampled answers agree {found.anchors:.2f} (key slice {found.key_slice:.2f}, boxes "
                f"{found.boxes:.2f}{masks})"
            )
        return [*lines, *(["confidence: " + "; ".join(figures)] if figures else [])]


def judge_answer(
    completion: Completion,
    volume: Volume,
    query: str,
    training: TrainingData | None,
    policy: str,
    max_anchors: int = 1,
) -> Confidence:
    """Say what is known about an answer.

    Args:
        completion: The answer, with the samples that were drawn beside it.
        volume: The scan.
        query: The question.
        training: What the policy was trained on; None when it is not known.
        policy: The policy's name, for the sentences.
        max_anchors: Most anchors that its prompt allowed.
    """
    mean = _mean_log_prob(completion)
    unknown = [] if mean is not None else [f"{policy} gives no token probabilities"]
    warnings: list[AnswerWarning] = []
    if training is None:
        unknown.append(f"what {policy} was trained on, so query and scan were compared with nothing")
    else:
        found, missing = find_novelties(volume, query, training)
        warnings += found
        unknown += missing
    if any(look.failure for look in completion.looks):
        warnings.append(_unread_look(completion.looks[-1]))
    compared = len(completion.samples) > 1
    agreement = measure_agreement(completion.samples, volume, max_anchors) if compared else None
    if agreement is not None and agreement.anchors < LOW_AGREEMENT:
        warnings.append(_disagreement(agreement))
    return Confidence(mean, agreement, tuple(warnings), tuple(unknown), training is not None)


def add_votes(confidence: Confidence, votes: Votes, mask: Mask) -> Confidence:
    """What is known when the samples were followed to their masks too.

    Args:
        confidence: What is known of the answer, with the agreement of its samples.
        votes: Masks of the samples.
        mask: (Z, Y, X) of the answer itself.
    """
    assert confidence.agreement is not None, "votes come from samples, which were compared"
    agreement = replace(confidence.agreement, masks=votes.agreement, support=votes.support(mask))
    return replace(confidence, agreement=agreement)


def require_trust(confidence: Confidence, query: str) -> None:
    """Refuse an answer that carries a warning, or whose policy does not tell what it was trained on.

    Raises:
        UntrustedAnswerError: It does; the message holds every warning.
    """
    reasons = [warning.detail for warning in confidence.warnings]
    if not confidence.training_known:
        reasons.append("it is not known what the policy was trained on")
    if reasons:
        raise UntrustedAnswerError(f"the answer to {quote(query)} is refused by --strict: {'; '.join(reasons)}")


def _mean_log_prob(completion: Completion) -> float | None:
    """None without log-probabilities, or when one of them is no number."""
    if completion.log_probs is None or len(completion.log_probs) == 0:
        return None
    mean = float(np.mean(completion.log_probs, dtype=np.float64))
    return mean if math.isfinite(mean) else None


def _unread_look(look: Look) -> AnswerWarning:
    return AnswerWarning(
        "second_look_failed",
        "second look not readable",
        f"the second look could not be read ({look.failure}), so the answer is that of the first one alone",
    )


def _disagreement(agreement: Agreement) -> AnswerWarning:
    return AnswerWarning(
        "samples_disagree",
        f"samples agree {agreement.anchors:.2f}",
        f"{agreement.samples} sampled answers agree {agreement.anchors:.2f} on where it is, and less than "
        f"{LOW_AGREEMENT} is little: the policy guesses",
    )


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Figures that were measured."""
    known = {name: value for name, value in values.items() if value is not None}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in known.items()}


def read_warnings(confidence: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings of a record, in sentences; a person may have edited it."""
    found = confidence.get("warnings")
    rows = found if isinstance(found, list) else []
    return tuple(str(row.get("detail", "")) for row in rows if isinstance(row, dict))


def briefly(warnings: Sequence[AnswerWarning]) -> str:
    """Warnings in a few words, for a picture."""
    return "; ".join(warning.brief for warning in warnings)
