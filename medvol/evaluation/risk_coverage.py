"""Risk and coverage: what the confidence of answers is worth when a person can look at some of them only.

Cases are sorted by falling confidence. At a coverage c the most confident share c of them is accepted unseen; the risk
is their mean error, 1 - Dice. A confidence that knows the errors makes the risk rise as late as can be; one that knows
nothing has the same risk at every coverage. The area under the curve sums it up: less is better.

Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010; the area after
Geifman, Uziel and El-Yaniv, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medvol.core.errors import ConfigError
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.statistics import bootstrap_bounds

LOOKED_AT = 10
"""Cases that are named as those to look at first."""


@dataclass(frozen=True)
class RiskCoverage:
    """The curve and its area, with the two areas that bound what a confidence can be worth.

    Args:
        coverage: Share of the cases that is accepted, ascending, N values; the last one is 1.
        risk: Mean error of the accepted cases, N values.
        area: Mean of ``risk`` over the N coverages (AURC).
        random: Area of an order drawn at random, on average: the mean error of all cases.
        perfect: Area of the order by error itself, the least that there is.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    random: float
    perfect: float

    @property
    def gain(self) -> float | None:
        """0 for an order at random, 1 for the perfect one, below 0 for a worse one; None when all errors are equal."""
        span = self.random - self.perfect
        return (self.random - self.area) / span if span > 1e-12 else None


def risk_coverage(confidence: ArrayLike, error: ArrayLike) -> RiskCoverage:
    """Risk at every coverage.

    Args:
        confidence: One value a case, (N,); among equal ones the order is random, and the risk is the mean over orders.
        error: One value a case, (N,).

    Raises:
        ConfigError: There are no cases, the lengths differ, or a value is not finite.
    """
    trust, errors = (np.asarray(values, np.float64) for values in (confidence, error))
    if not trust.size or trust.ndim != 1 or trust.shape != errors.shape or not np.isfinite([trust, errors]).all():
        raise ConfigError(
            f"a curve needs one finite confidence and one error a case; got {trust.shape} and {errors.shape}"
        )
    risk, least = _mean_of_first(errors, -trust), _mean_of_first(errors, errors)
    coverage = np.arange(1, len(risk) + 1) / len(risk)
    area, random, perfect = (float(values.mean()) for values in (risk, errors, least))
    return RiskCoverage(tuple(coverage.tolist()), tuple(risk.tolist()), area, random, perfect)


def rank_correlation(confidence: ArrayLike, dice: ArrayLike) -> float | None:
    """Spearman's rank correlation of confidence and Dice, in [-1, 1]; None when one of them is the same everywhere."""
    trust, scores = np.asarray(confidence, np.float64), np.asarray(dice, np.float64)
    if len(trust) < 2 or np.ptp(trust) == 0 or np.ptp(scores) == 0:
        return None
    return float(stats.spearmanr(trust, scores).statistic)


def describe_confidence(scores: Sequence[CaseScore], seed: int = 0) -> dict[str, Any] | None:
    """What the confidence of the cases of a run is worth.

    Args:
        scores: Scores of all cases; Dice is ``dsc``, 0 for a failure, and 1 or 0 where the target is absent.
        seed: Seed of the bootstrap.

    Returns:
        Plain values for JSON; None when no case has a confidence. ``cases``; ``rank_correlation`` and ``gain``, each
        with ``value``, ``low`` and ``high``, the 95 % percentile interval by patient, any of them None; ``curve`` with
        the fields of ``RiskCoverage``; and ``look_first``, the cases of least confidence, least first.
    """
    known = [score for score in scores if score.confidence is not None]
    if not known:
        return None
    table = np.array([[score.confidence, score.dsc] for score in known], np.float64)
    patients = [score.patient_id for score in known]
    curve = risk_coverage(table[:, 0], 1 - table[:, 1])
    worth: dict[str, Callable[[NDArray[np.float64]], float | None]] = {
        "rank_correlation": lambda rows: rank_correlation(rows[:, 0], rows[:, 1]),
        "gain": lambda rows: risk_coverage(rows[:, 0], 1 - rows[:, 1]).gain,
    }
    intervals = {}
    for name, measure in worth.items():
        low, high = bootstrap_bounds(table, patients, measure, seed=seed)
        intervals[name] = {"value": measure(table), "low": low, "high": high}
    first = sorted(known, key=lambda score: score.confidence or 0.0)[:LOOKED_AT]
    return {
        "cases": len(known),
        **intervals,
        "curve": asdict(curve),
        "look_first": [
            {key: getattr(score, key) for key in ("case_id", "target", "query", "confidence", "dsc", "failure")}
            for score in first
        ],
    }


def _mean_of_first(errors: NDArray[np.float64], key: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean error of the first k cases by an ascending key, for every k; equal keys share their mean error."""
    order = np.argsort(key, kind="stable")
    _, group, counts = np.unique(key[order], return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = np.bincount(group, errors[order]) / counts
    means: NDArray[np.float64] = np.cumsum(shared[group]) / np.arange(1, len(errors) + 1)
    return means
