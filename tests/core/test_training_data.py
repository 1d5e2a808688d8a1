"""What a policy was trained on: kept, joined, bounded, and checked when it is read."""

import json
from pathlib import Path

import numpy as np
import pytest

from medvol.core import training_data
from medvol.core.errors import MedvolError
from medvol.core.training_data import Cases, Stage, TrainingData, read_training_data, write_training_data
from medvol.imaging.geometry import make_volume


def make_data(*queries: str, side: int = 10, modality="CT", stages: tuple[Stage, ...] = ()) -> TrainingData:
    data = TrainingData(stages=stages)
    for query in queries:
        data.meet_query(query)
    data.meet_scan(make_volume(np.zeros((side, side, side), np.float32), (1.0, 1.0, 1.0), modality))
    return data


STAGE = Stage("SFTModule", 3, 0, "0.1", Cases("D", "d 1", "train", 5, 2, True), None, {"dsc": 0.5})


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    data = make_data("the Spleen", "left KIDNEY", stages=(STAGE,))
    write_training_data(tmp_path, data)
    found = read_training_data(tmp_path)
    assert found is not None
    assert found.words == {"the", "spleen", "left", "kidney"}
    assert found.to_dict() == data.to_dict()
    assert found.stages == (STAGE,)
    assert found.ranges["CT"]["height_mm"] == (10, 10)
    assert found.drawn
    assert read_training_data(tmp_path / "nowhere") is None


def test_long_texts_and_scores_that_are_no_numbers_do_not_make_a_file_unreadable(tmp_path: Path) -> None:
    data = make_data("the spleen")
    cases = Cases("D" * 3000, licence="You may use it. " * 200)
    data.add_stage(Stage("M", 3, None, "0.1", cases, cases, {"dsc": float("nan"), "key_slice_score": 0.5}))
    write_training_data(tmp_path, data)
    found = read_training_data(tmp_path)
    assert found is not None
    assert found.stages == data.stages
    ((stage,), kept) = found.stages, found.stages[0].train
    assert kept is not None
    assert kept == stage.val
    assert kept.data_set == "D" * 1999 + "…"
    assert len(kept.licence) == 2000
    assert kept.licence.startswith("You may use it. You may")
    assert stage.scores == {"key_slice_score": 0.5}


def test_joining_keeps_both_and_no_order_counts() -> None:
    first, second = make_data("the spleen", side=10, stages=(STAGE,)), make_data("die Milz", side=30)
    other = make_data(side=7, modality="MR")
    joined = first.join(second).join(other)
    assert joined.words == {"the", "spleen", "die", "milz"}
    assert joined.ranges["CT"]["width_mm"] == (10, 30)
    assert set(joined.ranges) == {"CT", "MR"}
    assert joined.stages == (STAGE,)
    backwards = other.join(second).join(first)
    assert (backwards.words, backwards.ranges) == (joined.words, joined.ranges)
    assert joined.join(joined).to_dict() == joined.to_dict()
    assert first.words == {"the", "spleen"}, "joining changes neither"


def test_more_words_than_are_kept_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "MAX_WORDS", 3)
    data = TrainingData()
    data.meet_query("a b c")
    assert data.words == {"a", "b", "c"}
    data.meet_query("d")
    assert data.words is None
    assert TrainingData({"a"}).join(data).words is None


def test_a_policy_is_drawn_only_when_all_its_stages_are() -> None:
    real = Stage("SFTModule", 1, train=Cases("R"))
    assert TrainingData(stages=(STAGE, STAGE)).drawn
    assert not TrainingData(stages=(STAGE, real)).drawn
    assert not TrainingData(stages=(STAGE, Stage("SFTModule", 1))).drawn
    assert not TrainingData().drawn


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "medvol-training-data/2"}, "schema"),
        ({"words": "spleen"}, "words"),
        ({"words": ["x" * 65]}, "no word"),
        ({"words": [3]}, "no word"),
        ({"words": [""]}, "no word"),
        ({"scans": []}, "scans"),
        ({"scans": {"PET": {}}}, "no modality"),
        ({"scans": {"CT": {"colour": [1, 2]}}}, "no trait"),
        ({"scans": {"CT": {"width_mm": [2, 1]}}}, "no range"),
        ({"scans": {"CT": {"width_mm": [0, 1]}}}, "no range"),
        ({"scans": {"CT": {"width_mm": [1, "2"]}}}, "no range"),
        ({"scans": {"CT": {"width_mm": [True, 2]}}}, "no range"),
        ({"scans": {"CT": {"width_mm": [1, 10**400]}}}, "training"),
        ({"stages": {}}, "stages"),
        ({"stages": [{"module": "M"}]}, "training"),
        ({"stages": [{"module": "M", "steps": -1}]}, "steps"),
        ({"stages": [{"module": "M" * 3000, "steps": 1}]}, "short text"),
        ({"stages": [{"module": "M", "steps": 1, "evil": 1}]}, "other keys"),
        ({"stages": [{"module": "M", "steps": 1, "train": []}]}, "other keys"),
        ({"stages": [{"module": "M", "steps": 1, "scores": {"a|b": 1}}]}, "no score"),
        ({"stages": [{"module": "M", "steps": 1, "scores": {"dsc": "x"}}]}, "no score"),
        ({"stages": [{"module": "M", "steps": 1}] * 200}, "short list"),
    ],
    ids=str,
)
def test_a_file_that_does_not_hold_what_it_should_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    content = {**make_data("x").to_dict(), **change}
    (tmp_path / "training_data.json").write_text(json.dumps(content))
    with pytest.raises(MedvolError, match=words) as caught:
        read_training_data(tmp_path)
    assert "training_data.json" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["", "[", "3", "null", "[]", '{"schema": "medvol-training-data/1"}', "[" * 100_000])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "training_data.json").write_text(text)
    with pytest.raises(MedvolError, match=r"training_data\.json"):
        read_training_data(tmp_path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "training_data.json").open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(MedvolError, match="20000000 bytes"):
        read_training_data(tmp_path)
