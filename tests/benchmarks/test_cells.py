"""Cells of the benchmarks' tables: what is kept, and the differences worked out from it."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "cells", raising=False)
    import cells

    return cells


def make(cells, row, seed, shift=0.0):
    """Two patients, two targets; held-out phrasings score 0.1 less."""
    dsc = {
        patient: {
            target: {"seen": score + shift, "held_out": score + shift - 0.1}
            for target, score in (("liver", 0.8), ("spleen", own))
        }
        for patient, own in (("a", 0.4), ("b", 0.6))
    }
    return cells.Cell(row, seed, 10, 1.5, {"format_rate": 1.0, "key_slice": 0.5, "box_iou": 0.25}, dsc)


def test_a_cell_is_read_as_it_was_written(cells, tmp_path):
    cell = make(cells, "sft", 1)
    cells.write_cell(cell, tmp_path / "kept")
    assert cells.read_cells(tmp_path / "kept") == {"sft": {1: cell}}


def test_means_are_over_patients_targets_and_seeds(cells):
    both = [make(cells, "sft", 0), make(cells, "sft", 1, shift=0.1)]
    # (0.8 + 0.4 + 0.8 + 0.6) / 4 is 0.65; the second seed scores 0.1 more.
    assert cells.mean_interval(both, "seen")["mean"] == pytest.approx(0.7)
    assert cells.mean_interval(both, "held_out", "liver")["mean"] == pytest.approx(0.75)
    assert cells.mean_interval(both[:1], "seen", "spleen")["mean"] == pytest.approx(0.5)


def test_differences_are_in_points_over_the_seeds_of_both(cells):
    before = [make(cells, "sft", seed) for seed in (0, 1, 2)]
    after = [make(cells, "sft_grpo", 0, 0.02), make(cells, "sft_grpo", 2, 0.04)]
    found = cells.difference(before, after, "held_out")
    assert found["by_seed"] == [2.0, 4.0]
    assert found["mean"] == pytest.approx(3.0)
    assert found["low"] <= 3.0 <= found["high"]


def test_an_interval_of_one_patient_is_not_shown(cells):
    assert cells.show({"mean": 0.5, "low": None, "high": None}) == "0.500"
    assert cells.show({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"


def test_the_miniature_is_summed_up_and_drawn(cells, tmp_path):
    program = runpy.run_path(str(BENCHMARKS / "miniature.py"))
    rows = {"sft": 0.0, "sft_clean": 0.05, "sft_grpo": 0.03, "clean_more": 0.06, "clean_dice": 0.08}
    rows |= {"longest_same": 0.09, "longest_dice": 0.05}
    kept = {name: {seed: make(cells, name, seed, shift) for seed in (0, 1)} for name, shift in rows.items()}
    summary = program["summarise"](kept)
    assert summary["grpo_minus_sft"]["mean"] == pytest.approx(3.0)
    assert summary["grpo_minus_clean_more"]["mean"] == pytest.approx(2.0)
    assert summary["grpo_minus_best_sft"]["mean"] == pytest.approx(-4.0)
    assert summary["rows"]["sft_grpo"]["targets"]["liver"]["held_out"] == pytest.approx(0.73)
    program["plot"](summary, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_no_patient_is_tested_twice_or_also_trained_on(cells):
    program = runpy.run_path(str(BENCHMARKS / "real_patients.py"))
    tested = []
    for fold in range(5):
        train, val, test = program["split"](fold)
        assert not {*train} & {*val, *test}
        assert not {*val} & {*test}
        assert sorted([*train, *val, *test]) == program["patients"]()
        tested += test
    assert sorted(tested) == program["patients"]()


def test_rows_without_a_fold_in_common_are_not_compared(cells):
    program = runpy.run_path(str(BENCHMARKS / "real_patients.py"))
    kept = {
        "plateau_sft": {0: make(cells, "plateau_sft", 0, 0.0)},
        "plateau_grpo": {1: make(cells, "plateau_grpo", 1, 0.1)},
    }
    summary = program["summarise"](kept, {"plateau": {1: make(cells, "plateau", 1, 0.02)}})
    assert not [name for name in summary if "_minus_" in name]
    kept["plateau_rejection"] = {1: make(cells, "plateau_rejection", 1, 0.05)}
    summary = program["summarise"](kept, {"plateau": {1: make(cells, "plateau", 1, 0.02)}})
    assert summary["plateau_rejection_minus_own_plateau"]["mean"] == pytest.approx(3.0)
    assert summary["plateau_grpo_minus_rejection"]["mean"] == pytest.approx(5.0)
