"""TrainingData: what a policy was trained on, kept beside its weights, so that an answer can say what was new to it.

A model folder and a checkpoint hold the same plain values: the words of the training queries, the range of each trait
of the training scans by modality, and the runs that trained the policy. The file holds no scan, no path and no query
as a whole; it does hold every word of the queries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from medvol.core.bundled import model_folder
from medvol.core.errors import CheckpointError
from medvol.core.json_file import read_json, write_json
from medvol.core.traits import TRAITS, measure_traits
from medvol.core.types import Modality, Volume
from medvol.core.words import MAX_LETTERS, split_words

TRAINING_DATA_FILE = "training_data.json"
"""Name of the file in a model folder."""

SCHEMA = "medvol-training-data/1"
"""Version of its layout."""

MAX_WORDS = 100_000
"""With more words than these none are kept, and words are not judged."""

_MAX_BYTES = 16_000_000
_MAX_STAGES = 100
_MAX_TEXT = 2000
_SHOWN = 80
_REMEDY = "export the model again with `medvol convert`"

Range = tuple[float, float]


@dataclass(frozen=True)
class Cases:
    """A data set in a few words.

    Args:
        data_set: Its class.
        distribution: Who publishes it.
        split: Its own name for the part that it is; empty when it has none.
        cases: Queries.
        volumes: Scans.
        drawn: True when its scans are drawn by a program and not of people.
        licence: Terms of the data, as whoever publishes it states them; empty where they are not known.
        patients: Patients that the scans are of or were made from; 0 where that is not known, or a program draws all.
    """

    data_set: str
    distribution: str = ""
    split: str = ""
    cases: int = 0
    volumes: int = 0
    drawn: bool = False
    licence: str = ""
    patients: int = 0


@dataclass(frozen=True)
class Stage:
    """One run that trained a policy.

    Args:
        module: Class of the module, such as ``SFTModule``.
        steps: Optimiser steps.
        seed: Of the run; None when none was set.
        medvol: Version.
        train: What it learned from; None when it was not a ``CaseDataModule``.
        val: What it was validated on; None when nothing was, or it is not known.
        scores: Last means of its validation; empty without one.
    """

    module: str
    steps: int
    seed: int | None = None
    medvol: str = ""
    train: Cases | None = None
    val: Cases | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class TrainingData:
    """What a policy was trained on; it grows while it is.

    Args:
        words: Every word of the training queries, see ``split_words``; None when there were more than ``MAX_WORDS``.
        ranges: For each modality of the training scans, the least and the largest value of each trait, see ``TRAITS``.
        stages: The runs that trained it, first to last.
    """

    words: set[str] | None = field(default_factory=set)
    ranges: dict[str, dict[str, Range]] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    @property
    def drawn(self) -> bool:
        """True when all scans of all stages were drawn by a program."""
        return bool(self.stages) and all(stage.train is not None and stage.train.drawn for stage in self.stages)

    @property
    def patients(self) -> int:
        """Patients of the stage that learned from most of them; 0 where that is not known."""
        return max((stage.train.patients for stage in self.stages if stage.train is not None), default=0)

    def meet_query(self, text: str) -> None:
        """Add the words of a training query."""
        self._add_words(split_words(text))

    def meet_scan(self, volume: Volume) -> None:
        """Widen the ranges to a training scan."""
        traits = measure_traits(volume)
        self._widen(volume.modality, {name: (value, value) for name, value in traits.items()})

    def add_stage(self, stage: Stage) -> None:
        """Add the latest run that trained the policy; texts are cut to what is read back, scores are numbers."""
        stage = replace(
            _cut_texts(stage),
            train=None if stage.train is None else _cut_texts(stage.train),
            val=None if stage.val is None else _cut_texts(stage.val),
            scores={name: score for name, score in stage.scores.items() if math.isfinite(score)},
        )
        self.stages = (*self.stages, stage)[-_MAX_STAGES:]

    def join(self, other: TrainingData) -> TrainingData:
        """A new one that knows the words and scans of both, and the stages of this one."""
        joined = TrainingData(stages=self.stages)
        for part in (self, other):
            joined._add_words(part.words)
            for modality, ranges in part.ranges.items():
                joined._widen(modality, ranges)
        return joined

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file or a checkpoint; equal knowledge gives equal values."""
        return {
            "schema": SCHEMA,
            "stages": [asdict(stage) for stage in self.stages],
            "scans": {
                modality: {name: list(self.ranges[modality][name]) for name in sorted(self.ranges[modality])}
                for modality in sorted(self.ranges)
            },
            "words": None if self.words is None else sorted(self.words),
        }

    @classmethod
    def from_dict(cls, content: Any, where: str) -> TrainingData:
        """Check and rebuild what ``to_dict`` gave.

        Args:
            content: Plain values.
            where: What holds them, for the message.

        Raises:
            CheckpointError: A part is missing, unknown, of the wrong type, or out of its bounds.
        """
        try:
            _require(isinstance(content, dict) and content.get("schema") == SCHEMA, f"schema is not {SCHEMA!r}")
            stages, scans, words = content["stages"], content["scans"], content["words"]
            _require(isinstance(stages, list) and len(stages) <= _MAX_STAGES, "stages is not a short list")
            _require(isinstance(scans, dict), "scans is not an object")
            ranges = {_modality(name): _read_ranges(found) for name, found in scans.items()}
            return cls(_read_words(words), ranges, tuple(map(_read_stage, stages)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"{where} does not tell what a policy was trained on: {reason}; {_REMEDY}") from error

    def _add_words(self, words: Iterable[str] | None) -> None:
        if words is None or self.words is None:
            self.words = None
        else:
            self.words.update(words)
            self.words = self.words if len(self.words) <= MAX_WORDS else None

    def _widen(self, modality: str, ranges: Mapping[str, Range]) -> None:
        known = self.ranges.setdefault(modality, {})
        for name, (low, high) in ranges.items():
            before = known.get(name, (low, high))
            known[name] = (min(before[0], low), max(before[1], high))


def write_training_data(folder: Path, data: TrainingData) -> None:
    """Write the file of a model folder."""
    write_json(folder / TRAINING_DATA_FILE, data.to_dict())


def read_training_data(model: str | Path) -> TrainingData | None:
    """Read the file of a model folder, or of a bundled model; None when it has none.

    Raises:
        CheckpointError: It is there and does not hold what it should.
        RecordError: It is not JSON.
    """
    path = model_folder(model) / TRAINING_DATA_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, and at most {_MAX_BYTES} are read; {_REMEDY}")
    return TrainingData.from_dict(read_json(path, "medvol fit writes it", _REMEDY), str(path))


_Told = TypeVar("_Told", Stage, Cases)


def _cut_texts(told: _Told) -> _Told:
    """Those of a data set that was published elsewhere may be of any length, such as the whole text of its licence."""
    long = {name: value for name, value in vars(told).items() if isinstance(value, str) and len(value) > _MAX_TEXT}
    cut: dict[str, Any] = {name: f"{value[: _MAX_TEXT - 1]}…" for name, value in long.items()}
    return replace(told, **cut)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _modality(name: Any) -> str:
    _require(name in get_args(Modality), f"{str(name)[:_SHOWN]!r} is no modality")
    return str(name)


def _read_words(words: Any) -> set[str] | None:
    if words is None:
        return None
    _require(isinstance(words, list) and len(words) <= MAX_WORDS, f"words is not a list of at most {MAX_WORDS}")
    for word in words:
        _require(isinstance(word, str) and 0 < len(word) <= MAX_LETTERS, f"{str(word)[:_SHOWN]!r} is no word")
    return set(words)


def _read_ranges(found: Any) -> dict[str, Range]:
    _require(isinstance(found, dict), "the ranges of a modality are not an object")
    ranges: dict[str, Range] = {}
    for name, pair in found.items():
        _require(name in TRAITS, f"{str(name)[:_SHOWN]!r} is no trait of a scan")
        _require(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)), f"{name} is no range")
        least = 1e-6 if TRAITS[name].unit == "mm" else 0.0
        _require(least <= pair[0] <= pair[1], f"{name} is no range")
        ranges[name] = (float(pair[0]), float(pair[1]))
    return ranges


def _read_stage(found: Any) -> Stage:
    values = _read_fields(Stage, found)
    for part in ("train", "val"):
        if values.get(part) is not None:
            values[part] = Cases(**_read_fields(Cases, values[part]))
    scores = values.get("scores", {})
    _require(isinstance(scores, dict) and len(scores) <= _MAX_STAGES, "scores is not an object")
    for name, score in scores.items():
        sound = _is_number(score) and re.fullmatch(r"[\w/ -]{1,80}", name) is not None
        _require(sound, f"{name[:_SHOWN]!r} is no score")
    return Stage(**values)


def _read_fields(kind: type, found: Any) -> dict[str, Any]:
    """Values of a dataclass's fields, each of the type of its default or its name's kind."""
    _require(
        isinstance(found, dict) and set(found) <= {f.name for f in fields(kind)}, f"{kind.__name__} has other keys"
    )
    for name, value in found.items():
        if name in ("steps", "cases", "volumes", "patients"):
            _require(type(value) is int and value >= 0, f"{name} is no count")
        elif name == "seed":
            _require(value is None or type(value) is int, "seed is no number")
        elif name == "drawn":
            _require(isinstance(value, bool), "drawn is not true or false")
        elif name not in ("train", "val", "scores"):
            _require(isinstance(value, str) and len(value) <= _MAX_TEXT, f"{name} is no short text")
    return dict(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
