"""The finite setting: what is asked, and what is made of the scores."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medvol.datasets.phantom import TARGETS
from medvol.queries.query_bank import QueryBank

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def finite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "finite_cells", raising=False)
    import finite_cells

    return finite_cells


@pytest.fixture
def questions(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "finite_questions", raising=False)
    import finite_questions

    return finite_questions


@pytest.fixture
def few(questions):
    return questions.Setting(16, 4, "paper")


def words(bank, held_out):
    return {word for text in bank.texts(held_out) for word in text.split()}


def test_every_target_has_twelve_heard_and_six_held_out_phrasings():
    bank = QueryBank.load(BENCHMARKS / "finite_queries.yaml")
    for target in TARGETS:
        heard, held_out = ([q.text for q in bank.phrasings(target, use, "CT")] for use in (False, True))
        assert (len(heard), len(held_out)) == (12, 6), target
        assert not set(heard) & set(held_out)


def test_the_base_knows_every_word():
    bank, known = QueryBank.load(BENCHMARKS / "finite_queries.yaml"), words(QueryBank.load(), False)
    ours = {word for target in TARGETS for query in bank.phrasings(target, None, "CT") for word in query.text.split()}
    before = {word for target in TARGETS for query in QueryBank.load().phrasings(target) for word in query.text.split()}
    assert ours - before <= known


def test_training_repeats_few_phrasings_of_each_target(questions, few):
    cases = questions.training_cases(replace(few, volumes=3), 0)
    heard = {}
    for index in range(len(cases)):
        query = cases.cases.query(cases.places[index])
        assert not query.held_out
        heard.setdefault(query.target, set()).add(query.text)
    assert {len(texts) for texts in heard.values()} == {4}
    assert set(heard) == set(TARGETS)
    assert len({cases.volume_key(index) for index in range(len(cases))}) == 3
    other = questions.training_cases(replace(few, volumes=3), 1)
    assert {other.cases.query(i).text for i in other.places} != set().union(*heard.values())


def test_tests_ask_heard_and_held_out_phrasings_by_turns(questions, few):
    cases = questions.other_cases("test", few, 0, 24)
    trained = questions.training_cases(replace(few, volumes=1), 0)
    heard = {trained.cases.query(place).text for place in trained.places}
    asked = [(cases.volume_key(i), cases.cases.query(cases.places[i])) for i in range(len(cases))]
    assert len({(key, query.target) for key, query in asked}) == len(asked)
    assert {query.text for _, query in asked if not query.held_out} <= heard
    held_out = {query.text for _, query in asked if query.held_out and query.target == "liver"}
    assert len(held_out) == 6
    assert abs(sum(query.held_out for _, query in asked) - len(asked) / 2) <= len(asked) * 0.02
    assert cases[5].query == asked[5][1]


def make(finite, row, seed, gain=0.0):
    dsc = {
        phrasing: {"liver": {"the liver": {"0": 0.5 + gain, "2": 0.7 + gain}, "it": {"1": 0.4 + lower + gain}}}
        for phrasing, lower in (("seen", 0.1), ("held_out", 0.0))
    }
    means = {"format_rate": 1.0, "key_slice": 0.5, "box_iou": 0.25}
    return finite.FiniteCell("16x4", row, seed, 10, 1.5, [[40, 0.5]], means, dsc)


def test_differences_are_paired_by_question(finite):
    first = {seed: make(finite, "more_sft", seed) for seed in (0, 1)}
    second = {seed: make(finite, "grpo", seed, 0.02 + 0.02 * seed) for seed in (0, 1, 2)}
    found = finite.difference(first, second, "held_out")
    assert found["mean"] == pytest.approx(3.0)
    assert found["by_seed"] == [2.0, 4.0]
    assert found["low"] < 0 < found["high"]  # two seeds that differ say little


def test_the_best_sft_is_what_grpo_is_compared_with(finite, tmp_path, capsys):
    rows = {"plateau": 0.0, "more_sft": -0.05, "gentle_sft": 0.01, "grpo": 0.03, "rejection": 0.02, "grpo_16": 0.05}
    weak = {**rows, "plateau": -0.1, "gentle_sft": -0.1}
    cells = {
        name: {row: {seed: make(finite, row, seed, gain) for seed in (0, 1)} for row, gain in gains.items()}
        for name, gains in (("16x4", rows), ("16x4-any", weak))
    }
    summary = finite.summarise(cells)
    assert finite.best_difference(summary) == {
        "mean": pytest.approx(2.0),
        "low": pytest.approx(2.0),
        "high": pytest.approx(2.0),
        "by_seed": [2.0, 2.0],
        "setting": "16x4",
    }
    assert summary["settings"]["16x4-any"]["grpo_minus_gentle_sft"]["mean"] == pytest.approx(13.0)
    assert summary["settings"]["16x4"]["grpo_16_minus_grpo"]["by_seed"] == [2.0, 2.0]
    finite.print_tables(summary)
    assert "| plateau + GRPO | 0, 1 |" in capsys.readouterr().out
    del cells["16x4"]["more_sft"]
    assert finite.best_difference(finite.summarise(cells)) is None


def test_cells_are_read_as_they_were_written(finite, tmp_path):
    from dataclasses import asdict

    from medvol.core.json_file import write_json

    cell = make(finite, "grpo", 1)
    write_json(tmp_path / "16x4-grpo-1.json", asdict(cell))
    assert finite.read_cells(tmp_path) == {"16x4": {"grpo": {1: cell}}}
