"""The benchmark of unheard words: its phrasings are what they are said to be, its probe is exact, its rows run."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from medvol.core.words import split_words
from medvol.queries.query_bank import QueryBank

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = {"kidney", "kidneys", "left", "right"}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("cells", "peers", "word_readers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(BENCHMARKS / "unheard_words.py"))


def test_the_phrasings_of_choices_and_of_the_test_have_nothing_in_common(program: dict) -> None:
    texts = [{text for own in program["unheard_texts"](split).values() for text in own} for split in ("val", "test")]
    assert not texts[0] & texts[1]
    assert [len(own) for own in texts] == [96, 60]


def test_nearly_every_phrasing_has_a_word_that_no_training_phrasing_of_the_targets_has(program: dict) -> None:
    bank = QueryBank.load()
    for split in ("val", "test"):
        unheard = program["unheard_texts"](split)
        met = {
            word for target in unheard for query in bank.phrasings(target, False) for word in split_words(query.text)
        }
        texts = [text for own in unheard.values() for text in own]
        new = [text for text in texts if {*split_words(text)} - met - NAMES]
        assert len(new) >= 0.95 * len(texts), {*texts} - {*new}
    assert all({*split_words(query.text)} <= met for target in unheard for query in bank.phrasings(target, True))


def test_the_probe_leaves_out_one_phrasing_at_a_time(program: dict) -> None:
    """Compared with as many regressions, each fitted without one row; names far apart are read without a fault."""
    rng = np.random.default_rng(0)
    targets = np.array(["a", "b", "c"] * 6)
    features = rng.normal(size=(18, 5)) + 4 * np.eye(3, 5)[[0, 1, 2] * 6]
    known = np.arange(18) < 12
    error, read = program["probe"](features, targets, known)
    assert (read[~known] == targets[~known]).all()
    rows = features[known]
    rows = (rows - rows.mean(0)) / rows.std(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = (targets[known][:, None] == ["a", "b", "c"]).astype(float)
    truth -= truth.mean(0)
    errors = []
    for penalty in program["PENALTIES"]:
        left_out = []
        for i in range(12):
            others = np.arange(12) != i
            fitted = np.linalg.solve(
                rows[others].T @ rows[others] + penalty * np.eye(5), rows[others].T @ truth[others]
            )
            left_out.append((rows[i] @ fitted - truth[i]) ** 2)
        errors.append(np.mean(left_out))
    assert error == pytest.approx(min(errors))


def test_a_bag_of_words_counts_the_words_of_training_and_no_others(program: dict) -> None:
    counts = sys.modules["word_readers"].count_words(["the liver", "the spleen the", "the thymus"], np.array([1, 1, 0]))
    often, rare = np.log(1 + 2 / 2), np.log(1 + 2 / 1)  # columns: liver, spleen, the
    np.testing.assert_allclose(counts, [[rare, 0, often], [0, rare, 2 * often], [0, 0, often]])


def test_the_committed_table_is_that_of_the_committed_cells(program: dict) -> None:
    cells = sys.modules["cells"].read_cells(program["KEPT"])
    assert {"own", "words"} <= cells.keys()
    assert json.loads(json.dumps(program["summarise"](cells))) == json.loads(program["SUMMARY"].read_text())


@pytest.mark.slow
def test_the_name_of_a_target_is_understood_where_unheard_words_are_not(
    program: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["answer", "--quick", "--rows", "own", "named", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["unheard_words.py", *arguments])
    program["main"]()
    cells = sys.modules["cells"].read_cells(tmp_path / "quick" / "test" / "cells")
    found = sys.modules["cells"].mean_interval
    own, named = (found([cells[row][0]], "unheard")["mean"] for row in ("own", "named"))
    assert named > own + 0.2
