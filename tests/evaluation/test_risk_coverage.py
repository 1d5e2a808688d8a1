"""What a confidence is worth: closed forms, brute force over orders, intervals, and how reports show it."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from rich.console import Console

from medvol.core.errors import ConfigError
from medvol.evaluation.archive import write_evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.report import report_runs
from medvol.evaluation.report_document import describe_runs
from medvol.evaluation.risk_coverage import describe_confidence, rank_correlation, risk_coverage
from medvol.evaluation.statistics import bootstrap_bounds


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_areas_of_evenly_spread_errors(n):
    """Errors 1 to n: the first k have mean (k + 1) / 2, so the least area is (n + 3) / 4, a random one (n + 1) / 2.

    In the reverse order the first k have mean n - (k - 1) / 2, and the area is (3 n + 1) / 4.
    """
    errors = np.arange(1, n + 1)
    best, worst = risk_coverage(-errors, errors), risk_coverage(errors, errors)
    assert best.area == best.perfect == worst.perfect == pytest.approx((n + 3) / 4)
    assert best.random == worst.random == pytest.approx((n + 1) / 2)
    assert worst.area == pytest.approx((3 * n + 1) / 4)
    assert best.coverage == tuple(k / n for k in range(1, n + 1))
    if n > 1:
        assert (best.gain, worst.gain) == pytest.approx((1, -1))


def test_one_failure_among_right_answers():
    """An error of 1 that is found last counts at full coverage alone, found first it counts as 1 / k everywhere."""
    n = 20
    errors = np.zeros(n)
    errors[3] = 1
    assert risk_coverage(-errors, errors).area == pytest.approx(1 / n**2)
    assert risk_coverage(errors, errors).area == pytest.approx(sum(1 / k for k in range(1, n + 1)) / n)


def test_equal_confidences_are_a_mean_over_their_orders():
    confidence, errors = np.array([3, 2, 2, 2, 1, 1]), np.array([0.1, 0.9, 0.2, 0.4, 0.0, 0.7])
    areas = []
    for order in itertools.permutations(range(6)):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            areas.append(np.mean([errors[list(order[:k])].mean() for k in range(1, 7)]))
    assert len(areas) == math.factorial(3) * math.factorial(2)
    assert risk_coverage(confidence, errors).area == pytest.approx(np.mean(areas))


def test_a_confidence_that_says_nothing_is_worth_nothing():
    errors = np.random.default_rng(0).random(30)
    flat = risk_coverage(np.ones(30), errors)
    assert flat.risk == pytest.approx([errors.mean()] * 30)
    assert flat.gain == pytest.approx(0)
    assert risk_coverage(np.arange(30), np.full(30, 0.25)).gain is None
    assert rank_correlation(np.ones(30), errors) is None


def test_the_random_area_is_that_of_random_orders():
    errors = np.random.default_rng(1).beta(1, 3, 40)
    rng = np.random.default_rng(2)
    areas = [risk_coverage(rng.permutation(40), errors).area for _ in range(2000)]
    assert np.mean(areas) == pytest.approx(risk_coverage(np.ones(40), errors).random, abs=0.005)


def test_the_rank_correlation_in_closed_form():
    """Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)): differences 0, 1, 1, 0 of four ranks give 0.8."""
    assert rank_correlation([1, 2, 3, 4], [0.1, 0.5, 0.2, 0.9]) == pytest.approx(0.8)


@pytest.mark.parametrize("given", [([], []), ([1, 2], [1]), ([1, np.nan], [0, 0])])
def test_what_gives_no_curve_is_refused(given):
    with pytest.raises(ConfigError, match="one finite confidence"):
        risk_coverage(*given)


def test_bounds_of_a_mean_are_those_of_the_bootstrap_over_patients():
    """A mean of n patients of spread s has bounds near +- 1.96 s / sqrt(n); further cases of a patient add nothing."""
    values = np.random.default_rng(3).normal(size=60)
    patients = [f"p{i}" for i in range(60)]
    low, high = bootstrap_bounds(values[:, None], patients, lambda rows: float(rows.mean()), resamples=4000)
    width = 2 * 1.96 * values.std() / math.sqrt(60)
    assert high - low == pytest.approx(width, rel=0.08)
    thrice = bootstrap_bounds(np.repeat(values, 3)[:, None], np.repeat(patients, 3).tolist(), lambda r: float(r.mean()))
    assert thrice[1] - thrice[0] == pytest.approx(width, rel=0.12)
    assert bootstrap_bounds(values[:, None], ["one"] * 60, lambda rows: 1.0) == (None, None)
    assert bootstrap_bounds(values[:, None], patients, lambda rows: None) == (None, None)


def make_scores(confidences, dices):
    plain = CaseScore("", "", "show it", "liver", "explicit", False, "CT", True, 0.0, 0.0, 1.0, 1.0, parsed=True)
    return [
        dataclasses.replace(plain, case_id=f"case-{i}", patient_id=f"p{i // 2}", confidence=trust, dsc=dice)
        for i, (trust, dice) in enumerate(zip(confidences, dices, strict=True))
    ]


TRUST, DICE = [0.9, 0.2, 0.8, 0.4, 0.6, 0.1] * 2, [0.8, 0.3, 0.9, 0.5, 0.4, 0.0] * 2


def test_a_description_of_a_run():
    found = describe_confidence(make_scores(TRUST, DICE))
    json.dumps(found)
    assert found["cases"] == 12
    assert found["curve"]["risk"][:2] == pytest.approx([0.2, 0.2])
    assert [found["curve"]["risk"][-1], found["curve"]["random"]] == pytest.approx([1 - np.mean(DICE)] * 2)
    for name in ("rank_correlation", "gain"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1
    first = found["look_first"]
    assert [row["case_id"] for row in first[:4]] == ["case-5", "case-11", "case-1", "case-7"]
    assert len(first) == 10
    assert describe_confidence(make_scores([None] * 3, [1.0] * 3)) is None
    some = describe_confidence(make_scores([0.5, None], [1.0, 0.0]))
    assert (some["cases"], some["gain"]["value"]) == (1, None)


def test_reports_show_it_where_it_was_measured(tmp_path):
    about = {"policy": {"name": "P"}}
    write_evaluation(tmp_path / "asked", make_scores(TRUST, DICE), about)
    write_evaluation(tmp_path / "not", make_scores([None] * 12, DICE), about)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report_runs([tmp_path / "asked", tmp_path / "not"]))
    text = capture.get()
    assert "AURC" in text
    assert "look at these first: least confidence in asked" in text
    assert "least confidence in not" not in text
    first, second = describe_runs([tmp_path / "asked", tmp_path / "not"])["runs"]
    assert first["confidence"] == describe_confidence(make_scores(TRUST, DICE))
    assert second["confidence"] is None
    with console.capture() as capture:
        console.print(report_runs([tmp_path / "not"]))
    assert "AURC" not in capture.get()
