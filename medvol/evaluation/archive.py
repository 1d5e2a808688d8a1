"""The two files of an evaluation: ``cases.json`` (every case) and ``evaluation.json`` (means, intervals, identity)."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from medvol.core.atomic_files import delete_leftovers, write_together
from medvol.core.errors import RecordError
from medvol.core.json_file import read_json, require_few_values, to_json, write_json
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.error_budget import ErrorBudget
from medvol.evaluation.lesions import LesionScore
from medvol.evaluation.run_files import CASES_FILE, MASKS_FOLDER, SCHEMA, SUMMARY_FILE
from medvol.evaluation.summary import summarise

if TYPE_CHECKING:
    from medvol.evaluation.kept_masks import KeptMasks

_MAX_BYTES = 2_000_000_000
_MAX_VALUES = 25_000_000
"""Of ``cases.json``: half a million cases have as many."""

Record = TypeVar("Record")

_PARTS: dict[str, type[Any]] = {"budget": ErrorBudget, "lesions": LesionScore}

_SHARE, _AMOUNT = (0.0, 1.0), (0.0, math.inf)

_RANGES: dict[type[Any], dict[str, tuple[float, float]]] = {
    CaseScore: {
        **dict.fromkeys(("dsc", "iou", "nsd", "key_slice_score", "box_iou", "confidence"), _SHARE),
        **dict.fromkeys(("tolerance_mm", "hd95_mm", "mask_ml", "true_ml", "key_slice"), _AMOUNT),
        "max_anchors": (1, math.inf),
    },
    ErrorBudget: dict.fromkeys(("true_anchor", "true_boxes", "predicted", "best_slice", "best_anchor"), _SHARE),
    LesionScore: {
        **dict.fromkeys(("hit", "precision", "recall", "f1", "dice", "panoptic"), _SHARE),
        **dict.fromkeys(("predicted", "found"), _AMOUNT),
        "true": (1, math.inf),
    },
}
"""Least and largest value of numbers of a case."""

_ORIGIN = "`medvol test` writes it into the run's folder"
_REMEDY = "run the test again"
_PACKAGES = ("medvol-r1", "lightning", "numpy", "scipy", "torch", "transformers")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation read back.

    Args:
        folder: Where it was read.
        summary: Content of ``evaluation.json``.
        scores: Content of ``cases.json``.
    """

    folder: Path
    summary: Mapping[str, Any]
    scores: tuple[CaseScore, ...]


def write_evaluation(
    folder: Path,
    scores: Sequence[CaseScore],
    about: Mapping[str, Any],
    seed: int = 0,
    masks: KeptMasks | None = None,
    beside: Mapping[str, str] | None = None,
) -> Path:
    """Write all that belongs to an evaluation together: nothing takes its place before the rest is written.

    No other evaluation may be written into the folder meanwhile: ``KeptMasks`` keeps others out.

    Args:
        folder: Created when it does not exist; earlier results in it are replaced.
        scores: Scores of all cases.
        about: Identity of what was evaluated, as plain values.
        seed: Seed of the bootstrap.
        masks: The masks that were scored, which replace those in the folder; None leaves these.
        beside: Further texts by their file names.

    Returns:
        Path of ``evaluation.json``, written last.

    Raises:
        RecordError: There are more cases than could be read back.
    """
    summary = {
        "schema": SCHEMA,
        **about,
        "bootstrap_seed": seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        **summarise(scores, seed),
    }
    delete_leftovers(folder, SUMMARY_FILE)
    with write_together(folder, last=SUMMARY_FILE, replaced=() if masks is None else (MASKS_FOLDER,)) as place:
        (place / CASES_FILE).write_bytes(_to_readable_json(scores))
        write_json(place / SUMMARY_FILE, summary)
        for name, text in (beside or {}).items():
            (place / name).write_text(text, encoding="utf-8")
        if masks is not None:
            masks.hand_over(place)
    return folder / SUMMARY_FILE


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read what ``write_evaluation`` wrote; means and intervals are worked out again from the cases.

    Raises:
        RecordError: A file is missing, damaged, or of another version, or a case comes twice.
    """
    folder = Path(folder)
    about = read_json(folder / SUMMARY_FILE, _ORIGIN, _REMEDY)
    if not _is_summary(about):
        raise RecordError(
            f"{folder / SUMMARY_FILE} is not an evaluation of this version ({SCHEMA}); run the test again"
        )
    rows = read_json(folder / CASES_FILE, _ORIGIN, _REMEDY, _MAX_BYTES, _MAX_VALUES)
    if not isinstance(rows, list) or not rows:
        raise RecordError(f"{folder / CASES_FILE} holds no list of cases; run the test again")
    scores = tuple(_read_score(row, folder / CASES_FILE) for row in rows)
    repeated, count = Counter(score.case_id for score in scores).most_common(1)[0]
    if count > 1:
        raise RecordError(f"{folder / CASES_FILE} has case {repeated!r} {count} times; run the test again")
    return Evaluation(folder, {**about, **summarise(scores, about["bootstrap_seed"])}, scores)


def about_run(evaluation: Evaluation) -> dict[str, Any]:
    """What ``write_evaluation`` was told about a run, to write it again.

    Raises:
        RecordError: The run does not say with which settings it was scored.
    """
    computed = {"schema", "bootstrap_seed", "versions", *summarise(evaluation.scores[:1])}
    about = {key: value for key, value in evaluation.summary.items() if key not in computed}
    if not isinstance(about.get("settings"), dict):
        raise RecordError(f"{evaluation.folder} does not say with which settings it was scored; run the test again")
    return about


def _to_readable_json(scores: Sequence[CaseScore]) -> bytes:
    data = to_json([asdict(score) for score in scores])
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it has {len(data)} bytes, more than {_MAX_BYTES}")
        require_few_values(data.decode(), _MAX_VALUES)
    except ValueError as error:
        raise RecordError(
            f"{CASES_FILE} of {len(scores)} cases could not be read back ({error}); test fewer cases at a time"
        ) from error
    return data


def _is_summary(about: Any) -> bool:
    """Whether a summary is of this version, and what others read from it has the kind that they expect."""
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        return False
    seed = about.get("bootstrap_seed")
    groups = [about[name] for name in ("settings", "data", "predictions") if name in about]
    return type(seed) is int and seed >= 0 and all(isinstance(group, dict) for group in groups)


def _read_score(row: Any, path: Path) -> CaseScore:
    try:
        fields = {**row}
        for name, kind in _PARTS.items():
            if fields.get(name) is not None:
                fields[name] = _build(kind, fields[name])
        score = _build(CaseScore, fields)
        if score.rewards is not None:
            _require_rewards(score.rewards)
        return score
    except (TypeError, KeyError, OverflowError) as error:
        raise RecordError(f"{path} holds a case that cannot be read ({error}); run the test again") from error


def _require_rewards(rewards: Mapping[str, float]) -> None:
    """Each term, a plug-in's too, pays a share; ``total`` is their sum by weights of at least 0.

    Raises:
        TypeError: There is no total, or a value is none that can be.
    """
    if "total" not in rewards:
        raise TypeError(f"rewards have no total: {dict(rewards)!r:.80}")
    for name, value in rewards.items():
        _require_within(f"rewards.{name}", value, *(_AMOUNT if name == "total" else _SHARE))


def _require_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise TypeError(f"{name} is {value!r:.80}")


def _build(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Make a dataclass whose fields have the types they declare.

    Raises:
        TypeError: A field is missing, unknown, of another type, or none that can be.
    """
    record = kind(**values)
    for name, limits in _RANGES[kind].items():
        value = getattr(record, name)
        if isinstance(value, int | float):
            _require_within(name, value, *limits)
    for name, expected in get_type_hints(kind).items():
        value = getattr(record, name)
        if not any(_is_of(value, one) for one in get_args(expected) or (expected,)):
            raise TypeError(f"{name} is {value!r:.80}")
    return record


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type, a whole number being a float too, a list of such, or scores by name.

    Floats are finite, and a truth value is no number.
    """
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_of(one, *get_args(kind)) for one in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is_of(one, float) for one in value.values())
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
